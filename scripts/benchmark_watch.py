"""Measure how fast `rlagents watch` shows many long runs, and how much memory it takes.

A folder of runs is made up, each with as many lines of metrics as a training of a week: 200 runs
with 100,000 lines each, unless told otherwise. The real server is started as a process of its own
and asked as a browser asks. Cold means a server just started, and files that the system had to
forget and reads from the disk again; warm is the same server asked again. `show` is what the page
of a run needs: /api/run/X and its curves. In the end a live run writes as many lines again while
it is being watched. metrics.jsonl is one file under the names of all runs, but for those that are
shown.

Example:
    python scripts/benchmark_watch.py
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from measuring import count, show_machine, write_json
from rlagents.observers.files import EPISODE_COLUMNS, EVALUATION_COLUMNS

PERIOD_S = 5.0  # between two lines of metrics
STEPS = 500  # between two lines
LIVE_PIECES = 100  # in which a live run's lines come


def metric_lines(first: int, number: int, random: np.random.Generator) -> str:
    """Return lines of metrics.jsonl, as DQN logs them."""
    names = (
        *("charts/SPS", "charts/episodic_return", "charts/episodic_length", "charts/epsilon"),
        *("losses/td_loss", "losses/q_values"),
    )
    values = random.normal(size=(number, len(names)))
    lines = []
    for index, row in enumerate(values.tolist(), start=first):
        clock = {
            "step": STEPS * index,
            "frames": 4 * STEPS * index,
            "wall_time_s": PERIOD_S * index,
        }
        lines.append(json.dumps(clock | dict(zip(names, row, strict=True))) + "\n")
    return "".join(lines)


def episode_lines(number: int, total_steps: int, random: np.random.Generator) -> str:
    """Return episodes.csv of an agent that learns Pong."""
    learnt = np.linspace(-21, 20, number)
    returns = np.clip(np.round(learnt + random.normal(scale=3, size=number)), -21, 21).tolist()
    lines = [",".join(EPISODE_COLUMNS)]
    for index, episodic_return in enumerate(returns):
        step = total_steps * (index + 1) // number
        seconds = f"{step * PERIOD_S / STEPS:.3f}"
        fields = (index, step, 4 * step, index % 8, 7919 * index, episodic_return, 1500)
        lines.append(",".join([*map(str, fields), "terminated", seconds]))
    return "\n".join(lines) + "\n"


def evaluation_lines(number: int, total_steps: int) -> str:
    """Return evaluations.csv."""
    lines = [",".join(EVALUATION_COLUMNS)]
    for index in range(1, number + 1):
        step, mean = total_steps * index // number, -21 + 41 * index / number
        lines.append(f"{step},{4 * step},10,{mean},1.5,{mean},{mean - 3},{mean + 1},{step / 100}")
    return "\n".join(lines) + "\n"


def make_runs(folder: Path, options: argparse.Namespace) -> list[Path]:
    """Make the folder of runs; the first of them have files of their own."""
    random = np.random.default_rng(0)
    total_steps = STEPS * options.lines
    metrics = metric_lines(1, options.lines, random)
    episodes = episode_lines(options.episodes, total_steps, random)
    evaluations = evaluation_lines(200, total_steps)
    runs = []
    for number in range(options.runs):
        run = folder / f"pong-dqn-s{number}"
        (run / "videos").mkdir(parents=True)
        config = {
            "seed": number,
            "total_steps": 2 * total_steps,
            "env": {"id": "pong", "num_envs": 8},
            "agent": {"name": "dqn"},
        }
        manifest = {
            "format": 1,
            "recipe": "pong-dqn",
            "config": config,
            "observation_space": {},
            "action_space": {},
            "reproducible": True,
            "difference": None,
            "threads": 2,
            "versions": {},
        }
        write(run / "config.json", json.dumps(manifest))
        status = {"state": "finished", "pid": 1, "step": total_steps, "heartbeat": 1e9 + number}
        write(run / "status.json", json.dumps(status))
        write(run / "episodes.csv", episodes)
        write(run / "evaluations.csv", evaluations)
        if number <= options.repetitions:
            write(run / "metrics.jsonl", metrics)
        else:
            os.link(runs[-1] / "metrics.jsonl", run / "metrics.jsonl")
        runs.append(run)
    return runs


def write(path: Path, text: str) -> None:
    """Write a file and wait until it is on the disk, as only then the system can forget it."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def forget(folder: Path) -> None:
    """Ask the system to drop what it keeps in memory of the files of a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


class Server:
    """`rlagents watch` as a process, and a connection to it."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = psutil.Process(process.pid)
        self._connection = http.client.HTTPConnection("127.0.0.1", port)

    def get(self, path: str) -> int:
        """Ask for a path and return the bytes of the answer."""
        self._connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body[:200]!r}")
        return len(body)

    def timed(self, *paths: str) -> float:
        """Return the seconds that some answers take, one after the other."""
        began = time.perf_counter()
        for path in paths:
            self.get(path)
        return time.perf_counter() - began

    def megabytes(self) -> float:
        """Return the memory that the process holds."""
        return float(self._process.memory_info().rss) / 1e6


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """Start the server, and end it."""
    words = [sys.executable, "-m", "rlagents", "watch", str(folder), "--port", "0", "--no-open"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        match = re.search(r":(\d+)/", process.stdout.readline())
        if match is None:
            raise RuntimeError("rlagents watch did not start")
        try:
            yield Server(process, int(match[1]))
        finally:
            process.terminate()


def measure_list_and_runs(folder: Path, runs: Sequence[Path], repetitions: int) -> dict[str, Any]:
    """Measure cold and warm answers; each repetition has a server and a run of its own."""
    names = ("start", "list cold", "list warm", "show cold", "show warm")
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(repetitions):
        forget(folder)
        began = time.perf_counter()
        with serve(folder) as server:
            server.get("/")  # the page itself, so that imports do not count as reading
            times["start"].append(time.perf_counter() - began)
            times["list cold"].append(server.timed("/api/runs"))
            times["list warm"].append(server.timed("/api/runs"))
            shown = f"/api/run/{runs[number].name}"
            times["show cold"].append(server.timed(shown, f"{shown}/curves"))
            times["show warm"].append(server.timed(shown, f"{shown}/curves"))
    for name, values in times.items():
        print(f"{name:<12}" + "  ".join(f"{seconds:.3f}" for seconds in values))
    print(f"\n{'seconds':<12}{'min':>8}{'median':>8}{'max':>8}")
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"{name:<12}{min(values):>8.3f}{middle:>8.3f}{max(values):>8.3f}")
    return times


def measure_memory(folder: Path, run: Path, lines: int) -> dict[str, float]:
    """Measure the server's memory while a live run writes and is watched."""
    random = np.random.default_rng(1)
    shown = f"/api/run/{run.name}"
    found = {}
    with serve(folder) as server:
        server.get("/")
        found["started"] = server.megabytes()
        server.get("/api/runs")
        found["listed"] = server.megabytes()
        server.timed(shown, f"{shown}/curves")
        found["run shown"] = server.megabytes()
        slowest = 0.0
        piece = lines // LIVE_PIECES
        for number in range(LIVE_PIECES):
            with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(metric_lines(lines + 1 + number * piece, piece, random))
            slowest = max(slowest, server.timed("/api/runs", shown, f"{shown}/curves"))
            if (number + 1) % (LIVE_PIECES // 5) == 0:
                found[f"live, + {piece * (number + 1):,} lines"] = server.megabytes()
    print("\nmemory of the server, MB")
    for name, megabytes in found.items():
        print(f"{name:<28}{megabytes:>8.1f}")
    print(f"the slowest look at list, run and curves meanwhile: {slowest:.3f} s")
    return found | {"slowest_look_s": slowest}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for flag, default, text in (
        ("--runs", 200, "in the folder"),
        ("--lines", 100_000, "of metrics of each run, and again of the live one"),
        ("--episodes", 20_000, "of each run"),
        ("--repetitions", 5, "of the cold and the warm answers"),
    ):
        help_text = f"{text} (default: {default:,})"
        parser.add_argument(flag, type=count, default=default, metavar="N", help=help_text)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all numbers here")
    options = parser.parse_args(arguments)
    if options.repetitions >= options.runs:
        parser.error("--repetitions: expected fewer than --runs, as each shows another run")
    if options.lines < LIVE_PIECES:
        parser.error(f"--lines: expected {LIVE_PIECES} or more, got {options.lines}")
    return options


def main() -> None:
    """Make the runs, measure, and delete them."""
    options = parse()
    result = show_machine()
    folder = Path(tempfile.mkdtemp(prefix="benchmark-watch-"))
    try:
        runs = make_runs(folder, options)
        print(
            f"runs        {options.runs}, each with {options.lines:,} lines of metrics "
            f"({(runs[0] / 'metrics.jsonl').stat().st_size / 1e6:.1f} MB), "
            f"{options.episodes:,} episodes and 200 evaluations\n"
        )
        times = measure_list_and_runs(folder, runs, options.repetitions)
        memory = measure_memory(folder, runs[options.repetitions], options.lines)
    finally:
        shutil.rmtree(folder)
    write_json(options.json, result | {"seconds": times, "megabytes": memory})


if __name__ == "__main__":
    main()
