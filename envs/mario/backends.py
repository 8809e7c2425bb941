"""Consoles: one NES with Super Mario Bros. in it, whoever emulates it.

nes-py is used for its emulator alone. Its Python classes need gym, which no longer works with
today's NumPy, and show their memory while it changes; here everything that leaves is a copy.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib
import importlib.machinery
import importlib.util
import struct
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rlagents.envs.mario.memory import RAM_SIZE
from rlagents.envs.mario.rom import INSTALL, find_rom, package_folder
from rlagents.errors import UsageError, did_you_mean
from rlagents.types import Array

HEIGHT, WIDTH = 240, 256
FRAMES_PER_SECOND = 60.0988  # of an NTSC console, as which nes-py plays the cartridge
BACKENDS = ("auto", "core", "nes-py")
_CORE = "rlagents.envs.mario.core"


class Console(Protocol):
    """One NES with the game in it.

    Attributes:
        ram: uint8 [2048], a live view that may be written to.
    """

    ram: Array

    def frame(self, buttons: int, *, draw: bool = True) -> None:
        """Play one video frame; with `draw=False` the picture may be left as it was."""

    def screen(self) -> Array:
        """Return the picture of the last frame drawn: [240, 256, 3] uint8 RGB, a copy."""

    def save(self) -> bytes:
        """Return the exact state, and with it what `screen` shows next."""

    def load(self, state: bytes) -> None:
        """Go back to a state that a console of this kind has saved.

        Raises:
            ValueError: it is no such state.
        """

    def close(self) -> None:
        """Free the console; it cannot be used any more."""


class _Recorded:
    """An emulator with one slot for a state, made into a console with any number of them.

    The first `save` fills the slot. From there on what is pressed and what is written to the RAM is
    recorded, and a state is the slot and that record. So `load` plays the record again: exact, and
    as slow as playing. It takes states of other consoles too, if their slots hold the same state.
    """

    ram: Array
    _FRAME = struct.Struct("<BH")  # buttons, and how many writes come before the frame
    _WRITE = struct.Struct("<HB")  # address, value

    def __init__(self) -> None:
        self._record = bytearray()
        self._slot: bytes | None = None  # the hash of the record that led to it
        self._seen = self.ram.copy()  # as the emulator left it

    def _advance(self, buttons: int) -> None:
        """Emulate one frame."""
        raise NotImplementedError

    def _fill_slot(self) -> None:
        """Keep the present state."""
        raise NotImplementedError

    def _use_slot(self) -> None:
        """Go back to the state kept."""
        raise NotImplementedError

    def frame(self, buttons: int, *, draw: bool = True) -> None:
        """Play one frame; the picture is always drawn."""
        del draw
        self._record += self._events(buttons)
        self._advance(buttons)
        self._seen[:] = self.ram

    def _events(self, buttons: int) -> bytes:
        """Return a record's entry: what was written since the last frame, and the buttons."""
        written = np.flatnonzero(self.ram != self._seen).tolist()
        writes = b"".join(self._WRITE.pack(address, self.ram[address]) for address in written)
        return self._FRAME.pack(buttons, len(written)) + writes

    def save(self) -> bytes:
        """Return the state: the hash of the slot, and the record since."""
        if self._slot is None:
            self._slot = hashlib.sha256(bytes(self._record) + self._events(0)).digest()
            self._record.clear()
            self._seen[:] = self.ram
            self._fill_slot()
        return self._slot + bytes(self._record) + self._events(0)

    def load(self, state: bytes) -> None:
        """Go back to a state, by playing its record.

        Raises:
            ValueError: it is none, or one of a console with another state in its slot.
        """
        size = hashlib.sha256().digest_size
        if self._slot is None or state[:size] != self._slot:
            raise ValueError("the state belongs to a console that was started in another way")
        self._use_slot()
        self._seen[:] = self.ram
        self._record.clear()
        try:
            self._replay(state[size:])
        except (struct.error, IndexError):
            raise ValueError("the state is cut off or damaged") from None

    def _replay(self, record: bytes) -> None:
        position = 0
        while True:
            buttons, count = self._FRAME.unpack_from(record, position)
            position += self._FRAME.size
            for _ in range(count):
                address, value = self._WRITE.unpack_from(record, position)
                self.ram[address] = value
                position += self._WRITE.size
            if position == len(record):  # the last entry holds what was written after all frames
                return
            self.frame(buttons)


@functools.cache
def _library() -> ctypes.CDLL:
    folder = package_folder("nes_py")
    files = sorted(folder.glob("lib_nes_env*")) if folder is not None else []
    if not files:
        raise UsageError(f"nes-py, which emulates the console, is not installed; run: {INSTALL}")
    try:
        library = ctypes.CDLL(str(files[0]))
    except OSError as error:
        raise _damaged(error) from error
    pointer = ctypes.c_void_p
    for name, arguments, result in (
        ("Initialize", [ctypes.c_wchar_p], pointer),
        ("Controller", [pointer, ctypes.c_uint], pointer),
        ("Screen", [pointer], pointer),
        ("Memory", [pointer], pointer),
        ("Reset", [pointer], None),
        ("Step", [pointer], None),
        ("Backup", [pointer], None),
        ("Restore", [pointer], None),
        ("Close", [pointer], None),
    ):
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, result
    return library


def _view(address: int, size: int) -> Array:
    """Return the emulator's own bytes: uint8 [size]."""
    memory = memoryview((ctypes.c_uint8 * size).from_address(address)).cast("B")
    return np.frombuffer(memory, dtype=np.uint8)


class NesPy8(_Recorded):
    """The emulator of nes-py 8, by its C functions.

    Args:
        rom: the game's file.
    """

    def __init__(self, rom: Path) -> None:
        self._library = _library()
        self._handle: int | None = self._library.Initialize(str(rom))
        self._library.Reset(self._handle)
        self._buttons = _view(self._library.Controller(self._handle, 0), 1)
        self.ram = _view(self._library.Memory(self._handle), RAM_SIZE)
        pixels = _view(self._library.Screen(self._handle), HEIGHT * WIDTH * 4)
        self._picture = pixels.reshape(HEIGHT, WIDTH, 4)[:, :, 2::-1]  # BGRX in memory
        super().__init__()

    def _advance(self, buttons: int) -> None:
        self._buttons[0] = buttons
        self._library.Step(self._handle)

    def _fill_slot(self) -> None:
        self._library.Backup(self._handle)

    def _use_slot(self) -> None:
        self._library.Restore(self._handle)

    def screen(self) -> Array:
        """Return the picture: [240, 256, 3] uint8 RGB, a copy."""
        return np.ascontiguousarray(self._picture)

    def close(self) -> None:
        """Free the emulator."""
        if self._handle is not None:
            self._library.Close(self._handle)
            self._handle = None


class NesPy9(_Recorded):
    """The emulator of nes-py 9, by its extension module.

    Args:
        rom: the game's file.
    """

    def __init__(self, rom: Path) -> None:
        self._emulator: Any = _native_module().NativeEmulator(str(rom))
        self._emulator.reset()
        self.ram = self._emulator.ram_buffer()
        self._picture: Array = self._emulator.screen_buffer()
        super().__init__()

    def _advance(self, buttons: int) -> None:
        self._emulator.frame_advance(buttons)

    def _fill_slot(self) -> None:
        self._emulator.backup()

    def _use_slot(self) -> None:
        self._emulator.restore()

    def screen(self) -> Array:
        """Return the picture: [240, 256, 3] uint8 RGB, a copy."""
        return np.array(self._picture, order="C")

    def close(self) -> None:
        """Free the emulator."""
        self._emulator.close()


def _native_file() -> Path | None:
    """Return nes-py 9's extension module for this Python, None if there is none."""
    folder = package_folder("nes_py")
    if folder is None:
        return None
    files = (folder / f"_native{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES)
    return next((file for file in files if file.is_file()), None)


@functools.cache
def _native_module() -> Any:
    """Return nes-py 9's extension module, without its package, which needs a window library."""
    file = _native_file()
    assert file is not None
    spec = importlib.util.spec_from_file_location("nes_py._native", file)
    assert spec is not None
    assert spec.loader is not None
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (ImportError, OSError) as error:
        raise _damaged(error) from error
    return module


def _damaged(error: Exception) -> UsageError:
    return UsageError(
        f"nes-py, which emulates the console, cannot be loaded ({error}); run: pip install "
        "--force-reinstall --no-deps nes-py"
    )


def core_available() -> bool:
    """Tell whether this installation has the emulator written for this game, and it is built."""
    if importlib.util.find_spec(_CORE) is None:
        return False
    return bool(importlib.import_module(_CORE).available())


def _nes_py() -> type[NesPy8] | type[NesPy9] | None:
    folder = package_folder("nes_py")
    if folder is None:
        return None
    if any(folder.glob("lib_nes_env*")):
        return NesPy8
    return None if _native_file() is None else NesPy9


def resolve_backend(backend: str) -> str:
    """Return "core" or "nes-py": the backend asked for, or the fastest there is for "auto".

    Raises:
        UsageError: there is no backend of that name, or it is not installed here.
    """
    if backend not in BACKENDS:
        raise UsageError(
            f"[env] kwargs: there is no backend {backend!r}{did_you_mean(str(backend), BACKENDS)} "
            f"It must be one of {', '.join(BACKENDS)}."
        )
    if backend != "nes-py" and core_available():
        return "core"
    if backend == "core":
        raise UsageError(
            '[env] kwargs: backend = "core" is not built in this installation; use '
            'backend = "nes-py", or install rlagents from source with a C compiler.'
        )
    if _nes_py() is None:
        raise UsageError(f"nes-py, which emulates the console, is not installed; run: {INSTALL}")
    return "nes-py"


def make_console(backend: str = "auto") -> Console:
    """Return a console with the game in it, switched on.

    Args:
        backend: "auto" for the fastest there is, "core" or "nes-py".

    Raises:
        UsageError: the backend or the game is not installed.
    """
    rom = find_rom()
    if resolve_backend(backend) == "core":
        console: Console = importlib.import_module(_CORE).CoreConsole(rom)
        return console
    kind = _nes_py()
    assert kind is not None  # as resolved
    return kind(rom)
