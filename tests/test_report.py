"""The page about a run: what stands in it, that it needs nothing else, and which video it shows."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fake_runs import write_run, write_video

from rlagents import report
from rlagents.errors import RLAgentsError, UsageError
from rlagents.history import read_history
from rlagents.report import MAX_VIDEO_BYTES, choose_video, list_videos, write_report
from rlagents.run import RunFolder

Cli = Callable[..., Any]


class Page(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.rows: list[list[str]] = []
        self.in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.in_cell = False

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.in_cell:
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return write_run(
        tmp_path / "runs",
        "mine",
        seed=4,
        returns=[1.0, 2.0, 6.0],
        evaluations=[[1, 3], [7, 9], [5, 6]],
        learning_rate=2.5e-4,
    )


def read(folder: RunFolder, **options: Any) -> tuple[str, Page]:
    output = folder.directory.parent / "page.html"
    write_report(folder.directory, output, **options)
    text = output.read_text(encoding="utf-8")
    return text, Page(text)


# --- what stands in it ----------------------------------------


def test_the_page_says_what_was_trained_and_how_it_went(folder: RunFolder) -> None:
    _, page = read(folder)
    for text in (
        *("pong-dqn, seed 4", "run mine", "8.00", "± 1.00, 2 episodes, step 200", "5.50"),
        *("± 0.50, 2 episodes, step 300", "3.00", "mean of the last 3 episodes"),
    ):
        assert text in page.text, text
    for row in (
        *(["environment", "pong"], ["agent", "dqn"], ["recipe", "pong-dqn"], ["seed", "4"]),
        *(["state", "finished"], ["agent steps", "300 of 1,000"], ["training episodes", "3"]),
        *(["training time", "2 min 30 s"], ["memory", "8.0 GB"], ["git commit", "abc123"]),
        *(["threads", "2"], ["torch", "2.13.0"], ["system", "Linux"], ["gpu", "none"]),
        *(["learning_rate", "0.00025"], ["n_step", "1"], ["id", "pong"], ["replay", "none"]),
    ):
        assert row in page.rows, row


def test_the_table_of_evaluations(folder: RunFolder) -> None:
    text, page = read(folder)
    start = page.rows.index(
        ["step", "mean return", "std", "IQM", "worst", "best", "episodes", "time"]
    )
    assert page.rows[start + 1 : start + 4] == [
        ["100", "2.00", "1.00", "2.00", "1", "3", "2", "50 s"],
        ["200", "8.00", "1.00", "8.00", "7", "9", "2", "1 min 40 s"],
        ["300", "5.50", "0.50", "5.50", "5", "6", "2", "2 min 30 s"],
    ]
    assert text.count('class="best"') == 1
    assert '<tr class="best"><td>200</td>' in text


def test_the_curve_is_drawn_for_wide_and_for_narrow_pages(folder: RunFolder) -> None:
    text, page = read(folder)
    assert page.tags.count("svg") == 2
    for name in ("wide", "narrow"):
        picture = text[text.index(f'<div class="{name}"') :]
        picture = picture[: picture.index("</svg>")]
        assert ">agent steps</text>" in picture
        assert picture.count("var(--training)") == 1
        assert "var(--evaluation)" in picture
        assert not re.search(r"#[0-9a-f]{6}", picture)  # light and dark decide on every colour
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids)) > 20
    for used in re.findall(r'(?:url\(|href=")#([^)"]*)', text):
        assert used in ids


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", "new")
    (folder.directory / "status.json").unlink()
    _, page = read(folder)
    assert "No episode is finished yet" in page.text
    assert "There is no evaluation yet." in page.text
    assert ["state", "not known"] in page.rows
    assert "svg" not in page.tags


def test_the_state_of_a_run(folder: RunFolder) -> None:
    folder.write_status("failed", 20, error="the disk is full")
    _, page = read(folder)
    assert ["state", "failed"] in page.rows
    assert ["error", "the disk is full"] in page.rows
    status = {"state": "running", "step": 20, "heartbeat": 0.0}
    (folder.directory / "status.json").write_text(json.dumps(status))
    assert ["state", "running, last heard of on 1970-01-01 00:00 UTC"] in read(folder)[1].rows


# --- that it needs nothing else ----------------------------------------


def test_the_page_needs_nothing_from_outside(folder: RunFolder) -> None:
    write_video(folder, 200)
    text, page = read(folder)
    assert not {"script", "link", "iframe", "img", "object", "embed", "form"} & set(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on"), name
        if name in ("src", "href", "xlink:href", "poster", "action"):
            assert value is not None
            assert value.startswith(("data:video/", "#")), value[:80]
    assert "://" not in text
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert "default-src 'none'" in text


def test_it_is_made_for_the_dark_and_for_telephones(folder: RunFolder) -> None:
    text, _ = read(folder)
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert "max-width: 36rem" in text


def test_everything_from_files_is_escaped(tmp_path: Path) -> None:
    bad = "<script>alert('1')</script>\"&amp;<img src=x>"
    folder = write_run(
        tmp_path / "runs", "<b>&", recipe=bad, env=bad, returns=[1], **{"<i>": bad, "list": [bad]}
    )
    path = folder.directory / "config.json"
    manifest = json.loads(path.read_text())
    manifest |= {"versions": {bad: bad}, "hardware": {bad: bad}, "git_commit": bad}
    path.write_text(json.dumps(manifest))
    folder.write_status("failed", 1, error=bad)
    text, page = read(folder)
    assert not {"script", "img", "i", "b"} & set(page.tags)
    assert text.count("&lt;script&gt;") >= 8
    assert [bad, bad] in page.rows
    assert f"{bad}, seed 1" in page.text
    assert "rlagents record" in page.text


# --- the video ----------------------------------------


def embedded(page: Page) -> bytes:
    (source,) = [value for name, value in page.attributes if name == "src"]
    assert source is not None
    head, _, content = source.partition(";base64,")
    assert head == "data:video/mp4"
    return base64.b64decode(content, validate=True)


def test_the_best_evaluations_newest_video_is_embedded(folder: RunFolder) -> None:
    for step in (100, 200, 300):
        for episode in (0, 1):
            path = write_video(folder, step, episode=episode)
            os.utime(path, (1000 - episode, 1000 - episode))  # episode 0 is the newest
    _, page = read(folder)
    assert embedded(page) == (folder.videos / "step-200-episode-0-return-25.mp4").read_bytes()
    assert "an evaluation at step 200, return 25, 1,500 agent steps, 1 min 40 s" in page.text
    assert {"controls", "playsinline"} <= {name for name, _ in page.attributes}


def test_without_a_video_of_the_best_evaluation_it_is_the_last(folder: RunFolder) -> None:
    history = read_history(folder.directory, folder.directory.parent)
    assert choose_video(history, None) is None
    training = write_video(folder, 900, training=True)
    assert choose_video(history, None) == list_videos(folder)[0]
    last = write_video(folder, 300)
    write_video(folder, 100)
    assert [video.path for video in list_videos(folder)][1:] == [last, training]
    chosen = choose_video(history, None)
    assert chosen is not None
    assert chosen.path == last


def test_a_video_of_ones_choice(folder: RunFolder) -> None:
    write_video(folder, 200)
    other = write_video(folder, 20, training=True)
    _, page = read(folder, video=other.stem)
    assert embedded(page) == other.read_bytes()
    assert "an episode of training at step 20" in page.text
    _, page = read(folder, video="none")
    assert "video" not in page.tags
    assert "at play" not in page.text


def test_without_any_video_the_page_says_how_to_make_one(folder: RunFolder) -> None:
    _, page = read(folder)
    assert "video" not in page.tags
    assert f"To make one: rlagents record {folder.directory}" in page.text


def test_only_whole_videos_count(folder: RunFolder) -> None:
    whole = write_video(folder, 200)
    webm = write_video(folder, 100).rename(folder.videos / "step-100-episode-0-return-1.5.webm")
    (folder.videos / "step-100-episode-0-return-1.5.json").write_text("{}")
    content = whole.read_bytes()
    for name in (
        *(".step-300-episode-0-return-1-77.part", ".step-300-episode-0-return-1.mp4"),
        *("step-200-episode-0-return-25.gradient.mp4", "step-300-episode-0-return-1.mp4"),
        *("step-300-episode-0-return-1.gif", "holiday.mp4"),
    ):
        (folder.videos / name).write_bytes(content)
    assert [video.path for video in list_videos(folder)] == [webm, whole]
    text, page = read(folder, video=webm.stem)
    assert 'src="data:video/webm;base64,' in text
    assert "an evaluation at step 100" in page.text  # its JSON says no more


@pytest.mark.parametrize("about", ["", "[]", '{"episodic_return": 1}', '{"episodic_return": "x"}'])
def test_a_video_whose_json_is_damaged_is_shown_all_the_same(folder: RunFolder, about: str) -> None:
    path = write_video(folder, 200)
    path.with_suffix(".json").write_text(about)
    _, page = read(folder)
    assert embedded(page) == path.read_bytes()


def test_a_video_that_mails_refuse_is_refused(folder: RunFolder, cli: Cli) -> None:
    path = write_video(folder, 200, size=MAX_VIDEO_BYTES + 1)
    output = folder.directory / "x.html"
    words = ("report", folder.directory, "--output", output)
    outcome = cli(*words)
    assert outcome.code == 2
    assert f"{path} has 25.0 MB" in outcome.err
    assert "--video none" in outcome.err
    small = write_video(folder, 100)
    assert f"--video {small.stem}" in cli(*words).err
    assert not output.exists()
    assert cli(*words, "--video", "none").code == 0
    with path.open("r+b") as file:
        file.truncate(MAX_VIDEO_BYTES)
    assert choose_video(read_history(folder.directory, Path()), None) is not None


def test_an_unknown_video_is_refused_with_the_nearest_name(folder: RunFolder, cli: Cli) -> None:
    path = write_video(folder, 200)
    for wanted in (path.name, "step-200-episode-0-return-26", "../config"):
        outcome = cli("report", folder.directory, "--output", "x.html", "--video", wanted)
        assert outcome.code == 2
        assert f"no video {wanted!r}" in outcome.err
        assert "none" in outcome.err
    assert (
        f"did you mean {path.stem!r}"
        in cli(*("report", folder.directory, "--output", "x.html", "--video", path.name)).err
    )
    assert not Path("x.html").exists()


# --- where it goes ----------------------------------------


def test_the_command(folder: RunFolder, cli: Cli, tmp_path: Path) -> None:
    output = tmp_path / "made" / "page.html"
    words = ("report", "mine", "--runs-dir", folder.directory.parent, "--output", output)
    outcome = cli(*words)
    assert (outcome.code, outcome.out, outcome.err) == (0, f"{output}\n", "")
    output.write_text("old")
    assert cli(*words).code == 0
    assert "<!doctype html>" in output.read_text()
    assert list(output.parent.iterdir()) == [output]


def test_places_that_are_refused(folder: RunFolder, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").touch()
    for name, says in (
        *(("x.htm", "ends in .html"), ("x", "ends in .html"), ("folder.html", "is a folder")),
        ("file/x.html", "cannot be written"),
    ):
        outcome = cli("report", folder.directory, "--output", tmp_path / name)
        assert outcome.code == 2
        assert says in outcome.err
    assert list((tmp_path / "folder.html").iterdir()) == []
    outcome = cli("report", folder.directory)
    assert outcome.code == 2
    assert "--output" in outcome.err


def test_a_page_that_cannot_be_finished_leaves_the_old_one(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "page.html"
    output.write_text("old")

    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RLAgentsError, match="No space left") as caught:
        write_report(folder.directory, output)
    assert not isinstance(caught.value, UsageError)
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "runs"]


def test_a_page_that_is_interrupted_leaves_nothing(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(old: Path, new: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_report(folder.directory, tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_run_that_is_none(folder: RunFolder, cli: Cli, tmp_path: Path) -> None:
    runs = folder.directory.parent
    output = tmp_path / "not" / "x.html"
    outcome = cli("report", "mien", "--runs-dir", runs, "--output", output)
    assert outcome.code == 2
    assert "did you mean 'mine'" in outcome.err
    (folder.directory / "config.json").write_text('{"format": 99}')
    outcome = cli("report", "mine", "--runs-dir", runs, "--output", output)
    assert outcome.code == 2
    assert "not written by this version" in outcome.err
    assert not output.parent.exists()


def test_a_run_as_training_leaves_it(tiny_run: Any, tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    write_report(tiny_run.directory, output)
    page = Page(output.read_text(encoding="utf-8"))
    history = read_history(tiny_run.directory, tmp_path)
    chosen = choose_video(history, None)
    assert chosen is not None
    assert history.best_evaluation is not None
    assert chosen.step == history.best_evaluation.step
    assert embedded(page) == chosen.path.read_bytes()
    assert ["hidden_sizes", "[16]"] in page.rows
    assert ["learning_starts", "64"] in page.rows
    assert report.NO_VIDEO == "none"
