"""Checkpoints: directories of plain files that are complete or not there.

A checkpoint is written under a name that starts with a dot, its manifest (sizes and SHA-256 of
every file) last, and renamed into place; only then are older ones removed. Nothing in it executes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rlagents.errors import UsageError
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
        temporary.mkdir()
        write(temporary)
        _write_manifest(temporary, step)
        # It may be the same step again, written after an evaluation or with replay.
        final = self._put(temporary, name)
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

            shutil.copytree(whole, temporary, ignore=ignore)
            tell(temporary)
            _write_manifest(temporary, step)
            self._put(temporary, whole.name)

    def _put(self, temporary: Path, name: str) -> Path:
        """Give a finished checkpoint its name, in the place of an older one if there is one."""
        final = self._directory / name
        if final.exists():
            old = self._directory / f".{name}.old"
            shutil.rmtree(old, ignore_errors=True)
            os.rename(final, old)
            os.rename(temporary, final)
            shutil.rmtree(old)
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
            index = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            index = {}
        listed = index if isinstance(index, dict) else {}
        known = {
            key: name
            for key, name in listed.items()
            if isinstance(name, str) and name and self._place(name).is_dir()
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
        if not name or not self._place(name).is_dir():
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
        """Put back what a kill between two renames left under its old name."""
        for old in self._directory.glob(".step-*.old"):
            final = self._directory / old.name.removeprefix(".").removesuffix(".old")
            if not final.exists():
                os.rename(old, final)

    def _whole(self) -> list[Path]:
        """Return the checkpoints that have been written to the end, the newest first."""
        found = self._directory.glob("step-*")
        whole = [p for p in found if p.name[5:].isdigit() and (p / MANIFEST).is_file()]
        return sorted(whole, key=_step_of, reverse=True)

    def _prune(self, index: dict[str, str]) -> None:
        for leftover in self._directory.glob(".step-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for path in self._whole()[self._keep :]:
            if path.name not in index.values():
                shutil.rmtree(path, ignore_errors=True)


def _write_manifest(directory: Path, step: int) -> None:
    """Write the sizes and hashes of all files, and see that everything is on the disk."""
    (directory / MANIFEST).unlink(missing_ok=True)
    files = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            files[path.relative_to(directory).as_posix()] = {
                "size": path.stat().st_size,
                "sha256": _sha256(path),
            }
            sync(path)
    (directory / MANIFEST).write_text(json.dumps({"step": step, "files": files}, indent=1))
    sync(directory / MANIFEST)
    for folder in (directory, *(path for path in directory.rglob("*") if path.is_dir())):
        sync(folder)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _verify(directory: Path, others: str, *, but: str | None = None) -> int:
    """Return the step of a checkpoint whose files, but for one folder, are as they were written."""
    try:
        manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        for name, expected in manifest["files"].items():
            if but is not None and name.startswith(f"{but}/"):
                continue
            path = directory / name
            if path.stat().st_size != expected["size"]:
                raise ValueError(f"{name} has {path.stat().st_size} bytes, not {expected['size']}")
            if _sha256(path) != expected["sha256"]:
                raise ValueError(f"{name} has changed since it was written")
        return int(manifest["step"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"The checkpoint {directory} is damaged ({error}). {others}") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
