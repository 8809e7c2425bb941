"""Processes that end in the middle of a save: what is listed is whole, and the next one goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("case", "fewest"), [("next-step", 40), ("same-step", 40), ("on-exit", 60)]
)
def test_a_process_that_ends_at_any_call_leaves_whole_checkpoints(
    tmp_path: Path, case: str, fewest: int, when: str
) -> None:
    done = subprocess.run(
        [sys.executable, str(TESTS / "killed_saves.py"), str(tmp_path), case, when],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= fewest  # files and folders synced, linked, renamed, removed
    assert [path.name for path in tmp_path.iterdir()] == ["template"]


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_equals_one_that_is_not() -> None:
    script = TESTS.parent / "scripts" / "crash_test.py"
    done = subprocess.run(
        [sys.executable, str(script), "--kills", "3", "--longest", "0.2", "--seed", "3"],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("all is well") == 3
