"""Tasks, and their row verbs."""

from __future__ import annotations

from typing import ClassVar

from django.db import models, router
from django.db.models.functions import Coalesce, Greatest
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from zndraw_joblib import tracing
from zndraw_joblib.lifecycle import LEASED_STATUSES, TERMINAL_STATUSES, TaskStatus
from zndraw_joblib.names import MAX_NAME_LENGTH
from zndraw_joblib.storage.clock import Now
from zndraw_joblib.storage.fields import NameField, OrderedJSONField
from zndraw_joblib.storage.ids import new_id
from zndraw_joblib.storage.rows import TaskRow
from zndraw_joblib.storage.tasks import TaskManager, TaskQuerySet

MAX_IDENTITY_LENGTH = 255

#: The statuses as pages show them.
STATUS_LABELS = {
    TaskStatus.PENDING: _("pending"),
    TaskStatus.CLAIMED: _("claimed"),
    TaskStatus.RUNNING: _("running"),
    TaskStatus.COMPLETED: _("completed"),
    TaskStatus.FAILED: _("failed"),
    TaskStatus.CANCELLED: _("cancelled"),
}


class Task(models.Model):
    """One run of a job, with the payload of its submitter."""

    id = models.UUIDField(_("id"), primary_key=True, default=new_id, editable=False)
    job = models.ForeignKey(
        "Job", on_delete=models.PROTECT, related_name="tasks", db_index=False, verbose_name=_("job")
    )
    room_id = NameField(_("room"), max_length=MAX_NAME_LENGTH)
    created_by = models.CharField(
        _("created by"), max_length=MAX_IDENTITY_LENGTH, help_text=_("Identity of the submitter.")
    )
    payload = OrderedJSONField(_("payload"))
    status = models.CharField(
        _("status"),
        max_length=16,
        choices=[(status.value, STATUS_LABELS[status]) for status in TaskStatus],
        default=TaskStatus.PENDING.value,
    )
    error = models.TextField(_("error"), null=True, blank=True)
    result = OrderedJSONField(_("result"), null=True, blank=True)
    progress = models.FloatField(
        _("progress"), null=True, blank=True, help_text=_("From 0 to 1, as the worker reports it.")
    )
    message = models.TextField(_("message"), null=True, blank=True)
    attempt = models.PositiveIntegerField(
        _("attempt"),
        default=0,
        help_text=_("Goes up by one at each claim; fences off earlier claimers."),
    )
    retries = models.PositiveIntegerField(
        _("retries"),
        null=True,
        blank=True,
        help_text=_("Allowed retries, of lost workers and reported failures; without, see below."),
    )
    retries_left = models.PositiveIntegerField(
        _("retries left"),
        default=0,
        help_text=_("Where `retries` is empty, of lost workers only."),
    )
    timeout_seconds = models.FloatField(
        _("timeout"), null=True, blank=True, help_text=_("Seconds that one attempt may run.")
    )
    retry_of = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        editable=False,
        on_delete=models.SET_NULL,
        db_index=False,
        related_name="retried_by",
        verbose_name=_("retry of"),
    )
    # No constraint, because a task keeps the id of its worker after the worker is removed.
    worker = models.ForeignKey(
        "Worker",
        null=True,
        blank=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="tasks",
        verbose_name=_("worker"),
    )
    worker_identity = models.CharField(
        _("identity of the worker"),
        max_length=MAX_IDENTITY_LENGTH,
        default="",
        blank=True,
        help_text=_(
            "Identity that was granted the latest attempt; kept when the worker is removed."
        ),
    )
    lease_expires_at = models.DateTimeField(_("lease expires at"), null=True, blank=True)
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)
    run_at = models.DateTimeField(
        _("run at"),
        null=True,
        blank=True,
        help_text=_("Not granted before; a retry sets it to the end of its backoff."),
    )
    # Generated, so that no statement forgets it. Not before `created_at`, because a `run_at` in the
    # past would overtake tasks that were submitted earlier.
    due_at = models.GeneratedField(
        expression=Greatest(Coalesce("run_at", "created_at"), "created_at"),
        output_field=models.DateTimeField(),
        db_persist=True,
        verbose_name=_("due at"),
    )
    claimed_at = models.DateTimeField(_("claimed at"), null=True, blank=True)
    started_at = models.DateTimeField(_("started at"), null=True, blank=True)
    completed_at = models.DateTimeField(_("completed at"), null=True, blank=True)
    revision = models.PositiveBigIntegerField(
        _("revision"),
        db_default=0,
        editable=False,
        help_text=_("Goes up with each change that a client can see."),
    )
    # Set by every statement that raises `revision`; the events of a room are found by it.
    changed_at = models.DateTimeField(_("changed at"), db_default=Now(), editable=False)
    log_size = models.PositiveBigIntegerField(
        _("size of the log"),
        db_default=0,
        editable=False,
        help_text=_("Bytes of UTF-8 that were ever written, also those that were cut since."),
    )
    traceparent = models.CharField(
        _("trace context"),
        max_length=tracing.LENGTH,
        null=True,
        editable=False,
        help_text=_("Of the request that submitted the task (W3C Trace Context)."),
    )
    # Changes are published only of watched tasks, because a message costs more than a report.
    watched_until = models.DateTimeField(null=True, editable=False)

    objects = TaskManager()

    class Meta:
        verbose_name = _("task")
        verbose_name_plural = _("tasks")
        # Newest first, because ids begin with the time.
        ordering = ("-id",)
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(status__in=[status.value for status in TaskStatus]),
                name="joblib_task_status_known",
            ),
            models.CheckConstraint(
                condition=~models.Q(status__in=sorted(status.value for status in TERMINAL_STATUSES))
                | models.Q(completed_at__isnull=False),
                name="joblib_task_terminal_completed",
            ),
        ]
        # Few, because each change of a status writes to nearly all of them. On PostgreSQL
        # migration 0002 restricts those that list tasks to queries that name a room or a submitter.
        indexes: ClassVar = [
            # A claim probes it once for each job; it contains pending tasks only, the ones due
            # later at its end.
            models.Index(
                fields=["job", "due_at", "id"],
                condition=models.Q(status=TaskStatus.PENDING.value),
                name="joblib_task_claim",
            ),
            models.Index(
                fields=["lease_expires_at"],
                condition=models.Q(status__in=sorted(status.value for status in LEASED_STATUSES)),
                name="joblib_task_lease",
            ),
            models.Index(
                fields=["worker"],
                condition=models.Q(status__in=sorted(status.value for status in LEASED_STATUSES)),
                name="joblib_task_worker",
            ),
            # The list of a room merges one scan for each status, see `TaskManager.newest`.
            models.Index(
                fields=["room_id", "status", "created_at", "id"], name="joblib_task_room_status"
            ),
            # Finds the changes and ends in a room since a moment.
            models.Index(fields=["room_id", "changed_at"], name="joblib_task_room_changed"),
            models.Index(
                fields=["job", "room_id", "created_at", "id"], name="joblib_task_job_room"
            ),
            models.Index(
                fields=["created_by", "status", "created_at", "id"], name="joblib_task_creator"
            ),
            # Finds tasks to prune, and the tasks of a rare status for the admin.
            models.Index(
                fields=["status", "completed_at"],
                condition=models.Q(completed_at__isnull=False),
                name="joblib_task_ended",
            ),
            models.Index(
                fields=["retry_of"],
                condition=models.Q(retry_of__isnull=False),
                name="joblib_task_retry_of",
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)

    @cached_property
    def job_name(self) -> str:
        """The full name of the job, ``room:category:Name``."""
        return self.job.full_name

    @property
    def is_terminal(self) -> bool:
        """Whether the task ended."""
        return self.status in TERMINAL_STATUSES

    def cancel(self, error: str | None = None) -> TaskRow | None:
        """Cancel the task; returns it as it is now, or None if it had ended."""
        return next(iter(self._row().cancel(error)), None)

    def requeue(self) -> TaskRow | None:
        """Requeue a claimed or running task; returns it as it is now, or None in another status."""
        return next(iter(self._row().requeue()), None)

    def _row(self) -> TaskQuerySet:
        using = router.db_for_write(Task, instance=self)
        row: TaskQuerySet = Task.objects.using(using).filter(pk=self.pk)
        return row
