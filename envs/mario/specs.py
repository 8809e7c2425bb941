"""The names of Super Mario Bros. in `[env] id`, and what a config makes of them.

`mario-1-1` to `mario-8-4` are single stages, `mario` is the whole game with its three lives,
`mario-random` draws a stage at each reset.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym

from rlagents.envs.maps import Map, Walk
from rlagents.envs.mario.backends import FRAMES_PER_SECOND, make_console, resolve_backend
from rlagents.envs.mario.buttons import ACTION_SETS, BUTTONS, DEFAULT_ACTION_SET, encode
from rlagents.envs.mario.env import FRAME_SKIP, NOOP_MAX, MarioEnv, check_observation
from rlagents.envs.mario.game import ALL_STAGES, Game, Target, parse_stages
from rlagents.envs.mario.level_map import draw_map
from rlagents.envs.mario.rewards import DEFAULT_REWARD, REWARDS
from rlagents.envs.mario.rom import find_rom
from rlagents.envs.mario.vector import MarioVectorEnv, fits
from rlagents.envs.outcomes import OutcomeReader
from rlagents.envs.players import Player, RenderPlayer
from rlagents.envs.preprocessing import Preprocessing, StackGrayFrames
from rlagents.envs.registry import EnvConfig, EnvSpec
from rlagents.envs.vector import SyncVectorEnv, VectorEnv
from rlagents.errors import UsageError, did_you_mean
from rlagents.types import Array

WHOLE_GAME, RANDOM_STAGE = "mario", "mario-random"
MAX_EPISODE_FRAMES = 108_000  # half an hour, as for Atari games
# No stage ends in so many frames without a button; the first does after 316.
_SAFE_NOOPS = 300
# What is told of an episode's end.
OUTCOME = ("flag_get", "world", "stage", "area", "x_pos", "score", "time")
# What [env] has no key for.
_KWARGS = ("observation", "stall_steps", "backend")


def mario_names() -> list[str]:
    """Return every name that `mario_spec` takes."""
    return [WHOLE_GAME, RANDOM_STAGE, *(f"mario-{world}-{stage}" for world, stage in ALL_STAGES)]


def mario_spec(name: str) -> EnvSpec:
    """Return the spec of a name; nothing has to be installed for that.

    Raises:
        UsageError: there is no such name.
    """
    if name not in mario_names():
        raise UsageError(
            f"[env] id: there is no environment {name!r}{did_you_mean(name, mario_names())}"
        )
    what = {
        WHOLE_GAME: "the whole game with three lives",
        RANDOM_STAGE: "a stage drawn for each episode",
    }.get(name, f"stage {name.removeprefix('mario-')}")
    return EnvSpec(
        name=name,
        description=f"Super Mario Bros. (NES), {what}; needs rlagents[mario]",
        make=functools.partial(MarioEnv, **_place(name)),
        make_vector=functools.partial(_make_vector, name),
        make_player=functools.partial(_make_player, name),
        resolve=functools.partial(_resolve, name),
        preprocessing=Preprocessing(frame_skip=FRAME_SKIP),
        shows_pictures=_shows_pictures,
        action_sets=dict.fromkeys(ACTION_SETS, ()),
        action_set=DEFAULT_ACTION_SET,
        buttons=tuple(BUTTONS),
        rewards=tuple(REWARDS),
        reward=DEFAULT_REWARD,
        sticky_probability=0.0,
        noop_max=NOOP_MAX,
        max_episode_frames=MAX_EPISODE_FRAMES,
        outcome=OUTCOME,
        success=_success(name),
        draw_map=functools.partial(_draw_map, name),
    )


def _success(name: str) -> str | None:
    """Return what says that an episode was completed: the flag, but not of each stage of many."""
    return None if name == WHOLE_GAME else "flag_get"


def outcome_reader(name: str) -> OutcomeReader:
    """Return what reads from an info how an episode of an environment came out."""
    return OutcomeReader(OUTCOME, _success(name))


def _place(name: str) -> dict[str, Any]:
    """Return the arguments of `MarioEnv` that say what is played."""
    if name == WHOLE_GAME:
        return {"world": None}
    if name == RANDOM_STAGE:
        return {"stages": [f"{world}-{stage}" for world, stage in ALL_STAGES]}
    world, stage = name.removeprefix("mario-").split("-")
    return {"world": int(world), "stage": int(stage)}


def _shows_pictures(config: EnvConfig) -> bool:
    return bool(config.kwargs.get("observation", "pixels") == "pixels")


def _resolve(name: str, config: EnvConfig) -> EnvConfig:
    """Check what only this environment knows, and choose the backend.

    Raises:
        UsageError: the game is not installed, or an option is wrong or does nothing here.
    """
    known = (*_KWARGS, "stages") if name == RANDOM_STAGE else _KWARGS
    for key in config.kwargs:
        if key not in known:
            raise UsageError(
                f"[env] kwargs: {name} has no argument {key!r}{did_you_mean(key, known)} It takes "
                f"{', '.join(known)}."
            )
    kwargs = dict(config.kwargs)
    check_observation(kwargs.get("observation", "pixels"))
    if "stages" in kwargs:
        parse_stages(kwargs["stages"])
    stall = kwargs.get("stall_steps", 0)
    if type(stall) is not int or stall < 0:
        raise UsageError(
            f"[env] kwargs: stall_steps: expected a whole number, 0 or more, got {stall!r}."
        )
    if isinstance(config.action_set, list):
        encode(config.action_set)
    if config.life_loss_terminates and name != WHOLE_GAME:
        raise UsageError(
            f"[env] life_loss_terminates: {name} ends with its only life; leave it out, or play "
            f"the whole game, [env] id = {WHOLE_GAME!r}."
        )
    find_rom()
    kwargs["backend"] = resolve_backend(kwargs.get("backend", "auto"))
    if config.noop_max is not None and config.noop_max > _SAFE_NOOPS:
        targets = MarioEnv(**(_place(name) | kwargs)).targets
        _check_noops(config.noop_max, targets, kwargs["backend"])
    return config.model_copy(update={"kwargs": kwargs})


def _check_noops(noop_max: int, targets: Sequence[Target], backend: str) -> None:
    """Raise if an episode could be over before the agent has done anything.

    Raises:
        UsageError: Mario does not live for so many frames without a button.
    """
    for target in targets:
        console = make_console(backend)
        game = Game(console, target)
        lived = next((frame for frame in range(noop_max) if game.frame(0).over), noop_max)
        console.close()
        if lived < noop_max:
            assert target is not None  # nobody loses three lives in so few frames
            raise UsageError(
                f"[env] noop_max: in {target[0]}-{target[1]} Mario lives for {lived} frames "
                f"without a button, got {noop_max}; set it to {lived} or less."
            )


def make_env(
    name: str, config: EnvConfig, watch: Callable[[Array], None] | None = None
) -> gym.Env[Array, int]:
    """Return one environment of a resolved config, with its wrappers.

    Args:
        name: of the environment.
        config: resolved.
        watch: called with each picture of the game.

    Raises:
        UsageError: the game is not installed.
    """
    arguments: dict[str, Any] = {
        "action_set": config.action_set,
        "reward": config.reward,
        "frame_skip": config.frame_skip,
        "sticky_probability": config.sticky_probability,
        "noop_max": config.noop_max,
        "max_episode_frames": config.max_episode_frames,
    }
    render_mode = None if watch is None else "rgb_array"
    arguments |= _place(name) | config.kwargs
    env = MarioEnv(**arguments, watch=watch, render_mode=render_mode)
    if not _shows_pictures(config):
        return env
    assert config.frame_size is not None  # resolved
    assert config.frame_stack is not None
    assert config.crop is not None
    return StackGrayFrames(env, config.frame_size, config.frame_stack, config.crop)


def _make_vector(name: str, config: EnvConfig, num_envs: int) -> VectorEnv:
    """Return many games: on the core at once where it is the backend, else one after the other."""
    backend = resolve_backend(config.kwargs.get("backend", "auto"))
    if backend == "core" and fits(config):
        return MarioVectorEnv(name, config, num_envs, outcome=outcome_reader(name))
    return SyncVectorEnv([lambda: make_env(name, config)] * num_envs, outcome_reader(name))


def _draw_map(name: str, config: EnvConfig, walks: Sequence[Walk]) -> Map:
    """Return the parts of stages in which episodes of a resolved config ended."""
    return draw_map(lambda watch: make_env(name, config, watch), walks)


def _make_player(name: str, config: EnvConfig) -> Player:
    player = RenderPlayer(
        lambda watch: make_env(name, config, watch), name, outcome=outcome_reader(name)
    )
    player.frames_per_second = FRAMES_PER_SECOND  # every frame is watched, not one an agent step
    return player
