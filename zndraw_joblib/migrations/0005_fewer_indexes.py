
from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('zndraw_joblib', '0004_job_revision'),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='task',
            options={'ordering': ('-id',)},
        ),
        migrations.RemoveIndex(
            model_name='task',
            name='joblib_task_job_leased',
        ),
        migrations.RemoveIndex(
            model_name='task',
            name='joblib_task_room',
        ),
        migrations.RemoveIndex(
            model_name='task',
            name='joblib_task_created',
        ),
    ]
