"""Deep Q-network: Mnih et al., "Human-level control through deep reinforcement learning" (2015).

Learns action values from replayed transitions; the target of an n-step transition is

    y = sum_{k<n} gamma^k r_{t+k} + gamma^n max_a Q_target(o_{t+n}, a)            (Algorithm 1)

and with `double`, van Hasselt et al. (2016), Eq. 4, the action is the online network's choice:

    y = ... + gamma^n Q_target(o_{t+n}, argmax_a Q(o_{t+n}, a))

Differences from the paper:
- N environments are stepped together; updates are owed per agent step, whatever N is.
- The policy acts with the weights from before the update that runs beside the emulators.
- With `pipelined`, a second thread takes the gradient steps of one vector step while the first
  prepares those of the next that has any: it draws batches and computes their targets, and acts,
  with a copy of the weights from before those gradient steps. Priorities are set as late. Nothing
  depends on which thread is faster, or on when somebody waits for the second.
- `reset_return_at_score` values the way to the next point only, as 'Pong from pixels' (Karpathy
  2016) has it for policy gradients; the paper bootstraps through points to the end of the game.
- Noisy layers (`[network] noisy`, Fortunato et al. 2018) are an option. Noise is drawn as in that
  paper's Algorithm 1: one draw for each choice of actions, and one each for the online network, the
  target network and, with `double`, the choice in the target, shared by all transitions of a batch.
  The N environments of a step share a draw; the means alone are played in evaluation.
- Environments may explore unequally, as the actors of Ape-X do (Horgan et al. 2018).
- Replay is uniform as in the paper, or by priority (Schaul et al. 2016).
- n-step returns (Sutton 1988) are an option; the paper has n = 1. No correction for older policies.
- Adam (Kingma and Ba 2015) is the default, as in today's implementations; the paper's RMSProp is an
  option. Losses are means over a batch, where the authors' code sums, so that what it adds to the
  variance of gradients (0.01) is divided by the square of its batch of 32.
- Distributions of returns in place of their means are an option: Bellemare et al. (2017).
- The target network may follow slowly after each update (Lillicrap et al. 2016).
- On a GPU, what is computed may be repeated from recordings (`cuda_graphs`), to the same bits.
- A moving average of the weights may play in place of the latest (Polyak and Juditsky 1992); with
  `double` it also chooses the action in the target. The target network follows the latest.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor, nn

from rlagents import seeding
from rlagents.agents import storage
from rlagents.agents.base import (
    Agent,
    AgentTables,
    Fault,
    Policy,
    ValueKind,
    network_table,
    require_discrete,
)
from rlagents.agents.graphs import CudaRecorder, Recorded, Recorder, TensorFunction, Tensors
from rlagents.agents.guard import Guard, clip_gradients, step_unless
from rlagents.agents.optimizers import Adam, CenteredRMSprop, set_learning_rate
from rlagents.agents.weights import take_over
from rlagents.errors import UsageError
from rlagents.networks import (
    CategoricalQNetwork,
    NetworkConfig,
    QNetwork,
    draw_noise,
    has_noise,
    make_torso,
    resolve_precision,
)
from rlagents.profile import Timer, no_timer
from rlagents.replay import (
    Drawn,
    PrioritizedReplay,
    ReplayConfig,
    UniformReplay,
    check_replay,
    footprint,
    make_replay,
)
from rlagents.schedules import LinearSchedule, Milestones, check_scheduled, scheduled
from rlagents.tables import Count, Int, Probability, Table
from rlagents.types import Array, Footprint, IntArray, Metrics, Transition

# Generators are told apart by a number, so that none repeats another's draws.
_EXPLORATION, _SAMPLING, _NOISE, _LEARNING_NOISE = 1, 2, 4, 5


class DQNConfig(Table):
    """`[agent]` of dqn."""

    name: Literal["dqn"] = "dqn"
    """The learner."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """Adam, or the centred RMSProp of Mnih et al. (2015)."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    """The optimizer's step size."""
    learning_rate_end: Annotated[float, Field(ge=0, le=1)] | None = None
    """Step size in the end, with learning_rate_decay_steps; constant if left out."""
    learning_rate_decay_steps: Count | None = None
    """Agent steps over which the step size changes in a straight line."""
    adam_epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-8
    """Added to Adam's denominator; large values damp the small gradients of sparse rewards."""
    rmsprop_decay: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """RMSProp's decay of the averages of gradients and of their squares."""
    rmsprop_epsilon: Annotated[float, Field(gt=0, le=1)] = 0.01 / 32**2
    """Added to RMSProp's variance of gradients; the paper's 0.01, for means over a batch of 32."""
    loss: Literal["huber", "mse", "categorical"] = "huber"
    """Of errors: squared up to 1 and linear beyond, or squared; or of distributions of returns."""
    num_atoms: Annotated[Int, Field(ge=2, le=1001)] = 51
    """Values that a distribution gives probabilities to, with loss = "categorical"."""
    value_min: Annotated[float, Field(ge=-1e6, le=1e6)] = -1.0
    """The least of these values; lower returns count as this one."""
    value_max: Annotated[float, Field(ge=-1e6, le=1e6)] = 1.0
    """The largest of these values; higher returns count as this one."""
    gamma: Probability = 0.99
    """Discount per agent step."""
    n_step: Annotated[Int, Field(ge=1, le=100)] = 1
    """Steps of reward in a target before it bootstraps."""
    double: bool = False
    """Let the online network choose the action that the target network values."""
    learning_starts: Count = 10_000
    """Agent steps before the first update, so that replay holds some experience."""
    update_period_steps: Count = 4
    """Agent steps for each update."""
    late_return: (
        Annotated[list[Annotated[float, Field(ge=-1e12, le=1e12)]], Field(min_length=1)] | None
    ) = None
    """Returns that begin stages, one after the other and for good: each once the mean of the last
    20 training episodes is this or more. From then on its own entry in the lists
    late_learning_rate, late_update_period_steps and late_epsilon holds."""
    late_episodes: list[Annotated[Int, Field(ge=1, le=100_000)]] | None = None
    """In place of 20, the training episodes of that mean, one number for each late_return."""
    late_learning_rate: list[Annotated[float, Field(gt=0, le=1)]] | None = None
    """Step sizes in place of learning_rate and its schedule, one for each late_return."""
    late_update_period_steps: list[Count] | None = None
    """Agent steps for each update, one number for each late_return."""
    late_epsilon: list[Probability] | None = None
    """Values of epsilon, one for each late_return."""
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Play with a moving average of the weights, of which an update keeps this part; 0 for none."""
    target_period_steps: Count = 10_000
    """Agent steps between two copies of the network into the target network."""
    target_tau: Annotated[float, Field(gt=0, le=1)] | None = None
    """In place of copies, the part of the way that the target network goes after each update."""
    epsilon_start: Probability = 1.0
    """Chance of a random action at the start."""
    epsilon_end: Probability = 0.01
    """Chance of a random action in the end."""
    epsilon_decay_steps: Count = 100_000
    """Agent steps over which epsilon falls in a straight line."""
    epsilon_spread: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Let environments explore unequally (Horgan et al. 2018): the first of them by epsilon, the
    last by epsilon to the power of 1 + epsilon_spread, the others between; 0 for all alike."""
    clip_rewards: bool = False
    """Learn from the sign of each reward (Mnih et al. 2015); returns are reported unclipped."""
    reset_return_at_score: bool = False
    """Cut the bootstrap at each reward that is not 0: a point of Pong is a game of its own."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 10.0
    """Longer gradients are shortened to this length; 0 leaves them as they are."""
    pipelined: bool = False
    """Prepare the next batches and their targets while another thread learns from the last."""
    cuda_graphs: bool = False
    """On a GPU, repeat recordings of acting, targets and gradient steps (CUDA graphs)."""


_LOSSES = {"huber": F.smooth_l1_loss, "mse": F.mse_loss}


def td_targets(
    reward: Tensor,
    discount: Tensor,
    q_t: Tensor,
    q_t_selector: Tensor | None = None,
) -> Tensor:
    """Return the targets y: [B] float32.

    Args:
        reward: [B] the n-step rewards.
        discount: [B] gamma^n, 0 where the episode terminated.
        q_t: [B, A] the target network's values n steps later.
        q_t_selector: [B, A] the values that choose the action, for double DQN; `q_t` if None.
    """
    selector = q_t if q_t_selector is None else q_t_selector
    best = selector.argmax(dim=1, keepdim=True)  # [B, 1]
    return reward + discount * q_t.gather(1, best).squeeze(1)


def categorical_targets(
    reward: Tensor, discount: Tensor, logits_t: Tensor, atoms: Tensor, q_t_selector: Tensor
) -> Tensor:
    """Return the target distributions: [B, K] float32, Bellemare et al. (2017), Eq. 7.

    The distribution of the best action n steps later is scaled by the discount, moved by the
    reward, and shared out among the atoms: a value between two of them goes to both, the more to
    the nearer one, and a value beyond the outermost goes to that one.

    Args:
        reward: [B] the n-step rewards.
        discount: [B] gamma^n, 0 where the episode terminated.
        logits_t: [B, A, K] the target network's logits n steps later.
        atoms: [K] the values, evenly spaced.
        q_t_selector: [B, A] the values that choose the action.
    """
    best = q_t_selector.argmax(dim=1)  # [B]
    chances = _of_actions(logits_t, best).softmax(dim=1)  # [B, K]
    values = reward[:, None] + discount[:, None] * atoms  # [B, K]
    last = len(atoms) - 1
    places = ((values - atoms[0]) / (atoms[-1] - atoms[0]) * last).clamp(0, last)  # [B, K]
    numbers = torch.arange(last + 1, device=atoms.device)
    distances = (places[:, None, :] - numbers[:, None]).abs_()  # [B, K, K], of each value (last)
    # What each atom gets, the less the farther it is; in place, since there are so many.
    shares = distances.neg_().add_(1).clamp_(min=0)
    return (shares @ chances[:, :, None]).squeeze(2)


def _of_actions(found: Tensor, action: Tensor) -> Tensor:
    """Return what was found for one action each: [B, A, ...] and [B] int64 -> [B, ...]."""
    return found[torch.arange(len(action), device=action.device), action]


class _Prepared(NamedTuple):
    """A batch with its targets: all that a gradient step needs."""

    observation: Tensor  # [B, ...]
    action: Tensor  # [B] int64
    target: Tensor  # [B] float32, or [B, K] distributions
    weights: Tensor | None  # [B] float32, of the losses; None where all are 1
    drawn: Drawn | None  # whose priorities follow from the errors, if there are priorities

    def tensors(self) -> Tensors:
        """Return what the loss is computed from, by name."""
        named = {"observation": self.observation, "action": self.action, "target": self.target}
        return named if self.weights is None else {**named, "weights": self.weights}


class _Improvement(NamedTuple):
    """What comes of a gradient step."""

    metrics: Metrics
    drawn: Drawn | None
    errors: Tensor  # [B] float32: target less value, or one distribution's divergence from another
    skipped: bool | Tensor  # whether it was not made, since it was not finite


class DQN(Agent):
    """A Q-network, its target, an optimizer and a replay.

    Args:
        config: the `[agent]` table.
        network: the Q-network; the target network begins as its copy.
        replay: where transitions go; it must have been made with the config's n-step and gamma.
        replay_generator: draws the samples; its state is saved with the agent's.
        num_actions: A.
        num_envs: N.
        seed: of exploration and noise.
        device: where the networks are.
        recorder: of what is computed there, None to start every kernel from Python.
    """

    Config: ClassVar[type[Table]] = DQNConfig
    NetworkConfig: ClassVar[type[Table] | None] = NetworkConfig
    ReplayConfig: ClassVar[type[Table] | None] = ReplayConfig
    value_kind: ClassVar[ValueKind | None] = "action values"
    network_keys: ClassVar[tuple[str, ...]] = ("loss", "num_atoms", "value_min", "value_max")

    def __init__(
        self,
        config: DQNConfig,
        network: QNetwork | CategoricalQNetwork,
        replay: UniformReplay | PrioritizedReplay,
        replay_generator: np.random.Generator,
        *,
        num_actions: int,
        num_envs: int,
        seed: int,
        device: torch.device,
        recorder: Recorder | None = None,
    ) -> None:
        self._config = config
        self._network = network.to(device)
        self._target = copy.deepcopy(self._network).requires_grad_(False)
        self._optimizer = _make_optimizer(
            config, self._network, recordable=recorder is not None or device.type == "cuda"
        )
        # The weights that are the agent's play: the latest, or their moving average.
        self._playing = self._network
        if config.average_decay > 0:
            self._playing = copy.deepcopy(self._network).requires_grad_(False)
        # The weights that choose actions, in play and, with `double`, in targets. The first thread
        # has a copy of its own while the second one learns.
        self._acting = self._playing
        self._learner: ThreadPoolExecutor | None = None
        if config.pipelined:
            self._acting = copy.deepcopy(self._network).requires_grad_(False)
            self._learner = ThreadPoolExecutor(1, thread_name_prefix="learner")
        self._prepared: list[_Prepared] = []  # what the learner does next
        self._improving: Future[list[_Improvement]] | None = None  # what it is doing
        self._learned: list[_Improvement] = []  # whose priorities are set before the next batches
        self._updates: list[Metrics] = []  # done and not reported yet
        self._replay = replay
        self._replay_generator = replay_generator
        self._num_actions = num_actions
        self._num_envs = num_envs
        self._exploration = seeding.generator(seed, _EXPLORATION)
        # Of epsilon in each environment: 1 + spread i / (N - 1), Horgan et al. (2018), Section 4.1.
        self._exponents = 1 + np.linspace(0, config.epsilon_spread, num_envs)  # [N]
        self._noise: torch.Generator | None = None  # of choices and targets
        self._learning_noise: torch.Generator | None = None
        if has_noise(network):
            self._noise = _torch_generator(seed, _NOISE, device)
            self._learning_noise = _torch_generator(seed, _LEARNING_NOISE, device)
        self._device = device
        self._guard = Guard(device)
        self._recordings: dict[str, Recorded] = {}
        if recorder is not None:
            self._recordings = {name: Recorded(recorder) for name in ("best", "targets", "step")}
        self._timer: Timer = no_timer
        self._steps = 0  # agent steps observed
        self._learn_after = config.learning_starts  # later after resuming without replay
        self._owed_steps = 0  # agent steps not yet paid for with updates
        self._steps_since_target = 0
        self._late = Milestones(config.late_return or [], num_envs, config.late_episodes)

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
        table, replay_table = _tables(config)
        num_actions = require_discrete("dqn", action_space)
        generator = seeding.generator(seed, _SAMPLING)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = _make_network(config, observation_space, num_actions)
        replay = make_replay(
            replay_table,
            observation_space,
            num_envs,
            n_step=table.n_step,
            gamma=table.gamma,
            generator=generator,
            device=str(device),
        )
        return cls(
            table,
            network,
            replay,
            generator,
            num_actions=num_actions,
            num_envs=num_envs,
            seed=seed,
            device=device,
            recorder=CudaRecorder() if table.cuda_graphs else None,
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
        num_actions = require_discrete("dqn", action_space)
        network = storage.load_new_module(
            lambda: _make_network(config, observation_space, num_actions),
            directory / "network.safetensors",
        )
        return Policy(network, "action values", device)

    @classmethod
    def check(cls, config: AgentTables, *, num_envs: int) -> None:
        """Raise UsageError where learning could never begin, or an option would do nothing."""
        table, replay = _tables(config)
        check_replay(replay)
        _refuse_idle_options(table)
        if table.learning_starts > replay.capacity:
            raise UsageError(
                f"[agent] learning_starts: {table.learning_starts} transitions never fit into "
                f"[replay] capacity = {replay.capacity}; lower the one or raise the other."
            )
        if table.epsilon_spread > 0 and num_envs == 1:
            raise UsageError(
                "[agent] epsilon_spread: does nothing with one environment; set it to 0, or raise "
                "[env] num_envs."
            )
        fewest = _fewest_steps(table, num_envs)
        if table.learning_starts < fewest:
            raise UsageError(
                f"[agent] learning_starts: {table.learning_starts} is too early, {num_envs} "
                f"environments with n_step = {table.n_step} need {fewest} or more."
            )

    @classmethod
    def resolve(cls, config: AgentTables, device: str) -> dict[str, Table]:
        """Return `[network]` with the precision that is fast here.

        Raises:
            UsageError: an option is for a GPU, and this is none.
        """
        if device == "cpu":
            _refuse_options_of_gpus(*_tables(config))
        return {"network": resolve_precision(network_table(config), device)}

    @classmethod
    def footprint(
        cls, config: AgentTables, observation_space: gym.spaces.Box, *, num_envs: int
    ) -> Footprint:
        """Return what a full replay takes."""
        table, replay = _tables(config)
        return footprint(replay, observation_space, num_envs, n_step=table.n_step)

    @classmethod
    def networks_at_once(cls, config: AgentTables) -> int:
        """Return 2 where one prepares what the other learns from."""
        return 2 if _tables(config)[0].pipelined else 1

    @property
    def epsilon(self) -> float:
        """The chance of a random action now; with `epsilon_spread`, in the first environment."""
        config = self._config
        late = self._late.choose(config.late_epsilon)
        if late is not None:
            return late
        return LinearSchedule(
            config.epsilon_start, config.epsilon_end, config.epsilon_decay_steps
        ).at(self._steps)

    @property
    def learning_rate(self) -> float:
        """The optimizer's step size now."""
        config = self._config
        late = self._late.choose(config.late_learning_rate)
        if late is not None:
            return late
        return scheduled(config, "learning_rate", self._steps)

    @property
    def update_period(self) -> int:
        """Agent steps for each update now."""
        late = self._late.choose(self._config.late_update_period_steps)
        return self._config.update_period_steps if late is None else late

    def _call(self, name: str, function: TensorFunction, inputs: Mapping[str, Tensor]) -> Tensors:
        """Call one of the three functions below that can be recorded."""
        recorded = self._recordings.get(name)
        return function(inputs) if recorded is None else recorded(function, inputs)

    @torch.no_grad()
    def act(self, observation: Array) -> IntArray:
        """Return epsilon-greedy actions: [N, ...] -> [N] int64."""
        explores = self._exploration.random(self._num_envs) < self.epsilon**self._exponents
        actions = self._exploration.integers(self._num_actions, size=self._num_envs)
        if not explores.all():
            self._draw_noise(self._acting)
            seen = {"observation": torch.from_numpy(observation).to(self._device)}
            best = self._call("best", self._find_best, seen)["action"]  # [N]
            actions = np.where(explores, actions, best.cpu().numpy())
        return actions

    def _find_best(self, inputs: Mapping[str, Tensor]) -> Tensors:
        """Return the action of the highest value for each observation: [N] int64."""
        return {"action": self._acting(inputs["observation"]).argmax(dim=1)}

    def observe(self, transition: Transition) -> None:
        """Put a step of every environment into replay."""
        self._late.observe(transition.reward, transition.episode_over, transition.failed)
        if self._config.clip_rewards:
            transition = transition._replace(reward=np.sign(transition.reward))
        if self._config.reset_return_at_score:
            scored = transition.reward != 0
            transition = transition._replace(terminated=transition.terminated | scored)
        self._replay.observe(transition)
        self._steps += self._num_envs
        if self._steps >= self._learn_after:
            self._owed_steps += self._num_envs
            self._steps_since_target += self._num_envs

    def learn(self) -> Metrics:
        """Do one update for every `update_period` agent steps since learning started."""
        count, self._owed_steps = divmod(self._owed_steps, self.update_period)
        if self._learner is None:
            self._updates += [self._update() for _ in range(count)]
            self._copy_to_target()
        elif count == 0:
            return {}  # the learner has the time until there is more to do
        else:
            self._wait_for_learner()
            self._set_priorities(self._learned)
            self._learned = []
            self._acting.load_state_dict(self._playing.state_dict())
            self._copy_to_target()
            self._improving = self._learner.submit(
                self._improve_all, self._prepared, self.learning_rate
            )
            self._prepared = [self._prepare() for _ in range(count)]
        return self._report()

    def settle(self) -> Metrics:
        """Wait for the gradient steps that are running."""
        self._wait_for_learner()
        return self._report()

    def fault(self) -> Fault | None:
        """Return what was not finite in an update, None as long as all was."""
        self._wait_for_learner()
        return self._guard.fault()

    def _report(self) -> Metrics:
        """Return the means over the updates since the last report."""
        updates, self._updates = self._updates, []
        return {
            name: sum(update[name] for update in updates) / len(updates)
            for name in (updates[0] if updates else {})
        }

    def _update(self) -> Metrics:
        improvement = self._improve(self._prepare(), self.learning_rate)
        self._follow(improvement)
        self._set_priorities([improvement])
        return improvement.metrics

    def _wait_for_learner(self) -> None:
        """Let the learner finish.

        Priorities are set later: new transitions get the highest of them, so that a run would
        depend on when somebody waits.
        """
        if self._improving is not None:
            improving, self._improving = self._improving, None
            for improvement in improving.result():
                self._follow(improvement)
                self._learned.append(improvement)
                self._updates.append(improvement.metrics)

    def _follow(self, improvement: _Improvement) -> None:
        """Move the target network after a gradient step, where it is not copied."""
        if self._config.target_tau is not None:
            part = self._config.target_tau * (1 - improvement.skipped)
            _move(self._target, self._network, part)

    def _set_priorities(self, improvements: Sequence[_Improvement]) -> None:
        """Set priorities by the errors that gradient steps found."""
        for improvement in improvements:
            if improvement.drawn is not None:
                assert isinstance(self._replay, PrioritizedReplay)  # none else tells what was drawn
                errors = improvement.errors.cpu().numpy()
                if np.isfinite(errors).all():  # or there would be nothing left to draw by
                    self._replay.update_priorities(improvement.drawn, errors)

    def _copy_to_target(self) -> None:
        """Copy the network into the target network if it is time to."""
        if self._config.target_tau is not None:
            return
        if self._steps_since_target >= self._config.target_period_steps:
            self._steps_since_target %= self._config.target_period_steps
            self._target.load_state_dict(self._network.state_dict())

    @torch.no_grad()
    def _prepare(self) -> _Prepared:
        """Draw a batch and compute its targets."""
        with self._timer("sample"):
            batch = self._replay.sample(self._steps)
            o_tm1 = torch.as_tensor(batch.observation).to(self._device)  # [B, ...]
            a_tm1 = torch.from_numpy(batch.action).to(self._device)  # [B]
            r_t = torch.from_numpy(batch.reward).to(self._device)  # [B]
            discount_t = torch.from_numpy(batch.discount).to(self._device)  # [B]
            o_t = torch.as_tensor(batch.next_observation).to(self._device)  # [B, ...]
            weights = None
            if batch.weights is not None:
                weights = torch.from_numpy(batch.weights).to(self._device)
            if self._learner is not None:
                o_tm1 = o_tm1.clone()  # the next batch is gathered into the same memory
        if self._config.double:
            self._draw_noise(self._acting)
        self._draw_noise(self._target)
        inputs = {"reward": r_t, "discount": discount_t, "next_observation": o_t}
        target = self._call("targets", self._find_targets, inputs)["target"]
        return _Prepared(o_tm1, a_tm1, target, weights, batch.drawn)

    def _find_targets(self, inputs: Mapping[str, Tensor]) -> Tensors:
        """Return the targets of a batch: [B] float32, or [B, K] distributions."""
        r_t, discount_t, o_t = inputs["reward"], inputs["discount"], inputs["next_observation"]
        selector = self._acting(o_t) if self._config.double else None  # [B, A]
        if isinstance(self._target, CategoricalQNetwork):
            logits_t, atoms = self._target.logits(o_t), self._target.atoms  # [B, A, K], [K]
            if selector is None:
                selector = logits_t.softmax(dim=2) @ atoms
            target = categorical_targets(r_t, discount_t, logits_t, atoms, selector)  # [B, K]
        else:
            target = td_targets(r_t, discount_t, self._target(o_t), selector)  # [B]
        return {"target": target}

    def _improve_all(
        self, batches: Sequence[_Prepared], learning_rate: float
    ) -> list[_Improvement]:
        return [self._improve(prepared, learning_rate) for prepared in batches]

    def _improve(self, prepared: _Prepared, learning_rate: float) -> _Improvement:
        """Take a gradient step; with `pipelined`, on the second thread."""
        if self._learning_noise is not None:
            draw_noise(self._network, self._learning_noise)
        set_learning_rate(self._optimizer, learning_rate)
        found = self._call("step", self._take_step, prepared.tensors())
        skip = self._guard.skips
        if isinstance(skip, Tensor):
            skip = skip.clone()  # the next step changes it in place
        metrics = {f"losses/{name}": found[name] for name in ("td_loss", "q_values")}
        return _Improvement(metrics, prepared.drawn, found["errors"], skip)

    def _take_step(self, inputs: Mapping[str, Tensor]) -> Tensors:
        """Change the weights by what `_Prepared.tensors` returned; return what there is to tell."""
        if isinstance(self._network, CategoricalQNetwork):
            losses, q_tm1, errors = self._compare_distributions(self._network, inputs)  # [B] each
        else:
            q_tm1 = _of_actions(self._network(inputs["observation"]), inputs["action"])  # [B]
            # The Huber loss is the paper's clipping of the error term to [-1, 1].
            losses = _LOSSES[self._config.loss](q_tm1, inputs["target"], reduction="none")  # [B]
            errors = inputs["target"] - q_tm1
        if "weights" in inputs:
            losses = losses * inputs["weights"]
        loss = losses.mean()
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_gradients(self._network.parameters(), self._config.max_grad_norm)
        skip = self._guard.look(loss.detach(), norm, lambda: inputs)
        step_unless(skip, self._optimizer)
        if self._config.average_decay > 0:
            _move(self._playing, self._network, (1 - self._config.average_decay) * (1 - skip))
        return {
            "td_loss": loss.detach(),
            "q_values": q_tm1.detach().mean(),
            "errors": errors.detach(),
        }

    def _compare_distributions(
        self, network: CategoricalQNetwork, inputs: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return cross-entropies, values, and divergences of prediction from target: [B] each."""
        target = inputs["target"]  # [B, K]
        logits = network.logits(inputs["observation"])  # [B, A, K]
        chosen = _of_actions(logits, inputs["action"]).log_softmax(dim=1)  # [B, K]
        losses = -(target * chosen).sum(dim=1)
        divergences = losses + torch.xlogy(target, target).sum(dim=1)  # Kullback and Leibler's
        return losses, chosen.exp() @ network.atoms, divergences

    def measure(self, timer: Timer) -> None:
        """Measure sampling apart from learning."""
        self._timer = timer

    def _draw_noise(self, network: nn.Module) -> None:
        if self._noise is not None:
            draw_noise(network, self._noise)

    def interrupt(self) -> None:
        """Close the running episodes in replay."""
        self._replay.interrupt()
        if self._steps < self._learn_after:  # of an only step, nothing is left to learn from
            fewest = _fewest_steps(self._config, self._num_envs)
            self._learn_after = max(self._learn_after, self._steps + fewest)
        self._late.interrupt()

    def gauges(self) -> dict[str, float]:
        """Return epsilon, and what else changes: the learning rate, prioritized replay's beta."""
        gauges = {"charts/epsilon": self.epsilon}
        config = self._config
        if config.learning_rate_end is not None or config.late_learning_rate is not None:
            gauges["charts/learning_rate"] = self.learning_rate
        if config.late_update_period_steps is not None:
            gauges["charts/update_period"] = self.update_period
        if isinstance(self._replay, PrioritizedReplay):
            gauges["charts/importance_exponent"] = self._replay.importance.at(self._steps)
        return gauges

    def policy(self) -> Policy:
        """Return a greedy copy."""
        self._wait_for_learner()
        return Policy(copy.deepcopy(self._playing), "action values", self._device)

    def take_weights(self, weights: Mapping[str, Tensor], table: Mapping[str, Any]) -> None:
        """Begin with the weights that another run plays with, in every network."""
        if self._config.loss == "categorical" == table.get("loss"):
            for key in ("value_min", "value_max"):
                there, here = table.get(key), getattr(self._config, key)
                if there != here:
                    raise ValueError(f"{key} is {there} there and {here} here")
        for network in (self._network, self._target, self._playing, self._acting):
            take_over(network, weights)

    def save(self, directory: Path, *, experience: bool = True) -> None:
        """Write networks, optimizer, counters and generators, and replay if asked for.

        `network.safetensors` holds the weights that play, which is all that `load_policy` reads.
        """
        self._wait_for_learner()
        storage.save_module(self._playing, directory / "network.safetensors")
        if self._playing is not self._network:
            storage.save_module(self._network, directory / "latest.safetensors")
        storage.save_module(self._target, directory / "target.safetensors")
        storage.save_optimizer(self._optimizer, directory / "optimizer.safetensors")
        state = {
            "steps": self._steps,
            "owed_steps": self._owed_steps,
            "learn_after": self._learn_after,
            "steps_since_target": self._steps_since_target,
            "late": self._late.state(),
            "exploration": storage.generator_state(self._exploration),
            "sampling": storage.generator_state(self._replay_generator),
        }
        if self._noise is not None and self._learning_noise is not None:
            state["noise"] = storage.torch_generator_state(self._noise)
            state["learning_noise"] = storage.torch_generator_state(self._learning_noise)
        storage.save_json(state, directory / "state.json")
        if self._learner is not None:
            storage.save_module(self._acting, directory / "acting.safetensors")
        if experience:
            (directory / "replay").mkdir()
            self._replay.save(directory / "replay")
            if self._learner is not None:
                _save_prepared(self._prepared, directory / "replay" / "prepared.safetensors")
                _save_learned(self._learned, directory / "replay" / "learned.safetensors")

    def load(self, directory: Path) -> None:
        """Read back what `save` wrote; without replay, learning waits until it is filled again."""
        for recording in self._recordings.values():
            recording.forget()  # the optimizer's tensors are others now
        storage.load_module(self._playing, directory / "network.safetensors")
        if self._playing is not self._network:
            storage.load_module(self._network, directory / "latest.safetensors")
        storage.load_module(self._target, directory / "target.safetensors")
        storage.load_optimizer(self._optimizer, directory / "optimizer.safetensors")
        state = storage.load_json(directory / "state.json")
        self._steps = storage.count_in(state, "steps")
        self._owed_steps = storage.count_in(state, "owed_steps")
        self._steps_since_target = storage.count_in(state, "steps_since_target")
        self._late.set_state(state["late"])
        storage.set_generator_state(self._exploration, state["exploration"])
        storage.set_generator_state(self._replay_generator, state["sampling"])
        if self._noise is not None and self._learning_noise is not None:
            storage.set_torch_generator_state(self._noise, state["noise"])
            storage.set_torch_generator_state(self._learning_noise, state["learning_noise"])
        if self._learner is not None:
            storage.load_module(self._acting, directory / "acting.safetensors")
        if (directory / "replay").is_dir():
            self._replay.load(directory / "replay")
            self._learn_after = storage.count_in(state, "learn_after")
            if self._learner is not None:
                path = directory / "replay" / "prepared.safetensors"
                self._prepared = _load_prepared(path, self._device)
                self._learned = _load_learned(directory / "replay" / "learned.safetensors")
        else:
            self._owed_steps = 0
            self._learn_after = self._steps + self._config.learning_starts


@torch.no_grad()
def _move(follower: nn.Module, leader: nn.Module, part: float | Tensor) -> None:
    """Let a network's weights go a part of the way to another's."""
    pairs = zip(follower.parameters(), leader.parameters(), strict=True)
    for following, leading in pairs:
        following.lerp_(leading, part)  # following + part (leading - following)


def _torch_generator(seed: int, purpose: int, device: torch.device) -> torch.Generator:
    """Return a generator on the device, so that what it draws need not be carried there."""
    generator = torch.Generator(device)
    generator.manual_seed(int(seeding.generator(seed, purpose).integers(2**63)))
    return generator


def _save_prepared(batches: Sequence[_Prepared], path: Path) -> None:
    """Write batches that wait for their gradient step."""
    tensors: dict[str, Tensor] = {}
    for index, prepared in enumerate(batches):
        tensors[f"{index}.observation"] = prepared.observation
        tensors[f"{index}.action"] = prepared.action
        tensors[f"{index}.target"] = prepared.target
        if prepared.weights is not None and prepared.drawn is not None:
            tensors[f"{index}.weights"] = prepared.weights
            tensors[f"{index}.leaves"] = torch.from_numpy(prepared.drawn.leaves)
            tensors[f"{index}.rows"] = torch.from_numpy(prepared.drawn.rows)
    storage.save_tensors(tensors, path)


def _load_prepared(path: Path, device: torch.device) -> list[_Prepared]:
    """Read back what `_save_prepared` wrote."""
    return [
        _Prepared(
            parts["observation"].to(device),
            parts["action"].to(device),
            parts["target"].to(device),
            parts["weights"].to(device) if "weights" in parts else None,
            Drawn(parts["leaves"].numpy(), parts["rows"].numpy()) if "rows" in parts else None,
        )
        for parts in _load_numbered(path)
    ]


def _save_learned(improvements: Sequence[_Improvement], path: Path) -> None:
    """Write the errors of batches whose priorities are to be set."""
    tensors: dict[str, Tensor] = {}
    for index, improvement in enumerate(improvements):
        if improvement.drawn is not None:
            tensors[f"{index}.errors"] = improvement.errors
            tensors[f"{index}.leaves"] = torch.from_numpy(improvement.drawn.leaves)
            tensors[f"{index}.rows"] = torch.from_numpy(improvement.drawn.rows)
    storage.save_tensors(tensors, path)


def _load_learned(path: Path) -> list[_Improvement]:
    """Read back what `_save_learned` wrote; metrics have been reported by then."""
    return [
        _Improvement(
            {}, Drawn(parts["leaves"].numpy(), parts["rows"].numpy()), parts["errors"], False
        )
        for parts in _load_numbered(path)
    ]


def _load_numbered(path: Path) -> list[dict[str, Tensor]]:
    """Return a file's tensors `0.name`, `0.other`, `1.name`, ..., those of a number together."""
    found: dict[int, dict[str, Tensor]] = {}
    for key, tensor in storage.load_tensors(path).items():
        index, name = key.split(".", 1)
        found.setdefault(int(index), {})[name] = tensor
    return [parts for _, parts in sorted(found.items())]


def _make_optimizer(
    config: DQNConfig, network: nn.Module, *, recordable: bool
) -> torch.optim.Optimizer:
    parameters = list(network.parameters())
    rate: float | Tensor = config.learning_rate
    if recordable:  # a number would stay in a recording; and a tensor is rounded otherwise
        rate = torch.tensor(rate, device=parameters[0].device)
    if config.optimizer == "rmsprop":
        return CenteredRMSprop(
            parameters, lr=rate, decay=config.rmsprop_decay, epsilon=config.rmsprop_epsilon
        )
    return Adam(parameters, lr=rate, eps=config.adam_epsilon, fused=True, capturable=recordable)


def _refuse_options_of_gpus(agent: DQNConfig, replay: ReplayConfig) -> None:
    """Raise UsageError where an option is set that is for GPUs alone."""
    if agent.cuda_graphs:
        raise UsageError(
            "[agent] cuda_graphs: needs a GPU, and this run is computed on the CPU; leave it out, "
            "or choose a GPU: --device cuda."
        )
    if replay.storage == "device":
        raise UsageError(
            '[replay] storage: "device" is the memory of a GPU, and this run is computed on the '
            "CPU; leave it out, or choose a GPU: --device cuda."
        )


def _fewest_steps(table: DQNConfig, num_envs: int) -> int:
    """Return after how many agent steps an empty replay has something to learn from."""
    return num_envs * (table.n_step + 1)


def _refuse_idle_options(table: DQNConfig) -> None:
    """Raise UsageError where one option leaves another without effect."""

    def changed(key: str) -> bool:
        return bool(getattr(table, key) != DQNConfig.model_fields[key].default)

    for key, optimizer in (
        ("adam_epsilon", "adam"),
        ("rmsprop_decay", "rmsprop"),
        ("rmsprop_epsilon", "rmsprop"),
    ):
        if table.optimizer != optimizer and changed(key):
            raise UsageError(
                f'[agent] {key}: does nothing with optimizer = "{table.optimizer}"; leave it out, '
                f'or set optimizer = "{optimizer}".'
            )
    if table.loss != "categorical":
        for key in ("num_atoms", "value_min", "value_max"):
            if changed(key):
                raise UsageError(
                    f'[agent] {key}: does nothing with loss = "{table.loss}"; leave it out, or set '
                    'loss = "categorical".'
                )
    elif not (
        {"value_min", "value_max"} <= table.model_fields_set
        or (table.clip_rewards and table.reset_return_at_score)
    ):
        raise UsageError(
            '[agent] loss: "categorical" needs value_min and value_max, the least and the largest '
            "return that can come. They are -1 and 1 of themselves only with clip_rewards and "
            "reset_return_at_score."
        )
    elif table.value_min >= table.value_max:
        raise UsageError(
            f"[agent] value_min: {table.value_min} is not below value_max = {table.value_max}; "
            "set them to the least and the largest return that can come."
        )
    if table.cuda_graphs and table.pipelined:
        raise UsageError(
            "[agent] cuda_graphs: what two threads compute at once cannot be recorded; choose "
            "--agent.pipelined false, since a second thread is of use on processors alone."
        )
    check_scheduled(table, "learning_rate")
    _check_late(table)
    epsilons = {table.epsilon_start, table.epsilon_end, *(table.late_epsilon or [])}
    if table.epsilon_spread > 0 and epsilons in ({0}, {1}):
        raise UsageError(
            f"[agent] epsilon_spread: does nothing where epsilon is always {table.epsilon_end:g}; "
            "set it to 0, or change epsilon_end."
        )
    if table.target_tau is not None and changed("target_period_steps"):
        default = DQNConfig.model_fields["target_period_steps"].default
        raise UsageError(
            f"[agent] target_tau: the target network moves after each update, so that "
            f"target_period_steps = {table.target_period_steps} would do nothing; leave one of the "
            f"two out (target_period_steps is then {default})."
        )


def _check_late(table: DQNConfig) -> None:
    """Raise UsageError unless each late_return has its values, and they theirs."""
    keys = ("late_learning_rate", "late_update_period_steps", "late_epsilon")
    changed = [key for key in keys if getattr(table, key) is not None]
    given = changed if table.late_episodes is None else [*changed, "late_episodes"]
    returns = table.late_return
    if returns is None:
        if given:
            raise UsageError(
                f"[agent] {given[0]}: needs late_return beside it, the returns to reach; or set it "
                'to "none" too.'
            )
        return
    if not changed:
        raise UsageError(
            f"[agent] late_return: needs {', '.join(keys[:-1])} or {keys[-1]} beside it, what is "
            'to change then; or set it to "none" too.'
        )
    for key in given:
        values = getattr(table, key)
        if len(values) != len(returns):
            raise UsageError(
                f"[agent] {key}: expected one value for each late_return ({len(returns)}), "
                f"got {values}."
            )
    episodes = table.late_episodes or [Milestones.EPISODES] * len(returns)
    for before, after in itertools.pairwise(zip(returns, episodes, strict=True)):
        if after[1] == before[1] and after[0] <= before[0]:  # it would begin with the one before
            raise UsageError(
                "[agent] late_return: expected ascending returns where they are means of as many "
                f"episodes (late_episodes), got {returns} over {episodes}."
            )


def _make_network(
    config: AgentTables, observation_space: gym.spaces.Box, num_actions: int
) -> QNetwork | CategoricalQNetwork:
    table = network_table(config)
    torso = make_torso(table, observation_space)
    agent = _tables(config)[0]
    if agent.loss == "categorical":
        return CategoricalQNetwork(
            torso,
            num_actions,
            atoms=(agent.num_atoms, agent.value_min, agent.value_max),
            dueling=table.dueling,
            noisy=table.noisy,
        )
    return QNetwork(torso, num_actions, dueling=table.dueling, noisy=table.noisy)


def _tables(config: AgentTables) -> tuple[DQNConfig, ReplayConfig]:
    assert isinstance(config.agent, DQNConfig)
    assert isinstance(config.replay, ReplayConfig)
    return config.agent, config.replay
