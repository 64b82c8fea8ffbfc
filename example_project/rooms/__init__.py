"""Rooms: their documents over REST, and the pages of the site."""
