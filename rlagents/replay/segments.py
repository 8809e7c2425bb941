"""Rings of items as files of a few megabytes, of which only those that changed are written.

A segment is the slots [k * S, (k + 1) * S) of one ring, as far as they have been written. Rows are
written once, in order, so what was written since the last time is rows [head then, head now) and
nothing else: a segment that none of them falls into is the same file as then. It gets a second
name (a hard link) in the new folder instead of being written again. So every folder is whole, and
the file system keeps a segment for as long as a folder names it.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rlagents.replay.items import Items
from rlagents.types import IntArray

SEGMENT_BYTES = 8 << 20
"""Larger segments are fewer files to sync; smaller ones write less that has not changed."""


class Segments:
    """The items of N rings, to be saved and loaded.

    Args:
        items: of all rings, one ring after the other.
        num_envs: N.
        rows: of each ring.
        item_bytes: of one item, before it is compressed.
    """

    def __init__(self, items: Items, num_envs: int, rows: int, item_bytes: int) -> None:
        self._items = items
        self._num_envs = num_envs
        self._rows = rows
        self._length = max(1, SEGMENT_BYTES // item_bytes)  # rows of a segment
        self._known: _Folder | None = None  # that holds what the rings held when it was written

    def save(self, directory: Path, heads: IntArray) -> None:
        """Write what the rings hold to an empty folder.

        Args:
            directory: to write to.
            heads: [N] int64, rows written so far to each ring.
        """
        for env, head in enumerate(heads.tolist()):
            changed = self._changed(env, head)
            for number, begin, end in self._parts(env, head):
                name = _name(env, number)
                path = directory / name
                path.unlink(missing_ok=True)  # never written to: other folders may name it too
                known = None if number in changed else self._known
                if known is None or not known.link(name, path):
                    self._items.save(path, begin, end)
        self._known = _Folder(directory, heads)

    def load(self, directory: Path, heads: IntArray) -> None:
        """Read back what `save` wrote.

        Raises:
            OSError: a file cannot be read.
            ValueError: it is damaged, or of other rings.
        """
        self._known = None
        for env, head in enumerate(heads.tolist()):
            for number, begin, end in self._parts(env, head):
                self._items.load(directory / _name(env, number), begin, end)
        self._known = _Folder(directory, heads)

    def _changed(self, env: int, head: int) -> set[int]:
        """Return the segments of a ring that rows have been written to since they were saved."""
        before = 0 if self._known is None else self._known.heads[env]
        rows = np.arange(max(before, head - self._rows), head)
        return set(np.unique(rows % self._rows // self._length).tolist())

    def _parts(self, env: int, head: int) -> Iterator[tuple[int, int, int]]:
        """Yield each segment of a ring: its number, its first item and the one behind its last."""
        filled, first = min(head, self._rows), env * self._rows
        for number, begin in enumerate(range(0, filled, self._length)):
            yield number, first + begin, first + min(begin + self._length, filled)


class _Folder:
    """A folder that was written to or read, by whatever name it goes now.

    A checkpoint is written under one name and kept under another, or thrown away. The descriptor
    stays with the folder; where that is gone, it has nothing to link to.
    """

    def __init__(self, directory: Path, heads: IntArray) -> None:
        self.heads: list[int] = heads.tolist()
        self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        weakref.finalize(self, os.close, self._descriptor)

    def link(self, name: str, path: Path) -> bool:
        """Give a file of this folder a second name; return whether it could be done."""
        try:
            os.link(name, path, src_dir_fd=self._descriptor, follow_symlinks=False)
        except OSError:  # the folder has been removed, or its file system knows no links
            return False
        return True


def _name(env: int, number: int) -> str:
    return f"items-{env}-{number}.npy"
