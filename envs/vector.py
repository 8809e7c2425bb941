"""Vector environments: N games stepped together, without a reset that nobody asked for.

An episode is its seed and its actions. So every episode begins with a seeded reset of its own
environment; one whose episode is over waits for that, and its rows mean nothing meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np

from rlagents.envs.outcomes import OutcomeReader
from rlagents.types import Array, BoolArray, FloatArray, IntArray, Outcome

_NONE: Mapping[int, Outcome] = MappingProxyType({})


class VectorStep(NamedTuple):
    """What one step of N environments brought; rows of waiting environments mean nothing."""

    observation: Array  # [N, ...] after the step, never a reset's
    reward: FloatArray  # [N] float32, summed over skipped frames, unclipped
    terminated: BoolArray  # [N] bool: the episode ended for good
    truncated: BoolArray  # [N] bool: the episode was cut off by a limit
    life_lost: BoolArray  # [N] bool: a life was lost, the episode goes on
    # How the episodes came out that ended in this step, by their rows; none where that is not told.
    outcomes: Mapping[int, Outcome] = _NONE


class VectorEnv(Protocol):
    """N environments of one kind."""

    num_envs: int
    observation_space: gym.spaces.Box  # of one environment
    action_space: gym.Space[Any]  # of one environment

    def reset(self, mask: BoolArray, seeds: Sequence[int]) -> Array:
        """Begin an episode in each environment of `mask`, with one seed for each of them.

        Returns:
            [N, ...] the observations; rows outside `mask` are those seen last.
        """

    def send(self, actions: IntArray) -> None:
        """Start a step: [N] int64. Waiting environments ignore theirs."""

    def recv(self) -> VectorStep:
        """Finish the step begun by `send`."""

    def restore(self, seeds: Sequence[int], actions: Sequence[Array]) -> Array:
        """Bring every environment into the middle of the episode of its seed and actions.

        Returns:
            [N, ...] the observations after the last actions.

        Raises:
            Exception: an environment did not come back, and says so in its own way; each can still
                begin another episode.
        """

    def close(self) -> None:
        """Free what the environments hold."""


class GroupedVectorEnv:
    """Vector environments side by side; one whose episodes are all over is left alone.

    For vector environments that step those that wait along with the others: an evaluation ends with
    its longest game, and would step all the others until then.

    Args:
        groups: of one kind.
    """

    def __init__(self, groups: Sequence[VectorEnv]) -> None:
        self._groups = groups
        self.num_envs = sum(group.num_envs for group in groups)
        self.observation_space = groups[0].observation_space
        self.action_space = groups[0].action_space
        ends = np.cumsum([group.num_envs for group in groups]).tolist()
        self._rows = [
            slice(end - group.num_envs, end) for group, end in zip(groups, ends, strict=True)
        ]
        space = self.observation_space
        self._observation = np.zeros((self.num_envs, *space.shape), space.dtype)
        self._waiting = np.ones(self.num_envs, dtype=np.bool_)
        self._stepped: list[int] = []  # groups that a step was sent to

    def reset(self, mask: BoolArray, seeds: Sequence[int]) -> Array:
        """Begin an episode in each environment of `mask`, with one seed for each of them."""
        remaining = list(seeds)
        for group, rows in zip(self._groups, self._rows, strict=True):
            count = int(mask[rows].sum())
            if count:
                self._observation[rows] = group.reset(mask[rows], remaining[:count])
                del remaining[:count]
        self._waiting[mask] = False
        return self._observation.copy()

    def send(self, actions: IntArray) -> None:
        """Start a step in each group that plays."""
        self._stepped = [
            number for number, rows in enumerate(self._rows) if not self._waiting[rows].all()
        ]
        for number in self._stepped:
            self._groups[number].send(actions[self._rows[number]])

    def recv(self) -> VectorStep:
        """Finish the step of each group that plays."""
        reward = np.zeros(self.num_envs, dtype=np.float32)
        terminated, truncated, life_lost = np.zeros((3, self.num_envs), dtype=np.bool_)
        outcomes: dict[int, Outcome] = {}
        for number in self._stepped:
            rows = self._rows[number]
            step = self._groups[number].recv()
            self._observation[rows], reward[rows] = step.observation, step.reward
            terminated[rows], truncated[rows] = step.terminated, step.truncated
            life_lost[rows] = step.life_lost
            outcomes |= {rows.start + row: outcome for row, outcome in step.outcomes.items()}
        self._waiting |= terminated | truncated
        observation = self._observation.copy()
        return VectorStep(observation, reward, terminated, truncated, life_lost, outcomes)

    def restore(self, seeds: Sequence[int], actions: Sequence[Array]) -> Array:
        """Bring every environment into the middle of the episode of its seed and actions."""
        self._waiting[:] = False
        for group, rows in zip(self._groups, self._rows, strict=True):
            self._observation[rows] = group.restore(seeds[rows], actions[rows])
        return self._observation.copy()

    def close(self) -> None:
        """Close every group."""
        for group in self._groups:
            group.close()


class SyncVectorEnv:
    """Gymnasium environments stepped one after the other in this process.

    An environment with lives may say in its info that one was lost: `life_lost`.

    Args:
        makers: of the environments.
        outcome: reads how an episode came out; `is_success` if it is None.

    Raises:
        TypeError: an environment returns something else than a Gymnasium environment does.
    """

    def __init__(
        self,
        makers: Sequence[Callable[[], gym.Env[Any, int]]],
        outcome: OutcomeReader | None = None,
    ) -> None:
        self._outcome = OutcomeReader() if outcome is None else outcome
        self._outcomes: dict[int, Outcome] = {}  # of the episodes that ended in this step
        self._envs = [make() for make in makers]
        self.num_envs = len(self._envs)
        space = self._envs[0].observation_space
        assert isinstance(space, gym.spaces.Box)  # the registry has refused anything else
        pictures = space.dtype == np.uint8 and len(space.shape) == 3
        dtype: Any = np.uint8 if pictures else np.float32
        self.observation_space = (
            space
            if space.dtype == dtype  # as it is, since a FrameStack must stay one
            else gym.spaces.Box(
                space.low.astype(dtype), space.high.astype(dtype), space.shape, dtype
            )
        )
        self.action_space = self._envs[0].action_space
        self._observation = np.zeros((self.num_envs, *space.shape), dtype)
        self._waiting = np.ones(self.num_envs, dtype=np.bool_)
        self._actions = np.zeros(self.num_envs, dtype=np.int64)
        self.current: int | None = None  # the environment that was called last

    def reset(self, mask: BoolArray, seeds: Sequence[int]) -> Array:
        """Begin an episode in each environment of `mask`, with one seed for each of them."""
        for index, seed in zip(np.flatnonzero(mask).tolist(), seeds, strict=True):
            self._begin(index, seed)
        return self._observation.copy()

    def send(self, actions: IntArray) -> None:
        """Keep the actions for `recv`."""
        self._actions = actions

    def recv(self) -> VectorStep:
        """Step each environment that is in an episode."""
        reward = np.zeros(self.num_envs, dtype=np.float32)
        terminated, truncated, life_lost = np.zeros((3, self.num_envs), dtype=np.bool_)
        self._outcomes = {}
        for index in np.flatnonzero(~self._waiting).tolist():
            reward[index], terminated[index], truncated[index], life_lost[index] = self._step(
                index, int(self._actions[index])
            )
        self._waiting |= terminated | truncated
        observation = self._observation.copy()
        return VectorStep(observation, reward, terminated, truncated, life_lost, self._outcomes)

    def restore(self, seeds: Sequence[int], actions: Sequence[Array]) -> Array:
        """Bring every environment into the middle of the episode of its seed and actions."""
        for index, (seed, played) in enumerate(zip(seeds, actions, strict=True)):
            self._begin(index, seed)
            for number, action in enumerate(played, start=1):
                _, terminated, truncated, _ = self._step(index, int(action))
                self._waiting[index] = terminated or truncated
                if self._waiting[index] and number < len(played):
                    raise ValueError(
                        f"the episode of seed {seed} ended after {number} steps, not "
                        f"{len(played)} or more"
                    )
        return self._observation.copy()

    def _begin(self, index: int, seed: int) -> None:
        self.current = index
        result = self._envs[index].reset(seed=seed)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError("reset() must return (observation, info), as in Gymnasium")
        self._see(index, result[0])
        self._waiting[index] = False

    def _step(self, index: int, action: int) -> tuple[float, bool, bool, bool]:
        self.current = index
        result = self._envs[index].step(action)
        if not isinstance(result, tuple) or len(result) != 5:
            raise TypeError(
                "step() must return (observation, reward, terminated, truncated, info), as in "
                "Gymnasium"
            )
        observation, reward, terminated, truncated, info = result
        self._see(index, observation)
        if terminated or truncated:
            outcome = self._outcome.read(info)
            if outcome is not None:
                self._outcomes[index] = outcome
        life_lost = isinstance(info, dict) and bool(info.get("life_lost", False))
        return float(reward), bool(terminated), bool(truncated), life_lost

    def _see(self, index: int, observation: Array) -> None:
        if np.shape(observation) != self._observation.shape[1:]:
            raise TypeError(
                f"the environment shows an observation of shape {np.shape(observation)}, its "
                f"observation_space says {self._observation.shape[1:]}"
            )
        self._observation[index] = observation

    def close(self) -> None:
        """Close every environment."""
        for env in self._envs:
            env.close()
