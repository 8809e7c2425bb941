"""The agents that come with the package: what is in their folders, and that they play."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mario_tools import needs_mario
from safetensors.torch import load_file

import rlagents
from rlagents import UsageError
from rlagents.api import Pretrained
from rlagents.envs import find_env, make_vector_env
from rlagents.pretrained import FOLDER, list_pretrained, pretrained_names, read_manifest

Cli = Callable[..., Any]
ROOT = Path(__file__).resolve().parent.parent
NAMES = ["cartpole", "mario-1-1", "pong"]
PLAYED_HERE = [
    pytest.param(name, marks=needs_mario if name.startswith("mario") else ()) for name in NAMES
]


def short(name: str, folder: Path) -> Pretrained:
    """Return a copy of an agent whose episodes are cut after 40 frames."""
    directory = Path(shutil.copytree(FOLDER / name, folder / name))
    manifest = read_manifest(directory)
    manifest["config"]["env"]["max_episode_frames"] = 40
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return Pretrained(directory)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- the folders ----------------------------------------


def test_these_agents_are_there() -> None:
    assert pretrained_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_holds_a_network_and_its_description(name: str) -> None:
    assert names_in(FOLDER / name) == ["manifest.json", "network.safetensors"]
    tensors = load_file(FOLDER / name / "network.safetensors")  # numbers, never code
    manifest = read_manifest(FOLDER / name)
    dtype = getattr(torch, manifest["dtype"])
    assert {tensor.dtype for tensor in tensors.values()} == {dtype}
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert (FOLDER / name / "network.safetensors").stat().st_size < 1_000_000


@pytest.mark.parametrize("name", NAMES)
def test_the_manifest_says_how_it_was_trained(name: str) -> None:
    manifest = read_manifest(FOLDER / name)
    training, evaluation = manifest["training"], manifest["evaluation"]
    assert training["command"].startswith(f"rlagents train {manifest['recipe']} --seed ")
    assert training["seed"] == manifest["config"]["seed"]
    assert 0 < training["step"] <= manifest["config"]["total_steps"]
    assert training["wall_time_s"] > 0
    assert {"torch", "numpy", "rlagents"} <= set(manifest["versions"])
    assert "git_commit" in manifest
    assert "run" not in evaluation  # the run's folder is nobody else's
    assert evaluation["episodes"] == len(evaluation["returns"]) == 100
    assert evaluation["mean_return"] == np.mean(evaluation["returns"])
    assert evaluation["step"] == training["step"]
    assert str(Path.home()) not in json.dumps(manifest)


@pytest.mark.parametrize("name", PLAYED_HERE)
def test_the_spaces_are_those_of_the_environment(name: str) -> None:
    agent = rlagents.load_pretrained(name)
    env = make_vector_env(find_env(agent.config.env.id), agent.config.env, 2)
    try:
        observation = env.reset(np.ones(2, dtype=np.bool_), [1, 2])
        actions = agent.policy().act(observation)
        assert actions.shape == (2,)
        assert list(env.observation_space.shape) == agent.manifest["observation_space"]["shape"]
        assert env.action_space == type(env.action_space)(agent.manifest["action_space"]["n"])
    finally:
        env.close()


def test_the_wheel_contains_the_folders(tmp_path: Path) -> None:
    source, wheels = tmp_path / "source", tmp_path / "wheels"
    for name in ("rlagents", "envs", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    wheels.mkdir()
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(wheels)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if name.startswith("rlagents/pretrained/")}
        for name in NAMES:
            for file in ("manifest.json", "network.safetensors"):
                inside = f"rlagents/pretrained/{name}/{file}"
                assert archive.read(inside) == (FOLDER / name / file).read_bytes()
                found.remove(inside)
    assert found == {"rlagents/pretrained/__init__.py"}


# --- playing ----------------------------------------


def test_the_cartpole_agent_balances_the_pole_to_the_end(cli: Cli) -> None:
    outcome = cli("evaluate", "cartpole", "--pretrained", "--episodes", 5, "--json")
    assert outcome.code == 0
    result = json.loads(outcome.out)
    assert result["returns"] == [500.0] * 5
    assert result["run"] == str(FOLDER / "cartpole")
    manifest = read_manifest(FOLDER / "cartpole")
    assert result["checkpoint"] == f"step-{manifest['training']['step']}"
    assert result["seed"] == manifest["config"]["seed"]
    other = json.loads(
        cli("evaluate", "cartpole", "--pretrained", "--episodes", 2, "--seed", 9, "--json").out
    )
    assert other["seed"] == 9
    assert other["returns"] == [500.0] * 2


def test_weights_are_computed_with_in_float32() -> None:
    policy = rlagents.load_pretrained("cartpole").policy()
    file = load_file(FOLDER / "cartpole" / "network.safetensors")
    own = policy._network.state_dict()
    assert {tensor.dtype for tensor in file.values()} == {torch.float16}
    assert {tensor.dtype for tensor in own.values()} == {torch.float32}
    assert all(torch.equal(own[name], tensor.float()) for name, tensor in file.items())


def test_the_pong_agent_plays_and_is_shown(tmp_path: Path) -> None:
    agent = short("pong", tmp_path)
    (played,) = agent.evaluate(1).played
    assert played.length == 10  # agent steps of four frames
    (path,) = agent.record(output=tmp_path / "pong.mp4")
    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert sidecar["action"] == played.actions.tolist()
    assert sidecar["num_frames"] == 41
    assert sidecar["step"] == agent.manifest["training"]["step"]


@needs_mario
def test_the_mario_agent_completes_its_stage(cli: Cli) -> None:
    outcome = cli("evaluate", "mario-1-1", "--pretrained", "--episodes", 2, "--seed", 4, "--json")
    assert outcome.code == 0
    result = json.loads(outcome.out)
    assert [episode["flag_get"] for episode in result["outcomes"]] == [True, True]
    assert result["success_rate"] == 1.0


@pytest.mark.slow
def test_the_pong_agent_wins() -> None:
    evaluation = rlagents.load_pretrained("pong").evaluate(1)
    assert evaluation.mean_return > 0


def test_the_policy_does_not_import_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the environment was asked for")

    monkeypatch.setattr("rlagents.trained.find_env", refuse)
    policy = rlagents.load_pretrained("pong").policy()
    assert policy.act(np.zeros((3, 2, 64, 64), dtype=np.uint8)).shape == (3,)


def test_an_evaluation_can_be_stopped() -> None:
    with pytest.raises(rlagents.StoppedError):
        rlagents.load_pretrained("cartpole").evaluate(1, should_stop=lambda: True)


# --- where videos go ----------------------------------------


def test_videos_go_into_the_current_folder_and_take_the_place_of_no_file(
    cli: Cli, here: Path
) -> None:
    first = cli("record", "cartpole", "--pretrained")
    assert first.code == 0
    assert first.out == "cartpole-episode-0-return-500.mp4\n"
    kept = (here / "cartpole-episode-0-return-500.mp4").read_bytes()
    Path("cartpole-episode-0-return-500-2.json").write_text("another's")
    second = cli("record", "cartpole", "--pretrained", "--seed", 5)
    assert second.out == "cartpole-episode-0-return-500-3.mp4\n"
    assert names_in(here) == [
        "cartpole-episode-0-return-500-2.json",
        *("cartpole-episode-0-return-500-3.json", "cartpole-episode-0-return-500-3.mp4"),
        *("cartpole-episode-0-return-500.json", "cartpole-episode-0-return-500.mp4"),
    ]
    assert (here / "cartpole-episode-0-return-500.mp4").read_bytes() == kept
    assert Path("cartpole-episode-0-return-500-2.json").read_text() == "another's"


def test_several_episodes_and_a_name_of_ones_own(tmp_path: Path, here: Path) -> None:
    agent = short("pong", tmp_path)
    paths = agent.record(2)
    assert [path.name for path in paths] == [
        "pong-episode-0-return-0.mp4",
        "pong-episode-1-return-0.mp4",
    ]
    paths = agent.record(2, output="game.mp4", seed=3)
    assert [path.name for path in paths] == ["game-0.mp4", "game-1.mp4"]
    assert len(names_in(here)) == 8


@pytest.mark.parametrize("output", ["game.avi", "here-is-a-file/game.mp4"])
def test_a_video_that_cannot_be_written_is_refused(cli: Cli, here: Path, output: str) -> None:
    (here / "here-is-a-file").touch()
    outcome = cli("record", "cartpole", "--pretrained", "--output", output)
    assert outcome.code == 2
    assert "--output" in outcome.err
    assert names_in(here) == ["here-is-a-file"]


# --- names and options ----------------------------------------


def test_list_shows_agent_steps_and_score(cli: Cli) -> None:
    outcome = cli("list", "pretrained")
    assert outcome.code == 0
    assert [line.split()[0] for line in outcome.out.splitlines()] == NAMES
    assert (
        "cartpole   dqn on cartpole, 30,000 steps: mean return 500.0 ± 0.0 over 100 episodes"
    ) in outcome.out
    (mario,) = (line for line in outcome.out.splitlines() if line.startswith("mario-1-1 "))
    assert mario.endswith("over 100 episodes, 100 % completed")
    rows = json.loads(cli("list", "pretrained", "--json").out)
    assert [(row["name"], row["description"]) for row in rows] == list_pretrained()


@pytest.mark.parametrize("verb", ["record", "evaluate"])
def test_an_unknown_name(cli: Cli, here: Path, verb: str) -> None:
    outcome = cli(verb, "cartpol", "--pretrained")
    assert outcome.code == 2
    assert outcome.err == (
        "rlagents: There is no pretrained agent 'cartpol'; did you mean 'cartpole'? "
        "There are: cartpole, mario-1-1, pong.\n"
    )
    assert not names_in(here)


@pytest.mark.parametrize("name", ["", ".", "..", "../pretrained/pong", "Pong", "pong/"])
def test_only_the_exact_name_is_taken(name: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(name))):
        rlagents.load_pretrained(name)


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("record", ["--checkpoint", "best"]),
        ("record", ["--training-episode", "0"]),
        ("record", ["--runs-dir", "elsewhere"]),
        ("evaluate", ["--checkpoint", "best"]),
        ("evaluate", ["--runs-dir", "elsewhere"]),
    ],
)
def test_options_of_runs_are_refused(cli: Cli, here: Path, verb: str, words: list[str]) -> None:
    outcome = cli(verb, "cartpole", "--pretrained", *words)
    assert outcome.code == 2
    assert f"rlagents: {words[0]} does not go with --pretrained" in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not names_in(here)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--episodes", "0"], "--episodes: expected a whole number, 1 or more"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_numbers_out_of_range(cli: Cli, here: Path, words: list[str], message: str) -> None:
    outcome = cli("record", "cartpole", "--pretrained", *words)
    assert outcome.code == 2
    assert message in outcome.err
    agent = rlagents.load_pretrained("cartpole")
    for numbers in ({"episodes": 0}, {"seed": -1}):
        with pytest.raises(UsageError, match=f"--{next(iter(numbers))}"):
            agent.evaluate(**numbers)  # type: ignore[arg-type]
    assert not names_in(here)


@pytest.mark.parametrize("verb", ["record", "evaluate", "resume"])
def test_a_run_that_is_not_there_but_could_be_a_pretrained_agent(
    cli: Cli, here: Path, verb: str
) -> None:
    outcome = cli(verb, "pong")
    assert outcome.code == 2
    assert "There is no run 'pong'." in outcome.err
    assert outcome.err.endswith("add --pretrained to play pong.\n")
    assert "--pretrained" not in cli(verb, "pongo").err


def test_a_run_of_the_same_name_is_not_in_the_way(cli: Cli, tiny_run: Any, here: Path) -> None:
    shutil.copytree(tiny_run.directory, here / "runs" / "cartpole")
    own = json.loads(cli("evaluate", "cartpole", "--episodes", 1, "--json").out)
    shipped = json.loads(cli("evaluate", "cartpole", "--pretrained", "--episodes", 1, "--json").out)
    assert own["step"] <= 480
    assert shipped["returns"] == [500.0]


def test_an_agent_tells_where_it_lies() -> None:
    agent = rlagents.load_pretrained("pong")
    assert agent.name == "pong"
    assert agent.directory == FOLDER / "pong"
    assert repr(agent) == f"Pretrained({str(FOLDER / 'pong')!r})"
