"""Migrations of the database schema; those for PostgreSQL alone do nothing elsewhere."""
