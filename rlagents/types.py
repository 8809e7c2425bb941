"""The few types that every part of the package shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

# Names as in `losses/td_loss`; values are floats or detached 0-d tensors, read only when logged.
Metrics = Mapping[str, Any]

Plain = bool | int | float | str


class Outcome(NamedTuple):
    """How an episode came out, as far as its environment tells."""

    values: Mapping[str, Plain]  # entries of the last `info`, such as {"x_pos": 3161}
    success: bool | None  # whether it was completed; None where that is not told


class Transition(NamedTuple):
    """One vector step of N environments.

    Where the space is a `FrameStack`, an observation is a stack of C frames, newest last, padded
    with zero frames where the episode has not shown C frames yet.
    """

    observation: Array  # [N, C, H, W] uint8 or [N, D] float32
    action: IntArray  # [N] int64
    reward: FloatArray  # [N] float32, unclipped, summed over skipped frames
    next_observation: Array  # [N, ...] the true successor, never a reset frame
    terminated: BoolArray  # [N] bool: cuts the bootstrap (a lost life too, where configured)
    episode_over: BoolArray  # [N] bool: terminated for good or truncated; cuts stacks and returns
    # [N] bool: cut off since the environment failed; its return says nothing of the policy.
    failed: BoolArray | None = None


class Episode(NamedTuple):
    """One finished episode, as `episodes.csv` keeps it."""

    episode: int  # number within the run, from 0
    step: int  # agent steps of the whole run when it ended
    frames: int  # emulator frames of the whole run when it ended
    env_index: int
    seed: int  # of the reset that began it
    episodic_return: float  # undiscounted, never clipped
    episodic_length: int  # agent steps
    end: str  # "terminated" or "truncated"
    wall_time_s: float


class EvaluationRow(NamedTuple):
    """One evaluation during training, as `evaluations.csv` keeps it."""

    step: int  # agent steps of the whole run when it was played
    frames: int  # emulator frames of the whole run then
    episodes: int  # how many were played
    mean_return: float
    std_return: float
    iqm_return: float
    min_return: float
    max_return: float
    wall_time_s: float


class Footprint(NamedTuple):
    """What stored experience takes when full, in bytes."""

    memory: int  # at most
    memory_at_least: int  # less than that only where items are compressed
    disk: int = 0
    device: int = 0  # of a GPU's own memory

    def plus(self, memory: int) -> Footprint:
        """Return this with more memory."""
        return self._replace(
            memory=self.memory + memory, memory_at_least=self.memory_at_least + memory
        )
