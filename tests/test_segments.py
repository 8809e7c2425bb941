"""Replay is saved as segments, and a segment that has not changed is not written again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from replay_simulation import STORES, Simulation
from replay_simulation import make_replay as make_uniform

from rlagents.replay import ReplayConfig, make_replay, segments
from rlagents.replay.device_items import DeviceItems
from rlagents.replay.items import CompressedItems, DiskItems, MemoryItems
from rlagents.spaces import FrameStack

SPACE = FrameStack(3, 2, 3)  # items of 6 bytes
KINDS: list[dict[str, Any]] = [*STORES, {"kind": "prioritized"}]


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 6 * 5)  # five rows


def make(capacity: int = 60, num_envs: int = 2, **options: Any) -> Any:
    config = ReplayConfig.model_construct(capacity=capacity, batch_size=16, **options)
    generator = np.random.default_rng(1)
    return make_replay(config, SPACE, num_envs, n_step=2, gamma=0.5, generator=generator)


def folders(root: Path) -> Iterator[Path]:
    number = 0
    while True:
        number += 1
        folder = root / f"{number:03}"
        folder.mkdir()
        yield folder


def shared(one: Path, other: Path) -> set[str]:
    """Names under which both folders hold the same file."""
    inodes = {path.name: path.stat().st_ino for path in one.glob("items-*")}
    return {
        path.name for path in other.glob("items-*") if inodes.get(path.name) == path.stat().st_ino
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same(one: Any, other: Any) -> None:
    for _ in range(3):
        for array, equal in zip(one.sample(), other.sample(), strict=True):
            if array is not None:
                np.testing.assert_array_equal(array, equal)


def test_only_segments_that_were_written_to_are_written_again(tmp_path: Path) -> None:
    """By hand: 2 rings of 60 / 2 + 2 + 2 = 34 rows, in segments of 5, the last one of 4."""
    replay = make()
    ring = replay._ring
    assert ring.rows == 34
    make_folder = folders(tmp_path)
    saved: list[Path] = []

    def write(rows: tuple[int, int]) -> set[str]:
        """Write so many rows to each ring, save, and return what is new in the folder."""
        for env, count in enumerate(rows):
            for _ in range(count):
                one = np.array([env])
                frames = np.full((1, *SPACE.shape), ring.head[env] % 251, np.uint8)
                ring._append(one, frames, np.array([False]), no_step=False)
        saved.append(next(make_folder))
        replay.save(saved[-1])
        names = {path.name for path in saved[-1].glob("items-*")}
        return names - (shared(saved[-2], saved[-1]) if len(saved) > 1 else set())

    assert write((7, 3)) == {"items-0-0.npy", "items-0-1.npy", "items-1-0.npy"}
    assert write((0, 0)) == set()
    assert write((1, 0)) == {"items-0-1.npy"}  # rows 7
    assert write((2, 2)) == {"items-0-1.npy", "items-1-0.npy"}  # rows 8, 9 and 3, 4: both full now
    assert write((1, 0)) == {"items-0-2.npy"}  # row 10
    assert write((23, 0)) == {f"items-0-{number}.npy" for number in (2, 3, 4, 5, 6)}  # up to row 33
    assert write((1, 0)) == {"items-0-0.npy"}  # row 34 lies in slot 0
    assert write((34, 0)) == {f"items-0-{number}.npy" for number in range(7)}  # once around
    assert write((0, 90)) == {f"items-1-{number}.npy" for number in range(7)}
    assert sorted(path.name for path in saved[0].glob("items-*")) == [
        "items-0-0.npy",
        "items-0-1.npy",
        "items-1-0.npy",
    ]


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_each_of_many_folders_holds_what_was_held_then(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """What is saved again and again is, file for file, what is saved for the first time."""
    replay, simulation = make(**options), Simulation(SPACE, 2, seed=3, max_length=9)
    number_shared = 0
    (tmp_path / "many").mkdir()
    make_folder = folders(tmp_path / "many")
    before: Path | None = None
    (tmp_path / "once").mkdir()
    kept: dict[Path, dict[str, bytes]] = {}
    for steps in (3, 1, 0, 4, 10, 2, 31, 5, 1, 80, 3):
        simulation.feed(replay, steps)
        folder = next(make_folder)
        replay.save(folder)
        kept[folder] = contents(folder)
        once = tmp_path / "once" / folder.name
        once.mkdir()
        with pytest.MonkeyPatch.context() as patch:  # as if nothing had been saved before
            patch.setattr(replay._ring.frames._segments, "_known", None)
            replay.save(once)
        replay._ring.frames._segments._known = segments._Folder(folder, replay._ring.head)
        assert contents(once) == kept[folder]
        number_shared += len(shared(before, folder)) if before else 0
        before = folder
    assert number_shared > 20
    for folder, files in kept.items():  # none was written to afterwards
        assert contents(folder) == files
    assert before is not None
    loaded = make(**options)
    loaded.load(before)
    simulation_after = simulation.step()
    for each in (replay, loaded):
        each._generator = np.random.default_rng(5)
        each.observe(simulation_after)
    same(replay, loaded)


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_what_was_loaded_is_not_written_again(tmp_path: Path, options: dict[str, Any]) -> None:
    replay, simulation = make(**options), Simulation(SPACE, 2, seed=3, max_length=9)
    simulation.feed(replay, 20)
    first, second, third = (next(make_folder) for make_folder in [folders(tmp_path)] * 3)
    replay.save(first)
    other = make(**options)
    other.load(first)
    other.save(second)
    assert shared(first, second) == {path.name for path in first.glob("items-*")}
    simulation.feed(other, 1)
    other.save(third)
    new = {path.name for path in third.glob("items-*")} - shared(second, third)
    assert 2 <= len(new) <= 4  # a row or two of each ring


def test_a_folder_may_be_renamed_and_removed(tmp_path: Path) -> None:
    replay, simulation = make(), Simulation(SPACE, 2, seed=3, max_length=9)
    simulation.feed(replay, 20)
    make_folder = folders(tmp_path)
    first, second, third = next(make_folder), next(make_folder), next(make_folder)
    replay.save(first)
    expected = contents(first)
    kept = first.rename(tmp_path / "kept")
    replay.save(second)
    assert shared(kept, second) == {path.name for path in kept.glob("items-*")}
    shutil.rmtree(kept)
    assert contents(second) == expected  # the files live as long as one folder names them
    shutil.rmtree(second)
    replay.save(third)  # nothing is left to be shared
    assert contents(third) == expected


def test_a_save_that_failed_is_not_built_upon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay, simulation = make(), Simulation(SPACE, 2, seed=3, max_length=9)
    simulation.feed(replay, 20)
    make_folder = folders(tmp_path)
    first, second, third = next(make_folder), next(make_folder), next(make_folder)
    replay.save(first)
    simulation.feed(replay, 8)
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(MemoryItems, "save", full)
        with pytest.raises(OSError, match="No space"):
            replay.save(second)
    replay.save(third)
    loaded = make()
    loaded.load(third)
    loaded._generator.bit_generator.state = replay._generator.bit_generator.state
    same(replay, loaded)


def test_without_links_everything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("os.link", refuse)
    replay, simulation = make(), Simulation(SPACE, 2, seed=3, max_length=9)
    simulation.feed(replay, 20)
    make_folder = folders(tmp_path)
    first, second = next(make_folder), next(make_folder)
    replay.save(first)
    replay.save(second)
    assert not shared(first, second)
    assert contents(first) == contents(second)


def test_a_segment_that_others_share_is_never_written_to(tmp_path: Path) -> None:
    """Not even by saving twice to the same folder."""
    replay, simulation = make(), Simulation(SPACE, 2, seed=3, max_length=9)
    simulation.feed(replay, 20)
    make_folder = folders(tmp_path)
    first, second = next(make_folder), next(make_folder)
    replay.save(first)
    replay.save(second)
    expected = contents(first)
    simulation.feed(replay, 30)
    replay.save(second)
    assert contents(first) == expected
    loaded = make()
    loaded.load(second)
    loaded._generator.bit_generator.state = replay._generator.bit_generator.state
    same(replay, loaded)


@pytest.mark.parametrize("store", STORES, ids=str)
def test_all_stores_write_and_read_the_same_items(tmp_path: Path, store: dict[str, Any]) -> None:
    classes: dict[str, Callable[..., Any]] = {
        "{}": MemoryItems,
        "{'compression': 'lz4'}": CompressedItems,
        "{'storage': 'disk'}": DiskItems,
        "{'storage': 'device'}": partial(DeviceItems, device="cpu"),
    }
    items = classes[str(store)](10, (2, 3), np.uint8)
    written = np.random.default_rng(0).integers(256, size=(4, 2, 3)).astype(np.uint8)
    items.put(np.arange(3, 7), written)
    items.save(tmp_path / "some.npy", 4, 7)
    other = classes[str(store)](10, (2, 3), np.uint8)
    other.load(tmp_path / "some.npy", 0, 3)
    out = other.batch((4, 2, 3))
    other.take(np.arange(4), out)
    np.testing.assert_array_equal(out, [*written[1:], np.zeros((2, 3))])
    with pytest.raises(ValueError, match=r"some\.npy"):
        other.load(tmp_path / "some.npy", 0, 4)


def test_vectors_are_saved_in_segments_too(tmp_path: Path) -> None:
    space = gym.spaces.Box(-1, 1, (3,), np.float32)  # 12 bytes: two rows a segment
    replay = make_uniform(space, 2, capacity=12)
    Simulation(space, 2, seed=0, max_length=5).feed(replay, 4)
    replay.save(tmp_path)
    assert len(list(tmp_path.glob("items-*"))) > 3
