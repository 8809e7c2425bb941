"""Rewards: what each frame brings, and what an agent step brings from that.

Two rewards are added up frame by frame, since their clipping acts on frames:

    classic   v + c + d, clipped to [-15, 15]: that of gym-super-mario-bros 7.4.0
    progress  that of gym-super-mario-bros 9.1.0, see `progress_reward`

From their sums over an agent step and from what the game said before and after it, a `Reward` makes
the step's reward. All formulas take single values as well as arrays [N], one entry for each game.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from rlagents.errors import UsageError, did_you_mean
from rlagents.types import Array

MOST = 15  # of a frame's reward, and the least is its negative
DEATH = -25
LARGEST_STEP = 5  # pixels in a frame; more than that is no walking but another place
_PROGRESS_SCORE = 100.0  # points for a reward of 1
_PROGRESS_COIN = 5
_PROGRESS_POWER = 5
_PROGRESS_COMPLETED = 50


class Played(NamedTuple):
    """One agent step, as a reward sees it: plain values, or arrays [N]."""

    classic: Any  # float: the classic rewards of its frames, summed
    progress: Any  # float: likewise the progress rewards
    before: Mapping[str, Any]  # the info after the step before, or at the start
    after: Mapping[str, Any]  # the info of the step's last frame
    terminated: Any  # bool: the episode ended with this step, for good


Reward = Callable[[Played], Any]


def classic_reward(dx: Any, dt: Any, died: Any) -> Array:
    """Return the classic reward of a frame.

    Args:
        dx: pixels that Mario has moved to the right.
        dt: change of the clock.
        died: whether Mario is dying or dead.

    Returns:
        float64, of the shape of the arguments.
    """
    moved = np.where(np.abs(dx) > LARGEST_STEP, 0, dx)
    ticked = np.minimum(dt, 0)
    total = moved + ticked + np.where(died, DEATH, 0)
    return np.asarray(np.clip(total, -MOST, MOST), dtype=np.float64)


def progress_reward(
    gained: Any, dt: Any, died: Any, dscore: Any, dcoins: Any, dpower: Any, completed: Any
) -> Array:
    """Return the progress reward of a frame.

    Args:
        gained: pixels beyond the greatest x so far; 0 or less where there are none.
        dt: change of the clock.
        died: whether Mario is dying or dead.
        dscore: change of the score, in the units of the info.
        dcoins: change of the coins, which go from 99 to 0.
        dpower: change of the status: small 0, tall 1, fireball 2.
        completed: whether the stage has just been completed.

    Returns:
        float64, of the shape of the arguments.
    """
    moved = np.where((np.asarray(gained) > 0) & (np.asarray(gained) <= LARGEST_STEP), gained, 0)
    ticked = np.minimum(dt, 0)
    collected = np.where(np.asarray(dcoins) < -50, np.asarray(dcoins) + 100, dcoins)
    total = (
        moved
        + ticked
        + np.maximum(dscore, 0) / _PROGRESS_SCORE
        + np.maximum(collected, 0) * _PROGRESS_COIN
        + np.asarray(dpower) * _PROGRESS_POWER
        + np.where(completed, _PROGRESS_COMPLETED, 0)
        + np.where(died, DEATH, 0)
    )
    return np.asarray(np.clip(total, -MOST, MOST), dtype=np.float64)


def classic(played: Played) -> Any:
    """Return the sum of the frames' classic rewards."""
    return played.classic


def progress(played: Played) -> Any:
    """Return the sum of the frames' progress rewards."""
    return played.progress


def shaped(played: Played) -> Any:
    """Return a tenth of the classic reward, points of the score, and 50 more or less at the end.

    The reward of github.com/uvipen/Super-mario-bros-PPO-pytorch: (classic + points / 40, and at the
    end + 50 where the stage is completed, - 50 where it is not) / 10.
    """
    points = (np.asarray(played.after["score"]) - np.asarray(played.before["score"])) / 40.0
    end = np.where(
        played.terminated, np.where(np.asarray(played.after["flag_get"]), 50.0, -50.0), 0.0
    )
    return (played.classic + points + end) / 10.0


REWARDS: Mapping[str, Reward] = {"classic": classic, "progress": progress, "shaped": shaped}
DEFAULT_REWARD = "classic"


def find_reward(reward: str | Reward) -> Reward:
    """Return the reward of a name, or the function given.

    Raises:
        UsageError: there is none of that name.
    """
    if callable(reward):
        return reward
    if not isinstance(reward, str) or reward not in REWARDS:
        raise UsageError(
            f"[env] reward: Super Mario Bros. has no reward {reward!r}"
            f"{did_you_mean(str(reward), REWARDS)} It has: {', '.join(REWARDS)}."
        )
    return REWARDS[reward]
