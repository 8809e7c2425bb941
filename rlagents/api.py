"""Runs as Python objects, and the agents that come with the package: evaluate, record, load."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from rlagents.agents.base import Policy
from rlagents.checkpoint import Checkpoint, CheckpointStore
from rlagents.config import RunConfig, build_config, read_config
from rlagents.envs import make_player
from rlagents.errors import UsageError
from rlagents.evaluate import Evaluation
from rlagents.film import Name, ViewOptions
from rlagents.naming import beside_others, check_output, named_by_result, numbered, video_path
from rlagents.pretrained import MANIFEST, find_pretrained, read_manifest
from rlagents.recording import rebuild_episode
from rlagents.run import ActionLog, RunFolder, check_manifest
from rlagents.trained import TrainedAgent, playing
from rlagents.training import resume_run, start_run
from rlagents.types import Episode, EvaluationRow


class Run(TrainedAgent):
    """A run, read back from its folder.

    Its environment is imported to play it only; where that is code that this user has not trained
    with on this machine, only if `allow_import` says so.

    Attributes:
        directory: the folder.
    """

    def __init__(self, folder: RunFolder, *, allow_import: bool = False) -> None:
        source, manifest = folder.directory / "config.json", folder.manifest()
        check_manifest(manifest, str(source))
        super().__init__(folder.directory, manifest, source, allow_import=allow_import)
        self._folder = folder

    def status(self) -> dict[str, Any]:
        """Return state, pid, step and last heartbeat."""
        return self._folder.status()

    def episodes(self) -> list[Episode]:
        """Return the finished training episodes."""
        return list(self._folder.episodes())

    def evaluations(self) -> list[EvaluationRow]:
        """Return the evaluations that were played during training."""
        return list(self._folder.evaluations())

    def checkpoint(self, which: str | int | None = None) -> Checkpoint:
        """Return a checkpoint: "best", "last", a step, or None for the best, else the last.

        Raises:
            UsageError: there is none, or it is damaged.
        """
        store = CheckpointStore(self._folder.checkpoints)
        return store.find(None if which is None else str(which))

    def policy(self, which: str | int | None = None, *, device: str = "cpu") -> Policy:
        """Return the policy of a checkpoint; its environment is not imported."""
        return self._policy(self._find(which), device)

    def _policy(self, checkpoint: Checkpoint, device: str = "cpu") -> Policy:
        return self._load(checkpoint.directory / "agent", device)

    def _find(self, which: str | int | None) -> Checkpoint:
        """Return a checkpoint to load the policy of; stored experience is not checked."""
        store = CheckpointStore(self._folder.checkpoints)
        return store.find(None if which is None else str(which), experience=False)

    def evaluate(
        self,
        episodes: int | None = None,
        *,
        checkpoint: str | int | None = None,
        seed: int | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Evaluation:
        """Play whole episodes by the config's evaluation protocol.

        Args:
            episodes: how many; the config's number if None.
            checkpoint: "best", "last" or a step; the best, else the last, if None.
            seed: of the episodes, which are never those that chose the best checkpoint; the run's
                if None.
            should_stop: asked at each step.

        Raises:
            UsageError: a number is out of range, there is no such checkpoint, or its environment
                may not be imported.
            RLAgentsError: the environment failed while it was played.
            StoppedError: `should_stop` said so.
        """
        found = self._find(checkpoint)
        return self._evaluate(found, self._policy(found), episodes, seed, should_stop)

    def record(
        self,
        episodes: int = 1,
        *,
        checkpoint: str | int | None = None,
        seed: int | None = None,
        output: str | Path | None = None,
        tiled: bool = False,
        **view: Unpack[ViewOptions],
    ) -> list[Path]:
        """Write videos of evaluation episodes, the same ones that `evaluate` plays.

        Args:
            episodes: how many.
            checkpoint: "best", "last" or a step; the best, else the last, if None.
            seed: of the episodes; the run's if None.
            output: the file's path, .mp4, .webm, .gif or .webp; with several episodes they are
                numbered. In the run's folder if None, under a name that no other episode has.
            tiled: show all episodes at once, in one video.
            **view: how they are shown: `scale` and `caption`, where not as `[recording]` says,
                what part of an episode, `from_second` and `seconds`, and by which methods further
                videos show where the network looks, `explain` and `explain_of`.

        Returns:
            the videos' paths; beside each lies its JSON.

        Raises:
            UsageError: as for `evaluate`, or an option is out of range, or the video cannot be
                written there.
            RLAgentsError: the environment failed while it was played, or the encoder, or the disk
                is full.
        """
        shown = self._view(episodes, tiled, view)
        target = check_output(output, self._folder.videos)
        found = self._find(checkpoint)  # once: the best may change meanwhile

        def name(number: int, seeds: Sequence[int]) -> Name:
            if target is not None:
                return numbered(target, number, 1 if tiled else episodes)
            own = video_path(self._folder, found.step, number)
            if tiled:
                stem = f"tiled-step-{found.step}-episodes-{episodes}"
                own = named_by_result(self._folder.videos / stem)
            return lambda *result: beside_others(own(*result), seeds, self._differences())

        policy = self._policy(found)
        return self._record(found, policy, episodes, seed, name, tiled=tiled, view=shown)

    def record_training_episode(
        self,
        number: int,
        *,
        output: str | Path | None = None,
        progress: Callable[[int, int], None] = lambda done, steps: None,
        note: Callable[[str], None] = lambda text: None,
        **view: Unpack[ViewOptions],
    ) -> Path:
        """Write a video of an episode that was played in training, rebuilt from seed and actions.

        Args:
            number: of the episode.
            output: the file's path; in the run's folder if None.
            progress: told before each step how many are done, and how many there are.
            note: told, in a sentence, of an episode that the environment did not bring to its end.
            **view: how it is shown, as for `record`.

        Raises:
            UsageError: there is no such episode, the environment does not reproduce itself or may
                not be imported, an option is out of range, or the video cannot be written there.
            NotReproducedError: the episode came out otherwise.
            RLAgentsError: the environment failed while it was played.
        """
        if not self._manifest["reproducible"]:
            raise UsageError(
                f"--training-episode: {self.config.env.id} does not reproduce itself from a seed "
                f"({self._manifest['difference']}), so no training episode can be shown. Record "
                f"an evaluation instead: rlagents record {self.directory}"
            )
        if view.get("explain"):
            raise UsageError(
                "--explain does not go with --training-episode: the network that played it has "
                "learned since; leave one of them out."
            )
        shown = self._view(1, False, view)
        target = check_output(output, self._folder.videos)
        actions = ActionLog(self._folder).read(number)
        rows = self._folder.episodes()
        episode = next((row for row in rows if row.episode == number), None)
        if episode is None:  # its actions are written first: the process was killed in between
            raise UsageError(
                f"--training-episode: episodes.csv has no row of episode {number}, so its seed is "
                "not known; choose an earlier one."
            )
        player = make_player(self._find_env(), self.config.env)
        stem = f"training-step-{episode.step}-episode-{number}"
        name = named_by_result(self._folder.videos / stem)
        with playing(player, self.config.env.id):
            return rebuild_episode(
                player,
                episode.seed,
                actions,
                episodic_return=episode.episodic_return,
                values=None,
                view=shown,
                path=name if target is None else numbered(target, 0, 1),
                about={"env_id": self.config.env.id, "step": episode.step, "training": True},
                progress=progress,
                note=note,
            )


class Pretrained(TrainedAgent):
    """An agent that comes with the package.

    Args:
        directory: its network and its manifest.

    Attributes:
        name: of the agent.
        directory: the folder.
        config: of the run that it was trained in.
        manifest: how it was trained, and what it scores.
    """

    def __init__(self, directory: Path) -> None:
        self.name = directory.name
        self.manifest = read_manifest(directory)
        super().__init__(directory, self.manifest, directory / MANIFEST)

    def policy(self, *, device: str = "cpu") -> Policy:
        """Return the policy; its environment is not imported."""
        return self._load(self.directory, device)

    def evaluate(
        self,
        episodes: int | None = None,
        *,
        seed: int | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Evaluation:
        """Play whole episodes by the config's evaluation protocol.

        Args:
            episodes: how many; the config's number if None.
            seed: of the episodes; the one it was trained with if None.
            should_stop: asked at each step.

        Raises:
            UsageError: a number is out of range.
            StoppedError: `should_stop` said so.
        """
        return self._evaluate(self._checkpoint(), self.policy(), episodes, seed, should_stop)

    def record(
        self,
        episodes: int = 1,
        *,
        seed: int | None = None,
        output: str | Path | None = None,
        tiled: bool = False,
        **view: Unpack[ViewOptions],
    ) -> list[Path]:
        """Write videos of evaluation episodes, the same ones that `evaluate` plays.

        Args:
            episodes: how many.
            seed: of the episodes; the one it was trained with if None.
            output: the file's path, .mp4, .webm, .gif or .webp; with several episodes they are
                numbered. If None, a name in the current folder that no file has yet.
            tiled: show all episodes at once, in one video.
            **view: how they are shown, as for `Run.record`.

        Returns:
            the videos' paths; beside each lies its JSON.

        Raises:
            UsageError: as for `evaluate`, or an option is out of range, or the video cannot be
                written there.
        """
        shown = self._view(episodes, tiled, view)
        here = Path()
        target = check_output(output, here)

        def name(number: int, _: Sequence[int]) -> Name:
            if target is not None:
                return numbered(target, number, 1 if tiled else episodes)
            which = f"tiled-episodes-{episodes}" if tiled else f"episode-{number}"
            own = named_by_result(here / f"{self.name}-{which}")
            return lambda *result: beside_others(own(*result), None)

        checkpoint, policy = self._checkpoint(), self.policy()
        return self._record(checkpoint, policy, episodes, seed, name, tiled=tiled, view=shown)

    def _checkpoint(self) -> Checkpoint:
        step = int(self.manifest["training"]["step"])
        return Checkpoint(f"step-{step}", step, self.directory)


def train(
    config: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    *,
    runs_dir: str | Path = "runs",
    name: str | None = None,
    quiet: bool = False,
    profile: bool = False,
    init_from: str | Path | None = None,
    init_checkpoint: str | int | None = None,
    **top_level: Any,
) -> Run:
    """Train an agent and return its run.

    Args:
        config: a recipe's name, a TOML file's path, or its tables.
        overrides: by dotted key, `{"agent.learning_rate": 1e-3}`.
        runs_dir: where the run's folder is made.
        name: of the folder; from config, seed and time if None.
        quiet: show no progress.
        profile: measure where the time goes: a table in run.log, and profile.json.
        init_from: a run whose trained weights the agent begins with; they and nothing else.
        init_checkpoint: "best", "last" or a step of that run; the best, else the last, if None.
        **top_level: `total_steps`, `seed`, `device`.

    Raises:
        UsageError: something is wrong with the config; nothing has been written.
        RunFailedError: the run began and could not go on.
        StoppedError: it was asked to stop, and was saved.
    """
    if isinstance(config, Mapping):
        tables, recipe, source = dict(config), "custom", "config"
    else:
        tables, recipe = read_config(config)
        source = str(config)
    checked = build_config(tables, {**(overrides or {}), **top_level}, source)
    folder = start_run(
        checked,
        runs_dir=Path(runs_dir),
        name=name,
        recipe=recipe,
        quiet=quiet,
        profile=profile,
        init_from=init_from,
        init_checkpoint=None if init_checkpoint is None else str(init_checkpoint),
    )
    return Run(folder, allow_import=True)  # this very process has just imported it


def resume(
    run: str | Path,
    *,
    total_steps: int | None = None,
    quiet: bool = False,
    profile: bool = False,
    allow_import: bool = False,
) -> Run:
    """Go on with a stopped or finished run, for `total_steps` in all.

    Args:
        run: its folder.
        total_steps: agent steps in all; as it was begun with if None.
        quiet: show no progress.
        profile: measure where the time goes.
        allow_import: import its environment even where that is code that this user has not trained
            with on this machine.
    """
    folder = RunFolder.open(run)
    resume_run(
        folder,
        total_steps=total_steps,
        quiet=quiet,
        profile=profile,
        allow_import=allow_import,
    )
    return Run(folder, allow_import=True)


def open_run(run: str | Path, *, runs_dir: str | Path = "runs", allow_import: bool = False) -> Run:
    """Return a run by its folder, or by its name under the runs folder.

    Args:
        run: its folder or name.
        runs_dir: the runs folder.
        allow_import: let `evaluate` and `record` import its environment even where that is code
            that this user has not trained with on this machine.

    Raises:
        UsageError: it is not a run.
    """
    return Run(RunFolder.open(run, Path(runs_dir)), allow_import=allow_import)


def load_agent(
    run: str | Path, checkpoint: str | int | None = None, *, device: str = "cpu"
) -> Policy:
    """Return the policy of a run: `actions = policy.act(observations)`.

    Its environment is never imported.
    """
    return open_run(run).policy(checkpoint, device=device)


def load_pretrained(name: str) -> Pretrained:
    """Return an agent that comes with the package: `load_pretrained("pong").record()`.

    Raises:
        UsageError: there is none of that name.
    """
    return Pretrained(find_pretrained(name))


__all__ = [
    "Pretrained",
    "Run",
    "RunConfig",
    "load_agent",
    "load_pretrained",
    "open_run",
    "resume",
    "train",
]
