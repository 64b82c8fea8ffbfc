import django.db.models.deletion
import django.db.models.functions.comparison
import zndraw_joblib.storage.clock
import zndraw_joblib.storage.fields
import zndraw_joblib.storage.ids
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='FailureGroup',
            fields=[
                ('id', models.CharField(editable=False, max_length=32, primary_key=True, serialize=False, verbose_name='id')),
                ('job_id', models.UUIDField(verbose_name='job')),
                ('error', models.TextField(help_text='With # for numbers and ids.', verbose_name='error')),
                ('count', models.PositiveBigIntegerField(verbose_name='number')),
                ('first_at', models.DateTimeField(verbose_name='first')),
                ('last_at', models.DateTimeField(db_index=True, verbose_name='last')),
                ('example', models.UUIDField(help_text='The task that failed last.', verbose_name='example')),
            ],
            options={
                'verbose_name': 'failures with one error',
                'verbose_name_plural': 'failures by error',
            },
        ),
        migrations.CreateModel(
            name='JobGauge',
            fields=[
                ('job_id', models.UUIDField(primary_key=True, serialize=False, verbose_name='job')),
                ('pending', models.PositiveBigIntegerField(help_text='Tasks that are due.', verbose_name='pending')),
                ('scheduled', models.PositiveBigIntegerField(help_text='Tasks due later.', verbose_name='scheduled')),
                ('claimed', models.PositiveBigIntegerField(verbose_name='claimed')),
                ('running', models.PositiveBigIntegerField(verbose_name='running')),
                ('oldest_due_at', models.DateTimeField(null=True, verbose_name='oldest unclaimed task')),
            ],
            options={
                'verbose_name': 'unfinished tasks of a job',
                'verbose_name_plural': 'unfinished tasks of jobs',
            },
        ),
        migrations.CreateModel(
            name='StatisticsState',
            fields=[
                ('id', models.PositiveSmallIntegerField(default=1, editable=False, primary_key=True, serialize=False)),
                ('since', models.DateTimeField(null=True)),
                ('ended_until', models.DateTimeField(help_text='Tasks that ended before are counted.', null=True)),
                ('submitted_after', models.UUIDField(help_text='The last task whose submit is counted.', null=True)),
                ('sampled_at', models.DateTimeField(help_text='The last count of the backlogs.', null=True)),
                ('sample_seconds', models.FloatField(default=0, help_text='Seconds that this count took.')),
            ],
            options={
                'verbose_name': 'state of the statistics',
                'verbose_name_plural': 'states of the statistics',
            },
        ),
        migrations.CreateModel(
            name='SweeperPass',
            fields=[
                ('id', models.PositiveSmallIntegerField(default=1, editable=False, primary_key=True, serialize=False)),
                ('ended_at', models.DateTimeField(verbose_name='ended at')),
                ('seconds', models.FloatField(help_text='Seconds.', verbose_name='duration')),
                ('numbers', zndraw_joblib.storage.fields.OrderedJSONField(default=dict, verbose_name='numbers')),
            ],
            options={
                'verbose_name': 'pass of the sweeper',
                'verbose_name_plural': 'passes of the sweeper',
            },
        ),
        migrations.CreateModel(
            name='JobInterval',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('job_id', models.UUIDField(verbose_name='job')),
                ('seconds', models.PositiveIntegerField(help_text='Seconds.', verbose_name='length')),
                ('begins_at', models.DateTimeField(verbose_name='begins at')),
                ('submitted', models.PositiveBigIntegerField(default=0, verbose_name='submitted')),
                ('completed', models.PositiveBigIntegerField(default=0, verbose_name='completed')),
                ('failed', models.PositiveBigIntegerField(default=0, verbose_name='failed')),
                ('cancelled', models.PositiveBigIntegerField(default=0, verbose_name='cancelled')),
                ('attempts', models.PositiveBigIntegerField(default=0, help_text='Attempts of the tasks that ended.', verbose_name='attempts')),
                ('delays', zndraw_joblib.storage.fields.OrderedJSONField(default=dict, verbose_name='queue delays')),
                ('run_times', zndraw_joblib.storage.fields.OrderedJSONField(default=dict, verbose_name='run times')),
                ('pending', models.PositiveBigIntegerField(help_text='The most due tasks that a pass found.', null=True, verbose_name='pending')),
                ('running', models.PositiveBigIntegerField(help_text='The most claimed and running tasks.', null=True, verbose_name='running')),
            ],
            options={
                'verbose_name': 'statistics of an interval',
                'verbose_name_plural': 'dashboard',
                'constraints': [models.UniqueConstraint(fields=('seconds', 'begins_at', 'job_id'), name='joblib_interval_unique')],
            },
        ),
        migrations.CreateModel(
            name='FailedTask',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('task_id', models.UUIDField(unique=True, verbose_name='task')),
                ('group', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='tasks', to='zndraw_joblib.failuregroup')),
            ],
            options={
                'verbose_name': 'failed task',
                'verbose_name_plural': 'failed tasks',
                'indexes': [models.Index(fields=['group', 'id'], name='joblib_failed_group')],
            },
        ),
        migrations.CreateModel(
            name='FileToDelete',
            fields=[
                ('path', models.CharField(max_length=255, primary_key=True, serialize=False, verbose_name='path')),
                ('due_at', models.DateTimeField(db_default=zndraw_joblib.storage.clock.Now(), db_index=True, verbose_name='due at')),
            ],
            options={
                'verbose_name': 'file to delete',
                'verbose_name_plural': 'files to delete',
            },
        ),
        migrations.CreateModel(
            name='RoomBacklog',
            fields=[
                ('room_id', models.CharField(max_length=128, primary_key=True, serialize=False, verbose_name='room')),
                ('limit', models.PositiveIntegerField(help_text='Limit of the room at the last count.', verbose_name='limit')),
                ('places', models.PositiveIntegerField(default=0, verbose_name='free places')),
                ('full_at', models.DateTimeField(null=True, verbose_name='full since')),
            ],
            options={
                'verbose_name': 'backlog of a room',
                'verbose_name_plural': 'backlogs of rooms',
            },
        ),
        migrations.CreateModel(
            name='SavedFilter',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('owner', models.CharField(max_length=255, verbose_name='owner')),
                ('list_name', models.CharField(max_length=32, verbose_name='list')),
                ('name', models.CharField(max_length=60, verbose_name='name')),
                ('query', models.CharField(max_length=2000, verbose_name='query')),
            ],
            options={
                'verbose_name': 'saved filter',
                'verbose_name_plural': 'saved filters',
                'ordering': ('name',),
                'default_permissions': (),
                'constraints': [models.UniqueConstraint(fields=('owner', 'list_name', 'name'), name='joblib_saved_filter_unique')],
            },
        ),
        migrations.CreateModel(
            name='Worker',
            fields=[
                ('id', models.CharField(default=zndraw_joblib.storage.ids.new_worker_id, editable=False, max_length=255, primary_key=True, serialize=False, verbose_name='id')),
                ('identity', models.CharField(help_text='Identity of the owner, as the hook `identity` returns it.', max_length=255, verbose_name='identity')),
                ('created_at', models.DateTimeField(db_default=zndraw_joblib.storage.clock.Now(), editable=False, verbose_name='created at')),
                ('last_heartbeat', models.DateTimeField(db_default=zndraw_joblib.storage.clock.Now(), editable=False, verbose_name='last heartbeat')),
            ],
            options={
                'verbose_name': 'worker',
                'verbose_name_plural': 'workers',
                'ordering': ('-created_at', '-id'),
            },
        ),
        migrations.CreateModel(
            name='Job',
            fields=[
                ('id', models.UUIDField(default=zndraw_joblib.storage.ids.new_id, editable=False, primary_key=True, serialize=False, verbose_name='id')),
                ('room_id', models.CharField(max_length=128, verbose_name='room')),
                ('category', models.CharField(max_length=128, verbose_name='category')),
                ('name', models.CharField(max_length=128, verbose_name='name')),
                ('schema', zndraw_joblib.storage.fields.OrderedJSONField(help_text='JSON Schema of a payload: draft 2020-12, or 2019-09 or 7 where `$schema` says so.', verbose_name='schema')),
                ('created_at', models.DateTimeField(db_default=zndraw_joblib.storage.clock.Now(), editable=False, verbose_name='created at')),
                ('retired_at', models.DateTimeField(blank=True, editable=False, null=True, verbose_name='retired at')),
                ('revision', models.PositiveIntegerField(db_default=0, editable=False, help_text='Goes up by one with each new schema.', verbose_name='revision')),
                ('max_retries', models.PositiveIntegerField(blank=True, help_text='Retries of a task that does not say otherwise; empty without a policy.', null=True, verbose_name='retries')),
                ('backoff_seconds', models.FloatField(db_default=5.0, help_text='Seconds before the first retry.', verbose_name='backoff')),
                ('backoff_factor', models.FloatField(db_default=2.0, verbose_name='factor of the backoff')),
                ('max_backoff_seconds', models.FloatField(db_default=600.0, verbose_name='longest backoff')),
                ('durable', models.BooleanField(db_default=False, help_text='Not retired when its last worker leaves.', verbose_name='durable')),
            ],
            options={
                'verbose_name': 'job',
                'verbose_name_plural': 'jobs',
                'ordering': ('room_id', 'category', 'name'),
                'permissions': [('administer', 'Can administer the job server')],
                'constraints': [models.UniqueConstraint(fields=('room_id', 'category', 'name'), name='joblib_job_unique_name')],
            },
        ),
        migrations.CreateModel(
            name='Task',
            fields=[
                ('id', models.UUIDField(default=zndraw_joblib.storage.ids.new_id, editable=False, primary_key=True, serialize=False, verbose_name='id')),
                ('room_id', models.CharField(max_length=128, verbose_name='room')),
                ('created_by', models.CharField(help_text='Identity of the submitter.', max_length=255, verbose_name='created by')),
                ('payload', zndraw_joblib.storage.fields.OrderedJSONField(verbose_name='payload')),
                ('status', models.CharField(choices=[('pending', 'pending'), ('claimed', 'claimed'), ('running', 'running'), ('completed', 'completed'), ('failed', 'failed'), ('cancelled', 'cancelled')], default='pending', max_length=16, verbose_name='status')),
                ('error', models.TextField(blank=True, null=True, verbose_name='error')),
                ('result', zndraw_joblib.storage.fields.OrderedJSONField(blank=True, null=True, verbose_name='result')),
                ('progress', models.FloatField(blank=True, help_text='From 0 to 1, as the worker reports it.', null=True, verbose_name='progress')),
                ('message', models.TextField(blank=True, null=True, verbose_name='message')),
                ('attempt', models.PositiveIntegerField(default=0, help_text='Goes up by one at each claim; fences off earlier claimers.', verbose_name='attempt')),
                ('retries', models.PositiveIntegerField(blank=True, help_text='Allowed retries, of lost workers and reported failures; without, see below.', null=True, verbose_name='retries')),
                ('retries_left', models.PositiveIntegerField(default=0, help_text='Where `retries` is empty, of lost workers only.', verbose_name='retries left')),
                ('timeout_seconds', models.FloatField(blank=True, help_text='Seconds that one attempt may run.', null=True, verbose_name='timeout')),
                ('worker_identity', models.CharField(blank=True, default='', help_text='Identity that was granted the latest attempt; kept when the worker is removed.', max_length=255, verbose_name='identity of the worker')),
                ('lease_expires_at', models.DateTimeField(blank=True, null=True, verbose_name='lease expires at')),
                ('created_at', models.DateTimeField(db_default=zndraw_joblib.storage.clock.Now(), editable=False, verbose_name='created at')),
                ('run_at', models.DateTimeField(blank=True, help_text='Not granted before; a retry sets it to the end of its backoff.', null=True, verbose_name='run at')),
                ('due_at', models.GeneratedField(db_persist=True, expression=django.db.models.functions.comparison.Greatest(django.db.models.functions.comparison.Coalesce('run_at', 'created_at'), 'created_at'), output_field=models.DateTimeField(), verbose_name='due at')),
                ('claimed_at', models.DateTimeField(blank=True, null=True, verbose_name='claimed at')),
                ('started_at', models.DateTimeField(blank=True, null=True, verbose_name='started at')),
                ('completed_at', models.DateTimeField(blank=True, null=True, verbose_name='completed at')),
                ('revision', models.PositiveBigIntegerField(db_default=0, editable=False, help_text='Goes up with each change that a client can see.', verbose_name='revision')),
                ('changed_at', models.DateTimeField(db_default=zndraw_joblib.storage.clock.Now(), editable=False, verbose_name='changed at')),
                ('log_size', models.PositiveBigIntegerField(db_default=0, editable=False, help_text='Bytes of UTF-8 that were ever written, also those that were cut since.', verbose_name='size of the log')),
                ('traceparent', models.CharField(editable=False, help_text='Of the request that submitted the task (W3C Trace Context).', max_length=55, null=True, verbose_name='trace context')),
                ('watched_until', models.DateTimeField(editable=False, null=True)),
                ('job', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='tasks', to='zndraw_joblib.job', verbose_name='job')),
                ('retry_of', models.ForeignKey(blank=True, db_index=False, editable=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='retried_by', to='zndraw_joblib.task', verbose_name='retry of')),
                ('worker', models.ForeignKey(blank=True, db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='tasks', to='zndraw_joblib.worker', verbose_name='worker')),
            ],
            options={
                'verbose_name': 'task',
                'verbose_name_plural': 'tasks',
                'ordering': ('-id',),
            },
        ),
        migrations.CreateModel(
            name='IdempotencyKey',
            fields=[
                ('id', models.CharField(editable=False, max_length=64, primary_key=True, serialize=False, verbose_name='key')),
                ('request', models.CharField(editable=False, max_length=64, verbose_name='request')),
                ('created_at', models.DateTimeField(db_default=zndraw_joblib.storage.clock.Now(), db_index=True, editable=False, verbose_name='created at')),
                ('task', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='idempotency_keys', to='zndraw_joblib.task', verbose_name='task')),
            ],
            options={
                'verbose_name': 'idempotency key',
                'verbose_name_plural': 'idempotency keys',
            },
        ),
        migrations.CreateModel(
            name='WorkerJobLink',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('job', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='links', to='zndraw_joblib.job', verbose_name='job')),
                ('worker', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='links', to='zndraw_joblib.worker', verbose_name='worker')),
            ],
            options={
                'verbose_name': 'offered job',
                'verbose_name_plural': 'offered jobs',
            },
        ),
        migrations.AddField(
            model_name='worker',
            name='jobs',
            field=models.ManyToManyField(related_name='workers', through='zndraw_joblib.WorkerJobLink', to='zndraw_joblib.job', verbose_name='jobs'),
        ),
        migrations.CreateModel(
            name='TaskAttempt',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('attempt', models.PositiveIntegerField(verbose_name='attempt')),
                ('worker_id', models.CharField(max_length=255, null=True, verbose_name='worker')),
                ('claimed_at', models.DateTimeField(null=True, verbose_name='claimed at')),
                ('started_at', models.DateTimeField(null=True, verbose_name='started at')),
                ('ended_at', models.DateTimeField(db_default=zndraw_joblib.storage.clock.Now(), verbose_name='ended at')),
                ('outcome', models.CharField(choices=[('completed', 'completed'), ('failed', 'failed'), ('cancelled', 'cancelled'), ('lost', 'lost'), ('requeued', 'requeued')], max_length=16, verbose_name='outcome')),
                ('error', models.TextField(null=True, verbose_name='error')),
                ('task', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='attempts', to='zndraw_joblib.task', verbose_name='task')),
            ],
            options={
                'verbose_name': 'attempt',
                'verbose_name_plural': 'attempts',
                'ordering': ('task', 'attempt'),
                'constraints': [models.UniqueConstraint(fields=('task', 'attempt'), name='joblib_attempt_unique'), models.CheckConstraint(condition=models.Q(('outcome__in', ['completed', 'failed', 'cancelled', 'lost', 'requeued'])), name='joblib_attempt_outcome_known')],
            },
        ),
        migrations.CreateModel(
            name='TaskFile',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('attempt', models.PositiveIntegerField(verbose_name='attempt')),
                ('name', models.CharField(max_length=255, verbose_name='name')),
                ('size', models.PositiveBigIntegerField(help_text='Bytes.', verbose_name='size')),
                ('content_type', models.CharField(max_length=255, verbose_name='content type')),
                ('sha256', models.CharField(max_length=64, verbose_name='SHA-256')),
                ('path', models.CharField(help_text='Name of the file in the storage.', max_length=255, verbose_name='path')),
                ('created_at', models.DateTimeField(db_default=zndraw_joblib.storage.clock.Now(), verbose_name='created at')),
                ('task', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='files', to='zndraw_joblib.task', verbose_name='task')),
            ],
            options={
                'verbose_name': 'file',
                'verbose_name_plural': 'files',
                'ordering': ('task', 'name', 'attempt'),
                'constraints': [models.UniqueConstraint(fields=('task', 'attempt', 'name'), name='joblib_file_unique')],
            },
        ),
        migrations.CreateModel(
            name='TaskLogChunk',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('start', models.PositiveBigIntegerField(help_text='Bytes of UTF-8 that were written before.', verbose_name='start')),
                ('text', models.TextField(verbose_name='text')),
                ('task', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='log_chunks', to='zndraw_joblib.task', verbose_name='task')),
            ],
            options={
                'verbose_name': 'piece of a log',
                'verbose_name_plural': 'pieces of logs',
                'ordering': ('task', 'start'),
                'constraints': [models.UniqueConstraint(fields=('task', 'start'), name='joblib_log_unique')],
            },
        ),
        migrations.AddIndex(
            model_name='task',
            index=models.Index(condition=models.Q(('status', 'pending')), fields=['job', 'due_at', 'id'], name='joblib_task_claim'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=models.Index(condition=models.Q(('status__in', ['claimed', 'running'])), fields=['lease_expires_at'], name='joblib_task_lease'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=models.Index(condition=models.Q(('status__in', ['claimed', 'running'])), fields=['worker'], name='joblib_task_worker'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=models.Index(fields=['room_id', 'status', 'created_at', 'id'], name='joblib_task_room_status'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=models.Index(fields=['room_id', 'changed_at'], name='joblib_task_room_changed'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=models.Index(fields=['job', 'room_id', 'created_at', 'id'], name='joblib_task_job_room'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=models.Index(fields=['created_by', 'status', 'created_at', 'id'], name='joblib_task_creator'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=models.Index(condition=models.Q(('completed_at__isnull', False)), fields=['status', 'completed_at'], name='joblib_task_ended'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=models.Index(condition=models.Q(('retry_of__isnull', False)), fields=['retry_of'], name='joblib_task_retry_of'),
        ),
        migrations.AddConstraint(
            model_name='task',
            constraint=models.CheckConstraint(condition=models.Q(('status__in', ['pending', 'claimed', 'running', 'completed', 'failed', 'cancelled'])), name='joblib_task_status_known'),
        ),
        migrations.AddConstraint(
            model_name='task',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('status__in', ['cancelled', 'completed', 'failed']), _negated=True), ('completed_at__isnull', False), _connector='OR'), name='joblib_task_terminal_completed'),
        ),
        migrations.AddConstraint(
            model_name='workerjoblink',
            constraint=models.UniqueConstraint(fields=('worker', 'job'), name='joblib_link_unique'),
        ),
        migrations.AddIndex(
            model_name='worker',
            index=models.Index(fields=['identity', 'created_at', 'id'], name='joblib_worker_identity'),
        ),
        migrations.AddIndex(
            model_name='worker',
            index=models.Index(fields=['created_at', 'id'], name='joblib_worker_created'),
        ),
        migrations.AddIndex(
            model_name='worker',
            index=models.Index(fields=['last_heartbeat'], name='joblib_worker_heartbeat'),
        ),
    ]
