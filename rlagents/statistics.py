"""Statistics of returns: interquartile mean and bootstrap confidence intervals.

After Agarwal et al. (2021), "Deep reinforcement learning at the edge of the statistical precipice".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
