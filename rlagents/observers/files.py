"""The plain files of a run: episodes.csv, evaluations.csv, metrics.jsonl, actions, status.json."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rlagents.errors import UsageError
from rlagents.evaluate import success_rate_of
from rlagents.events import (
    Clock,
    EpisodeEnded,
    Evaluated,
    Event,
    Logged,
    RunEnded,
    RunStarted,
)
from rlagents.files import append_whole
from rlagents.observers.patience import Patience
from rlagents.run import ActionLog, RunFolder, sync
from rlagents.statistics import interquartile_mean
from rlagents.types import Array, Episode, EvaluationRow

EPISODE_COLUMNS = Episode._fields
EVALUATION_COLUMNS = EvaluationRow._fields


class FileObserver:
    """Writes a line where something happened, whole lines only.

    What the disk has no room for waits in memory, and is tried again with the next metrics,
    evaluation or checkpoint.

    Args:
        folder: the run's.
        num_actions: of its environment.
        say: shows a warning.
    """

    def __init__(
        self,
        folder: RunFolder,
        num_actions: int,
        *,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._folder = folder
        self._success: dict[str, float] = {}  # the success rate of the last training episodes
        self._actions = ActionLog(folder)
        self._num_actions = num_actions
        self._episodes = folder.directory / "episodes.csv"
        self._evaluations = folder.directory / "evaluations.csv"
        self._metrics = folder.directory / "metrics.jsonl"
        self._patience = Patience(f"The logs in {folder.directory}", "with the next metrics", say)
        # What is not on the disk yet: episodes and their actions, and lines by file.
        self._played: deque[tuple[int, Array]] = deque()
        self._lines: dict[Path, list[str]] = {
            path: [] for path in (self._episodes, self._evaluations, self._metrics)
        }

    def __call__(self, event: Event) -> None:
        """Write what belongs to an event."""
        match event:
            case RunStarted(clock):
                _start(self._episodes, EPISODE_COLUMNS)
                _start(self._evaluations, EVALUATION_COLUMNS)
                self._folder.write_status("running", clock.step)
            case EpisodeEnded(_, episode, actions):
                self._played.append((episode.episode, actions))
                rounded = episode._replace(wall_time_s=round(episode.wall_time_s, 3))
                self._lines[self._episodes].append(_csv_line(rounded))
                if not self._patience.failures:
                    self._try(self.flush)
            case Evaluated(clock, episodes):
                returns = [episode.episodic_return for episode in episodes]
                row = EvaluationRow(
                    clock.step,
                    clock.frames,
                    len(returns),
                    float(np.mean(returns)),
                    float(np.std(returns)),
                    float(interquartile_mean(returns)),
                    min(returns),
                    max(returns),
                    round(clock.wall_time_s, 3),
                )
                self._lines[self._evaluations].append(_csv_line(row))
                metrics = {"eval/episodic_return": row.mean_return}
                rate = success_rate_of(episodes)
                if rate is not None:
                    metrics["eval/success_rate"] = rate
                self._add_metrics(clock, metrics)
                self._try(self.flush)
            case Logged(clock, metrics):
                self._add_metrics(clock, dict(metrics))
                if "charts/success_rate" in metrics:
                    self._success = {"success_rate": metrics["charts/success_rate"]}

                def write() -> None:
                    self.flush()
                    self._folder.write_status("running", clock.step, **self._success)

                self._try(write)
            case RunEnded(clock, state):

                def finish() -> None:
                    self.flush()
                    self._folder.write_status(state, clock.step, **self._success)

                self._try(finish, is_last=True)

    def _try(self, write: Callable[[], None], *, is_last: bool = False) -> None:
        try:
            write()
        except OSError as error:
            self._patience.failed(error, is_last=is_last)
        else:
            self._patience.succeeded()

    def _add_metrics(self, clock: Clock, metrics: dict[str, float]) -> None:
        self._lines[self._metrics].append(json.dumps(vars(clock) | metrics) + "\n")

    def flush(self) -> None:
        """Write what is waiting.

        Raises:
            OSError: it cannot be written, and goes on waiting.
        """
        # Actions first: a row of episodes.csv promises that they are there.
        while self._played:
            self._actions.append(*self._played[0], self._num_actions)
            self._played.popleft()
        for path, lines in self._lines.items():
            if lines:
                append_whole(path, "".join(lines).encode())
                lines.clear()

    def sync(self) -> None:
        """Write what is waiting, and wait until all of it is on the disk.

        Raises:
            OSError: it cannot be written.
        """
        self.flush()
        self._actions.sync()
        for path in self._lines:
            if path.exists():
                sync(path)

    def close(self) -> None:
        """Nothing is left open between two lines."""


def cut_logs(folder: RunFolder, step: int, episodes: int, evaluated_at: int | None = None) -> None:
    """Forget what a run logged after the checkpoint that it goes back to.

    Args:
        folder: the run's.
        step: agent steps at the checkpoint.
        episodes: episodes finished at the checkpoint.
        evaluated_at: step of the last evaluation before the checkpoint; `step` if None.

    Raises:
        UsageError: a file is damaged.
    """
    last_evaluation = step if evaluated_at is None else evaluated_at
    for name, columns, last in (
        ("episodes.csv", EPISODE_COLUMNS, step),
        ("evaluations.csv", EVALUATION_COLUMNS, last_evaluation),
    ):
        path = folder.directory / name
        if path.exists():
            header, *rows = _whole_rows(path) or [[]]
            if not rows:  # perhaps not even a whole header: the disk was full
                header = list(columns)
            if "step" not in header:
                raise UsageError(f"{path} is damaged: its first line names no columns.")
            column = header.index("step")
            kept = [
                row for row in rows if len(row) == len(header) and _is_at_most(row[column], last)
            ]
            _rewrite(path, [header, *kept])
    metrics = folder.directory / "metrics.jsonl"
    if metrics.exists():
        kept_lines = [
            line
            for line in _whole_lines(metrics)
            if _step_of(line) <= (last_evaluation if "eval/episodic_return" in line else step)
        ]
        _replace(metrics, "".join(kept_lines))
    ActionLog(folder).cut(episodes)


def _whole_lines(path: Path) -> list[str]:
    """Return the lines of a file but for one that a kill cut off."""
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        return [line for line in file if line.endswith("\n")]


def _whole_rows(path: Path) -> list[list[str]]:
    return [line.rstrip("\r\n").split(",") for line in _whole_lines(path)]


def _is_at_most(text: str, step: int) -> bool:
    return text.isdecimal() and len(text) < 20 and int(text) <= step


def _step_of(line: str) -> float:
    """Return the step of a line of metrics; infinity for what is none, so that it is dropped."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
    return step if type(step) is int else math.inf


def _start(path: Path, columns: tuple[str, ...]) -> None:
    if not path.exists():
        append_whole(path, _csv_line(columns).encode())


def _csv_line(row: tuple[object, ...]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()


def _rewrite(path: Path, rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    _replace(path, text.getvalue())


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
