"""For WSGI servers: everything but waiting and WebSockets."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")
# A WSGI server's threads stay, and so may their connections.
os.environ.setdefault("CONN_MAX_AGE", "60")
application = get_wsgi_application()
