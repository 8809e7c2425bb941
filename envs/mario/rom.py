"""Where the game and the emulator lie: found without importing them, and with them gym.

The ROM is part of the package gym-super-mario-bros. It is Nintendo's; nothing here copies it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from pathlib import Path

from rlagents.errors import UsageError

INSTALL = "pip install 'rlagents[mario]'"
_ROM = Path("_roms") / "super-mario-bros.nes"
# Of the whole file, header included: the ROM of every release of the package so far.
ROM_SHA256 = "ec299b990e8bfee8ba46e3f61d63b2e1ae5b8a2e431de84e2e4bbd692dc53586"


def package_folder(name: str) -> Path | None:
    """Return the folder of an installed package, None if there is none; it is not imported."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def why_missing() -> str | None:
    """Return a sentence on what Super Mario Bros. lacks here, None if it can be played."""
    try:
        find_rom()
    except UsageError as error:
        return str(error)
    return None


def is_installed() -> bool:
    """Tell whether the package with the game is there at all, whole or damaged."""
    return package_folder("gym_super_mario_bros") is not None


def find_rom() -> Path:
    """Return the path of the ROM.

    Raises:
        UsageError: the package is not installed, or ships another ROM.
    """
    folder = package_folder("gym_super_mario_bros")
    if folder is None or not (folder / _ROM).is_file():
        raise UsageError(
            "Super Mario Bros. needs the package gym-super-mario-bros, which holds the game, and "
            f"nes-py, which emulates the console; run: {INSTALL}"
        )
    path = folder / _ROM
    if _sha256(path) != ROM_SHA256:
        raise UsageError(
            f"{path} is not the ROM that the rules are written for (its SHA-256 begins "
            f"{_sha256(path)[:8]}, expected {ROM_SHA256[:8]}); install gym-super-mario-bros anew."
        )
    return path


@functools.cache
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
