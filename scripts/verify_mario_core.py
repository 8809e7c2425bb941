r"""Compare the fast console with nes-py: what happens in the game, and the pictures.

Every stage is played on both by the same rules, from its start, with the same buttons: an episode
after the other until there are enough frames. The start is looked for at every other frame, and the
consoles find it at different ones; so the one that is earlier waits until the game itself has
counted as many frames on both. Of each episode these are compared:
    game        x, y, score, clock and end, frame by frame; nes-py may be a frame behind
    pictures    how many of all pixels are of the same colour, over frames that are the same in the
                game

A frame of nes-py ends while the game works: after it has read the buttons, but where it first had
much to write to the screen, before. Then nes-py reads those of the next frame, a frame early. So
where the game becomes different soon after the buttons changed, the fast console plays the episode
again with that change a frame earlier; if all is the same then, the change is counted as early.

The exit code is 0 if the game is the same in --least stages or more.

Examples:
    python scripts/verify_mario_core.py
    python scripts/verify_mario_core.py --frames 2000 --seed 1
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from measuring import count
from rlagents.envs.mario.backends import Console, make_console
from rlagents.envs.mario.buttons import encode
from rlagents.envs.mario.game import ALL_STAGES, Game

COMPARED = ("x_pos", "y_pos", "score", "time")
FRAME_COUNTER = 0x09  # where the game counts its frames, modulo 256
SHIFTS = (0, 1, -1)  # frames that nes-py is behind
CHANCES = (0.02, 0.1, 0.2, 0.2, 0.38, 0.05, 0.05)  # of the actions of "simple"
HELD = 12  # frames at most that a button is held for
SOON = 4  # frames between a change of buttons that nes-py sees early, and what comes of it

Picture = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass
class Episode:
    """What an episode was on one console.

    Attributes:
        facts: of each frame, COMPARED and whether the episode ended with it.
        pictures: of each frame, RGB.
    """

    facts: list[tuple[int, ...]]
    pictures: list[Picture]


def draw_buttons(seed: int, frames: int) -> list[int]:
    """Return what is pressed in each frame."""
    generator = np.random.default_rng(seed)
    pressed: list[int] = []
    buttons = encode("simple")
    while len(pressed) < frames:
        action = generator.choice(len(CHANCES), p=CHANCES)
        pressed += [int(buttons[action])] * int(generator.integers(1, HELD + 1))
    return pressed[:frames]


def begin(games: Sequence[Game], consoles: Sequence[Console]) -> None:
    """Go back to the start, and on to where the game has counted as many frames on both."""
    for game in games:
        game.reset()
    counts = [int(console.ram[FRAME_COUNTER]) for console in consoles]
    ahead = (counts[1] - counts[0] + 128) % 256 - 128  # frames that the second is
    for _ in range(abs(ahead)):
        games[0 if ahead > 0 else 1].frame(0)


def play(game: Game, console: Console, pressed: Sequence[int]) -> Episode:
    """Play until the episode is over, or the buttons are."""
    episode = Episode([], [])
    for buttons in pressed:
        frame = game.frame(buttons)
        facts = tuple(int(frame.info[name]) for name in COMPARED)
        episode.facts.append((*facts, int(frame.over)))
        episode.pictures.append(console.screen())
        if frame.over:
            break
    return episode


def first_difference(core: Episode, nes_py: Episode, shift: int) -> int | None:
    """Return the first of the core's frames that nes-py did not have `shift` frames later."""
    for number, facts in enumerate(core.facts):
        other = number + shift
        if 0 <= other < len(nes_py.facts) and facts != nes_py.facts[other]:
            return number
    if abs(len(core.facts) + shift - len(nes_py.facts)) > abs(shift):
        return min(len(core.facts), len(nes_py.facts))
    return None


def alike(core: Episode, nes_py: Episode, shift: int, until: int | None) -> list[float]:
    """Return for each frame which part of the pixels is the same on both, the game being so."""
    pairs = list(enumerate(core.pictures))[:until]
    return [
        float((picture == nes_py.pictures[number + shift]).all(axis=2).mean())
        for number, picture in pairs
        if 0 <= number + shift < len(nes_py.pictures)
    ]


def best_shift(core: Episode, nes_py: Episode) -> tuple[int, int | None]:
    """Return the shift with which the episodes are the same for longest, and until where."""
    found = {shift: first_difference(core, nes_py, shift) for shift in SHIFTS}
    longest = len(core.facts) + len(nes_py.facts)
    shift = max(SHIFTS, key=lambda one: longest if (end := found[one]) is None else end)
    return shift, found[shift]


def change_earlier(pressed: Sequence[int], until: int) -> list[int] | None:
    """Return the buttons with the last change of them before a frame a frame earlier.

    None where they have not changed soon before it.
    """
    for frame in range(min(until, len(pressed) - 1), max(until - SOON, 0), -1):
        if pressed[frame] != pressed[frame - 1]:
            return [*pressed[: frame - 1], pressed[frame], *pressed[frame:]]
    return None


@dataclass
class Finding:
    """How a stage compares.

    Attributes:
        frames: played on the core.
        episodes: likewise.
        shifts: by which nes-py was behind, one for each episode.
        early: changes of buttons that nes-py saw a frame early.
        different: the first frame, counted over all episodes, in which the game was different, or
            None.
        pixels: the part of equal ones, over the frames before.
    """

    frames: int
    episodes: int
    shifts: list[int]
    early: int
    different: int | None
    pixels: list[float]


def compare(stage: tuple[int, int], frames: int, seed: int) -> Finding:
    """Play a stage on both consoles."""
    consoles = [make_console("core"), make_console("nes-py")]
    games = [Game(console, stage) for console in consoles]
    pressed = draw_buttons(seed, frames)
    finding = Finding(0, 0, [], 0, None, [])
    while finding.frames < frames and finding.different is None:
        buttons = pressed[finding.frames :]
        begin(games, consoles)
        core, nes_py = (
            play(game, console, buttons) for game, console in zip(games, consoles, strict=True)
        )
        shift, first = best_shift(core, nes_py)
        while first is not None and (earlier := change_earlier(buttons, first)) is not None:
            begin(games, consoles)
            again = play(games[0], consoles[0], earlier)
            later = first_difference(again, nes_py, shift)
            if later is not None and later <= first:
                break
            buttons, core, first = earlier, again, later
            finding.early += 1
        finding.shifts.append(shift)
        finding.pixels += alike(core, nes_py, shift, first)
        if first is not None:
            finding.different = finding.frames + first
        finding.frames += len(core.facts)
        finding.episodes += 1
    for console in consoles:
        console.close()
    return finding


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for flag, default, meaning in (
        ("--frames", 500, "frames of each stage"),
        ("--least", 31, "stages that must be the same"),
    ):
        parser.add_argument(
            flag, type=count, default=default, metavar="N", help=f"{meaning} (default: {default})"
        )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the buttons")
    return parser.parse_args(arguments)


def main() -> int:
    """Compare all stages and print a line for each."""
    options = parse()
    same = 0
    print("stage  frames  episodes  behind  early  game              pixels alike: mean, least")
    for number, stage in enumerate(ALL_STAGES):
        found = compare(stage, options.frames, options.seed + number)
        game = "same" if found.different is None else f"differs at {found.different}"
        same += found.different is None
        shifts = ",".join(str(shift) for shift in sorted(set(found.shifts)))
        pixels = np.array(found.pixels if found.pixels else [np.nan])
        counts = f"{found.frames:6}  {found.episodes:8}  {shifts:>6}  {found.early:5}"
        print(
            f"{stage[0]}-{stage[1]}    {counts}  {game:<16}"
            f"  {pixels.mean():.4%}, {pixels.min():.4%}",
            flush=True,
        )
    print(f"{same} of {len(ALL_STAGES)} stages are the same in all {options.frames} frames")
    return 0 if same >= options.least else 1


if __name__ == "__main__":
    raise SystemExit(main())
