"""The same seed gives the same run to the bit, whether anybody looks or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import rlagents

CARTPOLE_DQN = {
    "env.num_envs": 8,
    "total_steps": 1_600,
    "agent.learning_starts": 200,
    "replay.capacity": 800,  # the ring wraps
    "replay.batch_size": 32,
    "agent.target_period_steps": 300,
    "evaluation.period_steps": 500,
    "evaluation.episodes": 3,
    "checkpoint.period_steps": 700,
}
CARTPOLE_NOISY = {
    **CARTPOLE_DQN,
    "agent.epsilon_start": 0.0,
    "agent.epsilon_end": 0.0,
    "network.noisy": True,
}
CARTPOLE_REINFORCE = {
    "env.num_envs": 8,
    "agent.episodes_per_update": 16,
    "total_steps": 1_600,
    "evaluation.period_steps": 500,
    "evaluation.episodes": 3,
    "checkpoint.period_steps": 700,
}
CARTPOLE_PPO = {
    "env.num_envs": 8,
    "agent.rollout_steps": 16,
    "total_steps": 1_600,
    "evaluation.period_steps": 500,
    "evaluation.episodes": 3,
    "checkpoint.period_steps": 700,
}
PONG_DQN = {
    "total_steps": 480,
    "env.num_envs": 4,
    "env.sticky_probability": 0.25,
    "env.max_episode_frames": 400,  # short episodes, so that some end
    "agent.learning_starts": 160,
    "agent.target_period_steps": 100,
    "replay.capacity": 2_000,
    "replay.batch_size": 16,
    "evaluation.period_steps": 240,
    "evaluation.episodes": 1,
    "evaluation.epsilon": 0.05,
    "recording.scale": 1,
}
CASES = [
    pytest.param("cartpole-dqn", CARTPOLE_DQN, id="cartpole-dqn"),
    pytest.param("cartpole-dqn", CARTPOLE_NOISY, id="cartpole-dqn-noisy"),
    pytest.param("cartpole-reinforce", CARTPOLE_REINFORCE, id="cartpole-reinforce"),
    pytest.param("cartpole-ppo", CARTPOLE_PPO, id="cartpole-ppo"),
    pytest.param("pong-dqn", PONG_DQN, id="pong-dqn", marks=pytest.mark.slow),
]
# Nobody looks: no evaluation, no video, other checkpoints and another rhythm of the log.
UNWATCHED = {
    "evaluation.period_steps": 0,
    "recording.enabled": False,
    "checkpoint.period_steps": 10_000,
    "logging.period_s": 0.01,
}


class Result(NamedTuple):
    agent: dict[str, str]  # SHA-256 of every file of the agent in the last checkpoint
    episodes: list[dict[str, str]]
    evaluations: list[dict[str, str]]
    actions: bytes


Trainer = Callable[..., Result]


@pytest.fixture(scope="module")
def train(
    tmp_path_factory: pytest.TempPathFactory, read_rows: Callable[[Path], list[dict[str, str]]]
) -> Trainer:
    """Train and say what came of it; a run that was asked for before is not trained again."""
    directory = tmp_path_factory.mktemp("determinism")
    results: dict[str, Result] = {}

    def run(recipe: str, overrides: dict[str, Any], *, repetition: int = 0) -> Result:
        key = json.dumps([recipe, overrides, repetition])
        if key in results:
            return results[key]
        number = len(results)
        # A run must depend on no generator that somebody else may have used.
        np.random.seed(number)
        torch.manual_seed(number)
        done = rlagents.train(
            recipe, overrides, runs_dir=directory, name=f"run-{number}", quiet=True
        )
        manifest = json.loads((done.checkpoint("last").directory / "manifest.json").read_text())
        files = manifest["files"].items()
        actions = done.directory / "actions" / "actions.bin"  # there from the first episode's end
        results[key] = Result(
            {name: about["sha256"] for name, about in files if name.startswith("agent/")},
            read_rows(done.directory / "episodes.csv"),
            read_rows(done.directory / "evaluations.csv"),
            actions.read_bytes() if actions.exists() else b"",
        )
        return results[key]

    return run


@pytest.mark.parametrize(("recipe", "overrides"), CASES)
def test_the_same_seed_gives_the_same_run(
    train: Trainer, recipe: str, overrides: dict[str, Any]
) -> None:
    first, again = (train(recipe, overrides | {"seed": 5}, repetition=n) for n in (0, 1))
    assert len(first.episodes) > 3
    assert len(first.evaluations) >= 2
    assert "agent/network.safetensors" in first.agent
    assert first == again


@pytest.mark.parametrize(("recipe", "overrides"), CASES)
def test_watching_changes_nothing(train: Trainer, recipe: str, overrides: dict[str, Any]) -> None:
    watched = train(recipe, overrides | {"seed": 5})
    unwatched = train(recipe, overrides | UNWATCHED | {"seed": 5})
    assert watched.evaluations
    assert not unwatched.evaluations
    assert watched.agent == unwatched.agent
    assert watched.episodes == unwatched.episodes
    assert watched.actions == unwatched.actions


@pytest.mark.parametrize(("recipe", "overrides"), CASES)
def test_another_seed_gives_another_run(
    train: Trainer, recipe: str, overrides: dict[str, Any]
) -> None:
    one, other = (train(recipe, overrides | UNWATCHED | {"seed": seed}) for seed in (5, 6))
    assert not {row["seed"] for row in one.episodes} & {row["seed"] for row in other.episodes}
    assert one.agent["agent/network.safetensors"] != other.agent["agent/network.safetensors"]
    assert one.actions != other.actions


@pytest.mark.parametrize(("recipe", "overrides"), CASES[:2])
def test_parameters_do_change(train: Trainer, recipe: str, overrides: dict[str, Any]) -> None:
    """Else the tests above would hold for agents that never learn."""
    early = train(recipe, overrides | UNWATCHED | {"seed": 5, "total_steps": 200})
    late = train(recipe, overrides | UNWATCHED | {"seed": 5})
    name = "agent/network.safetensors"
    assert early.agent[name] != late.agent[name]
    if recipe.endswith("dqn"):
        target = "agent/target.safetensors"
        assert early.agent[name] == early.agent[target]
        assert len({late.agent[target], early.agent[target], late.agent[name]}) == 3
