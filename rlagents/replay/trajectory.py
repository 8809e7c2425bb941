"""Whole episodes, or parts of them, for learners that need them; each frame is kept once."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np

from rlagents.files import load_array, save_array
from rlagents.spaces import FrameStack
from rlagents.types import Array, BoolArray, FloatArray, IntArray


class Trajectory:
    """Steps that follow one another: observations, actions, rewards, and where returns end."""

    def __init__(self, observation_space: gym.spaces.Box) -> None:
        self._space = observation_space
        self._stacked = isinstance(observation_space, FrameStack)
        self._stack = observation_space.shape[0] if self._stacked else 1
        self._items: list[Array] = []
        self._actions: list[int] = []
        self._rewards: list[float] = []
        self._ends: list[bool] = []

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self._actions)

    def append(self, observation: Array, action: int, reward: float, end: bool) -> None:
        """Add a step.

        Args:
            observation: [...] that was acted on.
            action: chosen.
            reward: of the action.
            end: whether it was the last of a game or of a life.
        """
        if not self._stacked:
            self._items.append(observation.copy())
        elif self._actions:
            self._items.append(observation[-1].copy())  # the others have been there before
        else:
            self._items.extend(observation.copy())
        self._actions.append(action)
        self._rewards.append(reward)
        self._ends.append(end)

    def observations(self) -> Array:
        """Return all observations as they were seen: [T, ...]."""
        items = np.stack(self._items)
        if not self._stacked:
            return items
        windows = np.lib.stride_tricks.sliding_window_view(items, self._stack, axis=0)
        return np.moveaxis(windows, -1, 1)  # [T, C, H, W], a view

    def actions(self) -> IntArray:
        """Return the actions: [T] int64."""
        return np.array(self._actions, dtype=np.int64)

    def rewards(self) -> FloatArray:
        """Return the rewards: [T] float32."""
        return np.array(self._rewards, dtype=np.float32)

    def ends(self) -> BoolArray:
        """Return with which steps returns end: [T] bool."""
        return np.array(self._ends, dtype=np.bool_)

    def save(self, directory: Path, name: str) -> None:
        """Write the steps so far to `directory`, under `name`."""
        if len(self):
            save_array(directory / f"{name}-items.npy", np.stack(self._items))
            save_array(directory / f"{name}-actions.npy", self.actions())
            rewards = np.array(self._rewards, dtype=np.float64)
            save_array(directory / f"{name}-rewards.npy", rewards)
            save_array(directory / f"{name}-ends.npy", self.ends())

    def load(self, directory: Path, name: str) -> None:
        """Read back what `save` wrote.

        Raises:
            OSError: a file cannot be read.
            ValueError: it is damaged, or was written with another stack, or before stacks were
                saved whole.
        """
        self._items, self._actions, self._rewards, self._ends = [], [], [], []
        if (directory / f"{name}-items.npy").exists():
            space = self._space
            shape = space.shape[1:] if self._stacked else space.shape
            items = load_array(directory / f"{name}-items.npy", space.dtype, (None, *shape))
            actions = load_array(directory / f"{name}-actions.npy", np.int64, (None,))
            rewards = load_array(directory / f"{name}-rewards.npy", np.float64, (len(actions),))
            ends = np.zeros(len(actions), dtype=np.bool_)  # older checkpoints have none
            if (directory / f"{name}-ends.npy").exists():
                ends = load_array(directory / f"{name}-ends.npy", np.bool_, (len(actions),))
            if len(items) != len(actions) + self._stack - 1:
                raise ValueError(f"{name}-items.npy: frames and actions do not belong together")
            self._items = list(items)
            self._actions = actions.tolist()
            self._rewards = rewards.tolist()
            self._ends = ends.tolist()
