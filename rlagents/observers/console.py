"""What a person sees while a run goes on: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table as Grid
from rich.text import Text

from rlagents.evaluate import success_rate_of
from rlagents.events import (
    CheckpointDue,
    Clock,
    EnvRestarted,
    EpisodeEnded,
    Evaluated,
    Event,
    Logged,
    Progressed,
    RunEnded,
    RunStarted,
)
from rlagents.files import append_whole
from rlagents.run import RunFolder
from rlagents.streams import silence_gone_streams
from rlagents.wording import duration, percent

_PLAIN_PERIOD_S = 10.0  # between plain lines


class _Console(Console):
    """One that raises where nobody reads any longer; rich ends the program there."""

    def on_broken_pipe(self) -> None:
        """Raise the BrokenPipeError that is being handled."""
        raise


class ConsoleObserver:
    """Shows progress on standard error and keeps plain lines in run.log.

    Where nothing can be shown any longer, since a terminal was closed or a pipe's reader has ended,
    the run goes on, and so does run.log.

    Args:
        folder: the run's.
        quiet: show nothing (run.log is written all the same).
        console: where to show it.
    """

    def __init__(
        self, folder: RunFolder, *, quiet: bool = False, console: Console | None = None
    ) -> None:
        self._folder = folder
        self._console = console or _Console(stderr=True, quiet=quiet, highlight=False)
        self._live: Live | None = None
        self._total = 0
        self._first = Clock(0, 0, 0.0)
        self._latest = Clock(0, 0, 0.0)
        self._mean_return: float | None = None
        self._success_rate: float | None = None
        self._metrics: dict[str, float] = {}
        self._evaluation = "none yet"
        self._said_s = -_PLAIN_PERIOD_S
        self._episodes = 0

    def __call__(self, event: Event) -> None:
        """Show an event."""
        self._latest = event.clock
        match event:
            case RunStarted(clock, total):
                self._first, self._total, self._said_s = clock, total, clock.wall_time_s
                if self._console.is_terminal and not self._console.quiet:
                    live = Live(console=self._console, auto_refresh=False, transient=True)
                    if self._show(live.start):
                        self._live = live
            case EpisodeEnded():
                self._episodes += 1
            case EnvRestarted(clock, what):
                self._say(f"warning: step {clock.step:,}: {what}")
            case Progressed(clock, mean_return, success_rate):
                self._mean_return, self._success_rate = mean_return, success_rate
                if self._live is not None:
                    update = functools.partial(self._live.update, self._panel(), refresh=True)
                    self._show(update)
                if clock.wall_time_s - self._said_s >= _PLAIN_PERIOD_S:
                    self._said_s = clock.wall_time_s
                    self._say(self._line(), panel_shows_it=True)
            case Logged(_, metrics):
                self._metrics.update(metrics)
                self._mean_return = metrics.get("charts/episodic_return", self._mean_return)
                self._success_rate = metrics.get("charts/success_rate", self._success_rate)
            case Evaluated(clock, episodes):
                returns = [episode.episodic_return for episode in episodes]
                self._evaluation = f"{np.mean(returns):.2f} at step {clock.step:,}"
                note = ""
                if success_rate_of(episodes) is not None:
                    completed = sum(episode.success is True for episode in episodes)
                    note = f", completed {completed} of {len(episodes)}"
                    self._evaluation += note
                note += ", the best so far" if event.is_best else ""
                note += " and enough to finish" if event.is_enough else ""
                self._say(
                    f"step {clock.step:>9,}  evaluation over {len(returns)} episodes: mean return "
                    f"{np.mean(returns):.2f} (from {min(returns):g} to {max(returns):g}){note}"
                )
                if event.warning is not None:
                    self._say(f"warning: {event.warning}")
            case CheckpointDue(clock, reason) if reason == "stop":
                self._say(
                    f"stopping: saving step {clock.step:,}; press Ctrl-C again to stop at once"
                )
            case RunEnded(clock, state):
                self._say(self._line(), panel_shows_it=True)
                self._say(f"{state} at step {clock.step:,} after {duration(clock.wall_time_s)}")

    def say(self, text: str) -> None:
        """Show a line of text, and keep it."""
        self._say(text)

    def close(self) -> None:
        """Take the panel away."""
        live, self._live = self._live, None
        if live is not None:
            with contextlib.suppress(OSError):
                live.stop()

    def _say(self, text: str, *, panel_shows_it: bool = False) -> None:
        self._keep(text)
        if not (panel_shows_it and self._live is not None):
            self._show(lambda: self._console.print(Text(text), soft_wrap=True))

    def _keep(self, text: str) -> None:
        with contextlib.suppress(OSError):  # it may be the full disk that is spoken of
            append_whole(self._folder.directory / "run.log", f"{text}\n".encode())

    def _show(self, show: Callable[[], object]) -> bool:
        """Show something, unless there is nobody left to show it to; return whether that worked."""
        if self._console.quiet:
            return False
        try:
            show()
        except BlockingIOError:  # too much at once, for the moment
            return False
        except OSError as error:
            self._console.quiet = True
            silence_gone_streams()
            why = error.strerror or error
            self._keep(f"warning: nothing more can be shown ({why}); the run goes on")
            self.close()
            return False
        return True

    def _speed(self) -> float:
        return self._metrics.get("charts/SPS", 0.0) or (
            (self._latest.step - self._first.step)
            / max(self._latest.wall_time_s - self._first.wall_time_s, 1e-9)
        )

    def _line(self) -> str:
        parts = [
            f"step {self._latest.step:>9,}/{self._total:,}",
            f"{self._speed():,.0f} steps/s",
            f"return {_number(self._mean_return)}",
        ]
        if self._success_rate is not None:
            parts.append(f"completed {percent(self._success_rate)}")
        parts += [f"{name} {value}" for name, value in self._details()]
        return "  ".join(parts)

    def _details(self) -> list[tuple[str, str]]:
        shown = []
        if "charts/epsilon" in self._metrics:
            shown.append(("ε", f"{self._metrics['charts/epsilon']:.3f}"))
        for key in ("losses/td_loss", "losses/policy_loss"):
            if key in self._metrics:
                shown.append(("loss", f"{self._metrics[key]:.4g}"))
        return shown

    def _panel(self) -> Group:
        done = self._latest.step
        left = (self._total - done) / max(self._speed(), 1e-9)
        head = Grid.grid(padding=(0, 2))
        head.add_row(
            ProgressBar(total=self._total, completed=done, width=40),
            f"{done:,} / {self._total:,} steps",
            f"{self._speed():,.0f} steps/s",
            f"{duration(left)} left",
        )
        body = Grid.grid(padding=(0, 2))
        body.add_row("mean return, last 100 episodes", _number(self._mean_return))
        if self._success_rate is not None:
            body.add_row("completed, last 100 episodes", percent(self._success_rate))
        for name, value in self._details():
            body.add_row(name, value)
        body.add_row("last evaluation", self._evaluation)
        body.add_row("run", str(self._folder.directory))
        return Group(head, body)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
