"""Videos: what browsers play, what a kill leaves behind, and that colours survive."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rlagents.mp4 import Mp4Writer
from rlagents.video import enlarge, even

HEIGHT, WIDTH = 40, 48


def frames(count: int, height: int = HEIGHT, width: int = WIDTH) -> list[Any]:
    """Return pictures whose brightness tells their number: 50, 60, ..., 240, 50, ..."""
    return [
        np.full((height, width, 3), 50 + 10 * (number % 20), dtype=np.uint8)
        for number in range(count)
    ]


def write(folder: Path, pictures: list[Any], rate: float = 30, scale: int = 1) -> Path:
    with Mp4Writer(folder / ".video.part", rate) as video:
        for picture in pictures:
            video.add(enlarge(picture, scale))
        assert video.num_frames == len(pictures)
        return video.close(folder / "video.mp4")


def read(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def boxes(path: Path) -> list[str]:
    """Return the names of an MP4 file's top-level boxes in their order."""
    data, found, at = path.read_bytes(), [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        assert size >= 8
        found.append(data[at + 4 : at + 8].decode("ascii"))
        at += size
    return found


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_every_frame_is_there_and_in_order(tmp_path: Path, count: int) -> None:
    path = write(tmp_path, frames(count))
    assert path == tmp_path / "video.mp4"
    shown = read(path)
    assert len(shown) == count
    for picture, expected in zip(shown, frames(count), strict=True):
        assert abs(picture.mean() - expected.mean()) < 4


def test_it_is_what_browsers_play(tmp_path: Path) -> None:
    path = write(tmp_path, frames(90))
    with av.open(str(path)) as container:
        assert "mp4" in container.format.name
        assert [stream.type for stream in container.streams] == ["video"]
        codec = container.streams.video[0].codec_context
        assert codec.name == "h264"
        assert codec.pix_fmt == "yuv420p"


def test_the_index_stands_at_the_front(tmp_path: Path) -> None:
    found = boxes(write(tmp_path, frames(90)))
    assert found[0] == "ftyp"
    assert found.index("moov") < found.index("mdat")
    assert "moof" not in found  # no longer in fragments


@pytest.mark.parametrize("rate", [60.0, 30, 59.94, 15, 0.5])
def test_the_rate(tmp_path: Path, rate: float) -> None:
    count = 40
    path = write(tmp_path, frames(count), rate)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate is not None
        assert float(stream.average_rate) == pytest.approx(rate, rel=1e-3)
        times = [float(frame.time or 0) for frame in container.decode(video=0)]
    assert times[0] == 0
    assert np.allclose(np.diff(times), 1 / rate, rtol=0.02)


def test_a_key_frame_a_second(tmp_path: Path) -> None:
    with av.open(str(write(tmp_path, frames(100), 30))) as container:
        keys = [n for n, frame in enumerate(container.decode(video=0)) if frame.key_frame]
    assert keys[0] == 0
    assert np.diff([*keys, 100]).max() <= 30  # the encoder may add more, where a scene changes


@pytest.mark.parametrize(("height", "width"), [(41, 48), (40, 47), (41, 47), (1, 1), (210, 160)])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_sizes_are_even(tmp_path: Path, height: int, width: int, scale: int) -> None:
    (shown,) = read(write(tmp_path, frames(1, height, width), scale=scale))
    tall, wide = height * scale, width * scale
    assert shown.shape == (tall + tall % 2, wide + wide % 2, 3)


@pytest.mark.parametrize(
    "colour", [(220, 30, 30), (30, 200, 30), (30, 30, 220), (200, 72, 72), (236, 236, 236)]
)
def test_colours_survive(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    picture = np.full((HEIGHT, WIDTH, 3), colour, dtype=np.uint8)
    for shown in read(write(tmp_path, [picture] * 10)):
        assert np.abs(shown.mean(axis=(0, 1)) - colour).max() < 6


def test_left_is_left_and_up_is_up(tmp_path: Path) -> None:
    picture = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    picture[: HEIGHT // 2, : WIDTH // 2] = 200
    (shown,) = read(write(tmp_path, [picture]))
    assert np.abs(shown.astype(int) - picture).mean() < 5


def test_the_temporary_file_is_gone_in_the_end(tmp_path: Path) -> None:
    with Mp4Writer(tmp_path / ".video.part", 30) as video:
        for picture in frames(60):
            video.add(picture)
        assert [path.name for path in tmp_path.iterdir()] == [".video.part"]
        video.close(tmp_path / "video.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


def test_a_video_replaces_an_older_one(tmp_path: Path) -> None:
    write(tmp_path, frames(3))
    assert len(read(write(tmp_path, frames(5)))) == 5


def test_no_frame_no_video(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="at least one frame"),
        Mp4Writer(tmp_path / ".video.part", 30) as video,
    ):
        video.close(tmp_path / "video.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [0, 1, 50])
def test_an_exception_discards_what_was_written(tmp_path: Path, count: int) -> None:
    def fail() -> None:
        with Mp4Writer(tmp_path / ".video.part", 30) as video:
            for picture in frames(count):
                video.add(picture)
            raise RuntimeError("no licence")

    with pytest.raises(RuntimeError, match="no licence"):
        fail()
    assert not list(tmp_path.iterdir())


def test_leaving_without_closing_discards_it_too(tmp_path: Path) -> None:
    with Mp4Writer(tmp_path / ".video.part", 30) as video:
        for picture in frames(60):
            video.add(picture)
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_a_close_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with Mp4Writer(tmp_path / ".video.part", 30) as video:
            video.add(frames(1)[0])
            video.close(tmp_path / "nowhere" / "video.mp4")

    with pytest.raises(OSError, match="nowhere"):
        fail()
    assert not list(tmp_path.iterdir())


KILLED = """
import os, sys
from pathlib import Path
import numpy as np
from rlagents.mp4 import Mp4Writer

generator = np.random.default_rng(0)
video = Mp4Writer(Path(sys.argv[1]), 60.0)
for number in range(int(sys.argv[2])):
    picture = np.zeros((210, 160, 3), dtype=np.uint8)
    picture[:, :40] = 20 + number % 200
    picture[number % 200 : number % 200 + 8, 80:90] = generator.integers(100, 255)
    video.add(picture)
os._exit(9)
"""


@pytest.mark.parametrize("count", [100, 300])
def test_what_was_written_can_be_played_after_a_kill(tmp_path: Path, count: int) -> None:
    part = tmp_path / ".video.part"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(part), str(count)], timeout=120, check=False
    )
    assert killed.returncode == 9
    shown = read(part)  # without an error, in the order written
    # What the encoder was looking ahead at is lost, and nothing else.
    assert count - 25 <= len(shown) <= count
    for number, picture in enumerate(shown):
        assert abs(picture[:, 4:36].mean() - (20 + number % 200)) < 6


@settings(deadline=None)
@given(
    arrays.arrays(
        np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3)), fill=st.nothing()
    ),
    st.integers(1, 4),
)
def test_enlarge(frame: Any, scale: int) -> None:
    large = even(enlarge(frame, scale))
    height, width = frame.shape[0] * scale, frame.shape[1] * scale
    assert large.shape == (height + height % 2, width + width % 2, 3)
    assert large.dtype == np.uint8
    rows = np.minimum(np.arange(large.shape[0]) // scale, frame.shape[0] - 1)
    columns = np.minimum(np.arange(large.shape[1]) // scale, frame.shape[1] - 1)
    assert np.array_equal(large, frame[rows][:, columns])


def test_even_frames_are_left_alone() -> None:
    frame = frames(1)[0]
    assert even(enlarge(frame, 1)) is frame


def test_the_rate_is_kept_exactly_where_it_is_whole(tmp_path: Path) -> None:
    with av.open(str(write(tmp_path, frames(12), 60.0))) as container:
        assert container.streams.video[0].average_rate == Fraction(60)
