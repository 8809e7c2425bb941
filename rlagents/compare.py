"""`rlagents compare`: runs side by side and over their seeds, as a table and as a picture."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlagents.curves import SHORTER, GroupCurve, Statistic, band, group_curve, group_runs
from rlagents.history import Axis, History, What, read_history
from rlagents.output import PICTURES, check_name, check_writable, write_whole
from rlagents.statistics import RECENT_EPISODES
from rlagents.types import EvaluationRow
from rlagents.wording import duration, percent, printable

STATISTIC_NAMES: dict[Statistic, str] = {"mean": "mean", "iqm": "interquartile mean"}

_NONE = "-"


class Interval(NamedTuple):
    """A statistic over runs, and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


# What a group is judged by: a column's name, its key in JSON, and a run's number.
_Measure = Callable[[History], float | None]
_MEASURES: tuple[tuple[str, str, _Measure], ...] = (
    ("best evaluation", "best_evaluation", lambda run: _mean_return(run.best_evaluation)),
    ("last evaluation", "last_evaluation", lambda run: _mean_return(run.last_evaluation)),
    (f"last {RECENT_EPISODES} episodes", "recent_return", lambda run: run.recent_return),
)


@dataclass(frozen=True)
class GroupResult:
    """What is said of runs that differ in their seed only.

    Attributes:
        label: what they are.
        runs: the runs.
        results: by a measure's key, over the runs that have one; None if none has.
        curve: over the runs that have begun; None if none has.
    """

    label: str
    runs: tuple[History, ...]
    results: dict[str, Interval | None]
    curve: GroupCurve | None

    @property
    def num_seeds(self) -> int:
        """Return how many seeds there are."""
        return len({run.seed for run in self.runs})


class Comparison:
    """Several runs, put into groups over seeds.

    Args:
        names: the runs' folders, or their names under `runs_dir`.
        runs_dir: the runs folder.
        axis: what the curves' x is.
        what: what the curves' y is.
        statistic: over the runs of a group.

    Attributes:
        runs: in the order they were named, each once.
        groups: in the order of their first runs.
        notes: sentences about what one might stumble over.

    Raises:
        UsageError: one is not a run, or is damaged.
    """

    def __init__(
        self,
        names: Sequence[str | Path],
        *,
        runs_dir: Path = Path("runs"),
        axis: Axis = "steps",
        what: What = "training",
        statistic: Statistic = "mean",
    ) -> None:
        self._axis: Axis = axis
        self._what: What = what
        self._statistic: Statistic = statistic
        histories = [read_history(name, runs_dir) for name in names]
        by_folder = {run.folder.directory.resolve(): run for run in histories}
        self.runs = tuple(by_folder.values())
        by_key = {str(folder): run for folder, run in by_folder.items()}
        groups = group_runs(
            {key: run.manifest["config"] | {"recipe": run.recipe} for key, run in by_key.items()}
        )
        self.groups = tuple(
            self._judge(printable(group.label), tuple(by_key[key] for key in group.runs))
            for group in groups
        )
        again = [
            name for name, count in Counter(run.name for run in histories).items() if count > 1
        ]
        self.notes = list(self._notes(again if len(histories) > len(self.runs) else []))

    def _judge(self, label: str, runs: tuple[History, ...]) -> GroupResult:
        """Return the statistics of a group."""
        results: dict[str, Interval | None] = {}
        for _, key, measure in _MEASURES:
            values = [value for run in runs if (value := measure(run)) is not None]
            column = np.array(values)[:, None]  # a curve of one point for each run
            results[key] = (
                Interval(*(float(part[0]) for part in band(column, self._statistic)))
                if values
                else None
            )
        curves = [run.curve(self._what, self._axis) for run in runs]
        curves = [(x, y) for x, y in curves if len(x)]
        curve = group_curve(label, curves, self._statistic) if curves else None
        return GroupResult(label, runs, results, curve)

    def _notes(self, again: Sequence[str]) -> Iterator[str]:
        if again:
            yield f"named twice and counted once: {', '.join(again)}."
        envs = list(dict.fromkeys(run.env_id for run in self.runs))
        if len(envs) > 1:
            yield (
                f"the runs are of different environments ({', '.join(envs)}), whose returns are "
                "not of the same kind."
            )
        without = [run.name for run in self.runs if not run.evaluations]
        if without:
            yield f"no evaluation yet: {', '.join(without)}."
        without = [run.name for run in self.runs if not len(run.returns)]
        if without:
            yield f"no finished training episode yet: {', '.join(without)}."
        for group in self.groups:
            if group.num_seeds < len(group.runs):
                yield (
                    f"{group.label}: runs of the same seed are repetitions of one, which the "
                    "interval takes for independent."
                )
            ends = [self._end(run) for run in group.runs]
            early = [
                run.name
                for run, end in zip(group.runs, ends, strict=True)
                if 0 < end < SHORTER * max(ends)
            ]
            if early:
                yield (
                    f"{group.label}: the curve counts runs that ended earlier with their last "
                    f"value: {', '.join(early)}."
                )

    def _end(self, run: History) -> float:
        """Return where a run's curve ends; 0 if it has not begun."""
        x, _ = run.curve(self._what, self._axis)
        return float(x[-1]) if len(x) else 0.0

    def table(self) -> str:
        """Return the comparison as text: a row a run, a row a group, the notes."""
        head = ["run", "seed", "steps", "wall time", *(name for name, _, _ in _MEASURES)]
        rows = [
            [
                run.name,
                str(run.seed),
                f"{run.steps:,}",
                duration(run.wall_time_s),
                _best_text(run),
                _last_text(run),
                _number(run.recent_return),
            ]
            for run in self.runs
        ]
        parts = [_aligned([head, *rows])]
        if len(self.runs) > 1:
            name = STATISTIC_NAMES[self._statistic]
            head = [f"{name} over runs [95 %]", "seeds", *(name for name, _, _ in _MEASURES)]
            rows = [
                [
                    group.label,
                    str(group.num_seeds),
                    *(_interval_text(group, key) for _, key, _ in _MEASURES),
                ]
                for group in self.groups
            ]
            parts.append(_aligned([head, *rows]))
        if self.notes:
            parts.append("\n".join(f"note: {note}" for note in self.notes))
        return "\n\n".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as plain values, None for what is not there or no number."""
        return {
            "statistic": self._statistic,
            "x": self._axis,
            "what": self._what,
            "runs": [_run_dict(run) for run in self.runs],
            "groups": [_group_dict(group) for group in self.groups],
            "notes": self.notes,
        }

    def picture(self, ending: str) -> bytes:
        """Return a picture of the curves as a file's content.

        Args:
            ending: "png", "svg" or "pdf".
        """
        from rlagents import plots

        envs = ", ".join(dict.fromkeys(run.env_id for run in self.runs))
        if len(self.runs) == 1:
            run = self.runs[0]
            title = f"{envs}: {run.recipe}, seed {run.seed}"
            return plots.render(
                plots.draw_run(run, axis=self._axis, what=self._what, title=title), ending
            )
        curves = []
        for group in self.groups:
            if group.curve is not None:
                number = len(group.curve.runs)
                label = group.label if number == 1 else f"{group.label} ({number} runs)"
                curves.append(replace(group.curve, label=label))
        figure = plots.draw_groups(
            curves,
            title=envs,
            axis=self._axis,
            what=self._what,
            center_is=STATISTIC_NAMES[self._statistic],
        )
        return plots.render(figure, ending)


def compare_runs(
    names: Sequence[str | Path],
    *,
    runs_dir: Path = Path("runs"),
    output: Path | None = None,
    axis: Axis = "steps",
    what: What = "training",
    statistic: Statistic = "mean",
) -> Comparison:
    """Compare runs, and draw their curves where a file is named for it.

    Args:
        names: the runs' folders, or their names under `runs_dir`.
        runs_dir: the runs folder.
        output: a picture; an older one is replaced.
        axis: what the curves' x is.
        what: what the curves' y is.
        statistic: over the runs of a group.

    Raises:
        UsageError: one is not a run or is damaged, or the picture cannot be written there.
        RLAgentsError: it was not written, though the folder could be written to.
    """
    if output is not None:
        check_name(output, PICTURES)
    comparison = Comparison(names, runs_dir=runs_dir, axis=axis, what=what, statistic=statistic)
    if output is not None:
        check_writable(output.parent, output)
        write_whole(output, comparison.picture(output.suffix.removeprefix(".")))
    return comparison


def _mean_return(row: EvaluationRow | None) -> float | None:
    return None if row is None else row.mean_return


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2f}"


def _best_text(run: History) -> str:
    row = run.best_evaluation
    if row is None:
        return _NONE
    return f"{row.mean_return:.2f}{_completed(run, row)} at {row.step:,}"


def _last_text(run: History) -> str:
    row = run.last_evaluation
    if row is None:
        return _NONE
    return f"{row.mean_return:.2f} ± {row.std_return:.2f} ({row.episodes}){_completed(run, row)}"


def _completed(run: History, row: EvaluationRow) -> str:
    rate = run.success_rates.get(row.step)
    return "" if rate is None else f", {percent(rate)} completed"


def _interval_text(group: GroupResult, key: str) -> str:
    result = group.results[key]
    if result is None:
        return _NONE
    if len(group.runs) == 1:
        return _number(result.value)
    return f"{result.value:.2f} [{result.low:.2f}, {result.high:.2f}]"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines of columns, the first one flush left and the others flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if column else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _run_dict(run: History) -> dict[str, Any]:
    best, last = run.best_evaluation, run.last_evaluation
    return {
        "name": run.name,
        "directory": str(run.folder.directory),
        "recipe": run.recipe,
        "env_id": run.env_id,
        "seed": run.seed,
        "state": run.status.get("state"),
        "steps": run.steps,
        "wall_time_s": run.wall_time_s,
        "best_evaluation": _row_dict(run, best),
        "last_evaluation": _row_dict(run, last),
        "recent_return": _finite(run.recent_return),
    }


def _row_dict(run: History, row: EvaluationRow | None) -> dict[str, Any] | None:
    if row is None:
        return None
    rate = run.success_rates.get(row.step)
    told = {} if rate is None else {"success_rate": rate}
    return told | {
        "step": row.step,
        "episodes": row.episodes,
        "mean_return": _finite(row.mean_return),
        "std_return": _finite(row.std_return),
    }


def _group_dict(group: GroupResult) -> dict[str, Any]:
    curve = group.curve
    return {
        "label": group.label,
        "runs": [run.name for run in group.runs],
        "seeds": group.num_seeds,
        **{
            key: None
            if result is None
            else {name: _finite(value) for name, value in result._asdict().items()}
            for key, result in group.results.items()
        },
        "curve": None
        if curve is None
        else {
            name: [_finite(value) for value in getattr(curve, name).tolist()]
            for name in ("x", "center", "low", "high")
        },
    }


def _finite(value: float | None) -> float | None:
    """Return a number that JSON has a word for, else None."""
    return value if value is not None and math.isfinite(value) else None
