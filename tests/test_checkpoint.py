"""Checkpoints: whole or not there, checked when read, and plain files only."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlagents.checkpoint import CheckpointStore
from rlagents.errors import RLAgentsError, UsageError


def writer(text: str) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        (directory / "agent").mkdir()
        (directory / "agent" / "network.bin").write_bytes(text.encode() * 100)
        (directory / "runner.json").write_text(json.dumps({"text": text}))

    return write


def content(directory: Path) -> str:
    return str(json.loads((directory / "runner.json").read_text())["text"])


def steps(store_directory: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in store_directory.glob("step-*"))


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path, keep=2)


def test_a_checkpoint_is_found_again(store: CheckpointStore, tmp_path: Path) -> None:
    path = store.save(1_000, writer("a"))
    assert path == tmp_path / "step-1000"  # unpadded
    for which in ("last", "1000", None):
        found = store.find(which)
        assert found == ("step-1000", 1_000, path)
        assert content(found.directory) == "a"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index.json", "step-1000"]


def test_the_manifest_names_every_file(store: CheckpointStore) -> None:
    path = store.save(7, writer("a"))
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["step"] == 7
    assert set(manifest["files"]) == {"agent/network.bin", "runner.json"}
    for name, about in manifest["files"].items():
        assert about["size"] == (path / name).stat().st_size
        assert len(about["sha256"]) == 64


def test_best_and_last(store: CheckpointStore, tmp_path: Path) -> None:
    store.save(1, writer("a"))
    assert store.index() == {"last": "step-1"}
    with pytest.raises(UsageError, match="no checkpoint 'best'"):
        store.find("best")
    assert store.find(None).step == 1  # no best yet: the last
    store.save(2, writer("b"), best=True)
    store.save(3, writer("c"))
    assert json.loads((tmp_path / "index.json").read_text()) == {
        "last": "step-3",
        "best": "step-2",
    }
    assert [store.find(which).step for which in ("best", "last", None)] == [2, 3, 2]
    store.save(4, writer("d"), best=True)
    assert [store.find(which).step for which in ("best", "last", None)] == [4, 4, 4]


@pytest.mark.parametrize("which", ["2", "best", "step-1", "01", "", ".", "..", "x"])
def test_a_checkpoint_that_is_not_there(store: CheckpointStore, which: str) -> None:
    store.save(1, writer("a"))
    with pytest.raises(UsageError, match="--checkpoint") as caught:
        store.find(which)
    assert "last, 1" in str(caught.value)


def test_no_checkpoint_yet(store: CheckpointStore) -> None:
    for which in (None, "best", "last", "5"):
        with pytest.raises(UsageError, match="none yet"):
            store.find(which)


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_the_newest_and_the_best_are_kept(tmp_path: Path, keep: int) -> None:
    store = CheckpointStore(tmp_path, keep)
    for step in range(0, 120, 10):
        store.save(step, writer(str(step)), best=step == 20)
        newest = list(range(0, step + 10, 10))[-keep:]
        assert steps(tmp_path) == sorted({*newest, *([20] if step >= 20 else [])})
    assert store.find("best").step == 20
    assert store.find("last").step == 110
    # Sorted as numbers: 100 is newer than 90.


def test_a_best_that_is_no_longer_best_goes(store: CheckpointStore, tmp_path: Path) -> None:
    store.save(1, writer("a"), best=True)
    for step in (2, 3, 4):
        store.save(step, writer("b"))
    assert steps(tmp_path) == [1, 3, 4]
    store.save(5, writer("c"), best=True)
    assert steps(tmp_path) == [4, 5]


def test_the_same_step_again_replaces_the_first(store: CheckpointStore, tmp_path: Path) -> None:
    store.save(5, writer("before"), best=True)
    store.save(5, writer("after"))
    assert content(store.find("5").directory) == "after"
    assert store.index() == {"last": "step-5", "best": "step-5"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index.json", "step-5"]


# --- damage ----------------------------------------


@pytest.mark.parametrize("name", ["agent/network.bin", "runner.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "extend", "remove", "empty"])
def test_a_damaged_file_is_named(store: CheckpointStore, name: str, damage: str) -> None:
    store.save(1, writer("a"))
    path = store.save(2, writer("b"))
    victim = path / name
    data = victim.read_bytes()
    if damage == "flip":
        victim.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    elif damage == "cut":
        victim.write_bytes(data[:-1])
    elif damage == "extend":
        victim.write_bytes(data + b"\0")
    elif damage == "empty":
        victim.write_bytes(b"")
    else:
        victim.unlink()
    with pytest.raises(RLAgentsError) as caught:
        store.find("last")
    message = str(caught.value)
    assert str(path) in message
    assert "damaged" in message
    assert name in message
    assert re.search(r"[Oo]thers are there.* 1\b", message)
    assert store.find("1").step == 1  # and that one can be used


def test_stored_experience_is_checked_where_it_is_needed(store: CheckpointStore) -> None:
    def write(directory: Path) -> None:
        (directory / "agent" / "replay").mkdir(parents=True)
        (directory / "agent" / "replay" / "items.npy").write_bytes(b"experience")

    path = store.save(1, write)
    (path / "agent" / "replay" / "items.npy").write_bytes(b"Experience")
    assert store.find("last", experience=False) == ("step-1", 1, path)
    with pytest.raises(UsageError, match=r"replay/items\.npy has changed"):
        store.find("last")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": 3, "step": 1}', '{"files": {}}'])
def test_a_damaged_manifest_is_refused(store: CheckpointStore, text: str) -> None:
    path = store.save(1, writer("a"))
    (path / "manifest.json").write_text(text)
    with pytest.raises(RLAgentsError, match="damaged"):
        store.find("last")


def test_a_checkpoint_without_a_manifest_is_refused(store: CheckpointStore) -> None:
    path = store.save(1, writer("a"))
    (path / "manifest.json").unlink()
    with pytest.raises(RLAgentsError, match=r"damaged.*manifest\.json"):
        store.find("last")


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "3", '{"last": 3}', '{"last": "step-77", "best": ""}']
)
def test_without_an_index_the_newest_is_the_last_and_none_the_best(
    store: CheckpointStore, tmp_path: Path, text: str | None
) -> None:
    for step in (5, 90, 100):  # as numbers
        store.save(step, writer("a"), best=step == 90)
    if text is None:
        (tmp_path / "index.json").unlink()
    else:
        (tmp_path / "index.json").write_text(text)
    assert [store.find(which).step for which in (None, "last", "90")] == [100, 100, 90]
    assert store.find_intact()[0].step == 100
    with pytest.raises(UsageError, match="no checkpoint 'best'; there are: last, 90, 100"):
        store.find("best")
    store.save(110, writer("b"))
    assert store.index() == {"last": "step-110"}


def damage(checkpoint: Path) -> None:
    (checkpoint / "runner.json").write_text("?")


def test_the_newest_intact_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=4)
    with pytest.raises(UsageError, match="none yet") as caught:
        store.find_intact()
    assert "--checkpoint" not in str(caught.value)
    paths = [store.save(step, writer("a")) for step in (5, 20, 100, 101)]
    assert store.find_intact() == (("step-101", 101, paths[3]), None)
    for number, newest in ((3, 2), (2, 1), (1, 0)):
        damage(paths[number])
        found, problem = store.find_intact()
        assert found.directory == paths[newest]
        assert str(paths[3]) in str(problem)  # the last one is what was expected
        for which in ("last", "101"):  # asked for by name
            with pytest.raises(UsageError, match="step-101 is damaged"):
                store.find(which)
    damage(paths[0])
    with pytest.raises(UsageError, match="step-101 is damaged") as caught:
        store.find_intact()
    assert "--checkpoint" not in str(caught.value)


def test_names_change_only_after_what_they_name_is_on_the_disk(
    store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut at any moment: each file and folder is synced before the rename that shows it."""
    synced: set[int] = set()
    fsync, changes = os.fsync, [os.rename, os.replace]

    def watched_sync(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    renames = 0

    def watch(change: Any) -> Any:
        def watched(source: Path, target: Path) -> None:
            nonlocal renames
            inside = [source, *source.rglob("*")] if source.is_dir() else [source]
            assert {path.stat().st_ino for path in inside} <= synced
            assert renames == 0 or tmp_path.stat().st_ino in synced
            change(source, target)
            renames += 1
            synced.discard(tmp_path.stat().st_ino)

        return watched

    monkeypatch.setattr(os, "fsync", watched_sync)
    for change in changes:
        monkeypatch.setattr(os, change.__name__, watch(change))
    store.save(1, writer("a"))
    assert renames == 2  # the checkpoint and the index
    assert tmp_path.stat().st_ino in synced


# --- interrupted writes ----------------------------------------


class KillError(BaseException):
    """Stands for the end of the process."""


def test_a_write_that_fails_leaves_the_old_ones(store: CheckpointStore, tmp_path: Path) -> None:
    store.save(1, writer("a"), best=True)
    before = {str(p): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def fails(directory: Path) -> None:
        writer("b")(directory)
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        store.save(2, fails)
    assert steps(tmp_path) == [1]
    after = {str(p): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert {path: after[path] for path in before} == before
    assert {Path(path).relative_to(tmp_path).parts[0] for path in set(after) - set(before)} <= {
        ".step-2.part"
    }
    store.save(3, writer("c"))
    assert not list(tmp_path.glob(".*"))  # what was left over is cleared away
    assert [store.find(which).step for which in ("best", "last")] == [1, 3]


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """End the process before the `number`-th change of a name or removal, counting from 1."""
    calls: list[str] = []

    def watch(module: Any, name: str) -> None:
        original = getattr(module, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            # Removing what is not there changes nothing on disk.
            if not (name == "rmtree" and not Path(arguments[0]).exists()):
                calls.append(f"{name} {Path(arguments[0]).name}")
                if len(calls) == number:
                    raise KillError
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, watched)

    watch(os, "rename")
    watch(os, "replace")
    watch(shutil, "rmtree")
    return calls


@pytest.mark.parametrize("step", [2, 3], ids=["same-step", "next-step"])
@pytest.mark.parametrize("number", range(1, 6))
def test_a_kill_at_any_moment_leaves_a_whole_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, number: int
) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    store.save(1, writer("one"))
    store.save(2, writer("two"), best=True)
    with monkeypatch.context() as patch:
        calls = kill_at(patch, number)
        try:
            store.save(step, writer("new"))
        except KillError:
            assert len(calls) == number
    again = CheckpointStore(tmp_path, keep=1)
    found = again.find("last")
    assert (found.step, content(found.directory)) in {(2, "two"), (step, "new")}
    assert again.find("best").step == 2
    again.save(9, writer("nine"), best=True)
    assert steps(tmp_path) == [9]
    assert not list(tmp_path.glob(".*"))


def test_a_reader_finds_a_checkpoint_that_is_being_replaced_and_changes_nothing(
    store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(1, writer("old"), best=True)
    found: list[str] = []
    rename = os.rename

    def watched(source: Path, target: Path) -> None:
        rename(source, target)
        before = sorted(tmp_path.rglob("*"))
        found.append(content(CheckpointStore(tmp_path).find("last").directory))
        assert sorted(tmp_path.rglob("*")) == before

    monkeypatch.setattr(os, "rename", watched)
    store.save(1, writer("new"))
    assert found == ["old", "new"]


def test_a_kill_during_the_write_shows_no_half_checkpoint(
    store: CheckpointStore, tmp_path: Path
) -> None:
    store.save(1, writer("a"))

    def killed(directory: Path) -> None:
        (directory / "runner.json").write_text("{")
        assert directory.name.startswith(".")
        raise KillError

    with pytest.raises(KillError):
        store.save(2, killed)
    assert steps(tmp_path) == [1]
    assert store.find("last").step == 1
    with pytest.raises(UsageError):
        store.find("2")


# --- what is kept once ----------------------------------------


def with_replay(text: str) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        writer(text)(directory)
        (directory / "agent" / "replay").mkdir()
        (directory / "agent" / "replay" / "frames.npy").write_bytes(b"frames" * 50)

    return write


def tell(directory: Path) -> None:
    (directory / "told").touch()


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


WITHOUT = {"agent/network.bin", "runner.json", "manifest.json", "told"}
WITH = {"agent/network.bin", "agent/replay/frames.npy", "runner.json", "manifest.json"}


def test_all_but_the_last_lose_a_folder(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    for step in (1, 2, 3):
        store.save(step, with_replay(str(step)), best=step == 2)
    store.lighten("agent/replay", tell)
    for step in (1, 2, 3):
        found = store.find(str(step))  # the manifest is true
        assert files(found.directory) == (WITH if step == 3 else WITHOUT)
        assert (found.step, content(found.directory)) == (step, str(step))
        assert json.loads((found.directory / "manifest.json").read_text())["step"] == step
    assert store.index() == {"best": "step-2", "last": "step-3"}
    before = (tmp_path / "step-1").stat().st_ino
    store.lighten("agent/replay", tell)  # nothing is left to do
    assert (tmp_path / "step-1").stat().st_ino == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("number", range(1, 5))
def test_a_kill_while_a_folder_is_dropped_leaves_whole_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    store.save(1, with_replay("one"))
    store.save(2, with_replay("two"))
    with monkeypatch.context() as patch:
        calls = kill_at(patch, number)
        if number < 4:  # two renames, and the old one's removal
            with pytest.raises(KillError):
                store.lighten("agent/replay", tell)
        else:
            store.lighten("agent/replay", tell)
            assert len(calls) == 3
    again = CheckpointStore(tmp_path, keep=3)
    one, two = again.find("1"), again.find("last")
    assert (content(one.directory), content(two.directory)) == ("one", "two")
    assert files(one.directory) == (WITHOUT if number > 2 else WITH)
    assert files(two.directory) == WITH
    again.save(3, with_replay("three"))
    again.lighten("agent/replay", tell)
    assert [files(again.find(str(step)).directory) for step in (1, 2, 3)] == [WITHOUT] * 2 + [WITH]
    assert not list(tmp_path.glob(".*"))


def test_a_damaged_checkpoint_stays_as_it_is(tmp_path: Path) -> None:
    """With a new manifest it would pass for whole."""
    store = CheckpointStore(tmp_path, keep=3)
    store.save(1, with_replay("one"))
    store.save(2, with_replay("two"))
    (tmp_path / "step-1" / "agent" / "network.bin").write_bytes(b"x")
    store.lighten("agent/replay", tell)
    assert files(tmp_path / "step-1") == WITH
    with pytest.raises(UsageError, match="damaged"):
        store.find("1")


# --- what is in a run's folder ----------------------------------------


def test_nothing_in_a_run_is_pickled(tiny_run: Any) -> None:
    allowed = {".json", ".jsonl", ".csv", ".npy", ".safetensors", ".log", ".mp4", ".bin"}
    files = [path for path in tiny_run.directory.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        if "tfevents" in path.name:
            continue
        assert path.suffix in allowed, path
        assert not zipfile.is_zipfile(path), path  # as torch.save writes
        data = path.read_bytes()
        assert not data.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")), path
        if path.suffix == ".npy":
            header = data[: data.index(b"\n")]
            assert b"'descr': '|O'" not in header, path


def test_a_run_can_be_read_without_pickle(
    tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Any]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was unpickled")

    directory = shutil.copytree(tiny_run.directory, tmp_path / "run")
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr("torch.load", refuse)
    outcome = cli("evaluate", directory, "--episodes", "1")
    assert outcome.code == 0
    assert cli("resume", directory, "--total-steps", "488").code == 0
