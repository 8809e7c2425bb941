"""How numbers and settings are written for people."""

from __future__ import annotations

import json
import math
from typing import Any


def duration(seconds: float) -> str:
    """Return a time as `3 h 05 min`, `5 min 03 s` or `12 s`; `-` for what is no time."""
    if not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def finite(value: Any) -> Any:
    """Return a value of lists and dicts with None for each number that JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    return [finite(one) for one in value] if isinstance(value, list) else value


def percent(share: float) -> str:
    """Return a share, 0 to 1, in three digits: `97 %`, `99.6 %`."""
    return f"{100 * share:.3g} %"


def printable(text: str) -> str:
    """Return a text from a file as it can be shown anywhere, on one line.

    What would end a line, or tell a terminal to do something, or is half a letter, becomes �.
    """
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def value_text(value: Any) -> str:
    """Return a config's value as one would write it: `none`, `true`, `0.001`, `[64, 64]`."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
