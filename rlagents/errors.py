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


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` is probably a misspelling of, None if there is none."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.55)
    return nearest[0] if nearest else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence: `; did you mean 'x'?` for the nearest known name, or `.`."""
    nearest = nearest_name(name, known)
    return "." if nearest is None else f"; did you mean {nearest!r}?"
