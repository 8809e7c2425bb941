"""Values of any kind in a run's files: the page gets the kinds that it expects."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from watch_tools import Browser, episode_line, fake_run, fake_video

from rlagents.watch.app import create_app
from rlagents.watch.rebuild import Rebuilder
from rlagents.watch.values import is_nested_too_deeply, number, text

VIDEO = "step-200-episode-0-return-9"
NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    fake_run(tmp_path / "runs" / "good")
    return tmp_path / "runs"


@pytest.fixture
def browser(runs: Path) -> Iterator[Browser]:
    rebuilder = Rebuilder()
    yield Browser(create_app(runs, rebuilder=rebuilder))
    rebuilder.close()


def listed(browser: Browser) -> dict[str, dict[str, Any]]:
    found = {run["id"]: run for run in browser.get("/api/runs").json["runs"]}
    assert found["good"]["problem"] is None
    return found


def nested(levels: int) -> Any:
    value: Any = NAN
    for _ in range(levels):
        value = [value]
    return value


def test_which_values_are_texts_and_numbers() -> None:
    assert [text(value) for value in ("a", "", "\ud800b", None, 1, ["a"])] == (
        ["a", "", "?b", None, None, None]
    )
    given = (0, -1.5, 10**30, 10**400, NAN, -INFINITY, True, "1", None, [1])
    assert [number(value) for value in given] == [0, -1.5, 10**30, *[None] * 7]


def test_how_deep_is_too_deep() -> None:
    assert not is_nested_too_deeply(nested(31))
    assert is_nested_too_deeply(nested(32))
    assert is_nested_too_deeply({"a": {"b": nested(30)}})
    assert not is_nested_too_deeply({"a": 1})


@pytest.mark.parametrize(
    "value", [["a"], {"a": 1}, True, "\ud800", "12", NAN, 10**400, nested(600)]
)
def test_a_summary_has_texts_and_numbers(browser: Browser, runs: Path, value: Any) -> None:
    config = {"seed": value, "total_steps": value, "env": {"id": value}, "agent": {"name": value}}
    status = {"step": value, "heartbeat": value, "error": value}
    fake_run(runs / "bad", config=config, recipe=value, status=status)
    run = listed(browser)["bad"]
    for key in ("recipe", "env_id", "agent"):
        assert run[key] is None or run[key].encode()
    for key in ("seed", "step", "total_steps", "updated"):
        assert run[key] is None or type(run[key]) in (int, float)
    if isinstance(value, list) and isinstance(value[0], list):
        assert "nested too deeply" in run["problem"]
        assert "nested too deeply" in browser.get("/api/run/bad").error
    else:
        error = browser.get("/api/run/bad").json["error"]
        assert error is None or error.encode()


@pytest.mark.parametrize("state", ["running", "finished"])
def test_a_sign_of_life_that_is_no_time(browser: Browser, runs: Path, state: str) -> None:
    run = fake_run(runs / "bad", status={"state": state, "heartbeat": 10**400})
    os.utime(run / "config.json", (5000.0, 5000.0))
    assert listed(browser)["bad"]["updated"] == 5000.0


@pytest.mark.parametrize("value", [["a"], {"a": 1}, True, "12", None, 10**400])
@pytest.mark.parametrize("stem", [VIDEO, "another"])
def test_a_video_has_numbers(browser: Browser, runs: Path, value: Any, stem: str) -> None:
    keys = ("step", "episodic_return", "episodic_length", "frames_per_second", "num_frames", "seed")
    fake_video(fake_run(runs / "bad"), stem, **dict.fromkeys(keys, value))
    (video,) = browser.get("/api/run/bad").json["videos"]
    by_name = {"step": 200, "episode": 0, "return": 9.0} if stem == VIDEO else {}
    for key in ("step", "episode", "return", "length", "frames_per_second", "num_frames", "seed"):
        assert video[key] == by_name.get(key)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("frame", "x"), ("action", {"a": 1}), ("reward", ["1"]), ("frame", [[1]])),
        *(("values", 5), ("values", ["x"]), ("values", [[0.5, "x"]]), ("values", [{"a": 1}])),
        *(("frames_per_second", 0), ("frames_per_second", "60"), ("num_frames", -1)),
        *(("num_frames", [3]), ("frames_per_second", NAN)),
    ],
)
def test_steps_that_cannot_be_drawn(browser: Browser, runs: Path, key: str, value: Any) -> None:
    path = fake_video(fake_run(runs / "bad"), VIDEO, frames_per_second=50.0).with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    answer = browser.get(f"/api/run/bad/video/{VIDEO}/data")
    assert answer.status == 400
    assert answer.error == f"{path.name} is damaged: its {key} cannot be drawn."
    (video,) = browser.get("/api/run/bad").json["videos"]
    assert video["frames_per_second"] == (None if key == "frames_per_second" else 50)
    assert video["num_frames"] == (None if key == "num_frames" else 3)


def test_steps_without_values_can_be_drawn(browser: Browser, runs: Path) -> None:
    path = fake_video(fake_run(runs / "two"), VIDEO).with_suffix(".json")
    values = [None, [0.5, None]]
    changed = {"values": values, "reward": [1, NAN], "action": None}
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    told = browser.get(f"/api/run/two/video/{VIDEO}/data").json
    assert (told["values"], told["reward"], told["action"]) == (values, [1, None], None)


def test_a_recipe_that_is_a_list_can_be_compared(browser: Browser, runs: Path) -> None:
    fake_run(runs / "bad", recipe=["a"], returns=[1.0, 2.0])
    answer = browser.get("/api/curves?run=bad")
    assert [group["label"] for group in answer.json["groups"]] == ["cartpole"]


def test_a_step_that_is_no_number_of_steps(browser: Browser, runs: Path) -> None:
    run = fake_run(runs / "bad", returns=[1.0])
    line = episode_line(1, 2.0).split(",")
    line[1] = "1e300"
    with (run / "episodes.csv").open("a") as file:
        file.write(",".join(line) + "\n")
    assert browser.get("/api/run/bad/curves").json["training"]["mean"]["step"] == [10, 2**53]


def test_names_that_are_no_text(browser: Browser, runs: Path) -> None:
    run = fake_run(runs / "bad")
    fake_video(run, VIDEO)
    videos = os.fsencode(run / "videos")
    for ending in (b"mp4", b"json"):
        os.rename(
            os.path.join(videos, VIDEO.encode() + b"." + ending),
            os.path.join(videos, b"\xff." + ending),
        )
    assert browser.get("/api/run/bad").json["videos"] == []
    os.rename(os.fsencode(run), os.path.join(os.fsencode(runs), b"b\xffd"))
    assert "rename it" in listed(browser)["b\\udcffd"]["problem"]
    assert json.loads(browser.get("/api/runs").body.decode("utf-8"))
