"""Do what standard input asks for and print the result."""

from __future__ import annotations

import resource
import sys

import orjson
import uvloop

from benchmarks.driver import backlog, batches, cycles, ends, pages, starts, waiters

KINDS = {
    "backlog": backlog.run,
    "batches": batches.run,
    "cycles": cycles.run,
    "ends": ends.run,
    "ends_swept": ends.run_swept,
    "enlist": backlog.enlist,
    "link": pages.link,
    "pages": pages.run,
    "starts": starts.run,
    "waiters": waiters.run,
}


def main() -> None:
    # Ten thousand connections are ten thousand open files.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    wish = orjson.loads(sys.stdin.buffer.read())
    result = uvloop.run(KINDS[wish.pop("what")](**wish))
    sys.stdout.buffer.write(orjson.dumps(result))


if __name__ == "__main__":
    main()
