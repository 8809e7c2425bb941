"""The script that compares trainings on a GPU, here with an emulation on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from emulated_graphs import EmulatedRecorder

from rlagents.agents import dqn
from rlagents.agents.graphs import Tensors
from rlagents.agents.guard import Guard
from rlagents.config import build_config, read_config
from verify_gpu import KINDS, WAYS, CountingRecorder, Outcome, options_of, train, verify


class Emulation(EmulatedRecorder):
    """Counts as the script does."""

    def record(self, function: Callable[[], Tensors]) -> tuple[Callable[[], None], Tensors]:
        CountingRecorder.made += 1
        return super().record(function)


@pytest.fixture(autouse=True)
def the_cpu_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dqn, "CudaRecorder", Emulation)
    monkeypatch.setattr(dqn, "_refuse_options_of_gpus", lambda *tables: None)
    monkeypatch.setattr(dqn, "Guard", lambda device: Guard(device, read=False))
    monkeypatch.setattr("rlagents.machine.available_device_memory", lambda: 10**10)
    # Recorded or not: on a GPU, numbers are rounded alike.
    make = dqn._make_optimizer
    monkeypatch.setattr(
        dqn, "_make_optimizer", lambda *args, **kwargs: make(*args, recordable=True)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_every_training_is_one_that_there_is(kind: str, way: str) -> None:
    tables, recipe = read_config(KINDS[kind][0])
    config = build_config(tables, options_of(kind, 4000, "cpu") | WAYS[way], recipe)
    dqn.DQN.check(config, num_envs=config.env.num_envs or 1)


def test_a_kind_is_the_same_in_every_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(["cartpole-dqn"], 400, "cpu")
    assert capsys.readouterr().out.count("the same") == 6


def test_another_seed_is_another_training() -> None:
    options = {"total_steps": 300, "agent.learning_starts": 100, "evaluation.period_steps": 0}
    one, same, other = (
        train("cartpole-dqn", {**options, "seed": seed}, resumed=False) for seed in (1, 1, 2)
    )
    assert one.weights == same.weights
    assert one.episodes == same.episodes
    assert one.weights != other.weights
    assert one.episodes != other.episodes


def test_what_is_wrong_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    def train(config: str, options: Mapping[str, Any], *, resumed: bool) -> Outcome:
        weights = b"other" if "replay.storage" in options else b"same"
        return Outcome(weights, str(resumed), 100.0, recordings=2)

    assert not verify(["pong-dqn", "noisy"], 400, "cuda", train)
    lines = [line.split("steps/s")[1].strip() for line in capsys.readouterr().out.splitlines()]
    assert lines == 2 * [
        *("the same", "the same", "2 recordings", "other weights"),
        *("other weights, 2 recordings", "other weights, other episodes, 2 recordings"),
    ]
