"""Super Mario Bros. as a Gymnasium environment."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, SupportsFloat, SupportsInt

import gymnasium as gym
import numpy as np

from rlagents.envs.mario.backends import (
    FRAMES_PER_SECOND,
    HEIGHT,
    WIDTH,
    make_console,
    resolve_backend,
)
from rlagents.envs.mario.buttons import Combinations, action_names, encode
from rlagents.envs.mario.game import Game, Target, parse_stage, parse_stages
from rlagents.envs.mario.memory import Memory
from rlagents.envs.mario.rewards import Played, Reward, find_reward
from rlagents.envs.mario.tiles import TILE_SIZE, tile_grid
from rlagents.envs.outcomes import IS_SUCCESS
from rlagents.errors import UsageError, did_you_mean
from rlagents.types import Array

OBSERVATIONS = ("pixels", "tiles")
FRAME_SKIP = 4
NOOP_MAX = 30
_LENGTH_BYTES = 8  # of the first part of a saved state
_HASH_BYTES = hashlib.sha256().digest_size  # before it, of all that follows

Observation = Literal["pixels", "tiles"]


class MarioEnv(gym.Env[Array, int]):
    """One stage with one life, the whole game, or a stage drawn at each reset.

    An episode is `terminated` by Mario's death and by the flag, in the whole game when no life is
    left; it is `truncated` by limits only. An action is held for `frame_skip` frames or to the end
    of the episode; the observation is that of the last frame. Observations are copies.

    All randomness comes from the seed of `reset`, through `np.random.default_rng(seed)`, and is
    drawn in this order: the stage, where there are several; the frames without a button that begin
    the episode (`integers(noop_max + 1)`); and for each step `random(frame_skip)`, where a frame
    below `sticky_probability` repeats the buttons of the frame before.

    Args:
        world: 1 to 8; None for the whole game, from 1-1 with three lives.
        stage: 1 to 4.
        stages: names such as "1-1", of which each reset draws one; in place of world and stage.
        action_set: "right-only", "simple", "complex", or a list of button combinations.
        reward: "classic", "progress", "shaped", or a function of `rewards.Played`.
        observation: "pixels" for the picture, [240, 256, 3] uint8 RGB, or "tiles" for what the RAM
            says about it, float32 (`tiles.py`).
        frame_skip: frames an action is held for.
        sticky_probability: that a frame repeats the buttons of the one before it.
        noop_max: up to so many frames without a button begin an episode.
        max_episode_frames: after which an episode is truncated, to the end of a step; None for no
            such limit.
        stall_steps: agent steps without a new greatest x, in an area and with a life, after which
            an episode is truncated; 0 for no such limit.
        backend: "auto", "core" or "nes-py".
        render_mode: "rgb_array", or None.
        watch: called with each picture of an episode, also those that are skipped.

    Raises:
        UsageError: an argument is wrong, or the game is not installed.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - as Gymnasium has it
        "render_modes": ["rgb_array"],
        "render_fps": FRAMES_PER_SECOND / FRAME_SKIP,
    }

    def __init__(
        self,
        world: int | None = 1,
        stage: int = 1,
        *,
        stages: Sequence[str] | None = None,
        action_set: str | Combinations = "simple",
        reward: str | Reward = "classic",
        observation: Observation = "pixels",
        frame_skip: int = FRAME_SKIP,
        sticky_probability: float = 0.0,
        noop_max: int = 0,
        max_episode_frames: int | None = None,
        stall_steps: int = 0,
        backend: str = "auto",
        render_mode: str | None = None,
        watch: Callable[[Array], None] | None = None,
    ) -> None:
        _check_counts(frame_skip, noop_max, max_episode_frames, stall_steps)
        if not isinstance(sticky_probability, SupportsFloat) or not (
            0.0 <= float(sticky_probability) <= 1.0
        ):
            raise UsageError(
                f"MarioEnv: sticky_probability: expected 0 to 1, got {sticky_probability!r}."
            )
        if render_mode not in (None, "rgb_array"):
            raise UsageError(
                f"MarioEnv: render_mode: expected 'rgb_array' or None, got {render_mode!r}."
            )
        check_observation(observation)
        self.targets = _targets(world, stage, stages)
        self._is_whole_game = world is None and stages is None
        self._buttons = encode(action_set)
        self._names = action_names(action_set)
        self._reward = find_reward(reward)
        self._observation = observation
        self._frame_skip = frame_skip
        self._sticky_probability = sticky_probability
        self._noop_max = noop_max
        self._max_steps = (
            math.inf if max_episode_frames is None else math.ceil(max_episode_frames / frame_skip)
        )
        self._stall_steps = stall_steps or math.inf
        self._backend = resolve_backend(backend)
        self.render_mode = render_mode
        self.metadata = self.metadata | {"render_fps": FRAMES_PER_SECOND / frame_skip}
        self._watch = watch
        self._games: dict[Target, Game] = {}
        self._game: Game | None = None
        self._generator = np.random.default_rng()
        self._over = True
        self.action_space = gym.spaces.Discrete(len(self._buttons))  # type: ignore[assignment]
        self.observation_space = (
            gym.spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
            if observation == "pixels"
            else gym.spaces.Box(-np.inf, np.inf, (TILE_SIZE,), np.float32)
        )

    def get_action_meanings(self) -> list[str]:
        """Return what to call each action, such as `right+A`."""
        return list(self._names)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: of everything that is drawn in it; None to go on drawing.
            options: not used.

        Raises:
            UsageError: Mario died in the frames without a button that begin the episode.
        """
        super().reset(seed=seed)
        del options
        self._over = True  # until the next one has begun
        if seed is not None:
            self._generator = np.random.default_rng(seed)
        number = 0
        if len(self.targets) > 1:
            number = int(self._generator.integers(len(self.targets)))
        waits = int(self._generator.integers(self._noop_max + 1)) if self._noop_max > 0 else 0
        game = self._game = self._find_game(self.targets[number])
        game.watch = None  # the frames before the start are no part of what is seen
        game.reset()
        self._over = True  # until it has begun
        if any(game.frame(0).over for _ in range(waits)):
            raise UsageError(
                f"MarioEnv: noop_max: Mario died in the {waits} frames without a button that begin "
                f"an episode; set one smaller than {self._noop_max}."
            )
        now = Memory(game.console.ram)
        self._pressed = 0  # by the frame before
        self._steps = 0
        self._stalled = 0  # steps
        self._life = now.life
        self._greatest_x, self._place = now.x, (now.area, now.life)
        self._before = now.info()
        self._over = False
        if self._watch is not None:
            game.watch = self._show
            self._show()
        return self._observe(), {**self._before, "life_lost": False, "area": now.area_number}

    def step(self, action: SupportsInt) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Hold an action for the frame skip, or until the episode is over.

        The info has, beside what 7.4.0's has, `life_lost`: a life was lost and the game goes on,
        and `area`: a number that tells the parts of a stage from each other. In an episode's last
        step `is_success` says whether the stage was completed, but for the whole game.

        Raises:
            gymnasium.error.ResetNeeded: the episode is over.
            ValueError: there is no such action.
        """
        if self._over or self._game is None:
            raise gym.error.ResetNeeded("The episode is over, or none has begun: call reset().")
        number = int(action)
        if not 0 <= number < len(self._buttons):
            raise ValueError(f"expected an action from 0 to {len(self._buttons) - 1}, got {number}")
        game = self._game
        pressed = int(self._buttons[number])
        repeats = [False] * self._frame_skip
        if self._sticky_probability > 0:
            drawn = self._generator.random(self._frame_skip)
            repeats = (drawn < self._sticky_probability).tolist()
        classic = progress = 0.0
        for repeat in repeats:
            self._pressed = self._pressed if repeat else pressed
            frame = game.frame(self._pressed)
            classic += frame.classic
            progress += frame.progress
            if frame.over:
                break
        self._steps += 1
        now = Memory(game.console.ram)
        stalled = self._is_stalled(now)
        life_lost = not frame.over and now.life < self._life
        self._life = now.life
        played = Played(classic, progress, self._before, frame.info, frame.over)
        reward = float(self._reward(played))
        self._before = frame.info
        truncated = not frame.over and (stalled or self._steps >= self._max_steps)
        self._over = frame.over or truncated
        info = {**frame.info, "life_lost": life_lost, "area": now.area_number}
        if self._over and not self._is_whole_game:
            info[IS_SUCCESS] = frame.info["flag_get"]
        return self._observe(), reward, frame.over, truncated, info

    @property
    def ram(self) -> Array:
        """Return what the console's RAM holds: uint8 [2048], a copy.

        Raises:
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        if self._game is None:
            raise gym.error.ResetNeeded("No episode has begun: call reset().")
        return self._game.console.ram.copy()

    def linger(self, frames: int) -> None:
        """Play frames without a button behind an episode's end, for who watches; no step follows.

        Behind the flag they show the way to the castle.

        Raises:
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        if self._game is None:
            raise gym.error.ResetNeeded("No episode has begun: call reset().")
        self._over = True
        for _ in range(frames):
            self._game.console.frame(0)
            if self._watch is not None:
                self._show()

    def render(self) -> Array | None:
        """Return the picture: [240, 256, 3] uint8 RGB; None without a render mode."""
        if self.render_mode is None or self._game is None:
            return None
        return self._game.console.screen()

    def close(self) -> None:
        """Free the consoles."""
        for game in self._games.values():
            game.console.close()
        self._games.clear()
        self._game, self._over = None, True

    def save(self) -> bytes:
        """Return the exact state of the episode, the random generator included.

        Raises:
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        if self._game is None:
            raise gym.error.ResetNeeded("There is no episode to save: call reset().")
        first = json.dumps(
            {
                "target": self._game.target,
                "game": self._game.save(),
                "generator": self._generator.bit_generator.state,
                "pressed": self._pressed,
                "steps": self._steps,
                "stalled": self._stalled,
                "life": self._life,
                "greatest_x": self._greatest_x,
                "place": self._place,
                "before": self._before,
                "over": self._over,
            }
        ).encode()
        length = len(first).to_bytes(_LENGTH_BYTES, "big")
        content = length + first + self._game.console.save()
        return hashlib.sha256(content).digest() + content

    def restore(self, state: bytes) -> Array:
        """Go back to a state of `save`, of this environment or another like it.

        Returns:
            the observation.

        Raises:
            ValueError: it is no such state, or one of another backend or stage; the episode is as
                it was.
        """
        content = state[_HASH_BYTES:]
        if hashlib.sha256(content).digest() != state[:_HASH_BYTES]:
            raise ValueError("the bytes are no state of MarioEnv.save(), or damaged")
        begin = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "big")
        values = json.loads(content[_LENGTH_BYTES:begin])
        target = None if values["target"] is None else tuple(values["target"])
        if target not in self.targets:
            raise ValueError(f"the state is of stage {target}, which is not played here")
        game = self._find_game(target)
        game.console.load(content[begin:])
        game.restore(values["game"])
        self._game = game
        self._generator.bit_generator.state = values["generator"]
        self._pressed, self._steps = values["pressed"], values["steps"]
        self._stalled, self._life = values["stalled"], values["life"]
        area, life = values["place"]
        self._greatest_x, self._place = values["greatest_x"], (tuple(area), life)
        self._before, self._over = values["before"], values["over"]
        return self._observe()

    def _find_game(self, target: Target) -> Game:
        """Return the game of a stage, on a console of its own that stays switched on."""
        if target not in self._games:
            self._games[target] = Game(make_console(self._backend), target)
        return self._games[target]

    def _observe(self) -> Array:
        assert self._game is not None
        if self._observation == "tiles":
            grid: Array = tile_grid(self._game.console.ram[None])[0]
            return grid
        return self._game.console.screen()

    def _show(self) -> None:
        assert self._watch is not None
        assert self._game is not None
        self._watch(self._game.console.screen())

    def _is_stalled(self, now: Memory) -> bool:
        """Count the steps without a new greatest x; it begins anew with an area and a life."""
        place = (now.area, now.life)
        if place != self._place or now.x > self._greatest_x:
            self._place, self._greatest_x, self._stalled = place, now.x, 0
        else:
            self._stalled += 1
        return self._stalled >= self._stall_steps


def check_observation(observation: object) -> None:
    """Raise if there is no observation of that name.

    Raises:
        UsageError: there is none.
    """
    if observation not in OBSERVATIONS:
        raise UsageError(
            f"[env] kwargs: observation: expected {' or '.join(OBSERVATIONS)}, got "
            f"{str(observation)[:40]!r}{did_you_mean(str(observation)[:40], OBSERVATIONS)}"
        )


def _check_counts(
    frame_skip: int, noop_max: int, max_episode_frames: int | None, stall_steps: int
) -> None:
    """Raise if one of the whole numbers is none, or too small.

    Raises:
        UsageError: one is.
    """
    for name, value, least in (
        ("frame_skip", frame_skip, 1),
        ("noop_max", noop_max, 0),
        ("max_episode_frames", 1 if max_episode_frames is None else max_episode_frames, 1),
        ("stall_steps", stall_steps, 0),
    ):
        if type(value) is not int or value < least:
            raise UsageError(
                f"MarioEnv: {name}: expected a whole number, {least} or more, got {value!r}."
            )


def _targets(world: int | None, stage: int, stages: Sequence[str] | None) -> tuple[Target, ...]:
    """Return what an environment plays.

    Raises:
        UsageError: there is no such stage.
    """
    if stages is not None:
        return parse_stages(stages)
    return (None,) if world is None else (parse_stage(f"{world}-{stage}"),)
