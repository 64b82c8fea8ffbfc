"""The demo of ``make demo``: jobs, a worker, and the program that runs them with a server."""
