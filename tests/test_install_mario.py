"""The script that gets Super Mario Bros. for the tests, beside a made-up Python."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "install_mario.sh"


def run(folder: Path, *, there: bool, pip: str) -> tuple[str, str]:
    """Run the script with a Python that notes its calls; return what it says, and the calls."""
    python = folder / "python"
    python.write_text(
        "#!/usr/bin/env bash\n"
        f'if [ "$1" = -c ]; then exit {0 if there else 1}; fi\n'
        f'echo "$@" >> {folder}/calls\n{pip}\n'
    )
    python.chmod(0o755)
    calls = folder / "calls"
    calls.touch()
    result = subprocess.run([SCRIPT, python], capture_output=True, text=True, check=True)
    assert result.stdout == ""
    return result.stderr, calls.read_text()


def test_nothing_is_done_where_it_is_installed(tmp_path: Path) -> None:
    assert run(tmp_path, there=True, pip="exit 1") == ("", "")


def test_it_is_installed_with_the_versions_of_the_docs(tmp_path: Path) -> None:
    said, calls = run(tmp_path, there=False, pip="")
    assert said == "Installing Super Mario Bros., for the tests that play it.\n"
    assert calls == "-m pip install --quiet --editable .[mario] --constraint constraints.txt\n"


@pytest.mark.parametrize("message", ["error: no C++ compiler", ""])
def test_where_that_fails_it_says_so_and_goes_on(tmp_path: Path, message: str) -> None:
    pip = f"echo 'Building wheel'; echo '{message}' >&2; exit 1"
    said, _ = run(tmp_path, there=False, pip=pip)
    last = said.splitlines()[-1]
    assert last.startswith("No Super Mario Bros. for the tests that play it, so they will skip: ")
    assert message in last
