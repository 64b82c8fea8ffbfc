"""Statistics for the dashboard of the admin, which the sweeper alone writes.

All tables here are small, because no page may count tasks. They tell ids of jobs and tasks without
foreign keys, so that no claim, report or deletion of a task has to look at them.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from zndraw_joblib.storage.fields import OrderedJSONField

#: The primary key of the only row of a table.
ONLY = 1


class SweeperPass(models.Model):
    """The last pass of a sweeper that succeeded."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=ONLY, editable=False)
    ended_at = models.DateTimeField(_("ended at"))
    seconds = models.FloatField(_("duration"), help_text=_("Seconds."))
    numbers = OrderedJSONField(_("numbers"), default=dict)

    class Meta:
        verbose_name = _("pass of the sweeper")
        verbose_name_plural = _("passes of the sweeper")

    def __str__(self) -> str:
        return str(self.ended_at)


class StatisticsState(models.Model):
    """How far tasks were counted. A sweeper locks the row, so that no task is counted twice.

    Tasks that were submitted, or ended, before `since` are not counted.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=ONLY, editable=False)
    since = models.DateTimeField(null=True)
    ended_until = models.DateTimeField(
        null=True, help_text=_("Tasks that ended before are counted.")
    )
    submitted_after = models.UUIDField(
        null=True, help_text=_("The last task whose submit is counted.")
    )
    sampled_at = models.DateTimeField(null=True, help_text=_("The last count of the backlogs."))
    sample_seconds = models.FloatField(default=0, help_text=_("Seconds that this count took."))

    class Meta:
        verbose_name = _("state of the statistics")
        verbose_name_plural = _("states of the statistics")

    def __str__(self) -> str:
        return str(self.ended_until)


class JobInterval(models.Model):
    """Counts of the tasks of a job, or of all jobs, in an interval of time.

    Each task counts in intervals of three lengths, so that an hour, a day and a week are each a few
    rows. The histograms are those of `storage.histograms`.
    """

    job_id = models.UUIDField(_("job"))
    seconds = models.PositiveIntegerField(_("length"), help_text=_("Seconds."))
    begins_at = models.DateTimeField(_("begins at"))
    submitted = models.PositiveBigIntegerField(_("submitted"), default=0)
    completed = models.PositiveBigIntegerField(_("completed"), default=0)
    failed = models.PositiveBigIntegerField(_("failed"), default=0)
    cancelled = models.PositiveBigIntegerField(_("cancelled"), default=0)
    attempts = models.PositiveBigIntegerField(
        _("attempts"), default=0, help_text=_("Attempts of the tasks that ended.")
    )
    delays = OrderedJSONField(_("queue delays"), default=dict)
    run_times = OrderedJSONField(_("run times"), default=dict)
    pending = models.PositiveBigIntegerField(
        _("pending"), null=True, help_text=_("The most due tasks that a pass found.")
    )
    running = models.PositiveBigIntegerField(
        _("running"), null=True, help_text=_("The most claimed and running tasks.")
    )

    class Meta:
        verbose_name = _("statistics of an interval")
        # Its page in the admin is the dashboard, which the sidebar calls by this name.
        verbose_name_plural = _("dashboard")
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["seconds", "begins_at", "job_id"], name="joblib_interval_unique"
            )
        ]

    def __str__(self) -> str:
        return f"{self.begins_at} + {self.seconds} s"


class JobGauge(models.Model):
    """The unfinished tasks of a job as of the last count; jobs without any have no row."""

    job_id = models.UUIDField(_("job"), primary_key=True)
    pending = models.PositiveBigIntegerField(_("pending"), help_text=_("Tasks that are due."))
    scheduled = models.PositiveBigIntegerField(_("scheduled"), help_text=_("Tasks due later."))
    claimed = models.PositiveBigIntegerField(_("claimed"))
    running = models.PositiveBigIntegerField(_("running"))
    oldest_due_at = models.DateTimeField(_("oldest unclaimed task"), null=True)

    class Meta:
        verbose_name = _("unfinished tasks of a job")
        verbose_name_plural = _("unfinished tasks of jobs")

    def __str__(self) -> str:
        return str(self.job_id)


class FailureGroup(models.Model):
    """Tasks of a job that failed with the same error, apart from its numbers and ids.

    The id is a digest of the job and of `error`.
    """

    id = models.CharField(_("id"), primary_key=True, max_length=32, editable=False)
    job_id = models.UUIDField(_("job"))
    error = models.TextField(_("error"), help_text=_("With # for numbers and ids."))
    count = models.PositiveBigIntegerField(_("number"))
    first_at = models.DateTimeField(_("first"))
    last_at = models.DateTimeField(_("last"), db_index=True)
    example = models.UUIDField(_("example"), help_text=_("The task that failed last."))

    class Meta:
        verbose_name = _("failures with one error")
        verbose_name_plural = _("failures by error")

    def __str__(self) -> str:
        return self.error


class FailedTask(models.Model):
    """A task of a `FailureGroup`; of a large group only the latest are kept."""

    task_id = models.UUIDField(_("task"), unique=True)
    group = models.ForeignKey(
        FailureGroup, on_delete=models.CASCADE, related_name="tasks", db_index=False
    )

    class Meta:
        verbose_name = _("failed task")
        verbose_name_plural = _("failed tasks")
        indexes: ClassVar = [models.Index(fields=["group", "id"], name="joblib_failed_group")]

    def __str__(self) -> str:
        return str(self.task_id)
