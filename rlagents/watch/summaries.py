"""What the list of runs says about each: read in a few milliseconds, however long the run is.

Of `episodes.csv` only the end and samples at equal distances are read, whole lines only; of
`metrics.jsonl` nothing.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from rlagents.checkpoint import CheckpointStore
from rlagents.errors import UsageError
from rlagents.logs import GrowingFile, parse_rows
from rlagents.plain import open_plain
from rlagents.run import RunFolder
from rlagents.statistics import RECENT_EPISODES, Float64Array
from rlagents.watch.values import is_nested_too_deeply, number, text
from rlagents.watch.videos import video_names

Json = dict[str, Any]

_SPARKS = 40  # points of the little curve
_SMALL_FILE = 1 << 16  # bytes; a smaller episodes.csv is read wholly
_SAMPLE = 1 << 9  # bytes of each sample, half a dozen episodes
_END = 10_000  # bytes of its end, more than `RECENT_EPISODES`
_HEADER = 1 << 10  # bytes in which its first line ends
_LARGEST_CONFIG = 1 << 22
_LOST_AFTER_S = 300.0  # without a sign of life of a process that cannot be looked at
_STATES = ("running", "finished", "stopped", "failed")
_FILES = (
    *("config.json", "status.json", "episodes.csv", "evaluations.csv", "videos"),
    "checkpoints/index.json",
)

Signature = tuple[tuple[int, int, int] | None, ...]


def signature(directory: Path) -> Signature:
    """Return what is another value once a summary could be another."""
    return tuple(file_signature(directory / name) for name in _FILES)


def file_signature(path: Path) -> tuple[int, int, int] | None:
    """Return which file this is, its size and time of change; None if there is none."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_ino, about.st_size, about.st_mtime_ns


def read_manifest(directory: Path) -> Json:
    """Return a run's config.json.

    Raises:
        UsageError: it is damaged, or of another version.
    """
    path = directory / "config.json"
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise UsageError(f"{path} is larger than 4 MB, so it is no run's config.")
        manifest = RunFolder(directory).manifest()
    except FileNotFoundError:
        raise UsageError(f"{path} is missing; perhaps the run was deleted.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error}.") from None
    if is_nested_too_deeply(manifest):
        raise UsageError(f"{path} is damaged: its tables are nested too deeply.")
    config = manifest["config"]
    if not isinstance(config, dict) or not all(
        isinstance(config.get(table), dict) for table in ("env", "agent")
    ):
        raise UsageError(f"{path} is damaged: its config has no tables env and agent.")
    return manifest


def read_status(directory: Path) -> Json:
    """Return a run's status.json, {} if there is none yet.

    Raises:
        UsageError: it is damaged.
    """
    try:
        status = RunFolder(directory).status()
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"{directory / 'status.json'} cannot be read: {error}.") from None
    if status and status.get("state") not in _STATES:
        raise UsageError(
            f"{directory / 'status.json'} was not written by this version of rlagents: it says "
            f"state {status.get('state')!r}."
        )
    return status


def summarise(directory: Path) -> Json:
    """Return what the list says about a run, but for what time alone changes.

    Raises:
        UsageError: it cannot be read; the sentence says why.
    """
    manifest, status = read_manifest(directory), read_status(directory)
    config = manifest["config"]
    success_rate = number(status.get("success_rate"))
    # evaluations.csv does not say which evaluation is the best where successes come first.
    best_step = None if success_rate is None else _best_step(directory / "checkpoints")
    best, last = best_and_last(directory / "evaluations.csv", best_step)
    sample = sample_episodes(directory / "episodes.csv")
    return {
        "recipe": text(manifest.get("recipe")),
        "env_id": text(config["env"].get("id")),
        "agent": text(config["agent"].get("name")),
        "seed": number(config.get("seed")),
        "step": number(status.get("step")) or 0,
        "total_steps": number(config.get("total_steps")),
        "best_evaluation": best,
        "last_evaluation": last,
        "recent_return": sample.recent_return,
        "success_rate": success_rate,
        "episodes": sample.episodes,
        "videos": len(video_names(directory)),
        "spark": sample.spark,
    }


def unreadable(problem: str) -> Json:
    """Return what the list says about a run that cannot be read."""
    nothing = dict.fromkeys(("recipe", "env_id", "agent", "seed", "total_steps"))
    none_yet = dict.fromkeys(
        ("best_evaluation", "last_evaluation", "recent_return", "success_rate")
    )
    counts = {"step": 0, "episodes": 0, "videos": 0, "spark": []}
    return nothing | none_yet | counts | {"state": "unreadable", "problem": problem}


def evaluation_point(row: Mapping[str, float] | None) -> Json | None:
    """Return the step, the mean return and, where it is told, the success rate of an evaluation."""
    names = ("step", "mean_return", "success_rate")
    return None if row is None else {name: row[name] for name in names if name in row}


def _best_step(checkpoints: Path) -> int | None:
    """Return the step of the best checkpoint, None if it is not known."""
    name = CheckpointStore(checkpoints).index().get("best")
    return None if name is None else int(name.removeprefix("step-"))


def best_and_last(path: Path, best_step: int | None = None) -> tuple[Json | None, Json | None]:
    """Return the best evaluation of evaluations.csv, and the last of all.

    Args:
        path: of the file.
        best_step: of the best one, if that is known; otherwise, or if it is not there, it is the
            last one of the highest mean return.
    """
    header: list[str] | None = None
    best = last = chosen = None
    for lines in GrowingFile(path).read(restart=lambda: None):
        if header is None:
            header, lines = lines[0].decode("utf-8", "replace").split(","), lines[1:]
        rows = parse_rows(lines, header, ("step", "mean_return"))
        for step, mean_return in rows[np.isfinite(rows[:, 0])].tolist():
            last = {"step": int(step), "mean_return": mean_return}
            if math.isfinite(mean_return) and (best is None or mean_return >= best["mean_return"]):
                best = last
            if int(step) == best_step:
                chosen = last
    return chosen or best, last


class Sample(NamedTuple):
    """What a look at episodes.csv tells."""

    episodes: int
    recent_return: float | None  # mean of the last 100
    spark: list[float]  # means of samples, in the order of training


def sample_episodes(path: Path) -> Sample:
    """Return how many episodes there are, how the last went, and a little curve.

    A file of more than 64 KB is not read wholly: its end, and 40 samples of half a KB.
    """
    try:
        file = open_plain(path)
    except OSError:
        return Sample(0, None, [])
    with file:
        descriptor = file.fileno()
        size = os.fstat(descriptor).st_size
        header, newline, _ = os.pread(descriptor, _HEADER, 0).partition(b"\n")
        names = header.decode("utf-8", "replace").split(",")

        def lines(begin: int, length: int) -> list[bytes]:
            """Return the whole lines in a piece of the file."""
            return os.pread(descriptor, length, begin).split(b"\n")[1:-1]

        def rows(lines: list[bytes]) -> Float64Array:
            return parse_rows(lines, names, ("episode", "episodic_return"))

        if size <= _SMALL_FILE:
            # From the line end of the header on, which is then no piece of a line.
            last = rows(lines(len(header), _SMALL_FILE)) if newline else np.empty((0, 2))
            parts = np.array_split(last, min(_SPARKS, max(len(last), 1)))
        else:
            last = rows(lines(size - _END, _END))
            places = np.linspace(len(header), size - _SAMPLE, _SPARKS).astype(int)
            pieces = [lines(place, _SAMPLE) for place in places.tolist()]
            together = rows([line for piece in pieces for line in piece])
            if len(together) == sum(map(len, pieces)):
                parts = np.split(together, np.cumsum([len(piece) for piece in pieces])[:-1])
            else:  # some line is broken
                parts = [rows(piece) for piece in pieces]
    episodes = int(last[-1, 0]) + 1 if len(last) and np.isfinite(last[-1, 0]) else 0
    spark = [mean for mean in (_finite_mean(part[:, 1]) for part in parts) if mean is not None]
    return Sample(episodes, _finite_mean(last[-RECENT_EPISODES:, 1]), spark)


def _finite_mean(values: Float64Array) -> float | None:
    finite = [value for value in values.tolist() if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else None


def state_of(directory: Path, status: Mapping[str, Any]) -> tuple[str, float]:
    """Return a run's state and the time of its last sign of life, in seconds since the epoch.

    A run that says it is running is lost if its process is gone. Of a process on another machine
    only its sign of life is known.
    """
    heartbeat = number(status.get("heartbeat"))
    if heartbeat is None:  # the run has just begun, or its start was killed
        changed = file_signature(directory / "config.json")
        heartbeat = changed[2] / 1e9 if changed else 0.0
    state = str(status.get("state", "running"))
    if state == "running":
        if status.get("host") == platform.node() and isinstance(status.get("pid"), int):
            is_lost = not _is_alive(status["pid"], heartbeat)
        else:
            is_lost = time.time() - heartbeat > _LOST_AFTER_S
        state = "lost" if is_lost else state
    return state, float(heartbeat)


def _is_alive(pid: int, heartbeat: float) -> bool:
    """Tell whether the process runs that wrote `heartbeat`, and not a later one of its number."""
    try:
        process = psutil.Process(pid)
        is_older = bool(process.create_time() <= heartbeat + 1.0)
        return is_older and bool(process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.NoSuchProcess, ValueError, OverflowError):  # or no number of a process
        return False
    except psutil.AccessDenied:  # somebody else's, so it is there
        return True
