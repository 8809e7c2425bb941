"""What the benchmarks beside peers share: a measurement, the process it is made in, the summary."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

OURS = "rlagents"


@dataclass(frozen=True)
class Measurement:
    """One repetition of one side.

    Attributes:
        steps: agent steps between the two readings of the clock.
        seconds: between them.
        settings: what was run, as the side itself resolved it.
        versions: of Python and packages.
    """

    steps: int
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def steps_per_second(self) -> float:
        """Return agent steps per second."""
        return self.steps / self.seconds


def fail(message: str, *, code: int = 2) -> NoReturn:
    """End with a message and an exit code."""
    print(f"{Path(sys.argv[0]).stem}: {message}", file=sys.stderr)
    raise SystemExit(code)


def count(text: str) -> int:
    """Return the number in a word of the command line: 1 or more."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number, 1 or more, got {text!r}")
    return number


def check_python(flag: str, python: str | None, modules: str, title: str, set_up: str) -> str:
    """Return the Python that was given for a peer, or end with what to do.

    Args:
        flag: that it is given by.
        python: what was given.
        modules: that it must be able to import, separated by commas.
        title: the peer's name.
        set_up: the commands that make its virtual environment.
    """
    if python is None:
        fail(f"{flag} is missing: the Python that has {title}.\n{set_up}")
    try:
        result = subprocess.run(
            [python, "-c", f"import {modules}"], capture_output=True, text=True, check=False
        )
    except OSError as error:
        fail(f"{flag}: {python} cannot be run ({error.strerror}).\n{set_up}")
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        fail(f"{flag}: {python} has no {title} ({reason}).\n{set_up}")
    return python


def run_program(words: Sequence[str], *, code: int = 2) -> str:
    """Run `rlagents` with these words and return its standard output.

    Where it fails, end with what it said on standard error and the exit code.
    """
    command = [sys.executable, "-m", "rlagents", *words]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        told = f"rlagents {' '.join(words)} ended with {result.returncode}:\n{result.stderr}"
        fail(told, code=code)
    return result.stdout


def run_child(side: str, words: Sequence[str]) -> Measurement:
    """Measure in a process of its own, whose last line of output is the measurement as JSON."""
    # Standard error is left alone, so that a failure can be read.
    result = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        fail(f"The process of {side} failed (exit code {result.returncode}): {shlex.join(words)}")
    return Measurement(**json.loads(result.stdout.splitlines()[-1]))


def show_machine() -> dict[str, Any]:
    """Print and return what all measurements of a comparison have in common."""
    from rlagents import machine

    hardware, load = machine.hardware(), os.getloadavg()[0]
    print(f"machine     {hardware['cpu']}, {hardware['cores']} cores, {hardware['system']}")
    print(f"load        {load:.2f} before the first repetition")
    if load > 0.5:
        print("warning: other programs are running, so these numbers are of little worth")
    print(f"commit      {machine.git_commit()}")
    print(f"command     {shlex.join(['python', *sys.argv])}")
    return {
        "hardware": hardware,
        "load_before": load,
        "git_commit": machine.git_commit(),
        "command": ["python", *sys.argv],
    }


def show_side(title: str, measurement: Measurement, words: Sequence[str]) -> None:
    """Print what a side runs."""
    print(f"{title}:")
    print(f"  command   {shlex.join(words)}")
    print("  versions  " + ", ".join(f"{k} {v}" for k, v in measurement.versions.items()))
    for key, value in measurement.settings.items():
        if isinstance(value, Mapping):
            inner = ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)
            print(f"  [{key}] {inner}")
    plain = {k: v for k, v in measurement.settings.items() if not isinstance(v, Mapping)}
    if plain:
        print("  " + ", ".join(f"{key} {value}" for key, value in plain.items()))


def show(number: int, side: str, measurement: Measurement) -> None:
    """Print a repetition."""
    print(
        f"repetition {number}  {side:<14}{measurement.steps_per_second:9.1f} steps/s"
        f"  ({measurement.steps:,} steps in {measurement.seconds:.2f} s)",
        flush=True,
    )


def summarise(found: Mapping[str, Sequence[Measurement]]) -> dict[str, Any]:
    """Print and return what the repetitions of each side come to.

    Args:
        found: the repetitions by side, equally many of each; OURS is one of the sides.

    Returns:
        Minimum, median and maximum of each side's steps/s, and for each other side the ratios of
        ours to it: that of the medians and those of the repetitions.
    """
    speeds = {side: [one.steps_per_second for one in all_] for side, all_ in found.items()}
    summary: dict[str, Any] = {"steps_per_second": {}, "ratio_of_medians": {}, "ratios": {}}
    print(f"\n{'steps/s':<14}{'min':>10}{'median':>10}{'max':>10}")
    for side, values in speeds.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{side:<14}{low:>10.1f}{middle:>10.1f}{high:>10.1f}")
        summary["steps_per_second"][side] = {"min": low, "median": middle, "max": high}
    medians = {side: one["median"] for side, one in summary["steps_per_second"].items()}
    for side in (side for side in speeds if side != OURS):
        ratio = medians[OURS] / medians[side]
        ratios = [ours / peer for ours, peer in zip(speeds[OURS], speeds[side], strict=True)]
        by_pair = "  ".join(f"{value:.2f}" for value in ratios)
        print(f"{OURS} / {side}: ratio of medians {ratio:.2f}, by repetition {by_pair}")
        summary["ratio_of_medians"][side] = ratio
        summary["ratios"][side] = ratios
    return summary


def write_json(path: Path | None, result: Mapping[str, Any]) -> None:
    """Keep all numbers, if a file was asked for."""
    if path is not None:
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
