"""HTTP: a view parses the request, calls one service and renders its result.

`parsing` and `bodies` read requests, `documents` and `rendering` write answers, `problems` answers
errors, `waiting` and `routes` serve ``Prefer: wait``, and `openapi` describes the endpoints. Rules
about jobs, workers and tasks belong into `services`.
"""
