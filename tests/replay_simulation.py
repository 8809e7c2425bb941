"""Made-up experience for the tests of replay, and a plain list of what it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from rlagents import replay as package
from rlagents.replay import Batch, PrioritizedReplay, ReplayConfig, UniformReplay
from rlagents.spaces import FrameStack
from rlagents.types import Array, Transition

Replay = UniformReplay | PrioritizedReplay
STORES: list[dict[str, Any]] = [
    {},
    {"compression": "lz4"},
    {"storage": "disk"},
    {"storage": "device"},  # of PyTorch: here the CPU
]
VECTOR = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
# What can follow from a step: n-step reward, discount, and the observation to bootstrap from.
Outcome = tuple[float, float, Array | None]


@dataclass
class Step:
    """One agent step, as an obvious list keeps it: with whole observations."""

    row: int  # what the replay's documentation says where it stands
    observation: Array
    action: int
    reward: float
    next_observation: Array
    terminated: bool
    over: bool
    interrupted: bool = False


@dataclass
class Life:
    """All that one environment of the simulation has gone through."""

    steps: list[Step] = field(default_factory=list)
    rows: int = 0
    frames: list[Array] = field(default_factory=list)  # of the running episode
    length: int = 0  # at which it ends
    ends_by_truncation: bool = False


class Simulation:
    """N environments whose every frame and action is unique, and a plain list of what happened."""

    def __init__(
        self,
        space: gym.spaces.Box,
        num_envs: int,
        *,
        seed: int,
        max_length: int = 6,
        truncated: float = 0.3,
        life_lost: float = 0.1,
    ) -> None:
        self.space = space
        self.lives = [Life() for _ in range(num_envs)]
        self._generator = np.random.default_rng(seed)
        self._max_length = max_length
        self._truncated = truncated
        self._life_lost = life_lost
        self._frames = 0
        self._actions = 0
        for life in self.lives:
            self._begin(life)

    def _new_frame(self) -> Array:
        self._frames += 1
        if isinstance(self.space, FrameStack):
            digits = [self._frames // 251**place % 251 + 1 for place in range(6)]  # never zero
            return np.array(digits, dtype=np.uint8).reshape(2, 3)
        return np.array([self._frames, -self._frames, 0.5], dtype=np.float32)

    def _observation(self, life: Life) -> Array:
        if not isinstance(self.space, FrameStack):
            return life.frames[-1].copy()
        stack = self.space.shape[0]
        zeros = [np.zeros((2, 3), dtype=np.uint8)] * stack
        return np.stack((zeros + life.frames)[-stack:])

    def _begin(self, life: Life) -> None:
        life.frames = [self._new_frame()]
        life.length = int(self._generator.integers(1, self._max_length + 1))
        life.ends_by_truncation = bool(self._generator.random() < self._truncated)

    def interrupt(self) -> None:
        """Begin every episode anew, whatever it was in."""
        for life in self.lives:
            if life.steps and not life.steps[-1].over:
                life.steps[-1].interrupted = True
            self._begin(life)

    def step(self) -> Transition:
        """Step every environment."""
        taken = []
        for life in self.lives:
            observation = self._observation(life)
            life.frames.append(self._new_frame())
            self._actions += 1
            over = len(life.frames) > life.length
            life_lost = bool(self._generator.random() < self._life_lost)
            step = Step(
                life.rows,
                observation,
                self._actions,
                float(self._generator.integers(-8, 9)) / 4,
                self._observation(life),
                life_lost or (over and not life.ends_by_truncation),
                over,
            )
            life.rows += 2 if over else 1
            life.steps.append(step)
            taken.append(step)
            if over:
                self._begin(life)
        return Transition(
            np.stack([step.observation for step in taken]),
            np.array([step.action for step in taken], dtype=np.int64),
            np.array([step.reward for step in taken], dtype=np.float32),
            np.stack([step.next_observation for step in taken]),
            np.array([step.terminated for step in taken]),
            np.array([step.over for step in taken]),
        )

    def feed(self, replay: Replay, steps: int) -> None:
        """Step, and let the replay see it in arrays that are overwritten afterwards."""
        for _ in range(steps):
            transition = self.step()
            replay.observe(transition)
            for array in transition[:6]:
                array[...] = 1

    def find(self, action: int) -> tuple[Life, int]:
        """Return the environment and the index of the step with this action."""
        life = self.lives[(action - 1) % len(self.lives)]
        index = (action - 1) // len(self.lives)
        assert life.steps[index].action == action
        return life, index


def outcomes(steps: list[Step], first: int, n_step: int, gamma: float) -> list[Outcome]:
    """Return what may be learned from a step: nothing while its successor is unknown.

    There is one answer, except where an interruption leaves it open how the last step is used.
    """
    reward, discount = 0.0, 1.0
    answers: list[Outcome] = []
    for step in steps[first : first + n_step]:
        if step.interrupted and step is not steps[first]:
            answers.append((reward, discount, step.observation))
        reward += discount * step.reward
        discount *= gamma
        if step.terminated:
            return [*answers, (reward, 0.0, None)]
        if step.over or step.interrupted:
            return [*answers, (reward, discount, step.next_observation)]
    if first + n_step >= len(steps):
        return []
    return [(reward, discount, steps[first + n_step].observation)]


def expected_sets(
    simulation: Simulation, *, capacity: int, n_step: int, gamma: float
) -> tuple[set[int], set[int]]:
    """Return the actions that must and those that may be sampled."""
    stack = simulation.space.shape[0] if isinstance(simulation.space, FrameStack) else 1
    share = -(-capacity // len(simulation.lives))
    must, may = set(), set()
    for life in simulation.lives:
        for index, step in enumerate(life.steps):
            answers = outcomes(life.steps, index, n_step, gamma)
            if not answers:
                continue
            if step.row >= life.rows - share - stack + 1 - n_step:
                may.add(step.action)
            free = step.interrupted or len(answers) > 1  # an interruption may spoil it
            if step.row >= life.rows - share - n_step and not free:
                must.add(step.action)
    return must, may


def check_batch(simulation: Simulation, batch: Batch, n_step: int, gamma: float) -> set[int]:
    """Compare each sample with the list, byte for byte; return the actions sampled."""
    batch = copy_of(batch)  # of arrays, where frames lie on a device too
    assert batch.observation.dtype == simulation.space.dtype
    assert batch.next_observation.dtype == simulation.space.dtype
    assert [str(array.dtype) for array in batch[1:4]] == ["int64", "float32", "float32"]
    samples = zip(
        batch.action.tolist(),
        batch.reward.tolist(),
        batch.discount.tolist(),
        map(np.ndarray.tobytes, batch.observation),
        map(np.ndarray.tobytes, batch.next_observation),
        strict=True,
    )
    for action, reward, discount, observation, after in set(samples):
        life, index = simulation.find(action)
        assert observation == life.steps[index].observation.tobytes()
        answers = outcomes(life.steps, index, n_step, gamma)
        assert any(
            (reward, discount) == answer[:2] and (answer[2] is None or answer[2].tobytes() == after)
            for answer in answers
        ), (life.steps[index : index + n_step + 1], reward, discount, after)
    return set(batch.action.tolist())


def sampled_actions(simulation: Simulation, replay: Replay, n_step: int, gamma: float) -> set[int]:
    """Check enough samples for every transition to be among them; return their actions."""
    drawn = set()
    # Of M transitions one is missing from 20 M draws in fewer than M in 10^8 cases.
    count = 0
    while count < 20 * len(replay):
        batch = replay.sample()
        drawn |= check_batch(simulation, batch, n_step, gamma)
        count += len(batch.action)
    return drawn


def make_replay(
    space: gym.spaces.Box,
    num_envs: int = 1,
    *,
    capacity: int = 20,
    batch_size: int = 64,
    n_step: int = 1,
    gamma: float = 0.5,
    seed: int = 0,
    **options: Any,
) -> Any:
    """Return a replay of the kind and storage that the options say."""
    # Unchecked, since the capacities that show the most are below what a config allows.
    config = ReplayConfig.model_construct(capacity=capacity, batch_size=batch_size, **options)
    generator = np.random.default_rng(seed)
    return package.make_replay(
        config, space, num_envs, n_step=n_step, gamma=gamma, generator=generator
    )


def plain(observations: Any) -> Array:
    """Return observations as an array, where frames lie on a device too."""
    found: Array = observations if isinstance(observations, np.ndarray) else observations.numpy()
    return found


def copy_of(batch: Batch) -> Batch:
    return Batch(
        plain(batch.observation).copy(),
        batch.action.copy(),
        batch.reward.copy(),
        batch.discount.copy(),
        plain(batch.next_observation).copy(),
    )


def samples(replay: Replay, batches: int) -> Iterator[Batch]:
    for _ in range(batches):
        yield replay.sample()


def one_of_each(replay: Replay, batches: int = 20) -> dict[int, tuple[float, float, Array]]:
    """Return reward, discount and next observation by action, which must always be the same."""
    found: dict[int, tuple[float, float, Array]] = {}
    for batch in samples(replay, batches):
        for i, action in enumerate(batch.action.tolist()):
            row = (float(batch.reward[i]), float(batch.discount[i]), batch.next_observation[i])
            before = found.setdefault(action, (row[0], row[1], plain(row[2]).copy()))
            assert before[:2] == row[:2]
    return found


def play(replay: Replay, rewards: list[float], ends: list[str], first_action: int = 0) -> None:
    """Let one environment live through steps; observation k is k, action k too.

    `ends` says for each step: "" nothing, "terminated", "truncated" (both begin an episode with
    the next hundred), or "life".
    """
    number = first_action
    for reward, end in zip(rewards, ends, strict=True):
        replay.observe(
            Transition(
                np.full((1, 3), number, dtype=np.float32),
                np.array([number]),
                np.array([reward], dtype=np.float32),
                np.full((1, 3), number + 1, dtype=np.float32),
                np.array([end in ("terminated", "life")]),
                np.array([end in ("terminated", "truncated")]),
            )
        )
        number = (number // 100 + 1) * 100 if end in ("terminated", "truncated") else number + 1
