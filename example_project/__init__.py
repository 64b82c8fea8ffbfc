"""A complete site around the job server: users, the pages of rooms, and a demo."""
