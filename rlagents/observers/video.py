"""Videos of evaluations, every frame of whole episodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from rlagents.config import RunConfig
from rlagents.envs import Player, PlayerStep
from rlagents.errors import StoppedError
from rlagents.events import Evaluated, Event
from rlagents.film import View
from rlagents.naming import video_path
from rlagents.recording import record_episodes
from rlagents.run import RunFolder


class _StoppablePlayer:
    """A player that stops in the middle of an episode when it is to: a long one takes a minute."""

    def __init__(self, player: Player, should_stop: Callable[[], bool]) -> None:
        self._player = player
        self._should_stop = should_stop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._player, name)

    def step(self, action: int) -> PlayerStep:
        if self._should_stop():
            raise StoppedError("stopping: the video that was being made is left out")
        return self._player.step(action)


class VideoObserver:
    """Records the first episodes of evaluations.

    Args:
        folder: the run's.
        config: resolved.
        make_player: makes the environment that shows its frames.
        reproducible: whether episodes can be rebuilt from seed and actions.
        should_stop: asked at each step; a video that is not finished then is left out.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        make_player: Callable[[], Player],
        *,
        reproducible: bool,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._folder = folder
        self._config = config
        self._make_player = make_player
        self._reproducible = reproducible
        self._should_stop = should_stop
        self._player: Player | None = None

    def __call__(self, event: Event) -> None:
        """Record if the event is an evaluation that is to be shown.

        Raises:
            StoppedError: `should_stop` said so; nothing is left of the video.
        """
        if not isinstance(event, Evaluated) or not self._is_due(event):
            return
        if self._player is None:
            stoppable = _StoppablePlayer(self._make_player(), self._should_stop)
            self._player = cast(Player, stoppable)
        step = event.clock.step
        for number, episode in enumerate(event.episodes[: self._config.recording.episodes]):
            about: dict[str, Any] = {
                "env_id": self._config.env.id,
                "step": step,
                "values_are": event.policy.kind,
            }
            record_episodes(
                [self._player],
                event.policy,
                [episode],
                self._config.evaluation,
                reproducible=self._reproducible,
                view=View.from_config(self._config.recording),
                path=video_path(self._folder, step, number),
                about=about,
            )

    def _is_due(self, event: Evaluated) -> bool:
        """Return whether a multiple of the period has been passed since the last evaluation.

        The same evaluations are recorded whether or not the run was interrupted between them.
        """
        period = self._config.recording.period_steps
        step = event.clock.step
        is_last = event.is_enough or step >= self._config.total_steps
        return period is None or is_last or step // period > event.previous_step // period

    def close(self) -> None:
        """Close the player."""
        if self._player is not None:
            self._player.close()
