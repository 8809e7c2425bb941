r"""Watch the memory and the open files of a long training, and say whether they stay flat.

Starts `rlagents` with the words given, reads /proc of its process every 30 seconds for some hours,
then stops it with SIGTERM. What counts begins when the replay is full and evaluations, videos and
checkpoints have been made: --settled says after how many agent steps. Linux only.

Examples:
    python scripts/soak.py --hours 2 --settled 210000 --csv soak.csv -- \
        train mario-dqn --replay.capacity 200000 --total-steps 40000000
    python scripts/soak.py --settled 210000 --read soak.csv
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from measuring import count, fail, show_machine
from rlagents.run import RunFolder

FLAT = 0.02  # of the least


@dataclass(frozen=True)
class Sample:
    """What the process had at one moment.

    Attributes:
        time_s: since the epoch.
        rss_kb: resident memory, VmRSS.
        anon_kb: the part of it that is no file's, RssAnon.
        fds: open files.
        threads: of the process.
        steps: agent steps, as last logged.
    """

    time_s: float
    rss_kb: int
    anon_kb: int
    fds: int
    threads: int
    steps: int


def sample(pid: int, steps: int) -> Sample:
    """Read what /proc says of a process.

    Raises:
        FileNotFoundError: it has ended.
    """
    process = Path(f"/proc/{pid}")
    status = (process / "status").read_text(encoding="utf-8")
    values = dict(re.findall(r"^(\w+):\s+(\d+)", status, flags=re.MULTILINE))
    if "VmRSS" not in values:  # ended, and not waited for
        raise FileNotFoundError(process)
    fds = sum(1 for _ in (process / "fd").iterdir())
    return Sample(
        *(time.time(), int(values["VmRSS"]), int(values["RssAnon"])),
        *(fds, int(values["Threads"]), steps),
    )


def last_step(log: Path) -> int:
    """Return the agent steps that a run has logged, whose output begins with its folder."""
    found = re.match(r"run: (.+)\n", log.read_text(encoding="utf-8"))
    return int(RunFolder(Path(found[1])).status().get("step", 0)) if found else 0


def watch(
    words: Sequence[str], seconds: float, steps: float, period: float, path: Path
) -> list[Sample]:
    """Run `rlagents` for so many seconds or agent steps, a sample every `period` seconds."""
    samples: list[Sample] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        path.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, [field.name for field in fields(Sample)])
        writer.writeheader()
        log = Path(folder) / "log"
        with log.open("wb") as output:
            command = [sys.executable, "-m", "rlagents", *words]
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        end = time.monotonic() + seconds
        try:
            while process.poll() is None and time.monotonic() < end:
                try:
                    samples.append(sample(process.pid, last_step(log)))
                except FileNotFoundError:
                    break
                writer.writerow(asdict(samples[-1]))
                file.flush()
                if samples[-1].steps >= steps:
                    break
                time.sleep(period)
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait()
        if code not in (0, 130):
            fail(f"rlagents ended with {code}:\n{log.read_text(encoding='utf-8')[-2000:]}")
    return samples


def read(path: Path) -> list[Sample]:
    """Return the samples of a file that `watch` has written."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        Sample(
            float(row["time_s"]),
            *(int(row[name] or 0) for name in ("rss_kb", "anon_kb", "fds", "threads", "steps")),
        )
        for row in rows
    ]


def report(samples: Sequence[Sample], settled: int) -> bool:
    """Print how memory and files went, and return whether they stayed flat from `settled` on."""
    began = samples[0].time_s
    shown = [samples[round(k * (len(samples) - 1) / 12)] for k in range(13)]
    print(f"{'minutes':>8}{'steps':>12}{'resident MB':>13}{'files':>7}{'threads':>9}")
    for one in shown:
        print(
            f"{(one.time_s - began) / 60:>8.0f}{one.steps:>12,}{one.rss_kb / 1e3:>13.1f}"
            f"{one.fds:>7}{one.threads:>9}"
        )
    counted = [one for one in samples if one.steps >= settled]
    if not counted:
        fail(f"--settled: the training has not gone beyond {settled:,} steps")
    memory = [one.rss_kb / 1e3 for one in counted]
    files = [one.fds for one in counted]
    spread = max(memory) / min(memory) - 1
    minutes = (counted[-1].time_s - counted[0].time_s) / 60
    print(
        f"\nfrom step {counted[0].steps:,} on, {minutes:.0f} min and {len(counted)} samples: "
        f"{min(memory):.1f} to {max(memory):.1f} MB ({spread:.2%}), "
        f"{min(files)} to {max(files)} files, {files[-1]} at the end"
    )
    flat = spread <= FLAT and files[-1] <= files[0] + 1
    print("flat" if flat else f"NOT flat: more than {FLAT:.0%}, or more files than before")
    return flat


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="of the rlagents command")
    parser.add_argument("--hours", type=float, default=2.0, metavar="H", help="(default: 2)")
    parser.add_argument(
        "--steps", type=count, metavar="N", help="end after so many agent steps, if they come first"
    )
    parser.add_argument(
        "--period", type=float, default=30.0, metavar="S", help="between samples (default: 30 s)"
    )
    parser.add_argument(
        "--settled", type=count, required=True, metavar="N", help="agent steps before what counts"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="where the samples are kept")
    parser.add_argument("--read", type=Path, metavar="FILE", help="samples kept before")
    options = parser.parse_args(arguments)
    if (options.read is None) == (not options.words):
        parser.error("expected the words of a command behind --, or --read FILE")
    if options.read is None and options.csv is None:
        parser.error("--csv: expected a file for the samples")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Watch a training, or read what was seen of one, and return 0 if it stayed flat."""
    options = parse(arguments)
    if options.read is not None:
        samples = read(options.read)
    else:
        show_machine()
        steps = math.inf if options.steps is None else options.steps
        samples = watch(options.words, options.hours * 3600, steps, options.period, options.csv)
    return 0 if report(samples, options.settled) else 1


if __name__ == "__main__":
    sys.exit(main())
