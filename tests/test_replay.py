from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_simulation import (
    STORES,
    VECTOR,
    Simulation,
    check_batch,
    copy_of,
    expected_sets,
    make_replay,
    one_of_each,
    outcomes,
    play,
    sampled_actions,
    samples,
)

from rlagents.replay import TransitionRing, ring
from rlagents.replay.frames import FrameRings
from rlagents.replay.trajectory import Trajectory
from rlagents.spaces import FrameStack
from rlagents.types import Array, Footprint, Transition

KINDS = ["uniform", "prioritized"]

spaces = st.one_of(
    st.integers(1, 4).map(lambda stack: FrameStack(stack, 2, 3)),
    st.just(VECTOR),
)


@dataclass
class Scenario:
    """What the property is checked with."""

    space: gym.spaces.Box
    num_envs: int
    n_step: int
    gamma: float
    capacity: int
    max_length: int
    truncated: float
    life_lost: float
    pieces: list[int]  # vector steps between two looks
    seed: int
    kind: str
    store: dict[str, str]


scenarios = st.builds(
    Scenario,
    space=spaces,
    num_envs=st.integers(1, 4),
    n_step=st.integers(1, 4),
    gamma=st.sampled_from([0.5, 1.0, 0.75]),  # exact in float32, as the rewards are
    capacity=st.integers(3, 40),
    max_length=st.integers(1, 15),
    truncated=st.sampled_from([0.0, 0.5, 1.0]),
    life_lost=st.sampled_from([0.0, 0.2]),
    pieces=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    seed=st.integers(0, 1000),
    kind=st.sampled_from(KINDS),
    store=st.sampled_from(STORES),
)


def check_scenario(scenario: Scenario, interrupts: list[bool]) -> None:
    simulation = Simulation(
        scenario.space,
        scenario.num_envs,
        seed=scenario.seed,
        max_length=scenario.max_length,
        truncated=scenario.truncated,
        life_lost=scenario.life_lost,
    )
    n_step, gamma, capacity = scenario.n_step, scenario.gamma, scenario.capacity
    replay = make_replay(
        scenario.space,
        scenario.num_envs,
        capacity=capacity,
        n_step=n_step,
        gamma=gamma,
        seed=scenario.seed,
        batch_size=256,
        kind=scenario.kind,
        **scenario.store,
    )
    for piece, interrupt in zip(scenario.pieces, [False, *interrupts], strict=False):
        if interrupt:
            replay.interrupt()
            simulation.interrupt()
        simulation.feed(replay, piece)
        must, may = expected_sets(simulation, capacity=capacity, n_step=n_step, gamma=gamma)
        if not must:
            continue
        sampled = sampled_actions(simulation, replay, n_step, gamma)
        assert must <= sampled <= may
        assert len(must) <= len(replay)


@settings(deadline=None, max_examples=150)
@given(scenario=scenarios)
def test_a_sample_is_byte_for_byte_what_the_agent_saw(scenario: Scenario) -> None:
    check_scenario(scenario, [False] * 4)


@settings(deadline=None, max_examples=60)
@given(scenario=scenarios, pieces=st.lists(st.integers(1, 40), min_size=3, max_size=5))
def test_a_sample_is_what_the_agent_saw_with_interruptions_too(
    scenario: Scenario, pieces: list[int]
) -> None:
    check_scenario(replace(scenario, pieces=pieces), [True] * 4)


@settings(deadline=None, max_examples=40)
@given(scenario=scenarios)
def test_a_sample_copied_by_two_threads_is_what_the_agent_saw(scenario: Scenario) -> None:
    with mock.patch.object(ring, "_LARGE_BATCH", 0):
        check_scenario(scenario, [False] * 4)


@pytest.mark.parametrize(
    ("batch_size", "store", "threads"),
    # A stack of 4 frames of 2 by 3 has 24 bytes.
    [
        (87_382, {}, ["replay_0"]),
        (87_382, {"storage": "disk"}, ["replay_0"]),
        (87_382, {"compression": "lz4"}, []),
        (87_382, {"storage": "device"}, []),
        (87_381, {}, []),
    ],
)
def test_a_second_thread_copies_large_batches_of_plain_frames(
    batch_size: int, store: dict[str, str], threads: list[str]
) -> None:
    space = FrameStack(4, 2, 3)
    simulation = Simulation(space, 2, seed=5, max_length=9)
    replay = make_replay(space, 2, capacity=60, batch_size=batch_size, **store)
    simulation.feed(replay, 20)
    before = set(threading.enumerate())
    must, may = expected_sets(simulation, capacity=60, n_step=1, gamma=0.5)
    assert must <= sampled_actions(simulation, replay, 1, 0.5) <= may
    assert [thread.name for thread in set(threading.enumerate()) - before] == threads


@pytest.mark.parametrize("space", [FrameStack(4, 2, 3), FrameStack(1, 2, 3), VECTOR])
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_seam_wherever_it_falls(space: gym.spaces.Box, n_step: int, kind: str) -> None:
    simulation = Simulation(space, 2, seed=5, max_length=9)
    replay = make_replay(space, 2, capacity=14, n_step=n_step, batch_size=128, kind=kind)
    for step in range(60):  # the ring is around four times or more, a step at a time
        simulation.feed(replay, 1)
        must, may = expected_sets(simulation, capacity=14, n_step=n_step, gamma=0.5)
        if step > n_step:
            sampled = sampled_actions(simulation, replay, n_step, 0.5)
            assert must <= sampled <= may


def test_discounts_that_are_not_exact_are_right_to_float32() -> None:
    simulation = Simulation(VECTOR, 3, seed=2, max_length=30)
    replay = make_replay(VECTOR, 3, capacity=90, n_step=10, gamma=0.99)
    simulation.feed(replay, 60)
    for batch in samples(replay, 10):
        for i, action in enumerate(batch.action.tolist()):
            life, index = simulation.find(action)
            ((reward, discount, _),) = outcomes(life.steps, index, 10, 0.99)
            assert batch.reward[i] == pytest.approx(reward, abs=1e-5)
            assert batch.discount[i] == pytest.approx(discount, abs=1e-6)


def test_three_steps_up_to_a_termination_by_hand() -> None:
    replay = make_replay(VECTOR, n_step=3)
    play(replay, [1, 10, 100, 1000, 0, 0, 0], ["", "", "", "terminated", "", "", ""])
    found = one_of_each(replay)
    assert set(found) == {0, 1, 2, 3}
    assert found[0][:2] == (1 + 5 + 25, 0.125)
    assert found[0][2].tolist() == [3, 3, 3]
    assert found[1][:2] == (10 + 50 + 250, 0)
    assert found[2][:2] == (100 + 500, 0)
    assert found[3][:2] == (1000, 0)


def test_three_steps_up_to_a_truncation_by_hand() -> None:
    replay = make_replay(VECTOR, n_step=3)
    play(replay, [1, 10, 100, 1000, 7, 7, 7, 7], ["", "", "", "truncated", "", "", "", ""])
    found = one_of_each(replay)
    assert set(found) == {0, 1, 2, 3, 100}
    assert found[0][:2] == (31, 0.125)
    assert found[0][2].tolist() == [3, 3, 3]
    for action, reward, discount in ((1, 310, 0.125), (2, 600, 0.25), (3, 1000, 0.5)):
        assert found[action][:2] == (reward, discount)
        assert found[action][2].tolist() == [4, 4, 4]  # the frame that the episode ended with
    assert found[100][:2] == (7 + 3.5 + 1.75, 0.125)
    assert found[100][2].tolist() == [103, 103, 103]


def test_three_steps_around_a_lost_life_by_hand() -> None:
    replay = make_replay(VECTOR, n_step=3)
    play(replay, [1, 10, 100, 1000, 0], ["", "life", "", "", ""])
    found = one_of_each(replay)
    assert set(found) == {0, 1}  # the third step's successor is yet to come
    assert found[0][:2] == (1 + 5, 0)
    assert found[1][:2] == (10, 0)
    play(replay, [0], [""], first_action=5)
    found = one_of_each(replay)
    assert set(found) == {0, 1, 2}
    assert found[2][:2] == (100 + 500, 0.125)
    assert found[2][2].tolist() == [5, 5, 5]


def test_a_life_lost_in_the_newest_step_is_learned_from_at_once() -> None:
    replay = make_replay(VECTOR, n_step=4)
    play(replay, [1, 10], ["", "life"])
    found = one_of_each(replay)
    assert {action: row[:2] for action, row in found.items()} == {0: (6, 0), 1: (10, 0)}


def test_a_lost_life_does_not_cut_the_stack() -> None:
    space = FrameStack(3, 2, 3)
    simulation = Simulation(space, 1, seed=0, max_length=1, life_lost=1.0)
    simulation.lives[0].length = 50
    replay = make_replay(space)
    simulation.feed(replay, 10)
    seen: dict[int, Array] = {}
    for batch in samples(replay, 5):
        check_batch(simulation, batch, 1, 0.5)
        seen.update(zip(batch.action.tolist(), batch.observation.copy(), strict=True))
    assert not seen[1][:2].any()  # zero frames before the first
    assert seen[9].all()  # and none behind it


def test_an_episode_of_one_step() -> None:
    replay = make_replay(VECTOR, n_step=2)
    play(replay, [5, 6, 7], ["truncated", "terminated", "truncated"])
    found = one_of_each(replay)
    assert found[0][:2] == (5, 0.5)
    assert found[0][2].tolist() == [1, 1, 1]
    assert found[100][:2] == (6, 0)
    assert found[200][:2] == (7, 0.5)
    assert found[200][2].tolist() == [201, 201, 201]


@pytest.mark.parametrize("n_step", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_an_interruption_closes_the_running_episode(n_step: int, kind: str) -> None:
    replay = make_replay(VECTOR, n_step=n_step, kind=kind)
    play(replay, [1, 10, 100, 1000], ["", "", "", ""])
    replay.interrupt()
    play(replay, [7, 7, 7, 7, 7], ["", "", "", "", ""], first_action=100)
    for action, (reward, discount, after) in one_of_each(replay).items():
        if action >= 100:
            assert after[0] == action + n_step
            continue
        # Of an earlier episode's step nothing may be known that lies behind the interruption.
        steps = int(after[0]) - action
        assert 1 <= steps <= n_step
        assert after[0] <= 4
        assert discount == 0.5**steps
        assert reward == sum(0.5**k * 10.0 ** (action + k) for k in range(steps))


def test_an_interruption_between_episodes_changes_nothing() -> None:
    for interrupt in (False, True):
        replay = make_replay(VECTOR, n_step=2)
        play(replay, [1, 10, 100], ["", "", "truncated"])
        if interrupt:
            replay.interrupt()
        assert len(replay) == 3
        play(replay, [7, 7, 7], ["", "", ""], first_action=100)
        found = one_of_each(replay)
        assert {action: row[:2] for action, row in found.items()} == {
            0: (6, 0.25),
            1: (60, 0.25),
            2: (100, 0.5),
            100: (10.5, 0.25),
        }


def test_an_interruption_of_a_new_replay_changes_nothing() -> None:
    replay = make_replay(VECTOR)
    replay.interrupt()
    replay.interrupt()
    assert len(replay) == 0
    play(replay, [1, 2], ["", "terminated"])
    assert {action: row[:2] for action, row in one_of_each(replay).items()} == {
        0: (1, 0.5),
        1: (2, 0),
    }


def test_a_stack_does_not_reach_behind_an_interruption() -> None:
    space = FrameStack(4, 2, 3)
    simulation = Simulation(space, 2, seed=3, max_length=50)
    replay = make_replay(space, 2, capacity=60, batch_size=256)
    simulation.feed(replay, 7)
    replay.interrupt()
    simulation.interrupt()
    simulation.feed(replay, 7)
    sampled = sampled_actions(simulation, replay, 1, 0.5)
    first_after = 7 * 2 + 1
    assert {first_after, first_after + 1} <= sampled


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_replay_says_so(kind: str) -> None:
    replay = make_replay(VECTOR, n_step=3, kind=kind)
    play(replay, [1, 1], ["", ""])
    with pytest.raises(RuntimeError, match="no complete transition"):
        replay.sample()


def test_length_counts_transitions() -> None:
    replay = make_replay(VECTOR, capacity=10)
    assert len(replay) == 0
    play(replay, [0] * 4, [""] * 4)
    assert len(replay) == 4
    play(replay, [0], ["terminated"], first_action=4)
    assert len(replay) == 5  # the row behind an episode is no transition
    play(replay, [0] * 100, [""] * 100, first_action=100)
    assert 10 <= len(replay) <= 12
    before = len(replay)
    replay.interrupt()
    assert len(replay) == before - 1  # the newest step has lost its successor
    replay.interrupt()
    assert len(replay) == before - 1


@pytest.mark.parametrize("space", [FrameStack(4, 2, 3), VECTOR])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_the_capacity_is_kept_and_hardly_more(space: gym.spaces.Box, num_envs: int) -> None:
    simulation = Simulation(space, num_envs, seed=0, max_length=10_000, life_lost=0)
    for life in simulation.lives:
        life.length = 10_000
    replay = make_replay(space, num_envs, capacity=100, n_step=2, batch_size=512)
    simulation.feed(replay, 250)
    newest = 250 * num_envs
    oldest = min(min(batch.action) for batch in samples(replay, 10))
    held = newest - oldest + 1 - 2 * num_envs  # the newest two lack their successor
    assert 100 <= held < 100 + num_envs
    assert 100 <= len(replay) <= 100 + num_envs * 6


@settings(deadline=None, max_examples=60)
@given(
    num_envs=st.integers(1, 3),
    max_length=st.integers(1, 10),
    steps=st.integers(1, 80),
    seed=st.integers(0, 1000),
)
def test_length_is_what_the_rows_hold(
    num_envs: int, max_length: int, steps: int, seed: int
) -> None:
    simulation = Simulation(VECTOR, num_envs, seed=seed, max_length=max_length)
    replay = make_replay(VECTOR, num_envs, capacity=20, n_step=2)
    simulation.feed(replay, steps)
    rows = -(-20 // num_envs) + 2
    expected = sum(step.row >= life.rows - rows for life in simulation.lives for step in life.steps)
    assert len(replay) == expected


@pytest.mark.parametrize("steps", [12, 300])
def test_every_complete_transition_is_drawn_as_often(steps: int) -> None:
    # Environments with short episodes have more rows that are no transition, and before the ring
    # is full more rows altogether; after 300 steps the ring has wrapped.
    space = FrameStack(3, 2, 3)
    simulation = Simulation(space, 3, seed=1, max_length=3, life_lost=0.2)
    simulation.lives[0].length = 10_000
    replay = make_replay(space, 3, capacity=90, n_step=2, batch_size=1000, seed=123)
    simulation.feed(replay, steps)
    counts: dict[int, int] = {}
    for batch in samples(replay, 100):
        for action, count in zip(*np.unique(batch.action, return_counts=True), strict=True):
            counts[int(action)] = counts.get(int(action), 0) + int(count)
    must, may = expected_sets(simulation, capacity=90, n_step=2, gamma=0.5)
    assert must <= set(counts) <= may
    per_environment = [sum(action % 3 == i for action in counts) for i in range(3)]
    assert max(per_environment) > min(per_environment)  # else the test would be too easy
    each = 100_000 / len(counts)
    chi_square = sum((count - each) ** 2 / each for count in counts.values())
    degrees = len(counts) - 1
    assert chi_square < degrees + 4 * (2 * degrees) ** 0.5  # chance: less than 1 in 5000
    assert chi_square > degrees - 4 * (2 * degrees) ** 0.5


def test_samples_are_independent_draws() -> None:
    simulation = Simulation(VECTOR, 2, seed=1, max_length=5)
    replay = make_replay(VECTOR, 2, capacity=40, batch_size=32)
    simulation.feed(replay, 50)
    first, second = (replay.sample().action.tolist() for _ in range(2))
    assert first != second
    assert len(set(first)) < 32  # with replacement: 32 of some 36
    assert first != sorted(first)


def test_the_same_generator_draws_the_same_samples() -> None:
    drawn = []
    for seed in (4, 4, 5):
        simulation = Simulation(VECTOR, 2, seed=1)
        replay = make_replay(VECTOR, 2, seed=seed)
        simulation.feed(replay, 50)
        drawn.append([copy_of(replay.sample()) for _ in range(3)])
    for one, same, other in zip(*drawn, strict=True):
        for array, equal in zip(one, same, strict=True):
            np.testing.assert_array_equal(array, equal)
        assert one.action.tolist() != other.action.tolist()


@pytest.mark.parametrize("space", [FrameStack(3, 2, 3), VECTOR])
@pytest.mark.parametrize("before", [4, 15, 40])
@pytest.mark.parametrize("store", STORES, ids=str)
def test_what_is_saved_comes_back_and_goes_on_the_same(
    tmp_path: Path, space: gym.spaces.Box, before: int, store: dict[str, str]
) -> None:
    simulation = Simulation(space, 3, seed=9, max_length=8)
    replay = make_replay(space, 3, capacity=45, n_step=3, seed=1, **store)
    simulation.feed(replay, before)
    replay.save(tmp_path)
    # Another one that knows only the files, with the same draws ahead of it.
    other = make_replay(space, 3, capacity=45, n_step=3, seed=1, **store)
    other.load(tmp_path)
    assert len(other) == len(replay)
    for _ in range(40):
        transition = simulation.step()
        for which in (replay, other):
            which.observe(transition)
        assert len(other) == len(replay)
        one, same = replay.sample(), other.sample()
        for array, equal in zip(one, same, strict=True):
            np.testing.assert_array_equal(array, equal)
        check_batch(simulation, same, 3, 0.5)


@pytest.mark.parametrize("space", [FrameStack(3, 2, 3), VECTOR])
def test_loading_replaces_what_was_held(tmp_path: Path, space: gym.spaces.Box) -> None:
    simulation = Simulation(space, 2, seed=9, max_length=8)
    replay = make_replay(space, 2, capacity=30, seed=1)
    simulation.feed(replay, 5)
    replay.save(tmp_path)
    used = make_replay(space, 2, capacity=30, seed=1)
    Simulation(space, 2, seed=10, max_length=3).feed(used, 70)
    used._generator = np.random.default_rng(1)
    used.load(tmp_path)
    assert len(used) == len(replay)
    for _ in range(30):
        transition = simulation.step()
        for which in (replay, used):
            which.observe(transition)
        assert len(used) == len(replay)
        for array, equal in zip(replay.sample(), used.sample(), strict=True):
            np.testing.assert_array_equal(array, equal)


def test_saving_changes_nothing(tmp_path: Path) -> None:
    saved, untouched = (make_replay(VECTOR, 2, seed=3) for _ in range(2))
    simulation = Simulation(VECTOR, 2, seed=0)
    for step in range(30):
        transition = simulation.step()
        for replay in (saved, untouched):
            replay.observe(transition)
        if step in (3, 20):
            (tmp_path / str(step)).mkdir()
            saved.save(tmp_path / str(step))
        if step > 3:
            np.testing.assert_array_equal(saved.sample().action, untouched.sample().action)


@pytest.mark.parametrize("store", STORES, ids=str)
def test_an_empty_replay_is_saved_and_loaded(tmp_path: Path, store: dict[str, str]) -> None:
    make_replay(VECTOR, 2, **store).save(tmp_path)
    replay = make_replay(VECTOR, 2, **store)
    replay.load(tmp_path)
    assert len(replay) == 0
    simulation = Simulation(VECTOR, 2, seed=0)
    simulation.feed(replay, 10)
    check_batch(simulation, replay.sample(), 1, 0.5)


@pytest.mark.parametrize(("num_envs", "capacity"), [(2, 400), (2, 20), (1, 20), (4, 40)])
def test_another_shape_is_not_loaded(tmp_path: Path, num_envs: int, capacity: int) -> None:
    replay = make_replay(VECTOR, 2, capacity=40)
    Simulation(VECTOR, 2, seed=0).feed(replay, 10)
    replay.save(tmp_path)
    other = make_replay(VECTOR, num_envs, capacity=capacity)
    with pytest.raises(ValueError, match="capacity or num_envs"):
        other.load(tmp_path)


def test_a_part_filled_replay_saves_only_what_it_holds(tmp_path: Path) -> None:
    space = FrameStack(4, 20, 20)
    replay = make_replay(space, 2, capacity=10_000)
    frames = np.ones((2, *space.shape), dtype=np.uint8)
    action, reward = np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.float32)
    no = np.zeros(2, dtype=np.bool_)
    for _ in range(10):
        replay.observe(Transition(frames, action, reward, frames, no, no))
    replay.save(tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 2 * 10 * 400 + 5_000


def test_the_memory_of_a_million_atari_transitions() -> None:
    needed = TransitionRing.footprint(FrameStack(4, 84, 84), 8, 1_000_000, 3).memory
    assert 7_056_000_000 <= needed <= 7_200_000_000


@pytest.mark.parametrize("space", [FrameStack(4, 84, 84), FrameStack(1, 20, 30), VECTOR])
@pytest.mark.parametrize(("num_envs", "n_step"), [(1, 1), (8, 3)])
def test_memory_is_what_was_announced(space: gym.spaces.Box, num_envs: int, n_step: int) -> None:
    replay = make_replay(space, num_envs, capacity=1500, n_step=n_step, batch_size=1)
    ring = replay._ring
    held = [*vars(ring).values(), *vars(ring.frames).values(), ring.frames.items.array]
    allocated = sum(value.nbytes for value in held if isinstance(value, np.ndarray))
    announced = TransitionRing.footprint(space, num_envs, 1500, n_step)
    assert announced == Footprint(announced.memory, announced.memory, 0)
    assert announced.memory == pytest.approx(allocated, rel=0.01)


def write(rings: FrameRings, env: int, row: int, observation: Array, fresh: bool) -> None:
    rings.write(np.array([env]), np.array([row]), observation[None], np.array([fresh]))


def read(rings: FrameRings, space: gym.spaces.Box, env: int, row: int) -> Array:
    out = rings.batch(1)
    assert tuple(out.shape) == (1, *space.shape)
    out[:] = 99
    rings.read(np.array([env]), np.array([row]), out)
    return np.asarray(out[0])


def test_rings_build_stacks_with_zeros_before_the_first_frame() -> None:
    space = FrameStack(3, 1, 2)
    rings = FrameRings(space, 2, 5)
    frames = {
        (env, row): np.full((1, 2), 10 * env + row + 1, dtype=np.uint8)
        for env in range(2)
        for row in range(7)
    }
    zero = np.zeros((1, 2), dtype=np.uint8)
    for row in range(4):  # row 2 begins an episode
        for env in range(2):
            # Only the newest frame counts; what stands before it is remembered, not read.
            junk = np.full((1, 2), 200, dtype=np.uint8)
            write(rings, env, row, np.stack([junk, junk, frames[env, row]]), row in (0, 2))
    for env in range(2):
        expected = {
            0: [zero, zero, frames[env, 0]],
            1: [zero, frames[env, 0], frames[env, 1]],
            2: [zero, zero, frames[env, 2]],
            3: [zero, frames[env, 2], frames[env, 3]],
        }
        for row, stack in expected.items():
            np.testing.assert_array_equal(read(rings, space, env, row), np.stack(stack))
    needed = rings.oldest_needed(np.zeros(4, dtype=np.int64), np.arange(4))
    assert needed.tolist() == [0, 0, 2, 2]
    for row in range(4, 7):
        write(rings, 1, row, np.stack([zero, zero, frames[1, row]]), False)
    # Row 6 stands in slot 1, and its stack reaches over the seam to slots 0 and 4.
    np.testing.assert_array_equal(
        read(rings, space, 1, 6), np.stack([frames[1, 4], frames[1, 5], frames[1, 6]])
    )
    assert rings.oldest_needed(np.array([1]), np.array([6])).tolist() == [4]
    np.testing.assert_array_equal(  # the other ring was left alone
        read(rings, space, 0, 1), np.stack([zero, frames[0, 0], frames[0, 1]])
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("store", STORES, ids=str)
def test_rings_keep_other_observations_whole(dtype: type, store: Any) -> None:
    space = gym.spaces.Box(0, 255, (2, 3, 4), dtype)  # a picture that is no stack of frames
    rings = FrameRings(space, 1, 3, **store)
    generator = np.random.default_rng(0)
    seen: list[Array] = [generator.integers(256, size=(2, 3, 4)).astype(dtype) for _ in range(5)]
    for row, observation in enumerate(seen):
        write(rings, 0, row, observation, row == 0)
    for row in (2, 3, 4):
        assert read(rings, space, 0, row).tobytes() == seen[row].tobytes()
        assert rings.oldest_needed(np.array([0]), np.array([row])).tolist() == [row]


@settings(deadline=None, max_examples=60)
@given(space=spaces, seed=st.integers(0, 1000), max_length=st.integers(1, 12))
def test_a_trajectory_is_byte_for_byte_what_the_agent_saw(
    space: gym.spaces.Box, seed: int, max_length: int
) -> None:
    simulation = Simulation(space, 1, seed=seed, max_length=max_length, life_lost=0.2)
    trajectory = Trajectory(space)
    assert len(trajectory) == 0
    ends = []
    while True:
        transition = simulation.step()
        trajectory.append(
            transition.observation[0],
            int(transition.action[0]),
            float(transition.reward[0]),
            bool(transition.terminated[0]),
        )
        ends.append(bool(transition.terminated[0]))
        over = bool(transition.episode_over[0])
        for array in transition[:6]:
            array[...] = 1
        if over:
            break
    steps = simulation.lives[0].steps
    observations = trajectory.observations()
    assert len(trajectory) == len(steps) == len(observations)
    assert observations.shape == (len(steps), *space.shape)
    assert observations.dtype == space.dtype
    for step, observation in zip(steps, observations, strict=True):
        assert step.observation.tobytes() == observation.tobytes()
    assert trajectory.actions().tolist() == [step.action for step in steps]
    assert trajectory.rewards().tolist() == [step.reward for step in steps]
    assert trajectory.ends().tolist() == ends
    assert str(trajectory.actions().dtype) == "int64"
    assert str(trajectory.rewards().dtype) == "float32"


@pytest.mark.parametrize("begin", [1, 2, 5])
def test_a_trajectory_may_begin_anywhere_in_an_episode(begin: int) -> None:
    space = FrameStack(4, 2, 3)
    simulation = Simulation(space, 1, seed=0, max_length=50)
    simulation.lives[0].length = 50
    trajectory = Trajectory(space)
    for step in range(begin + 6):
        transition = simulation.step()
        if step >= begin:
            trajectory.append(transition.observation[0], 0, 0.0, False)
    for step, observation in zip(
        simulation.lives[0].steps[begin:], trajectory.observations(), strict=True
    ):
        assert step.observation.tobytes() == observation.tobytes()


def test_a_trajectory_of_another_stack_is_refused(tmp_path: Path) -> None:
    trajectory = Trajectory(FrameStack(3, 2, 3))
    trajectory.append(np.zeros((3, 2, 3), dtype=np.uint8), 0, 0.0, False)
    trajectory.save(tmp_path, "some")
    with pytest.raises(ValueError, match=r"some-items\.npy"):
        Trajectory(FrameStack(2, 2, 3)).load(tmp_path, "some")


@pytest.mark.parametrize("space", [FrameStack(3, 2, 3), VECTOR])
@pytest.mark.parametrize("steps", [0, 1, 6])
def test_a_trajectory_is_saved_and_goes_on(
    tmp_path: Path, space: gym.spaces.Box, steps: int
) -> None:
    simulation = Simulation(space, 1, seed=0, max_length=50)
    simulation.lives[0].length = 50
    trajectory = Trajectory(space)
    for number, transition in enumerate(simulation.step() for _ in range(steps)):
        action = int(transition.action[0])
        trajectory.append(transition.observation[0], action, 0.1, number % 4 == 2)
    trajectory.save(tmp_path, "some")
    other = Trajectory(space)
    other.append(np.ones(space.shape, dtype=space.dtype), 5, 5.0, True)  # is forgotten
    other.load(tmp_path, "some")
    assert len(other) == steps
    assert other.ends().tolist() == [number % 4 == 2 for number in range(steps)]
    for transition in (simulation.step() for _ in range(3)):
        for which in (trajectory, other):
            which.append(transition.observation[0], int(transition.action[0]), 0.1, False)
    np.testing.assert_array_equal(trajectory.observations(), other.observations())
    np.testing.assert_array_equal(trajectory.actions(), other.actions())
    np.testing.assert_array_equal(trajectory.rewards(), other.rewards())
