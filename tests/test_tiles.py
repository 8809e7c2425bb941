"""Tiles: how many go where, and what is too large."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from rlagents.errors import UsageError
from rlagents.takes import Moment
from rlagents.tiles import MAX_HEIGHT, MAX_TILES, MAX_WIDTH, Tiles, arrange, fits


@pytest.mark.parametrize(
    ("count", "height", "width", "expected"),
    [
        (9, 90, 160, (3, 3)),  # of a screen's own aspect
        (4, 90, 160, (2, 2)),
        (9, 210, 160, (2, 5)),  # 800 to 420; 3 by 3 would be higher than wide
        (2, 210, 160, (1, 2)),
        (2, 100, 600, (2, 1)),
        (9, 400, 600, (3, 3)),
        (1, 210, 160, (1, 1)),
    ],
)
def test_tiles_look_most_like_a_screen(
    count: int, height: int, width: int, expected: tuple[int, int]
) -> None:
    assert arrange(count, height, width) == expected


@pytest.mark.parametrize("count", range(1, MAX_TILES + 1))
def test_there_is_a_place_for_each_and_no_empty_row(count: int) -> None:
    rows, columns = arrange(count, 210, 160)
    assert (rows - 1) * columns < count <= rows * columns


class Frames:
    """Takes for what only asks for their first frame."""

    def __init__(self, count: int, height: int, width: int) -> None:
        frame = np.zeros((height, width, 3), dtype=np.uint8)
        self.takes = [[Moment(frame, 0, None, None, None, 0.0)] for _ in range(count)]

    def tiles(self, scale: int) -> Tiles:
        return Tiles(
            self.takes,  # type: ignore[arg-type]
            lambda moment, scale: np.repeat(np.repeat(moment.frame, scale, 0), scale, 1),
            scale,
        )

    def size(self, scale: int) -> tuple[int, ...]:
        return next(iter(self.tiles(scale).pictures(lambda _: True))).shape


def test_the_scale_is_reduced_until_the_whole_can_be_played() -> None:
    assert Frames(9, 400, 600).size(1) == (1208, 1808, 3)
    assert Frames(9, 400, 600).size(2) == (1208, 1808, 3)  # 2400 rows would be too many
    assert Frames(4, 400, 600).size(2) == (1604, 2404, 3)
    assert Frames(9, 210, 160).size(16) == (2104, 4016, 3)  # 5 times


def test_what_is_too_large_even_so_is_refused_with_what_is_not() -> None:
    with pytest.raises(UsageError, match=r"--episodes: 64 tiles of 600x400 .* at most \d+") as told:
        Frames(64, 400, 600).tiles(2)
    most = int(str(told.value).split()[-1].rstrip("."))
    assert fits(most, 400, 600)
    assert not any(fits(count, 400, 600) for count in range(most + 1, 65))
    Frames(most, 400, 600).tiles(2)


def test_a_grid_of_all_tiles_of_an_atari_game_fits() -> None:
    rows, columns = arrange(MAX_TILES, 210, 160)
    assert rows * 214 - 4 <= MAX_HEIGHT
    assert columns * 164 - 4 <= MAX_WIDTH


def test_a_new_picture_each_time() -> None:
    frames = Frames(2, 10, 10)
    for take in frames.takes:
        take.append(take[0])
    first, second = frames.tiles(1).pictures(lambda _: True)
    assert all(one is not other for one, other in pairwise([first, second]))
