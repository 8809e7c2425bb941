"""Recording: played episodes become videos with every frame, and a JSON beside each.

An episode was played where it is fast, on small grey frames. To show it, a player plays it again in
colour from the same seed and actions, and the rewards tell whether it really is the same episode.
An environment that does not reproduce itself is played live by the policy instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlagents.agents.base import Policy
from rlagents.config import EvaluationConfig
from rlagents.envs import Player
from rlagents.evaluate import PlayedEpisode
from rlagents.film import Name, View, film
from rlagents.overlays import Draw
from rlagents.takes import NotReproducedError, play_live, replay
from rlagents.types import Array, FloatArray


def rebuild_episode(
    player: Player,
    seed: int,
    actions: Array,
    *,
    episodic_return: float,
    values: FloatArray | None,
    view: View,
    path: Name,
    about: Mapping[str, Any],
    progress: Callable[[int, int], None] = lambda done, steps: None,
    note: Callable[[str], None] = lambda text: None,
) -> Path:
    """Play an episode again and write its video and its JSON.

    Args:
        player: of the environment that the episode was played in.
        seed: of the reset that began it.
        actions: [T] the agent's actions.
        episodic_return: what it had; the video is dropped if it comes out otherwise.
        values: [T, A] what the actions were chosen by, if it is known.
        view: how it is shown.
        path: names the video, from the episode's return and whether it was completed.
        about: goes into the JSON as it is.
        progress: told before each step how many are done, and how many there are.
        note: told of an episode that did not come to its end.

    Raises:
        NotReproducedError: the episode came out otherwise.
        UsageError: the view shows nothing of it.
        VideoError: the video cannot be written.
    """
    take = replay(
        player, seed, actions, values=values, episodic_return=episodic_return, progress=progress
    )
    written = film([take], view, path=path, about=about)
    if not take.is_over:
        note(
            f"The environment failed in this episode after {take.steps} steps (run.log says how), "
            "so it ends there."
        )
    return written


def record_episodes(
    players: Sequence[Player],
    policy: Policy,
    episodes: Sequence[PlayedEpisode],
    protocol: EvaluationConfig,
    *,
    reproducible: bool,
    view: View,
    path: Name,
    about: Mapping[str, Any],
    tiled: bool = False,
    overlays: Callable[[PlayedEpisode], Mapping[str, Draw]] = lambda episode: {},
) -> Path:
    """Show episodes of an evaluation again or, where that is not possible, the policy's play live.

    The check at the start of a run is short, so an environment may turn out later not to reproduce
    itself.

    Args:
        players: one for each episode.
        policy: that played them.
        episodes: one, or several for a video with tiles.
        protocol: of the evaluation.
        reproducible: whether the environment is known to reproduce itself.
        view: how they are shown.
        path: names the video, from the return or the mean of several, and from whether all were
            completed.
        about: goes into the JSON as it is.
        tiled: show them at once, each in a part of the picture.
        overlays: returns what draws on the frames of an episode for further videos, by their names.

    Raises:
        NotReproducedError: an episode came out otherwise, of a game that always reproduces itself.
        UsageError: the view shows nothing of it, or there are too many tiles.
        VideoError: the video cannot be written.
    """
    pairs = list(zip(players, episodes, strict=True))
    if reproducible:
        takes = [
            replay(
                player,
                episode.seed,
                episode.actions,
                values=episode.values,
                episodic_return=episode.episodic_return,
            )
            for player, episode in pairs
        ]
        try:
            return film(
                takes, view, path=path, about=about, tiled=tiled, overlays=overlays(episodes[0])
            )
        except NotReproducedError:
            # Nothing that a policy could see: it cannot play live.
            if players[0].reset(episodes[0].seed).observation is None:
                raise
    takes = [
        play_live(player, policy, episode.seed, epsilon=protocol.epsilon, sample=protocol.sample)
        for player, episode in pairs
    ]
    return film(takes, view, path=path, about=about, tiled=tiled, overlays=overlays(episodes[0]))
