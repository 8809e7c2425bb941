"""Settings that change with the agent steps done."""

from __future__ import annotations

from typing import NamedTuple


class LinearSchedule(NamedTuple):
    """Goes from `start` to `end` in a straight line over `steps` agent steps, and stays there."""

    start: float
    end: float
    steps: int

    def at(self, step: int) -> float:
        """Return the value after so many agent steps."""
        return self.start + min(step / self.steps, 1.0) * (self.end - self.start)
