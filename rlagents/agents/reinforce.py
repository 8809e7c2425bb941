"""REINFORCE: Williams, "Simple statistical gradient-following algorithms ..." (1992).

Follows the gradient of the expected return by whole episodes, Section 5, with the reward-to-go of
each step in place of the episode's return (the past cannot be changed by the action):

    grad J = mean_t [ (G_t - b(o_t)) grad log pi(a_t | o_t) ],    G_t = sum_k gamma^k r_{t+k}

Differences from the paper:
- Returns are standardised over the batch of an update: (G - mean) / std.
- Rewards are discounted by gamma; in the paper's episodic task they are not.
- The baseline b is none, or learned beside the policy, as an estimate of the standardised return.
- An entropy bonus keeps the policy from settling early (Williams and Peng 1991).
- `reset_return_at_score` starts the sum afresh after each reward, as 'Pong from pixels' (Karpathy
  2016) does, where each point is a game of its own.

It remains REINFORCE: every sample takes part in one gradient step, and no return is bootstrapped.
Each environment brings the same number of episodes to an update, all begun under the weights that
it improves: taking whichever end first would prefer short ones.

With `points_per_update` an update is of the pieces between rewards that `reset_return_at_score`
makes games of their own, and comes as soon as so many are complete, in the middle of episodes. Each
piece takes part in exactly one update, so that none is preferred. Those that an update comes in the
middle of were begun under the weights before it. The paper would not have that; it is the price of
many more updates, as a game of Pong has 21 points or more.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor

from rlagents import seeding
from rlagents.agents import storage
from rlagents.agents.base import (
    Agent,
    AgentTables,
    Fault,
    Policy,
    network_table,
    refuse_action_value_options,
    require_discrete,
)
from rlagents.agents.guard import Guard, clip_gradients, step_unless
from rlagents.agents.optimizers import Adam
from rlagents.agents.rewards import standardize
from rlagents.agents.weights import take_over
from rlagents.errors import UsageError
from rlagents.networks import (
    NetworkConfig,
    PolicyNetwork,
    PolicyValueNetwork,
    make_torso,
    resolve_precision,
)
from rlagents.replay.trajectory import Trajectory
from rlagents.schedules import check_scheduled, scheduled
from rlagents.tables import Count, Probability, Table
from rlagents.types import Array, BoolArray, FloatArray, IntArray, Metrics, Transition

_EXPLORATION = 1
# Steps that go through the network at once; gradients are summed, so that this changes no result
# beyond rounding, only the memory an update needs.
_CHUNK = 512


class ReinforceConfig(Table):
    """`[agent]` of reinforce."""

    name: Literal["reinforce"] = "reinforce"
    """The learner."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    """Adam's step size."""
    learning_rate_end: Annotated[float, Field(ge=0, le=1)] | None = None
    """Step size in the end, with learning_rate_decay_steps; constant if left out."""
    learning_rate_decay_steps: Count | None = None
    """Agent steps over which the step size changes in a straight line."""
    gamma: Probability = 0.99
    """Discount per agent step."""
    episodes_per_update: Count = 8
    """Whole episodes of an update, over all environments; a multiple of [env] num_envs."""
    points_per_update: Count | None = None
    """In place of episodes, the points of an update, with reset_return_at_score."""
    baseline: Literal["none", "value"] = "value"
    """Subtracted from returns: nothing, or a learned value of the observation."""
    value_coefficient: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the baseline's squared error in the loss."""
    entropy_coefficient: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the policy's entropy in the loss."""
    standardize: bool = True
    """Scale the returns of an update to mean 0 and standard deviation 1."""
    reset_return_at_score: bool = False
    """Start a new sum after each reward that is not 0."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Longer gradients are shortened to this length; 0 leaves them as they are."""


def rewards_to_go(
    rewards: FloatArray,
    gamma: float,
    *,
    ends: BoolArray | None = None,
    reset_at_score: bool = False,
) -> FloatArray:
    """Return G_t = r_t + gamma * G_{t+1}: [T] float32 -> [T] float32.

    Sums end with the steps of `ends`, [T] bool; with `reset_at_score`, also with each reward other
    than 0.
    """
    returns = np.zeros(len(rewards), dtype=np.float64)
    following = 0.0
    for t in range(len(rewards) - 1, -1, -1):
        if (ends is not None and ends[t]) or (reset_at_score and rewards[t] != 0):
            following = 0.0
        following = float(rewards[t]) + gamma * following
        returns[t] = following
    return returns.astype(np.float32)


class Reinforce(Agent):
    """A policy, an optimizer and the episodes that the next update waits for.

    Args:
        config: the `[agent]` table.
        network: the policy, with a value head if the config has a baseline.
        observation_space: of one environment.
        num_envs: N.
        seed: of the choice of actions.
        device: where the network is.
    """

    Config: ClassVar[type[Table]] = ReinforceConfig
    NetworkConfig: ClassVar[type[Table] | None] = NetworkConfig
    network_keys: ClassVar[tuple[str, ...]] = ("baseline",)

    def __init__(
        self,
        config: ReinforceConfig,
        network: PolicyNetwork,
        *,
        observation_space: gym.spaces.Box,
        num_envs: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self._config = config
        self._network = network.to(device)
        self._optimizer = Adam(self._network.parameters(), lr=config.learning_rate, fused=True)
        self._observation_space = observation_space
        self._num_envs = num_envs
        self._quota = config.episodes_per_update // num_envs
        self._generator = seeding.generator(seed, _EXPLORATION)
        self._device = device
        # An update takes long, and the next choice of actions waits for it in any case.
        self._guard = Guard(device, read=True)
        self._running = [Trajectory(observation_space) for _ in range(num_envs)]
        self._finished: list[list[Trajectory]] = [[] for _ in range(num_envs)]
        self._steps = 0  # agent steps observed

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
        """Return a new agent."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = _make_network(config, observation_space, action_space)
        return cls(
            _table(config),
            network,
            observation_space=observation_space,
            num_envs=num_envs,
            seed=seed,
            device=device,
        )

    @classmethod
    def load_policy(
        cls,
        config: AgentTables,
        observation_space: gym.spaces.Box,
        action_space: gym.Space[Any],
        directory: Path,
        device: torch.device,
    ) -> Policy:
        """Return the policy that `save` wrote to `directory`."""
        network = storage.load_new_module(
            lambda: _make_network(config, observation_space, action_space),
            directory / "network.safetensors",
        )
        return Policy(network, "probabilities", device)

    @classmethod
    def check(cls, config: AgentTables, *, num_envs: int) -> None:
        """Raise UsageError where the environments cannot share an update's episodes evenly."""
        refuse_action_value_options(config, "reinforce")
        table = _table(config)
        check_scheduled(table, "learning_rate")
        if table.points_per_update is not None and not table.reset_return_at_score:
            raise UsageError(
                "[agent] points_per_update: needs reset_return_at_score = true, which makes each "
                "point a game of its own; set it, or leave points_per_update out."
            )
        episodes = table.episodes_per_update
        default = ReinforceConfig.model_fields["episodes_per_update"].default
        if table.points_per_update is not None:
            if episodes != default:
                raise UsageError(
                    f"[agent] points_per_update: updates come after so many points, so that "
                    f"episodes_per_update = {episodes} would do nothing; leave one of the two out "
                    f"(episodes_per_update is then {default})."
                )
        elif episodes % num_envs:
            nearest = max(1, round(episodes / num_envs)) * num_envs
            raise UsageError(
                f"[agent] episodes_per_update: {episodes} episodes cannot be shared evenly by "
                f"{num_envs} environments; set it to {nearest}, or change [env] num_envs."
            )

    @classmethod
    def resolve(cls, config: AgentTables, device: str) -> dict[str, Table]:
        """Return `[network]` with the precision that is fast here."""
        return {"network": resolve_precision(network_table(config), device)}

    @property
    def learning_rate(self) -> float:
        """Adam's step size now."""
        return scheduled(self._config, "learning_rate", self._steps)

    @torch.no_grad()
    def act(self, observation: Array) -> IntArray:
        """Return actions drawn from the policy: [N, ...] -> [N] int64."""
        logits = self._network(torch.from_numpy(observation).to(self._device))  # [N, A]
        cumulative = logits.double().softmax(dim=1).cumsum(dim=1).cpu().numpy()
        threshold = self._generator.random((self._num_envs, 1)) * cumulative[:, -1:]
        return np.asarray((cumulative <= threshold).sum(axis=1))

    def observe(self, transition: Transition) -> None:
        """Add a step to the episode of every environment that is not waiting."""
        active = np.flatnonzero(~self.waiting()).tolist()
        self._steps += len(active)
        actions, rewards = transition.action.tolist(), transition.reward.tolist()
        ends = transition.terminated.tolist()
        complete = transition.episode_over
        if self._config.points_per_update is not None:
            complete = complete | (transition.reward != 0)
        for i in active:
            self._running[i].append(transition.observation[i], actions[i], rewards[i], ends[i])
            if complete[i]:
                self._finished[i].append(self._running[i])
                self._running[i] = Trajectory(self._observation_space)

    def waiting(self) -> BoolArray:
        """Tell which environments have brought all their episodes of the next update."""
        if self._config.points_per_update is not None:
            return np.zeros(self._num_envs, dtype=np.bool_)
        return np.array([len(episodes) >= self._quota for episodes in self._finished])

    def _update_is_due(self) -> bool:
        if self._config.points_per_update is not None:
            return sum(map(len, self._finished)) >= self._config.points_per_update
        return bool(self.waiting().all())

    def learn(self) -> Metrics:
        """Update once all its episodes, or points, are there."""
        if not self._update_is_due():
            return {}
        episodes = [episode for finished in self._finished for episode in finished]
        self._finished = [[] for _ in range(self._num_envs)]
        return self._update(episodes)

    def _update(self, episodes: list[Trajectory]) -> Metrics:
        config = self._config
        returns = np.concatenate(
            [
                rewards_to_go(
                    episode.rewards(),
                    config.gamma,
                    ends=episode.ends(),
                    reset_at_score=config.reset_return_at_score,
                )
                for episode in episodes
            ]
        )
        if config.standardize:
            returns = standardize(returns)
        steps = len(returns)
        sums = torch.zeros(3, device=self._device)  # policy loss, value loss, entropy
        self._optimizer.zero_grad()
        begin = 0
        for episode in episodes:
            observations, actions = episode.observations(), episode.actions()
            for start in range(0, len(episode), _CHUNK):
                part = slice(start, start + _CHUNK)
                count = len(actions[part])
                parts = self._losses(
                    observations[part], actions[part], returns[begin : begin + count]
                )
                begin += count
                policy_loss, value_loss, entropy = parts / steps
                loss = (
                    policy_loss
                    + config.value_coefficient * value_loss
                    - config.entropy_coefficient * entropy
                )
                loss.backward()
                sums += parts.detach() / steps
        norm = clip_gradients(self._network.parameters(), config.max_grad_norm)
        skip = self._guard.look(sums.sum(), norm, lambda: _tensors(episodes, returns))
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        step_unless(skip, self._optimizer)
        metrics = {"losses/policy_loss": sums[0], "losses/entropy": sums[2]}
        if config.baseline == "value":
            metrics["losses/value_loss"] = sums[1]
        return metrics

    def _losses(self, observations: Array, actions: IntArray, returns: FloatArray) -> torch.Tensor:
        """Return sums over T steps: policy loss, squared error of the baseline, entropy."""
        o_t = torch.from_numpy(np.array(observations, order="C")).to(self._device)  # [T, ...]
        a_t = torch.from_numpy(actions).to(self._device)  # [T]
        advantage = torch.from_numpy(returns).to(self._device)  # [T]
        value_loss = torch.zeros((), device=self._device)
        if isinstance(self._network, PolicyValueNetwork):
            logits, value = self._network.logits_and_value(o_t)  # [T, A], [T]
            value_loss = F.mse_loss(value, advantage, reduction="sum")
            advantage = advantage - value.detach()
        else:
            logits = self._network(o_t)  # [T, A]
        log_probability = logits.log_softmax(dim=1)  # [T, A]
        chosen = log_probability.gather(1, a_t[:, None]).squeeze(1)  # [T]
        entropy = -(log_probability.exp() * log_probability).sum()
        return torch.stack([-(advantage * chosen).sum(), value_loss, entropy])

    def fault(self) -> Fault | None:
        """Return what was not finite in an update, None as long as all was."""
        return self._guard.fault()

    def interrupt(self) -> None:
        """Drop the episodes that have begun."""
        self._running = [Trajectory(self._observation_space) for _ in range(self._num_envs)]

    def gauges(self) -> dict[str, float]:
        """Return the learning rate if it changes."""
        if self._config.learning_rate_end is None:
            return {}
        return {"charts/learning_rate": self.learning_rate}

    def policy(self) -> Policy:
        """Return a copy."""
        return Policy(copy.deepcopy(self._network), "probabilities", self._device)

    def take_weights(self, weights: Mapping[str, Tensor], table: Mapping[str, Any]) -> None:
        """Begin with the policy of another run and, if there is one, its baseline."""
        take_over(self._network, weights)

    def save(self, directory: Path, *, experience: bool = True) -> None:
        """Write network, optimizer and generator, and the episodes at hand if asked for."""
        storage.save_module(self._network, directory / "network.safetensors")
        storage.save_optimizer(self._optimizer, directory / "optimizer.safetensors")
        state = {
            "steps": self._steps,
            "generator": storage.generator_state(self._generator),
            "finished": [len(episodes) for episodes in self._finished] if experience else None,
        }
        storage.save_json(state, directory / "state.json")
        if experience:
            folder = directory / "trajectories"
            folder.mkdir()
            for i in range(self._num_envs):
                self._running[i].save(folder, f"{i}-running")
                for k, episode in enumerate(self._finished[i]):
                    episode.save(folder, f"{i}-{k}")

    def load(self, directory: Path) -> None:
        """Read back what `save` wrote."""
        storage.load_module(self._network, directory / "network.safetensors")
        storage.load_optimizer(self._optimizer, directory / "optimizer.safetensors")
        state = storage.load_json(directory / "state.json")
        state.setdefault("steps", 0)  # older checkpoints have none, and no schedule needs it there
        self._steps = storage.count_in(state, "steps")
        storage.set_generator_state(self._generator, state["generator"])
        folder = directory / "trajectories"
        if state["finished"] is None or not folder.is_dir():
            return
        for i, count in enumerate(state["finished"]):
            self._running[i].load(folder, f"{i}-running")
            self._finished[i] = [Trajectory(self._observation_space) for _ in range(count)]
            for k, episode in enumerate(self._finished[i]):
                episode.load(folder, f"{i}-{k}")


def _tensors(episodes: Sequence[Trajectory], returns: FloatArray) -> dict[str, Tensor]:
    """Return what the loss of an update is computed from, by name; episodes one after the other."""
    return {
        "observation": torch.from_numpy(np.concatenate([e.observations() for e in episodes])),
        "action": torch.from_numpy(np.concatenate([e.actions() for e in episodes])),
        "return": torch.from_numpy(returns),
        "lengths": torch.tensor([len(episode) for episode in episodes]),
    }


def _make_network(
    config: AgentTables, observation_space: gym.spaces.Box, action_space: gym.Space[Any]
) -> PolicyNetwork:
    num_actions = require_discrete("reinforce", action_space)
    torso = make_torso(network_table(config), observation_space)
    kind = PolicyValueNetwork if _table(config).baseline == "value" else PolicyNetwork
    return kind(torso, num_actions)


def _table(config: AgentTables) -> ReinforceConfig:
    assert isinstance(config.agent, ReinforceConfig)
    return config.agent
