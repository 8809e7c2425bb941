"""Where the items of rings lie: in memory, plain or compressed, in a file, or on a GPU.

All kinds keep the same bytes under the same numbers, so that what is sampled does not depend on the
kind. The last item is never written and reads as zeros.
"""

from __future__ import annotations

import math
import mmap
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from rlagents.errors import RunFailedError, UsageError
from rlagents.files import load_array, save_array
from rlagents.types import Array, Footprint, IntArray

Compression = Literal["none", "lz4"]
Storage = Literal["memory", "disk", "device"]


class Items(Protocol):
    """As many items as a number of rings have rows, and one of zeros behind them."""

    def put(self, index: IntArray, items: Array) -> None:
        """Write items, [K, ...], under their numbers, [K]."""

    def batch(self, shape: tuple[int, ...]) -> Any:
        """Return zeros of a shape and of the items' dtype, for `take` to write to."""

    def take(self, index: IntArray, out: Any) -> None:
        """Read the items of these numbers, [K], into `out`, [K, ...], made of a `batch`."""

    def save(self, path: Path, begin: int, end: int) -> None:
        """Write the items numbered from `begin` to before `end` to an .npy file."""

    def load(self, path: Path, begin: int, end: int) -> None:
        """Read back what `save` wrote.

        Raises:
            ValueError: it is damaged, or holds other items.
        """


def make_items(
    count: int,
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    *,
    compression: Compression,
    storage: Storage,
    device: str,
) -> Items:
    """Return an empty store of `count` items of a shape and dtype.

    Raises:
        UsageError: the compressor is not installed, or the disk or the device has no room.
    """
    if storage == "device":
        from rlagents.replay.device_items import DeviceItems  # PyTorch, which no other store needs

        return DeviceItems(count, shape, dtype, device)
    if storage == "disk":
        return DiskItems(count, shape, dtype)
    if compression == "lz4":
        return CompressedItems(count, shape, dtype)
    return MemoryItems(count, shape, dtype)


def footprint_of_items(
    count: int,
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    *,
    compression: Compression,
    storage: Storage,
) -> Footprint:
    """Return what such a store takes when full."""
    item = math.prod(shape) * np.dtype(dtype).itemsize
    if storage == "device":
        return Footprint(0, 0, device=count * item)
    if storage == "disk":
        return Footprint(0, 0, disk=count * item)
    if compression == "lz4":
        # LZ4's format makes of n bytes n + n/255 + 16 at worst, and n/255 at best.
        least = _BYTES_OBJECT + item // 255
        return Footprint(count * (least + item + 16), memory_at_least=count * least)
    return Footprint(count * item, count * item)


class MemoryItems:
    """Items in one array."""

    def __init__(self, count: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.array = np.zeros((count, *shape), dtype=dtype)

    def batch(self, shape: tuple[int, ...]) -> Array:
        """Return an array of zeros."""
        return np.zeros(shape, dtype=self.array.dtype)

    def put(self, index: IntArray, items: Array) -> None:
        """Write items under their numbers."""
        self.array[index] = items

    def take(self, index: IntArray, out: Array) -> None:
        """Read items."""
        np.take(self.array, index, axis=0, out=out, mode="clip")

    def save(self, path: Path, begin: int, end: int) -> None:
        """Write items."""
        save_array(path, self.array[begin:end])

    def load(self, path: Path, begin: int, end: int) -> None:
        """Read items."""
        self.array[begin:end] = load_array(path, self.array.dtype, self.array[begin:end].shape)


class DiskItems:
    """Items in a file that has no name: however the process ends, its room is free again.

    The file is as long as it will ever be, and takes room only where it has been written. It is
    read through a mapping, from the page cache where that holds it. It is written as a file, since
    a full disk is then an error; a write through the mapping would kill the process.
    """

    def __init__(self, count: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._directory = scratch_directory()
        nbytes = count * math.prod(shape) * np.dtype(dtype).itemsize
        try:
            free = shutil.disk_usage(self._directory).free
            if nbytes > free:
                raise UsageError(
                    f"[replay] storage: the frames would take {nbytes / 1e9:.1f} GB of disk, and "
                    f"{free / 1e9:.1f} GB are free in {self._directory}. Lower --replay.capacity, "
                    "or name a folder on another disk in the environment variable TMPDIR."
                )
            self._file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 - lives on
            self._file.truncate(nbytes)
        except OSError as error:
            raise UsageError(
                f"[replay] storage: no file can be made in {self._directory} ({error.strerror}). "
                "Name another folder in the environment variable TMPDIR."
            ) from error
        self._item_bytes = nbytes // count
        mapping = mmap.mmap(self._file.fileno(), nbytes, access=mmap.ACCESS_READ)
        self.array: Array = np.frombuffer(mapping, dtype=dtype).reshape(count, *shape)

    def batch(self, shape: tuple[int, ...]) -> Array:
        """Return an array of zeros."""
        return np.zeros(shape, dtype=self.array.dtype)

    def put(self, index: IntArray, items: Array) -> None:
        """Write items under their numbers.

        Raises:
            RunFailedError: the disk is full, or broken.
        """
        try:
            for number, item in zip(index.tolist(), items, strict=True):
                self._file.seek(number * self._item_bytes)
                self._file.write(item.astype(self.array.dtype, copy=False).tobytes())
            self._file.flush()
        except OSError as error:
            raise RunFailedError(
                f'The frames of [replay] storage = "disk" cannot be written to {self._directory} '
                f"({error.strerror})."
            ) from error

    def take(self, index: IntArray, out: Array) -> None:
        """Read items."""
        np.take(self.array, index, axis=0, out=out, mode="clip")

    def save(self, path: Path, begin: int, end: int) -> None:
        """Write items."""
        save_array(path, self.array[begin:end])

    def load(self, path: Path, begin: int, end: int) -> None:
        """Read items."""
        items = load_array(path, self.array.dtype, self.array[begin:end].shape)
        self.put(np.arange(begin, end), items)


class CompressedItems:
    """Items compressed one by one with LZ4, as bytes objects.

    Each begins with its size, 4 bytes that files do not have: without it, cramjam first tries to
    read the beginning of the compressed item as one.
    """

    def __init__(self, count: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._lz4 = _lz4()
        self._dtype = np.dtype(dtype)
        self._item_bytes = math.prod(shape) * self._dtype.itemsize
        zeros = self._compress(np.zeros(shape, dtype))
        self.held = [zeros] * count  # all the same object, until they are written

    def batch(self, shape: tuple[int, ...]) -> Array:
        """Return an array of zeros."""
        return np.zeros(shape, dtype=self._dtype)

    def put(self, index: IntArray, items: Array) -> None:
        """Write items under their numbers."""
        for number, item in zip(index.tolist(), items, strict=True):
            self.held[number] = self._compress(item)

    def _compress(self, item: Array) -> bytes:
        plain = np.ascontiguousarray(item, dtype=self._dtype)
        return bytes(self._lz4.compress_block(plain, store_size=True))

    def take(self, index: IntArray, out: Array) -> None:
        """Decompress items into place."""
        size = self._item_bytes
        place = out.data.cast("B")
        begin = 0
        for number in index.tolist():
            self._lz4.decompress_block_into(self.held[number], place[begin : begin + size])
            begin += size

    def save(self, path: Path, begin: int, end: int) -> None:
        """Write the lengths of compressed items, [K] int32, and the items one after the other."""
        items = [item[_SIZE_BYTES:] for item in self.held[begin:end]]
        lengths = np.array([len(item) for item in items], dtype="<i4")
        save_array(path, np.frombuffer(lengths.tobytes() + b"".join(items), dtype=np.uint8))

    def load(self, path: Path, begin: int, end: int) -> None:
        """Read compressed items; each is decompressed once, to see that it is one."""
        data = load_array(path, np.uint8, (None,)).tobytes()
        start = 4 * (end - begin)
        plain = bytearray(self._item_bytes)
        size_first = self._item_bytes.to_bytes(_SIZE_BYTES, "little")
        lengths = np.frombuffer(data[:start], dtype="<i4").astype(np.int64)
        if len(data) < start or lengths.min(initial=0) < 0 or start + lengths.sum() != len(data):
            raise ValueError(f"{path.name} holds other lengths than those of its items")
        for number, length in enumerate(lengths.tolist(), start=begin):
            item = size_first + data[start : start + length]
            start += length
            try:
                size = self._lz4.decompress_block_into(item, plain)
            except Exception as error:  # the compressor has an error class of its own
                raise ValueError(f"{path.name} holds what is not compressed: {error}") from None
            if size != self._item_bytes:
                raise ValueError(f"{path.name} holds an item of {size} bytes")
            self.held[number] = item


_SIZE_BYTES = 4
# A bytes object's header, its size, its place in the list, and what the allocator rounds up to.
_BYTES_OBJECT = 33 + _SIZE_BYTES + 8 + 16


def scratch_directory() -> Path:
    """Return where large temporary files belong: TMPDIR if it is set, else /var/tmp if it is there.

    /tmp lies in memory on many systems.
    """
    var = Path("/var/tmp")
    if "TMPDIR" not in os.environ and var.is_dir() and os.access(var, os.W_OK):
        return var
    return Path(tempfile.gettempdir())


def _lz4() -> Any:
    try:
        import cramjam
    except ImportError:
        raise UsageError(
            '[replay] compression: "lz4" needs a package that is not installed: '
            "pip install 'rlagents[compression]'"
        ) from None
    return cramjam.lz4
