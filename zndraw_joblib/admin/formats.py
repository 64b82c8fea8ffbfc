"""Values as the admin displays them."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString


def duration(span: timedelta) -> str:
    """A span of time in a few characters: ``42 ms``, ``3.1 s``, ``2:05:09``."""
    seconds = max(span.total_seconds(), 0)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds_left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds_left:02}"


def time_since(moment: datetime | None) -> str:
    """The time since a moment; a dash for None."""
    return duration(timezone.now() - moment) if moment else "-"


def preformatted(text: str) -> SafeString:
    """Escaped text that keeps its line breaks."""
    return format_html('<pre class="joblib-text">{}</pre>', text)


def indented_json(value: Any) -> SafeString:
    """Indented, escaped JSON."""
    return preformatted(json.dumps(value, indent=2, ensure_ascii=False))
