"""Whether an environment reproduces itself is found out, and what differs is named."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rlagents.envs import (
    EnvConfig,
    VectorEnv,
    find_difference,
    find_env,
    make_vector_env,
    resolve_env_config,
)
from rlagents.envs.vector import SyncVectorEnv


class Walk(gym.Env[Any, int]):
    """A walk whose every step depends on the action and the seed; ends after `length` steps."""

    observation_space = gym.spaces.Box(-1e9, 1e9, (2,), np.float32)
    action_space = gym.spaces.Discrete(3)
    length = 30

    def __init__(self) -> None:
        self.position = 0.0
        self.time = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = float(self.np_random.integers(100))
        self.time = 0
        return self.observe(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        self.position += action + float(self.np_random.integers(10))
        over = self.time >= self.length
        return self.observe(), float(action), over, False, {}

    def observe(self) -> Any:
        return np.array([self.position, self.time], dtype=np.float32)


class GlobalRandomness(Walk):
    """Draws from NumPy's global generator, which no seed of a reset reaches."""

    def observe(self) -> Any:
        return super().observe() + np.array([np.random.random(), 0], dtype=np.float32)


class Leak(Walk):
    """Begins where the last episode of this object ended."""

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        before = self.position
        super().reset(**options)
        self.position += before
        return self.observe(), {}


class LateLeak(Walk):
    """Counts its steps over all episodes, which shows from the twentieth step on only."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        result = super().step(action)
        self.total += 1
        if self.time == 20:
            self.position += self.total
        return (self.observe(), *result[1:])


class OwnSeed(Walk):
    """Takes no notice of the seed it is given."""

    created = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self._own = np.random.default_rng(next(self.created))

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=int(self._own.integers(10**6)))
        return self.observe(), {}


class VaryingReward(Walk):
    """Pays by the number of objects made before it."""

    created = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self._bonus = next(self.created)

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward + self._bonus, terminated, truncated, info


class VaryingEnd(Walk):
    """Every object's episodes are one step longer than those of the object before it."""

    created = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.length = 5 + next(self.created)


class NotANumber(Walk):
    """Is quite reproducible, and observes NaN."""

    def observe(self) -> Any:
        return np.array([np.nan, self.time], dtype=np.float32)


def vector_of(env: type[Walk]) -> Callable[[], VectorEnv]:
    return lambda: SyncVectorEnv([env])


@pytest.mark.parametrize("run_seed", [0, 1, 2**31 - 1])
@pytest.mark.parametrize("env", [Walk, NotANumber])
def test_nothing_to_find(env: type[Walk], run_seed: int) -> None:
    assert find_difference(vector_of(env), 3, run_seed) is None


@pytest.mark.parametrize(
    ("env_id", "options"),
    [("cartpole", {}), ("pong", {"sticky_probability": 0.25, "action_set": "up-down"})],
)
def test_our_own_environments_reproduce_themselves(env_id: str, options: dict[str, Any]) -> None:
    spec = find_env(env_id)
    config = resolve_env_config(EnvConfig(id=env_id, **options), spec)
    assert find_difference(lambda: make_vector_env(spec, config, 1), 2, 1) is None


@pytest.mark.parametrize(
    ("env", "difference"),
    [
        (GlobalRandomness, "observation differs at step 0"),
        (Leak, "observation differs at step 0"),
        (LateLeak, "observation differs at step 20"),
        (OwnSeed, "observation differs at step 0"),
        (VaryingReward, "reward differs at step 1"),
    ],
)
def test_a_difference_is_named(env: type[Walk], difference: str) -> None:
    assert find_difference(vector_of(env), 3, 1) == difference


def test_another_end_is_named() -> None:
    difference = find_difference(vector_of(VaryingEnd), 3, 1)
    assert difference is not None
    assert difference.startswith("end of the episode differs at step ")


def test_the_actions_are_all_allowed_and_various() -> None:
    seen: set[int] = set()

    class Watching(Walk):
        def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            assert self.action_space.contains(action)
            seen.add(action)
            return super().step(action)

    assert find_difference(vector_of(Watching), 3, 1) is None
    assert seen == {0, 1, 2}


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_is_refused(reward: float) -> None:
    class Paying(Walk):
        def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            observation, _, *rest = super().step(action)
            return observation, reward if self.time > 3 else 1.0, *rest  # type: ignore[return-value]

    with pytest.raises(ValueError, match=f"reward of {reward}, expected a finite number"):
        find_difference(vector_of(Paying), 3, 1)


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_made_is_closed(fails: bool) -> None:
    closed: list[object] = []

    class Closing(Walk):
        def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            if fails:
                raise RuntimeError("no licence")
            return super().step(action)

        def close(self) -> None:
            closed.append(self)

    if fails:
        with pytest.raises(RuntimeError, match="no licence"):
            find_difference(vector_of(Closing), 3, 1)
    else:
        find_difference(vector_of(Closing), 3, 1)
    assert len({id(env) for env in closed}) == 2
