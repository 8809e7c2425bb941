"""Super Mario Bros. played for the camera: every frame, those that are skipped too, in colour."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from rlagents.envs.mario.backends import FRAMES_PER_SECOND
from rlagents.envs.outcomes import OutcomeReader
from rlagents.envs.players import PlayerStep
from rlagents.types import Array


class MarioPlayer:
    """One environment, and the frames between two of its observations.

    Args:
        make: takes what is called with each picture, and returns the environment with its wrappers.
        outcome: reads how an episode came out.
    """

    frames_per_second = FRAMES_PER_SECOND

    def __init__(
        self,
        make: Callable[[Callable[[Array], None]], gym.Env[Array, int]],
        outcome: OutcomeReader,
    ) -> None:
        self._outcome = outcome
        self._frames: list[Array] = []
        self._env = make(self._frames.append)
        self.action_space: gym.Space[Any] = self._env.action_space
        names = self._env.unwrapped.get_action_meanings()  # type: ignore[attr-defined]
        self.action_names: tuple[str, ...] | None = tuple(names)

    def reset(self, seed: int) -> PlayerStep:
        """Begin the episode of `seed`."""
        observation, _ = self._env.reset(seed=seed)
        return PlayerStep(observation, 0.0, False, False, self._take_frames())

    def step(self, action: int) -> PlayerStep:
        """Hold `action` for the frame skip and show every frame."""
        observation, reward, terminated, truncated, info = self._env.step(action)
        return PlayerStep(
            observation,
            float(np.float32(reward)),
            terminated,
            truncated,
            self._take_frames(),
            self._outcome.read(info) if terminated or truncated else None,
        )

    def close(self) -> None:
        """Switch the consoles off."""
        self._env.close()

    def _take_frames(self) -> list[Array]:
        frames = self._frames.copy()
        self._frames.clear()
        return frames
