"""Runs side by side: the table, the picture and the JSON, over numbers worked out by hand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fake_runs import write_run

import rlagents
from rlagents.compare import Comparison, compare_runs
from rlagents.curves import band
from rlagents.errors import UsageError
from rlagents.history import read_history

Cli = Callable[..., Any]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def four_runs(runs: Path) -> list[str]:
    """Two seeds of two settings."""
    for seed in (1, 2):
        low, high = 2.0 * seed, 10.0 * seed
        write_run(runs, f"a{seed}", seed=seed, returns=[low] * 30, evaluations=[[low], [low + 1]])
        own: dict[str, Any] = {"returns": [high] * 30, "evaluations": [[high], [high - 1]]}
        write_run(runs, f"b{seed}", seed=seed, n_step=3, step_s=1.0, **own)
    return ["a1", "a2", "b1", "b2"]


def rows_of(table: str) -> list[list[str]]:
    return [re.split(r"  +", line.strip()) for line in table.splitlines()]


# --- history ----------------------------------------


def test_what_a_runs_files_say(runs: Path) -> None:
    write_run(runs, "r", seed=7, returns=range(150), evaluations=[[1, 3], [5, 9], [7, 7], [0, 2]])
    run = read_history("r", runs)
    assert (run.name, run.recipe, run.env_id, run.seed) == ("r", "pong-dqn", "pong", 7)
    assert (run.steps, run.wall_time_s) == (1500, 750.0)
    assert run.recent_return == sum(range(50, 150)) / 100
    assert run.best_evaluation is not None
    assert (run.best_evaluation.step, run.best_evaluation.mean_return) == (300, 7.0)  # not 200
    assert run.last_evaluation is not None
    assert (run.last_evaluation.step, run.last_evaluation.std_return) == (400, 1.0)


def test_the_curves_of_a_run(runs: Path) -> None:
    write_run(runs, "r", returns=[2, 4, 9], evaluations=[[1, 3], [5]])
    run = read_history("r", runs)
    expected: dict[tuple[Any, Any], tuple[list[float], list[float]]] = {
        ("training", "steps"): ([10, 20, 30], [2, 3, 5]),
        ("training", "time"): ([5, 10, 15], [2, 3, 5]),
        ("evaluation", "steps"): ([100, 200], [2, 5]),
        ("evaluation", "time"): ([50, 100], [2, 5]),
    }
    for (what, axis), (x, y) in expected.items():
        np.testing.assert_array_equal(run.curve(what, axis), (x, y))


def test_a_run_that_has_just_begun(runs: Path) -> None:
    folder = write_run(runs, "r")
    for missing in ("nothing", "episodes.csv", "evaluations.csv", "status.json"):
        (folder.directory / missing).unlink(missing_ok=True)
        run = read_history("r", runs)
        assert (run.steps, run.wall_time_s, run.recent_return) == (0, 0.0, None)
        assert run.best_evaluation is run.last_evaluation is None
        assert all(len(x) == 0 for x in run.curve("training", "steps"))


def test_a_status_that_cannot_be_read_is_no_hindrance(runs: Path) -> None:
    folder = write_run(runs, "r", returns=[1])
    for text in ("", "{", "3", "[]", '{"step": "x"}'):
        (folder.directory / "status.json").write_text(text)
        assert read_history("r", runs).steps == 10
    folder.write_status("running", 17)
    assert read_history("r", runs).steps == 17


def test_evaluations_that_are_no_numbers_are_not_the_best(runs: Path) -> None:
    write_run(runs, "r", evaluations=[[1], [float("nan")], [0.5]])
    best = read_history("r", runs).best_evaluation
    assert best is not None
    assert best.step == 100


# --- table ----------------------------------------


def test_a_row_for_each_run(runs: Path, cli: Cli) -> None:
    write_run(runs, "one", seed=3, returns=[1, 2, 6], evaluations=[[4, 6], [1, 3]])
    write_run(runs, "two", seed=4, step_s=10.0, returns=[-1], evaluations=[[-2.5]])
    outcome = cli("compare", "one", runs / "two", "--runs-dir", runs)
    assert outcome.code == 0
    assert outcome.err == ""
    rows = rows_of(outcome.out)
    assert rows[:3] == [
        [
            *("run", "seed", "steps", "wall time", "best evaluation", "last evaluation"),
            "last 100 episodes",
        ],
        ["one", "3", "200", "1 min 40 s", "5.00 at 100", "2.00 ± 1.00 (2)", "3.00"],
        ["two", "4", "100", "16 min 40 s", "-2.50 at 100", "-2.50 ± 0.00 (1)", "-1.00"],
    ]


def test_a_row_for_each_group(runs: Path) -> None:
    comparison = Comparison(four_runs(runs), runs_dir=runs)
    rows = rows_of(comparison.table())
    assert rows[6:9] == [
        [
            *("mean over runs [95 %]", "seeds", "best evaluation", "last evaluation"),
            "last 100 episodes",
        ],
        # The interval over two runs reaches from one to the other.
        ["pong-dqn, agent.n_step = 1", "2", *("4.00 [3.00, 5.00]",) * 2, "3.00 [2.00, 4.00]"],
        [
            *("pong-dqn, agent.n_step = 3", "2", "15.00 [10.00, 20.00]", "14.00 [9.00, 19.00]"),
            "15.00 [10.00, 20.00]",
        ],
    ]
    assert comparison.notes == []


def test_the_columns_stand_below_each_other(runs: Path) -> None:
    lines = Comparison(four_runs(runs), runs_dir=runs).table().splitlines()
    assert len({len(line) for line in lines[:5]}) == 1
    assert len({len(line) for line in lines[6:]}) == 1


def test_a_single_run_and_groups_of_one_have_no_interval(runs: Path) -> None:
    write_run(runs, "one", returns=[1], evaluations=[[2]])
    write_run(runs, "other", returns=[3], n_step=3)
    assert len(rows_of(Comparison(["one"], runs_dir=runs).table())) == 2
    rows = rows_of(Comparison(["one", "other"], runs_dir=runs).table())
    assert rows[5] == ["pong-dqn, agent.n_step = 1", "1", "2.00", "2.00", "1.00"]
    assert rows[6] == ["pong-dqn, agent.n_step = 3", "1", "-", "-", "3.00"]


def test_the_statistic_is_over_runs(runs: Path, cli: Cli) -> None:
    values = [1.0, 2.0, 4.0, 1000.0]
    for seed, value in enumerate(values):
        write_run(runs, f"r{seed}", seed=seed, evaluations=[[value]])
    results = {}
    for statistic in ("mean", "iqm"):
        words = ("compare", *(f"r{seed}" for seed in range(4)), "--runs-dir", runs)
        table = cli(*words, "--statistic", statistic).out
        _, low, high = band(np.array(values)[:, None], statistic)  # type: ignore[arg-type]
        results[statistic] = f"[{low[0]:.2f}, {high[0]:.2f}]"
        assert results[statistic] in table
    assert results["mean"] != results["iqm"]
    assert f"251.75 {results['mean']}" in cli(*words).out  # the default
    assert f"3.00 {results['iqm']}" in table
    assert "interquartile mean over runs" in table


# --- notes ----------------------------------------


def test_what_is_not_there_yet_is_a_dash_and_a_note(runs: Path, cli: Cli) -> None:
    write_run(runs, "new")
    write_run(runs, "begun", seed=2, returns=[1.0])
    outcome = cli("compare", "new", "begun", "--runs-dir", runs)
    assert outcome.code == 0
    rows = rows_of(outcome.out)
    assert rows[1] == ["new", "1", "0", "0 s", "-", "-", "-"]
    assert rows[2] == ["begun", "2", "10", "5 s", "-", "-", "1.00"]
    assert "note: no evaluation yet: new, begun." in outcome.out
    assert "note: no finished training episode yet: new." in outcome.out


def test_runs_of_different_environments_are_noted_and_drawn(runs: Path, tmp_path: Path) -> None:
    write_run(runs, "a", returns=[1])
    write_run(runs, "b", returns=[1], env="cartpole", recipe="cartpole-dqn")
    comparison = compare_runs(["a", "b"], runs_dir=runs, output=tmp_path / "x.svg")
    assert any("different environments (pong, cartpole)" in note for note in comparison.notes)
    text = (tmp_path / "x.svg").read_text()
    assert ">pong-dqn<" in text
    assert ">cartpole-dqn<" in text
    assert [group.label for group in comparison.groups] == ["pong-dqn", "cartpole-dqn"]


def test_a_run_that_is_named_twice_counts_once(runs: Path, tmp_path: Path) -> None:
    write_run(runs, "a", returns=[1])
    write_run(runs, "b", seed=2, returns=[5])
    (tmp_path / "link").symlink_to(runs / "a")
    comparison = Comparison(["a", "b", runs / "a", tmp_path / "link"], runs_dir=runs)
    assert [run.name for run in comparison.runs] == ["a", "b"]
    assert any("named twice and counted once: a" in note for note in comparison.notes)


def test_runs_of_one_name_in_two_folders_are_two(runs: Path, tmp_path: Path) -> None:
    write_run(runs, "a", returns=[1])
    write_run(tmp_path / "others", "a", seed=2, returns=[5])
    comparison = Comparison(["a", tmp_path / "others" / "a"], runs_dir=runs)
    assert len(comparison.runs) == 2
    assert comparison.groups[0].num_seeds == 2
    assert comparison.notes == ["no evaluation yet: a, a."]


def test_repetitions_of_a_seed_are_noted(runs: Path) -> None:
    write_run(runs, "a", returns=[1], evaluations=[[1]])
    write_run(runs, "b", returns=[1], evaluations=[[1]])
    (note,) = Comparison(["a", "b"], runs_dir=runs).notes
    assert "same seed" in note
    assert Comparison(["a", "b"], runs_dir=runs).groups[0].num_seeds == 1


def test_a_run_that_ended_early_is_noted(runs: Path) -> None:
    write_run(runs, "long", returns=[1] * 100, evaluations=[[1]] * 10)
    write_run(runs, "short", seed=2, returns=[1] * 94, evaluations=[[1]] * 10)
    assert any("short" in note for note in Comparison(["long", "short"], runs_dir=runs).notes)
    assert Comparison(["long", "short"], runs_dir=runs, what="evaluation").notes == []
    write_run(runs, "enough", seed=2, returns=[1] * 96, evaluations=[[1]] * 10)
    assert Comparison(["long", "enough"], runs_dir=runs).notes == []


# --- JSON ----------------------------------------


def test_json_is_one_object(runs: Path, cli: Cli, tmp_path: Path) -> None:
    names = four_runs(runs)
    outcome = cli("compare", *names, "--runs-dir", runs, "--json", "--output", tmp_path / "x.png")
    assert outcome.code == 0
    assert (tmp_path / "x.png").is_file()
    value = json.loads(outcome.out)
    assert list(value) == ["statistic", "x", "what", "runs", "groups", "notes"]
    assert value["runs"][2] == {
        "name": "b1",
        "directory": str(runs / "b1"),
        "recipe": "pong-dqn",
        "env_id": "pong",
        "seed": 1,
        "state": "finished",
        "steps": 300,
        "wall_time_s": 300.0,
        "best_evaluation": {"step": 100, "episodes": 1, "mean_return": 10.0, "std_return": 0.0},
        "last_evaluation": {"step": 200, "episodes": 1, "mean_return": 9.0, "std_return": 0.0},
        "recent_return": 10.0,
    }
    group = value["groups"][1]
    assert group["label"] == "pong-dqn, agent.n_step = 3"
    assert (group["runs"], group["seeds"]) == (["b1", "b2"], 2)
    assert group["last_evaluation"] == {"value": 14.0, "low": 9.0, "high": 19.0}
    assert group["curve"]["x"] == list(range(10, 301, 10))
    assert group["curve"]["low"] == [10.0] * 30


def test_axis_and_what_change_the_curves(runs: Path, cli: Cli) -> None:
    words = ("compare", *four_runs(runs), "--runs-dir", runs, "--json")

    def curve(*more: str) -> dict[str, list[float]]:
        value: dict[str, list[float]] = json.loads(cli(*words, *more).out)["groups"][0]["curve"]
        return value

    assert curve("--x", "time")["x"] == [5.0 * k for k in range(1, 31)]
    assert curve("--what", "evaluation") == {
        "x": [100, 200],
        "center": [3, 4],
        "low": [2, 3],
        "high": [4, 5],
    }
    assert curve("--x", "time", "--what", "evaluation")["x"] == [50, 100]
    assert curve() == curve("--x", "steps", "--what", "training")
    for option, other in (("--x", "time"), ("--what", "evaluation")):
        outcome = cli(*words[:-1], option, other)  # the table does not show them
        assert outcome.code == 2
        assert option in outcome.err
        assert "--output" in outcome.err


def test_json_has_null_for_what_is_no_number(runs: Path, cli: Cli) -> None:
    write_run(runs, "a", returns=[1, float("inf")], evaluations=[[float("nan")]])
    write_run(runs, "b", seed=2)
    value = json.loads(cli("compare", "a", "b", "--runs-dir", runs, "--json").out)
    assert value["runs"][0]["best_evaluation"] is None
    assert value["runs"][0]["last_evaluation"]["mean_return"] is None
    assert value["runs"][0]["recent_return"] is None
    assert value["groups"][0]["curve"]["center"] == [1, None]
    assert value["groups"][0]["best_evaluation"] is None
    assert value["groups"][0]["last_evaluation"] == {"value": None, "low": None, "high": None}
    assert (
        json.loads(cli("compare", "b", "--runs-dir", runs, "--json").out)["groups"][0]["curve"]
        is None
    )


# --- picture ----------------------------------------


def test_a_picture_is_as_wide_as_a_readme_and_not_empty(runs: Path, cli: Cli) -> None:
    output = runs.parent / "made" / "on the way" / "curves.png"
    outcome = cli("compare", *four_runs(runs), "--runs-dir", runs, "--output", output)
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[-1] == str(output)
    picture = cv2.imread(str(output))
    assert picture is not None
    assert picture.shape[1] == 1600
    assert 900 <= picture.shape[0] <= 1100
    for colour in ((178, 114, 0), (0, 94, 213)):  # blue and vermilion, as OpenCV orders them
        assert (picture == colour).all(axis=2).sum() > 500
    assert [path.name for path in output.parent.iterdir()] == [output.name]


@pytest.mark.parametrize(("ending", "begins"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_other_kinds_of_pictures(runs: Path, tmp_path: Path, ending: str, begins: bytes) -> None:
    output = tmp_path / f"x.{ending}"
    names = four_runs(runs)
    contents = []
    for _ in range(2):
        compare_runs(names, runs_dir=runs, output=output)
        contents.append(output.read_bytes())
    assert contents[0].startswith(begins)
    assert contents[0] == contents[1]  # the same runs, the same file


def svg(runs: Path, names: list[str], **options: Any) -> str:
    output = runs.parent / "x.svg"
    compare_runs(names, runs_dir=runs, output=output, **options)
    return output.read_text(encoding="utf-8")


def test_a_picture_says_what_it_shows(runs: Path) -> None:
    names = four_runs(runs)
    text = svg(runs, names)
    for word in (
        *("pong-dqn, agent.n_step = 1 (2 runs)", "pong-dqn, agent.n_step = 3 (2 runs)", "pong"),
        *("95 % interval of the mean", "single runs", "agent steps"),
        "return, mean of 100 training episodes",
    ):
        assert f">{word}</text>" in text, word
    text = svg(runs, names, axis="time", what="evaluation", statistic="iqm")
    for word in (
        *("95 % interval of the interquartile mean", "mean return of an evaluation"),
        "minutes of training",
    ):
        assert f">{word}</text>" in text, word
    assert "single runs" not in svg(runs, ["a1", "b1"])


def test_steps_are_short_and_time_has_a_unit_that_fits(runs: Path) -> None:
    write_run(runs, "a", returns=[1, 2], step=100_000, step_s=0.0001)
    write_run(runs, "b", returns=[1, 2], step=100_000, step_s=0.001)
    write_run(runs, "c", returns=[1, 2], step=100_000, step_s=0.06)
    assert ">200k</text>" in svg(runs, ["a"])
    for name, unit in (("a", "seconds"), ("b", "minutes"), ("c", "hours")):
        assert f">{unit} of training</text>" in svg(runs, [name], axis="time")


def test_a_single_run_is_drawn_with_its_evaluations(runs: Path) -> None:
    write_run(runs, "a", seed=5, returns=[1, 2, 3], evaluations=[[1, 5], [4]])
    both = svg(runs, ["a"])
    assert ">pong: pong-dqn, seed 5</text>" in both
    assert ">training, mean of the last 100 episodes</text>" in both
    assert ">evaluations: mean, worst and best episode</text>" in both
    alone = svg(runs, ["a"], what="evaluation")
    assert "mean of the last 100" not in alone
    assert ">evaluations: mean, worst and best episode</text>" in alone


def test_names_are_no_formulas_and_no_tags(runs: Path) -> None:
    recipe = "$x_1$ <b>&amp; 100 %"
    write_run(runs, "a", recipe=recipe, returns=[1])
    write_run(runs, "b", recipe=recipe, returns=[1], n_step=3)
    text = svg(runs, ["a", "b"])
    assert ">$x_1$ &lt;b&gt;&amp;amp; 100 %, agent.n_step = 1</text>" in text
    assert "seed 1</text>" in svg(runs, ["a"])


@pytest.mark.parametrize("names", [["new"], ["new", "newer"]])
def test_nothing_to_draw_is_said_in_the_picture(runs: Path, names: list[str]) -> None:
    for seed, name in enumerate(names):
        write_run(runs, name, seed=seed)
    assert ">nothing to draw yet</text>" in svg(runs, names)


def test_numbers_that_are_none_can_be_drawn(runs: Path) -> None:
    odd = [1.0, float("nan"), float("inf"), 3.0]
    write_run(runs, "a", returns=odd, evaluations=[odd, [0.1] * 3, [1.0, float("-inf")]])
    write_run(runs, "b", seed=2, returns=odd[::-1], evaluations=[[2.0]])
    for names in (["a"], ["a", "b"]):
        for what in ("training", "evaluation"):
            assert "</svg>" in svg(runs, names, what=what)


def test_many_groups_are_told_apart(runs: Path) -> None:
    for number in range(9):
        write_run(runs, f"r{number}", returns=[number, number], n_step=number)
    text = svg(runs, [f"r{number}" for number in range(9)])
    lines = re.findall(r'style="(fill: none; [^"]*stroke-width: 2(?:;[^"]*)?)"', text)
    assert len(set(lines)) == 9


def test_a_long_run_makes_no_large_picture(runs: Path) -> None:
    values = np.random.default_rng(0).normal(size=20_000).cumsum().round(3)
    write_run(runs, "a", returns=values.tolist())
    write_run(runs, "b", seed=2, returns=values[::-1].tolist())
    assert len(svg(runs, ["a"])) < 100_000
    assert len(svg(runs, ["a", "b"])) < 200_000


# --- mistakes ----------------------------------------


def test_an_unknown_run_is_refused_with_the_nearest_name(runs: Path, cli: Cli) -> None:
    write_run(runs, "pong-1")
    output = runs.parent / "not" / "made.png"
    outcome = cli("compare", "pong-1", "pogn-1", "--runs-dir", runs, "--output", output)
    assert outcome.code == 2
    assert "did you mean 'pong-1'" in outcome.err
    assert not output.parent.exists()  # wrong usage writes nothing


@pytest.mark.parametrize("name", ["x.jpg", "x", "x.png.gz", ".png"])
def test_another_ending_is_refused(runs: Path, cli: Cli, name: str) -> None:
    write_run(runs, "a", returns=[1])
    outcome = cli("compare", "a", "--runs-dir", runs, "--output", runs.parent / name)
    assert outcome.code == 2
    assert "expected a file that ends in .png, .svg or .pdf" in outcome.err
    assert not (runs.parent / name).exists()


def test_a_place_that_cannot_be_written_is_refused(runs: Path, cli: Cli) -> None:
    write_run(runs, "a", returns=[1])
    (runs.parent / "folder.png").mkdir()
    (runs.parent / "file").touch()
    for name, says in (("folder.png", "is a folder"), ("file/x.png", "cannot be written")):
        outcome = cli("compare", "a", "--runs-dir", runs, "--output", runs.parent / name)
        assert outcome.code == 2
        assert f"--output: {runs.parent / name} {says}" in outcome.err


@pytest.mark.parametrize("length", [201, 300, 5000])
def test_names_that_are_too_long_are_refused(runs: Path, cli: Cli, length: int) -> None:
    write_run(runs, "a")
    name = f"{'x' * length}.png"
    outcome = cli("compare", "a", "--runs-dir", runs, "--output", runs / name)
    assert outcome.code == 2
    assert f"expected a name of at most 200 bytes, got {length + 4}: xxx" in outcome.err
    outcome = cli("compare", 30 * name, "--runs-dir", runs)
    assert outcome.code == 2
    assert "There is no run" in outcome.err


def test_a_damaged_file_is_named_with_its_line(runs: Path, cli: Cli) -> None:
    folder = write_run(runs, "a", returns=[1], evaluations=[[1], [2]])
    path = folder.directory / "evaluations.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], "what?", lines[2]]) + "\n")
    outcome = cli("compare", "a", "--runs-dir", runs)
    assert outcome.code == 2
    assert f"{path} is damaged: line 3" in outcome.err
    path.write_text("\n".join(lines) + "\n300,30")  # a torn last line is what a live run may have
    assert "2.00 ± 0.00 (1)" in cli("compare", "a", "--runs-dir", runs).out


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [("format", 99, "not written by this version"), ("config", {"seed": 1}, "is damaged")],
)
def test_a_run_of_another_version_is_refused(
    runs: Path, cli: Cli, key: str, value: Any, says: str
) -> None:
    path = write_run(runs, "a").directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    outcome = cli("compare", "a", "--runs-dir", runs)
    assert outcome.code == 2
    assert f"{path}" in outcome.err
    assert says in outcome.err


def test_no_run_at_all(cli: Cli) -> None:
    outcome = cli("compare")
    assert outcome.code == 2
    assert "RUN" in outcome.err


# --- the real thing ----------------------------------------


def test_a_run_as_training_leaves_it(tiny_run: Any, tmp_path: Path) -> None:
    output = tmp_path / "curve.svg"
    comparison = compare_runs([tiny_run.directory], output=output)
    (run,) = comparison.runs
    read = rlagents.open_run(tiny_run.directory)
    assert run.evaluations == tuple(read.evaluations())
    assert [row.step for row in run.evaluations] == [200, 400, 480]
    assert len(run.returns) == len(read.episodes()) > 0
    assert ">cartpole: cartpole-dqn, seed 1</text>" in output.read_text()


def test_comparing_needs_no_torch_and_no_window(runs: Path, tmp_path: Path) -> None:
    write_run(runs, "a", returns=[1])
    program = (
        "import sys\n"
        "from rlagents.cli import main\n"
        "words = sys.argv[1:]\n"
        "assert main(['compare', *words]) == 0\n"
        "assert 'matplotlib' not in sys.modules\n"
        "assert main(['compare', *words, '--output', 'x.png']) == 0\n"
        "for heavy in ('torch', 'gymnasium', 'cv2', 'pydantic', 'matplotlib.pyplot'):\n"
        "    assert heavy not in sys.modules, heavy\n"
    )
    command = [sys.executable, "-c", program, str(runs / "a")]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)


def test_a_comparison_from_python_refuses_the_same(runs: Path) -> None:
    write_run(runs, "a")
    with pytest.raises(UsageError, match="did you mean 'a'"):
        Comparison(["aa"], runs_dir=runs)
