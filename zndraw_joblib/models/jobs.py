"""Jobs, the workers that offer them, and their row verbs."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Any, ClassVar
from uuid import UUID

from django.db import models, router
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from zndraw_joblib.exceptions import JobNotFound
from zndraw_joblib.lifecycle import RetryPolicy
from zndraw_joblib.models.tasks import MAX_IDENTITY_LENGTH, Task
from zndraw_joblib.names import MAX_NAME_LENGTH, JobName
from zndraw_joblib.storage.clock import Now
from zndraw_joblib.storage.fields import NameField, OrderedJSONField
from zndraw_joblib.storage.ids import new_id, new_worker_id
from zndraw_joblib.storage.jobs import JobQuerySet
from zndraw_joblib.storage.rows import NewTask, TaskRow
from zndraw_joblib.storage.workers import WorkerManager


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
    max_retries = models.PositiveIntegerField(
        _("retries"),
        null=True,
        blank=True,
        help_text=_("Retries of a task that does not say otherwise; empty without a policy."),
    )
    backoff_seconds = models.FloatField(
        _("backoff"),
        db_default=RetryPolicy.backoff_seconds,
        help_text=_("Seconds before the first retry."),
    )
    backoff_factor = models.FloatField(
        _("factor of the backoff"), db_default=RetryPolicy.backoff_factor
    )
    max_backoff_seconds = models.FloatField(
        _("longest backoff"), db_default=RetryPolicy.max_backoff_seconds
    )
    durable = models.BooleanField(
        _("durable"),
        db_default=False,
        help_text=_("Not retired when its last worker leaves."),
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

    @property
    def retry(self) -> RetryPolicy | None:
        """The retries of the job's tasks; None without a policy."""
        if self.max_retries is None:
            return None
        return RetryPolicy(
            self.max_retries, self.backoff_seconds, self.backoff_factor, self.max_backoff_seconds
        )

    def set_retry(self, policy: RetryPolicy) -> None:
        """Set the retries of the job's tasks, without saving."""
        for name, value in asdict(policy).items():
            setattr(self, name, value)

    def enqueue(
        self,
        room_id: str,
        payload: dict[str, Any],
        created_by: str,
        lost_retries: int = 0,
        task_id: UUID | None = None,
    ) -> TaskRow:
        """Accept a task of this job without checking the payload.

        `lost_retries` are those after the loss of a worker, where the job has no `retry`.

        Raises
        ------
        JobNotFound
            The job was retired, or its schema changed since it was read.
        """
        using = router.db_for_write(Task, instance=self)
        new = {task_id or new_id(): NewTask(payload)}
        accepted: list[TaskRow] = Task.objects.db_manager(using).enqueue(
            self, room_id, created_by, lost_retries, new
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
