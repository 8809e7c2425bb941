"""Checkpoints: directories of plain files that are complete or not there.

A checkpoint is written under a name that starts with a dot, its manifest (sizes and SHA-256 of
every file) last, and renamed into place; only then are older ones removed. Nothing in it executes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rlagents.errors import UsageError
from rlagents.files import read_json
from rlagents.run import sync, write_json

MANIFEST = "manifest.json"
REPLAY = "agent/replay"  # where an agent puts what is too large to be kept more than once


class Checkpoint(NamedTuple):
    """A checkpoint that was found whole."""

    name: str  # "step-50000"
    step: int
    directory: Path


class CheckpointStore:
    """The checkpoints of a run.

    Args:
        directory: `runs/<name>/checkpoints`.
        keep: how many are kept besides the best.
    """

    def __init__(self, directory: Path, keep: int = 3) -> None:
        self._directory = directory
        self._keep = keep

    def save(self, step: int, write: Callable[[Path], None], *, best: bool = False) -> Path:
        """Write a checkpoint, point `index.json` at it and remove what is no longer kept.

        Args:
            step: agent steps so far.
            write: fills an empty directory.
            best: whether no evaluation has been better.

        Returns:
            the checkpoint's directory.
        """
        self._finish_replacing()
        name = f"step-{step}"
        temporary = self._directory / f".{name}.part"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            write(temporary)
            self._write_manifest(temporary, step)
            # It may be the same step again, written after an evaluation or with replay.
            final = self._put(temporary, name)
        except OSError:  # a full disk: give back what was taken
            shutil.rmtree(temporary, ignore_errors=True)
            self._finish_replacing()
            raise
        index = self.index()
        index["last"] = name
        if best:
            index["best"] = name
        write_json(self._directory / "index.json", index)
        self._prune(index)
        return final

    def lighten(self, folder: str, tell: Callable[[Path], None]) -> None:
        """Write every checkpoint but the last anew without one of its folders.

        Each is copied without it under a name that starts with a dot, given a manifest of its own,
        and takes the other's place as in `save`: whenever the process is killed, what is found is a
        whole checkpoint, with the folder or without. One that is damaged is left as it is.

        Args:
            folder: what is left out, such as "agent/replay".
            tell: notes in the copy that the folder is no longer there.
        """
        last = self.index().get("last")
        for whole in self._whole():
            if whole.name == last or not (whole / folder).is_dir():
                continue
            try:
                step = _verify(whole, "", but=folder)
            except UsageError:
                continue
            temporary = self._directory / f".{whole.name}.part"
            shutil.rmtree(temporary, ignore_errors=True)
            left_out = whole / folder

            def ignore(inside: str, names: list[str], left_out: Path = left_out) -> list[str]:
                return [name for name in names if Path(inside, name) == left_out]

            try:
                shutil.copytree(whole, temporary, ignore=ignore)
                tell(temporary)
                self._write_manifest(temporary, step)
                self._put(temporary, whole.name)
            except OSError:
                shutil.rmtree(temporary, ignore_errors=True)
                self._finish_replacing()
                raise

    def _put(self, temporary: Path, name: str) -> Path:
        """Give a finished checkpoint its name, in the place of an older one if there is one."""
        final = self._directory / name
        if final.exists():
            old = self._directory / f".{name}.old"
            shutil.rmtree(old, ignore_errors=True)
            os.rename(final, old)
            os.rename(temporary, final)
            shutil.rmtree(old, ignore_errors=True)  # else by the next `_prune`
        else:
            os.rename(temporary, final)
        sync(self._directory)
        return final

    def holds(self, step: int) -> bool:
        """Tell whether there is a checkpoint of that step."""
        return (self._directory / f"step-{step}" / MANIFEST).is_file()

    def index(self) -> dict[str, str]:
        """Return the names of the best and the last checkpoint.

        Where the file does not say which is the last, the newest is.
        """
        path = self._directory / "index.json"
        try:
            listed = read_json(path)
        except (OSError, ValueError):
            listed = {}
        known: dict[str, str] = {
            key: listed[key]
            for key in ("best", "last")
            if _is_name(listed.get(key)) and self._place(listed[key]).is_dir()
        }
        whole = self._whole()
        return known if "last" in known or not whole else {"last": whole[0].name, **known}

    def find(self, which: str | None, *, experience: bool = True) -> Checkpoint:
        """Return a checkpoint after checking every file of it; nothing on disk is changed.

        Args:
            which: "best", "last" or a step; None for the best, else the last.
            experience: check stored experience as well, which is large and no policy needs.

        Raises:
            UsageError: there is no such checkpoint, or it is damaged.
        """
        index = self.index()
        if which is None:
            which = "best" if "best" in index else "last"
        name = index.get(which, "") if which in ("best", "last") else f"step-{which}"
        if not _is_name(name) or not self._place(name).is_dir():
            steps = [str(_step_of(path)) for path in reversed(self._whole())]
            known = ", ".join([*index, *steps]) or "none yet"
            raise UsageError(f"--checkpoint: there is no checkpoint {which!r}; there are: {known}.")
        return self._check(name, experience=experience)

    def find_intact(self) -> tuple[Checkpoint, str | None]:
        """Return the last checkpoint or, if that is damaged, the newest that is not.

        Only for whoever goes on with the run: what a kill left half done is tidied up.

        Returns:
            the checkpoint, and what is wrong with the last one where it is another.

        Raises:
            UsageError: there is none, or all are damaged.
        """
        self._finish_replacing()
        last = self.index().get("last")
        if last is None:
            raise UsageError(
                f"There is no checkpoint in {self._directory} to go on from: none yet."
            )
        try:
            return self._check(last), None
        except UsageError as error:
            for path in self._whole():
                with contextlib.suppress(UsageError):
                    return self._check(path.name), str(error)
            raise

    def _check(self, name: str, *, experience: bool = True) -> Checkpoint:
        """Return a checkpoint that is there after checking every file of it."""
        others = [str(_step_of(path)) for path in reversed(self._whole()) if path.name != name]
        known = f"Others are there, of the steps {', '.join(others)}"
        directory = self._place(name)
        return Checkpoint(
            name,
            _verify(
                directory,
                known if others else "No other is there",
                but=None if experience else REPLAY,
            ),
            directory,
        )

    def _place(self, name: str) -> Path:
        """Return where a checkpoint lies: between the two renames of `save`, under its old name."""
        final, old = self._directory / name, self._directory / f".{name}.old"
        return old if old.is_dir() and not final.is_dir() else final

    def _finish_replacing(self) -> None:
        """Put back what a kill or an error between two renames left under its old name."""
        for old in self._directory.glob(".step-*.old"):
            final = self._directory / old.name.removeprefix(".").removesuffix(".old")
            if not final.exists():
                with contextlib.suppress(OSError):  # it is found under its old name as well
                    os.rename(old, final)

    def _whole(self) -> list[Path]:
        """Return the checkpoints that have been written to the end, the newest first."""
        found = self._directory.glob("step-*")
        whole = [p for p in found if _is_name(p.name) and (p / MANIFEST).is_file()]
        return sorted(whole, key=_step_of, reverse=True)

    def _prune(self, index: dict[str, str]) -> None:
        for leftover in self._directory.glob(".step-*"):
            # Under its old name, a checkpoint that could not be put back is still found.
            name = leftover.name.removeprefix(".").removesuffix(".old")
            if leftover != self._place(name):
                shutil.rmtree(leftover, ignore_errors=True)
        for path in self._whole()[self._keep :]:
            if path.name not in index.values():
                # Under another name first: half of it must not be found as a checkpoint.
                gone = self._directory / f".{path.name}.gone"
                with contextlib.suppress(OSError):
                    os.rename(path, gone)
                    shutil.rmtree(gone, ignore_errors=True)

    def _write_manifest(self, directory: Path, step: int) -> None:
        """Write the sizes and hashes of all files, and see that everything is on the disk."""
        (directory / MANIFEST).unlink(missing_ok=True)
        known = self._known_hashes()
        paths = sorted(path for path in directory.rglob("*") if path.is_file())

        def seal(path: Path) -> str:
            about = path.stat()
            if (about.st_dev, about.st_ino) in known:  # an older checkpoint names it too
                return known[about.st_dev, about.st_ino]
            sync(path)
            return _sha256(path)

        # One file is hashed while another is on its way to the disk.
        with ThreadPoolExecutor(_THREADS) as pool:
            hashes = list(pool.map(seal, paths))
        files = {
            path.relative_to(directory).as_posix(): {"size": path.stat().st_size, "sha256": sha256}
            for path, sha256 in zip(paths, hashes, strict=True)
        }
        text = json.dumps({"step": step, "files": files}, indent=1)
        (directory / MANIFEST).write_text(text, encoding="utf-8")
        sync(directory / MANIFEST)
        for folder in (directory, *(path for path in directory.rglob("*") if path.is_dir())):
            sync(folder)

    def _known_hashes(self) -> dict[tuple[int, int], str]:
        """Return the SHA-256 of stored experience in whole checkpoints, by device and inode.

        A file that a new checkpoint shares with one of them was hashed and synced for that one.
        """
        known = {}
        for whole in self._whole():
            with contextlib.suppress(OSError, ValueError):
                for name, entry in _read_manifest(whole).files.items():
                    if name.startswith(f"{REPLAY}/"):
                        about = (whole / name).lstat()
                        known[about.st_dev, about.st_ino] = entry.sha256
        return known


class _Entry(NamedTuple):
    """What a manifest says of a file."""

    size: int
    sha256: str


class _Manifest(NamedTuple):
    """What a manifest says."""

    step: int
    files: dict[str, _Entry]  # by path in the checkpoint, with slashes


_THREADS = 4
_NAME = re.compile(r"step-(0|[1-9]\d{0,17})", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_FILES = 100_000


def _is_name(name: object) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _read_manifest(directory: Path) -> _Manifest:
    """Return a checkpoint's manifest, whose names stay within the folder.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none.
    """
    written = read_json(directory / MANIFEST)
    step, listed = written.get("step"), written.get("files")
    if type(step) is not int or not isinstance(listed, dict) or len(listed) > _MOST_FILES:
        raise ValueError(f"{MANIFEST} is none")
    if f"step-{step}" != directory.name.removeprefix(".").removesuffix(".old"):
        raise ValueError(f"{MANIFEST} is that of step {step}")
    files = {}
    for name, entry in listed.items():
        parts = name.split("/")
        if not all(parts) or {".", ".."} & set(parts) or "\\" in name or "\0" in name:
            raise ValueError(f"{MANIFEST} names {name!r:.80}, which is no file of a checkpoint")
        size, sha256 = (
            (entry.get(key) for key in _Entry._fields) if isinstance(entry, dict) else (0, 0)
        )
        if type(size) is not int or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise ValueError(f"{MANIFEST} does not say what {name!r:.80} is")
        files[name] = _Entry(size, sha256)
    return _Manifest(step, files)


def _verify(directory: Path, others: str, *, but: str | None = None) -> int:
    """Return the step of a checkpoint whose files, but for one folder, are as they were written.

    There is nothing else in it, so that whoever reads it reads only what has been verified.
    """

    def counts(name: str) -> bool:
        return but is None or not name.startswith(f"{but}/")

    try:
        if directory.is_symlink():
            raise ValueError("it is a link")
        manifest = _read_manifest(directory)
        for name in _files(directory):
            if name not in manifest.files and counts(name):
                raise ValueError(f"{name} is not in {MANIFEST}")
        for name, (size, sha256) in manifest.files.items():
            if not counts(name):
                continue
            path = directory / name
            # Whatever the folders above it are, links or not, was seen by `_files`.
            about = path.lstat()
            if not stat.S_ISREG(about.st_mode):
                raise ValueError(f"{name} is no plain file")
            if about.st_size != size:
                raise ValueError(f"{name} has {about.st_size} bytes, not {size}")
            if _sha256(path) != sha256:
                raise ValueError(f"{name} has changed since it was written")
        return manifest.step
    except (OSError, ValueError) as error:
        raise UsageError(f"The checkpoint {directory} is damaged ({error}). {others}") from None


def _files(directory: Path) -> Iterator[str]:
    """Yield the paths of what is in a checkpoint, but for its manifest and hidden files.

    Raises:
        ValueError: one is a link, and may lead out of the checkpoint.
    """
    for folder, folders, names in os.walk(directory, onerror=_raise):
        for name in (*folders, *names):
            path = Path(folder, name)
            if path.is_symlink():
                raise ValueError(f"{path.relative_to(directory)} is a link")
            if name in names and not name.startswith("."):  # what file managers leave behind
                relative = path.relative_to(directory).as_posix()
                if relative != MANIFEST:
                    yield relative


def _raise(error: OSError) -> None:
    raise error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
