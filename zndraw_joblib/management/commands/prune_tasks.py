"""``manage.py prune_tasks``: deletes ended tasks that are older than a given age."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from zndraw_joblib.services.files import delete_marked_files
from zndraw_joblib.services.prune import Retention, count, prune
from zndraw_joblib.settings import MAX_RETENTION_DAYS
from zndraw_joblib.tenancy import all_tenants, in_tenant

_UNITS = {"d": "days", "h": "hours", "m": "minutes"}
_AGE = re.compile(r"([0-9]{1,9})([dhm])", re.ASCII)


def _age(text: str) -> timedelta:
    """A span of time such as ``30d``, ``12h`` or ``90m``.

    Parsed by the command and not by argparse, which `call_command` passes by.

    Raises
    ------
    CommandError
        The text is no such span, or longer than `MAX_RETENTION_DAYS`.
    """
    if not (match := _AGE.fullmatch(text)):
        raise CommandError(f"{text!r} is not an age such as 30d, 12h or 90m")
    age = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if age > timedelta(days=MAX_RETENTION_DAYS):
        raise CommandError(f"{text!r} is more than {MAX_RETENTION_DAYS}d")
    return age


class Command(BaseCommand):
    """Deletes ended tasks with their logs, attempts and files, in chunks."""

    help = (
        "Deletes ended tasks with their logs, attempts and files, in chunks. Jobs stay. An age is "
        "a number of days (30d), hours (12h) or minutes (90m) since a task ended."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add ``--older-than``, ``--keep-failed`` and ``--dry-run``."""
        parser.add_argument(
            "--older-than", required=True, metavar="AGE", help="Least age of the tasks."
        )
        parser.add_argument(
            "--keep-failed",
            metavar="AGE",
            help="Least age of failed tasks; default: that of the others.",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="Count the tasks and delete none."
        )

    def handle(
        self, *, older_than: str, keep_failed: str | None, dry_run: bool, **options: Any
    ) -> None:
        """Count or delete the tasks of each tenant."""
        age = _age(older_than)
        retention = Retention(age, age if keep_failed is None else _age(keep_failed))
        number = 0
        for tenant in all_tenants():
            with in_tenant(tenant):
                number += count(retention) if dry_run else self._prune(retention)
        tasks = "1 task" if number == 1 else f"{number} tasks"
        self.stdout.write(f"{tasks} would be deleted" if dry_run else f"deleted {tasks}")

    def _prune(self, retention: Retention) -> int:
        """Delete tasks, with a bar on a terminal; returns their number."""
        has_bar = self.stderr.isatty()
        # Counted for the bar alone, because a count reads all entries of the index.
        total = count(retention) if has_bar else 0
        deleted = 0
        for number in prune(retention):
            deleted += number
            if has_bar:
                self.stderr.write(_bar(deleted, total), style_func=str, ending="")
                self.stderr.flush()
        if has_bar and deleted:
            self.stderr.write("")
        # At the end, because a storage that is away takes a timeout to fail.
        delete_marked_files()
        return deleted


def _bar(done: int, total: int) -> str:
    """A progress bar that overwrites the earlier one of its line."""
    # More than the total, if tasks came of age in the meantime.
    total = max(done, total)
    filled = 30 * done // total
    return f"\r[{'#' * filled}{'.' * (30 - filled)}] {100 * done // total} % of {total} tasks"
