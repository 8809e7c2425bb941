"""Maps: pictures of the places that episodes lead through, and where in them episodes ended.

Whether there is one, and what it looks like, is the environment's own business
(`EnvSpec.draw_map`); here is what it returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from rlagents.types import Array, IntArray, Outcome

EndKind = Literal["completed", "failed", "cut off"]


class Walk(NamedTuple):
    """An episode that was played, to be drawn on a map."""

    seed: int  # of the reset that began it
    actions: IntArray  # [T]
    end: str  # "terminated" or "truncated"
    outcome: Outcome | None

    @property
    def kind(self) -> EndKind:
        """Return how it ended."""
        if self.outcome is not None and self.outcome.success:
            return "completed"
        return "failed" if self.end == "terminated" else "cut off"


class MapEnd(NamedTuple):
    """Where an episode ended."""

    x: float  # in pixels of the picture, from its left edge
    kind: EndKind


class MapPart(NamedTuple):
    """One of the places, as a picture."""

    title: str
    picture: Array  # [H, W, 3] uint8 RGB
    ends: Sequence[MapEnd]  # of the episodes that ended in it


class Map(NamedTuple):
    """All that is shown of a map."""

    parts: Sequence[MapPart]
    words: dict[EndKind, str]  # what the kinds of ends are called
    note: str = ""  # what is not shown
