"""A complete site around the job server: users, rooms with documents, and a demo."""
