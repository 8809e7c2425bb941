"""Players: one environment that shows every frame in colour, to record an episode from.

A player plays the same game as the vector environment does: from the same seed and actions come the
same rewards, and between two agent steps lie all the frames that a viewer should see.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np

from rlagents.envs.outcomes import OutcomeReader
from rlagents.errors import UsageError
from rlagents.types import Array, IntArray, Outcome


class PlayerStep(NamedTuple):
    """One agent step, with what there was to see."""

    observation: Array | None  # what an agent sees, [...]; None where the player only replays
    reward: float  # summed over skipped frames, unclipped; a float32, as in a `VectorStep`
    terminated: bool
    truncated: bool
    frames: list[Array]  # each [H, W, 3] uint8 RGB, in the order shown
    outcome: Outcome | None = None  # at the episode's end, where the environment tells


class Player(Protocol):
    """One environment played for the camera.

    Attributes:
        frames_per_second: of the frames that it shows.
        action_space: the agent's actions.
        action_names: what to call each of them; None where they have numbers only.
    """

    frames_per_second: float
    action_space: gym.Space[Any]
    action_names: tuple[str, ...] | None

    def reset(self, seed: int) -> PlayerStep:
        """Begin the episode of `seed`; the step's reward is 0."""

    def step(self, action: int) -> PlayerStep:
        """Play one agent step."""

    def close(self) -> None:
        """Free what the environment holds."""


def choose_names(own_actions: Sequence[str], action_set: IntArray | None) -> tuple[str, ...]:
    """Return the names of the agent's actions, from those of the environment's own.

    Args:
        own_actions: one for each of the environment's actions.
        action_set: [A] int64, which of them the agent's are; None for all as they are.
    """
    chosen = range(len(own_actions)) if action_set is None else action_set.tolist()
    return tuple(str(own_actions[index]) for index in chosen)


class RenderPlayer:
    """Any Gymnasium environment that renders `rgb_array`.

    Args:
        make: takes a sink for pictures and returns the environment, tapped and preprocessed.
        name: what to call the environment in an error.
        own_actions: names of the environment's own actions; if None, those of its method
            `get_action_meanings`, where it has one.
        action_set: [A] int64, which of its own actions the agent's are; None for all as they are.
        outcome: reads how an episode came out; `is_success` if it is None.

    Raises:
        UsageError: the environment cannot render pictures, or `own_actions` are not as many.
    """

    def __init__(
        self,
        make: Callable[[Callable[[Array], None]], gym.Env[Any, int]],
        name: str,
        *,
        own_actions: Sequence[str] | None = None,
        action_set: IntArray | None = None,
        outcome: OutcomeReader | None = None,
    ) -> None:
        self._outcome = OutcomeReader() if outcome is None else outcome
        # Pictures are drawn into memory; without a screen SDL would complain on standard error.
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        self._frames: list[Array] = []
        self._env = make(self._frames.append)
        if self._env.render_mode != "rgb_array":
            self._env.close()
            raise UsageError(
                f"{name} cannot be recorded: it has no render mode 'rgb_array'. "
                "Let its make function accept render_mode='rgb_array' and return pictures from "
                "render(), or train with --recording.enabled false."
            )
        self.frames_per_second = float(self._env.metadata.get("render_fps", 30))
        self.action_space = self._env.action_space
        # The wrapper that offers an action set lies outside of all others.
        own_env: Any = self._env
        if action_set is not None:
            own_env = own_env.env
        number = getattr(own_env.action_space, "n", None)
        if own_actions is not None and len(own_actions) != number:
            self._env.close()
            raise UsageError(
                f"{name}: action_names has {len(own_actions)} names, for the actions "
                f"{own_env.action_space}; name every one of them, in their order, or none."
            )
        if own_actions is None:
            own_actions = getattr(own_env.unwrapped, "get_action_meanings", tuple)()
            if len(own_actions) != number:  # none, or of actions that a wrapper has changed
                own_actions = None
        self.action_names = None if own_actions is None else choose_names(own_actions, action_set)

    def reset(self, seed: int) -> PlayerStep:
        """Begin the episode of `seed`."""
        observation = self._env.reset(seed=seed)[0]
        return PlayerStep(np.asarray(observation), 0.0, False, False, self._take_frames())

    def step(self, action: int) -> PlayerStep:
        """Play one agent step."""
        observation, reward, terminated, truncated, info = self._env.step(int(action))
        return PlayerStep(
            np.asarray(observation),
            float(np.float32(reward)),
            terminated,
            truncated,
            self._take_frames(),
            self._outcome.read(info) if terminated or truncated else None,
        )

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _take_frames(self) -> list[Array]:
        frames = self._frames.copy()
        self._frames.clear()
        return frames
