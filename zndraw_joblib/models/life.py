"""The attempts, the logs and the files of tasks."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from zndraw_joblib.lifecycle import AttemptOutcome
from zndraw_joblib.models.tasks import MAX_IDENTITY_LENGTH, Task
from zndraw_joblib.names import MAX_FILE_NAME_LENGTH
from zndraw_joblib.storage.clock import Now
from zndraw_joblib.storage.files import FileToDeleteManager, TaskFileManager
from zndraw_joblib.storage.logs import LogManager

#: The outcomes as pages show them.
OUTCOME_LABELS = {
    AttemptOutcome.COMPLETED: _("completed"),
    AttemptOutcome.FAILED: _("failed"),
    AttemptOutcome.CANCELLED: _("cancelled"),
    AttemptOutcome.LOST: _("lost"),
    AttemptOutcome.REQUEUED: _("requeued"),
}


class TaskAttempt(models.Model):
    """An attempt that left its task pending again, or whose worker was lost.

    No other attempt has a row. It is the latest one of its task, whose row has the same values, and
    a row for each claim would make claims slower. `services.attempts` lists both kinds.
    """

    task = models.ForeignKey(
        Task,
        on_delete=models.CASCADE,
        related_name="attempts",
        db_index=False,
        verbose_name=_("task"),
    )
    attempt = models.PositiveIntegerField(_("attempt"))
    worker_id = models.CharField(_("worker"), max_length=MAX_IDENTITY_LENGTH, null=True)
    claimed_at = models.DateTimeField(_("claimed at"), null=True)
    started_at = models.DateTimeField(_("started at"), null=True)
    ended_at = models.DateTimeField(_("ended at"), db_default=Now())
    outcome = models.CharField(
        _("outcome"),
        max_length=16,
        choices=[(outcome.value, OUTCOME_LABELS[outcome]) for outcome in AttemptOutcome],
    )
    error = models.TextField(_("error"), null=True)

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        ordering = ("task", "attempt")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["task", "attempt"], name="joblib_attempt_unique"),
            models.CheckConstraint(
                condition=models.Q(outcome__in=[outcome.value for outcome in AttemptOutcome]),
                name="joblib_attempt_outcome_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.task_id} ({self.attempt})"


class TaskLogChunk(models.Model):
    """A piece of a task's log; `storage.logs` says how a log is divided."""

    task = models.ForeignKey(
        Task,
        on_delete=models.CASCADE,
        related_name="log_chunks",
        db_index=False,
        verbose_name=_("task"),
    )
    start = models.PositiveBigIntegerField(
        _("start"), help_text=_("Bytes of UTF-8 that were written before.")
    )
    text = models.TextField(_("text"))

    objects = LogManager()

    class Meta:
        verbose_name = _("piece of a log")
        verbose_name_plural = _("pieces of logs")
        ordering = ("task", "start")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["task", "start"], name="joblib_log_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.task_id} from {self.start}"


class TaskFile(models.Model):
    """A file that an attempt of a task uploaded; its bytes are in Django's storage."""

    task = models.ForeignKey(
        Task,
        on_delete=models.CASCADE,
        related_name="files",
        db_index=False,
        verbose_name=_("task"),
    )
    attempt = models.PositiveIntegerField(_("attempt"))
    name = models.CharField(_("name"), max_length=MAX_FILE_NAME_LENGTH)
    size = models.PositiveBigIntegerField(_("size"), help_text=_("Bytes."))
    content_type = models.CharField(_("content type"), max_length=255)
    sha256 = models.CharField(_("SHA-256"), max_length=64)
    path = models.CharField(
        _("path"), max_length=255, help_text=_("Name of the file in the storage.")
    )
    created_at = models.DateTimeField(_("created at"), db_default=Now())

    objects = TaskFileManager()

    class Meta:
        verbose_name = _("file")
        verbose_name_plural = _("files")
        ordering = ("task", "name", "attempt")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["task", "attempt", "name"], name="joblib_file_unique"),
        ]

    def __str__(self) -> str:
        return self.name


class FileToDelete(models.Model):
    """The path of bytes in the storage that no `TaskFile` has, or that none has yet.

    An upload makes a row before it writes to the storage, so that a process that dies midway leaves
    no bytes that nobody knows of. The sweeper deletes the bytes when they are due, and again later
    if the storage is away.
    """

    path = models.CharField(_("path"), max_length=255, primary_key=True)
    due_at = models.DateTimeField(_("due at"), db_default=Now(), db_index=True)

    objects = FileToDeleteManager()

    class Meta:
        verbose_name = _("file to delete")
        verbose_name_plural = _("files to delete")

    def __str__(self) -> str:
        return self.path
