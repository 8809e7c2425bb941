"""Vector environments: N games stepped together, without a reset that nobody asked for.

An episode is its seed and its actions. So every episode begins with a seeded reset of its own
environment; one whose episode is over waits for that, and its rows mean nothing meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np

from rlagents.envs.faults import EnvFault
from rlagents.envs.outcomes import OutcomeReader
from rlagents.spaces import FrameStack
from rlagents.streams import silence_gone_streams
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


def freeze(observation: Array, space: gym.Space[Any]) -> None:
    """Let an observation stand for what an environment would have shown next, had it not failed.

    It is the same once more; of a stack the newest frame, since it has to be one of a new frame.

    Args:
        observation: [...] of one environment, changed in place.
        space: that it belongs to.
    """
    if isinstance(space, FrameStack):
        observation[:-1] = observation[1:]


class SyncVectorEnv:
    """Gymnasium environments stepped one after the other in this process.

    An environment with lives may say in its info that one was lost: `life_lost`.

    Args:
        makers: make an environment each.
        outcome: reads how an episode came out; `is_success` if it is None.
        max_restarts: how many environments that fail are made anew, and their episodes truncated;
            `take_faults` tells of them. The next one is left to raise.

    Raises:
        TypeError: an environment returns something else than a Gymnasium environment does.
    """

    def __init__(
        self,
        makers: Sequence[Callable[[], gym.Env[Any, int]]],
        outcome: OutcomeReader | None = None,
        *,
        max_restarts: int = 0,
    ) -> None:
        self._outcome = OutcomeReader() if outcome is None else outcome
        self._outcomes: dict[int, Outcome] = {}  # of the episodes that ended in this step
        self._makers = makers
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
        self._seeds = [0] * self.num_envs
        self._steps = [0] * self.num_envs  # of each environment's episode
        self._restarts_left = max_restarts
        self._faults: list[EnvFault] = []

    def reset(self, mask: BoolArray, seeds: Sequence[int]) -> Array:
        """Begin an episode in each environment of `mask`, with one seed for each of them."""
        for index, seed in zip(np.flatnonzero(mask).tolist(), seeds, strict=True):
            try:
                self._begin(index, seed)
            except Exception as error:  # somebody else's environment: whatever it raises
                self._make_anew(index, error)
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
            try:
                reward[index], terminated[index], truncated[index], life_lost[index] = self._step(
                    index, int(self._actions[index])
                )
            except Exception as error:  # somebody else's environment: whatever it raises
                self._make_anew(index, error)
                freeze(self._observation[index], self.observation_space)
                truncated[index] = True
        self._waiting |= terminated | truncated
        observation = self._observation.copy()
        return VectorStep(observation, reward, terminated, truncated, life_lost, self._outcomes)

    def restore(self, seeds: Sequence[int], actions: Sequence[Array]) -> Array:
        """Bring every environment into the middle of the episode of its seed and actions."""
        for index, (seed, played) in enumerate(zip(seeds, actions, strict=True)):
            self._replay(index, seed, played.tolist())
        return self._observation.copy()

    def take_faults(self) -> list[EnvFault]:
        """Return what has failed since the last call."""
        faults, self._faults = self._faults, []
        return faults

    def _replay(self, index: int, seed: int, actions: Sequence[int]) -> None:
        self._begin(index, seed)
        for number, action in enumerate(actions, start=1):
            _, terminated, truncated, _ = self._step(index, action)
            self._waiting[index] = terminated or truncated
            if self._waiting[index] and number < len(actions):
                raise ValueError(
                    f"the episode of seed {seed} ended after {number} steps, not "
                    f"{len(actions)} or more"
                )

    def _make_anew(self, index: int, error: Exception) -> None:
        """Put a new environment in the place of one that has raised `error`, or raise it again."""
        if not self._restarts_left:
            raise error
        self._restarts_left -= 1
        if isinstance(error, OSError):  # it may have printed where nobody is left to read it
            silence_gone_streams()
        with contextlib.suppress(Exception):  # it has failed already
            self._envs[index].close()
        self._envs[index] = self._makers[index]()
        self._waiting[index] = True
        self._faults.append(EnvFault(index, self._seeds[index], self._steps[index], repr(error)))

    def _call(self, index: int) -> None:
        """Note which environment is called."""
        self.current = index

    def _begin(self, index: int, seed: int) -> None:
        self._seeds[index], self._steps[index] = seed, 0
        self._call(index)
        result = self._envs[index].reset(seed=seed)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError("reset() must return (observation, info), as in Gymnasium")
        self._see(index, result[0])
        self._waiting[index] = False

    def _step(self, index: int, action: int) -> tuple[float, bool, bool, bool]:
        self._call(index)
        result = self._envs[index].step(action)
        if not isinstance(result, tuple) or len(result) != 5:
            raise TypeError(
                "step() must return (observation, reward, terminated, truncated, info), as in "
                "Gymnasium"
            )
        observation, reward, terminated, truncated, info = result
        # All that may raise comes before what is kept: a step that fails leaves no trace.
        life_lost = isinstance(info, dict) and bool(info.get("life_lost", False))
        told = float(reward), bool(terminated), bool(truncated), life_lost
        outcome = self._outcome.read(info) if terminated or truncated else None
        self._see(index, observation)
        self._steps[index] += 1
        if outcome is not None:
            self._outcomes[index] = outcome
        return told

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
