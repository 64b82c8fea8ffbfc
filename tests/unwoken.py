"""Run a module whose main thread no signal wakes: ``python -m tests.deaf MODULE [ARGUMENTS]``.

Another thread takes SIGTERM and SIGINT. Python's handlers run in the main thread all the same, but
only once it does something; so it is with a signal that arrives just before it begins to wait.
"""

from __future__ import annotations

import runpy
import signal
import sys
import threading

if __name__ == "__main__":
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
