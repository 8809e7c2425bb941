"""The strip below a picture: return so far, step, action, and the value it was chosen by."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rlagents.agents.base import ValueKind
from rlagents.takes import Moment
from rlagents.types import Array

_SMALLEST = 11  # pixels, below which letters cannot be read
_SHARE = 28  # a picture is as wide as so many letters are tall, unless these would be too small
_BACKGROUND, _LABEL, _INK = (16, 16, 16), (150, 150, 150), (255, 255, 255)
_VALUE_LABELS = {"action values": "value", "probabilities": "p"}


class _Field(NamedTuple):
    """What is shown at one place of the strip."""

    label: str
    longest: str  # whatever the text, a field keeps its place, so there is room for this


class _Layout(NamedTuple):
    """Where the fields of a strip are."""

    font: ImageFont.FreeTypeFont
    width: int
    height: int
    places: list[tuple[int, int]]  # of each field: left edge and baseline


class Caption:
    """Draws a strip below pictures; a `Lens` of `rlagents.film`.

    Args:
        action_names: of the agent's actions; their numbers are shown if None.
        num_actions: how many there are.
        values_are: what the actions are chosen by; None if that is not known, and not shown.
    """

    def __init__(
        self, action_names: Sequence[str] | None, num_actions: int, values_are: ValueKind | None
    ) -> None:
        numbers = [str(number) for number in range(num_actions)]
        self._names = numbers if action_names is None else list(action_names)
        self._fields = [
            _Field("return", "-123456"),
            _Field("step", "123456"),
            _Field("action" if action_names is None else "", max(self._names, key=len)),
        ]
        if values_are is not None:
            self._fields.append(_Field(_VALUE_LABELS[values_are], "-12.345"))
        self._strip = functools.lru_cache(maxsize=256)(self._draw)  # a step has several frames

    def __call__(self, picture: Array, moment: Moment) -> Array:
        """Return the picture, [H, W, 3] uint8, with a strip below it; its height is even.

        A picture that is too narrow for legible letters is put into the middle of a wider one.
        """
        action, values = moment.action, moment.values
        texts = [_number(moment.episodic_return), str(moment.step), "", ""]
        if action is not None:
            texts[2] = self._names[action]
        if action is not None and values is not None:
            texts[3] = f"{values[action]:.3f}"
        height, width = picture.shape[:2]
        strip = self._strip(tuple(texts[: len(self._fields)]), width, height % 2)
        missing = strip.shape[1] - width
        if missing:
            beside = ((0, 0), (missing // 2, missing - missing // 2), (0, 0))
            picture = np.pad(picture, beside)
        return np.concatenate([picture, strip])

    def _draw(self, texts: tuple[str, ...], width: int, odd: int) -> Array:
        """Return the strip for a picture of a width: [H, W, 3] uint8; `odd` says what H is."""
        layout = _arrange(tuple(self._fields), width)
        height = layout.height + (layout.height + odd) % 2
        strip = Image.new("RGB", (layout.width, height), _BACKGROUND)
        draw = ImageDraw.Draw(strip)
        for field, text, (left, baseline) in zip(self._fields, texts, layout.places, strict=True):
            label = f"{field.label} " if field.label else ""
            draw.text((left, baseline), label, _LABEL, layout.font, anchor="ls")
            left += round(layout.font.getlength(label))
            draw.text((left, baseline), text, _INK, layout.font, anchor="ls")
        return np.asarray(strip)


@functools.cache
def _arrange(fields: tuple[_Field, ...], width: int) -> _Layout:
    """Return where fields go below a picture: as many in a row as there is room for."""
    size = max(_SMALLEST, width // _SHARE)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # it is where a size is given
    gap = size
    margin = gap // 2
    widths = [round(font.getlength(f"{field.label} {field.longest}".strip())) for field in fields]
    width = max(width, max(widths) + 2 * margin)
    line = round(1.4 * size)
    rows: list[list[int]] = [[]]
    for number, own in enumerate(widths):
        used = sum(widths[other] + gap for other in rows[-1])
        if rows[-1] and used + own + 2 * margin > width:
            rows.append([])
        rows[-1].append(number)
    places = []
    for number, row in enumerate(rows):
        # What room is left stands between the fields, so that they begin and end with the picture.
        spare = width - 2 * margin - sum(widths[field] for field in row)
        space = spare // (len(row) - 1) if len(row) > 1 else 0
        left = margin
        for field in row:
            places.append((left, margin + number * line + size))
            left += widths[field] + space
    return _Layout(font, width, 2 * margin + len(rows) * line, places)


def _number(value: float) -> str:
    """Return the text of a return, which may be no number: whole where it is, else two decimals."""
    return f"{value:.0f}" if value.is_integer() else f"{value:.2f}"
