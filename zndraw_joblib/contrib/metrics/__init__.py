"""Numbers for Prometheus: an app for `INSTALLED_APPS`, and a view; needs the extra ``metrics``."""
