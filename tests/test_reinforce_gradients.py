"""REINFORCE's gradients beside finite differences of what they are the gradients of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
import torch

from rlagents.agents import reinforce
from rlagents.agents.reinforce import Reinforce, ReinforceConfig
from rlagents.networks import NetworkConfig
from rlagents.types import Transition

STEPS, NUM_ACTIONS = 11, 3
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tables:
    agent: ReinforceConfig
    network: NetworkConfig
    replay: None = None


def make_agent(**options: Any) -> Reinforce:
    tables = Tables(
        ReinforceConfig.model_validate({"episodes_per_update": 2} | options),
        NetworkConfig(hidden_sizes=[5]),
    )
    return Reinforce.from_config(
        tables,
        gym.spaces.Box(-np.inf, np.inf, (4,), np.float32),
        gym.spaces.Discrete(NUM_ACTIONS),
        num_envs=2,
        seed=3,
        device=torch.device("cpu"),
    )


@dataclass
class Given:
    """An agent in double precision, with a policy far from uniform, and steps to learn from."""

    agent: Reinforce
    observations: Numbers
    actions: npt.NDArray[np.int64]
    returns: Numbers

    @property
    def parameters(self) -> dict[str, Numbers]:
        """The agent's own memory: what is written there changes the agent."""
        return {name: value.detach().numpy() for name, value in self.named()}

    def named(self) -> list[tuple[str, torch.nn.Parameter]]:
        return list(self.agent._network.named_parameters())

    def log_chances(self) -> Numbers:
        """Return [T, A], computed without torch."""
        p = self.parameters
        logits = self.hidden() @ p["head.weight"].T + p["head.bias"]
        return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))

    def hidden(self) -> Numbers:
        p = self.parameters
        layer = self.observations @ p["torso.layers.0.weight"].T + p["torso.layers.0.bias"]
        return np.asarray(np.maximum(layer, 0))

    def values(self) -> Numbers:
        p = self.parameters
        values: Numbers = self.hidden() @ p["value_head.weight"][0] + p["value_head.bias"][0]
        return values


@pytest.fixture
def given() -> Given:
    generator = np.random.default_rng(0)
    agent = make_agent()
    agent._network.double()
    with torch.no_grad():
        for value in agent._network.parameters():
            value.copy_(torch.from_numpy(generator.normal(size=tuple(value.shape))))
    return Given(
        agent,
        generator.normal(size=(STEPS, 4)),
        generator.integers(NUM_ACTIONS, size=STEPS),
        generator.normal(size=STEPS),
    )


def finite_differences(given: Given, objective: Callable[[], float]) -> dict[str, Numbers]:
    """Return the central differences of an objective by each parameter."""
    found = {}
    for name, value in given.parameters.items():
        slope = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            kept, sides = value[index], []
            for offset in (1e-6, -1e-6):
                value[index] = kept + offset
                sides.append(objective())
            value[index] = kept
            slope[index] = (sides[0] - sides[1]) / 2e-6
        found[name] = slope
    return found


def gradients(given: Given, which: int) -> dict[str, Numbers]:
    """Return the gradients of one of the agent's own losses."""
    given.agent._network.zero_grad()
    given.agent._losses(given.observations, given.actions, given.returns)[which].backward()  # type: ignore[arg-type,no-untyped-call]
    return {
        name: np.zeros(value.shape) if value.grad is None else value.grad.numpy().copy()
        for name, value in given.named()
    }


def assert_close(found: dict[str, Numbers], expected: dict[str, Numbers]) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-6, atol=1e-7, err_msg=name)
    assert max(np.abs(value).max() for value in expected.values()) > 0.1


def test_the_policys_gradient_is_that_of_weighted_log_chances(given: Given) -> None:
    advantage = given.returns - given.values()  # a number: the baseline is not led by it

    def objective() -> float:
        chosen = given.log_chances()[np.arange(STEPS), given.actions]
        return float(-(advantage * chosen).sum())

    assert_close(gradients(given, 0), finite_differences(given, objective))


def test_the_baselines_gradient_is_that_of_its_squared_error(given: Given) -> None:
    def objective() -> float:
        return float(((given.values() - given.returns) ** 2).sum())

    assert_close(gradients(given, 1), finite_differences(given, objective))


def test_the_entropys_gradient_is_that_of_the_entropy(given: Given) -> None:
    def objective() -> float:
        log_chances = given.log_chances()
        return float(-(np.exp(log_chances) * log_chances).sum())

    assert_close(gradients(given, 2), finite_differences(given, objective))


def test_the_baseline_changes_no_expected_gradient(given: Given) -> None:
    """Each action weighted with its chance, a baseline adds nothing: Williams (1992), Section 4."""
    chances = np.exp(given.log_chances())
    sums: dict[str, Numbers] = {}
    for action in range(NUM_ACTIONS):
        given.actions[:] = action
        # The advantage of -1 times its chance, whatever the value of the state is.
        given.returns = given.values() - chances[:, action]
        for name, part in gradients(given, 0).items():
            sums[name] = sums.get(name, np.zeros(part.shape)) + part
    for total in sums.values():
        np.testing.assert_allclose(total, 0, atol=1e-12)


def test_returns_are_standardized_over_all_episodes_of_an_update(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = make_agent(gamma=0.5)
    given: list[list[float]] = []
    losses = agent._losses

    def noting(observations: Any, actions: Any, returns: Any) -> torch.Tensor:
        given.append(returns.tolist())
        return losses(observations, actions, returns)

    monkeypatch.setattr(reinforce, "_CHUNK", 2)
    monkeypatch.setattr(agent, "_losses", noting)
    seen = np.zeros((2, 4), dtype=np.float32)
    actions = np.zeros(2, dtype=np.int64)
    for rewards, over in (
        ((4, 2), (False, False)),
        ((0, 4), (False, True)),
        ((8, 9), (True, True)),
    ):
        ends = np.array(over)
        agent.observe(
            Transition(seen, actions, np.array(rewards, dtype=np.float32), seen, ends, ends)
        )
    assert agent.learn()
    # Rewards to go: 4 + 0 + 2, 0 + 4, 8 in the first environment, 2 + 2, 4 in the second, which
    # then waits. Their mean is 5.2, their variance (0.64 + 1.44 + 7.84 + 1.44 + 1.44) / 5 = 2.56.
    expected = [(number - 5.2) / 1.6 for number in (6, 4, 8, 4, 4)]
    assert [len(part) for part in given] == [2, 1, 2]  # in pieces of two
    assert [number for part in given for number in part] == pytest.approx(expected)
