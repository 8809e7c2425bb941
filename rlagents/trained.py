"""What can be done with an agent that has been trained, wherever its network lies."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch

from rlagents import machine, maps, seeding
from rlagents.agents import find_agent
from rlagents.agents.base import Agent, Policy
from rlagents.checkpoint import Checkpoint
from rlagents.config import RunConfig, build_config, no_sample
from rlagents.envs import (
    EnvConfig,
    EnvSpec,
    Player,
    VectorEnv,
    find_env,
    make_eval_env,
    make_player,
    make_vector_env,
    resolve_env_config,
)
from rlagents.envs.registry import PROCESS_KEYS
from rlagents.envs.reproducible import find_difference
from rlagents.errors import RLAgentsError, UsageError
from rlagents.evaluate import Evaluation, PlayedEpisode, num_eval_envs, play_episodes
from rlagents.explain import Explainer
from rlagents.film import Name, View, ViewOptions
from rlagents.overlays import Draw, Overlays
from rlagents.recording import record_episodes
from rlagents.spaces import describe_space, rebuild_space
from rlagents.tiles import MAX_TILES
from rlagents.trust import require_trust

PROTOCOL_KEYS = ("epsilon", "sample")  # of `[evaluation]`: how a trained agent plays


class TrainedAgent:
    """An agent that has been trained: its policy is loaded, evaluated and recorded.

    Args:
        directory: the folder that it lies in.
        manifest: what describes it, with a run's `config`, spaces, `threads` and `reproducible`.
        source: what to call the manifest's file in an error.
        allow_import: whether its environment may be code that this user has not trained with here.

    Raises:
        UsageError: the config is none that this version takes.
    """

    def __init__(
        self,
        directory: Path,
        manifest: Mapping[str, Any],
        source: Path,
        *,
        allow_import: bool = False,
    ) -> None:
        self.directory = directory
        self._allow_import = allow_import
        self.config = self._trained_config = build_config(manifest["config"], {}, str(source))
        self._manifest = manifest
        self._source = source
        self._changes: dict[str, Any] = {}  # to `[env]`
        self._protocol: dict[str, Any] = {}  # changes to `[evaluation]`

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.directory)!r})"

    def _find_env(self) -> EnvSpec:
        """Return the environment to play it in, which may import code.

        Raises:
            UsageError: it would, and nobody has allowed that.
        """
        manifest = self._manifest
        if "id" in self._changes:
            # What the user names needs no leave, but for arguments of the run's that go to it.
            kwargs = {} if "kwargs" in self._changes else manifest["config"]["env"].get("kwargs")
            if not kwargs:
                return find_env(self.config.env.id)
            env = {**manifest["config"]["env"], "id": self.config.env.id}
            manifest = {**manifest, "config": {**manifest["config"], "env": env}}
        require_trust(manifest, self.directory, allow_import=self._allow_import)
        return find_env(self.config.env.id)

    def in_env(self, changes: Mapping[str, Any]) -> Self:
        """Return the same agent, to play in another environment than it was trained in.

        Args:
            changes: to `[env]`, by key, such as `{"sticky_probability": 0.25}` or
                `{"id": "mario-1-2"}`; all else stays as it was in training, but for worker
                processes where the environment knows none.

        Raises:
            UsageError: a key or value is refused, the environment may not be imported, or it shows
                other observations or has other actions.
        """
        other = copy.copy(self)
        other._changes = {**self._changes, **changes}
        other.config = other._changed_config()
        spec = other._find_env()
        asked = _without_old_processes(other.config.env, spec, other._changes)
        env_config = resolve_env_config(asked, spec)
        other.config = other.config.model_copy(update={"env": env_config})
        env = make_vector_env(spec, env_config, 1)
        with playing(env, env_config.id):
            for space in ("observation_space", "action_space"):
                here, known = describe_space(getattr(env, space)), self._manifest[space]
                if here != known:
                    flags = ", ".join(f"--env.{key.replace('_', '-')}" for key in changes)
                    raise UsageError(
                        f"{flags}: {env_config.id} then has {_in_words(here)}, but the agent was "
                        f"trained with {_in_words(known)}; leave it out, or choose another value."
                    )
        difference = find_difference(
            lambda: make_vector_env(spec, env_config, 1),
            int(self._manifest["action_space"]["n"]),
            self.config.seed,
        )
        other._manifest = {**self._manifest, "reproducible": difference is None}
        return other

    def with_evaluation(self, changes: Mapping[str, Any]) -> Self:
        """Return the same agent, to be evaluated by another protocol than its config's.

        Args:
            changes: to `[evaluation]`, by key: `epsilon` and `sample`, such as `{"epsilon": 0.01}`.

        Raises:
            UsageError: a key or value is refused.
        """
        for key in changes:
            if key not in PROTOCOL_KEYS:
                flag = "--evaluation." + key.replace("_", "-")
                raise UsageError(
                    f"{flag}: of [evaluation], {' and '.join(PROTOCOL_KEYS)} change how a trained "
                    "agent plays (and --episodes how many it plays); leave this one out."
                )
        other = copy.copy(self)
        other._protocol = {**self._protocol, **changes}
        config = other._changed_config()
        other.config = config.model_copy(update={"env": self.config.env})
        return other

    def _changed_config(self) -> RunConfig:
        """Return the training's config with all changes to it, as they have been asked for."""
        tables = {"env": self._changes, "evaluation": self._protocol}
        overrides = {
            f"{table}.{key}": value for table, keys in tables.items() for key, value in keys.items()
        }
        return build_config(self._manifest["config"], overrides, str(self._source))

    def _differences(self) -> dict[str, Mapping[str, Any]]:
        """Return what differs from the training's config, by table, for files and reports."""
        differences: dict[str, Mapping[str, Any]] = {}
        for table, changes in (("env", self._changes), ("evaluation", self._protocol)):
            now, then = (
                getattr(config, table).model_dump(mode="json")
                for config in (self.config, self._trained_config)
            )
            changed = {key: now[key] for key in changes if now[key] != then[key]}
            if changed:
                differences[table] = changed
        return differences

    def _load(self, weights: Path, device: str) -> Policy:
        """Return the policy that an agent has saved in the folder `weights`.

        From then on torch computes with as many threads as the training did, and without
        denormals: what a policy chooses can hang on the last bits.
        """
        agent_class: type[Agent] = find_agent(self.config.agent_name)
        device = machine.choose_device(device)
        machine.prepare_torch(int(self._manifest["threads"]), device)
        try:
            space = rebuild_space(self._manifest["observation_space"])
            return agent_class.load_policy(
                self.config,
                space,  # type: ignore[arg-type]  # always a Box: it was written from one
                rebuild_space(self._manifest["action_space"]),
                weights,
                torch.device(device),
            )
        except RLAgentsError:
            raise
        except Exception as error:  # whatever stands in the files
            raise UsageError(f"{weights} does not fit its config: {error}") from error

    def _evaluate(
        self,
        found: Checkpoint,
        policy: Policy,
        episodes: int | None,
        seed: int | None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Evaluation:
        """Let a checkpoint's policy play whole episodes by the config's evaluation protocol."""
        protocol = self.config.evaluation
        if self._protocol.get("sample") and policy.kind != "probabilities":
            raise no_sample(self.config.agent_name)
        count = protocol.episodes if episodes is None else episodes
        if count < 1:
            raise UsageError(f"--episodes: expected 1 or more, got {count}.")
        seed = self.config.seed if seed is None else seed
        if seed < 0:
            raise UsageError(f"--seed: expected 0 or more, got {seed}.")
        number = num_eval_envs(count, self.config.env.num_envs)
        env = make_eval_env(self._find_env(), self.config.env, number)
        with playing(env, self.config.env.id):
            played = play_episodes(
                policy,
                env,
                [seeding.episode_seed(seed, "evaluation", index) for index in range(count)],
                epsilon=protocol.epsilon,
                sample=protocol.sample,
                should_stop=should_stop,
            )
        return Evaluation(
            str(self.directory),
            found.name,
            found.step,
            self.config.env.id,
            seed,
            protocol.epsilon,
            played,
            self._differences(),
        )

    def check_map(self, output: str | Path) -> None:
        """Raise if `draw_map` cannot draw a map there; nothing is played for that.

        Raises:
            UsageError: its environment has no map, or the file cannot be written.
        """
        maps.check_map(self._find_env(), Path(output))

    def draw_map(self, evaluation: Evaluation, output: str | Path) -> None:
        """Draw where the episodes of an evaluation ended over the level.

        Args:
            evaluation: what `evaluate` has returned.
            output: the picture, .png, .svg or .pdf; an older one is replaced.

        Raises:
            UsageError: as for `check_map`.
            RLAgentsError: the environment failed while it was played again, or the disk is full.
        """
        maps.draw_map(self._find_env(), self.config.env, evaluation, Path(output))

    def _view(self, episodes: int, tiled: bool, options: ViewOptions) -> View:
        """Return how so many episodes are shown: as `[recording]` says, with options on top."""
        if tiled and not 2 <= episodes <= MAX_TILES:
            raise UsageError(
                f"--tiled shows several episodes at once: expected --episodes 2 to {MAX_TILES}, "
                f"got {episodes}."
            )
        if tiled and options.get("explain"):
            raise UsageError(
                "--explain does not go with --tiled: it draws on one game; leave one of them out."
            )
        return View.from_config(self.config.recording, **options)

    def _record(
        self,
        found: Checkpoint,
        policy: Policy,
        episodes: int,
        seed: int | None,
        name: Callable[[int, Sequence[int]], Name],
        *,
        tiled: bool,
        view: View,
    ) -> list[Path]:
        """Write videos of the episodes that `_evaluate` plays.

        Args:
            found: the policy's checkpoint.
            policy: plays.
            episodes: how many.
            seed: of the episodes; the config's if None.
            name: what names a video, from its number and its episodes' seeds, and then from the
                return and whether the episode was completed.
            tiled: show all episodes at once in one video.
            view: how they are shown.

        Returns:
            the videos' paths.
        """
        config = self.config
        # First of all: what cannot be explained is refused before anything is played.
        explainers = {
            method: Explainer(policy, method, of=view.explain_of) for method in view.explain
        }
        evaluation = self._evaluate(found, policy, episodes, seed)
        groups = [evaluation.played] if tiled else [(one,) for one in evaluation.played]
        about = {"env_id": config.env.id, "step": evaluation.step, "values_are": policy.kind}
        about |= self._differences()
        with contextlib.ExitStack() as stack:
            if explainers:
                env = make_vector_env(self._find_env(), config.env, 1)
                stack.enter_context(playing(env, config.env.id))

            def overlays(episode: PlayedEpisode) -> Mapping[str, Draw]:
                if not explainers:
                    return {}
                crop = config.env.crop or (0, 0)
                return Overlays(explainers, env, episode.seed, episode.actions, crop).draws()

            players = []
            for _ in groups[0]:
                players.append(make_player(self._find_env(), config.env))
                stack.enter_context(playing(players[-1], config.env.id))
            paths = [
                record_episodes(
                    players,
                    policy,
                    group,
                    config.evaluation,
                    reproducible=self._manifest["reproducible"],
                    view=view,
                    path=name(number, [episode.seed for episode in group]),
                    about=about,
                    tiled=tiled,
                    overlays=overlays,
                )
                for number, group in enumerate(groups)
            ]
        return paths


def _without_old_processes(
    config: EnvConfig, spec: EnvSpec, changes: Mapping[str, Any]
) -> EnvConfig:
    """Leave out what the training said of its processes and means nothing after `changes`."""
    if spec.make_vector is not None:
        keys: Sequence[str] = PROCESS_KEYS
    else:
        keys = () if config.num_workers else ("step_limit_s",)
    fields = EnvConfig.model_fields
    return config.model_copy(
        update={key: fields[key].default for key in keys if key not in changes}
    )


def _in_words(space: Mapping[str, Any]) -> str:
    if space["kind"] == "discrete":
        return f"{space['n']} actions"
    return f"observations of {'x'.join(map(str, space['shape']))} {space['dtype']}"


@contextlib.contextmanager
def playing(env: VectorEnv | Player, name: str) -> Iterator[None]:
    """Close an environment in the end; what it raises while it is played becomes one sentence."""
    try:
        yield
    except RLAgentsError:
        raise
    except Exception as error:  # somebody else's environment: whatever it raises, name it
        raise RLAgentsError(f"[env] id: {name} fails when it is played: {error!r}") from error
    finally:
        env.close()
