"""Rewards of Super Mario Bros., with numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlagents.envs.mario.rewards import (
    REWARDS,
    Played,
    classic_reward,
    find_reward,
    progress_reward,
)
from rlagents.errors import UsageError

# dx, clock, died -> v + c + d, clipped to 15 either way.
CLASSIC = [
    ((3, 0, False), 3),
    ((-2, -1, False), -3),
    ((5, 0, False), 5),
    ((6, 0, False), 0),  # another place, no walking
    ((-5, 0, False), -5),
    ((-6, 0, False), 0),
    ((0, 100, False), 0),  # a clock set anew takes nothing
    ((0, -1, True), -15),  # -26
    ((5, 0, True), -15),  # -20
    ((0, -400, False), -15),
]


@pytest.mark.parametrize(("given", "expected"), CLASSIC)
def test_classic(given: tuple[int, int, bool], expected: int) -> None:
    assert classic_reward(*given) == expected


def test_classic_takes_many_games_at_once() -> None:
    dx, dt, died = (np.array(column) for column in zip(*(row for row, _ in CLASSIC), strict=True))
    assert classic_reward(dx, dt, died).tolist() == [expected for _, expected in CLASSIC]


STILL: dict[str, Any] = {
    "gained": 0, "dt": 0, "died": False, "dscore": 0, "dcoins": 0, "dpower": 0, "completed": False
}  # fmt: skip
PROGRESS = [
    ({}, 0.0),
    ({"gained": 3}, 3.0),
    ({"gained": 5, "dt": -1}, 4.0),
    ({"gained": 6}, 0.0),
    ({"gained": -4}, 0.0),  # the way back costs nothing
    ({"dscore": 200}, 2.0),
    ({"dscore": -200}, 0.0),
    ({"dcoins": 1}, 5.0),
    ({"dcoins": -99}, 5.0),  # from 99 to 0: another life
    ({"dcoins": -3}, 0.0),
    ({"dpower": 1}, 5.0),
    ({"dpower": -2}, -10.0),
    ({"completed": True, "gained": 2}, 15.0),  # 52
    ({"died": True}, -15.0),
    ({"gained": 2, "dt": -1, "dscore": 150, "dcoins": 1, "dpower": -1}, 2 - 1 + 1.5 + 5 - 5),
]


@pytest.mark.parametrize(("change", "expected"), PROGRESS)
def test_progress(change: dict[str, Any], expected: float) -> None:
    assert progress_reward(**(STILL | change)) == expected


def test_progress_takes_many_games_at_once() -> None:
    rows = [STILL | change for change, _ in PROGRESS]
    columns = {key: np.array([row[key] for row in rows]) for key in STILL}
    assert progress_reward(**columns).tolist() == [expected for _, expected in PROGRESS]


def played(
    classic: Any = 0.0, score: Any = 0, *, terminated: Any = False, flag: Any = False
) -> Played:
    before = {"score": np.asarray(score) * 0 + 100}
    return Played(classic, 7.0, before, {"score": score, "flag_get": flag}, terminated)


def test_a_step_of_each_reward() -> None:
    step = played(8.0, 300)
    assert find_reward("classic")(step) == 8.0
    assert find_reward("progress")(step) == 7.0
    assert find_reward("shaped")(step) == pytest.approx((8 + 200 / 40) / 10)


def test_shaped_at_the_end() -> None:
    shaped = find_reward("shaped")
    assert shaped(played(2.0, 100, terminated=True, flag=True)) == pytest.approx(5.2)
    assert shaped(played(-15.0, 100, terminated=True)) == pytest.approx(-6.5)
    assert shaped(played(2.0, 100, flag=True)) == pytest.approx(0.2)  # the whole game goes on


def test_shaped_takes_many_games_at_once() -> None:
    steps = played(
        np.array([8.0, 2.0, -15.0]),
        np.array([300, 100, 100]),
        terminated=np.array([False, True, True]),
        flag=np.array([False, True, False]),
    )
    assert find_reward("shaped")(steps).tolist() == pytest.approx([1.3, 5.2, -6.5])


def test_finding() -> None:
    own = find_reward(lambda step: step.classic + 1)
    assert own(played(1.0)) == 2.0
    with pytest.raises(UsageError, match=r"no reward 'clasic'; did you mean 'classic'\?"):
        find_reward("clasic")
    for other in (None, ["classic"]):
        with pytest.raises(UsageError, match="It has: classic, progress, shaped"):
            find_reward(other)  # type: ignore[arg-type]
    assert set(REWARDS) == {"classic", "progress", "shaped"}
