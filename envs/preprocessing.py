"""From a game's pictures to what a network sees: skip, greyscale, resize, stack.

The steps are those of Mnih et al. (2015), Methods, "Preprocessing": an action is held for
`frame_skip` frames, the last two are merged by their maximum (Atari games draw some sprites every
other frame only), the luminance is taken, rows that show no play may be cut off, and the rest is
shrunk to a square and stacked, newest last:

    # frames:      1 2 3 4   5 6 7 8   ...      rewards of the skipped frames are summed
    # observation: max(3, 4) max(7, 8) ...      [C, H, W] uint8, zeros before the first frame
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import gymnasium as gym
import numpy as np

from rlagents.errors import UsageError
from rlagents.profile import Timer, no_timer
from rlagents.spaces import FrameStack
from rlagents.types import Array


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an environment's pictures.

    Attributes:
        frame_skip: how many frames an action is held for, unless the config says otherwise.
    """

    frame_skip: int = 1


def is_image(space: gym.Space[Any]) -> bool:
    """Tell whether `space` holds pictures: uint8, [H, W] or [H, W, 1 or 3], 16 or more each way."""
    if not isinstance(space, gym.spaces.Box) or space.dtype != np.uint8:
        return False
    shape = space.shape
    channels = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
    return channels and shape[0] >= 16 and shape[1] >= 16


def grayscale(frame: Array) -> Array:
    """Return the luminance (ITU-R BT.601) of a picture: [H, W, 3] uint8 -> [H, W] uint8."""
    if frame.ndim == 3 and frame.shape[2] == 3:
        return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))
    return frame.reshape(frame.shape[:2])


class SkipFrames(gym.Wrapper[Any, int, Any, int]):
    """Holds each action for several frames; the rewards of a skip are summed.

    A life lost in any frame of a skip (`life_lost` in an info) is in the info that is handed on.

    With `merge_pictures`, observations become the maximum of the last two frames' luminances,
    [H, W] uint8; else the last frame's observation is handed on. A skip ends with the episode.
    """

    def __init__(
        self,
        env: gym.Env[Any, int],
        frame_skip: int,
        *,
        merge_pictures: bool = False,
        timer: Timer = no_timer,
    ) -> None:
        super().__init__(env)
        self._timer = timer
        self._frame_skip = frame_skip
        self._merge_pictures = merge_pictures

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Play `frame_skip` frames with `action`."""
        total = 0.0
        life_lost = False
        last: Array | None = None
        for _ in range(self._frame_skip):
            last_but_one = last
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            life_lost |= isinstance(info, dict) and bool(info.get("life_lost", False))
            if self._merge_pictures:
                with self._timer("preprocess"):
                    last = grayscale(observation).copy()  # it may be drawn into again
            if terminated or truncated:
                break
        if last is not None:
            observation = last if last_but_one is None else np.maximum(last, last_but_one)
        if life_lost:
            info = {**info, "life_lost": True}
        return observation, total, terminated, truncated, info


def rows_to_keep(height: int, crop: Sequence[int]) -> slice:
    """Return the rows of a picture that `crop`, rows at the top and at the bottom, leaves.

    Raises:
        UsageError: it leaves none.
    """
    top, bottom = crop
    if top + bottom >= height:
        raise UsageError(
            f"[env] crop: {list(crop)} leaves nothing of a picture of {height} rows; cut off less."
        )
    return slice(top, height - bottom)


class StackGrayFrames(gym.Wrapper[Array, int, Array, int]):
    """Turns pictures into stacks of small grey ones: [stack, size, size] uint8, newest last.

    Args:
        env: shows pictures, [H, W, 3], [H, W, 1] or [H, W] uint8.
        size: of the square that they are shrunk to.
        stack: how many an observation holds.
        crop: rows cut off at the top and at the bottom before that.
    """

    def __init__(
        self,
        env: gym.Env[Array, int],
        size: int,
        stack: int,
        crop: Sequence[int] = (0, 0),
        *,
        timer: Timer = no_timer,
    ) -> None:
        super().__init__(env)
        self._size = size
        assert env.observation_space.shape is not None
        self._rows = rows_to_keep(env.observation_space.shape[0], crop)
        self._frames = np.zeros((stack, size, size), dtype=np.uint8)
        self._timer = timer
        self.observation_space = FrameStack(stack, size, size)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin an episode with a stack of zero frames and the first picture."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._frames[:] = 0
        return self._push(observation), info

    def step(self, action: int) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Play one step and put its picture on the stack."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._push(observation), float(reward), terminated, truncated, info

    def _push(self, picture: Array) -> Array:
        with self._timer("preprocess"):
            gray = grayscale(picture)[self._rows]
            if gray.shape != (self._size, self._size):
                shape = (self._size, self._size)
                gray = np.asarray(cv2.resize(gray, shape, interpolation=cv2.INTER_AREA))
            self._frames[:-1] = self._frames[1:]
            self._frames[-1] = gray
            return self._frames.copy()


class TapFrames(gym.Wrapper[Any, int, Any, int]):
    """Hands every picture that the environment renders to `sink`: [H, W, 3] uint8, RGB.

    It wraps the raw environment, below any frame skip, so that no frame is missed.
    """

    def __init__(self, env: gym.Env[Any, int], sink: Callable[[Array], None]) -> None:
        super().__init__(env)
        self._sink = sink

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode and hand over its first picture."""
        result = self.env.reset(seed=seed, options=options)
        self._hand_over()
        return result

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Play one frame and hand over its picture."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._hand_over()
        return observation, float(reward), terminated, truncated, info

    def _hand_over(self) -> None:
        picture = np.asarray(self.env.render())
        self._sink(np.array(picture[..., :3], dtype=np.uint8))
