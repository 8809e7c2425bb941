from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
import torch
from dqn_tools import (
    ACTIONS,
    BASE,
    CPU,
    NOISY,
    OBSERVATIONS,
    SOFT,
    Numbers,
    Stream,
    Tables,
    count_updates,
    drive,
    equal,
    feed,
    keep_batches,
    make_agent,
    make_tables,
    weights,
)
from pydantic import ValidationError

from rlagents.agents.dqn import DQN, DQNConfig, td_targets
from rlagents.errors import UsageError
from rlagents.networks import NetworkConfig
from rlagents.replay import Batch, ReplayConfig, TransitionRing
from rlagents.spaces import FrameStack
from rlagents.types import Array, Metrics, Transition


@pytest.fixture
def _flush_denormal() -> Iterator[None]:
    torch.set_flush_denormal(True)  # as a run does; Adam is many times slower without
    yield
    torch.set_flush_denormal(False)


def test_targets_by_hand() -> None:
    reward = torch.tensor([1.0, -2.0, 0.5])
    discount = torch.tensor([0.9, 0.0, 0.81])  # the second one terminated
    q_t = torch.tensor([[1.0, 3.0], [100.0, 50.0], [-4.0, -6.0]])
    expected = torch.tensor([1 + 0.9 * 3, -2.0, 0.5 - 0.81 * 4])
    torch.testing.assert_close(td_targets(reward, discount, q_t), expected)


def test_double_targets_by_hand() -> None:
    reward = torch.tensor([1.0, -2.0, 0.5])
    discount = torch.tensor([0.9, 0.0, 0.81])
    q_t = torch.tensor([[1.0, 3.0], [100.0, 50.0], [-4.0, -6.0]])
    selector = torch.tensor([[9.0, 0.0], [0.0, 1.0], [1.0, 2.0]])  # chooses 0, 1 and 1
    expected = torch.tensor([1 + 0.9 * 1, -2.0, 0.5 - 0.81 * 6])
    torch.testing.assert_close(td_targets(reward, discount, q_t, selector), expected)
    torch.testing.assert_close(
        td_targets(reward, discount, q_t, q_t), td_targets(reward, discount, q_t)
    )


def forward(
    p: Numbers, x: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return hidden layer and action values of a network with one hidden layer."""
    hidden = np.maximum(x @ p["torso.layers.0.weight"].T + p["torso.layers.0.bias"], 0)
    return hidden, hidden @ p["head.weight"].T + p["head.bias"]


def reference_gradient(
    online: Numbers, target: Numbers, batch: Batch, double: bool, loss: str = "huber"
) -> tuple[Numbers, float, npt.NDArray[np.float64]]:
    """Return gradient, loss and errors as Mnih et al. (2015) and van Hasselt et al. (2016) say."""
    x = batch.observation.astype(np.float64)
    after = batch.next_observation.astype(np.float64)
    rows = np.arange(len(x))
    target_values = forward(target, after)[1]
    chosen = (forward(online, after)[1] if double else target_values).argmax(axis=1)
    y = batch.reward + batch.discount.astype(np.float64) * target_values[rows, chosen]
    hidden, values = forward(online, x)
    error = values[rows, batch.action] - y
    small = np.abs(error) < 1
    weights = np.ones(len(x)) if batch.weights is None else batch.weights.astype(np.float64)
    losses = np.where(small, error**2 / 2, np.abs(error) - 0.5)
    slopes = np.clip(error, -1, 1)
    if loss == "mse":
        losses, slopes = error**2, 2 * error
    losses, slopes = weights * losses, weights * slopes
    by_value = np.zeros_like(values)
    by_value[rows, batch.action] = slopes / len(x)
    by_hidden = (by_value @ online["head.weight"]) * (hidden > 0)
    gradient = {
        "torso.layers.0.weight": by_hidden.T @ x,
        "torso.layers.0.bias": by_hidden.sum(axis=0),
        "head.weight": by_value.T @ hidden,
        "head.bias": by_value.sum(axis=0),
    }
    return gradient, float(losses.mean()), error


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("max_grad_norm", [0.0, 0.05])
@pytest.mark.parametrize("kind", ["uniform", "prioritized"])
@pytest.mark.parametrize("loss_kind", ["huber", "mse"])
def test_updates_are_those_of_an_independent_computation(
    monkeypatch: pytest.MonkeyPatch,
    double: bool,
    n_step: int,
    max_grad_norm: float,
    kind: str,
    loss_kind: str,
) -> None:
    agent = make_agent(
        kind=kind,
        double=double,
        n_step=n_step,
        max_grad_norm=max_grad_norm,
        loss=loss_kind,
        adam_epsilon=1e-3,
        target_period_steps=10**6,
        batch_size=32,
        update_period_steps=8,
    )
    batches = keep_batches(agent, monkeypatch)
    stream = Stream(2)
    online = weights(agent._network)
    target = weights(agent._target)
    assert equal(online, target)
    first = {name: np.zeros_like(value) for name, value in online.items()}
    second = {name: np.zeros_like(value) for name, value in online.items()}
    errors = []
    drive(agent, stream, 9)  # and the tenth brings the twentieth transition
    for update in range(1, 7):
        while not (metrics := drive(agent, stream, 1)[1][0]):
            pass
        assert len(batches) == update
        gradient, loss, error = reference_gradient(online, target, batches[-1], double, loss_kind)
        errors.append(np.abs(error))
        assert float(metrics["losses/td_loss"]) == pytest.approx(loss, rel=1e-4)
        x = batches[-1].observation.astype(np.float64)
        taken = forward(online, x)[1][np.arange(len(x)), batches[-1].action]
        assert float(metrics["losses/q_values"]) == pytest.approx(taken.mean(), rel=1e-4)
        length = float(np.sqrt(sum((part**2).sum() for part in gradient.values())))
        if max_grad_norm:
            assert length > max_grad_norm
            gradient = {name: part * max_grad_norm / length for name, part in gradient.items()}
        for name, part in gradient.items():  # Adam: Kingma and Ba (2015), Algorithm 1
            first[name] = 0.9 * first[name] + 0.1 * part
            second[name] = 0.999 * second[name] + 0.001 * part**2
            mean = first[name] / (1 - 0.9**update)
            square = second[name] / (1 - 0.999**update)
            online[name] = online[name] - 1e-2 * mean / (np.sqrt(square) + 1e-3)
        for name, value in weights(agent._network).items():
            np.testing.assert_allclose(value, online[name], rtol=2e-4, atol=2e-5)
        assert equal(weights(agent._target), target)
        if kind == "prioritized":
            leaves = batches[-1].drawn.leaves
            priorities = (np.abs(error) + 1e-6) ** 0.6
            np.testing.assert_allclose(agent._replay._tree.masses[leaves], priorities, rtol=1e-3)
    large = np.concatenate(errors) > 1
    assert large.any()  # both parts of the Huber loss took part
    assert not large.all()
    if double:
        single, _, _ = reference_gradient(online, target, batches[-1], False, kind)
        assert not np.allclose(single["head.bias"], gradient["head.bias"])


def test_epsilon_falls_in_a_straight_line() -> None:
    agent = make_agent(4, epsilon_start=0.9, epsilon_end=0.1, epsilon_decay_steps=100)
    assert agent.epsilon == pytest.approx(0.9)
    feed(agent, 5, num_envs=4)
    assert agent.epsilon == pytest.approx(0.74)
    assert agent.gauges() == {"charts/epsilon": agent.epsilon}
    feed(agent, 10, num_envs=4)
    assert agent.epsilon == pytest.approx(0.42)
    feed(agent, 10, num_envs=4)
    assert agent.epsilon == pytest.approx(0.1)
    feed(agent, 100, num_envs=4)
    assert agent.epsilon == pytest.approx(0.1)


def test_actions_are_greedy_without_exploration() -> None:
    agent = make_agent(50, epsilon_start=0.0, epsilon_end=0.0, learning_starts=100)
    observation = Stream(50).observation
    values = forward(weights(agent._network), observation.astype(np.float64))[1]
    best = values.argmax(axis=1)
    assert len(set(best.tolist())) > 1
    for _ in range(3):
        action = agent.act(observation)
        assert action.tolist() == best.tolist()
        assert (action.shape, str(action.dtype)) == ((50,), "int64")
    assert agent.policy().act(observation).tolist() == best.tolist()


@pytest.mark.parametrize("epsilon", [0.4, 1.0])
def test_exploration_is_as_frequent_as_epsilon_and_uniform(epsilon: float) -> None:
    agent = make_agent(
        100, epsilon_start=epsilon, epsilon_end=epsilon, capacity=1000, learning_starts=200
    )
    observation = Stream(100).observation
    best = agent.policy().act(observation)
    chosen = np.stack([agent.act(observation) for _ in range(100)])
    assert (chosen != best).mean() == pytest.approx(epsilon * 3 / 4, abs=0.02)
    for offset in (1, 2, 3):  # every other action as often
        assert ((chosen - best) % 4 == offset).mean() == pytest.approx(epsilon / 4, abs=0.017)
    varied = (chosen != best).any(axis=0) & (chosen == best).any(axis=0)
    assert varied.all()  # each environment draws for itself


def test_environments_explore_unequally() -> None:
    agent = make_agent(3, epsilon_start=0.8, epsilon_end=0.8, epsilon_spread=7.0)
    observation = Stream(3).observation
    best = agent.policy().act(observation)
    chosen = np.stack([agent.act(observation) for _ in range(4000)])
    # 0.8 to the powers 1, 4.5 and 8; one random action in four is the best one.
    expected = [0.8 * 3 / 4, 0.366357 * 3 / 4, 0.167772 * 3 / 4]
    assert (chosen != best).mean(axis=0) == pytest.approx(expected, abs=0.03)
    assert agent.gauges()["charts/epsilon"] == 0.8  # the first environment's


@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_never_and_always_are_the_same_in_every_environment(epsilon: float) -> None:
    agent = make_agent(3, epsilon_start=0.5, epsilon_end=epsilon, epsilon_decay_steps=1)
    other = make_agent(
        3, epsilon_start=0.5, epsilon_end=epsilon, epsilon_decay_steps=1, epsilon_spread=7.0
    )
    observation = Stream(3).observation
    feed(agent, 3, num_envs=3)
    feed(other, 3, num_envs=3)
    for _ in range(50):
        assert agent.act(observation).tolist() == other.act(observation).tolist()


def test_environments_explore_unequally_in_a_stage_too() -> None:
    late = {"late_return": [-1e6], "late_epsilon": [0.25]}
    agent = make_agent(2, epsilon_start=0.0, epsilon_end=0.0, epsilon_spread=3.0, **late)
    for _ in range(10):
        score(agent, [0.0, 0.0])
    assert agent.epsilon == 0.25  # the stage has begun
    observation = Stream(2).observation
    best = agent.policy().act(observation)
    chosen = np.stack([agent.act(observation) for _ in range(4000)])
    expected = [0.25 * 3 / 4, 0.25**4 * 3 / 4]
    assert (chosen != best).mean(axis=0) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("num_envs", "period", "expected"),
    [
        (8, 2, [4, 4, 4, 4, 4, 4]),
        (8, 8, [1, 1, 1, 1, 1, 1]),
        (8, 16, [0, 1, 0, 1, 0, 1]),
        (8, 3, [2, 3, 3, 2, 3, 3]),
        (1, 4, [0, 0, 0, 1, 0, 0]),
    ],
)
def test_updates_are_owed_per_agent_step(
    monkeypatch: pytest.MonkeyPatch, num_envs: int, period: int, expected: list[int]
) -> None:
    agent = make_agent(num_envs, update_period_steps=period, learning_starts=num_envs * 3)
    updates = count_updates(agent, monkeypatch)
    feed(agent, 2, num_envs=num_envs)
    assert agent.learn() == {}
    done = []
    for _ in expected:
        before = len(updates)
        feed(agent, 1, num_envs=num_envs)
        metrics = agent.learn()
        done.append(len(updates) - before)
        assert set(metrics) == ({"losses/td_loss", "losses/q_values"} if done[-1] else set())
        assert agent.learn() == {}  # nothing is owed twice
    assert done == expected


def score(agent: DQN, returns: list[float]) -> None:
    """Observe episodes of one vector step each, one for each environment."""
    nothing = np.zeros((len(returns), 3), dtype=np.float32)
    over = np.ones(len(returns), dtype=np.bool_)
    action = np.zeros(len(returns), dtype=np.int64)
    reward = np.array(returns, dtype=np.float32)
    agent.observe(Transition(nothing, action, reward, nothing, over, over))


def test_good_play_changes_three_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    late: dict[str, Any] = {
        "late_return": [3.0, 20.0],
        "late_learning_rate": [1e-4, 1e-5],
        "late_update_period_steps": [16, 8],
        "late_epsilon": [0.25, 0.125],
    }
    early = {"learning_rate": 0.5, "update_period_steps": 2, "epsilon_start": 0.5}
    agent = make_agent(4, learning_starts=20, epsilon_end=0.5, **early, **late)
    updates = count_updates(agent, monkeypatch)
    found = []
    for returns in [[2.0] * 4] * 5 + [[7.0, 2, 2, 2]] * 5 + [[-9.0] * 4] * 6 + [[90.0] * 4] * 6:
        score(agent, returns)
        before = len(updates)
        agent.learn()
        found.append(len(updates) - before)
        gauges = agent.gauges()
        stage = 0 if len(found) < 9 else 1 if len(found) < 18 else 2
        assert gauges["charts/update_period"] == (2, 16, 8)[stage]
        assert gauges["charts/learning_rate"] == (0.5, 1e-4, 1e-5)[stage]
        assert gauges["charts/epsilon"] == (0.5, 0.25, 0.125)[stage]
    # The mean of 20 is 3 with the ninth step's episodes: four times 7 among sixteen times 2. It is
    # 30.6 with the second of 90: eight of them among twelve of -9.
    assert found == [0] * 4 + [2] * 4 + [0, 0, 0, 1] * 2 + [0, 1] * 3


def test_being_late_is_saved(tmp_path: Path) -> None:
    late = {"late_return": [3.0], "late_learning_rate": [1e-4]}
    agent, other = make_agent(4, **late), make_agent(4, **late)
    for _ in range(3):
        score(agent, [4.0] * 4)
    agent.save(tmp_path)
    other.load(tmp_path)
    for it in (agent, other):
        score(it, [4.0] * 4)
        assert it.learning_rate > 1e-4  # 16 episodes
        score(it, [4.0] * 4)
        assert it.learning_rate == 1e-4
    (tmp_path / "b").mkdir()
    other.save(tmp_path / "b")
    third = make_agent(4, **late)
    third.load(tmp_path / "b")
    assert third.learning_rate == 1e-4


def test_updates_owed_are_paid_together() -> None:
    agent = make_agent(2, update_period_steps=2, learning_starts=20)
    feed(agent, 30)
    assert agent._owed_steps == 42  # from the tenth vector step on
    agent.learn()
    assert agent._owed_steps == 0


def test_nothing_is_learned_before_learning_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_agent(2, learning_starts=40)
    updates = count_updates(agent, monkeypatch)
    before = weights(agent._network)
    for _ in range(19):
        feed(agent, 1)
        agent.learn()
    assert not updates
    assert equal(weights(agent._network), before)
    feed(agent, 1)
    agent.learn()
    assert len(updates) == 1
    assert not equal(weights(agent._network), before)


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_learning_starts_however_short_the_episodes(
    monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    # The rows behind episodes take room too: of a capacity of 100, all may never be transitions.
    agent = make_agent(4, learning_starts=100, capacity=100)
    updates = count_updates(agent, monkeypatch)
    for _ in range(100):
        feed(agent, 4, num_envs=4)
        feed(agent, 1, num_envs=4, end=end)
        agent.learn()
    assert updates


def test_learning_goes_on_when_episodes_get_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_agent(4, learning_starts=90, capacity=100, update_period_steps=4)
    updates = count_updates(agent, monkeypatch)
    feed(agent, 40, num_envs=4)
    agent.learn()
    assert updates
    feed(agent, 60, num_envs=4, end="terminated")
    agent.learn()
    before = len(updates)
    feed(agent, 60, num_envs=4, end="terminated")
    agent.learn()
    assert len(updates) - before == 60


@pytest.mark.parametrize(
    ("num_envs", "period", "copies"),
    [
        (2, 10, [5, 10, 15, 20]),  # vector steps since learning started
        (8, 20, [3, 5, 8, 10, 13, 15, 18, 20]),
        (8, 8, list(range(1, 21))),
    ],
)
def test_the_target_is_copied_every_period(num_envs: int, period: int, copies: list[int]) -> None:
    agent = make_agent(
        num_envs,
        target_period_steps=period,
        update_period_steps=num_envs,
        learning_starts=num_envs * 3,
    )
    stream = Stream(num_envs)
    for _ in range(2):
        agent.observe(stream.step(agent.act(stream.observation)))
    found = []
    for vector_step in range(1, 21):
        agent.observe(stream.step(agent.act(stream.observation)))
        online, target = weights(agent._network), weights(agent._target)
        assert agent.learn()
        assert not equal(weights(agent._network), online)
        if equal(weights(agent._target), weights(agent._network)):
            found.append(vector_step)
        else:
            assert equal(weights(agent._target), target)
    assert found == copies


@pytest.mark.parametrize("kind", ["uniform", "prioritized"])
@pytest.mark.parametrize(("num_envs", "n_step"), [(1, 1), (2, 3), (8, 10)])
def test_after_an_interruption_learning_waits_for_something_to_learn_from(
    num_envs: int, n_step: int, kind: str
) -> None:
    fewest = num_envs * (n_step + 1)
    agent = make_agent(num_envs, n_step=n_step, learning_starts=fewest, kind=kind)
    stream = Stream(num_envs, end=0.0)
    drive(agent, stream, 1)
    agent.interrupt()
    for _ in range(n_step):
        assert drive(agent, stream, 1)[1] == [{}]
    for _ in range(3):
        metrics = drive(agent, stream, 1)[1]
    assert metrics != [{}]


@pytest.mark.parametrize("tau", [0.01, 0.3, 1.0])
def test_a_soft_target_goes_part_of_the_way_after_each_update(
    monkeypatch: pytest.MonkeyPatch, tau: float
) -> None:
    agent = make_agent(8, target_tau=tau, update_period_steps=4, **SOFT)
    update = agent._update
    updates = 0
    expected = weights(agent._target)

    def watched() -> Metrics:
        nonlocal updates, expected
        metrics = update()
        updates += 1
        online, target = weights(agent._network), weights(agent._target)
        for name, before in expected.items():
            way = (1 - tau) * before + tau * online[name]
            np.testing.assert_allclose(target[name], way, rtol=1e-5, atol=1e-7)
        expected = target
        return metrics

    monkeypatch.setattr(agent, "_update", watched)
    drive(agent, Stream(8), 12)
    assert updates > 10
    assert equal(weights(agent._target), expected)  # and at no other time
    assert equal(expected, weights(agent._network)) == (tau == 1)


@pytest.mark.parametrize("decay", [0.2, 0.9])
def test_the_average_of_weights_by_hand(monkeypatch: pytest.MonkeyPatch, decay: float) -> None:
    agent = make_agent(8, average_decay=decay, update_period_steps=4)
    update = agent._update
    updates = 0
    expected = weights(agent._network)

    def watched() -> Metrics:
        nonlocal updates, expected
        metrics = update()
        updates += 1
        latest = weights(agent._network)
        expected = {
            name: decay * before + (1 - decay) * latest[name] for name, before in expected.items()
        }
        return metrics

    monkeypatch.setattr(agent, "_update", watched)
    drive(agent, Stream(8), 12)
    assert updates > 10
    for name, value in weights(agent.policy()._network).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-6)
        assert not np.array_equal(value, weights(agent._network)[name])


@pytest.mark.parametrize("pipelined", [False, True])
def test_the_average_of_weights_plays(tmp_path: Path, pipelined: bool) -> None:
    options = {"epsilon_start": 0.0, "epsilon_end": 0.0, "pipelined": pipelined}
    agent, stream = make_agent(average_decay=0.999, **options), Stream(2)
    before = weights(agent._network)
    drive(agent, stream, 60)
    policy = agent.policy()
    with torch.no_grad():  # far from where learning is: actions show which of the two plays
        agent._network.head.weight.mul_(-1)
        agent._network.head.bias.mul_(-1)
    differing = 0
    for observation in np.random.default_rng(4).normal(size=(20, 2, 3)).astype(np.float32):
        chosen = policy.values(observation).argmax(axis=1).tolist()
        assert agent.act(observation).tolist() == chosen
        latest = agent._network(torch.from_numpy(observation)).argmax(dim=1).tolist()
        differing += chosen != latest
    assert differing > 5
    for name, value in weights(policy._network).items():
        np.testing.assert_allclose(value, before[name], atol=0.1)
    agent.save(tmp_path)
    tables = make_tables(average_decay=0.999, **options)
    loaded = DQN.load_policy(tables, OBSERVATIONS, ACTIONS, tmp_path, CPU)
    assert equal(weights(loaded._network), weights(policy._network))


def test_a_soft_target_is_never_copied() -> None:
    agents = [make_agent(target_tau=1e-9, **SOFT) for _ in range(2)]
    first = weights(agents[0]._target)
    agents[0]._steps_since_target = 10**6
    for agent in agents:
        drive(agent, Stream(2), 40)
    assert equal(weights(agents[0]._target), weights(agents[1]._target))
    for name, value in weights(agents[0]._target).items():
        np.testing.assert_allclose(value, first[name], atol=1e-6)


def test_the_learning_rate_changes_in_a_straight_line() -> None:
    agent = make_agent(
        4, learning_rate=0.008, learning_rate_end=0.002, learning_rate_decay_steps=200
    )
    found = []
    for _ in range(6):
        found.append(agent.learning_rate)
        assert agent.gauges()["charts/learning_rate"] == agent.learning_rate
        feed(agent, 10, num_envs=4)
        assert agent.learn()
        assert agent._optimizer.param_groups[0]["lr"] == agent.learning_rate
    assert found == pytest.approx([0.008, 0.0068, 0.0056, 0.0044, 0.0032, 0.002])
    feed(agent, 100, num_envs=4)
    assert agent.learning_rate == pytest.approx(0.002)
    constant = make_agent(4)
    feed(constant, 100, num_envs=4)
    assert constant.learning_rate == 1e-2
    assert "charts/learning_rate" not in constant.gauges()


def test_a_learning_rate_that_ends_at_zero_ends_learning() -> None:
    agent = make_agent(learning_rate_end=0.0, learning_rate_decay_steps=60)
    stream = Stream(2)
    drive(agent, stream, 29)
    before = weights(agent._network)
    assert drive(agent, stream, 1)[1][0]
    assert not equal(weights(agent._network), before)
    drive(agent, stream, 1)
    before = weights(agent._network)
    assert drive(agent, stream, 1)[1][0]
    assert equal(weights(agent._network), before)


@pytest.mark.parametrize("clip_rewards", [False, True])
def test_rewards_are_clipped_to_their_sign(
    monkeypatch: pytest.MonkeyPatch, clip_rewards: bool
) -> None:
    agent = make_agent(4, clip_rewards=clip_rewards, gamma=0.0, batch_size=256)
    batches = keep_batches(agent, monkeypatch)
    rewards = np.array([-5, 0, 0.25, 7], dtype=np.float32)
    for _ in range(8):
        action = np.arange(4)
        transition = Transition(
            np.zeros((4, 3), dtype=np.float32),
            action,
            rewards,
            np.zeros((4, 3), dtype=np.float32),
            np.zeros(4, dtype=np.bool_),
            np.zeros(4, dtype=np.bool_),
        )
        agent.observe(transition)
    agent.learn()
    assert rewards.tolist() == [-5, 0, 0.25, 7]  # others are told the game's own rewards
    expected = np.sign(rewards) if clip_rewards else rewards
    np.testing.assert_array_equal(batches[0].reward, expected[batches[0].action])
    assert set(batches[0].action.tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("reset", [False, True])
def test_a_score_may_cut_the_bootstrap(monkeypatch: pytest.MonkeyPatch, reset: bool) -> None:
    agent = make_agent(
        1, reset_return_at_score=reset, gamma=0.5, n_step=3, learning_starts=9, batch_size=256
    )
    batches = keep_batches(agent, monkeypatch)
    terminated = np.zeros(1, dtype=np.bool_)
    for number, reward in enumerate([0, 0, -1, 0, 0, 0, 0, 0, 2, 0]):
        agent.observe(
            Transition(
                np.full((1, 3), number, dtype=np.float32),
                np.array([number % 4]),
                np.array([reward], dtype=np.float32),
                np.full((1, 3), number + 1, dtype=np.float32),
                terminated,
                np.zeros(1, dtype=np.bool_),
            )
        )
    agent.learn()
    assert not terminated.any()  # others are told how the game itself went
    found = {}
    for batch in batches:
        for i in range(256):
            after = int(batch.next_observation[i, 0])
            found[int(batch.observation[i, 0])] = (
                float(batch.reward[i]),
                float(batch.discount[i]),
                after if batch.discount[i] else None,
            )
    going: dict[int, tuple[float, float, int | None]] = {
        0: (-0.25, 0.125, 3),
        1: (-0.5, 0.125, 4),
        2: (-1, 0.125, 5),
        3: (0, 0.125, 6),
        4: (0, 0.125, 7),
        5: (0, 0.125, 8),
        6: (0.5, 0.125, 9),
    }
    cut: dict[int, tuple[float, float, int | None]] = {
        0: (-0.25, 0, None),
        1: (-0.5, 0, None),
        2: (-1, 0, None),
        6: (0.5, 0, None),
        7: (1, 0, None),
        8: (2, 0, None),
    }
    assert found == (going | cut if reset else going)


# What an option needs beside it, before and after it is changed.
BESIDE: dict[str, dict[str, Any]] = {
    "learning_rate_end": {"learning_rate_end": 1e-3, "learning_rate_decay_steps": 100},
    "learning_rate_decay_steps": {"learning_rate_end": 1e-3, "learning_rate_decay_steps": 100},
    "rmsprop_decay": {"optimizer": "rmsprop"},
    "rmsprop_epsilon": {"optimizer": "rmsprop"},
    "target_tau": SOFT,
    "late_return": {"late_return": [1e6], "late_update_period_steps": [8]},
    "late_episodes": {"late_return": [-1e6], "late_update_period_steps": [8]},
    "late_learning_rate": {"late_return": [-1e6], "late_update_period_steps": [8]},
    "late_update_period_steps": {"late_return": [-1e6], "late_learning_rate": [1e-3]},
    "late_epsilon": {"late_return": [-1e6], "late_update_period_steps": [8]},
    **{
        key: {"loss": "categorical", "value_min": -1.0, "value_max": 1.0}
        for key in ("num_atoms", "value_min", "value_max")
    },
}
CHANGES: dict[str, Any] = {
    "optimizer": "rmsprop",
    "learning_rate_end": 1e-4,
    "learning_rate_decay_steps": 50,
    "rmsprop_decay": 0.8,
    "rmsprop_epsilon": 1e-2,
    "loss": "mse",
    "target_tau": 0.05,
    "learning_rate": 2e-2,
    "adam_epsilon": 0.1,
    "gamma": 0.5,
    "n_step": 3,
    "double": True,
    "learning_starts": 24,
    "update_period_steps": 4,
    "late_return": [-1e6],
    "late_episodes": [2],
    "late_learning_rate": [1e-4],
    "late_update_period_steps": [16],
    "late_epsilon": [0.5],
    "average_decay": 0.9,
    "target_period_steps": 12,
    "epsilon_start": 0.5,
    "epsilon_end": 0.9,
    "epsilon_decay_steps": 20,
    "epsilon_spread": 3.0,
    "clip_rewards": True,
    "reset_return_at_score": True,
    "max_grad_norm": 0.01,
    "pipelined": True,
    "num_atoms": 11,
    "value_min": -3.0,
    "value_max": 2.0,
    "hidden_sizes": [9],
    "dueling": True,
    "layer_norm": True,
    "noisy": True,
    "capacity": 100,
    "batch_size": 9,
    "kind": "prioritized",
}
OF_PRIORITIZED: dict[str, Any] = {
    "priority_exponent": 0.1,
    "priority_epsilon": 1.0,
    "importance_exponent_start": 0.9,
    "importance_exponent_end": 0.0,
    "importance_exponent_steps": 1000,
}


def outcome(steps: int = 80, **options: Any) -> tuple[list[list[int]], float]:
    """Return the actions of a short training and a number that depends on all weights."""
    agent = make_agent(**options)
    actions, _ = drive(agent, Stream(2), steps)
    observations = np.random.default_rng(8).normal(size=(20, 3)).astype(np.float32)
    return actions, float(np.abs(agent.policy().values(observations)).mean())


@pytest.mark.parametrize("option", [*CHANGES])
def test_every_option_changes_what_is_learned(option: str) -> None:
    beside = BESIDE.get(option, {})
    steps = 160 if option.startswith("late_") else 80  # 20 episodes come before it is late
    _, before = outcome(steps, **beside)
    _, after = outcome(steps, **beside | {option: CHANGES[option]})
    assert abs(after - before) > 1e-3 * before


@pytest.mark.parametrize("option", [*OF_PRIORITIZED])
def test_every_option_of_prioritized_replay_changes_what_is_learned(option: str) -> None:
    base: dict[str, Any] = {"kind": "prioritized", "importance_exponent_steps": 100}
    _, before = outcome(**base)
    _, after = outcome(**base | {option: OF_PRIORITIZED[option]})
    assert abs(after - before) > 1e-3 * before


@pytest.mark.parametrize("option", [*OF_PRIORITIZED])
def test_options_that_would_change_nothing_are_refused(option: str) -> None:
    with pytest.raises(UsageError, match=rf"\[replay\] {option}: .* would change nothing"):
        make_agent(**{option: OF_PRIORITIZED[option]})


def test_no_option_of_the_table_is_left_out() -> None:
    tested = {*CHANGES, *OF_PRIORITIZED}
    tested |= {"compression", "storage", "cuda_graphs"}  # which change nothing that is learned
    assert {*DQNConfig.model_fields, *ReplayConfig.model_fields} - {"name"} <= tested


def test_the_importance_exponent_follows_agent_steps() -> None:
    agent = make_agent(kind="prioritized", importance_exponent_steps=100)
    feed(agent, 25)
    assert agent.gauges()["charts/importance_exponent"] == pytest.approx(0.7)
    feed(agent, 50)
    assert agent.gauges()["charts/importance_exponent"] == 1.0


def test_no_limit_on_gradients_is_an_option_too() -> None:
    assert outcome(max_grad_norm=0.0) != outcome(max_grad_norm=0.01)
    assert outcome(max_grad_norm=0.0) == outcome(max_grad_norm=1e9)


@pytest.mark.parametrize("options", [{}, NOISY])
def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    options: dict[str, Any],
) -> None:
    assert outcome(**options, seed=3) == outcome(**options, seed=3)
    actions, values = outcome(**options, seed=3)
    others, other_values = outcome(**options, seed=4)
    assert actions != others
    assert values != other_values


def test_noise_explores_where_nothing_else_does() -> None:
    agent = make_agent(50, learning_starts=100, capacity=200, **NOISY)
    observation = Stream(50).observation
    means = agent.policy().act(observation)
    chosen = np.stack([agent.act(observation) for _ in range(40)])
    assert len({tuple(row) for row in chosen.tolist()}) > 30  # anew for each choice
    assert 0.05 < (chosen != means).mean() < 0.75
    assert agent.policy().act(observation).tolist() == means.tolist()  # evaluation has none
    still = make_agent(50, learning_starts=100, capacity=200, **NOISY | {"noisy": False})
    assert len({tuple(still.act(observation).tolist()) for _ in range(5)}) == 1


def test_noise_follows_the_seed() -> None:
    observation = Stream(20).observation
    agents = [make_agent(20, seed=seed, learning_starts=40, **NOISY) for seed in (1, 1, 2)]
    with torch.no_grad():
        for agent in agents:  # the same means and deviations for all
            agent._network.load_state_dict(agents[0]._network.state_dict())
    one, same, other = ([a.act(observation).tolist() for _ in range(9)] for a in agents)
    assert one == same
    assert one != other


@pytest.mark.parametrize("double", [False, True])
def test_every_use_of_an_update_has_noise_of_its_own(
    monkeypatch: pytest.MonkeyPatch, double: bool
) -> None:
    agent = make_agent(double=double, dueling=True, **NOISY)
    stream = Stream(2)
    drive(agent, stream, 9)
    agent.observe(stream.step(agent.act(stream.observation)))
    used: list[tuple[str, Numbers]] = []

    def watch(name: str, network: torch.nn.Module) -> None:
        def note(*_: object) -> None:
            used.append((name, noise_of(network)))

        network.register_forward_hook(note)

    watch("online", agent._network)
    watch("target", agent._target)
    assert agent.learn()
    names = [name for name, _ in used]
    assert names == ["online"] * double + ["target", "online"]
    agent.act(stream.observation)
    draws = [draw for _, draw in used]
    assert len(draws) == 3 + double
    for i, one in enumerate(draws):
        assert one.keys() == draws[0].keys()
        assert len(one) == 2 * 3  # the hidden layer's and both heads', of inputs and of outputs
        for other in draws[i + 1 :]:
            assert not any(np.array_equal(one[name], other[name]) for name in one)


def noise_of(network: torch.nn.Module) -> Numbers:
    return {name: b.numpy().astype(np.float64) for name, b in network.named_buffers()}


def test_noisy_updates_are_those_of_the_weights_that_were_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = make_agent(max_grad_norm=0.0, adam_epsilon=1e-3, **NOISY)
    batches = keep_batches(agent, monkeypatch)
    stream = Stream(2)
    drive(agent, stream, 9)
    agent.observe(stream.step(agent.act(stream.observation)))
    before = weights(agent._network)
    metrics = agent.learn()

    def drawn(network: torch.nn.Module) -> Numbers:  # Eq. 10 and 11, with the noise last drawn
        noise = noise_of(network)
        found = {}
        for layer in ("torso.layers.0", "head"):
            ins, outs = noise[f"{layer}.noise_in"], noise[f"{layer}.noise_out"]
            sigma = before[f"{layer}.weight_sigma"]
            found[f"{layer}.weight"] = before[f"{layer}.weight"] + sigma * np.outer(outs, ins)
            sigma = before[f"{layer}.bias_sigma"]
            found[f"{layer}.bias"] = before[f"{layer}.bias"] + sigma * outs
        return found

    online, target = drawn(agent._network), drawn(agent._target)
    gradient, loss, _ = reference_gradient(online, target, batches[0], False)
    assert float(metrics["losses/td_loss"]) == pytest.approx(loss, rel=1e-4)
    noise = noise_of(agent._network)
    after = weights(agent._network)
    for layer in ("torso.layers.0", "head"):
        by_weight, by_bias = gradient[f"{layer}.weight"], gradient[f"{layer}.bias"]
        ins, outs = noise[f"{layer}.noise_in"], noise[f"{layer}.noise_out"]
        for name, part in {
            "weight": by_weight,
            "bias": by_bias,
            "weight_sigma": by_weight * np.outer(outs, ins),
            "bias_sigma": by_bias * outs,
        }.items():  # Adam's first step
            expected = before[f"{layer}.{name}"] - 1e-2 * part / (np.abs(part) + 1e-3)
            np.testing.assert_allclose(after[f"{layer}.{name}"], expected, rtol=2e-4, atol=2e-5)


def test_each_seed_explores_and_begins_differently() -> None:
    one, other = (make_agent(20, seed=seed, learning_starts=40) for seed in (1, 2))
    assert not equal(weights(one._network), weights(other._network))
    observation = Stream(20).observation
    assert one.act(observation).tolist() != other.act(observation).tolist()


def _numpy_state() -> Array:
    return np.asarray(np.random.get_state(legacy=False)["state"]["key"])


@pytest.mark.parametrize("options", [{}, NOISY])
def test_global_generators_are_neither_used_nor_changed(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    state, before = torch.get_rng_state(), _numpy_state()
    first = outcome(**options)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(_numpy_state(), before)
    torch.manual_seed(1)
    np.random.seed(1)
    assert outcome(**options) == first


@pytest.mark.parametrize("steps", [4, 31])  # before learning has started, and after
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kind": "prioritized"},
        NOISY,
        NOISY | {"dueling": True},
        {"optimizer": "rmsprop", "loss": "mse"},
        SOFT | {"target_tau": 0.05, "learning_rate_end": 1e-4, "learning_rate_decay_steps": 100},
        {"average_decay": 0.9},
        NOISY | {"average_decay": 0.9},
        {"late_return": [-1e6], "late_learning_rate": [1e-3], "late_update_period_steps": [6]},
    ],
)
def test_a_saved_agent_goes_on_bit_for_bit(
    tmp_path: Path, steps: int, options: dict[str, Any]
) -> None:
    options = {"double": True, "n_step": 2, **options}
    agent, stream = make_agent(**options), Stream(2, end=0.2)
    drive(agent, stream, steps)
    assert not agent._late.reached  # that takes 20 episodes
    agent.save(tmp_path)
    other, same_stream = make_agent(**options, seed=99), copy.deepcopy(stream)
    other.load(tmp_path)
    if steps > 20:
        assert not equal(weights(agent._network), weights(agent._target))
    for _ in range(30):
        actions, metrics = drive(agent, stream, 1)
        same_actions, same_metrics = drive(other, same_stream, 1)
        assert actions == same_actions
        assert metrics == same_metrics
        assert agent.epsilon == other.epsilon
        assert agent.learning_rate == other.learning_rate
        for name in ("_network", "_target", "_acting"):
            assert equal(weights(getattr(agent, name)), weights(getattr(other, name)))
    assert agent._late.reached == other._late.reached == ("late_return" in options and steps > 4)


def test_saving_changes_nothing(tmp_path: Path) -> None:
    saved, untouched = make_agent(), make_agent()
    stream, same_stream = Stream(2), Stream(2)
    for step in range(40):
        if step in (5, 25):
            (tmp_path / str(step)).mkdir()
            saved.save(tmp_path / str(step), experience=step == 25)
        assert drive(saved, stream, 1) == drive(untouched, same_stream, 1)


def test_without_experience_learning_waits_until_there_is_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, stream = make_agent(), Stream(2)
    drive(agent, stream, 31)
    agent.save(tmp_path, experience=False)
    assert not (tmp_path / "replay").exists()
    others = [make_agent(seed=seed) for seed in (98, 99)]
    for other in others:
        other.load(tmp_path)
        other.interrupt()
        assert equal(weights(other._network), weights(agent._network))
        assert equal(weights(other._target), weights(agent._target))
        assert other.epsilon == agent.epsilon
    updates = count_updates(others[0], monkeypatch)
    streams = [copy.deepcopy(stream) for _ in others]
    assert others[0].learn() == others[1].learn() == {}
    for step in range(40):
        first, second = (drive(*pair, 1) for pair in zip(others, streams, strict=True))
        assert first == second
        assert bool(updates) == (step >= 10)  # ten steps bring 20 transitions, then it learns
    assert equal(weights(others[0]._network), weights(others[1]._network))
    assert not equal(weights(others[0]._network), weights(agent._network))


def test_saved_files_hold_no_code(tmp_path: Path) -> None:
    agent = make_agent()
    drive(agent, Stream(2), 20)
    agent.save(tmp_path)
    endings = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert endings <= {".safetensors", ".json", ".npy"}
    for path in tmp_path.rglob("*.npy"):
        np.load(path, allow_pickle=False)


@pytest.mark.parametrize("file", ["network", "target", "optimizer"])
def test_damaged_files_are_refused(tmp_path: Path, file: str) -> None:
    agent = make_agent()
    drive(agent, Stream(2), 20)
    agent.save(tmp_path)
    path = tmp_path / f"{file}.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=file):
        make_agent().load(tmp_path)


@pytest.mark.parametrize("noise", ["00ff", "no number"])
def test_damaged_noise_is_refused(tmp_path: Path, noise: str) -> None:
    make_agent(**NOISY).save(tmp_path)
    path = tmp_path / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"noise": noise}))
    with pytest.raises(ValueError, match=r"noise|hexadecimal"):
        make_agent(**NOISY).load(tmp_path)


def test_another_network_is_refused(tmp_path: Path) -> None:
    make_agent().save(tmp_path)
    with pytest.raises(ValueError, match="network"):
        make_agent(hidden_sizes=[9]).load(tmp_path)


def test_another_capacity_is_refused(tmp_path: Path) -> None:
    make_agent().save(tmp_path)
    with pytest.raises(ValueError, match="capacity"):
        make_agent(capacity=300).load(tmp_path)


def test_a_policy_is_a_copy() -> None:
    agent, stream = make_agent(), Stream(2)
    observations = Stream(30, seed=5).observation
    policy = agent.policy()
    values = policy.values(observations)
    expected = forward(weights(agent._network), observations.astype(np.float64))[1]
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    assert policy.kind == "action values"
    assert policy.act(observations).tolist() == expected.argmax(axis=1).tolist()
    drive(agent, stream, 30)
    np.testing.assert_array_equal(policy.values(observations), values)
    assert not np.allclose(agent.policy().values(observations), values)


def test_asking_for_a_policy_changes_nothing() -> None:
    asked, untouched = make_agent(), make_agent()
    stream, same_stream = Stream(2), Stream(2)
    for _ in range(40):
        asked.policy().act(stream.observation)
        assert drive(asked, stream, 1) == drive(untouched, same_stream, 1)


def test_a_saved_policy_comes_back(tmp_path: Path) -> None:
    agent = make_agent()
    drive(agent, Stream(2), 30)
    agent.save(tmp_path, experience=False)
    policy = DQN.load_policy(make_tables(), OBSERVATIONS, ACTIONS, tmp_path, CPU)
    observations = Stream(30, seed=5).observation
    np.testing.assert_array_equal(policy.values(observations), agent.policy().values(observations))
    assert policy.kind == "action values"


def test_metrics_hold_on_to_nothing() -> None:
    agent = make_agent()
    _, metrics = drive(agent, Stream(2), 30)
    for name, value in metrics[-1].items():
        assert name in ("losses/td_loss", "losses/q_values")
        assert value.shape == ()
        assert not value.requires_grad


def test_an_interruption_reaches_the_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_agent(1, learning_starts=4, batch_size=256, update_period_steps=1)
    batches = keep_batches(agent, monkeypatch)
    for number in range(20):
        if number in (7, 12):
            agent.interrupt()
        agent.observe(
            Transition(
                np.full((1, 3), number, dtype=np.float32),
                np.array([0]),
                np.zeros(1, dtype=np.float32),
                np.full((1, 3), number + 1, dtype=np.float32),
                np.array([False]),
                np.array([False]),
            )
        )
    agent.learn()
    seen = {int(observation[0]) for batch in batches for observation in batch.observation}
    assert seen == set(range(19)) - {6, 11}


@pytest.mark.parametrize(
    "actions",
    [
        gym.spaces.Box(-1, 1, (2,)),
        gym.spaces.MultiDiscrete([2, 3]),
        gym.spaces.MultiBinary(3),
        gym.spaces.Discrete(3, start=1),
    ],
)
def test_only_numbered_actions_are_taken(actions: gym.Space[Any]) -> None:
    with pytest.raises(UsageError, match="dqn chooses among numbered actions"):
        make_agent(actions=actions)


def test_learning_that_could_never_start_is_refused() -> None:
    with pytest.raises(UsageError, match="learning_starts: 201 transitions never fit"):
        DQN.check(make_tables(learning_starts=201, capacity=200), num_envs=2)
    DQN.check(make_tables(learning_starts=200, capacity=200), num_envs=2)


def test_learning_that_would_start_before_anything_is_complete_is_refused() -> None:
    with pytest.raises(UsageError, match=r"too early.* need 32 or more"):
        DQN.check(make_tables(learning_starts=31, n_step=3), num_envs=8)
    DQN.check(make_tables(learning_starts=32, n_step=3), num_envs=8)
    agent = make_agent(8, learning_starts=32, n_step=3, update_period_steps=8)
    feed(agent, 4, num_envs=8)
    assert agent.learn()  # the fewest transitions that pass the check are enough


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "rmsprop", "adam_epsilon": 1e-4}, 'adam_epsilon.*set optimizer = "adam"'),
        ({"rmsprop_decay": 0.9}, 'rmsprop_decay.*set optimizer = "rmsprop"'),
        ({"rmsprop_epsilon": 0.1}, 'rmsprop_epsilon.*set optimizer = "rmsprop"'),
        ({"learning_rate_end": 0.1}, "learning_rate_end: needs learning_rate_decay_steps"),
        ({"learning_rate_decay_steps": 9}, "learning_rate_decay_steps: needs learning_rate_end"),
        ({"late_update_period_steps": [9]}, "late_update_period_steps: needs late_return"),
        ({"late_learning_rate": [0.1]}, "late_learning_rate: needs late_return"),
        ({"late_epsilon": [0.1]}, "late_epsilon: needs late_return"),
        (
            {"epsilon_start": 0.0, "epsilon_end": 0.0, "epsilon_spread": 7.0},
            "epsilon_spread: does nothing where epsilon is always 0",
        ),
        ({"late_return": [9]}, "late_return: needs late_learning_rate, late_update.* or late_eps"),
        (
            {"late_return": [9, 9], "late_epsilon": [0, 0]},
            r"late_return: .* ascending.*\[9.0, 9.0\] over \[20, 20\]",
        ),
        (
            {"late_return": [9, 8], "late_epsilon": [0, 0], "late_episodes": [7, 7]},
            r"late_return: .* ascending.*\[9.0, 8.0\] over \[7, 7\]",
        ),
        ({"late_episodes": [9]}, "late_episodes: needs late_return"),
        ({"late_return": [9], "late_episodes": [9]}, "late_return: needs late_learning_rate"),
        (
            {"late_return": [9], "late_epsilon": [0], "late_episodes": [9, 9]},
            r"late_episodes: .* \(1\), got \[9, 9\]",
        ),
        (
            {"late_return": [9], "late_epsilon": []},
            r"late_epsilon: expected one .* \(1\), got \[\]",
        ),
        ({"late_return": [1, 2], "late_epsilon": [1]}, r"late_epsilon: .* \(2\), got \[1.0\]"),
        ({"target_tau": 0.1}, "target_tau.*target_period_steps = 30 would do nothing.*10000"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DQN.check(make_tables(**options), num_envs=2)


@pytest.mark.parametrize("episodes", [[20, 100], [20, 10]])
def test_a_lower_return_of_other_episodes_may_follow(episodes: list[int]) -> None:
    late = {"late_return": [9, 8], "late_epsilon": [0, 0], "late_episodes": episodes}
    DQN.check(make_tables(**late), num_envs=2)


def test_one_environment_alone_cannot_explore_unequally() -> None:
    with pytest.raises(UsageError, match="epsilon_spread: does nothing with one environment"):
        DQN.check(make_tables(epsilon_spread=7.0), num_envs=1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epsilon_spread", -1.0),
        ("optimizer", "sgd"),
        ("loss", "l1"),
        ("target_tau", 0.0),
        ("target_tau", 1.5),
        ("late_return", []),
        ("late_return", 10.0),
        ("late_return", [1e13]),
        ("late_episodes", [0]),
        ("late_episodes", [10**30]),
        ("late_learning_rate", [0.0]),
        ("late_update_period_steps", [0]),
        ("late_epsilon", [1.5]),
        ("average_decay", -0.1),
        ("average_decay", 1.0),
        ("learning_rate_end", -0.1),
        ("learning_rate_decay_steps", 0),
        ("rmsprop_decay", 1.0),
        ("rmsprop_epsilon", 0.0),
    ],
)
def test_values_out_of_range_are_refused(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        make_tables(**{key: value})


def test_memory_is_that_of_the_replay() -> None:
    tables = make_tables(n_step=3, capacity=5000)
    expected = TransitionRing.footprint(FrameStack(4, 84, 84), 8, 5000, 3)
    assert DQN.footprint(tables, FrameStack(4, 84, 84), num_envs=8) == expected


def test_resolving_leaves_no_precision_open() -> None:
    resolved = DQN.resolve(make_tables(), "cpu")["network"]
    assert isinstance(resolved, NetworkConfig)
    assert resolved.precision == "float32"


@pytest.mark.usefixtures("_flush_denormal")
@pytest.mark.parametrize("torso", ["nature-cnn", "impala-resnet"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_learning_from_pictures(torso: str, precision: str) -> None:
    space = FrameStack(2, 36, 36)
    network = {"torso": torso, "width": 0.125, "hidden_sizes": [8], "precision": precision}
    tables = Tables(
        DQNConfig.model_validate(BASE | {"gamma": 0.0, "learning_starts": 100}),
        NetworkConfig.model_validate(network),
        ReplayConfig(capacity=200, batch_size=32),
    )
    agent = DQN.from_config(tables, space, gym.spaces.Discrete(2), num_envs=2, seed=0, device=CPU)
    pictures = np.zeros((2, 2, 36, 36), dtype=np.uint8)
    pictures[0, 1, :18] = 200  # the first environment's is bright above, the other's below
    pictures[1, 1, 18:] = 200
    for _ in range(200):
        action = agent.act(pictures)
        reward = (action == [0, 1]).astype(np.float32)
        yes = np.ones(2, dtype=np.bool_)
        agent.learn()
        agent.observe(Transition(pictures, action, reward, pictures, yes, yes))
    assert agent.policy().act(pictures).tolist() == [0, 1]
    np.testing.assert_allclose(agent.policy().values(pictures), [[1, 0], [0, 1]], atol=0.2)


class Bandit(gym.Env[npt.NDArray[np.float32], np.int64]):
    """Two arms that pay 1 in 3 and in 7 of 10 cases; an episode is one step."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        return np.ones(1, dtype=np.float32), {}

    def step(
        self, action: np.int64
    ) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        paid = float(self.np_random.random() < (0.3, 0.7)[int(action)])
        return np.ones(1, dtype=np.float32), paid, True, False, {}


class Chain(gym.Env[npt.NDArray[np.float32], np.int64]):
    """Four places in a row: 1 leads on, and pays 1 at the end; 0 pays 0.1 and ends the episode."""

    length = 4
    observation_space = gym.spaces.Box(0, 1, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)
    place = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self.place = 0
        return self._see(), {}

    def step(
        self, action: np.int64
    ) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        if action == 0:
            return self._see(), 0.1, True, False, {}
        self.place += 1
        arrived = self.place == self.length
        return self._see(), float(arrived), arrived, False, {}

    def _see(self) -> npt.NDArray[np.float32]:
        places: npt.NDArray[np.float32] = np.eye(self.length, dtype=np.float32)
        return np.asarray(places[min(self.place, self.length - 1)])


class Clock(gym.Env[npt.NDArray[np.float32], np.int64]):
    """Pays 1 a step for ever, but is cut off after every third."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.ones(1, dtype=np.float32), {}

    def step(
        self, action: np.int64
    ) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.ones(1, dtype=np.float32), 1.0, False, self.steps == 3, {}


def train(agent: DQN, envs: list[Any], steps: int) -> None:
    """Let an agent live in environments for a number of vector steps."""
    observation = np.stack([env.reset(seed=i)[0] for i, env in enumerate(envs)])
    for _ in range(steps):
        action = agent.act(observation)
        agent.learn()
        results = [env.step(a) for env, a in zip(envs, action, strict=True)]
        after, reward, terminated, truncated, _ = zip(*results, strict=True)
        over = np.array(terminated) | np.array(truncated)
        agent.observe(
            Transition(
                observation,
                action,
                np.array(reward, dtype=np.float32),
                np.stack(after),
                np.array(terminated),
                over,
            )
        )
        observation = np.stack(
            [env.reset()[0] if over[i] else after[i] for i, env in enumerate(envs)]
        )


def learner(env: type[Any], **options: Any) -> DQN:
    defaults: dict[str, Any] = {
        "learning_rate": 5e-3,
        "learning_starts": 100,
        "target_period_steps": 50,
        "epsilon_end": 0.3,
        "epsilon_decay_steps": 1000,
        "update_period_steps": 4,
        "capacity": 5000,
        "batch_size": 64,
        "hidden_sizes": [32],
    }
    return make_agent(
        4,
        observations=env.observation_space,
        actions=env.action_space,
        **(defaults | options),
    )


@pytest.mark.usefixtures("_flush_denormal")
def test_the_better_arm_of_a_bandit_is_found() -> None:
    agent = learner(Bandit, learning_rate=1e-3)
    train(agent, [Bandit() for _ in range(4)], 600)
    seen = np.ones((1, 1), dtype=np.float32)
    assert agent.policy().act(seen).tolist() == [1]
    np.testing.assert_allclose(agent.policy().values(seen), [[0.3, 0.7]], atol=0.15)


@pytest.mark.usefixtures("_flush_denormal")
@pytest.mark.parametrize("double", [False, True])
def test_the_values_of_a_chain_are_found(double: bool) -> None:
    agent = learner(Chain, double=double)
    train(agent, [Chain() for _ in range(4)], 900)
    values = agent.policy().values(np.eye(4, dtype=np.float32))
    expected = [[0.1, 0.9**3], [0.1, 0.9**2], [0.1, 0.9], [0.1, 1.0]]
    np.testing.assert_allclose(values, expected, atol=0.07)


@pytest.mark.usefixtures("_flush_denormal")
def test_a_chain_is_solved_by_noise_alone() -> None:
    agent = learner(
        Chain, noisy=True, double=True, dueling=True, epsilon_start=0.0, epsilon_end=0.0
    )
    train(agent, [Chain() for _ in range(4)], 900)
    assert agent.policy().act(np.eye(4, dtype=np.float32)).tolist() == [1, 1, 1, 1]


@pytest.mark.usefixtures("_flush_denormal")
def test_a_chain_is_solved_with_steps_put_together() -> None:
    agent = learner(Chain, n_step=3, epsilon_end=0.1)
    train(agent, [Chain() for _ in range(4)], 700)
    assert agent.policy().act(np.eye(4, dtype=np.float32)).tolist() == [1, 1, 1, 1]


@pytest.mark.usefixtures("_flush_denormal")
def test_who_does_not_look_ahead_leaves_the_chain() -> None:
    agent = learner(Chain, gamma=0.0)
    train(agent, [Chain() for _ in range(4)], 700)
    assert agent.policy().act(np.eye(4, dtype=np.float32)).tolist() == [0, 0, 0, 1]


@pytest.mark.usefixtures("_flush_denormal")
@pytest.mark.parametrize("n_step", [1, 2])
def test_what_is_cut_off_is_valued_as_if_it_went_on(n_step: int) -> None:
    agent = learner(Clock, gamma=0.5, n_step=n_step)
    train(agent, [Clock() for _ in range(4)], 500)
    # 1 + 1/2 + 1/4 + ...; it would be some 1.6 if the end of an episode were the end of rewards
    values = agent.policy().values(np.ones((1, 1), dtype=np.float32))
    np.testing.assert_allclose(values, [[2.0, 2.0]], atol=0.1)


def test_metrics_are_means_over_the_updates_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, stream = make_agent(), Stream(2)
    drive(agent, stream, 20)
    losses = iter([1.0, 2.0, 6.0])
    monkeypatch.setattr(agent, "_update", lambda: {"losses/td_loss": torch.tensor(next(losses))})
    agent._owed_steps = 6
    assert agent.learn() == {"losses/td_loss": 3.0}
