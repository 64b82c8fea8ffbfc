"""Users, and tokens for name and password."""
