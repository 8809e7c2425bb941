"""A disk that becomes full, wherever it is noticed: nothing good is lost, and it is said."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from disk_faults import FullDisk, Place

import rlagents
from rlagents.checkpoint import CheckpointStore
from rlagents.errors import RunFailedError
from rlagents.run import ActionLog, RunFolder

CONFIG: dict[str, Any] = {
    "total_steps": 96,
    "env.num_envs": 4,
    "agent.learning_starts": 48,
    "replay.capacity": 200,
    "replay.batch_size": 8,
    "network.hidden_sizes": [8],
    "evaluation.period_steps": 48,
    "evaluation.episodes": 2,
    "checkpoint.period_steps": 16,
    "checkpoint.keep": 2,
    "checkpoint.replay": "always",
    "logging.period_s": 0.001,
    "recording.enabled": False,
}
# Where a checkpoint, its index and the logs are written.
NEEDED: list[Place] = [
    ("mkdir", "*/.step-*.part"),
    ("mkdir", "*/.step-*.part/agent/replay"),
    ("open", "*/agent/network.safetensors"),
    ("write", "*/agent/network.safetensors"),
    ("write", "*/agent/optimizer.safetensors"),
    ("write", "*/agent/state.json"),
    ("open", "*/agent/replay/items-*.npy"),
    ("write", "*/agent/replay/items-*.npy"),
    ("write", "*/agent/replay/reward.npy"),
    ("write", "*/.step-*.part/runner.json"),
    ("fsync", "*/.step-*.part/agent/replay/items-*.npy"),
    ("fsync", "*/.step-*.part/agent/network.safetensors"),
    ("write", "*/.step-*.part/manifest.json"),
    ("fsync", "*/.step-*.part/manifest.json"),
    ("fsync", "*/.step-*.part/agent"),
    ("rename", "*/checkpoints/step-*"),
    ("fsync", "*/checkpoints"),
    ("write", "*/.index.json.part"),
    ("fsync", "*/.index.json.part"),
    ("rename", "*/checkpoints/index.json"),
    ("open", "*/metrics.jsonl"),
    ("write", "*/metrics.jsonl"),
    ("fsync", "*/metrics.jsonl"),
    ("write", "*/episodes.csv"),
    ("fsync", "*/episodes.csv"),
    ("write", "*/actions/actions.bin"),
    ("write", "*/actions/index.csv"),
    ("open", "*/.status.json.part"),
    ("write", "*/.status.json.part"),
    ("rename", "*/status.json"),
]
OPTIONAL: list[Place] = [
    ("open", "*/run.log"),
    ("write", "*/run.log"),
]


def train(folder: Path, name: str = "run", **overrides: Any) -> rlagents.Run:
    return rlagents.train(
        "cartpole-dqn", CONFIG | overrides, runs_dir=folder, name=name, quiet=True
    )


def has_saved(folder: Path) -> bool:
    """Some checkpoints are there, so that there is something to lose."""
    return (folder / "run" / "checkpoints" / "step-32").exists()


def once_after(folder: Path) -> Callable[[int], bool]:
    """Fails the first time that something could be lost."""
    failed: list[int] = []

    def fails(number: int) -> bool:
        if failed or not has_saved(folder):
            return False
        failed.append(number)
        return True

    return fails


def check_logs(run: Path) -> list[int]:
    """No torn line, no gap, no duplicate; returns the episodes."""
    folder = RunFolder(run)
    for name in ("episodes.csv", "evaluations.csv"):
        header, *rows = (run / name).read_text().split("\n")
        assert rows.pop() == ""  # the last line is whole
        assert all(len(row.split(",")) == len(header.split(",")) for row in rows)
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    episodes = list(folder.episodes())
    numbers = [episode.episode for episode in episodes]
    assert numbers == list(range(len(numbers)))
    for episode in episodes:
        assert len(ActionLog(folder).read(episode.episode)) == episode.episodic_length
    held = (run / "actions" / "actions.bin").stat().st_size if numbers else 0
    assert held == sum(episode.episodic_length for episode in episodes)
    return numbers


def check_checkpoints(run: Path) -> int:
    """All that are listed are whole; returns the last one's step."""
    store = CheckpointStore(run / "checkpoints")
    for path in (run / "checkpoints").glob("step-*"):
        store.find(path.name.removeprefix("step-"))
    if "best" in store.index():
        store.find("best")
    return store.find("last").step


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> rlagents.Run:
    return train(tmp_path_factory.mktemp("undisturbed"))


def weights(run: rlagents.Run) -> bytes:
    return (run.checkpoint("last").directory / "agent" / "network.safetensors").read_bytes()


def leftovers(run: Path) -> Iterator[Path]:
    return (path for path in run.rglob(".*") if path.name.endswith((".part", ".old")))


@pytest.mark.parametrize("place", NEEDED + OPTIONAL, ids=" ".join)
def test_a_disk_that_is_full_for_a_moment_changes_nothing(
    tmp_path: Path, undisturbed: rlagents.Run, monkeypatch: pytest.MonkeyPatch, place: Place
) -> None:
    with monkeypatch.context() as patch:
        disk = FullDisk(patch, place, once_after(tmp_path))
        run = train(tmp_path)
    assert disk.failures == 1
    assert run.status()["state"] == "finished"
    assert check_checkpoints(run.directory) == 96
    assert check_logs(run.directory) == check_logs(undisturbed.directory)
    assert weights(run) == weights(undisturbed)
    assert not list(leftovers(run.directory))
    said = (run.directory / "run.log").read_text()
    assert ("warning: " in said) == (place in NEEDED)
    if place in NEEDED:
        assert "No space left on device" in said
        assert "training goes on and tries again" in said


@pytest.mark.parametrize("place", NEEDED[::2], ids=" ".join)
def test_a_disk_that_stays_full_ends_the_run_in_an_orderly_way(
    tmp_path: Path,
    undisturbed: rlagents.Run,
    monkeypatch: pytest.MonkeyPatch,
    place: Place,
) -> None:
    with monkeypatch.context() as patch:
        disk = FullDisk(patch, place, lambda number: has_saved(tmp_path))
        with pytest.raises(RunFailedError, match="No space left on device") as caught:
            train(tmp_path)
    run = tmp_path / "run"
    assert 3 <= disk.failures <= 13  # tries, and perhaps some files of each
    assert caught.value.exit_code == 1
    assert "Make room on the disk." in str(caught.value)
    assert f"rlagents resume {run}" in str(caught.value)
    last = check_checkpoints(run)  # those before are as good as ever
    assert 0 < last < 96
    check_torn(run)
    resumed = rlagents.resume(run, quiet=True)  # there is room again
    assert "exactly" in (run / "run.log").read_text()
    assert check_checkpoints(run) == 96
    assert check_logs(run) == check_logs(undisturbed.directory)
    assert weights(resumed) == weights(undisturbed)
    assert not list(leftovers(run))


def check_torn(run: Path) -> None:
    """What was written before the run ended is whole lines, whatever is missing of them."""
    for name in ("episodes.csv", "evaluations.csv", "metrics.jsonl"):
        text = (run / name).read_text()
        assert text == "" or text.endswith("\n")


@pytest.mark.parametrize("place", OPTIONAL, ids=" ".join)
def test_a_log_for_people_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Place
) -> None:
    with monkeypatch.context() as patch:
        disk = FullDisk(patch, place, lambda number: True)
        run = train(tmp_path)
    assert disk.failures > 3
    assert run.status()["state"] == "finished"


def test_a_video_that_cannot_be_kept_is_done_without(
    tmp_path: Path, undisturbed: rlagents.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        disk = FullDisk(patch, ("rename", "*/videos/*.mp4"), lambda number: True)
        run = train(tmp_path, **{"recording.enabled": True})
    assert disk.failures == 1
    assert run.status()["state"] == "finished"
    assert "VideoObserver is switched off" in (run.directory / "run.log").read_text()
    assert not list((run.directory / "videos").iterdir())
    assert not list(leftovers(run.directory))
    assert weights(run) == weights(undisturbed)


def test_tensorboard_that_cannot_be_written_is_done_without(
    tmp_path: Path, undisturbed: rlagents.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils.tensorboard import SummaryWriter

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    run = train(tmp_path)
    assert run.status()["state"] == "finished"
    assert "TensorBoardObserver is switched off" in (run.directory / "run.log").read_text()
    assert weights(run) == weights(undisturbed)


def test_a_stop_that_cannot_be_saved_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no other try: what is left is the checkpoint before."""
    calls: list[Callable[..., Any]] = []

    def stop_at_60(_: object) -> bool:
        calls.append(stop_at_60)
        return len(calls) > 15  # four steps each

    with monkeypatch.context() as patch:
        patch.setattr("rlagents.signals.StopSignal.__call__", stop_at_60)
        FullDisk(patch, ("open", "*/.step-60.part/runner.json"), lambda number: True)
        with pytest.raises(RunFailedError, match=r"could not be written.*step-48"):
            train(tmp_path, **{"evaluation.period_steps": 0})
    assert check_checkpoints(tmp_path / "run") == 48
