r"""Measure Super Mario Bros. alone: agent steps per second in stage 1-1, beside nes-py.

First one game on one thread, as it is trained on: pictures in grey, 84x84, a stack of 4, a frame
skip of 4. Both sides press the same buttons, and take turns:
    rlagents    the vector environment that training makes, with one game
    nes-py      nes-py 8, driven directly through its C functions, its picture made grey and shrunk
                by OpenCV; no rewards, no info, and an episode's end is seen by one look at the RAM

Then many games at once, on as many threads as there are cores:
    rlagents    pictures
    tiles       `observation = "tiles"`: nothing is drawn

Each measurement is a process of its own. The clock starts after a warm-up of 50 steps of each game.
Nobody's resets are left out; they are no steps.

Examples:
    python scripts/benchmark_mario.py
    python scripts/benchmark_mario.py --num-envs 16 --repetitions 9 --json mario.json
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from measuring import (
    OURS,
    Measurement,
    count,
    fail,
    run_child,
    show,
    show_machine,
    show_side,
    summarise,
    write_json,
)

WARM_UP_STEPS = 50  # of each game
FRAME_SKIP = 4
STACK, SIZE = 4, 84
# Of the seven actions of "simple": to the right mostly, so that there is something to see.
CHANCES = (0.02, 0.1, 0.2, 0.2, 0.38, 0.05, 0.05)
TITLES = {OURS: "rlagents", "nes-py": "nes-py 8, directly", "tiles": "rlagents, tiles"}


@dataclass(frozen=True)
class Job:
    """What a process is to measure.

    Attributes:
        side: one of TITLES.
        num_envs: games.
        steps: agent steps of each game.
        threads: that play the games.
        seed: of the actions.
    """

    side: str
    num_envs: int
    steps: int
    threads: int
    seed: int


def draw_actions(job: Job) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return actions, each held for some steps: [steps, num_envs], the warm-up's first."""
    generator = np.random.default_rng(job.seed)
    shape = (WARM_UP_STEPS + job.steps, job.num_envs)
    actions = generator.choice(len(CHANCES), p=CHANCES, size=shape)
    held = generator.random(shape) < 0.6
    for step in range(1, len(actions)):
        actions[step, held[step]] = actions[step - 1, held[step]]
    return actions


def time_steps(step: Callable[[int], None], job: Job) -> float:
    """Return the seconds that all steps but the warm-up's take; `step` is given their numbers."""
    for number in range(WARM_UP_STEPS):
        step(number)
    began = time.perf_counter()
    for number in range(WARM_UP_STEPS, WARM_UP_STEPS + job.steps):
        step(number)
    return time.perf_counter() - began


def measure_ours(job: Job) -> Measurement:
    """Step the vector environment that training makes of `[env] id = "mario-1-1"`."""
    from rlagents import machine
    from rlagents.envs import EnvConfig, find_env, resolve_env_config
    from rlagents.envs.mario.vector import MarioVectorEnv

    kwargs = {"backend": "core", "observation": "tiles" if job.side == "tiles" else "pixels"}
    asked = EnvConfig(id="mario-1-1", num_envs=job.num_envs, noop_max=0, kwargs=kwargs)
    config = resolve_env_config(asked, find_env("mario-1-1"))
    env = MarioVectorEnv("mario-1-1", config, job.num_envs, threads=job.threads)
    actions = draw_actions(job)
    episodes = 0

    def step(number: int) -> None:
        nonlocal episodes
        env.send(actions[number])
        result = env.recv()
        over = result.terminated | result.truncated
        if over.any():
            episodes += int(over.sum())
            env.reset(over, [number] * int(over.sum()))

    env.reset(np.ones(job.num_envs, dtype=np.bool_), [0] * job.num_envs)
    seconds = time_steps(step, job)
    env.close()
    settings = {"env": config.model_dump(), "threads": job.threads, "episodes": episodes}
    return Measurement(job.steps * job.num_envs, seconds, settings, machine.versions())


class NesPy:
    """The emulator of nes-py 8, as little of it as a game needs."""

    def __init__(self, library: Path, rom: Path) -> None:
        pointer = ctypes.c_void_p
        self._library = ctypes.CDLL(str(library))
        for name, arguments, result in (
            ("Initialize", [ctypes.c_wchar_p], pointer),
            ("Controller", [pointer, ctypes.c_uint], pointer),
            ("Screen", [pointer], pointer),
            ("Memory", [pointer], pointer),
            ("Reset", [pointer], None),
            ("Step", [pointer], None),
            ("Backup", [pointer], None),
            ("Restore", [pointer], None),
        ):
            function = getattr(self._library, name)
            function.argtypes, function.restype = arguments, result
        self._nes = self._library.Initialize(str(rom))
        self._library.Reset(self._nes)
        self._buttons = self._view(self._library.Controller(self._nes, 0), 1)
        self.ram = self._view(self._library.Memory(self._nes), 2048)
        screen = self._view(self._library.Screen(self._nes), 240 * 256 * 4)
        self.picture = screen.reshape(240, 256, 4)  # BGRX

    @staticmethod
    def _view(address: int, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype=np.uint8)

    def frame(self, buttons: int, *, draw: bool = True) -> None:
        """Emulate a frame; it is drawn always."""
        del draw
        self._buttons[0] = buttons
        self._library.Step(self._nes)

    def save(self) -> bytes:
        """Fill the emulator's one slot."""
        self._library.Backup(self._nes)
        return b""

    def load(self, state: bytes) -> None:
        """Go back to the slot."""
        del state
        self._library.Restore(self._nes)


def measure_nes_py(job: Job) -> Measurement:
    """Drive nes-py 8 directly. The start of the stage is reached by the rules of rlagents."""
    import cv2

    from rlagents import machine
    from rlagents.envs.mario.buttons import encode
    from rlagents.envs.mario.game import Game
    from rlagents.envs.mario.rom import find_rom, package_folder

    cv2.setNumThreads(1)
    folder = package_folder("nes_py")
    assert folder is not None  # main has looked
    nes = NesPy(next(folder.glob("lib_nes_env*")), find_rom())
    Game(nes, (1, 1))  # type: ignore[arg-type]  # screen and close are not needed
    buttons = encode("simple").tolist()
    actions = draw_actions(job)[:, 0].tolist()
    stack = np.zeros((STACK, SIZE, SIZE), dtype=np.uint8)
    ram, episodes = nes.ram, 0

    def step(number: int) -> None:
        nonlocal episodes
        over = False
        for _ in range(FRAME_SKIP):
            nes.frame(buttons[actions[number]])
            over = ram[0x0E] in (0x06, 0x0B) or ram[0xB5] > 1  # dead, dying
            if over:
                break
        grey = cv2.cvtColor(nes.picture, cv2.COLOR_BGRA2GRAY)
        stack[:-1] = stack[1:]
        stack[-1] = cv2.resize(grey, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        stack.copy()  # what an agent would be given
        if over:
            episodes += 1
            nes.load(b"")

    seconds = time_steps(step, job)
    versions = machine.versions() | {"nes-py": importlib.metadata.version("nes-py")}
    settings = {"frame_skip": FRAME_SKIP, "stack": STACK, "size": SIZE, "episodes": episodes}
    return Measurement(job.steps, seconds, settings, versions)


def check_installed() -> None:
    """End with what to do if the game, the fast console or nes-py 8 is missing."""
    from rlagents.envs.mario.backends import resolve_backend
    from rlagents.envs.mario.rom import find_rom, package_folder
    from rlagents.errors import UsageError

    try:
        find_rom()
        resolve_backend("core")
    except UsageError as error:
        fail(str(error))
    folder = package_folder("nes_py")
    if folder is None or not any(folder.glob("lib_nes_env*")):
        fail("nes-py 8 is not installed; run: pip install 'rlagents[mario]' (Python 3.11 or 3.12)")


def compare_sides(sides: Sequence[str], job: Job, repetitions: int) -> dict[str, Any]:
    """Measure sides in turn, print every repetition, and return all numbers."""
    print(f"\n{job.num_envs} games, {job.threads} threads")
    found: dict[str, list[Measurement]] = {side: [] for side in sides}
    for number in range(1, repetitions + 1):
        for side in sides:
            one = Job(side, job.num_envs, job.steps, job.threads, number)
            words = [sys.executable, __file__, "--child", json.dumps(asdict(one))]
            measured = run_child(side, words)
            if number == 1:
                show_side(TITLES[side], measured, words)
            show(number, side, measured)
            found[side].append(measured)
    return {
        "measurements": {side: [asdict(one) for one in all_] for side, all_ in found.items()},
        "summary": summarise(found),
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for flag, default, meaning in (
        ("--num-envs", 16, "games at once in the second part"),
        ("--steps", 2000, "agent steps of each game in each measurement"),
        ("--repetitions", 5, "measurements of each side"),
    ):
        parser.add_argument(
            flag, type=count, default=default, metavar="N", help=f"{meaning} (default: {default})"
        )
    parser.add_argument(
        "--threads",
        type=count,
        metavar="N",
        help="threads that play the games of the second part (default: one a core)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all numbers here")
    parser.add_argument("--child", metavar="JOB", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    """Compare, or be one of the processes that measure."""
    options = parse()
    if options.child is not None:
        job = Job(**json.loads(options.child))
        measured = measure_nes_py(job) if job.side == "nes-py" else measure_ours(job)
        print(json.dumps(asdict(measured)))
        return
    from rlagents.cores import num_cores

    check_installed()
    result = show_machine()
    alone = Job(OURS, 1, options.steps, 1, 0)
    result["one_game"] = compare_sides([OURS, "nes-py"], alone, options.repetitions)
    threads = options.threads or num_cores()
    together = Job(OURS, options.num_envs, options.steps, threads, 0)
    result["many_games"] = compare_sides([OURS, "tiles"], together, options.repetitions)
    write_json(options.json, result)


if __name__ == "__main__":
    main()
