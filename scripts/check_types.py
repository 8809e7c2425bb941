"""Type-check the installed package: mypy does not see mapped packages of an editable install."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Install a copy of the package beside nothing else, and check that."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        source = Path(folder) / "source"
        _copy(source)  # setuptools leaves a build folder where it builds
        subprocess.run([*install, f"{folder}/site", str(source)], check=True)
        check = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
        cache = ["--cache-dir", str(ROOT / ".mypy_cache")]
        paths = {"MYPYPATH": f"{folder}/site", "PATH": "/usr/bin:/bin"}
        return subprocess.run(
            [*check, *cache, "-p", "rlagents"], cwd=folder, env=paths, check=False
        ).returncode


def _copy(target: Path) -> None:
    target.mkdir()
    for name in ("rlagents", "envs", "configs"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target / name)


if __name__ == "__main__":
    sys.exit(main())
