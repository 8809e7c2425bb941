"""A run that was stopped goes on as if it never had been: in a new process, to the bit."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rlagents
from rlagents import runner as runner_module
from rlagents.errors import RunFailedError, StoppedError
from rlagents.evaluate import PlayedEpisode

Rows = Callable[[Path], list[dict[str, str]]]
Cli = Callable[..., Any]

CARTPOLE_DQN: dict[str, Any] = {
    "env.num_envs": 8,
    "agent.n_step": 2,
    "agent.learning_starts": 100,
    "agent.target_period_steps": 150,
    "replay.capacity": 600,  # the ring has wrapped when the run stops
    "replay.batch_size": 32,
    "evaluation.period_steps": 0,
}
CARTPOLE_NOISY: dict[str, Any] = {
    **CARTPOLE_DQN,
    "agent.optimizer": "rmsprop",
    "agent.learning_rate_end": 1e-4,
    "agent.learning_rate_decay_steps": 900,
    "agent.target_period_steps": 10_000,
    "agent.target_tau": 0.05,
    "agent.loss": "mse",
    "agent.epsilon_start": 0.0,
    "agent.epsilon_end": 0.0,
    "network.noisy": True,
    "network.dueling": True,
    "network.layer_norm": True,
}
CARTPOLE_REINFORCE: dict[str, Any] = {
    "env.num_envs": 8,
    "agent.episodes_per_update": 16,
    "evaluation.period_steps": 0,
}
CARTPOLE_PPO: dict[str, Any] = {
    "env.num_envs": 8,
    "agent.rollout_steps": 16,
    "agent.normalize_rewards": True,
    "agent.learning_rate_end": 1e-4,
    "agent.learning_rate_decay_steps": 1_200,
    "evaluation.period_steps": 0,
}
PONG_DQN: dict[str, Any] = {
    "env.num_envs": 4,
    "env.sticky_probability": 0.25,
    "env.max_episode_frames": 480,  # 120 agent steps, so that episodes end too
    "agent.learning_starts": 200,
    "agent.target_period_steps": 150,
    "replay.capacity": 500,
    "replay.batch_size": 16,
    "evaluation.period_steps": 0,
}
PONG_REINFORCE: dict[str, Any] = {
    "env.num_envs": 2,
    "env.sticky_probability": 0.25,
    "env.max_episode_frames": 400,
    "agent.points_per_update": 4,
    "evaluation.period_steps": 0,
}
PONG_PPO: dict[str, Any] = {
    "env.num_envs": 4,
    "env.sticky_probability": 0.25,
    "env.max_episode_frames": 480,  # 120 agent steps, so that episodes end too
    "agent.rollout_steps": 32,
    "agent.epochs": 2,
    "agent.minibatches": 2,
    "evaluation.period_steps": 0,
}


def state_of(run: rlagents.Run) -> dict[str, str]:
    """SHA-256 of all that the rest of the run depends on, by file; no wall times."""
    directory = run.checkpoint("last").directory
    state = {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file() and path.name not in ("manifest.json", "runner.json")
    }
    runner = json.loads((directory / "runner.json").read_text())
    del runner["wall_time_s"]
    return state | {f"runner.json: {key}": json.dumps(value) for key, value in runner.items()}


def in_a_new_process(calls: str) -> None:
    """Run lines of Python where nothing of this process is left."""
    program = f"import rlagents\n{calls}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr


def assert_same(resumed: rlagents.Run, straight: rlagents.Run, read_rows: Rows) -> None:
    assert state_of(resumed) == state_of(straight)
    one, other = (read_rows(run.directory / "episodes.csv") for run in (resumed, straight))
    assert one == other
    for name in ("actions.bin", "index.csv"):
        one_bytes, other_bytes = (
            (run.directory / "actions" / name).read_bytes() for run in (resumed, straight)
        )
        assert one_bytes == other_bytes


def assert_in_the_middle(run: rlagents.Run) -> None:
    """The test would be worth little if all environments stood at an episode's beginning."""
    directory = run.checkpoint("last").directory
    state = json.loads((directory / "runner.json").read_text())
    playing = [n for n, active in zip(state["lengths"], state["active"], strict=True) if active]
    assert max(playing) > 3


# --- exact resumption ----------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "overrides", "stop", "end"),
    [
        ("pong-dqn", PONG_DQN, 724, 1_304),
        ("pong-reinforce", PONG_REINFORCE, 260, 560),
        ("pong-ppo", PONG_PPO, 600, 1_000),  # in the middle of the fifth rollout
        ("cartpole-ppo", CARTPOLE_PPO, 1_000, 1_504),
        ("cartpole-dqn", CARTPOLE_DQN, 1_000, 1_504),
        ("cartpole-dqn", CARTPOLE_NOISY, 1_000, 1_504),
        ("cartpole-reinforce", CARTPOLE_REINFORCE, 1_070, 1_570),
    ],
)
def test_a_stopped_run_goes_on_to_the_bit_in_a_new_process(
    tmp_path: Path,
    read_rows: Rows,
    recipe: str,
    overrides: dict[str, Any],
    stop: int,
    end: int,
) -> None:
    def train(name: str, steps: int) -> rlagents.Run:
        return rlagents.train(
            recipe, overrides, total_steps=steps, runs_dir=tmp_path, name=name, quiet=True
        )

    straight = train("straight", end)
    stopped = train("stopped", stop)
    assert_in_the_middle(stopped)
    before = state_of(stopped)
    early = read_rows(stopped.directory / "episodes.csv")
    in_a_new_process(
        f"rlagents.resume({str(stopped.directory)!r}, total_steps={end}, quiet=True)\n"
    )
    resumed = rlagents.open_run(stopped.directory)
    assert "exactly" in (resumed.directory / "run.log").read_text()
    assert "not exactly" not in (resumed.directory / "run.log").read_text()
    assert_same(resumed, straight, read_rows)
    late = read_rows(resumed.directory / "episodes.csv")
    assert late[: len(early)] == early
    assert len(late) > len(early)
    after = state_of(resumed)
    changed = {name for name in before if after.get(name) != before[name]}
    assert "agent/network.safetensors" in changed  # it went on learning
    assert "agent/optimizer.safetensors" in changed
    if recipe.endswith("dqn"):
        assert {"agent/replay/items-0-0.npy", "agent/state.json"} <= changed


@pytest.mark.parametrize("stop", [8, 601])
@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("cartpole-dqn", CARTPOLE_DQN),
        ("cartpole-dqn", CARTPOLE_NOISY),
        ("cartpole-ppo", CARTPOLE_PPO),
        ("cartpole-reinforce", CARTPOLE_REINFORCE),
    ],
)
def test_it_does_not_matter_where_a_run_stops(
    tmp_path: Path, read_rows: Rows, recipe: str, overrides: dict[str, Any], stop: int
) -> None:
    def train(name: str, steps: int) -> rlagents.Run:
        return rlagents.train(
            recipe, overrides, total_steps=steps, runs_dir=tmp_path, name=name, quiet=True
        )

    straight = train("straight", 1_200)
    stopped = train("stopped", stop)
    for steps in (stop + 60, 1_200):  # and stopped once more
        stopped = rlagents.resume(stopped.directory, total_steps=steps, quiet=True)
    assert_same(stopped, straight, read_rows)


def test_reinforce_is_stopped_while_environments_wait(tmp_path: Path, read_rows: Rows) -> None:
    overrides = CARTPOLE_REINFORCE
    straight = rlagents.train(
        "cartpole-reinforce",
        overrides,
        total_steps=900,
        runs_dir=tmp_path,
        name="straight",
        quiet=True,
    )
    waited = 0
    for stop in (288, 296, 304):
        stopped = rlagents.train(
            "cartpole-reinforce",
            overrides,
            total_steps=stop,
            runs_dir=tmp_path,
            name=f"stopped-{stop}",
            quiet=True,
        )
        path = stopped.checkpoint("last").directory / "runner.json"
        active = json.loads(path.read_text())["active"]
        if all(active) or not any(active):
            continue
        waited += 1
        resumed = rlagents.resume(stopped.directory, total_steps=900, quiet=True)
        assert_same(resumed, straight, read_rows)
    assert waited > 0


def test_evaluations_change_nothing_about_resuming(tmp_path: Path, read_rows: Rows) -> None:
    overrides = {
        **CARTPOLE_DQN,
        "evaluation.period_steps": 200,
        "evaluation.episodes": 2,
        "recording.enabled": False,
    }

    def train(name: str, steps: int) -> rlagents.Run:
        return rlagents.train(
            "cartpole-dqn", overrides, total_steps=steps, runs_dir=tmp_path, name=name, quiet=True
        )

    straight, stopped = train("straight", 1_000), train("stopped", 600)
    resumed = rlagents.resume(stopped.directory, total_steps=1_000, quiet=True)
    one, other = (read_rows(run.directory / "evaluations.csv") for run in (resumed, straight))
    assert one == other
    assert [row["step"] for row in one] == ["200", "400", "600", "800", "1000"]
    assert_same(resumed, straight, read_rows)
    index = [
        (run.directory / "checkpoints" / "index.json").read_text() for run in (resumed, straight)
    ]
    assert index[0] == index[1]


def test_a_stop_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_rows: Rows
) -> None:
    def train(name: str) -> rlagents.Run:
        return rlagents.train(
            "cartpole-dqn",
            CARTPOLE_DQN,
            total_steps=400,
            runs_dir=tmp_path,
            name=name,
            quiet=True,
        )

    with monkeypatch.context() as patch:
        patch.setattr("rlagents.signals.StopSignal.__call__", lambda _: True)
        with pytest.raises(StoppedError, match="rlagents resume"):
            train("stopped")
    assert rlagents.open_run(tmp_path / "stopped").checkpoint().step == 0
    resumed = rlagents.resume(tmp_path / "stopped", quiet=True)
    assert_same(resumed, train("straight"), read_rows)


# --- logs ----------------------------------------


def check_logs(run: Path, last_step: int) -> None:
    """No gap and no duplicate in anything that a run has logged."""
    episodes = list(rlagents.open_run(run).episodes())
    assert [episode.episode for episode in episodes] == list(range(len(episodes)))
    assert len({episode.seed for episode in episodes}) == len(episodes)
    steps = [episode.step for episode in episodes]
    assert steps == sorted(steps)
    assert steps[-1] <= last_step
    walls = [episode.wall_time_s for episode in episodes]
    assert walls == sorted(walls)
    rows = (run / "actions" / "index.csv").read_text().splitlines()[1:]
    numbers = [[int(number) for number in row.split(",")] for row in rows]
    assert [(number[0], number[2]) for number in numbers] == [
        (episode.episode, episode.episodic_length) for episode in episodes
    ]
    offsets = [number[1] for number in numbers]
    assert offsets == [sum(number[2] for number in numbers[:i]) for i in range(len(numbers))]
    evaluated = [
        int(row.split(",")[0]) for row in (run / "evaluations.csv").read_text().splitlines()[1:]
    ]
    assert evaluated == sorted(set(evaluated))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    keys = [(line["step"], tuple(sorted(line))) for line in lines]
    assert len(set(keys)) == len(keys)
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    assert [line["step"] for line in lines if "eval/episodic_return" in line] == evaluated


def scripted(monkeypatch: pytest.MonkeyPatch, results: Iterator[float | None]) -> None:
    """Evaluations have these returns; at None somebody presses Ctrl-C."""

    def play(policy: Any, env: Any, seeds: Any, **options: Any) -> tuple[PlayedEpisode, ...]:
        result = next(results)
        if result is None:
            raise StoppedError("stopped during an evaluation")
        played = real(policy, env, seeds[:1], **options)
        return tuple(episode._replace(episodic_return=result) for episode in played)

    real = runner_module.play_episodes
    monkeypatch.setattr(runner_module, "play_episodes", play)


INTERRUPTED = {
    **CARTPOLE_DQN,
    "evaluation.period_steps": 200,
    "evaluation.episodes": 1,
    "recording.enabled": False,
    "checkpoint.replay": "always",
}


def test_an_evaluation_is_not_logged_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in an evaluation, resumed, evaluated, failed before a checkpoint, resumed again."""
    scripted(monkeypatch, iter([10.0, None, 5.0, 5.0, 5.0, 5.0]))
    run = tmp_path / "run"
    with pytest.raises(StoppedError):
        rlagents.train(
            "cartpole-dqn",
            INTERRUPTED,
            total_steps=600,
            runs_dir=tmp_path,
            name="run",
            quiet=True,
        )
    with monkeypatch.context() as patch:

        def fails(_: object) -> None:
            raise RuntimeError("power cut")

        patch.setattr(runner_module.Runner, "_vector_step", fails)
        with pytest.raises(RunFailedError, match="power cut"):
            rlagents.resume(run, quiet=True)
    rlagents.resume(run, quiet=True)
    rows = (run / "evaluations.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["200", "400", "600"]
    check_logs(run, 600)


def test_a_stop_in_the_last_evaluation_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, iter([10.0, 5.0, None, 20.0]))
    with pytest.raises(StoppedError):
        rlagents.train(
            "cartpole-dqn",
            INTERRUPTED,
            total_steps=600,
            runs_dir=tmp_path,
            name="run",
            quiet=True,
        )
    run = rlagents.resume(tmp_path / "run", quiet=True)  # 'stopped', so it can be gone on with
    assert run.status()["state"] == "finished"
    assert run.checkpoint("best").step == 600
    check_logs(run.directory, 600)


def test_a_checkpoint_with_experience_is_not_replaced_by_one_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_rows: Rows
) -> None:
    """Stopped in an evaluation at a checkpoint's step, resumed, and cut off soon after."""
    scripted(monkeypatch, iter([10.0, None, 5.0, 5.0, 5.0]))
    overrides = INTERRUPTED | {"checkpoint.replay": "on-exit", "checkpoint.period_steps": 400}
    with pytest.raises(StoppedError):
        rlagents.train(
            "cartpole-dqn",
            overrides,
            total_steps=600,
            runs_dir=tmp_path,
            name="run",
            quiet=True,
        )
    with monkeypatch.context() as patch:

        def fails(_: object) -> None:
            raise RuntimeError("power cut")

        patch.setattr(runner_module.Runner, "_vector_step", fails)
        with pytest.raises(RunFailedError, match="power cut"):
            rlagents.resume(tmp_path / "run", quiet=True)
    assert (tmp_path / "run" / "checkpoints" / "step-400" / "agent" / "replay").is_dir()


# --- signals ----------------------------------------


def start(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rlagents", *(str(word) for word in words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def options(overrides: dict[str, Any]) -> list[str]:
    words = []
    for key, value in overrides.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        words += [f"--{key.replace('_', '-')}", text]
    return words


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def last_step(run: Path) -> int:
    path = run / "episodes.csv"
    rows = path.read_text().splitlines()[1:] if path.exists() else []
    return int(rows[-1].split(",")[1]) if rows and rows[-1].count(",") == 8 else 0


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Whatever happens in a test, its process does not outlive it."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_one_signal_saves_and_the_run_goes_on_exactly(
    tmp_path: Path, cli: Cli, read_rows: Rows, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    words = options(CARTPOLE_DQN | {"total_steps": 10**9})
    process = start("train", "cartpole-dqn", *words, "--runs-dir", tmp_path, "--name", "run")
    with ended(process):
        wait_for(lambda: last_step(run) > 1_000, process)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert f"rlagents resume {run}" in err
    assert out == f"run: {run}\n"
    stopped = rlagents.open_run(run)
    step = stopped.status()["step"]
    assert stopped.status()["state"] == "stopped"
    assert stopped.checkpoint("last").step == step
    assert (stopped.checkpoint("last").directory / "agent" / "replay").is_dir()
    end = step + 504
    outcome = cli("resume", run, "--total-steps", end)
    assert outcome.code == 0, outcome.err
    assert f"resuming at step {step:,}, exactly" in outcome.err
    check_logs(run, end)
    straight = rlagents.train(
        "cartpole-dqn",
        CARTPOLE_DQN,
        total_steps=end,
        runs_dir=tmp_path,
        name="straight",
        quiet=True,
    )
    assert_same(rlagents.open_run(run), straight, read_rows)


SLOW_GAME = """
import time
from pathlib import Path
import gymnasium as gym

HERE = Path(__file__).parent


class Slow(gym.Wrapper):
    def step(self, action):
        if (HERE / "freeze").exists():
            (HERE / "frozen").touch()
            time.sleep(100)
        return super().step(action)


def make_env(render_mode=None):
    return Slow(gym.make("CartPole-v1", render_mode=render_mode))
"""


@pytest.mark.slow
def test_a_second_signal_stops_at_once(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "game.py").write_text(SLOW_GAME)
    run = tmp_path / "run"
    words = options(
        CARTPOLE_REINFORCE
        | {
            "env.id": f"{tmp_path}/game.py:make_env",
            "total_steps": 10**9,
            "checkpoint.period_steps": 200,
            "checkpoint.replay": "always",
        }
    )
    process = start("train", "cartpole-reinforce", *words, "--runs-dir", tmp_path, "--name", "run")
    with ended(process):
        wait_for(lambda: (run / "checkpoints" / "index.json").exists(), process)
        (tmp_path / "freeze").touch()
        wait_for(lambda: (tmp_path / "frozen").exists(), process)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None  # it waits for the step to end, and the step does not
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, err = process.communicate(timeout=60)
        assert time.monotonic() - began < 5
    assert process.returncode == 130
    assert "Traceback" not in err
    (tmp_path / "freeze").unlink()
    step = rlagents.open_run(run).checkpoint("last").step
    assert rlagents.open_run(run).evaluate(episodes=1).returns
    outcome = cli("resume", run, "--total-steps", step + 100)
    assert outcome.code == 0, outcome.err
    check_logs(run, step + 200)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("cartpole-dqn", CARTPOLE_DQN),
        ("cartpole-ppo", CARTPOLE_PPO),
        ("cartpole-reinforce", CARTPOLE_REINFORCE),
    ],
)
@pytest.mark.parametrize("replay", ["always", "on-exit"])
def test_a_killed_run_goes_on_from_its_last_checkpoint(
    tmp_path: Path, cli: Cli, read_rows: Rows, recipe: str, overrides: dict[str, Any], replay: str
) -> None:
    """Rows from after the checkpoint are cut and written again; with all saved, the same ones."""
    overrides = overrides | {
        "evaluation.period_steps": 400,
        "evaluation.episodes": 2,
        "recording.enabled": "false",
        "checkpoint.period_steps": 500,
        "checkpoint.replay": replay,
        "logging.period_s": 0.05,
    }
    run = tmp_path / "run"
    index = run / "checkpoints" / "index.json"

    def saved() -> int:
        return int(json.loads(index.read_text())["last"].split("-")[1]) if index.exists() else 0

    words = options(overrides | {"total_steps": 10**9})
    process = start("train", recipe, *words, "--runs-dir", tmp_path, "--name", "run")
    with ended(process):
        wait_for(lambda: saved() > 500 and last_step(run) > saved() + 20, process)
        process.kill()
        process.wait(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert json.loads((run / "status.json").read_text())["state"] == "running"
    step = rlagents.open_run(run).checkpoint("last").step
    assert step % 500 < 8 or step % 400 < 8  # of the period, or of a best evaluation
    end = step + 608
    outcome = cli("resume", run, "--total-steps", end)
    assert outcome.code == 0, outcome.err
    check_logs(run, end + 8)
    resumed = rlagents.open_run(run)
    assert resumed.status()["state"] == "finished"
    if replay == "on-exit":
        assert f"resuming at step {step:,}, but not exactly" in outcome.err
        return
    straight = rlagents.train(
        recipe,
        overrides | {"recording.enabled": False},
        total_steps=end,
        runs_dir=tmp_path,
        name="straight",
        quiet=True,
    )
    assert_same(resumed, straight, read_rows)
    one, other = (read_rows(each.directory / "evaluations.csv") for each in (resumed, straight))
    assert one == other
