"""What the benchmarks beside peers make of their options and their readings; nothing is timed."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import benchmark_peers
import benchmark_vector_env
import benchmark_workers
import measuring
from measuring import OURS, Measurement, summarise
from peers import PEERS
from peers.jobs import Clock, OursJob, PeerJob
from rlagents.config import build_config, read_config

SCRIPTS = Path(benchmark_peers.__file__).parent
EIGHT = ["--set", "agent.update_period_steps=8"]  # samples per step, with pong-dqn's batch of 64


def jobs(*words: str) -> tuple[OursJob, PeerJob]:
    return benchmark_peers.make_jobs(benchmark_peers.parse(words))


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def peer_job(**changes: int) -> PeerJob:
    values = {"learning_starts": 100, "warm_up": 20, "steps": 50, "num_envs": 1} | changes
    return PeerJob(**({"seed": 1, "batch_size": 32, "update_period": 4, "threads": None} | values))  # type: ignore[arg-type]


# The speed of training


@pytest.mark.parametrize(
    ("peer", "num_envs", "batch_size", "period"),
    [("sb3", 1, 32, 4), ("cleanrl", 1, 32, 4), ("tianshou", 10, 80, 10)],
)
def test_a_peer_replays_as_many_samples_for_each_step(
    peer: str, num_envs: int, batch_size: int, period: int
) -> None:
    _, theirs = jobs("--peer", peer, *EIGHT)
    assert (theirs.num_envs, theirs.batch_size, theirs.update_period) == (
        num_envs,
        batch_size,
        period,
    )
    assert theirs.batch_size / theirs.update_period == 8
    _, twice = jobs("--peer", peer, "--set", "agent.update_period_steps=4")
    assert twice.batch_size / twice.update_period == 16


def test_options_reach_the_jobs() -> None:
    ours, theirs = jobs(
        *("--config", "atari-dqn-2015", "--set", "agent.update_period_steps=4"),
        *("--set", "env.id=pong", "--steps", "70", "--peer-steps", "30", "--warm-up", "9"),
        *("--learning-starts", "1000", "--peer-envs", "4", "--peer-batch-size", "64"),
        *("--peer-threads", "2"),
    )
    overrides = {"agent.update_period_steps": 4, "env.id": "pong"}
    assert ours == OursJob("atari-dqn-2015", overrides, 1, 1000, 9, 70)
    assert theirs == PeerJob(1, 1000, 9, 30, 4, 64, 8, 2)


def test_learning_starts_where_the_recipe_says() -> None:
    ours, theirs = jobs(*EIGHT, "--set", "agent.learning_starts=1234")
    assert ours.learning_starts == theirs.learning_starts == 1234


def test_a_recipes_stages_are_left_out() -> None:
    ours, _ = jobs(*EIGHT)
    tables, recipe = read_config("pong-dqn")
    assert tables["agent"]["late_return"] is not None
    config: Any = build_config(tables, ours.overrides, recipe)
    assert config.agent.late_return is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "agent.double"], "--set: expected KEY=VALUE, got 'agent.double'"),
        (["--set", "agent.duble=true"], "did you mean"),
        (["--config", "cartpole-reinforce"], "expected a recipe of the agent dqn"),
        ([*EIGHT, "--peer-batch-size", "30"], "30 samples and 1 environments cannot make 64 / 8"),
        ([*EIGHT, "--peer-envs", "3"], "32 samples and 3 environments cannot make 64 / 8"),
        (
            [*EIGHT, "--peer", "cleanrl", "--peer-envs", "2"],
            "--peer-envs: a loop like CleanRL's plays in 1 environment, got 2",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        jobs(*words)
    assert ended.value.code == 2
    assert message in complaint(capsys)


@pytest.mark.parametrize("words", [["--peer", "rllib"], ["--steps", "0"], ["--peer-envs", "-1"]])
def test_words_that_mean_nothing_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        benchmark_peers.parse(words)
    assert ended.value.code == 2


@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_that_is_not_there_says_how_to_set_it_up(
    peer: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    named = {
        "is missing": None,
        "cannot be run": str(tmp_path / "python"),
        "No module named": str(Path(sys.executable)),
    }
    for message, python in named.items():
        with pytest.raises(SystemExit):
            measuring.check_python("--peer-python", python, "no_such", "T", PEERS[peer].set_up)
        shown = complaint(capsys)
        assert message in shown
        assert "-m venv" in shown
    assert measuring.check_python("--p", sys.executable, "json, os", "T", "") == sys.executable


@pytest.mark.parametrize("peer", PEERS)
def test_the_help_sets_a_peer_up_with_the_same_versions(peer: str) -> None:
    """The message and the help name the same packages."""
    help_words = (benchmark_peers.__doc__ or "").replace("\\\n", " ").split()
    for word in PEERS[peer].set_up.split():
        if "==" in word:
            assert word in help_words


def test_each_side_has_its_file() -> None:
    files = {path.stem for path in (SCRIPTS / "peers").glob("*.py")} - {"__init__", "jobs"}
    assert files == {"ours", *PEERS}


# The clock


def test_the_clock_is_read_after_the_warm_up_at_the_ends_of_cycles() -> None:
    times = iter([10.0, 14.0])
    clock = Clock(peer_job(warm_up=21, steps=50), lambda: next(times))
    step = updates = 0
    while clock.tick(step, updates):
        step += 1
        updates += step > 100 and step % 4 == 0
    assert step == 176  # 121 is rounded up to 124, and 50 more to 176
    measured = clock.measurement({"a": 1}, {"python": "3"})
    assert measured == Measurement(52, 4.0, {"a": 1, "updates_measured": 13}, {"python": "3"})
    assert measured.steps_per_second == 13


def test_environments_that_outnumber_the_period_are_a_cycle() -> None:
    job = peer_job(num_envs=10, update_period=5, warm_up=1, steps=1)
    assert job.cycle == 10
    clock = Clock(job, lambda: 0.0)
    steps = range(0, 1000, 5)
    going_on = [clock.tick(step, 0) for step in steps]
    assert steps[going_on.index(False)] == 120  # after 110, each at the first cycle that is due


def test_another_number_of_updates_is_no_measurement(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock(peer_job(), lambda: 0.0)
    assert clock.tick(120, 5)
    assert not clock.tick(172, 17)
    with pytest.raises(SystemExit):
        clock.measurement({}, {})
    assert "12 updates in 52 steps, expected 13" in complaint(capsys)


# What all comparisons share


def test_the_ratio_is_that_of_the_medians(capsys: pytest.CaptureFixture[str]) -> None:
    found = {
        OURS: [Measurement(100, 1), Measurement(600, 2), Measurement(200, 1)],
        "slow": [Measurement(50, 1), Measurement(40, 1), Measurement(10, 1)],
        "fast": [Measurement(400, 1), Measurement(400, 1), Measurement(800, 1)],
    }
    summary = summarise(found)
    assert summary["steps_per_second"][OURS] == {"min": 100, "median": 200, "max": 300}
    assert summary["ratio_of_medians"] == {"slow": 5.0, "fast": 0.5}
    assert summary["ratios"] == {"slow": [2.0, 7.5, 20.0], "fast": [0.25, 0.75, 0.25]}
    shown = capsys.readouterr().out
    assert "rlagents / slow: ratio of medians 5.00, by repetition 2.00  7.50  20.00" in shown


def test_a_measurement_comes_back_from_its_process(capfd: pytest.CaptureFixture[str]) -> None:
    measured = Measurement(3, 2.0, {"a": {"b": 1}}, {"python": "3"})
    program = f"print('a banner'); print({json.dumps(asdict(measured))!r})"
    assert measuring.run_child("x", [sys.executable, "-c", program]) == measured
    with pytest.raises(SystemExit) as ended:
        measuring.run_child("x", [sys.executable, "-c", "raise SystemExit(7)"])
    assert ended.value.code == 2
    assert "The process of x failed (exit code 7)" in complaint(capfd)


def test_all_numbers_are_kept_where_they_are_asked_for(tmp_path: Path) -> None:
    measuring.write_json(None, {"a": 1})
    measuring.write_json(tmp_path / "x.json", {"a": 1})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}


# Environments alone


def test_steps_are_timed_after_a_warm_up() -> None:
    job = benchmark_vector_env.Job("x", num_envs=2, steps=5, threads=1, seed=0)
    progress = benchmark_vector_env.Progress(2, 1, 0.5)
    times = iter([3.0, 7.0])
    calls = []

    def step() -> benchmark_vector_env.Progress:
        calls.append(1)
        return progress

    total, seconds = benchmark_vector_env.time_steps(step, job, lambda: next(times))
    assert total == benchmark_vector_env.Progress(6, 3, 1.5)
    assert seconds == 4
    assert len(calls) == 50 + 3  # 100 steps of warm-up, and the fewest that make 5


def test_our_environments_are_stepped() -> None:
    job = benchmark_vector_env.Job(OURS, num_envs=3, steps=7, threads=1, seed=5)
    measured = benchmark_vector_env.measure_ours(job)
    assert measured.steps == 9
    assert measured.settings["env"]["frame_size"] == 84
    assert measured.settings["env"]["kwargs"] == {"num_threads": 1}


@pytest.mark.parametrize("words", [["--num-envs", "2"], ["--steps", "x"], ["--threads", "0"]])
def test_environments_that_cannot_be_compared_are_refused(words: list[str]) -> None:
    assert benchmark_vector_env.parse([]).num_envs == [16, 64]
    assert benchmark_vector_env.parse(["--num-envs", "3", "8"]).num_envs == [3, 8]
    with pytest.raises(SystemExit) as ended:
        benchmark_vector_env.parse(words)
    assert ended.value.code == 2


# Slow environments in worker processes


@pytest.mark.parametrize("python", [None, "peers/bin/python"])
def test_every_side_steps_as_many_slow_environments(python: str | None) -> None:
    words = ["--num-envs", "6", "--workers", "3", "--steps", "40"]
    words += ["--sb3-python", python] if python else []
    jobs = benchmark_workers.make_jobs(benchmark_workers.parse(words), 7)
    assert {side: job.workers for side, job in jobs.items()} == {
        **{OURS: 3, f"{OURS}-0": 0, f"{OURS}-1": 1, "gymnasium": 6},
        **({"sb3": 6} if python else {}),
    }
    assert {(job.num_envs, job.steps, job.step_ms, job.seed) for job in jobs.values()} == {
        (6, 40, 2.0, 7)
    }


def test_slow_environments_are_timed_after_their_warm_up() -> None:
    job = benchmark_workers.Job("gymnasium", 2, 2, 30, 2.0, 1)
    seen: list[Any] = []
    seconds = benchmark_workers.time_steps(seen.append, job, lambda: float(len(seen)))
    assert len(seen) == benchmark_workers.WARM_UP_STEPS + 30
    assert seconds == 30
    assert {row.shape for row in seen} == {(2,)}


@pytest.mark.parametrize("workers", [0, 1])
def test_slow_environments_of_ours_are_stepped(workers: int) -> None:
    job = benchmark_workers.Job(OURS, 2, workers, 120, 0.01, 1)  # an episode ends meanwhile
    measured = benchmark_workers.measure(job)
    assert measured.steps == 240
    assert measured.settings["env"]["num_workers"] == workers
