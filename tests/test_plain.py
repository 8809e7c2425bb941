"""Only plain files are read: nothing waits for a pipe, and no device is read without end."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_runs import write_run
from watch_tools import fake_run

from rlagents.errors import UsageError
from rlagents.files import read_text
from rlagents.history import read_history
from rlagents.logs import GrowingFile, RunLogs
from rlagents.plain import open_plain
from rlagents.watch.library import Library


def in_time(task: Callable[[], object]) -> object:
    """Return what a task returns, which would else wait for ever."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(task()), daemon=True)
    thread.start()
    thread.join(timeout=30)
    assert not thread.is_alive(), "it waits"
    return found[0]


def test_a_plain_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes("ä\r\n".encode())
    assert read_text(path, 10) == "ä\r\n"
    link = tmp_path / "link"
    link.symlink_to(path)
    with open_plain(link) as file:
        assert file.read() == path.read_bytes()


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, tmp_path / "none", Path(os.devnull)):
        with pytest.raises(OSError, match=r"no plain file|directory"):
            open_plain(path)


class Failing(io.BytesIO):
    """A file on a disk that fails: nothing comes, or an error."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind

    def fileno(self) -> int:
        return 0

    def read(self, size: int | None = -1) -> bytes:
        if self._kind == "error":
            raise OSError("input/output error")
        return None  # type: ignore[return-value] - of files that would be waited for


@pytest.mark.parametrize("kind", ["error", "nothing"])
def test_a_file_that_cannot_be_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("rlagents.files.open_plain", lambda path: Failing(kind))
    monkeypatch.setattr("rlagents.logs.open_plain", lambda path: Failing(kind))
    with pytest.raises(OSError, match=r"error|nothing"):
        read_text(tmp_path / "x", 10)
    assert list(GrowingFile(tmp_path / "x").read(lambda: None)) == []


@pytest.mark.parametrize(
    "name", ["config.json", "status.json", "episodes.csv", "evaluations.csv", "metrics.jsonl"]
)
@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_a_run_with_something_else_in_place_of_a_file(tmp_path: Path, name: str, kind: str) -> None:
    fake_run(tmp_path / "good")
    path = fake_run(tmp_path / "bad", returns=[1.0]) / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    library = Library(tmp_path)
    runs = in_time(library.runs)
    assert isinstance(runs, list)
    problems = {run["id"]: run["problem"] for run in runs}
    assert problems.pop("good") is None
    if name.endswith(".json"):  # nothing can be said about it then
        assert f"{path} cannot be read" in problems["bad"]
    else:
        assert problems == {"bad": None}
        assert isinstance(in_time(lambda: library.details("bad")), dict)
        in_time(RunLogs(path.parent).update)


@pytest.mark.parametrize("name", ["config.json", "episodes.csv", "evaluations.csv"])
def test_a_comparison_does_not_wait_either(tmp_path: Path, name: str) -> None:
    folder = write_run(tmp_path, "one", returns=[1.0], evaluations=[[1.0]])
    path = folder.directory / name
    path.unlink()
    os.mkfifo(path)

    def read() -> str:
        with pytest.raises(UsageError) as refused:
            read_history(folder.directory, tmp_path)
        return str(refused.value)

    says = "is not a run" if name == "config.json" else f"{path} cannot be read: it is no plain"
    assert says in str(in_time(read))
