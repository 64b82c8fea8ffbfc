import django.db.models.deletion
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
                ('attempt', models.PositiveIntegerField(default=0, help_text='Goes up by one at each claim; fences off earlier claimers.', verbose_name='attempt')),
                ('retries_left', models.PositiveIntegerField(default=0, verbose_name='retries left')),
                ('worker_identity', models.CharField(blank=True, default='', help_text='Identity that was granted the latest attempt; kept when the worker is removed.', max_length=255, verbose_name='identity of the worker')),
                ('lease_expires_at', models.DateTimeField(blank=True, null=True, verbose_name='lease expires at')),
                ('created_at', models.DateTimeField(db_default=zndraw_joblib.storage.clock.Now(), editable=False, verbose_name='created at')),
                ('started_at', models.DateTimeField(blank=True, null=True, verbose_name='started at')),
                ('completed_at', models.DateTimeField(blank=True, null=True, verbose_name='completed at')),
                ('job', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='tasks', to='zndraw_joblib.job', verbose_name='job')),
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
        migrations.AddIndex(
            model_name='task',
            index=models.Index(condition=models.Q(('status', 'pending')), fields=['job', 'created_at', 'id'], name='joblib_task_claim'),
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
            index=models.Index(condition=models.Q(('completed_at__isnull', False)), fields=['room_id', 'completed_at'], name='joblib_task_room_ended'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=models.Index(fields=['job', 'room_id', 'created_at', 'id'], name='joblib_task_job_room'),
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
