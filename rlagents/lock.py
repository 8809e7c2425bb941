"""One run, one writer: a lock that the operating system takes back when its holder is gone.

`run.lock` in a run's folder is locked as long as a process trains there, and says which one. The
lock belongs to the open file, so that a kill or a power cut leaves nothing to clear away: a file
that is not locked says nothing, and the next writer takes it. Reading a run needs no lock.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from rlagents.errors import UsageError

if sys.platform != "win32":
    import fcntl

LOCK = "run.lock"
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)  # never somebody else's file
# What a file system answers that knows no locks, such as some that are mounted over a network.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class RunLock:
    """Held while a process writes to a run's folder.

    Where there are no locks, the process that the file names is looked for instead, which can be
    done on its own machine only.

    Args:
        directory: the run's folder.

    Raises:
        UsageError: on entering, if another process holds it or the folder cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        """Take the lock, and say who holds it."""
        descriptor = self._take()
        try:
            about = {
                "pid": os.getpid(),
                "host": platform.node(),
                "since": time.time(),
                "started": psutil.Process().create_time(),
            }
            with contextlib.suppress(OSError):  # a full disk; it is locked all the same
                os.ftruncate(descriptor, 0)
                os.lseek(descriptor, 0, os.SEEK_SET)
                os.write(descriptor, (json.dumps(about) + "\n").encode())
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return self

    def _take(self) -> int:
        """Return the file, open and locked."""
        while True:
            try:
                descriptor = os.open(self._path, _FLAGS, 0o644)
            except OSError as error:
                raise UsageError(
                    f"{self._path} cannot be written ({error.strerror}), so that nothing can be "
                    "trained there; copy the run to where you may write."
                ) from None
            try:
                if not _lock(descriptor):
                    raise UsageError(_refusal(self._path, _holder(descriptor)))
                # The last holder may have removed the file since it was opened.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), self._path.stat()):
                        return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # while it is locked, so that it is still this one
                self._path.unlink()
            os.close(self._descriptor)
            self._descriptor = None


def _lock(descriptor: int) -> bool:
    """Lock an open file; False if another process has."""
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
    return not _is_there(_holder(descriptor))


def _is_there(holder: dict[str, Any]) -> bool:
    """Tell whether the process that a file names may be running still."""
    if not holder:
        return False
    if holder.get("host") != platform.node():
        return True  # it cannot be looked for from here
    try:
        return bool(psutil.Process(holder["pid"]).create_time() == holder["started"])
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


def _holder(descriptor: int) -> dict[str, Any]:
    """Return what the file says about its holder, {} if nothing."""
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        holder = json.loads(os.read(descriptor, 4096))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _refusal(path: Path, holder: dict[str, Any]) -> str:
    who, gone = "Another process", ""
    if isinstance(holder.get("pid"), int) and isinstance(holder.get("since"), float):
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
        who = f"Process {holder['pid']} on {holder.get('host')}, since {since},"
        if holder.get("host") != platform.node():
            gone = f" If that machine is gone for good, delete {path}."
    return (
        f"{who} is writing to {path.parent}, and a run has one writer: let it end, or stop it with "
        f"Ctrl-C or SIGTERM (it saves first), and go on with: rlagents resume {path.parent}.{gone}"
    )
