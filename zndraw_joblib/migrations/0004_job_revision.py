from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('zndraw_joblib', '0003_autovacuum'),
    ]

    operations = [
        migrations.AddField(
            model_name='job',
            name='revision',
            field=models.PositiveIntegerField(db_default=0, editable=False, help_text='Goes up by one when another schema takes over.'),
        ),
    ]
