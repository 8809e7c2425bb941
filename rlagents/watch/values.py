"""What a run's files say, as the kinds of values that the page expects: they may hold anything."""

from __future__ import annotations

import sys
from typing import Any

_DEEPEST = 32  # tables and lists in one another


def text(value: Any) -> str | None:
    """Return a text that can be sent, None if the value is none."""
    if not isinstance(value, str):
        return None
    return value.encode("utf-8", "replace").decode("utf-8")  # JSON can hold halves of letters


def number(value: Any) -> int | float | None:
    """Return a number that browsers can read, None if the value is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) <= sys.float_info.max else None


def is_nested_too_deeply(value: Any) -> bool:
    """Tell whether a value has more levels than any config has."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [one for outer in level for one in _parts(outer)]
    return bool(level)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
