"""The application for WSGI servers, without waits and WebSockets."""

from __future__ import annotations

import gc
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")
# Keeps connections, because the threads of a WSGI server last.
os.environ.setdefault("CONN_MAX_AGE", "60")
application = get_wsgi_application()

# Garbage collection skips the modules loaded so far and runs less often, because a batch of 100
# tasks makes thousands of short-lived objects. It adds a fifth to the throughput of batches.
gc.collect()
gc.freeze()
gc.set_threshold(20_000, 10, 10)
