"""Runs the operation that standard input names and prints its result as JSON."""

from __future__ import annotations

import resource
import sys

import orjson
import uvloop

from benchmarks.driver import (
    backlog,
    batches,
    cycles,
    ends,
    events,
    pages,
    progress,
    starts,
    waiters,
)

OPERATIONS = {
    "backlog": backlog.run,
    "batches": batches.run,
    "cycles": cycles.run,
    "ends": ends.run,
    "events": events.run,
    "ends_swept": ends.run_swept,
    "register": backlog.register,
    "link": pages.link,
    "pages": pages.run,
    "progress": progress.run,
    "starts": starts.run,
    "waiters": waiters.run,
}


def main() -> None:
    # Raises the limit of open files, because the waiters need ten thousand connections.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    request = orjson.loads(sys.stdin.buffer.read())
    result = uvloop.run(OPERATIONS[request.pop("operation")](**request))
    sys.stdout.buffer.write(orjson.dumps(result))


if __name__ == "__main__":
    main()
