"""The first signal lets a run save and end with 130, wherever it comes; the second insists."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rlagents
from rlagents import runner as runner_module
from rlagents import training as training_module
from rlagents.checkpoint import CheckpointStore
from rlagents.errors import StoppedError
from rlagents.observers import video as video_module
from rlagents.runner import Runner
from rlagents.signals import StopSignal

Cli = Callable[..., Any]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


@pytest.fixture(autouse=True)
def heeds_hangups() -> Iterator[None]:
    """Let SIGHUP mean what it means unless `nohup` has started the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def send(number: signal.Signals) -> None:
    """Send a signal to this process; one that nobody has taken over would end the tests."""
    assert signal.getsignal(number) not in (signal.SIG_DFL, signal.default_int_handler)
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_then_given_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    threads = threading.active_count()
    with StopSignal() as stop:
        assert not stop()
        send(number)
        assert stop()
    assert signal.getsignal(number) is before
    assert signal.set_wakeup_fd(-1) == -1
    assert threading.active_count() == threads


def test_what_somebody_else_passes_on_is_no_second_signal() -> None:
    """As uvicorn does: it takes a signal, ends, gives the handler back and raises it again."""
    with StopSignal(count=False) as stop:
        threads = threading.active_count()
        assert signal.set_wakeup_fd(-1) == -1
        ours = signal.signal(signal.SIGTERM, lambda *_: None)
        send(signal.SIGTERM)
        signal.signal(signal.SIGTERM, ours)
        assert not stop()
        signal.raise_signal(signal.SIGTERM)
        assert stop()
        assert threading.active_count() == threads


def test_a_hangup_that_is_ignored_stays_so_and_servers_are_left_to_themselves() -> None:
    with StopSignal(count=False):
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with StopSignal() as stop:
        send(signal.SIGHUP)
        assert not stop()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.parametrize("number", SIGNALS)
def test_where_nothing_could_be_lost_it_stops_at_once(number: signal.Signals) -> None:
    reached = []

    def work(stop: StopSignal) -> None:
        with stop.at_once("nothing yet"):
            reached.append("begun")
            send(number)
            reached.append("gone on")

    with StopSignal() as stop:
        for _ in range(2):  # the second time, it was asked for before
            with pytest.raises(StoppedError, match="nothing yet"):
                work(stop)
    assert reached == ["begun"]


def test_after_that_it_is_noted_again() -> None:
    with StopSignal() as stop:
        with stop.at_once("nothing yet"):
            pass
        send(signal.SIGTERM)
        assert stop()


def test_a_thread_of_its_own_may_train_without_signals() -> None:
    seen = []

    def train() -> None:
        with StopSignal() as stop:
            seen.append(stop())

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [False]
    assert signal.getsignal(signal.SIGTERM) is before


SECOND = """
import hashlib, os, signal, sys, threading, time
from rlagents.signals import StopSignal

def insist():
    for _ in range(2):
        time.sleep(0.2)
        os.kill(os.getpid(), signal.{number})

with StopSignal():
    threading.Thread(target=insist, daemon=True).start()
    if "{where}" == "python":
        while True:
            time.sleep(0.01)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # minutes without a step of Python
"""


@pytest.mark.parametrize(
    ("number", "where"), [("SIGINT", "python"), ("SIGTERM", "c"), ("SIGUSR1", "c")]
)
def test_a_second_signal_ends_the_process_whatever_it_does(number: str, where: str) -> None:
    program = SECOND.format(number=number, where=where)
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == 130


HANGUPS = """
import os, signal, time
from rlagents.signals import StopSignal

with StopSignal() as stop:
    for name in {names}:
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(0.1)  # the thread that counts has counted
    print(stop())
"""


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["SIGHUP", "SIGHUP", "SIGHUP"], 0),  # a terminal that is closed sends several
        (["SIGTERM", "SIGHUP"], 0),
        (["SIGHUP", "SIGTERM"], 0),  # as session managers send them
        (["SIGHUP", "SIGTERM", "SIGTERM"], 130),
    ],
)
def test_a_hangup_is_none_of_the_two_signals(names: list[str], code: int) -> None:
    program = HANGUPS.format(names=names)
    done = subprocess.run(
        [sys.executable, "-c", program], timeout=60, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (code, "True\n" if code == 0 else "")


# --- runs ----------------------------------------


def train(cli: Cli, tiny: tuple[str, ...], runs: Path, *more: str) -> Any:
    return cli("train", "cartpole-dqn", *tiny, "--runs-dir", runs, "--name", "run", *more)


def check_stopped(outcome: Any, run: Path, cli: Cli) -> None:
    """It has ended with 130 and one sentence, was saved where it stood, and can go on."""
    assert outcome.code == 130, outcome.err
    opened = rlagents.open_run(run)
    status = opened.status()
    assert status["state"] == "stopped"
    assert opened.checkpoint("last").step == status["step"]
    assert f"Stopped at step {status['step']:,}" in outcome.err
    assert f"rlagents resume {run}" in outcome.err
    assert not [path for path in run.rglob(".*") if path.name != ".gitignore"]
    assert not (run / "run.lock").exists()
    resumed = cli("resume", run)
    assert resumed.code == 0, resumed.err
    assert "exactly" in resumed.err


@pytest.mark.parametrize("number", SIGNALS)
def test_between_two_steps(
    tmp_path: Path,
    cli: Cli,
    tiny: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    calls = []

    def step(self: Runner) -> Any:
        calls.append(1)
        if len(calls) == 30:
            send(number)
        return real(self)

    real = Runner._vector_step
    monkeypatch.setattr(Runner, "_vector_step", step)
    outcome = train(cli, tiny, tmp_path)
    assert rlagents.open_run(tmp_path / "run").status()["step"] == 120  # the step is finished
    check_stopped(outcome, tmp_path / "run", cli)


def test_during_an_evaluation(
    tmp_path: Path, cli: Cli, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def play(*arguments: Any, **options: Any) -> Any:
        def should_stop() -> bool:
            asked.append(1)
            if len(asked) == 5:
                send(signal.SIGTERM)
            return bool(options["should_stop"]())

        return real(*arguments, **options | {"should_stop": should_stop})

    real = runner_module.play_episodes
    with monkeypatch.context() as patch:
        patch.setattr(runner_module, "play_episodes", play)
        outcome = train(cli, tiny, tmp_path)
    assert len(asked) == 5
    check_stopped(outcome, tmp_path / "run", cli)


def test_while_a_checkpoint_is_written(
    tmp_path: Path, cli: Cli, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is finished first; the one that the stop asks for comes after it."""
    saved = []

    def save(self: CheckpointStore, step: int, write: Any, **options: Any) -> Path:
        def interrupted(directory: Path) -> None:
            if step == 160 and not saved:
                send(signal.SIGUSR1)
            write(directory)

        path = real(self, step, interrupted, **options)
        saved.append(step)
        return path

    real = CheckpointStore.save
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", save)
        outcome = train(cli, tiny, tmp_path)
    assert saved == [160, 160]
    check_stopped(outcome, tmp_path / "run", cli)


def test_while_a_video_is_made(
    tmp_path: Path, cli: Cli, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The video is left out, and nothing of it stays behind; the next one is made."""
    steps = []

    def step(self: Any, action: int) -> Any:
        steps.append(1)
        if len(steps) == 5:
            send(signal.SIGTERM)
        return real(self, action)

    real = video_module._StoppablePlayer.step
    with monkeypatch.context() as patch:
        patch.setattr(video_module._StoppablePlayer, "step", step)
        outcome = train(cli, tiny, tmp_path)
    assert len(steps) == 5
    run = tmp_path / "run"
    log = (run / "run.log").read_text()
    assert "the video that was being made is left out" in log
    assert "switched off" not in log
    assert not list((run / "videos").iterdir())
    check_stopped(outcome, run, cli)
    videos = {path.name.split("-episode")[0] for path in (run / "videos").glob("*.mp4")}
    assert videos == {"step-400", "step-480"}


def test_while_the_environments_are_built(
    tmp_path: Path, cli: Cli, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_difference(*_: Any) -> None:
        send(signal.SIGTERM)
        raise AssertionError("it went on")

    monkeypatch.setattr(training_module, "find_difference", find_difference)
    outcome = train(cli, tiny, tmp_path / "runs")
    assert (outcome.code, outcome.err) == (130, "rlagents: Stopped before anything was written.\n")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("where", ["load", "build", "find"])
def test_while_a_resume_restores(
    own_run: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def contents() -> dict[str, bytes]:
        return {
            str(path): path.read_bytes()
            for path in own_run.rglob("*")
            if path.is_file() and path.name != "run.log"
        }

    def interrupted(*_: Any, **__: Any) -> None:
        send(signal.SIGUSR1)
        raise AssertionError("it went on")

    before = contents()
    with monkeypatch.context() as patch:
        if where == "load":
            patch.setattr(Runner, "load", interrupted)
        elif where == "build":
            patch.setattr(training_module, "make_vector_env", interrupted)
        else:
            patch.setattr(CheckpointStore, "find_intact", interrupted)
        outcome = cli("resume", own_run, "--total-steps", 600)
    assert outcome.code == 130
    assert f"Stopped before {own_run} was changed" in outcome.err
    assert contents() == before
    assert cli("resume", own_run, "--total-steps", 600).code == 0


def test_before_the_first_step_it_is_saved_as_it_is(
    tmp_path: Path, cli: Cli, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is there, so that it says what has become of it."""

    def describe(parts: Any) -> str:
        send(signal.SIGINT)
        return real(parts)

    real = training_module._describe_threads
    with monkeypatch.context() as patch:
        patch.setattr(training_module, "_describe_threads", describe)
        outcome = train(cli, tiny, tmp_path)
    assert json.loads((tmp_path / "run" / "status.json").read_text())["step"] == 0
    check_stopped(outcome, tmp_path / "run", cli)
