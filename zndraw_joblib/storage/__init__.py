"""How rows are kept: one module of querysets for each model, and the named SQL statements.

`tasks` has every verb that changes a status. The statements are in ``sql/postgresql.sql`` and
``sql/sqlite.sql``; `statements` runs them, and `rows` has the plain types that they return. Rules
that ask for the caller belong into `services`.
"""
