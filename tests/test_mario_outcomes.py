"""How episodes of Super Mario Bros. come out, and the maps of its stages."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from mario_tools import BACKENDS, needs_mario, way_through_1_1

from rlagents.envs import (
    EnvConfig,
    Map,
    VectorEnv,
    Walk,
    find_env,
    make_player,
    make_vector_env,
    resolve_env_config,
)
from rlagents.envs.mario import MarioEnv, memory
from rlagents.envs.mario.level_map import STATUS_ROWS, Area, Stitcher, draw_map
from rlagents.envs.mario.memory import Memory
from rlagents.envs.mario.specs import make_env
from rlagents.types import Outcome

WAY = way_through_1_1()
RIGHT = [1] * 60  # into the first enemy
GROUND, ROOM = 0xA690, 0xC1A0


def resolved(backend: str = BACKENDS[-1], env_id: str = "mario-1-1", **options: Any) -> EnvConfig:
    options.setdefault("kwargs", {})
    options["kwargs"] = {"backend": backend, **options["kwargs"]}
    config = EnvConfig(id=env_id, **{"noop_max": 0, **options})
    return resolve_env_config(config, find_env(env_id))


def play(env: VectorEnv, *scripts: Sequence[int]) -> dict[int, tuple[int, Outcome]]:
    """The step at which each script's episode ended, and how."""
    env.reset(np.ones(len(scripts), dtype=np.bool_), list(range(len(scripts))))
    told = {}
    for step in range(max(map(len, scripts))):
        env.send(np.array([script[step] if step < len(script) else 0 for script in scripts]))
        for row, outcome in env.recv().outcomes.items():
            told[row] = (step, outcome)
        if len(told) == len(scripts):
            break
    env.close()
    return told


# --- outcomes ---


@needs_mario
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_flag_and_a_death(backend: str) -> None:
    config = resolved(backend, num_envs=2)
    told = play(make_vector_env(find_env("mario-1-1"), config, 2), RIGHT, WAY)
    (death_step, death), (flag_step, flag) = told[0], told[1]
    assert (death.success, flag.success) == (False, True)
    assert flag_step == len(WAY) - 1
    assert flag.values["x_pos"] == 3161
    assert flag.values["flag_get"] is True
    assert death_step < 60
    assert 200 < int(death.values["x_pos"]) < 400
    assert {flag.values[name] for name in ("world", "stage")} == {1}
    assert flag.values["area"] == death.values["area"]
    kinds = {type(value) for outcome in (death, flag) for value in outcome.values.values()}
    assert kinds == {int, bool}


@needs_mario
def test_a_limit_ends_an_episode_where_mario_is() -> None:
    for backend in BACKENDS:
        config = resolved(backend, kwargs={"stall_steps": 5})
        ((step, outcome),) = play(
            make_vector_env(find_env("mario-1-1"), config, 1), [0] * 9
        ).values()
        assert (step, outcome.success, outcome.values["x_pos"]) == (4, False, 40)


@needs_mario
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_info_says_it_where_the_environment_is_somebodys_own(backend: str) -> None:
    def infos(env: MarioEnv, script: Sequence[int]) -> list[dict[str, Any]]:
        env.reset(seed=0)
        found = []
        for action in script:
            _, _, terminated, truncated, info = env.step(action)
            found.append(info)
            if terminated or truncated:
                break
        env.close()
        return found

    flag = infos(MarioEnv(stages=["1-1"], backend=backend), WAY)
    death = infos(MarioEnv(1, 1, backend=backend), RIGHT)
    limit = infos(MarioEnv(1, 1, backend=backend, max_episode_frames=8), RIGHT)
    assert [told[-1]["is_success"] for told in (flag, death, limit)] == [True, False, False]
    assert not any("is_success" in info for told in (flag, death, limit) for info in told[:-1])
    game = infos(MarioEnv(None, backend=backend, max_episode_frames=8), RIGHT)
    assert (len(game), "is_success" in game[-1]) == (2, False)


@needs_mario
def test_the_player_tells_the_same() -> None:
    config = resolved()
    player = make_player(find_env("mario-1-1"), config)
    player.reset(0)
    steps = []
    while not (steps and steps[-1].terminated):
        steps.append(player.step(1))
    player.close()
    ((step, outcome),) = play(make_vector_env(find_env("mario-1-1"), config, 1), RIGHT).values()
    assert (len(steps) - 1, steps[-1].outcome) == (step, outcome)
    assert all(one.outcome is None for one in steps[:-1])


def test_single_stages_tell_success_and_the_whole_game_does_not() -> None:
    found = {name: find_env(name).tells_success for name in ("mario-4-2", "mario-random", "mario")}
    assert found == {"mario-4-2": True, "mario-random": True, "mario": False}


# --- stitching ---


def ram_of(left: int, area: int = GROUND, **changes: int) -> Any:
    """The RAM of a frame that Mario plays."""
    ram = np.zeros(memory.RAM_SIZE, dtype=np.uint8)
    ram[memory.MODE], ram[memory.TASK], ram[memory.PLAYER_STATE] = 1, 3, 8
    ram[0xE7], ram[0xE8] = area % 256, area // 256
    ram[0x71A], ram[0x71C] = left // 256, left % 256
    ram[0x74E] = 1 if area == GROUND else 2
    for address, value in changes.items():
        ram[int(address.removeprefix("at_"), 16)] = value
    return ram


def world(width: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(1, 255, size=(208, width, 3), dtype=np.uint8)


def screen(level: Any, left: int, sprite: int | None = None) -> Any:
    """What the console shows of a level, below the status; a sprite stands at x of the screen."""
    picture = np.full((240, 256, 3), 7, dtype=np.uint8)
    picture[STATUS_ROWS:] = level[:, left : left + 256]
    if sprite is not None:
        picture[180:196, sprite : sprite + 16] = 0
    return picture


def test_pictures_are_put_together_and_what_moves_is_left_out() -> None:
    level = world(1000)
    stitcher = Stitcher()
    lefts = [0] * 40 + list(range(0, 744, 3))
    for number, (before, left) in enumerate(itertools.pairwise(lefts)):
        # A picture shows where the screen was one frame earlier.
        stitcher.add(ram_of(left), screen(level, before, sprite=(37 * number) % 240))
    panorama = stitcher.panorama(Area(1, 1, GROUND))
    assert panorama.shape[0] == 208
    assert 950 <= panorama.shape[1] <= 1000
    # At both ends few pictures show a column.
    inner = slice(100, 850)
    assert np.array_equal(panorama[:, inner], level[:, inner])


def test_what_nobody_has_seen_is_dark() -> None:
    level = world(1200)
    stitcher = Stitcher()
    for left in [*[10] * 20, *[800] * 20]:
        stitcher.add(ram_of(left), screen(level, left))
    panorama = stitcher.panorama(Area(1, 1, GROUND))
    assert not panorama[:, :10].any()
    assert np.array_equal(panorama[:, 10:266], level[:, 10:266])
    assert not panorama[:, 266:800].any()
    assert np.array_equal(panorama[:, 800:], level[:, 800:1056])


def test_areas_are_kept_apart_and_nothing_is_taken_of_what_is_between_them() -> None:
    ground, room = world(256, 1), world(256, 2)
    stitcher = Stitcher()
    for _ in range(20):
        stitcher.add(ram_of(0), screen(ground, 0))
    # A pipe, a black screen, the demonstration, and the first frame in the room.
    stitcher.add(ram_of(0, at_0e=3), screen(ground, 0))
    for changes in ({"at_772": 0}, {"at_770": 0}, {"at_0e": 0}):
        stitcher.add(ram_of(0, ROOM, **changes), np.zeros((240, 256, 3), dtype=np.uint8))
    stitcher.add(ram_of(0, ROOM), np.zeros((240, 256, 3), dtype=np.uint8))
    for _ in range(20):
        stitcher.add(ram_of(0, ROOM), screen(room, 0))
    assert stitcher.kinds == {Area(1, 1, GROUND): 1, Area(1, 1, ROOM): 2}
    assert np.array_equal(stitcher.panorama(Area(1, 1, GROUND)), ground)
    assert np.array_equal(stitcher.panorama(Area(1, 1, ROOM)), room)


# --- maps ---


def walk(actions: Sequence[int], told: tuple[int, Outcome], end: str = "terminated") -> Walk:
    step, outcome = told
    return Walk(0, np.array(actions[: step + 1]), end, outcome)


def shown(config: EnvConfig, walks: Sequence[Walk]) -> Map:
    draw = find_env(config.id).draw_map
    assert draw is not None
    return draw(config, walks)


@needs_mario
def test_the_map_of_1_1() -> None:
    config = resolved(num_envs=2)
    told = play(make_vector_env(find_env("mario-1-1"), config, 2), RIGHT, WAY)
    walks = [walk(RIGHT, told[0]), walk(WAY, told[1]), walk(RIGHT, told[0])]
    drawn = shown(config, walks)
    (part,) = drawn.parts
    x = float(told[0][1].values["x_pos"])
    assert part.ends == [(x, "failed"), (3161.0, "completed"), (x, "failed")]
    assert (part.title, drawn.note) == ("1-1", "")
    height, width, _ = part.picture.shape
    assert height == 208
    assert 3300 < width <= 3376  # the castle too, but for what nobody could see
    # The game's own pictures on the way lie on the map where the RAM says.
    seen: list[tuple[int, Any]] = []
    env: Any = make_env("mario-1-1", config, lambda picture: seen.append((edge(), picture)))

    def edge() -> int:
        return Memory(env.unwrapped.ram).left_edge

    env.reset(seed=0)
    for action in WAY[:400]:
        env.step(action)
    env.close()
    for number in range(50, len(seen), 100):
        left, picture = seen[number - 1][0], seen[number][1][STATUS_ROWS:]
        same = (part.picture[:, left : left + 256] == picture).all(axis=-1)
        assert same.mean() > 0.97  # Mario, enemies and what glitters are not there
        beside = (part.picture[:, left + 2 : left + 258] == picture).all(axis=-1)
        assert beside.mean() < same.mean()


@needs_mario
def test_each_stage_of_many_has_a_picture_of_its_own() -> None:
    config = resolved(env_id="mario-random", kwargs={"stages": ["1-1", "2-2"], "stall_steps": 30})
    env = make_vector_env(find_env("mario-random"), config, 1)
    walks = []
    for seed in range(6):
        env.reset(np.ones(1, dtype=np.bool_), [seed])
        actions: list[int] = []
        outcomes: Any = {}
        while not outcomes:
            actions.append(1)
            env.send(np.array([1]))
            step = env.recv()
            outcomes = step.outcomes
        end = "terminated" if step.terminated[0] else "truncated"
        walks.append(Walk(seed, np.array(actions), end, outcomes[0]))
    env.close()
    drawn = shown(config, walks)
    assert [part.title for part in drawn.parts] == ["1-1", "2-2"]
    assert sum(len(part.ends) for part in drawn.parts) == 6
    blue = [part.picture[100:150].reshape(-1, 3).mean(axis=0) for part in drawn.parts]
    assert not np.allclose(*blue, atol=20)  # the sky, and the sea


@needs_mario
def test_more_places_than_fit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlagents.envs.mario.level_map.MOST_PARTS", 1)
    config = resolved()
    told = play(make_vector_env(find_env("mario-1-1"), config, 1), RIGHT)[0]
    elsewhere = Outcome({**told[1].values, "area": 1}, False)
    walks = [walk(RIGHT, told), walk(RIGHT, told), walk(RIGHT, (told[0], elsewhere))]
    drawn = draw_map(lambda watch: make_env("mario-1-1", config, watch), walks)
    assert [len(part.ends) for part in drawn.parts] == [2]
    assert drawn.note == "1 of 3 episodes ended elsewhere"
