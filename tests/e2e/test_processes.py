"""Whole processes: one writer at a time, and signals that come before there is a run."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rlagents

Cli = Callable[..., Any]

GAME = """
import time
from pathlib import Path
import gymnasium as gym

Path(__file__).with_name("imported").touch()
time.sleep({sleep})


def make_env(render_mode=None):
    return gym.make("CartPole-v1", render_mode=render_mode)
"""


class Started:
    """A training that goes on until it is stopped."""

    def __init__(self, folder: Path, *, sleep: float) -> None:
        (folder / "game.py").write_text(GAME.format(sleep=sleep))
        self.imported = folder / "imported"
        self.run = folder / "runs" / "run"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "rlagents", "train", "cartpole-dqn"),
                *("--env.id", f"{folder}/game.py:make_env", "--total-steps", "1e9"),
                *("--checkpoint.period-steps", "400", "--evaluation.period-steps", "0"),
                *("--runs-dir", str(folder / "runs"), "--name", "run"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, path: Path) -> None:
        end = time.monotonic() + 120
        while not path.exists():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end, "nothing happened"
            time.sleep(0.02)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[float], Started]]:
    started: list[Started] = []

    def begin(sleep: float) -> Started:
        started.append(Started(tmp_path, sleep=sleep))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


@pytest.mark.slow
def test_a_run_has_one_writer_until_that_is_gone(
    start: Callable[[float], Started], cli: Cli
) -> None:
    one = start(0)
    one.wait_for(one.run / "checkpoints" / "index.json")
    refused = cli("resume", one.run)
    assert refused.code == 2
    assert f"Process {one.process.pid} on" in refused.err
    assert one.process.poll() is None  # it trains on, and can be looked at
    assert cli("evaluate", one.run, "--episodes", 1).code == 0
    one.process.kill()
    one.process.communicate()
    step = rlagents.open_run(one.run).checkpoint("last").step
    resumed = cli("resume", one.run, "--total-steps", step + 100)
    assert resumed.code == 0, resumed.err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_while_an_environment_is_imported(
    start: Callable[[float], Started], number: signal.Signals
) -> None:
    one = start(600)
    one.wait_for(one.imported)
    one.process.send_signal(number)
    out, err = one.process.communicate(timeout=60)
    assert (one.process.returncode, out) == (130, "")
    assert err == "rlagents: Stopped before anything was written.\n"
    assert not one.run.parent.exists()


@pytest.mark.slow
def test_preemption_saves(start: Callable[[float], Started], cli: Cli) -> None:
    one = start(0)
    one.wait_for(one.run / "checkpoints" / "index.json")
    one.process.send_signal(signal.SIGUSR1)
    _, err = one.process.communicate(timeout=60)
    assert one.process.returncode == 130
    assert f"rlagents resume {one.run}" in err
    step = rlagents.open_run(one.run).status()["step"]
    resumed = cli("resume", one.run, "--total-steps", step + 100)
    assert f"resuming at step {step:,}, exactly" in resumed.err
