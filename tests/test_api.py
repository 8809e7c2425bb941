"""The Python interface of the contract: runs as objects, and one's own parts in them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import gymnasium as gym
import numpy as np
import pytest
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import nn

import rlagents
from rlagents import EnvSpec, Policy, RunFailedError, UsageError, agents
from rlagents.agents.base import AgentTables, require_discrete
from rlagents.checkpoint import Checkpoint
from rlagents.envs import registry
from rlagents.tables import Table
from rlagents.types import Array, IntArray, Metrics, Transition

SMALL: dict[str, Any] = {
    "total_steps": 320,
    "env.num_envs": 4,
    "agent.learning_starts": 64,
    "replay.capacity": 400,
    "network.hidden_sizes": [16],
    "evaluation.period_steps": 160,
    "evaluation.episodes": 2,
    "recording.enabled": False,
}


@pytest.mark.parametrize("game", ["pong", "atari/breakout"])
def test_the_recipe_of_2015_trains(tmp_path: Path, game: str) -> None:
    sizes = {
        "env.id": game,
        "env.max_episode_frames": 200,
        "agent.learning_starts": 40,
        "agent.target_period_steps": 40,
        "network.width": 0.125,
        "network.hidden_sizes": [8],
        "replay.capacity": 100,
        "replay.batch_size": 4,
        "evaluation.period_steps": 0,
    }
    run = rlagents.train(
        "atari-dqn-2015", sizes, total_steps=90, runs_dir=tmp_path, name="run", quiet=True
    )
    agent = run.checkpoint("last").directory / "agent"
    optimizer = load_file(agent / "optimizer.safetensors")
    network, target = (load_file(agent / f"{name}.safetensors") for name in ("network", "target"))
    assert {name.partition(".")[2] for name in optimizer} == {"mean", "square"}
    assert any(square.any() for square in optimizer.values())
    assert any(not torch.equal(network[name], target[name]) for name in network)
    assert any(True for _ in run.episodes())


class Corridor(gym.Env[Array, int]):
    """Walk right to the door; it can be filmed, and its length is an argument."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}  # type: ignore[misc]

    def __init__(self, render_mode: str | None = None, length: int = 5) -> None:
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Box(0, 1, (2,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self._length = length

    def _observe(self) -> Array:
        return np.array([self._at / self._length, self._wind], dtype=np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self._at, self._time = 0, 0
        self._wind = float(self.np_random.random())
        return self._observe(), {}

    def step(self, action: int) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self._at = max(0, self._at + (1 if action == 1 else -1))
        self._time += 1
        over = self._at >= self._length
        return self._observe(), float(over) - 0.01, over, self._time >= 40, {}

    def render(self) -> Any:
        picture = np.zeros((16, 32, 3), dtype=np.uint8)
        picture[:, : 1 + 4 * self._at] = 255
        return picture


class RandomConfig(Table):
    """`[agent]` of random."""

    bias: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Chance of the last action."""


class RandomAgent(rlagents.Agent):
    """Chooses at random, and counts."""

    Config: ClassVar[type[Table]] = RandomConfig

    def __init__(self, bias: float, inputs: int, actions: int, seed: int) -> None:
        self._network = nn.Linear(inputs, actions)
        nn.init.zeros_(self._network.weight)
        with torch.no_grad():
            self._network.bias.copy_(torch.arange(actions) * (bias - 0.5))
        self._bias = bias
        self._actions = actions
        self._generator = np.random.default_rng(seed)
        self._steps = 0

    @classmethod
    def from_config(
        cls,
        config: AgentTables,
        observation_space: gym.spaces.Box,
        action_space: gym.Space[Any],
        *,
        num_envs: int,
        seed: int,
        device: torch.device,
    ) -> Self:
        assert isinstance(config.agent, RandomConfig)
        actions = require_discrete("random", action_space)
        return cls(config.agent.bias, observation_space.shape[0], actions, seed)

    @classmethod
    def load_policy(
        cls,
        config: AgentTables,
        observation_space: gym.spaces.Box,
        action_space: gym.Space[Any],
        directory: Path,
        device: torch.device,
    ) -> Policy:
        network = nn.Linear(observation_space.shape[0], require_discrete("random", action_space))
        network.load_state_dict(load_file(directory / "network.safetensors"))
        return Policy(network, "action values", device)

    def act(self, observation: Array) -> IntArray:
        last = self._generator.random(len(observation)) < self._bias
        return np.where(last, self._actions - 1, 0)

    def observe(self, transition: Transition) -> None:
        self._steps += len(transition.action)

    def learn(self) -> Metrics:
        return {"losses/steps": float(self._steps)}

    def policy(self) -> Policy:
        network = nn.Linear(self._network.in_features, self._network.out_features)
        network.load_state_dict(self._network.state_dict())
        return Policy(network, "action values", torch.device("cpu"))

    def save(self, directory: Path, *, experience: bool = True) -> None:
        save_file(self._network.state_dict(), directory / "network.safetensors")
        state = {"steps": self._steps, "generator": self._generator.bit_generator.state}
        (directory / "state.json").write_text(json.dumps(state))

    def load(self, directory: Path) -> None:
        self._network.load_state_dict(load_file(directory / "network.safetensors"))
        state = json.loads((directory / "state.json").read_text())
        self._steps = state["steps"]
        self._generator.bit_generator.state = state["generator"]


@pytest.fixture(scope="module", autouse=True)
def own_parts() -> Iterator[None]:
    rlagents.register_env(EnvSpec(name="corridor", make=Corridor, description="Walk to the door"))
    rlagents.register_agent("random", RandomAgent)
    yield
    del registry._registered["corridor"]
    del agents._registered["random"]


OWN: dict[str, Any] = {
    "total_steps": 240,
    "env": {"id": "corridor", "num_envs": 3, "kwargs": {"length": 4}},
    "agent": {"name": "random", "bias": 0.8},
    "evaluation": {"period_steps": 120, "episodes": 2},
}


# --- train ----------------------------------------


def test_train_a_recipe(tmp_path: Path) -> None:
    run = rlagents.train("cartpole-dqn", SMALL, seed=3, runs_dir=tmp_path, quiet=True)
    assert run.directory.parent == tmp_path
    assert re.fullmatch(r"cartpole-dqn-s3-\d{8}-\d{6}", run.directory.name)
    assert run.config.seed == 3
    assert run.config.total_steps == 320
    assert run.status()["state"] == "finished"
    evaluation = run.evaluate(episodes=4)
    assert evaluation.mean_return == np.mean(evaluation.returns)
    assert len(evaluation.returns) == 4
    assert isinstance(run.checkpoint(), Checkpoint)
    assert str(run.directory) in repr(run)


def test_keywords_win_over_overrides_and_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("total_steps = 5\nseed = 9\n[env]\nid = 'corridor'\n[agent]\nname = 'random'\n")
    overrides = {"total_steps": 6, "agent.bias": 0.25}
    run = rlagents.train(path, overrides, total_steps=7, runs_dir=tmp_path, name="r", quiet=True)
    assert (run.config.total_steps, run.config.seed) == (7, 9)
    assert run.config.agent.bias == 0.25  # type: ignore[attr-defined]
    assert run.directory == tmp_path / "r"


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        ("cartpole-dnq", {}, "did you mean 'cartpole-dqn'"),
        ("cartpole-dqn", {"agent.gama": 1}, "gamma"),
        ("cartpole-dqn", {"seed": -1}, "0 or more"),
        ({"env": {"id": "corridr"}}, {}, "did you mean 'corridor'"),
        ({"env": {"id": "corridor"}, "agent": {"name": "randon"}}, {}, "did you mean 'random'"),
        ({"env": {"id": "corridor"}, "agent": {"name": "random", "bias": 2}}, {}, "at most 1"),
        (
            {"env": {"id": "corridor"}, "agent": {"name": "random"}, "replay": {"capacity": 500}},
            {},
            "no [replay]",
        ),
    ],
)
def test_a_mistake_is_a_usage_error_and_writes_nothing(
    tmp_path: Path, config: Any, overrides: dict[str, Any], message: str
) -> None:
    runs = tmp_path / "runs"
    with pytest.raises(UsageError, match=re.escape(message)):
        rlagents.train(config, overrides, runs_dir=runs, quiet=True)
    assert not runs.exists()
    assert issubclass(UsageError, ValueError)


def test_an_unknown_keyword_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"agent\.learning-rate"):
        rlagents.train("cartpole-dqn", learning_rate=1e-3, runs_dir=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_quiet_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rlagents.train(OWN, runs_dir=tmp_path, quiet=True)
    assert capfd.readouterr() == ("", "")


def test_train_outside_of_the_main_thread(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(rlagents.train, OWN, runs_dir=tmp_path, quiet=True).result()
    assert run.status()["state"] == "finished"


# --- one's own environment and agent ----------------------------------------


def test_own_environment_and_agent_end_to_end(tmp_path: Path) -> None:
    run = rlagents.train(OWN, runs_dir=tmp_path, name="own", quiet=True)
    assert run.config.agent_name == "random"
    episodes = run.episodes()
    assert len(episodes) > 10
    assert {episode.end for episode in episodes} <= {"terminated", "truncated"}
    evaluation = run.evaluate(episodes=5)
    assert evaluation.returns == [pytest.approx(1 - 0.04)] * 5  # always right: four steps
    assert evaluation.as_dict()["env_id"] == "corridor"
    films = run.record(episodes=2)
    assert all(film.stat().st_size > 500 for film in films)
    about = json.loads(films[0].with_suffix(".json").read_text())
    assert about["action"] == [1, 1, 1, 1]
    assert about["frame"] == [0, 1, 2, 3]
    assert about["num_frames"] == 5
    assert about["frames_per_second"] == 10
    film = run.record_training_episode(len(episodes) - 1, output=tmp_path / "last.mp4")
    about = json.loads(film.with_suffix(".json").read_text())
    assert about["episodic_length"] == episodes[-1].episodic_length
    assert len(list((run.directory / "videos").glob("step-120-*.mp4"))) == 1
    metrics = (run.directory / "metrics.jsonl").read_text().splitlines()
    assert "losses/steps" in json.loads(metrics[-1])


def test_own_parts_are_resumed_exactly(tmp_path: Path) -> None:
    def rows(run: rlagents.Run) -> list[object]:
        return [episode._replace(wall_time_s=0) for episode in run.episodes()]

    config = {**OWN, "evaluation": {"period_steps": 0}}
    straight = rlagents.train(config, total_steps=300, runs_dir=tmp_path, name="a", quiet=True)
    rlagents.train(config, total_steps=131, runs_dir=tmp_path, name="b", quiet=True)
    resumed = rlagents.resume(tmp_path / "b", total_steps=300, quiet=True)
    assert "exactly" in (resumed.directory / "run.log").read_text()
    assert rows(resumed) == rows(straight)
    for name in ("network.safetensors", "state.json"):
        one, other = (
            (run.checkpoint("last").directory / "agent" / name).read_bytes()
            for run in (straight, resumed)
        )
        assert one == other


def test_dqn_takes_an_own_environment(tmp_path: Path) -> None:
    run = rlagents.train("cartpole-dqn", {**SMALL, "env.id": "corridor"}, runs_dir=tmp_path)
    assert run.evaluate(episodes=1).lengths[0] in range(1, 41)


def test_own_parts_are_listed(cli: Callable[..., Any]) -> None:
    envs = {
        row["name"]: row["description"] for row in json.loads(cli("list", "envs", "--json").out)
    }
    assert envs["corridor"] == "Walk to the door"
    agents = json.loads(cli("list", "agents", "--json").out)
    assert {"name": "random", "description": "Chooses at random, and counts."} in agents


def test_names_that_are_taken() -> None:
    for name in ("cartpole", "pong", "atari/breakout", "corridor"):
        with pytest.raises(UsageError, match=f"{name}.*taken"):
            rlagents.register_env(EnvSpec(name=name, make=lambda: None))  # type: ignore[arg-type,return-value]
    for name in ("dqn", "random"):
        with pytest.raises(UsageError, match=f"{name}.*taken"):
            rlagents.register_agent(name, type("Other", (RandomAgent,), {}))
    rlagents.register_agent("random", RandomAgent)  # the same again is fine
    rlagents.register_env(EnvSpec(name="corridor", make=Corridor, description="Walk to the door"))


def test_an_agent_must_have_its_parts() -> None:
    with pytest.raises(UsageError, match="Config"):
        rlagents.register_agent("half", object)


class NoisyCorridor(Corridor):
    """Does not reproduce itself."""

    def _observe(self) -> Array:
        return np.array([self._at, np.random.default_rng().random()], dtype=np.float32)


def test_an_environment_that_does_not_reproduce_itself_is_named(
    tmp_path: Path, cli: Callable[..., Any]
) -> None:
    spec = EnvSpec(name="noisy-corridor", make=NoisyCorridor)
    rlagents.register_env(spec)
    config = {**OWN, "env": {"id": "noisy-corridor", "num_envs": 2}}
    run = rlagents.train(config, runs_dir=tmp_path, name="noisy", quiet=True)
    log = (run.directory / "run.log").read_text()
    assert "noisy-corridor does not reproduce itself" in log
    assert "observation differs at step 0" in log
    with pytest.raises(UsageError, match="does not reproduce itself"):
        run.record_training_episode(0)
    (film,) = run.record()  # evaluations are filmed while they are played
    assert film.exists()
    assert list((run.directory / "videos").glob("step-240-*.mp4"))
    rlagents.resume(run.directory, total_steps=300, quiet=True)
    assert "not exactly" in (run.directory / "run.log").read_text()


class Mortal(NoisyCorridor):
    """Ends when it likes to, and bears no step after the end."""

    length: ClassVar[int] = 1_000

    def step(self, action: int) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        if self._time >= self.length:
            raise RuntimeError("stepped after the end")
        observation, _, _, _, info = super().step(0)
        return observation, 0.0, self._time >= self.length, False, info


def test_a_run_of_an_environment_that_does_not_reproduce_itself_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rlagents.register_env(EnvSpec(name="mortal", make=Mortal))
    config = {**OWN, "env": {"id": "mortal"}, "evaluation": {"period_steps": 0}}
    run = rlagents.train(config, runs_dir=tmp_path, name="run", quiet=True)
    monkeypatch.setattr(Mortal, "length", 3)
    rlagents.resume(run.directory, total_steps=300, quiet=True)
    log = (run.directory / "run.log").read_text()
    assert "not exactly (the environment does not reproduce itself" in log


class Continuous(Corridor):
    """Actions that no agent here can choose."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.action_space = gym.spaces.Box(-1, 1, (1,))  # type: ignore[assignment]


class Late(Corridor):
    """Numbered from one."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.action_space = gym.spaces.Discrete(2, start=1)


@pytest.mark.parametrize("make", [Continuous, Late])
@pytest.mark.parametrize("agent", ["dqn", "reinforce", "random"])
def test_actions_that_no_agent_can_choose(tmp_path: Path, make: type[Any], agent: str) -> None:
    rlagents.register_env(EnvSpec(name=make.__name__.lower(), make=make))
    config = {"env": {"id": make.__name__.lower()}, "agent": {"name": agent}}
    with pytest.raises(UsageError, match="Discrete"):
        rlagents.train(config, runs_dir=tmp_path / "runs", quiet=True)
    assert not (tmp_path / "runs").exists()


class Breaks(Corridor):
    """Fails in the middle of training."""

    def step(self, action: int) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        Breaks.steps += 1
        if Breaks.steps > 300:
            raise RuntimeError("the door fell off")
        return super().step(action)

    steps = 0


def test_an_environment_that_fails(tmp_path: Path) -> None:
    rlagents.register_env(EnvSpec(name="breaks", make=Breaks))
    config = {**OWN, "total_steps": 1_000, "env": {"id": "breaks"}}
    with pytest.raises(RunFailedError, match="the door fell off") as caught:
        rlagents.train(config, runs_dir=tmp_path, name="run", quiet=True)
    assert "step-120" in str(caught.value)
    assert rlagents.open_run(tmp_path / "run").status()["state"] == "failed"


def test_a_full_disk_is_told_in_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    def save(*_: object, **__: object) -> None:
        monkeypatch.setattr("rlagents.run.write_json", full)
        monkeypatch.setattr("rlagents.observers.console.ConsoleObserver.say", full)
        monkeypatch.setattr("rlagents.observers.tensorboard.TensorBoardObserver.close", full)
        full()

    monkeypatch.setattr("rlagents.checkpoint.CheckpointStore.save", save)
    with pytest.raises(RunFailedError, match=r"No space left.*no checkpoint yet"):
        rlagents.train(OWN, runs_dir=tmp_path, name="run", quiet=True)


def test_an_environment_that_fails_later_is_an_error_for_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Any]
) -> None:
    config = {**OWN, "env": {"id": "corridor"}}
    run = rlagents.train(config, total_steps=120, runs_dir=tmp_path, name="run", quiet=True)

    def fall_off(*_: object, **__: object) -> None:
        raise RuntimeError("the door fell off")

    for words in (["evaluate"], ["record"], ["record", "--training-episode", "0"]):
        for method in ("reset", "step", "render"):
            if words == ["evaluate"] and method == "render":
                continue
            with monkeypatch.context() as patch:
                patch.setattr(Corridor, method, fall_off)
                outcome = cli(words[0], run.directory, *words[1:])
            assert outcome.code == 1
            assert "corridor fails when it is played" in outcome.err
            assert "the door fell off" in outcome.err
            assert len(outcome.err.splitlines()) == 1


class BreaksAtOnce(Corridor):
    """Fails before training."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        raise RuntimeError("no door here")


def test_an_environment_that_fails_at_once_is_an_error_for_people(tmp_path: Path) -> None:
    rlagents.register_env(EnvSpec(name="breaks-at-once", make=BreaksAtOnce))
    config = {**OWN, "env": {"id": "breaks-at-once"}}
    with pytest.raises(rlagents.RLAgentsError, match=r"breaks-at-once.*no door here"):
        rlagents.train(config, runs_dir=tmp_path / "runs", quiet=True)
    assert not (tmp_path / "runs").exists()


# --- open_run, load_agent ----------------------------------------


def test_open_run(tiny_run: Any) -> None:
    run = rlagents.open_run(tiny_run.directory)
    assert run.directory == tiny_run.directory
    by_name = rlagents.open_run("tiny", runs_dir=tiny_run.directory.parent)
    assert by_name.directory == tiny_run.directory
    assert len(run.episodes()) == len(by_name.episodes()) > 8
    assert run.checkpoint("last").step == run.checkpoint(480).step == 480
    with pytest.raises(UsageError, match="not a run"):
        rlagents.open_run(tiny_run.directory.parent)
    with pytest.raises(UsageError, match="--checkpoint"):
        run.evaluate(checkpoint=99)
    with pytest.raises(UsageError, match="--episodes"):
        run.evaluate(episodes=0)
    with pytest.raises(UsageError, match="--seed"):
        run.evaluate(seed=-1)


def test_load_agent(tiny_run: Any) -> None:
    policy = rlagents.load_agent(tiny_run.directory, "last")
    observations = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    actions = policy.act(observations)
    assert actions.shape == (5,)
    assert set(actions.tolist()) <= {0, 1}
    values = policy.values(observations)
    assert values.shape == (5, 2)
    assert (values.argmax(axis=1) == actions).all()
    again = rlagents.open_run(tiny_run.directory).policy(480)
    assert np.array_equal(again.values(observations), values)


def test_load_agent_does_not_import_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "my_game.py"
    path.write_text(
        "import gymnasium as gym\n"
        "def make_env(render_mode=None, **kwargs):\n"
        "    return gym.make('CartPole-v1', render_mode=render_mode, **kwargs)\n"
    )
    overrides = {**SMALL, "env.id": "my_game.py:make_env"}
    run = rlagents.train("cartpole-dqn", overrides, runs_dir=tmp_path, name="run", quiet=True)
    monkeypatch.chdir(tmp_path.parent)  # the file's path was relative; a run keeps it whole
    assert run.evaluate(episodes=1).returns
    path.unlink()
    for name in [name for name in sys.modules if "my_game" in name]:
        monkeypatch.delitem(sys.modules, name)

    def refuse(*_: object) -> None:
        raise AssertionError("the environment was asked for")

    with monkeypatch.context() as patch:
        patch.setattr("rlagents.trained.find_env", refuse)
        patch.setattr(gym, "make", refuse)
        policy = rlagents.load_agent(run.directory)
        assert policy.act(np.zeros((3, 4), dtype=np.float32)).shape == (3,)
        assert rlagents.open_run(run.directory).episodes()
    with pytest.raises(UsageError, match=r"my_game\.py"):
        run.evaluate(episodes=1)


def test_what_a_user_imports_is_there() -> None:
    for name in rlagents.__all__:
        assert getattr(rlagents, name) is not None
    with pytest.raises(AttributeError, match="trian"):
        rlagents.trian  # noqa: B018


def test_a_checkpoint_of_another_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = rlagents.train(
        "cartpole-dqn", {"recording.enabled": False}, total_steps=1500, runs_dir=tmp_path
    )

    def lacking(*_: object, **__: object) -> None:
        raise KeyError("learning_noise")

    monkeypatch.setattr("rlagents.runner.Runner.load", lacking)
    with pytest.raises(UsageError, match=r"learning_noise.*another version of rlagents wrote it"):
        rlagents.resume(run.directory, total_steps=2000)
    assert run.status()["state"] == "finished"


def test_a_refusal_in_the_middle_of_a_run_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise UsageError("no such environment any more")

    monkeypatch.setattr("rlagents.runner.play_episodes", refuse)
    with pytest.raises(rlagents.RunFailedError, match="no such environment any more"):
        rlagents.train("cartpole-reinforce", total_steps=400, runs_dir=tmp_path, name="run")
    assert rlagents.open_run(tmp_path / "run").status()["state"] == "failed"
