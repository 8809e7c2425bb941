"""Uniform experience replay: Lin (1992); Mnih et al. (2015)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlagents.replay.ring import Batch, TransitionRing
from rlagents.types import IntArray, Transition


class UniformReplay:
    """Samples the last transitions of N environments uniformly.

    Args:
        ring: holds the transitions.
        generator: draws the samples.
    """

    def __init__(self, ring: TransitionRing, generator: np.random.Generator) -> None:
        self._ring = ring
        self._generator = generator

    def __len__(self) -> int:
        """Return the number of transitions held."""
        return len(self._ring)

    def observe(self, transition: Transition) -> None:
        """Append one step of every environment."""
        self._ring.observe(transition)

    def interrupt(self) -> None:
        """Close the running episodes: their next observation will never come."""
        self._ring.interrupt()

    def sample(self, step: int = 0) -> Batch:
        """Draw B transitions uniformly, with replacement, among all that are complete.

        Args:
            step: agent steps so far; uniform draws are the same at any time.
        """
        return self._ring.gather(*self._draw(self._ring.batch_size))

    def _draw(self, count: int) -> tuple[IntArray, IntArray]:
        """Return environments and rows of complete transitions, by rejecting the few others."""
        ring = self._ring
        held = np.minimum(ring.head, ring.rows)
        ends = np.cumsum(held)
        envs = np.zeros(count, dtype=np.int64)
        rows = np.zeros(count, dtype=np.int64)
        missing = np.arange(count)
        for _ in range(1000):
            number = self._generator.integers(ends[-1], size=len(missing))
            env = np.searchsorted(ends, number, side="right")
            row = ring.head[env] - held[env] + number - (ends[env] - held[env])
            envs[missing], rows[missing] = env, row
            missing = missing[~ring.complete(env, row)]
            if not len(missing):
                return envs, rows
        raise RuntimeError("replay holds no complete transition yet")

    def save(self, directory: Path) -> None:
        """Write everything held, but not the generator, to `directory`."""
        self._ring.save(directory)

    def load(self, directory: Path) -> None:
        """Read back what `save` wrote.

        Raises:
            OSError: a file cannot be read.
            ValueError: it is damaged, or was saved with another capacity or number of environments.
        """
        self._ring.load(directory)
