"""`[replay]`: what is kept, and what is learned from at a time."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rlagents.errors import UsageError
from rlagents.tables import Count, Int, Probability, Table


class ReplayConfig(Table):
    """`[replay]`: what is kept, and how much of it is learned from at a time."""

    kind: Literal["uniform", "prioritized"] = "uniform"
    """How transitions are drawn: all alike, or by the error of their last update."""
    capacity: Annotated[Int, Field(ge=100, le=10**9)] = 100_000
    """Transitions kept, over all environments."""
    batch_size: Annotated[Int, Field(ge=1, le=65_536)] = 32
    """Transitions of one update."""
    compression: Literal["none", "lz4"] = "none"
    """Keep each frame compressed: less memory, slower sampling, the same samples."""
    storage: Literal["memory", "disk", "device"] = "memory"
    """Where frames lie: in memory, in a temporary file on a disk, or in the GPU's own memory."""
    priority_exponent: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Of prioritized: how much the error counts; 0 draws all transitions alike."""
    priority_epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-6
    """Of prioritized: added to each error, so that none is never drawn again."""
    importance_exponent_start: Probability = 0.4
    """Of prioritized: how far the loss makes up for uneven draws at the start, 1 being in full."""
    importance_exponent_end: Probability = 1.0
    """Of prioritized: how far the loss makes up for uneven draws in the end."""
    importance_exponent_steps: Count = 100_000
    """Of prioritized: agent steps from the one to the other, in a straight line."""


_OF_PRIORITIZED = tuple(
    name for name in ReplayConfig.model_fields if name.startswith(("priority_", "importance_"))
)


def check_replay(config: ReplayConfig) -> None:
    """Raise UsageError where values that are each allowed contradict one another."""
    if config.storage != "memory" and config.compression != "none":
        raise UsageError(
            f"[replay] compression: {config.compression} is for frames in memory, and [replay] "
            f'storage is "{config.storage}". Leave one of them out.'
        )
    if config.kind == "prioritized":
        return
    for name in _OF_PRIORITIZED:
        value = getattr(config, name)
        if value != ReplayConfig.model_fields[name].default:
            raise UsageError(
                f"[replay] {name}: {value} would change nothing, since [replay] kind is "
                f'"{config.kind}". Leave it out, or choose --replay.kind prioritized.'
            )
