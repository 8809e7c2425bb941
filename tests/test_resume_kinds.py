"""A run says which kind of resume it is, why, and keeps that in its config.json."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rlagents
from rlagents import machine

Cli = Callable[..., Any]


def resumes(run: Path) -> list[dict[str, Any]]:
    return list(json.loads((run / "config.json").read_text()).get("resumes", []))


def resume(cli: Cli, run: Path, steps: int) -> str:
    outcome = cli("resume", run, "--total-steps", steps)
    assert outcome.code == 0, outcome.err
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("resuming")]
    return str(line)


def test_an_exact_resume_says_so_and_is_noted(own_run: Path, cli: Cli) -> None:
    assert resumes(own_run) == []
    began = time.time()
    assert resume(cli, own_run, 520) == "resuming at step 480, exactly"
    assert resume(cli, own_run, 560) == "resuming at step 520, exactly"
    noted = resumes(own_run)
    assert [entry["step"] for entry in noted] == [480, 520]
    assert all(entry["not_exact"] is None for entry in noted)
    assert began <= noted[0]["time"] <= noted[1]["time"] <= time.time()
    for key in ("versions", "hardware", "git_commit"):
        assert noted[0][key] == machine.describe()[key]


@pytest.mark.parametrize("package", ["torch", "numpy", "ale-py", "rlagents"])
def test_another_version(
    own_run: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    now = machine.versions()
    monkeypatch.setattr(machine, "versions", lambda: now | {package: "99.9"})
    line = resume(cli, own_run, 520)
    assert line == (f"resuming at step 480, but not exactly ({package} {now[package]} is now 99.9)")
    assert resumes(own_run)[0]["not_exact"] == f"{package} {now[package]} is now 99.9"
    # From then on it goes on as it went on here: what counts is where it was trained last.
    assert resume(cli, own_run, 560) == "resuming at step 520, exactly"
    monkeypatch.undo()
    assert f"{package} 99.9 is now {now[package]}" in resume(cli, own_run, 600)


def test_another_processor(own_run: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    name = machine.cpu_name()
    monkeypatch.setattr(machine, "cpu_name", lambda: "Abacus 9")
    line = resume(cli, own_run, 520)
    assert line == (f"resuming at step 480, but not exactly (the processor {name} is now Abacus 9)")


@pytest.mark.parametrize(
    ("key", "device", "counts"),
    [
        ("cpu", "cpu", True),
        ("cpu", "cuda", True),
        ("gpu", "cuda", True),
        ("gpu", "cpu", False),
        ("memory_bytes", "cpu", False),
        ("system", "cpu", False),
        ("cores", "cpu", False),
    ],
)
def test_what_counts_of_a_machine(key: str, device: str, counts: bool) -> None:
    now = machine.describe()
    before = now | {"hardware": now["hardware"] | {key: "another"}}
    assert machine.difference(now, now, device) is None
    assert (machine.difference(before, now, device) is not None) is counts


def test_a_config_from_before_it_was_noted(own_run: Path, cli: Cli) -> None:
    path = own_run / "config.json"
    manifest = json.loads(path.read_text())
    for key in ("init_from", "trained_here", "hardware"):
        del manifest[key]
    path.write_text(json.dumps(manifest))
    assert "processor None is now" in resume(cli, own_run, 520)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"checkpoint.replay": "never"}, "stored experience was not saved"),
        ({"env.id": "GAME"}, "the environment does not reproduce itself"),
    ],
)
def test_what_a_run_chose_or_cannot_help(
    tmp_path: Path, cli: Cli, change: dict[str, Any], says: str
) -> None:
    game = tmp_path / "game.py"
    game.write_text(
        "import random\n"
        "import gymnasium as gym\n"
        "class Game(gym.RewardWrapper):\n"
        "    def reward(self, reward):\n"
        "        return reward + random.random()\n"
        "def make_env(render_mode=None):\n"
        "    return Game(gym.make('CartPole-v1', render_mode=render_mode))\n"
    )
    chosen = {
        key: f"{game}:make_env" if value == "GAME" else value for key, value in change.items()
    }
    run = rlagents.train(
        "cartpole-dqn",
        {"env.num_envs": 2, "agent.learning_starts": 32, "evaluation.period_steps": 0} | chosen,
        total_steps=40,
        runs_dir=tmp_path,
        quiet=True,
    )
    line = resume(cli, run.directory, 60)
    assert "but not exactly" in line
    assert says in line
    assert says in resumes(run.directory)[0]["not_exact"]
