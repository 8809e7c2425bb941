from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlagents.agents.ppo import (
    PPO,
    PPOConfig,
    clipped_surrogate,
    generalized_advantages,
    value_errors,
)
from rlagents.agents.reinforce import Reinforce, ReinforceConfig
from rlagents.agents.rewards import RewardNormalizer
from rlagents.errors import UsageError
from rlagents.networks import NetworkConfig
from rlagents.profile import Profile
from rlagents.spaces import FrameStack
from rlagents.types import Array, IntArray, Metrics, Transition

OBSERVATIONS = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
ACTIONS = gym.spaces.Discrete(4)
CPU = torch.device("cpu")
Numbers = npt.NDArray[np.float64]

BASE: dict[str, Any] = {
    "rollout_steps": 6,
    "epochs": 2,
    "minibatches": 3,
    "learning_rate": 1e-2,
    "gamma": 0.9,
}


@dataclass(frozen=True)
class Tables:
    agent: Any
    network: NetworkConfig
    replay: None = None


def make_tables(*, hidden_sizes: list[int] | None = None, **agent: Any) -> Tables:
    return Tables(
        PPOConfig.model_validate(BASE | agent),
        NetworkConfig(hidden_sizes=[8] if hidden_sizes is None else hidden_sizes),
    )


def make_agent(
    num_envs: int = 2,
    *,
    seed: int = 1,
    observations: gym.spaces.Box = OBSERVATIONS,
    actions: gym.Space[Any] = ACTIONS,
    **options: Any,
) -> PPO:
    tables = make_tables(**options)
    PPO.check(tables, num_envs=num_envs)
    return PPO.from_config(tables, observations, actions, num_envs=num_envs, seed=seed, device=CPU)


class Stream:
    """Made-up environments: episodes that terminate or are truncated, and lives that are lost."""

    def __init__(self, num_envs: int, *, seed: int = 0, end: float = 0.2) -> None:
        self._generator = np.random.default_rng(seed)
        self._end = end
        self.num_envs = num_envs
        self.observation = self._random()

    def _random(self) -> Array:
        return self._generator.normal(size=(self.num_envs, 3)).astype(np.float32)

    def step(self, action: IntArray) -> Transition:
        reward = (self._generator.normal(scale=2, size=self.num_envs) + action).astype(np.float32)
        reward[self._generator.random(self.num_envs) < 0.4] = 0
        over = self._generator.random(self.num_envs) < self._end
        terminated = over & (self._generator.random(self.num_envs) < 0.5)
        terminated |= self._generator.random(self.num_envs) < 0.1  # a life
        after = self._random()
        transition = Transition(self.observation, action, reward, after, terminated, over)
        self.observation = np.where(over[:, None], self._random(), after)
        return transition


def drive(agent: PPO, stream: Stream, steps: int) -> tuple[list[list[int]], list[Metrics]]:
    """Do as the runner does for a number of vector steps; return the actions and the metrics."""
    actions, metrics = [], []
    for _ in range(steps):
        action = agent.act(stream.observation)
        metrics.append(agent.learn())
        agent.observe(stream.step(action))
        actions.append(action.tolist())
    return actions, metrics


def parameters(agent: PPO) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in agent._network.named_parameters()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def same_metrics(one: Sequence[Metrics], other: Sequence[Metrics]) -> bool:
    return [{name: float(value) for name, value in each.items()} for each in one] == [
        {name: float(value) for name, value in each.items()} for each in other
    ]


def column(*numbers: float) -> npt.NDArray[np.float32]:
    return np.array(numbers, dtype=np.float32)[:, None]


def flags(*numbers: int) -> npt.NDArray[np.bool_]:
    return np.array(numbers, dtype=np.bool_)[:, None]


# --- advantages ----------------------------------------


def test_advantages_by_hand() -> None:
    found = generalized_advantages(
        column(1, 2, 3),
        column(4, 5, 6),
        column(5, 6, 8),
        flags(0, 0, 0),
        flags(0, 0, 0),
        gamma=0.5,
        gae_lambda=0.5,
    )
    # delta: 1 + 2.5 - 4 = -0.5;  2 + 3 - 5 = 0;  3 + 4 - 6 = 1;  gamma lambda = 1/4
    assert found[:, 0].tolist() == [-0.5 + (0 + 1 / 4) / 4, 0 + 1 / 4, 1]
    assert found.dtype == np.float32


def test_advantages_where_an_episode_terminates_by_hand() -> None:
    found = generalized_advantages(
        column(1, 2, 3),
        column(4, 5, 6),
        column(5, 99, 8),
        flags(0, 1, 0),
        flags(0, 1, 0),
        gamma=0.5,
        gae_lambda=0.5,
    )
    # delta: -0.5;  2 - 5 = -3, whatever comes after;  1
    assert found[:, 0].tolist() == [-0.5 - 3 / 4, -3, 1]


def test_advantages_where_an_episode_is_truncated_by_hand() -> None:
    found = generalized_advantages(
        column(1, 2, 3),
        column(4, 5, 6),
        column(5, 10, 8),
        flags(0, 0, 0),
        flags(0, 1, 0),
        gamma=0.5,
        gae_lambda=0.5,
    )
    # delta: -0.5;  2 + 5 - 5 = 2, and nothing of the next episode's 1
    assert found[:, 0].tolist() == [-0.5 + 2 / 4, 2, 1]


def test_advantages_where_a_life_is_lost_are_those_of_an_end() -> None:
    over, lost = (
        generalized_advantages(
            column(1, 2, 3),
            column(4, 5, 6),
            column(5, 6, 8),
            flags(0, 1, 0),
            flags(0, is_over, 0),
            gamma=0.5,
            gae_lambda=0.5,
        )
        for is_over in (1, 0)
    )
    assert over.tolist() == lost.tolist()


def test_lambda_0_is_one_step_and_lambda_1_is_the_whole_return_by_hand() -> None:
    steps = column(1, 2, 3), column(4, 5, 6), column(5, 6, 8), flags(0, 0, 0), flags(0, 0, 0)
    one = generalized_advantages(*steps, gamma=0.5, gae_lambda=0.0)
    assert one[:, 0].tolist() == [-0.5, 0, 1]
    whole = generalized_advantages(*steps, gamma=0.5, gae_lambda=1.0)
    # returns: 1 + 1 + 0.75 + 1 = 3.75;  2 + 1.5 + 2 = 5.5;  3 + 4 = 7
    assert whole[:, 0].tolist() == [3.75 - 4, 5.5 - 5, 7 - 6]


def slow_advantage(
    t: int,
    reward: Sequence[float],
    value: Sequence[float],
    next_value: Sequence[float],
    terminated: Sequence[bool],
    over: Sequence[bool],
    gamma: float,
    gae_lambda: float,
) -> float:
    """Return the weighted mean of k-step advantages that generalised ones are: Eq. 16 by words.

    A k-step return goes on to the episode's or the rollout's end at most, and bootstraps there
    unless nothing follows. Those that would be longer are all that longest one.
    """
    advantages = []
    total, discount = 0.0, 1.0
    for k in range(t, len(reward)):
        total += discount * reward[k]
        discount *= gamma
        bootstrap = 0.0 if terminated[k] else discount * next_value[k]
        advantages.append(total + bootstrap - value[t])
        if terminated[k] or over[k]:
            break
    weights = [(1 - gae_lambda) * gae_lambda**k for k in range(len(advantages) - 1)]
    weights.append(gae_lambda ** (len(advantages) - 1))
    assert sum(weights) == pytest.approx(1)
    return sum(weight * each for weight, each in zip(weights, advantages, strict=True))


@given(
    num_envs=st.integers(1, 3),
    num_steps=st.integers(1, 12),
    seed=st.integers(0, 2**20),
    end=st.sampled_from([0.0, 0.2, 0.6, 1.0]),
    gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    gae_lambda=st.sampled_from([0.0, 0.3, 0.95, 1.0]),
)
def test_advantages_are_means_of_k_step_advantages(
    num_envs: int, num_steps: int, seed: int, end: float, gamma: float, gae_lambda: float
) -> None:
    generator = np.random.default_rng(seed)
    shape = (num_steps, num_envs)
    reward, value, next_value = (generator.normal(size=shape).astype(np.float32) for _ in range(3))
    terminated, over = generator.random(shape) < end / 2, generator.random(shape) < end
    next_value[:-1] = np.where(over[:-1], next_value[:-1], value[1:])
    found = generalized_advantages(
        reward, value, next_value, terminated, over, gamma=gamma, gae_lambda=gae_lambda
    )
    for env in range(num_envs):
        columns: Any = [each[:, env] for each in (reward, value, next_value, terminated, over)]
        for t in range(num_steps):
            expected = slow_advantage(t, *columns, gamma, gae_lambda)
            assert found[t, env] == pytest.approx(expected, abs=1e-4)


# --- losses ----------------------------------------


def test_the_surrogate_and_its_gradient_by_hand() -> None:
    # ratios:         1    1.1   1.5   0.5   1.5   0.5
    ratio = torch.tensor([1.0, 1.1, 1.5, 0.5, 1.5, 0.5])
    advantage = torch.tensor([2.0, 2.0, 2.0, 2.0, -2.0, -2.0])
    log_ratio = ratio.log().requires_grad_()
    found = clipped_surrogate(log_ratio, advantage, 0.2)
    torch.testing.assert_close(found, torch.tensor([2.0, 2.2, 2.4, 1.0, -3.0, -1.6]))
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert log_ratio.grad is not None
    # d(r A) / d log r = r A where the ratio counts; none where it is better than the range allows.
    torch.testing.assert_close(log_ratio.grad, torch.tensor([2.0, 2.2, 0.0, 1.0, -3.0, 0.0]))


def test_the_range_is_where_the_surrogate_is_cut_by_hand() -> None:
    log_ratio = torch.tensor([3.0]).log()
    assert clipped_surrogate(log_ratio, torch.tensor([1.0]), 0.1).item() == pytest.approx(1.1)
    assert clipped_surrogate(log_ratio, torch.tensor([1.0]), 0.5).item() == pytest.approx(1.5)
    assert clipped_surrogate(log_ratio, torch.tensor([1.0]), 5.0).item() == pytest.approx(3.0)


def test_errors_of_values_and_their_gradient_by_hand() -> None:
    old = torch.tensor([0.0, 0.0, 0.0, 0.0])
    value = torch.tensor([0.5, 2.0, 2.0, -2.0], requires_grad=True)
    target = torch.tensor([3.0, 3.0, 1.0, 3.0])
    plain = value_errors(value, target, old, None)
    assert plain.tolist() == [6.25, 1.0, 1.0, 25.0]
    clipped = value_errors(value, target, old, 1.0)
    # moved by 1 at most: 0.5, 1, 1, -1, with errors 6.25, 4, 0, 16; the larger one counts
    assert clipped.tolist() == [6.25, 4.0, 1.0, 25.0]
    clipped.sum().backward()  # type: ignore[no-untyped-call]
    assert value.grad is not None
    assert value.grad.tolist() == [-5.0, 0.0, 2.0, -10.0]  # the second has gone far enough


def set_policy(agent: PPO, logits: Sequence[float], value: float = 0.0) -> None:
    """Make the policy and the value the same everywhere."""
    with torch.no_grad():
        agent._network.head.weight.zero_()
        agent._network.head.bias.copy_(torch.tensor(logits))
        agent._network.value_head.weight.zero_()
        agent._network.value_head.bias.fill_(value)


def losses_by_name(agent: PPO) -> dict[str, float]:
    """Return the losses of all steps of a full rollout, as the agent has them."""
    rollout = agent._rollout
    advantage = agent._advantages()
    numbers = np.stack(
        [rollout.log_probability, rollout.value, advantage, advantage + rollout.value], axis=-1
    ).reshape(-1, 4)
    actions = rollout.action.reshape(-1)
    found = agent._losses(agent._minibatch(np.arange(len(actions)), actions, numbers))
    names = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")
    return dict(zip(names, found.tolist(), strict=True))


def test_losses_and_their_diagnostics_by_hand() -> None:
    agent = make_agent(
        1, rollout_steps=2, minibatches=1, standardize_advantages=False, clip_range=0.2, gamma=0.0
    )
    set_policy(agent, np.log([0.25, 0.25, 0.25, 0.25]).tolist(), value=1.0)
    observation = np.zeros((1, 3), dtype=np.float32)
    never = np.zeros(1, dtype=np.bool_)
    for action, reward in ((0, 3.0), (1, 0.0)):  # advantages 2 and -1
        agent.act(observation)
        agent._log_probability = np.log([0.25]).astype(np.float32)
        agent.observe(
            Transition(
                observation,
                np.array([action]),
                np.array([reward], dtype=np.float32),
                observation,
                never,
                never,
            )
        )
    chances = [0.5, 0.2, 0.2, 0.1]
    set_policy(agent, np.log(chances).tolist(), value=2.0)
    found = losses_by_name(agent)
    # ratios 2 and 0.8: min(2 * 2, 1.2 * 2) = 2.4 and min(-0.8, -0.8) = -0.8
    assert found["policy_loss"] == pytest.approx(-(2.4 - 0.8) / 2)
    assert found["value_loss"] == pytest.approx(((2 - 3) ** 2 + (2 - 0) ** 2) / 2)
    assert found["entropy"] == pytest.approx(-sum(p * np.log(p) for p in chances))
    divergence = (2 - 1 - np.log(2) + 0.8 - 1 - np.log(0.8)) / 2
    assert found["approx_kl"] == pytest.approx(divergence, rel=1e-5)
    set_policy(agent, np.log([0.29, 0.19, 0.4, 0.12]).tolist())  # ratios 1.16 and 0.76
    assert losses_by_name(agent)["clip_fraction"] == 0.5


# --- a whole update, beside an independent one ----------------------------------------


class Past:
    """All that happened in one rollout, with what an agent in double precision thought of it."""

    def __init__(self, agent: PPO, stream: Stream, steps: int) -> None:
        self.network = copy.deepcopy(agent._network).double()
        self.transitions: list[Transition] = []
        for _ in range(steps):
            action = agent.act(stream.observation)
            assert agent.learn() == {}
            step = stream.step(action)
            self.transitions.append(copy.deepcopy(step))
            agent.observe(step)

    def log_chances_and_value(self, observation: Array) -> tuple[Tensor, Tensor]:
        features = self.network.torso(torch.from_numpy(observation).double())
        logits = self.network.head(features)
        value = self.network.value_head(features)[:, 0]
        return logits - logits.exp().sum(1, keepdim=True).log(), value


def reference_gradients(
    past: Past, config: PPOConfig
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return the gradient of a rollout in one minibatch and its losses: formulas, step by step."""
    advantages, entropies, values, targets, chosen = [], [], [], [], []
    for env in range(len(past.transitions[0].action)):
        rewards, olds, nexts, ends, overs = [], [], [], [], []
        for step in past.transitions:
            reward = float(step.reward[env])
            ends.append(
                bool(step.terminated[env]) or (config.reset_return_at_score and reward != 0)
            )
            if config.clip_rewards:
                reward = float(np.sign(reward))
            rewards.append(reward * config.reward_scale)
            overs.append(bool(step.episode_over[env]))
            log_chances, value = past.log_chances_and_value(step.observation[env : env + 1])
            _, following = past.log_chances_and_value(step.next_observation[env : env + 1])
            olds.append(value.item())
            nexts.append(following.item())
            values.append(value[0])
            chosen.append(log_chances[0, int(step.action[env])])
            entropies.append(-(log_chances.exp() * log_chances).sum())
        for t in range(len(rewards)):
            advantages.append(
                slow_advantage(
                    t, rewards, olds, nexts, ends, overs, config.gamma, config.gae_lambda
                )
            )
            targets.append(advantages[-1] + olds[t])
    scaled = np.array(advantages)
    if config.standardize_advantages:
        scaled = (scaled - scaled.mean()) / scaled.std()
    # The first gradient of all is taken where the ratio is 1: that of A log pi.
    policy = -(torch.from_numpy(scaled) * torch.stack(chosen)).mean()
    error = ((torch.stack(values) - torch.tensor(targets)) ** 2).mean()
    entropy = torch.stack(entropies).mean()
    loss = policy + config.value_coefficient * error - config.entropy_coefficient * entropy
    loss.backward()  # type: ignore[no-untyped-call]
    found = {}
    for name, parameter in past.network.named_parameters():
        assert parameter.grad is not None
        found[name] = parameter.grad
    length = float(torch.cat([each.flatten() for each in found.values()]).norm())
    if config.max_grad_norm:
        scale = min(1.0, config.max_grad_norm / length)
        found = {name: each * scale for name, each in found.items()}
    spread = np.array(targets).var()
    unexplained = (np.array(targets) - torch.stack(values).detach().numpy()).var()
    numbers = {
        "losses/policy_loss": -float(scaled.mean()),
        "losses/value_loss": float(error.detach()),
        "losses/entropy": float(entropy.detach()),
        "losses/approx_kl": 0.0,
        "losses/clip_fraction": 0.0,
        "losses/explained_variance": float(1 - unexplained / spread),
    }
    return found, numbers


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"standardize_advantages": False},
        {"gae_lambda": 0.0},
        {"gae_lambda": 1.0, "gamma": 1.0},
        {"max_grad_norm": 0.01},
        {"value_coefficient": 3.0, "entropy_coefficient": 0.5},
        {"clip_rewards": True},
        {"reward_scale": 0.1},
        {"reset_return_at_score": True},
    ],
    ids=lambda options: ", ".join(options) or "plain",
)
def test_an_update_is_that_of_an_independent_computation(options: dict[str, Any]) -> None:
    options = {"max_grad_norm": 0.0, "rollout_steps": 20} | options
    options |= {"epochs": 1, "minibatches": 1, "learning_rate": 1e-3}
    agent, stream = make_agent(2, **options), Stream(2)
    config = PPOConfig.model_validate(BASE | options)
    with torch.no_grad():  # a policy that has its preferences
        agent._network.head.weight.mul_(50)
    past = Past(agent, stream, 20)
    kinds = [
        (bool(t), bool(o)) for step in past.transitions for t, o in zip(*step[4:6], strict=True)
    ]
    assert len(set(kinds)) == 4  # goes on, terminates, is truncated, loses a life
    expected, losses = reference_gradients(past, config)
    before = parameters(agent)
    agent.act(stream.observation)
    metrics = agent.learn()
    assert set(metrics) == set(losses)
    for name, value in metrics.items():
        assert float(value) == pytest.approx(losses[name], rel=1e-4, abs=1e-5), name
    for name, parameter in agent._network.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad.double(), expected[name], rtol=1e-3, atol=1e-5)
        # Adam's first step: the gradient's sign, as long as the learning rate.
        step = 1e-3 * parameter.grad / (parameter.grad.abs() + 1e-5)
        torch.testing.assert_close(parameter.detach(), before[name] - step, rtol=1e-4, atol=1e-6)


def test_the_gradient_of_a_later_minibatch_is_that_of_finite_differences() -> None:
    """Where ratios are far from 1 and some of them are cut."""
    agent, stream = make_agent(2, rollout_steps=20, minibatches=1, clip_range=0.1), Stream(2)
    drive(agent, stream, 20)
    agent.act(stream.observation)
    rollout = agent._rollout
    advantage = agent._advantages()
    numbers = np.stack(
        [rollout.log_probability, rollout.value, advantage, advantage + rollout.value], axis=-1
    ).reshape(-1, 4)
    minibatch = agent._minibatch(np.arange(40), rollout.action.reshape(-1), numbers)
    minibatch = minibatch._make(
        each.double() if each.is_floating_point() else each for each in minibatch
    )
    agent._network.double()
    generator = np.random.default_rng(0)
    with torch.no_grad():
        for value in agent._network.parameters():
            value.add_(torch.from_numpy(generator.normal(scale=0.3, size=tuple(value.shape))))
    assert 0.2 < float(agent._losses(minibatch)[4].detach()) < 0.9
    for which in (0, 1, 2):
        agent._network.zero_grad()
        agent._losses(minibatch)[which].backward()  # type: ignore[no-untyped-call]
        for name, parameter in agent._network.named_parameters():
            memory = parameter.detach().numpy()
            slope = np.zeros_like(memory)
            for index in np.ndindex(memory.shape):
                kept, sides = memory[index], []
                for offset in (1e-6, -1e-6):
                    memory[index] = kept + offset
                    sides.append(float(agent._losses(minibatch)[which].detach()))
                memory[index] = kept
                slope[index] = (sides[0] - sides[1]) / 2e-6
            gradient = 0 * slope if parameter.grad is None else parameter.grad.numpy()
            np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-7, err_msg=name)


# --- which steps are learned from ----------------------------------------


@pytest.mark.parametrize(
    ("minibatches", "epochs", "num_envs"), [(1, 1, 2), (3, 4, 2), (6, 2, 3), (4, 3, 2)]
)
def test_minibatches_hold_each_step_once_an_epoch(
    monkeypatch: pytest.MonkeyPatch, minibatches: int, epochs: int, num_envs: int
) -> None:
    agent = make_agent(num_envs, minibatches=minibatches, epochs=epochs)
    stream = Stream(num_envs)
    given: list[list[tuple[bytes, int, float]]] = []
    improve, optimizer_step = agent._improve, agent._optimizer.step
    steps = 0

    def noting(minibatch: Any) -> Tensor:
        rows = zip(
            minibatch.observation.numpy(), minibatch.action, minibatch.log_probability, strict=True
        )
        given.append([(row.tobytes(), int(a), float(p)) for row, a, p in rows])
        return improve(minibatch)

    def counting(*args: Any) -> Any:
        nonlocal steps
        steps += 1
        return optimizer_step(*args)

    monkeypatch.setattr(agent, "_improve", noting)
    monkeypatch.setattr(agent._optimizer, "step", counting)
    expected: list[tuple[bytes, int, float]] = []
    orders = set()
    for t in range(19):
        action = agent.act(stream.observation)
        metrics = agent.learn()
        assert bool(metrics) == (t in (6, 12, 18))
        if metrics:
            assert len(given) == steps == minibatches * epochs
            for epoch in range(epochs):
                part = given[epoch * minibatches : (epoch + 1) * minibatches]
                assert {len(each) for each in part} == {6 * num_envs // minibatches}
                assert sorted(row for each in part for row in each) == sorted(expected)
                orders.add(tuple(row for each in part for row in each))
            given.clear()
            expected.clear()
            steps = 0
        for env in range(num_envs):
            chance = float(agent._log_probability[env])
            expected.append((stream.observation[env].tobytes(), int(action[env]), chance))
        agent.observe(stream.step(action))
    assert len(orders) == 3 * epochs  # each in an order of its own


def test_updates_come_after_so_many_steps_of_each_environment() -> None:
    agent, stream = make_agent(2, rollout_steps=6), Stream(2)
    _, metrics = drive(agent, stream, 25)
    assert [number for number, each in enumerate(metrics) if each] == [6, 12, 18, 24]
    names = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")
    for name in names:
        value = metrics[6][f"losses/{name}"]
        assert value.shape == ()
        assert not value.requires_grad
    assert set(metrics[6]) == {f"losses/{name}" for name in (*names, "explained_variance")}


def test_metrics_are_means_over_the_gradient_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, stream = make_agent(2), Stream(2)
    drive(agent, stream, 6)
    numbers = iter(range(6))
    monkeypatch.setattr(agent, "_improve", lambda _: torch.arange(5) * 10 + float(next(numbers)))
    agent.act(stream.observation)
    metrics = agent.learn()
    assert float(metrics["losses/policy_loss"]) == 2.5
    assert float(metrics["losses/clip_fraction"]) == 42.5


def test_a_value_that_never_differs_explains_nothing() -> None:
    agent = make_agent(2, gamma=0.0)
    observation, never = np.zeros((2, 3), dtype=np.float32), np.zeros(2, dtype=np.bool_)
    for _ in range(6):
        action = agent.act(observation)
        reward = np.ones(2, dtype=np.float32)
        agent.observe(Transition(observation, action, reward, observation, never, never))
    agent.act(observation)
    assert agent.learn()["losses/explained_variance"] == 0.0


def test_a_truncated_episode_bootstraps_from_what_it_ended_with() -> None:
    """And neither from the reset frame after it, nor from nothing."""
    agent = make_agent(1, rollout_steps=2, minibatches=1, gae_lambda=0.0, hidden_sizes=[])
    with torch.no_grad():  # the value is the first number of an observation
        agent._network.value_head.weight.copy_(torch.tensor([[1.0, 0.0, 0.0]]))
        agent._network.value_head.bias.zero_()
    for first, last, reset, over, terminated in (
        (5.0, 7.0, 100.0, True, False),
        (100.0, 3.0, 3.0, False, False),
    ):
        agent.act(np.array([[first, 0, 0]], dtype=np.float32))
        step = Transition(
            np.array([[first, 0, 0]], dtype=np.float32),
            np.zeros(1, dtype=np.int64),
            np.ones(1, dtype=np.float32),
            np.array([[last, 0, 0]], dtype=np.float32),
            np.array([terminated]),
            np.array([over]),
        )
        agent.observe(step)
        agent.act(np.array([[reset, 0, 0]], dtype=np.float32))
    found = agent._advantages()
    np.testing.assert_allclose(found[:, 0], [1 + 0.9 * 7 - 5, 1 + 0.9 * 3 - 100], rtol=1e-6)


# --- options ----------------------------------------

CHANGES: dict[str, Any] = {
    "rollout_steps": 12,
    "epochs": 3,
    "minibatches": 2,
    "learning_rate": 2e-2,
    "learning_rate_end": 1e-3,
    "learning_rate_decay_steps": 50,
    "adam_epsilon": 1e-2,
    "gamma": 0.5,
    "gae_lambda": 0.5,
    "clip_range": 0.01,
    "value_clip_range": 0.05,
    "value_coefficient": 2.0,
    "entropy_coefficient": 0.2,
    "entropy_coefficient_end": 0.3,
    "entropy_coefficient_decay_steps": 40,
    "standardize_advantages": False,
    "target_kl": 1e-5,
    "reward_scale": 0.1,
    "clip_rewards": True,
    "normalize_rewards": True,
    "reset_return_at_score": True,
    "max_grad_norm": 0.01,
    "hidden_sizes": [9],
}
BESIDE: dict[str, dict[str, Any]] = {
    "learning_rate_end": {"learning_rate_decay_steps": 100},
    "learning_rate_decay_steps": {"learning_rate_end": 1e-3},
    "entropy_coefficient_end": {"entropy_coefficient_decay_steps": 100},
    "entropy_coefficient_decay_steps": {"entropy_coefficient_end": 0.2},
}
ALONE = {"learning_rate_end": 1e-2, "entropy_coefficient_end": 0.01}  # as they begin
LATER = {"learning_rate_decay_steps": 100, "entropy_coefficient_decay_steps": 100}


def outcome(**options: Any) -> tuple[list[list[int]], float]:
    """Return the actions of a short training and a number that depends on the weights."""
    agent = make_agent(**options)
    actions, _ = drive(agent, Stream(2), 60)
    observations = np.random.default_rng(8).normal(size=(20, 3)).astype(np.float32)
    return actions, float((agent.policy().values(observations) ** 2).mean())


@pytest.mark.parametrize("option", [*CHANGES])
def test_every_option_changes_what_is_learned(option: str) -> None:
    beside = BESIDE.get(option, {})
    start = {name: both[option] for both in (ALONE, LATER) for name in [option] if option in both}
    _, before = outcome(**beside | start)
    _, after = outcome(**beside | {option: CHANGES[option]})
    assert abs(after - before) > 1e-5 * before


def test_no_option_of_the_table_is_left_out() -> None:
    assert {*PPOConfig.model_fields} - {"name"} <= set(CHANGES)


def test_the_learning_rate_and_the_entropys_weight_change_with_agent_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent, stream = (
        make_agent(
            2,
            learning_rate=1e-2,
            learning_rate_end=2e-3,
            learning_rate_decay_steps=48,
            entropy_coefficient=0.1,
            entropy_coefficient_end=0.5,
            entropy_coefficient_decay_steps=24,
        ),
        Stream(2),
    )
    rates = []
    step = agent._optimizer.step

    def noting(*args: Any) -> Any:
        rates.append(agent._optimizer.param_groups[0]["lr"])
        return step(*args)

    monkeypatch.setattr(agent._optimizer, "step", noting)
    assert agent.gauges() == {"charts/learning_rate": 1e-2, "charts/entropy_coefficient": 0.1}
    drive(agent, stream, 7)  # 12 agent steps, then an update
    assert rates == [pytest.approx(8e-3)] * 6
    drive(agent, stream, 5)
    assert agent.gauges()["charts/entropy_coefficient"] == pytest.approx(0.5)
    drive(agent, stream, 30)
    assert rates[-6:] == [pytest.approx(2e-3)] * 6
    assert make_agent().gauges() == {}


def test_the_epochs_end_once_the_policy_is_far_from_the_old_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for divergences, limit, epochs in (
        ([0.1, 0.2, 0.6, 0.9], 0.5, 3),
        ([0.1, 0.2, 0.3, 0.4], 0.5, 4),
        ([0.1, 0.2, 0.6, 0.9], None, 4),
        ([0.6, 0.2, 0.6, 0.9], 0.5, 1),
    ):
        agent, stream = make_agent(2, epochs=4, minibatches=2, target_kl=limit), Stream(2)
        drive(agent, stream, 6)
        taken = 0

        def improve(_: Any, divergences: list[float] = divergences) -> Tensor:
            nonlocal taken
            # One minibatch is further away, the other nearer: their mean counts.
            number = divergences[taken // 2] * (1.9 if taken % 2 else 0.1)
            taken += 1
            return torch.tensor([0.0, 0.0, 0.0, number, 0.0])

        monkeypatch.setattr(agent, "_improve", improve)
        agent.act(stream.observation)
        metrics = agent.learn()
        assert taken == 2 * epochs
        assert float(metrics["losses/approx_kl"]) == pytest.approx(np.mean(divergences[:epochs]))


def rewards_in(agent: PPO, reward: Sequence[float]) -> list[float]:
    """Return what the rollout keeps of a step's rewards."""
    num_envs = len(reward)
    observation, never = np.zeros((num_envs, 3), dtype=np.float32), np.zeros(num_envs, np.bool_)
    action = agent.act(observation)
    numbers = np.array(reward, dtype=np.float32)
    agent.observe(Transition(observation, action, numbers, observation, never, never))
    return [float(each) for each in agent._rollout.reward[len(agent._rollout) - 1]]


def test_rewards_are_scaled_and_clipped_by_hand() -> None:
    assert rewards_in(make_agent(), [-3, 0.5]) == [-3, 0.5]
    assert rewards_in(make_agent(reward_scale=0.5), [-3, 0.5]) == [-1.5, 0.25]
    assert rewards_in(make_agent(clip_rewards=True), [-3, 0.5]) == [-1, 1]
    both = make_agent(clip_rewards=True, reward_scale=0.5)
    assert rewards_in(both, [-3, 0]) == [-0.5, 0]


def test_a_score_that_ends_a_return_is_seen_before_rewards_are_changed() -> None:
    agent = make_agent(reset_return_at_score=True, normalize_rewards=True)
    rewards_in(agent, [0, 0.001])
    assert agent._rollout.terminated[0].tolist() == [False, True]


def test_normalised_rewards_by_hand() -> None:
    normalizer = RewardNormalizer(2, 0.5)
    never = np.zeros(2, dtype=np.bool_)
    first = normalizer(np.array([1, 3], dtype=np.float32), never)
    np.testing.assert_allclose(first, [1, 3], rtol=1e-6)  # returns 1 and 3: a deviation of 1
    second = normalizer(np.array([2.5, 0.5], dtype=np.float32), np.array([True, False]))
    # returns 3 and 2; of 1, 3, 3, 2 the variance is 11/16
    np.testing.assert_allclose(second, np.array([2.5, 0.5]) / np.sqrt(11 / 16), rtol=1e-6)
    third = normalizer(np.array([1, 1], dtype=np.float32), never)
    # returns 1, since the first one's episode was over, and 2
    expected = 1 / np.std([1, 3, 3, 2, 1, 2])
    np.testing.assert_allclose(third, [expected, expected], rtol=1e-6)
    assert str(third.dtype) == "float32"


@given(
    rewards=st.lists(
        st.tuples(st.floats(-100, 100), st.floats(-100, 100), st.integers(0, 3)), min_size=1
    ),
    gamma=st.sampled_from([0.0, 0.9, 1.0]),
)
def test_normalised_rewards_are_divided_by_the_deviation_of_all_returns(
    rewards: list[tuple[float, float, int]], gamma: float
) -> None:
    normalizer = RewardNormalizer(2, gamma)
    running, seen = np.zeros(2), []
    for left, right, bits in rewards:
        reward = np.array([left, right], dtype=np.float32)
        ends = np.array([bits & 1, bits >> 1 & 1], dtype=np.bool_)
        running = gamma * running + reward
        seen.extend(running.tolist())
        running[ends] = 0
        expected = np.clip(reward / np.sqrt(np.var(seen) + 1e-8), -10, 10)
        np.testing.assert_allclose(normalizer(reward, ends), expected, rtol=1e-3, atol=1e-4)


def test_the_normaliser_forgets_running_returns_at_an_interruption() -> None:
    one, other = RewardNormalizer(1, 1.0), RewardNormalizer(1, 1.0)
    never = np.zeros(1, dtype=np.bool_)
    one(np.array([4], dtype=np.float32), never)
    other(np.array([4], dtype=np.float32), ~never)
    one.interrupt()
    reward = np.array([1], dtype=np.float32)
    assert one(reward, never).tolist() == other(reward, never).tolist()
    with pytest.raises(ValueError, match="environments"):
        RewardNormalizer(2, 1.0).set_state(one.state())


# --- acting ----------------------------------------


def test_actions_are_as_frequent_as_the_policy_says() -> None:
    agent = make_agent(200, rollout_steps=300)
    chances = np.array([0.05, 0.15, 0.5, 0.3])
    set_policy(agent, np.log(chances).tolist())
    observation = Stream(200).observation
    drawn = np.stack([agent.act(observation) for _ in range(200)])
    assert (drawn.shape, str(drawn.dtype)) == ((200, 200), "int64")
    counts = np.bincount(drawn.ravel(), minlength=4)
    expected = 40_000 * chances
    assert ((counts - expected) ** 2 / expected).sum() < 16.3  # chance: 1 in 1000
    assert (drawn[1:] == drawn[:-1]).mean() == pytest.approx((chances**2).sum(), abs=0.015)
    assert (drawn[:, 1:] == drawn[:, :-1]).mean() == pytest.approx((chances**2).sum(), abs=0.015)
    np.testing.assert_allclose(agent._log_probability, np.log(chances[drawn[-1]]), rtol=1e-5)


def test_impossible_actions_are_never_drawn() -> None:
    agent = make_agent(200)
    set_policy(agent, [-1e9, 0.0, 0.0, -1e9])
    drawn = np.stack([agent.act(Stream(200).observation) for _ in range(50)])
    assert set(drawn.ravel().tolist()) == {1, 2}


def test_each_environment_follows_its_own_observation() -> None:
    agent = make_agent(2, hidden_sizes=[])
    with torch.no_grad():
        agent._network.head.weight.zero_()
        agent._network.head.weight[1, 0] = 50.0
        agent._network.head.weight[3, 1] = 50.0
    observation = np.eye(3, dtype=np.float32)[:2]
    for _ in range(20):
        assert agent.act(observation).tolist() == [1, 3]


def test_nobody_waits() -> None:
    agent = make_agent()
    drive(agent, Stream(2), 7)
    assert agent.waiting() is None


# --- repeating, saving ----------------------------------------


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    assert outcome(seed=3) == outcome(seed=3)
    actions, values = outcome(seed=3)
    others, other_values = outcome(seed=4)
    assert actions != others
    assert values != other_values


def test_global_generators_are_neither_used_nor_changed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    state = torch.get_rng_state()
    first = outcome()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    np.random.seed(1)
    assert outcome() == first


SAVED: list[dict[str, Any]] = [
    {},
    {
        "normalize_rewards": True,
        "learning_rate_end": 0.0,
        "learning_rate_decay_steps": 300,
        "entropy_coefficient_end": 0.0,
        "entropy_coefficient_decay_steps": 300,
    },
]


@pytest.mark.parametrize("options", SAVED, ids=["plain", "scheduled"])
@pytest.mark.parametrize("steps", [0, 3, 6, 7, 40])
def test_a_saved_agent_goes_on_bit_for_bit(
    tmp_path: Path, steps: int, options: dict[str, Any]
) -> None:
    agent, stream = make_agent(**options), Stream(2)
    drive(agent, stream, steps)
    agent.save(tmp_path)
    other, same_stream = make_agent(seed=99, **options), copy.deepcopy(stream)
    other.load(tmp_path)
    for _ in range(30):
        one, same = drive(agent, stream, 1), drive(other, same_stream, 1)
        assert one[0] == same[0]
        assert same_metrics(one[1], same[1])
        assert equal(parameters(agent), parameters(other))


def test_without_experience_another_rollout_begins(tmp_path: Path) -> None:
    agent = make_agent()
    drive(agent, Stream(2), 9)
    agent.save(tmp_path, experience=False)
    assert not (tmp_path / "replay").exists()
    other = make_agent(seed=9)
    other.load(tmp_path)
    other.interrupt()
    assert equal(parameters(other), parameters(agent))
    fresh = Stream(2, seed=4)
    assert other.act(fresh.observation).tolist() == agent.act(fresh.observation).tolist()
    _, metrics = drive(other, fresh, 7)
    assert [bool(each) for each in metrics] == [False] * 6 + [True]


def test_saving_changes_nothing(tmp_path: Path) -> None:
    saved, untouched = make_agent(), make_agent()
    stream, same_stream = Stream(2), Stream(2)
    for step in range(40):
        if step in (5, 24, 25):
            (tmp_path / str(step)).mkdir()
            saved.save(tmp_path / str(step), experience=step != 5)
        assert drive(saved, stream, 1)[0] == drive(untouched, same_stream, 1)[0]
    assert equal(parameters(saved), parameters(untouched))


def test_saved_files_hold_no_code(tmp_path: Path) -> None:
    agent = make_agent()
    drive(agent, Stream(2), 9)
    agent.save(tmp_path)
    endings = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert endings == {".safetensors", ".json", ".npy"}
    for path in tmp_path.rglob("*.npy"):
        np.load(path, allow_pickle=False)


def test_an_interruption_drops_the_rollout() -> None:
    """And what has been seen before plays no part in what is learned after."""
    results = []
    for before in (0, 4):
        agent = make_agent()
        state = copy.deepcopy(agent._exploration)
        drive(agent, Stream(2, seed=5), before)
        agent._exploration = state
        agent.interrupt()
        _, metrics = drive(agent, Stream(2, seed=6), 7)
        assert [bool(each) for each in metrics] == [False] * 6 + [True]
        results.append(parameters(agent))
    assert equal(*results)


def test_another_network_is_refused(tmp_path: Path) -> None:
    make_agent().save(tmp_path)
    with pytest.raises(ValueError, match="network"):
        make_agent(hidden_sizes=[9]).load(tmp_path)


def test_another_rollout_is_refused(tmp_path: Path) -> None:
    make_agent().save(tmp_path)
    with pytest.raises(ValueError, match="rollout_steps"):
        make_agent(rollout_steps=9).load(tmp_path)


def test_a_policy_is_a_copy() -> None:
    agent = make_agent()
    observations = np.random.default_rng(3).normal(size=(30, 3)).astype(np.float32)
    policy = agent.policy()
    values = policy.values(observations)
    assert policy.kind == "probabilities"
    np.testing.assert_allclose(values.sum(axis=1), 1, rtol=1e-5)
    logits = agent._network(torch.from_numpy(observations)).detach().numpy()
    assert policy.act(observations).tolist() == logits.argmax(axis=1).tolist()
    drive(agent, Stream(2), 60)
    np.testing.assert_array_equal(policy.values(observations), values)
    assert not np.allclose(agent.policy().values(observations), values, atol=1e-4)


def test_a_saved_policy_comes_back(tmp_path: Path) -> None:
    agent = make_agent()
    drive(agent, Stream(2), 60)
    agent.save(tmp_path, experience=False)
    policy = PPO.load_policy(make_tables(), OBSERVATIONS, ACTIONS, tmp_path, CPU)
    observations = np.random.default_rng(3).normal(size=(30, 3)).astype(np.float32)
    np.testing.assert_array_equal(policy.values(observations), agent.policy().values(observations))
    assert policy.kind == "probabilities"


def test_it_begins_with_the_weights_of_another_run() -> None:
    donor, agent = make_agent(seed=5), make_agent(seed=6)
    drive(donor, Stream(2), 20)
    agent.take_weights(donor._network.state_dict(), {})
    assert equal(parameters(agent), parameters(donor))


def test_it_begins_with_the_weights_of_reinforce_where_that_has_values() -> None:
    def reinforce(baseline: str) -> dict[str, Tensor]:
        table = ReinforceConfig.model_validate({"baseline": baseline})
        tables = Tables(table, NetworkConfig(hidden_sizes=[8]))
        donor = Reinforce.from_config(tables, OBSERVATIONS, ACTIONS, num_envs=2, seed=7, device=CPU)
        return donor._network.state_dict()

    agent = make_agent()
    agent.take_weights(reinforce("value"), {})
    assert equal(parameters(agent), reinforce("value"))
    with pytest.raises(ValueError, match=r"value_head\.\w+ is missing there"):
        agent.take_weights(reinforce("none"), {})


def test_putting_minibatches_together_is_measured_apart_from_learning() -> None:
    agent, watch = make_agent(), Profile()
    agent.measure(watch)
    drive(agent, Stream(2), 6)
    assert "sample" not in watch.seconds()
    drive(agent, Stream(2), 1)
    assert watch.seconds()["sample"] > 0


# --- what is refused ----------------------------------------


@pytest.mark.parametrize(
    ("options", "num_envs", "says"),
    [
        ({"rollout_steps": 5, "minibatches": 4}, 3, r"minibatches: the 15 steps .* set it to 3,"),
        ({"rollout_steps": 5, "minibatches": 99}, 2, r"minibatches: .* set it to 10,"),
        ({"rollout_steps": 5, "minibatches": 10}, 2, r"standardize_advantages: .* one step"),
        ({"learning_rate_end": 0.0}, 2, r"learning_rate_end: needs learning_rate_decay_steps"),
        (
            {"learning_rate_decay_steps": 9},
            2,
            r"learning_rate_decay_steps: needs learning_rate_end",
        ),
        ({"entropy_coefficient_end": 0.0}, 2, r"_end: needs entropy_coefficient_decay_steps"),
        ({"entropy_coefficient_decay_steps": 9}, 2, r"_steps: needs entropy_coefficient_end"),
        ({"target_kl": 0.1, "epochs": 1}, 2, r"target_kl: .* raise epochs"),
    ],
)
def test_options_that_contradict_one_another_are_refused(
    options: dict[str, Any], num_envs: int, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        PPO.check(make_tables(**options), num_envs=num_envs)


def test_what_a_refusal_proposes_is_taken() -> None:
    PPO.check(make_tables(rollout_steps=5, minibatches=3), num_envs=3)
    PPO.check(make_tables(rollout_steps=5, minibatches=5), num_envs=2)
    alone = {"rollout_steps": 5, "minibatches": 10, "standardize_advantages": False}
    PPO.check(make_tables(**alone), num_envs=2)
    drive(make_agent(2, **alone), Stream(2), 12)


@pytest.mark.parametrize(
    "actions",
    [
        gym.spaces.Box(-1, 1, (2,)),
        gym.spaces.MultiDiscrete([2, 3]),
        gym.spaces.Discrete(3, start=1),
    ],
)
def test_only_numbered_actions_are_taken(actions: gym.Space[Any]) -> None:
    with pytest.raises(UsageError, match="ppo chooses among numbered actions"):
        make_agent(actions=actions)


@pytest.mark.parametrize("key", ["dueling", "noisy"])
def test_networks_of_action_values_are_refused(key: str) -> None:
    tables = Tables(PPOConfig(), NetworkConfig.model_validate({key: True}))
    with pytest.raises(UsageError, match=rf"\[network\] {key}: ppo .*; leave it out"):
        PPO.check(tables, num_envs=8)


def test_resolving_leaves_no_precision_open() -> None:
    resolved = PPO.resolve(make_tables(), "cpu")["network"]
    assert isinstance(resolved, NetworkConfig)
    assert resolved.precision == "float32"


# --- pictures ----------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_stacks_reach_the_network_as_they_were_seen(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    space = FrameStack(3, 36, 36)
    network = {"torso": "nature-cnn", "width": 0.125, "hidden_sizes": [8], "precision": precision}
    tables = Tables(PPOConfig.model_validate(BASE), NetworkConfig.model_validate(network))
    agent = PPO.from_config(tables, space, gym.spaces.Discrete(2), num_envs=2, seed=0, device=CPU)
    generator = np.random.default_rng(0)
    given: list[bytes] = []
    improve = agent._improve

    def noting(minibatch: Any) -> Tensor:
        given.extend(stack.tobytes() for stack in minibatch.observation.numpy())
        return improve(minibatch)

    monkeypatch.setattr(agent, "_improve", noting)
    seen: list[bytes] = []
    stacks = np.zeros((2, *space.shape), dtype=np.uint8)
    stacks[:, -1] = generator.integers(1, 256, size=(2, 36, 36))
    before = parameters(agent)
    updates = 0
    for t in range(19):
        action = agent.act(stacks)
        metrics = agent.learn()
        if metrics:
            updates += 1
            assert sorted(given) == sorted(seen * 2)  # two epochs
            assert all(np.isfinite(float(value)) for value in metrics.values())
            given.clear()
            seen.clear()
        seen.extend(stack.tobytes() for stack in stacks)
        over = np.array([t % 4 == 3, t == 8])
        after = np.roll(stacks, -1, axis=1)
        after[:, -1] = generator.integers(1, 256, size=(2, 36, 36))
        agent.observe(Transition(stacks, action, action.astype(np.float32), after, over, over))
        after = after.copy()
        after[over, :-1] = 0
        stacks = after
    assert updates == 3
    assert not equal(parameters(agent), before)
