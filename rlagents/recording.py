"""Recording: an episode's seed and actions become a video with every frame, and a JSON beside it.

An episode was played where it is fast, on small grey frames. To show it, a player plays it again in
colour from the same seed and actions, and the rewards tell whether it really is the same episode.
An environment that does not reproduce itself is played live by the policy instead.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rlagents.agents.base import Policy
from rlagents.config import RunConfig
from rlagents.envs import Player
from rlagents.errors import RLAgentsError
from rlagents.evaluate import Chooser, PlayedEpisode
from rlagents.types import Array, FloatArray
from rlagents.video import VideoWriter


class NotReproducedError(RLAgentsError):
    """Playing an episode again gave other rewards than it had."""


def rebuild_episode(
    player: Player,
    seed: int,
    actions: Array,
    *,
    episodic_return: float,
    values: FloatArray | None,
    scale: int,
    path: Callable[[float], Path],
    about: dict[str, Any],
    progress: Callable[[int, int], None] = lambda done, steps: None,
) -> Path:
    """Play an episode again and write its video and its JSON.

    Args:
        player: of the environment that the episode was played in.
        seed: of the reset that began it.
        actions: [T] the agent's actions.
        episodic_return: what it had; the video is dropped if it comes out otherwise.
        values: [T, A] what the actions were chosen by, if it is known.
        scale: enlargement of the pixels.
        path: names the video, from the episode's return.
        about: goes into the JSON as it is.
        progress: told before each step how many are done, and how many there are.

    Raises:
        NotReproducedError: the episode came out otherwise.
    """
    remaining = iter(actions)

    def replay(_: Array | None) -> tuple[int, FloatArray | None] | None:
        progress(played.steps, len(actions))
        action = next(remaining, None)
        if action is None:
            return None
        return int(action), None if values is None else values[played.steps]

    played = _Recorder(player, path, scale, about)
    return played.record(seed, replay, expected=episodic_return, expected_steps=len(actions))


def play_and_record(
    player: Player,
    policy: Policy,
    seed: int,
    *,
    epsilon: float,
    sample: bool,
    scale: int,
    path: Callable[[float], Path],
    about: dict[str, Any],
) -> Path:
    """Let the policy play an episode before the camera; for what `rebuild_episode` cannot show."""
    chooser = Chooser(policy, seed, epsilon, sample)

    def decide(observation: Array | None) -> tuple[int, FloatArray | None]:
        assert observation is not None
        values = policy.values(observation[None])[0]
        return chooser.choose(values), values

    return _Recorder(player, path, scale, about).record(seed, decide)


def record_evaluation(
    player: Player,
    policy: Policy,
    episode: PlayedEpisode,
    config: RunConfig,
    *,
    reproducible: bool,
    path: Callable[[float], Path],
    about: dict[str, Any],
) -> Path:
    """Show an evaluation's episode again or, where that is not possible, the policy's play live.

    The check at the start of a run is short, so an environment may turn out later not to reproduce
    itself.

    Raises:
        NotReproducedError: the episode came out otherwise, of a game that always reproduces itself.
    """
    scale = config.recording.scale
    if reproducible:
        try:
            return rebuild_episode(
                player,
                episode.seed,
                episode.actions,
                episodic_return=episode.episodic_return,
                values=episode.values,
                scale=scale,
                path=path,
                about=about,
            )
        except NotReproducedError:
            if player.reset(episode.seed).observation is None:  # nothing that a policy could see
                raise
    return play_and_record(
        player,
        policy,
        episode.seed,
        epsilon=config.evaluation.epsilon,
        sample=config.evaluation.sample,
        scale=scale,
        path=path,
        about=about,
    )


class _Recorder:
    """Plays one episode into a video."""

    def __init__(
        self, player: Player, path: Callable[[float], Path], scale: int, about: dict[str, Any]
    ) -> None:
        self._player = player
        self._path = path
        self._scale = scale
        self._about = about
        self.steps = 0

    def record(
        self,
        seed: int,
        decide: Callable[[Array | None], tuple[int, FloatArray | None] | None],
        *,
        expected: float | None = None,
        expected_steps: int | None = None,
    ) -> Path:
        """Play from `seed` with the actions of `decide` until the episode or the actions end."""
        columns: dict[str, list[Any]] = {
            name: [] for name in ("frame", "action", "reward", "values", "terminated")
        }
        total = 0.0
        name = self._path(0.0)
        name.parent.mkdir(parents=True, exist_ok=True)
        temporary = name.parent / f".{name.stem}-{os.getpid()}.part"
        step = self._player.reset(seed)
        with VideoWriter(temporary, self._player.frames_per_second, self._scale) as video:
            for frame in step.frames:
                video.add(frame)
            while not (step.terminated or step.truncated):
                decision = decide(step.observation)
                if decision is None:
                    break
                action, values = decision
                # The picture that the action answers to is the last one shown before it.
                columns["frame"].append(video.num_frames - 1)
                step = self._player.step(action)
                for frame in step.frames:
                    video.add(frame)
                total += step.reward
                columns["action"].append(action)
                columns["reward"].append(step.reward)
                columns["values"].append(None if values is None else [float(v) for v in values])
                columns["terminated"].append(step.terminated)
                self.steps += 1
            # The same float32 rewards in the same order: equal sums, to the bit.
            if expected is not None and (
                self.steps != expected_steps or not np.array_equal(total, expected, equal_nan=True)
            ):
                raise NotReproducedError(
                    f"The episode of seed {seed} came out otherwise when it was played again: "
                    f"return {total:.9g} after {self.steps} steps, not {expected:.9g} after "
                    f"{expected_steps}. The environment does not reproduce itself."
                )
            path = video.close(self._path(total))
        known = {
            "seed": seed,
            "episodic_return": total,
            "episodic_length": self.steps,
            "frames_per_second": self._player.frames_per_second,
            "num_frames": video.num_frames,
        }
        sidecar = path.with_suffix(".json")
        sidecar.write_text(json.dumps(self._about | known | columns) + "\n", encoding="utf-8")
        return path
