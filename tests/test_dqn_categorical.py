"""DQN with loss = "categorical": distributions of returns, Bellemare et al. (2017)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dqn_tools import (
    ACTIONS,
    CPU,
    NOISY,
    OBSERVATIONS,
    Stream,
    drive,
    keep_batches,
    make_agent,
    make_tables,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from rlagents.agents.dqn import DQN, categorical_targets
from rlagents.errors import UsageError
from rlagents.networks import CategoricalQNetwork, NetworkConfig, make_torso
from rlagents.replay import Batch
from rlagents.types import Transition

CATEGORICAL: dict[str, Any] = {"loss": "categorical", "value_min": -4.0, "value_max": 6.0}
ATOMS = torch.tensor([-1.0, 0.0, 1.0])


def project(reward: float, discount: float, chances: list[float]) -> list[float]:
    logits = torch.tensor(chances).log()[None, None]
    target = categorical_targets(
        torch.tensor([reward]), torch.tensor([discount]), logits, ATOMS, torch.zeros(1, 1)
    )
    return [round(value, 6) for value in target[0].tolist()]


def test_targets_by_hand() -> None:
    chances = [0.2, 0.3, 0.5]
    assert project(0.0, 1.0, chances) == [0.2, 0.3, 0.5]  # nothing changes
    assert project(1.0, 0.0, chances) == [0.0, 0.0, 1.0]  # the end: the reward is all there is
    assert project(-0.25, 0.0, chances) == [0.25, 0.75, 0.0]  # between two atoms
    # -0.5, 0 and 0.5: the outer two are shared with the middle
    assert project(0.0, 0.5, chances) == [0.1, 0.65, 0.25]
    # -0.3, 0.2 and 0.7 with the chances 0.2, 0.3 and 0.5
    assert project(0.2, 0.5, chances) == [0.06, 0.14 + 0.24 + 0.15, 0.06 + 0.35]
    assert project(5.0, 1.0, chances) == [0.0, 0.0, 1.0]  # beyond the largest
    assert project(-1.5, 1.0, chances) == [0.2 + 0.3 + 0.25, 0.25, 0.0]  # -2.5, -1.5 and -0.5


def test_the_selector_chooses_whose_distribution_it_is() -> None:
    logits = torch.tensor([[[0.0, 0.0, 9.0], [9.0, 0.0, 0.0]]] * 2)
    selector = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    target = categorical_targets(torch.zeros(2), torch.ones(2), logits, ATOMS, selector)
    torch.testing.assert_close(target, logits[0].softmax(dim=1))


def test_points_have_a_range_of_their_own() -> None:
    agent = make_agent(loss="categorical", clip_rewards=True, reset_return_at_score=True)
    network = agent.policy()._network
    assert isinstance(network, CategoricalQNetwork)
    assert (float(network.atoms[0]), float(network.atoms[-1])) == (-1, 1)


@pytest.mark.parametrize(("least", "largest", "count"), [(100.0, 101.0, 1001), (-1.0, 1.0, 51)])
def test_no_chance_is_lost_to_rounding(least: float, largest: float, count: int) -> None:
    atoms = torch.linspace(least, largest, count)
    logits = torch.randn(40, 1, count, generator=torch.Generator().manual_seed(0))
    reward = torch.linspace(-2 * largest, 2 * largest, 40)
    target = categorical_targets(reward, torch.ones(40), logits, atoms, torch.zeros(40, 1))
    torch.testing.assert_close(target.sum(dim=1), torch.ones(40), rtol=0, atol=1e-3)


def algorithm_1(
    reward: float, discount: float, chances: np.ndarray[Any, Any], atoms: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Return the paper's Algorithm 1, atom by atom."""
    step = atoms[1] - atoms[0]
    target = np.zeros(len(atoms))
    for chance, atom in zip(chances, atoms, strict=True):
        place = (min(max(reward + discount * atom, atoms[0]), atoms[-1]) - atoms[0]) / step
        place = min(place, len(atoms) - 1)  # where the last division rounds up
        low, high = int(np.floor(place)), int(np.ceil(place))
        if low == high:
            target[low] += chance
        else:
            target[low] += chance * (high - place)
            target[high] += chance * (place - low)
    return target


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(2, 30),
    least=st.floats(-20, 5),
    width=st.floats(0.5, 40),
)
def test_targets_are_those_of_the_papers_algorithm(
    seed: int, count: int, least: float, width: float
) -> None:
    generator = np.random.default_rng(seed)
    atoms = torch.linspace(least, least + width, count, dtype=torch.float64)
    logits = torch.from_numpy(generator.normal(size=(6, 3, count), scale=2))
    reward = torch.from_numpy(generator.normal(size=6, scale=5))
    discount = torch.from_numpy(generator.choice([0, 0.5, 0.9, 1], size=6))
    selector = torch.from_numpy(generator.normal(size=(6, 3)))
    found = categorical_targets(reward, discount, logits, atoms, selector)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(6).double())
    for i, best in enumerate(selector.argmax(dim=1).tolist()):
        expected = algorithm_1(
            float(reward[i]),
            float(discount[i]),
            logits[i, best].softmax(dim=0).numpy(),
            atoms.numpy(),
        )
        np.testing.assert_allclose(found[i].numpy(), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dueling", [False, True])
def test_values_are_the_means_of_the_distributions(dueling: bool) -> None:
    torso = make_torso(NetworkConfig(hidden_sizes=[8]), OBSERVATIONS)
    network = CategoricalQNetwork(torso, 4, atoms=(5, -2.0, 6.0), dueling=dueling)
    assert network.atoms.tolist() == [-2, 0, 2, 4, 6]
    observation = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        values, logits = network(observation), network.logits(observation)
    assert logits.shape == (7, 4, 5)
    means = (logits.double().exp() * network.atoms).sum(dim=2) / logits.double().exp().sum(dim=2)
    torch.testing.assert_close(values.double(), means, rtol=1e-5, atol=1e-5)


def test_dueling_puts_the_streams_together_atom_by_atom() -> None:
    torso = make_torso(NetworkConfig(hidden_sizes=[8]), OBSERVATIONS)
    network = CategoricalQNetwork(torso, 4, atoms=(5, -2.0, 6.0), dueling=True)
    observation = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    assert network.value_head is not None
    with torch.no_grad():
        features = torso(observation)
        advantages = network.head(features).reshape(7, 4, 5)
        value = network.value_head(features).reshape(7, 1, 5)
        expected = value + advantages - advantages.mean(dim=1, keepdim=True)
        torch.testing.assert_close(network.logits(observation), expected)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kind", ["uniform", "prioritized"])
def test_an_update_is_that_of_an_independent_computation(
    monkeypatch: pytest.MonkeyPatch, double: bool, kind: str
) -> None:
    agent = make_agent(
        **CATEGORICAL, num_atoms=7, double=double, kind=kind, max_grad_norm=0.0, adam_epsilon=1e-3
    )
    batches = keep_batches(agent, monkeypatch)
    stream = Stream(2)
    drive(agent, stream, 15)
    agent.learn()  # nothing is owed any more
    agent._target.load_state_dict(  # one that differs
        {name: value + 0.1 * value.sign() for name, value in agent._target.state_dict().items()}
    )
    batches.clear()
    before = {name: value.detach().clone() for name, value in agent._network.named_parameters()}
    target = {name: value.detach().clone() for name, value in agent._target.named_parameters()}
    moments = [agent._optimizer.state[p] for p in agent._network.parameters()]
    momentum = [state["exp_avg"].clone() for state in moments]
    agent.observe(stream.step(agent.act(stream.observation)))
    metrics = agent.learn()
    loss, divergences, gradients = reference(before, target, batches[0], double)
    assert float(metrics["losses/td_loss"]) == pytest.approx(loss, rel=1e-4)
    for (name, parameter), state, old in zip(
        agent._network.named_parameters(), moments, momentum, strict=True
    ):
        gradient = (state["exp_avg"] - 0.9 * old) / 0.1
        expected = gradients[name].float()
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)
        assert not torch.equal(parameter, before[name])
    if kind == "prioritized":
        drawn = batches[0].drawn
        assert drawn is not None
        np.testing.assert_allclose(
            agent._replay._tree.masses[drawn.leaves], (divergences + 1e-6) ** 0.6, rtol=1e-3
        )


def reference(
    online: dict[str, torch.Tensor], target: dict[str, torch.Tensor], batch: Batch, double: bool
) -> tuple[float, np.ndarray[Any, Any], dict[str, torch.Tensor]]:
    """Return the loss, each transition's divergence and the gradients, in double precision."""
    atoms = np.linspace(-4, 6, 7)
    leaves = {name: value.double().requires_grad_() for name, value in online.items()}

    def logits(network: dict[str, torch.Tensor], observation: np.ndarray[Any, Any]) -> torch.Tensor:
        hidden = (
            torch.from_numpy(observation).double() @ network["torso.layers.0.weight"].double().T
        )
        hidden = (hidden + network["torso.layers.0.bias"].double()).relu()
        head = hidden @ network["head.weight"].double().T + network["head.bias"].double()
        return head.reshape(4, 7)

    losses, divergences = [], []
    weights = np.ones(8) if batch.weights is None else batch.weights
    for i in range(8):
        goal = logits(target, batch.next_observation[i]).softmax(dim=1).detach()
        choosing = logits(leaves, batch.next_observation[i]).softmax(dim=1) if double else goal
        best = int((choosing @ torch.from_numpy(atoms)).argmax())
        wanted = algorithm_1(
            float(batch.reward[i]), float(batch.discount[i]), goal[best].numpy(), atoms
        )
        predicted = logits(leaves, batch.observation[i])[int(batch.action[i])].softmax(dim=0)
        cross = -(torch.from_numpy(wanted) * predicted.log()).sum()
        losses.append(cross * float(weights[i]))
        held = wanted > 0
        ratio = wanted[held] / predicted.detach().numpy()[held]
        divergences.append(float((wanted[held] * np.log(ratio)).sum()))
    loss = torch.stack(losses).mean()
    found = torch.autograd.grad(loss, list(leaves.values()))
    return loss.item(), np.array(divergences), dict(zip(leaves, found, strict=True))


@pytest.mark.parametrize("options", [{}, NOISY | {"dueling": True}, {"pipelined": True}])
def test_the_chances_of_a_bet_are_found(options: dict[str, Any]) -> None:
    """The first action pays 1 or -1, the second always 0.3, and every step is the last."""
    agent = make_agent(
        **{"loss": "categorical", "value_min": -1.0, "value_max": 1.0, "num_atoms": 21}
        | {"batch_size": 32, "learning_rate": 3e-2}
        | {"gamma": 0.0, "capacity": 2000, "update_period_steps": 2}
        | options
    )
    generator = np.random.default_rng(0)
    nothing, over = np.zeros((2, 3), dtype=np.float32), np.ones(2, dtype=np.bool_)
    for _ in range(800):
        action = generator.integers(2, size=2)
        bet = np.where(generator.random(2) < 0.75, 1.0, -1.0)
        reward = np.where(action == 0, bet, 0.3).astype(np.float32)
        agent.observe(Transition(nothing, action, reward, nothing, over, over))
        agent.learn()
    network = agent.policy()._network
    assert isinstance(network, CategoricalQNetwork)
    with torch.no_grad():
        bet_chances, sure = network.logits(torch.zeros(1, 3))[0, :2].softmax(dim=1)
    assert float(bet_chances[0]) == pytest.approx(0.25, abs=0.12)
    assert float(bet_chances[-1]) == pytest.approx(0.75, abs=0.12)
    assert float(sure[13]) > 0.9  # 0.3 is the fourteenth of 21 atoms
    assert agent.policy().act(nothing).tolist() == [0, 0]


def test_a_saved_policy_comes_back(tmp_path: Path) -> None:
    agent = make_agent(**CATEGORICAL)
    drive(agent, Stream(2), 40)
    agent.save(tmp_path)
    policy = DQN.load_policy(make_tables(**CATEGORICAL), OBSERVATIONS, ACTIONS, tmp_path, CPU)
    observations = np.random.default_rng(3).normal(size=(30, 3)).astype(np.float32)
    np.testing.assert_array_equal(policy.values(observations), agent.policy().values(observations))
    assert policy.kind == "action values"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_atoms": 21}, 'num_atoms: does nothing with loss = "huber"'),
        ({"value_min": -3.0}, "value_min: does nothing"),
        ({"value_max": 3.0, "loss": "mse"}, 'value_max: does nothing with loss = "mse"'),
        (
            {"loss": "categorical", "value_min": 2.0, "value_max": 1.0},
            "value_min: 2.0 is not below value_max = 1.0",
        ),
        ({"loss": "categorical", "value_min": 2.0}, '"categorical" needs value_min and value_max'),
        ({"loss": "categorical"}, "of themselves only with clip_rewards and"),
    ],
)
def test_options_that_do_nothing_or_make_no_sense_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        make_agent(**options)
