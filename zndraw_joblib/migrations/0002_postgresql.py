"""PostgreSQL only: how often the hot tables are vacuumed, and three indexes made narrower."""

from django.db import migrations

# Vacuums after some thousand dead rows rather than after a fifth of the table, because each task's
# row is written about five times and a claim reads past the dead entries at the head of its index.
STORAGE_PARAMETERS = {
    'zndraw_joblib_task': {
        'autovacuum_vacuum_scale_factor': 0.01,
        'autovacuum_vacuum_threshold': 1000,
        'autovacuum_vacuum_insert_scale_factor': 0.05,
        'autovacuum_analyze_scale_factor': 0.02,
        'autovacuum_vacuum_cost_delay': 0,
    },
    'zndraw_joblib_worker': {
        'autovacuum_vacuum_scale_factor': 0.01,
        'autovacuum_vacuum_threshold': 500,
    },
}

# PostgreSQL 18 can skip over the leading column of an index. Without the condition below it would
# search a job's queue in these two indexes whenever its statistics make the queue's own index
# (joblib_task_claim) look long, and read every task that was ever pending. `room_id` and `created_by`
# are never NULL, so the conditions hold for every row, but only a query that names a room or a
# submitter implies them.
INDEXES = {
    'joblib_task_room_status': '"room_id", "status", "created_at", "id"',
    'joblib_task_job_room': '"job_id", "room_id", "created_at", "id"',
    'joblib_task_creator': '"created_by", "status", "created_at", "id"',
}


def set_storage_parameters(schema_editor):
    for table, parameters in STORAGE_PARAMETERS.items():
        values = ', '.join(f'{name} = {value}' for name, value in parameters.items())
        schema_editor.execute(f'ALTER TABLE "{table}" SET ({values})')


def reset_storage_parameters(schema_editor):
    for table, parameters in STORAGE_PARAMETERS.items():
        schema_editor.execute(f'ALTER TABLE "{table}" RESET ({", ".join(parameters)})')


def make_indexes(schema_editor, *, narrow):
    for name, columns in INDEXES.items():
        first = 'created_by' if name == 'joblib_task_creator' else 'room_id'
        condition = f'WHERE "{first}" IS NOT NULL' if narrow else ''
        schema_editor.execute(f'DROP INDEX "{name}"')
        schema_editor.execute(
            f'CREATE INDEX "{name}" ON "zndraw_joblib_task" ({columns}) {condition}'
        )


def forwards(apps, schema_editor):
    if schema_editor.connection.vendor == 'postgresql':
        set_storage_parameters(schema_editor)
        make_indexes(schema_editor, narrow=True)


def backwards(apps, schema_editor):
    if schema_editor.connection.vendor == 'postgresql':
        make_indexes(schema_editor, narrow=False)
        reset_storage_parameters(schema_editor)


class Migration(migrations.Migration):

    dependencies = [
        ('zndraw_joblib', '0001_initial'),
    ]

    operations = [
        migrations.RunPython(forwards, backwards, elidable=False),
    ]
