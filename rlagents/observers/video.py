"""Videos of evaluations, every frame of whole episodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlagents.config import RunConfig
from rlagents.envs import Player
from rlagents.events import Evaluated, Event
from rlagents.recording import play_and_record, rebuild_episode
from rlagents.run import RunFolder


def video_path(folder: RunFolder, step: int, episode: int) -> Callable[[float], Path]:
    """Return the function that names an evaluation's video by the episode's return."""
    return lambda result: folder.videos / f"step-{step}-episode-{episode}-return-{result:g}.mp4"


class VideoObserver:
    """Records the first episodes of each evaluation.

    Args:
        folder: the run's.
        config: resolved.
        make_player: makes the environment that shows its frames.
        reproducible: whether episodes can be rebuilt from seed and actions.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        make_player: Callable[[], Player],
        *,
        reproducible: bool,
    ) -> None:
        self._folder = folder
        self._config = config
        self._make_player = make_player
        self._reproducible = reproducible
        self._player: Player | None = None

    def __call__(self, event: Event) -> None:
        """Record if the event is an evaluation."""
        if not isinstance(event, Evaluated):
            return
        if self._player is None:
            self._player = self._make_player()
        step = event.clock.step
        for number, episode in enumerate(event.episodes[: self._config.recording.episodes]):
            about: dict[str, Any] = {
                "env_id": self._config.env.id,
                "step": step,
                "values_are": event.policy.kind,
            }
            if self._reproducible:
                rebuild_episode(
                    self._player,
                    episode.seed,
                    episode.actions,
                    episodic_return=episode.episodic_return,
                    values=episode.values,
                    scale=self._config.recording.scale,
                    path=video_path(self._folder, step, number),
                    about=about,
                )
            else:
                play_and_record(
                    self._player,
                    event.policy,
                    episode.seed,
                    epsilon=self._config.evaluation.epsilon,
                    sample=self._config.evaluation.sample,
                    scale=self._config.recording.scale,
                    path=video_path(self._folder, step, number),
                    about=about,
                )

    def close(self) -> None:
        """Close the player."""
        if self._player is not None:
            self._player.close()
