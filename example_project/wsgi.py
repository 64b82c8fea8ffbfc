"""The application for WSGI servers, without waits and WebSockets."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")
# Keeps connections, because the threads of a WSGI server last.
os.environ.setdefault("CONN_MAX_AGE", "60")
application = get_wsgi_application()
