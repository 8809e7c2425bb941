"""A corridor that tells how an episode came out: the tests' environment with outcomes."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

GOAL, PIT = 4, -3


class Corridor(gym.Env[Any, int]):
    """Walk right to the goal, left into the pit; now and then the wind pushes back by one.

    Args:
        render_mode: None or "rgb_array".
        wind: the chance of that.
        silent: whether nothing is told of how an episode came out.
        patience: steps after which an episode is cut off.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        wind: float = 0.0,
        silent: bool = False,
        patience: int = 20,
    ) -> None:
        self.observation_space = gym.spaces.Box(-10, 10, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self.render_mode = render_mode
        self._wind = wind
        self._silent = silent
        self._patience = patience

    def _observe(self) -> Any:
        return np.array([self._x], dtype=np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._x, self._time = 0, 0
        return self._observe(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._time += 1
        self._x += 1 if action == 1 else -1
        if self.np_random.random() < self._wind:
            self._x -= 1
        won, over = self._x >= GOAL, self._x >= GOAL or self._x <= PIT
        info = {"x": np.int64(self._x), "is_success": np.bool_(won), "scene": "hall"}
        cut = not over and self._time >= self._patience
        return self._observe(), float(won) - 0.125, over, cut, {} if self._silent else info

    def render(self) -> Any:
        picture = np.zeros((32, 64, 3), dtype=np.uint8)
        picture[:, 4 * (self._x + 8) : 4 * (self._x + 9)] = 255
        return picture
