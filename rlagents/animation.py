"""Animated WebP and GIF, for pages that show pictures but no videos; encoded by Pillow.

Of each picture only the rectangle is written that differs from the picture before, so memory stays
flat, which Pillow's own way of writing animations does not: it holds all pictures. WebP is written
without loss. A GIF has 256 colours, so it is made from a WebP file at the end, when all colours are
known: one palette for all pictures, or still areas would flicker.

The formats: https://developers.google.com/speed/webp/docs/riff_container (animation), and
https://www.w3.org/Graphics/GIF/spec-gif89a.txt.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import GifImagePlugin, Image

from rlagents.types import Array
from rlagents.video import VideoWriter

_COLOURS = 256  # of a GIF
_NUM_RGB = 2**24
_SAMPLED = 64  # pictures that a palette is chosen from where there are more colours than that


class _Waiting(NamedTuple):
    """What is shown since a frame, until one comes that differs."""

    chunks: bytes
    box: tuple[int, int, int, int]  # left, top, right, bottom
    since: int  # frame


class WebpWriter(VideoWriter):
    """Writes an animated WebP file, without loss."""

    def __init__(self, temporary: Path, frames_per_second: float) -> None:
        super().__init__(temporary, frames_per_second)
        self._file: BinaryIO | None = None
        self._shown: Array | None = None
        self._waiting: _Waiting | None = None
        self._changes: list[int] = []  # frames that differ from the one before

    def _open(self, height: int, width: int) -> None:
        self._file = self._temporary.open("wb")
        size = _bytes(width - 1, 3) + _bytes(height - 1, 3)
        self._file.write(b"RIFF" + _bytes(0, 4) + b"WEBP")  # its length is known in the end
        self._file.write(_chunk(b"VP8X", _bytes(0b10, 4) + size))  # it is an animation,
        self._file.write(_chunk(b"ANIM", _bytes(0, 6)))  # on no background, repeated for ever

    def _add(self, picture: Array) -> None:
        box = changed_box(self._shown, picture)
        if box is None:
            return
        left, top, right, bottom = box
        box = (left - left % 2, top - top % 2, right, bottom)  # it has to begin at even numbers
        self._write_waiting()
        self._waiting = _Waiting(_encode(picture, box), box, self.num_frames)
        self._changes.append(self.num_frames)
        self._shown = picture.copy()

    def _write_waiting(self) -> None:
        """Write what was shown until now."""
        if self._waiting is None:
            return
        assert self._file is not None  # opened
        chunks, (left, top, right, bottom), since = self._waiting
        begin_ms, end_ms = (
            round(1000 * frame / self._frames_per_second) for frame in (since, self.num_frames)
        )
        place = (left // 2, top // 2, right - left - 1, bottom - top - 1, end_ms - begin_ms)
        head = b"".join(_bytes(number, 3) for number in place)
        self._file.write(_chunk(b"ANMF", head + _bytes(0b10, 1) + chunks))  # nothing shines through

    def _complete(self) -> None:
        """Write the last picture and the length."""
        assert self._file is not None  # opened
        self._write_waiting()
        length = self._file.tell() - 8
        self._file.seek(4)
        self._file.write(_bytes(length, 4))
        self._file.close()

    def _finish(self, path: Path) -> None:
        self._complete()
        os.replace(self._temporary, path)

    def _abandon(self) -> None:
        if self._file is not None:
            self._file.close()


class GifWriter(WebpWriter):
    """Writes a GIF, whose delays are hundredths of a second."""

    def _finish(self, path: Path) -> None:
        self._complete()
        finished = self._temporary.with_name(f"{self._temporary.name}.gif")
        try:
            with Image.open(self._temporary) as pictures, finished.open("wb") as file:
                self._convert(pictures, file)
            os.replace(finished, path)
        finally:
            finished.unlink(missing_ok=True)

    def _convert(self, pictures: Image.Image, file: BinaryIO) -> None:
        palette, index_of = _shared_palette(pictures)
        before: Array | None = None
        ends = [*self._changes[1:], self.num_frames]
        for picture, since, until in zip(_frames(pictures), self._changes, ends, strict=True):
            indices = index_of[_pack(picture)]  # [H, W] uint8
            if before is None:
                header, _ = GifImagePlugin.getheader(_paint(indices, palette), info={"loop": 0})
                file.write(b"".join(header))
            # Two colours may have become one; a delay has to be written all the same.
            left, top, right, bottom = changed_box(before, indices) or (0, 0, 1, 1)
            begin, end = (round(100 * n / self._frames_per_second) for n in (since, until))
            part = _paint(indices[top:bottom, left:right], palette)
            data = GifImagePlugin.getdata(part, (left, top), duration=10 * (end - begin))
            file.write(b"".join(data))
            before = indices
        file.write(b";")


def changed_box(before: Array | None, picture: Array) -> tuple[int, int, int, int] | None:
    """Return the smallest rectangle outside of which two pictures are equal, None if they are.

    Args:
        before: [H, W, ...], or None if there is nothing yet.
        picture: of the same shape.

    Returns:
        left, top, right, bottom; the last two lie outside.
    """
    if before is None:
        return 0, 0, picture.shape[1], picture.shape[0]
    differs = picture != before
    if differs.ndim == 3:
        differs = differs.any(axis=2)
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    if not rows.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _bytes(number: int, count: int) -> bytes:
    return number.to_bytes(count, "little")


def _chunk(name: bytes, content: bytes) -> bytes:
    """Return a chunk of a RIFF file, filled up to an even length."""
    return name + _bytes(len(content), 4) + content + b"\0" * (len(content) % 2)


def _encode(picture: Array, box: tuple[int, int, int, int]) -> bytes:
    """Return a part of a picture as WebP's chunks, without the file around them."""
    left, top, right, bottom = box
    file = io.BytesIO()
    part = Image.fromarray(np.ascontiguousarray(picture[top:bottom, left:right]))
    part.save(file, "WEBP", lossless=True, method=2, quality=60)
    return file.getvalue()[12:]


def _frames(pictures: Image.Image) -> Iterator[Array]:
    """Yield an animation's pictures: [H, W, 3] uint8."""
    for number in range(getattr(pictures, "n_frames", 1)):
        pictures.seek(number)
        yield np.asarray(pictures.convert("RGB"))


def _pack(picture: Array) -> Array:
    """Return each pixel's colour as a number: [H, W, 3] uint8 -> [H, W] uint32."""
    red, green, blue = np.moveaxis(picture.astype(np.uint32), -1, 0)
    return np.asarray(red << 16 | green << 8 | blue)


def _unpack(colours: Array) -> Array:
    """Return numbers as colours again: [K] -> [1, K, 3] uint8."""
    return np.stack([colours >> 16, colours >> 8, colours], axis=-1).astype(np.uint8)[None]


def _paint(indices: Array, palette: bytes) -> Image.Image:
    """Return a picture of palette entries: [H, W] uint8."""
    image = Image.fromarray(np.ascontiguousarray(indices))
    image.putpalette(palette)
    return image


def _shared_palette(pictures: Image.Image) -> tuple[bytes, Array]:
    """Return the palette of a whole animation, and the entry of each colour that occurs.

    Returns:
        the palette, three bytes an entry, and [2 ** 24] uint8.
    """
    seen = np.zeros(_NUM_RGB, dtype=np.bool_)
    samples = []
    every = max(1, getattr(pictures, "n_frames", 1) // _SAMPLED)
    for number, picture in enumerate(_frames(pictures)):
        seen[_pack(picture)] = True
        if number % every == 0:
            samples.append(picture[::4, ::4].reshape(1, -1, 3))
    colours = np.flatnonzero(seen)
    index_of = np.zeros(_NUM_RGB, dtype=np.uint8)
    if len(colours) <= _COLOURS:
        index_of[colours] = np.arange(len(colours))
        return _unpack(colours).tobytes(), index_of
    sample = Image.fromarray(np.concatenate(samples, axis=1))
    chosen = sample.quantize(_COLOURS, Image.Quantize.MEDIANCUT)
    nearest = Image.fromarray(_unpack(colours)).quantize(palette=chosen, dither=Image.Dither.NONE)
    index_of[colours] = np.asarray(nearest)[0]
    return bytes(chosen.getpalette() or []), index_of
