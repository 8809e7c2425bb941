"""Levels as pictures, stitched from what episodes have shown: nothing of the game is kept here.

Episodes are played again from their seeds and actions. Each picture shows 256 columns of an area,
from the left edge that the RAM names; what stands still in most of the pictures of a column is the
level, what moves through them is not. A part of a level that no episode has seen stays dark.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, cast

import gymnasium as gym
import numpy as np

from rlagents.envs.maps import EndKind, Map, MapEnd, MapPart, Walk
from rlagents.envs.mario import memory
from rlagents.envs.mario.env import MarioEnv
from rlagents.envs.mario.memory import Memory
from rlagents.types import Array

# Makes an environment of which each picture is handed to the function given.
Make = Callable[[Callable[[Array], None]], gym.Env[Array, int]]

STATUS_ROWS = 32  # at the top of the picture, which do not scroll
MOST_PARTS = 8
WORDS: dict[EndKind, str] = {
    "completed": "flag",
    "failed": "death",
    "cut off": "cut off by a limit",
}
_GUIDES = 3  # episodes that are looked at, of those that ended in an area
_BLOCK = 16  # columns, of which each begins a few pictures only
_MOST_PICTURES = 5
_PAUSE = 8  # frames between them, in which what moves moves on
_WALK_HOME = 200  # frames behind the flag, which show the castle
_BEHIND_THE_FLAG = (4, 5)  # the states in which he slides down, and walks to the castle
_AREA_KIND = 0x74E
_KINDS = {0: "under water", 1: "above ground", 2: "underground", 3: "castle"}


class Area(NamedTuple):
    """A part of a stage: within it, x means one place."""

    world: int
    stage: int
    number: int  # as `Memory.area_number`


class Stitcher:
    """Puts the pictures of areas together.

    Attributes:
        kinds: of the areas that were seen, the game's number for what they look like.
    """

    def __init__(self) -> None:
        self.kinds: dict[Area, int] = {}
        self._pictures: dict[Area, list[tuple[int, Array]]] = {}  # with their left edges
        self._counts: Counter[tuple[Area, int]] = Counter()  # pictures, by the block they begin in
        self._last: dict[tuple[Area, int], int] = {}  # the time of the last of them
        self._time = 0
        self._next: tuple[Area, int] | None = None  # what the next picture shows, and from where

    def add(self, ram: Array, picture: Array) -> None:
        """Take in a frame.

        The console draws a frame before the game moves on in it, so that the picture shows what
        the RAM said a frame earlier.

        Args:
            ram: uint8 [2048], after the frame.
            picture: [240, 256, 3] uint8 RGB.
        """
        self._time += 1
        shown, self._next = self._next, None
        now = Memory(ram)
        if now[memory.MODE] == 0 or now[memory.TASK] != memory.RUNNING:
            return
        if now[memory.PLAYER_STATE] not in (memory.NORMAL, *_BEHIND_THE_FLAG):
            return
        area = Area(now[memory.WORLD] + 1, now[memory.STAGE] + 1, now.area_number)
        self._next = area, now.left_edge
        if shown is None or shown[0] != area:
            return
        left = shown[1]
        key = area, left // _BLOCK
        if (
            self._counts[key] == _MOST_PICTURES
            or self._time < self._last.get(key, -_PAUSE) + _PAUSE
        ):
            return
        self._counts[key] += 1
        self._last[key] = self._time
        self.kinds[area] = now[_AREA_KIND]
        self._pictures.setdefault(area, []).append((left, picture[STATUS_ROWS:].copy()))

    def panorama(self, area: Area) -> Array:
        """Return an area's picture: [208, W, 3] uint8 RGB; black where nothing was seen.

        Each pixel is the median of all pictures that show it.
        """
        pictures = self._pictures[area]
        height, width = pictures[0][1].shape[:2]
        whole = np.zeros((height, max(left for left, _ in pictures) + width, 3), dtype=np.uint8)
        # Between two neighbouring edges, all columns are shown by the same pictures.
        edges = sorted({edge for left, _ in pictures for edge in (left, left + width)})
        for begin, end in itertools.pairwise(edges):
            shown = [
                picture[:, begin - left : end - left]
                for left, picture in pictures
                if left <= begin and end <= left + width
            ]
            if shown:  # the lower one of two in the middle, so that it is one of the pixels
                middle = (len(shown) - 1) // 2
                whole[:, begin:end] = np.sort(np.stack(shown), axis=0)[middle]
        return whole


def draw_map(make: Make, walks: Sequence[Walk]) -> Map:
    """Return the places in which episodes ended: stage by stage, the fullest of each first.

    Args:
        make: of the environment that they were played in.
        walks: the episodes; each with an outcome that has world, stage, area and x_pos.
    """
    ends: dict[Area, list[MapEnd]] = {}
    for walk in walks:
        area, x = _place(walk)
        ends.setdefault(area, []).append(MapEnd(x, walk.kind))
    fullest = sorted(ends, key=lambda area: -len(ends[area]))[:MOST_PARTS]
    shown = sorted(fullest, key=lambda area: area[:2])  # stable, so by fullness in a stage
    stitcher = Stitcher()
    for walk in _guides(walks, shown):
        _look_at(make, walk, stitcher)
    parts = [
        MapPart(_title(area, stitcher.kinds), stitcher.panorama(area), ends[area])
        for area in shown
        if area in stitcher.kinds
    ]
    missing = len(walks) - sum(len(part.ends) for part in parts)
    note = f"{missing} of {len(walks)} episodes ended elsewhere" if missing else ""
    return Map(parts, WORDS, note)


def _place(walk: Walk) -> tuple[Area, float]:
    """Return where an episode ended: the area, and x in it."""
    assert walk.outcome is not None
    values = walk.outcome.values
    area = Area(int(values["world"]), int(values["stage"]), int(values["area"]))
    return area, float(values["x_pos"])


def _guides(walks: Sequence[Walk], areas: Iterable[Area]) -> list[Walk]:
    """Return the episodes that are looked at: for each area those that came furthest in it."""
    chosen: list[Walk] = []
    for area in areas:
        inside = [walk for walk in walks if _place(walk)[0] == area]
        inside.sort(key=lambda walk: (walk.kind != "completed", -_place(walk)[1]))
        chosen += [walk for walk in inside[:_GUIDES] if walk not in chosen]
    return chosen


def _look_at(make: Make, walk: Walk, stitcher: Stitcher) -> None:
    """Play an episode again, and show all of it to the stitcher."""

    def watch(picture: Array) -> None:
        stitcher.add(game.ram, picture)

    env = make(watch)
    game = cast(MarioEnv, env.unwrapped)
    env.reset(seed=walk.seed)
    for action in walk.actions.tolist():
        env.step(action)
    if walk.kind == "completed":
        game.linger(_WALK_HOME)
    env.close()


def _title(area: Area, kinds: Mapping[Area, int]) -> str:
    """Return what an area is called; of several of a stage that were seen, also what it is."""
    name = f"{area.world}-{area.stage}"
    if sum(other[:2] == area[:2] for other in kinds) == 1:
        return name
    return f"{name}, {_KINDS.get(kinds[area], 'another part')}"
