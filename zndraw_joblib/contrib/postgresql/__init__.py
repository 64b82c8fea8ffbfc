"""A database engine for persistent connections: ``ENGINE = "zndraw_joblib.contrib.postgresql"``.

It is Django's for PostgreSQL, whose health check of each request takes a sixth of a short request.
"""
