from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlagents.statistics import (
    Float64Array,
    bootstrap_interval,
    interquartile_mean,
    success_rate,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 4.0], 2.5),
        ([0.0, 3.0, 9.0], 4.0),  # a quarter of three is rounded down to nothing
        ([1.0, 2.0, 4.0, 100.0], 3.0),
        ([1.0, 2.0, 3.0, 7.0, 100.0], 4.0),  # one from each end of five
        ([-50.0, 1.0, 2.0, 3.0, 4.0, 5.0, 90.0], 3.0),  # and of seven
        ([-9.0, -8.0, 1.0, 2.0, 3.0, 6.0, 70.0, 80.0], 3.0),
        ([-9.0, -8.0, 1.0, 2.0, 3.0, 6.0, 8.0, 70.0, 80.0], 4.0),
    ],
)
def test_the_interquartile_mean_by_hand(values: list[float], expected: float) -> None:
    assert float(interquartile_mean(values)) == expected
    assert float(interquartile_mean(values[::-1])) == expected


def test_the_interquartile_mean_takes_one_axis_of_many() -> None:
    table = np.array([[1.0, 2.0, 4.0, 100.0], [100.0, 8.0, 6.0, -100.0]])
    np.testing.assert_array_equal(interquartile_mean(table), [3.0, 7.0])
    np.testing.assert_array_equal(interquartile_mean(table.T, axis=0), [3.0, 7.0])


def test_the_interquartile_mean_leaves_its_input_alone() -> None:
    values = np.array([5.0, 1.0, 3.0, 2.0])
    interquartile_mean(values)
    np.testing.assert_array_equal(values, [5.0, 1.0, 3.0, 2.0])


numbers = st.integers(-(10**9), 10**9).map(lambda number: number / 1000)


@settings(deadline=None, max_examples=100)
@given(st.lists(numbers, min_size=1, max_size=40), numbers)
def test_the_interquartile_mean_moves_with_its_values(values: list[float], shift: float) -> None:
    mean = float(interquartile_mean(values))
    assert min(values) - 1e-6 <= mean <= max(values) + 1e-6
    moved = float(interquartile_mean([value + shift for value in values]))
    assert moved == pytest.approx(mean + shift, abs=1e-6)


def test_outliers_in_the_outer_quarters_change_nothing() -> None:
    values = [float(value) for value in range(20)]
    mean = float(interquartile_mean(values))
    assert float(interquartile_mean([-1e9] * 5 + values[5:15] + [1e9] * 5)) == mean
    assert float(interquartile_mean([*values[:14], 1e9, *values[15:]])) != mean


def test_the_same_values_give_the_same_interval() -> None:
    values = list(np.random.default_rng(3).normal(size=25))
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values)


def test_equal_values_give_an_interval_without_width() -> None:
    assert bootstrap_interval([4.5] * 10) == (4.5, 4.5)
    assert bootstrap_interval([-2.0]) == (-2.0, -2.0)


def test_the_interval_of_two_values_by_hand() -> None:
    # A resample of (0, 1) has the mean 0 in a quarter of all cases, 1/2 in half, 1 in a quarter.
    assert bootstrap_interval([0.0, 1.0], level=0.95) == (0.0, 1.0)
    assert bootstrap_interval([0.0, 1.0], level=0.25) == (0.5, 0.5)


def test_the_statistic_is_applied_to_every_resample() -> None:
    def largest(resamples: Float64Array) -> Float64Array:
        return np.asarray(resamples.max(axis=1))

    # The largest of 8 is missing from a resample with chance (7/8)^8 = 0.34, the two largest with
    # (6/8)^8 = 0.10, the three largest with 0.023: so 2.5% of the maxima are 4 (of 0..7) or less.
    assert bootstrap_interval([0, 1, 2, 3, 4, 5, 6, 7], largest) in ((4.0, 7.0), (5.0, 7.0))
    assert bootstrap_interval([0, 1, 2, 3, 4, 5, 6, 7], largest, level=0.5) == (6.0, 7.0)


def test_the_interval_holds_its_point_and_narrows_with_more_values() -> None:
    generator = np.random.default_rng(0)
    widths = []
    for size in (10, 40, 160, 640):
        values = list(generator.normal(10, 2, size=size))
        low, high = bootstrap_interval(values)
        assert low < float(interquartile_mean(values)) < high
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.3 * widths[0]


def test_a_higher_level_gives_a_wider_interval() -> None:
    values = list(np.random.default_rng(1).normal(size=30))
    inner, outer = bootstrap_interval(values, level=0.5), bootstrap_interval(values, level=0.99)
    assert outer[0] < inner[0] < inner[1] < outer[1]


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    # The percentile bootstrap falls short by a little at 30 values; chance alone is +-2% here.
    generator = np.random.default_rng(12345)
    covered = np.zeros((400, 2), dtype=np.bool_)
    for trial in range(len(covered)):
        values = list(generator.normal(3.0, 1.5, size=30))
        for column, level in enumerate((0.95, 0.5)):
            low, high = bootstrap_interval(values, level=level, seed=trial)
            covered[trial, column] = low <= 3.0 <= high
    share = covered.mean(axis=0)
    assert 0.90 <= share[0] <= 0.98
    assert 0.43 <= share[1] <= 0.57


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [
        # Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_wilson_interval_of_the_literature(
    successes: int, count: int, low: float, high: float
) -> None:
    assert wilson_interval(successes, count) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 2000), st.data())
def test_the_wilson_interval(count: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, count))
    low, high = wilson_interval(successes, count)
    assert 0 <= low <= successes / count <= high <= 1
    assert low < high
    mirrored = wilson_interval(count - successes, count)
    assert mirrored == pytest.approx((1 - high, 1 - low))
    wider = wilson_interval(successes, count, level=0.99)
    assert wider[0] <= low
    assert high <= wider[1]
    # Its ends are the rates from which so many successes are just as far as the level says.
    for end in (low, high):
        if 0 < end < 1:
            spread = (end * (1 - end) / count) ** 0.5
            assert abs(successes / count - end) / spread == pytest.approx(1.959964, rel=1e-4)


def test_the_success_rate() -> None:
    assert success_rate([]) is None
    assert success_rate([None, None]) is None
    assert success_rate([False, False]) == 0.0
    assert success_rate(iter([True, False, None, True])) == 0.5
