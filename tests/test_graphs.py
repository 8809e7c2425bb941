"""Recordings of updates, with an emulation of CUDA graphs; what only a GPU shows is in scripts."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dqn_tools import (
    ACTIONS,
    CPU,
    NOISY,
    SOFT,
    Stream,
    drive,
    equal,
    make_agent,
    make_tables,
    weights,
)
from emulated_graphs import EmulatedRecorder, NotRecordedError
from torch import Tensor

from rlagents import machine
from rlagents.agents import dqn
from rlagents.agents.dqn import DQN
from rlagents.agents.graphs import Recorded, Tensors
from rlagents.agents.guard import Guard
from rlagents.errors import UsageError
from rlagents.networks import NetworkConfig
from rlagents.spaces import FrameStack
from rlagents.types import Transition


def tensors(**values: float) -> Tensors:
    return {name: torch.tensor([value]) for name, value in values.items()}


# --- Recorded ----------------------------------------


def test_a_recording_does_what_the_function_does_with_other_numbers() -> None:
    total = torch.zeros(1)  # what a recording changes stays where it is
    python = []

    def function(inputs: Mapping[str, Tensor]) -> Tensors:
        python.append(None)
        total.add_(inputs["x"])
        return {"y": inputs["x"] * 2, "total": total * 1}

    recorder = EmulatedRecorder()
    recorded = Recorded(recorder)
    found = [recorded(function, tensors(x=number)) for number in range(1, 9)]
    assert [float(each["y"]) for each in found] == [2, 4, 6, 8, 10, 12, 14, 16]
    assert [float(each["total"]) for each in found] == [1, 3, 6, 10, 15, 21, 28, 36]
    assert (recorder.rehearsed, recorder.recorded, recorder.repeated) == (3, 1, 5)
    assert len(python) == 4


def test_inputs_and_earlier_results_are_left_alone() -> None:
    recorded = Recorded(EmulatedRecorder())
    given = [tensors(x=number) for number in range(7)]
    results = [recorded(lambda inputs: {"y": inputs["x"] + 1}, each) for each in given]
    assert [float(each["x"]) for each in given] == [0, 1, 2, 3, 4, 5, 6]
    assert [float(each["y"]) for each in results] == [1, 2, 3, 4, 5, 6, 7]


def test_what_is_replaced_must_be_recorded_anew() -> None:
    factor = {"now": torch.tensor([2.0])}
    recorder = EmulatedRecorder()
    recorded = Recorded(recorder)

    def times() -> float:
        return float(recorded(lambda inputs: {"y": inputs["x"] * factor["now"]}, tensors(x=1))["y"])

    assert [times() for _ in range(5)] == [2] * 5
    factor["now"] = torch.tensor([3.0])
    assert times() == 2  # the recording knows the tensor of before
    recorded.forget()
    assert [times() for _ in range(5)] == [3] * 5
    assert recorder.recorded == 2


@pytest.mark.parametrize(
    "function",
    [
        lambda inputs: {"y": inputs["x"] * float(inputs["x"])},
        lambda inputs: {"y": inputs["x"] * torch.tensor(2.0)},
        lambda inputs: {"y": inputs["x"][inputs["x"] > 0]},
    ],
    ids=["reads a number", "copies a number", "finds out a size"],
)
def test_the_emulation_refuses_what_cuda_does_not_record(function: Any) -> None:
    recorded = Recorded(EmulatedRecorder())
    for _ in range(3):
        recorded(function, tensors(x=1))
    with pytest.raises(NotRecordedError):
        recorded(function, tensors(x=1))


# --- DQN with recordings ----------------------------------------

OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "mse": {"loss": "mse", "max_grad_norm": 0.0},
    "double": {"double": True, "n_step": 3, "dueling": True},
    "categorical": {"loss": "categorical", "value_min": -9.0, "value_max": 9.0, "double": True},
    "prioritized": {"kind": "prioritized"},
    "noisy": {**NOISY, "double": True},
    "averaged": {"average_decay": 0.9},
    "soft target": {**SOFT, "target_tau": 0.1},
    "rmsprop": {"optimizer": "rmsprop"},
    "another rate": {"learning_rate_end": 1e-4, "learning_rate_decay_steps": 150},
}


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> EmulatedRecorder:
    """Return what all agents record with."""
    recorder = EmulatedRecorder()
    monkeypatch.setattr(dqn, "CudaRecorder", lambda: recorder)
    monkeypatch.setattr(dqn, "Guard", lambda device: Guard(device, read=False))  # as on a GPU
    return recorder


def make_pair(**options: Any) -> tuple[DQN, DQN]:
    """Return an agent as on a GPU, and one that records."""
    pair = make_agent(cuda_graphs=True, **options), make_agent(cuda_graphs=True, **options)
    pair[0]._recordings.clear()
    return pair


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_training_with_recordings_is_the_same(recorder: EmulatedRecorder, kind: str) -> None:
    plain, recording = make_pair(**OPTIONS[kind])
    start = weights(plain._network)
    actions, metrics = drive(plain, Stream(2), 80)
    same_actions, same_metrics = drive(recording, Stream(2), 80)
    assert recorder.recorded == 3
    assert recorder.repeated > 60
    assert plain.fault() is None
    assert recording.fault() is None
    assert same_actions == actions
    assert same_metrics == metrics
    for name in ("_network", "_target", "_playing"):
        assert equal(weights(getattr(recording, name)), weights(getattr(plain, name)))
    assert not equal(start, weights(recording._network))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_pictures_are_recorded_too(recorder: EmulatedRecorder, precision: str) -> None:
    space, generator = FrameStack(2, 36, 36), np.random.default_rng(0)
    table = NetworkConfig.model_validate(
        {
            "torso": "nature-cnn",
            "hidden_sizes": [8],
            "width": 0.125,
            "standardize_pictures": True,
            "precision": precision,
        }
    )
    tables = replace(make_tables(learning_starts=8, batch_size=4, cuda_graphs=True), network=table)
    plain, recording = (
        DQN.from_config(tables, space, ACTIONS, num_envs=2, seed=1, device=CPU) for _ in range(2)
    )
    plain._recordings.clear()
    for _ in range(16):
        frames = generator.integers(0, 256, size=(2, 2, 2, 36, 36), dtype=np.uint8)
        reward = generator.normal(size=2).astype(np.float32)
        over = generator.random(2) < 0.1
        for agent in (plain, recording):
            action = agent.act(frames[0])
            agent.observe(Transition(frames[0], action, reward, frames[1], over, over))
            agent.learn()
    assert recorder.repeated > 10
    assert equal(weights(plain._network), weights(recording._network))


def test_an_update_that_is_not_finite_is_not_made_by_a_recording_either(
    recorder: EmulatedRecorder,
) -> None:
    agent = make_agent(cuda_graphs=True)
    stream = Stream(2)
    drive(agent, stream, 60)
    assert agent.fault() is None
    stream.scale = math.nan
    drive(agent, stream, 5)
    stream.scale = 1.0
    while agent.fault() is None:
        drive(agent, stream, 1)
    before = copy.deepcopy(weights(agent._network))
    repeated = recorder.repeated
    drive(agent, stream, 10)
    assert recorder.repeated > repeated
    assert equal(before, weights(agent._network))
    fault = agent.fault()
    assert fault is not None
    assert math.isnan(fault.loss)
    assert fault.batch["target"].isnan().any()


def test_a_training_that_was_loaded_is_recorded_anew(
    recorder: EmulatedRecorder, tmp_path: Path
) -> None:
    plain, recording = make_pair(kind="prioritized", loss="mse")
    other = make_agent(cuda_graphs=True, kind="prioritized", loss="mse")
    drive(other, Stream(2, seed=5), 60)  # has recordings, with tensors that loading replaces
    for agent in (plain, recording):
        drive(agent, Stream(2), 50)
    recording.save(tmp_path)
    other.load(tmp_path)
    assert equal(weights(other._network), weights(plain._network))
    for agent in (plain, other):
        agent.interrupt()
        drive(agent, Stream(2, seed=3), 50)
    assert recorder.recorded == 9
    assert equal(weights(other._network), weights(plain._network))


def test_two_threads_are_not_recorded() -> None:
    with pytest.raises(UsageError, match=r"\[agent\] cuda_graphs: .*--agent\.pipelined false"):
        make_agent(cuda_graphs=True, pipelined=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cuda_graphs": True}, r"\[agent\] cuda_graphs: needs a GPU.*--device cuda"),
        ({"storage": "device"}, r"\[replay\] storage: \"device\" is the memory of a GPU.*cuda"),
    ],
)
def test_options_of_gpus_are_refused_on_the_cpu(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DQN.resolve(make_tables(**options), "cpu")


def test_a_gpu_is_told_to_compute_in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is put back in the end
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    threads = torch.get_num_threads()
    try:
        machine.prepare_torch(threads, "cuda")
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        machine.prepare_torch(threads, "cpu")
        torch.set_flush_denormal(False)
    assert not torch.are_deterministic_algorithms_enabled()
