"""Play gym-super-mario-bros 7.4.0 and the rules of `rlagents.envs.mario` side by side.

Both get the same buttons, on the emulator of nes-py 8. After each frame the reward, the end of the
episode, the info, the RAM and the picture are compared; when an episode ends, both begin another.

    python scripts/verify_mario.py                      # all stages and the whole game
    python scripts/verify_mario.py --stages 1-1 game --frames 5000

It needs Python 3.11 or 3.12, where pip installs these versions. Theirs fail with NumPy 2, which
no longer widens a byte where the result needs more; so theirs are handed Python's own numbers, from
outside. The exit status is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from rlagents.envs.mario.backends import NesPy8
from rlagents.envs.mario.buttons import encode
from rlagents.envs.mario.game import ALL_STAGES, Game, Target, parse_stage
from rlagents.envs.mario.rom import find_rom
from rlagents.errors import UsageError

QUANTITIES = ("reward", "end", "info", "RAM", "pixels")
WHOLE_GAME = "game"
LONGEST_HOLD = 24  # frames that an action is held for, drawn anew each time
EXPECTED = {"gym-super-mario-bros": "7.4", "nes-py": "8."}


class PlainNumbers:
    """An array of bytes that shows Python's own numbers."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __getitem__(self, place: Any) -> Any:
        found = self._array[place]
        return found.tolist() if isinstance(place, slice) else int(found)

    def __setitem__(self, place: Any, value: Any) -> None:
        self._array[place] = value


def upstream(target: Target) -> Any:
    """Return the environment of gym-super-mario-bros 7.4.0, made to run with NumPy 2.

    Raises:
        UsageError: another version is installed, or none.
    """
    for package, version in EXPECTED.items():
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            raise UsageError(f"{package} is not installed; run: pip install '.[mario]'") from None
        if not found.startswith(version):
            raise UsageError(
                f"{package} {found} is installed, and this compares with {version}*, which pip "
                "installs on Python 3.11 and 3.12."
            )
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        from gym_super_mario_bros.smb_env import SuperMarioBrosEnv
        from nes_py import _rom

    _rom.ROM.header = property(lambda rom: rom.raw_data[:16].astype(np.int64))

    class Upstream(SuperMarioBrosEnv):  # type: ignore[misc]
        def _ram_buffer(self) -> Any:
            return PlainNumbers(super()._ram_buffer())

    return Upstream(target=target)


def draw_buttons(frames: int, seed: int) -> list[int]:
    """Return what is pressed in each frame: combinations that lead far, held for a while."""
    generator = np.random.default_rng(seed)
    buttons = encode("complex")
    # Twice to the right for each other action.
    weights = np.array([3.0 if bits & 128 else 1.0 for bits in buttons])
    pressed: list[int] = []
    while len(pressed) < frames:
        chosen = int(generator.choice(buttons, p=weights / weights.sum()))
        pressed += [chosen] * int(generator.integers(1, LONGEST_HOLD + 1))
    return pressed[:frames]


def compare(target: Target, frames: int, seed: int) -> dict[str, int]:
    """Return in how many frames each quantity differs, and how many episodes ended."""
    theirs = upstream(target)
    ours = Game(NesPy8(find_rom()), target)
    theirs.reset()
    counts = dict.fromkeys((*QUANTITIES, "episodes"), 0)
    for buttons in draw_buttons(frames, seed):
        screen, reward, done, info = theirs.step(buttons)
        frame = ours.frame(buttons)
        for quantity, same in zip(
            QUANTITIES,
            (
                reward == frame.classic,
                done == frame.over,
                {key: type(frame.info[key])(value) for key, value in info.items()} == frame.info,
                np.array_equal(theirs.ram[:], ours.console.ram),
                np.array_equal(screen, ours.console.screen()),
            ),
            strict=True,
        ):
            counts[quantity] += not same
        if done or frame.over:
            counts["episodes"] += 1
            theirs.reset()
            ours.reset()
    theirs.close()
    ours.console.close()
    return counts


def main(words: Sequence[str] | None = None) -> int:
    """Compare, print a table, and return the exit status."""
    every = [*(f"{world}-{stage}" for world, stage in ALL_STAGES), WHOLE_GAME]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stages", nargs="+", default=every, help="such as 1-1, or game")
    parser.add_argument("--frames", type=int, default=500, help="of each stage; default 500")
    parser.add_argument("--seed", type=int, default=0, help="of the buttons; default 0")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(words)
    rows = {}
    try:
        if not options.json:
            print(f"{'stage':>6}", *(f"{name:>8}" for name in (*QUANTITIES, "episodes")))
        for number, name in enumerate(options.stages):
            target = None if name == WHOLE_GAME else parse_stage(name)
            rows[name] = compare(target, options.frames, options.seed + number)
            if not options.json:
                print(f"{name:>6}", *(f"{count:>8}" for count in rows[name].values()), flush=True)
    except UsageError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    differing = {name: sum(row[name] for row in rows.values()) for name in QUANTITIES}
    frames = options.frames * len(rows)
    if options.json:
        print(json.dumps({"frames": frames, "differing": differing, "stages": rows}))
    else:
        total = ", ".join(f"{name} {count}" for name, count in differing.items())
        print(f"differing frames of {frames}: {total}")
    return 1 if any(differing.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
