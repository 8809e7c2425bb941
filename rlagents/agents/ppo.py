"""PPO: Schulman et al., "Proximal policy optimization algorithms" (2017), clipped surrogate.

Rollouts of T steps from each of N environments are learned from several times, in minibatches. With
the ratio of what the policy would do now to what it did, r = pi(a_t | o_t) / pi_old(a_t | o_t),

    L = mean_t [ min(r A_t, clip(r, 1 - epsilon, 1 + epsilon) A_t)                      (Eq. 7)
                 - c_1 (V(o_t) - G_t)^2 + c_2 S[pi](o_t) ]                              (Eq. 9)

is maximised. Advantages are those of Schulman et al., "High-dimensional continuous control using
generalized advantage estimation" (2016), Eq. 16, cut off at the rollout's end (2017, Eq. 11):

    delta_t = r_t + gamma V(o_{t+1}) - V(o_t),    A_t = delta_t + gamma lambda A_{t+1},
    G_t = A_t + V(o_t)

Differences from the papers:
- An episode that was truncated bootstraps from what it ended with; one that terminated, or a lost
  life that counts as its end, from nothing.
- Advantages are standardised in each minibatch.
- Gradients are shortened, and Adam's epsilon is 1e-5, as in OpenAI's Baselines.
- The step that follows a rollout is chosen by the weights from before the update that runs beside
  the emulators, and belongs to the next rollout. Its probability is kept as it was drawn, so that
  its ratio is right, and its value is what the rollout before it bootstraps from.
- Rewards may be scaled, clipped or normalised; `reset_return_at_score` ends returns at each point.
- The clipping of values (Baselines) and an early end of the epochs by the divergence from the old
  policy (`target_kl`) are options.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import gymnasium as gym
import numpy as np
import torch
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
from rlagents.agents.rewards import RewardNormalizer, standardize
from rlagents.agents.weights import take_over
from rlagents.errors import UsageError
from rlagents.networks import (
    NetworkConfig,
    PolicyValueNetwork,
    make_torso,
    resolve_precision,
)
from rlagents.profile import Timer, no_timer
from rlagents.replay.rollout import Rollout
from rlagents.schedules import check_scheduled, scheduled
from rlagents.tables import Count, Int, Probability, Table
from rlagents.types import (
    Array,
    BoolArray,
    FloatArray,
    Footprint,
    IntArray,
    Metrics,
    Transition,
)

# Generators are told apart by a number, so that none repeats another's draws.
_EXPLORATION, _SHUFFLING = 1, 2


class PPOConfig(Table):
    """`[agent]` of ppo."""

    name: Literal["ppo"] = "ppo"
    """The learner."""
    rollout_steps: Annotated[Int, Field(ge=1, le=100_000)] = 128
    """Steps of each environment between two updates, T."""
    epochs: Annotated[Int, Field(ge=1, le=1000)] = 4
    """Times that a rollout is learned from."""
    minibatches: Count = 4
    """Parts of a rollout, one gradient step each; a divisor of rollout_steps * [env] num_envs."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2.5e-4
    """Adam's step size."""
    learning_rate_end: Annotated[float, Field(ge=0, le=1)] | None = None
    """Step size in the end, with learning_rate_decay_steps; constant if left out."""
    learning_rate_decay_steps: Count | None = None
    """Agent steps over which the step size changes in a straight line."""
    adam_epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-5
    """Added to Adam's denominator."""
    gamma: Probability = 0.99
    """Discount per agent step."""
    gae_lambda: Probability = 0.95
    """How much of later errors goes into an advantage: 0 for one step, 1 for the whole return."""
    clip_range: Annotated[float, Field(gt=0, le=10)] = 0.2
    """How far the ratio of new to old probabilities may pay off, epsilon."""
    value_clip_range: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """How far a value may pay off to move from what it was; none for any distance."""
    value_coefficient: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the values' squared error in the loss."""
    entropy_coefficient: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the policy's entropy in the loss."""
    entropy_coefficient_end: Annotated[float, Field(ge=0)] | None = None
    """That weight in the end, with entropy_coefficient_decay_steps; constant if left out."""
    entropy_coefficient_decay_steps: Count | None = None
    """Agent steps over which that weight changes in a straight line."""
    standardize_advantages: bool = True
    """Scale the advantages of a minibatch to mean 0 and standard deviation 1."""
    target_kl: Annotated[float, Field(gt=0)] | None = None
    """An epoch in which the policy is this far from the old one is the last; none for no limit."""
    reward_scale: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Learn from rewards times this; returns are reported unscaled."""
    clip_rewards: bool = False
    """Learn from the sign of each reward (Mnih et al. 2015); returns are reported unclipped."""
    normalize_rewards: bool = False
    """Divide rewards by the standard deviation of the discounted returns so far."""
    reset_return_at_score: bool = False
    """Cut the bootstrap at each reward that is not 0: a point of Pong is a game of its own."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 0.5
    """Longer gradients are shortened to this length; 0 leaves them as they are."""


def generalized_advantages(
    reward: FloatArray,
    value: FloatArray,
    next_value: FloatArray,
    terminated: BoolArray,
    episode_over: BoolArray,
    *,
    gamma: float,
    gae_lambda: float,
) -> FloatArray:
    """Return the advantages A_t: [T, N] float32, Schulman et al. (2016), Eq. 16.

    Args:
        reward: [T, N].
        value: [T, N] of the observations that were acted on.
        next_value: [T, N] of the true successors; does not count where `terminated`.
        terminated: [T, N] nothing follows.
        episode_over: [T, N] the next row is another episode's.
        gamma: discount per step.
        gae_lambda: lambda.
    """
    delta = reward + gamma * np.where(terminated, np.float32(0), next_value) - value  # [T, N]
    keep = np.where(terminated | episode_over, np.float32(0), np.float32(gamma * gae_lambda))
    advantages = delta.astype(np.float32)
    for t in range(len(advantages) - 2, -1, -1):
        advantages[t] += keep[t] * advantages[t + 1]
    return advantages


def clipped_surrogate(log_ratio: Tensor, advantage: Tensor, clip_range: float) -> Tensor:
    """Return min(r A, clip(r, 1 - epsilon, 1 + epsilon) A): [B], Schulman et al. (2017), Eq. 7.

    Args:
        log_ratio: [B] logarithm of new by old probability.
        advantage: [B].
        clip_range: epsilon.
    """
    ratio = log_ratio.exp()
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip_range, 1 + clip_range) * advantage)


def value_errors(
    value: Tensor, target: Tensor, old_value: Tensor, clip_range: float | None
) -> Tensor:
    """Return squared errors of values: [B].

    With a range, the larger one of that and the error of the value moved no farther than the range
    from the old one: nothing is gained by moving farther (OpenAI's Baselines, ppo2).
    """
    errors = (value - target) ** 2
    if clip_range is None:
        return errors
    near = old_value + (value - old_value).clamp(-clip_range, clip_range)
    return torch.maximum(errors, (near - target) ** 2)


class _Minibatch(NamedTuple):
    """B steps of a rollout."""

    observation: Tensor  # [B, ...], overwritten by the next minibatch
    action: Tensor  # [B] int64
    log_probability: Tensor  # [B] float32, of the action, by the policy that chose it
    value: Tensor  # [B] float32, when it was chosen
    advantage: Tensor  # [B] float32
    target: Tensor  # [B] float32, of the value


class PPO(Agent):
    """A policy with values, an optimizer and a rollout.

    Args:
        config: the `[agent]` table.
        network: the policy and its values.
        observation_space: of one environment.
        num_envs: N.
        seed: of the choice of actions and of the minibatches.
        device: where the network is.
    """

    Config: ClassVar[type[Table]] = PPOConfig
    NetworkConfig: ClassVar[type[Table] | None] = NetworkConfig
    footprint_key: ClassVar[str] = "agent.rollout_steps"
    weights_from: ClassVar[tuple[str, ...]] = ("reinforce",)

    def __init__(
        self,
        config: PPOConfig,
        network: PolicyValueNetwork,
        *,
        observation_space: gym.spaces.Box,
        num_envs: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self._config = config
        self._network = network.to(device)
        self._optimizer = Adam(
            self._network.parameters(), lr=config.learning_rate, eps=config.adam_epsilon, fused=True
        )
        self._num_envs = num_envs
        self._exploration = seeding.generator(seed, _EXPLORATION)
        self._shuffling = seeding.generator(seed, _SHUFFLING)
        self._device = device
        self._guard = Guard(device)
        self._timer: Timer = no_timer
        self._steps = 0  # agent steps observed
        batch_size = config.rollout_steps * num_envs // config.minibatches
        self._rollout = Rollout(observation_space, num_envs, config.rollout_steps, batch_size)
        self._normalizer = RewardNormalizer(num_envs, config.gamma)
        # Of the actions that were chosen last, which `observe` will tell the outcome of.
        self._log_probability: FloatArray = np.zeros(num_envs, dtype=np.float32)
        self._value: FloatArray = np.zeros(num_envs, dtype=np.float32)

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
        """Raise UsageError where a rollout cannot be divided, or an option would do nothing."""
        refuse_action_value_options(config, "ppo")
        table = _table(config)
        steps = table.rollout_steps * num_envs
        if steps % table.minibatches:
            nearest = min(table.minibatches, steps)
            while steps % nearest:
                nearest -= 1
            raise UsageError(
                f"[agent] minibatches: the {steps} steps of a rollout ({num_envs} environments, "
                f"rollout_steps = {table.rollout_steps}) cannot be divided into "
                f"{table.minibatches} equal parts; set it to {nearest}, or change rollout_steps."
            )
        if table.standardize_advantages and steps == table.minibatches:
            raise UsageError(
                f"[agent] standardize_advantages: minibatches of one step have no spread; set "
                f"fewer minibatches than {steps}, or standardize_advantages = false."
            )
        _refuse_idle_options(table)

    @classmethod
    def resolve(cls, config: AgentTables, device: str) -> dict[str, Table]:
        """Return `[network]` with the precision that is fast here."""
        return {"network": resolve_precision(network_table(config), device)}

    @classmethod
    def footprint(
        cls, config: AgentTables, observation_space: gym.spaces.Box, *, num_envs: int
    ) -> Footprint:
        """Return what a rollout takes."""
        table = _table(config)
        batch_size = table.rollout_steps * num_envs // table.minibatches
        return Rollout.footprint(observation_space, num_envs, table.rollout_steps, batch_size)

    @property
    def learning_rate(self) -> float:
        """Adam's step size now."""
        return scheduled(self._config, "learning_rate", self._steps)

    @property
    def entropy_coefficient(self) -> float:
        """The entropy's weight now."""
        return scheduled(self._config, "entropy_coefficient", self._steps)

    @torch.no_grad()
    def act(self, observation: Array) -> IntArray:
        """Return actions drawn from the policy: [N, ...] -> [N] int64."""
        logits, value = self._network.logits_and_value(
            torch.from_numpy(observation).to(self._device)
        )  # [N, A], [N]
        log_chances = logits.double().log_softmax(dim=1).cpu().numpy()  # [N, A]
        cumulative = np.exp(log_chances).cumsum(axis=1)
        threshold = self._exploration.random((self._num_envs, 1)) * cumulative[:, -1:]
        action = (cumulative <= threshold).sum(axis=1)
        self._log_probability = log_chances[np.arange(self._num_envs), action].astype(np.float32)
        self._value = value.cpu().numpy()
        return np.asarray(action)

    def observe(self, transition: Transition) -> None:
        """Put a step of every environment into the rollout."""
        config = self._config
        reward, terminated = transition.reward, transition.terminated
        if config.reset_return_at_score:
            terminated = terminated | (reward != 0)
        if config.clip_rewards:
            reward = np.sign(reward)
        if config.normalize_rewards:
            reward = self._normalizer(reward, terminated | transition.episode_over)
        reward = reward * np.float32(config.reward_scale)
        truncated = transition.episode_over & ~terminated
        self._rollout.append(
            transition._replace(reward=reward, terminated=terminated),
            log_probability=self._log_probability,
            value=self._value,
            truncation_value=self._values(transition.next_observation, truncated),
        )
        self._steps += self._num_envs

    @torch.no_grad()
    def _values(self, observation: Array, wanted: BoolArray) -> FloatArray:
        """Return the values of some observations, 0 for the others: [N, ...], [N] -> [N]."""
        values = np.zeros(self._num_envs, dtype=np.float32)
        if wanted.any():
            tensor = torch.from_numpy(observation[wanted]).to(self._device)
            values[wanted] = self._network.logits_and_value(tensor)[1].cpu().numpy()
        return values

    def learn(self) -> Metrics:
        """Learn from the rollout if it is full: the last choice of actions was the step after."""
        if not self._rollout.is_full:
            return {}
        metrics = self._update()
        self._rollout.clear()
        return metrics

    def _update(self) -> Metrics:
        config, rollout = self._config, self._rollout
        advantage = self._advantages()  # [T, N]
        target = advantage + rollout.value
        actions = rollout.action.reshape(-1)
        numbers = np.stack(
            [rollout.log_probability, rollout.value, advantage, target], axis=-1
        ).reshape(-1, 4)
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        sums = torch.zeros(len(_LOSSES), device=self._device)
        count = 0
        for _ in range(config.epochs):
            divergence = torch.zeros((), device=self._device)
            order = self._shuffling.permutation(len(actions))
            for index in order.reshape(config.minibatches, -1):
                with self._timer("sample"):
                    minibatch = self._minibatch(index, actions, numbers)
                losses = self._improve(minibatch)
                divergence += losses[_LOSSES.index("approx_kl")]
                sums += losses
                count += 1
            limit = config.target_kl
            if limit is not None and float(divergence) / config.minibatches > limit:
                break
        metrics: dict[str, Any] = {
            f"losses/{name}": total for name, total in zip(_LOSSES, sums / count, strict=True)
        }
        metrics["losses/explained_variance"] = _explained_variance(rollout.value, target)
        return metrics

    def _advantages(self) -> FloatArray:
        """Return the advantages of a full rollout: [T, N]."""
        rollout = self._rollout
        following = np.concatenate([rollout.value[1:], self._value[None]])  # [T, N]
        return generalized_advantages(
            rollout.reward,
            rollout.value,
            np.where(rollout.episode_over, rollout.truncation_value, following),
            rollout.terminated,
            rollout.episode_over,
            gamma=self._config.gamma,
            gae_lambda=self._config.gae_lambda,
        )

    def _minibatch(self, index: IntArray, actions: IntArray, numbers: FloatArray) -> _Minibatch:
        """Put the steps of these numbers together: [B], of [T * N] and [T * N, 4]."""
        chosen = numbers[index]  # [B, 4]
        if self._config.standardize_advantages:
            chosen[:, 2] = standardize(chosen[:, 2])
        observation = torch.from_numpy(self._rollout.gather(index)).to(self._device)
        action = torch.from_numpy(actions[index]).to(self._device)
        return _Minibatch(
            observation, action, *torch.from_numpy(chosen).to(self._device).unbind(dim=1)
        )

    def _losses(self, minibatch: _Minibatch) -> Tensor:
        """Return means over a minibatch, [5]: what `_LOSSES` names."""
        config = self._config
        logits, value = self._network.logits_and_value(minibatch.observation)  # [B, A], [B]
        log_chances = logits.log_softmax(dim=1)  # [B, A]
        chosen = log_chances.gather(1, minibatch.action[:, None]).squeeze(1)  # [B]
        log_ratio = chosen - minibatch.log_probability
        surrogate = clipped_surrogate(log_ratio, minibatch.advantage, config.clip_range)
        errors = value_errors(
            value, minibatch.target, minibatch.value, config.value_clip_range
        )  # [B]
        entropy = -(log_chances.exp() * log_chances).sum(dim=1)  # [B]
        with torch.no_grad():
            ratio = log_ratio.exp()
            # Never negative and of little variance: Schulman, "Approximating KL divergence" (2020).
            divergence = ratio - 1 - log_ratio
            clipped = ((ratio - 1).abs() > config.clip_range).float()
        return torch.stack([-surrogate, errors, entropy, divergence, clipped]).mean(dim=1)

    def _improve(self, minibatch: _Minibatch) -> Tensor:
        """Take a gradient step; return what `_losses` returns."""
        config = self._config
        losses = self._losses(minibatch)
        loss = (
            losses[0] + config.value_coefficient * losses[1] - self.entropy_coefficient * losses[2]
        )
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_gradients(self._network.parameters(), config.max_grad_norm)
        skip = self._guard.look(loss.detach(), norm, minibatch._asdict)
        step_unless(skip, self._optimizer)
        return losses.detach()

    def fault(self) -> Fault | None:
        """Return what was not finite in an update, None as long as all was."""
        return self._guard.fault()

    def measure(self, timer: Timer) -> None:
        """Measure putting minibatches together apart from learning."""
        self._timer = timer

    def gauges(self) -> dict[str, float]:
        """Return the settings that change."""
        gauges = {}
        if self._config.learning_rate_end is not None:
            gauges["charts/learning_rate"] = self.learning_rate
        if self._config.entropy_coefficient_end is not None:
            gauges["charts/entropy_coefficient"] = self.entropy_coefficient
        return gauges

    def interrupt(self) -> None:
        """Drop the rollout that has begun."""
        self._rollout.interrupt()
        self._normalizer.interrupt()

    def policy(self) -> Policy:
        """Return a copy."""
        return Policy(copy.deepcopy(self._network), "probabilities", self._device)

    def take_weights(self, weights: Mapping[str, Tensor], table: Mapping[str, Any]) -> None:
        """Begin with the policy of another run and its values.

        Raises:
            UsageError: it is one of REINFORCE that has no values.
            ValueError: the weights do not fit.
        """
        if table.get("name") == "reinforce" and table.get("baseline") != "value":
            raise UsageError(
                "--init-from: that run of reinforce has no values; ppo needs one with "
                '[agent] baseline = "value".'
            )
        take_over(self._network, weights)

    def save(self, directory: Path, *, experience: bool = True) -> None:
        """Write network, optimizer, counters and generators, and the rollout if asked for."""
        storage.save_module(self._network, directory / "network.safetensors")
        storage.save_optimizer(self._optimizer, directory / "optimizer.safetensors")
        state = {
            "steps": self._steps,
            "exploration": storage.generator_state(self._exploration),
            "shuffling": storage.generator_state(self._shuffling),
            "rewards": self._normalizer.state(),
        }
        storage.save_json(state, directory / "state.json")
        if experience:
            (directory / "replay").mkdir()
            self._rollout.save(directory / "replay")

    def load(self, directory: Path) -> None:
        """Read back what `save` wrote; without its rollout another one begins."""
        storage.load_module(self._network, directory / "network.safetensors")
        storage.load_optimizer(self._optimizer, directory / "optimizer.safetensors")
        state = storage.load_json(directory / "state.json")
        self._steps = storage.count_in(state, "steps")
        storage.set_generator_state(self._exploration, state["exploration"])
        storage.set_generator_state(self._shuffling, state["shuffling"])
        self._normalizer.set_state(state["rewards"])
        if (directory / "replay").is_dir():
            self._rollout.load(directory / "replay")


_LOSSES = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")


def _explained_variance(value: FloatArray, target: FloatArray) -> float:
    """Return 1 - Var(target - value) / Var(target); 0 where targets do not vary."""
    variance = float(target.var())
    return 1 - float((target - value).var()) / variance if variance > 0 else 0.0


def _refuse_idle_options(table: PPOConfig) -> None:
    """Raise UsageError where one option leaves another without effect."""
    for key in ("learning_rate", "entropy_coefficient"):
        check_scheduled(table, key)
    if table.target_kl is not None and table.epochs == 1:
        raise UsageError(
            "[agent] target_kl: ends the epochs early, and there is one; raise epochs, or leave "
            "target_kl out."
        )


def _make_network(
    config: AgentTables, observation_space: gym.spaces.Box, action_space: gym.Space[Any]
) -> PolicyValueNetwork:
    num_actions = require_discrete("ppo", action_space)
    torso = make_torso(network_table(config), observation_space)
    return PolicyValueNetwork(torso, num_actions)


def _table(config: AgentTables) -> PPOConfig:
    assert isinstance(config.agent, PPOConfig)
    return config.agent
