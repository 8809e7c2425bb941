"""Captions: they can be read below any picture, and keep their places."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlagents.caption import Caption
from rlagents.takes import Moment

NAMES = ("NOOP", "FIRE", "RIGHTFIRE")


def moment(**changes: Any) -> Moment:
    values = np.array([0.25, -1.5, 3.0], dtype=np.float32)
    return Moment(np.empty(0), 17, None, 2, values, 21.0)._replace(**changes)


def picture(width: int, height: int = 90) -> Any:
    return np.full((height, width, 3), (144, 72, 17), dtype=np.uint8)


def strip(caption: Caption, width: int, now: Moment) -> Any:
    """Return what is below a picture, as brightness."""
    return caption(picture(width), now)[90:].mean(axis=2)


def rows_of_text(below: Any) -> int:
    lit = (below > 60).any(axis=1).astype(int)
    return int((np.diff(lit, prepend=0) == 1).sum())


@pytest.mark.parametrize("width", [8, 33, 64, 160, 320, 480, 600, 640, 1200])
@pytest.mark.parametrize("height", [90, 91])
def test_the_picture_is_left_as_it_is_above_a_strip(width: int, height: int) -> None:
    shown = Caption(NAMES, 3, "action values")(picture(width, height), moment())
    assert shown.shape[0] % 2 == 0
    assert shown.shape[1] == width or width < 100
    left = (shown.shape[1] - width) // 2
    assert np.array_equal(shown[:height, left : left + width], picture(width, height))
    below = shown[height:].astype(int)
    assert below.max() > 200  # on dark
    assert np.median(below) < 30


@pytest.mark.parametrize("width", [8, 64, 160, 320, 480, 600, 1200, 4000])
def test_letters_are_large_enough_and_fit(width: int) -> None:
    full = ("NOOP", "DOWNRIGHTFIRE", "DOWNLEFTFIRE")
    below = strip(Caption(full, 3, "action values"), width, moment(action=1))
    assert (below[:, :2] < 30).all()  # nothing is cut off at the sides,
    assert (below[:, -2:] < 30).all()
    assert (below[:2] < 30).all()  # or above and below
    assert (below[-2:] < 30).all()
    lit = (below > 60).any(axis=1)
    tallest = max(len(run) for run in "".join("x" if row else " " for row in lit).split())
    assert tallest >= max(7, width // 52)  # capitals of letters of 11 pixels or more


@pytest.mark.parametrize(("width", "rows"), [(60, 4), (160, 2), (480, 1), (600, 1), (1200, 1)])
def test_as_many_fields_as_fit_stand_in_a_row(width: int, rows: int) -> None:
    assert rows_of_text(strip(Caption(NAMES, 3, "action values"), width, moment())) == rows


@pytest.mark.parametrize(
    "change",
    [
        *({"episodic_return": 20.0}, {"episodic_return": 21.5}, {"step": 18}),
        {"action": 0, "values": np.array([3, 0, 0], dtype=np.float32)},
        {"values": np.array([0, 0, 3.1], dtype=np.float32)},
    ],
)
def test_each_field_is_shown(change: dict[str, Any]) -> None:
    caption = Caption(NAMES, 3, "action values")
    one, other = (strip(caption, 480, now) for now in (moment(), moment(**change)))
    assert one.shape == other.shape
    columns = np.flatnonzero((one != other).any(axis=0))
    assert columns.size
    # The others stay where they are: all that differs lies in one quarter or so.
    assert columns[-1] - columns[0] < 480 / 3


def test_the_value_shown_is_that_of_the_chosen_action() -> None:
    caption = Caption(NAMES, 3, "action values")
    other = np.array([9, 9, 3.0], dtype=np.float32)
    assert np.array_equal(strip(caption, 480, moment()), strip(caption, 480, moment(values=other)))


def test_a_return_that_is_no_number_is_shown_too() -> None:
    caption = Caption(NAMES, 3, "action values")
    texts = (float("nan"), float("inf"), 3.0, 3.25)
    shown = {strip(caption, 480, moment(episodic_return=text)).tobytes() for text in texts}
    assert len(shown) == 4


def test_names_numbers_and_kinds_of_values_differ() -> None:
    kinds = [
        Caption(NAMES, 3, "action values"),
        Caption(None, 3, "action values"),
        Caption(NAMES, 3, "probabilities"),
        Caption(NAMES, 3, None),
    ]
    shown = {strip(caption, 480, moment()).tobytes() for caption in kinds}
    assert len(shown) == 4


def test_before_the_first_action_there_is_none_to_show() -> None:
    before = moment(step=0, action=None, values=None, episodic_return=0.0)
    below = strip(Caption(NAMES, 3, "action values"), 480, before)
    assert below.max() > 200
    assert (below[:, 200:300] < 30).any()
