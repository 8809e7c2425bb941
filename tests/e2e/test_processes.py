"""Whole processes: one writer at a time, signals, and terminals that go away."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
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


# --- terminals and pipes that go away ----------------------------------------

TRAIN = (
    *("train", "cartpole-dqn", "--evaluation.period-steps", "500", "--evaluation.episodes", "1"),
    *("--recording.enabled", "false", "--name", "run"),
)
CHATTY = """
import gymnasium as gym

class Chatty(gym.Wrapper):
    def step(self, action):
        print("step", flush=True)
        return super().step(action)

def make_env(render_mode=None):
    return Chatty(gym.make("CartPole-v1", render_mode=render_mode))
"""
Begin = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Start `rlagents`; what still runs in the end is killed."""
    started = []

    def start(*words: object, **options: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "rlagents", *map(str, words)]
        started.append(subprocess.Popen(command, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def begin_at_terminal(begin: Begin) -> Iterator[Begin]:
    """Start `rlagents` at a terminal of its own, which is closed once it shows something."""
    masters = []

    def start(
        *words: object, until: bytes, hangup: Any = signal.SIG_DFL
    ) -> subprocess.Popen[bytes]:
        master, terminal = os.openpty()
        masters.append(master)

        def take_terminal() -> None:
            os.setsid()
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGHUP, hangup)  # whatever the tests were started with

        where = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
        process = begin(*words, preexec_fn=take_terminal, **where)
        os.close(terminal)
        seen = b""
        while until not in seen:
            seen += os.read(master, 10_000)
        os.close(masters.pop())
        return process

    yield start
    for master in masters:
        os.close(master)


@pytest.mark.slow
@pytest.mark.parametrize("chatty", [False, True])
def test_a_run_goes_on_though_nobody_reads_what_it_says(
    begin: Begin, tmp_path: Path, chatty: bool
) -> None:
    (tmp_path / "game.py").write_text(CHATTY)
    own = ("--env.id", f"{tmp_path}/game.py:make_env") if chatty else ()
    words = (*TRAIN, "--total-steps", 2000, "--runs-dir", tmp_path, *own)
    process = begin(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    while f"run: {tmp_path / 'run'}" not in process.stdout.readline().decode():
        pass
    while chatty and process.stdout.readline() != b"step\n":
        pass
    process.stdout.close()
    log = tmp_path / "run" / "run.log"
    assert process.wait(timeout=120) == 0, log.read_text()
    assert rlagents.open_run(tmp_path / "run").status()["state"] == "finished"
    assert "finished at step 2,000" in log.read_text()
    warnings = [line for line in log.read_text().splitlines() if "warning" in line]
    if chatty:  # one episode is lost, in one environment
        assert len([line for line in warnings if "BrokenPipeError" in line]) == 1
    else:
        assert warnings == ["warning: nothing more can be shown (Broken pipe); the run goes on"]


@pytest.mark.slow
def test_a_run_is_saved_when_its_terminal_is_closed(
    begin_at_terminal: Begin, tmp_path: Path, cli: Cli
) -> None:
    words = (*TRAIN, "--total-steps", 1e9, "--runs-dir", tmp_path)
    assert begin_at_terminal(*words, until=b"evaluation").wait(timeout=120) == 130
    run = rlagents.open_run(tmp_path / "run")
    status = run.status()
    assert status["state"] == "stopped"
    assert run.checkpoint("last").step == status["step"] > 0
    resumed = cli("resume", run.directory, "--total-steps", status["step"] + 100)
    assert f"resuming at step {status['step']:,}, exactly" in resumed.err


@pytest.mark.slow
def test_a_run_under_nohup_goes_on_when_its_terminal_is_closed(
    begin_at_terminal: Begin, tmp_path: Path
) -> None:
    words = (*TRAIN, "--total-steps", 4000, "--runs-dir", tmp_path)
    process = begin_at_terminal(*words, until=b"evaluation", hangup=signal.SIG_IGN)
    assert process.wait(timeout=120) == 0
    assert rlagents.open_run(tmp_path / "run").status()["state"] == "finished"
    assert "finished at step 4,000" in (tmp_path / "run" / "run.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("hangup", "code"), [(signal.SIG_DFL, 130), (signal.SIG_IGN, 0)])
def test_an_evaluation_without_its_terminal_ends_without_a_fuss(
    begin_at_terminal: Begin, hangup: Any, code: int
) -> None:
    words = ("evaluate", "cartpole", "--pretrained", "--episodes", 300)
    assert begin_at_terminal(*words, until=b"playing", hangup=hangup).wait(timeout=120) == code
