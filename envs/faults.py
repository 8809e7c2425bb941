"""What is told of environments that fail: which one, in which episode, and what happened."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from rlagents.errors import RLAgentsError

NO_ANSWER = "it gave no answer for {limit:g} s ([env] step_limit_s)"


class EnvFault(NamedTuple):
    """An environment that failed and was made anew; its episode is over."""

    env_index: int | None  # of the environment; None where a process ended while none was called
    seed: int  # of its episode, or of the reset that failed
    steps: int  # agent steps of that episode before
    reason: str  # what happened, without a full stop

    def sentence(self, name: str) -> str:
        """Return what happened, in words; `name` is what the environment is called."""
        if self.env_index is None:
            return f"A worker process of {name} ended between two steps: {self.reason}."
        where = f"after {self.steps} steps" if self.steps else "at its beginning"
        return (
            f"The environment {name}, number {self.env_index}, failed in the episode of seed "
            f"{self.seed} {where}: {self.reason}."
        )


class EnvFailedError(RLAgentsError):
    """An environment failed, and is not made anew once more."""

    def __init__(self, fault: EnvFault, name: str) -> None:
        super().__init__(fault.sentence(name))


@runtime_checkable
class TellsFaults(Protocol):
    """A vector environment that makes environments anew where they fail."""

    def take_faults(self) -> list[EnvFault]:
        """Return what has failed since the last call, in reset and recv; each episode is over."""
