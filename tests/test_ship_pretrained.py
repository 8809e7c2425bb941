"""The script that makes an agent of the package out of a run."""

from __future__ import annotations

import importlib.util
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import rlagents
from rlagents import pretrained
from rlagents.api import Pretrained
from rlagents.config import build_config, parse_option_values, read_config
from rlagents.envs import find_env, resolve_env_config

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "ship_pretrained.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ship_pretrained", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Ship = Callable[..., Path]


@pytest.fixture
def ship(script: ModuleType, tiny_run: Any, tmp_path: Path) -> Ship:
    """Ship the tiny run, or another, into a folder of the test's."""

    def call(*words: object, run: Path = tiny_run.directory) -> Path:
        into = tmp_path / "shipped"
        more = ("--name", "tiny", "--episodes", 3, "--into", into)
        assert script.main([str(word) for word in (run, *more, *words)]) == 0
        return into / "tiny"

    return call


def test_what_is_shipped_is_found_and_plays_the_same(
    ship: Ship,
    tiny_run: Any,
    cli: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = ship("--checkpoint", "last")
    assert capsys.readouterr().out.splitlines()[-1] == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json",
        "network.safetensors",
    ]
    monkeypatch.setattr(pretrained, "FOLDER", folder.parent)
    assert pretrained.pretrained_names() == ["tiny"]
    outcome = cli("evaluate", "tiny", "--pretrained", "--episodes", 3, "--json")
    shipped = json.loads(outcome.out)
    run = rlagents.open_run(tiny_run.directory)
    own = run.evaluate(3, checkpoint="last")
    assert shipped["returns"] == own.returns
    assert shipped["lengths"] == own.lengths
    manifest = pretrained.read_manifest(folder)
    assert manifest["evaluation"] == {k: v for k, v in shipped.items() if k != "run"}
    assert manifest["training"]["step"] == 480
    assert manifest["config"] == run.config.model_dump(mode="json")
    assert "evaluation_in_float32" not in manifest


def test_the_manifest_keeps_what_the_run_wrote_down(ship: Ship, tiny_run: Any) -> None:
    manifest = pretrained.read_manifest(ship())
    written = json.loads((tiny_run.directory / "config.json").read_text())
    for key in ("recipe", "versions", "git_commit", "hardware", "threads", "action_space"):
        assert manifest[key] == written[key]
    lines = (tiny_run.directory / "metrics.jsonl").read_text().splitlines()
    times = {line["step"]: line["wall_time_s"] for line in map(json.loads, lines)}
    assert manifest["training"]["wall_time_s"] == round(times[manifest["training"]["step"]], 1)


def test_half_precision_halves_the_file_and_shows_both_scores(
    ship: Ship, tiny_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = ship()
    size = (whole / "network.safetensors").stat().st_size
    exact = load_file(whole / "network.safetensors")
    half = ship("--dtype", "float16")  # takes the other's place
    tensors = load_file(half / "network.safetensors")
    assert {tensor.dtype for tensor in exact.values()} == {torch.float32}
    assert all(torch.equal(tensor, exact[name].half()) for name, tensor in tensors.items())
    assert (half / "network.safetensors").stat().st_size < 0.7 * size  # the header stays
    manifest = pretrained.read_manifest(half)
    assert manifest["dtype"] == "float16"
    own = rlagents.open_run(tiny_run.directory).evaluate(3)
    assert manifest["evaluation_in_float32"] == {
        "mean_return": own.mean_return,
        "std_return": own.std_return,
    }
    out = capsys.readouterr().out
    assert f"in float32: mean return {own.mean_return:.2f}" in out
    assert "as shipped, float16" in out
    assert Pretrained(half).policy().values(torch.zeros(1, 4).numpy()).dtype == "float32"


def test_the_command_trains_the_same_again(
    ship: Ship, tiny_run: Any, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    """Its words are the recipe and what differs from it; following them gives the same config."""
    manifest = pretrained.read_manifest(ship())
    words = shlex.split(manifest["training"]["command"])
    assert words[:5] == ["rlagents", "train", "cartpole-dqn", "--seed", "1"]
    given = dict(zip(words[5::2], words[6::2], strict=True))
    assert given["--network.hidden-sizes"] == "[16]"
    assert given["--total-steps"] == "480"
    assert "--agent.gamma" not in given
    assert cli(*words[1:], "--runs-dir", tmp_path / "again", "--name", "run").code == 0
    again = rlagents.open_run(tmp_path / "again" / "run")
    own = rlagents.open_run(tiny_run.directory)
    assert again.config.model_dump() == own.config.model_dump()
    one, other = (
        load_file(run.checkpoint(480).directory / "agent" / "network.safetensors")
        for run in (again, own)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("recipe", "overrides", "words"),
    [
        ("pong-dqn", {}, []),
        ("pong-dqn", {"env.action_set": "minimal"}, ["--env.action-set", "minimal"]),
        ("pong-dqn", {"recording.enabled": False}, ["--recording.enabled", "false"]),
        ("pong-dqn", {"env.crop": [0, 0]}, ["--env.crop", "'[0, 0]'"]),
        ("pong-dqn", {"env.sticky_probability": 0.25}, ["--env.sticky-probability", "0.25"]),
        (
            "pong-dqn",
            {"env.kwargs": {"maxpool": False}},
            ["--env.kwargs", "'{\"maxpool\" = false}'"],
        ),
        ("cartpole-dqn", {"env.id": "CartPole-v1"}, ["--env.id", "CartPole-v1"]),
        ("atari-dqn-2015", {"env.id": "atari/breakout"}, ["--env.id", "atari/breakout"]),
        ("cartpole-reinforce", {"agent.gamma": 0.9}, ["--agent.gamma", "0.9"]),
    ],
)
def test_the_command_names_what_differs_from_the_recipe(
    script: ModuleType, recipe: str, overrides: dict[str, Any], words: list[str]
) -> None:
    tables, _ = read_config(recipe)
    config = build_config(tables, {"seed": 7, "device": "cpu"} | overrides, recipe)
    agent = script.find_agent(config.agent_name)
    env = resolve_env_config(config.env, find_env(config.env.id))
    config = config.model_copy(update={"env": env, **agent.resolve(config, "cpu")})
    command = script.training_command(config, recipe)
    assert command == " ".join(["rlagents", "train", recipe, "--seed", "7", *words])


def test_the_command_leaves_out_what_a_run_left_out_and_the_recipe_sets(
    script: ModuleType,
) -> None:
    tables, _ = read_config("pong-dqn")
    assert tables["agent"]["late_return"]
    agent = {key: value for key, value in tables["agent"].items() if not key.startswith("late_")}
    config = build_config(tables | {"agent": agent}, {"device": "cpu"}, "pong-dqn")
    env = resolve_env_config(config.env, find_env(config.env.id))
    config = config.model_copy(update={"env": env})
    words = shlex.split(script.training_command(config, "pong-dqn"))
    given = dict(zip(words[3::2], words[4::2], strict=True))
    assert given["--agent.late-return"] == "none"
    overrides = {flag.removeprefix("--").replace("-", "_"): text for flag, text in given.items()}
    again = build_config(tables, parse_option_values(overrides), "pong-dqn")
    assert again.agent == config.agent


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--name", "Tiny run"], "--name: expected small letters"),
        (["--name", "../tiny"], "--name: expected small letters"),
        (["--checkpoint", "7"], "--checkpoint: there is no checkpoint '7'"),
        (["--episodes", "0"], "--episodes: expected 1 or more, got 0"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(
    script: ModuleType,
    tiny_run: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    into = tmp_path / "shipped"
    base = [str(tiny_run.directory), "--name", "tiny", "--into", str(into)]
    assert script.main([*base, *words]) == 2
    assert message in capsys.readouterr().err
    assert not into.exists()


def test_an_unknown_run(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["nowhere", "--name", "tiny"]) == 2
    assert "There is no run 'nowhere'" in capsys.readouterr().err


def test_an_agent_without_one_file_of_weights(
    script: ModuleType, own_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for checkpoint in (own_run / "checkpoints").glob("step-*"):
        (checkpoint / "agent" / "network.safetensors").unlink()
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        del manifest["files"]["agent/network.safetensors"]
        (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    into = tmp_path / "shipped"
    assert script.main([str(own_run), "--name", "tiny", "--into", str(into)]) == 2
    assert "save their network in one file" in capsys.readouterr().err
    assert not into.exists()


def test_a_run_without_a_recipe_needs_a_command(
    script: ModuleType,
    ship: Ship,
    own_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest = json.loads((own_run / "config.json").read_text())
    (own_run / "config.json").write_text(json.dumps(manifest | {"recipe": "custom"}))
    into = tmp_path / "shipped"
    assert script.main([str(own_run), "--name", "tiny", "--into", str(into)]) == 2
    assert "--command" in capsys.readouterr().err
    assert not into.exists()
    folder = ship("--command", "python train.py", run=own_run)
    assert pretrained.read_manifest(folder)["training"]["command"] == "python train.py"


def test_another_agent_of_that_name_is_replaced_whole(ship: Ship) -> None:
    folder = ship("--checkpoint", "last")
    (folder / "leftover").touch()
    before = pretrained.read_manifest(folder)
    after = ship("--checkpoint", 480)
    assert not (after / "leftover").exists()
    assert pretrained.read_manifest(after) == before
