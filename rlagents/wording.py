"""How numbers and settings are written for people."""

from __future__ import annotations

import json
from typing import Any


def duration(seconds: float) -> str:
    """Return a time as `3 h 05 min`, `5 min 03 s` or `12 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def value_text(value: Any) -> str:
    """Return a config's value as one would write it: `none`, `true`, `0.001`, `[64, 64]`."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
