"""A trained agent plays in another environment, or otherwise, than in its training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlagents
from rlagents.errors import UsageError
from rlagents.naming import beside_others

Cli = Callable[..., Any]


def test_a_change_changes_what_is_played() -> None:
    pong = rlagents.load_pretrained("pong")
    short = pong.in_env({"max_episode_frames": 80, "noop_max": 0})
    sticky = short.in_env({"sticky_probability": 1.0})
    assert short.config.env.sticky_probability == 0
    assert sticky.config.env.sticky_probability == 1
    assert sticky.config.env.max_episode_frames == 80
    one, other = short.evaluate(1), sticky.evaluate(1)
    assert one.lengths == other.lengths == [20]
    assert (one.played[0].values != other.played[0].values).any()
    assert pong.config.env.max_episode_frames != 80


def test_the_report_says_so(own_run: Path, cli: Cli) -> None:
    played = ("evaluate", own_run, "--episodes", 1, "--json")
    plain = json.loads(cli(*played).out)
    other = json.loads(cli(*played, "--env.max-episode-frames", 7).out)
    assert "env" not in plain
    assert other["env"] == {"max_episode_frames": 7}
    assert max(other["lengths"]) <= 7 < max(plain["lengths"])
    assert "max_episode_frames" in cli(*played[:-1], "--env.max-episode-frames=7").out


def test_another_environment_of_the_same_kind(own_run: Path, cli: Cli) -> None:
    outcome = cli("evaluate", own_run, "--episodes", 1, "--env.id", "CartPole-v1", "--json")
    assert json.loads(outcome.out)["env_id"] == "CartPole-v1"


@pytest.fixture
def run_in_workers(own_run: Path) -> Path:
    """The folder of a run as one in two worker processes leaves it."""
    path = own_run / "config.json"
    manifest = json.loads(path.read_text())
    workers = {"num_envs": 4, "num_workers": 2, "step_limit_s": 60.0, "max_restarts": 5}
    manifest["config"]["env"] |= {"id": "CartPole-v1", **workers}
    path.write_text(json.dumps(manifest))
    return own_run


def test_worker_processes_are_left_behind_where_there_are_none(
    run_in_workers: Path, cli: Cli
) -> None:
    played = ("evaluate", run_in_workers, "--episodes", 2, "--json", "--env.id", "cartpole")
    outcome = cli(*played)
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["env"] == {"id": "cartpole"}
    env = rlagents.open_run(run_in_workers).in_env({"id": "cartpole"}).config.env
    assert (env.num_workers, env.step_limit_s, env.max_restarts) == (0, None, None)
    asked = cli(*played, "--env.num-workers", 2)
    assert asked.code == 2
    assert "[env] num_workers: cartpole steps all its environments together" in asked.err


def test_worker_processes_stay_where_there_are_some(run_in_workers: Path) -> None:
    run = rlagents.open_run(run_in_workers)
    env = run.in_env({"max_episode_frames": 7}).config.env
    assert (env.num_workers, env.step_limit_s, env.max_restarts) == (2, 60.0, 5)
    alone = run.in_env({"num_workers": 0})
    assert (alone.config.env.step_limit_s, alone.config.env.max_restarts) == (None, 5)
    assert alone.evaluate(2).returns == run.evaluate(2).returns
    with pytest.raises(UsageError, match="step_limit_s: only a process of its own"):
        run.in_env({"num_workers": 0, "step_limit_s": 5.0})


def test_a_file_that_the_user_names_is_imported_and_arguments_of_the_run_are_not(
    own_run: Path, tmp_path: Path, cli: Cli
) -> None:
    game = tmp_path / "game.py"
    game.write_text(
        "import gymnasium as gym\n"
        "def make_env(render_mode=None, length=4):\n"
        "    return gym.make('CartPole-v1', render_mode=render_mode, max_episode_steps=length)\n"
    )
    named = ("evaluate", own_run, "--episodes", 1, "--json", "--env.id", f"{game}:make_env")
    assert json.loads(cli(*named).out)["lengths"] == [4]
    with_own = json.loads(cli(*named, "--env.kwargs", "{length = 3}").out)
    assert with_own["lengths"] == [3]
    path = own_run / "config.json"
    manifest = json.loads(path.read_text())
    manifest["config"]["env"]["kwargs"] = {"length": 2}
    path.write_text(json.dumps(manifest))
    refused = cli(*named)
    assert refused.code == 2
    assert "--allow-import" in refused.err
    assert json.loads(cli(*named, "--allow-import").out)["lengths"] == [2]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--env.frame-stack", 4, ("4x64x64", "2x64x64", "--env.frame-stack")),
        ("--env.action-set", "minimal", ("6 actions", "trained with 3 actions")),
        ("--env.sticky-probability", 2, ("at most 1",)),
        ("--env.stickiness", 1, ("unknown key", "sticky_probability")),
        ("--env.id", "pomg", ("there is no environment",)),
        ("--agent.gamma", 1, ("unknown argument",)),
        ("--evaluation.epsilon", 2, ("--evaluation.epsilon", "at most 1")),
        ("--evaluation.sample", "true", ("[evaluation] sample", "no probabilities")),
        ("--evaluation.episodes", 3, ("--evaluation.episodes", "epsilon and sample", "--episodes")),
        ("--evaluation.eps", 1, ("--evaluation.eps:", "epsilon and sample")),
    ],
)
def test_what_does_not_fit_is_refused(
    cli: Cli, option: str, value: object, words: tuple[str, ...]
) -> None:
    outcome = cli("evaluate", "pong", "--pretrained", "--episodes", 1, option, value)
    assert outcome.code == 2
    assert len(outcome.err.strip().splitlines()) == 1
    for word in words:
        assert word in outcome.err


def test_a_training_episode_stays_as_it_was(own_run: Path, cli: Cli) -> None:
    outcome = cli("record", own_run, "--training-episode", 0, "--env.frame-skip", 2)
    assert outcome.code == 2
    assert "--env.frame_skip does not go with --training-episode" in outcome.err


def test_a_video_says_where_it_was_played_and_replaces_no_other(own_run: Path) -> None:
    run = rlagents.open_run(own_run)
    [plain] = run.record(checkpoint="last")
    [other] = run.in_env({"max_episode_frames": 5}).record(checkpoint="last")
    assert "env" not in json.loads(plain.with_suffix(".json").read_text())
    about = json.loads(other.with_suffix(".json").read_text())
    assert about["env"] == {"max_episode_frames": 5}
    assert beside_others(other, [about["seed"]], {"env": about["env"]}) == other
    assert beside_others(other, [about["seed"]]) != other
    assert run.in_env({"max_episode_frames": 5}).record(checkpoint="last") == [other]
    assert plain.exists()


def test_no_change_changes_nothing(own_run: Path) -> None:
    run = rlagents.open_run(own_run)
    with pytest.raises(UsageError, match="unknown key"):
        run.in_env({"nonsense": 1})
    assert run.in_env({}).config.model_dump() == run.config.model_dump()


def test_another_chance_of_random_actions(own_run: Path, cli: Cli) -> None:
    played = ("evaluate", own_run, "--episodes", 1, "--json", "--env.max-episode-frames", 60)
    plain = json.loads(cli(*played).out)
    other = json.loads(cli(*played, "--evaluation.epsilon", 0.9).out)
    assert "evaluation" not in plain
    assert (other["epsilon"], other["evaluation"]) == (0.9, {"epsilon": 0.9})
    assert other["env"] == plain["env"]
    run = rlagents.open_run(own_run)
    both = [
        run.with_evaluation({"epsilon": 0.9}).in_env({"max_episode_frames": 60}),
        run.in_env({"max_episode_frames": 60}).with_evaluation({"epsilon": 0.9}),
    ]
    actions = [one.evaluate(1).played[0].actions.tolist() for one in both]
    assert actions[0] == actions[1]
    assert len(actions[0]) == other["lengths"][0]
    greedy = run.in_env({"max_episode_frames": 60}).evaluate(1).played[0]
    assert greedy.actions.tolist() != actions[0]
    assert "epsilon      0.9 (not as in training)" in (
        cli("evaluate", own_run, "--episodes", 1, "--evaluation.epsilon=0.9").out
    )


def test_actions_drawn_from_probabilities() -> None:
    mario = rlagents.load_pretrained("mario-1-1").in_env({"max_episode_frames": 400})
    plain = mario.evaluate(1)
    drawn = mario.with_evaluation({"sample": True}).evaluate(1)
    assert drawn.as_dict()["evaluation"] == {"sample": True}
    best = plain.played[0].values.argmax(axis=1)
    assert (plain.played[0].actions == best).all()
    assert (drawn.played[0].actions != drawn.played[0].values.argmax(axis=1)).any()


def test_games_that_nothing_makes_differ_are_told(cli: Cli) -> None:
    changes = ("--env.noop-max", 0, "--env.max-episode-frames", 80, "--evaluation.epsilon")
    played = ("evaluate", "pong", "--pretrained", "--episodes", 3, *changes)
    assert "different    1: each of the others is one of these again" in cli(*played, 0).out
    assert json.loads(cli(*played, 0, "--json").out)["distinct_episodes"] == 1
    assert "different" not in cli(*played, 0.9).out


def test_a_video_of_other_play_replaces_no_other(own_run: Path) -> None:
    run = rlagents.open_run(own_run).in_env({"max_episode_frames": 5})
    random = run.with_evaluation({"epsilon": 1.0})
    [plain] = run.record(checkpoint="last")
    [other] = random.record(checkpoint="last")
    about = json.loads(other.with_suffix(".json").read_text())
    assert about["evaluation"] == {"epsilon": 1.0}
    assert other != plain
    assert random.record(checkpoint="last") == [other]
    assert "evaluation" not in json.loads(plain.with_suffix(".json").read_text())


def test_what_is_as_in_training_is_no_change(own_run: Path, cli: Cli) -> None:
    run = rlagents.open_run(own_run)
    [plain] = run.record(checkpoint="last")
    table = run.config.evaluation.epsilon
    same = run.with_evaluation({"epsilon": table}).in_env({"frame_skip": run.config.env.frame_skip})
    assert same.record(checkpoint="last") == [plain]
    played = ("evaluate", own_run, "--episodes", 1, "--evaluation.epsilon", table)
    assert "not as in training" not in cli(*played).out
    assert "evaluation" not in json.loads(cli(*played, "--json").out)


def test_numbers_of_other_kinds_are_said_plainly(own_run: Path) -> None:
    run = rlagents.open_run(own_run).with_evaluation({"epsilon": np.float32(0.5)})
    assert json.dumps(run.evaluate(1).as_dict()["evaluation"]) == '{"epsilon": 0.5}'


def test_runs_that_had_asked_for_it_in_vain_are_read(own_run: Path, cli: Cli) -> None:
    played = ("evaluate", own_run, "--episodes", 1, "--json")
    before = json.loads(cli(*played).out)
    path = own_run / "config.json"
    manifest = json.loads(path.read_text())
    manifest["config"]["evaluation"]["sample"] = True
    path.write_text(json.dumps(manifest))
    assert json.loads(cli(*played).out)["returns"] == before["returns"]
    assert cli("resume", own_run, "--total-steps", 700).code == 0
