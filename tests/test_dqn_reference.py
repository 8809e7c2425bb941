"""DQN beside a slow and obvious one: the same experience and samples, the same parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from dqn_tools import BASE, Stream, feed, make_agent, weights
from torch import Tensor

from rlagents.agents.dqn import DQN
from rlagents.types import Transition

NUM_ENVS = 3  # divides neither the update's period nor the target's


class Row(NamedTuple):
    """A step, or the observation behind an episode's last one."""

    observation: Tensor
    action: int = 0
    reward: float = 0.0
    terminated: bool = False
    over: bool = False


Prepared = list[tuple[Row, float]]  # steps, and what their values should be


class Obvious:
    """Algorithm 1 of Mnih et al. (2015) in double precision, a transition at a time."""

    def __init__(self, parameters: dict[str, Tensor], options: dict[str, Any]) -> None:
        self.options = {"n_step": 1, "adam_epsilon": 1e-8, "max_grad_norm": 10.0} | BASE | options
        self.online = {name: value.double().requires_grad_() for name, value in parameters.items()}
        self.target = self.copy()
        self.average = self.copy()  # without a decay, the online parameters
        self.acting = self.average  # what chooses in targets
        self.prepared: list[Prepared] = []  # with `pipelined`, for the next call
        self.moments = dict.fromkeys(parameters, (0.0, 0.0))
        self.rows: list[list[Row]] = [[] for _ in range(NUM_ENVS)]
        self.steps = self.drawn = self.updates = self.copies = 0

    def copy(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.online.items()}

    def observe(self, transition: Transition) -> None:
        o_tm1, action, reward, o_t, terminated, over = transition[:6]
        for i, rows in enumerate(self.rows):
            r = float(reward[i])
            if self.options.get("clip_rewards"):
                r = float(np.sign(r))
            ended = bool(terminated[i]) or (bool(self.options.get("reset_return_at_score")) and r)
            rows.append(Row(torch.tensor(o_tm1[i]), int(action[i]), r, bool(ended), bool(over[i])))
            if over[i]:
                rows.append(Row(torch.tensor(o_t[i])))
        self.steps += NUM_ENVS

    def values(self, network: dict[str, Tensor], observation: Tensor) -> Tensor:
        weight, bias = network["torso.layers.0.weight"], network["torso.layers.0.bias"]
        hidden = (weight @ observation.double() + bias).relu()
        values = network["head.weight"] @ hidden + network["head.bias"]
        if "value_head.weight" in network:
            value = network["value_head.weight"] @ hidden + network["value_head.bias"]
            return value + values - values.mean()
        return values

    def goal(self, rows: list[Row], first: int) -> float:
        total, discount = 0.0, 1.0
        for row in rows[first : first + self.options["n_step"]]:
            total += discount * row.reward
            discount *= self.options["gamma"]
            first += 1
            if row.terminated:
                return total
            if row.over:
                break
        choosing = self.acting if self.options.get("double") else self.target
        best = int(self.values(choosing, rows[first].observation).argmax())
        return total + discount * float(self.values(self.target, rows[first].observation)[best])

    def learn(self, samples: list[list[tuple[int, int]]]) -> None:
        since = self.steps - self.options["learning_starts"] + NUM_ENVS  # the step it starts in
        due = 0 if since < NUM_ENVS else since // self.options["update_period_steps"]
        assert len(samples) == due - self.drawn
        self.drawn = due
        if self.options.get("pipelined") and not samples:
            return
        copy_is_due = (
            since >= NUM_ENVS and since // self.options["target_period_steps"] > self.copies
        )
        self.copies += copy_is_due
        if self.options.get("pipelined"):
            self.acting = self.average
            if copy_is_due:
                self.target = self.copy()
            prepared = [self.prepare(sample) for sample in samples]
            for batch in self.prepared:
                self.update(batch)
            self.prepared = prepared
            return
        for sample in samples:
            self.update(self.prepare(sample))
        if copy_is_due:
            self.target = self.copy()

    def prepare(self, sample: list[tuple[int, int]]) -> Prepared:
        goals = [self.goal(self.rows[env], number) for env, number in sample]
        return [(self.rows[e][n], goal) for (e, n), goal in zip(sample, goals, strict=True)]

    def update(self, batch: Prepared) -> None:
        self.updates += 1
        losses = []
        for row, goal in batch:
            error = (self.values(self.online, row.observation)[row.action] - goal).abs()
            losses.append(error**2 / 2 if error < 1 else error - 0.5)
        loss = torch.stack(losses).mean()
        gradients = torch.autograd.grad(loss, list(self.online.values()))
        length = float(sum((gradient**2).sum() for gradient in gradients)) ** 0.5
        shorter = min(1.0, self.options["max_grad_norm"] / length)
        with torch.no_grad():
            for (name, value), gradient in zip(self.online.items(), gradients, strict=True):
                first, second = self.moments[name]
                first = 0.9 * first + 0.1 * gradient * shorter
                second = 0.999 * second + 0.001 * (gradient * shorter) ** 2
                self.moments[name] = (first, second)
                scale = (second / (1 - 0.999**self.updates)).sqrt() + self.options["adam_epsilon"]
                value -= self.options["learning_rate"] * first / (1 - 0.9**self.updates) / scale
            decay = self.options.get("average_decay", 0.0)
            self.average = {
                name: decay * self.average[name] + (1 - decay) * value
                for name, value in self.online.items()
            }
        if not self.options.get("pipelined"):
            self.acting = self.average


def keep_samples(agent: DQN, monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[int, int]]]:
    """Let the list that is returned collect what is drawn: environments and rows."""
    kept: list[list[tuple[int, int]]] = []
    draw = agent._replay._draw

    def keeping(count: int) -> Any:
        envs, rows = draw(count)
        kept.append(list(zip(envs.tolist(), rows.tolist(), strict=True)))
        return envs, rows

    monkeypatch.setattr(agent._replay, "_draw", keeping)
    return kept


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"double": True},
        {"dueling": True},
        {"n_step": 3},
        {"double": True, "dueling": True, "n_step": 3},
        {"clip_rewards": True},
        {"reset_return_at_score": True, "n_step": 2},
        {"max_grad_norm": 0.05},
        {"pipelined": True},
        {"pipelined": True, "double": True, "dueling": True, "n_step": 3},
        {"double": True, "average_decay": 0.9},
        {"double": True, "average_decay": 0.9, "pipelined": True},
    ],
)
def test_the_same_parameters_as_a_slow_obvious_dqn(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    # Adam divides by the size of gradients, and with it their rounding; its epsilon bounds that.
    options = options | {
        "learning_rate": 1e-3,
        "adam_epsilon": 1e-3,
        "learning_starts": 30,
        "update_period_steps": 4,
        "target_period_steps": 13,
    }
    agent = make_agent(NUM_ENVS, **options)
    samples = keep_samples(agent, monkeypatch)
    reference = Obvious(
        {name: value.detach().clone() for name, value in agent._network.named_parameters()}, options
    )
    stream = Stream(NUM_ENVS, end=0.25)
    before = weights(agent._network)
    while reference.updates < 20:
        action = agent.act(stream.observation)
        agent.learn()
        reference.learn(samples)
        samples.clear()
        transition = stream.step(action)
        transition = transition._replace(reward=np.round(transition.reward / 2))  # often 0
        agent.observe(transition)
        reference.observe(transition)
    agent.policy()  # waits for what is being learned
    assert reference.copies >= 5
    for name, value in weights(agent._network).items():
        expected = reference.online[name].detach().numpy()
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-6)
        assert np.abs(value - before[name]).max() > 1e-3  # a thousand times what may differ
    for name, value in weights(agent._target).items():
        np.testing.assert_allclose(value, reference.target[name].numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("reward", "gradient"), [(0.5, -0.5), (-0.9, 0.9), (1.0, -1), (3.0, -1), (-40.0, 1)]
)
def test_an_error_counts_no_more_than_one(reward: float, gradient: float) -> None:
    agent = make_agent(2, gamma=0.0, max_grad_norm=0.0, learning_starts=4)
    with torch.no_grad():
        for parameter in agent._network.parameters():
            parameter.zero_()  # every value is 0, so the error is the reward with its sign turned
    _pay(agent, reward)
    agent.learn()
    found = agent._network.head.bias.grad
    assert found is not None
    assert found.tolist() == pytest.approx([gradient, 0, 0, 0])


@pytest.mark.parametrize(("limit", "length"), [(0.25, 0.25), (0.9999, 0.9999), (2.0, 1.0)])
def test_gradients_are_shortened_to_the_limit_and_never_lengthened(
    limit: float, length: float
) -> None:
    agent = make_agent(2, gamma=0.0, max_grad_norm=limit, learning_starts=4)
    with torch.no_grad():
        for parameter in agent._network.parameters():
            parameter.zero_()
    _pay(agent, 3.0)  # a gradient of length 1, as the test above shows
    agent.learn()
    squares = [float((p.grad**2).sum()) for p in agent._network.parameters() if p.grad is not None]
    assert sum(squares) ** 0.5 == pytest.approx(length, rel=1e-5)


def _pay(agent: DQN, reward: float) -> None:
    """Observe the first action twice in two environments, and pay each time."""
    nothing = np.zeros((2, 3), dtype=np.float32)
    no = np.zeros(2, dtype=np.bool_)
    actions, rewards = np.zeros(2, dtype=np.int64), np.full(2, reward, dtype=np.float32)
    for _ in range(2):
        agent.observe(Transition(nothing, actions, rewards, nothing, no, no))


def test_epsilon_begins_and_ends_where_it_should() -> None:
    agent = make_agent(NUM_ENVS, epsilon_start=0.75, epsilon_end=0.25, epsilon_decay_steps=7)
    found = []
    for _ in range(4):  # at 0, 3, 6 and 9 steps, past the end of the line
        found.append(agent.epsilon)
        feed(agent, 1, num_envs=NUM_ENVS)
    assert found == pytest.approx([0.75, 0.75 - 0.5 * 3 / 7, 0.75 - 0.5 * 6 / 7, 0.25])
    assert found[-1] == 0.25
