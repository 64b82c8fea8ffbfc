"""The pages of the site: what goes on, and what the demo adds to the page of a room."""
