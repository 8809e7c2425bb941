"""From a config to a finished run: everything is checked, then built, then written, then run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlagents import machine, trust
from rlagents.agents import find_agent
from rlagents.agents.base import Agent, require_discrete
from rlagents.checkpoint import CheckpointStore
from rlagents.config import RunConfig, build_config, check_sample
from rlagents.envs import (
    EnvSpec,
    VectorEnv,
    find_difference,
    find_env,
    make_eval_env,
    make_player,
    make_vector_env,
    resolve_env_config,
)
from rlagents.errors import RLAgentsError, RunFailedError, StoppedError, UsageError
from rlagents.events import Event, Observer, RunEnded
from rlagents.faults import write_fault
from rlagents.initial import Donor, find_donor, give_weights
from rlagents.lock import RunLock
from rlagents.observers.checkpoints import CheckpointObserver
from rlagents.observers.console import ConsoleObserver
from rlagents.observers.files import FileObserver, cut_logs
from rlagents.observers.tensorboard import TensorBoardObserver
from rlagents.observers.video import VideoObserver
from rlagents.profile import Profile, Timer, as_dict, no_timer, table
from rlagents.run import RunFolder, check_manifest, write_json
from rlagents.runner import DivergedError, Runner, has_reached
from rlagents.signals import StopSignal
from rlagents.spaces import describe_space
from rlagents.types import Footprint

_GOAL = ("return", "success", "episodes")  # keys of [evaluation] that begin with stop_


@dataclass
class _Parts:
    """What a run is made of."""

    config: RunConfig  # resolved
    spec: EnvSpec
    env: VectorEnv
    agent: Agent
    num_actions: int
    threads: int  # that compute a network
    networks_at_once: int  # each with so many
    footprint: Footprint  # of stored experience
    footprint_key: str  # the key that decides it
    free_memory: int  # before there is any
    profile: Profile | None  # where the time goes, if anybody asked


def start_run(
    config: RunConfig,
    *,
    runs_dir: Path,
    name: str | None,
    recipe: str,
    quiet: bool = False,
    profile: bool = False,
    init_from: str | Path | None = None,
    init_checkpoint: str | None = None,
    announce: Callable[[Path], None] = lambda directory: None,
) -> RunFolder:
    """Train a new agent.

    Args:
        config: checked.
        runs_dir: where the run's folder is made.
        name: of the folder; `RECIPE-sSEED-TIMESTAMP` if None.
        recipe: what the config is called.
        quiet: show no progress.
        profile: measure where the time goes, and say so in the end.
        init_from: a run whose trained weights the agent begins with; they and nothing else.
        init_checkpoint: "best", "last" or a step of that run; the best, else the last, if None.
        announce: told the run's folder once it is there.

    Raises:
        UsageError: something is wrong with the config, or the weights of `init_from` do not fit;
            nothing has been written.
        RunFailedError: the run began and could not go on.
        StoppedError: it was asked to stop, and was saved if it had begun.
    """
    check_sample(config)
    if init_checkpoint is not None and init_from is None:
        raise UsageError("--init-checkpoint: needs --init-from RUN beside it, whose it is.")
    with StopSignal() as stop:
        with stop.at_once("Stopped before anything was written."):
            donor = None if init_from is None else find_donor(init_from, init_checkpoint, runs_dir)
            parts = _build(config, threads=None, profile=profile)
            difference = _prepare(parts, donor)
        config = parts.config
        if name is None:
            folder = _create_default(runs_dir, f"{recipe}-s{config.seed}")
        else:
            folder = RunFolder.create(runs_dir, name)
        with RunLock(folder.directory):
            tables = config.model_dump(mode="json")
            folder.write_manifest(
                {
                    "recipe": recipe,
                    "config": tables,
                    "observation_space": describe_space(parts.env.observation_space),
                    "action_space": describe_space(parts.env.action_space),
                    "reproducible": difference is None,
                    "difference": difference,
                    "threads": parts.threads,
                    **machine.describe(),
                    "init_from": None if donor is None else donor.as_dict(),
                    "trained_here": trust.sign(tables["env"]),
                }
            )
            announce(folder.directory)
            console = ConsoleObserver(folder, quiet=quiet)
            _say_what_begins(console, parts, difference)
            if donor is not None:
                console.say(f"beginning with the weights of {donor.directory}, {donor.checkpoint}")
            _run(folder, parts, console, stop, reproducible=difference is None)
    return folder


def _prepare(parts: _Parts, donor: Donor | None) -> str | None:
    """Give the agent its weights; return why episodes cannot be rebuilt, None if they can."""
    try:
        if donor is not None:
            give_weights(donor, parts.agent, parts.config)
        try:
            return _find_difference(parts)
        except Exception as error:  # somebody else's environment: whatever it raises, name it
            what = error if isinstance(error, RLAgentsError) else repr(error)
            raise UsageError(
                f"[env] id: {parts.config.env.id} fails when it is played: {what}"
            ) from error
    except BaseException:
        parts.env.close()
        raise


def _say_what_begins(console: ConsoleObserver, parts: _Parts, difference: str | None) -> None:
    config = parts.config
    console.say(
        f"{config.env.id}: {parts.env.num_envs} environments, {_describe_threads(parts)} on "
        f"{config.device}; stored experience takes {_describe(parts.footprint)}"
    )
    if parts.footprint.memory > parts.free_memory:
        console.say(
            f"warning: {parts.free_memory / 1e9:.1f} GB of memory are free, which is enough only "
            f"if frames compress well; watch it, or lower {_option(parts.footprint_key)}"
        )
    if difference is not None:
        console.say(
            f"warning: {config.env.id} does not reproduce itself from a seed ({difference}), so "
            "training episodes cannot be shown later and resuming is not exact"
        )


def resume_run(
    folder: RunFolder,
    *,
    total_steps: int | None = None,
    quiet: bool = False,
    profile: bool = False,
    allow_import: bool = False,
    announce: Callable[[Path], None] = lambda directory: None,
) -> RunFolder:
    """Go on with a run from its last intact checkpoint, for `total_steps` in all.

    A run that has reached its `stop_return` and `stop_success` goes on without them, if
    `total_steps` are given.

    Raises:
        UsageError: another process writes to it, its environment is code that this user has not
            trained with here and `allow_import` is not set, it has no intact checkpoint, all its
            steps are done, what it was to reach is reached and no `total_steps` are given, or these
            are fewer than are done.
        RunFailedError: the run began and could not go on.
        StoppedError: it was asked to stop, and was saved if it had begun.
    """
    with StopSignal() as stop, RunLock(folder.directory):
        return _resume(
            folder,
            stop,
            total_steps=total_steps,
            quiet=quiet,
            profile=profile,
            allow_import=allow_import,
            announce=announce,
        )


def _resume(
    folder: RunFolder,
    stop: StopSignal,
    *,
    total_steps: int | None,
    quiet: bool,
    profile: bool,
    allow_import: bool,
    announce: Callable[[Path], None],
) -> RunFolder:
    unchanged = f"Stopped before {folder.directory} was changed."
    manifest = folder.manifest()
    overrides: dict[str, Any] = {} if total_steps is None else {"total_steps": total_steps}
    config = config_of(folder, manifest, overrides)
    trust.require_trust(manifest, folder.directory, allow_import=allow_import)
    store = CheckpointStore(folder.checkpoints, config.checkpoint.keep)
    with stop.at_once(unchanged):
        checkpoint, damage = store.find_intact()
    if total_steps is not None and total_steps < checkpoint.step:
        raise UsageError(
            f"--total-steps: expected {checkpoint.step} or more, since {folder.directory} has done "
            f"so many steps, got {total_steps}."
        )
    # A run that was stopped in its last evaluation has done all its steps and is not finished.
    state = folder.status().get("state")
    goal = _goal(config)
    reached = has_reached(checkpoint.directory, config.evaluation)
    if reached and total_steps is None:
        raise UsageError(
            f"{folder.directory} is finished: an evaluation reached {goal} at step "
            f"{checkpoint.step:,}. To go on all the same: rlagents resume {folder.directory} "
            f"--total-steps {max(config.total_steps, checkpoint.step * 2)}"
        )
    if reached:
        no_goal = dict.fromkeys(f"evaluation.stop_{what}" for what in _GOAL)
        config = config_of(folder, manifest, overrides | no_goal)
    if checkpoint.step >= config.total_steps and state != "stopped":
        raise UsageError(
            f"{folder.directory} is finished: it has done {checkpoint.step:,} of "
            f"{config.total_steps:,} steps. To go on: rlagents resume {folder.directory} "
            f"--total-steps {checkpoint.step * 2}"
        )
    with stop.at_once(unchanged):
        parts = _build(config, threads=manifest["threads"], profile=profile, resuming=True)
    announce(folder.directory)
    console = ConsoleObserver(folder, quiet=quiet)
    needed = parts.footprint.memory_at_least
    if needed > parts.free_memory:  # no refusal: it has worked here, or can work nowhere else
        console.say(f"warning: {_too_much(parts.footprint_key, needed, parts.free_memory)}")
    if reached:
        console.say(f"{goal} has been reached and no longer counts")
    if damage is not None:
        console.say(f"warning: {damage}; going on from {checkpoint.directory}")

    def restore(runner: Runner) -> None:
        try:
            with stop.at_once(unchanged):
                problem = runner.load(checkpoint.directory, reproducible=manifest["reproducible"])
        except RLAgentsError:
            raise
        except Exception as error:  # whatever stands in the files
            raise UsageError(
                f"{checkpoint.directory} cannot be gone on from ({error!r}): another version of "
                "rlagents wrote it (its commit is the git_commit of the run's config.json), or its "
                "config was changed. Train anew, or resume with that version."
            ) from error
        cut_logs(folder, runner.step, runner.episodes, runner.evaluated_at)
        session = machine.describe()
        problem = problem or machine.difference(
            [manifest, *manifest.get("resumes", [])][-1], session, config.device
        )
        tables = config.model_dump(mode="json")
        resumed = {"step": runner.step, "time": time.time(), "not_exact": problem, **session}
        folder.write_manifest(
            {key: value for key, value in manifest.items() if key != "format"}
            | {
                "config": tables,
                "trained_here": trust.sign(tables["env"]),
                "resumes": [*manifest.get("resumes", []), resumed],
            }
        )
        kind = "exactly" if problem is None else f"but not exactly ({problem})"
        console.say(f"resuming at step {checkpoint.step:,}, {kind}")

    _run(folder, parts, console, stop, reproducible=manifest["reproducible"], restore=restore)
    return folder


def config_of(
    folder: RunFolder, manifest: Mapping[str, Any], overrides: Mapping[str, Any] | None = None
) -> RunConfig:
    """Return the resolved config of a run."""
    source = str(folder.directory / "config.json")
    check_manifest(manifest, source)
    return build_config(manifest["config"], overrides or {}, source)


def _goal(config: RunConfig) -> str:
    """Return what an evaluation is to reach, in words."""
    values = {f"stop_{what}": getattr(config.evaluation, f"stop_{what}") for what in _GOAL[:2]}
    return " and ".join(f"{key} = {value:g}" for key, value in values.items() if value is not None)


def _build(
    config: RunConfig, *, threads: int | None, profile: bool, resuming: bool = False
) -> _Parts:
    """Resolve a config and build what it describes, without writing anything."""
    spec = find_env(config.env.id)
    if config.evaluation.stop_success is not None and spec.tells_success is False:
        raise UsageError(
            f"[evaluation] stop_success: {spec.name} does not tell whether an episode was "
            "completed; leave it out, or stop at a return: stop_return."
        )
    device = machine.choose_device(config.device)
    agent_class: type[Agent] = find_agent(config.agent_name)
    env_config = resolve_env_config(config.env, spec)
    tables = agent_class.resolve(config, device) if hasattr(agent_class, "resolve") else {}
    config = config.model_copy(update={"env": env_config, "device": device, **tables})
    networks_at_once = (
        agent_class.networks_at_once(config) if hasattr(agent_class, "networks_at_once") else 1
    )
    watch = None
    if profile:
        watch = Profile(synchronize=torch.cuda.synchronize) if device == "cuda" else Profile()
    env = make_vector_env(
        spec,
        env_config,
        env_config.num_envs,
        timer=watch or no_timer,
        max_restarts=env_config.max_restarts or 0,
    )
    try:
        if threads is None:
            threads = machine.choose_threads(
                pictures=len(env.observation_space.shape) == 3, sharing=networks_at_once
            )
        machine.prepare_torch(threads, device)
        footprint, key = Footprint(0, 0), getattr(agent_class, "footprint_key", "replay.capacity")
        if hasattr(agent_class, "footprint"):
            footprint = agent_class.footprint(
                config, env.observation_space, num_envs=env_config.num_envs
            )
        free = machine.available_memory()
        if not resuming:
            _require_room(config, key, footprint.memory_at_least, free, "memory")
            if footprint.device:
                free_there = machine.available_device_memory()
                _require_room(config, key, footprint.device, free_there, "the GPU's memory")
        agent = agent_class.from_config(
            config,
            env.observation_space,
            env.action_space,
            num_envs=env_config.num_envs,
            seed=config.seed,
            device=torch.device(device),
        )
        num_actions = require_discrete(config.agent_name, env.action_space)
        if watch is not None and hasattr(agent, "measure"):
            agent.measure(watch)
    except BaseException:
        env.close()
        raise
    return _Parts(
        config,
        spec,
        env,
        agent,
        num_actions,
        threads,
        networks_at_once,
        footprint,
        key,
        free,
        watch,
    )


def _describe_threads(parts: _Parts) -> str:
    """Return how networks are computed, in words."""
    threads = f"{parts.threads} thread" + "s" * (parts.threads > 1)
    if parts.networks_at_once > 1:
        return f"{parts.networks_at_once} networks at once with {threads} each"
    return threads


def _describe(footprint: Footprint) -> str:
    """Return what stored experience takes, in words."""
    words = f"up to {footprint.memory / 1e9:.2f} GB"
    if footprint.memory_at_least < footprint.memory:
        words += ", less by as much as its frames can be compressed"
    if footprint.disk:
        words += f", and {footprint.disk / 1e9:.2f} GB of disk"
    if footprint.device:
        words += f", and {footprint.device / 1e9:.2f} GB of the GPU's memory"
    return words


def _require_room(config: RunConfig, key: str, needed: int, free: int, where: str) -> None:
    """Raise UsageError unless stored experience fits into the free part of a memory."""
    if needed > free:
        raise UsageError(
            f"{_too_much(key, needed, free, where)}. Lower {_option(key)} to "
            f"{_fitting(config, key, free / needed)} or less."
        )


def _too_much(key: str, needed: int, free: int, where: str = "memory") -> str:
    table, name = key.split(".")
    return (
        f"[{table}] {name}: stored experience would take {needed / 1e9:.1f} GB, and "
        f"{free / 1e9:.1f} GB of {where} are free"
    )


def _fitting(config: RunConfig, key: str, part: float) -> int:
    """Return a value of `key` that takes no more than this part of the memory."""
    table, name = key.split(".")
    fitting = int(0.9 * part * getattr(getattr(config, table), name, 0))
    return fitting // 1000 * 1000 or fitting


def _option(key: str) -> str:
    return "--" + key.replace("_", "-")


def _find_difference(parts: _Parts) -> str | None:
    """Return why the environment's episodes cannot be rebuilt, None if they can."""
    return find_difference(
        lambda: make_vector_env(parts.spec, parts.config.env, 1),
        parts.num_actions,
        parts.config.seed,
    )


def _create_default(runs_dir: Path, stem: str) -> RunFolder:
    """Make a folder named after the time; two runs of the same second get different names."""
    name = f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    number = 1
    while (runs_dir / name).exists():
        number += 1
        name = f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}-{number}"
    return RunFolder.create(runs_dir, name)


def _close_quietly(observer: Observer, console: ConsoleObserver) -> None:
    """Close an observer; what it could not finish is no reason for a run to fail."""
    try:
        observer.close()
    except Exception as error:  # whatever it is
        with contextlib.suppress(OSError):  # run.log lies on the same disk
            console.say(f"warning: {type(observer).__name__} could not be closed: {error}")


def _keep_fault(folder: RunFolder, error: DivergedError, config: RunConfig) -> str:
    """Write down what made learning diverge; return where it is and what to try, in words."""
    try:
        return write_fault(folder.directory, error.fault, error.step, config)
    except OSError as problem:
        return f"Its batch could not be kept ({problem})."


def _report(
    seconds: Mapping[str, float],
    folder: RunFolder,
    console: ConsoleObserver,
    from_step: int,
    to_step: int,
) -> None:
    """Say where the time went, on the console, in run.log and in profile.json."""
    steps = {"from_step": from_step, "to_step": to_step}
    write_json(folder.directory / "profile.json", steps | as_dict(seconds))
    console.say(f"where the time went, from step {from_step:,} to {to_step:,}:")
    for line in table(seconds):
        console.say(line)


def _run(
    folder: RunFolder,
    parts: _Parts,
    console: ConsoleObserver,
    stop: StopSignal,
    *,
    reproducible: bool,
    restore: Callable[[Runner], None] = lambda runner: None,
) -> None:
    config, spec = parts.config, parts.spec
    store = CheckpointStore(folder.checkpoints, config.checkpoint.keep)
    files = FileObserver(folder, parts.num_actions, say=console.say)
    needed: list[Observer] = [
        files,
        # Logs come first: those of a checkpoint's steps are there whenever it is.
        CheckpointObserver(store, config.checkpoint, before=lambda: files.sync(), say=console.say),
        console,
    ]
    # These may fail without harm: they are switched off, and the run goes on.
    optional: list[Observer] = [TensorBoardObserver(folder)]
    if config.recording.enabled:
        optional.append(
            VideoObserver(
                folder,
                config,
                lambda: make_player(spec, config.env),
                reproducible=reproducible,
                should_stop=stop,
            )
        )
    timer: Timer = parts.profile or no_timer
    named = {VideoObserver: "record", CheckpointObserver: "save"}

    def show(event: Event, observer: Observer) -> None:
        with timer(named.get(type(observer), "log")):
            observer(event)

    step = 0
    first_step: int | None = None  # None until the run has been brought back
    ended: RunEnded | None = None
    runner = Runner(
        config,
        parts.env,
        parts.agent,
        make_eval_env=lambda number: make_eval_env(spec, config.env, number),
        should_stop=stop,
        overlap=config.device != "cpu"
        or parts.networks_at_once > 1
        or config.env.num_workers > 0,  # of slow environments: they are worth a core
        timer=timer,
    )
    try:
        restore(runner)
        first_step = runner.step
        if parts.profile is not None:
            parts.profile.start()
        for event in runner.run():
            step = event.clock.step
            for observer in needed:
                show(event, observer)
            for observer in optional.copy():
                try:
                    show(event, observer)
                except StoppedError as stopped:
                    console.say(str(stopped))
                except Exception as error:  # whatever it is, the run is worth more
                    optional.remove(observer)
                    name = type(observer).__name__
                    console.say(f"warning: {name} is switched off: {error}")
                    _close_quietly(observer, console)
            if isinstance(event, RunEnded):
                ended = event
        if parts.profile is not None:
            _report(parts.profile.seconds(), folder, console, first_step, step)
    except Exception as error:
        if first_step is None and isinstance(error, UsageError | StoppedError):
            raise  # before anything began
        reason = f"The run failed: {error!r}."
        if isinstance(error, RLAgentsError):
            reason = str(error)
        if isinstance(error, DivergedError):
            reason += " " + _keep_fault(folder, error, config)
        with contextlib.suppress(OSError):  # a full disk may be the very reason
            folder.write_status("failed", step, error=reason)
        last = store.index().get("last")
        kept = (
            f"The last checkpoint is {folder.checkpoints / last}; go on from it with: rlagents "
            f"resume {folder.directory}"
            if last
            else f"There was no checkpoint yet; what there is, is in {folder.directory}"
        )
        raise RunFailedError(f"{reason} {kept}") from error
    finally:
        runner.close()
        for observer in [*optional, *needed]:
            _close_quietly(observer, console)
    if ended is not None and ended.state == "stopped":
        raise StoppedError(
            f"Stopped at step {ended.clock.step:,}. Go on with: rlagents resume {folder.directory}"
        )
