"""Buttons of the controller as actions: by name and by list."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlagents.envs.mario.buttons import ACTION_SETS, BUTTONS, action_names, encode
from rlagents.errors import UsageError


def test_named_sets_press_what_gym_super_mario_bros_presses() -> None:
    right_only = [0, 128, 129, 130, 131]  # right is bit 7, A bit 0, B bit 1
    simple = [*right_only, 1, 64]
    assert encode("right-only").tolist() == right_only
    assert encode("simple").tolist() == simple
    assert encode("complex").tolist() == [*simple, 65, 66, 67, 32, 16]
    assert encode("complex").dtype == np.uint8


def test_names() -> None:
    assert action_names("simple") == (
        *("NOOP", "right", "right+A", "right+B", "right+A+B", "A", "left"),
    )
    assert action_names([["right", "A"], [], ["NOOP"], ["up"]]) == ("right+A", "NOOP", "NOOP", "up")


@given(st.lists(st.sets(st.sampled_from(sorted(BUTTONS))), min_size=1, max_size=30))
def test_a_list_presses_its_buttons_and_no_others(chosen: list[set[str]]) -> None:
    encoded = encode([sorted(one) for one in chosen]).tolist()
    for bits, one in zip(encoded, chosen, strict=True):
        assert {name for name, bit in BUTTONS.items() if bits & bit} == one


def test_no_two_buttons_share_a_bit() -> None:
    assert sorted(BUTTONS.values()) == [1 << bit for bit in range(8)]
    for one, other in itertools.combinations(ACTION_SETS.values(), 2):
        assert encode(one).tolist() != encode(other).tolist()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("simpel", "no action set 'simpel'; did you mean 'simple'?"),
        ([["rihgt"]], "no button 'rihgt'; did you mean 'right'?"),
        ([["right", "a"]], "no button 'a'; did you mean 'A'?"),
        ([["jump"]], "must be one of A, B, select, start, up, down, left, right, or NOOP"),
        ([], "a list of 1 to 256 button combinations, got 0"),
        ([["A"]] * 257, "got 257"),
        (["right"], "each combination is a list of buttons, got 'right'; write [\"right\"]"),
        ([["NOOP", "A"]], "NOOP presses nothing, so it stands alone"),
        ([["A", "A"]], "names a button twice"),
        (None, "a list of button combinations, got None"),
        ([1], "each combination is a list of buttons, got 1"),
        ([[["A"]]], "no button ['A']. It must be one of A, B"),
    ],
)
def test_refusals(given: object, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        encode(given)  # type: ignore[arg-type]
    message = str(refused.value)
    assert says in message
    assert message.startswith("[env] action_set: ")
    assert "\n" not in message
