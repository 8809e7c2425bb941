"""CartPole-v1: four numbers, two actions, 500 steps at most (Barto, Sutton and Anderson 1983).

Stepping one Gymnasium environment costs little more than calling it, so N of them are stepped as
arrays, with the same operations in the same order: to the bit what Gymnasium's own environments
show. Gymnasium's `CartPoleVectorEnv` would not do, since it resets on its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from rlagents.envs.actions import DEFAULT
from rlagents.envs.registry import EnvConfig, EnvSpec, make_vector_env
from rlagents.envs.vector import VectorEnv, VectorStep
from rlagents.types import Array, BoolArray, IntArray

MAX_STEPS = 500  # CartPole-v1's time limit


class CartPoleVectorEnv:
    """N poles as columns of one array.

    Args:
        num_envs: N.
        max_steps: of an episode, then it is truncated.
    """

    def __init__(self, num_envs: int, max_steps: int = MAX_STEPS) -> None:
        self._physics = CartPoleEnv()  # its constants
        self.num_envs = num_envs
        space = self._physics.observation_space
        assert isinstance(space, gym.spaces.Box)
        self.observation_space = space
        self.action_space: gym.Space[Any] = self._physics.action_space
        self._max_steps = max_steps
        self._state = np.zeros((4, num_envs))  # position, velocity, angle, angular velocity
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._waiting = np.ones(num_envs, dtype=np.bool_)
        self._actions = np.zeros(num_envs, dtype=np.int64)

    def reset(self, mask: BoolArray, seeds: Sequence[int]) -> Array:
        """Begin an episode in each environment of `mask`, with one seed for each of them."""
        for index, seed in zip(np.flatnonzero(mask).tolist(), seeds, strict=True):
            generator, _ = gym.utils.seeding.np_random(seed)
            self._state[:, index] = generator.uniform(low=-0.05, high=0.05, size=(4,))
        self._steps[mask] = 0
        self._waiting[mask] = False
        return self._observation()

    def send(self, actions: IntArray) -> None:
        """Keep the actions for `recv`."""
        self._actions = actions

    def recv(self) -> VectorStep:
        """Step each environment that is in an episode."""
        stepped = ~self._waiting
        terminated, truncated = self._step(stepped, self._actions)
        no_life = np.zeros(self.num_envs, dtype=np.bool_)
        reward = stepped.astype(np.float32)
        return VectorStep(self._observation(), reward, terminated, truncated, no_life)

    def restore(self, seeds: Sequence[int], actions: Sequence[Array]) -> Array:
        """Bring every environment into the middle of the episode of its seed and actions."""
        self.reset(np.ones(self.num_envs, dtype=np.bool_), seeds)
        lengths = np.array([len(played) for played in actions])
        table = np.zeros((lengths.max(), self.num_envs), dtype=np.int64)
        for index, played in enumerate(actions):
            table[: len(played), index] = played
        for step, row in enumerate(table):
            self._step(step < lengths, row)
        return self._observation()

    def close(self) -> None:
        """Free nothing."""

    def _observation(self) -> Array:
        return self._state.T.astype(np.float32, order="C")

    def _step(self, stepped: BoolArray, actions: IntArray) -> tuple[BoolArray, BoolArray]:
        """Move the poles of `stepped`, [N] bool; return which terminated and were truncated."""
        own = self._physics
        x, x_dot, theta, theta_dot = self._state
        force = np.where(actions == 1, own.force_mag, -own.force_mag)
        cosine, sine = np.cos(theta), np.sin(theta)
        # Not simplified: other operations would round in other ways.
        push = (force + own.polemass_length * np.square(theta_dot) * sine) / own.total_mass
        theta_acceleration = (own.gravity * sine - cosine * push) / (
            own.length * (4.0 / 3.0 - own.masspole * np.square(cosine) / own.total_mass)
        )
        acceleration = push - own.polemass_length * theta_acceleration * cosine / own.total_mass
        rates = np.stack([x_dot, acceleration, theta_dot, theta_acceleration])  # [4, N]
        self._state = np.where(stepped, self._state + own.tau * rates, self._state)
        x, _, theta, _ = self._state
        fallen = (np.abs(x) > own.x_threshold) | (np.abs(theta) > own.theta_threshold_radians)
        self._steps += stepped
        terminated = stepped & fallen
        truncated = stepped & (self._steps >= self._max_steps)
        self._waiting |= terminated | truncated
        return terminated, truncated


def _make(render_mode: str | None = None, **kwargs: Any) -> gym.Env[Any, Any]:
    return gym.make("CartPole-v1", render_mode=render_mode, disable_env_checker=True, **kwargs)


def _make_vector(config: EnvConfig, num_envs: int) -> VectorEnv:
    """Return poles as arrays, or Gymnasium's own where a wrapper or an argument changes them."""
    if config.frame_skip != 1 or config.action_set != DEFAULT or config.kwargs:
        spec = dataclasses.replace(cartpole_spec(), make_vector=None)
        return make_vector_env(spec, config, num_envs)
    return CartPoleVectorEnv(num_envs, min(MAX_STEPS, config.max_episode_frames or MAX_STEPS))


def cartpole_spec() -> EnvSpec:
    """Return the spec of CartPole-v1; a mean return of 475 counts as solved (Gymnasium)."""
    return EnvSpec(
        name="cartpole",
        description="CartPole-v1: balance a pole on a cart, from four numbers",
        make=_make,
        make_vector=_make_vector,
        action_names=("left", "right"),
        reward_threshold=475.0,
    )
