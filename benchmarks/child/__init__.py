"""Small programs that run in the example site's own environment and print JSON."""
