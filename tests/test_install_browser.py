"""The script that gets a browser for the tests, beside made-up programs that note their calls."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "install_browser.sh"
CALLS = "update\ninstall -y --no-install-recommends chromium\n"


def run(folder: Path, **programs: str) -> tuple[str, str]:
    """Run the script where there are only these programs; return what it says, and apt's calls."""
    real = {name: f'exec {shutil.which(name)} "$@"\n' for name in ("env", "bash")}
    for name, lines in (real | {"id": "echo 0\n"} | programs).items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!{shutil.which('bash')}\n{lines}")
        path.chmod(0o755)
    calls = folder / "calls"
    calls.touch()
    result = subprocess.run(
        [SCRIPT], env={"PATH": str(folder)}, capture_output=True, text=True, check=True
    )
    assert result.stdout == ""
    return result.stderr, calls.read_text()


def apt(folder: Path, *, failing: str = "none") -> str:
    """Return an apt-get that notes its calls, and fails at one of them."""
    return (
        f'echo "$@" >> {folder}/calls\n'
        f'if [ "$1" = {failing} ]; then echo "One line"; echo "E: no network" >&2; exit 100; fi\n'
    )


@pytest.mark.parametrize("browser", ["chromium", "chromium_browser", "google_chrome"])
def test_nothing_is_done_where_there_is_a_browser(tmp_path: Path, browser: str) -> None:
    assert run(tmp_path, **{browser: ""}, apt_get=apt(tmp_path)) == ("", "")


def test_a_browser_is_installed_by_root(tmp_path: Path) -> None:
    said, calls = run(tmp_path, apt_get=apt(tmp_path))
    assert said == "Installing Debian's package chromium, for the tests that drive a browser.\n"
    assert calls == CALLS


def test_a_browser_is_installed_with_sudo(tmp_path: Path) -> None:
    sudo = 'shift\n[ "$1" = true ] || exec "$@"\n'
    said, calls = run(tmp_path, id="echo 1000\n", sudo=sudo, apt_get=apt(tmp_path))
    assert said.startswith("Installing")
    assert calls == CALLS


def test_without_the_right_to_install_it_says_so(tmp_path: Path) -> None:
    said, calls = run(tmp_path, id="echo 1000\n", sudo="exit 1\n", apt_get=apt(tmp_path))
    assert said.startswith("No browser for the tests that drive one, so they will skip: ")
    assert "needs root or sudo without a password" in said
    assert calls == ""


def test_without_sudo_and_without_apt_it_says_so(tmp_path: Path) -> None:
    said, _ = run(tmp_path, id="echo 1000\n", apt_get=apt(tmp_path))
    assert "without a password" in said
    (tmp_path / "apt-get").unlink()
    said, _ = run(tmp_path)
    assert "there is no apt-get to install one" in said


@pytest.mark.parametrize(("failing", "calls"), [("update", 1), ("install", 2)])
def test_a_failing_installation_is_told_of(tmp_path: Path, failing: str, calls: int) -> None:
    said, noted = run(tmp_path, apt_get=apt(tmp_path, failing=failing))
    assert f"apt-get {failing}" in said.splitlines()[-1]
    assert said.splitlines()[-1].endswith("failed (E: no network).")
    assert noted.count("\n") == calls
