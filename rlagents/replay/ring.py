"""The last transitions of N environments, and batches of them with n-step returns.

An environment's ring holds a row per agent step and one more after an episode's last step, which
holds nothing but the frame that the episode ended with:

    # row:      0    1    2    3    4    5       row 2 ends the first episode, row 3 is its last
    # frame:    f0   f1   f2   f3   g0   g1      frame; the second episode begins in row 4
    # action:   a0   a1   a2   -    b0   b1

Which rows a batch is made of is chosen elsewhere: uniformly, or by priority.
"""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from rlagents.files import load_array, read_json, save_array
from rlagents.replay.frames import FrameRings
from rlagents.replay.items import Compression, Storage
from rlagents.spaces import FrameStack
from rlagents.types import Array, BoolArray, FloatArray, Footprint, IntArray, Transition


class Drawn(NamedTuple):
    """Which transitions a batch of prioritized replay holds."""

    leaves: IntArray  # [B] where their priorities are
    rows: IntArray  # [B] of their environments' rings, counted from the first ever written


class Batch(NamedTuple):
    """B transitions over n steps; the observations are overwritten by the next sample.

    The n-step target is `reward + discount * value(next_observation)`.
    """

    observation: Any  # [B, ...] an array, or a tensor where frames lie on a device
    action: IntArray  # [B]
    reward: FloatArray  # [B] sum of gamma^k * r_{t+k} over the steps until the end, n at most
    discount: FloatArray  # [B] gamma^(number of those steps), 0 where the episode terminated
    next_observation: Any  # [B, ...] n steps later, or what a truncated episode ended with
    weights: FloatArray | None = None  # [B] of each transition's loss; None where all are 1
    drawn: Drawn | None = None  # whose priorities can be set, if there are any


class TransitionRing:
    """Keeps the last transitions of N environments and puts batches of them together.

    Args:
        observation_space: of one environment.
        num_envs: N.
        capacity: transitions over all environments; a finished episode takes one row more.
        batch_size: B of every batch.
        n_step: steps of a return, 1 or more.
        gamma: discount per step.
        compression: whether frames are compressed.
        storage: where frames lie.
        device: in PyTorch's words, of storage = "device".
    """

    def __init__(
        self,
        observation_space: gym.spaces.Box,
        num_envs: int,
        *,
        capacity: int,
        batch_size: int,
        n_step: int,
        gamma: float,
        compression: Compression = "none",
        storage: Storage = "memory",
        device: str = "cpu",
    ) -> None:
        rows = rows_for(observation_space, num_envs, capacity, n_step)
        self.frames = FrameRings(
            observation_space,
            num_envs,
            rows,
            compression=compression,
            storage=storage,
            device=device,
        )
        self.num_envs = num_envs
        self.rows = rows  # of each environment
        self.batch_size = batch_size
        self.n_step = n_step
        self.stack = self.frames.stack
        self.head = np.zeros(num_envs, dtype=np.int64)  # rows written so far
        powers = [np.float32(1)]  # gamma^0 to gamma^n
        for _ in range(n_step):
            powers.append(powers[-1] * np.float32(gamma))
        self._powers = np.array(powers)
        shape = (num_envs, rows)
        self._action = np.zeros(shape, dtype=np.int64)
        self._reward = np.zeros(shape, dtype=np.float32)
        self._terminated = np.zeros(shape, dtype=np.bool_)
        self._over = np.zeros(shape, dtype=np.bool_)
        self._no_step = np.ones(shape, dtype=np.bool_)  # never written, or an episode's last frame
        self._fresh = np.ones(num_envs, dtype=np.bool_)  # the next row begins an episode
        self._size = 0
        self._observation = self.frames.batch(batch_size)
        self._next_observation = self.frames.batch(batch_size)
        # A second thread copies half of a large batch. A small one is copied before the thread has
        # woken up, frames that are decompressed one by one keep it waiting for Python's lock, and
        # a GPU copies one batch after the other whoever asks for them.
        self._second: ThreadPoolExecutor | None = None
        copies = compression == "none" and storage != "device"
        if copies and self._observation.nbytes >= _LARGE_BATCH:
            self._second = ThreadPoolExecutor(1, thread_name_prefix="replay")

    @staticmethod
    def footprint(
        observation_space: gym.spaces.Box,
        num_envs: int,
        capacity: int,
        n_step: int,
        *,
        compression: Compression = "none",
        storage: Storage = "memory",
    ) -> Footprint:
        """Return what such a ring takes when full."""
        rows = rows_for(observation_space, num_envs, capacity, n_step)
        frames = FrameRings.footprint(
            observation_space, num_envs, rows, compression=compression, storage=storage
        )
        return frames.plus(num_envs * rows * 15)

    def __len__(self) -> int:
        """Return the number of transitions held."""
        return self._size

    def observe(self, transition: Transition) -> None:
        """Append one step of every environment."""
        everyone = np.arange(self.num_envs)
        slots = self._append(everyone, transition.observation, self._fresh, no_step=False)
        self._action[everyone, slots] = transition.action
        self._reward[everyone, slots] = transition.reward
        self._terminated[everyone, slots] = transition.terminated
        self._over[everyone, slots] = transition.episode_over
        self._fresh = transition.episode_over.copy()
        (ended,) = np.nonzero(transition.episode_over)
        if len(ended):
            continues = np.zeros(len(ended), dtype=np.bool_)
            self._append(ended, transition.next_observation[ended], continues, no_step=True)

    def _append(
        self, envs: IntArray, observations: Array, fresh: BoolArray, *, no_step: bool
    ) -> IntArray:
        rows = self.head[envs]
        slots = rows % self.rows
        self.frames.write(envs, rows, observations, fresh)
        self._size -= int(np.count_nonzero(~self._no_step[envs, slots]))
        self._size += 0 if no_step else len(envs)
        self._no_step[envs, slots] = no_step
        self.head[envs] += 1
        return slots

    def interrupt(self) -> None:
        """Close the running episodes: their next observation will never come."""
        (running,) = np.nonzero(~self._fresh)
        newest = (self.head[running] - 1) % self.rows
        before = (newest - 1) % self.rows
        # Without a successor the newest step cannot be learned from. It becomes the frame that the
        # episode ended with, and the step before it, if there was one, the episode's last.
        self._no_step[running, newest] = True
        self._size -= len(running)
        last = (self.head[running] > 1) & ~self._no_step[running, before]
        self._over[running[last], before[last]] = True
        self._fresh[:] = True

    def gather(self, envs: IntArray, rows: IntArray) -> Batch:
        """Return the transitions that begin in these rows, [B] each, which must be complete."""
        reading: Future[None] | None = None
        if self._second is None:
            self.frames.read(envs, rows, self._observation)
        else:
            reading = self._second.submit(self.frames.read, envs, rows, self._observation)
        reward, discount, next_rows = self._look_ahead(envs, rows)
        self.frames.read(envs, next_rows, self._next_observation)
        action = self._action.take(self.frames.places(envs, rows))
        if reading is not None:
            reading.result()
        return Batch(
            self._observation,
            action,
            reward,
            discount,
            self._next_observation,
        )

    def complete(self, envs: IntArray, rows: IntArray) -> BoolArray:
        """Tell for which rows the step, its whole stack and its n-step successor are there: [K]."""
        oldest_held = self.head[envs] - self.rows
        whole_stack = self.frames.oldest_needed(envs, rows) >= oldest_held
        window = rows[:, None] + np.arange(self.n_step)  # [K, n]
        places = self.frames.places(envs[:, None], window)
        cut = self._terminated.take(places) | self._over.take(places)
        ends_inside = (cut & (window < self.head[envs][:, None])).any(axis=1)
        successor = rows + self.n_step < self.head[envs]
        is_step = ~self._no_step.take(places[:, 0])
        complete: BoolArray = is_step & whole_stack & (ends_inside | successor)
        return complete

    def _look_ahead(
        self, envs: IntArray, rows: IntArray
    ) -> tuple[FloatArray, FloatArray, IntArray]:
        """Return n-step rewards and discounts, and the rows of the observations that follow."""
        window = rows[:, None] + np.arange(self.n_step)  # [K, n]
        places = self.frames.places(envs[:, None], window)
        terminated = self._terminated.take(places)
        stops = terminated | self._over.take(places)
        # A step counts unless one before it has stopped; what stands behind that is another's.
        counts = np.ones_like(stops)
        counts[:, 1:] = ~np.logical_or.accumulate(stops[:, :-1], axis=1)
        steps = counts.sum(axis=1)
        terms = np.where(counts, self._powers[:-1] * self._reward.take(places), np.float32(0))
        reward = np.zeros(len(rows), dtype=np.float32)
        for k in range(self.n_step):  # in this order, whatever the machine adds at once
            reward += terms[:, k]
        discount = self._powers[steps]
        discount[(terminated & counts).any(axis=1)] = 0
        # Behind a life lost in the newest step stands no row yet; its discount of 0 hides it.
        return reward, discount, np.minimum(rows + steps, self.head[envs] - 1)

    def save(self, directory: Path) -> None:
        """Write everything held to an empty folder; segments.py says what is not written again."""
        filled = self.filled
        self.frames.save(directory, self.head)
        for name in _COLUMNS:
            save_array(directory / f"{name}.npy", getattr(self, f"_{name}")[:, :filled])
        state = {"head": self.head.tolist(), "fresh": self._fresh.tolist(), "rows": self.rows}
        (directory / "state.json").write_text(json.dumps(state), encoding="utf-8")

    def load(self, directory: Path) -> None:
        """Read back what `save` wrote.

        Raises:
            OSError: a file cannot be read.
            ValueError: it is damaged, or was saved with another capacity or number of environments.
        """
        state = read_json(directory / "state.json")
        head, fresh = _list_of(int, state, "head"), _list_of(bool, state, "fresh")
        if len(fresh) != len(head):
            raise ValueError(
                "state.json: expected numbers in head and as many true or false in fresh"
            )
        if state.get("rows") != self.rows or len(head) != self.num_envs:
            raise ValueError("the replay was saved with another capacity or num_envs")
        if not all(0 <= rows < _MOST_ROWS for rows in head):
            raise ValueError("state.json: head counts what nobody has written")
        self.head[:] = head
        self._fresh[:] = fresh
        self.frames.load(directory, self.head)
        self._no_step[:] = True
        for name in _COLUMNS:
            column = getattr(self, f"_{name}")[:, : self.filled]
            column[:] = load_array(directory / f"{name}.npy", column.dtype, column.shape)
        never_written = np.arange(self.rows) >= self.head[:, None]
        self._no_step[never_written] = True
        self._size = int(np.count_nonzero(~self._no_step))

    @property
    def filled(self) -> int:
        """Return how many slots of the fullest ring have been written."""
        return int(min(self.head.max(), self.rows))


_LARGE_BATCH = 2 << 20  # bytes of its observations
_COLUMNS = ("action", "reward", "terminated", "over", "no_step")
_MOST_ROWS = 1 << 48  # that anybody could write to a ring


def _list_of(kind: type, state: dict[str, Any], key: str) -> list[Any]:
    values = state.get(key)
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise ValueError(f"state.json: {key} is {values!r:.80}")
    return values


def rows_for(observation_space: gym.spaces.Box, num_envs: int, capacity: int, n_step: int) -> int:
    """Return the rows that each environment's ring needs."""
    # The oldest rows lack part of their stack and the newest their successor: room for both.
    stack = observation_space.shape[0] if isinstance(observation_space, FrameStack) else 1
    return -(-capacity // num_envs) + stack - 1 + n_step
