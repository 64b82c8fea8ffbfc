"""For WSGI servers: everything but waiting and WebSockets."""

from __future__ import annotations

import gc
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")
# A WSGI server's threads stay, and so may their connections.
os.environ.setdefault("CONN_MAX_AGE", "60")
application = get_wsgi_application()

# What is loaded by now stays. Full collections that looked at it too would hold up a request for a
# tenth of a second now and then.
gc.collect()
gc.freeze()
# A request about a hundred tasks makes a few thousand objects, hardly any of them in cycles.
gc.set_threshold(20_000, 10, 10)
