"""The last T steps of N environments, as a learner saw and chose them; each frame is kept once.

Observations lie in `FrameRings` that hold T steps and as many frames before them as a stack reaches
back to, so that an episode may go on from one rollout to the next. The frame that a truncated
episode ends with is not kept: who needs its value asks for it when it is seen.
"""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium as gym
import numpy as np

from rlagents.files import load_array, read_json, save_array
from rlagents.replay.frames import FrameRings
from rlagents.spaces import FrameStack
from rlagents.types import Array, BoolArray, FloatArray, Footprint, IntArray, Transition

_MOST_ROWS = 1 << 48  # that anybody could write to a ring
_COLUMN_BYTES = 8 + 4 + 1 + 1 + 3 * 4  # of a step, without its observation


class Rollout:
    """T steps of N environments; every column is [T, N], filled from the first step on.

    Args:
        observation_space: of one environment.
        num_envs: N.
        num_steps: T.
        batch_size: B of the observations that `gather` returns.
    """

    action: IntArray
    reward: FloatArray
    terminated: BoolArray
    episode_over: BoolArray
    log_probability: FloatArray  # of the action, by the policy that chose it
    value: FloatArray  # of the observation that was acted on
    truncation_value: FloatArray  # of what a truncated episode ended with, 0 elsewhere

    def __init__(
        self, observation_space: gym.spaces.Box, num_envs: int, num_steps: int, batch_size: int
    ) -> None:
        self._frames = FrameRings(
            observation_space, num_envs, _rows_for(observation_space, num_steps)
        )
        self._num_envs = num_envs
        self._num_steps = num_steps
        self._everyone = np.arange(num_envs)
        self._head = 0  # rows written so far to each ring
        self._length = 0  # steps of this rollout
        self._fresh = np.ones(num_envs, dtype=np.bool_)  # the next step begins an episode
        shape = (num_steps, num_envs)
        for name, dtype in _COLUMNS.items():
            setattr(self, name, np.zeros(shape, dtype=dtype))
        self._observation: Array = self._frames.batch(batch_size)

    @staticmethod
    def footprint(
        observation_space: gym.spaces.Box, num_envs: int, num_steps: int, batch_size: int
    ) -> Footprint:
        """Return what such a rollout takes."""
        frames = FrameRings.footprint(
            observation_space, num_envs, _rows_for(observation_space, num_steps)
        )
        observation = int(np.prod(observation_space.shape)) * observation_space.dtype.itemsize
        return frames.plus(num_envs * num_steps * _COLUMN_BYTES + batch_size * observation)

    def __len__(self) -> int:
        """Return the number of steps of each environment, T at most."""
        return self._length

    @property
    def is_full(self) -> bool:
        """Whether all T steps are there."""
        return self._length == self._num_steps

    def append(
        self,
        transition: Transition,
        *,
        log_probability: FloatArray,
        value: FloatArray,
        truncation_value: FloatArray,
    ) -> None:
        """Add a step of every environment; there must be room for it.

        Args:
            transition: the step.
            log_probability: [N] of the actions.
            value: [N] of the observations that were acted on.
            truncation_value: [N] of the next observations where an episode was truncated.
        """
        rows = np.full(self._num_envs, self._head)
        self._frames.write(self._everyone, rows, transition.observation, self._fresh)
        t = self._length
        self.action[t] = transition.action
        self.reward[t] = transition.reward
        self.terminated[t] = transition.terminated
        self.episode_over[t] = transition.episode_over
        self.log_probability[t] = log_probability
        self.value[t] = value
        self.truncation_value[t] = truncation_value
        self._fresh = transition.episode_over.copy()
        self._head += 1
        self._length += 1

    def gather(self, index: IntArray) -> Array:
        """Return observations byte for byte as they were seen: [B, ...].

        They are overwritten by the next call.

        Args:
            index: [B] t * N + n for step t of environment n.
        """
        steps, envs = np.divmod(index, self._num_envs)
        self._frames.read(envs, self._head - self._length + steps, self._observation)
        return self._observation

    def clear(self) -> None:
        """Begin another rollout; the episodes go on."""
        self._length = 0

    def interrupt(self) -> None:
        """Begin another rollout with new episodes."""
        self._length = 0
        self._fresh[:] = True

    def save(self, directory: Path) -> None:
        """Write the steps so far to an empty folder."""
        self._frames.save(directory, np.full(self._num_envs, self._head))
        for name in _COLUMNS:
            save_array(directory / f"{name}.npy", getattr(self, name)[: self._length])
        state = {
            "head": self._head,
            "length": self._length,
            "rows": self._frames.rows,
            "fresh": self._fresh.tolist(),
        }
        (directory / "state.json").write_text(json.dumps(state) + "\n", encoding="utf-8")

    def load(self, directory: Path) -> None:
        """Read back what `save` wrote.

        Raises:
            OSError: a file cannot be read.
            ValueError: it is damaged, or of another number of steps or environments.
        """
        state = read_json(directory / "state.json")
        head, length, fresh = state.get("head"), state.get("length"), state.get("fresh")
        if type(head) is not int or not 0 <= head < _MOST_ROWS:
            raise ValueError(f"state.json: head is {head!r:.80}")
        if type(length) is not int or not 0 <= length <= min(head, self._num_steps):
            raise ValueError(f"state.json: length is {length!r:.80}")
        if not isinstance(fresh, list) or not all(type(each) is bool for each in fresh):
            raise ValueError(f"state.json: fresh is {fresh!r:.80}")
        if state.get("rows") != self._frames.rows or len(fresh) != self._num_envs:
            raise ValueError("the rollout was saved with another rollout_steps or num_envs")
        self._frames.load(directory, np.full(self._num_envs, head))
        for name, dtype in _COLUMNS.items():
            column = load_array(directory / f"{name}.npy", dtype, (length, self._num_envs))
            getattr(self, name)[:length] = column
        self._head, self._length = head, length
        self._fresh[:] = fresh


_COLUMNS = {
    "action": np.int64,
    "reward": np.float32,
    "terminated": np.bool_,
    "episode_over": np.bool_,
    "log_probability": np.float32,
    "value": np.float32,
    "truncation_value": np.float32,
}


def _rows_for(observation_space: gym.spaces.Box, num_steps: int) -> int:
    """Return the rows that hold the stacks of so many steps whole."""
    stacked = isinstance(observation_space, FrameStack)
    return num_steps + (observation_space.shape[0] - 1 if stacked else 0)
