"""Draw the learning curves of runs: training return and evaluations, over steps or time.

The line is the mean return of the last 100 training episodes, the points are evaluations. Works on
a run that is still training, too.

Example:
    python scripts/plot_curves.py runs/pong-dqn-s1-20260101-120000 --output curve.png --x time
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import matplotlib

matplotlib.use("Agg")  # no screen needed

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import EngFormatter, FuncFormatter

import rlagents
from rlagents.errors import UsageError

RECENT_EPISODES = 100

Axis = Literal["steps", "time"]


@dataclass(frozen=True)
class Curve:
    """What is drawn of a run.

    Attributes:
        name: of the run's folder.
        label: recipe and seed.
        env_id: of its environment.
        training: [T, 2] x and mean return of the last 100 episodes, a row an episode.
        evaluations: [E, 2] x and mean return, a row an evaluation.
        evaluation_episodes: of each evaluation.
    """

    name: str
    label: str
    env_id: str
    training: np.ndarray[Any, np.dtype[np.float64]]
    evaluations: np.ndarray[Any, np.dtype[np.float64]]
    evaluation_episodes: int


def read_curve(name: str, runs_dir: Path, axis: Axis) -> Curve:
    """Read a run's folder.

    Args:
        name: the folder, or its name under `runs_dir`.
        runs_dir: the runs folder.
        axis: what x is: agent steps or seconds.

    Raises:
        UsageError: it is not a run.
    """
    run = rlagents.open_run(name, runs_dir=runs_dir)
    column = "step" if axis == "steps" else "wall_time_s"
    episodes = run.episodes()
    returns = np.array([episode.episodic_return for episode in episodes])
    x = np.array([float(getattr(episode, column)) for episode in episodes])
    manifest = json.loads((run.directory / "config.json").read_text(encoding="utf-8"))
    rows = []
    path = run.directory / "evaluations.csv"
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(float(row[column]), float(row["mean_return"])) for row in csv.DictReader(file)]
    return Curve(
        run.directory.resolve().name,
        f"{manifest.get('recipe', 'run')}, seed {run.config.seed}",
        run.config.env.id,
        np.column_stack([x, running_mean(returns)]),
        np.array(rows, dtype=np.float64).reshape(-1, 2),
        run.config.evaluation.episodes,
    )


def running_mean(
    values: np.ndarray[Any, np.dtype[np.float64]], window: int = RECENT_EPISODES
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the mean of each value and those before it, `window` at most: [T] -> [T]."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts), dtype=np.float64)


def draw(curves: Sequence[Curve], output: Path, axis: Axis) -> None:
    """Write the picture."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    colours = matplotlib.color_sequences["tab10" if len(curves) <= 10 else "tab20"]
    labels = [curve.label for curve in curves]
    alone = len(curves) == 1
    divisor, unit = time_unit(curves) if axis == "time" else (1.0, "agent steps")
    for index, curve in enumerate(curves):
        colour = colours[index % len(colours)]
        unique = labels.count(curve.label) == 1
        label = curve.label if unique else curve.name
        evaluated = f"evaluation, mean of {curve.evaluation_episodes} episodes"
        training, evaluations = curve.training, curve.evaluations
        axes.plot(
            training[:, 0] / divisor,
            training[:, 1],
            color=colour,
            linewidth=1.8,
            label=f"training, mean of the last {RECENT_EPISODES} episodes" if alone else label,
        )
        if len(evaluations):
            axes.plot(
                evaluations[:, 0] / divisor,
                evaluations[:, 1],
                linestyle="none",
                marker="o",
                markersize=5,
                markerfacecolor="white",
                markeredgecolor=colours[1] if alone else colour,
                markeredgewidth=1.4,
                label=evaluated if alone else None,
            )
    if not alone and any(len(curve.evaluations) for curve in curves):
        style: dict[str, Any] = {"marker": "o", "markersize": 5, "markerfacecolor": "white"}
        axes.plot([], [], linestyle="none", color="0.4", label="evaluations", **style)
    environments = sorted({curve.env_id for curve in curves})
    title = ", ".join(environments)
    axes.set_title(f"{title}: {labels[0]}" if alone else title, loc="left")
    axes.set_xlabel(unit)
    axes.set_ylabel("return of an episode")
    if axis == "steps":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    else:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(left=0)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best", fontsize="small")
    figure.savefig(output, dpi=160)
    plt.close(figure)


def time_unit(curves: Sequence[Curve]) -> tuple[float, str]:
    """Return the seconds of a readable unit of time, and what the axis is called."""
    longest = max(
        (
            float(points[:, 0].max())
            for curve in curves
            for points in (curve.training, curve.evaluations)
            if len(points)
        ),
        default=0.0,
    )
    if longest >= 3 * 3600:
        return 3600.0, "hours of training"
    return (60.0, "minutes of training") if longest >= 180 else (1.0, "seconds of training")


def fail(message: str) -> NoReturn:
    """End with a message and exit code 2."""
    print(f"plot_curves: {message}", file=sys.stderr)
    raise SystemExit(2)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run's folder, or its name in the runs folder"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE.png", help="the picture"
    )
    parser.add_argument(
        "--x", choices=("steps", "time"), default="steps", help="what x is (default: steps)"
    )
    parser.add_argument(
        "--runs-dir",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="the runs folder (default: runs)",
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Read the runs and draw them."""
    options = parse()
    if options.output.suffix != ".png":
        fail(f"--output: expected a file that ends in .png, got {str(options.output)!r}.")
    try:
        curves = [read_curve(name, options.runs_dir, options.x) for name in options.runs]
    except UsageError as error:
        fail(str(error))
    for curve in curves:
        if not len(curve.training) and not len(curve.evaluations):
            fail(f"{curve.name} has no finished episode yet, so there is nothing to draw.")
    try:
        draw(curves, options.output, options.x)
    except OSError as error:
        fail(f"--output: {options.output} cannot be written ({error.strerror}).")
    print(options.output)


if __name__ == "__main__":
    main()
