"""Numbers as a learner takes them: rewards clipped or normalised, returns standardised."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlagents.types import BoolArray, FloatArray

_LARGEST = 10.0  # a normalised reward; before returns have been seen to vary, all would be beyond


def standardize(values: FloatArray) -> FloatArray:
    """Return values with mean 0 and standard deviation 1; all zero where they do not differ."""
    if values.min() == values.max():  # their mean may be rounded, and all would differ from it
        return np.zeros_like(values)
    centred = values - values.mean()
    return np.asarray(centred / (values.std() + 1e-8), dtype=np.float32)


class RewardNormalizer:
    """Divides rewards by the standard deviation that discounted returns have had so far.

    For each of N environments R <- gamma R + r adds up what came before, from an episode's
    beginning; the variance of all these R is kept as they come (Chan et al. 1979). Rewards are not
    centred, since that would change which policy is best. So do OpenAI's Baselines (VecNormalize);
    Engstrom et al., "Implementation matters in deep policy gradients" (2020), Algorithm 1.

    Args:
        num_envs: N.
        gamma: discount per step.
    """

    def __init__(self, num_envs: int, gamma: float) -> None:
        self._gamma = gamma
        self._running = np.zeros(num_envs)  # R of each environment
        self._count, self._mean, self._squares = 0, 0.0, 0.0  # squares of distances from the mean

    def __call__(self, reward: FloatArray, ends: BoolArray) -> FloatArray:
        """Take in [N] rewards and [N] whether returns end with them; return [N] rewards."""
        self._running = self._gamma * self._running + reward
        count = len(self._running)
        mean = float(self._running.mean())
        total = self._count + count
        distance = mean - self._mean
        self._squares += float(((self._running - mean) ** 2).sum())
        self._squares += distance**2 * self._count * count / total
        self._mean += distance * count / total
        self._count = total
        self._running[ends] = 0
        deviation = np.sqrt(self._squares / total + 1e-8)
        return np.asarray(np.clip(reward / deviation, -_LARGEST, _LARGEST), dtype=np.float32)

    def interrupt(self) -> None:
        """Forget the running returns: every environment begins a new episode."""
        self._running[:] = 0

    def state(self) -> dict[str, Any]:
        """Return what `set_state` takes, for JSON."""
        return {
            "running": self._running.tolist(),
            "count": self._count,
            "mean": self._mean,
            "squares": self._squares,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state.

        Raises:
            ValueError: it is not one of as many environments.
        """
        running = np.array(state["running"], dtype=np.float64)
        if running.shape != self._running.shape:
            raise ValueError(f"the running returns are of {running.shape} environments")
        self._running = running
        self._count = int(state["count"])
        self._mean, self._squares = float(state["mean"]), float(state["squares"])
