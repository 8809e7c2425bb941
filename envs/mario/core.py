"""The fast console, in C, and many games of Super Mario Bros. stepped by one call.

docs/mario-core.md says what it emulates and how exactly. The library is built when the package is
installed, if there is a C compiler; it knows nothing of Python and is called through ctypes, which
lets other threads run meanwhile. All memory belongs to NumPy arrays.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rlagents.envs.mario.game import GameStuckError
from rlagents.errors import RLAgentsError, UsageError
from rlagents.types import Array, BoolArray

HEIGHT, WIDTH = 240, 256
RAM_SIZE = 2048
_INTERFACE = 1  # as in nes.h
_STATE_TAG = b"rlagents-nrom-1\n"  # what a saved state begins with
# Columns of the games' info, in the order of games.c.
INFO = ("x_pos", "y_pos", "coins", "score", "time", "life", "status", "world", "stage", "flag_get")

_REFUSED = {
    1: "is no iNES file",
    2: "is no cartridge of the kind NROM (mapper 0 with 8 KB of tiles)",
    3: "has not the size that its header says",
}

# The colours that nes-py shows, so that pictures can be compared: 64 of 0xRRGGBB.
_COLOURS = """
7C7C7C 0000FC 0000BC 4428BC 940084 A80020 A81000 881400
503000 007800 006800 005800 004058 000000 000000 000000
BCBCBC 0078F8 0058F8 6844FC D800CC E40058 F83800 E45C10
AC7C00 00B800 00A800 00A844 008888 000000 000000 000000
F8F8F8 3CBCFC 6888FC 9878F8 F878F8 F85898 F87858 FCA044
F8B800 B8F818 58D854 58F898 00E8D8 787878 000000 000000
FCFCFC A4E4FC B8B8F8 D8B8F8 F8B8F8 F8A4C0 F0D0B0 FCE0A8
F8D878 D8F878 B8F8B8 B8F8D8 00FCFC F8D8F8 000000 000000
"""
PALETTE: npt.NDArray[np.uint8] = np.array(
    [tuple(bytes.fromhex(colour)) for colour in _COLOURS.split()], dtype=np.uint8
)  # [64, 3]
# ITU-R BT.601 in OpenCV's fixed point, to the bit what cv2.cvtColor makes of each colour.
_WEIGHTS = np.array([4899, 9617, 1868])
LUMINANCE: npt.NDArray[np.uint8] = ((PALETTE @ _WEIGHTS + 8192) >> 14).astype(np.uint8)  # [64]


class JammedError(RLAgentsError):
    """The program needs an instruction that is not documented."""


_PROBLEMS = {
    1: (JammedError, "Super Mario Bros. met an instruction that the fast console does not have."),
    2: (GameStuckError, "Super Mario Bros. showed a cut-scene that did not end."),
    3: (
        UsageError,
        "[env] noop_max: Mario died in the frames without a button that begin an episode; set a "
        "smaller one.",
    ),
}


class _Job(ctypes.Structure):
    """`Job` of games.c."""

    _fields_ = [
        ("games", ctypes.c_void_p),
        ("count", ctypes.c_int32),
        ("active", ctypes.c_void_p),
        ("buttons", ctypes.c_void_p),
        ("steps", ctypes.c_void_p),
        ("skip", ctypes.c_int32),
        ("shrink", ctypes.c_void_p),
        ("stacks", ctypes.c_void_p),
        ("stack", ctypes.c_int32),
        ("classic", ctypes.c_void_p),
        ("progress", ctypes.c_void_p),
        ("info", ctypes.c_void_p),
        ("over", ctypes.c_void_p),
        ("life_lost", ctypes.c_void_p),
        ("stalled", ctypes.c_void_p),
        ("played", ctypes.c_void_p),
        ("ram", ctypes.c_void_p),
        ("problems", ctypes.c_void_p),
        ("next", ctypes.c_int32),
    ]


class _Begin(ctypes.Structure):
    """`Begin` of games.c."""

    _fields_ = [("start", ctypes.c_void_p), ("waits", ctypes.c_int32)]


def _library_file() -> Path | None:
    """Return the built library, if there is one for this Python."""
    folder = Path(__file__).parent
    files = (folder / f"_core{suffix}" for suffix in EXTENSION_SUFFIXES)
    return next((file for file in files if file.is_file()), None)


@functools.cache
def _library() -> ctypes.CDLL:
    """Return the library.

    Raises:
        UsageError: it is not built, or not from these sources, or damaged.
    """
    file = _library_file()
    if file is None:
        raise UsageError(
            "The fast console for Super Mario Bros. is not built in this installation; install a "
            "C compiler and then rlagents again."
        )
    try:
        library = ctypes.CDLL(str(file))
    except OSError as error:
        raise UsageError(
            f"The fast console for Super Mario Bros. cannot be loaded ({error}); install rlagents "
            "again."
        ) from error
    pointer, whole, long = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    for name, arguments, result in (
        ("core_interface", [], whole),
        ("cartridge_size", [], long),
        ("cartridge_init", [pointer, ctypes.c_char_p, long], whole),
        ("nes_size", [], long),
        ("nes_init", [pointer, pointer], None),
        ("nes_frame", [pointer, whole, whole], None),
        ("nes_ram", [pointer], pointer),
        ("nes_picture", [pointer], pointer),
        ("nes_state_size", [], long),
        ("nes_save", [pointer, pointer], None),
        ("nes_load", [pointer, ctypes.c_char_p], None),
        ("nes_jammed", [pointer], whole),
        ("shrink_size", [], long),
        ("shrink_init", [pointer, whole, whole, whole], whole),
        ("shrink_picture", [pointer, pointer, pointer], None),
        ("game_size", [], long),
        ("games_init", [pointer, pointer, whole, whole, pointer], None),
        ("games_begin", [ctypes.POINTER(_Job), pointer], None),
        ("games_play", [ctypes.POINTER(_Job)], None),
    ):
        function = getattr(library, name, None)
        if function is None:
            break
        function.argtypes, function.restype = arguments, result
    else:
        if library.core_interface() == _INTERFACE:
            return library
    raise UsageError(
        f"{file.name}, the fast console for Super Mario Bros., was built from other sources than "
        "these; install rlagents again."
    )


def available() -> bool:
    """Tell whether the library is built.

    Raises:
        UsageError: it is, but not from these sources, or it is damaged.
    """
    if _library_file() is None:
        return False
    return _library() is not None


def _bytes(size: int) -> npt.NDArray[np.uint8]:
    """Return zeros: uint8 [size], aligned for any type of C."""
    return np.zeros((size + 15) // 16 * 2, dtype=np.int64).view(np.uint8)[:size]


@functools.lru_cache(maxsize=4)
def _cartridge(file: bytes) -> Array:
    """Return `Cartridge` of an iNES file.

    Raises:
        UsageError: it is none that this console plays.
    """
    library = _library()
    memory = _bytes(library.cartridge_size())
    reason = library.cartridge_init(memory.ctypes.data, file, len(file))
    if reason:
        raise UsageError(f"The game's file {_REFUSED[reason]}; the fast console cannot play it.")
    return memory


class CoreConsole:
    """One console with a cartridge in it, switched on.

    Attributes:
        ram: uint8 [2048], a live view that may be written to.

    Args:
        rom: an iNES file of the kind NROM, or its content.

    Raises:
        UsageError: the library is not built, or the file is of another kind.
    """

    def __init__(self, rom: Path | bytes) -> None:
        library = self._library = _library()
        self._cartridge = _cartridge(rom if isinstance(rom, bytes) else rom.read_bytes())
        self._memory = _bytes(library.nes_size())
        self._nes: int | None = self._memory.ctypes.data
        library.nes_init(self._nes, self._cartridge.ctypes.data)
        self.ram: Array = self._view(library.nes_ram(self._nes), RAM_SIZE)
        self._picture = self._view(library.nes_picture(self._nes), HEIGHT * WIDTH)

    def _view(self, address: int, size: int) -> Array:
        assert self._nes is not None
        return self._memory[address - self._nes :][:size]

    def frame(self, buttons: int, *, draw: bool = True) -> None:
        """Play one video frame; with `draw=False` the picture is left as it was.

        Raises:
            JammedError: the program needs an undocumented instruction; the console stands still.
        """
        self._library.nes_frame(self._open(), buttons, draw)
        if self._library.nes_jammed(self._nes):
            raise JammedError(_PROBLEMS[1][1])

    def _open(self) -> int:
        """Return the console's address.

        Raises:
            ValueError: it is closed.
        """
        if self._nes is None:
            raise ValueError("the console is closed")
        return self._nes

    def screen(self) -> Array:
        """Return the picture of the frame drawn last: [240, 256, 3] uint8 RGB, a copy."""
        self._open()
        return PALETTE[self._picture.reshape(HEIGHT, WIDTH)]

    def save(self) -> bytes:
        """Return the exact state, and with it what `screen` shows next."""
        state = _bytes(self._library.nes_state_size())
        self._library.nes_save(self._open(), state.ctypes.data)
        return _STATE_TAG + state.tobytes()

    def load(self, state: bytes) -> None:
        """Go back to a state that such a console has saved.

        Raises:
            ValueError: it is no such state.
        """
        console = self._open()
        content = state.removeprefix(_STATE_TAG)
        if len(content) != self._library.nes_state_size() or content == state:
            raise ValueError("the state is none of the fast console, or of another version of it")
        self._library.nes_load(console, content)
        self._picture &= 63  # the colours there are, whatever the bytes were

    def close(self) -> None:
        """Switch the console off; it cannot be used any more."""
        self._nes = None


class Shrink:
    """Pictures as small squares, to the bit what OpenCV's resize with INTER_AREA makes of them.

    Args:
        crop: rows that are cut off at the top and at the bottom.
        size: of the square, at most the rows that are left.

    Raises:
        ValueError: it is larger.
    """

    def __init__(self, crop: Sequence[int], size: int) -> None:
        self._library = _library()
        self._memory = _bytes(self._library.shrink_size())
        self.size = size
        self.address: int = self._memory.ctypes.data
        if not self._library.shrink_init(self.address, crop[0], crop[1], size):
            raise ValueError(f"a picture without {list(crop)} rows has less than {size} rows")

    def __call__(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the square: [240, 256] uint8 -> [size, size] uint8."""
        if picture.shape != (HEIGHT, WIDTH) or picture.dtype != np.uint8:
            raise ValueError(f"expected uint8 [240, 256], got {picture.dtype} {picture.shape}")
        source = np.ascontiguousarray(picture)
        square = np.zeros((self.size, self.size), dtype=np.uint8)
        self._library.shrink_picture(self.address, source.ctypes.data, square.ctypes.data)
        return square


class Pictures(NamedTuple):
    """What games show: grey squares on a stack."""

    crop: Sequence[int] = (0, 0)  # rows cut off at the top and at the bottom
    size: int = 84
    stack: int = 4


class CoreGames:
    """N games of Super Mario Bros.

    Rows of the arrays are those of the games. They are written by `begin` and `play`, in the rows
    of the games that these are called for.

    Attributes:
        stacks: [N, stack, size, size] uint8, newest last; of no use without pictures.
        classic, progress: [N] float64, both rewards of the last step, summed over its frames.
        info: [N, 10] int32, the columns INFO; the status as 0, 1 or 2. As the last frame left it,
            before anything was skipped.
        over: [N] bool, the episode ended for good.
        life_lost: [N] bool, a life was lost in the last step and the episode goes on.
        stalled: [N] int32, steps without a new greatest x.
        played: [N] int32, steps of the last call to the episode's end.
        ram: [N, 2048] uint8 at the end of the step.

    Args:
        rom: the game's file.
        count: N.
        frame_skip: frames of a step.
        full: the whole game, not one stage.
        pictures: what is drawn; None for nothing.
        threads: that play the games; results do not depend on them.

    Raises:
        UsageError: the library is not built.
    """

    def __init__(
        self,
        rom: Path | bytes,
        count: int,
        *,
        frame_skip: int = 4,
        full: bool = False,
        pictures: Pictures | None,
        threads: int = 1,
    ) -> None:
        library = self._library = _library()
        self._cartridge = _cartridge(rom if isinstance(rom, bytes) else rom.read_bytes())
        self._games = _bytes(library.game_size() * count)
        shades = np.ascontiguousarray(LUMINANCE)
        library.games_init(
            self._games.ctypes.data, self._cartridge.ctypes.data, count, full, shades.ctypes.data
        )
        self.count, self.frame_skip = count, frame_skip
        self._shrink = None if pictures is None else Shrink(pictures.crop, pictures.size)
        stack, size = (0, 0) if pictures is None else (pictures.stack, pictures.size)
        self.stacks = np.zeros((count, stack, size, size), dtype=np.uint8)
        self.classic, self.progress = np.zeros((2, count))
        self.info = np.zeros((count, len(INFO)), dtype=np.int32)
        self.over, self.life_lost = np.zeros((2, count), dtype=np.bool_)
        self.stalled, self.played = np.zeros((2, count), dtype=np.int32)
        self.ram = np.zeros((count, RAM_SIZE), dtype=np.uint8)
        self._problems = np.zeros(count, dtype=np.int32)
        self._active = np.zeros(count, dtype=np.bool_)
        self._steps = np.zeros(count, dtype=np.int32)
        self._pointers = np.zeros(count, dtype=np.uintp)
        self._buttons: list[Array] = []  # alive while they are pressed
        self._starts: dict[bytes, Array] = {}
        self._job = _Job(
            games=self._games.ctypes.data,
            count=count,
            active=self._active.ctypes.data,
            buttons=self._pointers.ctypes.data,
            steps=self._steps.ctypes.data,
            skip=frame_skip,
            shrink=None if self._shrink is None else self._shrink.address,
            stacks=self.stacks.ctypes.data,
            stack=stack,
            classic=self.classic.ctypes.data,
            progress=self.progress.ctypes.data,
            info=self.info.ctypes.data,
            over=self.over.ctypes.data,
            life_lost=self.life_lost.ctypes.data,
            stalled=self.stalled.ctypes.data,
            played=self.played.ctypes.data,
            ram=self.ram.ctypes.data,
            problems=self._problems.ctypes.data,
        )
        self._threads = min(threads, count)
        self._pool = ThreadPoolExecutor(self._threads) if self._threads > 1 else None
        self._running: list[Future[Any]] | None = None

    def begin(self, mask: BoolArray, starts: Sequence[bytes], waits: Sequence[int]) -> None:
        """Begin an episode in each game of `mask`.

        Args:
            mask: [N].
            starts: states of a `CoreConsole` at the start, one for each of them.
            waits: frames without a button that follow it, likewise.

        Raises:
            UsageError: an episode ended in those frames.
            RLAgentsError: something that should not happen in the game did.
        """
        begins = (_Begin * self.count)()
        chosen = np.flatnonzero(mask).tolist()
        for index, start, wait in zip(chosen, starts, waits, strict=True):
            begins[index] = _Begin(self._start(start).ctypes.data, wait)
        self._active[:] = mask
        self._library.games_begin(ctypes.byref(self._job), ctypes.addressof(begins))
        self._check()

    def _start(self, state: bytes) -> Array:
        """Return a console's state with its picture in grey, as the games draw it."""
        if state not in self._starts:
            content = np.frombuffer(state.removeprefix(_STATE_TAG), dtype=np.uint8).copy()
            if content.size != self._library.nes_state_size():
                raise ValueError("the state is none of the fast console")
            picture = content[-HEIGHT * WIDTH :]
            picture[:] = LUMINANCE[picture & 63]
            self._starts[state] = content
        return self._starts[state]

    def play(self, mask: BoolArray, buttons: Sequence[Array]) -> None:
        """Start to play each game of `mask`; `wait` is the end of it.

        Args:
            mask: [N].
            buttons: N of uint8 [steps, frame_skip], the bits pressed in each frame; those outside
                the mask are not looked at.

        Raises:
            ValueError: they are not as many, or of another shape.
        """
        assert self._running is None, "wait() comes first"
        if len(buttons) != self.count:
            raise ValueError(f"expected buttons of {self.count} games, got {len(buttons)}")
        self._buttons = [np.ascontiguousarray(one, dtype=np.uint8) for one in buttons]
        for index, one in enumerate(self._buttons):
            if one.ndim != 2 or one.shape[1] != self.frame_skip:
                raise ValueError(f"expected buttons [steps, {self.frame_skip}], got {one.shape}")
            self._pointers[index] = one.ctypes.data
            self._steps[index] = len(one)
        self._active[:] = mask
        self._job.next = 0
        if self._pool is None:
            self._running = []
        else:
            play = functools.partial(self._library.games_play, ctypes.byref(self._job))
            self._running = [self._pool.submit(play) for _ in range(self._threads)]

    def wait(self) -> None:
        """Wait until all games are played.

        Raises:
            RLAgentsError: something that should not happen in a game did.
        """
        assert self._running is not None, "play() comes first"
        running, self._running = self._running, None
        if self._pool is None:
            self._library.games_play(ctypes.byref(self._job))
        for one in running:
            one.result()
        self._check()

    def _check(self) -> None:
        found = self._problems[self._active]
        if found.any():
            error, text = _PROBLEMS[int(found[found > 0][0])]
            raise error(text)

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown()
