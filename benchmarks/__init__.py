"""What this job server does in a second, beside the FastAPI original: ``make bench``."""
