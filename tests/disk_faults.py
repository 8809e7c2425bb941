"""A disk that is full at one place: what is opened, written, synced, made or renamed there fails.

A place is a verb and a pattern of the path, such as ("write", "*/metrics.jsonl").
"""

from __future__ import annotations

import errno
import fnmatch
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Place = tuple[str, str]


class FullDisk:
    """Counts what is done at a place, and fails where `fails` says so of the number, from 1 on."""

    def __init__(
        self, patch: pytest.MonkeyPatch, place: Place, fails: Callable[[int], bool]
    ) -> None:
        self.count = 0
        self.failures = 0
        self._lock = threading.Lock()
        self._verb, self._pattern = place
        self._fails = fails
        open_file, fsync = io.open, os.fsync

        def opening(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            writes = isinstance(file, str | os.PathLike) and set(mode) & set("wax+")
            if writes:
                self._visit("open", os.fspath(file))
            opened = open_file(file, mode, *arguments, **options)
            if writes and self._verb == "write" and self._matches(os.fspath(file)):
                opened = _Watched(opened, lambda: self._visit("write", os.fspath(file)))
            return opened

        def syncing(descriptor: int) -> None:
            self._visit("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
            fsync(descriptor)

        patch.setattr(io, "open", opening)
        patch.setattr(os, "fsync", syncing)
        for name, verb in (("rename", "rename"), ("replace", "rename"), ("mkdir", "mkdir")):
            self._watch(patch, name, verb)

    def _watch(self, patch: pytest.MonkeyPatch, name: str, verb: str) -> None:
        original = getattr(os, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            self._visit(verb, os.fspath(arguments[-1 if verb == "rename" else 0]))
            return original(*arguments, **options)

        patch.setattr(os, name, watched)

    def _matches(self, path: str) -> bool:
        return fnmatch.fnmatchcase(path, self._pattern)

    def _visit(self, verb: str, path: str) -> None:
        if verb != self._verb or not self._matches(path):
            return
        with self._lock:  # files are synced by several threads
            self.count += 1
            fails = self._fails(self.count)
            self.failures += fails
        if fails:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), Path(path).name)


class _Watched:
    """A file of which half is written before the disk is full."""

    def __init__(self, file: Any, visit: Callable[[], None]) -> None:
        self._file = file
        self._visit = visit

    def write(self, data: Any) -> Any:
        try:
            self._visit()
        except OSError:
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            raise
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Watched:
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._file.__exit__(*error)
