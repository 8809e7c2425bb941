"""Which environment an `[env] id` means, and how it is made into a vector environment or a player.

An id is a registered name (`pong`), any Gymnasium id (`LunarLander-v3`, `package.module:Id-v0`) or
`path/to/file.py:make_env`. Packages announce environments with the entry point group
`rlagents.envs`: a name and the function that returns its `EnvSpec`, looked up when it is asked for.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
from pydantic import BeforeValidator, Field

from rlagents.envs.actions import DEFAULT, SelectActions, choose_action_set
from rlagents.envs.maps import Map, Walk
from rlagents.envs.outcomes import OutcomeReader
from rlagents.envs.players import Player, RenderPlayer
from rlagents.envs.preprocessing import (
    Preprocessing,
    SkipFrames,
    StackGrayFrames,
    TapFrames,
    is_image,
)
from rlagents.envs.vector import GroupedVectorEnv, SyncVectorEnv, VectorEnv
from rlagents.errors import UsageError, did_you_mean
from rlagents.profile import Timer, no_timer
from rlagents.tables import Count, Int, Probability, Table
from rlagents.types import Array, IntArray

_GROUP = 4  # games that are stepped together in an evaluation
FRAME_SIZE = 84
FRAME_STACK = 4
STEP_LIMIT_S = 120.0
MAX_RESTARTS = 3
PROCESS_KEYS = ("num_workers", "step_limit_s", "max_restarts")


def _check_actions(value: Any) -> Any:
    """Refuse what is neither a name nor a list of combinations, in one piece."""
    combinations = isinstance(value, list) and all(
        isinstance(one, list) and all(isinstance(button, str) for button in one) for one in value
    )
    if value is not None and not isinstance(value, str) and not combinations:
        raise ValueError("neither a name nor a list of combinations")
    return value


class EnvConfig(Table):
    """`[env]`: which game, how many at once, and what happens to its frames."""

    id: str
    """A registered name, a Gymnasium id, package.module:Id-v0 or path/to/file.py:make_env."""
    num_envs: Annotated[Int, Field(ge=1, le=1024)] = 1
    """Environments that are stepped together."""
    frame_skip: Annotated[Int, Field(ge=1, le=60)] | None = None
    """Frames an action is held for; Atari 4, others 1."""
    sticky_probability: Probability | None = None
    """Atari, Mario: chance that a frame repeats the last action; 0, or what an ALE/* id says."""
    noop_max: Annotated[Int, Field(ge=0, le=1000)] | None = None
    """Atari, Mario: up to this many frames of no action begin an episode; 30."""
    action_set: Annotated[str | list[list[str]] | None, BeforeValidator(_check_actions)] = None
    """Named choice of actions; Atari minimal or full, Pong also up-down and stay-up-down; Mario
    right-only, simple or complex, or a list of button combinations: [["right"], ["right", "A"]]."""
    reward: str | None = None
    """Mario: classic, progress or shaped; others have the game's own reward only."""
    life_loss_terminates: bool = False
    """Atari, whole game of Mario: a lost life cuts the bootstrap in training; episodes and returns
    stay the game's."""
    frame_size: Annotated[Int, Field(ge=16, le=512)] | None = None
    """Pictures are shrunk to a square of this many pixels; 84."""
    crop: Annotated[list[Annotated[Int, Field(ge=0)]], Field(min_length=2, max_length=2)] | None = (
        None
    )
    """Rows of the game's picture that are cut off before it is shrunk: at the top, the bottom."""
    frame_stack: Annotated[Int, Field(ge=1, le=16)] | None = None
    """Pictures an observation holds, newest last; 4."""
    max_episode_frames: Count | None = None
    """Frames after which an episode is truncated; Atari and Mario 108_000, to the end of an agent
    step, others as the environment says."""
    num_workers: Annotated[Int, Field(ge=0, le=1024)] = 0
    """Processes that share the environments, at most num_envs; 0: they are stepped one after the
    other in the program's own. Not for environments that are stepped together as they are."""
    step_limit_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """Seconds after which an environment in a worker process is taken to hang; 120."""
    max_restarts: Annotated[Int, Field(ge=0, le=10**6)] | None = None
    """How many failures of an environment a session of training makes good by ending the episode
    and making the environment anew; 3."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the environment's make function."""


@dataclass(frozen=True, kw_only=True)
class EnvSpec:
    """An environment, by the name that a config gives.

    Attributes:
        name: what `[env] id` says.
        make: returns a raw `gymnasium.Env`; takes `render_mode` and `[env] kwargs`.
        make_vector: a native vector environment from the config and the number of environments.
        make_player: the player that belongs to it.
        resolve: checks and completes what of a config only this environment knows; called before
            the rest of it is resolved.
        preprocessing: of pictures; None where observations are no pictures.
        shows_pictures: of a config; tells whether observations are pictures after all, where there
            is `preprocessing`. Without it they are.
        action_sets: names and the environment's actions that they offer.
        action_set: the one used unless the config says otherwise.
        buttons: of which `[env] action_set` may list combinations; none where it takes names only.
        rewards: names that `[env] reward` takes; none where the game's own is the only one.
        reward: the one used unless the config says otherwise.
        action_names: what to call the environment's own actions when they are shown; None for
            what its method `get_action_meanings` says, or else their numbers.
        sticky_probability, noop_max, max_episode_frames: likewise; None where the environment
            knows no such thing.
        reward_threshold: mean return that counts as solved.
        outcome: entries of the `info` of an episode's last step that tell how it came out, such as
            ("x_pos", "score"): each must be there, and be a number, a text, true or false.
        success: the entry, true or false, that says whether the episode was completed; if None,
            `is_success` where that is there. A vector environment or a player of one's own fills
            in outcomes itself.
        draw_map: returns the places in which episodes ended, as pictures; for `rlagents evaluate
            --map`. Gets a resolved config and the episodes.
        description: one line for `rlagents list envs`.
    """

    name: str
    make: Callable[..., gym.Env[Any, Any]]
    make_vector: Callable[[EnvConfig, int], VectorEnv] | None = None
    make_player: Callable[[EnvConfig], Player] | None = None
    resolve: Callable[[EnvConfig], EnvConfig] | None = None
    preprocessing: Preprocessing | None = None
    shows_pictures: Callable[[EnvConfig], bool] | None = None
    action_sets: Mapping[str, Sequence[int]] = field(default_factory=dict)
    action_set: str = DEFAULT
    buttons: Sequence[str] = ()
    rewards: Sequence[str] = ()
    reward: str | None = None
    action_names: Sequence[str] | None = None
    sticky_probability: float | None = None
    noop_max: int | None = None
    max_episode_frames: int | None = None
    reward_threshold: float | None = None
    outcome: Sequence[str] = ()
    success: str | None = None
    draw_map: Callable[[EnvConfig, Sequence[Walk]], Map] | None = None
    description: str = ""

    @property
    def tells_success(self) -> bool | None:
        """Return whether episodes are known to tell if they were completed; None: time will show.

        Any Gymnasium environment may have `is_success` in its last `info`.
        """
        if self.success is not None:
            return True
        return None if self.make_vector is None else False

    def outcome_reader(self) -> OutcomeReader:
        """Return what reads an outcome from the `info` of an episode's last step."""
        return OutcomeReader(self.outcome, self.success)


_registered: dict[str, EnvSpec] = {}


def register_env(spec: EnvSpec) -> None:
    """Make `spec` available under its name, in this process.

    Raises:
        UsageError: another environment has that name already.
    """
    known = _registered.get(spec.name)
    if (known is not None and known != spec) or spec.name in _builtin():
        raise UsageError(f"register_env: the name {spec.name!r} is taken; choose another.")
    _registered[spec.name] = spec


def _builtin() -> dict[str, Callable[[], EnvSpec]]:
    from rlagents.envs import atari, cartpole
    from rlagents.envs.mario import specs as mario

    specs: dict[str, Callable[[], EnvSpec]] = {
        "cartpole": cartpole.cartpole_spec,
        "pong": functools.partial(atari.atari_spec, "pong", name="pong"),
    }
    for game in atari.games():
        specs[f"atari/{game}"] = functools.partial(atari.atari_spec, game)
    for name in mario.mario_names():
        specs[name] = functools.partial(mario.mario_spec, name)
    return specs


def list_envs() -> list[EnvSpec]:
    """Return every environment that has a name of its own, sorted by it, short names first.

    What another package announces and does not deliver is named on standard error and left out.
    """
    specs = [make() for make in _builtin().values()] + list(_registered.values())
    for point in _entry_points().values():
        try:
            specs.append(_entry_point_spec(point))
        except UsageError as error:
            print(f"warning: {error}", file=sys.stderr)
    return sorted(specs, key=lambda spec: ("/" in spec.name, spec.name))


def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group="rlagents.envs")}


def _entry_point_spec(point: importlib.metadata.EntryPoint) -> EnvSpec:
    package = point.dist.name if point.dist is not None else point.module
    where = f"The environment {point.name!r} of the package {package!r} ({point.value})"
    try:
        spec = point.load()()
    except Exception as error:  # somebody else's package: whatever it raises, name it
        raise UsageError(
            f"{where} fails: {error!r}. Mend, update or uninstall that package."
        ) from error
    if not isinstance(spec, EnvSpec):
        raise UsageError(f"{where} must return an rlagents.EnvSpec, not {type(spec).__name__}.")
    return spec


def find_env(env_id: str) -> EnvSpec:
    """Return the spec that an `[env] id` means.

    Raises:
        UsageError: nothing answers to it, or importing it failed.
    """
    builtin = _builtin()
    if env_id in _registered:
        return _registered[env_id]
    if env_id in builtin:
        return builtin[env_id]()
    if env_id.startswith("ALE/"):
        return _ale_spec(env_id)
    path, colon, name = env_id.rpartition(":")
    if colon and path.endswith(".py"):
        return EnvSpec(name=env_id, make=_load_file(Path(path), name))
    points = _entry_points()
    if env_id in points:
        return _entry_point_spec(points[env_id])
    if env_id.startswith("atari/"):
        from rlagents.envs.atari import atari_spec

        return atari_spec(env_id.removeprefix("atari/"))
    return _gymnasium_spec(env_id, [*builtin, *_registered, *points])


def absolute_id(env_id: str) -> str:
    """Return `env_id` with a file's path made absolute, so that it holds from any folder."""
    path, colon, name = env_id.rpartition(":")
    if colon and path.endswith(".py"):
        return f"{Path(path).expanduser().resolve()}:{name}"
    return env_id


def _ale_spec(env_id: str) -> EnvSpec:
    import ale_py

    from rlagents.envs.atari import atari_spec

    gym.register_envs(ale_py)
    try:
        kwargs = gym.spec(env_id).kwargs
    except gym.error.Error as error:
        raise UsageError(f"[env] id: {env_id!r}: {error}") from None
    return atari_spec(
        kwargs["game"],
        name=env_id,
        sticky_probability=float(kwargs["repeat_action_probability"]),
    )


def _gymnasium_spec(env_id: str, known: list[str]) -> EnvSpec:
    module, colon, gym_id = env_id.rpartition(":")
    if colon:
        try:
            importlib.import_module(module)
        except Exception as error:  # somebody else's module: whatever it raises, name it
            raise UsageError(
                f"[env] id: {env_id!r} needs the module {module!r}, which cannot be imported: "
                f"{error}. Install it, or run from the folder that holds it with PYTHONPATH=."
            ) from error
    try:
        spec = gym.spec(gym_id)
    except gym.error.Error as error:
        names = [*known, *gym.registry]
        raise UsageError(
            f"[env] id: there is no environment {env_id!r}{did_you_mean(gym_id, names)} "
            "It must be a name of `rlagents list envs`, a Gymnasium id, package.module:Id-v0 or "
            f"path/to/file.py:make_env. (Gymnasium says: {error})"
        ) from None
    return EnvSpec(
        name=env_id,
        make=functools.partial(gym.make, env_id, disable_env_checker=True),
        reward_threshold=spec.reward_threshold,
    )


def _load_file(path: Path, name: str) -> Callable[..., gym.Env[Any, Any]]:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise UsageError(f"[env] id: there is no file {path}; it should define {name or 'a make'}.")
    module_name = f"rlagents_user_env_{path.stem}"
    module_spec = importlib.util.spec_from_file_location(module_name, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_name] = module
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:  # the user's own file: whatever it raises, name it
        raise UsageError(f"[env] id: {path} fails when imported: {error!r}") from error
    make = getattr(module, name, None)
    if not callable(make):
        found = [key for key, value in vars(module).items() if callable(value)]
        raise UsageError(
            f"[env] id: {path} has no function or class {name!r}{did_you_mean(name, found)}"
        )
    return make  # type: ignore[no-any-return]


def resolve_env_config(config: EnvConfig, spec: EnvSpec) -> EnvConfig:
    """Return `config` with every default of the environment filled in.

    Raises:
        UsageError: it sets something that the environment does not have.
    """
    defaults: dict[str, Any] = {"id": absolute_id(config.id)}
    for key in ("sticky_probability", "noop_max"):
        own = getattr(spec, key)
        value = getattr(config, key)
        if own is None and value:
            raise UsageError(
                f"[env] {key}: {spec.name} has no such option (Atari games and Mario have); leave "
                "it out."
            )
        defaults[key] = value if value is not None else own or 0
    if config.life_loss_terminates and spec.noop_max is None:
        raise UsageError(
            f"[env] life_loss_terminates: {spec.name} does not report lives (Atari games do); "
            "leave it out."
        )
    _check_reward(config, spec)
    _check_action_set(config, spec)
    if spec.resolve is not None:
        config = spec.resolve(config)
        defaults["kwargs"] = config.kwargs
    pictures = spec.preprocessing
    own_skip = pictures.frame_skip if pictures else 1
    if spec.shows_pictures is not None and not spec.shows_pictures(config):
        pictures = None
    if spec.make_vector is None:
        env = _make_raw(spec, config, None)
        if pictures is None and is_image(env.observation_space):
            pictures = Preprocessing()
        env.close()
        own_skip = pictures.frame_skip if pictures else 1
        _refuse_double_skip(env, config.frame_skip or own_skip, spec)
    for_pictures = (config.frame_size, config.frame_stack, config.crop)
    if pictures is None and any(value is not None for value in for_pictures):
        raise UsageError(
            f"[env] frame_size, frame_stack, crop: {spec.name} has no pictures as observations; "
            "leave them out."
        )
    defaults["frame_skip"] = config.frame_skip or own_skip
    defaults["action_set"] = config.action_set or spec.action_set
    defaults["reward"] = config.reward or spec.reward
    defaults["max_episode_frames"] = config.max_episode_frames or spec.max_episode_frames
    if pictures is not None:
        defaults["frame_size"] = config.frame_size or FRAME_SIZE
        defaults["frame_stack"] = config.frame_stack or FRAME_STACK
        defaults["crop"] = config.crop or [0, 0]
    return config.model_copy(update=defaults | _resolve_workers(config, spec))


def _resolve_workers(config: EnvConfig, spec: EnvSpec) -> dict[str, Any]:
    """Return the defaults of what concerns worker processes and failures.

    Raises:
        UsageError: the config asks for what does nothing.
    """
    if spec.make_vector is not None:
        for key in PROCESS_KEYS:
            if getattr(config, key) not in (None, 0):
                raise UsageError(
                    f"[env] {key}: {spec.name} steps all its environments together, in this "
                    "process, and knows no workers; leave it out."
                )
        return {}
    if config.num_workers > config.num_envs:
        raise UsageError(
            f"[env] num_workers: expected at most num_envs = {config.num_envs}, one process an "
            f"environment, got {config.num_workers}."
        )
    if config.num_workers == 0 and config.step_limit_s is not None:
        raise UsageError(
            "[env] step_limit_s: only a process of its own can be ended when it hangs; set "
            "[env] num_workers to 1 or more, or leave step_limit_s out."
        )
    restarts = MAX_RESTARTS if config.max_restarts is None else config.max_restarts
    limit_s = config.step_limit_s or STEP_LIMIT_S
    return {
        "step_limit_s": limit_s if config.num_workers else None,
        "max_restarts": restarts,
    }


def _check_reward(config: EnvConfig, spec: EnvSpec) -> None:
    """Refuse a reward that the environment does not have.

    Raises:
        UsageError: it has no such reward, or none but the game's own.
    """
    if config.reward is None or config.reward in spec.rewards:
        return
    if not spec.rewards:
        raise UsageError(
            f"[env] reward: {spec.name} has no such option (Mario has); leave it out, or set it to "
            '"none".'
        )
    raise UsageError(
        f"[env] reward: {spec.name} has no reward {config.reward!r}"
        f"{did_you_mean(config.reward, spec.rewards)} It has: {', '.join(spec.rewards)}."
    )


def _check_action_set(config: EnvConfig, spec: EnvSpec) -> None:
    """Refuse an action set that the environment does not have.

    Raises:
        UsageError: there is none of that name, or it is a list and must be a name.
    """
    if not isinstance(config.action_set, list):
        choose_action_set(spec.action_sets, config.action_set or spec.action_set, spec.name)
    elif not spec.buttons:
        known = sorted(spec.action_sets) or [DEFAULT]
        raise UsageError(
            f"[env] action_set: {spec.name} takes the name of an action set, not a list of buttons "
            f"(Mario does); it has: {', '.join(known)}."
        )


def _own_actions(spec: EnvSpec, config: EnvConfig) -> IntArray | None:
    """Return the environment's action for each of the agent's: [A] int64, or None for all."""
    assert not isinstance(config.action_set, list)  # such environments make their own vectors
    return choose_action_set(spec.action_sets, config.action_set or DEFAULT, spec.name)


def make_vector_env(
    spec: EnvSpec,
    config: EnvConfig,
    num_envs: int,
    *,
    timer: Timer = no_timer,
    max_restarts: int = 0,
    repeat: bool = False,
) -> VectorEnv:
    """Return `num_envs` environments of a resolved config.

    Args:
        spec: of the environment.
        config: resolved.
        num_envs: N.
        timer: measures the preprocessing of pictures, where it does not happen in the emulator or
            in a worker process.
        max_restarts: how many environments that fail are made anew (`take_faults` tells of them).
        repeat: in worker processes, go on with the episode of one that failed.

    Raises:
        UsageError: the environment cannot be made, or its observations cannot be used.
    """
    if spec.make_vector is not None:
        return spec.make_vector(config, num_envs)
    if config.num_workers:
        if sys.platform == "win32":
            raise UsageError(
                "[env] num_workers: worker processes need Linux or macOS; set it to 0, with which "
                "the same is learned in this process."
            )
        from rlagents.envs.workers import WorkerVectorEnv

        assert config.step_limit_s is not None  # resolved
        return WorkerVectorEnv(
            _plan(spec, config),
            spec.name,
            num_envs,
            min(config.num_workers, num_envs),
            step_limit_s=config.step_limit_s,
            max_restarts=max_restarts,
            repeat=repeat,
        )
    makers = [lambda: make_single(spec, config, timer=timer)] * num_envs
    return SyncVectorEnv(makers, spec.outcome_reader(), max_restarts=max_restarts)


def _plan(spec: EnvSpec, config: EnvConfig) -> dict[str, Any]:
    """Return what a worker process makes its environments from, as JSON.

    Raises:
        UsageError: another process cannot get at the function that makes them.
    """
    make = None
    if spec.name in _registered:
        make = (getattr(spec.make, "__module__", ""), getattr(spec.make, "__qualname__", ""))
        module, name = make
        if module in ("", "__main__") or not name or "<" in name:
            raise UsageError(
                f"[env] num_workers: a worker process cannot import what makes {spec.name} "
                f"({spec.make!r}). Let it be a function or a class at the top of a module, or name "
                "the environment as path/to/file.py:make_env."
            )
    return {
        "config": config.model_dump(mode="json"),
        "make": make,
        "name": spec.name,
        "action_sets": {name: list(actions) for name, actions in spec.action_sets.items()},
        "outcome": list(spec.outcome),
        "success": spec.success,
    }


def make_eval_env(spec: EnvSpec, config: EnvConfig, num_envs: int) -> VectorEnv:
    """Return `num_envs` environments for episodes that are played to their ends.

    Emulators step all games of a vector environment, also those that are over. In groups of four,
    the last games are played by themselves, in a quarter of the time.

    Args:
        spec: of the environment.
        config: resolved.
        num_envs: N.

    Raises:
        UsageError: the environment cannot be made, or its observations cannot be used.
    """
    if spec.make_vector is None and config.num_workers:  # a crash need not happen again
        restarts = config.max_restarts or 0
        return make_vector_env(spec, config, num_envs, max_restarts=restarts, repeat=True)
    if spec.make_vector is None or spec.preprocessing is None or num_envs <= _GROUP:
        return make_vector_env(spec, config, num_envs)
    sizes = [min(_GROUP, num_envs - begin) for begin in range(0, num_envs, _GROUP)]
    return GroupedVectorEnv([make_vector_env(spec, config, size) for size in sizes])


def make_player(spec: EnvSpec, config: EnvConfig) -> Player:
    """Return a player of a resolved config: it shows every frame in colour.

    Raises:
        UsageError: the environment cannot render pictures, or the spec names its actions wrongly.
    """
    if spec.make_player is not None:
        return spec.make_player(config)
    return RenderPlayer(
        lambda sink: make_single(spec, config, sink),
        spec.name,
        own_actions=spec.action_names,
        action_set=_own_actions(spec, config),
        outcome=spec.outcome_reader(),
    )


def _make_raw(spec: EnvSpec, config: EnvConfig, render_mode: str | None) -> gym.Env[Any, Any]:
    kwargs = dict(config.kwargs)
    try:
        if render_mode is None:
            env = spec.make(**kwargs)
        else:
            try:
                env = spec.make(render_mode=render_mode, **kwargs)
            except TypeError:  # it knows no render mode, or the next line says what is wrong
                env = spec.make(**kwargs)
    except gym.error.DependencyNotInstalled as error:
        raise UsageError(f"[env] id: {spec.name} needs a package: {error}") from error
    except UsageError:
        raise
    except Exception as error:  # somebody else's environment: whatever it raises, name it
        raise UsageError(f"[env] id: {spec.name} cannot be made: {error}") from error
    if not isinstance(env, gym.Env):
        raise UsageError(
            f"[env] id: {spec.name} must return a gymnasium.Env, not {type(env).__name__}."
        )
    for space in ("observation_space", "action_space"):
        if not isinstance(getattr(env, space, None), gym.Space):
            raise UsageError(f"[env] id: {spec.name} has no {space}; set it in its __init__.")
    return env


def make_single(
    spec: EnvSpec,
    config: EnvConfig,
    sink: Callable[[Array], None] | None = None,
    *,
    timer: Timer = no_timer,
) -> gym.Env[Any, Any]:
    """Return one environment with every wrapper; with a sink, its rendered frames go there.

    Raises:
        UsageError: it cannot be made, or its observations cannot be used.
    """
    env = _make_raw(spec, config, "rgb_array" if sink is not None else None)
    if config.max_episode_frames is not None:
        env = gym.wrappers.TimeLimit(env, config.max_episode_frames)
    if sink is not None and env.render_mode == "rgb_array":
        env = TapFrames(env, sink)
    assert config.frame_skip is not None  # resolved
    if config.frame_skip > 1:
        merges = config.frame_size is not None
        env = SkipFrames(env, config.frame_skip, merge_pictures=merges, timer=timer)
    if config.frame_size is not None:
        assert config.frame_stack is not None  # resolved
        assert config.crop is not None
        size, stack = config.frame_size, config.frame_stack
        env = StackGrayFrames(env, size, stack, config.crop, timer=timer)
    elif not isinstance(env.observation_space, gym.spaces.Box):
        env = _flatten(env, spec)
    actions = _own_actions(spec, config)
    return env if actions is None else SelectActions(env, actions)


def _flatten(env: gym.Env[Any, Any], spec: EnvSpec) -> gym.Env[Any, Any]:
    """Turn discrete, tuple and dict observations into vectors (one-hot where discrete)."""
    if not env.observation_space.is_np_flattenable:
        raise UsageError(
            f"[env] id: {spec.name} observes {env.observation_space}, which has no fixed size; "
            "wrap it so that it returns an array."
        )
    return gym.wrappers.FlattenObservation(env)


def _refuse_double_skip(env: gym.Env[Any, Any], frame_skip: int, spec: EnvSpec) -> None:
    """Raise if `[env] frame_skip` would come on top of one inside the environment."""
    if frame_skip == 1:
        return
    inner: Any = env
    while inner is not None:
        for name in ("frame_skip", "_frame_skip", "frameskip", "_frameskip", "_skip"):
            skip = getattr(inner, name, 1)
            if isinstance(skip, tuple) or (isinstance(skip, int) and skip > 1):
                raise UsageError(
                    f"[env] frame_skip: {spec.name} skips frames itself "
                    f"({type(inner).__name__}: {skip}), so {frame_skip} would skip twice; "
                    "set [env] frame_skip = 1."
                )
        inner = getattr(inner, "env", None)
