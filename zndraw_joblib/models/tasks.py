"""Jobs, workers and tasks, and the row verbs of each."""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from typing import Any, ClassVar
from uuid import UUID

from django.db import models, router
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from zndraw_joblib.exceptions import JobNotFound
from zndraw_joblib.lifecycle import LEASED_STATUSES, TERMINAL_STATUSES, TaskStatus
from zndraw_joblib.names import MAX_NAME_LENGTH, JobName
from zndraw_joblib.storage.backlogs import RoomBacklogQuerySet
from zndraw_joblib.storage.clock import Now
from zndraw_joblib.storage.fields import NameField, OrderedJSONField
from zndraw_joblib.storage.idempotency import IdempotencyKeyManager
from zndraw_joblib.storage.ids import new_id, new_worker_id
from zndraw_joblib.storage.jobs import JobQuerySet
from zndraw_joblib.storage.rows import TaskRow
from zndraw_joblib.storage.tasks import TaskManager, TaskQuerySet
from zndraw_joblib.storage.workers import WorkerManager

MAX_IDENTITY_LENGTH = 255

#: The statuses as the admin shows them.
STATUS_LABELS = {
    TaskStatus.PENDING: _("pending"),
    TaskStatus.CLAIMED: _("claimed"),
    TaskStatus.RUNNING: _("running"),
    TaskStatus.COMPLETED: _("completed"),
    TaskStatus.FAILED: _("failed"),
    TaskStatus.CANCELLED: _("cancelled"),
}


class Job(models.Model):
    """Work that workers offer in a room: a name and the JSON Schema of its payloads.

    A job without workers and unfinished tasks is retired, not deleted, because its tasks show the
    name of their job.
    """

    id = models.UUIDField(_("id"), primary_key=True, default=new_id, editable=False)
    room_id = NameField(_("room"), max_length=MAX_NAME_LENGTH)
    category = NameField(_("category"), max_length=MAX_NAME_LENGTH)
    name = NameField(_("name"), max_length=MAX_NAME_LENGTH)
    schema = OrderedJSONField(
        _("schema"),
        help_text=_(
            "JSON Schema of a payload: draft 2020-12, or 2019-09 or 7 where `$schema` says so."
        ),
    )
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)
    retired_at = models.DateTimeField(_("retired at"), null=True, blank=True, editable=False)
    revision = models.PositiveIntegerField(
        _("revision"),
        db_default=0,
        editable=False,
        help_text=_("Goes up by one with each new schema."),
    )

    objects = JobQuerySet.as_manager()

    class Meta:
        verbose_name = _("job")
        verbose_name_plural = _("jobs")
        ordering = ("room_id", "category", "name")
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["room_id", "category", "name"], name="joblib_job_unique_name"
            )
        ]
        permissions: ClassVar = [("administer", _("Can administer the job server"))]

    def __str__(self) -> str:
        return self.full_name

    @property
    def full_name(self) -> str:
        """``room:category:Name``."""
        return str(JobName(self.room_id, self.category, self.name))

    def enqueue(
        self,
        room_id: str,
        payload: dict[str, Any],
        created_by: str,
        retries: int = 0,
        task_id: UUID | None = None,
    ) -> TaskRow:
        """Accept a task of this job without checking the payload.

        Raises
        ------
        JobNotFound
            The job was retired, or its schema changed since it was read.
        """
        using = router.db_for_write(Task, instance=self)
        payloads = {task_id or new_id(): payload}
        accepted: list[TaskRow] = Task.objects.db_manager(using).enqueue(
            self, room_id, created_by, retries, payloads
        )
        if not accepted:
            raise JobNotFound
        return accepted[0]


class Worker(models.Model):
    """A process that registered jobs, or the default worker of an identity."""

    id = models.CharField(
        _("id"),
        primary_key=True,
        max_length=MAX_IDENTITY_LENGTH,
        default=new_worker_id,
        editable=False,
    )
    identity = models.CharField(
        _("identity"),
        max_length=MAX_IDENTITY_LENGTH,
        help_text=_("Identity of the owner, as the hook `identity` returns it."),
    )
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)
    last_heartbeat = models.DateTimeField(_("last heartbeat"), db_default=Now(), editable=False)
    jobs = models.ManyToManyField(
        Job, through="WorkerJobLink", related_name="workers", verbose_name=_("jobs")
    )

    objects = WorkerManager()

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        ordering = ("-created_at", "-id")
        indexes: ClassVar = [
            models.Index(fields=["identity", "created_at", "id"], name="joblib_worker_identity"),
            models.Index(fields=["created_at", "id"], name="joblib_worker_created"),
            models.Index(fields=["last_heartbeat"], name="joblib_worker_heartbeat"),
        ]

    def __str__(self) -> str:
        return self.id

    def is_alive(self, threshold: timedelta | float) -> bool:
        """Whether the last heartbeat is at most `threshold` old (seconds, or a timedelta).

        One that lies further ahead than that does not count, because the clock went back since.
        """
        if not isinstance(threshold, timedelta):
            threshold = timedelta(seconds=threshold)
        return abs(timezone.now() - self.last_heartbeat) <= threshold


class WorkerJobLink(models.Model):
    """Links a worker to a job that it offers."""

    worker = models.ForeignKey(
        Worker,
        on_delete=models.CASCADE,
        related_name="links",
        db_index=False,
        verbose_name=_("worker"),
    )
    job = models.ForeignKey(
        Job, on_delete=models.CASCADE, related_name="links", verbose_name=_("job")
    )

    class Meta:
        verbose_name = _("offered job")
        verbose_name_plural = _("offered jobs")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["worker", "job"], name="joblib_link_unique")
        ]

    def __str__(self) -> str:
        return f"{self.worker_id} -> {self.job_id}"


class Task(models.Model):
    """One run of a job, with the payload of its submitter."""

    id = models.UUIDField(_("id"), primary_key=True, default=new_id, editable=False)
    job = models.ForeignKey(
        Job, on_delete=models.PROTECT, related_name="tasks", db_index=False, verbose_name=_("job")
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
    attempt = models.PositiveIntegerField(
        _("attempt"),
        default=0,
        help_text=_("Goes up by one at each claim; fences off earlier claimers."),
    )
    retries_left = models.PositiveIntegerField(_("retries left"), default=0)
    # No constraint, because a task keeps the id of its worker after the worker is removed.
    worker = models.ForeignKey(
        Worker,
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
    started_at = models.DateTimeField(_("started at"), null=True, blank=True)
    completed_at = models.DateTimeField(_("completed at"), null=True, blank=True)

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
        # migration 0002 restricts the two that list rooms to queries that name a room.
        indexes: ClassVar = [
            # A claim probes it once for each job; it contains the pending tasks only.
            models.Index(
                fields=["job", "created_at", "id"],
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
            models.Index(
                fields=["room_id", "completed_at"],
                condition=models.Q(completed_at__isnull=False),
                name="joblib_task_room_ended",
            ),
            models.Index(
                fields=["job", "room_id", "created_at", "id"], name="joblib_task_job_room"
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


class IdempotencyKey(models.Model):
    """The `Idempotency-Key` of a submit and the task that it made.

    The id is a digest of the identity, the route and the key, because two callers must not share a
    key and a long key would not fit an index row. `request` is a digest of the body.
    """

    id = models.CharField(_("key"), primary_key=True, max_length=64, editable=False)
    request = models.CharField(_("request"), max_length=64, editable=False)
    task = models.ForeignKey(
        Task, on_delete=models.CASCADE, related_name="idempotency_keys", verbose_name=_("task")
    )
    created_at = models.DateTimeField(
        _("created at"), db_default=Now(), editable=False, db_index=True
    )

    objects = IdempotencyKeyManager()

    class Meta:
        verbose_name = _("idempotency key")
        verbose_name_plural = _("idempotency keys")

    def __str__(self) -> str:
        return self.id

    @staticmethod
    def digest(*parts: str) -> str:
        """SHA-256 of the parts. Each is preceded by its length, so that no two lists collide."""
        return sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()


class RoomBacklog(models.Model):
    """The free places for pending tasks in a room, as of the last count.

    A room has a row if a task was submitted there while `max_pending_per_room` was set.
    """

    room_id = NameField(_("room"), primary_key=True, max_length=MAX_NAME_LENGTH)
    limit = models.PositiveIntegerField(
        _("limit"), help_text=_("Limit of the room at the last count.")
    )
    places = models.PositiveIntegerField(_("free places"), default=0)
    full_at = models.DateTimeField(_("full since"), null=True)

    objects = RoomBacklogQuerySet.as_manager()

    class Meta:
        verbose_name = _("backlog of a room")
        verbose_name_plural = _("backlogs of rooms")

    def __str__(self) -> str:
        return self.room_id
