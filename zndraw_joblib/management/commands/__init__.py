"""Commands of ``manage.py``, each a thin call of a service."""
