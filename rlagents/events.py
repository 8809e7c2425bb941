"""What the runner tells its observers. Events go one way; nothing flows back into a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from rlagents.agents.base import Policy
from rlagents.evaluate import PlayedEpisode
from rlagents.types import Array, Episode


@dataclass(frozen=True)
class Clock:
    """Where a run stands."""

    step: int  # agent steps over all environments
    frames: int  # emulator frames
    wall_time_s: float  # spent training, over all sessions of the run


@dataclass(frozen=True)
class RunStarted:
    """The loop begins, for the first time or again."""

    clock: Clock
    total_steps: int


@dataclass(frozen=True)
class EpisodeEnded:
    """A training episode is over."""

    clock: Clock
    episode: Episode
    actions: Array  # [T] int64


@dataclass(frozen=True)
class EnvRestarted:
    """An environment failed and was made anew."""

    clock: Clock
    what: str  # happened, and to which environment, in whole sentences


@dataclass(frozen=True)
class Progressed:
    """Some time has passed; for displays."""

    clock: Clock
    mean_return: float | None  # of the last 100 training episodes
    success_rate: float | None = None  # of the same, None where the environment tells none


@dataclass(frozen=True)
class Logged:
    """A line of metrics."""

    clock: Clock
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Evaluated:
    """An evaluation was played."""

    clock: Clock
    episodes: tuple[PlayedEpisode, ...]
    policy: Policy
    is_best: bool
    previous_step: int  # of the evaluation before, -1 for the first
    is_enough: bool  # the run ends here, since it is as good as it was to become
    warning: str | None = None  # what the user should know


@dataclass(frozen=True)
class CheckpointDue:
    """The run should be saved now."""

    clock: Clock
    reason: Literal["period", "end", "stop"]
    is_best: bool  # no evaluation has been better than the one just played
    write: Callable[[Path, bool], None]  # directory, whether with stored experience


@dataclass(frozen=True)
class RunEnded:
    """The loop is over: all steps done, good enough, or asked to stop."""

    clock: Clock
    state: Literal["finished", "stopped"]


Event = (
    RunStarted
    | EpisodeEnded
    | EnvRestarted
    | Progressed
    | Logged
    | Evaluated
    | CheckpointDue
    | RunEnded
)


class Observer(Protocol):
    """Something that watches a run."""

    def __call__(self, event: Event) -> None:
        """Take note of an event."""

    def close(self) -> None:
        """Finish what is open; called once, also when the run failed."""
