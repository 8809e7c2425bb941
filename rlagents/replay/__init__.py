"""Where experience waits to be learned from: replay and trajectories, each frame kept once."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from rlagents.replay.config import ReplayConfig
from rlagents.replay.ring import Batch, TransitionRing
from rlagents.replay.uniform import UniformReplay

__all__ = ["Batch", "ReplayConfig", "TransitionRing", "UniformReplay", "make_replay"]


def make_replay(
    config: ReplayConfig,
    observation_space: gym.spaces.Box,
    num_envs: int,
    *,
    n_step: int,
    gamma: float,
    generator: np.random.Generator,
) -> UniformReplay:
    """Return the replay that `[replay]` describes.

    Args:
        config: the table.
        observation_space: of one environment.
        num_envs: N.
        n_step: steps of a sampled return, 1 or more.
        gamma: discount per step.
        generator: draws the samples.
    """
    ring = TransitionRing(
        observation_space,
        num_envs,
        capacity=config.capacity,
        batch_size=config.batch_size,
        n_step=n_step,
        gamma=gamma,
    )
    return UniformReplay(ring, generator)
