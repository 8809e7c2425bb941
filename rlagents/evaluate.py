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
from rlagents.statistics import (
    bootstrap_interval,
    interquartile_mean,
    success_rate,
    wilson_interval,
)
from rlagents.types import Array, FloatArray, IntArray, Outcome
from rlagents.wording import percent

_MAX_ENVS = 20  # environments that an evaluation plays at once, where training has no more
_CHOICE = 3  # the purpose of an episode's own generator


class PlayedEpisode(NamedTuple):
    """One episode that a policy played."""

    seed: int
    actions: IntArray  # [T] int64
    values: FloatArray  # [T, A] action values or probabilities
    episodic_return: float
    end: str  # "terminated" or "truncated"
    outcome: Outcome | None = None  # how it came out, where the environment tells

    @property
    def success(self) -> bool | None:
        """Return whether it was completed, None if that is not told."""
        return None if self.outcome is None else self.outcome.success

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
    # What differs from the training's config: "env" and "evaluation", each with its keys.
    differences: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def returns(self) -> list[float]:
        """Return each episode's return."""
        return [episode.episodic_return for episode in self.played]

    @property
    def lengths(self) -> list[int]:
        """Return each episode's agent steps."""
        return [episode.length for episode in self.played]

    @property
    def distinct(self) -> int:
        """Return how many episodes differ in their actions or their return.

        A policy without chance plays the same episode from the same start, and a seed may decide
        little: Atari and Mario without sticky actions draw only how many frames pass before the
        first action from it.
        """
        return len({(played.actions.tobytes(), played.episodic_return) for played in self.played})

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

    @property
    def successes(self) -> int:
        """Return how many episodes were completed."""
        return sum(episode.success is True for episode in self.played)

    @property
    def success_rate(self) -> float | None:
        """Return the share of episodes that were completed, None if the environment tells none."""
        return success_rate_of(self.played)

    def as_dict(self) -> dict[str, Any]:
        """Return what `evaluate --json` prints.

        Outcomes are there only where the environment tells them, `distinct_episodes` only where
        episodes are the same.
        """
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
        about |= {table: dict(keys) for table, keys in self.differences.items()}
        distinct = self.distinct
        if distinct < len(self.played):
            about["distinct_episodes"] = distinct
        if self.success_rate is not None:
            about["success_rate"] = self.success_rate
        outcomes = [episode.outcome for episode in self.played]
        if any(outcome is not None for outcome in outcomes):
            about["outcomes"] = [None if one is None else dict(one.values) for one in outcomes]
        return about


def success_rate_of(episodes: Sequence[PlayedEpisode]) -> float | None:
    """Return the share of episodes that were completed, None if none of them tells."""
    return success_rate(episode.success for episode in episodes)


def describe_success(evaluation: Evaluation) -> str:
    """Return how many episodes were completed, and between what their share may lie, in words."""
    count, successes = len(evaluation.played), evaluation.successes
    low, high = wilson_interval(successes, count)
    interval = f"95 % interval {100 * low:.3g} to {100 * high:.3g}"
    return f"{successes} of {count} ({percent(successes / count)}, {interval})"


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
    playing = np.zeros(number, dtype=np.bool_)
    draws = epsilon > 0 or (sample and policy.kind == "probabilities")
    choosers: list[Chooser | None] = [None] * number  # of what is drawn, where anything is
    actions: list[IntArray] = []  # of each step: [N]
    values: list[FloatArray] = []  # of each step: [N, A]
    begun = np.zeros(number, dtype=np.int64)  # the step that each episode began with
    returns = np.zeros(number)
    observation: Array = np.zeros(0)
    while len(played) < len(seeds):
        if mask.any():
            observation = env.reset(mask, [seeds[current[i]] for i in np.flatnonzero(mask)])
            for i in np.flatnonzero(mask).tolist() if draws else ():
                choosers[i] = Chooser(policy, seeds[current[i]], epsilon, sample)
            begun[mask], returns[mask] = len(actions), 0.0
            playing |= mask
        if should_stop():
            raise StoppedError("stopped during an evaluation")
        values.append(policy.values(observation))
        if draws:
            actions.append(_choose(values[-1], choosers))
        else:
            actions.append(np.where(playing, values[-1].argmax(axis=1), 0))
        env.send(actions[-1])
        step = env.recv()
        observation = step.observation
        returns[playing] += step.reward[playing]
        over = playing & (step.terminated | step.truncated)
        mask = np.zeros(number, dtype=np.bool_)
        for first in np.unique(begun[over]).tolist() if over.any() else ():
            # [T, N] and [T, N, A], once for the episodes that began and ended together
            all_actions, all_values = np.stack(actions[first:]), np.stack(values[first:])
            for i in np.flatnonzero(over & (begun == first)).tolist():
                end = "terminated" if step.terminated[i] else "truncated"
                episode = int(current[i])
                played[episode] = PlayedEpisode(
                    seeds[episode],
                    all_actions[:, i].copy(),
                    all_values[:, i].copy(),
                    float(returns[i]),
                    end,
                    step.outcomes.get(i),
                )
                current[i] += number
                choosers[i] = None
                mask[i] = current[i] < len(seeds)
        playing &= ~over
    return tuple(played[episode] for episode in range(len(seeds)))


def _choose(values: FloatArray, choosers: Sequence[Chooser | None]) -> IntArray:
    """Return the actions for [N, A] values; 0 where nothing is played."""
    pairs = zip(choosers, values, strict=True)
    chosen = [0 if chooser is None else chooser.choose(row) for chooser, row in pairs]
    return np.array(chosen, dtype=np.int64)
