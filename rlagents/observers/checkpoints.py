"""Saves a run when it is due."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

from rlagents.checkpoint import REPLAY, CheckpointStore
from rlagents.config import CheckpointConfig
from rlagents.events import CheckpointDue, Event
from rlagents.observers.patience import Patience


class CheckpointObserver:
    """Writes checkpoints; with stored experience as `[checkpoint] replay` says.

    Args:
        store: where they are.
        config: the table.
        before: called before each; what it cannot write counts as the checkpoint's failure.
        say: shows a warning.
    """

    def __init__(
        self,
        store: CheckpointStore,
        config: CheckpointConfig,
        *,
        before: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._store = store
        self._replay = config.replay
        self._before = before
        self._patience = Patience("A checkpoint", "when the next is due", say)

    def __call__(self, event: Event) -> None:
        """Save if the event asks for it."""
        if isinstance(event, CheckpointDue):
            leaving = event.reason in ("end", "stop")
            try:
                self._before()
                self._save(event, leaving)
            except OSError as error:
                self._patience.failed(error, is_last=leaving)
            else:
                self._patience.succeeded()

    def _save(self, event: CheckpointDue, leaving: bool) -> None:
        again = self._store.holds(event.clock.step)  # never replaced by one that holds less
        experience = self._replay == "always" or (self._replay == "on-exit" and (leaving or again))
        self._store.save(
            event.clock.step,
            lambda directory: event.write(directory, experience),
            best=event.is_best,
        )
        if experience and self._replay == "on-exit":
            with contextlib.suppress(OSError):  # it only saves space
                self._store.lighten(REPLAY, _note_absence)

    def close(self) -> None:
        """Checkpoints are whole once they are written."""


def _note_absence(directory: Path) -> None:
    """Let whoever resumes from the checkpoint know that it is not exact any more."""
    path = directory / "runner.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(state | {"experience": False}, indent=1) + "\n", encoding="utf-8")
