"""Statistics over learning curves: grouping runs by seed, smoothing, one grid, a confidence band.

After Agarwal et al. (2021), "Deep reinforcement learning at the edge of the statistical precipice":
the runs are what is resampled, since they are what is independent; not the episodes of a run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rlagents.statistics import RESAMPLES, Float64Array, interquartile_mean
from rlagents.wording import value_text

Statistic = Literal["mean", "iqm"]
GRID_POINTS = 400  # more than a picture shows
SHORTER = 0.95  # of the longest run in its group: what ended before shows in the curve

_NOT_COMPARED = ("seed", "recipe")
_KEYS_IN_A_LABEL = 3
_MISSING = object()


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed.

    Attributes:
        label: what they are, and what sets them apart from the other groups.
        runs: their names, in the order they came.
    """

    label: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class GroupCurve:
    """The curve of runs that differ in nothing but their seed.

    Attributes:
        label: what they are.
        x: [G] agent steps or seconds.
        center: [G] a statistic over the runs; NaN where one of them has no value.
        low: [G] lower end of its interval.
        high: [G] upper end.
        runs: x [T] and y [T] of each single run.
    """

    label: str
    x: Float64Array
    center: Float64Array
    low: Float64Array
    high: Float64Array
    runs: tuple[tuple[Float64Array, Float64Array], ...]


def group_runs(configs: Mapping[str, Mapping[str, Any]]) -> list[Group]:
    """Put runs together whose configs are equal but for `seed`.

    Args:
        configs: each run's resolved config by the run's name. A key `recipe` may stand beside the
            config's own; it names the group and is not compared.

    Returns:
        the groups, in the order of their first runs.
    """
    runs_of: dict[str, list[str]] = {}
    for run, config in configs.items():
        compared = {key: value for key, value in config.items() if key not in _NOT_COMPARED}
        runs_of.setdefault(json.dumps(compared, sort_keys=True, default=str), []).append(run)
    members = list(runs_of.values())
    labels = _labels([[configs[run] for run in runs] for runs in members])
    return [Group(label, tuple(runs)) for label, runs in zip(labels, members, strict=True)]


def _labels(groups: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return a name for each group of configs; no two are the same."""
    heads = [_head(group) for group in groups]
    keys = [dict(_flat(group[0])) for group in groups]
    labels = []
    for head, own in zip(heads, keys, strict=True):
        alike = [other for name, other in zip(heads, keys, strict=True) if name == head]
        differing = _differing(alike)
        parts = [_setting(key, own.get(key, _MISSING)) for key in differing[:_KEYS_IN_A_LABEL]]
        left_out = len(differing) - len(parts)
        more = f" and {left_out} more" if left_out else ""
        labels.append(", ".join([head, *parts]) + more)
    count = Counter(labels)
    position: Counter[str] = Counter()
    for index, label in enumerate(labels):
        position[label] += 1
        if count[label] > 1:  # what sets them apart is among the keys left out
            labels[index] = f"{label} ({position[label]})"
    return labels


def _head(group: Sequence[Mapping[str, Any]]) -> str:
    """Return the recipe that all runs of a group have, else their environment."""
    recipes = {config.get("recipe") for config in group}
    recipe = recipes.pop() if len(recipes) == 1 else None
    env = group[0].get("env")
    env_id = env.get("id") if isinstance(env, Mapping) else None
    return str(recipe or env_id or "run")


def _differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the dotted keys in which configs differ, those that all of them have first."""
    differing = [
        key
        for key in dict.fromkeys(key for config in configs for key in config)
        if len({repr(config.get(key, _MISSING)) for config in configs}) > 1
    ]
    return sorted(differing, key=lambda key: any(key not in config for config in configs))


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested tables by their dotted keys."""
    for key, value in table.items():
        if not prefix and key in _NOT_COMPARED:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _setting(key: str, value: Any) -> str:
    return f"no {key}" if value is _MISSING else f"{key} = {value_text(value)}"


def running_mean(values: npt.ArrayLike, window: int) -> Float64Array:
    """Return the mean of each value and those before it, `window` at most: [T] -> [T]."""
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        return array
    # Sums of the windows themselves: differences of running sums would carry a NaN on for ever.
    sums = np.convolve(array, np.ones(window))[: len(array)]
    return np.asarray(sums / np.minimum(np.arange(1, len(array) + 1), window))


def resample(x: npt.ArrayLike, y: npt.ArrayLike, grid: npt.ArrayLike) -> Float64Array:
    """Return the last value at or before each point of a grid, NaN before the first.

    Args:
        x: [T] where the values are, never falling.
        y: [T] the values.
        grid: [G] where they are wanted.
    """
    values = np.concatenate([[np.nan], np.asarray(y, dtype=np.float64)])
    known = np.searchsorted(np.asarray(x), np.asarray(grid), side="right")  # how many, [G]
    return np.asarray(values[known])


def band(
    curves: npt.ArrayLike, statistic: Statistic = "mean", level: float = 0.95, seed: int = 0
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return a statistic over runs at each grid point, with its percentile bootstrap interval.

    The runs are drawn with replacement, the same draws at all points. Where a run has no finite
    value, neither has the result. One run has an interval without width.

    Args:
        curves: [R, G] a row a run, R > 0.
        statistic: the mean, or the interquartile mean.
        level: the probability that the interval is to cover, at each point for itself.
        seed: of the draws, so that the same curves give the same band.

    Returns:
        the statistic [G], and the interval's low [G] and high [G] ends.
    """
    runs = np.asarray(curves, dtype=np.float64)
    known = np.isfinite(runs).all(axis=0)
    # In order at each point: whichever run comes first then makes no difference to the result.
    ordered = np.sort(np.where(known, runs, 0.0), axis=0)  # [R, G]
    count = len(ordered)
    center = ordered.mean(axis=0) if statistic == "mean" else interquartile_mean(ordered, axis=0)
    low = high = center
    if count > 1:
        drawn = np.sort(np.random.default_rng(seed).integers(count, size=(RESAMPLES, count)))
        cut = 0 if statistic == "mean" else count // 4  # as in `interquartile_mean`
        middle = drawn[:, cut : count - cut]
        # Since values and draws are both in order, a resample's statistic is a weighted sum with
        # the same weights at all points.
        weights = (middle[:, :, None] == np.arange(count)).mean(axis=1)  # [RESAMPLES, R]
        resampled = weights @ ordered  # [RESAMPLES, G]
        low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)
    unknown = np.where(known, 0.0, np.nan)
    return center + unknown, low + unknown, high + unknown


def group_curve(
    label: str,
    runs: Sequence[tuple[Float64Array, Float64Array]],
    statistic: Statistic = "mean",
    points: int = GRID_POINTS,
) -> GroupCurve:
    """Put the curves of several runs on one grid, and a band over them.

    The grid is where the runs have values, or evenly spaced points from the first to the last if
    these are more than `points`. A run that ended before the others counts with its last value.

    Args:
        label: what they are.
        runs: x [T] and y [T] of each, T > 0.
        statistic: over the runs.
        points: the most that the grid has.
    """
    grid = np.unique(np.concatenate([x for x, _ in runs]))
    if len(grid) > points:
        grid = np.linspace(grid[0], grid[-1], points)
    center, low, high = band([resample(x, y, grid) for x, y in runs], statistic)
    return GroupCurve(label, grid, center, low, high, tuple(runs))
