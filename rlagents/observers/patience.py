"""How often a full disk is forgiven."""

from __future__ import annotations

from collections.abc import Callable

from rlagents.errors import RunFailedError

TRIES = 3


def _advice(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "The run's folder, or a part of it, was moved or deleted while it was written to."
    if isinstance(error, PermissionError):
        return "Somebody has changed who may write there."
    return "Make room on the disk."


class Patience:
    """Warns of what could not be written, and ends the run when it fails `TRIES` times in a row.

    Args:
        what: is being written, as the subject of a sentence.
        again: when it is tried again.
        say: shows a warning.
    """

    def __init__(self, what: str, again: str, say: Callable[[str], None]) -> None:
        self._what = what
        self._again = again
        self._say = say
        self.failures = 0  # in a row

    def failed(self, error: OSError, *, is_last: bool = False) -> None:
        """Take note of a failure.

        Args:
            error: why.
            is_last: there will be no other try.

        Raises:
            RunFailedError: it was one too many.
        """
        self.failures += 1
        reason = error.strerror or str(error)
        if error.filename is not None:
            reason += f": {error.filename}"
        if is_last or self.failures >= TRIES:
            times = f", {self.failures} times in a row" if self.failures > 1 else ""
            raise RunFailedError(
                f"{self._what} could not be written{times} ({reason}). {_advice(error)}"
            ) from error
        left = TRIES - self.failures
        self._say(
            f"warning: {self._what} could not be written ({reason}); training goes on and tries "
            f"again {self._again}, {left} more time{'s' * (left > 1)}"
        )

    def succeeded(self) -> None:
        """Forget the failures."""
        self.failures = 0
