"""Learners find the exact answers of small problems, through the public API alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from problems import (
    Problem,
    Values,
    bandit_problem,
    chain_problem,
    cliff_problem,
    exact_values,
    ring_problem,
)

import rlagents

PROBLEMS = Path(__file__).with_name("problems.py")

DQN: dict[str, Any] = {
    "name": "dqn",
    "learning_rate": 2e-2,
    "gamma": 0.9,
    "learning_starts": 200,
    "update_period_steps": 4,
    "target_period_steps": 100,
    # Acting at random visits everything; what is learned are the greedy policy's values.
    "epsilon_start": 1.0,
    "epsilon_end": 1.0,
}
REINFORCE: dict[str, Any] = {
    "name": "reinforce",
    "learning_rate": 5e-2,
    "gamma": 0.9,
    "episodes_per_update": 16,
    "entropy_coefficient": 0.0,
}
PPO: dict[str, Any] = {
    "name": "ppo",
    "learning_rate": 2e-2,
    "gamma": 0.9,
    "rollout_steps": 32,
    "entropy_coefficient": 0.0,
}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"double": True},
    {"dueling": True},
    {"double": True, "dueling": True},
    {"n_step": 2},
    {"n_step": 3, "double": True, "dueling": True},
]


def train(
    tmp_path: Path,
    make: str,
    num_states: int,
    agent: dict[str, Any],
    *,
    total_steps: int,
    seed: int = 1,
    num_envs: int = 4,
    dueling: bool = False,
    batch_size: int | None = None,
) -> Values:
    """Train on a problem; return the values or probabilities of its last policy: [S, A]."""
    config: dict[str, Any] = {
        "total_steps": total_steps,
        "seed": seed,
        "device": "cpu",
        "env": {"id": f"{PROBLEMS}:{make}", "num_envs": num_envs},
        "agent": agent,
        # Without hidden layers, one-hot observations make the network a table.
        "network": {"hidden_sizes": [], "dueling": dueling},
        "evaluation": {"period_steps": 0},
        "recording": {"enabled": False},
        "checkpoint": {"replay": "never"},
    }
    if batch_size is not None:
        config["replay"] = {"capacity": 20_000, "batch_size": batch_size}
    run = rlagents.train(config, runs_dir=tmp_path, quiet=True)
    values = run.policy("last").values(np.eye(num_states, dtype=np.float32))
    return np.asarray(values, dtype=np.float64)


def train_dqn(
    tmp_path: Path, make: str, problem: Problem, variant: dict[str, Any], **options: Any
) -> Values:
    """Train DQN with a variant of its settings, of which `dueling` is the network's."""
    agent = DQN | variant
    dueling = agent.pop("dueling", False)
    options = {"dueling": dueling, "batch_size": 64, "total_steps": 5000} | options
    return train(tmp_path, make, problem.num_states, agent, **options)


def test_exact_values_of_the_chain_by_hand() -> None:
    expected = [
        [0.9**5, 0.9**4],
        [0.9**5, 0.9**3],
        [0.9**4, 0.9**2],
        [0.9**3, 0.9],
        [0.9**2, 1.0],
    ]
    np.testing.assert_allclose(exact_values(chain_problem(), 0.9), expected)
    # Of two steps the second is random: right of the last place but one pays half of 0.9.
    two = exact_values(chain_problem(), 0.9, n_step=2)
    assert np.abs(two - expected).max() > 0.2  # far more than what is tolerated below
    assert two[4, 1] == 1
    assert two[3, 1] == pytest.approx(0.9 * (0.5 * 1 + 0.5 * 0.9 * two[3].max()))


def test_exact_values_of_the_cliff_by_hand() -> None:
    values = exact_values(cliff_problem(), 1.0)
    start = cliff_problem().num_states - 1
    # Thirteen steps: up, eleven to the right, down.
    assert values[start].max() == pytest.approx(-1.3)
    assert values[start, 1] == pytest.approx(-10 - 1.3)
    assert values[11, 2] == pytest.approx(-0.3)  # from the upper right corner, three down
    assert values[24:34].argmax(axis=1).tolist() == [1] * 10  # along the cliff


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_dqn_finds_the_values_of_the_chain(tmp_path: Path, variant: dict[str, Any]) -> None:
    n_step, options, tolerance = variant.get("n_step", 1), {}, 0.03
    if n_step > 1:  # then targets depend on what was done at random: small steps average over it
        variant = variant | {"learning_rate": 5e-3}
        options, tolerance = {"total_steps": 10_000}, 0.06
    found = train_dqn(tmp_path, "make_chain", chain_problem(), variant, **options)
    exact = exact_values(chain_problem(), 0.9, n_step)
    np.testing.assert_allclose(found, exact, atol=tolerance)
    assert found.argmax(axis=1).tolist() == [1] * 5


@pytest.mark.slow
@pytest.mark.parametrize("variant", [{}, {"double": True, "dueling": True}])
def test_dqn_finds_the_values_of_the_cliff(tmp_path: Path, variant: dict[str, Any]) -> None:
    problem = cliff_problem()
    periods = {"learning_starts": 1000, "update_period_steps": 8, "target_period_steps": 800}
    found = train_dqn(
        tmp_path,
        "make_cliff",
        problem,
        variant | periods,
        num_envs=8,
        total_steps=24_000,
        batch_size=256,
    )
    exact = exact_values(problem, 0.9)
    np.testing.assert_allclose(found, exact, atol=0.2)  # of values down to -10.8
    assert np.abs(found - exact).mean() < 0.02
    lost = exact.max(axis=1) - np.take_along_axis(exact, found.argmax(axis=1)[:, None], 1)[:, 0]
    assert lost.max() < 0.1  # no first choice costs as much as a step


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_dqn_finds_the_chances_of_a_bandit(tmp_path: Path, seed: int) -> None:
    found = train_dqn(tmp_path, "make_bandit", bandit_problem(), {"learning_rate": 3e-3}, seed=seed)
    np.testing.assert_allclose(found, [[0.3, 0.7]], atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant", [{}, {"n_step": 3}, {"double": True}, {"dueling": True, "n_step": 2}]
)
def test_what_is_cut_off_goes_on_and_what_ends_does_not(
    tmp_path: Path, variant: dict[str, Any]
) -> None:
    variant = variant | {"gamma": 0.8}
    cut_off = train_dqn(
        tmp_path / "cut", "make_ring_that_is_cut_off", ring_problem(ends=False), variant
    )
    np.testing.assert_allclose(cut_off, np.full((4, 2), 1 / (1 - 0.8)), atol=0.05)
    ended = train_dqn(tmp_path / "end", "make_ring_that_ends", ring_problem(ends=True), variant)
    left = np.array([4, 3, 2, 1])
    expected = np.repeat((1 - 0.8**left) / (1 - 0.8), 2).reshape(4, 2)
    np.testing.assert_allclose(ended, expected, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("baseline", ["none", "value"])
def test_reinforce_finds_the_better_arm(tmp_path: Path, baseline: str, seed: int) -> None:
    agent = REINFORCE | {"baseline": baseline}
    chances = train(tmp_path, "make_bandit", 1, agent, total_steps=3200, seed=seed)
    assert chances[0, 1] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("baseline", ["none", "value"])
def test_reinforce_goes_to_the_end_of_the_chain(tmp_path: Path, baseline: str, seed: int) -> None:
    agent = REINFORCE | {"baseline": baseline}
    chances = train(tmp_path, "make_chain", 5, agent, total_steps=16_000, seed=seed)
    assert chances.argmax(axis=1).tolist() == [1] * 5
    assert chances[0, 1] > 0.9


def train_ppo(tmp_path: Path, make: str, num_states: int, **options: Any) -> tuple[Values, Values]:
    """Train PPO on a problem; return its last policy's probabilities [S, A] and its values [S]."""
    total_steps, seed = options.pop("total_steps"), options.pop("seed", 1)
    agent = PPO | options
    chances = train(tmp_path, make, num_states, agent, total_steps=total_steps, seed=seed)
    (run,) = tmp_path.iterdir()
    network: Any = rlagents.open_run(run).policy("last").network
    with torch.no_grad():
        values = network.logits_and_value(torch.eye(num_states))[1].numpy()
    return chances, values.astype(np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ppo_finds_the_better_arm_and_what_it_pays(tmp_path: Path, seed: int) -> None:
    chances, values = train_ppo(tmp_path, "make_bandit", 1, total_steps=6400, seed=seed)
    assert chances[0, 1] > 0.95
    assert values[0] == pytest.approx(0.7, abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "options"),
    [(1, {}), (2, {}), (1, {"gae_lambda": 0.0}), (1, {"value_clip_range": 0.2})],
)
def test_ppo_goes_to_the_end_of_the_chain_and_values_the_way(
    tmp_path: Path, options: dict[str, Any], seed: int
) -> None:
    chances, values = train_ppo(tmp_path, "make_chain", 5, total_steps=16_000, seed=seed, **options)
    assert chances.argmax(axis=1).tolist() == [1] * 5
    assert chances[0, 1] > 0.9
    np.testing.assert_allclose(values, exact_values(chain_problem(), 0.9).max(axis=1), atol=0.1)


@pytest.mark.slow
def test_ppo_finds_a_way_along_the_cliff(tmp_path: Path) -> None:
    problem = cliff_problem()
    chances, _ = train_ppo(
        tmp_path,
        "make_cliff",
        problem.num_states,
        total_steps=60_000,
        gamma=0.99,
        rollout_steps=128,
        entropy_coefficient=0.01,
    )
    state, total = problem.num_states - 1, 0.0
    for _ in range(50):
        (outcome,) = problem.table[state][int(chances[state].argmax())]
        state, total = outcome.state, total + outcome.reward
        if outcome.terminated:
            break
    assert outcome.terminated
    assert total >= -1.7  # 13 steps are the shortest way; 17 go round at the greatest distance


@pytest.mark.slow
@pytest.mark.parametrize("gae_lambda", [0.95, 1.0])
def test_ppo_values_what_is_cut_off_as_going_on_and_what_ends_as_nothing(
    tmp_path: Path, gae_lambda: float
) -> None:
    options: dict[str, Any] = {"gamma": 0.8, "gae_lambda": gae_lambda, "total_steps": 12_000}
    # Rollouts of seven steps end in the middle of episodes of four.
    options |= {"rollout_steps": 7, "epochs": 2, "minibatches": 1}
    options |= {"learning_rate_end": 0.0, "learning_rate_decay_steps": 12_000}
    _, cut_off = train_ppo(tmp_path / "cut", "make_ring_that_is_cut_off", 4, **options)
    np.testing.assert_allclose(cut_off, np.full(4, 1 / (1 - 0.8)), atol=0.05)
    _, ended = train_ppo(tmp_path / "end", "make_ring_that_ends", 4, **options)
    left = np.array([4, 3, 2, 1])
    np.testing.assert_allclose(ended, (1 - 0.8**left) / (1 - 0.8), atol=0.05)
