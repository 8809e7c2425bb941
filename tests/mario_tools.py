"""What the tests of Super Mario Bros. share: whether it is installed, and a way through 1-1."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlagents.envs.mario import memory
from rlagents.envs.mario.backends import HEIGHT, WIDTH, core_available
from rlagents.envs.mario.rom import why_missing

MISSING = why_missing()
needs_mario = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
BACKENDS = ["nes-py", "core"] if core_available() else ["nes-py"]


def installed(package: str) -> str:
    """Return the version of a package, "" if it is not there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def way_through_1_1() -> list[int]:
    """Return actions of the simple set, held for 4 frames each, that end at the flag."""
    file = Path(__file__).parent / "data" / "mario_1-1.json"
    runs = json.loads(file.read_text(encoding="utf-8"))["runs"]
    return [action for action, times in runs for _ in range(times)]


class FakeConsole:
    """A console whose RAM a function changes after each frame; it shows how many frames it played.

    By itself it behaves as one that is being started: a stage runs and its clock ticks.
    """

    def __init__(self) -> None:
        self.ram = np.zeros(memory.RAM_SIZE, dtype=np.uint8)
        self.frames: list[int] = []  # buttons
        self.play: Callable[[], None] = self._start
        self._time = 400

    def _start(self) -> None:
        self._time -= 1
        self.set_time(self._time)
        self.ram[memory.MODE] = 1
        self.ram[memory.TASK] = 3
        self.ram[memory.PLAYER_STATE] = 8
        self.ram[0xB5] = 1

    def set_time(self, time: int) -> None:
        self.ram[0x7F8:0x7FB] = [int(digit) for digit in f"{time:03}"]

    def frame(self, buttons: int, *, draw: bool = True) -> None:
        self.frames.append(buttons)
        self.play()

    def screen(self) -> np.ndarray[Any, Any]:
        return np.full((HEIGHT, WIDTH, 3), len(self.frames) % 256, dtype=np.uint8)

    def save(self) -> bytes:
        return self.ram.tobytes()

    def load(self, state: bytes) -> None:
        self.ram[:] = np.frombuffer(state, dtype=np.uint8)

    def close(self) -> None:
        pass
