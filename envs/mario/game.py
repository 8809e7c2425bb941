"""The rules: how a game begins, what a frame brings, when it is over, and what is skipped.

The rules are those of gym-super-mario-bros 7.4.0, written anew and frame by frame the same:
`scripts/verify_mario.py` plays both side by side. They differ in two ways. Loops that wait for the
game are bounded, and the start is recognised by the game's mode, not by its clock alone, so that
consoles with another timing do not take the demonstration for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from rlagents.envs.mario import memory
from rlagents.envs.mario.backends import Console
from rlagents.envs.mario.memory import Memory
from rlagents.envs.mario.rewards import classic_reward, progress_reward
from rlagents.errors import RLAgentsError, UsageError

START = 8  # the button
WORLDS, STAGES_OF_WORLD = 8, 4
LONGEST_WAIT = 2000  # frames; the longest cut-scene takes some hundred
_PLAYING = 1  # the mode; 0 is the demonstration
# Worlds with a short area before their second stage, which counts as an area of its own.
_WORLDS_WITH_INTRO = (1, 2, 4, 7)

Target = tuple[int, int] | None
ALL_STAGES = tuple(
    (world, stage) for world in range(1, WORLDS + 1) for stage in range(1, STAGES_OF_WORLD + 1)
)


class GameStuckError(RLAgentsError):
    """The game did not go on by itself where it always does."""


def parse_stage(name: object) -> tuple[int, int]:
    """Return world and stage of a name such as "1-1".

    Raises:
        UsageError: there is no such stage.
    """
    match = re.fullmatch(r"([1-8])-([1-4])", name) if isinstance(name, str) else None
    if match is None:
        raise UsageError(
            f"[env] kwargs: expected a stage from '1-1' to '8-4', got {str(name)[:40]!r}."
        )
    return int(match[1]), int(match[2])


def parse_stages(names: object) -> tuple[tuple[int, int], ...]:
    """Return the stages of a list of names.

    Raises:
        UsageError: it is no list, or empty, or names no stage.
    """
    if isinstance(names, str) or not isinstance(names, Iterable) or not (listed := list(names)):
        raise UsageError(
            f"[env] kwargs: stages: expected a list such as ['1-1', '1-2'], got {str(names)[:40]}."
        )
    return tuple(parse_stage(name) for name in listed)


class Frame(NamedTuple):
    """What one frame brought."""

    classic: float  # reward
    progress: float  # reward
    info: dict[str, Any]  # as the frame left it, before anything was skipped
    over: bool  # the episode ended with it


class Game:
    """Super Mario Bros. on a console: one stage with one life, or the whole game.

    The console is played from its switch to the start when the game is made; `reset` goes back.

    Args:
        console: just switched on.
        target: world and stage; None for the whole game.

    Attributes:
        watch: called after each frame, those that are skipped too; None at first.

    Raises:
        GameStuckError: the start was not reached.
    """

    def __init__(self, console: Console, target: Target) -> None:
        self.console = console
        self.target = target
        self.watch: Callable[[], None] | None = None
        self._boot()
        self._start = console.save()
        self.reset()

    def reset(self) -> None:
        """Go back to the start."""
        self.console.load(self._start)
        now = Memory(self.console.ram)
        self._last = now  # as the last frame left it, before anything was skipped
        self._greatest_x = now.x
        self._area = now.area
        self._completed = False  # in this area, so that it is rewarded once
        self.over = False

    def info(self) -> dict[str, Any]:
        """Return what the RAM says now."""
        return memory.read_info(self.console.ram)

    def frame(self, buttons: int) -> Frame:
        """Play a frame with buttons pressed, and then what the player has no part in.

        Args:
            buttons: the bits of `buttons.BUTTONS`.

        Raises:
            GameStuckError: a cut-scene did not end.
        """
        self._advance(buttons)
        now = Memory(self.console.ram)
        died = now.is_dying or now.is_dead
        dt = now.time - self._last.time
        classic = classic_reward(now.x - self._last.x, dt, died)
        progress = self._progress(now, dt, died)
        if self.target is None:
            self.over = now.is_game_over
        else:
            self.over = died or now.is_completed
        self._last = now
        if not self.over:
            self._skip(now)
        return Frame(float(classic), float(progress), now.info(), self.over)

    def _progress(self, now: Memory, dt: int, died: bool) -> Any:
        """Return the progress reward of the frame after the last one.

        The greatest x and the completion count for one area. gym-super-mario-bros 9.1.0 keeps them
        for the whole episode; then nothing after the first stage, or down a pipe, is progress.
        """
        if now.area != self._area:
            self._area, self._greatest_x, self._completed = now.area, now.x, False
        completed = now.is_completed and not self._completed
        reward = progress_reward(
            now.x - self._greatest_x,
            dt,
            died,
            now.score - self._last.score,
            now.coins - self._last.coins,
            now.power - self._last.power,
            completed,
        )
        self._greatest_x = max(self._greatest_x, now.x)
        self._completed |= completed
        return reward

    # Skipping: what 7.4.0 does after each frame that did not end the episode.

    def _skip(self, now: Memory) -> None:
        """Play on to the next frame in which the player has a part."""
        if now.is_dying:
            self._write(memory.PLAYER_STATE, 6)  # dead at once, without the animation
            self._advance(0)
        if self.target is None:
            self._skip_end_of_world()
        if 1 < self._read(memory.AREA_TIMER) < 255:
            self._write(memory.AREA_TIMER, 1)
        for _ in range(LONGEST_WAIT):
            if not Memory(self.console.ram).is_cut_scene:
                return
            self._write(memory.LEVEL_TIMER, 0)
            self._advance(0)
        raise GameStuckError(f"Super Mario Bros. showed a cut-scene for {LONGEST_WAIT} frames.")

    def _skip_end_of_world(self) -> None:
        """Wait at the end of a world until the clock starts to be paid out."""
        before = Memory(self.console.ram)
        if not before.is_world_over:
            return
        for _ in range(LONGEST_WAIT):
            if Memory(self.console.ram).time != before.time:
                return
            self._advance(0)
        raise GameStuckError(f"Super Mario Bros. did not end a world in {LONGEST_WAIT} frames.")

    # The way from the switch to the start.

    def _boot(self) -> None:
        """Press the start button until the stage runs and its clock has ticked once."""
        self._press_start()
        for _ in range(LONGEST_WAIT):
            now = Memory(self.console.ram)
            if now.time and now[memory.MODE] == _PLAYING:
                break
            self._advance(START)
            if self.target is not None:
                self._write_stage(*self.target)
            self._advance(0)
            self._write(memory.LEVEL_TIMER, 0)
        else:
            raise GameStuckError("Super Mario Bros. did not leave its title screen.")
        before = now.time
        for _ in range(LONGEST_WAIT):
            self._press_start()
            time = Memory(self.console.ram).time
            if time < before:
                break
            before = time
        else:
            raise GameStuckError("Super Mario Bros. did not start its clock.")
        # On nes-py the stage runs by now; elsewhere it may still be loading.
        for _ in range(LONGEST_WAIT):
            now = Memory(self.console.ram)
            runs = now[memory.TASK] == memory.RUNNING
            if runs and now[memory.PLAYER_STATE] == memory.NORMAL and now.time:
                return
            self._write(memory.LEVEL_TIMER, 0)
            self._advance(0)
        raise GameStuckError("Super Mario Bros. did not load its stage.")

    def _press_start(self) -> None:
        self._advance(START)
        self._advance(0)

    def _write_stage(self, world: int, stage: int) -> None:
        """Write which stage the game loads next."""
        area = stage + (world in _WORLDS_WITH_INTRO and stage >= 2)
        self._write(memory.WORLD, world - 1)
        self._write(memory.STAGE, stage - 1)
        self._write(memory.AREA, area - 1)

    # The console.

    def _advance(self, buttons: int) -> None:
        self.console.frame(buttons)
        if self.watch is not None:
            self.watch()

    def _read(self, address: int) -> int:
        return int(self.console.ram[address])

    def _write(self, address: int, value: int) -> None:
        self.console.ram[address] = value

    # States.

    def save(self) -> dict[str, Any]:
        """Return the state besides the console's own, as JSON has it."""
        return {
            "last": self._last.hex(),
            "greatest_x": self._greatest_x,
            "area": list(self._area),
            "completed": self._completed,
            "over": self.over,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a state that `save` returned; the console's own is loaded by the caller."""
        self._last = Memory.from_hex(state["last"])
        self._greatest_x = state["greatest_x"]
        world, stage, low, high = state["area"]
        self._area = (world, stage, low, high)
        self._completed = state["completed"]
        self.over = state["over"]
