"""WebM: where PyAV is missing, everything else stays the same."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import rlagents
from rlagents import video
from rlagents.errors import UsageError
from rlagents.naming import check_output
from rlagents.video import VideoError
from rlagents.watch import rebuild
from rlagents.webm import WebmWriter

HEIGHT, WIDTH = 40, 48


def frames(count: int) -> list[Any]:
    """Return pictures whose brightness tells their number, with a red corner at the left."""
    shown = []
    for number in range(count):
        picture = np.full((HEIGHT, WIDTH, 3), 50 + 10 * (number % 20), dtype=np.uint8)
        picture[: HEIGHT // 2, : WIDTH // 2] = (220, 30, 30)
        shown.append(picture)
    return shown


def write(folder: Path, pictures: list[Any], rate: float = 30) -> Path:
    with WebmWriter(folder / ".video.part", rate) as writer:
        for picture in pictures:
            writer.add(picture)
        return writer.close(folder / "video.webm")


@pytest.fixture
def no_av(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let `import av` fail in the package."""
    original = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name == "av":
            raise ModuleNotFoundError("No module named 'av'")
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    video.video_suffix.cache_clear()
    yield
    video.video_suffix.cache_clear()


@pytest.fixture
def no_encoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave PyAV without libx264."""
    monkeypatch.setattr("av.codecs_available", {"vp8"})
    video.video_suffix.cache_clear()
    yield
    video.video_suffix.cache_clear()


# --- the writer ----------------------------------------


@pytest.mark.parametrize("count", [1, 2, 100])
def test_every_frame_is_there_in_its_colours(tmp_path: Path, count: int) -> None:
    path = write(tmp_path, frames(count))
    with av.open(str(path)) as container:
        assert "webm" in container.format.name
        assert container.streams.video[0].codec_context.name == "vp8"
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(shown) == count
    for picture, expected in zip(shown, frames(count), strict=True):
        assert abs(picture[24:, 28:].mean() - expected[24:, 28:].mean()) < 5
        assert np.abs(picture[4:16, 4:20].mean(axis=(0, 1)) - (220, 30, 30)).max() < 12


@pytest.mark.parametrize("rate", [60.0, 50.0, 15.0, 59.94])
def test_the_rate(tmp_path: Path, rate: float) -> None:
    with av.open(str(write(tmp_path, frames(40), rate))) as container:
        times = [float(frame.time or 0) for frame in container.decode(video=0)]
    assert times[0] == 0
    assert np.allclose(times, np.arange(40) / rate, atol=0.001)


def test_the_temporary_file_begins_with_a_dot_and_is_gone_in_the_end(tmp_path: Path) -> None:
    with WebmWriter(tmp_path / ".video.part", 30) as writer:
        for picture in frames(30):
            writer.add(picture)
        assert [path.name for path in tmp_path.iterdir()] == [".video.part.webm"]
        writer.close(tmp_path / "video.webm")
    assert [path.name for path in tmp_path.iterdir()] == ["video.webm"]


def test_an_exception_discards_what_was_written(tmp_path: Path) -> None:
    def fail() -> None:
        with WebmWriter(tmp_path / ".video.part", 30) as writer:
            writer.add(frames(1)[0])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())


def test_nothing_is_said_while_the_encoder_opens(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, frames(3))
    assert capfd.readouterr().err == ""


def test_what_was_lost_on_a_full_disk_is_noticed(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    part = tmp_path / ".video.part.webm"
    with WebmWriter(tmp_path / ".video.part", 30) as writer:
        for _ in range(60):
            writer.add(generator.integers(0, 256, (200, 200, 3), dtype=np.uint8))
        # OpenCV goes on without an error; the first half is all that is there.
        writer._encoder.release()  # type: ignore[union-attr]
        part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
        with pytest.raises(VideoError, match="the disk is full"):
            writer.close(tmp_path / "video.webm")
    assert not list(tmp_path.iterdir())


KILLED = """
import os, sys
from pathlib import Path
import numpy as np
from rlagents.webm import WebmWriter

generator = np.random.default_rng(0)
video = WebmWriter(Path(sys.argv[1]), 60.0)
for number in range(200):
    picture = np.zeros((210, 160, 3), dtype=np.uint8)
    picture[:, :40] = 20 + number
    picture[:, 60:] = generator.integers(0, 256, (210, 100, 3))
    video.add(picture)
os._exit(9)
"""


def test_what_was_written_can_be_played_after_a_kill(tmp_path: Path) -> None:
    part = tmp_path / ".video.part"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(part)], timeout=120, check=False)
    assert killed.returncode == 9
    shown = []
    with av.open(f"{part}.webm") as container:
        try:
            for frame in container.decode(video=0):
                shown.append(frame.to_ndarray(format="rgb24"))
        except av.error.FFmpegError:  # the last block was cut off
            pass
    assert len(shown) > 50
    for number, picture in enumerate(shown[:-1]):
        assert abs(picture[:, 4:36].mean() - (20 + number)) < 12


# --- when it serves ----------------------------------------


def test_mp4_is_what_is_made_where_it_can_be() -> None:
    video.video_suffix.cache_clear()
    assert video.video_suffix() == ".mp4"
    assert video.why_no_mp4() is None


def test_the_warning_is_said_once(no_av: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert [video.video_suffix() for _ in range(3)] == [".webm"] * 3
    err = capsys.readouterr().err
    assert err.count("warning") == 1
    assert "No module named 'av'" in err
    assert "pip install av" in err


def test_without_an_h264_encoder_too(no_encoder: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert video.video_suffix() == ".webm"
    assert "no H.264 encoder" in capsys.readouterr().err


def test_a_training_and_record_without_pyav(
    cli: Callable[..., Any], tiny: tuple[str, ...], tmp_path: Path, no_av: None
) -> None:
    words = ("train", "cartpole-dqn", *tiny, "--runs-dir", tmp_path, "--name", "run")
    outcome = cli(*words, "--total-steps", 240, "--evaluation.period-steps", 240)
    assert outcome.code == 0, outcome.err
    run = tmp_path / "run"
    assert "switched off" not in (run / "run.log").read_text()
    (film,) = (run / "videos").glob("*.webm")
    assert not list((run / "videos").glob("*.mp4"))
    about = json.loads(film.with_suffix(".json").read_text())
    assert about["num_frames"] == about["episodic_length"] + 1
    outcome = cli("record", run)
    assert outcome.code == 0
    assert outcome.out.endswith(".webm\n")


def test_an_episode_on_demand_without_pyav(
    no_av: None, tiny_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = tmp_path / "training-2.mp4"
    assert rebuild.main([str(tiny_run.directory), "2", str(asked)]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told == {"path": str(asked.with_suffix(".webm"))}
    assert Path(told["path"]).is_file()
    assert asked.with_suffix(".json").is_file()


def test_mp4_by_name_is_refused_without_pyav(no_av: None, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"film\.mp4 .*No module.*\.webm.*pip install av"):
        check_output(tmp_path / "film.mp4", tmp_path)
    assert check_output(tmp_path / "film.webm", tmp_path) == tmp_path / "film.webm"


def test_webm_by_name_where_there_is_pyav(tiny_run: Any, tmp_path: Path) -> None:
    run = rlagents.open_run(tiny_run.directory)
    (path,) = run.record(output=tmp_path / "film.webm")
    assert path == tmp_path / "film.webm"
    about = json.loads((tmp_path / "film.json").read_text())
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == about["num_frames"]


def test_doctor_says_which_encoder_serves(cli: Callable[..., Any], no_av: None) -> None:
    outcome = cli("doctor")
    (line,) = (line for line in outcome.out.splitlines() if "video encoder" in line)
    assert line.startswith("ok")
    assert "VP8 in WebM, through OpenCV" in line
    assert "No module named 'av'" in line


def test_doctor_names_h264_where_there_is_pyav(cli: Callable[..., Any]) -> None:
    assert "H.264 in MP4, through PyAV, 25 of 25 frames read back" in cli("doctor").out
