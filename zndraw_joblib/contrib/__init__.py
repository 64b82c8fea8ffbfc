"""Optional parts that a host names in its settings or in `asgi.py`, for speed under load."""
