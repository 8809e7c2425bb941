"""Seeds: one range for each purpose, so that no two purposes ever play the same game."""

from __future__ import annotations

import itertools
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlagents import seeding
from rlagents.seeding import Purpose, episode_seed, generator

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)

run_seeds = st.integers(0, 2**31 - 1)
numbers = st.integers(0, 10**6)

# Of run seed 1, index 2 and episode 3, for each purpose in its order.
SEEDS_OF_VERSION_0_1 = [473869146, 549590452, 1135924055, 1669456245]
# Of seed 1 and the purposes 0, 1 and 2: three numbers below 1000 each.
GENERATORS_OF_VERSION_0_1 = [[15, 699, 828], [941, 475, 143], [426, 233, 37]]


@settings(deadline=None)
@given(run_seeds, st.sampled_from(PURPOSES), numbers, numbers)
def test_seeds_fit_the_emulator(run_seed: int, purpose: Purpose, index: int, episode: int) -> None:
    seed = episode_seed(run_seed, purpose, index, episode)
    assert type(seed) is int
    assert 0 <= seed < 2**31
    assert seed == episode_seed(run_seed, purpose, index, episode)


@settings(deadline=None)
@given(
    st.permutations(PURPOSES),
    st.tuples(run_seeds, numbers, numbers),
    st.tuples(run_seeds, numbers, numbers),
)
def test_purposes_never_share_a_seed(
    purposes: list[Purpose], first: tuple[int, int, int], second: tuple[int, int, int]
) -> None:
    one = episode_seed(first[0], purposes[0], *first[1:])
    other = episode_seed(second[0], purposes[1], *second[1:])
    assert one != other


def test_purposes_keep_to_their_ranges() -> None:
    """The same as above, but for the whole range: the highest two bits tell the purpose."""
    ranges = {
        purpose: {
            episode_seed(seed, purpose, index) >> 29 for seed in range(5) for index in range(50)
        }
        for purpose in PURPOSES
    }
    assert all(len(found) == 1 for found in ranges.values())
    assert set.union(*ranges.values()) == set(range(len(PURPOSES)))


@pytest.mark.parametrize("purpose", PURPOSES)
def test_every_argument_counts(purpose: Purpose) -> None:
    seeds = [
        episode_seed(run_seed, purpose, index, episode)
        for run_seed in range(10)
        for index in range(10)
        for episode in range(10)
    ]
    # 1,000 of 2**29 numbers: two equal ones would be a chance of one in a thousand.
    assert len(set(seeds)) == len(seeds)


def test_seeds_are_spread_over_their_range() -> None:
    seeds = np.array([episode_seed(1, "training", index) for index in range(4000)])
    counts = np.histogram(seeds, bins=8, range=(0, 2**29))[0]
    assert counts.sum() == 4000
    assert counts.min() > 400
    assert 0.4 < (seeds % 2).mean() < 0.6


def test_seeds_stay_what_they_are() -> None:
    """Recorded runs are rebuilt from these: a change of the rule breaks every old run."""
    assert [episode_seed(1, purpose, 2, 3) for purpose in PURPOSES] == SEEDS_OF_VERSION_0_1


@settings(deadline=None)
@given(run_seeds, numbers)
def test_generators_repeat_themselves(seed: int, purpose: int) -> None:
    first, second = generator(seed, purpose), generator(seed, purpose)
    assert first is not second
    assert first.integers(2**63, size=4).tolist() == second.integers(2**63, size=4).tolist()


def test_generators_are_distinct() -> None:
    """Of all names of up to three numbers, zeros at the end among them."""
    names = [name for length in (1, 2, 3) for name in itertools.product(range(3), repeat=length)]
    streams = [
        tuple(generator(seed, *name).integers(2**63, size=4)) for seed in range(3) for name in names
    ]
    assert len(streams) == 3 * (3 + 9 + 27)
    assert len(set(streams)) == len(streams)


def test_no_generator_repeats_what_made_an_episodes_seed() -> None:
    words = {
        np.random.SeedSequence([1, purpose, index, 0]).generate_state(4).tobytes()
        for purpose in range(4)
        for index in range(4)
    }
    for purpose in range(4):
        for more in ((), (0,), (1,), (1, 0)):
            sequence = generator(1, purpose, *more).bit_generator.seed_seq
            assert sequence.generate_state(4).tobytes() not in words


def test_generators_stay_what_they_are() -> None:
    """A run goes on with the generators that it began with; an evaluation is repeated with them."""
    drawn = [generator(1, purpose).integers(1000, size=3).tolist() for purpose in range(3)]
    assert drawn == GENERATORS_OF_VERSION_0_1


def test_a_generator_is_its_own() -> None:
    np.random.seed(1)
    first = seeding.generator(5, 1).random()
    np.random.seed(2)
    np.random.random(10)
    assert seeding.generator(5, 1).random() == first
