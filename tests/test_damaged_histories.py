"""Runs whose files hold what no training writes: `report` and `compare` say so, or go on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_runs import write_run, write_video

from rlagents.report import list_videos
from rlagents.run import RunFolder
from rlagents.wording import duration, printable

Cli = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return write_run(tmp_path / "runs", "bad", returns=[1, 2], evaluations=[[1, 2]])


def change(folder: RunFolder, name: str, **values: Any) -> None:
    path = folder.directory / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def both(cli: Cli, folder: RunFolder) -> list[Any]:
    place = folder.directory.parent.parent
    return [
        cli("report", folder.directory, "--output", place / "page.html"),
        cli("compare", folder.directory, "--output", place / "picture.png"),
    ]


def test_words_for_what_is_no_number_and_no_letter() -> None:
    assert [duration(seconds) for seconds in (float("nan"), float("inf"), 5)] == ["-", "-", "5 s"]
    assert printable("a ä 🙂 <b>") == "a ä 🙂 <b>"
    assert printable("a\nb\x1b[31m\ud800\u202e") == "a\ufffdb\ufffd[31m\ufffd\ufffd"


@pytest.mark.parametrize("time", [float("nan"), float("inf"), 10**400, 1e18])
def test_a_sign_of_life_at_no_date(folder: RunFolder, cli: Cli, time: float) -> None:
    change(folder, "status.json", state="running", heartbeat=time)
    assert [outcome.code for outcome in both(cli, folder)] == [0, 0]
    page = (folder.directory.parent.parent / "page.html").read_text()
    assert "last heard of on an unknown date" in page


def test_texts_that_no_terminal_and_no_font_has(folder: RunFolder, cli: Cli) -> None:
    change(folder, "config.json", recipe="a\ud800b\x1b[31m\nc", git_commit="\ud800")
    report, compare = both(cli, folder)
    assert (report.code, compare.code) == (0, 0)
    (folder.directory.parent.parent / "page.html").read_text(encoding="utf-8")
    recipe = "a\ud800b\x1b[31m\nc"
    other = write_run(folder.directory.parent, "other", returns=[1], recipe=recipe, n_step=3)
    outcome = cli("compare", folder.directory, other.directory)
    assert outcome.code == 0
    assert "\x1b" not in outcome.out
    assert "a\ufffdb\ufffd[31m\ufffdc" in outcome.out


def test_a_folder_whose_name_is_no_text(folder: RunFolder, cli: Cli) -> None:
    odd = os.path.join(os.fsencode(folder.directory.parent), b"b\xffd")
    os.rename(folder.directory, odd)
    renamed = RunFolder(Path(os.fsdecode(odd)))
    report, compare = both(cli, renamed)
    assert (report.code, compare.code) == (0, 0)
    assert compare.out.encode()
    assert "b\ufffdd" in compare.out


@pytest.mark.parametrize("seed", [float("inf"), float("nan"), None])
def test_a_seed_that_is_none(folder: RunFolder, cli: Cli, seed: float | None) -> None:
    config = json.loads((folder.directory / "config.json").read_text())["config"]
    change(folder, "config.json", config=config | {"seed": seed})
    for outcome in both(cli, folder):
        assert outcome.code == 2
        assert "expected a config with a seed" in outcome.err


def test_numbers_that_are_none(folder: RunFolder, cli: Cli) -> None:
    path = folder.directory / "evaluations.csv"
    row = path.read_text().splitlines()[-1].split(",")
    path.write_text(path.read_text() + ",".join([*row[:-1], "nan"]) + "\n")
    assert [outcome.code for outcome in both(cli, folder)] == [0, 0]
    path = folder.directory / "episodes.csv"
    row = path.read_text().splitlines()[-1].split(",")
    path.write_text(path.read_text() + ",".join([row[0], "9" * 400, *row[2:]]) + "\n")
    for outcome in both(cli, folder):
        assert outcome.code == 2
        assert f"{path} is damaged: a step has too many digits" in outcome.err


def test_a_config_that_is_nested_too_deeply(folder: RunFolder, cli: Cli) -> None:
    (folder.directory / "config.json").write_text("[" * 100_000)
    for outcome in both(cli, folder):
        assert outcome.code == 2
        assert "cannot be read" in outcome.err


@pytest.mark.parametrize("kind", ["empty", "folder", "pipe"])
def test_what_is_no_video(folder: RunFolder, cli: Cli, kind: str) -> None:
    whole, path = write_video(folder, 100), write_video(folder, 200)
    path.unlink()
    make: dict[str, Callable[[], Any]] = {
        "empty": path.touch,
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
    }
    make[kind]()
    assert [video.path for video in list_videos(folder)] == [whole]


def test_a_video_whose_json_is_nested_too_deeply(folder: RunFolder, cli: Cli) -> None:
    write_video(folder, 100).with_suffix(".json").write_text("[" * 100_000)
    assert both(cli, folder)[0].code == 0
