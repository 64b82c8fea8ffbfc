"""The database's clock. No other time is written or compared, because servers' clocks differ."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db.models.functions import Now as DjangoNow
from django.utils.deconstruct import deconstructible

from zndraw_joblib.storage import statements
from zndraw_joblib.storage.rows import parsed_time

#: A time that lies further ahead of the clock than it can is not believed, because the clock went
#: back. Two statements at the same moment may differ by less than this.
TOLERANCE = timedelta(seconds=1)


def database_time(using: str) -> datetime:
    """The present time of a database."""
    ((now,),) = statements.run(using, "read_clock").rows
    return parsed_time(now, using)


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
