"""The evaluation protocol: which episodes are played and how actions are chosen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import rlagents
from rlagents.agents.base import Policy, ValueKind
from rlagents.envs import (
    EnvConfig,
    VectorEnv,
    VectorStep,
    find_env,
    make_vector_env,
    resolve_env_config,
)
from rlagents.errors import StoppedError
from rlagents.evaluate import Chooser, Evaluation, PlayedEpisode, play_episodes

Make = Callable[..., VectorEnv]

SEEDS = [5, 3, 900, 41, 2**31 - 1, 0, 77, 12]


class Balance:
    """Pushes the cart to where the pole leans, which does not go well for long."""

    def __init__(self, kind: ValueKind = "action values") -> None:
        self.kind = kind

    def values(self, observations: Any) -> Any:
        lean = observations[:, 2]  # no row depends on another
        values = np.stack([-lean, lean], axis=1)
        if self.kind == "action values":
            return values
        shares = np.exp(10 * values)
        return shares / shares.sum(axis=1, keepdims=True)


class Brightness:
    """Chooses among three actions by the brightness of the newest picture."""

    kind: ValueKind = "action values"

    def values(self, observations: Any) -> Any:
        level = observations[:, -1].astype(np.float32).sum(axis=(1, 2)) % 3
        return -np.abs(level[:, None] - np.arange(3, dtype=np.float32))


def test_values_that_are_kept_hold_nothing_else_in_memory() -> None:
    policy = rlagents.load_pretrained("cartpole").policy()
    values = policy.values(np.zeros((3, 4), dtype=np.float32))
    assert values.flags.owndata  # no part of a tensor


@pytest.fixture
def make() -> Iterator[Make]:
    opened: list[VectorEnv] = []

    def make_one(num_envs: int, env_id: str = "cartpole", **options: Any) -> VectorEnv:
        spec = find_env(env_id)
        config = resolve_env_config(EnvConfig(id=env_id, num_envs=num_envs, **options), spec)
        opened.append(make_vector_env(spec, config, num_envs))
        return opened[-1]

    yield make_one
    for env in opened:
        env.close()


def play(
    env: VectorEnv,
    seeds: Sequence[int] = SEEDS,
    kind: ValueKind = "action values",
    *,
    epsilon: float = 0.0,
    sample: bool = False,
    policy: Any = None,
    **options: Any,
) -> tuple[PlayedEpisode, ...]:
    chosen = cast(Policy, policy or Balance(kind))
    return play_episodes(chosen, env, seeds, epsilon=epsilon, sample=sample, **options)


def assert_equal(one: Sequence[PlayedEpisode], other: Sequence[PlayedEpisode]) -> None:
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        assert first.seed == second.seed
        assert first.end == second.end
        assert first.episodic_return == second.episodic_return
        assert np.array_equal(first.actions, second.actions)
        assert np.array_equal(first.values, second.values)


# Playing


@pytest.mark.parametrize(
    ("kind", "epsilon", "sample"),
    [
        ("action values", 0.0, False),
        ("action values", 0.3, False),
        ("probabilities", 0.0, True),
        ("probabilities", 0.2, True),
    ],
)
def test_the_number_of_environments_does_not_matter(
    make: Make, kind: ValueKind, epsilon: float, sample: bool
) -> None:
    results = [
        play(make(number), kind=kind, epsilon=epsilon, sample=sample)
        for number in (1, 2, 3, len(SEEDS), 10)
    ]
    assert len({episode.length for episode in results[0]}) > 3  # else they would end together
    for result in results[1:]:
        assert_equal(result, results[0])


def test_the_number_of_emulators_does_not_matter(make: Make) -> None:
    options = {
        "env_id": "atari/breakout",
        "action_set": "minimal",
        "sticky_probability": 0.25,
        "max_episode_frames": 120,
    }
    seeds = [4, 2, 9, 4]
    alone, together = (
        play(make(number, **options), seeds, policy=Brightness(), epsilon=0.1) for number in (1, 3)
    )
    assert_equal(alone, together)
    assert_equal(alone[:1], alone[3:])  # the same seed twice is the same episode twice
    assert len({episode.actions.tobytes() for episode in alone}) == 3


def test_an_environment_may_have_been_used_before(make: Make) -> None:
    env = make(3)
    assert_equal(play(env), play(env))


def test_the_order_of_seeds_is_kept(make: Make) -> None:
    played = play(make(3))
    assert [episode.seed for episode in played] == SEEDS
    backwards = play(make(3), SEEDS[::-1])
    assert_equal(played, backwards[::-1])


def test_no_seeds_no_episodes(make: Make) -> None:
    assert play(make(2), []) == ()


def test_what_is_kept_of_an_episode(make: Make) -> None:
    """Play an episode by hand and compare."""
    env = make(1)
    (episode,) = play(env, [3])
    policy = Balance()
    observation = env.reset(np.ones(1, dtype=np.bool_), [3])
    total = 0.0
    for number in range(episode.length):
        values = policy.values(observation)[0]
        assert np.array_equal(episode.values[number], values)
        assert episode.actions[number] == values.argmax()
        env.send(np.array([values.argmax()]))
        step = env.recv()
        observation = step.observation
        total += float(step.reward[0])
        assert bool(step.terminated[0] | step.truncated[0]) is (number == episode.length - 1)
    assert episode.episodic_return == total == episode.length
    assert episode.actions.shape == (episode.length,)
    assert episode.actions.dtype == np.int64
    assert episode.values.shape == (episode.length, 2)


def test_an_episode_keeps_nothing_of_the_others(make: Make) -> None:
    for episode in play(make(3), [1, 2, 3, 4, 5]):
        assert episode.values.base is episode.actions.base is None
        assert episode.actions.dtype == np.int64


def test_how_an_episode_ended(make: Make) -> None:
    ends = {(episode.end, episode.length < 12) for episode in play(make(3, max_episode_frames=12))}
    assert ends == {("truncated", False)}
    (fallen,) = play(make(1), [3], epsilon=1.0)
    assert fallen.end == "terminated"
    assert fallen.length < 200


def test_returns_are_the_games_own(make: Make) -> None:
    (episode,) = play(make(1, frame_skip=3, max_episode_frames=9), [3])
    assert episode.length == 3
    assert episode.episodic_return == 9


# Choosing


def test_epsilon_changes_the_outcome(make: Make) -> None:
    env = make(4)
    greedy = play(env)
    noisy = play(env, epsilon=0.5)
    assert any(
        one.actions.tolist() != other.actions.tolist()
        for one, other in zip(greedy, noisy, strict=True)
    )
    for episode in greedy:
        assert np.array_equal(episode.actions, episode.values.argmax(axis=1))


def test_epsilon_is_the_share_of_random_actions(make: Make) -> None:
    for epsilon in (0.2, 0.6):
        played = play(make(8, max_episode_frames=200), list(range(60)), epsilon=epsilon)
        other = np.concatenate([one.actions != one.values.argmax(axis=1) for one in played])
        # Half of the random ones are the best one all the same; five standard errors.
        assert abs(other.mean() - epsilon / 2) < 5 * (0.25 / len(other)) ** 0.5


def test_sampling_changes_the_outcome_of_probabilities_only(make: Make) -> None:
    env = make(4)
    mode, sampled = (play(env, kind="probabilities", sample=s) for s in (False, True))
    assert any(
        one.actions.tolist() != other.actions.tolist()
        for one, other in zip(mode, sampled, strict=True)
    )
    for episode in mode:
        assert np.array_equal(episode.actions, episode.values.argmax(axis=1))
    assert_equal(play(env, sample=True), play(env, sample=False))  # action values are no chances


@pytest.mark.parametrize(("epsilon", "sample"), [(0.5, False), (1.0, False), (0.0, True)])
def test_each_episode_has_a_generator_of_its_own(make: Make, epsilon: float, sample: bool) -> None:
    env = make(2)
    alone = play(env, [41], "probabilities", epsilon=epsilon, sample=sample)
    among = play(env, [5, 3, 41, 12], "probabilities", epsilon=epsilon, sample=sample)
    assert_equal(alone, among[2:3])
    length = min(episode.length for episode in among)
    assert length > 5
    # Random actions of different seeds are different.
    assert len({episode.actions[:length].tobytes() for episode in among}) == len(among)


def chooser(
    kind: ValueKind = "probabilities", seed: int = 1, epsilon: float = 0.0, sample: bool = True
) -> Chooser:
    return Chooser(cast(Policy, Balance(kind)), seed, epsilon, sample)


@settings(deadline=None)
@given(
    arrays.arrays(np.float32, st.integers(1, 6), elements=st.floats(0, 1, width=32)),
    st.integers(0, 2**31 - 1),
)
def test_only_what_is_possible_is_drawn(chances: Any, seed: int) -> None:
    if chances.sum() < 1e-3:
        return
    drawn = chooser(seed=seed)
    for _ in range(20):
        assert chances[drawn.choose(chances)] > 0


@pytest.mark.parametrize("chances", [[0.2, 0.5, 0.3], [0.0, 1.0, 0.0], [0.7, 0.0, 0.3], [0.1] * 10])
def test_actions_are_drawn_as_often_as_they_are_probable(chances: list[float]) -> None:
    drawn = chooser()
    number = 4000
    counts = np.zeros(len(chances))
    for _ in range(number):
        counts[drawn.choose(np.array(chances, dtype=np.float32))] += 1
    assert np.abs(counts / number - chances).max() < 5 * (0.25 / number) ** 0.5
    assert (counts[np.array(chances) == 0] == 0).all()


@pytest.mark.parametrize("kind", ["action values", "probabilities"])
def test_the_best_action_is_played_without_chance(kind: ValueKind) -> None:
    values = np.array([0.1, 0.6, 0.3], dtype=np.float32)
    assert {chooser(kind, seed, 0.0, False).choose(values) for seed in range(20)} == {1}


def test_random_actions_are_uniform() -> None:
    random = chooser("action values", epsilon=1.0)
    values = np.array([0, 9, 0, 0], dtype=np.float32)
    counts = np.bincount([random.choose(values) for _ in range(4000)], minlength=4)
    assert np.abs(counts / 4000 - 0.25).max() < 0.04


# Stopping


@pytest.mark.parametrize("asked", [1, 4])
def test_an_evaluation_can_be_stopped_at_any_step(make: Make, asked: int) -> None:
    calls = 0

    def should_stop() -> bool:
        nonlocal calls
        calls += 1
        return calls == asked

    with pytest.raises(StoppedError):
        play(make(2), should_stop=should_stop)
    assert calls == asked


def test_it_is_asked_at_each_step(make: Make) -> None:
    calls = 0

    def should_stop() -> bool:
        nonlocal calls
        calls += 1
        return False

    (episode,) = play(make(1), [3], should_stop=should_stop)
    assert calls == episode.length


def test_environments_are_left_alone_once_their_episodes_are_over(make: Make) -> None:
    """No environment is reset for more episodes than there are seeds."""
    env = make(3)
    begun: list[int] = []

    class Counting:
        num_envs = env.num_envs

        def reset(self, mask: Any, seeds: Sequence[int]) -> Any:
            begun.extend(seeds)
            return env.reset(mask, seeds)

        def send(self, actions: Any) -> None:
            env.send(actions)

        def recv(self) -> VectorStep:
            return env.recv()

    play(cast(VectorEnv, Counting()), [5, 3, 900, 41])
    assert sorted(begun) == [3, 5, 41, 900]


# Reporting


def evaluation(returns: Sequence[float], lengths: Sequence[int]) -> Evaluation:
    played = tuple(
        PlayedEpisode(
            seed, np.zeros(length, dtype=np.int64), np.zeros((length, 2), np.float32), value, "x"
        )
        for seed, (value, length) in enumerate(zip(returns, lengths, strict=True))
    )
    return Evaluation("runs/a", "step-10", 10, "pong", 1, 0.01, played)


def test_the_report_has_exactly_the_keys_of_the_contract() -> None:
    report = evaluation([1.0, 2.0, 3.0, 10.0], [5, 6, 7, 8]).as_dict()
    assert list(report) == [
        "run",
        "checkpoint",
        "step",
        "env_id",
        "seed",
        "epsilon",
        "episodes",
        "mean_return",
        "std_return",
        "iqm_return",
        "iqm_ci95",
        "min_return",
        "max_return",
        "mean_length",
        "returns",
        "lengths",
    ]
    low, high = report.pop("iqm_ci95")
    assert 1 <= low <= 2.5 <= high <= 10
    assert report == {
        "run": "runs/a",
        "checkpoint": "step-10",
        "step": 10,
        "env_id": "pong",
        "seed": 1,
        "epsilon": 0.01,
        "episodes": 4,
        "mean_return": 4.0,
        "std_return": pytest.approx(12.5**0.5),
        "iqm_return": 2.5,
        "min_return": 1.0,
        "max_return": 10.0,
        "mean_length": 6.5,
        "returns": [1.0, 2.0, 3.0, 10.0],
        "lengths": [5, 6, 7, 8],
    }


def test_episodes_that_are_the_same_are_told() -> None:
    report = evaluation([1.0, 2.0, 1.0, 1.0, 2.0], [5, 6, 5, 7, 6]).as_dict()
    assert report["distinct_episodes"] == 3  # (1, 5), (2, 6) and (1, 7)
    zeros, ones = (np.full(5, action, dtype=np.int64) for action in (0, 1))
    played = tuple(
        PlayedEpisode(seed, actions, np.zeros((5, 2), np.float32), 1.0, "x")
        for seed, actions in enumerate([zeros, ones, zeros])
    )
    assert Evaluation("a", "b", 1, "pong", 1, 0.0, played).distinct == 2


def test_the_report_of_a_played_evaluation_is_json(make: Make) -> None:
    played = play(make(2))
    report = Evaluation("runs/a", "step-10", 10, "cartpole", 1, 0.0, played).as_dict()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["returns"] == [float(length) for length in report["lengths"]]
