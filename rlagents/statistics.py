"""Statistics of returns and of successes: interquartile mean and confidence intervals.

After Agarwal et al. (2021), "Deep reinforcement learning at the edge of the statistical precipice".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

RECENT_EPISODES = 100  # of training, whose mean return is logged, shown and compared
RESAMPLES = 2000
Float64Array = npt.NDArray[np.float64]


def interquartile_mean(values: Sequence[float] | Float64Array, axis: int = -1) -> Float64Array:
    """Return the mean of the middle half: the lowest and highest quarter (rounded down) left out.

    Args:
        values: [..., E] numbers, E > 0.
        axis: along which the mean is taken.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=axis)
    count = ordered.shape[axis]
    cut = count // 4
    middle = np.take(ordered, np.arange(cut, count - cut), axis=axis)
    return np.asarray(middle.mean(axis=axis))


def bootstrap_interval(
    values: Sequence[float],
    statistic: Callable[[Float64Array], Float64Array] = interquartile_mean,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile bootstrap confidence interval of a statistic (Efron 1979).

    Args:
        values: [E] numbers, E > 0.
        statistic: [R, E] -> [R], applied to R resamples.
        level: the probability that the interval is to cover.
        seed: of the resampling, so that the same values give the same interval.
    """
    array = np.asarray(values, dtype=np.float64)
    chosen = np.random.default_rng(seed).integers(len(array), size=(RESAMPLES, len(array)))
    low, high = np.quantile(statistic(array[chosen]), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilson_interval(successes: int, count: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a success rate (Wilson 1927, equation 4).

    It never leaves 0 to 1 and is not empty where all went well, or nothing did.

    Args:
        successes: 0 to `count`.
        count: of trials, 1 or more.
        level: the probability that the interval is to cover.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    rate, spread = successes / count, z * z / count
    center = rate + spread / 2
    margin = z * math.sqrt(rate * (1 - rate) / count + spread / (4 * count))
    # At the ends nothing is left of the difference but its rounding.
    low = (center - margin) / (1 + spread) if successes > 0 else 0.0
    high = (center + margin) / (1 + spread) if successes < count else 1.0
    return low, high


def success_rate(successes: Iterable[bool | None]) -> float | None:
    """Return the share of episodes that were completed, None if no episode tells.

    Args:
        successes: of episodes; None where that is not told, which counts as not completed beside
            one that tells: some environments speak of success only when there is one.
    """
    told = list(successes)
    return None if all(one is None for one in told) else sum(map(bool, told)) / len(told)
