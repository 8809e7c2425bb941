"""Takes: an episode while it is played for the camera, frame by frame.

An episode was played where it is fast, on small grey frames. To show it, a player plays it again in
colour from the same seed and actions, and the rewards tell whether it really is the same episode.
An environment that does not reproduce itself is played live by the policy instead.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlagents.agents.base import Policy
from rlagents.envs import Player
from rlagents.errors import RLAgentsError
from rlagents.evaluate import Chooser
from rlagents.types import Array, FloatArray, Outcome

_COLUMNS = ("frame", "action", "reward", "values", "terminated")


class NotReproducedError(RLAgentsError):
    """Playing an episode again gave other rewards than it had."""


class Moment(NamedTuple):
    """A frame, and what is so while it is shown."""

    frame: Array  # [H, W, 3] uint8 RGB, as the game shows it
    step: int  # number of the agent step that is under way, from 0
    observation: Array | None  # that it answers to, [...]; None where the player only replays
    action: int | None  # of this step; None before the first one
    values: FloatArray | None  # [A] what it was chosen by, if that is known
    episodic_return: float  # until this step
    outcome: Outcome | None = None  # of the episode, at its end, where the environment tells


Decision = tuple[int, FloatArray | None]


class Take:
    """One episode while it is played; iterating plays it, once.

    Args:
        player: of the environment.
        seed: of the reset that begins it.
        decide: returns the action for an observation, and the values that it was chosen by, or None
            where there are no more.
        expected: the return and the number of agent steps that it must have in the end.

    Attributes:
        player: as given.
        columns: by agent step, what the JSON beside a video holds.
        episodic_return: so far.
        num_frames: shown so far.
        is_over: whether the environment has said that the episode is over.
        outcome: how the episode came out; None before its end, or where that is not told.
    """

    def __init__(
        self,
        player: Player,
        seed: int,
        decide: Callable[[Array | None], Decision | None],
        *,
        expected: tuple[float, int] | None = None,
    ) -> None:
        self.player = player
        self._seed = seed
        self._decide = decide
        self._expected = expected
        self.columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        self.episodic_return = 0.0
        self.num_frames = 0
        self.is_over = False
        self.outcome: Outcome | None = None

    @property
    def steps(self) -> int:
        """Return the number of agent steps so far."""
        return len(self.columns["action"])

    def __iter__(self) -> Iterator[Moment]:
        """Play until the episode or the actions end.

        Raises:
            NotReproducedError: it came out otherwise than expected.
        """
        step = self.player.reset(self._seed)
        now = Moment(np.empty(0), 0, None, None, None, 0.0)
        while not (step.terminated or step.truncated):
            decision = self._decide(step.observation)
            if decision is None:
                break
            yield from self._show(step.frames[:-1], now)
            action, values = decision
            now = Moment(
                np.empty(0), self.steps, step.observation, action, values, self.episodic_return
            )
            # The picture that the action answers to is the last one shown before it.
            yield from self._show(step.frames[-1:], now)
            step = self.player.step(action)
            self.columns["frame"].append(self.num_frames - 1)
            self.columns["action"].append(action)
            self.columns["reward"].append(step.reward)
            self.columns["values"].append(None if values is None else [float(v) for v in values])
            self.columns["terminated"].append(step.terminated)
            self.episodic_return += step.reward
        self.is_over = step.terminated or step.truncated
        yield from self._show(step.frames[:-1], now)
        self.outcome = step.outcome
        now = now._replace(episodic_return=self.episodic_return, outcome=step.outcome)
        yield from self._show(step.frames[-1:], now)
        self._check()

    def _show(self, frames: Sequence[Array], now: Moment) -> Iterator[Moment]:
        for frame in frames:
            self.num_frames += 1
            yield now._replace(frame=frame)

    def _check(self) -> None:
        """Compare the end with what it has to be."""
        if self._expected is None:
            return
        result, steps = self._expected
        # The same float32 rewards in the same order: equal sums, to the bit.
        if self.steps != steps or not np.array_equal(self.episodic_return, result, equal_nan=True):
            raise NotReproducedError(
                f"The episode of seed {self._seed} came out otherwise when it was played again: "
                f"return {self.episodic_return:.9g} after {self.steps} steps, not {result:.9g} "
                f"after {steps}. The environment does not reproduce itself."
            )

    def about(self, first: int, last: int, place: Callable[[int], int]) -> dict[str, Any]:
        """Return what the JSON says about the episode, as far as it is shown.

        Args:
            first: the first frame shown.
            last: the last frame shown.
            place: returns where in the video a frame is shown, from its number in the episode.
        """
        frames = self.columns["frame"]
        # The step under way at the first picture counts, though its own picture may lie before it.
        begin = max(0, bisect.bisect_right(frames, first) - 1)
        end = bisect.bisect_right(frames, last)
        shown = {name: column[begin:end] for name, column in self.columns.items()}
        shown["frame"] = [place(max(frame, first)) for frame in shown["frame"]]
        known: dict[str, Any] = {
            "seed": self._seed,
            "episodic_return": self.episodic_return,
            "episodic_length": self.steps,
        }
        if self.outcome is not None:
            known["outcome"] = dict(self.outcome.values)
            if self.outcome.success is not None:
                known["completed"] = self.outcome.success
        if begin > 0 or end < self.steps:
            known |= {"first_step": begin, "return_before": sum(self.columns["reward"][:begin])}
        return known | shown


def replay(
    player: Player,
    seed: int,
    actions: Array,
    *,
    values: FloatArray | None,
    episodic_return: float,
    progress: Callable[[int, int], None] = lambda done, steps: None,
) -> Take:
    """Return a take of an episode that has been played, again.

    Args:
        player: of the environment that it was played in.
        seed: of the reset that began it.
        actions: [T] the agent's actions.
        values: [T, A] what they were chosen by, if it is known.
        episodic_return: what it had, and must have again.
        progress: told before each step how many are done, and how many there are.
    """
    remaining = iter(range(len(actions)))

    def decide(_: Array | None) -> Decision | None:
        step = next(remaining, None)
        if step is None:
            return None
        progress(step, len(actions))
        return int(actions[step]), None if values is None else values[step]

    return Take(player, seed, decide, expected=(episodic_return, len(actions)))


def play_live(player: Player, policy: Policy, seed: int, *, epsilon: float, sample: bool) -> Take:
    """Return a take that the policy plays, as an evaluation does."""
    chooser = Chooser(policy, seed, epsilon, sample)

    def decide(observation: Array | None) -> Decision:
        assert observation is not None
        values = policy.values(observation[None])[0]
        return chooser.choose(values), values

    return Take(player, seed, decide)
