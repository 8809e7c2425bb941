"""Measure how long a checkpoint with stored experience takes, the first one and the next.

A prioritized replay of 8 environments is full of noise, which no disk compresses. The first
checkpoint writes all of it. Then so many agent steps are played as lie between two checkpoints, and
the next is written, which shares with the first what has not changed. Both end when everything is
on the disk. With --steps-per-second, the speed of a training, the part of its time that such
checkpoints take is printed too.

Example:
    python scripts/benchmark_checkpoint.py --steps-per-second 400
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from measuring import count, show_machine, write_json
from rlagents.checkpoint import REPLAY, CheckpointStore
from rlagents.replay import PrioritizedReplay, ReplayConfig, make_replay
from rlagents.spaces import FrameStack
from rlagents.types import Transition

NUM_ENVS = 8
EPISODE = 1_000  # agent steps, as in Pong


def fill(capacity: int, size: int) -> PrioritizedReplay:
    """Return a full replay of square frames."""
    replay = make_replay(
        ReplayConfig(kind="prioritized", capacity=capacity),
        FrameStack(2, size, size),
        NUM_ENVS,
        n_step=5,
        gamma=0.99,
        generator=np.random.default_rng(0),
    )
    assert isinstance(replay, PrioritizedReplay)
    ring = replay._ring  # step by step, it would take an hour
    items = ring.frames.items.array  # type: ignore[attr-defined]
    draws = np.random.default_rng(1)
    for begin in range(0, len(items) - 1, 10_000):
        part = items[begin : min(begin + 10_000, len(items) - 1)]
        part[:] = draws.integers(256, size=part.shape, dtype=np.uint8)
    ring.head[:] = ring.rows
    ring._no_step[:] = False
    ring._size = NUM_ENVS * ring.rows
    return replay


def play(replay: PrioritizedReplay, steps: int) -> None:
    """Take in agent steps."""
    draws = np.random.default_rng(2)
    shape = (NUM_ENVS, *replay._ring.frames.items.array.shape[1:])  # type: ignore[attr-defined]
    frames = draws.integers(256, size=(shape[0], 2, *shape[1:]), dtype=np.uint8)
    action = np.zeros(NUM_ENVS, dtype=np.int64)
    reward = np.zeros(NUM_ENVS, dtype=np.float32)
    no = np.zeros(NUM_ENVS, dtype=np.bool_)
    for step in range(steps // NUM_ENVS):
        over = no | ((step + 1) % EPISODE == 0)
        replay.observe(Transition(frames, action, reward, frames, over, over))


def save(store: CheckpointStore, step: int, replay: PrioritizedReplay) -> tuple[float, int, int]:
    """Return the seconds of a checkpoint, its bytes, and how many of them were written."""

    def write(directory: Path) -> None:
        (directory / REPLAY).mkdir(parents=True)
        replay.save(directory / REPLAY)

    os.sync()  # what others have left is not ours to wait for
    began = time.perf_counter()
    path = store.save(step, write)
    seconds = time.perf_counter() - began
    files = [each.stat() for each in path.rglob("*") if each.is_file()]
    written = sum(about.st_size for about in files if about.st_nlink == 1)
    return seconds, sum(about.st_size for about in files), written


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--transitions", type=count, nargs="+", default=[100_000, 376_000, 1_000_000], metavar="N"
    )
    parser.add_argument("--sizes", type=count, nargs="+", default=[64, 84], metavar="PIXELS")
    parser.add_argument(
        "--period", type=count, default=100_000, metavar="STEPS", help="between two (100000)"
    )
    parser.add_argument("--repetitions", type=count, default=3, metavar="N", help="(default: 3)")
    parser.add_argument(
        "--steps-per-second", type=float, metavar="X", help="of the training, without checkpoints"
    )
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all numbers here")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure and print."""
    options = parse()
    result = show_machine()
    times: dict[str, list[float]] = {}
    for size in options.sizes:
        for transitions in options.transitions:
            replay = fill(transitions, size)
            for number in range(1, options.repetitions + 1):
                with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                    store = CheckpointStore(Path(folder), keep=2)
                    for step, which in enumerate(("first", "next"), start=1):
                        if which == "next":
                            play(replay, options.period)
                        seconds, nbytes, written = save(store, step, replay)
                        name = f"{transitions} x {size} {which}"
                        times.setdefault(name, []).append(seconds)
                        print(
                            f"repetition {number}  {transitions:>9,} of {size} x {size}  "
                            f"{which:<5}  {seconds:7.2f} s  {written / 1e6:8.0f} of "
                            f"{nbytes / 1e6:8.0f} MB written",
                            flush=True,
                        )
                # Nothing is known any more of what has been removed: the next is a first one.
            del replay
    print(f"\n{'seconds':<30}{'min':>8}{'median':>8}{'max':>8}")
    for name, values in times.items():
        middle = statistics.median(values)
        line = f"{name:<30}{min(values):>8.2f}{middle:>8.2f}{max(values):>8.2f}"
        if options.steps_per_second is not None and name.endswith("next"):
            share = 100 * middle / (middle + options.period / options.steps_per_second)
            line += f"  {share:.2f} % of the time"
        print(line)
    write_json(
        options.json,
        result | {"options": json.loads(json.dumps(vars(options), default=str)), "seconds": times},
    )


if __name__ == "__main__":
    main()
