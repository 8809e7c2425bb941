"""CartPole as arrays is Gymnasium's CartPole-v1, to the bit."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlagents.envs import EnvConfig, find_env, make_vector_env, resolve_env_config
from rlagents.envs.cartpole import CartPoleVectorEnv
from rlagents.envs.vector import SyncVectorEnv, VectorEnv, VectorStep
from rlagents.errors import UsageError


def gymnasium_poles(num_envs: int, max_steps: int = 500) -> SyncVectorEnv:
    def make() -> gym.Env[Any, Any]:
        return gym.make("CartPole-v1", max_episode_steps=max_steps)

    return SyncVectorEnv([make] * num_envs)


def assert_equal(one: VectorStep, other: VectorStep) -> None:
    assert one.outcomes == other.outcomes == {}
    for name, left, right in zip(VectorStep._fields[:5], one[:5], other[:5], strict=True):
        assert left.dtype == right.dtype, name
        assert left.tobytes() == right.tobytes(), name


def balancing(observation: Any, generator: np.random.Generator, random: float) -> Any:
    """Push to the side that the pole falls to, and now and then anywhere."""
    push = (observation[:, 2] + 0.3 * observation[:, 3] + 0.05 * observation[:, 1] > 0).astype(int)
    anywhere = generator.integers(2, size=len(push))
    return np.where(generator.random(len(push)) < random, anywhere, push)


def both_play(num_envs: int, seed: int, steps: int, random: float, max_steps: int = 500) -> Any:
    """Play the same in both kinds; return how often an episode terminated and was truncated."""
    generator = np.random.default_rng(seed)
    ours, theirs = CartPoleVectorEnv(num_envs, max_steps), gymnasium_poles(num_envs, max_steps)
    mask = np.ones(num_envs, dtype=np.bool_)
    ends = np.zeros(2, dtype=np.int64)
    for _ in range(steps):
        seeds = generator.integers(2**31, size=mask.sum()).tolist()
        seen = ours.reset(mask, seeds)
        assert seen.tobytes() == theirs.reset(mask, seeds).tobytes()
        actions = balancing(seen, generator, random)
        for env in (ours, theirs):
            env.send(actions)
        one, other = ours.recv(), theirs.recv()
        assert_equal(one, other)
        ends += [one.terminated.sum(), one.truncated.sum()]
        over = one.terminated | one.truncated
        waits = generator.random(num_envs) < 0.5  # some that are over wait a little
        mask = (over | ours._waiting) & ~waits
    return ends


@settings(max_examples=30)
@given(
    num_envs=st.integers(1, 9),
    seed=st.integers(0, 2**31 - 1),
    random=st.sampled_from([0.0, 0.3, 1.0]),
    max_steps=st.sampled_from([1, 7, 40]),
)
def test_any_play_is_gymnasiums(num_envs: int, seed: int, random: float, max_steps: int) -> None:
    both_play(num_envs, seed, 80, random, max_steps)


def test_whole_episodes_are_gymnasiums() -> None:
    terminated, truncated = both_play(5, 3, 1500, 0.4)
    assert terminated > 3
    assert truncated > 3


def test_the_spaces_are_gymnasiums() -> None:
    ours, theirs = CartPoleVectorEnv(1), gymnasium_poles(1)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space


def test_the_last_step_may_fall_and_be_cut_off_at_once() -> None:
    found = 0
    for seed in range(30):  # always pushed to the left, a pole falls after 8 to 10 steps
        for env in (CartPoleVectorEnv(1, 9), gymnasium_poles(1, 9)):
            env.reset(np.ones(1, dtype=np.bool_), [seed])
            for _ in range(9):
                env.send(np.zeros(1, dtype=np.int64))
                step = env.recv()
                if step.terminated[0] or step.truncated[0]:
                    break
            found += bool(step.terminated[0] and step.truncated[0])
    assert found >= 2
    assert found % 2 == 0


def make(num_envs: int = 2, **options: Any) -> VectorEnv:
    spec = find_env("cartpole")
    config = resolve_env_config(EnvConfig(id="cartpole", num_envs=num_envs, **options), spec)
    return make_vector_env(spec, config, num_envs)


def test_the_name_means_arrays_and_options_that_wrap_mean_gymnasium() -> None:
    assert isinstance(make(), CartPoleVectorEnv)
    assert isinstance(make(max_episode_frames=10), CartPoleVectorEnv)
    assert isinstance(make(frame_skip=2), SyncVectorEnv)
    assert isinstance(make(kwargs={"sutton_barto_reward": True}), SyncVectorEnv)


@pytest.mark.parametrize(("limit", "steps"), [(10, 10), (None, 500), (10_000, 500)])
def test_the_nearer_limit_cuts_off(limit: int | None, steps: int) -> None:
    env = make(1, max_episode_frames=limit)
    seen = env.reset(np.ones(1, dtype=np.bool_), [0])
    generator = np.random.default_rng(0)
    for number in range(1, steps + 1):
        env.send(balancing(seen, generator, 0.0))
        step = env.recv()
        seen = step.observation
        assert not step.terminated[0]
        assert bool(step.truncated[0]) == (number == steps)


def test_arguments_reach_the_environment() -> None:
    env = make(1, kwargs={"sutton_barto_reward": True})
    env.reset(np.ones(1, dtype=np.bool_), [0])
    env.send(np.zeros(1, dtype=np.int64))
    assert env.recv().reward.tolist() == [0.0]
    with pytest.raises(UsageError, match="cannot be made"):
        make(kwargs={"no_such_argument": 1})


def test_there_is_no_choice_of_actions() -> None:
    with pytest.raises(UsageError, match="no action set 'left'"):
        make(action_set="left")
