"""N games of Super Mario Bros. as a vector environment, stepped in C.

To the bit the same as `MarioEnv` on the fast console, with its pictures made grey, shrunk and
stacked: observations, rewards, ends. There are no automatic resets here either; a reset copies the
start of the stage, which was played once, and plays the frames without a button that follow it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from rlagents.cores import num_cores
from rlagents.envs.mario.buttons import encode
from rlagents.envs.mario.core import HEIGHT, INFO, CoreConsole, CoreGames, Pictures
from rlagents.envs.mario.game import ALL_STAGES, Game, Target, parse_stage, parse_stages
from rlagents.envs.mario.memory import Memory
from rlagents.envs.mario.rewards import Played, find_reward
from rlagents.envs.mario.rom import find_rom
from rlagents.envs.mario.tiles import TILE_SIZE, tile_grid
from rlagents.envs.outcomes import OutcomeReader
from rlagents.envs.preprocessing import rows_to_keep
from rlagents.envs.registry import EnvConfig
from rlagents.envs.vector import VectorStep
from rlagents.spaces import FrameStack
from rlagents.types import Array, BoolArray, IntArray, Outcome

_STATUS = np.array(["small", "tall", "fireball"])


@functools.cache
def start_state(target: Target) -> bytes:
    """Return a console's state at the start of a stage, or of the whole game (None).

    It is played once in a process, by the rules of `Game`.
    """
    console = CoreConsole(find_rom())
    game = Game(console, target)
    game.reset()
    return console.save()


def fits(config: EnvConfig) -> bool:
    """Tell whether games in C can show what a resolved config asks for: they only shrink."""
    if config.frame_size is None:
        return True
    assert config.crop is not None  # resolved
    rows = rows_to_keep(HEIGHT, config.crop)
    return config.frame_size <= int(rows.stop) - int(rows.start)


def _targets(name: str, config: EnvConfig) -> list[Target]:
    """Return what a reset draws from: stages, or None for the whole game."""
    place = name.removeprefix("mario").removeprefix("-")
    if place == "random":
        stages = config.kwargs.get("stages")
        return list(ALL_STAGES if stages is None else parse_stages(stages))
    return [parse_stage(place) if place else None]


class MarioVectorEnv:
    """N games, stepped in C threads.

    Args:
        name: `mario-W-S`, `mario` or `mario-random`.
        config: resolved.
        num_envs: N.
        threads: that step the games; as many as there are cores by default.
        outcome: reads from a game's info how an episode came out; None to tell nothing.

    Raises:
        UsageError: the fast console is not built, or the game is not installed.
        ValueError: the config asks for pictures that are larger than the game's.
    """

    def __init__(
        self,
        name: str,
        config: EnvConfig,
        num_envs: int,
        *,
        threads: int | None = None,
        outcome: OutcomeReader | None = None,
    ) -> None:
        self._outcome = outcome
        assert config.frame_skip is not None  # resolved
        assert config.sticky_probability is not None
        assert config.noop_max is not None
        assert config.action_set is not None
        assert config.reward is not None
        self.num_envs = num_envs
        self._targets = _targets(name, config)
        self._buttons = encode(config.action_set)
        self._reward = find_reward(config.reward)
        self._frame_skip = config.frame_skip
        self._sticky_probability = config.sticky_probability
        self._noop_max = config.noop_max
        frames = config.max_episode_frames
        self._max_steps = math.inf if frames is None else math.ceil(frames / config.frame_skip)
        self._stall_steps = config.kwargs.get("stall_steps", 0) or math.inf
        self._shows_tiles = config.frame_size is None
        self.observation_space: gym.spaces.Box
        pictures = None
        if self._shows_tiles:
            self.observation_space = gym.spaces.Box(-np.inf, np.inf, (TILE_SIZE,), np.float32)
        else:
            assert config.frame_size is not None
            assert config.frame_stack is not None
            assert config.crop is not None
            size, stack = config.frame_size, config.frame_stack
            pictures = Pictures(config.crop, size, stack)
            self.observation_space = FrameStack(stack, size, size)
        self.action_space: gym.Space[Any] = gym.spaces.Discrete(len(self._buttons))
        self._games = CoreGames(
            find_rom(),
            num_envs,
            frame_skip=config.frame_skip,
            full=self._targets == [None],
            pictures=pictures,
            threads=threads or num_cores(),
        )
        self._generators = [np.random.default_rng(0)] * num_envs
        self._pressed = np.zeros(num_envs, dtype=np.uint8)  # in the frame before
        self._steps = np.zeros(num_envs, dtype=np.int64)  # of each episode
        self._waiting = np.ones(num_envs, dtype=np.bool_)
        self._info = self._games.info.copy()  # before the step

    def reset(self, mask: BoolArray, seeds: Sequence[int]) -> Array:
        """Begin an episode in each environment of `mask`, with one seed for each of them."""
        starts, waits = [], []
        for index, seed in zip(np.flatnonzero(mask).tolist(), seeds, strict=True):
            generator = self._generators[index] = np.random.default_rng(seed)
            number = 0
            if len(self._targets) > 1:
                number = int(generator.integers(len(self._targets)))
            starts.append(start_state(self._targets[number]))
            waits.append(int(generator.integers(self._noop_max + 1)) if self._noop_max > 0 else 0)
        self._waiting[mask] = True  # until they have begun
        self._games.begin(mask, starts, waits)
        self._waiting[mask] = False
        self._pressed[mask] = 0
        self._steps[mask] = 0
        self._info[mask] = self._games.info[mask]
        return self._observe()

    def send(self, actions: IntArray) -> None:
        """Start a step in the games' threads."""
        playing = ~self._waiting
        buttons = np.zeros((self.num_envs, 1, self._frame_skip), dtype=np.uint8)
        if self._sticky_probability > 0:
            for index in np.flatnonzero(playing).tolist():
                buttons[index] = self._press(index, actions[index : index + 1])
        else:
            pressed = self._buttons[np.where(playing, actions, 0)]
            buttons[:] = pressed[:, None, None]
        self._games.play(playing, list(buttons))

    def _press(self, index: int, actions: Array) -> Array:
        """Return what is pressed in each frame of steps: uint8 [steps, frame_skip].

        With sticky actions, a frame repeats the frame before where the environment's generator says
        so; it is asked once a step, in the steps' order.
        """
        wanted = np.repeat(self._buttons[actions][:, None], self._frame_skip, axis=1)
        if self._sticky_probability == 0 or len(actions) == 0:
            return wanted
        drawn = self._generators[index].random((len(actions), self._frame_skip))
        repeats = (drawn < self._sticky_probability).ravel()
        # The frame that decides what is pressed in each frame: the last that repeats nothing.
        frames = np.arange(repeats.size)
        deciding = np.maximum.accumulate(np.where(repeats, -1, frames))
        pressed = np.where(deciding < 0, self._pressed[index], wanted.ravel()[deciding])
        self._pressed[index] = pressed[-1]
        return pressed.astype(np.uint8).reshape(wanted.shape)

    def recv(self) -> VectorStep:
        """Wait for the games."""
        playing = ~self._waiting
        games = self._games
        games.wait()
        self._steps += playing
        reward = np.zeros(self.num_envs, dtype=np.float32)
        before, after = _named(self._info), _named(games.info)
        played = Played(games.classic, games.progress, before, after, games.over)
        reward[playing] = np.asarray(self._reward(played), dtype=np.float32)[playing]
        self._info[playing] = games.info[playing]
        terminated = playing & games.over
        truncated = playing & ~games.over & self._cut_off()
        over = terminated | truncated
        self._waiting |= over
        life_lost = playing & games.life_lost
        outcomes = self._outcomes(over) if over.any() else {}
        return VectorStep(self._observe(), reward, terminated, truncated, life_lost, outcomes)

    def _outcomes(self, over: BoolArray) -> dict[int, Outcome]:
        """Return how the episodes came out that are over, by their rows."""
        if self._outcome is None:
            return {}
        columns = _named(self._games.info)
        told = {}
        for row in np.flatnonzero(over).tolist():
            info = {name: column[row] for name, column in columns.items()}
            outcome = self._outcome.read(info | {"area": Memory(self._games.ram[row]).area_number})
            if outcome is not None:
                told[row] = outcome
        return told

    def _cut_off(self) -> BoolArray:
        """Return which episodes a limit has been reached in: [N] bool."""
        limits = (self._games.stalled >= self._stall_steps) | (self._steps >= self._max_steps)
        return np.asarray(limits, dtype=np.bool_)

    def _observe(self) -> Array:
        return tile_grid(self._games.ram) if self._shows_tiles else self._games.stacks.copy()

    def restore(self, seeds: Sequence[int], actions: Sequence[Array]) -> Array:
        """Bring every environment into the middle of the episode of its seed and actions.

        Each plays its actions in one go, and draws only what its stack shows at the end.

        Raises:
            ValueError: an episode ended before its last action.
        """
        everyone = np.ones(self.num_envs, dtype=np.bool_)
        self.reset(everyone, seeds)
        games = self._games
        lengths = np.array([len(played) for played in actions])
        pressed = [
            self._press(index, np.asarray(played, dtype=np.int64))
            for index, played in enumerate(actions)
        ]
        games.play(lengths > 0, pressed)
        games.wait()
        self._steps[:] = lengths
        moved = lengths > 0
        self._info[moved] = games.info[moved]
        early = moved & (games.played < lengths)
        if early.any():
            index = int(np.flatnonzero(early)[0])
            self._waiting[:] = True
            raise ValueError(
                f"the episode of seed {seeds[index]} ended after {games.played[index]} steps, not "
                f"{lengths[index]} or more"
            )
        self._waiting[:] = moved & (games.over | self._cut_off())
        return self._observe()

    def info(self) -> Mapping[str, Array]:
        """Return what the games say after the last step: [N] each, by the names of `MarioEnv`."""
        return _named(self._info)

    def close(self) -> None:
        """Stop the threads."""
        self._games.close()


def _named(info: Array) -> dict[str, Array]:
    """Return the columns of the games' info by their names: [N] each."""
    named: dict[str, Array] = {name: info[:, column] for column, name in enumerate(INFO)}
    named["status"] = _STATUS[named["status"]]
    named["flag_get"] = named["flag_get"].astype(np.bool_)
    return named
