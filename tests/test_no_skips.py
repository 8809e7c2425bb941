"""In continuous integration a test that skips has failed: what is not run proves nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

TESTS = """
import pytest

def test_passes():
    pass

def test_skips():
    pytest.skip("no browser")

@pytest.mark.skipif(True, reason="no GPU")
def test_is_skipped():
    pass

@pytest.mark.xfail
def test_fails_as_expected():
    assert False
"""
COLLECTED = "import pytest\npytest.importorskip('no_such_package')\n\ndef test_any():\n    pass\n"


@pytest.mark.parametrize("workers", [[], ["-p", "xdist", "-n", "2"]], ids=["alone", "shared"])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"passed": 1, "skipped": 3, "xfailed": 1}),
        (
            ["--no-skips", "--continue-on-collection-errors"],
            {"passed": 1, "failed": 1, "errors": 2, "xfailed": 1},
        ),
    ],
)
def test_skips_are_failures_if_asked_for(
    tmp_path: Path, options: list[str], expected: dict[str, int], workers: list[str]
) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "test_collected.py").write_text(COLLECTED)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "no_skips", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*command, *workers, *options],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    last = result.stdout.splitlines()[-1]
    counts = {name: int(count) for count, name in re.findall(r"(\d+) ([a-z]+)", last)}
    assert counts == expected, result.stdout + result.stderr
    assert result.returncode == (1 if options else 0)
    if options:
        for reason in ("no browser", "no GPU", "no_such_package"):
            assert reason in result.stdout


def test_continuous_integration_asks_for_it() -> None:
    result = subprocess.run(
        [ROOT / ".ci" / "run"],
        env=os.environ | {"MAKEFLAGS": "--dry-run"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(r"-m pytest .*--no-skips", result.stdout)
