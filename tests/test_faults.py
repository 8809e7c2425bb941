"""Updates that are not finite are never made; what fails is named, and the last good one kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import rlagents
from rlagents.agents import dqn as dqn_module
from rlagents.agents.base import Fault
from rlagents.agents.dqn import DQN
from rlagents.agents.guard import Guard, clip_gradients, step_unless
from rlagents.agents.optimizers import CenteredRMSprop
from rlagents.agents.ppo import PPO
from rlagents.agents.reinforce import Reinforce
from rlagents.config import build_config, read_config
from rlagents.envs import find_env, make_vector_env, resolve_env_config
from rlagents.errors import RunFailedError
from rlagents.faults import write_fault
from rlagents.types import Transition

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "env.num_envs": 2,
    "agent.learning_starts": 24,
    "replay.capacity": 200,
    "replay.batch_size": 8,
    "network.hidden_sizes": [8],
    "evaluation.period_steps": 0,
    "recording.enabled": False,
}
REINFORCE: dict[str, Any] = {
    "env.num_envs": 2,
    "agent.episodes_per_update": 2,
    "network.hidden_sizes": [8],
    "evaluation.period_steps": 0,
    "recording.enabled": False,
}


PPO_SMALL: dict[str, Any] = {
    "env.num_envs": 2,
    "agent.rollout_steps": 8,
    "network.hidden_sizes": [8],
    "evaluation.period_steps": 0,
    "recording.enabled": False,
}
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "cartpole-dqn": (DQN, SMALL),
    "cartpole-ppo": (PPO, PPO_SMALL),
    "cartpole-reinforce": (Reinforce, REINFORCE),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- the guard ----------------------------------------


@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize(
    ("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)]
)
def test_the_first_bad_update_is_kept_and_none_is_made_after_it(
    read: bool, loss: float, norm: float
) -> None:
    guard = Guard(CPU, read=read)
    batch = torch.zeros(3)
    skipped = []
    for number, numbers in enumerate([(1.0, 2.0), (loss, norm), (1.0, 2.0), (-math.inf, 0.5)]):
        assert (guard.fault() is None) is (number < 2)
        batch.fill_(number)  # into the same memory, as replay does
        skip = guard.look(*map(torch.tensor, numbers), lambda: {"observation": batch})
        assert isinstance(skip, bool) is read
        skipped.append(bool(skip))
    assert skipped == [False, True, True, True]
    fault = guard.fault()
    assert fault is not None
    assert str((fault.loss, fault.gradient_norm)) == str((loss, norm))
    assert fault.batch["observation"].tolist() == [1, 1, 1]


def weights_and_gradients() -> tuple[nn.Parameter, nn.Parameter]:
    torch.manual_seed(0)
    pair = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(5))
    for parameter in pair:
        parameter.grad = torch.randn_like(parameter)
    return pair


def make_adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.1, fused=True)


def make_rmsprop(parameters: Any) -> torch.optim.Optimizer:
    return CenteredRMSprop(parameters, lr=0.1, decay=0.9, epsilon=0.01)


def copy_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    state = [value for values in optimizer.state.values() for value in values.values()]
    return [tensor.detach().clone() for tensor in [*optimizer.param_groups[0]["params"], *state]]


@pytest.mark.parametrize("make", [make_adam, make_rmsprop])
@pytest.mark.parametrize("as_tensor", [True, False])
def test_a_step_that_is_skipped_changes_nothing(
    make: Callable[[Any], torch.optim.Optimizer], as_tensor: bool
) -> None:
    def verdict(skip: bool) -> bool | Tensor:
        return torch.tensor(float(skip)) if as_tensor else skip

    parameters = weights_and_gradients()
    plain = weights_and_gradients()
    optimizer, other = make(parameters), make(plain)
    for _ in range(2):
        step_unless(verdict(False), optimizer)
        other.step()
    # Where all is well it makes no difference, to the bit.
    assert all(map(torch.equal, copy_of(optimizer), copy_of(other)))
    before = copy_of(optimizer)
    gradient = parameters[0].grad
    assert gradient is not None
    gradient[1, 2] = math.nan
    step_unless(verdict(True), optimizer)
    assert all(map(torch.equal, copy_of(optimizer), before))


@pytest.mark.parametrize(("limit", "shortened"), [(1.0, True), (0.0, False), (100.0, False)])
def test_the_length_of_gradients_is_told_whether_or_not_they_are_shortened(
    limit: float, shortened: bool
) -> None:
    parameters = weights_and_gradients()
    numbers = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    norm = clip_gradients(iter(parameters), limit)
    assert float(norm) == pytest.approx(float(numbers.norm()))
    after = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    assert float(after.norm()) == pytest.approx(1.0 if shortened else float(numbers.norm()))


# --- agents ----------------------------------------


def make_agent(recipe: str, **overrides: Any) -> Any:
    kind, base = KINDS[recipe]
    tables, _ = read_config(recipe)
    config = build_config(tables, base | overrides, recipe)
    spec = find_env("cartpole")
    config = config.model_copy(update={"env": resolve_env_config(config.env, spec)})
    env = make_vector_env(spec, config.env, 2)
    return kind.from_config(
        config, env.observation_space, env.action_space, num_envs=2, seed=1, device=CPU
    )


def feed(agent: Any, generator: np.random.Generator, reward: float = 1.0) -> None:
    """Let the agent see a step of two environments, and learn."""
    observation = generator.normal(size=(2, 4)).astype(np.float32)
    agent.observe(
        Transition(
            observation,
            agent.act(observation),
            np.full(2, reward, dtype=np.float32),
            observation + 1,
            np.zeros(2, dtype=np.bool_),
            generator.random(2) < 0.1,
        )
    )
    agent.learn()


def state_of(agent: Any) -> list[Tensor]:
    names = ("_network", "_target", "_playing")
    networks = [getattr(agent, name) for name in names if hasattr(agent, name)]
    tensors = [tensor for network in networks for tensor in network.state_dict().values()]
    tensors += [value for values in agent._optimizer.state.values() for value in values.values()]
    return [tensor.detach().clone() for tensor in tensors]


DQN_KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "pipelined": {"agent.pipelined": True},
    "prioritized": {"replay.kind": "prioritized"},
    "pipelined and prioritized": {"agent.pipelined": True, "replay.kind": "prioritized"},
    "noisy": {"network.noisy": True},
    "categorical": {"agent.loss": "categorical", "agent.value_min": 0, "agent.value_max": 99},
    "averaged": {"agent.average_decay": 0.9},
    "unclipped": {"agent.max_grad_norm": 0},
    "rmsprop": {"agent.optimizer": "rmsprop", "agent.target_tau": 0.1},
}


def sicken(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """From now on losses, or gradients behind a finite loss, are not finite."""
    real = dqn_module.F.smooth_l1_loss

    def bad(*inputs: Any, **options: Any) -> Tensor:
        loss = real(*inputs, **options)
        if where == "loss":
            return loss * math.nan
        return loss + 0 * (inputs[0] - inputs[0].detach()).abs().sqrt().sum()  # 0 * 1 / sqrt(0)

    monkeypatch.setitem(dqn_module._LOSSES, "huber", bad)
    monkeypatch.setitem(dqn_module._LOSSES, "mse", bad)


@pytest.mark.parametrize("read", [True, False], ids=["read at once", "on the device"])
@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("kind", DQN_KINDS)
def test_dqn_makes_no_update_that_is_not_finite(
    monkeypatch: pytest.MonkeyPatch, kind: str, where: str, read: bool
) -> None:
    if kind == "rmsprop":
        DQN_KINDS[kind].setdefault("agent.target_period_steps", 10_000)
    agent = make_agent("cartpole-dqn", **DQN_KINDS[kind])
    agent._guard = Guard(CPU, read=read)
    generator = np.random.default_rng(0)
    for _ in range(20):
        feed(agent, generator)
    agent.settle()
    assert agent.fault() is None
    assert agent._optimizer.state
    if kind == "categorical":
        real = agent._network.logits

        def logits(observation: Tensor) -> Tensor:
            found = real(observation)
            bad = math.nan if where == "loss" else 0 * (found - found.detach()).abs().sqrt()
            return found * bad if where == "loss" else found + bad

        monkeypatch.setattr(agent._network, "logits", logits)
        monkeypatch.setattr(agent._target, "logits", real)
    else:
        sicken(monkeypatch, where)
    agent._config = agent._config.model_copy(update={"target_period_steps": 10**9})  # no copies
    before = state_of(agent)
    for _ in range(6):
        feed(agent, generator)  # acting, drawing and priorities go on
    agent.settle()
    assert all(map(torch.equal, state_of(agent), before))
    fault = agent.fault()
    assert fault is not None
    assert math.isfinite(fault.loss) is (where == "gradient")
    assert not math.isfinite(fault.gradient_norm)
    assert set(fault.batch) >= {"observation", "action", "target"}
    assert ("weights" in fault.batch) is ("prioritized" in kind)
    assert fault.batch["observation"].shape == (8, 4)


@pytest.mark.parametrize("baseline", ["value", "none"])
def test_reinforce_makes_no_update_that_is_not_finite(baseline: str) -> None:
    agent = make_agent("cartpole-reinforce", **{"agent.baseline": baseline})
    generator = np.random.default_rng(0)
    while not agent._optimizer.state:
        feed(agent, generator)
    assert agent.fault() is None
    before = state_of(agent)
    for _ in range(60):
        feed(agent, generator, reward=math.nan)
    assert all(map(torch.equal, state_of(agent), before))
    fault = agent.fault()
    assert fault is not None
    assert not math.isfinite(fault.loss)
    steps = len(fault.batch["action"])
    assert fault.batch["observation"].shape == (steps, 4)
    assert int(fault.batch["lengths"].sum()) == len(fault.batch["return"]) == steps


@pytest.mark.parametrize("read", [True, False], ids=["read at once", "on the device"])
@pytest.mark.parametrize(
    "options", [{}, {"agent.target_kl": 0.1}, {"agent.normalize_rewards": True}]
)
def test_ppo_makes_no_update_that_is_not_finite(options: dict[str, Any], read: bool) -> None:
    agent = make_agent("cartpole-ppo", **options)
    agent._guard = Guard(CPU, read=read)
    generator = np.random.default_rng(0)
    for _ in range(10):
        feed(agent, generator)
    assert agent._optimizer.state
    assert agent.fault() is None
    before = state_of(agent)
    for _ in range(20):
        feed(agent, generator, reward=math.nan)
        # The update of the rollout that had begun before is the first that is not made.
        assert all(map(torch.equal, state_of(agent), before))
    fault = agent.fault()
    assert fault is not None
    assert not math.isfinite(fault.loss)
    names = {"observation", "action", "log_probability", "value", "advantage", "target"}
    assert set(fault.batch) == names
    assert fault.batch["observation"].shape == (4, 4)  # 2 x 8 steps in 4 minibatches


# --- runs ----------------------------------------

GAME = """
import math
import gymnasium as gym

class Game(gym.Wrapper):
    steps = 0

    def step(self, action):
        observation, reward, *rest = super().step(action)
        Game.steps += 1
        if Game.steps > {after}:
            {what}
        return observation, reward, *rest

def make_env(render_mode=None):
    return Game(gym.make("CartPole-v1", render_mode=render_mode))
"""


def train(tmp_path: Path, what: str, **more: Any) -> str:
    """Train where something happens after 420 steps; return what the run says in the end."""
    (tmp_path / "game.py").write_text(GAME.format(what=what, after=420))
    overrides = SMALL | {
        "env.id": f"{tmp_path}/game.py:make_env",
        "checkpoint.period_steps": 100,
        "checkpoint.keep": 100,
        "logging.period_s": 0.001,
    }
    with pytest.raises(RunFailedError) as caught:
        rlagents.train(
            "cartpole-dqn",
            overrides | more,
            total_steps=2_000,
            runs_dir=tmp_path,
            name="run",
            quiet=True,
        )
    assert caught.value.exit_code == 1
    return str(caught.value)


def test_a_run_that_diverges_keeps_the_last_good_checkpoint_and_the_batch(tmp_path: Path) -> None:
    said = train(tmp_path, "reward = math.nan")
    run = rlagents.open_run(tmp_path / "run")
    (folder,) = (run.directory / "faults").iterdir()
    step = int(folder.name.removeprefix("step-"))
    assert f"before step {step} was not finite" in said
    assert str(folder) in said
    for words in ("--agent.learning-rate", "--agent.max-grad-norm (now 10)", "--init-from"):
        assert words in said
    assert "rewards and observations are finite" in said  # the targets are not
    batch = load_file(folder / "batch.safetensors")
    assert batch["observation"].shape == (8, 4)
    assert not batch["target"].isfinite().all()
    about = json.loads((folder / "fault.json").read_text())
    assert about["step"] == step
    assert about["loss"] == "nan"
    assert about["not_finite"] == {"target": int((~batch["target"].isfinite()).sum())}
    last = run.checkpoint("last")
    assert str(last.directory) in said
    assert last.step < step
    assert np.isfinite(run.policy("last").values(np.ones((1, 4), np.float32))).all()
    assert run.status()["state"] == "failed"
    assert run.status()["error"] in said


def test_observations_that_are_not_finite_are_the_environments_doing(tmp_path: Path) -> None:
    tables, _ = read_config("cartpole-dqn")
    batch = {"observation": torch.tensor([1, math.inf]), "target": torch.tensor([math.nan])}
    said = write_fault(tmp_path, Fault(math.nan, 1.0, batch), 7, build_config(tables, {}, "test"))
    assert "the environment cartpole that must be mended" in said
    assert "learning-rate" not in said


@pytest.mark.parametrize(("norm", "says"), [(0.0, "(now none)"), (10.0, "(now 10)")])
def test_advice_depends_on_the_config(tmp_path: Path, norm: float, says: str) -> None:
    tables, _ = read_config("cartpole-dqn")
    config = build_config(tables, {"agent.max_grad_norm": norm}, "test")
    fault = Fault(math.nan, math.nan, {"observation": torch.zeros(2), "target": torch.zeros(2)})
    for _ in range(2):  # the same step again, after a resume
        said = write_fault(tmp_path, fault, 7, config)
    assert says in said
    assert "rewards" not in said
    assert sorted(path.name for path in (tmp_path / "faults").iterdir()) == ["step-7"]


@pytest.mark.parametrize("what", ["raise ValueError('out of lives')", "raise SystemError('x')"])
def test_an_environment_that_raises_is_named(tmp_path: Path, what: str) -> None:
    said = train(tmp_path, what)
    run = rlagents.open_run(tmp_path / "run")
    assert f"{tmp_path}/game.py:make_env, number " in said
    assert "out of lives" in said or "SystemError" in said
    assert f"rlagents resume {run.directory}" in said
    # Its number and seed are those of an episode that has not ended.
    words = said.split()
    number = int(words[words.index("number") + 1].strip(","))
    seed = int(words[words.index("seed") + 1])
    state = json.loads((run.checkpoint("last").directory / "runner.json").read_text())
    assert number in (0, 1)
    ended = {episode.seed for episode in run.episodes()}
    assert seed not in ended
    assert state["seeds"][number] == seed or state["seeds"][number] in ended
