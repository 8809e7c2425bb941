r"""Measure how long Pong takes to be solved: wall time and agent steps to a mean return of 18.

For each seed `rlagents train` is run from its start to its end, with evaluations, checkpoints and
videos as the recipe has them. Then `rlagents evaluate` plays 100 games with the best checkpoint,
none of which chose it. Solved means that the mean of the last 100 games of training, whole games
with the exploration that they were played with, is 18 or more. The time until then is counted from
the start of the command.

Run it with nothing else running:

    python scripts/benchmark_pong.py --seeds 1 2 3 --json pong.json

and with another recipe or options of it:

    python scripts/benchmark_pong.py --seeds 1 --config pong-dqn \
        --set env.sticky_probability=0.25
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

RECENT = 100  # games of which the mean is taken


class Game(NamedTuple):
    """What a line of episodes.csv says of a game of training."""

    step: int
    episodic_return: float
    wall_time_s: float


class Crossing(NamedTuple):
    """When the mean of the last games reached a return."""

    step: int
    wall_time_s: float


@dataclass(frozen=True)
class Result:
    """What came of one seed.

    Attributes:
        seed: of the training.
        solved_step: agent steps until the mean of 100 games reached the goal; None for never.
        solved_s: seconds from the start of the command until then.
        zero_step: agent steps until that mean reached 0.
        zero_s: seconds until then.
        last_mean: of the last 100 games of training.
        steps: agent steps in all.
        train_s: seconds of the whole command.
        mean_return: of the evaluation.
        std_return: of the evaluation.
        episodes: of the evaluation.
        checkpoint_step: agent steps of the checkpoint that was evaluated.
        run: the run's folder.
    """

    seed: int
    solved_step: int | None
    solved_s: float | None
    zero_step: int | None
    zero_s: float | None
    last_mean: float
    steps: int
    train_s: float
    mean_return: float
    std_return: float
    episodes: int
    checkpoint_step: int
    run: str


def read_games(run: Path) -> list[Game]:
    """Return the games of a run's training, in the order in which they ended."""
    with (run / "episodes.csv").open(newline="") as file:
        return [
            Game(int(row["step"]), float(row["episodic_return"]), float(row["wall_time_s"]))
            for row in csv.DictReader(file)
        ]


def crossing(games: Sequence[Game], goal: float, *, recent: int = RECENT) -> Crossing | None:
    """Return when the mean of the last `recent` games first was `goal` or more, None for never."""
    for end in range(recent, len(games) + 1):
        mean = statistics.fmean(game.episodic_return for game in games[end - recent : end])
        if mean >= goal:
            return Crossing(games[end - 1].step, games[end - 1].wall_time_s)
    return None


def measure(
    config: str, seed: int, options: Sequence[str], runs: Path, *, goal: float, episodes: int
) -> Result:
    """Train and evaluate one seed.

    Raises:
        subprocess.CalledProcessError: a command has failed; what it wrote has been shown.
    """
    program = [sys.executable, "-m", "rlagents"]
    began = time.monotonic()
    output = subprocess.run(
        [*program, "train", config, "--seed", str(seed), "--runs-dir", str(runs), *options],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    train_s = time.monotonic() - began
    run = Path(output.strip().splitlines()[-1].removeprefix("run: "))
    games = read_games(run)
    status = json.loads((run / "status.json").read_text())
    # The run's clock starts once everything is built. What it does not cover, the program's end
    # among it, is counted as if all of it came first.
    last_line = (run / "metrics.jsonl").read_text().splitlines()[-1]
    outside_s = train_s - float(json.loads(last_line)["wall_time_s"])
    solved, zero = crossing(games, goal), crossing(games, 0.0)
    report = json.loads(
        subprocess.run(
            [*program, "evaluate", str(run), "--episodes", str(episodes), "--json"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
    )
    return Result(
        seed,
        solved.step if solved else None,
        solved.wall_time_s + outside_s if solved else None,
        zero.step if zero else None,
        zero.wall_time_s + outside_s if zero else None,
        statistics.fmean(game.episodic_return for game in games[-RECENT:]) if games else math.nan,
        int(status["step"]),
        train_s,
        report["mean_return"],
        report["std_return"],
        episodes,
        report["step"],
        str(run),
    )


def row(result: Result) -> str:
    """Return a line of the table."""
    solved = zero = "never"
    if result.solved_step is not None and result.solved_s is not None:
        solved = f"{result.solved_step:,} steps, {result.solved_s / 60:.1f} min"
    if result.zero_step is not None and result.zero_s is not None:
        zero = f"{result.zero_step:,} steps, {result.zero_s / 60:.1f} min"
    return (
        f"| {result.seed} | {zero} | {solved} | {result.last_mean:.1f} | "
        f"{result.steps:,} steps, {result.train_s / 60:.1f} min | "
        f"{result.mean_return:.2f} ± {result.std_return:.2f} | {result.checkpoint_step:,} |"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every seed and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="pong-dqn", help="recipe or TOML file (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--goal", type=float, default=18.0, help="mean return (%(default)s)")
    parser.add_argument("--episodes", type=int, default=100, help="to evaluate (%(default)s)")
    parser.add_argument("--total-steps", type=int, help="in place of the recipe's")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    parser.add_argument("--runs-dir", type=Path, help="keeps the runs; else a temporary folder")
    parser.add_argument("--json", type=Path, help="writes the results there as well")
    parsed = parser.parse_args(arguments)
    options: list[str] = []
    for setting in parsed.set:
        key, equals, value = setting.partition("=")
        if not equals:
            parser.error(f"--set: expected TABLE.KEY=VALUE, got {setting!r}")
        options += [f"--{key}", value]
    if parsed.total_steps is not None:
        options += ["--total-steps", str(parsed.total_steps)]
    with tempfile.TemporaryDirectory() as temporary:
        runs = parsed.runs_dir or Path(temporary)
        results = []
        print(
            f"| seed | mean of {RECENT} ≥ 0 | mean of {RECENT} ≥ {parsed.goal:g} | last {RECENT} | "
            f"training | {parsed.episodes} games | checkpoint |"
        )
        print("|---|---|---|---|---|---|---|", flush=True)
        for seed in parsed.seeds:
            try:
                result = measure(
                    parsed.config, seed, options, runs, goal=parsed.goal, episodes=parsed.episodes
                )
            except subprocess.CalledProcessError as error:  # it has said why
                return int(error.returncode)
            results.append(result)
            print(row(result), flush=True)
            if parsed.json is not None:
                text = json.dumps([asdict(each) for each in results], indent=1)
                parsed.json.write_text(text + "\n")
    solved = [result.solved_s for result in results if result.solved_s is not None]
    print(f"\nsolved: {len(solved)} of {len(results)} seeds", end="")
    if len(solved) == len(results):
        print(f", median {statistics.median(solved) / 60:.1f} min", end="")
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
