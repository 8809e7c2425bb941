"""DQN with `pipelined`: the second thread learns, and nothing depends on which one is faster."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dqn_tools import NOISY, SOFT, Stream, drive, equal, make_agent, make_tables, weights

from rlagents import machine
from rlagents.agents.dqn import DQN
from rlagents.types import Metrics

OPTIONS: list[dict[str, Any]] = [
    {},
    {"double": True, "n_step": 2},
    {"kind": "prioritized", "double": True},
    {"kind": "prioritized", "update_period_steps": 5},
    NOISY | {"dueling": True},
    SOFT | {"target_tau": 0.05},
    {"double": True, "average_decay": 0.9},
    NOISY | {"average_decay": 0.9},
    {"update_period_steps": 5, "learning_rate_end": 1e-4, "learning_rate_decay_steps": 100},
    {"late_return": [-1e6], "late_learning_rate": [1e-3], "late_update_period_steps": [6]},
]


def pipelined(**options: Any) -> DQN:
    return make_agent(**{"pipelined": True, "target_period_steps": 10} | options)


def test_a_target_period_within_an_update_period_owes_no_copies_later() -> None:
    late = {"late_return": [1e6], "late_update_period_steps": [4]}
    agent = pipelined(target_period_steps=8, update_period_steps=16, **late)
    stream = Stream(2)
    drive(agent, stream, 200)
    agent._late.reached = 1  # from here on there is an update every 4 steps, a copy every 8
    drive(agent, stream, 4)
    copies = 0
    for _ in range(20):
        target = weights(agent._target)
        drive(agent, stream, 1)
        copies += not equal(weights(agent._target), target)
    assert copies == 5  # of 40 steps


class AtOnce(ThreadPoolExecutor):
    """Learns before the next batches are prepared."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*args, **kwargs))
        return future


class AtLast(ThreadPoolExecutor):
    """Learns when somebody waits for it."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        class Late(Future[Any]):
            def result(self, timeout: float | None = None) -> Any:
                return function(*args, **kwargs)

        return Late()


def course(agent: DQN, steps: int = 40) -> tuple[list[list[int]], list[Metrics], dict[str, Any]]:
    actions, metrics = drive(agent, Stream(2), steps)
    agent.policy()  # waits for what is being learned
    return actions, metrics, weights(agent._network)


@pytest.mark.parametrize("options", OPTIONS)
def test_it_does_not_matter_who_is_faster(options: dict[str, Any]) -> None:
    expected = course(pipelined(**options))
    for executor in (AtOnce, AtLast):
        agent = pipelined(**options)
        agent._learner = executor(1)
        actions, metrics, network = course(agent)
        assert actions == expected[0]
        assert metrics == expected[1]
        assert equal(network, expected[2])


def test_another_thread_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = pipelined()
    threads: dict[str, set[str]] = {"_improve": set(), "_prepare": set()}
    for name, found in threads.items():
        method = getattr(agent, name)

        def noting(*args: Any, method: Any = method, found: set[str] = found) -> Any:
            found.add(threading.current_thread().name)
            return method(*args)

        monkeypatch.setattr(agent, name, noting)
    course(agent)
    assert threads["_prepare"] == {threading.current_thread().name}
    assert len(threads["_improve"]) == 1
    assert threads["_improve"] != threads["_prepare"]


def test_actions_are_chosen_by_the_weights_from_before_the_step_that_runs() -> None:
    agent, stream = pipelined(epsilon_start=0.0, epsilon_end=0.0), Stream(2)
    drive(agent, stream, 20)
    for _ in range(10):
        agent.learn()
        acting = weights(agent._acting)
        learned = weights(agent.policy()._network)
        assert not equal(acting, learned)
        for observation in (stream.observation, 3 * stream.observation):
            values = agent._acting(torch.from_numpy(observation))
            assert agent.act(observation).tolist() == values.argmax(dim=1).tolist()
        assert equal(weights(agent._acting), acting)
        agent.observe(stream.step(agent.act(stream.observation)))
        agent.learn()
        assert equal(weights(agent._acting), learned)
        agent.observe(stream.step(agent.act(stream.observation)))


def test_the_first_update_is_a_step_later() -> None:
    agent, stream = pipelined(learning_starts=20, update_period_steps=2), Stream(2)
    before = weights(agent._network)
    drive(agent, stream, 10)  # 20 agent steps; their update comes with the next call
    assert agent.learn() == {}  # prepares the first batch
    agent.observe(stream.step(agent.act(stream.observation)))
    assert equal(weights(agent.policy()._network), before)
    assert agent.learn() == {}  # learns from it
    agent.observe(stream.step(agent.act(stream.observation)))
    assert not equal(weights(agent.policy()._network), before)
    assert agent.learn().keys() == {"losses/td_loss", "losses/q_values"}  # reports it


def test_the_learner_has_the_steps_that_need_no_update_to_finish() -> None:
    agent, stream = pipelined(learning_starts=20, update_period_steps=6), Stream(2)
    drive(agent, stream, 30)
    waited = []
    for _ in range(9):
        running = agent._improving
        agent.learn()
        waited.append(agent._improving is not running)
        agent.observe(stream.step(agent.act(stream.observation)))
    assert waited.count(True) == 3  # of nine steps with two environments, each third


@pytest.mark.parametrize("steps", [4, 11, 31])  # before, while and after learning has started
@pytest.mark.parametrize("options", OPTIONS)
def test_a_saved_agent_goes_on_bit_for_bit(
    tmp_path: Path, steps: int, options: dict[str, Any]
) -> None:
    agent, stream = pipelined(**options), Stream(2, end=0.3)  # 20 episodes in about 33 steps
    drive(agent, stream, steps)
    agent.save(tmp_path)
    other, same_stream = pipelined(**options, seed=99), copy.deepcopy(stream)
    other.load(tmp_path)
    for _ in range(30):
        actions, _ = drive(agent, stream, 1)
        same_actions, _ = drive(other, same_stream, 1)
        assert actions == same_actions
        for name in ("_network", "_playing", "_acting", "_target"):
            agent.policy(), other.policy()
            assert equal(weights(getattr(agent, name)), weights(getattr(other, name)))


@pytest.mark.parametrize("period", [2, 5, 6])  # with two environments, steps without updates
def test_saving_and_asking_for_a_policy_change_nothing(tmp_path: Path, period: int) -> None:
    options = {"kind": "prioritized", "update_period_steps": period}
    disturbed, untouched = pipelined(**options), pipelined(**options)
    stream, same_stream = Stream(2), Stream(2)
    for step in range(120):
        stream.scale = same_stream.scale = 1 + step  # so that the highest priority grows
        if step % 3 == 0:
            disturbed.policy()
        if step in (5, 25):
            (tmp_path / str(step)).mkdir()
            disturbed.save(tmp_path / str(step), experience=step == 25)
        actions, metrics = drive(disturbed, stream, 1)
        assert (actions, metrics) == drive(untouched, same_stream, 1)
    untouched.policy()
    assert equal(weights(disturbed.policy()._network), weights(untouched.policy()._network))


def test_without_experience_nothing_prepared_is_kept(tmp_path: Path) -> None:
    agent, stream = pipelined(), Stream(2)
    drive(agent, stream, 31)
    assert agent._prepared
    agent.save(tmp_path, experience=False)
    other = pipelined(seed=99)
    other.load(tmp_path)
    before = weights(other._network)
    assert equal(before, weights(agent._network))
    drive(other, stream, 5)
    assert equal(weights(other.policy()._network), before)


@pytest.mark.parametrize("file", ["acting", "replay/prepared"])
def test_damaged_files_are_refused(tmp_path: Path, file: str) -> None:
    agent = pipelined()
    drive(agent, Stream(2), 20)
    agent.save(tmp_path)
    (tmp_path / f"{file}.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=rf"{Path(file).name}\.safetensors"):
        pipelined().load(tmp_path)


def test_settling_reports_what_was_running_and_changes_nothing() -> None:
    disturbed, untouched = pipelined(), pipelined()
    stream, same_stream = Stream(2), Stream(2)
    settled, reported = [], []
    for _ in range(30):
        actions, metrics = drive(disturbed, stream, 1)
        same_actions, same_metrics = drive(untouched, same_stream, 1)
        assert actions == same_actions
        assert metrics == [{}]  # it has all been told by then
        settled.append(disturbed.settle())
        reported += same_metrics
        assert disturbed.settle() == {}
    assert [metrics for metrics in settled if metrics][:-1] == [m for m in reported if m]
    assert make_agent().settle() == {}


def test_a_failure_of_the_other_thread_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = pipelined()
    drive(agent, Stream(2), 20)

    def fail(*_: object) -> None:
        raise RuntimeError("no more memory")

    monkeypatch.setattr(agent, "_improve", fail)
    with pytest.raises(RuntimeError, match="no more memory"):
        drive(agent, Stream(2), 4)


def test_denormals_are_flushed_on_the_other_thread_too() -> None:
    agent = pipelined()
    assert agent._learner is not None
    tiny = np.float32(1e-38)
    try:
        for flush in (True, False):
            torch.set_flush_denormal(flush)
            learner = pipelined()._learner
            assert learner is not None
            product = learner.submit(lambda: float(torch.tensor([tiny]) * 0.1)).result()
            assert (product == 0) == flush
    finally:
        torch.set_flush_denormal(False)


def test_the_cores_are_shared_among_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert DQN.networks_at_once(make_tables(pipelined=True)) == 2
    assert DQN.networks_at_once(make_tables()) == 1
    for cores, alone, shared in ((1, 1, 1), (2, 2, 1), (5, 5, 2), (8, 8, 4)):
        monkeypatch.setattr(machine, "num_cores", lambda cores=cores: cores)
        assert machine.choose_threads(True) == alone
        assert machine.choose_threads(True, sharing=2) == shared
        assert machine.choose_threads(False, sharing=2) == 1
