"""Many games at once: to the bit what `MarioEnv` shows on the fast console.

These tests need the game: pip install 'rlagents[mario]'.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlagents.envs import EnvConfig, find_env, make_vector_env, resolve_env_config
from rlagents.envs.mario import core
from rlagents.envs.mario.core import INFO, CoreConsole, CoreGames, Pictures
from rlagents.envs.mario.game import ALL_STAGES, GameStuckError
from rlagents.envs.mario.rom import find_rom
from rlagents.envs.mario.specs import make_env, outcome_reader
from rlagents.envs.mario.tiles import TILE_SIZE
from rlagents.envs.mario.vector import MarioVectorEnv, fits, start_state
from rlagents.envs.vector import SyncVectorEnv, VectorEnv, VectorStep
from rlagents.errors import UsageError
from rlagents.types import Array, IntArray


def game_is_installed() -> bool:
    try:
        find_rom()
    except UsageError:
        return False
    return True


pytestmark = pytest.mark.skipif(
    not game_is_installed(), reason="needs the game: pip install 'rlagents[mario]'"
)

ACTIONS = 7  # of "simple"


def config_of(name: str, **keys: Any) -> EnvConfig:
    keys["kwargs"] = {"backend": "core"} | keys.get("kwargs", {})
    return resolve_env_config(EnvConfig(id=name, **keys), find_env(name))


def make(name: str, count: int, *, threads: int = 1, **keys: Any) -> MarioVectorEnv:
    config = config_of(name, **keys)
    return MarioVectorEnv(name, config, count, threads=threads, outcome=outcome_reader(name))


def one_by_one(name: str, count: int, **keys: Any) -> SyncVectorEnv:
    config = config_of(name, **keys)
    return SyncVectorEnv([lambda: make_env(name, config)] * count, outcome_reader(name))


def lively(seed: int, steps: int, count: int) -> IntArray:
    """Return actions that get far: to the right mostly, held for some steps; [steps, count]."""
    generator = np.random.default_rng(seed)
    drawn = generator.choice(
        ACTIONS, p=(0.02, 0.1, 0.2, 0.2, 0.38, 0.05, 0.05), size=(steps, count)
    )
    for step in range(1, steps):
        held = generator.random(count) < 0.6
        drawn[step, held] = drawn[step - 1, held]
    return drawn


def play(env: VectorEnv, actions: IntArray, first_seed: int = 0) -> Iterator[VectorStep]:
    """Play; an episode that is over is followed by that of the next seed."""
    count = env.num_envs
    env.reset(np.ones(count, dtype=np.bool_), range(first_seed, first_seed + count))
    seed = first_seed + count
    for row in actions:
        env.send(row)
        step = env.recv()
        yield step
        over = step.terminated | step.truncated
        if over.any():
            seeds = range(seed, seed + int(over.sum()))
            seed += len(seeds)
            observation = env.reset(over, seeds)
            yield step._replace(observation=observation)


def assert_equal(step: VectorStep, other: VectorStep) -> None:
    for name, one, two in zip(VectorStep._fields, step, other, strict=True):
        np.testing.assert_array_equal(one, two, err_msg=name)


CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "as it is": ("mario-1-1", 200, {}),
    "sticky": ("mario-1-2", 150, {"sticky_probability": 0.25, "noop_max": 5}),
    "other pictures": (
        "mario-3-1",
        100,
        {"frame_size": 60, "frame_stack": 2, "crop": [32, 0], "frame_skip": 3, "noop_max": 0},
    ),
    "tiles": ("mario-2-1", 150, {"kwargs": {"observation": "tiles"}, "sticky_probability": 0.1}),
    "whole game": ("mario", 300, {"reward": "progress", "life_loss_terminates": True}),
    "any stage": ("mario-random", 200, {"reward": "shaped", "kwargs": {"stall_steps": 30}}),
    "some stages": (
        "mario-random",
        100,
        {"reward": "progress", "kwargs": {"stages": ["1-2", "4-4"]}, "max_episode_frames": 160},
    ),
    "own buttons": (
        "mario-8-4",
        100,
        {"action_set": [["right"], ["right", "A"], [], ["B"], ["down"], ["left"], ["up", "A"]]},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_games_at_once_are_those_one_by_one(case: str) -> None:
    name, steps, keys = CASES[case]
    fast, slow = make(name, 3, threads=2, **keys), one_by_one(name, 3, **keys)
    assert fast.observation_space == slow.observation_space
    assert fast.action_space == slow.action_space
    ends = 0
    actions = lively(len(case), steps, 3)
    for step, other in zip(play(fast, actions), play(slow, actions), strict=True):
        assert_equal(step, other)
        assert step.observation.dtype == other.observation.dtype
        ends += int((step.terminated | step.truncated).sum())
    assert ends > 0 or case == "whole game"
    fast.close()
    slow.close()


def test_the_info_is_that_of_the_environment() -> None:
    fast, env = make("mario-1-1", 1, noop_max=0), make_env("mario-1-1", config_of("mario-1-1"))
    fast.reset(np.array([True]), [3])
    fast2 = make("mario-1-1", 1)
    fast2.reset(np.array([True]), [3])
    _, info = env.reset(seed=3)
    for action in lively(3, 60, 1)[:, 0]:
        for name in INFO:
            assert fast2.info()[name][0] == info[name], name
        fast2.send(np.array([action]))
        if fast2.recv().terminated[0]:
            break
        info = env.step(int(action))[4]
    assert fast.info()["x_pos"][0] == 40  # where Mario starts


def test_results_do_not_depend_on_the_threads() -> None:
    actions = lively(1, 80, 5)
    played = [
        list(play(make("mario-random", 5, threads=threads), actions)) for threads in (1, 2, 5)
    ]
    for other in played[1:]:
        for one, two in zip(played[0], other, strict=True):
            assert_equal(one, two)


def test_games_do_not_depend_on_their_neighbours() -> None:
    together, alone = make("mario-1-1", 3), make("mario-1-1", 1)
    actions = lively(2, 40, 3)
    together.reset(np.ones(3, dtype=np.bool_), [7, 8, 9])
    alone.reset(np.array([True]), [9])
    for row in actions:
        together.send(row)
        alone.send(row[2:])
        step, own = together.recv(), alone.recv()
        for one, two in zip(step[:5], own[:5], strict=True):
            np.testing.assert_array_equal(one[2], two[0])
        assert step.outcomes.get(2) == own.outcomes.get(0)
        if own.terminated[0]:
            break


def test_those_that_wait_stay_as_they_are() -> None:
    env = make("mario-1-1", 2)
    env.reset(np.array([True, False]), [1])
    before = env._games.ram[1].copy()
    for _ in range(5):
        env.send(np.array([3, 3]))
        step = env.recv()
    assert step.reward[1] == 0
    assert not step.terminated[1]
    assert step.observation[0].any()
    assert not step.observation[1].any()
    np.testing.assert_array_equal(env._games.ram[1], before)


def test_observations_are_copies() -> None:
    env = make("mario-1-1", 1)
    first = env.reset(np.array([True]), [1])
    kept = first.copy()
    env.send(np.array([1]))
    second = env.recv().observation
    np.testing.assert_array_equal(first, kept)
    first[:] = 0
    env.send(np.array([1]))
    third = env.recv().observation
    np.testing.assert_array_equal(third[0, :3], second[0, 1:])


def test_a_stack_begins_with_zeros() -> None:
    env = make("mario-1-1", 1)
    observation = env.reset(np.array([True]), [1])
    assert observation.shape == (1, 4, 84, 84)
    assert not observation[0, :3].any()
    assert len(np.unique(observation[0, 3])) > 5


@pytest.mark.parametrize("lengths", [(0, 1, 2), (3, 4, 5), (30, 0, 24)])
@pytest.mark.parametrize(
    "keys", [{}, {"sticky_probability": 0.4}, {"kwargs": {"observation": "tiles"}}]
)
def test_restored_games_go_on_as_they_were(lengths: tuple[int, ...], keys: dict[str, Any]) -> None:
    actions = lively(4, 40, 3)
    played = [actions[:length, index].astype(np.uint8) for index, length in enumerate(lengths)]
    restored = make("mario-random", 3, threads=2, **keys)
    other = one_by_one("mario-random", 3, **keys)
    np.testing.assert_array_equal(
        restored.restore([11, 12, 13], played), other.restore([11, 12, 13], played)
    )
    for row in actions[30:]:
        restored.send(row)
        other.send(row)
        step = restored.recv()
        assert_equal(step, other.recv())
        if (step.terminated | step.truncated).any():
            break


def test_restoring_counts_all_limits() -> None:
    """An episode that is at its end comes back as one that waits; else its limits go on."""
    for keys in ({"kwargs": {"stall_steps": 12}}, {"max_episode_frames": 48}):
        env = make("mario-1-1", 2, **keys)
        env.restore([1, 2], [np.zeros(12, dtype=np.int64), np.zeros(11, dtype=np.int64)])
        env.send(np.zeros(2, dtype=np.int64))
        step = env.recv()
        assert step.truncated.tolist() == [False, True]
        assert step.reward[0] == 0


def test_an_episode_that_ends_early_is_not_restored() -> None:
    env = make("mario-1-1", 2)
    into_the_first_enemy = np.full(60, 1)
    with pytest.raises(ValueError, match=r"episode of seed 5 ended after \d+ steps, not 60"):
        env.restore([4, 5], [np.full(3, 1), into_the_first_enemy])
    everyone = np.ones(2, dtype=np.bool_)
    other = make("mario-1-1", 2)
    np.testing.assert_array_equal(env.reset(everyone, [4, 5]), other.reset(everyone, [4, 5]))
    env.send(np.ones(2, dtype=np.int64))
    assert not env.recv().terminated.any()


# Each option changes what comes out.


def signature(name: str, **keys: Any) -> list[Array]:
    """Return what 60 steps of two environments show and bring."""
    found: list[Array] = []
    for step in play(make(name, 2, **keys), lively(9, 60, 2) % 5):
        found += [step.observation, step.reward, step.terminated, step.truncated, step.life_lost]
    return found


def same(one: list[Array], two: list[Array]) -> bool:
    return len(one) == len(two) and all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"frame_skip": 3},
        {"sticky_probability": 0.3},
        {"noop_max": 0},
        {"action_set": "right-only"},
        {"action_set": [["right"], ["left"], ["A"], [], ["down"]]},
        {"reward": "progress"},
        {"reward": "shaped"},
        {"frame_size": 60},
        {"frame_stack": 3},
        {"crop": [32, 0]},
        {"max_episode_frames": 40},
        {"kwargs": {"stall_steps": 1}},
        {"kwargs": {"observation": "tiles"}},
    ],
    ids=str,
)
def test_each_option_does_something(changes: dict[str, Any]) -> None:
    base = signature("mario-1-1")
    changed = signature("mario-1-1", **changes)
    if changes == {"action_set": "right-only"}:  # the first five of the seven
        assert same(base, changed)
        assert make("mario-1-1", 1, **changes).action_space.n == 5  # type: ignore[attr-defined]
    else:
        assert not same(base, changed)


def test_stages_are_drawn_from_the_list() -> None:
    stages = ["1-1", "3-2", "8-4"]
    env = make("mario-random", 12, kwargs={"stages": stages})
    env.reset(np.ones(12, dtype=np.bool_), range(12))
    info = env.info()
    drawn = {f"{w}-{s}" for w, s in zip(info["world"], info["stage"], strict=True)}
    assert drawn == set(stages)
    everywhere = make("mario-random", 200)
    everywhere.reset(np.ones(200, dtype=np.bool_), range(200))
    info = everywhere.info()
    assert set(zip(info["world"].tolist(), info["stage"].tolist(), strict=True)) == set(ALL_STAGES)


def test_larger_pictures_than_the_games_are_left_to_the_other_environment() -> None:
    assert fits(config_of("mario-1-1", frame_size=240))
    assert fits(config_of("mario-1-1", frame_size=208, crop=[32, 0]))
    large = config_of("mario-1-1", frame_size=209, crop=[32, 0])
    assert not fits(large)
    env = make_vector_env(find_env("mario-1-1"), large, 1)
    assert isinstance(env, SyncVectorEnv)
    assert env.reset(np.array([True]), [1]).shape == (1, 4, 209, 209)
    with pytest.raises(ValueError, match="rows"):
        MarioVectorEnv("mario-1-1", large, 1)


def test_the_registry_makes_them() -> None:
    spec = find_env("mario-1-1")
    env = make_vector_env(spec, resolve_env_config(EnvConfig(id="mario-1-1"), spec), 2)
    assert isinstance(env, MarioVectorEnv)


def test_tiles_draw_nothing_and_have_no_stack() -> None:
    env = make("mario-1-1", 2, kwargs={"observation": "tiles"})
    observation = env.reset(np.ones(2, dtype=np.bool_), [1, 2])
    assert observation.shape == (2, TILE_SIZE)
    assert observation.dtype == np.float32
    assert env._games.stacks.size == 0


# The games themselves.


def start(games: CoreGames, target: tuple[int, int] = (1, 1)) -> None:
    everyone = np.ones(games.count, dtype=np.bool_)
    games.begin(everyone, [start_state(target)] * games.count, [0] * games.count)


def test_a_cut_scene_without_an_end_is_an_error() -> None:
    """The game is paused in a state that is waited out."""
    console = CoreConsole(find_rom())
    console.load(start_state((1, 1)))
    console.ram[0x0E] = 7
    console.ram[0x770] = 2  # the end of a world, which the game never leaves
    console.ram[0x772] = 0
    console.ram[0x776] = 1  # paused
    games = CoreGames(find_rom(), 1, full=True, pictures=None)
    games.begin(np.array([True]), [console.save()], [0])
    games.play(np.array([True]), [np.zeros((1, 4), dtype=np.uint8)])
    with pytest.raises(GameStuckError, match="cut-scene"):
        games.wait()


def test_states_of_other_consoles_are_refused() -> None:
    games = CoreGames(find_rom(), 1, pictures=None)
    with pytest.raises(ValueError, match="state"):
        games.begin(np.array([True]), [b"nothing"], [0])


def test_buttons_of_another_shape_are_refused() -> None:
    games = CoreGames(find_rom(), 1, pictures=None)
    start(games)
    for wrong in (
        [np.zeros(4)],
        [np.zeros((1, 3))],
        [np.zeros((1, 4, 1))],
        [],
        [np.zeros((1, 4))] * 2,
    ):
        with pytest.raises(ValueError, match="buttons"):
            games.play(np.array([True]), wrong)


def test_an_episode_that_ends_in_the_frames_without_a_button_is_refused() -> None:
    """In 5-1 something runs into a Mario who stands still."""
    games = CoreGames(find_rom(), 1, pictures=None)
    games.begin(np.array([True]), [start_state((5, 1))], [300])
    with pytest.raises(UsageError, match="noop_max: Mario died"):
        games.begin(np.array([True]), [start_state((5, 1))], [400])
    games.begin(np.array([True]), [start_state((5, 1))], [300])


@pytest.mark.parametrize("seed", range(4))
def test_any_buttons_and_any_ram_do_no_harm(seed: int) -> None:
    """Whatever happens in the game, calls come back, with results or with an error."""
    generator = np.random.default_rng(seed)
    console = CoreConsole(find_rom())
    outcomes = set()
    for _ in range(12):
        console.load(start_state(ALL_STAGES[int(generator.integers(len(ALL_STAGES)))]))
        for _ in range(int(generator.integers(1, 40))):
            console.ram[int(generator.integers(2048))] = int(generator.integers(256))
        games = CoreGames(find_rom(), 1, full=bool(generator.random() < 0.5), pictures=Pictures())
        try:
            games.begin(np.array([True]), [console.save()], [int(generator.integers(4))])
            buttons = generator.integers(256, size=(25, 4), dtype=np.uint8)
            games.play(np.array([True]), [buttons])
            games.wait()
            outcomes.add("played")
        except Exception as error:
            outcomes.add(type(error).__name__)
    assert outcomes <= {"played", "JammedError", "GameStuckError", "UsageError"}
    assert "played" in outcomes


def test_no_game_is_in_the_package() -> None:
    """Neither code nor tests hold a part of the game: no long run of bytes from its file."""
    game = find_rom().read_bytes()
    folder = Path(core.__file__).parent
    for file in folder.iterdir():
        if file.suffix in (".c", ".h", ".py", ".so"):
            content = file.read_bytes()
            for at in range(16, len(game) - 64, 4096):
                piece = game[at : at + 64]
                assert len(set(piece)) < 8 or piece not in content
            assert not re.search(rb"NES\x1a[\x01\x02]\x01", content)
