"""Throughput and latency of this job server beside the FastAPI original's: ``make bench``."""
