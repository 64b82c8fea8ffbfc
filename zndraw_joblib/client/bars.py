"""Progress bars of waits, in terminals and notebooks, by tqdm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from zndraw_joblib.client.schemas import TaskInfo
from zndraw_joblib.lifecycle import TaskStatus

#: Makes a bar, as `tqdm.auto.tqdm` does.
Bar = Callable[..., Any]


def load_bar() -> Bar:
    """The class of bars, which fits a terminal or a notebook.

    Raises
    ------
    ImportError
        tqdm is not installed.
    """
    try:
        bar: Bar = import_module("tqdm.auto").tqdm
    except ImportError as error:
        raise ImportError(
            "progress=True needs tqdm: pip install 'django-zndraw-joblib[progress]'"
        ) from error
    return bar


def count_ends(ends: Iterator[TaskInfo], total: int, bar: Bar) -> Iterator[TaskInfo]:
    """Yield the same tasks, and show how many of `total` have ended."""
    with bar(total=total, unit="task") as shown:
        for task in ends:
            shown.update()
            yield task


def show_progress(changes: Iterator[TaskInfo], bar: Bar) -> None:
    """Show the progress of a task in percent, with its message or its status, until it ends."""
    with bar(
        total=100, bar_format="{desc}: {percentage:3.0f}% |{bar}| {elapsed}{postfix}"
    ) as shown:
        for task in changes:
            shown.set_description_str(task.job_name, refresh=False)
            shown.set_postfix_str(task.message or task.status.value, refresh=False)
            # Set and not added, because another attempt begins again.
            shown.n = 100 if task.status == TaskStatus.COMPLETED else 100 * (task.progress or 0)
            shown.refresh()
