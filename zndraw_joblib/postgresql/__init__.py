"""Django's PostgreSQL backend with a health check that costs no round trip.

``DATABASES[...]["ENGINE"] = "zndraw_joblib.postgresql"``; for persistent connections, under WSGI.
"""
