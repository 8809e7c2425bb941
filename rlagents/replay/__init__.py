"""Where experience waits to be learned from: replay and trajectories, each frame kept once."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from rlagents.replay.config import ReplayConfig, check_replay
from rlagents.replay.prioritized import PrioritizedReplay
from rlagents.replay.ring import Batch, Drawn, TransitionRing, rows_for
from rlagents.replay.sum_tree import SumTree
from rlagents.replay.uniform import UniformReplay
from rlagents.schedules import LinearSchedule
from rlagents.types import Footprint

__all__ = [
    "Batch",
    "Drawn",
    "PrioritizedReplay",
    "ReplayConfig",
    "TransitionRing",
    "UniformReplay",
    "check_replay",
    "footprint",
    "make_replay",
]


def make_replay(
    config: ReplayConfig,
    observation_space: gym.spaces.Box,
    num_envs: int,
    *,
    n_step: int,
    gamma: float,
    generator: np.random.Generator,
    device: str = "cpu",
) -> UniformReplay | PrioritizedReplay:
    """Return the replay that `[replay]` describes.

    Args:
        config: the table.
        observation_space: of one environment.
        num_envs: N.
        n_step: steps of a sampled return, 1 or more.
        gamma: discount per step.
        generator: draws the samples.
        device: in PyTorch's words, where frames lie with storage = "device".

    Raises:
        UsageError: the compressor is not installed, or the disk or the device has no room.
    """
    ring = TransitionRing(
        observation_space,
        num_envs,
        capacity=config.capacity,
        batch_size=config.batch_size,
        n_step=n_step,
        gamma=gamma,
        compression=config.compression,
        storage=config.storage,
        device=device,
    )
    if config.kind == "uniform":
        return UniformReplay(ring, generator)
    importance = LinearSchedule(
        config.importance_exponent_start,
        config.importance_exponent_end,
        config.importance_exponent_steps,
    )
    return PrioritizedReplay(
        ring,
        generator,
        exponent=config.priority_exponent,
        importance=importance,
        epsilon=config.priority_epsilon,
    )


def footprint(
    config: ReplayConfig, observation_space: gym.spaces.Box, num_envs: int, *, n_step: int
) -> Footprint:
    """Return what such a replay takes when full."""
    ring = TransitionRing.footprint(
        observation_space,
        num_envs,
        config.capacity,
        n_step,
        compression=config.compression,
        storage=config.storage,
    )
    if config.kind == "uniform":
        return ring
    rows = rows_for(observation_space, num_envs, config.capacity, n_step)
    return ring.plus(SumTree.nbytes_for(num_envs * rows))
