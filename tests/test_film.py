"""Film: what of an episode is shown, in what way, and that the JSON says just that."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

from rlagents.envs import PlayerStep
from rlagents.errors import UsageError
from rlagents.film import View, film, sidecar
from rlagents.takes import Moment, NotReproducedError, Take, replay
from rlagents.tiles import GAP
from rlagents.video import VideoError

HEIGHT, WIDTH = 40, 60


class Counting:
    """Shows frame k in the brightness 40 + 3 k; three frames a step, each step is worth its number.

    Args:
        length: agent steps until it is over.
        rate: frames per second.
    """

    action_space = gym.spaces.Discrete(3)
    action_names: tuple[str, ...] | None = ("stay", "up", "down")

    def __init__(self, length: int = 20, rate: float = 30.0) -> None:
        self.frames_per_second = rate
        self.length = length
        self.time = self.shown = 0

    def frame(self) -> Any:
        self.shown += 1
        return np.full((HEIGHT, WIDTH, 3), 40 + 3 * (self.shown - 1), dtype=np.uint8)

    def reset(self, seed: int) -> PlayerStep:
        self.time = self.shown = 0
        return PlayerStep(None, 0.0, False, False, [self.frame()])

    def step(self, action: int) -> PlayerStep:
        self.time += 1
        frames = [self.frame() for _ in range(3)]
        return PlayerStep(None, float(self.time), self.time == self.length, False, frames)

    def close(self) -> None: ...


def take(player: Counting, seed: int = 5, *, values: bool = True) -> Take:
    """Return a take of the whole game: actions 0, 1, 2, 0, ...; action values 0.5, 1.5, 2.5."""
    length = player.length
    row = np.array([0.5, 1.5, 2.5], dtype=np.float32)
    return replay(
        player,
        seed,
        np.arange(length) % 3,
        values=np.tile(row, (length, 1)) if values else None,
        episodic_return=length * (length + 1) / 2,
    )


def shoot(
    folder: Path, *takes: Take, name: str = "film.mp4", tiled: bool = False, **view: Any
) -> tuple[list[Any], dict[str, Any]]:
    """Return the pictures of a film and its JSON."""
    about = {"env_id": "counting", "values_are": "action values"}
    options = {"path": lambda *_: folder / name, "about": about, "tiled": tiled}
    path = film(takes or [take(Counting())], View(**view), **options)  # type: ignore[arg-type]
    return pictures(path), json.loads(sidecar(path).read_text())


def pictures(path: Path) -> list[Any]:
    if path.suffix in (".gif", ".webp"):
        with Image.open(path) as image:
            shown = []
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                shown.append(np.asarray(image.convert("RGB")))
            return shown
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def numbers(shown: list[Any]) -> list[int]:
    """Return which frames of the game the pictures are."""
    return [round((picture[:HEIGHT, :WIDTH].mean() - 40) / 3) for picture in shown]


# --- moments ----------------------------------------


def test_a_moment_knows_the_step_that_answers_to_its_frame() -> None:
    moments = list(take(Counting(length=2)))
    assert [round((moment.frame.mean() - 40) / 3) for moment in moments] == list(range(7))
    # The first picture is answered by step 0, whose third frame is answered by step 1.
    assert [moment.step for moment in moments] == [0, 0, 0, 1, 1, 1, 1]
    assert [moment.action for moment in moments] == [0, 0, 0, 1, 1, 1, 1]
    assert [moment.episodic_return for moment in moments] == [0, 0, 0, 1, 1, 1, 3]


def test_moments_agree_with_the_json() -> None:
    one = take(Counting())
    moments = list(one)
    steps = [max(k for k, f in enumerate(one.columns["frame"]) if f <= n) for n in range(61)]
    assert [moment.step for moment in moments] == steps
    for moment in moments[:-1]:
        assert moment.action == one.columns["action"][moment.step]
        assert moment.episodic_return == sum(one.columns["reward"][: moment.step])


def test_a_take_without_an_action_shows_its_first_picture(tmp_path: Path) -> None:
    empty = replay(Counting(), 1, np.zeros(0, dtype=int), values=None, episodic_return=0)
    shown, about = shoot(tmp_path, empty, caption=True)
    assert len(shown) == 1
    assert about["action"] == []


# --- parts of an episode ----------------------------------------


def test_the_whole_episode(tmp_path: Path) -> None:
    shown, about = shoot(tmp_path)
    assert numbers(shown) == list(range(61))
    assert about["num_frames"] == 61
    assert about["frame"] == list(range(0, 60, 3))
    assert about["action_names"] == ["stay", "up", "down"]
    assert not {"from_second", "first_step", "return_before", "tiles"} & set(about)


def test_a_part_of_the_episode(tmp_path: Path) -> None:
    shown, about = shoot(tmp_path, from_second=0.5, seconds=0.4)
    assert numbers(shown) == list(range(15, 27))  # at 30 frames a second
    assert about["num_frames"] == 12
    assert about["from_second"] == 0.5
    # Frame 15 is what step 5 answers to; it was preceded by rewards of 1 to 5.
    assert about["first_step"] == 5
    assert about["return_before"] == 15
    assert about["frame"] == [0, 3, 6, 9]
    assert about["action"] == [2, 0, 1, 2]
    assert about["reward"] == [6, 7, 8, 9]
    assert about["values"] == [[0.5, 1.5, 2.5]] * 4
    assert about["terminated"] == [False] * 4
    assert about["episodic_return"] == 210
    assert about["episodic_length"] == 20


def test_a_part_that_begins_within_a_step(tmp_path: Path) -> None:
    shown, about = shoot(tmp_path, from_second=17 / 30)
    assert numbers(shown) == list(range(17, 61))
    assert about["first_step"] == 5  # its action is held; its own picture was frame 15
    assert about["frame"] == [0, *range(1, 43, 3)]
    assert about["terminated"][-1]


def test_a_part_that_ends_early(tmp_path: Path) -> None:
    shown, about = shoot(tmp_path, seconds=0.5)
    assert numbers(shown) == list(range(15))
    assert about["frame"] == [0, 3, 6, 9, 12]
    assert about["first_step"] == about["return_before"] == about["from_second"] == 0


@pytest.mark.parametrize("seconds", [0.001, 100.0])
def test_the_length_is_within_what_there_is(tmp_path: Path, seconds: float) -> None:
    shown, _ = shoot(tmp_path, from_second=1.0, seconds=seconds)
    assert numbers(shown) == ([30] if seconds < 1 else list(range(30, 61)))


def test_a_part_behind_the_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--from-second: the episode lasts 2\.03 s, got 2\.1;"):
        shoot(tmp_path, from_second=2.1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("from_second", -1.0), ("from_second", float("nan")), ("from_second", float("inf"))),
        *(("seconds", 0.0), ("seconds", -3.0), ("seconds", float("inf"))),
        *(("scale", 0), ("scale", 17)),
    ],
)
def test_options_out_of_range(option: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')}: expected .*got"):
        View(**{option: value})  # type: ignore[arg-type]


def test_what_comes_after_the_part_must_be_the_same_episode_too(tmp_path: Path) -> None:
    wrong = replay(Counting(), 1, np.zeros(20, dtype=int), values=None, episodic_return=209)
    with pytest.raises(NotReproducedError):
        shoot(tmp_path, wrong, seconds=0.2)
    assert not list(tmp_path.iterdir())


# --- how it is shown ----------------------------------------


def test_pixels_become_squares(tmp_path: Path) -> None:
    shown, _ = shoot(tmp_path, scale=3)
    assert shown[0].shape == (3 * HEIGHT, 3 * WIDTH, 3)


def test_a_caption_stands_below_every_frame(tmp_path: Path) -> None:
    plain, about = shoot(tmp_path, scale=4)
    shown, captioned = shoot(tmp_path, scale=4, caption=True)
    tall = shown[0].shape[0]
    assert captioned == {**about, "height": tall}
    assert (about["height"], about["width"]) == (4 * HEIGHT, 4 * WIDTH)
    assert len(shown) == 61
    assert tall > 4 * HEIGHT
    assert tall % 2 == 0
    for picture, without in zip(shown, plain, strict=True):
        assert abs(picture[: 4 * HEIGHT].mean() - without.mean()) < 3
        assert picture[4 * HEIGHT :].max() > 150  # letters
        assert picture[4 * HEIGHT :].min() < 30
    # It says what changes: from step 0 to 1 at frame 3, and not before.
    strips = [picture[4 * HEIGHT :].astype(int) for picture in shown]
    assert np.abs(strips[2] - strips[1]).mean() < np.abs(strips[3] - strips[2]).mean() / 4


def test_no_values_no_caption_of_them(tmp_path: Path) -> None:
    one = take(Counting(), values=False)
    path = film([one], View(4, True), path=lambda *_: tmp_path / "film.mp4", about={})
    assert pictures(path)[0].shape[0] > 4 * HEIGHT


def test_lenses_draw_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def white(picture: Any, moment: Moment) -> Any:
        return np.full_like(picture, 255)

    def black_after(picture: Any, moment: Moment) -> Any:
        return picture if moment.step < 3 else np.zeros_like(picture)

    monkeypatch.setattr(View, "lenses", lambda *_: [white, black_after])
    shown, _ = shoot(tmp_path)
    assert [picture.mean() > 128 for picture in shown] == [True] * 9 + [False] * 52


# --- tiles ----------------------------------------


def tile(picture: Any, row: int, column: int) -> Any:
    top, left = row * (HEIGHT + GAP), column * (WIDTH + GAP)
    return picture[top : top + HEIGHT, left : left + WIDTH]


def test_tiles_show_all_episodes_at_once(tmp_path: Path) -> None:
    lengths = [4, 2, 6, 3]
    takes = [take(Counting(length), seed) for seed, length in enumerate(lengths)]
    shown, about = shoot(tmp_path, *takes, tiled=True)
    assert len(shown) == about["num_frames"] == 1 + 3 * 6  # the longest
    assert about["frames_per_second"] == 30
    assert about["tiles"] == [2, 2]
    assert shown[0].shape == (2 * HEIGHT + GAP, 2 * WIDTH + GAP, 3)
    for number, picture in enumerate(shown):
        for index, length in enumerate(lengths):
            level = tile(picture, *divmod(index, 2))[4:-4, 4:-4].mean()
            last = 3 * length
            expected = 40 + 3 * min(number, last)
            # What is over keeps its last picture, darker.
            assert abs(level - expected * (0.35 if number > last else 1)) < 6
    assert [episode["seed"] for episode in about["episodes"]] == [0, 1, 2, 3]
    assert [episode["episodic_return"] for episode in about["episodes"]] == [10, 3, 21, 6]
    assert about["episodes"][1]["frame"] == [0, 3]
    assert about["episodes"][1]["terminated"] == [False, True]
    assert "frame" not in about


def test_an_empty_place_is_black(tmp_path: Path) -> None:
    shown, about = shoot(tmp_path, *(take(Counting(2)) for _ in range(3)), tiled=True)
    assert about["tiles"] == [2, 2]
    assert tile(shown[0], 1, 1)[4:, 4:].mean() < 6
    assert tile(shown[0], 1, 0).mean() > 30


def test_each_tile_has_a_caption(tmp_path: Path) -> None:
    plain, _ = shoot(tmp_path, take(Counting(2)), take(Counting(3)), tiled=True, scale=4)
    shown, _ = shoot(
        tmp_path, take(Counting(2)), take(Counting(3)), tiled=True, scale=4, caption=True
    )
    assert plain[0].shape[0] < shown[0].shape[0]


def test_a_part_of_tiles(tmp_path: Path) -> None:
    takes = [take(Counting(2)), take(Counting(6))]
    shown, about = shoot(tmp_path, *takes, tiled=True, from_second=0.5)
    assert len(shown) == 19 - 15
    assert about["from_second"] == 0.5
    over, going_on = about["episodes"]
    assert over["frame"] == [0]  # its last step is what is seen, darkly, from the first picture on
    assert over["terminated"] == [True]
    assert going_on["frame"] == [0]
    assert going_on["first_step"] == 5


def test_the_mean_return_names_tiles(tmp_path: Path) -> None:
    takes = [take(Counting(2)), take(Counting(3))]  # 3 and 6
    path = film(
        takes, View(), path=lambda result, _: tmp_path / f"{result:g}.mp4", about={}, tiled=True
    )
    assert path.name == "4.5.mp4"


def test_one_tile_that_comes_out_otherwise_leaves_nothing(tmp_path: Path) -> None:
    wrong = replay(Counting(3), 1, np.zeros(3, dtype=int), values=None, episodic_return=7)
    with pytest.raises(NotReproducedError):
        shoot(tmp_path, take(Counting(2)), wrong, tiled=True)
    assert not list(tmp_path.iterdir())


# --- animations ----------------------------------------


@pytest.mark.parametrize(
    ("name", "rate", "shown_rate", "every"),
    [
        *(("a.gif", 60.0, 30.0, 2), ("a.gif", 50.0, 50.0, 1), ("a.gif", 100.0, 50.0, 2)),
        *(("a.webp", 60.0, 60.0, 1), ("a.webp", 100.0, 50.0, 2), ("a.gif", 12.0, 12.0, 1)),
    ],
)
def test_an_animation_shows_as_many_frames_as_browsers_do(
    tmp_path: Path, name: str, rate: float, shown_rate: float, every: int
) -> None:
    shown, about = shoot(tmp_path, take(Counting(rate=rate)), name=name)
    assert numbers(shown) == list(range(0, 61, every))
    assert about["frames_per_second"] == shown_rate
    assert about["num_frames"] == len(shown)
    assert about["frame"] == [frame // every for frame in range(0, 60, 3)]
    with Image.open(tmp_path / name) as image:
        total = 0.0
        for number in range(len(shown)):
            image.seek(number)
            image.load()
            assert image.info["duration"] >= (20 if name.endswith("gif") else 11)
            total += image.info["duration"]
    # As long as in the game, but for what a delay cannot express.
    assert abs(total - 1000 * len(shown) / shown_rate) <= 5


def test_a_part_of_an_animation(tmp_path: Path) -> None:
    options = {"name": "a.gif", "from_second": 0.25, "seconds": 0.25}
    shown, about = shoot(tmp_path, take(Counting(rate=60.0)), **options)  # type: ignore[arg-type]
    assert numbers(shown) == list(range(15, 30, 2))
    assert about["frame"] == [0, 1, 3, 4, 6]
    assert about["first_step"] == 5


def test_the_json_of_an_animation_leaves_that_of_a_video_alone(tmp_path: Path) -> None:
    shoot(tmp_path, name="film.mp4")
    shoot(tmp_path, name="film.gif", seconds=0.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("film.gif", "film.gif.json", "film.json", "film.mp4"),
    ]
    assert json.loads((tmp_path / "film.json").read_text())["num_frames"] == 61


# --- what fails ----------------------------------------


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Let a method fail as on a full disk."""

    def fill(target: str) -> None:
        def fail(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(target, fail)

    return fill  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("film.mp4", "rlagents.mp4.Mp4Writer._open"),
        ("film.mp4", "rlagents.mp4.Mp4Writer._add"),
        ("film.mp4", "rlagents.mp4.Mp4Writer._remux"),
        ("film.webm", "rlagents.webm.WebmWriter._add"),
        ("film.gif", "rlagents.animation.GifWriter._write_waiting"),
        ("film.gif", "rlagents.animation.GifWriter._convert"),
        ("film.mp4", "os.replace"),
        ("film.webm", "os.replace"),
        ("film.webp", "os.replace"),
        ("film.gif", "os.replace"),
    ],
)
def test_a_full_disk_leaves_nothing(
    tmp_path: Path, full_disk: Callable[[str], None], name: str, target: str
) -> None:
    full_disk(target)
    with pytest.raises(VideoError, match=r"cannot be written: .*No space left"):
        shoot(tmp_path, name=name)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_json_either(
    tmp_path: Path, full_disk: Callable[[str], None]
) -> None:
    full_disk("pathlib.Path.write_text")
    with pytest.raises(VideoError, match=r"film\.json cannot be written: .*No space left"):
        shoot(tmp_path)
    assert not list(tmp_path.iterdir())
