"""How an episode came out: the entries of its last `info` that are worth telling.

A return says how much an episode was worth, not what happened: whether a level was completed, and
how far the player came. An environment says so in the `info` of the step that ends an episode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlagents.types import Outcome, Plain

IS_SUCCESS = "is_success"  # what Gymnasium's robots, and many others, call it


class OutcomeReader:
    """Reads outcomes from the `info` of an episode's last step.

    Args:
        names: the entries that are told; each must be there, and be plain: a number, a text, or
            true or false.
        success: the entry that says whether the episode was completed, true or false; if None,
            `is_success`, where there is one that is true or false.
    """

    def __init__(self, names: Sequence[str] = (), success: str | None = None) -> None:
        self._names = tuple(dict.fromkeys([*names, *([] if success is None else [success])]))
        self._success = success

    def read(self, info: Any) -> Outcome | None:
        """Return how an episode came out, None if its last `info` does not tell.

        Args:
            info: of the step that ended the episode; whatever an environment returns.

        Raises:
            TypeError: an entry that was named is not there or not plain, or `success` is neither
                true nor false.
        """
        if not self._names:
            return _by_convention(info)
        values = {name: self._entry(info, name) for name in self._names}
        if self._success is None:
            told = _by_convention(info) or Outcome({}, None)
            return Outcome({**values, **told.values}, told.success)
        success = _truth(values[self._success])
        if success is None:
            raise TypeError(
                f"info[{self._success!r}] at an episode's end must be true or false, got "
                f"{values[self._success]!r:.80}"
            )
        return Outcome(values, success)

    @staticmethod
    def _entry(info: Mapping[str, Any], name: str) -> Plain:
        if name not in info:
            raise TypeError(
                f"the info of an episode's last step has no {name!r}, which the environment's spec "
                "names as a part of its outcome"
            )
        value = _plain(info[name])
        if value is None:
            raise TypeError(
                f"info[{name!r}] at an episode's end must be a number, a text, true or false, got "
                f"{type(info[name]).__name__}"
            )
        return value


def _by_convention(info: Any) -> Outcome | None:
    """Return what `is_success` says; None if it is not there, or something else of that name."""
    if not isinstance(info, Mapping):
        return None
    success = _truth(_plain(info.get(IS_SUCCESS)))
    return None if success is None else Outcome({IS_SUCCESS: success}, success)


def _plain(value: Any) -> Plain | None:
    """Return a value as one of Python's own, also if it is NumPy's; None if it is not plain."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.size == 1):
        value = value.item()
    return value if isinstance(value, bool | int | float | str) else None


def _truth(value: Plain | None) -> bool | None:
    """Return whether a value means true, None if it means neither; 0 and 1 do."""
    return bool(value) if value in (0, 1) else None
