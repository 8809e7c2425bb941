"""Tianshou's DQN with the settings of its examples/atari/atari_dqn.py, on EnvPool's environments.

Ten environments, 3-step targets, target every 500 updates, single frames in replay. Where EnvPool
is installed, Tianshou's own factory of Atari environments takes it. (Its own environments in
processes cannot be made with the newest numpy.)

Tianshou 2.0.1's trainer looks through the whole replay for missing values after each ten steps, and
no setting turns that off. It takes three quarters of the time here, so it is left out.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tianshou.algorithm import DQN
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env.atari.atari_network import DQNet
from tianshou.env.atari.atari_wrapper import AtariEnvFactory
from tianshou.highlevel.env import EnvMode
from tianshou.trainer import OffPolicyTrainerParams

from measuring import Measurement
from peers.jobs import EPSILON, GAME, LEARNING_RATE, REPLAY_CAPACITY, Clock, PeerJob, versions

GAMMA = 0.99
N_STEP = 3
STACK = 4
TARGET_PERIOD_UPDATES = 500


class CountedDQN(DQN):  # type: ignore[misc, unused-ignore]  # untyped where it is missing
    """DQN that knows how many updates it has made."""

    updates = 0

    def _update_with_batch(self, batch: Any) -> Any:
        self.updates += 1
        return super()._update_with_batch(batch)


class UncheckedReplay(VectorReplayBuffer):  # type: ignore[misc, unused-ignore]
    """Replay that is not looked through for missing values."""

    def hasnull(self) -> bool:
        """Return at once that nothing is missing."""
        return False


def measure(job: PeerJob) -> Measurement:
    """Train, and read the clock before each of the trainer's steps."""
    np.random.seed(job.seed)
    torch.manual_seed(job.seed)
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    factory = AtariEnvFactory(GAME, STACK, use_envpool_if_available=True)
    env = factory.create_venv(job.num_envs, EnvMode.TRAINING, seed=job.seed)
    space = env.action_space
    assert isinstance(space, gym.spaces.Discrete)
    policy = DiscreteQLearningPolicy(
        model=DQNet(c=STACK, h=84, w=84, action_shape=int(space.n)).to(device),
        action_space=space,
        eps_training=EPSILON,
        eps_inference=EPSILON,
    )
    algorithm = CountedDQN(
        policy=policy,
        optim=AdamOptimizerFactory(lr=LEARNING_RATE),
        gamma=GAMMA,
        n_step_return_horizon=N_STEP,
        target_update_freq=TARGET_PERIOD_UPDATES,
    )
    replay = UncheckedReplay(
        REPLAY_CAPACITY,
        buffer_num=job.num_envs,
        ignore_obs_next=True,
        save_only_last_obs=True,
        stack_num=STACK,
    )
    collector = Collector(algorithm, env, replay, exploration_noise=True)
    collector.reset()
    filled = -(-job.learning_starts // job.cycle) * job.cycle
    collector.collect(n_step=filled)
    clock = Clock(job)

    def before_step(epoch: int, step: int) -> None:
        clock.tick(filled + step, algorithm.updates)

    algorithm.run_training(
        OffPolicyTrainerParams(
            training_collector=collector,
            max_epochs=1,
            # Both readings are due before this is over: each is at most a cycle late.
            epoch_num_steps=job.warm_up + job.steps + 3 * job.cycle,
            collection_step_num_env_steps=job.cycle,
            batch_size=job.batch_size,
            update_step_num_gradient_steps_per_sample=1 / job.update_period,
            training_fn=before_step,
            show_progress=False,
            verbose=False,
        )
    )
    env.close()
    settings = {
        "game": GAME,
        "environments": type(env).__name__,
        "num_envs": job.num_envs,
        "learning_rate": LEARNING_RATE,
        "buffer_size": REPLAY_CAPACITY,
        "ignore_obs_next": True,
        "save_only_last_obs": True,
        "stack_num": STACK,
        "checks_replay_for_missing_values": False,
        "learning_starts": filled,
        "batch_size": job.batch_size,
        "collection_step_num_env_steps": job.cycle,
        "update_step_num_gradient_steps_per_sample": 1 / job.update_period,
        "n_step_return_horizon": N_STEP,
        "target_update_freq": TARGET_PERIOD_UPDATES,
        "epsilon": EPSILON,
        "device": device,
        "threads": torch.get_num_threads(),
    }
    packages = ("tianshou", "envpool", "torch", "numpy", "gymnasium")
    return clock.measurement(settings, versions(*packages))
