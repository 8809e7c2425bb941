"""Opening files that somebody else has put there: plain ones only."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path


def open_plain(path: Path) -> io.BufferedReader:
    """Open a file to read its bytes.

    A pipe would be waited for, perhaps for ever, and a device has no end.

    Raises:
        OSError: it cannot be opened, or is no plain file.
    """
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError("it is no plain file")
    return file


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # which Windows has not
