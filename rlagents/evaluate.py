"""The evaluation protocol: which episodes are played, how actions are chosen, what is reported.

An evaluation is a fixed list of seeds, each played to its end, so that neither the number of
environments nor the length of games decides which episodes count. Each episode draws from a
generator of its own, made from its seed. Nothing here touches the agent that learns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from rlagents import seeding
from rlagents.agents.base import Policy
from rlagents.envs import VectorEnv
from rlagents.errors import StoppedError
from rlagents.statistics import bootstrap_interval, interquartile_mean
from rlagents.types import Array, FloatArray, IntArray

_MAX_ENVS = 20  # environments that an evaluation plays at once, where training has no more
_CHOICE = 3  # the purpose of an episode's own generator


class PlayedEpisode(NamedTuple):
    """One episode that a policy played."""

    seed: int
    actions: IntArray  # [T] int64
    values: FloatArray  # [T, A] action values or probabilities
    episodic_return: float
    end: str  # "terminated" or "truncated"

    @property
    def length(self) -> int:
        """Return the number of agent steps."""
        return len(self.actions)


@dataclass(frozen=True)
class Evaluation:
    """What `rlagents evaluate` reports; returns are undiscounted and never clipped."""

    run: str
    checkpoint: str
    step: int
    env_id: str
    seed: int
    epsilon: float
    played: tuple[PlayedEpisode, ...]
    env: Mapping[str, Any] = field(default_factory=dict)  # what differs from the training's `[env]`

    @property
    def returns(self) -> list[float]:
        """Return each episode's return."""
        return [episode.episodic_return for episode in self.played]

    @property
    def lengths(self) -> list[int]:
        """Return each episode's agent steps."""
        return [episode.length for episode in self.played]

    @property
    def mean_return(self) -> float:
        """Return the mean over episodes."""
        return float(np.mean(self.returns))

    @property
    def std_return(self) -> float:
        """Return the standard deviation over episodes (dividing by their number)."""
        return float(np.std(self.returns))

    @property
    def iqm_return(self) -> float:
        """Return the interquartile mean."""
        return float(interquartile_mean(self.returns))

    def as_dict(self) -> dict[str, Any]:
        """Return what `evaluate --json` prints."""
        about: dict[str, Any] = {
            "run": self.run,
            "checkpoint": self.checkpoint,
            "step": self.step,
            "env_id": self.env_id,
            "seed": self.seed,
            "epsilon": self.epsilon,
            "episodes": len(self.played),
            "mean_return": self.mean_return,
            "std_return": self.std_return,
            "iqm_return": self.iqm_return,
            "iqm_ci95": list(bootstrap_interval(self.returns)),
            "min_return": min(self.returns),
            "max_return": max(self.returns),
            "mean_length": float(np.mean(self.lengths)),
            "returns": self.returns,
            "lengths": self.lengths,
        }
        if self.env:
            about["env"] = dict(self.env)
        return about


class Chooser:
    """How one episode's actions are chosen from a policy's values."""

    def __init__(self, policy: Policy, seed: int, epsilon: float, sample: bool) -> None:
        self._generator = seeding.generator(seed, _CHOICE)
        self._epsilon = epsilon
        self._sample = sample and policy.kind == "probabilities"

    def choose(self, values: FloatArray) -> int:
        """Return an action for [A] values: random with chance epsilon, else drawn or the best."""
        if self._epsilon > 0 and self._generator.random() < self._epsilon:
            return int(self._generator.integers(len(values)))
        if self._sample:
            cumulative = values.astype(np.float64).cumsum()
            return int((cumulative <= self._generator.random() * cumulative[-1]).sum())
        return int(values.argmax())


def num_eval_envs(episodes: int, num_envs: int) -> int:
    """Return how many environments play so many episodes, where training has `num_envs`."""
    return min(episodes, max(num_envs, _MAX_ENVS))


def play_episodes(
    policy: Policy,
    env: VectorEnv,
    seeds: Sequence[int],
    *,
    epsilon: float,
    sample: bool,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[PlayedEpisode, ...]:
    """Play one episode for each seed, in their order.

    Args:
        policy: decides.
        env: any number of environments; environment i plays the episodes i, i + N, ...
        seeds: one an episode.
        epsilon: chance of a random action.
        sample: draw from a policy's probabilities rather than play the most probable action.
        should_stop: asked at each step.

    Raises:
        StoppedError: `should_stop` said so.
    """
    played: dict[int, PlayedEpisode] = {}
    number = env.num_envs
    current = np.arange(number)  # the episode that each environment plays
    mask = current < len(seeds)
    choosers: list[Chooser | None] = [None] * number
    actions: list[list[int]] = [[] for _ in range(number)]
    values: list[list[FloatArray]] = [[] for _ in range(number)]
    returns = np.zeros(number)
    observation: Array = np.zeros(0)
    while len(played) < len(seeds):
        if mask.any():
            observation = env.reset(mask, [seeds[current[i]] for i in np.flatnonzero(mask)])
            for i in np.flatnonzero(mask).tolist():
                choosers[i] = Chooser(policy, seeds[current[i]], epsilon, sample)
                actions[i], values[i], returns[i] = [], [], 0.0
        if should_stop():
            raise StoppedError("stopped during an evaluation")
        choice = np.zeros(number, dtype=np.int64)
        all_values = policy.values(observation)
        for i, chooser in enumerate(choosers):
            if chooser is not None:
                choice[i] = chooser.choose(all_values[i])
                actions[i].append(int(choice[i]))
                values[i].append(all_values[i])
        env.send(choice)
        step = env.recv()
        observation = step.observation
        mask = np.zeros(number, dtype=np.bool_)
        for i, chooser in enumerate(choosers):
            if chooser is None:
                continue
            returns[i] += float(step.reward[i])
            if step.terminated[i] or step.truncated[i]:
                end = "terminated" if step.terminated[i] else "truncated"
                episode = int(current[i])
                played[episode] = PlayedEpisode(
                    seeds[episode],
                    np.array(actions[i], dtype=np.int64),
                    np.stack(values[i]),
                    float(returns[i]),
                    end,
                )
                current[i] += number
                choosers[i] = None
                mask[i] = current[i] < len(seeds)
    return tuple(played[episode] for episode in range(len(seeds)))
