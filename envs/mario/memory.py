"""What the console's RAM says about the game.

The addresses are those of gym-super-mario-bros 7.4.0 (`smb_env.py`) and, for the area, of public
RAM maps of the game; docs/mario.md lists them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rlagents.types import Array

RAM_SIZE = 0x800
# Places that the rules write to, and what they wait for.
PLAYER_STATE = 0x0E
WORLD = 0x75F
STAGE = 0x75C
AREA = 0x760
MODE = 0x770
TASK = 0x772  # of a mode
LEVEL_TIMER = 0x7A0  # of the black screen before a stage
AREA_TIMER = 0x6DE  # of entering a pipe

RUNNING = 3  # the task once a stage is loaded
NORMAL = 8  # the state of a Mario who does what the buttons say

_STATUS = {0: "small", 1: "tall"}  # anything else is "fireball"
_DYING = 0x0B
_DEAD = 0x06
_BUSY = frozenset((0, 1, 2, 3, 4, 5, 7))  # cut-scenes: pipes, vines, walking by itself
_END_OF_WORLD = 2
_ENDS_OF_STAGES = frozenset((0x2D, 0x31))  # Bowser, and the flag at the castle
_SLIDING = 3
NO_LIVES = 0xFF


class Memory:
    """One look at the RAM.

    Args:
        ram: uint8 [2048]; it is copied.
    """

    def __init__(self, ram: Array) -> None:
        self._ram = ram.tobytes()

    def hex(self) -> str:
        """Return it as text."""
        return self._ram.hex()

    @classmethod
    def from_hex(cls, text: str) -> Memory:
        """Return what `hex` has made into text."""
        return cls(np.frombuffer(bytes.fromhex(text), dtype=np.uint8))

    def __getitem__(self, address: int) -> int:
        return self._ram[address]

    def _number(self, address: int, digits: int) -> int:
        """Return a number that the game keeps as one byte for each decimal digit."""
        value = 0
        for digit in self._ram[address : address + digits]:
            value = 10 * value + digit
        return value

    @property
    def x(self) -> int:
        """Return how far right Mario is in the area, in pixels."""
        return 256 * self._ram[0x6D] + self._ram[0x86]

    @property
    def y(self) -> int:
        """Return how high Mario is, in pixels: 79 on the ground of 1-1, above 255 off the top."""
        pixel = self._ram[0x3B8]
        return 510 - pixel if self._ram[0xB5] < 1 else 255 - pixel

    @property
    def time(self) -> int:
        """Return what the game's clock shows; it ticks every 20 frames."""
        return self._number(0x7F8, 3)

    @property
    def score(self) -> int:
        """Return the score without its last digit, which is always 0."""
        return self._number(0x7DE, 6)

    @property
    def coins(self) -> int:
        """Return the coins, 0 to 99."""
        return self._number(0x7ED, 2)

    @property
    def life(self) -> int:
        """Return the lives left besides this one; 255 once the game is over."""
        return self._ram[0x75A]

    @property
    def power(self) -> int:
        """Return 0 for small, 1 for tall and 2 for fireball."""
        return min(self._ram[0x756], 2)

    @property
    def is_dying(self) -> bool:
        """Tell whether Mario is falling out of the picture, hit or in a hole."""
        return self._ram[PLAYER_STATE] == _DYING or self._ram[0xB5] > 1

    @property
    def is_dead(self) -> bool:
        """Tell whether Mario has died."""
        return self._ram[PLAYER_STATE] == _DEAD

    @property
    def is_world_over(self) -> bool:
        """Tell whether a world has been completed."""
        return self._ram[MODE] == _END_OF_WORLD

    @property
    def is_completed(self) -> bool:
        """Tell whether the stage has been completed: at the flag, or past Bowser."""
        if self.is_world_over:
            return True
        # A vine is climbed in the state of sliding too, so something else must be there.
        return self._ram[0x1D] == _SLIDING and any(
            self._ram[slot] in _ENDS_OF_STAGES for slot in range(0x16, 0x1B)
        )

    @property
    def is_game_over(self) -> bool:
        """Tell whether no life is left."""
        return self.life == NO_LIVES

    @property
    def is_cut_scene(self) -> bool:
        """Tell whether the game goes on without the player."""
        return self._ram[PLAYER_STATE] in _BUSY or self.is_world_over

    @property
    def area(self) -> tuple[int, int, int, int]:
        """Return what tells one part of one stage from another: within it, x means one place.

        World, stage and the address of the area's data, which changes with pipes and vines.
        """
        return self._ram[WORLD], self._ram[STAGE], self._ram[0xE7], self._ram[0xE8]

    @property
    def area_number(self) -> int:
        """Return the number by which parts of the same stage are told apart.

        It is the address of the area's data.
        """
        return 256 * self._ram[0xE8] + self._ram[0xE7]

    @property
    def left_edge(self) -> int:
        """Return which x the left edge of the screen shows, in pixels."""
        return 256 * self._ram[0x71A] + self._ram[0x71C]

    def info(self) -> dict[str, Any]:
        """Return what gym-super-mario-bros calls `info`, as plain Python values."""
        return {
            "x_pos": self.x,
            "y_pos": self.y,
            "coins": self.coins,
            "score": self.score,
            "time": self.time,
            "life": self.life,
            "status": _STATUS.get(self._ram[0x756], "fireball"),
            "world": self._ram[WORLD] + 1,
            "stage": self._ram[STAGE] + 1,
            "flag_get": self.is_completed,
        }


def read_info(ram: Array) -> dict[str, Any]:
    """Return what the RAM says, by the names of gym-super-mario-bros.

    Args:
        ram: uint8 [2048].
    """
    return Memory(ram).info()
