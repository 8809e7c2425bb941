"""Tiles: several episodes, played together, in one picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from rlagents.errors import UsageError
from rlagents.takes import Moment, Take
from rlagents.types import Array

MAX_TILES = 64  # each is a game that runs; more could hardly be told apart
MAX_HEIGHT, MAX_WIDTH = 2304, 4096  # H.264 level 5.1, which players are prepared for
GAP = 4  # black pixels between tiles: fields of one colour would run into each other
_SCREEN = 16 / 9
_DIM = 0.35  # how bright the last picture of an episode is that is over


def arrange(count: int, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns for tiles of a size: most like a screen, with few empty places."""

    def unlike(columns: int) -> float:
        rows = math.ceil(count / columns)
        aspect = columns * width / (rows * height)
        empty = rows * columns / count - 1
        return abs(math.log(aspect / _SCREEN)) + empty

    columns = min(range(1, count + 1), key=unlike)
    return math.ceil(count / columns), columns


def whole_size(count: int, height: int, width: int) -> tuple[int, int]:
    """Return height and width of the picture that tiles of a size make."""
    rows, columns = arrange(count, height, width)
    return rows * (height + GAP) - GAP, columns * (width + GAP) - GAP


def fits(count: int, height: int, width: int) -> bool:
    """Return whether tiles of a size make a picture that can be encoded and played."""
    whole_height, whole_width = whole_size(count, height, width)
    return whole_height <= MAX_HEIGHT and whole_width <= MAX_WIDTH


class Tiles:
    """Shows takes in rows and columns, from left to right and from the top to the bottom.

    Args:
        takes: of players of one environment; all begin at once, and the last picture of one that
            is over stays, darker.
        develop: makes a frame's picture at a scale.
        scale: the largest that is wanted; a smaller one is taken where the whole would be too
            large.

    Raises:
        UsageError: even at scale 1 it would be.
    """

    def __init__(
        self, takes: Sequence[Take], develop: Callable[[Moment, int], Array], scale: int
    ) -> None:
        self._moments = [iter(take) for take in takes]
        self._first = [next(moments) for moments in self._moments]
        count = len(takes)
        for self._scale in range(scale, 0, -1):
            height, width = develop(self._first[0], self._scale).shape[:2]
            if fits(count, height, width):
                break
        else:
            most = max(n for n in range(count) if n == 0 or fits(n, height, width))
            raise UsageError(
                f"--episodes: {count} tiles of {width}x{height} pixels are more than the "
                f"{MAX_WIDTH}x{MAX_HEIGHT} that players show; take at most {most}."
            )
        self._develop = develop
        self.rows, self.columns = arrange(count, height, width)
        self._height, self._width = height, width
        self._size = whole_size(count, height, width)

    def pictures(self, shows: Callable[[int], bool]) -> Iterator[Array]:
        """Play all takes to their ends and yield the pictures whose numbers `shows` asks for."""
        number = 0
        moments: list[Moment | None] = list(self._first)
        last = list(self._first)
        dark: dict[int, Array] = {}
        while any(moment is not None for moment in moments):
            if shows(number):
                # A new one each time: whoever took the last one may still hold it.
                whole = np.zeros((*self._size, 3), dtype=np.uint8)
                for tile, moment in enumerate(moments):
                    if moment is None and tile not in dark:
                        dark[tile] = self._darken(last[tile])
                    picture = dark[tile] if moment is None else self._picture(moment)
                    row, column = divmod(tile, self.columns)
                    top, left = row * (self._height + GAP), column * (self._width + GAP)
                    whole[top : top + self._height, left : left + self._width] = picture
                yield whole
            number += 1
            for tile, taking in enumerate(self._moments):
                moments[tile] = None if moments[tile] is None else next(taking, None)
                last[tile] = moments[tile] or last[tile]

    def _picture(self, moment: Moment) -> Array:
        return self._develop(moment, self._scale)

    def _darken(self, moment: Moment) -> Array:
        return (self._picture(moment) * _DIM).astype(np.uint8)
