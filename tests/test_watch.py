"""The page's server: what it says of runs, and how it gives out their files."""

from __future__ import annotations

import gzip
import json
import math
import os
import platform
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from watch_tools import (
    EPISODES,
    Browser,
    episode_line,
    evaluation_line,
    fake_run,
    fake_video,
)

from rlagents.watch import summaries, videos
from rlagents.watch.app import create_app
from rlagents.watch.library import Library, Recent
from rlagents.watch.rebuild import Rebuilder
from rlagents.watch.summaries import sample_episodes

VIDEO = "step-200-episode-0-return-9"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def browser(runs: Path) -> Iterator[Browser]:
    rebuilder = Rebuilder()
    yield Browser(create_app(runs, rebuilder=rebuilder))
    rebuilder.close()


def summaries_of(browser: Browser) -> dict[str, dict[str, Any]]:
    answer = browser.get("/api/runs")
    assert answer.status == 200
    return {run["id"]: run for run in answer.json["runs"]}


# --- the list ----------------------------------------


def test_an_empty_folder(browser: Browser, runs: Path) -> None:
    assert browser.get("/api/runs").json == {"runs_dir": str(runs), "runs": []}
    assert browser.get("/").status == 200
    runs.rmdir()  # even if it goes
    assert browser.get("/api/runs").json["runs"] == []


def test_the_list_says_what_a_run_is_and_how_it_goes(browser: Browser, runs: Path) -> None:
    run = fake_run(
        runs / "one", returns=[1.0, 2.0, 6.0], evaluations=[(100, 5.0), (200, 9.0), (300, 7.0)]
    )
    fake_video(run, VIDEO)
    assert summaries_of(browser) == {
        "one": {
            "id": "one",
            "recipe": "cartpole-dqn",
            "env_id": "cartpole",
            "agent": "dqn",
            "seed": 1,
            "state": "finished",
            "step": 700,
            "total_steps": 1000,
            "updated": 1000.0,
            "best_evaluation": {"step": 200, "mean_return": 9.0},
            "last_evaluation": {"step": 300, "mean_return": 7.0},
            "recent_return": 3.0,
            "success_rate": None,
            "episodes": 3,
            "videos": 1,
            "spark": [1.0, 2.0, 6.0],
            "problem": None,
        }
    }


def test_the_list_is_newest_first_and_follows_changes(browser: Browser, runs: Path) -> None:
    fake_run(runs / "a", status={"heartbeat": 10.0})
    fake_run(runs / "b", status={"heartbeat": 30.0})
    fake_run(runs / "c", status={"heartbeat": 20.0})
    (runs / "no-run").mkdir()
    (runs / "file").write_text("")
    fake_run(runs / ".hidden")
    assert list(summaries_of(browser)) == ["b", "c", "a"]
    with (runs / "a" / "evaluations.csv").open("a") as file:
        file.write(evaluation_line(500, 3.5) + "\n")
    shutil.rmtree(runs / "b")
    found = summaries_of(browser)
    assert list(found) == ["c", "a"]
    assert found["a"]["best_evaluation"] == {"step": 500, "mean_return": 3.5}


def test_a_run_that_has_just_begun(browser: Browser, runs: Path) -> None:
    run = fake_run(runs / "new")
    for name in ("status.json", "episodes.csv", "evaluations.csv", "metrics.jsonl"):
        (run / name).unlink()
    (run / "videos").rmdir()
    found = summaries_of(browser)["new"]
    assert (found["state"], found["step"], found["episodes"]) == ("running", 0, 0)
    assert found["best_evaluation"] is None
    assert found["updated"] == pytest.approx(time.time(), abs=60)
    assert browser.get("/api/run/new").json["evaluations"] == []
    assert browser.get("/api/run/new/curves").json["metrics"] == {}
    os.utime(run / "config.json", (1000, 1000))
    assert summaries_of(browser)["new"]["state"] == "lost"  # its start was killed


def test_a_running_run_is_lost_when_its_process_is(browser: Browser, runs: Path) -> None:
    here = {"state": "running", "host": platform.node(), "heartbeat": time.time()}
    fake_run(runs / "alive", status=here | {"pid": os.getpid()})
    fake_run(runs / "dead", status=here | {"pid": 2**22 + 1})  # beyond the largest number
    # This process is there, but it began after that sign of life: the number was used again.
    fake_run(runs / "reused", status=here | {"pid": os.getpid(), "heartbeat": 1000.0})
    # Of another machine's process, or an unnamed one's, only its sign of life is known.
    for host, more in (("away", {"host": "elsewhere"}), ("unnamed", {"host": None})):
        fake_run(runs / host, status=here | more | {"pid": 2**22 + 1})
        fake_run(runs / f"{host}-old", status=here | more | {"heartbeat": time.time() - 900})
    states = {name: one["state"] for name, one in summaries_of(browser).items()}
    assert states == {
        "alive": "running",
        "dead": "lost",
        "reused": "lost",
        "away": "running",
        "away-old": "lost",
        "unnamed": "running",
        "unnamed-old": "lost",
    }


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("config.json", "{", "cannot be read"),
        ("config.json", '{"format": 2}', "not written by this version"),
        ("config.json", '{"format": 1}', "damaged"),
        ("config.json", "[" * 100_000, "cannot be read"),
        ("config.json", " " * (1 << 22) + "{}", "larger than 4 MB"),
        ("config.json", None, "missing"),
        ("status.json", "{", "cannot be read"),
        ("status.json", '{"state": "dreaming"}', "not written by this version"),
    ],
)
def test_a_run_that_cannot_be_read_costs_the_others_nothing(
    browser: Browser, runs: Path, name: str, text: str | None, sentence: str
) -> None:
    fake_run(runs / "good")
    fake_run(runs / "bad")
    if text is None:
        (runs / "bad" / name).unlink()
    else:
        (runs / "bad" / name).write_text(text)
    found = summaries_of(browser)
    assert found["good"]["state"] == "finished"
    assert found["bad"]["state"] == "unreadable"
    assert sentence in found["bad"]["problem"]
    assert set(found["bad"]) == set(found["good"])
    answer = browser.get("/api/run/bad")
    assert answer.status == 400
    assert sentence in answer.error
    assert browser.get("/api/run/good").status == 200
    assert browser.get("/run/bad").status == 200  # the page shows the sentence


def test_a_config_that_lost_its_tables(browser: Browser, runs: Path) -> None:
    fake_run(runs / "bad", config={"env": 7})
    assert "no tables env and agent" in summaries_of(browser)["bad"]["problem"]


def test_a_link_out_of_the_folder_is_not_followed(browser: Browser, runs: Path) -> None:
    outside = fake_run(runs.parent / "outside")
    (runs / "link").symlink_to(outside)
    assert "link out of" in summaries_of(browser)["link"]["problem"]
    assert browser.get("/api/run/link").status == 404


def test_names_that_no_address_can_hold_cost_the_others_nothing(
    browser: Browser, runs: Path
) -> None:
    run = fake_run(runs / "räd")
    fake_video(run, f"{VIDEO}-é")
    fake_video(run, f"{VIDEO}-\udcff")  # a byte that is no UTF-8
    fake_run(runs / "bad-\udcff")
    summaries = summaries_of(browser)
    assert summaries["räd"]["problem"] is None
    assert "rename it" in summaries["bad-\\udcff"]["problem"]
    found = browser.get("/api/run/r%C3%A4d").json
    assert [video["id"] for video in found["videos"]] == [f"{VIDEO}-é"]


def test_a_link_to_itself_hides_no_run(browser: Browser, runs: Path) -> None:
    fake_run(runs / "one")
    (runs / "loop").symlink_to("loop")
    assert list(summaries_of(browser)) == ["one"]
    assert browser.get("/api/run/one").status == 200


# --- the light look at episodes.csv ----------------------------------------


def test_a_look_at_a_long_file_agrees_with_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "episodes.csv"
    count = 4000
    returns = [float(k // 10) for k in range(count)]
    lines = [episode_line(k, one) for k, one in enumerate(returns)]
    path.write_text("\n".join([EPISODES, *lines]) + "\n" + "39", encoding="utf-8")
    assert path.stat().st_size > summaries._SMALL_FILE
    sample = sample_episodes(path)
    assert sample.episodes == count
    assert sample.recent_return == np.mean(returns[-100:])
    assert len(sample.spark) == 40
    assert sample.spark == sorted(sample.spark)
    assert sample.spark[0] < 5
    assert sample.spark[-1] > 395


def test_a_short_file_is_read_wholly(tmp_path: Path) -> None:
    path = tmp_path / "episodes.csv"
    lines = [episode_line(k, float(k)) for k in range(80)]
    path.write_text("\n".join([EPISODES, *lines, "broken"]) + "\n")
    assert sample_episodes(path) == (80, 39.5, [2 * k + 0.5 for k in range(40)])
    for text in ("", EPISODES, EPISODES + "\n", "\n\n"):
        path.write_text(text)
        assert sample_episodes(path) == (0, None, [])


# --- one run ----------------------------------------


def test_a_run_in_full(browser: Browser, runs: Path) -> None:
    run = fake_run(
        runs / "one",
        returns=[1.0, 1.0, 4.0],
        evaluations=[(200, 9.0)],
        status={"state": "failed", "error": "out of paper"},
    )
    fake_video(run, VIDEO, action_names=["left", "right"])
    found = browser.get("/api/run/one").json
    assert found["config"]["agent"]["name"] == "dqn"
    assert found["versions"] == {"python": "3"}
    assert found["hardware"] == {"cores": 2}
    assert found["git_commit"] is None
    assert found["threads"] == 1
    assert found["reproducible"] is True
    assert found["error"] == "out of paper"
    assert found["action_names"] == ["left", "right"]
    assert found["evaluations"][0]["mean_return"] == 9.0
    assert found["evaluations"][0]["std_return"] == 0.5
    assert found["milestones"] == {
        "best": {
            **{"episode": 2, "step": 30, "wall_time_s": 1.5, "return": 4.0, "length": 10},
            "end": "terminated",
        },
        "worst": {
            **{"episode": 0, "step": 10, "wall_time_s": 0.5, "return": 1.0, "length": 10},
            "end": "terminated",
        },
        "first_point": found["milestones"]["best"],
    }
    assert found["can_rebuild"] is True
    assert found["why_not"] is None
    assert found["notes"] == []
    assert found["videos"] == [
        {
            "id": VIDEO,
            "kind": "evaluation",
            "step": 200,
            "episode": 0,
            "return": 9.0,
            "completed": None,
            "otherwise": None,
            "length": 2,
            "frames_per_second": 50.0,
            "num_frames": 3,
            "seed": 5,
            "overlays": [],
            "mime": "video/mp4",
            "wall_time_s": 2.0,
        }
    ]
    list_keys = set(browser.get("/api/runs").json["runs"][0])
    assert list_keys <= set(found)


def test_a_real_run(tiny_run: Any) -> None:
    browser = Browser(create_app(tiny_run.directory.parent))
    found = browser.get("/api/run/tiny").json
    assert (found["state"], found["step"], found["total_steps"]) == ("finished", 480, 480)
    assert [row["step"] for row in found["evaluations"]] == [200, 400, 480]
    assert [video["step"] for video in found["videos"]] == [200, 400, 480]
    assert found["videos"][0]["wall_time_s"] == found["evaluations"][0]["wall_time_s"]
    assert found["can_rebuild"] is True
    curves = browser.get("/api/run/tiny/curves").json
    assert [one["episode"] for one in curves["training"]["episodes"]] == list(
        range(found["episodes"])
    )
    assert {"charts/SPS", "eval/episodic_return"} <= set(curves["metrics"])
    mean = curves["training"]["mean"]["return"]
    assert mean[-1] == pytest.approx(found["recent_return"])
    for name in ("/", "/run/tiny", "/compare?run=tiny&run=tiny"):
        page = browser.get(name)
        assert page.status == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("env_id", "allowed", "says"),
    [
        ("cartpole", False, None),
        ("LunarLander-v3", False, None),
        ("my.module:Env-v0", False, "--allow-import"),
        ("/home/me/env.py:make", False, "--allow-import"),
        ("my.module:Env-v0", True, None),
    ],
)
def test_somebody_elses_code_runs_only_if_it_is_allowed(
    runs: Path, env_id: str, allowed: bool, says: str | None
) -> None:
    fake_run(runs / "one", returns=[1.0], config={"env": {"id": env_id}, "agent": {}})
    rebuilder = Rebuilder(command=["false"])
    browser = Browser(create_app(runs, allow_import=allowed, rebuilder=rebuilder))
    found = browser.get("/api/run/one").json
    assert found["can_rebuild"] is (says is None)
    if says is None:
        assert found["why_not"] is None
    else:
        assert says in found["why_not"]
        assert env_id in found["why_not"]
        refused = browser.post("/api/run/one/training/0")
        assert (refused.status, refused.error) == (400, found["why_not"])
    rebuilder.close()


def test_a_run_that_does_not_reproduce_itself_cannot_be_rebuilt(
    browser: Browser, runs: Path
) -> None:
    fake_run(runs / "one", returns=[1.0], reproducible=False, difference="step 3: reward")
    found = browser.get("/api/run/one").json
    assert found["can_rebuild"] is False
    assert "step 3: reward" in found["why_not"]


def test_notes_name_what_is_broken(browser: Browser, runs: Path) -> None:
    run = fake_run(runs / "one", returns=[1.0])
    with (run / "metrics.jsonl").open("a") as file:
        file.write("{\n}\n7\n")
    fake_video(run, VIDEO).with_suffix(".json").unlink()
    notes = browser.get("/api/run/one").json["notes"]
    assert notes[0] == "3 broken lines in metrics.jsonl were skipped."
    assert "JSON beside 1 of the videos" in notes[1]


# --- curves ----------------------------------------


def metric(step: int, **more: object) -> dict[str, object]:
    return {"step": step, "frames": step, "wall_time_s": step / 2} | more


def test_curves_of_a_run(browser: Browser, runs: Path) -> None:
    rows = [metric(10, **{"losses/td_loss": 0.5}), metric(20, **{"losses/td_loss": math.nan})]
    fake_run(runs / "one", returns=[1.0, 3.0], metrics=rows)
    curves = browser.get("/api/run/one/curves").json
    assert curves["metrics"] == {
        "losses/td_loss": {"step": [10, 20], "wall_time_s": [5, 10], "value": [0.5, None]}
    }
    assert curves["training"]["mean"] == {
        "step": [10, 20],
        "wall_time_s": [0.5, 1.0],
        "return": [1.0, 2.0],
    }
    assert [one["return"] for one in curves["training"]["episodes"]] == [1.0, 3.0]


def test_points_decides_how_many_there_are(browser: Browser, runs: Path) -> None:
    returns = [float((37 * k) % 101) for k in range(1000)]
    rows = [metric(k, **{"charts/SPS": float(k)}) for k in range(1000)]
    fake_run(runs / "one", returns=returns, metrics=rows)
    for points in (10, 100):
        curves = browser.get(f"/api/run/one/curves?points={points}").json
        shown = curves["training"]["episodes"]
        assert points / 2 <= len(shown) <= points
        for one in shown:  # each can be played
            assert returns[one["episode"]] == one["return"]
        assert {one["return"] for one in shown} >= {0.0, 100.0}
        assert points / 2 <= len(curves["metrics"]["charts/SPS"]["step"]) <= points
    assert len(browser.get("/api/run/one/curves").json["training"]["episodes"]) <= 800


@pytest.mark.parametrize("points", ["0", "1", "99999", "-3", "many", "", "1e2"])
def test_points_out_of_range_are_refused(browser: Browser, runs: Path, points: str) -> None:
    fake_run(runs / "one")
    answer = browser.get(f"/api/run/one/curves?points={points}")
    assert answer.status == 400
    assert "points: expected" in answer.error


@pytest.mark.parametrize("path", ["/api/run/one", "/api/run/one/curves"])
def test_what_has_not_changed_is_not_sent_again(browser: Browser, runs: Path, path: str) -> None:
    run = fake_run(runs / "one", returns=[1.0])
    first = browser.get(path)
    tag = first.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}'):
        again = browser.get(path, {"if-none-match": known})
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == tag
    assert browser.get(path, {"if-none-match": '"other"'}).status == 200
    with (run / "episodes.csv").open("a") as file:
        file.write(episode_line(1, 5.0) + "\n")
    changed = browser.get(path, {"if-none-match": tag})
    assert changed.status == 200
    assert changed.headers["etag"] != tag
    assert changed.json != first.json


def test_a_live_run_grows_and_a_resumed_one_shrinks(browser: Browser, runs: Path) -> None:
    run = fake_run(runs / "one", returns=[1.0, 2.0])
    path = "/api/run/one/curves"
    assert len(browser.get(path).json["training"]["episodes"]) == 2
    with (run / "episodes.csv").open("a") as file:
        file.write(episode_line(2, 7.0) + "\n" + "3,40,")  # half of a line
    assert len(browser.get(path).json["training"]["episodes"]) == 3
    (run / "new").write_text("\n".join([EPISODES, episode_line(0, 1.0)]) + "\n")
    os.replace(run / "new", run / "episodes.csv")
    assert len(browser.get(path).json["training"]["episodes"]) == 1


# --- groups ----------------------------------------


def test_runs_that_differ_in_their_seed_are_one_curve(browser: Browser, runs: Path) -> None:
    fake_run(runs / "a", seed=1, evaluations=[(0, 1.0), (100, 3.0)])
    other = fake_run(runs / "b", evaluations=[(0, 3.0), (100, 7.0), (200, 100.0)])
    manifest = json.loads((other / "config.json").read_text())
    manifest["config"]["seed"] = 2
    (other / "config.json").write_text(json.dumps(manifest))
    manifest["config"]["agent"]["learning_rate"] = 0.5
    fake_run(runs / "c", config=manifest["config"], evaluations=[(0, 0.0), (300, 9.0)])
    fake_run(runs / "empty")
    answer = browser.get("/api/curves?run=a&run=b&run=c&run=empty&what=evaluation").json
    pair, single = answer["groups"]
    assert pair["runs"] == ["a", "b"]
    assert pair["x"] == [0, 100, 200]
    assert pair["center"] == [2, 5, 51.5]  # the shorter one counts with its last value, 3
    assert (pair["low"], pair["high"]) == ([1, 3, 3], [3, 7, 100])
    assert single["runs"] == ["c"]
    assert single["low"] == single["center"] == single["high"]
    assert "learning_rate" in single["label"]
    assert "empty has no evaluation returns yet." in answer["notes"]
    assert any(note.endswith("ended earlier with their last value: a.") for note in answer["notes"])


def test_groups_of_long_runs_have_few_points(browser: Browser, runs: Path) -> None:
    fake_run(runs / "a", returns=[float(k) for k in range(1000)])
    (group,) = browser.get("/api/curves?run=a").json["groups"]
    assert len(group["x"]) == 400
    assert (group["x"][0], group["x"][-1]) == (10, 10000)
    assert group["center"][0] == 0
    assert group["center"][-1] == 949.5


def test_what_groups_show_is_chosen(browser: Browser, runs: Path) -> None:
    for seed, offset in enumerate([0.0, 0.0, 0.0, 0.0, 100.0]):
        config = {"seed": seed, "env": {"id": "cartpole"}, "agent": {"name": "dqn"}}
        returns, evaluations = [offset, offset], [(100, offset + 1), (300, offset + 1)]
        fake_run(runs / str(seed), config=config, returns=returns, evaluations=evaluations)
    all_runs = "&".join(f"run={seed}" for seed in range(5))

    def first(query: str) -> tuple[float, float]:
        (group,) = browser.get(f"/api/curves?{all_runs}{query}").json["groups"]
        return group["x"][0], group["center"][0]

    assert first("") == (10, 20)
    assert first("&x=wall_time_s") == (0.5, 20)
    assert first("&what=evaluation") == (100, 21)
    assert first("&what=evaluation&x=wall_time_s") == (1.0, 21)
    assert first("&statistic=iqm")[1] == 0  # of five, the middle three


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("", 400, "expected 1 to 32 runs"),
        ("run=a&x=frames", 400, "x: expected step or wall_time_s"),
        ("run=a&what=play", 400, "what: expected"),
        ("run=a&statistic=max", 400, "statistic: expected"),
        ("run=a&run=nobody", 404, "There is no run 'nobody'"),
        ("&".join(["run=a"] * 33), 400, "got 33"),
    ],
)
def test_groups_that_cannot_be_shown(
    browser: Browser, runs: Path, query: str, status: int, says: str
) -> None:
    fake_run(runs / "a", returns=[1.0])
    answer = browser.get(f"/api/curves?{query}")
    assert answer.status == status
    assert says in answer.error


def test_a_page_for_so_many_runs_at_most(browser: Browser, runs: Path) -> None:
    fake_run(runs / "a")
    assert browser.get("/compare?" + "&".join(["run=a"] * 32)).status == 200
    answer = browser.get("/compare?" + "&".join(["run=a"] * 33))
    assert answer.status == 400
    assert b"at most 32 runs, got 33" in answer.body


# --- videos ----------------------------------------


def test_a_video_and_parts_of_it(browser: Browser, runs: Path) -> None:
    video = fake_video(fake_run(runs / "one"), VIDEO)
    whole = video.read_bytes()
    path = f"/api/run/one/video/{VIDEO}"
    answer = browser.get(path)
    assert (answer.status, answer.body) == (200, whole)
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["accept-ranges"] == "bytes"
    for asked, begin, end in (("0-0", 0, 1), ("10-19", 10, 20), ("990-", 990, 1000)):
        part = browser.get(path, {"range": f"bytes={asked}"})
        assert (part.status, part.body) == (206, whole[begin:end])
        assert part.headers["content-range"] == f"bytes {begin}-{end - 1}/1000"
        assert part.headers["content-length"] == str(end - begin)
    assert browser.get(path, {"range": "bytes=-5"}).body == whole[-5:]
    beyond = browser.get(path, {"range": "bytes=1000-"})
    assert beyond.status == 416
    assert beyond.headers["content-range"] == "bytes */1000"
    head = browser.ask("HEAD", path)
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "1000")
    known = browser.get(path, {"if-none-match": answer.headers["etag"]})
    assert (known.status, known.body) == (304, b"")


def test_videos_are_never_compressed_and_json_is(browser: Browser, runs: Path) -> None:
    run = fake_run(runs / "one", returns=[1.0] * 50)
    fake_video(run, VIDEO)
    asks = {"accept-encoding": "gzip"}
    assert "content-encoding" not in browser.get(f"/api/run/one/video/{VIDEO}", asks).headers
    packed = browser.get("/api/run/one/curves", asks)
    assert packed.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(packed.body)) == browser.get("/api/run/one/curves").json


def test_which_files_are_videos(browser: Browser, runs: Path) -> None:
    run = fake_run(runs / "one", evaluations=[(10, 0.5), (200, 9.0)])
    fake_video(run, VIDEO)
    fake_video(run, "step-10-episode-1-return-0.5", step=10)
    fake_video(run, "training-step-30-episode-7-return-2", step=30, training=True)
    folder = run / "videos"
    (folder / "training-step-40-episode-8-return-3.mp4").write_bytes(b"without a JSON")
    fake_video(run, "tiled-step-200-episodes-4-return-9.5", tiles=[2, 2], episodes=[])
    (folder / f"{VIDEO}.gradient.mp4").write_bytes(b"overlay")
    (folder / f"{VIDEO}.perturbation.webm").write_bytes(b"of another format")
    (folder / f".{VIDEO}-77.part").write_bytes(b"half")
    (folder / ".step-1-episode-0-return-0.mp4").write_bytes(b"half")
    (folder / "notes.txt").write_text("")
    (folder / "step-300-episode-0-return-1.webm").write_bytes(b"webm")
    found = {video["id"]: video for video in browser.get("/api/run/one").json["videos"]}
    assert list(found) == [
        "step-10-episode-1-return-0.5",
        "training-step-30-episode-7-return-2",
        "training-step-40-episode-8-return-3",
        VIDEO,
        "tiled-step-200-episodes-4-return-9.5",
        "step-300-episode-0-return-1",
    ]
    assert found[VIDEO]["overlays"] == [{"method": "gradient"}]
    training = found["training-step-30-episode-7-return-2"]
    assert (training["kind"], training["episode"], training["wall_time_s"]) == ("training", 7, None)
    assert found["training-step-40-episode-8-return-3"]["kind"] == "training"
    tiled = found["tiled-step-200-episodes-4-return-9.5"]
    assert (tiled["kind"], tiled["step"], tiled["episode"]) == ("tiled", 200, None)
    assert tiled["wall_time_s"] == found[VIDEO]["wall_time_s"]
    lonely = found["step-300-episode-0-return-1"]  # without a JSON: what its name says
    assert (lonely["step"], lonely["return"], lonely["mime"]) == (300, 1.0, "video/webm")
    assert lonely["num_frames"] is None
    assert summaries_of(browser)["one"]["videos"] == 6
    overlay = f"/api/run/one/video/{VIDEO}/overlay"
    assert browser.get(f"{overlay}/gradient").body == b"overlay"
    missing = browser.get(f"{overlay}/grad-cam")
    assert missing.status == 404
    assert "no overlay 'grad-cam'" in missing.error


def test_the_json_of_a_video(browser: Browser, runs: Path) -> None:
    run = fake_run(runs / "one")
    sidecar = fake_video(run, VIDEO).with_suffix(".json")
    path = f"/api/run/one/video/{VIDEO}/data"
    assert browser.get(path).json == json.loads(sidecar.read_text())
    sidecar.write_text('{"reward": [NaN, Infinity, -Infinity, 1.5], "name": "NaN"}')
    assert browser.get(path).json == {"reward": [None, None, None, 1.5], "name": "NaN"}


@pytest.mark.parametrize("text", ["", "{", '{"frame": [1, 2', "[]", "\0\0\0"])
def test_a_damaged_json_of_a_video(browser: Browser, runs: Path, text: str) -> None:
    run = fake_run(runs / "one")
    sidecar = fake_video(run, VIDEO).with_suffix(".json")
    sidecar.write_text(text)
    answer = browser.get(f"/api/run/one/video/{VIDEO}/data")
    assert answer.status == 400
    assert f"{VIDEO}.json is damaged" in answer.error
    assert browser.get("/api/run/one").json["videos"][0]["return"] == 9.0  # as its name says
    assert browser.get(f"/api/run/one/video/{VIDEO}").status == 200
    sidecar.unlink()
    assert browser.get(f"/api/run/one/video/{VIDEO}/data").status == 404


def test_a_huge_json_of_a_video(
    browser: Browser, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(videos, "LARGEST_SIDECAR", 100)
    fake_video(fake_run(runs / "one"), VIDEO)
    answer = browser.get(f"/api/run/one/video/{VIDEO}/data")
    assert answer.status == 400
    assert "too large" in answer.error


def test_the_head_of_a_json_is_enough(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "one")
    sidecar = fake_video(run, VIDEO).with_suffix(".json")
    whole = sidecar.read_text()
    sidecar.write_text(whole.replace('"action":', '"action": damaged'))
    assert videos.read_header(sidecar)["num_frames"] == 3
    lists, head = {"frame": [0]}, {"num_frames": 7}  # in another order it is read wholly
    sidecar.write_text(json.dumps(lists | head))
    assert videos.read_header(sidecar)["num_frames"] == 7


def test_links_out_of_the_folder_are_not_followed(browser: Browser, runs: Path) -> None:
    run = fake_run(runs / "one")
    secret = runs.parent / "secret.mp4"
    secret.write_bytes(b"secret")
    (run / "videos" / "step-1-episode-0-return-1.mp4").symlink_to(secret)
    (run / "videos" / "step-1-episode-0-return-1.json").symlink_to(secret)
    for more in ("", "/data"):
        answer = browser.get(f"/api/run/one/video/step-1-episode-0-return-1{more}")
        assert answer.status == 404
        assert b"secret\n" not in answer.body
        assert "not followed" in answer.error
    inside = fake_video(run, VIDEO)
    (run / "videos" / "step-2-episode-0-return-1.mp4").symlink_to(inside)
    assert browser.get("/api/run/one/video/step-2-episode-0-return-1").status == 200
    (run / "videos" / "step-3-episode-0-return-1.mp4").symlink_to(run / "nowhere")
    assert browser.get("/api/run/one/video/step-3-episode-0-return-1").status == 404


# --- what is not there ----------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/api/run/nobody",
        "/api/run/nobody/curves",
        "/api/run/nobody/video/x",
        "/api/run/nobody/training/0",
        "/api/run/one/video/nothing",
        "/api/run/one/video/nothing/data",
        "/api/run/one/video/nothing/overlay/gradient",
        "/api/run/one/video/training-5",
        "/api/nothing",
    ],
)
def test_what_is_not_there_gets_a_sentence(browser: Browser, runs: Path, path: str) -> None:
    fake_run(runs / "one")
    answer = browser.get(path)
    assert answer.status == 404
    assert answer.error.endswith(".")


@pytest.mark.parametrize("path", ["/run/nobody", "/compare?run=one&run=nobody", "/nothing"])
def test_a_page_that_is_not_there_is_a_page(browser: Browser, runs: Path, path: str) -> None:
    fake_run(runs / "one")
    answer = browser.get(path)
    assert answer.status == 404
    assert b"<html" in answer.body


def test_a_run_that_is_deleted_while_it_is_shown(browser: Browser, runs: Path) -> None:
    fake_video(fake_run(runs / "one", returns=[1.0]), VIDEO)
    fake_run(runs / "two")
    paths = ["", "/curves", f"/video/{VIDEO}", f"/video/{VIDEO}/data", "/training/0"]
    for path in paths:
        assert browser.get(f"/api/run/one{path}").status == 200
    shutil.rmtree(runs / "one")
    for path in paths:
        answer = browser.get(f"/api/run/one{path}")
        assert answer.status == 404
        assert "perhaps it was deleted" in answer.error
    assert list(summaries_of(browser)) == ["two"]


def test_names_are_escaped(browser: Browser, runs: Path) -> None:
    name = "<img src=x onerror=alert(1)>"
    fake_run(runs / name, recipe="<b>")
    assert summaries_of(browser)[name]["recipe"] == "<b>"
    quoted = "%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E"
    assert browser.get(f"/api/run/{quoted}").json["id"] == name
    for path in (f"/run/{quoted}", f"/compare?run={quoted}", f"/run/{quoted}x"):
        page = browser.get(path)
        assert b"<img src=x" not in page.body
        assert b"&lt;img src=x" in page.body or page.status == 200
    assert browser.get("/api/nothing%3Cb%3E").headers["content-type"] == "application/json"


def test_a_mistake_of_the_server_is_a_sentence_too(
    browser: Browser, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Library) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(Library, "runs", fail)
    with pytest.raises(ZeroDivisionError):  # the server's log has it
        browser.get("/api/runs")
    assert browser.get("/").status == 200


# --- assets ----------------------------------------


def test_assets_come_from_the_package(browser: Browser) -> None:
    style = browser.get("/static/style.css")
    assert style.status == 200
    assert style.headers["content-type"].startswith("text/css")
    known = browser.get("/static/style.css", {"if-none-match": style.headers["etag"]})
    assert known.status == 304
    plotly = browser.get("/static/plotly.min.js")
    assert plotly.status == 200
    assert len(plotly.body) > 1_000_000
    assert "max-age" in plotly.headers["cache-control"]
    again = browser.get("/static/plotly.min.js", {"if-none-match": plotly.headers["etag"]})
    assert again.status == 304
    assert browser.get("/static/nothing.js").status == 404


# --- memory ----------------------------------------


def test_what_was_not_used_for_long_is_forgotten() -> None:
    made: list[str] = []
    recent: Recent[str] = Recent(2)

    def get(key: str) -> None:
        recent.get(key, lambda: made.append(key) or key)

    for key in "abacab":
        get(key)
    assert "".join(made) == "abcb"
