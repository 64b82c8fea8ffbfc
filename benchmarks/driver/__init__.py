"""The driver: a process of its own that sends requests and keeps time.

``python -m benchmarks.driver`` reads a JSON object from its standard input, whose `what` names the
thing to do and whose other members are its arguments, and prints the result as JSON.
"""
