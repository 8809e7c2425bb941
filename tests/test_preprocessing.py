"""Our wrappers: what they do by hand, and that they see what ALE's vector environment sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ale_py.env import AtariEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rlagents.envs import EnvConfig, find_env, make_vector_env, resolve_env_config
from rlagents.envs.preprocessing import (
    SkipFrames,
    StackGrayFrames,
    TapFrames,
    grayscale,
    is_image,
)
from rlagents.errors import UsageError
from rlagents.spaces import FrameStack

# Grey levels by which a pixel of ours may differ from ALE's. On our machine (ale-py 0.12.1, OpenCV
# 4) not one pixel differs; another OpenCV may round its averages otherwise, hence the one level.
PIXEL_TOLERANCE = 1

SIZE = 16


class Script(gym.Env[Any, int]):
    """Shows given pictures one after the other; picture t > 0 comes with a reward of 2 ** t."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - as Gymnasium has it

    def __init__(
        self, pictures: Sequence[Any], end: int = 10**6, *, truncate: bool = False
    ) -> None:
        self.pictures = [np.asarray(picture) for picture in pictures]
        self.observation_space = gym.spaces.Box(0, 255, self.pictures[0].shape, np.uint8)
        self.action_space = gym.spaces.Discrete(2)
        self.render_mode = "rgb_array"
        self.actions: list[int] = []
        self._end = end
        self._truncate = truncate
        self._time = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        self._time = 0
        self.actions = []
        return self.pictures[0], {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self._time < self._end, "stepped after its end"
        self.actions.append(action)
        self._time += 1
        over = self._time == self._end
        picture = self.pictures[self._time]
        reward = 2.0**self._time
        return picture, reward, over and not self._truncate, over and self._truncate, {}

    def render(self) -> Any:
        return self.pictures[self._time]


def flat(value: int, shape: tuple[int, ...] = (SIZE, SIZE)) -> Any:
    return np.full(shape, value, dtype=np.uint8)


def noise(count: int, shape: tuple[int, ...] = (SIZE, SIZE), seed: int = 0) -> list[Any]:
    generator = np.random.default_rng(seed)
    return list(generator.integers(256, size=(count, *shape), dtype=np.uint8))


# Against ALE


class FireAtReset(gym.Wrapper[Any, int, Any, int]):
    """Presses FIRE once after a reset, as ALE's vector environment does."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        self.env.reset(seed=seed, options=options)
        observation, _, _, _, info = self.env.step(1)
        return observation, info


@pytest.mark.parametrize(
    ("game", "frame_skip", "size", "stack", "crop"),
    [
        ("pong", 4, 84, 4, [0, 0]),
        ("pong", 4, 64, 2, [35, 15]),
        ("breakout", 4, 84, 4, [0, 0]),
        ("breakout", 2, 50, 3, [0, 0]),
    ],
)
def test_ours_equals_ale(
    game: str, frame_skip: int, size: int, stack: int, crop: list[int]
) -> None:
    spec = find_env(f"atari/{game}")
    config = resolve_env_config(
        EnvConfig(
            id=spec.name,
            noop_max=0,
            frame_skip=frame_skip,
            frame_size=size,
            frame_stack=stack,
            crop=crop,
        ),
        spec,
    )
    ale = make_vector_env(spec, config, 1)
    raw = AtariEnv(game, frameskip=1, repeat_action_probability=0.0)
    assert raw.get_action_meanings()[1] == "FIRE"
    skipping = SkipFrames(FireAtReset(raw), frame_skip, merge_pictures=True)
    ours = StackGrayFrames(skipping, size, stack, crop)
    assert ours.observation_space == ale.observation_space

    def reset() -> None:
        theirs = ale.reset(np.ones(1, dtype=np.bool_), [1])
        assert_same(ours.reset(seed=1)[0], theirs[0])

    actions = np.random.default_rng(0).integers(raw.action_space.n, size=400)
    reset()
    rewarded, ended = 0, 0
    for action in actions:
        ale.send(np.array([action]))
        theirs = ale.recv()
        observation, reward, terminated, truncated, _ = ours.step(int(action))
        assert reward == theirs.reward[0]
        assert terminated == theirs.terminated[0]
        assert truncated == theirs.truncated[0]
        rewarded += reward != 0
        # Where a skip is cut short, ALE shows older frames once more; nobody learns from it.
        shown = slice(None, -1) if terminated else slice(None)
        assert_same(observation[shown], theirs.observation[0, shown])
        if terminated:
            ended += 1
            reset()
    ale.close()
    assert rewarded > 0
    assert ended > 0 or game == "pong"


def assert_same(ours: Any, theirs: Any) -> None:
    assert ours.dtype == theirs.dtype == np.uint8
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= PIXEL_TOLERANCE


# Skipping


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 10**6))
def test_a_skip_sums_rewards_and_merges_the_last_two(skip: int, steps: int, seed: int) -> None:
    pictures = noise(1 + skip * steps, seed=seed)
    script = Script(pictures)
    env = SkipFrames(script, skip, merge_pictures=True)
    env.reset()
    for number in range(1, steps + 1):
        observation, reward, terminated, truncated, _ = env.step(number % 2)
        last = number * skip
        assert np.array_equal(observation, np.maximum(pictures[last], pictures[last - 1]))
        assert reward == sum(2.0**time for time in range(last - skip + 1, last + 1))
        assert not terminated
        assert not truncated
    assert script.actions == [number % 2 for number in range(1, steps + 1) for _ in range(skip)]


def test_a_skip_of_one_merges_nothing() -> None:
    pictures = noise(3)
    env = SkipFrames(Script(pictures), 1, merge_pictures=True)
    env.reset()
    for time in (1, 2):
        observation, reward, *_ = env.step(0)
        assert np.array_equal(observation, pictures[time])
        assert reward == 2.0**time


def test_luminance_is_taken_before_the_maximum() -> None:
    red, green = flat(0, (SIZE, SIZE, 3)), flat(0, (SIZE, SIZE, 3))
    red[..., 0], green[..., 1] = 200, 200
    env = SkipFrames(Script([red, red, green]), 2, merge_pictures=True)
    env.reset()
    # Merged by colour it would be yellow, and brighter than either.
    assert np.array_equal(env.step(0)[0], grayscale(green))


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize("end", [5, 6, 7, 8])
def test_a_skip_ends_with_the_episode(end: int, truncate: bool) -> None:
    """The second skip of four is cut short after frame `end`."""
    pictures = noise(9)
    script = Script(pictures, end, truncate=truncate)
    env = SkipFrames(script, 4, merge_pictures=True)
    env.reset()
    _, _, terminated, truncated, _ = env.step(0)
    assert not terminated
    assert not truncated
    _, reward, terminated, truncated, _ = env.step(1)
    assert reward == sum(2.0**time for time in range(5, end + 1))
    assert (terminated, truncated) == (not truncate, truncate)
    assert script.actions == [0] * 4 + [1] * (end - 4)


@pytest.mark.parametrize("end", [6, 7, 8])
def test_a_skip_cut_short_merges_the_last_two_too(end: int) -> None:
    """A sprite drawn every other frame does not vanish where an episode is truncated."""
    pictures = noise(9)
    env = SkipFrames(Script(pictures, end, truncate=True), 4, merge_pictures=True)
    env.reset()
    env.step(0)
    observation = env.step(0)[0]
    assert np.array_equal(observation, np.maximum(pictures[end], pictures[end - 1]))


class Lives(gym.Wrapper[Any, int, Any, int]):
    """Tells of a life that was lost in the frame `lost`."""

    def __init__(self, env: gym.Env[Any, int], lost: int) -> None:
        super().__init__(env)
        self._lost = lost
        self._frame = 0

    def step(self, action: int) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self._frame += 1
        *told, info = self.env.step(action)
        return *told, info | {"frame": self._frame, "life_lost": self._frame == self._lost}


@pytest.mark.parametrize("lost", [1, 4, 5, 6, 8])
def test_a_life_lost_in_any_frame_of_a_skip_is_told(lost: int) -> None:
    env = SkipFrames(Lives(Script(noise(13)), lost), 4)
    env.reset()
    infos = [env.step(0)[4] for _ in range(3)]
    assert [info["life_lost"] for info in infos] == [lost <= 4, lost > 4, False]
    assert [info["frame"] for info in infos] == [4, 8, 12]


@pytest.mark.parametrize("end", [5, 10**6])
def test_vectors_are_not_merged(end: int) -> None:
    pictures = noise(9)
    env = SkipFrames(Script(pictures, end), 4)
    env.reset()
    env.step(0)
    observation = env.step(0)[0]
    assert np.array_equal(observation, pictures[min(end, 8)])


# Greyscale and stacks


@settings(deadline=None)
@given(arrays.arrays(np.uint8, (5, 7, 3)))
def test_grayscale_is_the_luminance_of_bt601(picture: Any) -> None:
    gray = grayscale(picture)
    assert gray.shape == (5, 7)
    assert gray.dtype == np.uint8
    exact = picture.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(gray - exact).max() <= 0.51


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1)])
def test_grey_pictures_stay_as_they_are(shape: tuple[int, ...]) -> None:
    picture = noise(1, shape)[0]
    assert np.array_equal(grayscale(picture), picture.reshape(5, 7))


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 8), st.integers(0, 10**6))
def test_a_stack_is_the_last_frames_after_zeros(stack: int, steps: int, seed: int) -> None:
    pictures = noise(1 + steps, seed=seed)
    env = StackGrayFrames(Script(pictures), SIZE, stack)
    assert env.observation_space == FrameStack(stack, SIZE, SIZE)
    for _ in range(2):  # the second episode begins with zeros again
        seen = [flat(0)] * (stack - 1)
        observation, _ = env.reset()
        for time in range(steps + 1):
            if time > 0:
                observation, reward, *_ = env.step(0)
                assert reward == 2.0**time
            seen.append(pictures[time])
            assert observation.shape == (stack, SIZE, SIZE)
            assert np.array_equal(observation, seen[-stack:])


def test_observations_are_copies() -> None:
    pictures = noise(4)
    env = StackGrayFrames(Script(pictures), SIZE, 3)
    first, _ = env.reset()
    kept = first.copy()
    second, *_ = env.step(0)
    assert np.array_equal(first, kept)
    second[:] = 7
    third, *_ = env.step(0)
    assert np.array_equal(third, pictures[:3])
    assert np.array_equal(pictures[1], env.unwrapped.pictures[1])  # type: ignore[attr-defined]


def test_pictures_are_shrunk_by_averaging() -> None:
    picture = noise(1, (40, 60))[0]
    env = StackGrayFrames(Script([picture]), 20, 1)
    observation, _ = env.reset()
    means = picture.reshape(20, 2, 20, 3).mean(axis=(1, 3))
    assert observation.shape == (1, 20, 20)
    assert np.abs(observation[0] - means).max() <= 0.51


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (gym.spaces.Box(0, 255, (210, 160, 3), np.uint8), True),
        (gym.spaces.Box(0, 255, (64, 64, 1), np.uint8), True),
        (gym.spaces.Box(0, 255, (16, 16), np.uint8), True),
        (gym.spaces.Box(0, 255, (4, 84, 84), np.uint8), False),
        (gym.spaces.Box(0, 255, (84, 84, 4), np.uint8), False),
        (gym.spaces.Box(0, 255, (15, 16), np.uint8), False),
        (gym.spaces.Box(0, 255, (16, 15), np.uint8), False),
        (gym.spaces.Box(0, 255, (128,), np.uint8), False),
        (gym.spaces.Box(0, 1, (64, 64, 3), np.float32), False),
        (gym.spaces.Discrete(5), False),
    ],
)
def test_what_counts_as_a_picture(space: gym.Space[Any], expected: bool) -> None:
    assert is_image(space) is expected


# Tapping


def test_a_tap_misses_no_frame() -> None:
    pictures = noise(9, (SIZE, SIZE, 4))
    tapped: list[Any] = []
    env = SkipFrames(TapFrames(Script(pictures, 7), tapped.append), 4)
    env.reset()
    assert len(tapped) == 1
    env.step(0)
    assert len(tapped) == 5
    env.step(0)
    assert len(tapped) == 8  # the second skip ended with the episode
    for picture, shown in zip(pictures, tapped, strict=False):
        assert np.array_equal(shown, picture[..., :3])  # what is transparent is of no interest
        assert not np.shares_memory(shown, picture)


# Cropping


def test_crop_cuts_rows_at_the_top_and_the_bottom() -> None:
    picture = np.repeat(np.arange(SIZE * 2, dtype=np.uint8), SIZE).reshape(SIZE * 2, SIZE)
    observation, _ = StackGrayFrames(Script([picture]), SIZE, 1, (10, 6)).reset()
    assert observation[0, :, 0].tolist() == list(range(10, 26))


@pytest.mark.parametrize("crop", [(16, 0), (0, 16), (9, 9)])
def test_a_crop_of_everything_is_refused(crop: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=r"crop: .* leaves nothing of a picture of 16 rows"):
        StackGrayFrames(Script([flat(0)]), SIZE, 1, crop)


@pytest.mark.parametrize(
    ("crop", "message"),
    [
        ([34, 16], r"the nearest that fits is crop = \[35, 15\]"),
        ([100, 110], "leaves nothing of a picture of 210 rows"),
    ],
)
def test_atari_refuses_a_crop_that_it_cannot_make(crop: list[int], message: str) -> None:
    spec = find_env("pong")
    config = resolve_env_config(EnvConfig(id="pong", frame_size=64, crop=crop), spec)
    with pytest.raises(UsageError, match=message):
        make_vector_env(spec, config, 1)
