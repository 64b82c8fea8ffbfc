"""The driver: a process of its own that sends requests and keeps time.

``python -m benchmarks.driver`` reads a JSON object from its standard input. Its member `operation`
names the measurement, the other members are the arguments. The result is printed as JSON.
"""
