from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlagents.schedules import LinearSchedule, Milestones


def play(milestones: Milestones, rewards: list[list[float]], over: list[list[bool]]) -> list[int]:
    reached = []
    for reward, end in zip(rewards, over, strict=True):
        milestones.observe(np.array(reward, dtype=np.float32), np.array(end))
        reached.append(milestones.reached)
    return reached


@pytest.mark.parametrize(
    ("step", "value"), [(0, 1.0), (25, 0.775), (100, 0.1), (101, 0.1), (10**9, 0.1)]
)
def test_a_linear_schedule(step: int, value: float) -> None:
    assert LinearSchedule(1.0, 0.1, 100).at(step) == pytest.approx(value)


def test_a_milestone_needs_twenty_episodes_and_stays() -> None:
    found = play(Milestones([5.0], 1), [[5.0]] * 21 + [[-99.0]] * 9, [[True]] * 30)
    assert found == [0] * 19 + [1] * 11


def test_milestones_are_reached_one_after_the_other_or_together() -> None:
    rewards = [[1.0]] * 20 + [[41.0]] + [[-9.0]] * 20 + [[90.0]] * 20
    found = play(Milestones([2.0, 3.0, 4.0, 200.0], 1), rewards, [[True]] * 61)
    # 20 times 1; 19 times 1 and a 41: a mean of 3; then worse; then 18 times -9 and 2 times 90,
    # -0.9; 17 and 3, 5.85.
    assert found == [0] * 20 + [2] * 23 + [3] * 18


def test_returns_are_summed_over_an_episode() -> None:
    # Episodes of two steps, -1 and 4; the other environment never ends, whatever it scores.
    found = play(
        Milestones([3.0], 2), [[-1, 1000], [4, 0]] * 21, [[False, False], [True, False]] * 21
    )
    assert found.index(1) == 39
    assert not any(
        play(Milestones([3.1], 2), [[-1, 0], [4, 0]] * 30, [[False] * 2, [True, False]] * 30)
    )


def test_where_there_is_no_milestone_none_is_reached() -> None:
    assert not any(play(Milestones([], 1), [[1e9]] * 30, [[True]] * 30))


def test_interrupted_episodes_do_not_count() -> None:
    milestones = Milestones([1.0], 1)
    play(milestones, [[500.0]], [[False]])
    milestones.interrupt()
    assert not any(play(milestones, [[0.5]] * 30, [[True]] * 30))


def test_episodes_that_a_failure_cut_off_do_not_count() -> None:
    milestones = Milestones([-1.0], 2, [2])
    over = np.array([True, True])
    milestones.observe(np.array([-9.0, 0.0]), over, np.array([False, True]))
    milestones.observe(np.array([0.0, 1.0]), over, np.array([True, True]))
    assert milestones.reached == 0  # of -9 alone
    milestones.observe(np.array([8.0, 1.0]), over, np.array([False, True]))
    assert milestones.reached == 1  # of -9 and 8; nothing of a failed episode is left over


def test_a_goal_has_episodes_of_its_own_and_waits_for_the_one_before() -> None:
    # The mean of two is 3 after the second; that of three is 2 or more after the third, fifth, …
    returns = [[2.0], [4.0], [0.0], [0.0], [6.0], [0.0]]
    ends = [[True]] * 6
    assert play(Milestones([3.0, 2.0], 1, [2, 3]), returns, ends) == [0, 1, 2, 2, 2, 2]
    assert play(Milestones([3.0, 2.1], 1, [2, 3]), returns, ends) == [0, 1, 1, 1, 1, 1]
    assert play(Milestones([2.0, 3.0], 1, [3, 1]), returns, ends) == [0, 0, 1, 1, 2, 2]
    assert play(Milestones([2.0, 0.0], 1, [5, 1]), returns, ends) == [0, 0, 0, 0, 2, 2]


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=80),
    st.integers(0, 80),
    st.integers(-2, 2),
    st.one_of(st.none(), st.tuples(st.integers(1, 30), st.integers(1, 30))),
)
def test_a_milestone_is_the_mean_of_the_last_episodes(
    steps: list[tuple[int, bool]], cut: int, goal: int, episodes: tuple[int, int] | None
) -> None:
    """Against the obvious way, with a save and a load in the middle."""
    goals = [float(goal), goal + 1.5]
    milestones = Milestones(goals, 1, episodes)
    numbers = episodes or (20, 20)
    returns: list[int] = []
    running, expected = 0, 0
    for index, (reward, over) in enumerate(steps):
        if index == cut:
            state = json.loads(json.dumps(milestones.state()))
            milestones = Milestones(goals, 1, episodes)
            milestones.set_state(state)
        milestones.observe(np.array([reward], dtype=np.float32), np.array([over]))
        running += reward
        if over:
            returns.append(running)
            running = 0
            for each, number in list(zip(goals, numbers, strict=True))[expected:]:
                if len(returns) < number or sum(returns[-number:]) < number * each:
                    break
                expected += 1
        assert milestones.reached == expected
