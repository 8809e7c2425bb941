"""CartPole-v1: four numbers, two actions, 500 steps at most (Barto, Sutton and Anderson 1983)."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from rlagents.envs.registry import EnvSpec


def _make(render_mode: str | None = None, **kwargs: Any) -> gym.Env[Any, Any]:
    return gym.make("CartPole-v1", render_mode=render_mode, disable_env_checker=True, **kwargs)


def cartpole_spec() -> EnvSpec:
    """Return the spec of CartPole-v1; a mean return of 475 counts as solved (Gymnasium)."""
    return EnvSpec(
        name="cartpole",
        description="CartPole-v1: balance a pole on a cart, from four numbers",
        make=_make,
        reward_threshold=475.0,
    )
