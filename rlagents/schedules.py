"""Settings that change with the agent steps done, or with how well they were played."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np

from rlagents.types import BoolArray, FloatArray


class LinearSchedule(NamedTuple):
    """Goes from `start` to `end` in a straight line over `steps` agent steps, and stays there."""

    start: float
    end: float
    steps: int

    def at(self, step: int) -> float:
        """Return the value after so many agent steps."""
        return self.start + min(step / self.steps, 1.0) * (self.end - self.start)


class Milestone:
    """Is reached when the mean return of the last 20 training episodes is `goal` or more, for good.

    Args:
        goal: the return; None is never reached.
        num_envs: N environments that are played together.
    """

    EPISODES = 20

    def __init__(self, goal: float | None, num_envs: int) -> None:
        self._goal = goal
        self._running = np.zeros(num_envs)  # returns of the episodes that are not over
        self._recent: deque[float] = deque(maxlen=self.EPISODES)
        self.reached = False

    def observe(self, reward: FloatArray, episode_over: BoolArray) -> None:
        """Take in [N] rewards, as the game gave them, and [N] whether that was an episode's end."""
        if self._goal is None or self.reached:
            return
        self._running += reward
        self._recent.extend(self._running[episode_over].tolist())
        self._running[episode_over] = 0
        full = len(self._recent) == self.EPISODES
        self.reached = full and float(np.mean(self._recent)) >= self._goal

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
