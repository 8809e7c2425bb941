"""Whose code a run may bring in: an environment that its config names is code to be imported.

A run's folder is only data, until its config names a file or a module as its environment: to play
it, that is imported. Where this user has trained with just that environment on this machine, it is
imported without asking, and anywhere else only with `--allow-import`.

How that is known: `user-id` in the user's state folder holds random bytes that nobody else can
read. Training writes to config.json, under `trained_here`, a keyed hash (HMAC-SHA256) of the whole
`[env]` table but for how many processes it runs in and what becomes of failures. Whoever does not
know the bytes cannot make one, and one that is copied from another run holds for the same
environment with the same arguments only: code that has run here before.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlagents.errors import UsageError

_PURPOSE = "rlagents: this user has trained with this environment here, 1"
_BYTES = 32
# Of an `[env]` table, what says nothing of the code that is run; older runs do not have it.
_HOW_IT_IS_RUN = ("num_workers", "step_limit_s", "max_restarts")


def imports_code(env: Mapping[str, Any]) -> bool:
    """Tell whether making the environment of an `[env]` table runs what the table says.

    An id with a colon names a file or a module. All other ids are looked up among what is installed
    or registered by the user's own program: a config can choose from that, and cannot add to it.
    But arguments are handed on: to somebody else's code, which may take a path, or a name to import
    (Gymnasium's own `GymV26Environment-v0` does). What comes with rlagents takes no such thing.
    """
    env_id = str(env.get("id", ""))
    return ":" in env_id or (bool(env.get("kwargs")) and not _is_built_in(env_id))


def _is_built_in(env_id: str) -> bool:
    if env_id in ("cartpole", "pong") or env_id.startswith(("atari/", "ALE/")):
        return True
    return re.fullmatch(r"mario(-random|-[1-8]-[1-4])?", env_id, re.ASCII) is not None


def sign(env: Mapping[str, Any]) -> str | None:
    """Return what `trained_here` is for an `[env]` table of config.json.

    Returns:
        None where there is nothing to sign, or no state folder to keep the user's id in.
    """
    if not imports_code(env):
        return None
    try:
        key = _read_id() or _make_id()
    except OSError:  # a home that cannot be written: it is asked for --allow-import later
        return None
    return _hash(key, env)


def is_trusted(manifest: Mapping[str, Any]) -> bool:
    """Tell whether the environment of a run's config.json may be made without asking."""
    env = manifest["config"]["env"]
    if not imports_code(env):
        return True
    signed = manifest.get("trained_here")
    try:
        key = _read_id()
    except OSError:
        return False
    return (
        key is not None and isinstance(signed, str) and hmac.compare_digest(signed, _hash(key, env))
    )


def require_trust(manifest: Mapping[str, Any], source: Path, *, allow_import: bool) -> None:
    """Raise unless a run's environment may be made.

    Args:
        manifest: config.json.
        source: the run's folder.
        allow_import: whether the user has allowed it for this command.

    Raises:
        UsageError: it would run code, and this user has not trained with it here.
    """
    if allow_import or is_trusted(manifest):
        return
    env = manifest["config"]["env"]
    env_id = str(env["id"])
    what = f"import {env_id}" if ":" in env_id else f"give {env['kwargs']} to {env_id}"
    raise UsageError(
        f"{source} asks to {what}, which would run code that you have not trained with on this "
        "machine. If you trust it, add --allow-import (in Python: allow_import=True)."
    )


def _hash(key: bytes, env: Mapping[str, Any]) -> str:
    named = {name: value for name, value in env.items() if name not in _HOW_IT_IS_RUN}
    message = json.dumps([_PURPOSE, named], sort_keys=True, separators=(",", ":"))
    return hmac.new(key, message.encode(), hashlib.sha256).hexdigest()


def _path() -> Path:
    """Return where the user's id is kept: the XDG state folder, which is not shared or synced."""
    base = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state"
    return folder / "rlagents" / "user-id"


def _read_id() -> bytes | None:
    """Return the user's id, None if there is none that only this user can have written and read."""
    try:
        descriptor = os.open(_path(), os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        others = stat.S_IRWXG | stat.S_IRWXO
        if hasattr(os, "getuid") and (about.st_uid != os.getuid() or about.st_mode & others):
            raise PermissionError(f"{_path()} can be read by others")
        key = file.read(_BYTES + 1)
    return key if len(key) == _BYTES else None


def _make_id() -> bytes:
    """Make the user's id; where another process just did, return that one."""
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}-{os.getpid()}.part")
    key = secrets.token_bytes(_BYTES)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)  # unlike a rename, never in the place of one
    finally:
        os.unlink(temporary)
    made = _read_id()
    if made is None:
        raise OSError(f"{path} is damaged; delete it")
    return made
