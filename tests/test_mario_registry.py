"""Super Mario Bros. by `[env] id`: names, options, players, runs, and without its packages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
import pytest
from mario_tools import BACKENDS, needs_mario

from rlagents import doctor
from rlagents.config import build_config, parse_option_values
from rlagents.envs import (
    EnvConfig,
    find_env,
    list_envs,
    make_eval_env,
    make_player,
    make_vector_env,
    resolve_env_config,
)
from rlagents.envs.mario import MarioEnv, backends, mario_names, rom, specs
from rlagents.envs.mario.tiles import TILE_SIZE
from rlagents.envs.registry import PROCESS_KEYS
from rlagents.errors import UsageError
from rlagents.spaces import FrameStack

Cli = Callable[..., Any]
RIGHT = 1


def resolved(env_id: str = "mario-1-1", /, **keys: Any) -> EnvConfig:
    kwargs = {"backend": "nes-py"} | keys.pop("kwargs", {})
    return resolve_env_config(EnvConfig(id=env_id, kwargs=kwargs, **keys), find_env(env_id))


def refused(env_id: str, /, **keys: Any) -> str:
    with pytest.raises(UsageError) as caught:
        resolve_env_config(EnvConfig(id=env_id, **keys), find_env(env_id))
    message = str(caught.value)
    assert "\n" not in message
    return message


# Names.


def test_names() -> None:
    names = mario_names()
    assert len(names) == 34
    assert {"mario", "mario-random", "mario-1-1", "mario-8-4"} <= set(names)
    listed = {spec.name: spec for spec in list_envs()}
    assert set(names) <= set(listed)
    assert "stage 4-2" in listed["mario-4-2"].description
    with pytest.raises(UsageError, match=r"no environment 'mario-1-5'; did you mean 'mario-1-"):
        find_env("mario-1-5")
    with pytest.raises(UsageError, match=r"did you mean 'mario-"):
        specs.mario_spec("mario-9-9")


def test_the_package_is_not_imported_for_its_name() -> None:
    program = (
        "import sys; from rlagents.envs import list_envs, find_env; list_envs();"
        "find_env('mario-1-1');"
        "bad = {'gym', 'gym_super_mario_bros', 'nes_py', 'torch'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@needs_mario
def test_the_package_is_not_imported_for_playing_either() -> None:
    program = (
        "import sys; from rlagents.envs.mario import MarioEnv; env = MarioEnv(backend='nes-py');"
        "env.reset(seed=1); env.step(1); env.close();"
        "bad = {'gym', 'gym_super_mario_bros', 'nes_py', 'torch'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# Without the packages.


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rom, "package_folder", lambda name: None)
    monkeypatch.setattr(backends, "package_folder", lambda name: None)


@pytest.mark.usefixtures("missing")
def test_without_the_packages_the_list_is_the_same_and_training_says_what_to_do(
    cli: Cli, tmp_path: Path
) -> None:
    listed = cli("list", "envs", "--json")
    assert {"mario", "mario-1-1"} <= {row["name"] for row in json.loads(listed.out)}
    words = ("--env.id", "mario-1-1", "--env.action-set", "simple")
    outcome = cli("train", "pong-dqn", *words, "--runs-dir", tmp_path / "runs")
    assert outcome.code == 2
    assert outcome.err.strip().endswith("run: pip install 'rlagents[mario]'")
    assert len(outcome.err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("missing")
def test_the_doctor_says_so_and_is_content() -> None:
    assert doctor._mario() == "not installed; to play it: pip install 'rlagents[mario]'"


@needs_mario
def test_the_doctor_plays() -> None:
    said = doctor._mario()
    assert BACKENDS[-1] in said
    assert "240x256x3" in said


# Options.


@needs_mario
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stage_that_ends_before_its_beginning_is_refused(backend: str) -> None:
    kwargs = {"backend": backend}
    said = refused("mario-1-2", noop_max=400, kwargs=kwargs)
    lived = int(said.split(" lives for ")[1].split()[0])
    assert said.startswith("[env] noop_max: in 1-2 Mario lives for 31")
    assert said.endswith(f"set it to {lived} or less.")
    assert resolved("mario-1-2", noop_max=lived, kwargs=kwargs).noop_max == lived
    assert refused("mario-1-2", noop_max=lived + 1, kwargs=kwargs)
    assert "in 1-2 Mario" in refused(
        "mario-random", noop_max=400, kwargs=kwargs | {"stages": ["1-1", "1-2"]}
    )
    assert resolved("mario-1-1", noop_max=400, kwargs=kwargs).noop_max == 400


@needs_mario
def test_a_config_that_names_no_backend_is_played() -> None:
    config = resolved(kwargs={"observation": "tiles"})
    unnamed = config.model_copy(update={"kwargs": {"observation": "tiles"}})
    env = make_vector_env(find_env("mario-1-1"), unnamed, 1)
    assert env.reset(np.ones(1, dtype=np.bool_), [1]).shape == (1, TILE_SIZE)
    env.close()


@needs_mario
def test_defaults() -> None:
    config = resolved()
    processes = set(PROCESS_KEYS)  # of no use here
    assert config.model_dump(exclude={"id", "num_envs"} | processes) == {
        "frame_skip": 4,
        "sticky_probability": 0.0,
        "noop_max": 30,
        "action_set": "simple",
        "reward": "classic",
        "life_loss_terminates": False,
        "frame_size": 84,
        "crop": [0, 0],
        "frame_stack": 4,
        "max_episode_frames": 108_000,
        "kwargs": {"backend": "nes-py"},
    }
    assert resolved(kwargs={"backend": "auto"}).kwargs == {"backend": BACKENDS[-1]}


@needs_mario
def test_tiles_are_no_pictures() -> None:
    config = resolved(kwargs={"observation": "tiles"})
    assert (config.frame_size, config.frame_stack, config.crop, config.frame_skip) == (
        *(None, None, None, 4),
    )
    env = make_vector_env(find_env("mario-1-1"), config, 2)
    assert env.observation_space.shape == (TILE_SIZE,)
    assert not isinstance(env.observation_space, FrameStack)
    observation = env.reset(np.ones(2, dtype=np.bool_), [1, 2])
    assert observation.shape == (2, TILE_SIZE)
    assert observation.dtype == np.float32
    env.close()
    said = refused("mario-1-1", frame_size=64, kwargs={"observation": "tiles"})
    assert "has no pictures as observations" in said


@needs_mario
@pytest.mark.parametrize(
    ("env_id", "keys", "says"),
    [
        ("mario-1-1", {"action_set": "simpel"}, "no action set 'simpel'; did you mean 'simple'?"),
        ("mario-1-1", {"action_set": [["jump"]]}, "there is no button 'jump'"),
        ("mario-1-1", {"action_set": []}, "a list of 1 to 256 button combinations"),
        ("mario-1-1", {"reward": "clasic"}, "no reward 'clasic'; did you mean 'classic'?"),
        ("mario-1-1", {"life_loss_terminates": True}, "ends with its only life"),
        ("mario-1-1", {"kwargs": {"stages": ["1-1"]}}, "has no argument 'stages'"),
        ("mario-1-1", {"kwargs": {"stal_steps": 1}}, "did you mean 'stall_steps'?"),
        ("mario-1-1", {"kwargs": {"frame_skip": 2}}, "has no argument 'frame_skip'"),
        ("mario-1-1", {"kwargs": {"stall_steps": -1}}, "a whole number, 0 or more, got -1"),
        ("mario-1-1", {"kwargs": {"stall_steps": True}}, "a whole number, 0 or more, got True"),
        ("mario-1-1", {"kwargs": {"observation": "tile"}}, "expected pixels or tiles"),
        ("mario-1-1", {"kwargs": {"backend": "fast"}}, "there is no backend 'fast'"),
        ("mario-random", {"kwargs": {"stages": ["1-9"]}}, "from '1-1' to '8-4', got '1-9'"),
        ("mario-random", {"kwargs": {"stages": "1-1"}}, "expected a list such as"),
        ("pong", {"reward": "classic"}, "pong has no such option (Mario has)"),
        ("cartpole", {"reward": "classic"}, "cartpole has no such option"),
        ("pong", {"action_set": [["up"]]}, "pong takes the name of an action set, not a list"),
        ("cartpole", {"action_set": [["left"]]}, "it has: default"),
    ],
)
def test_refusals(env_id: str, keys: dict[str, Any], says: str) -> None:
    assert says in refused(env_id, **keys)


def test_lists_of_buttons_on_the_command_line() -> None:
    def action_set(text: str) -> Any:
        overrides = parse_option_values({"env.action_set": text})
        return build_config({"env": {"id": "mario-1-1"}}, overrides, "test.toml").env.action_set

    assert action_set('[["right"], ["right", "A"]]') == [["right"], ["right", "A"]]
    assert action_set("right-only") == "right-only"
    assert action_set("1942") == "1942"  # a name, whatever it looks like
    for wrong in ("[1]", '["right"]'):
        with pytest.raises(UsageError, match=r"--env\.action-set: expected text, or list of: list"):
            action_set(wrong)


@needs_mario
def test_every_key_changes_something() -> None:
    def outcome(env_id: str = "mario-1-1", /, **keys: Any) -> tuple[Any, ...]:
        config = resolved(env_id, **({"noop_max": 0} | keys))
        env = make_vector_env(find_env(env_id), config, 1)
        seen: list[Any] = [env.reset(np.ones(1, dtype=np.bool_), [5]).tobytes()]
        for action in (RIGHT, 2, 0, 4, 6, 2, 0, RIGHT, 2, 6, 4):
            env.send(np.array([action % int(env.action_space.n)]))  # type: ignore[attr-defined]
            step = env.recv()
            seen.append((step.observation.tobytes(), *(part.tolist() for part in step[1:4])))
        env.close()
        return tuple(seen)

    plain = outcome()
    assert outcome() == plain
    for keys in (
        {"frame_skip": 3},
        {"sticky_probability": 0.5},
        {"noop_max": 30},
        {"action_set": "right-only"},  # whose fifth and sixth are the first two again
        {"action_set": [["left"], ["right"]]},
        {"reward": "shaped"},
        {"frame_size": 64},
        {"frame_stack": 2},
        {"crop": [32, 0]},
        {"max_episode_frames": 8},
        {"kwargs": {"stall_steps": 1}},
        {"kwargs": {"observation": "tiles"}},
    ):
        assert outcome(**keys) != plain, keys
    assert outcome("mario-1-2") != plain
    assert outcome("mario-random", kwargs={"stages": ["1-2"]}) == outcome("mario-1-2")
    env = make_vector_env(find_env("mario-1-1"), resolved(action_set="right-only"), 1)
    assert env.action_space == gym.spaces.Discrete(5)
    env.close()


@needs_mario
def test_the_whole_game_reports_lives_and_a_stage_has_none() -> None:
    config = resolved("mario", noop_max=0, life_loss_terminates=True)
    env = make_vector_env(find_env("mario"), config, 1)
    env.reset(np.ones(1, dtype=np.bool_), [1])
    lost = []
    for number in range(120):
        env.send(np.array([RIGHT]))
        step = env.recv()
        assert not step.terminated[0]
        if step.life_lost[0]:
            lost.append(number)
            break
    assert lost
    env.close()


# Observations.


@needs_mario
def test_pictures_are_grey_cropped_shrunk_and_stacked() -> None:
    config = resolved(noop_max=0, crop=[32, 0], frame_size=84, frame_stack=3)
    env = make_vector_env(find_env("mario-1-1"), config, 2)
    raw = MarioEnv(backend="nes-py")
    stack = np.zeros((3, 84, 84), dtype=np.uint8)

    def push(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[32:]
        stack[:-1] = stack[1:]
        stack[-1] = cv2.resize(gray, (84, 84), interpolation=cv2.INTER_AREA)
        return stack

    observation = env.reset(np.ones(2, dtype=np.bool_), [1, 1])
    assert np.array_equal(observation[0], push(raw.reset(seed=1)[0]))
    assert not observation[0, :2].any()
    for _ in range(4):
        env.send(np.array([RIGHT, 0]))
        step = env.recv()
        picture, reward, *_ = raw.step(RIGHT)
        assert np.array_equal(step.observation[0], push(picture))
        assert step.reward[0] == reward
        assert not np.array_equal(step.observation[0, -1], step.observation[1, -1])
    env.close()
    raw.close()


# Players.


@needs_mario
@pytest.mark.parametrize("observation", ["pixels", "tiles"])
def test_a_player_shows_every_frame_and_plays_the_same(observation: str) -> None:
    spec = find_env("mario-1-1")
    config = resolved(sticky_probability=0.25, kwargs={"observation": observation})
    player, env = make_player(spec, config), make_eval_env(spec, config, 1)
    assert player.frames_per_second == 60.0988
    assert player.action_names is not None
    assert player.action_names[:3] == ("NOOP", "right", "right+A")
    begin = player.reset(7)
    assert len(begin.frames) == 1  # none of those without a button
    assert np.array_equal(begin.observation, env.reset(np.ones(1, dtype=np.bool_), [7])[0])
    shown = list(begin.frames)
    for _ in range(90):  # into the first goomba
        step = player.step(RIGHT)
        env.send(np.array([RIGHT]))
        expected = env.recv()
        assert np.array_equal(step.observation, expected.observation[0])
        assert (step.reward, step.terminated, step.truncated) == (
            *(expected.reward[0], expected.terminated[0], expected.truncated[0]),
        )
        assert len(step.frames) == 4 or (step.terminated and 1 <= len(step.frames) <= 4)
        shown += step.frames
        if step.terminated:
            break
    assert step.terminated
    assert all(frame.shape == (240, 256, 3) for frame in shown)
    assert len({frame.tobytes() for frame in shown}) > len(shown) / 2  # no view of one memory
    player.close()
    env.close()


@needs_mario
def test_a_player_of_the_whole_game_shows_what_is_skipped() -> None:
    player = make_player(find_env("mario"), resolved("mario", noop_max=0))
    player.reset(1)
    longest = 0
    for _ in range(80):
        longest = max(longest, len(player.step(RIGHT).frames))
    assert longest > 4  # a new life
    player.close()


# Whole runs.

RUN = {
    "env.id": "mario-1-1",
    "env.num_envs": 2,
    "env.sticky_probability": 0.25,
    "env.reward": "progress",
    "env.max_episode_frames": 100,
    "env.kwargs": {"observation": "tiles", "stall_steps": 8, "backend": "nes-py"},
    "agent.learning_starts": 32,
    "replay.capacity": 100,
    "replay.batch_size": 8,
    "network.hidden_sizes": [8],
    "evaluation.period_steps": 0,
    "checkpoint.period_steps": 40,
}


@needs_mario
@pytest.mark.slow
def test_a_run_is_resumed_exactly(
    cli: Cli, tmp_path: Path, read_rows: Callable[[Path], list[dict[str, str]]]
) -> None:
    import rlagents

    whole = rlagents.train("cartpole-dqn", RUN, total_steps=120, runs_dir=tmp_path, quiet=True)
    part = rlagents.train("cartpole-dqn", RUN, total_steps=50, runs_dir=tmp_path, quiet=True)
    outcome = cli("resume", part.directory, "--total-steps", 120)
    assert outcome.code == 0, outcome.err
    assert "resuming at step 50, exactly" in outcome.err
    config = json.loads((whole.directory / "config.json").read_text())
    assert config["config"]["env"]["kwargs"]["backend"] == "nes-py"
    assert config["reproducible"] is True
    episodes = read_rows(whole.directory / "episodes.csv")
    assert len(episodes) > 2
    assert read_rows(part.directory / "episodes.csv") == episodes
    for name in ("network.safetensors",):
        first, second = (
            next(run.directory.glob(f"checkpoints/step-120/**/{name}")) for run in (whole, part)
        )
        assert first.read_bytes() == second.read_bytes()


@needs_mario
@pytest.mark.slow
def test_a_reward_of_ones_own(cli: Cli, tmp_path: Path) -> None:
    game = tmp_path / "my_mario.py"
    game.write_text(
        "from rlagents.envs.mario import MarioEnv, Played\n"
        "def coins(played: Played) -> float:\n"
        "    return 1.0 + played.after['coins'] - played.before['coins']\n"
        "def make_env(render_mode=None):\n"
        "    return MarioEnv(1, 1, reward=coins, observation='tiles', max_episode_frames=40,\n"
        "                    backend='nes-py', render_mode=render_mode)\n"
    )
    import rlagents

    changes = RUN | {"env.id": f"{game}:make_env", "env.kwargs": {}}
    for key in ("env.sticky_probability", "env.reward", "env.max_episode_frames"):
        del changes[key]
    run = rlagents.train("cartpole-dqn", changes, total_steps=60, runs_dir=tmp_path, quiet=True)
    lines = (run.directory / "episodes.csv").read_text().splitlines()
    assert len(lines) > 2
    column = lines[0].split(",").index("episodic_return")
    assert {float(line.split(",")[column]) for line in lines[1:]} == {10.0}
