"""The buttons of the controller, and the combinations of them that an agent may choose from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized

import numpy as np
import numpy.typing as npt

from rlagents.errors import UsageError, did_you_mean

# The bits that the console reads.
BUTTONS: Mapping[str, int] = {
    "A": 1,
    "B": 2,
    "select": 4,
    "start": 8,
    "up": 16,
    "down": 32,
    "left": 64,
    "right": 128,
}
NO_BUTTON = "NOOP"

Combinations = Sequence[Sequence[str]]

_RIGHT_ONLY = ((), ("right",), ("right", "A"), ("right", "B"), ("right", "A", "B"))
_SIMPLE = (*_RIGHT_ONLY, ("A",), ("left",))
_COMPLEX = (*_SIMPLE, ("left", "A"), ("left", "B"), ("left", "A", "B"), ("down",), ("up",))

# The three sets of gym-super-mario-bros, in its order.
ACTION_SETS: Mapping[str, Combinations] = {
    "right-only": _RIGHT_ONLY,
    "simple": _SIMPLE,
    "complex": _COMPLEX,
}
DEFAULT_ACTION_SET = "simple"
MAX_ACTIONS = 256  # as many combinations as the controller has


def combinations(action_set: str | Combinations) -> Combinations:
    """Return the combinations of a named action set, or those of a list after checking them.

    Args:
        action_set: a name, or a list of combinations such as `[["right"], ["right", "A"]]`; an
            empty one, or `["NOOP"]`, presses nothing.

    Raises:
        UsageError: there is no set of that name, or no button of some name, or the list is empty
            or too long.
    """
    if isinstance(action_set, str):
        if action_set not in ACTION_SETS:
            raise UsageError(
                f"[env] action_set: Super Mario Bros. has no action set {action_set!r}"
                f"{did_you_mean(action_set, ACTION_SETS)} It has: {', '.join(ACTION_SETS)}, or "
                'takes a list of button combinations such as [["right"], ["right", "A"]].'
            )
        return ACTION_SETS[action_set]
    if not isinstance(action_set, Sized) or not isinstance(action_set, Iterable):
        raise UsageError(
            f"[env] action_set: expected a name ({', '.join(ACTION_SETS)}) or a list of button "
            f"combinations, got {action_set!r:.80}."
        )
    if not 1 <= len(action_set) <= MAX_ACTIONS:
        raise UsageError(
            f"[env] action_set: expected a list of 1 to {MAX_ACTIONS} button combinations, got "
            f"{len(action_set)}."
        )
    return tuple(_check(combination) for combination in action_set)


def _check(combination: Sequence[str]) -> tuple[str, ...]:
    """Return one combination without `NOOP`.

    Raises:
        UsageError: it names no button, or one twice, or is no list.
    """
    if isinstance(combination, str):
        raise UsageError(
            f"[env] action_set: each combination is a list of buttons, got {combination!r}; write "
            f'["{combination}"].'
        )
    if not isinstance(combination, Iterable):
        raise UsageError(
            f"[env] action_set: each combination is a list of buttons, got {combination!r:.80}."
        )
    pressed = tuple(combination)
    if pressed == (NO_BUTTON,):
        return ()
    for button in pressed:
        if button == NO_BUTTON:
            raise UsageError(
                f"[env] action_set: {NO_BUTTON} presses nothing, so it stands alone in its "
                f"combination, got {list(pressed)}."
            )
        if not isinstance(button, str) or button not in BUTTONS:
            raise UsageError(
                f"[env] action_set: there is no button {button!r}{_nearest(button)} "
                f"It must be one of {', '.join(BUTTONS)}, or {NO_BUTTON} for none."
            )
    if len(set(pressed)) < len(pressed):
        raise UsageError(
            f"[env] action_set: {list(pressed)} names a button twice; name each of them once."
        )
    return pressed


def _nearest(button: object) -> str:
    """Return the end of a sentence that names the nearest button, whatever its case."""
    name = str(button)[:20]
    same = [known for known in BUTTONS if known.lower() == name.lower()]
    return f"; did you mean {same[0]!r}?" if same else did_you_mean(name, BUTTONS)


def encode(action_set: str | Combinations) -> npt.NDArray[np.uint8]:
    """Return the bits that each action presses: [A] uint8.

    Raises:
        UsageError: as `combinations`.
    """
    return np.array(
        [sum(BUTTONS[button] for button in one) for one in combinations(action_set)],
        dtype=np.uint8,
    )


def action_names(action_set: str | Combinations) -> tuple[str, ...]:
    """Return what to call each action: `right+A`, or `NOOP` for no button at all.

    Raises:
        UsageError: as `combinations`.
    """
    return tuple("+".join(one) or NO_BUTTON for one in combinations(action_set))
