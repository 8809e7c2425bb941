"""A slow environment to measure with: each step is a fixed amount of a core's time."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np


class Slow(gym.Env[Any, int]):
    """Shows eight numbers; a step computes for `step_ms` of its thread's own time.

    Args:
        step_ms: milliseconds that a step takes on a core of its own.
        length: steps of an episode.
    """

    observation_space = gym.spaces.Box(-np.inf, np.inf, (8,), np.float32)
    action_space = gym.spaces.Discrete(4)

    def __init__(self, step_ms: float = 2.0, length: int = 1000) -> None:
        self._step_s = step_ms / 1000
        self._length = length
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        self._steps = 0
        return self._observe(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Compute for a while."""
        end = time.thread_time() + self._step_s  # what others do on the core does not count
        while time.thread_time() < end:
            pass
        self._steps += 1
        return self._observe(), 0.0, False, self._steps >= self._length, {}

    def _observe(self) -> Any:
        return self.np_random.normal(size=8).astype(np.float32)
