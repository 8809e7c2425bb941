"""A new run that begins with the weights of a trained one, and with nothing else of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

import rlagents
from rlagents.agents.dqn import DQN
from rlagents.errors import UsageError

Cli = Callable[..., Any]

DQN_SMALL: dict[str, Any] = {
    "env.num_envs": 4,
    "agent.learning_starts": 64,
    "replay.capacity": 400,
    "replay.batch_size": 16,
    "network.hidden_sizes": [16],
    "evaluation.period_steps": 0,
    "recording.enabled": False,
}
REINFORCE_SMALL: dict[str, Any] = {
    "env.num_envs": 4,
    "agent.episodes_per_update": 4,
    "network.hidden_sizes": [16],
    "evaluation.period_steps": 0,
    "recording.enabled": False,
}
PPO_SMALL: dict[str, Any] = {
    "env.num_envs": 4,
    "agent.rollout_steps": 16,
    "network.hidden_sizes": [16],
    "evaluation.period_steps": 0,
    "recording.enabled": False,
}
OBSERVATIONS = np.linspace(-1, 1, 40, dtype=np.float32).reshape(10, 4)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("donors")


@pytest.fixture(scope="module")
def donors(runs: Path) -> dict[str, rlagents.Run]:
    return {
        name: rlagents.train(
            f"cartpole-{name}", overrides, total_steps=800, runs_dir=runs, name=name, quiet=True
        )
        for name, overrides in (
            ("dqn", DQN_SMALL),
            ("ppo", PPO_SMALL),
            ("reinforce", REINFORCE_SMALL),
        )
    }


def sizes(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "agent" / "state.json").read_text()))


def distance(one: rlagents.Run, other: rlagents.Run) -> float:
    """Return how far the weights that play are from each other."""
    both = [
        safetensors.numpy.load_file(
            run.checkpoint("last").directory / "agent" / "network.safetensors"
        )
        for run in (one, other)
    ]
    return float(np.sqrt(sum(((both[0][name] - both[1][name]) ** 2).sum() for name in both[0])))


@pytest.mark.parametrize(
    ("name", "overrides"),
    [("dqn", DQN_SMALL), ("ppo", PPO_SMALL), ("reinforce", REINFORCE_SMALL)],
)
def test_the_policy_is_the_donors_until_learning_goes_on_from_there(
    tmp_path: Path,
    donors: dict[str, rlagents.Run],
    name: str,
    overrides: dict[str, Any],
) -> None:
    donor = donors[name]

    def begin(steps: int, folder: str, **more: Any) -> rlagents.Run:
        return rlagents.train(
            f"cartpole-{name}",
            overrides | {"seed": 2},
            total_steps=steps,
            runs_dir=tmp_path,
            name=folder,
            quiet=True,
            **more,
        )

    begun = begin(4, "begun", init_from=donor.directory)  # too few steps to learn from
    expected = donor.policy("last").values(OBSERVATIONS)
    assert np.array_equal(begun.policy("last").values(OBSERVATIONS), expected)
    assert begun.evaluate(episodes=3, seed=5).returns == donor.evaluate(episodes=3, seed=5).returns
    fresh = begin(4, "fresh")
    assert not np.array_equal(fresh.policy("last").values(OBSERVATIONS), expected)
    # Nothing else is the donor's: counters, optimizer and experience are those of a new run.
    one, other = (run.checkpoint("last").directory for run in (begun, fresh))
    assert (one / "agent" / "optimizer.safetensors").read_bytes() == (
        other / "agent" / "optimizer.safetensors"
    ).read_bytes()
    states = [sizes(directory) for directory in (one, other)]
    assert states[0].keys() == states[1].keys()
    for key in ("steps", "owed_steps", "learn_after", "steps_since_target", "finished"):
        assert states[0].get(key) == states[1].get(key), key
    if name == "dqn":
        target = (one / "agent" / "target.safetensors").read_bytes()
        assert target == (one / "agent" / "network.safetensors").read_bytes()
    # Learning begins there: its weights have moved, less far than to those of another beginning.
    late, stranger = begin(400, "late", init_from=donor.directory), begin(400, "stranger")
    assert 0 < distance(late, donor) < distance(stranger, donor)


def test_config_json_says_whose_weights_they_were(
    tmp_path: Path, donors: dict[str, rlagents.Run], cli: Cli
) -> None:
    donor = donors["dqn"]
    words = [f"--{key.replace('_', '-')}={json.dumps(value)}" for key, value in DQN_SMALL.items()]
    common = ("train", "cartpole-dqn", *words, "--total-steps", 4, "--runs-dir")
    outcome = cli(
        *(*common, donor.directory.parent, "--name", "mine"),
        *("--init-from", "dqn", "--init-checkpoint", "800"),
    )
    assert outcome.code == 0, outcome.err
    mine = donor.directory.parent / "mine"
    weights = donor.checkpoint("last").directory / "agent" / "network.safetensors"
    about = json.loads((mine / "config.json").read_text())["init_from"]
    assert about == {
        "run": str(donor.directory.resolve()),
        "checkpoint": "step-800",
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    assert "step-800" in (mine / "run.log").read_text()
    assert cli("resume", mine, "--total-steps", 8).code == 0
    assert json.loads((mine / "config.json").read_text())["init_from"] == about
    assert cli(*common, tmp_path, "--name", "plain").code == 0
    assert json.loads((tmp_path / "plain" / "config.json").read_text())["init_from"] is None


def test_the_checkpoint_is_the_best_unless_another_is_asked_for(
    tmp_path: Path, tiny_run: Any
) -> None:
    index = json.loads((tiny_run.directory / "checkpoints" / "index.json").read_text())
    overrides = {key: DQN_SMALL[key] for key in DQN_SMALL}

    def checkpoint(**more: Any) -> Any:
        run = rlagents.train(
            "cartpole-dqn",
            overrides,
            total_steps=4,
            runs_dir=tmp_path,
            quiet=True,
            init_from=tiny_run.directory,
            **more,
        )
        return json.loads((run.directory / "config.json").read_text())["init_from"]["checkpoint"]

    assert checkpoint() == checkpoint(init_checkpoint="best") == index["best"]
    assert checkpoint(init_checkpoint="last") == index["last"]
    assert checkpoint(init_checkpoint=480) == "step-480"


@pytest.mark.parametrize(
    ("recipe", "changes", "says"),
    [
        (
            "cartpole-dqn",
            {"network.hidden_sizes": [16, 8]},
            ["2.weight is missing there and [8, 16] here", "network.hidden_sizes"],
        ),
        (
            "cartpole-dqn",
            {"network.hidden_sizes": [32]},
            ["is [16, 4] there and [32, 4] here", "network.hidden_sizes"],
        ),
        ("cartpole-dqn", {"network.dueling": True}, ["value_head", "missing there", "dueling"]),
        (
            "cartpole-dqn",
            {"agent.loss": "categorical", "agent.value_min": 0, "agent.value_max": 99},
            ["head.weight is [2, 16] there and [102, 16] here", "agent.loss"],
        ),
        ("cartpole-dqn", {"env.id": "Acrobot-v1"}, ["is [16, 4] there and [16, 6] here", "env.id"]),
        ("cartpole-reinforce", {}, ["trained by 'dqn'", "'reinforce'"]),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path: Path,
    donors: dict[str, rlagents.Run],
    recipe: str,
    changes: dict[str, Any],
    says: list[str],
) -> None:
    base = DQN_SMALL if recipe.endswith("dqn") else REINFORCE_SMALL
    with pytest.raises(UsageError) as caught:
        rlagents.train(
            recipe,
            base | changes,
            total_steps=4,
            runs_dir=tmp_path / "runs",
            quiet=True,
            init_from=donors["dqn"].directory,
        )
    for words in ["--init-from", *says]:
        assert words in str(caught.value)
    assert "num_envs" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_ppo_begins_where_reinforce_has_come_to_and_not_the_other_way_round(
    tmp_path: Path, donors: dict[str, rlagents.Run]
) -> None:
    def begin(recipe: str, overrides: dict[str, Any], donor: str) -> rlagents.Run:
        return rlagents.train(
            recipe,
            overrides,
            total_steps=4,
            runs_dir=tmp_path,
            quiet=True,
            init_from=donors[donor].directory,
        )

    run = begin("cartpole-ppo", PPO_SMALL, "reinforce")
    values = run.policy("last").values(OBSERVATIONS)
    np.testing.assert_array_equal(values, donors["reinforce"].policy("last").values(OBSERVATIONS))
    with pytest.raises(UsageError, match=r"trained by 'ppo' and this config is for 'reinforce'"):
        begin("cartpole-reinforce", REINFORCE_SMALL, "ppo")
    with pytest.raises(UsageError, match=r"by 'dqn' .* for 'ppo'; .* of ppo or reinforce\."):
        begin("cartpole-ppo", PPO_SMALL, "dqn")


def test_ppo_needs_the_values_of_reinforce(tmp_path: Path) -> None:
    without = REINFORCE_SMALL | {"agent.baseline": "none"}
    options: dict[str, Any] = {"total_steps": 4, "runs_dir": tmp_path, "quiet": True}
    donor = rlagents.train("cartpole-reinforce", without, **options)
    with pytest.raises(UsageError, match=r'has no values; .* \[agent\] baseline = "value"'):
        rlagents.train("cartpole-ppo", PPO_SMALL, init_from=donor.directory, **options)


def test_a_baseline_is_needed_where_the_config_has_one(
    tmp_path: Path, donors: dict[str, rlagents.Run]
) -> None:
    with pytest.raises(UsageError, match=r"value_head\.bias is \[1\] there and missing here"):
        rlagents.train(
            "cartpole-reinforce",
            REINFORCE_SMALL | {"agent.baseline": "none"},
            total_steps=4,
            runs_dir=tmp_path,
            quiet=True,
            init_from=donors["reinforce"].directory,
        )


def test_atoms_that_mean_other_values_are_refused(tmp_path: Path) -> None:
    def begin(limit: float, **more: Any) -> rlagents.Run:
        atoms = {"agent.loss": "categorical", "agent.value_min": 0, "agent.value_max": limit}
        return rlagents.train(
            "cartpole-dqn",
            DQN_SMALL | atoms,
            total_steps=4,
            runs_dir=tmp_path,
            quiet=True,
            **more,
        )

    donor = begin(99)
    assert begin(99, init_from=donor.directory)
    with pytest.raises(UsageError, match=r"value_max is 99.0 there and 50.0 here.*agent.value_max"):
        begin(50, init_from=donor.directory)


def test_every_network_of_dqn_begins_with_what_plays(
    tmp_path: Path, donors: dict[str, rlagents.Run]
) -> None:
    run = rlagents.train(
        "cartpole-dqn",
        DQN_SMALL | {"agent.average_decay": 0.9, "agent.pipelined": True},
        total_steps=4,
        runs_dir=tmp_path,
        quiet=True,
        init_from=donors["dqn"].directory,
    )
    folder = run.checkpoint("last").directory / "agent"
    names = ("network", "latest", "target", "acting")
    files = {(folder / f"{name}.safetensors").read_bytes() for name in names}
    assert len(files) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--init-checkpoint", "best"), "--init-checkpoint: needs --init-from"),
        (("--init-from", "nowhere"), "no run 'nowhere'"),
        (("--init-from", "DONOR", "--init-checkpoint", "7"), "no checkpoint '7'"),
    ],
)
def test_what_is_not_there_is_refused(
    tmp_path: Path,
    donors: dict[str, rlagents.Run],
    cli: Cli,
    words: tuple[str, ...],
    says: str,
) -> None:
    named = [str(donors["dqn"].directory) if word == "DONOR" else word for word in words]
    outcome = cli("train", "cartpole-dqn", "--runs-dir", tmp_path / "runs", *named)
    assert outcome.code == 2
    assert says in outcome.err
    assert not (tmp_path / "runs").exists()


def test_an_agent_that_takes_no_weights_says_so() -> None:
    with pytest.raises(UsageError, match="DQN has no take_weights"):
        rlagents.Agent.take_weights(DQN.__new__(DQN), {"a": torch.zeros(1)}, {})


def test_help_shows_the_options(cli: Cli) -> None:
    text = cli("train", "--help").out
    assert "--init-from RUN" in text
    assert "--init-checkpoint best|last|STEP" in text
