"""Environments in worker processes: the same bits, and failures that stay where they are."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from worker_tools import is_alive, pids, wait_until_gone, write_game

from rlagents.envs import (
    EnvConfig,
    EnvFailedError,
    EnvFault,
    EnvSpec,
    VectorEnv,
    VectorStep,
    find_difference,
    find_env,
    make_vector_env,
    register_env,
    resolve_env_config,
)
from rlagents.envs.worker import describe, rebuild
from rlagents.envs.workers import WorkerVectorEnv
from rlagents.errors import UsageError
from rlagents.spaces import FrameStack
from rlagents.types import Outcome

pytestmark = pytest.mark.timeout(900)  # many processes: slow to start where others compute

Make = Callable[..., Any]
HANG_S = 12.0  # far more than a busy machine takes to start a process, or to step the game


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make a vector environment of the game; `game` goes to it, the rest into `[env]`."""
    opened: list[VectorEnv] = []
    game_id = write_game(tmp_path)

    def make_one(
        workers: int,
        num_envs: int = 4,
        *,
        max_restarts: int = 0,
        repeat: bool = False,
        game: dict[str, Any] | None = None,
        kind: str = "Walk",
        **options: Any,
    ) -> VectorEnv:
        env_id = options.pop("id", game_id.replace("Walk", kind))
        spec = find_env(env_id)
        config = EnvConfig(
            id=env_id, num_envs=num_envs, num_workers=workers, kwargs=game or {}, **options
        )
        config = resolve_env_config(config, spec)
        env = make_vector_env(spec, config, num_envs, max_restarts=max_restarts, repeat=repeat)
        opened.append(env)
        return env

    yield make_one
    for env in opened:
        env.close()


def begin(env: Any, *seeds: int) -> Any:
    return env.reset(np.ones(env.num_envs, dtype=np.bool_), list(seeds))


def begin_one(env: Any, index: int, seed: int) -> Any:
    mask = np.zeros(env.num_envs, dtype=np.bool_)
    mask[index] = True
    return env.reset(mask, [seed])


def step(env: Any, *actions: int) -> Any:
    env.send(np.array(actions, dtype=np.int64))
    return env.recv()


def columns(step: VectorStep) -> list[Any]:
    """Return the arrays of a step, a row of each environment in each."""
    return [column for column in step if isinstance(column, np.ndarray)]


def same_arrays(first: Iterable[Any], second: Iterable[Any]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def same(first: VectorStep, second: VectorStep) -> bool:
    return same_arrays(columns(first), columns(second)) and first.outcomes == second.outcomes


def same_rows(rows: list[int], first: VectorStep, second: VectorStep) -> bool:
    told = [{row: step.outcomes.get(row) for row in rows} for step in (first, second)]
    kept = [[column[rows] for column in columns(step)] for step in (first, second)]
    return same_arrays(*kept) and told[0] == told[1]


# --- the same as in one process ----------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Walk", {}),
        ("Walk", {"frame_skip": 3, "max_episode_frames": 17}),
        ("Pictures", {"frame_size": 20, "frame_stack": 3, "frame_skip": 2, "crop": [4, 2]}),
        ("Pictures", {}),
        ("", {"id": "Acrobot-v1", "max_episode_frames": 40}),
        ("", {"id": "FrozenLake-v1"}),
    ],
)
def test_the_same_bits_as_in_this_process(make: Make, kind: str, options: dict[str, Any]) -> None:
    env, other = make(3, kind=kind, **options), make(0, kind=kind, **options)
    assert env.observation_space == other.observation_space
    assert type(env.observation_space) is type(other.observation_space)
    assert env.action_space == other.action_space
    generator = np.random.default_rng(0)
    assert np.array_equal(begin(env, 1, 2, 3, 4), begin(other, 1, 2, 3, 4))
    ends = 0
    for number in range(60):
        actions = generator.integers(int(env.action_space.n), size=4)
        got, expected = step(env, *actions), step(other, *actions)
        assert same(got, expected)
        assert [column.dtype for column in columns(got)] == [
            column.dtype for column in columns(expected)
        ]
        mask = got.terminated | got.truncated
        mask &= generator.random(4) < 0.5  # the others wait for a while
        seeds = [1000 + 4 * number + index for index in range(mask.sum())]
        ends += len(seeds)
        assert np.array_equal(env.reset(mask, seeds), other.reset(mask, seeds))
    assert ends > 0
    assert env.take_faults() == []


@pytest.mark.parametrize("action_set", ["all", "outer"])
def test_a_registered_environment_with_an_action_set(make: Make, action_set: str) -> None:
    sets = {"all": (0, 1, 2), "outer": (2, 0)}
    register_env(EnvSpec(name="chain", make=Chain, action_sets=sets, action_set="all"))
    env, other = (make(n, 2, id="chain", action_set=action_set) for n in (2, 0))
    begin(env, 1, 2)
    begin(other, 1, 2)
    got, expected = step(env, 1, 0), step(other, 1, 0)
    assert same(got, expected)
    assert got.observation[:, 0].tolist() == ([1, 0] if action_set == "all" else [0, 2])


class Chain(gym.Env[Any, int]):
    """Shows the last action."""

    observation_space = gym.spaces.Box(0, 9, (1,), np.float32)
    action_space = gym.spaces.Discrete(3)

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(**options)
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.array([action], np.float32), 0.0, False, False, {}


def test_outcomes_and_lost_lives_arrive(make: Make) -> None:
    env, other = make(2, kind="Lives"), make(0, kind="Lives")
    won, lives = [], 0
    for number in range(4):
        seeds = [10 * number + index for index in range(4)]
        assert np.array_equal(begin(env, *seeds), begin(other, *seeds))
        for time in range(1, 21):
            got, expected = step(env, 0, 1, 2, time % 3), step(other, 0, 1, 2, time % 3)
            assert same(got, expected)
            lives += int(got.life_lost.sum())
            assert set(got.outcomes) == (set(range(4)) if time == 20 else set())
        won += [outcome.success for outcome in got.outcomes.values()]
        assert not step(env, 0, 0, 0, 0).outcomes  # they wait
    assert lives == 4 * 4 * 6
    assert set(won) == {False, True}


TOLD = {"x": 3, "score": -0.1, "far": float("inf"), "scene": "hall \N{SNOWMAN}", "won": True}


def test_outcomes_that_a_registered_spec_names_arrive(make: Make) -> None:
    names = ("scene", "x", "score", "far")
    register_env(EnvSpec(name="ending", make=Ending, outcome=names, success="won"))
    for workers in (0, 2):
        env = make(workers, 2, id="ending")
        begin(env, 1, 2)
        expected = Outcome({name: TOLD[name] for name in (*names, "won")}, True)
        got = step(env, 0, 1).outcomes
        assert got == {0: expected}
        assert list(got[0].values) == list(expected.values)
        assert [type(got[0].values[name]) for name in TOLD] == [type(v) for v in TOLD.values()]


def test_an_end_that_lacks_what_the_spec_names_is_a_failure(make: Make) -> None:
    register_env(EnvSpec(name="ending", make=Ending, outcome=("lives",)))
    envs = [make(workers, 2, id="ending", max_restarts=1) for workers in (0, 2)]
    for env in envs:
        begin(env, 1, 2)
    got, other = (step(env, 0, 1) for env in envs)
    assert same(got, other)
    assert got.truncated.tolist() == [True, False]
    assert not got.outcomes
    assert got.observation.tolist() == [[0], [1]]  # what was seen before
    (fault,), (same_fault,) = (env.take_faults() for env in envs)
    assert fault == same_fault
    assert fault[:3] == (0, 1, 0)
    assert "has no 'lives'" in fault.reason


class Ending(Chain):
    """Ends with action 0, and says how."""

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.array([1], np.float32), 0.0, action == 0, False, TOLD


def test_it_is_refused_where_there_are_no_such_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = find_env("CartPole-v1")
    config = resolve_env_config(EnvConfig(id="CartPole-v1", num_workers=1), spec)
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(UsageError, match="num_workers: worker processes need Linux or macOS"):
        make_vector_env(spec, config, 1)


def test_what_no_other_process_can_import_is_refused(make: Make) -> None:
    register_env(EnvSpec(name="chain", make=lambda **kwargs: Chain(**kwargs)))
    with pytest.raises(UsageError, match=r"cannot import what makes chain .*file\.py:make_env"):
        make(1, id="chain")


def test_what_this_program_registers_with_gymnasium_is_unknown_there(make: Make) -> None:
    gym.register("OnlyHere-v0", entry_point=Chain)
    try:
        with pytest.raises(UsageError, match=r"cannot make OnlyHere-v0.*package\.module:Id-v0"):
            make(1, id="OnlyHere-v0")
    finally:
        del gym.registry["OnlyHere-v0"]


@pytest.mark.parametrize(
    "space",
    [
        FrameStack(4, 20, 20),
        gym.spaces.Box(np.float32([-1.5, -np.inf]), np.float32([0.1, np.inf])),
        gym.spaces.Box(0, 255, (2, 3), np.uint8),
        gym.spaces.Discrete(3, start=2),
    ],
)
def test_spaces_arrive_as_they_are(space: gym.Space[Any]) -> None:
    rebuilt = rebuild(describe(space))
    assert rebuilt == space
    assert type(rebuilt) is type(space)


def test_other_actions_are_refused() -> None:
    with pytest.raises(UsageError, match="Discrete space, not from MultiBinary"):
        describe(gym.spaces.MultiBinary(2))


def test_a_process_each_and_never_torch(make: Make) -> None:
    here = begin(make(0, game={"tells": True}), 1, 2, 3, 4)
    assert here[:, 3].all()  # the tests have it
    assert set(here[:, 2]) == {np.float32(os.getpid())}
    shown = begin(make(3, game={"tells": True}), 1, 2, 3, 4)
    assert not shown[:, 3].any()
    processes = shown[:, 2].tolist()
    assert len(set(processes)) == 3
    assert processes == sorted(processes, key=processes.index)
    assert os.getpid() not in processes


def test_send_does_not_wait(make: Make, tmp_path: Path) -> None:
    env = make(1, 1, game={"what": "wait", "at": 1, "seed": 1, "folder": str(tmp_path)})
    begin(env, 1)
    env.send(np.zeros(1, dtype=np.int64))
    (tmp_path / "go").touch()  # else its step would not end
    assert env.recv().observation[0, 1] == 1


def test_processes_step_at_the_same_time(make: Make, tmp_path: Path) -> None:
    """Each waits within its step until the other is within its own."""
    env = make(2, 2, game={"what": "meet", "at": 1, "seed": 1, "folder": str(tmp_path)})
    begin(env, 1, 2)
    assert step(env, 0, 0).observation[:, 1].tolist() == [1, 1]


def test_what_was_returned_is_not_written_to_again(make: Make) -> None:
    env = make(2)
    kept: list[Any] = [begin(env, 1, 2, 3, 4), *columns(step(env, 0, 1, 2, 0))]
    copies = [one.copy() for one in kept]
    kept[1][:] = 7
    copies[1][:] = 7
    other = make(0)
    begin(other, 1, 2, 3, 4)
    step(other, 0, 1, 2, 0)
    assert same(step(env, 1, 1, 1, 1), step(other, 1, 1, 1, 1))  # what a caller does to it is lost
    assert same_arrays(kept, copies)


def test_restore(make: Make) -> None:
    env, other = make(2), make(0)
    actions = [np.array([1, 2, 0] * n, dtype=np.int64) for n in (0, 3, 1, 2)]
    for _ in range(2):  # the second time in the middle of an episode
        seeds = [5, 6, 7, 8]
        assert np.array_equal(env.restore(seeds, actions), other.restore(seeds, actions))
        for _ in range(15):
            assert same(step(env, 0, 1, 2, 0), step(other, 0, 1, 2, 0))


def test_restore_says_why_not(make: Make) -> None:
    env = make(2)
    none, many = np.zeros(0, dtype=np.int64), np.zeros(25, dtype=np.int64)
    with pytest.raises(ValueError, match="seed 8 ended after 20 steps, not 25"):
        env.restore([5, 6, 7, 8], [none, none, none, many])
    assert np.array_equal(begin(env, 1, 2, 3, 4), begin(make(0), 1, 2, 3, 4))


def test_restore_of_what_ends_the_process(make: Make) -> None:
    env = make(2, game={"what": "exit", "seed": 11})
    none, three = np.zeros(0, dtype=np.int64), np.zeros(3, dtype=np.int64)
    with pytest.raises(ValueError, match="exit code 7"):
        env.restore([5, 6, 11, 8], [none, none, three, none])
    assert np.array_equal(begin(env, 1, 2, 3, 4), begin(make(0), 1, 2, 3, 4))


# --- failures ----------------------------------------

REASONS = {
    "raise": "ValueError('out of lives')",
    "exit": "its process ended with exit code 7",
    "kill": "its process was ended by SIGKILL",
    "hang": f"it gave no answer for {HANG_S:g} s ([env] step_limit_s)",
}


@pytest.mark.parametrize(
    ("workers", "what", "kind"),
    [
        *((0, "raise", "Walk"), (0, "raise", "Pictures"), (2, "raise", "Pictures")),
        *((2, "exit", "Walk"), (1, "kill", "Pictures"), (2, "hang", "Walk")),
    ],
)
def test_one_fails_and_the_others_play_on(make: Make, workers: int, what: str, kind: str) -> None:
    """Environment 1 fails in its fifth step; 0 is in the same process and older."""
    limit = {"step_limit_s": HANG_S} if what == "hang" else {}
    game = {"what": what, "at": 5, "seed": 101}
    small = {"frame_size": 20} if kind == "Pictures" else {}
    env = make(workers, max_restarts=1, kind=kind, game=game, **limit, **small)
    other = make(0, kind=kind, **small)
    for one in (env, other):
        begin(one, 7, 8, 9, 10)
        step(one, 1, 1, 1, 1)
        begin_one(one, 1, 101)
    for number in range(4):
        got, expected = step(env, 0, 1, 2, 0), step(other, 0, 1, 2, 0)
        assert same(got, expected)
        assert not got.truncated.any(), number
    last = got.observation[1]
    got, expected = step(env, 0, 2, 2, 0), step(other, 0, 2, 2, 0)
    assert got.truncated.tolist() == [False, True, False, False]
    assert not got.terminated.any()
    assert got.reward[1] == 0 != expected.reward[1]
    if kind == "Walk":
        assert np.array_equal(got.observation[1], last)
    else:  # a stack in which the newest frame stands still
        assert np.array_equal(got.observation[1], last[[1, 2, 3, 3]])
        assert not np.array_equal(last[2], last[3])
    rest = [0, 2, 3]
    assert same_rows(rest, got, expected)
    assert env.take_faults() == [EnvFault(1, 101, 4, REASONS[what])]
    assert env.take_faults() == []
    waited = step(env, 0, 1, 2, 0)  # nothing happens to it until it is reset
    step(other, 0, 1, 2, 0)
    assert np.array_equal(waited.observation[1], got.observation[1])
    for one in (env, other):
        begin_one(one, 1, 55)
    for _ in range(10):
        assert same(step(env, 0, 1, 2, 0), step(other, 0, 1, 2, 0))
    assert env.take_faults() == []


@pytest.mark.parametrize(("workers", "what"), [(0, "raise"), (2, "raise"), (2, "exit")])
def test_an_episode_that_is_cut_off_tells_no_outcome(make: Make, workers: int, what: str) -> None:
    """Environment 1 fails in the step that ends all four episodes."""
    game = {"what": what, "at": 20, "seed": 101}
    env, other = make(workers, max_restarts=1, kind="Lives", game=game), make(0, kind="Lives")
    for one in (env, other):
        begin(one, 7, 101, 9, 10)
    for _ in range(20):
        got, expected = step(env, 0, 1, 2, 0), step(other, 0, 1, 2, 0)
    assert set(expected.outcomes) == {0, 1, 2, 3}
    assert set(got.outcomes) == {0, 2, 3}
    assert same_rows([0, 2, 3], got, expected)
    assert (got.truncated[1], got.life_lost[1]) == (True, False)


def test_a_step_that_is_repeated_tells_its_outcome(make: Make, tmp_path: Path) -> None:
    game = {"what": "exit once", "at": 20, "seed": 101, "folder": str(tmp_path)}
    env = make(2, max_restarts=1, repeat=True, kind="Lives", game=game)
    other = make(0, kind="Lives")
    for one in (env, other):
        begin(one, 7, 101, 9, 10)
    for _ in range(20):
        got, expected = step(env, 0, 1, 2, 0), step(other, 0, 1, 2, 0)
    assert set(got.outcomes) == {0, 1, 2, 3}
    assert same(got, expected)
    assert len(env.take_faults()) == 1


@pytest.mark.parametrize(("workers", "what"), [(0, "raise"), (2, "raise"), (2, "exit")])
def test_a_reset_fails(make: Make, workers: int, what: str) -> None:
    game = {"what": what, "at": 0, "seed": 101}
    env, other = make(workers, max_restarts=1, game=game), make(0)
    for one in (env, other):
        begin(one, 7, 8, 9, 10)
        step(one, 0, 1, 2, 0)
    before = begin_one(env, 1, 101)
    assert env.take_faults() == [EnvFault(1, 101, 0, REASONS[what])]
    got, expected = step(env, 0, 1, 2, 0), step(other, 0, 1, 2, 0)
    assert not got.truncated.any()
    assert np.array_equal(got.observation[1], before[1])  # it waits
    assert same_rows([0, 2, 3], got, expected)
    assert np.array_equal(begin_one(env, 1, 102), begin_one(other, 1, 102))
    assert same(step(env, 0, 1, 2, 0), step(other, 0, 1, 2, 0))


def test_two_fail_in_one_step(make: Make) -> None:
    env = make(1, max_restarts=2, game={"what": "exit", "at": 2, "seed": 100})
    other = make(0)
    for one in (env, other):
        begin(one, 7, 200, 300, 10)
        step(one, 1, 1, 1, 1)
    got, expected = step(env, 0, 1, 2, 0), step(other, 0, 1, 2, 0)
    assert got.truncated.tolist() == [False, True, True, False]
    assert same_rows([0, 3], got, expected)
    assert [(fault.env_index, fault.steps) for fault in env.take_faults()] == [(1, 1), (2, 1)]


@pytest.mark.parametrize("restarts", [0, 2])
@pytest.mark.parametrize("what", ["raise", "exit"])
def test_one_failure_too_many(make: Make, what: str, restarts: int) -> None:
    env = make(2, max_restarts=restarts, game={"what": what, "at": 2, "seed": 100})
    begin(env, 7, 8, 9, 10)
    for number in range(restarts + 1):
        begin_one(env, 2, 100)
        step(env, 0, 0, 0, 0)
        if number < restarts:
            assert step(env, 0, 0, 0, 0).truncated[2]
    with pytest.raises(EnvFailedError) as caught:
        step(env, 0, 0, 0, 0)
    said = str(caught.value)
    assert "game.py:Walk, number 2, failed in the episode of seed 100 after 1 steps: " in said
    assert said.endswith(f"{REASONS[what]}.")
    assert caught.value.exit_code == 1


def test_one_failure_too_many_in_this_process_is_raised_as_it_is(make: Make) -> None:
    env = make(0, game={"what": "raise", "at": 1, "seed": 100})
    begin(env, 7, 8, 100, 10)
    with pytest.raises(ValueError, match="out of lives"):
        step(env, 0, 0, 0, 0)
    assert env.current == 2


def worker_of(env: WorkerVectorEnv, number: int) -> int:
    return env._workers[number].pid


def test_a_process_that_ends_between_two_steps_changes_nothing(make: Make) -> None:
    env, other = make(2, max_restarts=2), make(0)
    begin(env, 1, 2, 3, 4)
    begin(other, 1, 2, 3, 4)
    assert same(step(env, 0, 1, 2, 0), step(other, 0, 1, 2, 0))
    for _ in range(2):
        gone = worker_of(env, 1)
        os.kill(gone, signal.SIGKILL)
        wait_until_gone([gone])
        assert same(step(env, 0, 1, 2, 0), step(other, 0, 1, 2, 0))
        (fault,) = env.take_faults()
        assert fault == EnvFault(None, 0, 0, "its process was ended by SIGKILL")
    os.kill(worker_of(env, 0), signal.SIGKILL)
    with pytest.raises(EnvFailedError, match=r"A worker process of .*ended between two steps"):
        step(env, 0, 0, 0, 0)


def test_neighbours_that_do_not_reproduce_themselves_lose_their_episodes(make: Make) -> None:
    env = make(2, max_restarts=2, game={"what": "leak"})
    begin(env, 1, 2, 3, 4)
    step(env, 0, 0, 0, 0)
    os.kill(worker_of(env, 0), signal.SIGKILL)
    with pytest.raises(EnvFailedError, match="showed something else when its episode was played"):
        step(env, 0, 0, 0, 0)


def test_a_neighbour_that_is_lost_in_a_reset_is_told_with_the_next_step(make: Make) -> None:
    """A reset ends the process, and another environment of it does not come back from that."""
    env = make(1, 2, max_restarts=2, game={"what": "exit", "at": 0, "seed": 101})
    begin(env, 1, 2)
    step(env, 0, 0)
    env._seeds[0] = 202  # as if its episode could not be played again
    begin_one(env, 1, 303)
    assert [(fault.env_index, fault.seed) for fault in env.take_faults()] == [(1, 303)]
    got = step(env, 1, 1)
    assert got.truncated.tolist() == [True, False]
    (fault,) = env.take_faults()
    assert (fault.env_index, fault.seed, fault.steps) == (0, 202, 1)
    assert np.array_equal(begin(env, 1, 2), begin(make(0, 2), 1, 2))


def test_an_environment_that_a_worker_cannot_make(make: Make, tmp_path: Path) -> None:
    (tmp_path / "parent").write_text(str(os.getpid()))
    with pytest.raises(UsageError, match=r"a worker process cannot make .*no licence"):
        make(2, game={"what": "make", "folder": str(tmp_path)})
    found = pids(tmp_path)
    assert found
    wait_until_gone(found)


# --- processes ----------------------------------------


@pytest.mark.parametrize("how", ["close", "forget"])
def test_nothing_is_left(make: Make, tmp_path: Path, how: str) -> None:
    spec = find_env(write_game(tmp_path))
    game = {"folder": str(tmp_path)}
    config = EnvConfig(id=spec.name, num_envs=3, num_workers=2, kwargs=game)
    env: Any = make_vector_env(spec, resolve_env_config(config, spec), 3)
    begin(env, 1, 2, 3)
    found = pids(tmp_path)
    assert len(found) == 2
    assert all(is_alive(pid) for pid in found)
    if how == "close":
        env.close()
        env.close()
    del env
    gc.collect()
    wait_until_gone(found)
    assert all((tmp_path / f"closed-{pid}").exists() for pid in found)


def test_signals_are_for_the_program(make: Make) -> None:
    env, other = make(1), make(0)
    begin(env, 1, 2, 3, 4)
    begin(other, 1, 2, 3, 4)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        os.kill(worker_of(env, 0), number)
        assert same(step(env, 0, 1, 2, 0), step(other, 0, 1, 2, 0))
    assert os.getpgid(worker_of(env, 0)) != os.getpgid(0)  # nor does Ctrl-C reach it


def test_what_an_environment_has_started_ends_with_it(make: Make, tmp_path: Path) -> None:
    game = {"what": "hang with a process", "seed": 101, "at": 1, "folder": str(tmp_path)}
    env = make(1, 1, max_restarts=1, game=game, step_limit_s=HANG_S)
    begin(env, 101)
    assert step(env, 0).truncated[0]
    wait_until_gone([int((tmp_path / "child").read_text())])


def test_standard_input_is_not_for_environments(make: Make) -> None:
    env = make(1, 1, game={"what": "read", "seed": 1, "at": 1})
    begin(env, 1)
    assert 0 <= step(env, 0).observation[0, 0] < 12  # nothing was read
    assert env.take_faults() == []


def test_numpys_own_generator_differs_between_processes(make: Make) -> None:
    shown = begin(make(2, 2, game={"what": "leak"}), 1, 1)
    assert shown[0, 2] != shown[1, 2]


@pytest.mark.parametrize(("what", "differs"), [("", False), ("leak", True)])
def test_the_check_before_a_run_works_in_processes(make: Make, what: str, differs: bool) -> None:
    found = find_difference(lambda: make(1, 1, game={"what": what}), 3, 1)
    assert found == ("observation differs at step 0" if differs else None)


# --- the config ----------------------------------------


@pytest.mark.parametrize("env_id", ["cartpole", "pong"])
@pytest.mark.parametrize(
    ("key", "value"), [("num_workers", 2), ("step_limit_s", 5.0), ("max_restarts", 2)]
)
def test_it_is_refused_where_it_does_nothing(env_id: str, key: str, value: float) -> None:
    config = EnvConfig(id=env_id, num_envs=4, **{key: value})
    with pytest.raises(UsageError, match=rf"\[env\] {key}: {env_id} steps all its environments"):
        resolve_env_config(config, find_env(env_id))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_workers": 3, "num_envs": 2}, r"at most num_envs = 2, .* got 3"),
        ({"step_limit_s": 5.0}, r"step_limit_s: .*num_workers to 1 or more"),
    ],
)
def test_what_does_not_go_together(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        resolve_env_config(EnvConfig(id="CartPole-v1", **options), find_env("CartPole-v1"))


@pytest.mark.parametrize(
    ("env_id", "options", "resolved"),
    [
        ("cartpole", {}, (0, None, None)),
        ("cartpole", {"max_restarts": 0}, (0, None, 0)),
        ("CartPole-v1", {}, (0, None, 3)),
        ("CartPole-v1", {"max_restarts": 0}, (0, None, 0)),
        ("CartPole-v1", {"num_workers": 1}, (1, 120.0, 3)),
        ("CartPole-v1", {"num_workers": 1, "step_limit_s": 7.5}, (1, 7.5, 3)),
    ],
)
def test_defaults(env_id: str, options: dict[str, Any], resolved: tuple[Any, ...]) -> None:
    spec = find_env(env_id)
    config = resolve_env_config(EnvConfig(id=env_id, **options), spec)
    assert (config.num_workers, config.step_limit_s, config.max_restarts) == resolved
    assert resolve_env_config(config, spec) == config
