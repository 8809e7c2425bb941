"""Train the CartPole recipes for several seeds through the command line, and judge each of them.

For each recipe and seed: `rlagents train CONFIG --seed N`, timed from the start of the process to
its end, then `rlagents evaluate RUN --episodes 100 --json`, whose episodes are none that chose the
best checkpoint.

Example:
    python scripts/benchmark_cartpole.py --json cartpole.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from measuring import run_program

SOLVED = 475.0
PERFECT = 500.0  # every episode lasts to the time limit


@dataclass(frozen=True)
class Result:
    """One recipe with one seed.

    Attributes:
        config: the recipe.
        seed: of the training.
        mean_return: over the evaluation's episodes.
        std_return: over the evaluation's episodes.
        step: of the checkpoint that was evaluated.
        train_seconds: wall time of the whole train command.
    """

    config: str
    seed: int
    mean_return: float
    std_return: float
    step: int
    train_seconds: float


def measure(config: str, seed: int, episodes: int, runs_dir: Path) -> Result:
    """Train and evaluate one seed."""
    began = time.perf_counter()
    output = run_program(
        ["train", config, "--seed", str(seed), "--runs-dir", str(runs_dir)], code=1
    )
    seconds = time.perf_counter() - began
    run = output.splitlines()[-1].removeprefix("run: ")
    told = run_program(["evaluate", run, "--episodes", str(episodes), "--json"], code=1)
    found = json.loads(told)
    return Result(config, seed, found["mean_return"], found["std_return"], found["step"], seconds)


def measure_all(options: argparse.Namespace, runs_dir: Path) -> list[Result]:
    """Measure every recipe and seed and print a row for each, then what they come to."""
    results: list[Result] = []
    print(f"{'config':<22}{'seed':>5}{'mean':>9}{'std':>8}{'checkpoint':>12}{'train s':>10}")
    for config in options.configs:
        for seed in options.seeds:
            result = measure(config, seed, options.episodes, runs_dir)
            results.append(result)
            print(
                f"{config:<22}{seed:>5}{result.mean_return:>9.1f}{result.std_return:>8.1f}"
                f"{result.step:>12,}{result.train_seconds:>10.1f}",
                flush=True,
            )
    print()
    for config in options.configs:
        rows = [result for result in results if result.config == config]
        solved = sum(row.mean_return >= SOLVED for row in rows)
        perfect = sum(row.mean_return == PERFECT for row in rows)
        returns = [row.mean_return for row in rows]
        seconds = [row.train_seconds for row in rows]
        seeds = "seed" if len(rows) == 1 else "seeds"
        print(
            f"{config}: {solved} of {len(rows)} {seeds} >= {SOLVED:g}, {perfect} at {PERFECT:g}; "
            f"mean return: median {statistics.median(returns):.1f}, min {min(returns):.1f}; "
            f"train s: median {statistics.median(seconds):.1f}, max {max(seconds):.1f}"
        )
    return results


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--configs",
        nargs="+",
        default=["cartpole-dqn", "cartpole-ppo", "cartpole-reinforce"],
        metavar="CONFIG",
        help="recipes or TOML files (default: cartpole-dqn cartpole-ppo cartpole-reinforce)",
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=list(range(1, 11)),
        metavar="N",
        help="of the trainings (default: 1 to 10)",
    )
    parser.add_argument(
        "--episodes", type=int, default=100, metavar="N", help="of each evaluation (default: 100)"
    )
    parser.add_argument(
        "--runs-dir",
        type=Path,
        metavar="DIR",
        help="keep the runs here (default: they are removed)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all numbers here")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure and keep the numbers."""
    from rlagents import machine

    options = parse()
    hardware, versions = machine.hardware(), machine.versions()
    print(f"machine   {hardware['cpu']}, {hardware['cores']} cores, {hardware['system']}")
    print("versions  " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"commit    {machine.git_commit()}\n")
    if options.runs_dir is not None:
        results = measure_all(options, options.runs_dir)
    else:
        with tempfile.TemporaryDirectory() as folder:
            results = measure_all(options, Path(folder))
    if options.json is not None:
        kept = {
            "hardware": hardware,
            "versions": versions,
            "git_commit": machine.git_commit(),
            "command": ["python", *sys.argv],
            "evaluation_episodes": options.episodes,
            "results": [asdict(result) for result in results],
        }
        options.json.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
