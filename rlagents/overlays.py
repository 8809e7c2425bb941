"""Overlays: where a network looked at each step, drawn on the frames of an episode.

What an agent saw is known where the player shows it. Where the player replays in colour only, the
episode is played a third time, from its seed and actions, in the environment that the agent sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from rlagents.envs import VectorEnv
from rlagents.envs.preprocessing import rows_to_keep
from rlagents.explain import Explainer, Heat, overlay
from rlagents.takes import Moment
from rlagents.types import Array, FloatArray, IntArray

Draw = Callable[[Moment], Array]  # returns a moment's frame with something drawn on it

_BLOCK = 32  # steps that go through a network together; the fastest of those tried


class Overlays:
    """Draws one episode's overlays, by one or more methods.

    Args:
        explainers: by the names of their methods.
        env: one environment as the agent sees it, to play the episode in again.
        seed: of the reset that began the episode.
        actions: [T] of the agent.
        crop: rows of the frame, at the top and at the bottom, that the agent does not see.
    """

    def __init__(
        self,
        explainers: Mapping[str, Explainer],
        env: VectorEnv,
        seed: int,
        actions: IntArray,
        crop: Sequence[int],
    ) -> None:
        self._explainers = explainers
        self._crop = crop
        self._brightness = {method: Heat() for method in explainers}
        self._played_again = self._play(env, seed, actions)
        self._step = -1  # that the heat is of
        self._heat: dict[str, FloatArray] = {}

    def draws(self) -> dict[str, Draw]:
        """Return what draws on frames, by the methods' names; frames must come in their order."""

        def draw_by(method: str) -> Draw:
            def draw(moment: Moment) -> Array:
                if moment.action is None:  # nothing has been chosen yet
                    return moment.frame
                self._go_to(moment, moment.action)
                rows = rows_to_keep(len(moment.frame), self._crop)
                return overlay(moment.frame, self._heat[method], rows)

            return draw

        return {method: draw_by(method) for method in self._explainers}

    def _go_to(self, moment: Moment, action: int) -> None:
        if moment.step == self._step:
            return
        if moment.observation is not None:
            seen, chosen = moment.observation[None], np.array([action], dtype=np.int64)
            (self._heat,) = self._heats(seen, chosen)
        else:
            for _ in range(moment.step - self._step):
                self._heat = next(self._played_again)
        self._step = moment.step

    def _play(
        self, env: VectorEnv, seed: int, actions: IntArray
    ) -> Iterator[dict[str, FloatArray]]:
        """Yield the heat of each step of the episode."""
        observation = env.reset(np.ones(1, dtype=np.bool_), [seed])
        for begin in range(0, len(actions), _BLOCK):
            chosen = actions[begin : begin + _BLOCK]
            seen = []
            for action in chosen:
                seen.append(observation[0].copy())
                env.send(np.array([action]))
                observation = env.recv().observation
            yield from self._heats(np.stack(seen), chosen)

    def _heats(self, seen: Array, chosen: IntArray) -> Iterator[dict[str, FloatArray]]:
        """Yield the heat of each of B steps, [H, W] by method, from what was seen and chosen."""
        maps = {method: one.maps(seen, chosen) for method, one in self._explainers.items()}
        for step in range(len(chosen)):
            yield {
                method: self._brightness[method].update(saliency[step])
                for method, saliency in maps.items()
            }
