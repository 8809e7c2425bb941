"""Measure how long `import rlagents` and `rlagents --help` take, as whole processes.

Each is started once without being counted, so that compiled files and the disk's cache are there,
and then repeated. A Python that does nothing is measured beside them: the rest is ours.

Example:
    python scripts/benchmark_startup.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path


def commands() -> dict[str, list[str]]:
    """Return what is measured: how it is called, and its words."""
    program = Path(sys.executable).parent / "rlagents"
    rlagents = [str(program)] if program.exists() else [sys.executable, "-m", "rlagents"]
    return {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import rlagents": [sys.executable, "-c", "import rlagents"],
        "rlagents --help": [*rlagents, "--help"],
    }


def measure(words: Sequence[str], folder: str) -> float:
    """Return the seconds from a process's start to its end."""
    began = time.perf_counter()
    subprocess.run(words, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repetitions", type=int, default=7, metavar="N", help="of each command (default: 7)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all numbers here")
    options = parser.parse_args(arguments)
    if options.repetitions < 1:
        parser.error(f"--repetitions: expected 1 or more, got {options.repetitions}")
    return options


def main() -> None:
    """Measure and print."""
    options = parse()
    times: dict[str, list[float]] = {}
    # From an empty folder, so that the package is found where it is installed.
    with tempfile.TemporaryDirectory() as folder:
        for words in commands().values():
            measure(words, folder)
        for name, words in commands().items():
            times[name] = [measure(words, folder) for _ in range(options.repetitions)]
            print(f"{name:<18}" + "  ".join(f"{seconds:.3f}" for seconds in times[name]))
    print(f"\n{'seconds':<18}{'min':>8}{'median':>8}{'max':>8}")
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"{name:<18}{min(values):>8.3f}{middle:>8.3f}{max(values):>8.3f}")
    if options.json is not None:
        options.json.write_text(json.dumps(times, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
