"""What the processes of all sides are told, and the clock that the peers read."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from measuring import Measurement, fail

EPSILON = 0.01
GAME = "PongNoFrameskip-v4"  # Gymnasium's id of what the peers play
REPLAY_CAPACITY = 100_000
LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class OursJob:
    """What a process of ours is to measure.

    Attributes:
        config: a recipe's name or a TOML file.
        overrides: by dotted key.
        seed: of the training.
        learning_starts: transitions in replay before the first update.
        warm_up: agent steps between the start of learning and that of the clock.
        steps: agent steps to measure.
    """

    config: str
    overrides: dict[str, Any]
    seed: int
    learning_starts: int
    warm_up: int
    steps: int


@dataclass(frozen=True)
class PeerJob:
    """What a process of a peer is to measure.

    Attributes:
        seed: of the training.
        learning_starts: transitions in replay before the first update.
        warm_up: agent steps between the start of learning and that of the clock.
        steps: agent steps to measure.
        num_envs: environments stepped together.
        batch_size: transitions of one update.
        update_period: agent steps for each update.
        threads: of torch; its own choice if None.
    """

    seed: int
    learning_starts: int
    warm_up: int
    steps: int
    num_envs: int
    batch_size: int
    update_period: int
    threads: int | None

    @property
    def cycle(self) -> int:
        """Return the agent steps after which acting and learning repeat themselves."""
        return max(self.update_period, self.num_envs)


class Clock:
    """Reads the time and the number of updates at two counts of agent steps.

    The first is the job's warm-up after learning has started, the second the job's steps later,
    both at the end of a cycle, so that whole cycles are measured.

    Args:
        job: what to measure.
        now: the time in seconds.
    """

    def __init__(self, job: PeerJob, now: Callable[[], float] = time.perf_counter) -> None:
        self._job = job
        self._now = now
        self._readings: list[tuple[int, float, int]] = []

    def tick(self, step: int, updates: int) -> bool:
        """Take note of the agent steps and updates so far; return whether to go on."""
        job = self._job
        if not self._readings:
            due = job.learning_starts + job.warm_up
        else:
            due = self._readings[0][0] + job.steps
        if len(self._readings) < 2 and step >= due and step % job.cycle == 0:
            self._readings.append((step, self._now(), updates))
        return len(self._readings) < 2

    def measurement(self, settings: dict[str, Any], versions: dict[str, str]) -> Measurement:
        """Return what was measured; there must have been the updates that the job asks for."""
        (first, began, updates_before), (last, ended, updates_after) = self._readings
        steps, updates = last - first, updates_after - updates_before
        if updates * self._job.update_period != steps:
            expected = steps / self._job.update_period
            fail(f"peer: {updates} updates in {steps} steps, expected {expected:g}.")
        return Measurement(steps, ended - began, settings | {"updates_measured": updates}, versions)


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of packages."""
    found = {package: importlib.metadata.version(package) for package in packages}
    return {"python": platform.python_version()} | found
