"""Checkpoints that somebody has tampered with, and whose manifests are true all the same."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


def last(run: Path) -> Path:
    """The last checkpoint's folder."""
    index = json.loads((run / "checkpoints" / "index.json").read_text())
    return run / "checkpoints" / str(index["last"])


def sign(checkpoint: Path) -> None:
    """Write the manifest anew, as the sender of a run would."""
    step = json.loads((checkpoint / MANIFEST).read_text())["step"]
    files = {
        path.relative_to(checkpoint).as_posix(): {
            "size": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in checkpoint.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }
    (checkpoint / MANIFEST).write_text(json.dumps({"step": step, "files": files}))


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Change what is in a JSON file."""
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))


def safetensors(header: Any, data: bytes = b"") -> bytes:
    """A file of the format, with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """A file of the format, with any header."""
    text = header.encode() + b"\n"
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + length + text + data
