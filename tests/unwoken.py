"""Run a module whose main thread no signal wakes: ``python -m tests.unwoken MODULE [ARGUMENTS]``.

Another thread receives SIGTERM and SIGINT. Python runs the handlers in the main thread, but only
when that thread executes bytecode again. A signal that arrives just before the main thread begins
to wait has the same effect.
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
