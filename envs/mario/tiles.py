"""What the RAM says about the screen, as numbers that a small network can learn from.

The observation has two parts, all of it float32 and small:

    four planes of 13 x 16 cells, 1 where there is something, else 0; row by row
        SOLID      what Mario stands on or runs against
        ENEMY      what hurts
        POWER_UP   mushrooms, flowers, stars
        PLATFORM   lifts, and springs
    numbers (`NUMBERS` names them): Mario's row, where he stands within his cell, his speeds and
        state, and the three nearest enemies with their distances and speed

A cell is one of the game's tiles, 16 x 16 pixels, and rows are the game's. Columns go with Mario:
he is always in column 5, so that there are 10 ahead of him, the last of them just beyond the right
edge of the screen.

The addresses are those of public RAM maps and disassemblies of the game (docs/mario.md). All
functions take the RAM of N games at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rlagents.types import Array, BoolArray, FloatArray, IntArray

ROWS, COLUMNS = 13, 16
MARIO_COLUMN = 5
PLANES = ("solid", "enemy", "power-up", "platform")
SOLID, ENEMY, POWER_UP, PLATFORM = range(len(PLANES))
NEAREST = 3  # enemies

_TILES = 0x500  # two pages of 13 rows of 16 tiles
_PAGE = ROWS * COLUMNS
_TOP = 32  # pixels above the first row
_SLOTS = 6  # the last one is the power-ups'
# Tiles without a body: the flagpole and vines, hidden blocks, coins, the axe at a castle's end.
_NOT_SOLID = (0x00, 0x24, 0x25, 0x26, 0x5F, 0x60, 0xC2, 0xC3, 0xC5)

# What the kinds of objects in the slots are; anything else is left out (flags, fireworks, scores).
_POWER_UP_KINDS = (0x2E,)
_LIFT_KINDS = tuple(range(0x24, 0x2B))  # three cells wide
_SMALL_LIFT_KINDS = (0x2B, 0x2C)
_SPRING_KINDS = (0x32,)
_ENEMY_KINDS = (*range(0x00, 0x16), *range(0x1B, 0x24), 0x2D, 0x33)
_DEFEATED = 0x20  # a bit of an enemy's state
_STOMPED = 4  # a state of those that are flat, or in their shells
_GOOMBA = 0x06

NUMBERS = (
    *(f"row {row}" for row in range(ROWS)),  # one-hot: the row of Mario's feet
    *("x in cell", "y in cell", "speed right", "speed down"),
    *("on the ground", "jumping", "falling", "climbing"),
    *("tall", "fireball", "crouching", "faces right", "swimming", "invincible", "just hurt"),
    *("A held", "B held"),  # a jump begins only where A was not held before
    *(
        f"enemy {number} {what}"
        for number in range(NEAREST)
        for what in ("there", "right of Mario", "below Mario", "speed right")
    ),
)
PLANE_SIZE = ROWS * COLUMNS
TILE_SIZE = len(PLANES) * PLANE_SIZE + len(NUMBERS)


def _table(numbers: tuple[int, ...]) -> BoolArray:
    """Return which bytes are among `numbers`: [256] bool."""
    found = np.zeros(256, dtype=np.bool_)
    found[list(numbers)] = True
    return found


_SOLID_TILES = ~_table(_NOT_SOLID)
_IS_ENEMY, _IS_POWER_UP = _table(_ENEMY_KINDS), _table(_POWER_UP_KINDS)
_IS_LIFT, _IS_SMALL_LIFT = _table(_LIFT_KINDS), _table(_SMALL_LIFT_KINDS)
_IS_SPRING = _table(_SPRING_KINDS)


class _Objects(NamedTuple):
    """What is in the game's slots: each [N, 6]."""

    kind: IntArray
    there: BoolArray  # something that matters
    x: IntArray  # of its left edge, in pixels of the area
    y: IntArray  # of its upper edge, in pixels of the screen
    speed: IntArray  # to the right, in sixteenths of a pixel


def tile_grid(ram: Array) -> FloatArray:
    """Return the observation of each game.

    Args:
        ram: [N, 2048] uint8.

    Returns:
        [N, TILE_SIZE] float32: the planes one after the other, then the numbers.
    """
    memory = ram.astype(np.int64)
    size = len(memory)
    x, y = _mario(memory)
    # A Mario between two cells is in the one that holds more of him.
    first = (x + 8) // 16 - MARIO_COLUMN  # the area's column at the left edge of the planes
    objects = _objects(memory)
    planes = np.zeros((size, len(PLANES), ROWS, COLUMNS), dtype=np.float32)
    planes[:, SOLID] = _solid(memory, first)
    for plane, kinds, places in (
        (ENEMY, _IS_ENEMY, ((8, 16),)),
        (POWER_UP, _IS_POWER_UP, ((8, 16),)),
        (PLATFORM, _IS_LIFT, ((8, 4), (24, 4), (40, 4))),
        (PLATFORM, _IS_SMALL_LIFT, ((8, 4),)),
        (PLATFORM, _IS_SPRING, ((8, 16),)),
    ):
        chosen = objects.there & kinds[objects.kind]
        for right, down in places:
            _mark(planes[:, plane], chosen, objects.x + right, objects.y + down, first)
    numbers = [_state(memory, x, y), _nearest(objects, x, y)]
    return np.concatenate([planes.reshape(size, -1), *numbers], axis=1, dtype=np.float32)


def _signed(value: IntArray) -> IntArray:
    """Return bytes as two's complement has them."""
    return (value ^ 0x80) - 0x80


def _mario(memory: IntArray) -> tuple[IntArray, IntArray]:
    """Return Mario's left edge in the area, and on the screen the top of two cells: [N] each."""
    return 256 * memory[:, 0x6D] + memory[:, 0x86], 256 * (memory[:, 0xB5] - 1) + memory[:, 0xCE]


def _solid(memory: IntArray, first: IntArray) -> BoolArray:
    """Return which cells have a body, from an area's column on: [N, 13, 16]."""
    columns = first[:, None] + np.arange(COLUMNS)  # [N, 16]
    begins = _TILES + _PAGE * (columns // 16 % 2) + columns % 16
    addresses = begins[:, None, :] + 16 * np.arange(ROWS)[:, None]  # [N, 13, 16]
    tiles = memory[np.arange(len(memory))[:, None, None], addresses]
    return _SOLID_TILES[tiles] & (columns >= 0)[:, None, :]


def _objects(memory: IntArray) -> _Objects:
    """Return what is in the slots, without what is defeated."""
    slots = np.arange(_SLOTS)
    kind, state = memory[:, 0x16 + slots], memory[:, 0x1E + slots]
    flat = (kind == _GOOMBA) & (state == _STOMPED)
    return _Objects(
        kind,
        (memory[:, 0x0F + slots] != 0) & (state & _DEFEATED == 0) & ~flat,
        256 * memory[:, 0x6E + slots] + memory[:, 0x87 + slots],
        256 * (memory[:, 0xB6 + slots] - 1) + memory[:, 0xCF + slots],
        _signed(memory[:, 0x58 + slots]),
    )


def _mark(plane: FloatArray, chosen: BoolArray, x: IntArray, y: IntArray, first: IntArray) -> None:
    """Put a 1 into the cell of each place that is chosen, where the plane has that cell.

    Args:
        plane: [N, 13, 16], changed.
        chosen: [N, 6].
        x: [N, 6] in the area.
        y: [N, 6] on the screen.
        first: [N] the area's column at the plane's left edge.
    """
    column, row = x // 16 - first[:, None], (y - _TOP) // 16
    inside = (column >= 0) & (column < COLUMNS) & (row >= 0) & (row < ROWS)
    game, slot = np.nonzero(chosen & inside)
    plane[game, row[game, slot], column[game, slot]] = 1.0


def _state(memory: IntArray, x: IntArray, y: IntArray) -> Array:
    """Return Mario's part of the numbers: [N, len(NUMBERS) - 4 * NEAREST]."""
    feet = y + 24 - _TOP  # the middle of his lower cell
    rows = feet[:, None] // 16 == np.arange(ROWS)
    floating, status = memory[:, 0x1D], memory[:, 0x756]
    single = (
        (x + 8) % 16 / 16,
        feet % 16 / 16,
        _signed(memory[:, 0x57]) / 40,  # 28 is as fast as he walks, 48 as he runs
        _signed(memory[:, 0x9F]) / 4,
        *(floating == state for state in range(4)),
        status == 1,
        status >= 2,
        memory[:, 0x714] != 0,
        memory[:, 0x33] == 1,
        memory[:, 0x704] != 0,
        memory[:, 0x79F] != 0,
        memory[:, 0x79E] != 0,
        memory[:, 0x0D] & 0x80 != 0,
        memory[:, 0x0D] & 0x40 != 0,
    )
    return np.concatenate([rows, np.stack(single, axis=1)], axis=1)


def _nearest(objects: _Objects, x: IntArray, y: IntArray) -> Array:
    """Return the three nearest enemies' part of the numbers: [N, 4 * NEAREST], 0 for none."""
    there = objects.there & _IS_ENEMY[objects.kind]
    right = objects.x - x[:, None]
    down = (objects.y + 16) - (y[:, None] + 24)
    distance = np.where(there, np.abs(right) + np.abs(down), 1 << 20)
    order = np.argsort(distance, axis=1, kind="stable")[:, :NEAREST]
    values = np.stack(
        [
            there,
            np.clip(right / 128, -2, 2),
            np.clip(down / 128, -2, 2),
            objects.speed / 32,
        ],
        axis=2,
    )  # [N, 6, 4]
    values = values * there[:, :, None]
    chosen = np.take_along_axis(values, order[:, :, None], axis=1)
    return chosen.reshape(len(chosen), -1)
