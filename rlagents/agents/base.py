"""What an agent is: three verbs for the loop, and what a run needs to save and to evaluate it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from rlagents.errors import UsageError
from rlagents.networks import NetworkConfig
from rlagents.profile import Timer
from rlagents.tables import Table
from rlagents.types import (
    Array,
    BoolArray,
    FloatArray,
    Footprint,
    IntArray,
    Metrics,
    Transition,
)

ValueKind = Literal["action values", "probabilities"]


class AgentTables(Protocol):
    """The tables of a run's config that belong to its agent; None where it declares none."""

    @property
    def agent(self) -> Table:
        """`[agent]`, of the class `Agent.Config`."""

    @property
    def network(self) -> Any:
        """`[network]`, of the class `Agent.NetworkConfig`."""

    @property
    def replay(self) -> Any:
        """`[replay]`, of the class `Agent.ReplayConfig`."""


class Fault(NamedTuple):
    """An update that was not made, since it was not finite."""

    loss: float
    gradient_norm: float
    batch: Mapping[str, Tensor]  # what they were computed from


class Policy:
    """What an agent would do, without learning: a network of its own, on the CPU or a GPU."""

    def __init__(self, network: nn.Module, kind: ValueKind, device: torch.device) -> None:
        self.kind = kind
        self._network = network.to(device).eval()
        self._device = device

    @property
    def network(self) -> nn.Module:
        """The network, in evaluation mode: it may be asked and looked into, but not changed."""
        return self._network

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self._device

    @torch.no_grad()
    def values(self, observations: Array) -> FloatArray:
        """Return what the choice rests on: [N, ...] -> [N, A] action values or probabilities."""
        tensor = torch.from_numpy(np.ascontiguousarray(observations)).to(self._device)
        values: Tensor = self._network(tensor)
        if self.kind == "probabilities":
            values = values.softmax(dim=1)
        # A copy, since values are kept for whole episodes: a tensor kept lies among the network's
        # larger ones, which are freed around it, and 20 games of 2,000 steps took 300 MB so.
        return np.array(values.cpu().numpy())

    def act(self, observations: Array) -> IntArray:
        """Return the best, or most probable, action for each observation: [N, ...] -> [N] int64."""
        return np.asarray(self.values(observations).argmax(axis=1))


class Agent(Protocol):
    """A learner of N environments at once.

    A class of one's own inherits from this for the answers that most agents give alike. It names
    the class of its `[agent]` table in `Config`, and of `[network]` and `[replay]` if it has any; a
    table that an agent does not name is refused in its configs.
    """

    Config: ClassVar[type[Table]]
    NetworkConfig: ClassVar[type[Table] | None] = None
    ReplayConfig: ClassVar[type[Table] | None] = None
    # What its policies' values are; None leaves that to each policy.
    value_kind: ClassVar[ValueKind | None] = None
    # Keys of `[agent]` that decide what the network looks like or what its outputs mean.
    network_keys: ClassVar[tuple[str, ...]] = ()
    # The key that decides how much `footprint` is, in its table.
    footprint_key: ClassVar[str] = "replay.capacity"
    # Other agents whose weights mean the same here, so that a run may begin with those of theirs.
    weights_from: ClassVar[tuple[str, ...]] = ()

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
        """Return a new agent, built from its parts.

        Raises:
            UsageError: it cannot use these spaces, or its tables contradict each other.
        """

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

    @classmethod
    def check(cls, config: AgentTables, *, num_envs: int) -> None:
        """Raise UsageError where values that are each allowed contradict one another."""

    @classmethod
    def resolve(cls, config: AgentTables, device: str) -> dict[str, Table]:
        """Return the tables in which something was "auto", with what that means here."""
        return {}

    @classmethod
    def footprint(
        cls, config: AgentTables, observation_space: gym.spaces.Box, *, num_envs: int
    ) -> Footprint:
        """Return what stored experience will take when there is no room for more."""
        return Footprint(0, 0)

    @classmethod
    def networks_at_once(cls, config: AgentTables) -> int:
        """Return how many threads compute networks at the same time; they share the cores."""
        return 1

    def act(self, observation: Array) -> IntArray:
        """Return actions to explore with: [N, ...] -> [N] int64."""

    def observe(self, transition: Transition) -> None:
        """Take in one step of N environments."""

    def learn(self) -> Metrics:
        """Do the updates owed for the steps seen; return their metrics, {} if there was none."""

    def settle(self) -> Metrics:
        """Finish the updates that are still running; return metrics not yet given, {} if none.

        Asked for before the agent is judged or saved, so that what has diverged is found out.
        """
        return {}

    def fault(self) -> Fault | None:
        """Return what keeps the agent from learning on, None while all is well.

        Asked for when metrics are logged and before the agent is judged or saved. An agent makes no
        update whose loss or gradient is not finite, nor any after it, and says so here.
        """
        return None

    def waiting(self) -> BoolArray | None:
        """Tell which environments should not begin another episode yet: [N] bool; None for none.

        Steps of such an environment are not given: its rows in `observe` mean nothing.
        """
        return None

    def interrupt(self) -> None:
        """Forget the running episodes: the environments begin new ones."""

    def measure(self, timer: Timer) -> None:
        """Take a timer for parts of one's own work: `with timer("sample")`; see profile.py."""

    def gauges(self) -> dict[str, float]:
        """Return the settings that change with time, such as `charts/epsilon`."""
        return {}

    def policy(self) -> Policy:
        """Return a copy of the policy to evaluate, which shares nothing with the agent."""

    def take_weights(self, weights: Mapping[str, Tensor], table: Mapping[str, Any]) -> None:
        """Begin with the weights that another run plays with: its `network.safetensors`.

        Args:
            weights: by name.
            table: that run's `[agent]`.

        Raises:
            ValueError: they do not fit, or would mean something else here.
            UsageError: this agent cannot begin with weights at all.
        """
        raise UsageError(
            f"--init-from: {type(self).__name__} has no take_weights; see docs/your-own-agent.md."
        )

    def save(self, directory: Path, *, experience: bool = True) -> None:
        """Write everything that learning depends on; stored experience only if asked for.

        What plays goes to `network.safetensors`.
        """

    def load(self, directory: Path) -> None:
        """Read back what `save` wrote.

        Raises:
            ValueError: it does not fit this agent.
        """


def require_discrete(name: str, action_space: gym.Space[Any]) -> int:
    """Return the number of actions.

    Raises:
        UsageError: the actions are no plain choice.
    """
    if isinstance(action_space, gym.spaces.Discrete) and action_space.start == 0:
        return int(action_space.n)
    raise UsageError(
        f"[agent] name: {name} chooses among numbered actions (Discrete, from 0), but the "
        f"environment has the action space {action_space}; choose another [env] id, or wrap the "
        "environment so that it offers a list of actions."
    )


def network_table(config: AgentTables) -> NetworkConfig:
    """Return `[network]`, whose class the agent has declared to be the common one."""
    assert isinstance(config.network, NetworkConfig)
    return config.network


def refuse_action_value_options(config: AgentTables, agent: str) -> None:
    """Raise UsageError where `[network]` asks an agent that draws from a policy for DQN's options.

    Args:
        config: of the run.
        agent: the agent's name, for the sentence.
    """
    network = network_table(config)
    if network.dueling:
        raise UsageError(f"[network] dueling: {agent} has no action values; leave it out.")
    if network.noisy:
        raise UsageError(
            f"[network] noisy: {agent} explores by drawing from its policy; leave it out."
        )
