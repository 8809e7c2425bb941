"""Statistics over curves, against numbers worked out by hand and against slow loops."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlagents.curves import (
    Group,
    Statistic,
    band,
    group_curve,
    group_runs,
    resample,
    running_mean,
)
from rlagents.statistics import RESAMPLES, bootstrap_interval, interquartile_mean

Floats = npt.NDArray[np.float64]
numbers = st.integers(-(10**6), 10**6).map(lambda number: number / 1000)


def mean(values: Floats) -> Floats:
    return np.asarray(values.mean(axis=-1))


# --- group_runs ----------------------------------------


def config(seed: int = 1, *, env: str = "pong", **agent: Any) -> dict[str, Any]:
    return {"seed": seed, "env": {"id": env}, "agent": {"name": "dqn", "n_step": 1} | agent}


def test_runs_that_differ_in_their_seed_only_are_one_group() -> None:
    assert group_runs({"a": config(1), "b": config(2), "c": config(3)}) == [
        Group("pong", ("a", "b", "c"))
    ]


def test_groups_are_labelled_with_what_differs() -> None:
    runs = {"a": config(1), "b": config(1, n_step=3), "c": config(2), "d": config(2, n_step=3)}
    assert group_runs(runs) == [
        Group("pong, agent.n_step = 1", ("a", "c")),
        Group("pong, agent.n_step = 3", ("b", "d")),
    ]


def test_the_recipe_names_a_group_and_is_not_compared() -> None:
    runs = {"a": config(1) | {"recipe": "pong-dqn"}, "b": config(2) | {"recipe": "pong-dqn"}}
    assert group_runs(runs) == [Group("pong-dqn", ("a", "b"))]
    runs["b"]["recipe"] = "mine"
    assert group_runs(runs) == [Group("pong", ("a", "b"))]


def test_different_recipes_are_enough_of_a_name() -> None:
    runs = {
        "a": config(1) | {"recipe": "pong-dqn"},
        "b": config(1, env="cartpole", n_step=3) | {"recipe": "cartpole-dqn"},
    }
    assert [group.label for group in group_runs(runs)] == ["pong-dqn", "cartpole-dqn"]


def test_labels_write_values_as_a_config_does() -> None:
    values: list[Any] = [None, True, 1e-4, 0.5, "none", [64, 32], 100_000]
    texts = ["none", "true", "0.0001", "0.5", "none", "[64, 32]", "100000"]
    for value, text in zip(values, texts, strict=True):
        groups = group_runs({"a": config(), "b": config(n_step=value)})
        assert groups[1].label == f"pong, agent.n_step = {text}"


def test_a_key_that_one_group_lacks_comes_last_and_is_named() -> None:
    groups = group_runs({"a": config(more=2), "b": config(gamma=0.9, n_step=5)})
    assert groups[0].label == "pong, agent.n_step = 1, agent.more = 2, no agent.gamma"
    assert groups[1].label == "pong, agent.n_step = 5, no agent.more, agent.gamma = 0.9"


def test_a_label_stays_short_and_tells_groups_apart() -> None:
    first = dict.fromkeys("abcde", 1)
    groups = group_runs({"x": config(**first), "y": config(**dict.fromkeys("abcde", 2))})
    assert groups[1].label == "pong, agent.a = 2, agent.b = 2, agent.c = 2 and 2 more"
    runs = {"x": config(**first), "y": config(**(first | {"e": 2})), "z": config(**first, n_step=2)}
    runs |= {"w": config(**(first | {"a": 2, "b": 2, "c": 2})), "v": config(**(first | {"d": 9}))}
    labels = [group.label for group in group_runs(runs)]
    assert len(set(labels)) == len(labels) == 5


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3), st.booleans()), max_size=8))
def test_every_run_is_in_one_group_of_equals(settings_of_runs: list[tuple[int, int, bool]]) -> None:
    runs = {
        f"run-{index}": config(seed, n_step=n_step, double=double)
        for index, (seed, n_step, double) in enumerate(settings_of_runs)
    }
    groups = group_runs(runs)
    assert sorted(run for group in groups for run in group.runs) == sorted(runs)
    assert len({group.label for group in groups}) == len(groups)
    for one, other in itertools.combinations(runs, 2):
        together = any({one, other} <= set(group.runs) for group in groups)
        assert together == (runs[one]["agent"] == runs[other]["agent"])


# --- running_mean ----------------------------------------


def test_the_running_mean_by_hand() -> None:
    np.testing.assert_array_equal(running_mean([2, 4, 6, 20], 2), [2, 3, 5, 13])
    np.testing.assert_array_equal(running_mean([2, 4, 6, 20], 1), [2, 4, 6, 20])
    np.testing.assert_array_equal(running_mean([2, 4, 6, 20], 100), [2, 3, 4, 8])
    assert running_mean([], 100).shape == (0,)


def test_a_value_that_is_no_number_leaves_the_window_again() -> None:
    np.testing.assert_array_equal(
        running_mean([1, np.nan, 3, 5, np.inf, 1, 3], 2), [1, np.nan, np.nan, 4, np.inf, np.inf, 2]
    )


@given(st.lists(numbers, max_size=30), st.integers(1, 40))
def test_the_running_mean_is_a_slow_loops(values: list[float], window: int) -> None:
    expected = [np.mean(values[max(0, end - window) : end]) for end in range(1, len(values) + 1)]
    np.testing.assert_allclose(running_mean(values, window), expected, atol=1e-9)


# --- resample ----------------------------------------


def test_resampling_by_hand() -> None:
    result = resample([10, 20, 20, 40], [1, 2, 3, 4], [0, 10, 15, 20, 39.9, 40, 1000])
    np.testing.assert_array_equal(result, [np.nan, 1, 1, 3, 3, 4, 4])
    np.testing.assert_array_equal(resample([], [], [1, 2]), [np.nan, np.nan])
    assert resample([1], [2], []).shape == (0,)


@given(
    st.lists(st.tuples(st.integers(0, 50), numbers), max_size=20),
    st.lists(st.integers(-5, 60), max_size=20),
)
def test_resampling_is_a_slow_loops(points: list[tuple[int, float]], grid: list[int]) -> None:
    points.sort(key=lambda point: point[0])
    expected = []
    for place in grid:
        before = [y for x, y in points if x <= place]
        expected.append(before[-1] if before else np.nan)
    x, y = [point[0] for point in points], [point[1] for point in points]
    np.testing.assert_array_equal(resample(x, y, grid), np.array(expected, dtype=np.float64))


# --- band ----------------------------------------


def test_one_run_has_a_band_without_width() -> None:
    for statistic in get_args(Statistic):
        for part in band([[1.0, 5.0, -2.0]], statistic):
            np.testing.assert_array_equal(part, [1.0, 5.0, -2.0])


def test_the_band_of_three_runs_against_all_27_resamples() -> None:
    """The mean's exact bootstrap distribution: each of the 27 ordered draws is equally likely."""
    curves = np.array([[0.0, 10.0], [3.0, 40.0], [9.0, 10.0]])
    draws = itertools.product(range(3), repeat=3)
    means = np.array([curves[list(draw)].mean(axis=0) for draw in draws])  # [27, 2]
    assert sorted(set(means[:, 0])) == [0, 1, 2, 3, 4, 5, 6, 7, 9]
    assert sorted(set(means[:, 1])) == [10, 20, 30, 40]
    np.testing.assert_array_equal(band(curves)[0], [4, 20])
    # The chance that a resample's mean is at most m, by counting; an interval's end is the first
    # mean whose chance reaches the tail. 0.5 of a step is left out on both sides of a jump.
    for level in (0.95, 0.8, 0.5, 0.3):
        _, low, high = band(curves, level=level)
        for point in range(2):
            for end, tail in ((low[point], (1 - level) / 2), (high[point], (1 + level) / 2)):
                values = np.unique(means[:, point])
                chances = np.array([np.mean(means[:, point] <= v + 1e-9) for v in values])
                assert np.abs(chances - tail).min() > 0.008, "too near to a jump to be tested"
                exact = values[np.searchsorted(chances, tail)]
                assert end == pytest.approx(exact), (level, point, tail)


def test_the_bands_of_two_runs_by_hand() -> None:
    # The mean of a resample of (0, 1) is 0 in a quarter of all cases, 1/2 in half, 1 in a quarter.
    curves = [[0.0, 7.0, 1.0], [1.0, 7.0, 0.0]]
    for level, width in ((0.95, 0.5), (0.25, 0.0)):
        center, low, high = band(curves, level=level)
        np.testing.assert_allclose(center, [0.5, 7, 0.5])
        np.testing.assert_allclose(low, [0.5 - width, 7, 0.5 - width])
        np.testing.assert_allclose(high, [0.5 + width, 7, 0.5 + width])


def test_the_interquartile_mean_leaves_the_outer_runs_out() -> None:
    curves = np.array([[1.0], [2.0], [4.0], [1000.0]])
    assert band(curves, "iqm")[0].tolist() == [3.0]
    assert band(curves, "mean")[0].tolist() == [251.75]
    assert band(curves, "iqm")[2][0] > 3.0  # a resample may hold the outlier twice and more


@settings(max_examples=30)
@given(st.lists(numbers, min_size=1, max_size=9), st.integers(0, 3), st.sampled_from([0.5, 0.95]))
def test_a_band_at_one_point_is_the_interval_of_the_values(
    values: list[float], seed: int, level: float
) -> None:
    values.sort()  # `bootstrap_interval` takes them as they come
    for statistic, function in (("mean", mean), ("iqm", interquartile_mean)):
        center, low, high = band(np.array(values)[:, None], statistic, level, seed)
        expected = bootstrap_interval(values, function, level=level, seed=seed)
        np.testing.assert_allclose([low[0], high[0]], expected, atol=1e-9)
        np.testing.assert_allclose(center[0], function(np.array(values)), atol=1e-9)


@settings(max_examples=30)
@given(
    st.integers(1, 7).flatmap(
        lambda runs: st.lists(
            st.lists(numbers, min_size=runs, max_size=runs), min_size=1, max_size=4
        )
    ),
    st.sampled_from(get_args(Statistic)),
    st.randoms(use_true_random=False),
)
def test_a_band_holds_its_center_and_does_not_care_for_the_order_of_runs(
    columns: list[list[float]], statistic: Statistic, random: Any
) -> None:
    curves = np.array(columns).T  # [R, G]
    center, low, high = band(curves, statistic)
    assert (low <= center + 1e-9).all()
    assert (center <= high + 1e-9).all()
    assert (low >= curves.min(axis=0) - 1e-9).all()
    assert (high <= curves.max(axis=0) + 1e-9).all()
    order = list(range(len(curves)))
    random.shuffle(order)
    for part, again in zip((center, low, high), band(curves[order], statistic), strict=True):
        np.testing.assert_array_equal(part, again)


def test_the_band_of_many_runs_is_the_slow_loops() -> None:
    curves = np.random.default_rng(5).normal(size=(8, 6))
    chosen = np.random.default_rng(3).integers(8, size=(RESAMPLES, 8))
    ordered = np.sort(curves, axis=0)
    for statistic, function in (("mean", mean), ("iqm", interquartile_mean)):
        _, low, high = band(curves, statistic, level=0.9, seed=3)
        for point in range(6):
            results = [float(function(ordered[draw, point])) for draw in chosen]
            assert low[point] == pytest.approx(np.quantile(results, 0.05))
            assert high[point] == pytest.approx(np.quantile(results, 0.95))


def test_level_and_seed_change_the_band() -> None:
    curves = np.random.default_rng(1).normal(size=(6, 50))
    _, low, high = band(curves)
    _, lower, higher = band(curves, level=0.99)
    assert (lower < low).any()
    assert (lower <= low).all()
    assert (higher >= high).all()
    assert not np.array_equal(low, band(curves, seed=1)[1])
    np.testing.assert_allclose(low, band(curves, seed=1)[1], atol=0.2)


def test_there_is_no_band_where_a_run_has_no_value() -> None:
    curves = [[np.nan, 1.0, 2.0, np.inf], [3.0, np.nan, 4.0, 1.0]]
    for part in (*band(curves), *band(curves, "iqm"), *band(curves[:1]), *band(curves[1:])):
        assert np.isfinite(part[2])
    for part in (*band(curves), *band(curves, "iqm")):
        assert np.isnan(part[[0, 1, 3]]).all()
    assert np.isnan(band(curves[:1])[0]).tolist() == [True, False, False, True]


# --- group_curve ----------------------------------------


def curve(x: list[float], y: list[float]) -> tuple[Floats, Floats]:
    return np.array(x, dtype=np.float64), np.array(y, dtype=np.float64)


def test_the_curve_of_a_group_by_hand() -> None:
    runs = [curve([10, 30], [1, 5]), curve([20, 30, 40], [3, 7, 9])]
    group = group_curve("both", runs)
    assert group.label == "both"
    assert group.x.tolist() == [10, 20, 30, 40]
    np.testing.assert_array_equal(group.center, [np.nan, 2, 6, 7])  # the first stays at 5
    np.testing.assert_allclose(group.low, [np.nan, 1, 5, 5])
    np.testing.assert_allclose(group.high, [np.nan, 3, 7, 9])
    assert group.runs == tuple(runs)


def test_a_long_curve_is_drawn_at_so_many_points() -> None:
    steps = list(np.arange(1.0, 1001.0))
    group = group_curve("one", [curve(steps, steps)], points=4)
    assert group.x.tolist() == [1, 334, 667, 1000]
    assert group.center.tolist() == [1, 334, 667, 1000]
    assert len(group_curve("one", [curve(steps, steps)]).x) == 400
    assert len(group_curve("one", [curve(steps, steps)], points=1000).x) == 1000


def test_the_statistic_of_a_groups_curve_is_the_one_asked_for() -> None:
    runs = [curve([5], [value]) for value in (1.0, 2.0, 4.0, 1000.0)]
    assert group_curve("four", runs, "mean").center.tolist() == [251.75]
    assert group_curve("four", runs, "iqm").center.tolist() == [3.0]
