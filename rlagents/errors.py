"""Errors that are addressed to people: one message that says what to do, and an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RLAgentsError(Exception):
    """Base of every error that a command prints as one message instead of a traceback."""

    exit_code = 1


class UsageError(RLAgentsError, ValueError):
    """The request itself is wrong: a bad value, an unknown name, a folder that is not a run."""

    exit_code = 2


class RunFailedError(RLAgentsError):
    """A run that had begun could not go on."""

    exit_code = 1


class StoppedError(RLAgentsError):
    """Somebody asked the program to stop, and it did so in an orderly way."""

    exit_code = 130


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the known name nearest to `name`, else an empty string."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.55)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
