"""The rules of the job server: one use case a module, called by views, commands and host code.

A service takes the `Caller` and not the request, and returns its result or raises a problem. Rules
that need more than one row or the caller belong here; the statements are in `storage`.
"""
