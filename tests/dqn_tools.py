"""What the tests of DQN share: small agents, made-up experience, and looks inside."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
import torch

from rlagents.agents.dqn import DQN, DQNConfig
from rlagents.networks import NetworkConfig
from rlagents.replay import Batch, ReplayConfig
from rlagents.types import Array, IntArray, Metrics, Transition

OBSERVATIONS = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
ACTIONS = gym.spaces.Discrete(4)
CPU = torch.device("cpu")
Numbers = dict[str, npt.NDArray[np.float64]]

BASE: dict[str, Any] = {
    "learning_rate": 1e-2,
    "gamma": 0.9,
    "learning_starts": 20,
    "update_period_steps": 2,
    "target_period_steps": 30,
    "epsilon_decay_steps": 100,
    "epsilon_end": 0.1,
}


NOISY: dict[str, Any] = {"noisy": True, "epsilon_start": 0.0, "epsilon_end": 0.0}
SOFT: dict[str, Any] = {"target_period_steps": 10_000}  # its default, as target_tau asks for


@dataclass(frozen=True)
class Tables:
    agent: DQNConfig
    network: NetworkConfig
    replay: ReplayConfig


def make_tables(**options: Any) -> Tables:
    network = {"hidden_sizes": [8], "dueling": False, "layer_norm": False, "noisy": False}
    replay = {key: field.default for key, field in ReplayConfig.model_fields.items()}
    replay |= {"capacity": 200, "batch_size": 8}
    tables: list[dict[str, Any]] = [
        {key: options.pop(key, default) for key, default in table.items()}
        for table in (network, replay)
    ]
    return Tables(
        DQNConfig.model_validate(BASE | options),
        NetworkConfig.model_validate(tables[0]),
        ReplayConfig.model_validate(tables[1]),
    )


def make_agent(
    num_envs: int = 2,
    *,
    seed: int = 1,
    observations: gym.spaces.Box = OBSERVATIONS,
    actions: gym.Space[Any] = ACTIONS,
    **options: Any,
) -> DQN:
    tables = make_tables(**options)
    DQN.check(tables, num_envs=num_envs)
    return DQN.from_config(tables, observations, actions, num_envs=num_envs, seed=seed, device=CPU)


class Stream:
    """Made-up experience: random observations and rewards, episodes of random length."""

    def __init__(self, num_envs: int, seed: int = 0, end: float = 0.15) -> None:
        self._generator = np.random.default_rng(seed)
        self._num_envs = num_envs
        self._end = end
        self.scale = 1.0  # of rewards
        self.observation = self._random()

    def _random(self) -> Array:
        return self._generator.normal(size=(self._num_envs, 3)).astype(np.float32)

    def step(self, action: IntArray) -> Transition:
        after = self._random()
        noise = self._generator.normal(scale=2, size=self._num_envs)
        over = self._generator.random(self._num_envs) < self._end
        transition = Transition(
            self.observation,
            action,
            (self.scale * (noise + action)).astype(np.float32),
            after,
            over & (self._generator.random(self._num_envs) < 0.5),
            over,
        )
        self.observation = np.where(over[:, None], self._random(), after)
        return transition


def drive(agent: DQN, stream: Stream, steps: int) -> tuple[list[list[int]], list[Metrics]]:
    """Do as the runner does: act, learn, observe; return the actions and the metrics."""
    actions, metrics = [], []
    for _ in range(steps):
        action = agent.act(stream.observation)
        metrics.append(agent.learn())
        agent.observe(stream.step(action))
        actions.append(action.tolist())
    return actions, metrics


def feed(agent: DQN, transitions: int, *, end: str = "", num_envs: int = 2) -> None:
    """Observe as many vector steps, which all end an episode if `end` is given."""
    nothing = np.zeros((num_envs, 3), dtype=np.float32)
    for _ in range(transitions):
        agent.observe(
            Transition(
                nothing,
                np.zeros(num_envs, dtype=np.int64),
                np.zeros(num_envs, dtype=np.float32),
                nothing,
                np.full(num_envs, end == "terminated"),
                np.full(num_envs, end in ("terminated", "truncated")),
            )
        )


def count_updates(agent: DQN, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Let the list that is returned grow by one with every update."""
    done: list[None] = []
    update = agent._update

    def counting() -> Metrics:
        done.append(None)
        return update()

    monkeypatch.setattr(agent, "_update", counting)
    return done


def keep_batches(agent: DQN, monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """Let the list that is returned collect a copy of every batch."""
    kept: list[Batch] = []
    sample = agent._replay.sample

    def keeping(step: int) -> Batch:
        batch = sample(step)
        kept.append(copy.deepcopy(batch))
        return batch

    monkeypatch.setattr(agent._replay, "sample", keeping)
    return kept


def weights(network: torch.nn.Module) -> Numbers:
    return {
        name: tensor.detach().numpy().astype(np.float64)
        for name, tensor in network.state_dict().items()
    }


def equal(one: Numbers, other: Numbers) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) for name in one
    )
