"""Rings of observations in which each frame is kept once.

An observation of type `FrameStack` repeats all but its newest frame from the step before. So a ring
keeps the newest frame of each step, and how many frames of its episode came before it; stacks are
put together again when they are asked for, with zero frames before an episode's first. Any other
observation is an item of its own, a stack of one.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from rlagents.files import load_array, save_array
from rlagents.replay.items import Compression, Storage, footprint_of_items, make_items
from rlagents.replay.segments import Segments
from rlagents.spaces import FrameStack
from rlagents.types import Array, Footprint, IntArray


class FrameRings:
    """One ring of `rows` items for each of N environments.

    Rows are counted from 0 and never wrap in the caller's view: row r stands in slot r % rows until
    row r + rows overwrites it.

    Args:
        observation_space: of one environment.
        num_envs: N.
        rows: of each ring.
        compression: whether items are compressed.
        storage: where they lie.
        device: in PyTorch's words, of storage = "device".
    """

    def __init__(
        self,
        observation_space: gym.spaces.Box,
        num_envs: int,
        rows: int,
        *,
        compression: Compression = "none",
        storage: Storage = "memory",
        device: str = "cpu",
    ) -> None:
        shape = observation_space.shape
        stacked = isinstance(observation_space, FrameStack)
        self.num_envs = num_envs
        self.rows = rows
        self.stack = shape[0] if stacked else 1
        self._stacked = stacked
        self._shape = shape
        self._item_shape = shape[1:] if stacked else shape
        # The row behind all rings stays zero: it is every frame before an episode's first.
        self._zero = num_envs * rows
        self.items = make_items(
            self._zero + 1,
            self._item_shape,
            observation_space.dtype,
            compression=compression,
            storage=storage,
            device=device,
        )
        self._age = np.zeros((num_envs, rows), dtype=np.uint8)  # frames before it, at most stack-1
        item_bytes = math.prod(self._item_shape) * np.dtype(observation_space.dtype).itemsize
        self._segments = Segments(self.items, num_envs, rows, item_bytes)

    @staticmethod
    def footprint(
        observation_space: gym.spaces.Box,
        num_envs: int,
        rows: int,
        *,
        compression: Compression = "none",
        storage: Storage = "memory",
    ) -> Footprint:
        """Return what such rings take when full."""
        shape = observation_space.shape
        item = shape[1:] if isinstance(observation_space, FrameStack) else shape
        items = footprint_of_items(
            num_envs * rows + 1,
            item,
            observation_space.dtype,
            compression=compression,
            storage=storage,
        )
        return items.plus(num_envs * rows)

    def write(self, envs: IntArray, rows: IntArray, observations: Array, fresh: Array) -> None:
        """Put the newest frame of observations into rows.

        Args:
            envs: [K] int64, the rings.
            rows: [K] int64, the row in each of them.
            observations: [K, ...] as the agent saw them.
            fresh: [K] bool, whether it is the first of its episode.
        """
        newest = observations[:, -1] if self._stacked else observations
        self.items.put(self.places(envs, rows), newest)
        older = self._age.take(self.places(envs, rows - 1)).astype(np.int64) + 1
        self._age[envs, rows % self.rows] = np.where(fresh, 0, np.minimum(older, self.stack - 1))

    def places(self, envs: IntArray, rows: IntArray) -> IntArray:
        """Return where rows stand if all rings are counted through, which is fast to index by."""
        places: IntArray = envs * self.rows + rows % self.rows
        return places

    def oldest_needed(self, envs: IntArray, rows: IntArray) -> IntArray:
        """Return the oldest row that each row's observation is made of: [K] int64."""
        return rows - self._age.take(self.places(envs, rows))

    def batch(self, count: int) -> Any:
        """Return an array for `read` to write to, or a tensor on the device: [count, ...]."""
        return self.items.batch((count, *self._shape))

    def read(self, envs: IntArray, rows: IntArray, out: Any) -> None:
        """Put the observations of rows together in `out`, [K, ...], byte for byte as seen."""
        age = self._age.take(self.places(envs, rows))
        back = np.arange(self.stack - 1, -1, -1)  # oldest first
        wanted = self.places(envs[:, None], rows[:, None] - back)
        index = np.where(back <= age[:, None], wanted, self._zero)  # [K, stack]
        flat = out.reshape(len(rows) * self.stack, *self._item_shape)
        self.items.take(index.ravel(), flat)

    def save(self, directory: Path, heads: IntArray) -> None:
        """Write what the rings hold to `directory`; see segments.py.

        Args:
            directory: to write to.
            heads: [N] int64, rows written so far to each ring.
        """
        self._segments.save(directory, heads)
        filled = int(min(heads.max(), self.rows))
        save_array(directory / "age.npy", self._age[:, :filled])

    def load(self, directory: Path, heads: IntArray) -> None:
        """Read back what `save` wrote.

        Raises:
            ValueError: it is damaged, or of other rings.
        """
        filled = int(min(heads.max(), self.rows))
        age = load_array(directory / "age.npy", np.uint8, (self.num_envs, filled))
        if age.max(initial=0) >= self.stack:
            raise ValueError("age.npy counts more frames than a stack has")
        self._segments.load(directory, heads)
        self._age[:, :filled] = age
