"""Worker processes of a whole program: none outlives it, and it can save whatever signal comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from worker_tools import PATIENCE_S, is_alive, kwargs_of, pids, wait_until_gone, write_game

import rlagents
from rlagents import seeding

pytestmark = pytest.mark.timeout(900)  # many processes: slow to start where others compute

Cli = Callable[..., Any]
Start = Callable[..., "Started"]
FIRST = seeding.episode_seed(1, "training", 0, 0)  # of the first episode


class Started:
    """A training in two worker processes, as a shell would start it: with a group of its own."""

    def __init__(self, folder: Path, **game: Any) -> None:
        self.folder = folder
        self.run = folder / "runs" / "run"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "rlagents", "train", "cartpole-dqn"),
                *("--env.id", write_game(folder), "--env.num-workers", "2"),
                *("--env.kwargs", kwargs_of(folder=folder, **game), "--total-steps", "1e9"),
                *("--checkpoint.period-steps", "400", "--evaluation.period-steps", "0"),
                *("--runs-dir", str(folder / "runs"), "--name", "run"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def wait_for(self, there: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not there():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end, "nothing happened"
            time.sleep(0.02)

    def workers(self) -> list[int]:
        """Return the worker processes that are there."""
        found = [pid for pid in pids(self.folder) if is_alive(pid)]
        return [pid for pid in found if pid != self.process.pid]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Started] = []

    def begin(**game: Any) -> Started:
        started.append(Started(tmp_path, **game))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_everybody_saves(start: Start, cli: Cli, number: signal.Signals) -> None:
    one = start()
    one.wait_for((one.run / "checkpoints" / "index.json").exists)
    workers = one.workers()
    assert len(workers) == 2
    for pid in workers:  # as schedulers do; a terminal reaches the group of the program only
        os.kill(pid, number)
    os.killpg(one.process.pid, number)
    _, err = one.process.communicate(timeout=PATIENCE_S)
    assert one.process.returncode == 130, err
    assert f"rlagents resume {one.run}" in err
    assert "warning" not in err
    assert "Traceback" not in err
    wait_until_gone(workers)
    step = rlagents.open_run(one.run).status()["step"]
    resumed = cli("resume", one.run, "--total-steps", step + 100, "--allow-import")
    assert f"resuming at step {step:,}, exactly" in resumed.err


@pytest.mark.slow
@pytest.mark.parametrize("what", ["", "hang"])
def test_none_outlives_a_program_that_is_killed(start: Start, what: str) -> None:
    """Not even one that hangs in an environment's step."""
    one = start(what=what, seed=FIRST, at=19)
    if what:
        one.wait_for(lambda: (one.folder / "hangs").exists())
    else:
        one.wait_for((one.run / "checkpoints" / "index.json").exists)
    workers = one.workers()
    assert workers
    one.process.kill()
    one.process.communicate()
    wait_until_gone(workers)


@pytest.mark.slow
def test_a_second_signal_ends_it_while_an_environment_hangs(start: Start) -> None:
    one = start(what="hang", seed=FIRST, at=19)
    one.wait_for(lambda: (one.folder / "hangs").exists())
    workers = one.workers()
    one.process.send_signal(signal.SIGINT)
    time.sleep(0.5)  # two signals at once may be one
    one.process.send_signal(signal.SIGINT)
    one.process.communicate(timeout=PATIENCE_S)
    assert one.process.returncode == 130
    wait_until_gone(workers)
