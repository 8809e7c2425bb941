from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlagents.schedules import LinearSchedule, Milestone


def play(milestone: Milestone, rewards: list[list[float]], over: list[list[bool]]) -> list[bool]:
    reached = []
    for reward, end in zip(rewards, over, strict=True):
        milestone.observe(np.array(reward, dtype=np.float32), np.array(end))
        reached.append(milestone.reached)
    return reached


@pytest.mark.parametrize(
    ("step", "value"), [(0, 1.0), (25, 0.775), (100, 0.1), (101, 0.1), (10**9, 0.1)]
)
def test_a_linear_schedule(step: int, value: float) -> None:
    assert LinearSchedule(1.0, 0.1, 100).at(step) == pytest.approx(value)


def test_a_milestone_needs_twenty_episodes_and_stays() -> None:
    found = play(Milestone(5.0, 1), [[5.0]] * 21 + [[-99.0]] * 9, [[True]] * 30)
    assert found == [False] * 19 + [True] * 11


def test_returns_are_summed_over_an_episode() -> None:
    # Episodes of two steps, -1 and 4; the other environment never ends, whatever it scores.
    found = play(Milestone(3.0, 2), [[-1, 1000], [4, 0]] * 21, [[False, False], [True, False]] * 21)
    assert found.index(True) == 39
    assert not any(
        play(Milestone(3.1, 2), [[-1, 0], [4, 0]] * 30, [[False] * 2, [True, False]] * 30)
    )


def test_a_milestone_without_a_goal_is_never_reached() -> None:
    assert not any(play(Milestone(None, 1), [[1e9]] * 30, [[True]] * 30))


def test_interrupted_episodes_do_not_count() -> None:
    milestone = Milestone(1.0, 1)
    play(milestone, [[500.0]], [[False]])
    milestone.interrupt()
    assert not any(play(milestone, [[0.5]] * 30, [[True]] * 30))


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=80),
    st.integers(0, 80),
    st.integers(-2, 2),
)
def test_a_milestone_is_the_mean_of_the_last_episodes(
    steps: list[tuple[int, bool]], cut: int, goal: int
) -> None:
    """Against the obvious way, with a save and a load in the middle."""
    milestone = Milestone(float(goal), 1)
    returns: list[int] = []
    running, expected = 0, False
    for index, (reward, over) in enumerate(steps):
        if index == cut:
            state = json.loads(json.dumps(milestone.state()))
            milestone = Milestone(float(goal), 1)
            milestone.set_state(state)
        milestone.observe(np.array([reward], dtype=np.float32), np.array([over]))
        running += reward
        if over:
            returns.append(running)
            running = 0
        expected |= len(returns) >= 20 and sum(returns[-20:]) >= 20 * goal
        assert milestone.reached == expected
