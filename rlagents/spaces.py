"""The one observation space that Gymnasium has no name for, and spaces as JSON."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class FrameStack(gym.spaces.Box):
    """Stacks of grey frames, [C, H, W] uint8, newest last, zero frames before an episode's first.

    Replay relies on this to keep each frame once; a plain `Box` is kept whole.
    """

    def __init__(self, stack: int, height: int, width: int) -> None:
        super().__init__(0, 255, (stack, height, width), np.uint8)


def describe_space(space: gym.Space[Any]) -> dict[str, Any]:
    """Return a JSON object from which `rebuild_space` makes an equal space, as far as agents see.

    Raises:
        TypeError: it is neither a Box nor Discrete.
    """
    if isinstance(space, FrameStack):
        return {"kind": "frame-stack", "shape": list(space.shape), "dtype": "uint8"}
    if isinstance(space, gym.spaces.Box):
        return {"kind": "box", "shape": list(space.shape), "dtype": str(space.dtype)}
    if isinstance(space, gym.spaces.Discrete):
        return {"kind": "discrete", "n": int(space.n)}
    raise TypeError(f"neither Box nor Discrete: {space}")


def rebuild_space(description: dict[str, Any]) -> gym.Space[Any]:
    """Return the space that `describe_space` described (bounds of a Box are not kept)."""
    if description["kind"] == "discrete":
        return gym.spaces.Discrete(int(description["n"]))
    shape = tuple(int(size) for size in description["shape"])
    if description["kind"] == "frame-stack":
        stack, height, width = shape
        return FrameStack(stack, height, width)
    dtype = np.dtype(description["dtype"])
    low, high = (0, 255) if dtype == np.uint8 else (-np.inf, np.inf)
    return gym.spaces.Box(low, high, shape, dtype.type)
