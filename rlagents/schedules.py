"""Settings that change with the agent steps done, or with how well they were played."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from rlagents.errors import UsageError
from rlagents.tables import Table
from rlagents.types import BoolArray, FloatArray

_Value = TypeVar("_Value")


class LinearSchedule(NamedTuple):
    """Goes from `start` to `end` in a straight line over `steps` agent steps, and stays there."""

    start: float
    end: float
    steps: int

    def at(self, step: int) -> float:
        """Return the value after so many agent steps."""
        return self.start + min(step / self.steps, 1.0) * (self.end - self.start)


def scheduled(table: Table, key: str, step: int) -> float:
    """Return what a table's key is after so many agent steps.

    That is its value, or on the straight line to `<key>_end` over `<key>_decay_steps`, where they
    are set.
    """
    start, end, steps = (getattr(table, name) for name in (key, *_line(key)))
    if end is None or steps is None:
        return float(start)
    return LinearSchedule(start, end, steps).at(step)


def check_scheduled(table: Table, key: str) -> None:
    """Raise UsageError where only one of `<key>_end` and `<key>_decay_steps` is set."""
    names = _line(key)
    given = [name for name in names if getattr(table, name) is not None]
    if len(given) == 1:
        (missing,) = set(names) - set(given)
        raise UsageError(f"[agent] {given[0]}: needs {missing} beside it; set both or neither.")


def _line(key: str) -> tuple[str, str]:
    return f"{key}_end", f"{key}_decay_steps"


class Milestones:
    """Returns that the mean of the last training episodes reaches, one by one and for good.

    Args:
        goals: the returns, in the order in which they are to be reached.
        num_envs: N environments that are played together.
        episodes: whose mean counts, for each goal; 20 for all if None.
    """

    EPISODES = 20

    def __init__(
        self, goals: Sequence[float], num_envs: int, episodes: Sequence[int] | None = None
    ) -> None:
        self._episodes = [self.EPISODES] * len(goals) if episodes is None else episodes
        self._goals = goals
        self._running = np.zeros(num_envs)  # returns of the episodes that are not over
        self._recent: deque[float] = deque(maxlen=max(self._episodes, default=1))
        self.reached = 0  # how many of the goals

    def observe(
        self, reward: FloatArray, episode_over: BoolArray, failed: BoolArray | None = None
    ) -> None:
        """Take in a step of N environments.

        Args:
            reward: [N] as the game gave them.
            episode_over: [N] whether that was an episode's end.
            failed: [N] whether that was since the environment failed; such an episode's return
                says nothing of the policy, and is not counted.
        """
        if self.reached == len(self._goals):
            return
        self._running += reward
        if not episode_over.any():
            return
        counted = episode_over if failed is None else episode_over & ~failed
        self._recent.extend(self._running[counted].tolist())
        self._running[episode_over] = 0
        while self.reached < len(self._goals):
            number = self._episodes[self.reached]
            last = list(self._recent)[-number:]
            if len(last) < number or np.mean(last) < self._goals[self.reached]:
                break
            self.reached += 1

    def choose(self, values: Sequence[_Value] | None) -> _Value | None:
        """Return the value, of one for each goal, of the last goal reached; None before the first.

        Where there are no values, that is None throughout.
        """
        return values[self.reached - 1] if values is not None and self.reached else None

    def interrupt(self) -> None:
        """Forget the running episodes: every environment begins a new one."""
        self._running[:] = 0

    def state(self) -> dict[str, Any]:
        """Return what `set_state` takes, for JSON."""
        return {
            "running": self._running.tolist(),
            "recent": list(self._recent),
            "reached": self.reached,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        self._running = np.array(state["running"], dtype=np.float64)
        self._recent.clear()
        self._recent.extend(state["recent"])
        self.reached = state["reached"]
