"""Saves a run when it is due."""

from __future__ import annotations

from rlagents.checkpoint import CheckpointStore
from rlagents.config import CheckpointConfig
from rlagents.events import CheckpointDue, Event


class CheckpointObserver:
    """Writes checkpoints; with stored experience as `[checkpoint] replay` says."""

    def __init__(self, store: CheckpointStore, config: CheckpointConfig) -> None:
        self._store = store
        self._replay = config.replay

    def __call__(self, event: Event) -> None:
        """Save if the event asks for it."""
        if isinstance(event, CheckpointDue):
            leaving = event.reason in ("end", "stop")
            again = self._store.holds(event.clock.step)  # never replaced by one that holds less
            experience = self._replay == "always" or (
                self._replay == "on-exit" and (leaving or again)
            )
            self._store.save(
                event.clock.step,
                lambda directory: event.write(directory, experience),
                best=event.is_best,
            )

    def close(self) -> None:
        """Checkpoints are whole once they are written."""
