"""The database's clock: no application server's time is ever written or compared."""

from __future__ import annotations

from typing import Any

from django.db.models.functions import Now as DjangoNow
from django.utils.deconstruct import deconstructible


@deconstructible(path="zndraw_joblib.storage.clock.Now")
class Now(DjangoNow):
    """The time of the database.

    On SQLite, where times are text, it is written as Django writes a `datetime` parameter, so
    that the two compare; Django's own `Now` has three decimals and parameters have six or none.
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
