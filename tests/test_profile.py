"""Where the time went: parts that add up, and runs that do not notice being watched."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rlagents
from rlagents import profile
from rlagents.profile import PARTS, Profile, as_dict, no_timer, table


class Clock:
    """Stands still unless told to move."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_blocks_within_a_block_are_counted_once() -> None:
    clock = Clock()
    timer = Profile(clock=clock)
    clock.now += 1  # other
    with timer("learn"):
        clock.now += 2
        with timer("sample"):
            clock.now += 4
        clock.now += 8
        with timer("learn"):  # within itself
            clock.now += 16
    clock.now += 32  # other
    with timer("act"):
        clock.now += 64
    assert timer.seconds() == {"act": 64, "sample": 4, "learn": 26, "other": 33}
    assert list(timer.seconds()) == ["act", "sample", "learn", "other"]  # as in PARTS
    clock.now += 1
    assert sum(timer.seconds().values()) == clock.now - 100


def test_an_error_ends_its_block() -> None:
    clock = Clock()
    timer = Profile(clock=clock)
    with contextlib.suppress(KeyError), timer("learn"), timer("sample"):
        clock.now += 1
        raise KeyError
    clock.now += 2
    assert timer.seconds() == {"sample": 1, "learn": 0, "other": 2}


def test_a_part_of_ones_own_comes_before_the_rest() -> None:
    clock = Clock()
    timer = Profile(clock=clock)
    for part in ("dream", "log"):
        with timer(part):
            clock.now += 1
    assert list(timer.seconds()) == ["log", "dream", "other"]
    assert any(line.startswith("dream") for line in table(timer.seconds()))


def test_work_on_a_device_is_waited_for_where_it_was_asked_for() -> None:
    clock = Clock()
    queued = [0.0]

    def synchronize() -> None:
        clock.now += queued[0]
        queued[0] = 0.0

    timer = Profile(synchronize=synchronize, clock=clock)
    with timer("learn"):
        queued[0] = 5.0  # handed over; nobody has waited yet
    with timer("log"):
        clock.now += 1
    assert timer.seconds() == {"learn": 5, "log": 1, "other": 0}


def test_no_timer_is_always_the_same_nothing() -> None:
    with no_timer("learn") as nothing, no_timer("sample"):
        assert nothing is None
    assert no_timer("learn") is no_timer("act")


@given(st.lists(st.floats(0, 1e7), min_size=1, max_size=len(PARTS)))
def test_the_table_adds_up_as_it_is_shown(values: list[float]) -> None:
    seconds = dict(zip(PARTS, values, strict=False))
    *rows, last = table(seconds)
    read = [re.findall(r"([\d,.]+) s +([\d.]+) %", line)[0] for line in [*rows, last]]
    tenths = [round(float(text.replace(",", "")) * 10) for text, _ in read]
    permille = [round(float(text) * 10) for _, text in read]
    assert sum(tenths[:-1]) == tenths[-1] == round(10 * sum(values))
    assert sum(permille[:-1]) == permille[-1] == (1000 if sum(values) else 0)
    for shown, value in zip(tenths, values, strict=False):
        assert abs(shown - 10 * value) <= 1
    if sum(values):
        shares = [part["share"] for part in as_dict(seconds)["parts"].values()]
        assert sum(shares) == pytest.approx(1)


def test_the_table_by_hand() -> None:
    assert table({"learn": 2.0, "other": 1.0}) == [
        "learn         2.0 s   66.7 %  updates",
        "other         1.0 s   33.3 %  the loop itself, and all else",
        "total         3.0 s  100.0 %",
    ]


# --- of whole runs ----------------------------------------

OVERRIDES: dict[str, dict[str, Any]] = {
    "cartpole-dqn": {
        "total_steps": 480,
        "env.num_envs": 4,
        "agent.learning_starts": 64,
        "replay.capacity": 400,
        "evaluation.period_steps": 240,
        "evaluation.episodes": 2,
    },
    "cartpole-ppo": {
        "total_steps": 480,
        "env.num_envs": 4,
        "agent.rollout_steps": 16,
        "evaluation.period_steps": 240,
        "evaluation.episodes": 2,
    },
    "cartpole-reinforce": {
        "total_steps": 480,
        "env.num_envs": 4,
        "agent.episodes_per_update": 4,
        "evaluation.period_steps": 240,
        "evaluation.episodes": 2,
    },
}
EVERYONE = {"emulate", "act", "observe", "learn", "evaluate", "record", "save", "log", "other"}


def parameters(run: rlagents.Run) -> bytes:
    return (run.checkpoint("last").directory / "agent" / "network.safetensors").read_bytes()


@pytest.mark.parametrize("recipe", list(OVERRIDES))
def test_a_run_that_is_watched_is_the_same_run(tmp_path: Path, recipe: str) -> None:
    runs = [
        rlagents.train(
            recipe, OVERRIDES[recipe], runs_dir=tmp_path, name=name, quiet=True, profile=watched
        )
        for name, watched in (("watched", True), ("not", False))
    ]
    assert parameters(runs[0]) == parameters(runs[1])
    assert not (runs[1].directory / "profile.json").exists()
    found = json.loads((runs[0].directory / "profile.json").read_text())
    expected = EVERYONE | (set() if recipe == "cartpole-reinforce" else {"sample"})
    assert set(found["parts"]) == expected
    assert all(part["seconds"] > 0 for part in found["parts"].values())
    assert sum(part["seconds"] for part in found["parts"].values()) == pytest.approx(
        found["wall_time_s"]
    )
    assert sum(part["share"] for part in found["parts"].values()) == pytest.approx(1)
    assert (found["from_step"], found["to_step"]) == (0, runs[0].status()["step"])
    # The clock of the run starts a little later, and knows nothing of what comes after its end.
    assert found["wall_time_s"] >= max(episode.wall_time_s for episode in runs[0].episodes())
    log = (runs[0].directory / "run.log").read_text().splitlines()
    assert log[-len(expected) - 1 :] == table(
        {name: part["seconds"] for name, part in found["parts"].items()}
    )


def test_both_commands_take_it(
    tmp_path: Path, cli: Callable[..., Any], tiny: tuple[str, ...]
) -> None:
    where = ("--runs-dir", tmp_path)
    more = ("--recording.enabled", "false")
    done = cli("train", "cartpole-dqn", *tiny, *more, *where, "--name", "run", "--profile")
    assert done.code == 0
    assert re.search(r"^total +[\d.]+ s +100.0 %$", done.err, re.MULTILINE)
    assert done.out.splitlines() == [f"run: {tmp_path / 'run'}"] * 2
    first = json.loads((tmp_path / "run" / "profile.json").read_text())
    assert "record" not in {name for name, part in first["parts"].items() if part["seconds"] > 0}
    done = cli("resume", "run", *where, "--total-steps", "800", "--profile")
    assert "100.0 %" in done.err
    second = json.loads((tmp_path / "run" / "profile.json").read_text())
    assert (second["from_step"], second["to_step"]) == (480, 800)
    assert "--profile" in cli("train", "--help").out
    assert "--profile" in cli("resume", "--help").out
    assert "did you mean --profile" in cli("train", "cartpole-dqn", "--profil").err


def test_a_run_that_was_stopped_says_where_its_time_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlagents.signals.StopSignal.__call__", lambda self: True)
    with pytest.raises(rlagents.errors.StoppedError):
        rlagents.train(
            "cartpole-dqn",
            OVERRIDES["cartpole-dqn"],
            runs_dir=tmp_path,
            name="run",
            quiet=True,
            profile=True,
        )
    assert "save" in json.loads((tmp_path / "run" / "profile.json").read_text())["parts"]


class Pictures(gym.Env[Any, Any]):
    """Ten steps of noise."""

    observation_space = gym.spaces.Box(0, 255, (100, 90, 3), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, **options: Any) -> Any:
        super().reset(**options)
        self.count = 0
        return self.observation_space.low, {}

    def step(self, action: Any) -> Any:
        self.count += 1
        picture = self.np_random.integers(256, size=(100, 90, 3), dtype=np.uint8)
        return picture, 1.0, self.count == 10, False, {}


def test_the_pictures_of_gymnasium_environments_are_measured_apart(tmp_path: Path) -> None:
    rlagents.register_env(rlagents.EnvSpec(name="pictures", make=Pictures))
    overrides = OVERRIDES["cartpole-dqn"] | {
        "env.id": "pictures",
        "env.num_envs": 2,
        "network.torso": "nature-cnn",
        "network.width": 0.125,
        "recording.enabled": False,
        "evaluation.period_steps": 0,
        "total_steps": 60,
        "agent.learning_starts": 30,
        "replay.batch_size": 4,
    }
    run = rlagents.train(
        "cartpole-dqn", overrides, runs_dir=tmp_path, name="run", quiet=True, profile=True
    )
    parts = json.loads((run.directory / "profile.json").read_text())["parts"]
    assert parts["preprocess"]["seconds"] > 0
    assert parts["emulate"]["seconds"] > 0


def test_every_part_has_a_description() -> None:
    assert list(PARTS)[-1] == "other"
    assert all(PARTS.values())
    assert profile.no_timer("other") is profile.no_timer("log")
