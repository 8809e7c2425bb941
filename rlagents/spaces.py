"""The one observation space that Gymnasium has no name for, and spaces as JSON."""

from __future__ import annotations

import math
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
    """Return the space that `describe_space` described (bounds of a Box are not kept).

    Raises:
        ValueError: it describes none, or one that is larger than anybody's.
    """
    try:
        kind = description["kind"]
        if kind == "discrete":
            number = description["n"]
            if type(number) is not int or not 1 <= number <= _MOST_ACTIONS:
                raise ValueError
            return gym.spaces.Discrete(number)
        shape, dtype = description["shape"], _DTYPES[description["dtype"]]
        if not all(type(size) is int and size >= 0 for size in shape) or len(shape) > _MOST_AXES:
            raise ValueError
        if math.prod(shape) * dtype.itemsize > _LARGEST_OBSERVATION:
            raise ValueError
        if kind == "frame-stack":
            stack, height, width = shape
            return FrameStack(stack, height, width)
        if kind != "box":
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{description!r:.200} describes no space that can be played in") from None
    low, high = (0, 255) if dtype == np.uint8 else (-np.inf, np.inf)
    return gym.spaces.Box(low, high, tuple(shape), dtype.type)


_DTYPES = {
    name: np.dtype(name)
    for name in (
        *("bool", "float16", "float32", "float64"),
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    )
}
_MOST_ACTIONS = 1 << 16
_MOST_AXES = 8
_LARGEST_OBSERVATION = 1 << 26  # bytes: 64 MB
