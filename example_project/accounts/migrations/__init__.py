"""Migrations of the users."""
