"""Small problems whose answers are known exactly; observations are one-hot.

A problem is a table: what each action in each state leads to. From the table come the environment
and, without sampling, the values that a learner has to find.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


class Outcome(NamedTuple):
    """What an action leads to."""

    chance: float
    state: int
    reward: float
    terminated: bool = False


@dataclass(frozen=True)
class Problem:
    """A Markov decision process: `table[state][action]` lists outcomes."""

    table: tuple[tuple[tuple[Outcome, ...], ...], ...]
    starts: tuple[int, ...]  # one of them, each as likely, begins an episode
    limit: int | None = None  # steps after which an episode is truncated

    @property
    def num_states(self) -> int:
        return len(self.table)

    @property
    def num_actions(self) -> int:
        return len(self.table[0])


class ProblemEnv(gym.Env[npt.NDArray[np.float32], np.int64]):
    """A problem to be played."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._one_hot = np.eye(problem.num_states, dtype=np.float32)
        self._state = 0
        self._steps = 0
        self.observation_space = gym.spaces.Box(0, 1, (problem.num_states,), np.float32)
        self.action_space = gym.spaces.Discrete(problem.num_actions)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self._state = int(self.np_random.choice(self._problem.starts))
        self._steps = 0
        return self._one_hot[self._state], {}

    def step(
        self, action: np.int64
    ) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        outcomes = self._problem.table[self._state][int(action)]
        drawn = self.np_random.random()
        for outcome in outcomes:
            drawn -= outcome.chance
            if drawn < 0:
                break
        self._state = outcome.state
        self._steps += 1
        truncated = self._steps == self._problem.limit
        return self._one_hot[self._state], outcome.reward, outcome.terminated, truncated, {}


def chain_problem() -> Problem:
    """Five places in a row: 0 goes left, 1 goes right, and leaving to the right pays 1."""
    length = 5
    table = []
    for place in range(length):
        left = (Outcome(1.0, max(place - 1, 0), 0.0),)
        arrives = place == length - 1
        right = (Outcome(1.0, min(place + 1, length - 1), float(arrives), arrives),)
        table.append((left, right))
    return Problem(tuple(table), starts=(0,))


def cliff_problem() -> Problem:
    """Sutton and Barto (2018), Example 6.6, with a tenth of its rewards and starts everywhere.

    Rows of 12 from the top; the last row is the start, ten cells of cliff, and the goal. A step
    costs 0.1, a step off the cliff 10 and a return to the start, which ends nothing.
    """
    height, width = 4, 12
    bottom = height - 1
    cells = [(y, x) for y in range(height) for x in range(width) if y < bottom or x == 0]
    numbers = {cell: number for number, cell in enumerate(cells)}
    start, goal = (bottom, 0), (bottom, width - 1)
    table = []
    for y, x in cells:
        row = []
        for down, right in ((-1, 0), (0, 1), (1, 0), (0, -1)):
            to = (min(max(y + down, 0), bottom), min(max(x + right, 0), width - 1))
            if to == goal:
                row.append((Outcome(1.0, numbers[y, x], -0.1, True),))
            elif to not in numbers:
                row.append((Outcome(1.0, numbers[start], -10.0),))
            else:
                row.append((Outcome(1.0, numbers[to], -0.1),))
        table.append(tuple(row))
    return Problem(tuple(table), starts=tuple(range(len(cells))), limit=30)


def bandit_problem() -> Problem:
    """Two arms that pay 1 in 3 and in 7 of 10 cases; an episode is one pull."""
    arms = tuple(
        (Outcome(chance, 0, 1.0, True), Outcome(1 - chance, 0, 0.0, True)) for chance in (0.3, 0.7)
    )
    return Problem((arms,), starts=(0,))


def ring_problem(*, ends: bool) -> Problem:
    """Four places that follow each other whatever is done; each step pays 1.

    If it `ends`, leaving the last place is the end of the game; otherwise it leads back to the
    first one, for ever, but a time limit cuts each episode off after three steps.
    """
    length = 4
    table = tuple(
        ((Outcome(1.0, (place + 1) % length, 1.0, ends and place == length - 1),),) * 2
        for place in range(length)
    )
    return Problem(table, starts=tuple(range(length)), limit=None if ends else 3)


def make_chain() -> ProblemEnv:
    return ProblemEnv(chain_problem())


def make_cliff() -> ProblemEnv:
    return ProblemEnv(cliff_problem())


def make_bandit() -> ProblemEnv:
    return ProblemEnv(bandit_problem())


def make_ring_that_is_cut_off() -> ProblemEnv:
    return ProblemEnv(ring_problem(ends=False))


def make_ring_that_ends() -> ProblemEnv:
    return ProblemEnv(ring_problem(ends=True))


def exact_values(problem: Problem, gamma: float, n_step: int = 1) -> Values:
    """Return [S, A] the values that n-step Q-learning settles at while it acts at random.

    With n = 1 they are the optimal ones: value iteration. With more, the first n - 1 steps after
    the action are those of the random policy, since nothing corrects for it. Time limits take no
    part in it: a value is that of going on.
    """
    values = np.zeros((problem.num_states, problem.num_actions))
    for _ in range(10_000):
        following = values.max(axis=1)
        for _ in range(n_step - 1):
            following = _back_up(problem, gamma, following).mean(axis=1)
        better = _back_up(problem, gamma, following)
        if np.abs(better - values).max() < 1e-12:
            return better
        values = better
    raise AssertionError("there is no fixed point")


def _back_up(problem: Problem, gamma: float, following: Values) -> Values:
    """Return [S, A] the expected reward and discounted [S] `following` behind it."""
    return np.array(
        [
            [
                sum(
                    outcome.chance
                    * (outcome.reward + (not outcome.terminated) * gamma * following[outcome.state])
                    for outcome in outcomes
                )
                for outcomes in actions
            ]
            for actions in problem.table
        ]
    )
