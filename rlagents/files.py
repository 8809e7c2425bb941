"""Reading files that nobody has to trust: bounded before they are parsed, and nothing executes.

Whatever is wrong with a file is a `ValueError` of one sentence, which the callers turn into theirs.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rlagents.types import Array

LARGEST_JSON = 16 << 20  # bytes; the largest that is written, a manifest, has some hundred thousand
_MAGIC = b"\x93NUMPY\x01\x00"
_LONGEST_HEADER = 1 << 10
# What numpy writes for an array whose last axis varies fastest; anything else was not written here.
_HEADER = re.compile(
    rb"\{'descr': '([<>|][a-z]\d{1,2})', 'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n"
)


def read_bytes(path: Path, most: int) -> bytes:
    """Return what a plain file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer than `most` bytes, or no plain file.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for ever
        raise ValueError(f"{path.name} is no plain file")
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{path.name} has more than the {most:,} bytes that are read of it")
    return data


def read_text(path: Path, most: int) -> str:
    """Return the text of a file, in UTF-8.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer than `most` bytes, or no text.
    """
    return read_bytes(path, most).decode("utf-8")


def read_json(path: Path, most: int = LARGEST_JSON) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer than `most` bytes, or no JSON object.
    """
    try:
        value = json.loads(read_text(path, most))
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is no JSON object")
    return value


def append_whole(path: Path, data: bytes) -> int:
    """Append to a file, all or nothing; return where it begins.

    Raises:
        OSError: it cannot be written; the file is as long as before.
    """
    with path.open("ab", buffering=0) as file:
        begin = file.seek(0, os.SEEK_END)
        try:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
        except OSError:
            file.truncate(begin)
            raise
    return begin


def save_array(path: Path, array: Array) -> None:
    """Write an array as an .npy file.

    Raises:
        OSError: it cannot be written.
    """
    # np.save writes an array that does not lie in one piece bit by bit, 30 times slower, and does
    # not say why where the disk is full.
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        header = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_1_0(file, header)
        if array.nbytes:
            file.write(array.data.cast("B"))


def load_array(path: Path, dtype: npt.DTypeLike, shape: tuple[int | None, ...]) -> Array:
    """Return the array in an .npy file, if it is the one that is expected.

    The header is compared, not evaluated, and what it says must be the file's length: no file makes
    this take more memory than it has bytes.

    Args:
        path: of the file.
        dtype: that it must have.
        shape: that it must have; None for a length that may be any.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or another array.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path.name} is no plain file")
    dtype = np.dtype(dtype)
    with path.open("rb") as file:
        start = file.read(len(_MAGIC) + 2)
        length = int.from_bytes(start[-2:], "little")
        if not start.startswith(_MAGIC) or len(start) != len(_MAGIC) + 2:
            raise ValueError(f"{path.name} is no array")
        if length > _LONGEST_HEADER:
            raise ValueError(f"{path.name} has a header of {length} bytes")
        header = _HEADER.fullmatch(file.read(length))
        if header is None:
            raise ValueError(f"{path.name} has a header that was not written here")
        found = tuple(int(size) for size in header[2].split(b",") if size.strip())
        described = header[1].decode()
        if described != dtype.str or len(found) != len(shape):
            raise ValueError(f"{path.name} holds {described} {list(found)}, not {dtype.str}")
        for size, wanted in zip(found, shape, strict=True):
            if size != wanted and (wanted is not None or size > path.stat().st_size):
                raise ValueError(f"{path.name} has the shape {list(found)}, not {list(shape)}")
        nbytes = math.prod(found) * dtype.itemsize
        if path.stat().st_size != len(start) + length + nbytes:
            raise ValueError(f"{path.name} is not as long as its header says")
        array = np.empty(found, dtype=dtype)
        if array.nbytes and file.readinto(array.data.cast("B")) != nbytes:
            raise ValueError(f"{path.name} became shorter while it was read")
    return array
