"""A run's folder: its names and files, written so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO, TypeVar, get_type_hints

import numpy as np

from rlagents.errors import UsageError, did_you_mean
from rlagents.files import append_whole, read_json
from rlagents.plain import open_plain
from rlagents.pretrained import pretrained_names
from rlagents.types import Array, Episode, EvaluationRow

FORMAT = 1
_MOST_THREADS = 1024
_FOLDERS = ("actions", "faults", "tensorboard", "videos")  # files in them are of the run's own
_MANIFEST_KEYS: dict[str, Any] = {
    "config": dict,
    "observation_space": dict,
    "action_space": dict,
    "reproducible": bool,
    "difference": str | None,
    "threads": int,
    "versions": dict,
}

_Row = TypeVar("_Row", Episode, EvaluationRow)


def check_manifest(manifest: Mapping[str, Any], source: str) -> None:
    """Refuse a description of a run in which something stands that nobody has written.

    Args:
        manifest: what `RunFolder.manifest` returned.
        source: what to call its file.

    Raises:
        UsageError: it is damaged.
    """
    for key, kind in _MANIFEST_KEYS.items():
        fits = isinstance(manifest[key], kind)
        if not fits or (key == "threads" and not 1 <= manifest[key] <= _MOST_THREADS):
            raise UsageError(f"{source} is damaged: {key} is {manifest[key]!r:.80}.")


def _refuse_links(directory: Path) -> None:
    """Refuse a run through which somebody else's files would be read, cut or written to.

    Links among `checkpoints/` are left to the loader, which takes such a checkpoint for damaged.
    """
    root = directory.resolve()
    written_to = [directory, *(directory / name for name in _FOLDERS)]
    for folder in written_to:
        try:
            links = [entry.path for entry in os.scandir(folder) if entry.is_symlink()]
        except (FileNotFoundError, NotADirectoryError):
            continue
        for link in links:
            if not Path(os.path.realpath(link)).is_relative_to(root):
                raise UsageError(
                    f"{link} is a link that leads out of the run's folder, and what it leads to "
                    "would be read or changed as a part of the run; put a copy in its place."
                )


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole: into a temporary name first, then renamed into place."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
        sync(temporary)  # or a power cut may leave the new name with nothing in it
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class RunFolder:
    """The folder of one run.

    Args:
        directory: `runs/<name>`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def create(cls, runs_dir: Path, name: str) -> RunFolder:
        """Make a new folder for a run.

        Raises:
            UsageError: there is one of that name already, or it cannot be made.
        """
        if not name or name != Path(name).name or name.startswith("."):
            raise UsageError(f"--name: {name!r} is no folder's name; use letters, digits and '-'.")
        directory = runs_dir / name
        try:
            directory.mkdir(parents=True)
            for folder in ("actions", "checkpoints", "videos", "tensorboard"):
                (directory / folder).mkdir()
        except FileExistsError:
            if directory.exists():
                raise UsageError(
                    f"There is a run {directory} already. Give another --name, or go on with it: "
                    f"rlagents resume {directory}"
                ) from None
            raise UsageError(
                f"--runs-dir: {runs_dir} is a file, or lies in one; name a folder."
            ) from None
        except OSError as error:
            raise UsageError(
                f"--runs-dir: {runs_dir} cannot be written ({error.strerror}); name another folder."
            ) from None
        return cls(directory)

    @classmethod
    def open(cls, run: str | Path, runs_dir: Path = Path("runs")) -> RunFolder:
        """Find a run by its folder, or by its name under the runs folder.

        Raises:
            UsageError: it is not a run, or a link in it leads elsewhere.
        """
        for directory in (Path(run), runs_dir / run):
            if os.path.isfile(directory / "config.json"):  # False also for what is too long
                _refuse_links(directory)
                return cls(directory)
        if os.path.isdir(run):
            raise UsageError(
                f"{run} is not a run: it has no config.json. Name a folder that "
                "`rlagents train` has made."
            )
        known = [path.parent.name for path in runs_dir.glob("*/config.json")]
        hint = ""
        if str(run) in pretrained_names():
            hint = f" An agent of that name comes with rlagents: add --pretrained to play {run}."
        raise UsageError(
            f"There is no run {str(run)!r}{did_you_mean(str(run), known)} Give a run's folder, or "
            f"its name under {runs_dir} (--runs-dir).{hint}"
        )

    @property
    def name(self) -> str:
        """Return the run's name."""
        return self.directory.resolve().name

    @property
    def checkpoints(self) -> Path:
        """Return the folder of checkpoints."""
        return self.directory / "checkpoints"

    @property
    def videos(self) -> Path:
        """Return the folder of videos."""
        return self.directory / "videos"

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Write config.json."""
        write_json(self.directory / "config.json", {"format": FORMAT, **manifest})

    def manifest(self) -> dict[str, Any]:
        """Return config.json.

        Raises:
            UsageError: it is damaged, or of another version.
        """
        path = self.directory / "config.json"
        try:
            manifest = read_json(path)
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read: {error}.") from None
        if manifest.get("format") != FORMAT:
            raise UsageError(f"{path} was not written by this version of rlagents.")
        missing = [key for key in _MANIFEST_KEYS if key not in manifest]
        if missing:
            raise UsageError(f"{path} is damaged: it has lost {', '.join(missing)}.")
        return manifest

    def write_status(self, state: str, step: int, **more: Any) -> None:
        """Write status.json: running, finished, stopped or failed."""
        status = {"state": state, "pid": os.getpid(), "step": step, "heartbeat": time.time()}
        host = {"host": platform.node()}  # the machine on which the process can be looked for
        write_json(self.directory / "status.json", status | host | more)

    def status(self) -> dict[str, Any]:
        """Return status.json, {} if there is none yet.

        Raises:
            UsageError: it is damaged.
        """
        path = self.directory / "status.json"
        try:
            return read_json(path) if path.exists() else {}
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read: {error}. It can be removed.") from None

    def episodes(self) -> Iterator[Episode]:
        """Yield the rows of episodes.csv, without one that a kill or a full disk cut off.

        Raises:
            UsageError: the file is damaged.
        """
        return _rows(self.directory / "episodes.csv", Episode)

    def evaluations(self) -> Iterator[EvaluationRow]:
        """Yield the rows of evaluations.csv, without one that a kill or a full disk cut off.

        Raises:
            UsageError: the file is damaged.
        """
        return _rows(self.directory / "evaluations.csv", EvaluationRow)


def _rows(path: Path, kind: type[_Row]) -> Iterator[_Row]:
    """Yield the whole lines of a CSV file, none if it is not there yet."""
    if not path.exists():
        return
    types = get_type_hints(kind)
    with _open_rows(path) as file:
        header = next(file, "").rstrip("\n").split(",")
        for number, line in enumerate(file, start=2):
            fields = line.rstrip("\n").split(",")
            if not line.endswith("\n") or not line.strip():
                continue
            try:
                row = dict(zip(header, fields, strict=True))
                values = [convert(row[name]) for name, convert in types.items()]
            except (KeyError, ValueError):
                raise UsageError(
                    f"{path} is damaged: line {number} is no row of it, {line[:80].rstrip()!r}. "
                    "Delete that line, or leave the run out."
                ) from None
            yield kind(*values)


def _open_rows(path: Path) -> TextIO:
    try:
        return io.TextIOWrapper(open_plain(path), encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error}.") from None


class ActionLog:
    """The actions of every training episode: one file of small integers, one index.

    `actions/actions.bin` holds the actions of finished episodes one after the other, in
    `actions/index.csv` a row an episode says where: episode, offset in bytes, length, bytes each.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._data = folder.directory / "actions" / "actions.bin"
        self._index = folder.directory / "actions" / "index.csv"

    def append(self, episode: int, actions: Array, num_actions: int) -> None:
        """Add a finished episode: [T] actions, in as many bytes as the largest number needs.

        Raises:
            OSError: it cannot be written; nothing has been added.
        """
        dtype = np.dtype(np.uint8 if num_actions <= 256 else "<u4")
        offset = append_whole(self._data, np.asarray(actions).astype(dtype).tobytes())
        row = f"{episode},{offset},{len(actions)},{dtype.itemsize}\n"
        if not self._index.exists() or self._index.stat().st_size == 0:
            row = f"{_ACTION_COLUMNS}\n{row}"
        try:
            append_whole(self._index, row.encode())
        except OSError:  # what no row names would be in the way of the next
            os.truncate(self._data, offset)
            raise

    def read(self, episode: int) -> Array:
        """Return the actions of an episode: [T].

        Raises:
            UsageError: there is none of that number, or the files are damaged.
        """
        for row in self._rows():
            if row[0] == episode:
                _, offset, length, itemsize = row
                if itemsize not in (1, 4) or offset + length * itemsize > self._held():
                    raise UsageError(
                        f"{self._index} is damaged: episode {episode} is not in {self._data.name}."
                    )
                with self._data.open("rb") as data:
                    data.seek(offset)
                    raw = data.read(length * itemsize)
                return np.frombuffer(raw, dtype=np.uint8 if itemsize == 1 else "<u4")
        count = sum(1 for _ in self._rows())
        between = f"0 to {count - 1}" if count else "none yet"
        raise UsageError(f"There is no finished training episode {episode}; there are: {between}.")

    def cut(self, episodes: int) -> None:
        """Forget all but the first `episodes` episodes."""
        rows = [row for row in self._rows() if row[0] < episodes]
        if self._index.exists():
            lines = [_ACTION_COLUMNS]
            lines += [",".join(str(number) for number in row) for row in rows]
            temporary = self._index.with_name(".index.csv.part")
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
            os.replace(temporary, self._index)
        if self._data.exists():
            end = max((offset + length * size for _, offset, length, size in rows), default=0)
            os.truncate(self._data, min(end, self._held()))  # never longer

    def sync(self) -> None:
        """Wait until all episodes are on the disk."""
        for path in (self._data, self._index):
            if path.exists():
                sync(path)

    def _held(self) -> int:
        """Return the bytes of actions that are there."""
        return self._data.stat().st_size if self._data.exists() else 0

    def _rows(self) -> Iterator[tuple[int, int, int, int]]:
        if not self._index.exists():
            return
        with self._index.open("rb") as index:
            next(index, None)
            for line in index:
                row = _ACTION_ROW.fullmatch(line)
                if row is None:
                    break  # the process was killed while it wrote this row
                episode, offset, length, itemsize = (int(number) for number in row.groups())
                yield episode, offset, length, itemsize


_ACTION_COLUMNS = "episode,offset,length,itemsize"
_ACTION_ROW = re.compile(rb"(\d{1,18}),(\d{1,18}),(\d{1,18}),(\d)\n")
