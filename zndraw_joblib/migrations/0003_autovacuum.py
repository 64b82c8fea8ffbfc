from django.db import migrations

# Each task's row is written five times or so, and claims probe the head of an index that only
# vacuum keeps short: vacuum after some thousand dead rows, not after a fifth of the table.
STORAGE = {
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


def set_storage(apps, schema_editor):
    if schema_editor.connection.vendor != 'postgresql':
        return
    for table, parameters in STORAGE.items():
        values = ', '.join(f'{name} = {value}' for name, value in parameters.items())
        schema_editor.execute(f'ALTER TABLE "{table}" SET ({values})')


def reset_storage(apps, schema_editor):
    if schema_editor.connection.vendor != 'postgresql':
        return
    for table, parameters in STORAGE.items():
        schema_editor.execute(f'ALTER TABLE "{table}" RESET ({", ".join(parameters)})')


class Migration(migrations.Migration):

    dependencies = [
        ('zndraw_joblib', '0002_idempotency_and_limits'),
    ]

    operations = [
        migrations.RunPython(set_storage, reset_storage, elidable=False),
    ]
