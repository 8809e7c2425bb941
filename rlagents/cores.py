"""How many cores there are to work with. A file of its own: emulators ask it without torch."""

from __future__ import annotations

import os


def num_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
