"""Files that a command writes where the user says: checked first, and never half-written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rlagents.errors import RLAgentsError, UsageError

PICTURES = (".png", ".svg", ".pdf")
_LONGEST_NAME = 200  # bytes; what lies beside it, or is being written, has a longer one, up to 255


def check_name(path: Path, endings: Sequence[str], *, option: str = "--output") -> None:
    """Refuse a name that a file of this kind cannot have; nothing is touched.

    Raises:
        UsageError: it ends in none of `endings`, is a folder, or too long for a name.
    """
    if path.suffix not in endings:
        *others, last = endings
        choice = f"{', '.join(others)} or {last}" if others else last
        raise UsageError(f"{option}: expected a file that ends in {choice}, got {str(path)!r}.")
    length = len(os.fsencode(path.name))
    if length > _LONGEST_NAME:
        raise UsageError(
            f"{option}: expected a name of at most {_LONGEST_NAME} bytes, got {length}: "
            f"{path.name[:20]}…"
        )
    if os.path.isdir(path):
        raise UsageError(f"{option}: {path} is a folder; name a file.")


def check_writable(folder: Path, path: Path | None = None, *, option: str = "--output") -> None:
    """Make a folder, and see that it can be written to.

    Args:
        folder: where a file is to go.
        path: of the file, if the user has named it.
        option: by which.

    Raises:
        UsageError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"{option}: {path or folder} cannot be written ({error.strerror}); name another file."
        ) from None


def write_whole(path: Path, data: bytes, *, option: str = "--output") -> None:
    """Write a file under a temporary name and rename it; an older one is replaced.

    Raises:
        RLAgentsError: it cannot be written; what was there before still is.
    """
    temporary = path.with_name(f".{path.name}-{os.getpid()}.part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise RLAgentsError(f"{option}: {path} was not written ({error.strerror}).") from None
    finally:
        temporary.unlink(missing_ok=True)  # it is there if something went wrong, Ctrl-C included
