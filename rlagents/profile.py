"""Where the time of a training goes: a stopwatch that one part of the work hands to the next.

At any moment exactly one part is running: `with timer("sample")` inside `with timer("learn")` stops
the time of learning until it is over. So the parts add up to the whole, and what belongs to none of
them is "other". Whoever is measured is given a timer; `no_timer` is the one that measures nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

Timer = Callable[[str], AbstractContextManager[None]]

PARTS: Mapping[str, str] = {
    "emulate": "the environments: steps, resets, waiting for them",
    "preprocess": "pictures made small and grey (Atari games do that while they emulate)",
    "act": "choosing actions",
    "observe": "taking in steps, such as into replay",
    "sample": "putting batches together, and their way to the device",
    "learn": "updates",
    "evaluate": "playing evaluations",
    "record": "writing videos",
    "save": "writing checkpoints",
    "log": "files, TensorBoard and the console",
    "other": "the loop itself, and all else",
}
_REST = "other"
_NOTHING = nullcontext()


def no_timer(part: str) -> AbstractContextManager[None]:
    """Measure nothing."""
    return _NOTHING


class Profile:
    """A timer that counts seconds for each part.

    Args:
        synchronize: waits for what was handed to a GPU, which would otherwise be counted where
            somebody happens to wait for it. Called at every change of part.
        clock: tells the time in seconds.
    """

    def __init__(
        self,
        *,
        synchronize: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._synchronize = synchronize
        self._clock = clock
        self._running = [_REST]  # the innermost last
        self._sections: dict[str, _Section] = {}
        self.start()

    def start(self) -> None:
        """Count from now on, and forget what was counted."""
        self._seconds = {_REST: 0.0}
        self._counted_until = self._clock()

    def __call__(self, part: str) -> AbstractContextManager[None]:
        """Return what counts the time of a `with` block for `part`, less that of blocks within."""
        if part not in self._sections:
            self._sections[part] = _Section(self, part)
        return self._sections[part]

    def seconds(self) -> dict[str, float]:
        """Return the seconds of every part met so far, in the order of `PARTS`."""
        self._count()
        own = [part for part in self._seconds if part not in PARTS]
        order = [part for part in PARTS if part in self._seconds]
        return {part: self._seconds[part] for part in [*order[:-1], *own, _REST]}

    def _begin(self, part: str) -> None:
        self._count()
        self._running.append(part)

    def _end(self) -> None:
        self._count()
        self._running.pop()

    def _count(self) -> None:
        self._synchronize()
        now = self._clock()
        part = self._running[-1]
        self._seconds[part] = self._seconds.get(part, 0.0) + now - self._counted_until
        self._counted_until = now


class _Section(AbstractContextManager[None]):
    """A `with` block of one part; it keeps nothing, so blocks may lie within each other."""

    def __init__(self, profile: Profile, part: str) -> None:
        self._profile = profile
        self._part = part

    def __enter__(self) -> None:
        self._profile._begin(self._part)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._profile._end()


def as_dict(seconds: Mapping[str, float]) -> dict[str, Any]:
    """Return what `profile.json` says of the parts: seconds, and shares that add up to 1."""
    total = sum(seconds.values())
    return {
        "wall_time_s": total,
        "parts": {
            part: {"seconds": value, "share": value / total if total else 0.0}
            for part, value in seconds.items()
        },
    }


def table(seconds: Mapping[str, float]) -> list[str]:
    """Return the lines of a table: part, seconds, share of the whole, what it is.

    Both columns add up to the last line as they are shown.
    """
    total = sum(seconds.values())
    shown_s = _round_to(10 * total, [10 * value for value in seconds.values()])
    shares = _round_to(1000, [1000 * value / total if total else 0 for value in seconds.values()])
    width = max(len(part) for part in [*seconds, "total"])
    lines = [
        f"{part:{width}} {tenths / 10:>11,.1f} s {permille / 10:>6.1f} %  {PARTS.get(part, '')}"
        for part, tenths, permille in zip(seconds, shown_s, shares, strict=True)
    ]
    lines.append(f"{'total':{width}} {sum(shown_s) / 10:>11,.1f} s {sum(shares) / 10:>6.1f} %")
    return [line.rstrip() for line in lines]


def _round_to(total: float, values: Iterable[float]) -> list[int]:
    """Round so that the sum is `total`, rounded: those cut most are rounded up (Hamilton 1791)."""
    exact = list(values)
    whole = [int(value) for value in exact]
    missing = round(total) - sum(whole) if sum(exact) else 0
    by_rest = sorted(range(len(exact)), key=lambda i: whole[i] - exact[i])
    for index in by_rest[:missing]:
        whole[index] += 1
    return whole
