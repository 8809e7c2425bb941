"""Atari games on ALE's own vector environment: `pong`, `atari/<game>` and Gymnasium's `ALE/*` ids.

The emulators, their frame skip, the maximum over the last two frames, the resize and the stack all
run in C++ threads (Bellemare et al. 2013; Machado et al. 2018 for sticky actions). Verified bit for
bit: the same seed and actions give the same episode in a fresh emulator, also frame by frame and in
colour, which is how `AtariPlayer` shows any episode that was played at another frame skip.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import numpy as np

from rlagents.cores import num_cores
from rlagents.envs.actions import choose_action_set
from rlagents.envs.players import PlayerStep, choose_names
from rlagents.envs.preprocessing import Preprocessing, rows_to_keep
from rlagents.envs.registry import EnvConfig, EnvSpec
from rlagents.envs.vector import VectorStep
from rlagents.errors import UsageError, did_you_mean
from rlagents.spaces import FrameStack
from rlagents.types import Array, BoolArray, IntArray

if TYPE_CHECKING:
    from ale_py.vector_env import AtariVectorEnv as AleVectorEnv

# ALE resizes pictures in its own threads; with OpenCV's default they fight over one shared pool
# (3,400 against 5,900 agent steps/s on two cores). It is read when ale_py is first imported.
os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")

FRAME_SKIP = 4
NOOP_MAX = 30
MAX_EPISODE_FRAMES = 108_000  # half an hour of play (Machado et al. 2018, Table 5)
# At its own limit ALE leaves off before it looks at the screen: what it shows then lacks the newest
# frame (with maxpool it is the one before that, merged with one of the step before). So episodes
# are cut here, after whole agent steps, and ALE's limit is out of reach: more than a year.
_NO_LIMIT = int(np.iinfo(np.int32).max)
FRAMES_PER_SECOND = 60.0
# What [env] has no key for.
_ALE_KWARGS = ("maxpool", "num_threads", "thread_affinity_offset", "use_fire_reset")

# Pong's minimal actions are NOOP, FIRE, RIGHT, LEFT, RIGHTFIRE, LEFTFIRE; right moves the paddle
# up. "up-down" is what 'Pong from pixels' (Karpathy 2016) plays with.
_PONG_ACTION_SETS: Mapping[str, Sequence[int]] = {"up-down": (2, 3), "stay-up-down": (0, 2, 3)}

# Mean scores of people are no natural threshold; Pong is called solved from 18 on.
_REWARD_THRESHOLDS = {"pong": 18.0}


@functools.cache
def games() -> tuple[str, ...]:
    """Return the names of the games that ale-py ships, such as `space_invaders`."""
    import ale_py

    folder = Path(ale_py.__file__).parent / "roms"
    return tuple(sorted(rom.stem for rom in folder.glob("*.bin")))


def atari_spec(game: str, *, name: str | None = None, sticky_probability: float = 0.0) -> EnvSpec:
    """Return the spec of an Atari game.

    Args:
        game: ALE's name of it, in snake_case.
        name: the name that a config gives; `atari/<game>` by default.
        sticky_probability: of an action being repeated, unless the config says otherwise.

    Raises:
        UsageError: ale-py ships no such game.
    """
    if game not in games():
        raise UsageError(
            f"[env] id: there is no Atari game {game!r}{did_you_mean(game, games())} "
            "`rlagents list envs` shows them all."
        )
    sets: dict[str, Sequence[int]] = {"minimal": (), "full": ()}
    if game == "pong":
        sets |= _PONG_ACTION_SETS
    return EnvSpec(
        name=name or f"atari/{game}",
        description=f"Atari 2600 {game.replace('_', ' ')}, from the screen",
        make=functools.partial(_make_single, game),
        make_vector=functools.partial(AtariVectorEnv, game),
        make_player=functools.partial(AtariPlayer, game),
        preprocessing=Preprocessing(frame_skip=FRAME_SKIP),
        action_sets=sets,
        action_set="minimal",
        sticky_probability=sticky_probability,
        noop_max=NOOP_MAX,
        max_episode_frames=MAX_EPISODE_FRAMES,
        reward_threshold=_REWARD_THRESHOLDS.get(game),
    )


def _make_single(game: str, render_mode: str | None = None, **kwargs: Any) -> gym.Env[Any, Any]:
    """Return Gymnasium's own environment of the game, without frame skip or sticky actions."""
    from ale_py.env import AtariEnv

    defaults = {"frameskip": 1, "repeat_action_probability": 0.0}
    return AtariEnv(game, **(defaults | kwargs), render_mode=render_mode)  # type: ignore[arg-type]


def _action_map(game: str, config: EnvConfig) -> IntArray | None:
    """Return ALE's index of each of the agent's actions: [A] int64, or None for all as they are."""
    if config.action_set in ("minimal", "full"):
        return None
    assert isinstance(config.action_set, str)  # resolved
    return choose_action_set(_PONG_ACTION_SETS if game == "pong" else {}, config.action_set, game)


def _make_ale(game: str, config: EnvConfig, num_envs: int, **changes: Any) -> AleVectorEnv:
    from ale_py.vector_env import AtariVectorEnv as AleVectorEnv

    if "frameskip" in config.kwargs:
        raise UsageError(
            "[env] kwargs: frameskip would skip frames twice; set [env] frame_skip instead."
        )
    refused = sorted(set(config.kwargs) - set(_ALE_KWARGS))
    known = ", ".join(_ALE_KWARGS)
    if refused:
        raise UsageError(
            f"[env] kwargs: Atari games take {known}, got {', '.join(refused)}; the "
            "rest of ALE's arguments are keys of [env] or always the same."
        )
    arguments: dict[str, Any] = {
        "num_threads": min(num_envs, num_cores()),
        "max_num_frames_per_episode": _NO_LIMIT,
        "repeat_action_probability": config.sticky_probability,
        "full_action_space": config.action_set == "full",
        "img_height": config.frame_size,
        "img_width": config.frame_size,
        "stack_num": config.frame_stack,
        "frameskip": config.frame_skip,
        "noop_max": config.noop_max,
        "reward_clipping": False,
        "autoreset_mode": "NextStep",  # a masked reset right after an end takes its place
    }
    try:
        return AleVectorEnv(game, num_envs, **(arguments | dict(config.kwargs) | changes))
    except TypeError as error:
        raise UsageError(f"[env] kwargs: ALE's vector environment says: {error}.") from None


class _Console(NamedTuple):
    """What a game is, as ALE tells it without playing."""

    height: int  # of the picture
    width: int
    minimal: tuple[str, ...]  # the actions that do something in it
    full: tuple[str, ...]  # all that the console has


@functools.cache
def _console(game: str) -> _Console:
    import ale_py
    from ale_py import roms

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner before every training
    ale = ale_py.ALEInterface()
    rom = roms.get_rom_path(game)
    assert rom is not None  # the spec was only made for a game that is there
    ale.loadROM(rom)
    height, width = ale.getScreenDims()
    return _Console(
        height,
        width,
        tuple(action.name for action in ale.getMinimalActionSet()),
        tuple(action.name for action in ale.getLegalActionSet()),
    )


def _shrunk_crop(game: str, config: EnvConfig) -> tuple[int, slice]:
    """Return the height to which ALE shrinks the whole picture, and the rows of it to keep.

    ALE cannot crop before it shrinks. Cutting afterwards is the same to the pixel if the cuts fall
    between the shrunk rows.

    Raises:
        UsageError: they do not.
    """
    assert config.frame_size is not None  # resolved
    assert config.crop is not None
    size, (top, bottom) = config.frame_size, config.crop
    if top == bottom == 0:
        return size, slice(None)
    height = _console(game).height

    def fits(top: int, bottom: int) -> bool:
        kept = height - top - bottom
        return kept > 0 and size * height % kept == 0 and size * top % kept == 0

    rows_to_keep(height, config.crop)
    if not fits(top, bottom):
        others = ((a, b) for a in range(height) for b in range(height - a) if fits(a, b))
        near = min(others, key=lambda other: abs(other[0] - top) + abs(other[1] - bottom))
        raise UsageError(
            f"[env] crop: {[top, bottom]} of {height} rows cuts through a row of the picture that "
            f"is left after shrinking to frame_size = {size}; the nearest that fits is "
            f"crop = {list(near)}."
        )
    kept = height - top - bottom
    first = size * top // kept
    return size * height // kept, slice(first, first + size)


def _max_steps(config: EnvConfig) -> int:
    """Return the agent steps after which an episode is truncated: the limit, rounded up."""
    assert config.max_episode_frames is not None  # resolved
    assert config.frame_skip is not None
    return math.ceil(config.max_episode_frames / config.frame_skip)


class AtariVectorEnv:
    """N copies of a game, stepped by ALE's C++ threads: observations [N, C, S, S] uint8."""

    def __init__(self, game: str, config: EnvConfig, num_envs: int) -> None:
        height, self._rows = _shrunk_crop(game, config)
        self._ale = _make_ale(game, config, num_envs, img_height=height)
        self._actions = _action_map(game, config)
        self.num_envs = num_envs
        assert config.frame_size is not None  # resolved
        assert config.frame_stack is not None
        self.observation_space: gym.spaces.Box = FrameStack(
            config.frame_stack, config.frame_size, config.frame_size
        )
        self.action_space: gym.Space[Any] = (
            self._ale.single_action_space
            if self._actions is None
            else gym.spaces.Discrete(len(self._actions))
        )
        self._lives = np.zeros(num_envs, dtype=np.int32)
        self._max_steps = _max_steps(config)
        self._steps = np.zeros(num_envs, dtype=np.int64)  # of each episode
        self._begun = False

    def reset(self, mask: BoolArray, seeds: Sequence[int]) -> Array:
        """Begin an episode in each environment of `mask`, with one seed for each of them."""
        if self._begun:
            seeds_array = np.asarray(seeds, dtype=np.int64)
            observation, info = self._ale.reset(seed=seeds_array, options={"reset_mask": mask})
        else:
            # ALE wants a full reset first; environments outside the mask get one that counts for
            # nothing.
            all_seeds = np.zeros(self.num_envs, dtype=np.int64)
            all_seeds[mask] = seeds
            observation, info = self._ale.reset(seed=all_seeds)
            self._begun = True
        self._lives[mask] = info["lives"][mask]
        self._steps[mask] = 0
        return np.ascontiguousarray(observation[:, :, self._rows])

    def send(self, actions: IntArray) -> None:
        """Hand the actions to the emulators, which start at once."""
        self._ale.send(actions if self._actions is None else self._actions[actions])

    def recv(self) -> VectorStep:
        """Wait for the emulators."""
        observation, reward, terminated, _, info = self._ale.recv()
        self._steps += 1
        truncated = ~terminated & (self._steps >= self._max_steps)
        lives = info["lives"]
        life_lost = (lives < self._lives) & ~terminated
        self._lives = lives.copy()
        kept = np.ascontiguousarray(observation[:, :, self._rows])
        return VectorStep(kept, reward.astype(np.float32), terminated, truncated, life_lost)

    def restore(self, seeds: Sequence[int], actions: Sequence[Array]) -> Array:
        """Bring every environment into the middle of the episode of its seed and actions.

        All are stepped together, so each begins as late as it needs to for all to end at once.
        """
        lengths = np.array([len(played) for played in actions])
        starts = lengths.max() - lengths
        current = np.zeros(self.num_envs, dtype=np.int64)
        for step in range(int(lengths.max()) + 1):
            mask = starts == step
            if step == 0 and not mask.all():
                self.reset(np.ones(self.num_envs, dtype=np.bool_), list(seeds))
            if mask.any():
                observation = self.reset(mask, [seeds[int(i)] for i in np.flatnonzero(mask)])
            if step == lengths.max():
                break
            for index in np.flatnonzero(starts <= step).tolist():
                current[index] = actions[index][step - starts[index]]
            self.send(current)
            observation = self.recv().observation
        return observation

    def close(self) -> None:
        """Stop the emulators' threads."""
        self._ale.close()


class AtariPlayer:
    """One emulator that is stepped frame by frame and shows its screen in colour."""

    frames_per_second = FRAMES_PER_SECOND

    def __init__(self, game: str, config: EnvConfig) -> None:
        console = _console(game)
        self._ale = _make_ale(
            game,
            config,
            1,
            frameskip=1,
            stack_num=1,
            maxpool=False,
            grayscale=False,
            img_height=console.height,
            img_width=console.width,
        )
        assert config.frame_skip is not None  # resolved
        self._frame_skip = config.frame_skip
        self._max_steps = _max_steps(config)
        self._steps = 0
        self._actions = _action_map(game, config)
        self.action_space: gym.Space[Any] = (
            self._ale.single_action_space
            if self._actions is None
            else gym.spaces.Discrete(len(self._actions))
        )
        own_actions = console.full if config.action_set == "full" else console.minimal
        self.action_names: tuple[str, ...] | None = choose_names(own_actions, self._actions)

    def reset(self, seed: int) -> PlayerStep:
        """Begin the episode of `seed`."""
        observation, _ = self._ale.reset(seed=np.array([seed], dtype=np.int64))
        self._steps = 0
        return PlayerStep(None, 0.0, False, False, [observation[0, 0].copy()])

    def step(self, action: int) -> PlayerStep:
        """Hold `action` for the config's frame skip and show every frame."""
        index = np.array([action if self._actions is None else self._actions[action]])
        frames: list[Array] = []
        total, terminated = 0.0, False
        while len(frames) < self._frame_skip and not terminated:
            observation, reward, ended, _, _ = self._ale.step(index)
            frames.append(observation[0, 0].copy())
            total += float(reward[0])
            terminated = bool(ended[0])
        self._steps += 1
        truncated = not terminated and self._steps >= self._max_steps
        return PlayerStep(None, float(np.float32(total)), terminated, truncated, frames)

    def close(self) -> None:
        """Stop the emulator."""
        self._ale.close()
