"""The scalars of metrics.jsonl as TensorBoard event files."""

from __future__ import annotations

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from rlagents.evaluate import success_rate_of
from rlagents.events import Evaluated, Event, Logged, RunStarted
from rlagents.run import RunFolder


class TensorBoardObserver:
    """Writes `tensorboard/`; after a resume, steps that are repeated replace the old ones."""

    def __init__(self, folder: RunFolder) -> None:
        self._directory = str(folder.directory / "tensorboard")
        self._writer: SummaryWriter | None = None

    def __call__(self, event: Event) -> None:
        """Write the scalars of an event."""
        match event:
            case RunStarted(clock):
                purge = clock.step + 1 if clock.step else None
                self._writer = SummaryWriter(self._directory, purge_step=purge)
            case Logged(clock, metrics) if self._writer is not None:
                for name, value in metrics.items():
                    self._writer.add_scalar(name, value, clock.step)
            case Evaluated(clock, episodes) if self._writer is not None:
                mean = float(np.mean([episode.episodic_return for episode in episodes]))
                self._writer.add_scalar("eval/episodic_return", mean, clock.step)
                rate = success_rate_of(episodes)
                if rate is not None:
                    self._writer.add_scalar("eval/success_rate", rate, clock.step)

    def close(self) -> None:
        """Write what is buffered."""
        if self._writer is not None:
            self._writer.close()
