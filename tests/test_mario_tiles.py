"""The tile view of Super Mario Bros., from RAM made by hand and from the game itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mario_tools import needs_mario, way_through_1_1

from rlagents.envs.mario import MarioEnv
from rlagents.envs.mario.tiles import (
    COLUMNS,
    ENEMY,
    MARIO_COLUMN,
    NUMBERS,
    PLANE_SIZE,
    PLANES,
    PLATFORM,
    POWER_UP,
    ROWS,
    SOLID,
    TILE_SIZE,
    tile_grid,
)

Ram = np.ndarray[Any, Any]


def mario(x: int, y: int) -> Ram:
    """Return the RAM of an empty area with Mario at a place, y from the top of the screen."""
    ram = np.zeros(2048, dtype=np.uint8)
    ram[0x6D], ram[0x86] = x // 256, x % 256
    ram[0xB5], ram[0xCE] = 1 + y // 256, y % 256
    return ram


def put_tile(ram: Ram, column: int, row: int, tile: int) -> None:
    """Write a tile as the game lays them out: two pages, each row by row."""
    ram[0x500 + 208 * (column // 16 % 2) + 16 * row + column % 16] = tile


def put_object(ram: Ram, slot: int, kind: int, x: int, y: int, **more: int) -> None:
    ram[0x0F + slot], ram[0x16 + slot] = 1, kind
    ram[0x6E + slot], ram[0x87 + slot] = x // 256, x % 256
    ram[0xB6 + slot], ram[0xCF + slot] = 1, y
    ram[0x1E + slot], ram[0x58 + slot] = more.get("state", 0), more.get("speed", 0) % 256


def look(ram: Ram) -> tuple[np.ndarray[Any, Any], dict[str, float]]:
    """Return the planes [4, 13, 16], and the numbers by name."""
    (values,) = tile_grid(ram[None])
    planes = values[: len(PLANES) * PLANE_SIZE].reshape(len(PLANES), ROWS, COLUMNS)
    return planes, dict(zip(NUMBERS, values[len(PLANES) * PLANE_SIZE :].tolist(), strict=True))


def cells(plane: np.ndarray[Any, Any]) -> set[tuple[int, int]]:
    """Return row and column of each cell that is set."""
    assert set(np.unique(plane)) <= {0.0, 1.0}
    return {(int(row), int(column)) for row, column in np.argwhere(plane)}


def test_size() -> None:
    assert 4 * 13 * 16 + len(NUMBERS) == TILE_SIZE
    assert len(set(NUMBERS)) == len(NUMBERS)
    assert COLUMNS - 1 - MARIO_COLUMN >= 10  # columns ahead of Mario
    empty = tile_grid(np.zeros((3, 2048), dtype=np.uint8))
    assert empty.shape == (3, TILE_SIZE)
    assert empty.dtype == np.float32


@pytest.mark.parametrize("x", [160, 8 * 16, 31 * 16, 32 * 16, 200 * 16])
def test_tiles_stand_where_they_are_to_mario(x: int) -> None:
    ram = mario(x, 176)
    put_tile(ram, x // 16, 11, 0x54)  # below him
    put_tile(ram, x // 16 + 10, 3, 0xC0)
    put_tile(ram, x // 16 - 5, 0, 0x51)
    planes, _ = look(ram)
    assert cells(planes[SOLID]) == {(11, 5), (3, 15), (0, 0)}


def test_the_cell_that_holds_more_of_him() -> None:
    seen = []
    for x in (160, 167, 168, 175, 176):
        ram = mario(x, 176)
        put_tile(ram, 12, 5, 0x51)
        planes, numbers = look(ram)
        seen.append((next(iter(cells(planes[SOLID]))), numbers["x in cell"]))
    assert [column for (_, column), _ in seen] == [7, 7, 6, 6, 6]
    assert [16 * within for _, within in seen] == [8, 15, 0, 7, 8]


@pytest.mark.parametrize("tile", [0x24, 0x25, 0x26, 0x5F, 0x60, 0xC2, 0xC3, 0xC5])
def test_what_has_no_body(tile: int) -> None:
    ram = mario(160, 176)
    put_tile(ram, 12, 5, tile)
    assert not look(ram)[0].any()
    put_tile(ram, 12, 5, 0xC4)
    assert cells(look(ram)[0][SOLID]) == {(5, 7)}


def test_left_of_an_area_is_nothing() -> None:
    ram = mario(16, 176)
    ram[0x500:0x6A0] = 0x54
    planes, _ = look(ram)
    assert cells(planes[SOLID]) == {(row, column) for row in range(13) for column in range(4, 16)}


@pytest.mark.parametrize(
    ("kind", "plane", "expected"),
    [
        (0x06, ENEMY, {(10, 7)}),  # a goomba on the ground
        (0x00, ENEMY, {(10, 7)}),
        (0x0D, ENEMY, {(10, 7)}),  # a plant
        (0x2D, ENEMY, {(10, 7)}),  # Bowser
        (0x2E, POWER_UP, {(10, 7)}),
        (0x25, PLATFORM, {(9, 7), (9, 8), (9, 9)}),
        (0x2B, PLATFORM, {(9, 7)}),
        (0x32, PLATFORM, {(10, 7)}),
        (0x30, ENEMY, set()),  # the flag
        (0x16, ENEMY, set()),  # fireworks
        (0x35, ENEMY, set()),  # whoever is saved
    ],
)
def test_objects(kind: int, plane: int, expected: set[tuple[int, int]]) -> None:
    ram = mario(160, 176)
    put_object(ram, 2, kind, 192, 184)
    planes, _ = look(ram)
    assert cells(planes[plane]) == expected
    planes[plane] = 0
    assert not planes.any()


@pytest.mark.parametrize(
    ("kind", "state", "there"),
    [(0x06, 0, True), (0x06, 4, False), (0x00, 4, True), (0x00, 0x20, False), (0x06, 0x22, False)],
)
def test_what_is_defeated_is_gone(kind: int, state: int, there: bool) -> None:
    ram = mario(160, 176)
    put_object(ram, 0, kind, 192, 184, state=state)
    planes, numbers = look(ram)
    assert planes[ENEMY].any() == there
    assert numbers["enemy 0 there"] == there


def test_an_empty_slot_and_what_is_far_away() -> None:
    ram = mario(160, 176)
    put_object(ram, 0, 0x06, 192, 184)
    ram[0x0F] = 0
    put_object(ram, 1, 0x06, 1000, 184)
    planes, numbers = look(ram)
    assert not planes.any()
    assert numbers["enemy 0 right of Mario"] == 2.0  # as far as it goes


def test_the_nearest_enemies() -> None:
    ram = mario(160, 176)
    for slot, x in enumerate((300, 128, 192, 224, 170)):
        put_object(ram, slot, 0x06, x, 184, speed=-8 * slot)
    put_object(ram, 5, 0x2E, 164, 184)  # no enemy
    _, numbers = look(ram)
    assert [numbers[f"enemy {number} right of Mario"] for number in range(3)] == [
        *(10 / 128, -32 / 128, 32 / 128),
    ]
    assert [numbers[f"enemy {number} speed right"] for number in range(3)] == [-1, -0.25, -0.5]
    assert numbers["enemy 0 below Mario"] == 0.0


def test_his_state() -> None:
    ram = mario(160, 176)
    _, numbers = look(ram)
    assert {name for name, value in numbers.items() if value} == {
        *("row 10", "x in cell", "y in cell", "on the ground"),
    }
    for address, value, name, expected in (
        (0x57, 40, "speed right", 1.0),
        (0x57, 256 - 20, "speed right", -0.5),
        (0x9F, 256 - 4, "speed down", -1.0),
        (0x9F, 2, "speed down", 0.5),
        (0x1D, 1, "jumping", 1.0),
        (0x1D, 2, "falling", 1.0),
        (0x1D, 3, "climbing", 1.0),
        (0x756, 1, "tall", 1.0),
        (0x756, 2, "fireball", 1.0),
        (0x714, 4, "crouching", 1.0),
        (0x33, 1, "faces right", 1.0),
        (0x704, 1, "swimming", 1.0),
        (0x79F, 9, "invincible", 1.0),
        (0x79E, 9, "just hurt", 1.0),
        (0x0D, 0x80, "A held", 1.0),
        (0x0D, 0x40, "B held", 1.0),
    ):
        changed = ram.copy()
        changed[address] = value
        assert look(changed)[1][name] == expected, name
        assert look(ram)[1][name] != expected, name


def test_above_and_below_the_screen() -> None:
    for y in (-40, 300):
        planes, numbers = look(mario(160, y))
        assert not any(value for name, value in numbers.items() if name.startswith("row"))
        assert not planes.any()


def test_many_games_at_once_are_each_alone() -> None:
    generator = np.random.default_rng(0)
    ram = generator.integers(256, size=(20, 2048), dtype=np.uint8)
    together = tile_grid(ram)
    assert np.isfinite(together).all()
    assert np.abs(together).max() <= 32.0
    for index in range(20):
        assert np.array_equal(tile_grid(ram[index : index + 1])[0], together[index])


@needs_mario
def test_what_is_ahead_stays_as_it_was_seen() -> None:
    """The last column ahead lies beyond the screen; the game must have laid it out by then."""
    env = MarioEnv(1, 1, observation="tiles", backend="nes-py")
    env.reset(seed=1)
    ahead: dict[int, bytes] = {}
    compared = set()
    for action in way_through_1_1()[:150]:
        observation, *_ = env.step(action)
        solid = observation[:PLANE_SIZE].reshape(ROWS, COLUMNS)
        assert env._game is not None
        ram = env._game.console.ram
        first = (256 * int(ram[0x6D]) + int(ram[0x86]) + 8) // 16 - MARIO_COLUMN
        ahead.setdefault(first + 15, solid[:, 15].tobytes())
        if first + 7 in ahead:
            assert solid[:, 7].tobytes() == ahead[first + 7]
            compared.add(first + 7)
    assert len(compared) > 30
    assert len({ahead[column] for column in compared}) > 3  # pipes, blocks, ground
    env.close()


@needs_mario
def test_the_start_of_1_1() -> None:
    env = MarioEnv(1, 1, observation="tiles", backend="nes-py")
    observation, _ = env.reset(seed=1)
    solid = observation[:PLANE_SIZE].reshape(ROWS, COLUMNS)
    # x = 40, column 3: the area begins at the plane's column 2. Ground, and nothing else yet.
    assert cells(solid) == {(row, column) for row in (11, 12) for column in range(2, 16)}
    assert observation[4 * PLANE_SIZE + NUMBERS.index("row 10")] == 1
    env.close()
