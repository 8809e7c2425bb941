"""Where frames lie: compressed, or in a file. That samples are the same is in test_replay.py."""

from __future__ import annotations

import builtins
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_simulation import make_replay

from rlagents import machine
from rlagents.agents import dqn
from rlagents.errors import RunFailedError, UsageError
from rlagents.replay import ReplayConfig, check_replay, footprint
from rlagents.replay.device_items import DeviceItems
from rlagents.replay.items import CompressedItems, DiskItems, scratch_directory
from rlagents.spaces import FrameStack
from rlagents.types import Array, Footprint

PONG = FrameStack(4, 84, 84)
MILLION = 1_000_000


def pictures(count: int) -> Array:
    """Return pictures about as plain as Pong's: [count, 84, 84] uint8."""
    generator = np.random.default_rng(0)
    frames = np.full((count, 84, 84), 87, dtype=np.uint8)
    frames[:, 10:14] = 236
    for frame in frames:
        x, y, left, right = generator.integers(16, 70, size=4)
        frame[y : y + 2, x : x + 2] = 236
        frame[left : left + 8, 8:10] = 130
        frame[right : right + 8, 74:76] = 147
    return frames


@pytest.mark.parametrize("store", [CompressedItems, DiskItems])
def test_items_come_back_in_any_order(store: type[CompressedItems | DiskItems]) -> None:
    frames = pictures(20)
    items = store(21, (84, 84), np.uint8)
    items.put(np.arange(20)[::-1], frames[::-1])
    out = np.full((5, 84, 84), 99, dtype=np.uint8)
    items.take(np.array([3, 20, 3, 0, 19]), out)
    expected = np.stack([frames[3], np.zeros((84, 84), np.uint8), frames[3], frames[0], frames[19]])
    np.testing.assert_array_equal(out, expected)
    items.put(np.array([3]), frames[[7]])  # and are overwritten
    items.take(np.array([3]), out[:1])
    np.testing.assert_array_equal(out[0], frames[7])


def comes_back(item: Array, tmp_path: Path | None = None) -> bool:
    """Tell whether an item is the same when it has been compressed, and saved and loaded."""
    items, out = CompressedItems(2, item.shape, item.dtype), np.full_like(item[None], 99)
    items.put(np.array([0]), item[None])
    if tmp_path is not None:
        items.save(tmp_path / "items.npy", 0, 1)
        items = CompressedItems(2, item.shape, item.dtype)
        items.load(tmp_path / "items.npy", 0, 1)
    items.take(np.array([0]), out)
    return bool(out.tobytes() == item.tobytes())


def test_an_item_whose_compressed_form_begins_like_a_size(tmp_path: Path) -> None:
    item = np.zeros(7056, dtype=np.uint8)
    item[:8] = [8, 0, 0, 240, 91, 77, 12, 0]  # the first of them: a size of 106 or so
    item[2000:2060] = np.arange(60) + 3
    assert comes_back(item)
    assert comes_back(item, tmp_path)


@settings(deadline=None, max_examples=300)
@given(
    size=st.integers(1, 300),
    values=st.lists(st.tuples(st.integers(0, 299), st.integers(0, 255)), max_size=20),
    begin=st.lists(st.integers(0, 8), max_size=8),
)
def test_any_item_comes_back(size: int, values: list[tuple[int, int]], begin: list[int]) -> None:
    item = np.zeros(size, dtype=np.uint8)
    item[: len(begin)] = begin[:size]
    for place, value in values:
        item[place % size] = value
    assert comes_back(item)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_items_may_be_parts_of_something_larger(dtype: type) -> None:
    large = np.arange(64 * 3 * 5).reshape(64, 3, 5).astype(dtype)
    items, out = CompressedItems(3, (5, 3), dtype), np.zeros((2, 5, 3), dtype=dtype)
    items.put(np.arange(2), large[::8][:2].transpose(0, 2, 1))
    items.take(np.arange(2), out)
    assert np.array_equal(out, large[::8][:2].transpose(0, 2, 1))


def test_noise_takes_no_more_than_was_announced() -> None:
    noise = np.random.default_rng(0).integers(256, size=(50, 84, 84), dtype=np.uint8)
    items = CompressedItems(51, (84, 84), np.uint8)
    items.put(np.arange(50), noise)
    config = ReplayConfig.model_construct(capacity=50, compression="lz4")
    most = footprint(config, PONG, 1, n_step=1)
    held = sum(sys.getsizeof(item) + 8 for item in items.held)
    assert most.memory_at_least < held <= most.memory


def test_a_million_plain_frames_fit_into_a_gigabyte() -> None:
    config = ReplayConfig(capacity=MILLION, compression="lz4")
    items = CompressedItems(301, (84, 84), np.uint8)
    items.put(np.arange(300), pictures(300))
    frame = sum(sys.getsizeof(item) + 8 for item in items.held[:300]) / 300
    assert footprint(config, PONG, 8, n_step=3).memory_at_least < 1e9
    assert (frame + 16) * MILLION < 1e9


def test_footprints_by_hand() -> None:
    def of(**options: Any) -> Footprint:
        return footprint(ReplayConfig(capacity=1000, **options), PONG, 1, n_step=1)

    rows = 1000 + 3 + 1  # room for part of a stack and for a successor
    rest = rows * 16
    assert of() == Footprint((rows + 1) * 7056 + rest, (rows + 1) * 7056 + rest)
    assert of(storage="disk") == Footprint(rest, rest, (rows + 1) * 7056)
    assert of(storage="device") == Footprint(rest, rest, 0, (rows + 1) * 7056)
    compressed = of(compression="lz4")
    assert compressed.memory >= of().memory
    assert compressed.memory_at_least == (rows + 1) * (61 + 27) + rest
    assert compressed.disk == 0
    # 1,004 leaves and the sums of pairs: 502, 251 and one more, 126, 63 + 1, 32, 16, 8, 4, 2, 1
    tree = 8 * (1004 + 502 + 252 + 126 + 64 + 32 + 16 + 8 + 4 + 2 + 1)
    assert of(kind="prioritized").memory == of().memory + tree


def test_compressed_files_are_small(tmp_path: Path) -> None:
    space = FrameStack(2, 84, 84)
    frames = pictures(60)
    for name, options in (("plain", {}), ("lz4", {"compression": "lz4"})):
        replay = make_replay(space, capacity=50, **options)
        for frame in range(40):
            replay._ring.frames.write(
                np.zeros(1, np.int64), np.array([frame]), frames[None, frame : frame + 2], [False]
            )
            replay._ring.head += 1
        (tmp_path / name).mkdir()
        replay.save(tmp_path / name)
    small, large = ((tmp_path / name / "items-0-0.npy").stat().st_size for name in ("lz4", "plain"))
    assert 10 * small < large


def test_compression_that_is_not_installed_names_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "cramjam":
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    words = ("train", "cartpole-dqn", "--runs-dir", tmp_path / "runs")
    outcome = cli(*words, "--replay.compression", "lz4")
    assert outcome.code == 2
    assert "pip install 'rlagents[compression]'" in outcome.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("storage", ["disk", "device"])
def test_compression_is_for_memory_alone(storage: Any) -> None:
    with pytest.raises(UsageError, match=rf"compression.*storage is \"{storage}\".*Leave one"):
        check_replay(ReplayConfig(compression="lz4", storage=storage))
    check_replay(ReplayConfig(compression="lz4"))
    check_replay(ReplayConfig(storage=storage))


def test_frames_may_lie_on_the_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    monkeypatch.setattr(dqn, "_refuse_options_of_gpus", lambda *tables: None)  # the CPU is one
    free = 10_000
    monkeypatch.setattr(machine, "available_device_memory", lambda: free)
    words = ("train", "cartpole-dqn", "--total-steps", 1500, "--runs-dir", tmp_path / "runs")
    refused = cli(*words, "--replay.storage", "device", "--replay.capacity", 20_000)
    assert refused.code == 2
    assert re.search(r"capacity.*GB of the GPU's memory are free. Lower --replay.cap", refused.err)
    assert not (tmp_path / "runs").exists()
    free = 10**9
    plain = cli(*words, "--name", "plain")
    done = cli(*words, "--name", "device", "--replay.storage", "device")
    assert plain.code == done.code == 0
    assert "GB of the GPU's memory" in done.err
    last = next((tmp_path / "runs" / "device" / "checkpoints").glob("step-*")).name
    found, expected = (
        (tmp_path / "runs" / name / "checkpoints" / last / "agent" / "network.safetensors")
        for name in ("device", "plain")
    )
    assert found.read_bytes() == expected.read_bytes()


def test_a_device_without_room_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "zeros", full)
    with pytest.raises(UsageError, match=r"would take 7\.1 GB of the GPU's.*--replay\.capacity"):
        DeviceItems(MILLION, (84, 84), np.uint8, "cpu")


def test_a_disk_without_room_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    words = ("train", "cartpole-dqn", "--runs-dir", tmp_path / "runs", "--replay.storage", "disk")
    monkeypatch.setattr("rlagents.replay.items.shutil.disk_usage", lambda _: Disk(free=10**4))
    outcome = cli(*words, "--replay.capacity", 10_000)
    assert outcome.code == 2
    assert f"0.0 GB are free in {tmp_path}. Lower --replay.capacity" in outcome.err
    assert not (tmp_path / "runs").exists()
    assert not any(tmp_path.iterdir())


class Disk:
    """What shutil.disk_usage returns, as far as it is looked at."""

    def __init__(self, free: int) -> None:
        self.free = free


def test_a_folder_that_cannot_be_written_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlagents.replay.items.scratch_directory", lambda: Path("/proc"))
    monkeypatch.setattr("rlagents.replay.items.shutil.disk_usage", lambda _: Disk(free=10**9))
    with pytest.raises(UsageError, match=r"no file can be made in /proc .*TMPDIR"):
        DiskItems(10, (3,), np.float32)


def test_a_disk_that_fills_up_fails_the_run_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    items = DiskItems(10, (84, 84), np.uint8)

    class Full:
        def seek(self, offset: int) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(items, "_file", Full())
    with pytest.raises(RunFailedError, match=r"cannot be written to .*No space left on device"):
        items.put(np.array([1]), pictures(1))


def test_scratch_files_go_where_the_user_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    assert scratch_directory() == Path("/var/tmp")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert scratch_directory() == tmp_path


PROGRAM = """
import os, sys
import numpy as np
from rlagents.replay.items import DiskItems
items = DiskItems(1000, (84, 84), np.uint8)
items.put(np.arange(500), np.ones((500, 84, 84), np.uint8))
print(sorted(os.listdir(os.environ["TMPDIR"])), flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_killed_process_leaves_nothing_on_the_disk(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -9
    assert done.stdout == "[]\n"  # nor is there a name while it runs
    assert not any(tmp_path.iterdir())


def test_a_file_takes_room_only_where_it_is_written() -> None:
    items = DiskItems(100_000, (84, 84), np.uint8)
    items.put(np.array([50_000]), pictures(1))
    status = os.fstat(items._file.fileno())
    assert status.st_size == 100_000 * 7056
    assert status.st_blocks * 512 < 100_000


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("compression", "lz4", "less by as much as its frames can be compressed"),
        ("storage", "disk", "GB of disk"),
    ],
)
def test_runs_are_the_same_however_frames_are_kept(
    tmp_path: Path,
    cli: Callable[..., Any],
    tiny: tuple[str, ...],
    tiny_run: Any,
    option: str,
    value: str,
    words: str,
) -> None:
    where = ("--runs-dir", tmp_path, "--name", "run")
    outcome = cli("train", "cartpole-dqn", *tiny, *where, f"--replay.{option}", value)
    assert outcome.code == 0, outcome.err
    plain, other = (
        [row.rpartition(",")[0] for row in (run / "evaluations.csv").read_text().splitlines()]
        for run in (tiny_run.directory, tmp_path / "run")
    )
    assert plain == other
    assert words in (tmp_path / "run" / "run.log").read_text()
    assert words not in (tiny_run.directory / "run.log").read_text()


def test_memory_that_is_enough_only_for_compressed_frames_is_warned_about(
    tmp_path: Path, cli: Callable[..., Any], tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train", "cartpole-dqn", "--total-steps", 64, *tiny[2:], "--runs-dir", tmp_path)
    compressed = ("--replay.compression", "lz4")
    config = ReplayConfig(capacity=400, batch_size=16, compression="lz4")
    vectors = gym.spaces.Box(-1, 1, (4,), np.float32)  # as CartPole's observations are
    size = footprint(config, vectors, 4, n_step=10)  # as the recipe has it
    for free, code in ((size.memory_at_least - 1, 2), (size.memory - 1, 0), (size.memory, 0)):
        monkeypatch.setattr(machine, "available_memory", lambda free=free: free)
        outcome = cli(*words, *compressed, "--name", str(free))
        assert outcome.code == code, outcome.err
        if code == 0:
            log = (tmp_path / str(free) / "run.log").read_text()
            assert ("enough only if frames compress well" in log) == (free < size.memory)
        else:
            assert "stored experience would take" in outcome.err
