"""The contract of vector environments, for ALE's and for Gymnasium environments alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlagents.envs import (
    EnvConfig,
    VectorEnv,
    VectorStep,
    find_env,
    make_vector_env,
    resolve_env_config,
)
from rlagents.envs.cartpole import CartPoleVectorEnv
from rlagents.envs.vector import GroupedVectorEnv, SyncVectorEnv

Make = Callable[..., VectorEnv]

ATARI = ["pong", "atari/breakout"]
ENVS = [*ATARI, "cartpole", "CartPole-v1"]


@pytest.fixture
def make() -> Iterator[Make]:
    opened: list[VectorEnv] = []

    def make_one(env_id: str, num_envs: int = 1, **options: Any) -> VectorEnv:
        spec = find_env(env_id)
        config = resolve_env_config(EnvConfig(id=env_id, num_envs=num_envs, **options), spec)
        env = make_vector_env(spec, config, num_envs)
        opened.append(env)
        return env

    yield make_one
    for env in opened:
        env.close()


def mask_of(env: VectorEnv, *indexes: int) -> Any:
    mask = np.zeros(env.num_envs, dtype=np.bool_)
    mask[list(indexes)] = True
    return mask


def begin(env: VectorEnv, *seeds: int) -> Any:
    return env.reset(np.ones(env.num_envs, dtype=np.bool_), list(seeds))


def step(env: VectorEnv, *actions: int) -> VectorStep:
    env.send(np.array(actions, dtype=np.int64))
    return env.recv()


def some_actions(env: VectorEnv, length: int, seed: int = 0) -> Any:
    """Return [length, N] actions with which no pole falls within ten steps."""
    number = int(env.action_space.n)  # type: ignore[attr-defined]
    if number == 2:
        return np.indices((length, env.num_envs)).sum(axis=0) % 2
    return np.random.default_rng(seed).integers(number, size=(length, env.num_envs))


def options_for(env_id: str) -> dict[str, Any]:
    return {} if env_id not in ATARI else {"sticky_probability": 0.25}


def play(env: VectorEnv, seed: int, actions: Sequence[int]) -> list[Any]:
    """Play environment 0 from a reset; return observations and rewards."""
    seen: list[Any] = [env.reset(mask_of(env, 0), [seed])[0]]
    for action in actions:
        got = step(env, *[int(action)] * env.num_envs)
        seen += [got.observation[0], float(got.reward[0])]
    return seen


def equal(first: list[Any], second: list[Any]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(np.array_equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("env_id", ENVS)
def test_shapes_and_types(make: Make, env_id: str) -> None:
    env = make(env_id, 3)
    observation = begin(env, 1, 2, 3)
    assert env.num_envs == 3
    assert observation.shape == (3, *env.observation_space.shape)
    assert observation.dtype == env.observation_space.dtype
    got = step(env, 0, 1, 0)
    assert got.observation.shape == observation.shape
    assert got.observation.dtype == observation.dtype
    assert [len(column) for column in got[:5]] == [3] * 5
    assert not got.outcomes
    assert got.reward.dtype == np.float32
    for column in (got.terminated, got.truncated, got.life_lost):
        assert column.dtype == np.bool_
        assert not column.any()


@pytest.mark.parametrize("env_id", ENVS)
def test_a_masked_reset_leaves_the_others_untouched(make: Make, env_id: str) -> None:
    disturbed, undisturbed = (make(env_id, 3, **options_for(env_id)) for _ in range(2))
    fresh = make(env_id, **options_for(env_id))
    for env in (disturbed, undisturbed):
        begin(env, 11, 12, 13)
    actions = some_actions(disturbed, 10)
    for row in actions[:5]:
        last = step(disturbed, *row).observation
        step(undisturbed, *row)
    observation = disturbed.reset(mask_of(disturbed, 1), [77])
    assert np.array_equal(observation[[0, 2]], last[[0, 2]])
    first = [observation[1]]
    for row in actions[5:]:
        got, expected = step(disturbed, *row), step(undisturbed, *row)
        assert np.array_equal(got.observation[[0, 2]], expected.observation[[0, 2]])
        assert np.array_equal(got.reward[[0, 2]], expected.reward[[0, 2]])
        first += [got.observation[1], float(got.reward[1])]
    assert equal(first, play(fresh, 77, actions[5:, 1]))


@pytest.mark.parametrize("env_id", ENVS)
def test_seeds_go_to_the_environments_of_the_mask_in_order(make: Make, env_id: str) -> None:
    options = options_for(env_id)
    env, fresh = make(env_id, 4, **options), make(env_id, **options)
    begin(env, 1, 2, 3, 4)
    step(env, 0, 0, 0, 0)
    observation = env.reset(mask_of(env, 1, 3), [50, 60])
    seen = {1: [observation[1]], 3: [observation[3]]}
    for _ in range(6):
        got = step(env, 1, 1, 1, 1)
        for index, played in seen.items():
            played += [got.observation[index], float(got.reward[index])]
    assert equal(seen[1], play(fresh, 50, [1] * 6))
    assert equal(seen[3], play(fresh, 60, [1] * 6))


@pytest.mark.parametrize("env_id", ENVS)
def test_same_seed_and_actions_same_episode(make: Make, env_id: str) -> None:
    options = options_for(env_id)
    env, other = make(env_id, **options), make(env_id, 2, **options)
    actions = some_actions(env, 40 if env_id in ATARI else 9)[:, 0]
    first = play(env, 5, actions)
    different = play(env, 6, actions)
    assert equal(first, play(env, 5, actions))
    assert equal(first, play(other, 5, actions))
    assert not equal(first, different)


def test_stickiness_is_part_of_the_seed(make: Make) -> None:
    env = make("pong", sticky_probability=0.25, noop_max=0)
    actions = some_actions(env, 40)[:, 0]
    assert equal(play(env, 5, actions), play(env, 5, actions))
    assert not equal(play(env, 5, actions), play(env, 6, actions))


@pytest.mark.parametrize("env_id", ENVS)
def test_what_was_returned_is_not_written_to_again(make: Make, env_id: str) -> None:
    env = make(env_id, 2)
    kept: list[Any] = [begin(env, 1, 2)]
    copies = [kept[0].copy()]
    for row in some_actions(env, 8):
        got = step(env, *row)
        kept += got
        copies += [column.copy() for column in got]
    kept.append(env.reset(mask_of(env, 1), [3]))
    copies.append(kept[-1].copy())
    step(env, 0, 0)
    for array, copy in zip(kept, copies, strict=True):
        assert np.array_equal(array, copy)


@pytest.mark.parametrize("env_id", ENVS)
def test_writing_to_an_observation_changes_nothing(make: Make, env_id: str) -> None:
    env, other = make(env_id, 2), make(env_id, 2)
    begin(env, 1, 2)[:] = 0
    begin(other, 1, 2)
    for row in some_actions(env, 6):
        got, expected = step(env, *row), step(other, *row)
        assert np.array_equal(got.observation, expected.observation)
        got.observation[:] = 0


@pytest.mark.parametrize("env_id", ENVS)
def test_waiting_environments_ignore_their_actions(make: Make, env_id: str) -> None:
    """One ends and waits, the other plays on; then both are compared with fresh ones."""
    options = options_for(env_id) | {"max_episode_frames": 40 if env_id in ATARI else 10}
    env, fresh = make(env_id, 2, **options), make(env_id, **options)
    begin(env, 21, 22)
    actions = some_actions(env, 10)
    for row in actions[:5]:
        step(env, *row)
    late = [env.reset(mask_of(env, 1), [23])[1]]  # so that it ends after the other
    for number, row in enumerate(actions[5:]):
        got = step(env, *row)
        late += [got.observation[1], float(got.reward[1])]
        assert bool(got.truncated[0]) is (number == 4)
    for action in (1, 0, 1):  # 0 waits
        got = step(env, action, 0)
        late += [got.observation[1], float(got.reward[1])]
        assert not got.truncated[1]
    assert equal(late, play(fresh, 23, [*actions[5:, 1], 0, 0, 0]))
    early = [env.reset(mask_of(env, 0), [24])[0]]
    for row in actions[:6]:
        got = step(env, *row)
        early += [got.observation[0], float(got.reward[0])]
    assert equal(early, play(fresh, 24, actions[:6, 0]))


@pytest.mark.parametrize("limit", [None, 5])
def test_nothing_happens_to_a_waiting_gymnasium_environment(make: Make, limit: int | None) -> None:
    env = make("cartpole", 2, max_episode_frames=limit)
    env.reset(mask_of(env, 0), [1])  # the other has never begun
    last = step(env, 1, 1)
    while not (last.terminated[0] or last.truncated[0]):
        last = step(env, 1, 1)
    if limit is None:  # the fallen pole, not the one of a reset
        assert last.terminated[0]
        assert abs(last.observation[0, 2]) > 0.2
    else:
        assert last.truncated[0]
    for action in (0, 1):
        got = step(env, action, action)
        assert np.array_equal(got.observation, last.observation)
        assert not got.reward.any()
        assert not got.terminated.any()
        assert not got.truncated.any()


@pytest.mark.parametrize("env_id", ENVS)
def test_the_first_reset_may_be_of_some_only(make: Make, env_id: str) -> None:
    env, fresh = make(env_id, 2), make(env_id)
    observation = env.reset(mask_of(env, 1), [31])
    actions = some_actions(fresh, 5)[:, 0]
    seen = [observation[1]]
    for action in actions[:3]:
        got = step(env, 0, int(action))
        seen += [got.observation[1], float(got.reward[1])]
    first = [env.reset(mask_of(env, 0), [32])[0]]
    for action in actions[3:]:
        got = step(env, int(action), int(action))
        seen += [got.observation[1], float(got.reward[1])]
        first += [got.observation[0], float(got.reward[0])]
    assert equal(seen, play(fresh, 31, actions))
    assert equal(first, play(fresh, 32, actions[3:]))


@pytest.mark.parametrize("env_id", ENVS)
@pytest.mark.parametrize("frame_skip", [1, 3])
def test_the_limit_of_frames_truncates(make: Make, env_id: str, frame_skip: int) -> None:
    env = make(env_id, frame_skip=frame_skip, max_episode_frames=6 * frame_skip)
    begin(env, 1)
    previous = None
    for number, row in enumerate(some_actions(env, 6)):
        got = step(env, *row)
        assert not got.terminated[0]
        assert bool(got.truncated[0]) is (number == 5)
        if previous is not None and env_id in ATARI:  # the last one is no reset's either
            assert np.array_equal(got.observation[0, :3], previous[0, 1:])
        previous = got.observation


@pytest.mark.parametrize("env_id", ATARI)
@pytest.mark.parametrize("limit", [40, 41, 43])
def test_a_truncated_episode_shows_what_it_ended_with(make: Make, env_id: str, limit: int) -> None:
    """The same as an episode that goes on, though the limit may lie within a skip."""
    cut, whole = make(env_id, max_episode_frames=limit), make(env_id)
    begin(cut, 5)
    begin(whole, 5)
    length = 10 if limit == 40 else 11
    for number, row in enumerate(some_actions(cut, length)):
        got, expected = step(cut, *row), step(whole, *row)
        assert np.array_equal(got.observation, expected.observation)
        assert bool(got.truncated[0]) is (number == length - 1)
        assert not expected.truncated[0]


def test_the_limit_of_the_environment_itself_truncates(make: Make) -> None:
    env = make("Acrobot-v1", max_episode_frames=1000)  # Gymnasium stops it after 500
    begin(env, 1)
    for number in range(1, 501):
        got = step(env, 1)
        assert not got.terminated[0]
        assert bool(got.truncated[0]) is (number == 500)


@pytest.mark.parametrize(
    ("env_id", "lengths"),
    [("pong", (0, 25, 7)), ("atari/breakout", (70, 0, 33)), ("cartpole", (3, 0, 9))],
)
def test_restore(make: Make, env_id: str, lengths: tuple[int, ...]) -> None:
    """Environments of different ages come back, and go on as they would have."""
    options = options_for(env_id)
    env, restored = make(env_id, 3, **options), make(env_id, 3, **options)
    seeds = [41, 42, 43]
    ages = max(lengths)
    begin(env, 1, 2, 3)  # an episode before the one in question
    actions = some_actions(env, ages + 40 if env_id in ATARI else ages + 8)
    observation = np.zeros(0)
    for number in range(ages + 1):
        for index in range(3):
            if ages - lengths[index] == number:
                observation = env.reset(mask_of(env, index), [seeds[index]])
        if number < ages:
            observation = step(env, *actions[number]).observation
    played = [actions[ages - length : ages, index] for index, length in enumerate(lengths)]
    assert [len(one) for one in played] == list(lengths)
    assert np.array_equal(restored.restore(seeds, played), observation)
    step(restored, 1, 1, 1)
    assert np.array_equal(restored.restore(seeds, played), observation)  # it has been playing now
    for row in actions[ages:]:
        got, expected = step(restored, *row), step(env, *row)
        for one, other in zip(got, expected, strict=True):
            assert np.array_equal(one, other)


@pytest.mark.parametrize("env_id", ENVS)
def test_restore_to_the_beginning(make: Make, env_id: str) -> None:
    env, fresh = make(env_id, 2), make(env_id, 2)
    nothing = np.zeros(0, dtype=np.int64)
    assert np.array_equal(env.restore([7, 8], [nothing, nothing]), begin(fresh, 7, 8))


def test_restore_of_an_episode_that_ends_too_early_is_refused(make: Make) -> None:
    env = make("CartPole-v1", 2)
    right = np.ones(100, dtype=np.int64)  # the pole falls long before
    with pytest.raises(ValueError, match=r"seed 8 ended after \d+ steps, not 100"):
        env.restore([7, 8], [right[:2], right])
    assert np.array_equal(begin(env, 7, 8), begin(make("CartPole-v1", 2), 7, 8))


def test_restore_counts_lives(make: Make) -> None:
    """The first life lost after coming back is seen, the earlier ones are not seen again."""
    env, restored = make("atari/breakout"), make("atari/breakout")
    actions = some_actions(env, 200)[:, 0]
    begin(env, 9)
    lost = []
    for action in actions:
        got = step(env, int(action))
        lost.append(bool(got.life_lost[0]))
        if got.terminated[0]:
            break
    at = np.flatnonzero(lost)
    assert len(at) >= 2
    between = int(at[0] + at[1]) // 2
    restored.restore([9], [actions[:between]])
    again = [bool(step(restored, int(action)).life_lost[0]) for action in actions[between : at[1]]]
    assert not any(again)
    assert step(restored, int(actions[at[1]])).life_lost[0]


def test_lost_lives_do_not_end_breakout(make: Make) -> None:
    env = make("atari/breakout", 2)
    actions = np.random.default_rng(0)
    begin(env, 1, 2)
    lost, over = np.zeros(2, dtype=int), np.zeros(2, dtype=bool)
    for _ in range(400):
        got = step(env, *actions.integers(4, size=2))
        assert not (got.life_lost & got.terminated).any()
        lost += got.life_lost & ~over
        over |= got.terminated
        assert not got.truncated.any()
        if over.all():
            break
    assert over.all()
    assert lost.tolist() == [4, 4]  # of five lives, the last one ends the game


def test_a_reset_is_no_lost_life(make: Make) -> None:
    env = make("atari/breakout")
    begin(env, 1)
    actions = np.random.default_rng(0)
    while not step(env, int(actions.integers(4))).life_lost[0]:
        pass
    begin(env, 2)
    for _ in range(8):
        assert not step(env, 0).life_lost[0]


def test_rewards_are_not_clipped(make: Make) -> None:
    env = make("atari/asteroids", 4)
    begin(env, 1, 2, 3, 4)
    actions = np.random.default_rng(0)
    seen: set[float] = set()
    while not seen:
        got = step(env, *actions.integers(env.action_space.n, size=4))  # type: ignore[attr-defined]
        seen = {float(reward) for reward in got.reward} - {0.0}
        assert not got.terminated.any()
    assert seen <= {20.0, 50.0, 100.0}  # what asteroids are worth


@pytest.mark.parametrize("env_id", ATARI)
@pytest.mark.parametrize("frame_stack", [1, 4])
def test_stacks_begin_with_zeros(make: Make, env_id: str, frame_stack: int) -> None:
    env = make(env_id, frame_stack=frame_stack)
    for seed in (1, 2):  # also after an episode that has filled the stack
        observation = begin(env, seed)
        seen = [np.zeros_like(observation[0, 0])] * (frame_stack - 1) + [observation[0, -1]]
        assert seen[-1].any()
        assert np.array_equal(observation[0], seen[-frame_stack:])
        for _ in range(5):
            observation = step(env, 0).observation
            seen.append(observation[0, -1])
            assert np.array_equal(observation[0], seen[-frame_stack:])


class Numbers(gym.Env[Any, int]):
    """Observes how often it was stepped and the sum of its actions; ends when told to."""

    observation_space = gym.spaces.Box(-1e9, 1e9, (3,), np.float32)
    action_space = gym.spaces.Discrete(4)

    def __init__(self) -> None:
        self._state = np.zeros(3, dtype=np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._state[:] = (0, 0, self.np_random.integers(1000))
        return self._state, {}  # not a copy, as careless environments do

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._state += (1, action, 0)
        return self._state, float(action), action == 3, False, {}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=15),
    st.integers(0, 2**31 - 1),
)
def test_any_course_of_play(rows: list[list[int]], seed: int) -> None:
    """N environments stepped together do what each does alone; 3 ends an episode."""
    env = SyncVectorEnv([Numbers] * 3)
    alone = [Numbers() for _ in range(3)]
    begin(env, seed, seed + 1, seed + 2)
    expected = np.array([one.reset(seed=seed + i)[0] for i, one in enumerate(alone)])
    waiting = np.zeros(3, dtype=bool)
    for number, row in enumerate(rows):
        got = step(env, *row)
        for index, action in enumerate(row):
            if waiting[index]:
                assert got.reward[index] == 0
                assert not got.terminated[index]
                continue
            observation, reward, terminated, _, _ = alone[index].step(action)
            expected[index] = observation
            assert got.reward[index] == reward
            assert got.terminated[index] == terminated
            waiting[index] = terminated
        assert np.array_equal(got.observation, expected)
        if waiting.all() or (number % 4 == 3 and waiting.any()):
            seeds = [seed + 10 * number + int(i) for i in np.flatnonzero(waiting)]
            observation = env.reset(waiting, seeds)
            for index, new in zip(np.flatnonzero(waiting), seeds, strict=True):
                expected[index] = alone[index].reset(seed=new)[0]
            assert np.array_equal(observation, expected)
            waiting[:] = False


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), max_size=8), min_size=1, max_size=4))
def test_restore_any_actions(actions: list[list[int]]) -> None:
    number = len(actions)
    env = SyncVectorEnv([Numbers] * number)
    observation = env.restore(list(range(number)), [np.array(one, dtype=int) for one in actions])
    assert observation[:, 0].tolist() == [len(one) for one in actions]
    assert observation[:, 1].tolist() == [sum(one) for one in actions]
    got = step(env, *[1] * number)
    assert got.observation[:, 0].tolist() == [len(one) + 1 for one in actions]


def test_environments_are_made_one_by_one() -> None:
    made: list[Numbers] = []

    def make_one() -> Numbers:
        made.append(Numbers())
        return made[-1]

    SyncVectorEnv([make_one] * 3)
    assert len({id(env) for env in made}) == 3


class BareReset(Numbers):
    """Returns an observation alone, as environments did before Gymnasium."""

    def reset(self, **_: Any) -> Any:
        return np.zeros(3, dtype=np.float32)


class FourResults(Numbers):
    """Returns done in place of terminated and truncated."""

    def step(self, action: int) -> Any:
        return np.zeros(3, dtype=np.float32), 0.0, False, {}


class WrongShape(Numbers):
    """Observes less than it says."""

    def reset(self, **_: Any) -> Any:
        return np.zeros(1, dtype=np.float32), {}


@pytest.mark.parametrize("broken", [BareReset, FourResults, WrongShape])
def test_an_environment_that_is_not_as_gymnasium_has_it(broken: type[Numbers]) -> None:
    env = SyncVectorEnv([broken])

    def begin_and_step() -> None:
        begin(env, 1)
        step(env, 0)

    with pytest.raises(TypeError):  # as SyncVectorEnv promises
        begin_and_step()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(0, 2**31 - 1))
def test_groups_are_as_one(sizes: list[int], seed: int) -> None:
    number = sum(sizes)
    grouped = GroupedVectorEnv([CartPoleVectorEnv(size, 30) for size in sizes])
    whole = CartPoleVectorEnv(number, 30)
    assert grouped.num_envs == number
    assert grouped.observation_space == whole.observation_space
    assert grouped.action_space == whole.action_space
    generator = np.random.default_rng(seed)
    playing = np.zeros(number, dtype=np.bool_)
    for _ in range(60):
        mask = ~playing & (generator.random(number) < 0.3)
        if mask.any():
            seeds = generator.integers(1000, size=int(mask.sum())).tolist()
            shown = [env.reset(mask, seeds) for env in (grouped, whole)]
            assert np.array_equal(*shown)
            playing |= mask
        actions = generator.integers(2, size=number)
        for env in (grouped, whole):
            env.send(actions)
        got, expected = grouped.recv(), whole.recv()
        for mine, theirs in zip(got[:5], expected[:5], strict=True):
            assert np.array_equal(mine, theirs)
            assert mine.dtype == theirs.dtype
        playing &= ~(got.terminated | got.truncated)
    lengths = generator.integers(5, size=number)
    played = [np.arange(length) % 2 for length in lengths]
    shown = [env.restore(list(range(number)), played) for env in (grouped, whole)]
    assert np.array_equal(*shown)
    actions = np.ones(number, dtype=np.int64)
    for env in (grouped, whole):
        env.send(actions)
    assert np.array_equal(grouped.recv().observation, whole.recv().observation)


def test_a_group_whose_games_are_over_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stepped: list[tuple[str, int]] = []

    class Counting(CartPoleVectorEnv):
        def send(self, actions: Any) -> None:
            stepped.append(("send", self.num_envs))
            super().send(actions)

        def recv(self) -> VectorStep:
            stepped.append(("recv", self.num_envs))
            return super().recv()

    env = GroupedVectorEnv([Counting(1, 2), Counting(2, 4)])
    begin(env, 1, 2, 3)
    shown = [step(env, 0, 1, 0).observation for _ in range(4)]
    assert stepped == 2 * [("send", 1), ("send", 2), ("recv", 1), ("recv", 2)] + 2 * [
        ("send", 2),
        ("recv", 2),
    ]
    assert np.array_equal(shown[1][0], shown[3][0])  # what was seen last
    stepped.clear()
    env.reset(mask_of(env, 0), [7])
    step(env, 0, 0, 0)
    assert stepped == [("send", 1), ("recv", 1)]


@pytest.mark.parametrize("env_id", ATARI)
def test_games_in_groups_are_played_as_alone(make: Make, env_id: str) -> None:
    groups = [make(env_id, size, **options_for(env_id)) for size in (4, 2)]
    env = GroupedVectorEnv(groups)
    actions = some_actions(env, 12)
    shown = [begin(env, *range(6))]
    shown += [step(env, *row).observation for row in actions]
    restored = env.restore(range(6), list(actions.T))
    for index in (0, 5):
        alone = play(make(env_id, 1, **options_for(env_id)), index, actions[:, index])
        assert all(
            np.array_equal(got[index], want)
            for got, want in zip(shown, [alone[0], *alone[1::2]], strict=True)
        )
    assert np.array_equal(restored, shown[-1])
