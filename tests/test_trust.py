"""Somebody else's run executes nothing: its environment is imported only if that is allowed."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlagents
from rlagents import trust
from rlagents.envs import registry
from rlagents.errors import UsageError

Cli = Callable[..., Any]

GAME = """
from pathlib import Path
import gymnasium as gym

Path(__file__).with_name("marker").touch()


def make_env(render_mode=None, **kwargs):
    return gym.make("CartPole-v1", render_mode=render_mode)
"""
SMALL: dict[str, Any] = {
    "env.num_envs": 2,
    "agent.learning_starts": 24,
    "replay.capacity": 100,
    "network.hidden_sizes": [8],
    "evaluation.period_steps": 0,
    "total_steps": 80,
}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own state folder; its user has trained nothing yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "rlagents" / "user-id"


class Made:
    """A run whose environment is in a file that leaves a marker when it is imported."""

    def __init__(self, run: Path, game: Path) -> None:
        self.run = run
        self.marker = game.with_name("marker")
        self.marker.unlink(missing_ok=True)

    def change(self, **env: Any) -> None:
        path = self.run / "config.json"
        manifest = json.loads(path.read_text())
        manifest["config"]["env"] |= env
        path.write_text(json.dumps(manifest))


def make(folder: Path) -> Made:
    folder.mkdir()
    game = folder / "game.py"
    game.write_text(GAME)
    run = rlagents.train(
        "cartpole-dqn",
        SMALL | {"env.id": f"{game}:make_env"},
        runs_dir=folder,
        name="run",
        quiet=True,
    )
    return Made(run.directory, game)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run's folder, and the id of the user who has trained it."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        run = make(folder / "own").run
    return run, folder / "rlagents" / "user-id"


@pytest.fixture
def own(tmp_path: Path, state: Path, made: tuple[Path, Path]) -> Made:
    """A copy of the run for a test to change, and its user."""
    run, key = made
    state.parent.mkdir(parents=True, mode=0o700)
    shutil.copy2(key, state)
    return Made(Path(shutil.copytree(run, tmp_path / "own")), run.with_name("game.py"))


@pytest.fixture
def foreign(own: Made, state: Path) -> Made:
    """The same run where it has never been trained: another user's, or on another machine."""
    state.unlink()
    return own


COMMANDS = [
    ("evaluate", "RUN", "--episodes", "1"),
    ("record", "RUN"),
    ("record", "RUN", "--training-episode", "0"),
    ("resume", "RUN", "--total-steps", "90"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words))
def test_a_foreign_run_executes_nothing_until_it_is_allowed(
    foreign: Made, cli: Cli, state: Path, words: tuple[str, ...]
) -> None:
    before = sorted(path for path in foreign.run.rglob("*"))
    named = [str(foreign.run) if word == "RUN" else word for word in words]
    outcome = cli(*named)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "game.py:make_env" in outcome.err
    assert "--allow-import" in outcome.err
    assert not foreign.marker.exists()
    assert not state.exists()
    assert sorted(path for path in foreign.run.rglob("*")) == before
    assert cli(*named, "--allow-import").code == 0
    assert foreign.marker.exists()


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words))
def test_an_own_run_is_played_without_asking(own: Made, cli: Cli, words: tuple[str, ...]) -> None:
    assert cli(*(str(own.run) if word == "RUN" else word for word in words)).code == 0
    assert own.marker.exists()


def test_load_agent_never_imports_it(foreign: Made, own: Made) -> None:
    policy = rlagents.load_agent(foreign.run)
    assert policy.act(np.zeros((1, 4), np.float32)).shape == (1,)
    assert not foreign.marker.exists()


def test_python_allows_it_likewise(foreign: Made) -> None:
    with pytest.raises(UsageError, match="allow_import=True"):
        rlagents.open_run(foreign.run).evaluate(episodes=1)
    with pytest.raises(UsageError, match="allow_import=True"):
        rlagents.resume(foreign.run, total_steps=90, quiet=True)
    assert not foreign.marker.exists()
    assert rlagents.open_run(foreign.run, allow_import=True).evaluate(episodes=1).returns


def test_who_resumes_a_run_has_trained_it(foreign: Made, cli: Cli) -> None:
    resumed = cli("resume", foreign.run, "--total-steps", 90, "--allow-import")
    assert resumed.code == 0, resumed.err
    assert cli("evaluate", foreign.run, "--episodes", 1).code == 0


def test_another_users_id_proves_nothing(own: Made, state: Path, cli: Cli) -> None:
    state.write_bytes(bytes(32))
    assert cli("evaluate", own.run, "--episodes", 1).code == 2
    assert not own.marker.exists()


def test_the_secret_stays_where_it_is(own: Made, state: Path) -> None:
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.parent.stat().st_mode) == 0o700
    key = state.read_bytes()
    assert len(key) == 32
    for path in own.run.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert key not in data
            assert key.hex().encode() not in data


def test_one_id_serves_all_runs(own: Made, tmp_path: Path, state: Path, cli: Cli) -> None:
    key = state.read_bytes()
    other = make(tmp_path / "other")
    assert state.read_bytes() == key
    assert cli("evaluate", own.run, "--episodes", 1).code == 0
    assert cli("evaluate", other.run, "--episodes", 1).code == 0


@pytest.mark.parametrize("change", ["id", "kwargs"])
def test_what_one_run_proves_does_not_hold_for_another_environment(
    own: Made, tmp_path: Path, cli: Cli, change: str
) -> None:
    """A hostile run carries the proof of a run that its victim has given away."""
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    (hostile / "game.py").write_text(GAME)
    if change == "id":
        own.change(id=f"{hostile}/game.py:make_env")
    else:
        own.change(kwargs={"speed": 2})
    outcome = cli("evaluate", own.run, "--episodes", 1)
    assert outcome.code == 2
    assert not own.marker.exists()
    assert not (hostile / "marker").exists()


def test_a_run_may_be_moved(own: Made, tmp_path: Path, cli: Cli) -> None:
    moved = shutil.move(own.run, tmp_path / "moved")
    assert cli("evaluate", moved, "--episodes", 1).code == 0


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_an_id_that_others_can_read_proves_nothing(
    own: Made, state: Path, cli: Cli, mode: int
) -> None:
    state.chmod(mode)
    assert cli("evaluate", own.run, "--episodes", 1).code == 2
    assert not own.marker.exists()
    state.chmod(0o600)
    assert cli("evaluate", own.run, "--episodes", 1).code == 0


def test_an_id_that_is_a_link_proves_nothing(own: Made, state: Path, cli: Cli) -> None:
    state.rename(state.with_name("other"))
    state.symlink_to(state.with_name("other"))
    assert cli("evaluate", own.run, "--episodes", 1).code == 2


def test_a_state_folder_that_cannot_be_written_hinders_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    made = make(tmp_path / "made")
    assert json.loads((made.run / "config.json").read_text())["trained_here"] is None
    assert cli("evaluate", made.run, "--episodes", 1).code == 2


@pytest.mark.parametrize("value", [None, "", 1, [], "0" * 64])
def test_a_proof_that_is_none(own: Made, value: Any) -> None:
    manifest = json.loads((own.run / "config.json").read_text())
    assert trust.is_trusted(manifest)
    assert not trust.is_trusted(manifest | {"trained_here": value})


@pytest.mark.parametrize("base", ["", "relative"])
def test_without_a_state_folder_of_its_own_it_is_the_homes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", base)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert trust.sign({"id": "a.py:make"}) is not None
    assert (tmp_path / ".local" / "state" / "rlagents" / "user-id").is_file()


# --- which environments are code ----------------------------------------


@pytest.mark.parametrize(
    ("env_id", "kwargs", "is_code"),
    [
        ("cartpole", {}, False),
        ("pong", {"a": 1}, False),
        ("atari/breakout", {"a": 1}, False),
        ("ALE/Pong-v5", {"a": 1}, False),
        ("mario-8-4", {"observation": "tiles"}, False),
        ("mario-random", {"stages": ["1-1"]}, False),
        ("mario-9-1", {"a": 1}, True),
        ("mario-1-1-v0", {"a": 1}, True),
        ("mario-1-1\n", {"a": 1}, True),
        ("mario-1-1", {"observation": "tiles"}, False),
        ("mario", {"stall_steps": 9}, False),
        ("LunarLander-v3", {}, False),
        ("LunarLander-v3", {"wind_power": 3}, True),
        ("GymV26Environment-v0", {"env_id": "evil:Id-v0"}, True),
        ("a-package-of-mine", {}, False),
        ("a-package-of-mine", {"level": "x"}, True),
        ("evil:Id-v0", {}, True),
        ("/tmp/evil.py:make", {}, True),
        ("evil.py:", {}, True),
        (":", {}, True),
    ],
)
def test_what_counts_as_code(env_id: str, kwargs: dict[str, Any], is_code: bool) -> None:
    env = {"id": env_id, "kwargs": kwargs}
    assert trust.imports_code(env) is is_code
    assert trust.is_trusted({"config": {"env": env}}) is not is_code
    assert (trust.sign(env) is not None) is is_code


def test_all_that_comes_with_rlagents_is_built_in() -> None:
    assert all(map(trust._is_built_in, registry._builtin()))
    for name in ("LunarLander-v3", "my-env", "cartpole2", "mario-9-1", "mario-1-1-mine", "marios"):
        assert not trust._is_built_in(name)


@pytest.mark.parametrize("env", ["pong", None, {"id": 3}, {"id": "a.py:b", "kwargs": 7}])
def test_a_config_that_is_none_is_refused_as_that(own: Made, cli: Cli, env: Any) -> None:
    path = own.run / "config.json"
    manifest = json.loads(path.read_text())
    manifest["config"]["env"] = env
    path.write_text(json.dumps(manifest))
    for words in COMMANDS:
        outcome = cli(*(str(own.run) if word == "RUN" else word for word in words))
        assert outcome.code == 2
        assert str(path) in outcome.err


def test_a_built_in_environment_needs_no_id(
    tmp_path: Path, state: Path, tiny_run: Any, cli: Cli
) -> None:
    assert cli("evaluate", tiny_run.directory, "--episodes", 1).code == 0
    manifest = json.loads((tiny_run.directory / "config.json").read_text())
    assert manifest["trained_here"] is None
    assert not state.exists()


def test_a_module_is_not_imported_either(
    own: Made, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hostile_module.py").write_text(GAME)
    monkeypatch.syspath_prepend(str(tmp_path))
    own.change(id="hostile_module:CartPole-v1")
    assert cli("evaluate", own.run, "--episodes", 1).code == 2
    assert "hostile_module" not in sys.modules
    assert not (tmp_path / "marker").exists()
    assert cli("evaluate", own.run, "--episodes", 1, "--allow-import").code == 0
    assert (tmp_path / "marker").exists()


def test_ids_are_made_whole(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may make the id between looking for it and making it."""
    real = trust._read_id
    looked = []

    def read() -> bytes | None:
        looked.append(1)
        if len(looked) == 1:
            assert real() is None
            monkeypatch.setattr(trust, "_read_id", real)
            other = trust._make_id()
            monkeypatch.setattr(trust, "_read_id", read)
            looked.append(other)
            return None
        return real()

    monkeypatch.setattr(trust, "_read_id", read)
    signed = trust.sign({"id": "a.py:make"})
    monkeypatch.setattr(trust, "_read_id", real)
    assert trust.is_trusted({"config": {"env": {"id": "a.py:make"}}, "trained_here": signed})
    assert state.read_bytes() == looked[1]
    assert os.listdir(state.parent) == ["user-id"]
