"""The README's own environment: its file and its commands, from an empty folder."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import av
import pytest

README = Path(__file__).resolve().parents[2] / "README.md"


def section(title: str) -> str:
    """Return the text under a heading of the README, up to the next one."""
    return README.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.slow
def test_readme_environment_is_trained_evaluated_and_recorded(tmp_path: Path) -> None:
    text = section("Your own environment")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    commands = re.findall(r"^(rlagents .*)$", text, re.MULTILINE)
    assert [command.split()[1] for command in commands] == ["train", "evaluate", "record"]
    (tmp_path / "catch.py").write_text(code, encoding="utf-8")
    outputs = []
    for command in commands:
        words = shlex.split(command)[1:]
        words += ["--json"] if words[0] == "evaluate" else []
        result = subprocess.run(
            [sys.executable, "-m", "rlagents", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        outputs.append(result.stdout)
    assert json.loads(outputs[1])["mean_return"] > 0.9
    with av.open(str(tmp_path / "catch.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 10  # the ball falls nine rows
    assert any((first != frames[0]).any() for first in frames[1:])


def test_readme_names_only_commands_and_files_that_exist() -> None:
    text = README.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!http|#)([^)#]+)", text):
        assert (README.parent / link).exists(), link
    verbs = set(re.findall(r"^(?:\.venv/bin/)?rlagents (\w+)", text, re.MULTILINE))
    runs = {"train", "resume", "evaluate", "record", "watch", "compare", "report"}
    assert verbs <= runs | {"list", "doctor"}
