"""Animated WebP and GIF: exact where the format can be, steady where it cannot."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rlagents.animation import GifWriter, WebpWriter, changed_box
from rlagents.naming import size_note
from rlagents.video import VideoWriter

HEIGHT, WIDTH = 60, 80
WRITERS = {".webp": WebpWriter, ".gif": GifWriter}


def game(count: int) -> list[Any]:
    """Return pictures of a ball on a field; every fourth is like the one before."""
    shown: list[Any] = []
    for number in range(count):
        picture = np.full((HEIGHT, WIDTH, 3), (144, 72, 17), dtype=np.uint8)
        picture[5:25, 3:6] = (92, 186, 92)
        left = 7 + 5 * number % 61
        picture[31:36, left : left + 3] = (236, 236, 236)
        shown.append(shown[-1] if number % 4 == 3 else picture)
    return shown


def write(folder: Path, suffix: str, pictures: list[Any], rate: float = 25) -> Path:
    with WRITERS[suffix](folder / ".part", rate) as writer:
        for picture in pictures:
            writer.add(picture)
        return writer.close(folder / f"film{suffix}")


def read(path: Path) -> list[tuple[Any, float]]:
    """Return each picture and for how many milliseconds it is shown."""
    found = []
    with Image.open(path) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            picture = np.asarray(image.convert("RGB"))
            found.append((picture, float(image.info.get("duration", 0))))
    return found


def played(path: Path, rate: float) -> list[Any]:
    """Return the picture that is seen in the middle of each frame's time."""
    shown, times = zip(*read(path), strict=True)
    ends = np.cumsum(times)
    count = round(ends[-1] * rate / 1000)
    return [shown[int(np.searchsorted(ends, 1000 * (n + 0.5) / rate))] for n in range(count)]


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("count", [2, 5, 90])
def test_every_picture_at_its_time_to_the_pixel(tmp_path: Path, suffix: str, count: int) -> None:
    shown = played(write(tmp_path, suffix, game(count)), 25)
    assert len(shown) == count
    for picture, expected in zip(shown, game(count), strict=True):
        assert np.array_equal(picture, expected)
    assert [path.name for path in tmp_path.iterdir()] == [f"film{suffix}"]


@pytest.mark.parametrize("suffix", WRITERS)
def test_pictures_that_do_not_change_are_written_once(tmp_path: Path, suffix: str) -> None:
    found = read(write(tmp_path, suffix, game(9)))
    assert len(found) == 7
    assert sum(time for _, time in found) == 9 * 40
    (still,) = read(write(tmp_path, suffix, [game(1)[0]] * 10))
    assert np.array_equal(still[0], game(1)[0])


@pytest.mark.parametrize("suffix", WRITERS)
def test_it_is_repeated_for_ever(tmp_path: Path, suffix: str) -> None:
    with Image.open(write(tmp_path, suffix, game(5))) as image:
        assert image.info["loop"] == 0


@pytest.mark.parametrize(("suffix", "unit"), [(".gif", 10), (".webp", 1)])
@pytest.mark.parametrize("rate", [30.0, 60 / 2, 47.0, 12.5])
def test_delays_that_cannot_be_expressed_do_not_add_up(
    tmp_path: Path, suffix: str, unit: int, rate: float
) -> None:
    pictures = [np.full((16, 16, 3), number, dtype=np.uint8) for number in range(100)]
    times = np.array([time for _, time in read(write(tmp_path, suffix, pictures, rate))])
    assert len(times) == 100
    assert np.abs(times.cumsum() - 1000 * np.arange(1, 101) / rate).max() <= unit / 2 + 1e-6


def colourful(count: int) -> list[Any]:
    """Return pictures with more colours than a GIF has, in an area that stays as it is."""
    still = np.stack(np.meshgrid(np.arange(WIDTH) * 3, np.arange(HEIGHT) * 4), axis=-1)
    shown = []
    for number in range(count):
        picture = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        picture[:, :, :2] = still
        picture[40:, 40:, 2] = np.linspace(0, 255, 800).reshape(20, 40)
        picture[50:55, 5 + number : 10 + number] = 255
        shown.append(picture)
    return shown


def test_a_gif_with_too_many_colours_does_not_flicker(tmp_path: Path) -> None:
    found = [picture for picture, _ in read(write(tmp_path, ".gif", colourful(30)))]
    colours = {tuple(colour) for picture in found for colour in picture.reshape(-1, 3)}
    assert len(colours) <= 256  # of all pictures together
    for picture, expected in zip(found, colourful(30), strict=True):
        assert np.array_equal(picture[:40], found[0][:40])
        assert np.abs(picture.astype(int) - expected).mean() < 12


def test_webp_keeps_all_colours(tmp_path: Path) -> None:
    for (picture, _), expected in zip(
        read(write(tmp_path, ".webp", colourful(10))), colourful(10), strict=True
    ):
        assert np.array_equal(picture, expected)


@pytest.mark.parametrize("suffix", WRITERS)
def test_memory_does_not_grow_with_the_length(tmp_path: Path, suffix: str) -> None:
    def peak(count: int) -> int:
        pictures = (np.full((300, 300, 3), n % 250, dtype=np.uint8) for n in range(count))
        tracemalloc.start()
        with WRITERS[suffix](tmp_path / ".part", 25) as writer:
            for picture in pictures:
                writer.add(picture)
            writer.close(tmp_path / "film")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(5)  # what is loaded the first time
    assert peak(120) < peak(40) + 2_000_000  # one picture has 270,000 bytes


@pytest.mark.parametrize("suffix", WRITERS)
def test_an_exception_discards_what_was_written(tmp_path: Path, suffix: str) -> None:
    def fail(writer: VideoWriter) -> None:
        with writer:
            writer.add(game(1)[0])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail(WRITERS[suffix](tmp_path / ".part", 25))
    assert not list(tmp_path.iterdir())


def test_the_box_of_what_has_changed() -> None:
    before = np.zeros((6, 8, 3), dtype=np.uint8)
    after = before.copy()
    assert changed_box(None, before) == (0, 0, 8, 6)
    assert changed_box(before, after) is None
    after[2, 3, 1] = 1
    assert changed_box(before, after) == (3, 2, 4, 3)
    after[5, 7] = 1
    assert changed_box(before, after) == (3, 2, 8, 6)
    assert changed_box(before[..., 1], after[..., 1]) == (3, 2, 8, 6)


def test_a_sentence_on_the_size(tmp_path: Path) -> None:
    small, large, film, tiny = (tmp_path / name for name in ("a.gif", "b.webp", "c.mp4", "d.gif"))
    tiny.write_bytes(bytes(2345))
    small.write_bytes(bytes(1_240_000))
    large.write_bytes(bytes(10_100_000))
    film.write_bytes(bytes(20_000_000))
    assert size_note(small) == "a.gif has 1.2 MB."
    assert size_note(tiny) == "d.gif has 2.3 kB."
    assert size_note(film) is None
    note = size_note(large) or ""
    assert note.startswith("b.webp has 10.1 MB, more than the 10 MB that GitHub takes")
    assert "--seconds and --scale" in note
