"""Measure what recording costs: for each frame of an Atari episode, and of a training's time.

`frames` plays an episode of the Pong agent that comes with the package again, from its seed and
actions: without a picture being kept, recorded, and recorded with captions. The goal is at most
2 ms a frame at three times the size, with the emulator.

`training` trains `pong-dqn` as whole processes, with its evaluations recorded and with the same
evaluations unrecorded, by turns. The goal is a loss of at most 5 % of the wall time. A game is
recorded every 50,000 steps, as in the recipe once Pong is solved; until then the recipe evaluates,
and records, nothing.

Example:
    python scripts/benchmark_recording.py frames
    python scripts/benchmark_recording.py training --repetitions 3
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from measuring import count, show_machine, write_json

_FRAME_GOAL_MS = 2.0
_TRAINING_GOAL_PERCENT = 5.0
_RECIPE = "pong-dqn"


def frame_sides(scale: int, max_frames: int | None) -> dict[str, Callable[[Path], int]]:
    """Return what is measured of an episode; each returns the number of its frames.

    Args:
        scale: of the pixels.
        max_frames: after which the episode is cut off; to its end if None.
    """
    import rlagents
    from rlagents.envs import find_env, make_player
    from rlagents.film import View
    from rlagents.recording import record_episodes
    from rlagents.takes import replay

    agent = rlagents.load_pretrained("pong")
    if max_frames is not None:
        env = agent.config.env.model_copy(update={"max_episode_frames": max_frames})
        agent.config = agent.config.model_copy(update={"env": env})
    config = agent.config
    (episode,) = agent.evaluate(1).played
    policy = agent.policy()
    print(f"episode     {episode.length} agent steps, return {episode.episodic_return:g}")

    def play(_: Path) -> int:
        player = make_player(find_env(config.env.id), config.env)
        take = replay(
            player,
            episode.seed,
            episode.actions,
            values=episode.values,
            episodic_return=episode.episodic_return,
        )
        frames = sum(1 for _ in take)
        player.close()
        return frames

    def record(caption: bool, folder: Path) -> int:
        player = make_player(find_env(config.env.id), config.env)
        path = record_episodes(
            [player],
            policy,
            [episode],
            config.evaluation,
            reproducible=True,
            view=View(scale, caption),
            path=lambda *_: folder / "film.mp4",
            about={"values_are": policy.kind},
        )
        player.close()
        return int(json.loads(path.with_suffix(".json").read_text())["num_frames"])

    return {
        "playing alone": play,
        "recorded": lambda folder: record(False, folder),
        "with captions": lambda folder: record(True, folder),
    }


def measure_frames(options: argparse.Namespace) -> dict[str, Any]:
    """Measure milliseconds a frame, print each repetition, and return all numbers."""
    sides = frame_sides(options.scale, options.frames)
    times_ms: dict[str, list[float]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as folder:
        for side in sides.values():  # not counted: what is loaded the first time
            side(Path(folder))
        for repetition in range(1, options.repetitions + 1):
            for name, side in sides.items():
                began = time.perf_counter()
                frames = side(Path(folder))
                spent_ms = 1000 * (time.perf_counter() - began)
                times_ms[name].append(spent_ms / frames)
                print(
                    f"repetition {repetition}  {name:<14}{spent_ms / frames:7.3f} ms a frame  "
                    f"({frames:,} frames in {spent_ms / 1000:.2f} s)",
                    flush=True,
                )
    print(f"\n{'ms a frame':<14}{'min':>9}{'median':>9}{'max':>9}")
    for name, values in times_ms.items():
        middle = statistics.median(values)
        print(f"{name:<14}{min(values):>9.3f}{middle:>9.3f}{max(values):>9.3f}")
    print(f"the goal is at most {_FRAME_GOAL_MS:g} at scale 3")
    return {"scale": options.scale, "ms_per_frame": times_ms}


def train(options: argparse.Namespace, runs: Path, name: str, recorded: bool) -> float:
    """Train in a process of its own and return the seconds from its start to its end."""
    words = [
        *(sys.executable, "-m", "rlagents", "train", _RECIPE, "--seed", options.seed),
        *("--total-steps", options.steps, "--evaluation.period-steps", options.period_steps),
        *("--recording.period-steps", "none", "--recording.enabled", str(recorded).lower()),
        *("--runs-dir", runs, "--name", name, *options.more),
    ]
    began = time.perf_counter()
    subprocess.run([str(word) for word in words], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def evaluations(run: Path) -> list[dict[str, str]]:
    """Return what a run's evaluations came to, without their times."""
    with (run / "evaluations.csv").open(newline="", encoding="utf-8") as file:
        return [
            {k: v for k, v in row.items() if k != "wall_time_s"} for row in csv.DictReader(file)
        ]


def measure_training(options: argparse.Namespace) -> dict[str, Any]:
    """Measure trainings by turns, print each, and return all numbers."""
    times_s: dict[str, list[float]] = {"unrecorded": [], "recorded": []}
    for repetition in range(1, options.repetitions + 1):
        # Who is first changes, so that a machine that grows slower favours neither.
        sides = sorted(times_s, reverse=repetition % 2 == 1)
        with tempfile.TemporaryDirectory() as folder:
            runs = Path(folder)
            for side in sides:
                seconds = train(options, runs, side, side == "recorded")
                times_s[side].append(seconds)
                videos = len(list((runs / side / "videos").glob("*.json")))
                print(
                    f"repetition {repetition}  {side:<12}{seconds:9.2f} s  ({videos} videos)",
                    flush=True,
                )
            same = evaluations(runs / "recorded") == evaluations(runs / "unrecorded")
        loss = 100 * (times_s["recorded"][-1] / times_s["unrecorded"][-1] - 1)
        print(
            f"repetition {repetition}  loss {loss:.1f} %; the evaluations are "
            f"{'the same' if same else 'NOT the same'}",
            flush=True,
        )
    middle = {side: statistics.median(values) for side, values in times_s.items()}
    loss = 100 * (middle["recorded"] / middle["unrecorded"] - 1)
    print(f"\n{'seconds':<12}{'min':>10}{'median':>10}{'max':>10}")
    for side, values in times_s.items():
        print(f"{side:<12}{min(values):>10.2f}{middle[side]:>10.2f}{max(values):>10.2f}")
    print(
        f"loss of the medians {loss:.1f} % with a recording every {options.period_steps:,} steps; "
        f"the goal is at most {_TRAINING_GOAL_PERCENT:g} %"
    )
    return {
        "steps": options.steps,
        "period_steps": options.period_steps,
        "seconds": times_s,
        "loss_percent": loss,
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sides = parser.add_subparsers(dest="what", required=True)
    frames = sides.add_parser("frames", help="milliseconds a frame of an Atari episode")
    frames.add_argument("--scale", type=count, default=3, metavar="N", help="default: 3")
    frames.add_argument(
        "--frames", type=count, metavar="N", help="cut the episode off here (default: at its end)"
    )
    training = sides.add_parser("training", help="the loss of a training whose games are recorded")
    training.add_argument(
        "--steps", type=count, default=50_000, metavar="N", help="of each (default: 50,000)"
    )
    training.add_argument(
        "--period-steps",
        type=count,
        default=50_000,
        metavar="N",
        help="between recorded evaluations; there is one at the end too (default: 50,000)",
    )
    training.add_argument("--seed", type=count, default=1, metavar="N", help="default: 1")
    training.add_argument(
        "more", nargs="*", help="further keys of both trainings, after --: --table.key value"
    )
    for side, repetitions in ((frames, 5), (training, 3)):
        side.add_argument(
            "--repetitions",
            type=count,
            default=repetitions,
            metavar="N",
            help=f"of each (default: {repetitions})",
        )
        side.add_argument("--json", type=Path, metavar="FILE", help="keep all numbers here")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure and print."""
    options = parse()
    machine = show_machine()
    measure = measure_frames if options.what == "frames" else measure_training
    write_json(options.json, machine | measure(options))


if __name__ == "__main__":
    main()
