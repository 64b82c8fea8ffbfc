"""The registries that are exported, of one process or of all processes of a machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from zndraw_joblib.contrib.metrics.database import DatabaseCollector

#: The environment variable that names the folder which the processes share.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class LiveProcessCollector(MultiProcessCollector):
    """Collects the numbers of all processes, whose gauges end with them.

    A process that was killed could not remove its own gauges.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(None, folder)  # type: ignore[no-untyped-call]
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """As `MultiProcessCollector`, after the gauges of dead processes are removed."""
        for file in Path(self._folder).glob("gauge_live*.db"):
            found = re.search(r"_(\d+)\.db$", file.name)
            if found and not _is_alive(int(found[1])):
                mark_process_dead(int(found[1]), self._folder)  # type: ignore[no-untyped-call]
        return super().collect()  # type: ignore[no-untyped-call, no-any-return]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # Another user's.
        return True
    return True


@cache
def process_registry() -> CollectorRegistry:
    """The metrics of this process, or with `PROMETHEUS_MULTIPROC_DIR` of all of the machine.

    Among them are those that the site and its other apps have made with `prometheus_client`.
    """
    registry = CollectorRegistry(support_collectors_without_names=True)
    folder = os.environ.get(FOLDER)
    registry.register(LiveProcessCollector(folder) if folder else REGISTRY)
    return registry


@cache
def site_registry() -> CollectorRegistry:
    """The metrics of `process_registry`, and those of the database."""
    registry = CollectorRegistry(support_collectors_without_names=True)
    registry.register(process_registry())
    registry.register(DatabaseCollector())
    return registry
