"""The steps of a rollout are those that were seen, byte for byte, with each frame kept once."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlagents.replay.rollout import Rollout
from rlagents.spaces import FrameStack
from rlagents.types import Array, Footprint, Transition

STACKS = FrameStack(3, 2, 4)
VECTORS = gym.spaces.Box(-np.inf, np.inf, (5,), np.float32)
COLUMNS = ("action", "reward", "terminated", "episode_over")
NUMBERS = ("log_probability", "value", "truncation_value")


class Game:
    """Made-up environments that show random frames and remember all that they have shown."""

    def __init__(self, space: gym.spaces.Box, num_envs: int, *, seed: int = 0) -> None:
        self._generator = np.random.default_rng(seed)
        self._space = space
        self.num_envs = num_envs
        self.observation = self._blank()
        self.begin(np.ones(num_envs, dtype=np.bool_))
        self.seen: list[Array] = []
        self.steps: list[Transition] = []
        self.numbers: list[dict[str, Array]] = []

    def _blank(self) -> Array:
        return np.zeros((self.num_envs, *self._space.shape), dtype=self._space.dtype)

    def _next(self, stacks: Array) -> Array:
        if self._space.dtype != np.uint8:
            return self._generator.normal(size=stacks.shape).astype(np.float32)
        stacks = np.roll(stacks, -1, axis=1)
        stacks[:, -1] = self._generator.integers(1, 256, size=(self.num_envs, 2, 4))
        return stacks

    def begin(self, which: Array) -> None:
        fresh = self._next(self._blank())
        self.observation = self.observation.copy()
        self.observation[which] = fresh[which]

    def step(self, rollout: Rollout, over: Array) -> None:
        """Add a step to the rollout and begin an episode where one is over."""
        after = self._next(self.observation)
        terminated = self._generator.random(self.num_envs) < 0.3
        step = Transition(
            self.observation,
            self._generator.integers(7, size=self.num_envs),
            self._generator.normal(size=self.num_envs).astype(np.float32),
            after,
            terminated,
            over,
        )
        numbers = {
            name: self._generator.normal(size=self.num_envs).astype(np.float32) for name in NUMBERS
        }
        self.seen.append(self.observation.copy())
        self.steps.append(copy.deepcopy(step))
        self.numbers.append(numbers)
        rollout.append(step, **numbers)
        self.observation = after
        self.begin(over)


def assert_holds(rollout: Rollout, game: Game, *, seed: int = 0) -> None:
    """The rollout's steps are the last that the game has seen, in whatever order they are read."""
    length = len(rollout)
    for name in COLUMNS:
        expected = np.stack([getattr(step, name) for step in game.steps[-length:]])
        np.testing.assert_array_equal(getattr(rollout, name)[:length], expected)
    for name in NUMBERS:
        expected = np.stack([numbers[name] for numbers in game.numbers[-length:]])
        np.testing.assert_array_equal(getattr(rollout, name)[:length], expected)
    order = np.random.default_rng(seed).permutation(length * game.num_envs)
    seen = np.concatenate(game.seen[-length:])  # step by step, environment by environment
    for begin in range(0, len(order), game.num_envs):
        index = order[begin : begin + game.num_envs]
        assert rollout.gather(index).tobytes() == seen[index].tobytes()


@pytest.mark.parametrize("space", [STACKS, VECTORS], ids=["stacks", "vectors"])
@given(
    num_envs=st.integers(1, 3),
    num_steps=st.integers(1, 6),
    ends=st.lists(st.integers(0, 7), max_size=25),  # a bit for each environment
    interruption=st.none() | st.integers(0, 24),
)
def test_steps_come_back_as_they_were_seen(
    space: gym.spaces.Box,
    num_envs: int,
    num_steps: int,
    ends: list[int],
    interruption: int | None,
) -> None:
    rollout = Rollout(space, num_envs, num_steps, batch_size=num_envs)
    game = Game(space, num_envs)
    for number, bits in enumerate(ends):
        if number == interruption:
            rollout.interrupt()
            assert len(rollout) == 0
            game.begin(np.ones(num_envs, dtype=np.bool_))
        over = np.array([bits >> env & 1 for env in range(num_envs)], dtype=np.bool_)
        game.step(rollout, over)
        assert rollout.is_full == (len(rollout) == num_steps)
        assert_holds(rollout, game, seed=number)
        if rollout.is_full:
            rollout.clear()
            assert len(rollout) == 0


def test_an_episode_that_goes_on_keeps_the_frames_of_the_rollout_before_by_hand() -> None:
    rollout = Rollout(STACKS, 1, 2, batch_size=1)
    frames = [np.full((2, 4), number, dtype=np.uint8) for number in range(1, 6)]
    never, action = np.zeros(1, dtype=np.bool_), np.zeros(1, dtype=np.int64)
    nothing = np.zeros(1, dtype=np.float32)
    for t in range(4):
        before = [np.zeros((2, 4), dtype=np.uint8)] * 2 + frames
        stack = np.stack(before[t : t + 3])[None]
        step = Transition(stack, action, nothing, stack, never, never)
        rollout.append(step, **dict.fromkeys(NUMBERS, nothing))
        assert (
            rollout.gather(np.array([len(rollout) - 1]))[0, :, 0, 0].tolist()
            == [
                [0, 0, 1],
                [0, 1, 2],
                [1, 2, 3],
                [2, 3, 4],
            ][t]
        )
        if rollout.is_full:
            if t == 3:
                assert rollout.gather(np.array([0]))[0, :, 0, 0].tolist() == [1, 2, 3]
            rollout.clear()


def test_each_frame_is_kept_once() -> None:
    rollout = Rollout(FrameStack(4, 84, 84), 16, 128, batch_size=256)
    items: Any = rollout._frames.items
    assert items.array.nbytes == (16 * (128 + 3) + 1) * 84 * 84


@pytest.mark.parametrize("space", [STACKS, VECTORS], ids=["stacks", "vectors"])
def test_the_footprint_is_what_the_arrays_take(space: gym.spaces.Box) -> None:
    rollout = Rollout(space, 3, 10, batch_size=7)
    items: Any = rollout._frames.items
    arrays = [items.array, rollout._frames._age, rollout._observation]
    arrays += [getattr(rollout, name) for name in (*COLUMNS, *NUMBERS)]
    taken = sum(array.nbytes for array in arrays)
    found = Rollout.footprint(space, 3, 10, batch_size=7)
    assert found == Footprint(taken, taken)


@pytest.mark.parametrize("space", [STACKS, VECTORS], ids=["stacks", "vectors"])
@pytest.mark.parametrize("steps", [0, 1, 3, 4, 6, 9])
def test_a_saved_rollout_goes_on(tmp_path: Path, space: gym.spaces.Box, steps: int) -> None:
    rollout, game = Rollout(space, 2, 4, batch_size=2), Game(space, 2)

    def play(into: Rollout, number: int) -> None:
        for _ in range(number):
            if into.is_full:
                into.clear()
            game.step(into, game._generator.random(2) < 0.2)

    play(rollout, steps)
    rollout.save(tmp_path)
    other = Rollout(space, 2, 4, batch_size=2)
    other.load(tmp_path)
    assert len(other) == len(rollout)
    if len(other):
        assert_holds(other, game)
    for _ in range(7):
        play(other, 1)
        assert_holds(other, game)


def saved(tmp_path: Path) -> Path:
    rollout, game = Rollout(STACKS, 2, 4, batch_size=2), Game(STACKS, 2)
    for _ in range(3):
        game.step(rollout, np.zeros(2, dtype=np.bool_))
    rollout.save(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("num_envs", "num_steps"), [(2, 5), (3, 4), (2, 2)])
def test_another_size_is_refused(tmp_path: Path, num_envs: int, num_steps: int) -> None:
    folder = saved(tmp_path)
    with pytest.raises(ValueError, match=r"rollout_steps or num_envs|length is 3"):
        Rollout(STACKS, num_envs, num_steps, batch_size=1).load(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("head", -1),
        ("head", 2.0),
        ("head", 1 << 60),
        ("head", 2),
        ("length", 5),
        ("length", -1),
        ("length", True),
        ("length", 2),
        ("fresh", [0, 1]),
        ("fresh", None),
        ("fresh", [True]),
        ("rows", None),
    ],
)
def test_a_damaged_state_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    folder = saved(tmp_path)
    path = folder / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ValueError, match=r"state\.json|rollout|shape"):
        Rollout(STACKS, 2, 4, batch_size=2).load(folder)


def test_a_missing_column_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (folder / "value.npy").unlink()
    with pytest.raises(OSError, match="value"):
        Rollout(STACKS, 2, 4, batch_size=2).load(folder)
