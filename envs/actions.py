"""Named action sets: which of an environment's own actions an agent may choose from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import gymnasium as gym
import numpy as np

from rlagents.errors import UsageError, did_you_mean
from rlagents.types import IntArray

DEFAULT = "default"


def choose_action_set(
    sets: Mapping[str, Sequence[int]], name: str, env_name: str
) -> IntArray | None:
    """Return the environment's action for each of the agent's, or None for all as they are.

    Args:
        sets: the action sets by name; each lists actions of the environment.
        name: the set asked for; "default" stands for the environment's own actions.
        env_name: what to call the environment in an error.

    Returns:
        [A] int64, or None.

    Raises:
        UsageError: there is no set of that name.
    """
    if name == DEFAULT and name not in sets:
        return None
    if name not in sets:
        known = sorted(sets) or [DEFAULT]
        raise UsageError(
            f"[env] action_set: {env_name} has no action set {name!r}"
            f"{did_you_mean(name, known)} It has: {', '.join(known)}."
        )
    return np.asarray(sets[name], dtype=np.int64)


class SelectActions(gym.ActionWrapper[np.ndarray, int, int]):
    """Offers a choice of a discrete environment's actions, numbered from 0."""

    def __init__(self, env: gym.Env[np.ndarray, int], actions: IntArray) -> None:
        super().__init__(env)
        self._actions = actions
        self.action_space = gym.spaces.Discrete(len(actions))  # type: ignore[assignment]

    def action(self, action: int) -> int:
        """Return the environment's own number of the agent's `action`."""
        return int(self._actions[action])
