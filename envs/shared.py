"""Memory that processes share: what N environments show and are told, as arrays.

The memory has no name: it goes with the last process that holds it, whatever ends that.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from rlagents.types import Array, BoolArray, FloatArray, IntArray

_ALIGNMENT = 64  # bytes: a line of the processor's cache, so that no two arrays share one


class SharedArrays:
    """The arrays of N environments in W processes, in memory that all of them see.

    Args:
        descriptor: of the memory, from `open_memory`.
        num_envs: N.
        num_workers: W.
        shape: of one observation.
        dtype: of observations.
        create: make the memory as large as it has to be; done by one process, before the others.

    Attributes:
        observation: [N, ...].
        reward: [N] float32.
        terminated, truncated, life_lost: [N] bool.
        action: [N] int64.
        calls: [W, 2] int64: the row of the environment that a process has called, -1 while it
            calls none, and how many calls there were.
    """

    observation: Array
    reward: FloatArray
    terminated: BoolArray
    truncated: BoolArray
    life_lost: BoolArray
    action: IntArray
    calls: IntArray

    def __init__(
        self,
        descriptor: int,
        num_envs: int,
        num_workers: int,
        shape: Sequence[int],
        dtype: str,
        *,
        create: bool = False,
    ) -> None:
        arrays: dict[str, tuple[tuple[int, ...], Any]] = {
            "observation": ((num_envs, *shape), dtype),
            "reward": ((num_envs,), np.float32),
            "terminated": ((num_envs,), np.bool_),
            "truncated": ((num_envs,), np.bool_),
            "life_lost": ((num_envs,), np.bool_),
            "action": ((num_envs,), np.int64),
            "calls": ((num_workers, 2), np.int64),
        }
        offsets, size = {}, 0
        for name, (lengths, kind) in arrays.items():
            offsets[name] = size
            size += math.prod(lengths) * np.dtype(kind).itemsize
            size += -size % _ALIGNMENT
        if create:
            os.ftruncate(descriptor, size)
        memory = mmap.mmap(descriptor, size)
        for name, (lengths, kind) in arrays.items():
            setattr(self, name, np.ndarray(lengths, kind, memory, offsets[name]))


def open_memory() -> int:
    """Return the descriptor of new memory; whoever opens it closes it."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("rlagents")
    with tempfile.TemporaryFile() as file:  # a file without a name
        return os.dup(file.fileno())
