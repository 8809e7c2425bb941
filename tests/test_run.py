"""A run's folder: names, files that are never half-written, and the log of actions."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlagents.errors import UsageError
from rlagents.events import Clock, RunStarted
from rlagents.observers.files import (
    EPISODE_COLUMNS,
    EVALUATION_COLUMNS,
    FileObserver,
    cut_logs,
)
from rlagents.run import FORMAT, ActionLog, RunFolder, write_json
from rlagents.types import Episode, EvaluationRow


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs", "a-run")


@contextmanager
def fresh_folder() -> Iterator[RunFolder]:
    """A folder for each example that hypothesis tries."""
    directory = Path(tempfile.mkdtemp())
    try:
        yield RunFolder.create(directory, "run")
    finally:
        shutil.rmtree(directory)


# --- write_json ----------------------------------------


def test_json_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"a": [1, 2.5, None, "é"]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": [1, 2.5, None, "é"]}
    assert path.read_text().endswith("\n")
    assert list(tmp_path.iterdir()) == [path]


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"old": True})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})
    assert json.loads(path.read_text()) == {"old": True}


def test_json_is_whole_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of `path` sees the old file until the new one is complete under another name."""
    path = tmp_path / "value.json"
    write_json(path, {"number": 1})
    seen: list[Any] = []
    replace = os.replace

    def watched(source: Path, target: Path) -> None:
        seen.append(json.loads(path.read_text()))
        seen.append(json.loads(Path(source).read_text()))
        assert Path(source).name.startswith(".")
        assert Path(source).parent == path.parent
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    write_json(path, {"number": 2})
    assert seen == [{"number": 1}, {"number": 2}]
    assert json.loads(path.read_text()) == {"number": 2}


# --- RunFolder ----------------------------------------


def test_a_new_folder(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "some" / "runs", "mine")
    assert folder.directory == tmp_path / "some" / "runs" / "mine"
    assert folder.name == "mine"
    assert folder.status() == {}
    assert list(folder.episodes()) == []
    for name in ("actions", "checkpoints", "videos", "tensorboard"):
        assert (folder.directory / name).is_dir()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "../a", ".hidden", "a/"])
def test_a_name_that_is_no_folders_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="--name"):
        RunFolder.create(tmp_path / "runs", name)
    assert not (tmp_path / "runs").exists()


def test_a_name_that_is_taken(folder: RunFolder) -> None:
    with pytest.raises(UsageError, match="--name"):
        RunFolder.create(folder.directory.parent, "a-run")
    assert (folder.directory / "actions").is_dir()


@pytest.mark.parametrize("below", ["", "deeper", "deeper/still"])
def test_a_runs_folder_that_is_a_file(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UsageError, match="--runs-dir") as caught:
        RunFolder.create(file / below, "run")
    assert str(file) in str(caught.value)
    assert file.read_bytes() == b""


def test_a_run_is_found_by_folder_and_by_name(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write_manifest({"recipe": "x"})
    assert RunFolder.open(folder.directory).directory == folder.directory
    assert RunFolder.open(str(folder.directory)).directory == folder.directory
    assert RunFolder.open("a-run", folder.directory.parent).directory == folder.directory
    monkeypatch.chdir(folder.directory.parent.parent)
    assert RunFolder.open("a-run").directory == Path("runs/a-run")
    assert RunFolder.open("runs/a-run").name == "a-run"
    monkeypatch.chdir(folder.directory)
    assert RunFolder.open(".").name == "a-run"


def test_something_that_is_not_a_run(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not a run.*config\.json"):
        RunFolder.open(folder.directory)  # made, but without a config
    folder.write_manifest({})
    with pytest.raises(UsageError, match="did you mean 'a-run'"):
        RunFolder.open("a-rnu", folder.directory.parent)
    with pytest.raises(UsageError, match=re.escape(str(tmp_path / "none"))):
        RunFolder.open("x", tmp_path / "none")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UsageError):
        RunFolder.open(file)


def test_manifest(folder: RunFolder) -> None:
    names = ("config", "observation_space", "action_space", "reproducible", "difference")
    whole = dict.fromkeys((*names, "threads", "versions"), "x")
    folder.write_manifest(whole)
    assert folder.manifest() == {"format": FORMAT, **whole}
    for text in ("", "[]", "3", '{"format": 0}', '{"recipe": "x"}'):
        (folder.directory / "config.json").write_text(text)
        with pytest.raises(UsageError, match=r"config\.json"):
            folder.manifest()


def test_status(folder: RunFolder) -> None:
    folder.write_status("running", 5)
    first = folder.status()
    assert {key: first[key] for key in ("state", "pid", "step")} == {
        "state": "running",
        "pid": os.getpid(),
        "step": 5,
    }
    folder.write_status("failed", 6, error="because")
    assert folder.status()["error"] == "because"
    assert folder.status()["heartbeat"] >= first["heartbeat"]


# --- episodes.csv and evaluations.csv ----------------------------------------

KINDS: dict[str, type[Episode] | type[EvaluationRow]] = {
    "episodes": Episode,
    "evaluations": EvaluationRow,
}
LINES = {
    "episodes": ["0,10,40,1,77,-3.5,10,terminated,1.25", "1,30,120,0,78,inf,20,truncated,2.5"],
    "evaluations": ["10,40,3,1.5,0.5,1.25,1.0,2.0,1.25", "20,80,3,nan,0.0,-7.0,-8.5,1e+16,2.5"],
}


def write_rows(folder: RunFolder, name: str, lines: list[str]) -> Path:
    path = folder.directory / f"{name}.csv"
    path.write_text("\n".join([",".join(KINDS[name]._fields), *lines]) + "\n")
    return path


def test_episodes_and_evaluations_are_read_back(folder: RunFolder) -> None:
    for name, lines in LINES.items():
        assert list(getattr(folder, name)()) == []  # not there yet
        write_rows(folder, name, [])
        assert list(getattr(folder, name)()) == []
        write_rows(folder, name, lines)
    assert list(folder.episodes()) == [
        Episode(0, 10, 40, 1, 77, -3.5, 10, "terminated", 1.25),
        Episode(1, 30, 120, 0, 78, float("inf"), 20, "truncated", 2.5),
    ]
    first, second = folder.evaluations()
    assert first == EvaluationRow(10, 40, 3, 1.5, 0.5, 1.25, 1.0, 2.0, 1.25)
    assert second[4:] == (0.0, -7.0, -8.5, 1e16, 2.5)
    assert math.isnan(second.mean_return)


def test_columns_are_found_by_their_names(folder: RunFolder) -> None:
    header = ",".join(reversed((*EVALUATION_COLUMNS, "more")))
    path = folder.directory / "evaluations.csv"
    path.write_text(f"{header}\nx,9,8,7,6,5,4,3,2,1\n")
    assert list(folder.evaluations()) == [EvaluationRow(1, 2, 3, 4, 5, 6, 7, 8, 9)]


@pytest.mark.parametrize("name", ["episodes", "evaluations"])
def test_a_row_that_was_cut_off_is_left_out(folder: RunFolder, name: str) -> None:
    path = write_rows(folder, name, LINES[name])
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        assert len(list(getattr(folder, name)())) == 1
    path.write_bytes(whole + b"\0" * 50)  # a power cut
    assert len(list(getattr(folder, name)())) == 2
    path.write_bytes(whole + b"\n")
    assert len(list(getattr(folder, name)())) == 2


@pytest.mark.parametrize("name", ["episodes", "evaluations"])
@pytest.mark.parametrize(
    "broken", [b"what", b"1,2", b"\xff\xfe,\x00", b"0,0,0,x,0,y,0,z,0", b"," * 8]
)
def test_a_damaged_file_is_refused_with_the_line(
    folder: RunFolder, name: str, broken: bytes
) -> None:
    path = write_rows(folder, name, LINES[name])
    first, second, third = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, second, broken, third]) + b"\n")
    with pytest.raises(UsageError, match=rf"{name}\.csv is damaged: line 3 .*Delete that line"):
        list(getattr(folder, name)())
    path.write_bytes(b"\n".join([b"some,thing", second, third]) + b"\n")
    with pytest.raises(UsageError, match=rf"{name}\.csv is damaged: line 2"):
        list(getattr(folder, name)())


# --- ActionLog ----------------------------------------


@st.composite
def logs(draw: st.DrawFn) -> tuple[int, list[list[int]]]:
    num_actions = draw(st.sampled_from([1, 2, 18, 255, 256, 257, 1000, 70_000]))
    action = st.integers(0, num_actions - 1)
    return num_actions, draw(st.lists(st.lists(action, max_size=40), max_size=12))


@settings(max_examples=40)
@given(logs())
def test_actions_come_back(log: tuple[int, list[list[int]]]) -> None:
    num_actions, episodes = log
    with fresh_folder() as folder:
        for number, actions in enumerate(episodes):
            ActionLog(folder).append(number, np.array(actions, dtype=np.int64), num_actions)
        for number, actions in enumerate(episodes):
            assert ActionLog(folder).read(number).tolist() == actions
        size = sum(len(actions) for actions in episodes) * (1 if num_actions <= 256 else 4)
        data = folder.directory / "actions" / "actions.bin"
        assert (data.stat().st_size if data.exists() else 0) == size


@settings(max_examples=40)
@given(logs(), st.integers(0, 14), logs())
def test_actions_that_are_cut_are_gone_and_can_be_written_anew(
    log: tuple[int, list[list[int]]], kept: int, more: tuple[int, list[list[int]]]
) -> None:
    num_actions, before = log
    with fresh_folder() as folder:
        own = ActionLog(folder)
        for number, actions in enumerate(before):
            own.append(number, np.array(actions, dtype=np.int64), num_actions)
        own.cut(kept)
        expected = before[:kept]
        data = folder.directory / "actions" / "actions.bin"
        size = sum(len(actions) for actions in expected) * (1 if num_actions <= 256 else 4)
        assert (data.stat().st_size if data.exists() else 0) == size
        for number in range(len(expected), len(before) + 1):
            with pytest.raises(UsageError, match=f"episode {number};"):
                own.read(number)
        for actions in more[1]:
            own.append(len(expected), np.array(actions, dtype=np.int64), more[0])
            expected = [*expected, actions]
        assert [own.read(number).tolist() for number in range(len(expected))] == expected


def test_an_episode_that_is_not_there(folder: RunFolder) -> None:
    log = ActionLog(folder)
    with pytest.raises(UsageError, match="none yet"):
        log.read(0)
    log.cut(0)
    log.append(0, np.array([1, 0]), 2)
    log.append(1, np.array([1]), 2)
    for number in (-1, 2, 10**9):
        with pytest.raises(UsageError, match="0 to 1"):
            log.read(number)


def test_a_half_written_row_of_the_actions_is_forgotten(folder: RunFolder) -> None:
    """A kill or a full disk may leave any beginning of a row behind."""
    log = ActionLog(folder)
    log.append(0, np.array([1, 0, 1]), 2)
    log.append(1, np.array([1, 1]), 2)
    index = folder.directory / "actions" / "index.csv"
    whole = index.read_text()
    for length in range(whole.rindex("1,3"), len(whole)):
        index.write_text(whole[:length])
        assert log.read(0).tolist() == [1, 0, 1]
        log.cut(1)
        log.append(1, np.array([0, 0, 0, 0]), 2)
        assert log.read(0).tolist() == [1, 0, 1]
        assert log.read(1).tolist() == [0, 0, 0, 0]


# --- cut_logs ----------------------------------------


def write_logs(folder: RunFolder) -> None:
    """Episodes that end at 10, 20, ..., evaluations and metrics at 25, 50, ..."""
    rows = [f"{n},{10 * n + 10},{10 * n + 10},0,{n},1.0,10,terminated,{n}.5" for n in range(10)]
    text = "\n".join([",".join(EPISODE_COLUMNS), *rows]) + "\n"
    (folder.directory / "episodes.csv").write_text(text)
    rows = [f"{25 * n},{25 * n},3,1.0,0.0,1.0,1.0,1.0,{n}.5" for n in range(1, 5)]
    text = "\n".join([",".join(EVALUATION_COLUMNS), *rows]) + "\n"
    (folder.directory / "evaluations.csv").write_text(text)
    lines = [json.dumps({"step": 25 * n, "charts/SPS": 1.0}) for n in range(1, 5)]
    (folder.directory / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    for number in range(10):
        ActionLog(folder).append(number, np.full(10, number % 2), 2)


def read_steps(folder: RunFolder, name: str) -> list[int]:
    path = folder.directory / name
    if name.endswith(".jsonl"):
        return [json.loads(line)["step"] for line in path.read_text().splitlines()]
    header, *rows = (line.split(",") for line in path.read_text().splitlines())
    return [int(row[header.index("step")]) for row in rows]


@pytest.mark.parametrize(("step", "episodes"), [(0, 0), (25, 2), (30, 3), (99, 9), (500, 10)])
def test_logs_after_a_checkpoint_are_cut(folder: RunFolder, step: int, episodes: int) -> None:
    write_logs(folder)
    for _ in range(2):  # cutting again changes nothing
        cut_logs(folder, step, episodes)
        expected = [end for end in range(10, 101, 10) if end <= step]
        assert read_steps(folder, "episodes.csv") == expected
        assert [episode.episode for episode in folder.episodes()] == list(range(episodes))
        for name in ("evaluations.csv", "metrics.jsonl"):
            assert read_steps(folder, name) == [n for n in range(25, 101, 25) if n <= step]
        for number in range(10):
            if number < episodes:
                assert ActionLog(folder).read(number).tolist() == [number % 2] * 10
            else:
                with pytest.raises(UsageError):
                    ActionLog(folder).read(number)
    assert not list(folder.directory.glob(".*"))


@pytest.mark.parametrize("name", ["episodes.csv", "evaluations.csv", "metrics.jsonl"])
def test_a_cut_that_fails_leaves_the_whole_log(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_logs(folder)
    before = (folder.directory / name).read_bytes()
    write_text = Path.write_text

    def full(path: Path, text: str, **options: Any) -> int:
        if name in path.name:
            write_text(path, text[:10], **options)
            raise OSError(28, "No space left on device")
        return write_text(path, text, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        cut_logs(folder, 30, 3)
    assert (folder.directory / name).read_bytes() == before


def test_logs_that_are_not_there_yet_need_no_cut(folder: RunFolder) -> None:
    cut_logs(folder, 0, 0)
    assert sorted(path.name for path in folder.directory.iterdir()) == [
        *("actions", "checkpoints", "tensorboard", "videos"),
    ]


@pytest.mark.parametrize("name", ["episodes.csv", "evaluations.csv", "metrics.jsonl"])
def test_a_half_written_last_line_is_dropped(folder: RunFolder, name: str) -> None:
    write_logs(folder)
    path = folder.directory / name
    whole = path.read_text()
    last = whole.rstrip("\n").rindex("\n") + 1
    for end in range(last, whole.rindex("," if name.endswith("csv") else "}")):
        path.write_text(whole[:end])
        cut_logs(folder, 95, 9)
        for line in path.read_text().splitlines()[1:]:
            assert line in whole.splitlines()
        assert path.read_text() == "".join(
            line + "\n" for line in whole.splitlines() if line in path.read_text().splitlines()
        )


@pytest.mark.parametrize("name", ["episodes.csv", "evaluations.csv", "metrics.jsonl"])
def test_a_file_that_was_begun_and_not_written_is_begun_again(folder: RunFolder, name: str) -> None:
    """As a full disk leaves it."""
    (folder.directory / name).touch()
    cut_logs(folder, 0, 0)
    FileObserver(folder, 2)(RunStarted(Clock(0, 0, 0.0), 100))
    columns = {"episodes.csv": EPISODE_COLUMNS, "evaluations.csv": EVALUATION_COLUMNS}
    path = folder.directory / name
    assert path.read_text() == (",".join(columns[name]) + "\n" if name in columns else "")
