"""Reading what a run logs while it is being written: only what is new, in memory that stays flat.

A run's files grow by whole lines, and are cut by `resume`, which replaces them. A file that was
replaced or cut is read anew. Curves are kept in bins of equally many points; when all bins are
full, neighbours become one, so that a hundred thousand points take as much memory as ten million.

Lines of metrics.jsonl are parsed by pydantic's JSON parser, in a fifth of the time of `json.loads`
(0.14 s against 0.69 s for 100,000 lines of 308 bytes): no line has to be left out to be fast.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydantic_core

from rlagents.plain import open_plain
from rlagents.statistics import RECENT_EPISODES, Float64Array
from rlagents.types import IntArray

CAPACITY = 2048  # points of a curve that are kept as they are; beyond, bins
_BLOCK = 1 << 22  # bytes read at a time
_LONGEST_LINE = 1 << 20
_FINGERPRINT = 64  # bytes before the place read up to, by which a replaced file is found out
_MOST_EVALUATIONS = 10_000
_MOST_SERIES = 256
_ENDS = (b"terminated", b"truncated")
_AXES = ("step", "wall_time_s")  # over which metrics are drawn
_SUCCESS = "eval/success_rate"
_CLOCK = (*_AXES, "frames")


class GrowingFile:
    """A text file that another process appends lines to.

    Args:
        path: of the file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._forget()

    def _forget(self) -> None:
        self._file_id: tuple[int, int] | None = None
        self._offset = 0
        self._before = b""  # the bytes before the offset

    def read(self, restart: Callable[[], None]) -> Iterator[list[bytes]]:
        """Yield the whole lines that are new, in blocks, without their line ends.

        Args:
            restart: called first if the file is not the one read so far, which is then read anew.
        """
        try:
            file = open_plain(self._path)
        except OSError:  # not there yet, or deleted, or no file
            if self._file_id is not None:
                self._forget()
                restart()
            return
        with file, contextlib.suppress(OSError):  # of a disk that fails; what was read counts
            about = os.fstat(file.fileno())
            file_id = (about.st_dev, about.st_ino)
            if self._file_id != file_id or not self._goes_on(file.fileno()):
                known = self._file_id is not None
                self._forget()
                self._file_id = file_id
                if known:
                    restart()
            file.seek(self._offset)
            yield from self._lines(file.read)

    def _goes_on(self, descriptor: int) -> bool:
        """Tell whether the file still holds what was read last, where it was read."""
        length = len(self._before)
        return os.pread(descriptor, length, self._offset - length) == self._before

    def _lines(self, read: Callable[[int], bytes]) -> Iterator[list[bytes]]:
        rest = b""
        while block := read(_BLOCK):
            block = rest + block
            end = block.rfind(b"\n") + 1
            if not end and len(block) < _LONGEST_LINE:
                rest = block
                continue
            whole, rest = (block[:end], block[end:]) if end else (block, b"")
            self._offset += len(whole)
            self._before = whole[-_FINGERPRINT:]
            if end:  # else this is a piece of a line too long to be one of ours
                yield whole[:-1].split(b"\n")


class Bins(ABC):
    """A curve in at most `capacity` bins of equally many points (fewer in the last one).

    A bin is a row of numbers, its state; a single point is the smallest bin.
    """

    def __init__(self, columns: int, capacity: int = CAPACITY) -> None:
        self._states = np.empty((capacity, columns))
        self._capacity = capacity
        self._width = 1  # points of a bin
        self._points = 0

    @staticmethod
    @abstractmethod
    def merge(states: Float64Array, starts: IntArray) -> Float64Array:
        """Return one state for each group of neighbours: [N, K], first of each group [G] -> [G, K].

        Args:
            states: of bins or points.
            starts: where a group begins, from 0 on, rising.
        """

    def add(self, states: Float64Array) -> None:
        """Append points: [N, K]."""
        while len(states):
            room = self._capacity * self._width - self._points
            if room == 0:
                half = self.merge(self._states, np.arange(0, self._capacity, 2))
                self._states[: len(half)] = half
                self._width *= 2
                continue
            part, states = states[:room], states[room:]
            numbers = (self._points + np.arange(len(part))) // self._width
            starts = np.flatnonzero(np.diff(numbers, prepend=-1))
            merged = self.merge(part, starts)
            first = int(numbers[0])
            if self._points % self._width:  # the last bin has room
                pair = np.concatenate([self._states[first : first + 1], merged[:1]])
                merged[0] = self.merge(pair, np.zeros(1, np.int64))[0]
            self._states[first : first + len(merged)] = merged
            self._points += len(part)

    def states(self, most: int) -> Float64Array:
        """Return the bins, merged until there are at most `most`: [B, K]."""
        states = self._states[: -(-self._points // self._width)]
        if len(states) <= most:
            return states.copy()
        return self.merge(states, np.arange(0, len(states), -(-len(states) // most)))


class Averages(Bins):
    """Means over bins: of the step, of the time and of a value, whose finite numbers count."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        super().__init__(5, capacity)

    @staticmethod
    def merge(states: Float64Array, starts: IntArray) -> Float64Array:
        """Add up."""
        return np.asarray(np.add.reduceat(states, starts, axis=0))

    def extend(self, step: Float64Array, wall_time_s: Float64Array, value: Float64Array) -> None:
        """Append points: [N] each."""
        finite = np.isfinite(value)
        values = np.where(finite, value, 0.0)
        self.add(np.column_stack([np.ones(len(step)), finite, step, wall_time_s, values]))

    def curve(self, most: int) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Return at most `most` steps, times and values: [B] each; nan where none was finite."""
        points, finite, step, wall_time_s, value = self.states(most).T
        with np.errstate(invalid="ignore"):
            return step / points, wall_time_s / points, value / finite


class EpisodePoint(NamedTuple):
    """One training episode, as a curve shows it."""

    episode: int
    step: int
    wall_time_s: float
    episodic_return: float
    length: int
    end: str  # "terminated" or "truncated"


class Extremes(Bins):
    """The episodes with the lowest and the highest return of each bin; the first of equals."""

    COLUMNS = 6  # of an episode: number, step, time, return, length, whether it was terminated
    _RETURN = 3

    def __init__(self, capacity: int = CAPACITY) -> None:
        super().__init__(2 * self.COLUMNS, capacity)

    @classmethod
    def merge(cls, states: Float64Array, starts: IntArray) -> Float64Array:
        """Keep the lowest and the highest."""
        low, high = states[:, : cls.COLUMNS], states[:, cls.COLUMNS :]
        lowest = _first_least(low[:, cls._RETURN], starts)
        highest = _first_least(-high[:, cls._RETURN], starts)
        return np.hstack([low[lowest], high[highest]])

    def extend(self, episodes: Float64Array) -> None:
        """Append episodes: [N, COLUMNS], every return finite."""
        self.add(np.hstack([episodes, episodes]))

    def episodes(self, most: int) -> list[EpisodePoint]:
        """Return at most `most` episodes, in the order in which they were played."""
        states = self.states(most)
        if self._width > 1 or len(states) < self._points:  # bins, of which each has two
            states = self.states(max(most // 2, 1))
        rows = np.unique(states.reshape(-1, self.COLUMNS), axis=0)  # sorted by their numbers
        return [_episode(row) for row in rows]


def _first_least(values: Float64Array, starts: IntArray) -> IntArray:
    """Return the index of the first least value of each group: [N], [G] -> [G]."""
    sizes = np.diff(starts, append=len(values))
    least = np.repeat(np.minimum.reduceat(values, starts), sizes)
    index = np.where(values == least, np.arange(len(values)), len(values))
    return np.asarray(np.minimum.reduceat(index, starts))


def _episode(row: Float64Array) -> EpisodePoint:
    number, step, wall_time_s, episodic_return, length, terminated = row.tolist()
    end = _ENDS[0 if terminated else 1].decode()
    return EpisodePoint(int(number), int(step), wall_time_s, episodic_return, int(length), end)


class Log(ABC):
    """What has been read of one file so far.

    Attributes:
        broken: lines that were skipped, since they are damaged.
        version: another number whenever something has been read.
    """

    def __init__(self, path: Path) -> None:
        self._file = GrowingFile(path)
        self.version = 0
        self.clear()

    def update(self) -> None:
        """Read what is new."""

        def restart() -> None:
            self.version += 1
            self.clear()

        for lines in self._file.read(restart):
            self.version += 1
            self._take(lines)

    def clear(self) -> None:
        """Forget what was read."""
        self.broken = 0

    @abstractmethod
    def _take(self, lines: list[bytes]) -> None:
        """Take in whole lines."""


class TableLog(Log):
    """A CSV file of numbers, with a header."""

    columns: tuple[str, ...]  # that are read, by the header's names

    def clear(self) -> None:
        """Forget what was read."""
        super().clear()
        self._header: list[str] | None = None

    def _take(self, lines: list[bytes]) -> None:
        if self._header is None:
            self._header = lines[0].decode("utf-8", "replace").split(",")
            lines = lines[1:]
        rows = parse_rows(lines, self._header, self.columns)
        self.broken += len(lines) - len(rows)
        if len(rows):
            self._take_rows(rows)

    @abstractmethod
    def _take_rows(self, rows: Float64Array) -> None:
        """Take in rows: [N, C], the columns in their order."""


def parse_rows(
    lines: Sequence[bytes], header: Sequence[str], columns: Sequence[str]
) -> Float64Array:
    """Return the numbers of a CSV file's lines, without the lines that are damaged: [N, C].

    Args:
        lines: whole ones.
        header: the names of all columns.
        columns: the names of those to return; `end` becomes 1 where it says terminated, else 0.
    """
    if not set(columns) <= set(header):
        return np.empty((0, len(columns)))
    commas = len(header) - 1
    lines = [line for line in lines if line.count(b",") == commas]
    try:
        return _numbers(lines, header, columns)
    except ValueError:  # rare, so the damaged lines are looked for only now
        return _numbers(
            [line for line in lines if _is_intact(line, header, columns)], header, columns
        )


def _numbers(lines: list[bytes], header: Sequence[str], columns: Sequence[str]) -> Float64Array:
    """Return the numbers of lines that have as many fields as the header.

    Raises:
        ValueError: some field is no number.
    """
    if not lines:
        return np.empty((0, len(columns)))
    fields = b",".join(lines).split(b",")
    table = []
    for name in columns:
        column = fields[header.index(name) :: len(header)]
        if name != "end":
            table.append([float(text) for text in column])
        elif set(column) <= set(_ENDS):
            table.append([float(text == _ENDS[0]) for text in column])
        else:
            raise ValueError(column)
    return np.array(table).T


def _is_intact(line: bytes, header: Sequence[str], columns: Sequence[str]) -> bool:
    try:
        _numbers([line], header, columns)
    except ValueError:
        return False
    return True


class EpisodeLog(TableLog):
    """episodes.csv.

    Attributes:
        count: finished training episodes.
        not_finite: how many of them have a return that is no finite number; no curve shows them.
        best, worst: the first episodes of the highest and of the lowest return.
        first_point: the first episode with a return above the lowest.
        curve: episodes, in bins.
        mean: the mean return of the last `RECENT_EPISODES` episodes at each one.
    """

    columns = ("episode", "step", "wall_time_s", "episodic_return", "episodic_length", "end")

    def clear(self) -> None:
        """Forget what was read."""
        super().clear()
        self.count = 0
        self.not_finite = 0
        self.best: EpisodePoint | None = None
        self.worst: EpisodePoint | None = None
        self.first_point: EpisodePoint | None = None
        self._first: EpisodePoint | None = None
        self._recent = np.empty(0)  # the last returns
        self.curve = Extremes()
        self.mean = Averages()

    @property
    def recent_return(self) -> float | None:
        """Return the mean return of the last `RECENT_EPISODES` episodes."""
        return float(self._recent.mean()) if len(self._recent) else None

    def _take_rows(self, rows: Float64Array) -> None:
        self.count += len(rows)
        finite = np.isfinite(rows).all(axis=1)
        self.not_finite += int(len(rows) - finite.sum())
        rows = rows[finite]
        if not len(rows):
            return
        returns = rows[:, 3]
        self._note_milestones(rows, returns)
        self.curve.extend(rows)
        known = len(self._recent)
        all_returns = np.concatenate([self._recent, returns])
        ends = np.arange(known, len(all_returns)) + 1
        begins = np.maximum(ends - RECENT_EPISODES, 0)
        sums = np.concatenate([[0.0], np.cumsum(all_returns)])
        means = (sums[ends] - sums[begins]) / (ends - begins)
        self.mean.extend(rows[:, 1], rows[:, 2], means)
        self._recent = all_returns[-RECENT_EPISODES:]

    def _note_milestones(self, rows: Float64Array, returns: Float64Array) -> None:
        lowest, highest = _episode(rows[returns.argmin()]), _episode(rows[returns.argmax()])
        if self.best is None or highest.episodic_return > self.best.episodic_return:
            self.best = highest
        if self._first is None:
            self._first = _episode(rows[0])
        if self.worst is None:
            self.worst = lowest
        elif lowest.episodic_return < self.worst.episodic_return:
            # All that were played before are above the new lowest, so the first of all is.
            self.worst, self.first_point = lowest, self._first
        if self.first_point is None:
            above = np.flatnonzero(returns > self.worst.episodic_return)
            if len(above):
                self.first_point = _episode(rows[above[0]])


class EvaluationLog(TableLog):
    """evaluations.csv.

    Attributes:
        rows: the last 10,000 evaluations, by the names of their columns.
        dropped: how many came before those.
        best: the last evaluation of the highest mean return, as checkpoints see it; also if it was
            dropped.
    """

    columns = (
        *("step", "frames", "episodes", "mean_return", "std_return", "iqm_return"),
        *("min_return", "max_return", "wall_time_s"),
    )
    _WHOLE = ("step", "frames", "episodes")

    def clear(self) -> None:
        """Forget what was read."""
        super().clear()
        self.rows: deque[dict[str, float]] = deque(maxlen=_MOST_EVALUATIONS)
        self.dropped = 0
        self.best: dict[str, float] | None = None

    def _take_rows(self, rows: Float64Array) -> None:
        whole = np.isfinite(rows[:, : len(self._WHOLE)]).all(axis=1)
        self.broken += int(len(rows) - whole.sum())
        for values in rows[whole].tolist():
            row = dict(zip(self.columns, values, strict=True))
            for name in self._WHOLE:
                row[name] = int(row[name])
            self.dropped += len(self.rows) == _MOST_EVALUATIONS
            self.rows.append(row)
            if np.isfinite(row["mean_return"]) and (
                self.best is None or row["mean_return"] >= self.best["mean_return"]
            ):
                self.best = row


class MetricLog(Log):
    """metrics.jsonl.

    Args:
        path: of the file.
        only: lines without this name are left out.

    Attributes:
        series: a curve by the name of the metric, `losses/td_loss`.
        success_rates: of the last 10,000 evaluations that tell, by their steps.
        dropped: whether there are more than 256 names, which are not kept.
    """

    def __init__(self, path: Path, *, only: str = "") -> None:
        self._only = f'"{only}"'.encode() if only else b""
        super().__init__(path)

    def clear(self) -> None:
        """Forget what was read."""
        super().clear()
        self.series: dict[str, Averages] = {}
        self.success_rates: dict[int, float] = {}
        self.dropped = False

    def _take(self, lines: list[bytes]) -> None:
        # Lines of the same keys are taken together, since there are few kinds of lines.
        kinds: dict[tuple[str, ...], list[tuple[int, list[float]]]] = {}
        for number, line in enumerate(lines):
            if self._only not in line:
                continue
            try:
                metrics = pydantic_core.from_json(line)
                values = [_number(value) for value in metrics.values()]
            except (ValueError, TypeError, AttributeError, OverflowError):
                self.broken += 1
                continue
            if not metrics.keys() >= set(_AXES):
                self.broken += 1
                continue
            kinds.setdefault(tuple(metrics), []).append((number, values))
        found: dict[str, list[Float64Array]] = {}
        for names, entries in kinds.items():
            table = np.array([values for _, values in entries])
            numbers = np.array([number for number, _ in entries], dtype=np.float64)
            known = np.isfinite(table[:, [names.index(name) for name in _AXES]]).all(axis=1)
            self.broken += int(len(known) - known.sum())
            table, numbers = table[known], numbers[known]
            clock = [table[:, names.index(name)] for name in _AXES]
            if _SUCCESS in names:
                self._note_successes(clock[0], table[:, names.index(_SUCCESS)])
            for place, name in enumerate(names):
                if name not in _CLOCK:
                    points = np.column_stack([numbers, *clock, table[:, place]])
                    found.setdefault(name, []).append(points)
        for name, parts in found.items():
            points = np.concatenate(parts)
            if len(parts) > 1:  # back into the order of the lines
                points = points[points[:, 0].argsort()]
            if name not in self.series and len(self.series) == _MOST_SERIES:
                self.dropped = True
                continue
            self.series.setdefault(name, Averages()).extend(*points[:, 1:].T)

    def _note_successes(self, steps: Float64Array, rates: Float64Array) -> None:
        for step, rate in zip(steps.tolist(), rates.tolist(), strict=True):
            if 0 <= rate <= 1:
                self.success_rates[int(step)] = rate
        while len(self.success_rates) > _MOST_EVALUATIONS:
            del self.success_rates[next(iter(self.success_rates))]


def read_success_rates(directory: Path) -> dict[int, float]:
    """Return the success rates of a run's evaluations by their steps, of those that tell.

    evaluations.csv has no column for them. Of metrics.jsonl the other lines are not parsed.
    """
    log = MetricLog(directory / "metrics.jsonl", only=_SUCCESS)
    log.update()
    return log.success_rates


def _number(value: Any) -> float:
    """Return a metric's value as a number: nan for null.

    Raises:
        TypeError: it is none.
    """
    if type(value) is float:
        return value
    if value is None:
        return float("nan")
    if type(value) is int:
        return float(value)
    raise TypeError(value)


class RunLogs:
    """All that a run has logged so far.

    Attributes:
        episodes: of episodes.csv.
        evaluations: of evaluations.csv.
        metrics: of metrics.jsonl.
    """

    def __init__(self, directory: Path) -> None:
        self.episodes = EpisodeLog(directory / "episodes.csv")
        self.evaluations = EvaluationLog(directory / "evaluations.csv")
        self.metrics = MetricLog(directory / "metrics.jsonl")

    def update(self) -> None:
        """Read what is new."""
        for log in (self.episodes, self.evaluations, self.metrics):
            log.update()

    @property
    def version(self) -> int:
        """Return another number whenever something has been read."""
        return self.episodes.version + self.evaluations.version + self.metrics.version

    def evaluation_rows(self) -> list[dict[str, float]]:
        """Return the last evaluations, with their `success_rate` where that is told."""
        told = self.metrics.success_rates
        return [
            row | ({"success_rate": told[int(row["step"])]} if row["step"] in told else {})
            for row in self.evaluations.rows
        ]

    def best_evaluation(self) -> dict[str, float] | None:
        """Return the evaluation of the highest success rate and, of those, the highest return.

        It is the last of equals, as checkpoints see it.
        """
        if not self.metrics.success_rates:
            return self.evaluations.best
        rows = [row for row in self.evaluation_rows() if np.isfinite(row["mean_return"])]
        return max(
            reversed(rows),
            key=lambda row: (row.get("success_rate", 0.0), row["mean_return"]),
            default=None,
        )

    def notes(self) -> list[str]:
        """Return what a reader of the curves should know, in sentences."""
        notes = []
        for log, name in (
            (self.episodes, "episodes.csv"),
            (self.evaluations, "evaluations.csv"),
            (self.metrics, "metrics.jsonl"),
        ):
            if log.broken:
                lines = "line" if log.broken == 1 else "lines"
                were = "was" if log.broken == 1 else "were"
                notes.append(f"{log.broken} broken {lines} in {name} {were} skipped.")
        if self.episodes.not_finite:
            notes.append(
                "No curve shows the training episodes whose return is not a finite number: "
                f"{self.episodes.not_finite} of {self.episodes.count}."
            )
        if self.evaluations.dropped:
            notes.append(
                f"Of the evaluations the last {_MOST_EVALUATIONS:,} are shown, and the best; "
                f"{self.evaluations.dropped:,} came before."
            )
        if self.metrics.dropped:
            notes.append(f"Of the metrics the first {_MOST_SERIES} are shown.")
        return notes
