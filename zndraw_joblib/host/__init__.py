"""The functions that the site's own code calls, without HTTP.

`zndraw_joblib` exports them: `submit`, `asubmit`, `wait_for`, `await_for` and `declare_job`.
"""
