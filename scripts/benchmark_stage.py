"""Train recipes of Super Mario Bros. through the command line, and count completed episodes.

For each recipe, stage and seed: `rlagents train CONFIG --env.id mario-STAGE --seed N`, timed from
the start of the process to its end, then twice `rlagents evaluate RUN --episodes 100 --json`, whose
episodes are none that chose the best checkpoint: as in training, and with sticky frames.

Examples:
    python scripts/benchmark_stage.py --json stage.json
    python scripts/benchmark_stage.py --configs mario-fast --stages 1-2 1-3 1-4 --seeds 1
    python scripts/benchmark_stage.py --configs mario-fast --train-sticky --stop-success 0.9
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from measuring import count, run_program, show_machine, write_json
from rlagents.run import RunFolder

STICKY = 0.25  # Machado et al. (2018)
CONFIGS = ["mario-fast", "mario-fast-dqn", "mario-reinforce", "mario-ppo"]


@dataclass(frozen=True)
class Result:
    """One recipe on one stage with one seed.

    Attributes:
        config: the recipe.
        stage: such as "1-1".
        seed: of the training.
        steps: agent steps of the whole training.
        best_step: of the checkpoint that was evaluated.
        train_seconds: wall time of the whole train command.
        completed: part of the evaluation's episodes, between 0 and 1.
        different: how many of these episodes differ.
        completed_sticky: the same with sticky frames.
    """

    config: str
    stage: str
    seed: int
    steps: int
    best_step: int
    train_seconds: float
    completed: float
    different: int
    completed_sticky: float


def evaluate(run: Path, episodes: int, sticky: float) -> dict[str, float]:
    """Return what the best checkpoint of a run does where frames stick with a probability."""
    words = ["evaluate", str(run), "--episodes", str(episodes), "--json"]
    found: dict[str, float] = json.loads(
        run_program([*words, "--env.sticky-probability", str(sticky)])
    )
    return found


def measure(
    config: str, stage: str, seed: int, options: argparse.Namespace, runs_dir: Path
) -> Result:
    """Train and evaluate one recipe on one stage with one seed."""
    words = ["train", config, "--env.id", f"mario-{stage}", "--seed", str(seed)]
    if options.train_sticky:
        words += ["--env.sticky-probability", str(STICKY)]
    if options.stop_success is not None:
        words += ["--evaluation.stop-success", str(options.stop_success)]
    if options.total_steps is not None:
        words += ["--total-steps", str(options.total_steps)]
    began = time.perf_counter()
    output = run_program([*words, "--runs-dir", str(runs_dir)])
    seconds = time.perf_counter() - began
    run = Path(output.splitlines()[-1].removeprefix("run: "))
    plain = evaluate(run, options.episodes, 0.0)
    sticky = evaluate(run, options.episodes, STICKY)
    return Result(
        *(config, stage, seed, RunFolder(run).status()["step"], int(plain["step"]), seconds),
        plain["success_rate"],
        int(plain.get("distinct_episodes", options.episodes)),
        sticky["success_rate"],
    )


def measure_all(options: argparse.Namespace, runs_dir: Path) -> list[Result]:
    """Measure every recipe, stage and seed and print a row for each."""
    results: list[Result] = []
    print(
        f"{'config':<18}{'stage':>6}{'seed':>5}{'steps':>11}{'best at':>11}{'train s':>9}"
        f"{'completed':>11}{'different':>11}{'sticky':>8}"
    )
    for config in options.configs:
        for stage in options.stages:
            for seed in options.seeds:
                one = measure(config, stage, seed, options, runs_dir)
                results.append(one)
                print(
                    f"{config:<18}{stage:>6}{seed:>5}{one.steps:>11,}{one.best_step:>11,}"
                    f"{one.train_seconds:>9.1f}{one.completed:>11.0%}{one.different:>11}"
                    f"{one.completed_sticky:>8.0%}",
                    flush=True,
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
        default=CONFIGS,
        metavar="CONFIG",
        help=f"recipes or TOML files (default: {' '.join(CONFIGS)})",
    )
    parser.add_argument(
        "--stages", nargs="+", default=["1-1"], metavar="W-S", help="what is played (default: 1-1)"
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[1, 2, 3],
        metavar="N",
        help="of the trainings (default: 1 2 3)",
    )
    parser.add_argument(
        "--episodes", type=count, default=100, metavar="N", help="of each evaluation (default: 100)"
    )
    parser.add_argument(
        "--train-sticky", action="store_true", help=f"train with sticky frames ({STICKY:g}) too"
    )
    parser.add_argument(
        "--stop-success",
        type=float,
        metavar="PART",
        help="of the evaluation episodes, with which a training ends (default: the recipe's)",
    )
    parser.add_argument(
        "--total-steps", type=count, metavar="N", help="at most (default: the recipe's)"
    )
    parser.add_argument(
        "--runs-dir", type=Path, metavar="DIR", help="keep the runs here (default: removed)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all numbers here")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and keep the numbers."""
    options = parse(arguments)
    about = show_machine()
    print()
    if options.runs_dir is not None:
        results = measure_all(options, options.runs_dir)
    else:
        with tempfile.TemporaryDirectory() as folder:
            results = measure_all(options, Path(folder))
    kept = {"evaluation_episodes": options.episodes, "results": [asdict(one) for one in results]}
    write_json(options.json, about | kept)


if __name__ == "__main__":
    main()
