from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlagents.agents import reinforce
from rlagents.agents.reinforce import Reinforce, ReinforceConfig, rewards_to_go
from rlagents.agents.rewards import standardize
from rlagents.errors import UsageError
from rlagents.networks import NetworkConfig
from rlagents.spaces import FrameStack
from rlagents.types import Array, IntArray, Metrics, Transition

OBSERVATIONS = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
ACTIONS = gym.spaces.Discrete(4)
CPU = torch.device("cpu")

BASE: dict[str, Any] = {"learning_rate": 1e-2, "gamma": 0.9, "episodes_per_update": 4}


@dataclass(frozen=True)
class Tables:
    agent: ReinforceConfig
    network: NetworkConfig
    replay: None = None


def make_tables(*, hidden_sizes: list[int] | None = None, **agent: Any) -> Tables:
    return Tables(
        ReinforceConfig.model_validate(BASE | agent),
        NetworkConfig(hidden_sizes=[8] if hidden_sizes is None else hidden_sizes),
    )


def make_agent(
    num_envs: int = 2,
    *,
    seed: int = 1,
    observations: gym.spaces.Box = OBSERVATIONS,
    actions: gym.Space[Any] = ACTIONS,
    **options: Any,
) -> Reinforce:
    tables = make_tables(**options)
    Reinforce.check(tables, num_envs=num_envs)
    return Reinforce.from_config(
        tables, observations, actions, num_envs=num_envs, seed=seed, device=CPU
    )


@dataclass
class Past:
    """An episode as the made-up environments know it."""

    observations: list[Array]
    actions: list[int]
    rewards: list[float]
    ends: list[bool]  # where a life was lost, or the game


class Stream:
    """Made-up environments that heed the waiting of an agent, as the runner does."""

    def __init__(
        self, num_envs: int, *, seed: int = 0, longest: int = 9, lives: float = 0.0
    ) -> None:
        self._lives = lives
        self._generator = np.random.default_rng(seed)
        self._longest = longest
        self.num_envs = num_envs
        self.observation = self._random()
        self.active = np.zeros(num_envs, dtype=np.bool_)
        self.left = np.zeros(num_envs, dtype=np.int64)
        self.running = [Past([], [], [], []) for _ in range(num_envs)]
        self.finished: list[list[Past]] = [[] for _ in range(num_envs)]

    def _random(self) -> Array:
        return self._generator.normal(size=(self.num_envs, 3)).astype(np.float32)

    def begin(self, waiting: Array) -> None:
        """Begin an episode in every idle environment that need not wait."""
        for i in np.flatnonzero(~self.active & ~waiting):
            self.active[i] = True
            # Lengths differ from one environment to the next.
            self.left[i] = self._generator.integers(1, self._longest + 1) + 2 * i
            self.running[i] = Past([], [], [], [])

    def step(self, action: IntArray) -> Transition:
        """Step the active environments; the rows of the others are filled with nonsense."""
        self.left[self.active] -= 1
        over = self.left <= 0
        reward = (self._generator.normal(size=self.num_envs) + action / 3).astype(np.float32)
        reward[self._generator.random(self.num_envs) < 0.4] = 0
        reward[~self.active] = 1e6
        over[~self.active] = self._generator.random(int((~self.active).sum())) < 0.5
        lost = self._generator.random(self.num_envs) < self._lives
        for i in np.flatnonzero(self.active):
            past = self.running[i]
            past.observations.append(self.observation[i].copy())
            past.actions.append(int(action[i]))
            past.rewards.append(float(reward[i]))
            past.ends.append(bool(over[i] or lost[i]))
            if over[i]:
                self.finished[i].append(past)
                self.active[i] = False
        after = self._random()
        terminated = over & (self._generator.random(self.num_envs) < 0.5) | lost
        transition = Transition(self.observation, action, reward, after, terminated, over)
        self.observation = self._random()
        return transition


def drive(agent: Reinforce, stream: Stream, steps: int) -> tuple[list[list[int]], list[Metrics]]:
    """Do as the runner does for a number of vector steps; return the actions and the metrics."""
    actions, metrics = [], []
    for _ in range(steps):
        stream.begin(agent.waiting())
        if not stream.active.any():
            metrics.append(agent.learn())
            continue
        action = agent.act(stream.observation)
        metrics.append(agent.learn())
        agent.observe(stream.step(action))
        actions.append(action.tolist())
    return actions, metrics


def until_update(agent: Reinforce, stream: Stream) -> list[Past]:
    """Go on until the next call of `learn` will update; return the episodes it will use."""
    stream.finished = [[] for _ in range(stream.num_envs)]
    for _ in range(10_000):
        stream.begin(agent.waiting())
        if not stream.active.any():
            return [past for finished in stream.finished for past in finished]
        action = agent.act(stream.observation)
        assert agent.learn() == {}
        agent.observe(stream.step(action))
    raise AssertionError("the agent waits for something")


def parameters(agent: Reinforce) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in agent._network.named_parameters()}


def gradients(agent: Reinforce) -> dict[str, Tensor]:
    found = {}
    for name, parameter in agent._network.named_parameters():
        assert parameter.grad is not None
        found[name] = parameter.grad.clone()
    return found


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def _flush_denormal() -> Iterator[None]:
    torch.set_flush_denormal(True)  # as a run does; Adam is many times slower without
    yield
    torch.set_flush_denormal(False)


def rewards(*numbers: float) -> npt.NDArray[np.float32]:
    return np.array(numbers, dtype=np.float32)


def test_rewards_to_go_by_hand() -> None:
    result = rewards_to_go(rewards(1, 0, -2, 4), 0.5)
    assert result.tolist() == [1 - 0.5 + 0.5, -1 + 1, -2 + 2, 4]
    assert str(result.dtype) == "float32"
    assert rewards_to_go(rewards(1, 2, 3), 0.0).tolist() == [1, 2, 3]
    assert rewards_to_go(rewards(1, 2, 3), 1.0).tolist() == [6, 5, 3]
    assert rewards_to_go(rewards(7), 0.9).tolist() == [7]


def test_rewards_to_go_that_begin_afresh_at_a_score_by_hand() -> None:
    result = rewards_to_go(rewards(0, 0, 1, 0, -1, 0, 0), 0.5, reset_at_score=True)
    assert result.tolist() == [0.25, 0.5, 1, -0.5, -1, 0, 0]
    both = rewards_to_go(rewards(2, 3), 0.5, reset_at_score=True)
    assert both.tolist() == [2, 3]


def test_rewards_to_go_end_where_they_are_told_by_hand() -> None:
    ends = np.array([False, True, False, False])
    assert rewards_to_go(rewards(1, 2, 4, 8), 0.5, ends=ends).tolist() == [2, 2, 8, 8]
    scored = rewards_to_go(rewards(0, 0, 4, 8), 0.5, ends=ends, reset_at_score=True)
    assert scored.tolist() == [0, 0, 4, 8]


def test_long_sums_do_not_lose_precision() -> None:
    result = rewards_to_go(np.full(100_000, 0.1, dtype=np.float32), 1.0)
    assert result[0] == pytest.approx(100_000 * float(np.float32(0.1)), rel=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from([0.0, 0.0, 1.0, -1.0, 0.5]), min_size=1, max_size=30),
    st.integers(0, 100).map(lambda percent: percent / 100),
    st.booleans(),
    st.integers(0, 2**30 - 1),
)
def test_rewards_to_go_are_their_definition(
    numbers: list[float], gamma: float, reset_at_score: bool, bits: int
) -> None:
    ends = np.array([bits >> t & 1 == 1 for t in range(len(numbers))])
    expected = []
    for t in range(len(numbers)):
        total = 0.0
        for k, number in enumerate(numbers[t:]):
            total += gamma**k * number
            if ends[t + k] or (reset_at_score and number != 0):
                break
        expected.append(total)
    result = rewards_to_go(rewards(*numbers), gamma, ends=ends, reset_at_score=reset_at_score)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_standardized_values_by_hand() -> None:
    np.testing.assert_allclose(standardize(rewards(2, 4, 6, 8)), rewards(-3, -1, 1, 3) / 5**0.5)
    assert standardize(rewards(5, 5, 5)).tolist() == [0, 0, 0]
    assert standardize(rewards(3)).tolist() == [0]
    for number in (0.1, 0.7, 21.7):  # the means of so many of them are rounded
        assert not standardize(np.full(512, number, dtype=np.float32)).any()
    many = standardize(np.random.default_rng(0).normal(40, 7, size=5000).astype(np.float32))
    assert float(many.mean()) == pytest.approx(0, abs=1e-4)
    assert float(many.std()) == pytest.approx(1, abs=1e-4)
    assert str(many.dtype) == "float32"


def reference_loss(
    agent: Reinforce, config: ReinforceConfig, episodes: Sequence[Past]
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return gradients and metrics as the docstring has them: one batch, in double precision."""
    network = copy.deepcopy(agent._network).double()
    returns: list[float] = []
    for past in episodes:
        for t in range(len(past.rewards)):
            total = 0.0
            for k, reward in enumerate(past.rewards[t:]):
                total += config.gamma**k * reward
                if past.ends[t + k] or (config.reset_return_at_score and reward != 0):
                    break
            returns.append(total)
    goal = torch.tensor(returns, dtype=torch.float64)
    if config.standardize:
        goal = (goal - goal.mean()) / goal.std(correction=0)
    o = torch.tensor(np.concatenate([np.stack(past.observations) for past in episodes])).double()
    a = torch.tensor([action for past in episodes for action in past.actions])
    features = network.torso(o)
    chances = network.head(features).softmax(dim=1)
    entropy = -(chances * chances.log()).sum(dim=1).mean()
    advantage = goal
    losses = {"losses/entropy": entropy}
    loss = -config.entropy_coefficient * entropy
    if config.baseline == "value":
        value = network.value_head(features)[:, 0]  # type: ignore[operator]
        losses["losses/value_loss"] = ((value - goal) ** 2).mean()
        loss = loss + config.value_coefficient * losses["losses/value_loss"]
        advantage = goal - value.detach()
    losses["losses/policy_loss"] = -(advantage * chances[torch.arange(len(a)), a].log()).mean()
    loss = loss + losses["losses/policy_loss"]
    loss.backward()
    found = {}
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        found[name] = parameter.grad
    if config.max_grad_norm:
        length = float(
            torch.sqrt(sum(((part**2).sum() for part in found.values()), torch.zeros(1)))
        )
        scale = min(1.0, config.max_grad_norm / length)
        found = {name: part * scale for name, part in found.items()}
    return found, {name: float(value.detach()) for name, value in losses.items()}


@pytest.mark.parametrize("chunk", [512, 3, 1])
@pytest.mark.parametrize(
    "options",
    [
        {"baseline": "none", "entropy_coefficient": 0.0, "max_grad_norm": 0.0},
        {"baseline": "none", "entropy_coefficient": 0.3, "max_grad_norm": 0.0},
        {"baseline": "value", "entropy_coefficient": 0.3, "max_grad_norm": 0.0},
        {"baseline": "value", "value_coefficient": 0.0, "max_grad_norm": 0.0},
        {"baseline": "value", "standardize": False, "max_grad_norm": 0.0},
        {"baseline": "value", "reset_return_at_score": True, "max_grad_norm": 0.0},
        {"baseline": "value", "max_grad_norm": 0.01},
    ],
)
def test_an_update_is_that_of_an_independent_computation(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], chunk: int
) -> None:
    monkeypatch.setattr(reinforce, "_CHUNK", chunk)
    agent = make_agent(2, **options)
    config = ReinforceConfig.model_validate(BASE | options)
    stream = Stream(2, lives=0.2)
    for update in range(3):
        episodes = until_update(agent, stream)
        assert len(episodes) == 4
        assert max(len(past.actions) for past in episodes) > 3  # a chunk of three is crossed
        expected, losses = reference_loss(agent, config, episodes)
        before = parameters(agent)
        metrics = agent.learn()
        assert set(metrics) == set(losses)
        for name, value in metrics.items():
            assert value.shape == ()
            assert not value.requires_grad
            assert float(value) == pytest.approx(losses[name], rel=1e-4, abs=1e-5)
        for name, gradient in gradients(agent).items():
            torch.testing.assert_close(gradient.double(), expected[name], rtol=1e-3, atol=1e-6)
        if update == 0:  # Adam's first step: the gradient's sign, as long as the learning rate
            for name, after in parameters(agent).items():
                gradient = gradients(agent)[name]
                step = 1e-2 * gradient / (gradient.abs() + 1e-8)
                torch.testing.assert_close(after, before[name] - step, rtol=1e-4, atol=1e-5)


def test_the_baseline_is_not_led_by_the_policys_loss() -> None:
    agent = make_agent(value_coefficient=0.0, max_grad_norm=0.0)
    until_update(agent, Stream(2))
    agent.learn()
    found = gradients(agent)
    assert not found["value_head.weight"].any()
    assert found["head.weight"].any()


def test_pieces_of_an_episode_change_nothing_but_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for chunk in (512, 2):
        monkeypatch.setattr(reinforce, "_CHUNK", chunk)
        agent = make_agent(max_grad_norm=0.0)
        until_update(agent, Stream(2, longest=30))
        agent.learn()
        found.append(gradients(agent))
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("chunk", [512, 4])
def test_each_sample_is_used_once_in_one_step(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(reinforce, "_CHUNK", chunk)
    agent, stream = make_agent(), Stream(2)
    used: list[tuple[bytes, int]] = []
    steps: list[int] = []
    losses, optimizer_step = agent._losses, agent._optimizer.step

    def noting(observations: Array, actions: IntArray, returns: Any) -> Tensor:
        assert len(observations) == len(actions) == len(returns) <= chunk
        used.extend((o.tobytes(), int(a)) for o, a in zip(observations, actions, strict=True))
        return losses(observations, actions, returns)

    def counting(*args: Any) -> Any:
        steps.append(len(used))
        return optimizer_step(*args)

    monkeypatch.setattr(agent, "_losses", noting)
    monkeypatch.setattr(agent._optimizer, "step", counting)
    for _ in range(3):
        used.clear()
        steps.clear()
        episodes = until_update(agent, stream)
        assert not used
        assert agent.learn()
        expected = [
            (observation.tobytes(), action)
            for past in episodes
            for observation, action in zip(past.observations, past.actions, strict=True)
        ]
        assert sorted(used) == sorted(expected)
        assert steps == [len(expected)]
        assert agent.learn() == {}


def test_every_environment_brings_as_many_episodes() -> None:
    agent, stream = make_agent(3, episodes_per_update=6), Stream(3)
    for _ in range(4):
        until_update(agent, stream)
        assert [len(finished) for finished in stream.finished] == [2, 2, 2]
        assert agent.waiting().tolist() == [True, True, True]
        assert agent.learn()
        assert agent.waiting().tolist() == [False, False, False]


def step_of(
    num_envs: int, over: Sequence[bool], number: float = 0.0, reward: float = 1.0
) -> Transition:
    observation = np.full((num_envs, 3), number, dtype=np.float32)
    return Transition(
        observation,
        np.zeros(num_envs, dtype=np.int64),
        np.full(num_envs, reward, dtype=np.float32),
        observation,
        np.array(over),
        np.array(over),
    )


def test_an_environment_waits_as_soon_as_it_has_brought_its_episodes() -> None:
    agent = make_agent(2, episodes_per_update=4)
    agent.observe(step_of(2, [True, False]))
    assert agent.waiting().tolist() == [False, False]
    agent.observe(step_of(2, [True, False]))
    assert agent.waiting().tolist() == [True, False]
    assert agent.learn() == {}
    agent.observe(step_of(2, [True, True]))
    assert agent.waiting().tolist() == [True, False]
    agent.observe(step_of(2, [False, True]))
    assert agent.waiting().tolist() == [True, True]
    assert agent.learn()
    assert agent.waiting().tolist() == [False, False]


def test_what_a_waiting_environment_shows_is_ignored() -> None:
    outcomes = []
    for nonsense in (0.0, 77.0):
        agent = make_agent(2, episodes_per_update=2)
        agent.observe(step_of(2, [True, False], 0.5))
        for number in range(3):
            step = step_of(2, [bool(nonsense), number == 2], number, reward=number)
            step.observation[0] = nonsense
            step.reward[0] = nonsense
            agent.observe(step)
        agent.learn()
        first = parameters(agent)
        # Nor does it linger on: the next episode begins with the next step.
        agent.observe(step_of(2, [True, True], 0.25))
        agent.learn()
        outcomes.append((first, parameters(agent)))
    assert equal(outcomes[0][0], outcomes[1][0])
    assert equal(outcomes[0][1], outcomes[1][1])


def test_weights_do_not_change_while_episodes_run() -> None:
    agent, stream = make_agent(), Stream(2)
    before = parameters(agent)
    until_update(agent, stream)
    assert equal(parameters(agent), before)
    agent.learn()
    assert not equal(parameters(agent), before)


def test_the_learning_rate_changes_in_a_straight_line() -> None:
    agent = make_agent(
        2,
        episodes_per_update=2,
        learning_rate=0.008,
        learning_rate_end=0.002,
        learning_rate_decay_steps=12,
    )
    # Of six agent steps to an update: the first environment's episodes have two, the other's four.
    found = []
    for _ in range(4):
        for t in range(4):
            assert agent.learn() == {}
            agent.observe(step_of(2, [t == 1, t == 3]))
        assert agent.gauges() == {"charts/learning_rate": agent.learning_rate}
        assert agent.learn()
        assert agent._optimizer.param_groups[0]["lr"] == agent.learning_rate
        found.append(agent.learning_rate)
    assert found == pytest.approx([0.005, 0.002, 0.002, 0.002])
    constant = make_agent()
    until_update(constant, Stream(2))
    constant.learn()
    assert constant.learning_rate == constant._optimizer.param_groups[0]["lr"] == 1e-2
    assert constant.gauges() == {}


def test_a_learning_rate_that_ends_at_zero_ends_learning() -> None:
    agent, stream = make_agent(learning_rate_end=0.0, learning_rate_decay_steps=60), Stream(2)
    drive(agent, stream, 20)
    assert 0 < agent.learning_rate < 1e-2
    drive(agent, stream, 60)
    before = parameters(agent)
    assert any(drive(agent, stream, 60)[1])
    assert equal(parameters(agent), before)


@pytest.mark.parametrize("key", ["learning_rate_end", "learning_rate_decay_steps"])
def test_half_of_a_schedule_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match=f"{key}: needs learning_rate_"):
        make_agent(**{key: 1 if key.endswith("steps") else 0.0})


CHANGES: dict[str, Any] = {
    "learning_rate": 2e-2,
    "learning_rate_end": 0.0,
    "learning_rate_decay_steps": 900,
    "gamma": 0.5,
    "episodes_per_update": 6,
    "baseline": "none",
    "value_coefficient": 2.0,
    "entropy_coefficient": 0.2,
    "standardize": False,
    "reset_return_at_score": True,
    "points_per_update": 5,
    "max_grad_norm": 0.01,
    "hidden_sizes": [9],
}
BESIDE: dict[str, dict[str, Any]] = {
    "points_per_update": {"reset_return_at_score": True, "episodes_per_update": 8},
    "learning_rate_end": {"learning_rate_end": 5e-3, "learning_rate_decay_steps": 100},
    "learning_rate_decay_steps": {"learning_rate_end": 5e-3, "learning_rate_decay_steps": 100},
}


def outcome(**options: Any) -> tuple[list[list[int]], float]:
    """Return the actions of a short training and a number that depends on the weights."""
    agent = make_agent(**options)
    actions, _ = drive(agent, Stream(2), 150)
    observations = np.random.default_rng(8).normal(size=(20, 3)).astype(np.float32)
    return actions, float((agent.policy().values(observations) ** 2).mean())


@pytest.mark.parametrize("option", [*CHANGES])
def test_every_option_changes_what_is_learned(option: str) -> None:
    beside = BESIDE.get(option, {})
    _, before = outcome(**beside)
    _, after = outcome(**beside | {option: CHANGES[option]})
    assert abs(after - before) > 1e-5 * before


def test_no_option_of_the_table_is_left_out() -> None:
    assert {*ReinforceConfig.model_fields} - {"name"} <= set(CHANGES)


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    assert outcome(seed=3) == outcome(seed=3)
    actions, values = outcome(seed=3)
    others, other_values = outcome(seed=4)
    assert actions != others
    assert values != other_values


def test_each_seed_explores_and_begins_differently() -> None:
    one, other = (make_agent(50, seed=seed, episodes_per_update=50) for seed in (1, 2))
    assert not equal(parameters(one), parameters(other))
    observation = Stream(50).observation
    for agent in (one, other):
        set_logits(agent, [0.0] * 4)
    assert one.act(observation).tolist() != other.act(observation).tolist()


def test_global_generators_are_neither_used_nor_changed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    state = torch.get_rng_state()
    first = outcome()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    np.random.seed(1)
    assert outcome() == first


def set_logits(agent: Reinforce, logits: Sequence[float]) -> None:
    """Make the policy the same everywhere."""
    with torch.no_grad():
        agent._network.head.weight.zero_()
        agent._network.head.bias.copy_(torch.tensor(logits))


def test_actions_are_as_frequent_as_the_policy_says() -> None:
    agent = make_agent(200, episodes_per_update=200)
    chances = np.array([0.05, 0.15, 0.5, 0.3])
    set_logits(agent, np.log(chances).tolist())
    observation = Stream(200).observation
    np.testing.assert_allclose(agent.policy().values(observation[:1])[0], chances, rtol=1e-5)
    drawn = np.stack([agent.act(observation) for _ in range(200)])
    assert (drawn.shape, str(drawn.dtype)) == ((200, 200), "int64")
    counts = np.bincount(drawn.ravel(), minlength=4)
    expected = 40_000 * chances
    assert ((counts - expected) ** 2 / expected).sum() < 16.3  # chance: 1 in 1000
    # Nor do neighbours in the batch or in time depend on each other.
    same_env = (drawn[1:] == drawn[:-1]).mean()
    same_time = (drawn[:, 1:] == drawn[:, :-1]).mean()
    assert same_env == pytest.approx((chances**2).sum(), abs=0.015)
    assert same_time == pytest.approx((chances**2).sum(), abs=0.015)


def test_each_environment_follows_its_own_observation() -> None:
    agent = make_agent(2, episodes_per_update=2, hidden_sizes=[])
    with torch.no_grad():
        agent._network.head.weight.zero_()
        agent._network.head.weight[1, 0] = 50.0
        agent._network.head.weight[3, 1] = 50.0
    observation = np.eye(3, dtype=np.float32)[:2]
    for _ in range(20):
        assert agent.act(observation).tolist() == [1, 3]


def test_impossible_actions_are_never_drawn() -> None:
    agent = make_agent(200, episodes_per_update=200)
    set_logits(agent, [-1e9, 0.0, 0.0, -1e9])
    drawn = np.stack([agent.act(Stream(200).observation) for _ in range(50)])
    assert set(drawn.ravel().tolist()) == {1, 2}


@pytest.mark.parametrize("baseline", ["none", "value"])
@pytest.mark.parametrize("steps", [0, 3, 16, 60])
def test_a_saved_agent_goes_on_bit_for_bit(tmp_path: Path, steps: int, baseline: str) -> None:
    options: dict[str, Any] = {"baseline": baseline, "episodes_per_update": 6}
    agent, stream = make_agent(**options), Stream(2)
    drive(agent, stream, steps)
    agent.save(tmp_path)
    other, same_stream = make_agent(seed=99, **options), copy.deepcopy(stream)
    other.load(tmp_path)
    assert other.waiting().tolist() == agent.waiting().tolist()
    updates = 0
    for _ in range(80):
        one, same = drive(agent, stream, 1), drive(other, same_stream, 1)
        assert one == same
        updates += bool(one[1][0])
        assert equal(parameters(agent), parameters(other))
    assert updates >= 2


def test_an_agent_is_saved_while_one_environment_waits(tmp_path: Path) -> None:
    agent, stream = make_agent(2, episodes_per_update=6), Stream(2)
    for _ in range(500):
        drive(agent, stream, 1)
        if agent.waiting().tolist() == [True, False] and stream.active[1]:
            break
    assert len(agent._running[1]) > 0
    agent.save(tmp_path)
    other, same_stream = make_agent(2, episodes_per_update=6, seed=9), copy.deepcopy(stream)
    other.load(tmp_path)
    assert other.waiting().tolist() == [True, False]
    assert drive(agent, stream, 60) == drive(other, same_stream, 60)
    assert equal(parameters(agent), parameters(other))


def test_without_experience_episodes_begin_anew(tmp_path: Path) -> None:
    agent, stream = make_agent(), Stream(2)
    drive(agent, stream, 50)
    agent.save(tmp_path, experience=False)
    assert not (tmp_path / "trajectories").exists()
    other = make_agent(seed=9)
    other.load(tmp_path)
    other.interrupt()
    assert equal(parameters(other), parameters(agent))
    assert other.waiting().tolist() == [False, False]
    assert other.learn() == {}
    fresh = Stream(2, seed=4)
    assert other.act(fresh.observation).tolist() == agent.act(fresh.observation).tolist()
    assert len(until_update(other, fresh)) == 4
    assert other.learn()


def test_saving_changes_nothing(tmp_path: Path) -> None:
    saved, untouched = make_agent(), make_agent()
    stream, same_stream = Stream(2), Stream(2)
    for step in range(60):
        if step in (5, 25):
            (tmp_path / str(step)).mkdir()
            saved.save(tmp_path / str(step), experience=step == 25)
        assert drive(saved, stream, 1) == drive(untouched, same_stream, 1)
    assert equal(parameters(saved), parameters(untouched))


def test_saved_files_hold_no_code(tmp_path: Path) -> None:
    agent = make_agent()
    drive(agent, Stream(2), 20)
    agent.save(tmp_path)
    endings = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert endings <= {".safetensors", ".json", ".npy"}
    for path in tmp_path.rglob("*.npy"):
        np.load(path, allow_pickle=False)


@pytest.mark.parametrize("options", [{"hidden_sizes": [9]}, {"baseline": "none"}])
def test_another_network_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    make_agent().save(tmp_path)
    with pytest.raises(ValueError, match="network"):
        make_agent(**options).load(tmp_path)


def test_an_interruption_drops_what_has_begun_and_keeps_what_is_finished() -> None:
    results = []
    for interrupted in (False, True):
        agent = make_agent(2, episodes_per_update=4)
        agent.observe(step_of(2, [True, True], 0.5))
        if interrupted:
            agent.observe(step_of(2, [False, False], 9.0, reward=9.0))
            agent.interrupt()
        agent.observe(step_of(2, [False, True], 0.25, reward=2.0))
        agent.observe(step_of(2, [True, False], 0.75, reward=3.0))
        assert agent.learn()
        results.append(parameters(agent))
    assert equal(*results)


def test_a_policy_is_a_copy() -> None:
    agent, stream = make_agent(), Stream(2)
    observations = np.random.default_rng(3).normal(size=(30, 3)).astype(np.float32)
    policy = agent.policy()
    values = policy.values(observations)
    assert policy.kind == "probabilities"
    np.testing.assert_allclose(values.sum(axis=1), 1, rtol=1e-5)
    logits = agent._network(torch.from_numpy(observations)).detach().numpy()
    assert policy.act(observations).tolist() == logits.argmax(axis=1).tolist()
    drive(agent, stream, 60)
    np.testing.assert_array_equal(policy.values(observations), values)
    assert not np.allclose(agent.policy().values(observations), values, atol=1e-4)


@pytest.mark.parametrize("baseline", ["none", "value"])
def test_a_saved_policy_comes_back(tmp_path: Path, baseline: str) -> None:
    agent = make_agent(baseline=baseline)
    drive(agent, Stream(2), 60)
    agent.save(tmp_path, experience=False)
    tables = make_tables(baseline=baseline)
    policy = Reinforce.load_policy(tables, OBSERVATIONS, ACTIONS, tmp_path, CPU)
    observations = np.random.default_rng(3).normal(size=(30, 3)).astype(np.float32)
    np.testing.assert_array_equal(policy.values(observations), agent.policy().values(observations))
    assert policy.kind == "probabilities"


@pytest.mark.parametrize(
    ("episodes", "num_envs", "nearest"), [(12, 8, 16), (4, 8, 8), (9, 4, 8), (1, 2, 2)]
)
def test_episodes_that_cannot_be_shared_evenly_are_refused(
    episodes: int, num_envs: int, nearest: int
) -> None:
    with pytest.raises(
        UsageError, match=rf"episodes_per_update: {episodes} .* set it to {nearest},"
    ):
        Reinforce.check(make_tables(episodes_per_update=episodes), num_envs=num_envs)
    Reinforce.check(make_tables(episodes_per_update=nearest), num_envs=num_envs)


@pytest.mark.parametrize(
    "actions",
    [
        gym.spaces.Box(-1, 1, (2,)),
        gym.spaces.MultiDiscrete([2, 3]),
        gym.spaces.Discrete(3, start=1),
    ],
)
def test_only_numbered_actions_are_taken(actions: gym.Space[Any]) -> None:
    with pytest.raises(UsageError, match="reinforce chooses among numbered actions"):
        make_agent(actions=actions)


def test_dueling_heads_are_refused() -> None:
    tables = Tables(ReinforceConfig(), NetworkConfig(dueling=True))
    with pytest.raises(UsageError, match="dueling"):
        Reinforce.check(tables, num_envs=8)


def test_noisy_layers_are_refused() -> None:
    tables = Tables(ReinforceConfig(), NetworkConfig(noisy=True))
    with pytest.raises(UsageError, match=r"noisy: reinforce explores by drawing.*; leave it out"):
        Reinforce.check(tables, num_envs=8)


def test_resolving_leaves_no_precision_open() -> None:
    resolved = Reinforce.resolve(make_tables(), "cpu")["network"]
    assert isinstance(resolved, NetworkConfig)
    assert resolved.precision == "float32"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_stacks_reach_the_network_as_they_were_seen(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    space = FrameStack(3, 36, 36)
    network = {"torso": "nature-cnn", "width": 0.125, "hidden_sizes": [8], "precision": precision}
    tables = Tables(
        ReinforceConfig.model_validate(BASE | {"episodes_per_update": 2}),
        NetworkConfig.model_validate(network),
    )
    agent = Reinforce.from_config(
        tables, space, gym.spaces.Discrete(2), num_envs=2, seed=0, device=CPU
    )
    monkeypatch.setattr(reinforce, "_CHUNK", 3)
    generator = np.random.default_rng(0)
    seen: list[list[Array]] = [[], []]
    stacks = np.zeros((2, *space.shape), dtype=np.uint8)
    for t in range(7):
        stacks = np.roll(stacks, -1, axis=1)
        stacks[:, -1] = generator.integers(1, 256, size=(2, 36, 36))
        over = np.array([t >= 4, t == 6])  # the first environment waits from then on
        for i in range(2):
            if t < 5 or i == 1:
                seen[i].append(stacks[i].copy())
        action = agent.act(stacks)
        reward = action.astype(np.float32)
        agent.observe(Transition(stacks, action, reward, stacks, over, over))
    given: list[Array] = []
    losses = agent._losses

    def noting(observations: Array, actions: IntArray, returns: Any) -> Tensor:
        given.extend(observations.copy())
        return losses(observations, actions, returns)

    monkeypatch.setattr(agent, "_losses", noting)
    before = parameters(agent)
    metrics = agent.learn()
    np.testing.assert_array_equal(np.stack(given), np.stack(seen[0] + seen[1]))
    assert all(bool(torch.isfinite(value)) for value in metrics.values())
    assert not equal(parameters(agent), before)


@pytest.mark.parametrize("chunk", [512, 3])
def test_torch_is_given_no_array_that_is_write_protected(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    # It would print a warning for people to wonder about, once a process.
    monkeypatch.setattr(reinforce, "_CHUNK", chunk)
    space = FrameStack(2, 36, 36)
    network = {"torso": "nature-cnn", "width": 0.125, "hidden_sizes": [8]}
    tables = Tables(
        ReinforceConfig.model_validate(BASE | {"episodes_per_update": 2}),
        NetworkConfig.model_validate(network),
    )
    agent = Reinforce.from_config(
        tables, space, gym.spaces.Discrete(2), num_envs=2, seed=0, device=CPU
    )
    seen = np.ones((2, *space.shape), dtype=np.uint8)
    for t in range(4):  # the first environment's episode is one step, the other's are four
        over = np.array([t == 0, t == 3])
        action = np.array([0, 1])
        agent.observe(Transition(seen, action, rewards(1, 1), seen, over, over))
    from_numpy = torch.from_numpy

    def checking(array: Array) -> Tensor:
        assert array.flags.writeable
        return from_numpy(array)

    monkeypatch.setattr(torch, "from_numpy", checking)
    assert agent.learn()


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
    """Four places in a row: 1 leads on, and pays 1 at the end; 0 pays less and ends the episode."""

    length = 4
    observation_space = gym.spaces.Box(0, 1, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)
    place = 0

    def __init__(self, leaving: float = 0.1) -> None:
        self._leaving = leaving

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
            return self._see(), self._leaving, True, False, {}
        self.place += 1
        arrived = self.place == self.length
        return self._see(), float(arrived), arrived, False, {}

    def _see(self) -> npt.NDArray[np.float32]:
        places: npt.NDArray[np.float32] = np.eye(self.length, dtype=np.float32)
        return np.asarray(places[min(self.place, self.length - 1)])


def train(agent: Reinforce, envs: list[Any], updates: int) -> None:
    """Let an agent live in environments for a number of updates."""
    observation = np.stack([env.reset(seed=i)[0] for i, env in enumerate(envs)])
    active = np.ones(len(envs), dtype=np.bool_)
    while updates:
        for i in np.flatnonzero(~active & ~agent.waiting()):
            observation[i] = envs[i].reset()[0]
            active[i] = True
        if not active.any():
            assert agent.learn()
            updates -= 1
            continue
        action = agent.act(observation)
        after, reward = observation.copy(), np.zeros(len(envs), dtype=np.float32)
        terminated, over = np.zeros_like(active), np.zeros_like(active)
        for i in np.flatnonzero(active):
            after[i], reward[i], terminated[i], truncated, _ = envs[i].step(action[i])
            over[i] = terminated[i] or truncated
        agent.observe(Transition(observation, action, reward, after, terminated, over))
        active &= ~over
        observation = after


def learner(env: type[Any], **options: Any) -> Reinforce:
    defaults: dict[str, Any] = {
        "learning_rate": 2e-2,
        "episodes_per_update": 16,
        "entropy_coefficient": 0.02,
        "hidden_sizes": [16],
    }
    return make_agent(
        4,
        observations=env.observation_space,
        actions=env.action_space,
        **(defaults | options),
    )


@pytest.mark.usefixtures("_flush_denormal")
@pytest.mark.parametrize("baseline", ["none", "value"])
def test_the_better_arm_of_a_bandit_is_found(baseline: str) -> None:
    agent = learner(Bandit, baseline=baseline)
    train(agent, [Bandit() for _ in range(4)], 100)
    seen = np.ones((1, 1), dtype=np.float32)
    assert agent.policy().values(seen)[0, 1] > 0.9


@pytest.mark.usefixtures("_flush_denormal")
@pytest.mark.parametrize("baseline", ["none", "value"])
def test_a_chain_is_solved(baseline: str) -> None:
    agent = learner(Chain, baseline=baseline, learning_rate=5e-3, episodes_per_update=32)
    train(agent, [Chain(leaving=0.02) for _ in range(4)], 150)
    chances = agent.policy().values(np.eye(4, dtype=np.float32))
    assert (chances[:, 1] > 0.8).all(), chances


@pytest.mark.usefixtures("_flush_denormal")
def test_who_does_not_look_ahead_leaves_the_chain() -> None:
    agent = learner(Chain, gamma=0.0, baseline="value", standardize=False)
    train(agent, [Chain() for _ in range(4)], 150)
    chances = agent.policy().values(np.eye(4, dtype=np.float32))
    assert chances[0, 1] < 0.3, chances


@pytest.mark.usefixtures("_flush_denormal")
def test_the_baseline_learns_the_standardized_return() -> None:
    agent = learner(Bandit, standardize=False, value_coefficient=1.0)
    train(agent, [Bandit() for _ in range(4)], 150)
    with torch.no_grad():
        _, value = agent._network.logits_and_value(torch.ones(1, 1))  # type: ignore[operator]
    assert float(value) == pytest.approx(0.7, abs=0.15)
