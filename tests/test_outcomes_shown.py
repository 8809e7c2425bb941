"""What completed episodes look like in all that reads a run's files: page, report, comparison."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from watch_tools import fake_run, fake_video

from rlagents.compare import compare_runs
from rlagents.history import read_history
from rlagents.logs import RunLogs, read_success_rates
from rlagents.report import choose_video, render_report
from rlagents.watch.library import Library

# The third is the best: as many episodes were completed as in the last, with a higher return.
EVALUATIONS = [(100, 9.0), (200, 5.0), (300, 7.0), (400, 6.0)]
RATES = {200: 0.25, 300: 0.625, 400: 0.625}


def evaluation_line(step: int) -> dict[str, object]:
    rate = {"eval/success_rate": RATES[step]} if step in RATES else {}
    return {
        "step": step,
        "frames": step,
        "wall_time_s": step / 100,
        "eval/episodic_return": 1,
    } | rate


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose evaluations tell, but for the first."""
    return fake_run(
        tmp_path / "runs" / "mario",
        returns=[1.0, 2.0, 6.0],
        evaluations=EVALUATIONS,
        metrics=[
            {"step": 150, "frames": 150, "wall_time_s": 1.5, "charts/success_rate": 0.5},
            *(evaluation_line(step) for step, _ in EVALUATIONS),
        ],
        status={"success_rate": 0.875},
    )


@pytest.fixture
def silent(tmp_path: Path) -> Path:
    """The same run in an environment that tells nothing."""
    metrics = [evaluation_line(step) for step, _ in EVALUATIONS]
    for line in metrics:
        line.pop("eval/success_rate", None)
    return fake_run(tmp_path / "runs" / "pong", evaluations=EVALUATIONS, metrics=metrics, seed=2)


def point_to_the_best(run: Path, step: int) -> None:
    (run / "checkpoints" / f"step-{step}").mkdir(parents=True)
    index = {"best": f"step-{step}", "last": f"step-{step}"}
    (run / "checkpoints" / "index.json").write_text(json.dumps(index))


# --- reading ---


def test_the_success_rates_of_evaluations_are_read(run: Path, silent: Path) -> None:
    assert read_success_rates(run) == RATES
    assert read_success_rates(silent) == {}
    assert read_success_rates(run / "videos") == {}  # no file at all
    with (run / "metrics.jsonl").open("a") as file:
        for rate in (1.5, -0.1, float("nan"), None, "all"):
            line = {"step": 500, "frames": 5, "wall_time_s": 5.0, "eval/success_rate": rate}
            file.write(json.dumps(line) + "\n")
        file.write('{"eval/success_rate": 0.5\n')
    assert read_success_rates(run) == RATES


def test_the_best_evaluation_has_the_highest_success_rate(run: Path, silent: Path) -> None:
    for directory, step in ((run, 300), (silent, 100)):
        logs = RunLogs(directory)
        logs.update()
        best = logs.best_evaluation()
        assert best is not None
        assert best["step"] == step
        history = read_history(directory, Path())
        assert history.best_evaluation is not None
        assert history.best_evaluation.step == step
    assert best == logs.evaluations.best


def test_of_equal_evaluations_the_last_is_the_best(run: Path) -> None:
    text = (run / "evaluations.csv").read_text().replace("6.0", "7.0")
    (run / "evaluations.csv").write_text(text)
    logs = RunLogs(run)
    logs.update()
    best = logs.best_evaluation()
    assert best is not None
    assert best["step"] == read_history(run, Path()).best_evaluation.step == 400  # type: ignore[union-attr]


# --- the page ---


def test_the_page_of_a_run_has_success_rates(run: Path, silent: Path) -> None:
    library = Library(run.parent)
    details = library.details("mario")
    assert details["best_evaluation"] == {"step": 300, "mean_return": 7.0, "success_rate": 0.625}
    assert details["last_evaluation"] == {"step": 400, "mean_return": 6.0, "success_rate": 0.625}
    assert details["success_rate"] == 0.875
    assert [row.get("success_rate") for row in details["evaluations"]] == [None, 0.25, 0.625, 0.625]
    metrics = library.curves("mario", 100)["metrics"]
    assert metrics["eval/success_rate"]["step"] == [200, 300, 400]
    assert metrics["charts/success_rate"]["value"] == [0.5]
    other = library.details("pong")
    assert other["best_evaluation"] == {"step": 100, "mean_return": 9.0}
    assert other["success_rate"] is None
    assert all("success_rate" not in row for row in other["evaluations"])


def test_the_list_agrees_with_the_page_on_the_best(run: Path, silent: Path) -> None:
    library = Library(run.parent)

    def best_steps() -> dict[str, int]:
        return {one["id"]: one["best_evaluation"]["step"] for one in library.runs()}

    assert best_steps() == {"mario": 100, "pong": 100}  # no checkpoint says which is the best
    point_to_the_best(run, 300)
    point_to_the_best(silent, 300)  # says nothing that its returns do not
    assert best_steps() == {"mario": 300, "pong": 100}
    shown = {one["id"]: one["success_rate"] for one in library.runs()}
    assert shown == {"mario": 0.875, "pong": None}


def test_videos_say_whether_the_episode_was_completed(run: Path) -> None:
    fake_video(run, "step-300-episode-0-return-9-completed", completed=True, outcome={"x": 3})
    fake_video(run, "step-300-episode-1-return-9", completed=False)
    fake_video(run, "step-300-episode-2-return-9")
    videos = Library(run.parent).details("mario")["videos"]
    assert [video["completed"] for video in videos] == [True, False, None]


def test_what_was_played_otherwise_is_said_and_is_not_what_a_report_shows(run: Path) -> None:
    usual, other = "step-300-episode-0-return-9", "step-300-episode-0-return-20"
    fake_video(run, usual)
    fake_video(run, other, env={"frame_skip": 2}, evaluation={"epsilon": 0.5, "\u001b": []})
    said = [video["otherwise"] for video in Library(run.parent).details("mario")["videos"]]
    assert set(said) == {None, "frame_skip = 2, epsilon = 0.5, \ufffd = []"}
    history = read_history(run, Path())
    chosen = choose_video(history, None)
    assert chosen is not None
    assert chosen.id == usual
    asked_for = choose_video(history, other)
    assert asked_for is not None
    assert asked_for.otherwise == "frame_skip = 2, epsilon = 0.5, \ufffd = []"
    assert "frame_skip = 2, epsilon = 0.5" in render_report(history, asked_for)
    (run / "videos" / f"{usual}.json").unlink()
    (run / "videos" / f"{usual}.mp4").unlink()
    only = choose_video(history, None)
    assert only is not None
    assert only.id == other  # better than none


# --- report and comparison ---


def test_the_report_has_a_column_of_completed_episodes(run: Path, silent: Path) -> None:
    fake_video(run, "step-300-episode-0-return-9-completed", completed=True)
    history = read_history(run, Path())
    page = render_report(history, choose_video(history, None))
    assert '<th scope="col">completed</th>' in page
    assert "<td>62.5 %</td>" in page
    assert '<tr class="best"><td>300</td><td>62.5 %</td><td>7.00</td>' in page
    assert "<tr><td>100</td><td>-</td><td>9.00</td>" in page
    assert "3 episodes, 62.5 % completed, step 300" in page
    assert "an evaluation at step 300, return 9, completed, 2 agent steps" in page
    assert "completed" not in render_report(read_history(silent, Path()), None)


def test_the_comparison_says_how_many_episodes_were_completed(run: Path, silent: Path) -> None:
    table = compare_runs([run, silent]).table().splitlines()
    assert "7.00, 62.5 % completed at 300" in table[1]
    assert "6.00 ± 0.50 (3), 62.5 % completed" in table[1]
    assert "completed" not in table[2]
    told, other = compare_runs([run, silent]).as_dict()["runs"]
    assert told["best_evaluation"]["success_rate"] == 0.625
    assert "success_rate" not in other["best_evaluation"]
