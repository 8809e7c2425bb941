"""One run, one writer: who comes second is refused, and nothing is left to clear away."""

from __future__ import annotations

import errno
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import rlagents
from rlagents import lock as lock_module
from rlagents.errors import UsageError
from rlagents.lock import LOCK, RunLock

Cli = Callable[..., Any]

HOLDER = """
import sys, time
from pathlib import Path
from rlagents.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def hold(directory: Path) -> subprocess.Popen[str]:
    """A process that holds the lock of a folder until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_and_told_who_holds_it(own_run: Path, cli: Cli) -> None:
    process = hold(own_run)
    try:
        before = {path: path.stat().st_mtime_ns for path in own_run.rglob("*")}
        outcome = cli("resume", own_run, "--total-steps", 600)
        assert outcome.code == 2
        assert outcome.err.count("\n") == 1
        assert f"Process {process.pid} on {platform.node()}, since 20" in outcome.err
        assert f"rlagents resume {own_run}" in outcome.err
        assert "delete" not in outcome.err  # the lock is real: it goes with its process
        assert {path: path.stat().st_mtime_ns for path in own_run.rglob("*")} == before
    finally:
        process.kill()
        process.wait()
    # It was killed, its file is still there, and it is not in the way.
    assert json.loads((own_run / LOCK).read_text())["pid"] == process.pid
    assert cli("resume", own_run, "--total-steps", 600).code == 0
    assert not (own_run / LOCK).exists()


def test_reading_is_not_hindered(own_run: Path) -> None:
    with RunLock(own_run):
        run = rlagents.open_run(own_run)
        assert len(run.evaluate(episodes=1).returns) == 1
        assert run.record(episodes=1)[0].is_file()
        assert run.record_training_episode(0).is_file()


def test_training_holds_the_lock_until_it_ends(
    tmp_path: Path, cli: Cli, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def evaluated(*_: object) -> None:
        outcome = cli("resume", tmp_path / "one")
        refused.append((outcome.code, outcome.err))

    monkeypatch.setattr("rlagents.observers.video.VideoObserver.__call__", evaluated)
    words = ("train", "cartpole-dqn", *tiny, "--runs-dir", tmp_path, "--name", "one")
    assert cli(*words).code == 0
    assert refused
    assert all(code == 2 for code, _ in refused)
    assert all(f"Process {os.getpid()} on" in err for _, err in refused)
    assert not (tmp_path / "one" / LOCK).exists()


def test_the_lock_is_given_back_when_a_run_fails(
    tmp_path: Path, cli: Cli, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr("rlagents.runner.Runner._vector_step", fails)
        outcome = cli("train", "cartpole-dqn", *tiny, "--runs-dir", tmp_path, "--name", "one")
        assert outcome.code == 1
    assert not (tmp_path / "one" / LOCK).exists()


def test_a_file_that_was_removed_meanwhile_is_not_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last holder removes the file between another's opening and locking it."""
    taken = []

    def lock(descriptor: int) -> bool:
        if not taken:
            (tmp_path / LOCK).unlink()
        taken.append(real(descriptor))
        return taken[-1]

    real = lock_module._lock
    monkeypatch.setattr(lock_module, "_lock", lock)
    with RunLock(tmp_path):
        assert taken == [True, True]
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
        with pytest.raises(UsageError), RunLock(tmp_path):
            pass


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, "no locks here")


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({}, None),
        ({"pid": "self"}, "Process"),
        ({"pid": "self", "started": 1.0}, None),  # a number that another process has had before
        ({"pid": 2**22 + 1}, None),  # no process has such a number
        ({"pid": "self", "host": "elsewhere"}, "on elsewhere"),
    ],
)
def test_without_locks_the_process_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, about: dict[str, Any], says: str | None
) -> None:
    monkeypatch.setattr("fcntl.flock", no_locks)
    if about:
        itself = {
            "host": platform.node(),
            "since": 1.7e9,
            "started": psutil.Process().create_time(),
        }
        pid = {"pid": os.getpid()} if about["pid"] == "self" else {}
        (tmp_path / LOCK).write_text(json.dumps(itself | about | pid))
    if says is None:
        with RunLock(tmp_path):
            pass
        return
    with pytest.raises(UsageError, match=says) as caught, RunLock(tmp_path):
        pass
    assert ("delete" in str(caught.value)) is (about.get("host") == "elsewhere")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', "\x00" * 5000])
def test_what_the_file_says_may_be_anything(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK).write_text(text)
    with RunLock(tmp_path):
        (tmp_path / LOCK).write_text(text)
        with pytest.raises(UsageError, match="Another process is writing"), RunLock(tmp_path):
            pass


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    letter = tmp_path / "letter"
    letter.write_text("dear")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(letter)
    with pytest.raises(UsageError, match="cannot be written"), RunLock(tmp_path / "run"):
        pass
    assert letter.read_text() == "dear"


def test_a_stopped_process_still_holds_it(tmp_path: Path) -> None:
    process = hold(tmp_path)
    try:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(UsageError, match=str(process.pid)), RunLock(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()
