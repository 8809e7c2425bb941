"""The plain files of a run: episodes.csv, evaluations.csv, metrics.jsonl, actions, status.json."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np

from rlagents.events import (
    EpisodeEnded,
    Evaluated,
    Event,
    Logged,
    RunEnded,
    RunStarted,
)
from rlagents.run import ActionLog, RunFolder
from rlagents.statistics import interquartile_mean
from rlagents.types import Episode, EvaluationRow

EPISODE_COLUMNS = Episode._fields
EVALUATION_COLUMNS = EvaluationRow._fields


class FileObserver:
    """Writes a line where something happened, whole lines only."""

    def __init__(self, folder: RunFolder, num_actions: int) -> None:
        self._folder = folder
        self._actions = ActionLog(folder)
        self._num_actions = num_actions
        self._episodes = folder.directory / "episodes.csv"
        self._evaluations = folder.directory / "evaluations.csv"
        self._metrics = folder.directory / "metrics.jsonl"

    def __call__(self, event: Event) -> None:
        """Write what belongs to an event."""
        match event:
            case RunStarted(clock):
                _start(self._episodes, EPISODE_COLUMNS)
                _start(self._evaluations, EVALUATION_COLUMNS)
                self._folder.write_status("running", clock.step)
            case EpisodeEnded(_, episode, actions):
                # Actions first: a row of episodes.csv promises that they are there.
                self._actions.append(episode.episode, actions, self._num_actions)
                _append(self._episodes, episode._replace(wall_time_s=round(episode.wall_time_s, 3)))
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
                _append(self._evaluations, row)
                self._write_metrics(event.clock, {"eval/episodic_return": float(np.mean(returns))})
            case Logged(clock, metrics):
                self._write_metrics(clock, dict(metrics))
                self._folder.write_status("running", clock.step)
            case RunEnded(clock, state):
                self._folder.write_status(state, clock.step)

    def _write_metrics(self, clock: object, metrics: dict[str, float]) -> None:
        line = json.dumps(vars(clock) | metrics)
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def close(self) -> None:
        """Nothing is left open between two lines."""


def cut_logs(folder: RunFolder, step: int, episodes: int, evaluated_at: int | None = None) -> None:
    """Forget what a run logged after the checkpoint that it goes back to.

    Args:
        folder: the run's.
        step: agent steps at the checkpoint.
        episodes: episodes finished at the checkpoint.
        evaluated_at: step of the last evaluation before the checkpoint; `step` if None.
    """
    last_evaluation = step if evaluated_at is None else evaluated_at
    for name, columns, last in (
        ("episodes.csv", EPISODE_COLUMNS, step),
        ("evaluations.csv", EVALUATION_COLUMNS, last_evaluation),
    ):
        path = folder.directory / name
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                header, *rows = list(csv.reader(file)) or [[]]
            if not rows:  # perhaps not even a whole header: the disk was full
                header = list(columns)
            column = header.index("step")
            kept = [row for row in rows if len(row) == len(header) and int(row[column]) <= last]
            _rewrite(path, [header, *kept])
    metrics = folder.directory / "metrics.jsonl"
    if metrics.exists():
        lines = metrics.read_text(encoding="utf-8").splitlines()
        kept_lines = [
            line
            for line in lines
            if line.endswith("}")
            and _step_of(line) <= (last_evaluation if "eval/episodic_return" in line else step)
        ]
        _replace(metrics, "".join(line + "\n" for line in kept_lines))
    ActionLog(folder).cut(episodes)


def _step_of(line: str) -> int:
    return int(json.loads(line)["step"])


def _start(path: Path, columns: tuple[str, ...]) -> None:
    if not path.exists():
        _append(path, columns)


def _append(path: Path, row: tuple[object, ...]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    with path.open("a", encoding="utf-8") as file:
        file.write(text.getvalue())


def _rewrite(path: Path, rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    _replace(path, text.getvalue())


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
