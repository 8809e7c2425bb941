"""Whole runs in worker processes: what is learned, what failures do to it, and resuming."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from worker_tools import kwargs_of, pids, wait_until_gone, write_game

import rlagents
from rlagents import seeding
from rlagents.errors import RunFailedError, UsageError

pytestmark = pytest.mark.timeout(900)  # many processes: slow to start where others compute

Cli = Callable[..., Any]
Rows = Callable[[Path], list[dict[str, str]]]

DQN: dict[str, Any] = {
    "env.num_envs": 4,
    "agent.learning_starts": 24,
    "agent.n_step": 2,
    "replay.capacity": 200,
    "replay.batch_size": 8,
    "network.hidden_sizes": [8],
    "evaluation.period_steps": 0,
    "recording.enabled": False,
    "checkpoint.period_steps": 200,
    "checkpoint.keep": 100,
}
REINFORCE: dict[str, Any] = {
    key: value for key, value in DQN.items() if not key.startswith(("agent", "replay"))
} | {"agent.episodes_per_update": 4}
FAILING = 12  # seeds that it divides fail: some of the first episodes


def train(folder: Path, name: str, workers: int, what: str = "", **more: Any) -> rlagents.Run:
    recipe = more.pop("recipe", "cartpole-dqn")
    game = {"what": what, "seed": FAILING, **more.pop("game", {})}
    overrides = (DQN if recipe.endswith("dqn") else REINFORCE) | {
        "env.id": write_game(folder, more.pop("kind", "Walk")),
        "env.kwargs": game,
        "env.num_workers": workers,
        "env.max_restarts": 1000,
    }
    total = more.pop("total_steps", 800)
    return rlagents.train(
        recipe, overrides | more, total_steps=total, runs_dir=folder, name=name, quiet=True
    )


def learned(run: rlagents.Run) -> dict[str, list[Any]]:
    """Return every weight of the last checkpoint."""
    folder = run.checkpoint("last").directory / "agent"
    return {
        f"{path.name} {name}": tensor.tolist()
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def warnings_of(run: rlagents.Run) -> list[str]:
    lines = (run.directory / "run.log").read_text().splitlines()
    return [line for line in lines if line.startswith("warning: step ")]


@pytest.mark.parametrize("recipe", ["cartpole-dqn", "cartpole-reinforce"])
@pytest.mark.parametrize("what", ["", "raise"])
def test_what_is_learned_does_not_depend_on_processes(
    tmp_path: Path, read_rows: Rows, recipe: str, what: str
) -> None:
    runs = [train(tmp_path, f"run-{n}", n, what, recipe=recipe) for n in (0, 2)]
    assert bool(warnings_of(runs[0])) is bool(what)
    for run in runs[1:]:
        assert learned(run) == learned(runs[0])
        for name in ("episodes.csv", "evaluations.csv"):
            assert read_rows(run.directory / name) == read_rows(runs[0].directory / name)
        assert warnings_of(run) == warnings_of(runs[0])


def test_nor_on_how_an_environment_fails(tmp_path: Path, read_rows: Rows) -> None:
    """None of its evaluations' seeds fails."""
    evaluation = {"evaluation.period_steps": 600, "evaluation.episodes": 3, "total_steps": 600}
    runs = [train(tmp_path, what, 2, what, **evaluation) for what in ("raise", "exit")]
    assert learned(runs[0]) == learned(runs[1])
    assert len(warnings_of(runs[0])) == len(warnings_of(runs[1])) > 0
    for name in ("episodes.csv", "evaluations.csv"):
        assert read_rows(runs[0].directory / name) == read_rows(runs[1].directory / name)


@pytest.mark.parametrize(("workers", "what"), [(0, "raise"), (2, "raise"), (2, "exit")])
def test_a_failure_is_told_counted_and_shown(
    tmp_path: Path, cli: Cli, workers: int, what: str
) -> None:
    often = {"logging.period_s": 0.05}
    run = train(tmp_path, "run", workers, what, total_steps=400, **often)
    said = warnings_of(run)
    failed = [episode for episode in run.episodes() if episode.seed % FAILING == 0]
    assert len(said) == len(failed) > 0
    for line, episode in zip(said, failed, strict=True):
        assert line.startswith(f"warning: step {episode.step}: The environment ")
        assert f"number {episode.env_index}, failed in the episode of seed {episode.seed}" in line
        assert "after 2 steps: " in line
        assert "exit code 7" in line or "ValueError('out of lives')" in line
        assert (episode.episodic_length, episode.end) == (2, "truncated")
    lines = (run.directory / "metrics.jsonl").read_text().splitlines()
    counts = [json.loads(line).get("charts/env_restarts") for line in lines]
    assert counts[-1] == len(said)
    assert [count for count in counts if count] == sorted(count for count in counts if count)
    number = failed[0].episode
    shown = cli("record", run.directory, "--training-episode", number)
    assert shown.code == 0, shown.err
    assert "note: The environment failed in this episode after 2 steps" in shown.err
    whole = next(e.episode for e in run.episodes() if e.seed % FAILING)
    assert "note" not in cli("record", run.directory, "--training-episode", whole).err


def metric(run: rlagents.Run, name: str) -> list[tuple[int, float]]:
    lines = map(json.loads, (run.directory / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line[name]) for line in lines if name in line]


def test_how_episodes_came_out_does_not_depend_on_processes(tmp_path: Path) -> None:
    evaluation = {"evaluation.period_steps": 100, "evaluation.episodes": 6, "total_steps": 400}
    runs = [train(tmp_path, f"run-{n}", n, kind="Lives", **evaluation) for n in (0, 2)]
    rates = [metric(run, "eval/success_rate") for run in runs]
    assert rates[0] == rates[1]
    assert [step for step, _ in rates[0]] == [100, 200, 300, 400]
    assert len({rate for _, rate in rates[0]} | {0.0, 1.0}) > 2  # some were completed, some not
    trained = [metric(run, "charts/success_rate")[-1] for run in runs]
    assert trained[0] == trained[1]
    assert 0 < trained[0][1] < 1
    evaluated = [run.evaluate(5) for run in runs]
    assert evaluated[0].as_dict()["outcomes"] == evaluated[1].as_dict()["outcomes"]


@pytest.mark.parametrize(("workers", "what"), [(0, "raise"), (2, "raise"), (2, "exit")])
def test_an_episode_that_is_cut_off_was_neither_completed_nor_not(
    tmp_path: Path, workers: int, what: str
) -> None:
    run = train(tmp_path, "run", workers, what, kind="Lives", game={"always": True})
    assert warnings_of(run)
    assert metric(run, "charts/success_rate")[-1] == (800, 1.0)


def test_a_run_without_failures_has_no_such_metric(tmp_path: Path) -> None:
    run = train(tmp_path, "run", 0, total_steps=200)
    assert "env_restarts" not in (run.directory / "metrics.jsonl").read_text()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_seed_whose_reset_fails_is_passed_over(tmp_path: Path, workers: int) -> None:
    run = train(tmp_path, "run", workers, "raise", game={"at": 0}, total_steps=400)
    said = warnings_of(run)
    assert said
    assert all("at its beginning" in line and "Another seed is tried" in line for line in said)
    episodes = run.episodes()
    assert all(episode.seed % FAILING for episode in episodes)
    assert all(episode.episodic_length == 20 for episode in episodes)


@pytest.mark.parametrize(("workers", "what"), [(0, "raise"), (2, "raise"), (2, "exit")])
@pytest.mark.parametrize("restarts", [0, 2])
def test_after_so_many_failures_a_run_ends(
    tmp_path: Path, workers: int, what: str, restarts: int
) -> None:
    with pytest.raises(RunFailedError) as caught:
        train(
            tmp_path,
            "run",
            workers,
            what,
            game={"folder": str(tmp_path)},
            **{"env.max_restarts": restarts, "checkpoint.period_steps": 20},
        )
    said = str(caught.value)
    run = rlagents.open_run(tmp_path / "run")
    assert caught.value.exit_code == 1
    assert "game.py:Walk, number " in said
    assert "after 2 steps: " in said
    assert f"rlagents resume {run.directory}" in said
    assert len(warnings_of(run)) == restarts
    assert run.checkpoint("last").step > 0
    assert run.status()["state"] == "failed"
    wait_until_gone(pids(tmp_path))
    if restarts:  # a resumed run has as many again
        with pytest.raises(RunFailedError):
            rlagents.resume(run.directory, quiet=True)
        assert len(warnings_of(run)) > restarts


def test_resuming_in_other_processes_is_exact(tmp_path: Path, cli: Cli, read_rows: Rows) -> None:
    whole = train(tmp_path, "whole", 2, "raise", total_steps=900)
    run = train(tmp_path, "run", 2, "exit", total_steps=450)
    for workers, limit, steps in ((0, None, 700), (3, 60.0, 900)):
        path = run.directory / "config.json"
        manifest = json.loads(path.read_text())
        manifest["config"]["env"] |= {"num_workers": workers, "step_limit_s": limit}
        manifest["config"]["env"]["kwargs"]["what"] = "raise"  # in this process
        path.write_text(json.dumps(manifest))
        resumed = cli("resume", run.directory, "--total-steps", steps, "--allow-import")
        assert resumed.code == 0, resumed.err
        assert ", exactly" in resumed.err
    assert learned(rlagents.open_run(run.directory)) == learned(whole)
    files = [one.directory / "episodes.csv" for one in (run, whole)]
    assert read_rows(files[0]) == read_rows(files[1])


def test_how_it_is_run_needs_no_new_trust(tmp_path: Path) -> None:
    run = train(tmp_path, "run", 0, total_steps=100)
    path = run.directory / "config.json"
    manifest = json.loads(path.read_text())
    env = manifest["config"]["env"]
    env |= {"num_workers": 2, "step_limit_s": 60.0, "max_restarts": 5}
    path.write_text(json.dumps(manifest))
    rlagents.resume(run.directory, total_steps=200, quiet=True)
    env["kwargs"]["at"] = 4
    path.write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="--allow-import"):
        rlagents.resume(run.directory, total_steps=300, quiet=True)


def test_a_failure_in_an_evaluation_ends_the_run(tmp_path: Path) -> None:
    """Its seeds are not those of training, of which none fails."""
    says = r"number \d, failed in the episode of seed .*after 18 steps: .*code 7"
    with pytest.raises(RunFailedError, match=says):
        train(
            tmp_path,
            "run",
            2,
            "exit",
            game={"seed": seeding.episode_seed(1, "selection", 1), "at": 19},
            **{"evaluation.period_steps": 40, "env.num_envs": 2, "evaluation.episodes": 2},
        )


def test_a_failure_in_an_evaluation_that_does_not_come_again_changes_nothing(
    tmp_path: Path, read_rows: Rows
) -> None:
    evaluation = {"evaluation.period_steps": 100, "evaluation.episodes": 3, "total_steps": 100}
    whole = train(tmp_path, "whole", 2, **evaluation)
    seed = seeding.episode_seed(1, "selection", 1)
    game = {"seed": seed, "at": 19, "folder": str(tmp_path)}
    run = train(tmp_path, "run", 2, "exit once", game=game, **evaluation)
    (said,) = warnings_of(run)
    assert f"in the evaluation, number 1, failed in the episode of seed {seed} after 18" in said
    assert learned(run) == learned(whole)
    rows = [read_rows(one.directory / "evaluations.csv") for one in (run, whole)]
    assert rows[0] == rows[1] != []


def test_from_the_command_line(tmp_path: Path, cli: Cli, tiny: tuple[str, ...]) -> None:
    trained = cli(
        *("train", "cartpole-dqn", *tiny, "--env.id", write_game(tmp_path)),
        *("--env.kwargs", kwargs_of(folder=tmp_path), "--env.num-workers", 2),
        *("--runs-dir", tmp_path, "--name", "run"),
    )
    assert trained.code == 0, trained.err
    assert len(pids(tmp_path)) >= 4  # of training, and of evaluations
    assert cli("evaluate", tmp_path / "run", "--episodes", 3).code == 0
    wait_until_gone(pids(tmp_path))
    refused = cli("train", "cartpole-dqn", "--env.num-workers", 2, "--runs-dir", tmp_path)
    assert refused.code == 2
    assert "[env] num_workers: cartpole steps all its environments together" in refused.err
