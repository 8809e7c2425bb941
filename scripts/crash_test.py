"""Kill a run at random moments, again and again, and look at what is left.

A small run of CartPole that saves, evaluates and records all the time is killed with SIGKILL, by
half of the kills while a checkpoint is being written. After each, every checkpoint that is listed
must be whole, no line of a log torn, every finished video readable, and the next process must go on
exactly. In the end the run must equal one that was never killed: episodes, actions, evaluations and
the network's weights.

Example:
    python scripts/crash_test.py --kills 50 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import av

from measuring import count
from rlagents.checkpoint import CheckpointStore
from rlagents.run import ActionLog, RunFolder

OPTIONS = {
    "env.num-envs": 4,
    "agent.learning-starts": 64,
    "replay.capacity": 2_000,
    "network.hidden-sizes": "[32]",
    "evaluation.period-steps": 400,
    "evaluation.episodes": 2,
    "evaluation.stop-return": "none",
    "evaluation.stop-episodes": "none",
    "checkpoint.period-steps": 100,
    "checkpoint.keep": 3,
    "checkpoint.replay": "always",
    "recording.period-steps": 400,
    "logging.period-s": 0.05,
}
_PATIENCE_S = 300.0


def start(*words: object) -> subprocess.Popen[str]:
    """Start a command of rlagents."""
    return subprocess.Popen(
        [sys.executable, "-m", "rlagents", *(str(word) for word in words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(runs: Path, name: str, seed: int, total_steps: int) -> subprocess.Popen[str]:
    """Start a new run."""
    words = [word for key, value in OPTIONS.items() for word in (f"--{key}", value)]
    where = ("--runs-dir", runs, "--name", name)
    return start(
        "train", "cartpole-dqn", *words, *where, "--seed", seed, "--total-steps", total_steps
    )


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for a process that is expected to succeed."""
    _, err = process.communicate()
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}:\n{err}")


def being_written(run: Path) -> bool:
    """Tell whether a checkpoint is on its way to the disk."""
    return any((run / "checkpoints").glob(".step-*"))


def last_step(run: Path) -> int:
    """Return the step of the last checkpoint, -1 if there is none."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        index = json.loads((run / "checkpoints" / "index.json").read_text(encoding="utf-8"))
        return int(index["last"].removeprefix("step-"))
    return -1


def wait_and_kill(process: subprocess.Popen[str], run: Path, delay_s: float, inside: bool) -> None:
    """Kill a process so long after it has saved for the first time, or in the save after that."""
    before = last_step(run)
    end = time.monotonic() + _PATIENCE_S
    while last_step(run) == before:
        _check_alive(process, end)
        time.sleep(0.005)
    time.sleep(delay_s)
    while inside and not being_written(run):
        _check_alive(process, end)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def _check_alive(process: subprocess.Popen[str], end: float) -> None:
    if process.poll() is not None:
        raise SystemExit(f"it ended by itself:\n{process.communicate()[1]}")
    if time.monotonic() > end:
        process.kill()
        raise SystemExit("it does not save")


def problems(run: Path) -> Iterator[str]:
    """Yield what is wrong with a run that was killed."""
    store = CheckpointStore(run / "checkpoints")
    for path in (run / "checkpoints").glob("step-*"):
        try:
            store.find(path.name.removeprefix("step-"))
        except ValueError as error:
            yield str(error)
    if store.index().get("last") is None:
        yield "there is no last checkpoint"
    for name in ("episodes.csv", "evaluations.csv", "actions/index.csv", "metrics.jsonl"):
        lines = (run / name).read_text(encoding="utf-8").split("\n")
        if lines.pop():
            yield f"the last line of {name} is torn"
        if name == "metrics.jsonl":
            with contextlib.suppress(ValueError):
                list(map(json.loads, lines))
                continue
            yield f"a line of {name} is broken"
        elif len({line.count(",") for line in lines}) != 1:
            yield f"a line of {name} is broken"
    for path in (run / "videos").glob("*.mp4"):
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        with av.open(str(path)) as video:
            frames = sum(1 for _ in video.decode(video=0))
        if frames != about["num_frames"]:
            yield f"{path.name} has {frames} frames, not {about['num_frames']}"


def without_times(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file without what no two runs share."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.pop("wall_time_s")
    return rows


def differences(run: Path, straight: Path) -> Iterator[str]:
    """Yield in what a run that was killed differs from one that was not."""
    for name in ("episodes.csv", "evaluations.csv"):
        if without_times(run / name) != without_times(straight / name):
            yield name
    for name in ("actions/actions.bin", "actions/index.csv"):
        if (run / name).read_bytes() != (straight / name).read_bytes():
            yield name
    manifests = []
    for folder in (run, straight):
        found = CheckpointStore(folder / "checkpoints").find("last")
        files = json.loads((found.directory / "manifest.json").read_text(encoding="utf-8"))["files"]
        manifests.append({name: files[name] for name in files if name != "runner.json"})
    if manifests[0] != manifests[1]:
        yield "the last checkpoint"
    steps = [
        json.loads(line)["step"]
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    if steps != sorted(steps):
        yield "the order of metrics.jsonl"
    actions = ActionLog(RunFolder(run))
    for episode in RunFolder(run).episodes():
        if len(actions.read(episode.episode)) != episode.episodic_length:
            yield f"the actions of episode {episode.episode}"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=count, default=50, metavar="N", help="(default: 50)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and of the run")
    parser.add_argument(
        "--longest", type=float, default=1.5, metavar="S", help="seconds after the first save"
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Kill and look."""
    options = parse()
    draws = random.Random(options.seed)
    bad = inside_writes = 0
    print(f"seed {options.seed}, {options.kills} kills")
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        run = runs / "killed"
        process = train(runs, "killed", options.seed, 10**9)
        for number in range(1, options.kills + 1):
            inside, delay_s = draws.random() < 0.5, draws.uniform(0, options.longest)
            wait_and_kill(process, run, delay_s, inside)
            caught = being_written(run)
            inside_writes += caught
            found = list(problems(run))
            bad += bool(found)
            print(
                f"kill {number:>3}  {delay_s:.3f} s after a save  last checkpoint "
                f"{last_step(run):>7,}  {'in a write  ' if caught else 'between two '} "
                f"{'; '.join(found) or 'all is well'}",
                flush=True,
            )
            process = start("resume", run)
        wait_and_kill(process, run, 0.0, False)
        end = last_step(run) + 200
        finish(start("resume", run, "--total-steps", end))
        said = (run / "run.log").read_text(encoding="utf-8")
        exact = said.count(", exactly")
        print(f"{exact} of {said.count('resuming at')} resumes were exact")
        print(f"{inside_writes} of {options.kills} kills came while a checkpoint was written")
        finish(train(runs, "straight", options.seed, end))
        found = list(differences(run, runs / "straight"))
        bad += len(found) + (exact != said.count("resuming at"))
        different = ", ".join(found) or "nothing"
        print(f"after {end:,} steps it differs from a run that was never killed in: {different}")
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
