"""What can be done with an agent that has been trained, wherever its network lies."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from rlagents import machine, seeding
from rlagents.agents import find_agent
from rlagents.agents.base import Agent, Policy
from rlagents.checkpoint import Checkpoint
from rlagents.config import build_config
from rlagents.envs import Player, VectorEnv, find_env, make_eval_env, make_player
from rlagents.errors import RLAgentsError, UsageError
from rlagents.evaluate import Evaluation, num_eval_envs, play_episodes
from rlagents.recording import record_evaluation
from rlagents.spaces import rebuild_space


class TrainedAgent:
    """An agent that has been trained: its policy is loaded, evaluated and recorded.

    Args:
        directory: the folder that it lies in.
        manifest: what describes it, with a run's `config`, spaces, `threads` and `reproducible`.
        source: what to call the manifest's file in an error.

    Raises:
        UsageError: the config is none that this version takes.
    """

    def __init__(self, directory: Path, manifest: Mapping[str, Any], source: Path) -> None:
        self.directory = directory
        self.config = build_config(manifest["config"], {}, str(source))
        self._manifest = manifest

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.directory)!r})"

    def _load(self, weights: Path, device: str) -> Policy:
        """Return the policy that an agent has saved in the folder `weights`.

        From then on torch computes with as many threads as the training did, and without
        denormals: what a policy chooses can hang on the last bits.
        """
        agent_class: type[Agent] = find_agent(self.config.agent_name)
        machine.prepare_torch(int(self._manifest["threads"]))
        try:
            space = rebuild_space(self._manifest["observation_space"])
            return agent_class.load_policy(
                self.config,
                space,  # type: ignore[arg-type]  # always a Box: it was written from one
                rebuild_space(self._manifest["action_space"]),
                weights,
                torch.device(machine.choose_device(device)),
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
        count = protocol.episodes if episodes is None else episodes
        if count < 1:
            raise UsageError(f"--episodes: expected 1 or more, got {count}.")
        seed = self.config.seed if seed is None else seed
        if seed < 0:
            raise UsageError(f"--seed: expected 0 or more, got {seed}.")
        number = num_eval_envs(count, self.config.env.num_envs)
        env = make_eval_env(find_env(self.config.env.id), self.config.env, number)
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
        )

    def _record(
        self,
        found: Checkpoint,
        policy: Policy,
        episodes: int,
        seed: int | None,
        name: Callable[[int], Callable[[float], Path]],
    ) -> list[Path]:
        """Write videos of the episodes that `_evaluate` plays.

        Args:
            found: the policy's checkpoint.
            policy: plays.
            episodes: how many.
            seed: of the episodes; the config's if None.
            name: what names a video, from the episode's number and then from its return.

        Returns:
            the videos' paths.
        """
        config = self.config
        evaluation = self._evaluate(found, policy, episodes, seed)
        player = make_player(find_env(config.env.id), config.env)
        about = {"env_id": config.env.id, "step": evaluation.step, "values_are": policy.kind}
        with playing(player, config.env.id):
            return [
                record_evaluation(
                    player,
                    policy,
                    episode,
                    config,
                    reproducible=self._manifest["reproducible"],
                    path=name(number),
                    about=about,
                )
                for number, episode in enumerate(evaluation.played)
            ]


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


def check_output(output: str | Path | None, videos: Path) -> Path | None:
    """Return where a video goes, None for a name in `videos`; the folder can be written."""
    path = None if output is None else Path(output)
    if path is not None and path.suffix != ".mp4":
        raise UsageError(f"--output: expected a file that ends in .mp4, got {str(output)!r}.")
    if path is not None and path.is_dir():
        raise UsageError(f"--output: {path} is a folder; name a file.")
    folder = videos if path is None else path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"--output: {path or folder} cannot be written ({error.strerror}); name another file."
        ) from None
    return path


def numbered(path: Path, number: int, count: int) -> Callable[[float], Path]:
    """Return the function that names a video `path`, with a number if there are several."""
    return lambda _: path if count == 1 else path.with_stem(f"{path.stem}-{number}")
