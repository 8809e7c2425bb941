"""The options of `record`, on the command line and in Python: each one changes what is written."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

import rlagents
from rlagents.naming import beside_others
from rlagents.video import VideoWriter

Cli = Callable[..., Any]


def about(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.with_suffix(".json").read_text()))


def size(path: Path) -> tuple[int, int, int]:
    """Return number, height and width of a video's pictures."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return len(frames), *frames[0].shape[:2]


@pytest.fixture
def film(cli: Cli, tiny_run: Any, tmp_path: Path) -> Callable[..., Path]:
    """Record the tiny run, or an agent that comes with the package, with options."""

    def record(*words: object, name: str = "film.mp4") -> Path:
        path = tmp_path / name
        outcome = cli("record", tiny_run.directory, "--output", path, *words)
        assert outcome.code == 0, outcome.err
        assert outcome.out == f"{path}\n"
        return path

    return record


# --- on the command line ----------------------------------------


def test_scale(film: Callable[..., Path]) -> None:
    assert size(film())[1:] == (400, 600)  # the recipe's [recording] scale is 1
    assert size(film("--scale", 2))[1:] == (800, 1200)


def test_caption(film: Callable[..., Path], own_run: Path, cli: Cli) -> None:
    assert size(film("--scale", 1, "--caption"))[1] > 400
    config = own_run / "config.json"
    text = config.read_text()
    assert '"caption": false' in text
    config.write_text(text.replace('"caption": false', '"caption": true'))
    (path,) = rlagents.open_run(own_run).record(scale=1)
    assert size(path)[1] > 400
    outcome = cli("record", own_run, "--scale", 1, "--no-caption")
    assert size(Path(outcome.out.strip()))[1] == 400


def test_a_part(film: Callable[..., Path]) -> None:
    whole = film("--scale", 1)
    frames = size(whole)[0]
    assert frames > 8
    later = film("--scale", 1, "--from-second", 0.1)  # at 50 frames a second
    assert size(later)[0] == frames - 5
    assert about(later)["first_step"] == 5
    assert about(later)["return_before"] == 5.0
    part = film("--scale", 1, "--from-second", 0.1, "--seconds", 0.04)
    assert size(part)[0] == about(part)["num_frames"] == 2


def test_tiled(film: Callable[..., Path], cli: Cli, tiny_run: Any) -> None:
    path = film("--scale", 1, "--tiled", "--episodes", 3)
    count, height, width = size(path)
    told = about(path)
    rows, columns = told["tiles"]
    assert (height, width) == (404 * rows - 4, 604 * columns - 4)
    assert rows * columns >= 3
    played = json.loads(cli("evaluate", tiny_run.directory, "--episodes", 3, "--json").out)
    assert [episode["episodic_return"] for episode in told["episodes"]] == played["returns"]
    assert count == 1 + max(played["lengths"])
    assert [path.name for path in path.parent.glob("*.mp4")] == ["film.mp4"]


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_an_animation_and_its_size(cli: Cli, tiny_run: Any, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"film.{suffix}"
    outcome = cli("record", tiny_run.directory, "--scale", 1, "--output", path)
    assert outcome.code == 0
    assert outcome.out == f"{path}\n"
    assert outcome.err == f"film.{suffix} has {path.stat().st_size / 1e3:.1f} kB.\n"
    told = json.loads((tmp_path / f"film.{suffix}.json").read_text())
    with Image.open(path) as image:
        assert image.size == (600, 400)
        times = []
        for number in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(number)
            image.load()
            times.append(image.info["duration"])
    assert sum(times) == 20 * told["num_frames"]  # as in the game: 50 a second
    assert told["num_frames"] == told["episodic_length"] + 1


def test_options_go_with_an_episode_of_training(film: Callable[..., Path]) -> None:
    path = film("--training-episode", 0, "--scale", 1, "--caption", "--seconds", 0.1)
    count, height, width = size(path)
    assert count == 5
    assert height > 400
    assert width == 600


def test_options_go_with_what_comes_with_the_package(cli: Cli, tmp_path: Path) -> None:
    words = ("--tiled", "--episodes", 2, "--seconds", 0.1, "--caption", "--scale", 1)
    path = tmp_path / "film.gif"
    outcome = cli("record", "cartpole", "--pretrained", *words, "--output", path)
    assert outcome.code == 0, outcome.err
    told = json.loads((tmp_path / "film.gif.json").read_text())
    assert told["num_frames"] == 5
    assert told["action_names"] == ["left", "right"]
    assert len(told["episodes"]) == 2
    with Image.open(path) as image:
        assert image.size[0] == 2 * 600 + 4
        assert image.size[1] > 400


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--tiled"], "--tiled shows several episodes at once: expected --episodes 2 to 64, got 1"),
        (["--tiled", "--episodes", 65], "expected --episodes 2 to 64, got 65"),
        (["--tiled", "--training-episode", 0], "--tiled does not go with --training-episode"),
        (["--seconds", 0], "--seconds: expected a number above 0, up to 1e+09, got 0."),
        (["--seconds", "1e308"], "--seconds: expected a number above 0, up to 1e+09, got 1e+308."),
        (["--seconds", "long"], "--seconds: expected a number, got 'long'"),
        (["--from-second", -1], "--from-second: expected a number, 0 to 1e+09, got -1."),
        (["--from-second", "1e308"], "--from-second: expected a number, 0 to 1e+09, got 1e+308."),
        (
            ["--output", 201 * "x" + ".mp4"],
            "--output: expected a name of at most 200 bytes, got 205",
        ),
        (["--from-second", 10_000], "--from-second: the episode lasts"),
        (["--scale", 17], "--scale: expected 1 to 16, got 17."),
        (["--scale", 0], "--scale: expected a whole number, 1 or more, got '0'"),
    ],
)
def test_what_is_refused(
    cli: Cli, tiny_run: Any, tmp_path: Path, words: list[Any], text: str
) -> None:
    path = tmp_path / "film.mp4"
    outcome = cli("record", tiny_run.directory, "--output", path, *words)
    assert outcome.code == 2
    assert text in outcome.err
    assert outcome.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_recording_and_leaves_nothing(
    cli: Cli, tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    add = VideoWriter.add

    def interrupted(self: VideoWriter, frame: Any) -> None:
        add(self, frame)
        assert signal.getsignal(number) != signal.SIG_DFL
        os.kill(os.getpid(), number)

    monkeypatch.setattr(VideoWriter, "add", interrupted)
    outcome = cli("record", tiny_run.directory, "--output", tmp_path / "film.mp4", "--scale", 1)
    assert outcome.code == 130
    assert "recording was stopped" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_option_with_its_bounds(cli: Cli) -> None:
    text = " ".join(cli("record", "--help").out.split())
    for words in (
        "--tiled show the episodes at once, in one video; needs --episodes N, 2 to 64",
        "--caption, --no-caption",
        "--scale N each pixel becomes a square of N by N, 1 to 16",
        "--from-second S begin at second S of an episode, 0 or more (default: 0)",
        "--seconds N show N seconds of an episode, above 0 (default: to its end)",
        ".mp4, .webm, .gif or .webp",
    ):
        assert words in text


# --- names ----------------------------------------


def test_a_training_s_video_is_not_replaced_by_that_of_another_episode(own_run: Path) -> None:
    run = rlagents.open_run(own_run)
    (path,) = run.record(scale=1)
    videos = own_run / "videos"
    # As if the training had recorded an episode of the same step and return.
    told = about(path) | {"seed": 1}
    path.with_suffix(".json").write_text(json.dumps(told))
    path.write_bytes(b"a training's")
    (other,) = run.record(scale=1)
    assert other == videos / f"{path.stem}-2.mp4"
    assert path.read_bytes() == b"a training's"
    assert about(path) == told
    # The same episode again takes its own file's place.
    (again,) = run.record(scale=2)
    assert again == other
    assert size(other)[1] == 800


def test_tiles_have_a_name_of_their_own(own_run: Path) -> None:
    run = rlagents.open_run(own_run)
    before = {path.name for path in (own_run / "videos").iterdir()}
    (path,) = run.record(2, tiled=True, scale=1, seconds=0.1)
    episodes = about(path)["episodes"]
    mean = sum(episode["episodic_return"] for episode in episodes) / 2
    assert path.name == f"tiled-step-{about(path)['step']}-episodes-2-return-{mean:g}.mp4"
    new = {path.name for path in (own_run / "videos").iterdir()} - before
    assert new == {path.name, f"{path.stem}.json"}
    assert run.record(2, tiled=True, scale=1, seconds=0.1) == [path]
    assert run.record(2, seed=77, tiled=True, scale=1, seconds=0.1) != [path]


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", '{"episodes": [{}]}', '{"seed": 2}'])
def test_a_file_that_cannot_be_told_apart_is_not_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "film.mp4"
    assert beside_others(path, [1]) == path
    path.touch()
    assert beside_others(path, [1]) == tmp_path / "film-2.mp4"
    path.with_suffix(".json").write_text(text)
    assert beside_others(path, [1]) == tmp_path / "film-2.mp4"
    path.with_suffix(".json").write_text('{"seed": 1}')
    assert beside_others(path, [1]) == path
    assert beside_others(path, None) == tmp_path / "film-2.mp4"
    path.with_suffix(".json").write_text('{"episodes": [{"seed": 1}, {"seed": 2}]}')
    assert beside_others(path, [1, 2]) == path


def test_an_explicit_output_replaces_what_is_there(film: Callable[..., Path]) -> None:
    first = about(film("--scale", 1, "--seed", 3))
    second = about(film("--scale", 1, "--seed", 4))
    assert first["seed"] != second["seed"]


# --- in a training ----------------------------------------


def test_recording_caption_is_for_a_trainings_videos(
    cli: Cli, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    heights = []
    for caption in ("false", "true"):
        more = ("--total-steps", 8, "--evaluation.period-steps", 8, "--recording.scale", 1)
        words = ("--recording.caption", caption, "--runs-dir", tmp_path, "--name", caption)
        outcome = cli("train", "cartpole-dqn", *tiny, *more, *words)
        assert outcome.code == 0, outcome.err
        (path,) = (tmp_path / caption / "videos").glob("*.mp4")
        heights.append(size(path)[1])
    assert heights[0] == 400 < heights[1]


@pytest.mark.parametrize(
    "target", ["rlagents.mp4.Mp4Writer._add", "rlagents.mp4.Mp4Writer._finish", "os.replace"]
)
def test_a_full_disk_while_recording_ends_no_training(
    cli: Cli, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    replace = os.replace

    def fail(*arguments: Any, **_: object) -> None:
        if target == "os.replace" and "videos" not in str(arguments[1]):
            return replace(*arguments)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(target, fail)
    words = ("--runs-dir", tmp_path, "--name", "run")
    outcome = cli("train", "cartpole-dqn", *tiny, *words)
    assert outcome.code == 0, outcome.err
    run = rlagents.open_run(tmp_path / "run")
    assert run.status()["state"] == "finished"
    log = (run.directory / "run.log").read_text()
    assert log.count("VideoObserver is switched off") == 1
    assert "No space left" in log
    assert not list((run.directory / "videos").iterdir())


def test_a_full_disk_is_one_sentence_of_record(
    cli: Cli, tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rlagents.mp4.Mp4Writer._add", fail)
    outcome = cli("record", tiny_run.directory, "--output", tmp_path / "film.mp4")
    assert outcome.code == 1
    assert "cannot be written: [Errno 28] No space left on device" in outcome.err
    assert "[env] id" not in outcome.err
    assert not list(tmp_path.iterdir())
