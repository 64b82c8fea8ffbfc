"""The database's clock. No other time is written or compared, because servers' clocks differ."""

from __future__ import annotations

from typing import Any

from django.db.models.functions import Now as DjangoNow
from django.utils.deconstruct import deconstructible


@deconstructible(path="zndraw_joblib.storage.clock.Now")
class Now(DjangoNow):
    """The present time of the database.

    SQLite compares times as text, so this has the format of Django's `datetime` parameters: six
    decimals or none. Django's own `Now` has three.
    """

    def as_sqlite(self, compiler: Any, connection: Any, **extra_context: Any) -> Any:
        """Six decimals, or none when they are all zero."""
        return self.as_sql(
            compiler,
            connection,
            template="REPLACE(STRFTIME('%%%%Y-%%%%m-%%%%d %%%%H:%%%%M:%%%%f', 'NOW') || '000',"
            " '.000000', '')",
            **extra_context,
        )
