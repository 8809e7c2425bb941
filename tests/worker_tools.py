"""A game for tests of worker processes: it does what its arguments say, at a step of some seeds."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import psutil

PATIENCE_S = 600.0  # for what comes soon, unless the machine is busy

GAME = '''
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np


class Walk(gym.Env):
    """A walk that depends on seed and actions; it shows the process that it is in, too."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
    action_space = gym.spaces.Discrete(3)
    observation_space = gym.spaces.Box(-1e9, 1e9, (4,), np.float32)

    def __init__(
        self, render_mode=None, what="", at=3, seed=None, folder=None, length=20, tells=False
    ):
        self.render_mode = render_mode
        self.what, self.at, self.seed, self.folder = what, at, seed, folder
        self.length, self.tells = length, tells
        if folder is not None:
            Path(folder, str(os.getpid())).touch()
        if what == "make" and os.getppid() == int(Path(folder, "parent").read_text()):
            raise OSError("no licence")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.now, self.time = seed, 0
        self.place = float(self.np_random.integers(100))
        if self.at == 0:
            self.act()
        return self.observe(), {}

    def step(self, action):
        self.time += 1
        if self.time == self.at:
            self.act()
        self.place += action + float(self.np_random.integers(10))
        return self.observe(), float(action), self.time >= self.length, False, {}

    def act(self):
        """Do what is to be done in the episode of the seed, or of a seed that it divides."""
        if self.seed is None or self.now % self.seed:
            return
        if self.what == "raise":
            raise ValueError("out of lives")
        if self.what == "exit":
            os._exit(7)
        if self.what == "exit once" and not Path(self.folder, "exited").exists():
            Path(self.folder, "exited").touch()
            os._exit(7)
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == "hang":
            if self.folder is not None:
                Path(self.folder, "hangs").touch()
            while True:
                pass
        if self.what == "hang with a process":
            Path(self.folder, "child").write_text(str(subprocess.Popen(["sleep", "1000"]).pid))
            time.sleep(1000)
        if self.what == "wait":
            while not Path(self.folder, "go").exists():
                time.sleep(0.01)
        if self.what == "meet":
            Path(self.folder, f"here-{self.now}").touch()
            while len(list(Path(self.folder).glob("here-*"))) < 2:
                time.sleep(0.01)
        if self.what == "read":
            self.place = float(len(sys.stdin.read()))

    def observe(self):
        told = [os.getpid(), "torch" in sys.modules] if self.tells else [0, 0]
        if self.what == "leak":
            told[0] = np.random.random()
        return np.array([self.place, self.time, *told], dtype=np.float32)

    def render(self):
        return np.full((32, 32, 3), int(self.place) % 256, dtype=np.uint8)

    def close(self):
        if self.folder is not None:
            Path(self.folder, f"closed-{os.getpid()}").touch()


class Pictures(Walk):
    """The same walk as pictures."""

    observation_space = gym.spaces.Box(0, 255, (40, 30, 3), np.uint8)

    def observe(self):
        picture = np.zeros((40, 30, 3), dtype=np.uint8)
        picture[int(self.place) % 40, self.time % 30] = 255
        picture[:, :, 1] = self.time
        return picture


class Lives(Walk):
    """The same walk with lives, three steps each; it is completed if it ends at an even place."""

    def __init__(self, render_mode=None, always=False, **options):
        super().__init__(render_mode, **options)
        self.always = always

    def step(self, action):
        observation, reward, terminated, truncated, _ = super().step(action)
        won = self.always or self.place % 2 == 0
        info = {"life_lost": self.time % 3 == 0 and not terminated, "is_success": np.bool_(won)}
        return observation, reward, terminated, truncated, info
'''


def write_game(folder: Path, kind: str = "Walk") -> str:
    """Return the id of the game, whose file is written to a folder."""
    (folder / "game.py").write_text(GAME)
    return f"{folder}/game.py:{kind}"


def is_alive(pid: int) -> bool:
    """Tell whether a process is there, and no zombie that nobody has asked about yet."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE  # type: ignore[no-any-return]
    except psutil.NoSuchProcess:
        return False


def pids(folder: Path) -> list[int]:
    """Return the processes in which games with this folder have been made, but this one."""
    found = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
    return [pid for pid in found if pid != os.getpid()]


def wait_until_gone(found: list[int]) -> None:
    """Wait until none of the processes is there any more."""
    end = time.monotonic() + PATIENCE_S
    while any(is_alive(pid) for pid in found):
        assert time.monotonic() < end, [pid for pid in found if is_alive(pid)]
        time.sleep(0.02)


def kwargs_of(**values: Any) -> str:
    """Return `[env] kwargs` as the command line takes them."""
    words = {
        key: f"'{value}'" if isinstance(value, str | Path) else str(value).lower()
        for key, value in values.items()
    }
    return "{" + ", ".join(f"{key} = {word}" for key, word in words.items()) + "}"
