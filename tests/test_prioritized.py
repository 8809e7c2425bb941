from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_simulation import (
    VECTOR,
    Simulation,
    check_batch,
    expected_sets,
    make_replay,
    play,
    samples,
)

from rlagents.replay import PrioritizedReplay, ReplayConfig, footprint
from rlagents.replay.prioritized import importance_weights
from rlagents.replay.sum_tree import SumTree
from rlagents.schedules import LinearSchedule
from rlagents.spaces import FrameStack


def naive_find(masses: list[float], share: float) -> int:
    """Walk along the masses until the share is used up."""
    for index, mass in enumerate(masses):
        if share < mass:
            return index
        share -= mass
    raise AssertionError("the share is above the total")


# Quarters add up without rounding, so that the walk and the tree must agree to the bit.
quarters = st.integers(0, 40).map(lambda number: number / 4)


@settings(max_examples=150)
@given(
    size=st.integers(1, 70),
    updates=st.lists(
        st.lists(st.tuples(st.integers(0, 69), quarters), min_size=1, max_size=9), max_size=8
    ),
    where=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20),
)
def test_a_tree_is_a_list_of_masses(
    size: int, updates: list[list[tuple[int, float]]], where: list[float]
) -> None:
    tree = SumTree(size)
    masses = [0.0] * size
    for update in updates:
        pairs = {index % size: mass for index, mass in update}
        tree.set(np.array(list(pairs)), np.array(list(pairs.values())))
        for index, mass in pairs.items():
            masses[index] = mass
        assert tree.masses.tolist() == masses
        assert tree.total == sum(masses)
    if sum(masses) > 0:
        shares = [part * sum(masses) for part in where]
        found = tree.find(np.array(shares))
        assert found.tolist() == [naive_find(masses, share) for share in shares]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 1000])
def test_a_tree_set_at_once_is_one_set_bit_by_bit(size: int) -> None:
    generator = np.random.default_rng(0)
    masses = generator.random(size)
    at_once, bit_by_bit = SumTree(size), SumTree(size)
    at_once.set_all(masses)
    for index in generator.permutation(size):
        bit_by_bit.set(np.array([index]), np.array([99.0]))
        bit_by_bit.set(np.array([index]), masses[[index]])
    for one, other in zip(at_once._levels, bit_by_bit._levels, strict=True):
        np.testing.assert_array_equal(one, other)
    assert at_once.total == pytest.approx(masses.sum())


def test_of_an_index_given_twice_the_last_mass_counts() -> None:
    tree = SumTree(5)
    tree.set(np.array([3, 1, 3]), np.array([7.0, 1.0, 2.0]))
    assert tree.masses.tolist() == [0, 1, 0, 2, 0]
    assert tree.total == 3


@settings(max_examples=200)
@given(
    masses=st.lists(st.sampled_from([0.0, 1e-300, 1e-9, 0.1, 0.3, 1 / 3, 1e9]), min_size=1),
    where=st.lists(st.floats(0, 1), min_size=1, max_size=30),
)
def test_no_mass_of_zero_is_found_however_sums_are_rounded(
    masses: list[float], where: list[float]
) -> None:
    tree = SumTree(len(masses))
    tree.set_all(np.array(masses))
    if tree.total > 0:
        found = tree.find(np.array(where) * tree.total)  # the end of the range included
        assert all(masses[index] > 0 for index in found)


def test_the_memory_of_a_tree() -> None:
    for size in (1, 2, 5, 1000, 1_000_048):
        tree = SumTree(size)
        assert SumTree.nbytes_for(size) == sum(level.nbytes for level in tree._levels)
        assert 8 * size <= SumTree.nbytes_for(size) <= 16 * size + 1000


def make(space: gym.spaces.Box = VECTOR, num_envs: int = 1, **options: Any) -> PrioritizedReplay:
    replay = make_replay(space, num_envs, **({"kind": "prioritized"} | options))
    assert isinstance(replay, PrioritizedReplay)
    return replay


def masses_by_action(replay: PrioritizedReplay) -> dict[int, float]:
    """Return p^alpha of every transition that can be drawn, by its action."""
    ring = replay._ring
    (leaves,) = np.nonzero(replay._tree.masses)
    actions = ring._action.ravel()[leaves].tolist()
    return dict(zip(actions, replay._tree.masses[leaves].tolist(), strict=True))


def set_error(replay: PrioritizedReplay, errors: dict[int, float]) -> None:
    """Draw until every action has been there, and give each its error."""
    missing = set(errors)
    for batch in samples(replay, 1000):
        known = [errors[action] for action in batch.action.tolist()]
        replay.update_priorities(batch.drawn, np.array(known, dtype=np.float32))
        missing -= set(batch.action.tolist())
        if not missing:
            return
    raise AssertionError(f"never drawn: {missing}")


def test_priorities_by_hand() -> None:
    replay = make(priority_exponent=0.5, priority_epsilon=0.25)
    play(replay, [1, 2, 3, 4], ["", "", "", ""])
    assert masses_by_action(replay) == {0: 1, 1: 1, 2: 1}  # the fourth has no successor yet
    set_error(replay, {0: -3.75, 1: 2.0, 2: 0.0})
    # (|-3.75| + 0.25)^0.5, (2 + 0.25)^0.5, (0 + 0.25)^0.5
    assert masses_by_action(replay) == {0: 2, 1: 1.5, 2: 0.5}
    play(replay, [5, 6], ["", "terminated"], first_action=4)
    # New ones get the highest of all so far: 4^0.5.
    assert masses_by_action(replay) == {0: 2, 1: 1.5, 2: 0.5, 3: 2, 4: 2, 5: 2}
    set_error(replay, dict.fromkeys(range(6), 0.0))
    play(replay, [7, 8], ["", ""], first_action=100)
    # The highest of all so far, though nothing held has it any more.
    assert masses_by_action(replay) == dict.fromkeys(range(6), 0.5) | {100: 2}


def test_small_errors_leave_the_highest_priority_at_one() -> None:
    replay = make(priority_exponent=1.0, priority_epsilon=0.25)
    play(replay, [1, 2], ["", ""])
    set_error(replay, {0: 0.25})
    play(replay, [3], [""], first_action=2)
    assert masses_by_action(replay) == {0: 0.5, 1: 1}


def test_importance_weights_by_hand() -> None:
    masses = np.array([2.0, 0.5, 8.0, 0.5])
    # P is proportional to the mass; the rarest of the batch has weight 1.
    assert importance_weights(masses, 1.0).tolist() == [0.25, 1, 0.0625, 1]
    assert importance_weights(masses, 0.5).tolist() == [0.5, 1, 0.25, 1]
    assert importance_weights(masses, 0.0).tolist() == [1, 1, 1, 1]
    assert importance_weights(masses, 1.0).dtype == np.float32


def test_importance_weights_are_the_formula_of_the_paper() -> None:
    replay = make(num_envs=2, capacity=30, batch_size=16, importance_exponent_start=0.7)
    Simulation(VECTOR, 2, seed=1, max_length=7).feed(replay, 40)
    generator = np.random.default_rng(0)
    for batch in samples(replay, 50):
        masses = masses_by_action(replay)
        probability = np.array([masses[action] for action in batch.action.tolist()])
        probability /= sum(masses.values())
        weights = (len(masses) * probability) ** -0.7
        np.testing.assert_allclose(batch.weights, weights / weights.max(), rtol=1e-6)
        assert batch.weights is not None
        assert str(batch.weights.dtype) == "float32"
        replay.update_priorities(batch.drawn, generator.normal(size=16).astype(np.float32))
    assert len({round(float(weight), 6) for weight in batch.weights}) > 5


def test_beta_goes_up_in_a_straight_line_of_agent_steps() -> None:
    schedule = LinearSchedule(0.4, 1.0, 200)
    steps = (0, 50, 100, 200, 10_000)
    assert [schedule.at(step) for step in steps] == pytest.approx([0.4, 0.55, 0.7, 1, 1])
    replay = make(
        priority_exponent=1.0,
        priority_epsilon=1.0,
        importance_exponent_start=0.0,
        importance_exponent_end=1.0,
        importance_exponent_steps=100,
    )
    play(replay, [1, 2, 3], ["", "", ""])
    set_error(replay, {0: 3.0, 1: 0.0})
    for step, weight in ((0, 1), (50, 0.5), (100, 0.25), (1000, 0.25)):
        batch = replay.sample(step)
        assert batch.weights is not None
        expected = {0: weight, 1: 1}
        assert batch.weights.tolist() == [expected[action] for action in batch.action.tolist()]


def assert_masses_are_where_transitions_are(replay: PrioritizedReplay) -> None:
    """Ask the ring of each row that it holds, one by one."""
    ring = replay._ring
    expected = np.zeros((ring.num_envs, ring.rows), dtype=np.bool_)
    for env in range(ring.num_envs):
        head = int(ring.head[env])
        for row in range(max(head - ring.rows, 0), head):
            complete = ring.complete(np.array([env]), np.array([row]))
            expected[env, row % ring.rows] = bool(complete[0])
    np.testing.assert_array_equal(replay._tree.masses.reshape(expected.shape) > 0, expected)


@settings(max_examples=80)
@given(
    space=st.sampled_from([FrameStack(1, 2, 3), FrameStack(4, 2, 3), VECTOR]),
    num_envs=st.integers(1, 4),
    n_step=st.integers(1, 5),
    capacity=st.integers(1, 40),
    max_length=st.integers(1, 12),
    life_lost=st.sampled_from([0.0, 0.3]),
    interrupted=st.sets(st.integers(0, 60)),
    steps=st.integers(1, 60),
    seed=st.integers(0, 1000),
)
def test_what_can_be_drawn_is_what_is_complete(
    space: gym.spaces.Box,
    num_envs: int,
    n_step: int,
    capacity: int,
    max_length: int,
    life_lost: float,
    interrupted: set[int],
    steps: int,
    seed: int,
) -> None:
    simulation = Simulation(
        space, num_envs, seed=seed, max_length=max_length, life_lost=life_lost, truncated=0.5
    )
    replay = make(space, num_envs, capacity=capacity, n_step=n_step, batch_size=8, seed=seed)
    generator = np.random.default_rng(seed)
    for step in range(steps):
        if step in interrupted:
            replay.interrupt()
            simulation.interrupt()
            assert_masses_are_where_transitions_are(replay)
        simulation.feed(replay, 1)
        assert_masses_are_where_transitions_are(replay)
        if replay._tree.total > 0:
            batch = replay.sample()
            check_batch(simulation, batch, n_step, 0.5)
            replay.update_priorities(batch.drawn, generator.normal(size=8).astype(np.float32))
            assert_masses_are_where_transitions_are(replay)


@settings(max_examples=30)
@given(
    num_envs=st.integers(1, 3),
    n_step=st.integers(1, 4),
    max_length=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_priorities_stay_with_their_transitions(
    num_envs: int, n_step: int, max_length: int, seed: int
) -> None:
    """A slow obvious record: by action, the priority that it was given last."""
    simulation = Simulation(VECTOR, num_envs, seed=seed, max_length=max_length)
    replay = make(VECTOR, num_envs, capacity=25, n_step=n_step, batch_size=6, seed=seed)
    generator = np.random.default_rng(seed)
    known: dict[int, float] = {}
    highest = 1.0
    for _ in range(50):
        simulation.feed(replay, 1)
        _, may = expected_sets(simulation, capacity=25, n_step=n_step, gamma=0.5)
        held = masses_by_action(replay)
        assert set(held) <= may
        for action, mass in held.items():
            assert mass == pytest.approx(known.setdefault(action, highest) ** 0.6)
        if held:
            batch = replay.sample()
            errors = 3 * generator.normal(size=6).astype(np.float32)
            replay.update_priorities(batch.drawn, errors)
            for action, error in zip(batch.action.tolist(), errors.tolist(), strict=True):
                known[action] = abs(error) + 1e-6
                highest = max(highest, known[action])


def uneven(batch_size: int, seed: int = 0) -> tuple[PrioritizedReplay, dict[int, float]]:
    """Return a replay of two environments and the exact chance of each of its transitions."""
    replay = make(
        num_envs=2, capacity=40, batch_size=batch_size, n_step=3, seed=seed, priority_exponent=0.8
    )
    simulation = Simulation(VECTOR, 2, seed=1, max_length=6)
    simulation.feed(replay, 60)
    errors = {action: (action % 7) ** 2 / 10 for action in masses_by_action(replay)}
    set_error(replay, errors)
    masses = {action: (error + 1e-6) ** 0.8 for action, error in errors.items()}
    total = sum(masses.values())
    return replay, {action: mass / total for action, mass in masses.items()}


def chi_square(counts: dict[int, int], chances: dict[int, float], draws: int) -> tuple[float, int]:
    """Return Pearson's statistic and its degrees of freedom; the very rare ones count as one."""
    common = {action: chance for action, chance in chances.items() if chance * draws >= 5}
    rest = max(1 - sum(common.values()), 0.0) * draws
    statistic = sum(
        (counts.get(action, 0) - chance * draws) ** 2 / (chance * draws)
        for action, chance in common.items()
    )
    assert sum(counts.get(action, 0) for action in set(chances) - set(common)) < rest + 10
    return statistic, len(common) - 1


def count_draws(replay: PrioritizedReplay, batches: int) -> dict[int, int]:
    counts: dict[int, int] = {}
    for batch in samples(replay, batches):
        for action in batch.action.tolist():
            counts[action] = counts.get(action, 0) + 1
    return counts


def test_draws_are_as_frequent_as_priorities_say() -> None:
    replay, chances = uneven(batch_size=1)  # a single stratum: draws are independent
    counts = count_draws(replay, 10_000)
    statistic, degrees = chi_square(counts, chances, 10_000)
    assert abs(statistic - degrees) < 4 * (2 * degrees) ** 0.5


def test_strata_change_no_chance_and_spread_a_batch() -> None:
    replay, chances = uneven(batch_size=32)
    counts = count_draws(replay, 2000)
    statistic, degrees = chi_square(counts, chances, 64_000)
    assert statistic < degrees  # closer to the chances than independent draws are
    # Each of 32 equal shares gives one draw, so no batch is more than one off at either end.
    by_place = sorted(
        zip(replay._tree.masses.nonzero()[0].tolist(), masses_by_action(replay), strict=True)
    )
    first_half = {action for _, action in by_place[: len(by_place) // 2]}
    expected = 32 * sum(chances[action] for action in first_half)
    for batch in samples(replay, 200):
        drawn = sum(action in first_half for action in batch.action.tolist())
        assert abs(drawn - expected) <= 1


def test_an_exponent_of_zero_draws_all_alike() -> None:
    replay = make(num_envs=2, capacity=40, batch_size=1, priority_exponent=0.0)
    Simulation(VECTOR, 2, seed=1, max_length=6).feed(replay, 60)
    held = list(masses_by_action(replay))
    set_error(replay, {action: float(action % 7) for action in held})
    chances = dict.fromkeys(held, 1 / len(held))
    statistic, degrees = chi_square(count_draws(replay, 10_000), chances, 10_000)
    assert abs(statistic - degrees) < 4 * (2 * degrees) ** 0.5


@pytest.mark.parametrize("space", [FrameStack(3, 2, 3), VECTOR])
@pytest.mark.parametrize("before", [5, 15, 40])
def test_what_is_saved_comes_back_and_goes_on_the_same(
    tmp_path: Path, space: gym.spaces.Box, before: int
) -> None:
    def new() -> PrioritizedReplay:
        return make(space, 3, capacity=45, n_step=3, seed=1)

    simulation = Simulation(space, 3, seed=9, max_length=8)
    replay, other = new(), new()
    generator = np.random.default_rng(0)
    for _ in range(before):
        simulation.feed(replay, 1)
        if replay._tree.total > 0:
            batch = replay.sample()
            replay.update_priorities(batch.drawn, generator.normal(size=64).astype(np.float32) * 2)
    Simulation(space, 3, seed=10).feed(other, 60)  # what it held is replaced
    replay.save(tmp_path)
    other.load(tmp_path)
    other._generator = copy.deepcopy(replay._generator)
    assert other._highest == replay._highest > 1
    for step in range(40):
        transition = simulation.step()
        errors = generator.normal(size=64).astype(np.float32)
        for which in (replay, other):
            which.observe(transition)
        one, same = replay.sample(step), other.sample(step)
        for array, equal in zip(one, same, strict=True):
            np.testing.assert_array_equal(array, equal)
        replay.update_priorities(one.drawn, errors)
        other.update_priorities(same.drawn, errors)


def test_the_same_generator_draws_the_same_samples() -> None:
    drawn = []
    for seed in (4, 4, 5):
        replay, _ = uneven(batch_size=16, seed=seed)
        replay._generator = np.random.default_rng(seed)
        drawn.append([batch.action.tolist() for batch in samples(replay, 5)])
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("space", [FrameStack(4, 84, 84), VECTOR])
def test_memory_is_what_was_announced(space: gym.spaces.Box) -> None:
    replay = make(space, 4, capacity=1500, n_step=3, batch_size=1)
    ring = replay._ring
    held = [*vars(ring).values(), *vars(ring.frames).values(), *replay._tree._levels]
    held.append(ring.frames.items.array)
    allocated = sum(value.nbytes for value in held if isinstance(value, np.ndarray))
    config = ReplayConfig(capacity=1500, kind="prioritized")
    announced = footprint(config, space, 4, n_step=3)
    assert announced.memory == pytest.approx(allocated, rel=0.01)


def test_learning_by_priority_from_the_command_line(
    tmp_path: Path, cli: Callable[..., Any], tiny: tuple[str, ...]
) -> None:
    words = ("--replay.kind", "prioritized", "--replay.importance-exponent-steps", 960)
    where = ("--runs-dir", tmp_path, "--name", "run")
    outcome = cli("train", "cartpole-dqn", *tiny, *where, *words)
    assert outcome.code == 0, outcome.err
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["charts/importance_exponent"] == pytest.approx(0.7)  # 480 steps


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("priority-exponent", "0.7"),
        ("importance-exponent-steps", "5"),
    ],
)
def test_keys_of_prioritized_are_refused_where_they_change_nothing(
    tmp_path: Path, cli: Callable[..., Any], key: str, value: str
) -> None:
    words = ("train", "cartpole-dqn", "--runs-dir", tmp_path / "runs", f"--replay.{key}", value)
    outcome = cli(*words)
    assert outcome.code == 2
    name = key.replace("-", "_")
    assert f"[replay] {name}: {value} would change nothing" in outcome.err
    assert "--replay.kind prioritized" in outcome.err
    assert not (tmp_path / "runs").exists()


def test_a_kind_that_there_is_not(tmp_path: Path, cli: Callable[..., Any]) -> None:
    outcome = cli("train", "cartpole-dqn", "--runs-dir", tmp_path, "--replay.kind", "prioritised")
    assert outcome.code == 2
    assert "expected uniform | prioritized, got 'prioritised'" in outcome.err
    assert "did you mean 'prioritized'?" in outcome.err


@pytest.mark.parametrize("seed", range(3))
def test_priorities_that_come_late_reach_only_what_is_still_held(seed: int) -> None:
    replay = make(num_envs=2, capacity=24, batch_size=8)
    ring, simulation = replay._ring, Simulation(VECTOR, 2, seed=seed)
    generator = np.random.default_rng(seed)
    for _ in range(30):
        replay.observe(simulation.step())
    gone = 0
    for _ in range(60):
        batch = replay.sample()
        assert batch.drawn is not None
        for _ in range(int(generator.integers(12))):
            replay.observe(simulation.step())
        before = replay._tree.masses.copy()
        replay.update_priorities(batch.drawn, np.full(8, 5, dtype=np.float32))
        leaves, rows = batch.drawn
        held = rows >= ring.head[leaves // ring.rows] - ring.rows
        gone += int((~held).sum())
        after = replay._tree.masses
        np.testing.assert_allclose(after[leaves[held]], 5**0.6, rtol=1e-4)
        lost = np.setdiff1d(leaves[~held], leaves[held])
        np.testing.assert_array_equal(after[lost], before[lost])
        untouched = np.setdiff1d(np.arange(len(after)), leaves)
        np.testing.assert_array_equal(after[untouched], before[untouched])
    assert gone > 20
