from django.db import migrations

# PostgreSQL 18 skips over a leading column. It would come to a job's queue through all that ever was
# pending in any room, where it takes the queue's own index for long: that one has the pages of its
# longest time. A condition that is true of every task, but implied only by a query that names a
# room, leaves these two to such queries. Elsewhere there is no such danger, and SQLite would not see
# that the condition holds.
INDEXES = {
    'joblib_task_room_status': '"room_id", "status", "created_at", "id"',
    'joblib_task_job_room': '"job_id", "room_id", "created_at", "id"',
}


def make(schema_editor, condition):
    if schema_editor.connection.vendor != 'postgresql':
        return
    for name, columns in INDEXES.items():
        schema_editor.execute(f'DROP INDEX "{name}"')
        schema_editor.execute(
            f'CREATE INDEX "{name}" ON "zndraw_joblib_task" ({columns}) {condition}'
        )


def for_queries_that_name_a_room(apps, schema_editor):
    make(schema_editor, 'WHERE "room_id" IS NOT NULL')


def for_all(apps, schema_editor):
    make(schema_editor, '')


class Migration(migrations.Migration):

    dependencies = [
        ('zndraw_joblib', '0005_fewer_indexes'),
    ]

    operations = [
        migrations.RunPython(for_queries_that_name_a_room, for_all, elidable=False),
    ]
