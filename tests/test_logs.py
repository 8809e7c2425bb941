"""Reading a run's files while they grow, are cut, and are damaged."""

from __future__ import annotations

import itertools
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from watch_tools import EPISODES, EVALUATIONS, episode_line, evaluation_line

from rlagents import logs
from rlagents.logs import (
    Averages,
    EpisodeLog,
    EvaluationLog,
    Extremes,
    GrowingFile,
    MetricLog,
    RunLogs,
)


def append(path: Path, *lines: str, end: str = "\n") -> None:
    with path.open("a") as file:
        file.write("\n".join(lines) + end)


class Reader:
    """Collects what a file has, as a log does."""

    def __init__(self, path: Path) -> None:
        self.file = GrowingFile(path)
        self.lines: list[bytes] = []
        self.restarts = 0

    def restart(self) -> None:
        self.restarts += 1
        self.lines.clear()

    def read(self) -> list[bytes]:
        for lines in self.file.read(self.restart):
            self.lines += lines
        return self.lines


# --- GrowingFile ----------------------------------------


def test_only_whole_lines_are_read_and_each_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    reader = Reader(path)
    assert reader.read() == []  # not there yet
    append(path, "one", "two")
    assert reader.read() == [b"one", b"two"]
    append(path, "thr", end="")
    assert reader.read() == [b"one", b"two"]
    append(path, "ee")
    append(path, "four")
    assert reader.read() == [b"one", b"two", b"three", b"four"]
    assert reader.read() == [b"one", b"two", b"three", b"four"]
    assert reader.restarts == 0


@pytest.mark.parametrize("block", [1, 2, 3, 5, 8, 100])
def test_lines_do_not_depend_on_where_blocks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(logs, "_BLOCK", block)
    path = tmp_path / "file"
    append(path, "a", "", "bcd", "efghijk", "tail", end="")
    reader = Reader(path)
    assert reader.read() == [b"a", b"", b"bcd", b"efghijk"]
    append(path, "s")
    assert reader.read()[4:] == [b"tails"]


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "file"
    append(path, "one", "two", "three")
    reader = Reader(path)
    reader.read()
    other = tmp_path / "other"
    append(other, "one", "two", "3", "and more than there was before")
    os.replace(other, path)
    assert reader.read() == [b"one", b"two", b"3", b"and more than there was before"]
    assert reader.restarts == 1


def test_a_file_that_was_cut_in_place_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "file"
    append(path, "one", "two", "three")
    reader = Reader(path)
    reader.read()
    os.truncate(path, 4)
    assert reader.read() == [b"one"]
    append(path, "zwei", "drei")
    assert reader.read() == [b"one", b"zwei", b"drei"]
    assert reader.restarts == 1
    os.truncate(path, 4)
    append(path, "deux", "trois, and more than there was before")
    assert reader.read() == [b"one", b"deux", b"trois, and more than there was before"]
    assert reader.restarts == 2
    path.unlink()
    assert reader.read() == []
    assert reader.restarts == 3


def test_a_line_without_end_takes_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_BLOCK", 10)
    monkeypatch.setattr(logs, "_LONGEST_LINE", 25)
    path = tmp_path / "file"
    append(path, "good", "x" * 100 + "end", "next")
    lines = Reader(path).read()
    assert (lines[0], lines[-1]) == (b"good", b"next")
    assert all(len(line) < 35 for line in lines)


# --- bins ----------------------------------------


def test_a_curve_that_fits_is_kept_as_it_is() -> None:
    curve = Averages(capacity=4)
    curve.extend(np.array([1.0, 2]), np.array([0.1, 0.2]), np.array([5.0, 7]))
    curve.extend(np.array([3.0]), np.array([0.3]), np.array([9.0]))
    step, wall_time_s, value = curve.curve(4)
    assert step.tolist() == [1, 2, 3]
    assert wall_time_s.tolist() == [0.1, 0.2, 0.3]
    assert value.tolist() == [5, 7, 9]


def test_a_longer_curve_is_the_means_of_bins() -> None:
    curve = Averages(capacity=4)
    for number in range(1, 8):  # seven points in bins of two: (1, 2) (3, 4) (5, 6) (7)
        one = np.array([float(number)])
        curve.extend(one, one / 10, 10 * one)
    step, wall_time_s, value = curve.curve(4)
    assert step.tolist() == [1.5, 3.5, 5.5, 7]
    assert value.tolist() == [15, 35, 55, 70]
    assert wall_time_s == pytest.approx([0.15, 0.35, 0.55, 0.7])
    step, _, value = curve.curve(2)  # asked for fewer: (1 to 4) (5 to 7)
    assert (step.tolist(), value.tolist()) == ([2.5, 6], [25, 60])


def test_numbers_that_are_not_finite_do_not_count() -> None:
    curve = Averages(capacity=2)
    values = np.array([1.0, np.nan, np.inf, -np.inf])
    curve.extend(np.arange(4.0), np.arange(4.0), values)
    _, _, value = curve.curve(2)
    assert value[0] == 1
    assert np.isnan(value[1])


def episode_rows(returns: list[float]) -> np.ndarray:
    return np.array([[k, 10 * k, k / 2, one, 10, k % 2] for k, one in enumerate(returns)], float)


@pytest.mark.parametrize("chunk", [1, 3, 1000])
@pytest.mark.parametrize("length", [1, 4, 5, 8, 9, 100])
def test_each_bin_keeps_its_lowest_and_its_highest_episode(length: int, chunk: int) -> None:
    returns = [float(random.Random(length).randint(0, 6)) for _ in range(length)]
    rows = episode_rows(returns)
    curve = Extremes(capacity=8)
    for begin in range(0, length, chunk):
        curve.extend(rows[begin : begin + chunk])
    width = 1
    while length > 8 * width:
        width *= 2
    expected = set()
    for begin in range(0, length, width):
        part = returns[begin : begin + width]
        expected |= {begin + part.index(min(part)), begin + part.index(max(part))}
    shown = curve.episodes(16)
    assert [one.episode for one in shown] == sorted(expected)
    for one in shown:  # whole episodes, not numbers of several
        assert one == (
            one.episode,
            10 * one.episode,
            one.episode / 2,
            returns[one.episode],
            10,
            "terminated" if one.episode % 2 else "truncated",
        )
    assert len(curve.episodes(5)) <= 5


def test_bins_are_the_same_however_points_come() -> None:
    steps = np.arange(500.0)
    whole, single = Averages(capacity=16), Averages(capacity=16)
    whole.extend(steps, steps, steps**2)
    for k in range(500):
        single.extend(steps[k : k + 1], steps[k : k + 1], steps[k : k + 1] ** 2)
    for one, other in zip(whole.curve(16), single.curve(16), strict=True):
        assert one.tolist() == other.tolist()


def test_a_curve_takes_the_same_memory_however_long_it_is() -> None:
    curve = Averages(capacity=8)
    size = curve._states.nbytes
    for _ in range(20):
        curve.extend(*[np.ones(1000)] * 3)
    assert curve._states.nbytes == size
    assert len(curve.curve(8)[0]) <= 8


# --- episodes.csv ----------------------------------------


def write_episodes(path: Path, returns: list[object]) -> EpisodeLog:
    append(path, EPISODES, *(episode_line(k, one) for k, one in enumerate(returns)))
    log = EpisodeLog(path)
    log.update()
    return log


def test_episodes_milestones_and_means(tmp_path: Path) -> None:
    log = write_episodes(tmp_path / "e.csv", [-21.0, -21.0, -20.0, -21.0, 3.0, 3.0])
    assert log.count == 6
    assert log.broken == 0
    assert log.best is not None
    assert log.best == (4, 50, 2.5, 3.0, 10, "terminated")
    assert log.worst is not None
    assert log.worst.episode == 0
    assert log.first_point is not None
    assert log.first_point.episode == 2
    assert log.recent_return == pytest.approx(-77 / 6)
    step, wall_time_s, mean = log.mean.curve(100)
    assert step.tolist() == [10, 20, 30, 40, 50, 60]
    assert wall_time_s.tolist() == [0.5, 1, 1.5, 2, 2.5, 3]
    assert mean == pytest.approx([-21, -21, -62 / 3, -83 / 4, -80 / 5, -77 / 6])


def test_the_mean_is_of_the_last_hundred(tmp_path: Path) -> None:
    returns = [float(number) for number in range(250)]
    log = write_episodes(tmp_path / "e.csv", list(returns))
    _, _, mean = log.mean.curve(2000)
    slow = [sum(returns[max(0, k - 99) : k + 1]) / min(k + 1, 100) for k in range(250)]
    assert mean == pytest.approx(slow)
    assert log.recent_return == pytest.approx(199.5)


def test_episodes_read_in_pieces_are_those_read_at_once(tmp_path: Path) -> None:
    # All orders of a few returns: the first above the lowest is where the mistakes would be.
    for returns in itertools.product([0.0, 1.0, 2.0], repeat=4):
        path = tmp_path / "e.csv"
        path.unlink(missing_ok=True)
        append(path, EPISODES)
        log = EpisodeLog(path)
        for number, one in enumerate(returns):
            append(path, episode_line(number, one))
            log.update()
        above = [k for k, one in enumerate(returns) if one > min(returns)]
        assert log.best is not None
        assert log.best.episode == returns.index(max(returns))
        assert log.worst is not None
        assert log.worst.episode == returns.index(min(returns))
        assert (log.first_point.episode if log.first_point else None) == next(iter(above), None)


@pytest.mark.parametrize(
    "broken",
    [
        *("", "1,2", "x" * 300, episode_line(9, "none"), episode_line(9, 1.0, end="ended")),
        *("\0\0\0", episode_line(9, 1.0) + ",7", "ä,ö," + "," * 6),
    ],
)
def test_broken_lines_are_counted_and_skipped(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "e.csv"
    append(path, EPISODES, episode_line(0, 1.0), broken, episode_line(1, 2.0))
    log = EpisodeLog(path)
    log.update()
    assert (log.count, log.broken) == (2, 1)
    assert [one.episodic_return for one in log.curve.episodes(10)] == [1, 2]


def test_a_return_that_is_not_finite_is_counted_and_not_drawn(tmp_path: Path) -> None:
    log = write_episodes(tmp_path / "e.csv", [1.0, float("nan"), float("inf"), 3.0])
    assert (log.count, log.not_finite) == (4, 2)
    assert [one.episode for one in log.curve.episodes(10)] == [0, 3]
    assert log.recent_return == 2


def test_columns_are_found_by_the_header(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    names = EPISODES.split(",")
    fields = episode_line(3, 7.5).split(",")
    append(path, ",".join(["more", *reversed(names)]), ",".join(["x", *reversed(fields)]))
    log = EpisodeLog(path)
    log.update()
    assert log.best == (3, 40, 2.0, 7.5, 10, "terminated")


def test_a_header_of_another_version(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    append(path, "one,two", "1,2", "3,4")
    log = EpisodeLog(path)
    log.update()
    assert (log.count, log.broken) == (0, 2)


def test_a_cut_file_forgets_what_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    log = write_episodes(path, [1.0, 9.0, 2.0])
    before = log.version
    other = tmp_path / "other"
    append(other, EPISODES, episode_line(0, 1.0))
    os.replace(other, path)
    log.update()
    assert (log.count, log.recent_return) == (1, 1.0)
    assert log.best is not None
    assert log.best.episode == 0
    assert log.version > before
    assert len(log.mean.curve(10)[0]) == 1


# --- evaluations.csv ----------------------------------------


def test_evaluations_and_the_best_of_them(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    append(path, EVALUATIONS, evaluation_line(100, 1.0), evaluation_line(200, 5.0), "broken")
    append(path, evaluation_line(300, 5.0), evaluation_line(400, "nan"), "nan" + "," * 8)
    log = EvaluationLog(path)
    log.update()
    assert [row["step"] for row in log.rows] == [100, 200, 300, 400]
    assert log.rows[0] == {
        "step": 100,
        "frames": 400,
        "episodes": 3,
        "mean_return": 1.0,
        "std_return": 0.5,
        "iqm_return": 1.0,
        "min_return": -1.0,
        "max_return": 9.0,
        "wall_time_s": 1.0,
    }
    assert log.best is log.rows[2]  # of equals the last, as checkpoints have it
    assert log.broken == 2


def test_of_very_many_evaluations_the_last_and_the_best_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_MOST_EVALUATIONS", 3)
    path = tmp_path / "evaluations.csv"
    append(path, EVALUATIONS, *(evaluation_line(step, -step) for step in range(1, 6)))
    run = RunLogs(tmp_path)
    run.update()
    assert [row["step"] for row in run.evaluations.rows] == [3, 4, 5]
    assert run.evaluations.best is not None
    assert run.evaluations.best["step"] == 1
    assert any("2 came before" in note for note in run.notes())


# --- metrics.jsonl ----------------------------------------


def line(step: int, **metrics: object) -> str:
    clock = {"step": step, "frames": 4 * step, "wall_time_s": step / 10}
    return json.dumps(clock | {key.replace("_", "/", 1): one for key, one in metrics.items()})


def read_metrics(path: Path, *lines: str) -> MetricLog:
    append(path, *lines)
    log = MetricLog(path)
    log.update()
    return log


def test_each_metric_is_a_curve_of_the_lines_that_have_it(tmp_path: Path) -> None:
    log = read_metrics(
        tmp_path / "m.jsonl",
        line(10, charts_SPS=5.0),
        line(20, charts_SPS=6, losses_td_loss=0.5),
        line(30, eval_episodic_return=9.0),
        line(40, losses_td_loss=0.25, charts_SPS=7.0),
        line(50, charts_SPS=8.0),
    )
    assert set(log.series) == {"charts/SPS", "losses/td_loss", "eval/episodic_return"}
    step, wall_time_s, value = log.series["charts/SPS"].curve(10)
    assert step.tolist() == [10, 20, 40, 50]
    assert wall_time_s.tolist() == [1, 2, 4, 5]
    assert value.tolist() == [5, 6, 7, 8]
    assert log.series["losses/td_loss"].curve(10)[2].tolist() == [0.5, 0.25]


def test_a_loss_that_is_not_a_number_leaves_a_gap(tmp_path: Path) -> None:
    text = line(20, losses_td_loss=0.0).replace("0.0", "NaN")
    log = read_metrics(
        tmp_path / "m.jsonl", line(10, losses_td_loss=1.0), text, line(30, losses_td_loss=None)
    )
    step, _, value = log.series["losses/td_loss"].curve(10)
    assert step.tolist() == [10, 20, 30]
    assert np.isfinite(value).tolist() == [True, False, False]
    assert log.broken == 0


@pytest.mark.parametrize(
    "broken",
    [
        *("", "{", '{"step": 1', "[1, 2]", "7", "null", "\0\0", '{"step": 5, "wall_time_s": "x"}'),
        *(line(5, charts_SPS="fast"), line(5, charts_SPS=[1]), line(5, charts_SPS=True)),
        *('{"step": null, "wall_time_s": 1, "charts/SPS": 1.5}', line(5).replace("0.5", "NaN")),
        *('{"step": NaN, "wall_time_s": 1}', '{"step": 1, "wall_time_s": Infinity}'),
        *('{"step": null, "wall_time_s": 1}', '{"step": 1, "wall_time_s": null}'),
        *('{"charts/SPS": 5.0}', '{"step": 1, "wall_time_s": 1, "charts/SPS": 1' + "0" * 400 + "}"),
    ],
)
def test_broken_metrics_are_counted_and_skipped(tmp_path: Path, broken: str) -> None:
    log = read_metrics(
        tmp_path / "m.jsonl", line(1, charts_SPS=1.0), broken, line(2, charts_SPS=2.0)
    )
    assert log.broken == 1
    assert log.series["charts/SPS"].curve(10)[2].tolist() == [1, 2]


def test_the_number_of_metrics_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_MOST_SERIES", 2)
    read_metrics(tmp_path / "metrics.jsonl", line(1, a_a=1.0, b_b=1.0, c_c=1.0))
    run = RunLogs(tmp_path)
    run.update()
    assert set(run.metrics.series) == {"a/a", "b/b"}
    assert any("first 2" in note for note in run.notes())


# --- all of a run's ----------------------------------------


def test_notes_say_what_was_skipped(tmp_path: Path) -> None:
    append(tmp_path / "episodes.csv", EPISODES, episode_line(0, "nan"), "broken")
    append(tmp_path / "metrics.jsonl", "{", "}", line(1, charts_SPS=1.0))
    run = RunLogs(tmp_path)
    run.update()
    assert run.notes() == [
        "1 broken line in episodes.csv was skipped.",
        "2 broken lines in metrics.jsonl were skipped.",
        "No curve shows the training episodes whose return is not a finite number: 1 of 1.",
    ]


def test_the_version_changes_with_every_file(tmp_path: Path) -> None:
    run = RunLogs(tmp_path)
    run.update()
    versions = [run.version]
    for name, text in (
        ("episodes.csv", EPISODES),
        ("evaluations.csv", EVALUATIONS),
        ("metrics.jsonl", line(1, charts_SPS=1.0)),
    ):
        append(tmp_path / name, text)
        run.update()
        versions.append(run.version)
        run.update()
        assert run.version == versions[-1]
    assert len(set(versions)) == 4
