"""Stable-Baselines3's DQN with RL-Zoo's settings for Atari: CnnPolicy, one-step targets."""

from __future__ import annotations

import ale_py
import gymnasium
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import VecFrameStack

from measuring import Measurement
from peers.jobs import EPSILON, GAME, LEARNING_RATE, REPLAY_CAPACITY, Clock, PeerJob, versions


class ClockCallback(BaseCallback):  # type: ignore[misc, unused-ignore]  # untyped when missing
    """Reads the clock after every step and stops when it has been read twice."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def _on_step(self) -> bool:
        return self._clock.tick(self.num_timesteps, int(self.model._n_updates))


def measure(job: PeerJob) -> Measurement:
    """Train, and read the clock in a callback."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner
    gymnasium.register_envs(ale_py)
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    train_freq = max(1, job.update_period // job.num_envs)
    gradient_steps = max(1, job.num_envs // job.update_period)
    env = VecFrameStack(make_atari_env(GAME, n_envs=job.num_envs, seed=job.seed), n_stack=4)
    model = DQN(
        "CnnPolicy",
        env,
        learning_rate=LEARNING_RATE,
        buffer_size=REPLAY_CAPACITY,
        learning_starts=job.learning_starts,
        batch_size=job.batch_size,
        train_freq=train_freq,
        gradient_steps=gradient_steps,
        target_update_interval=1000,
        exploration_initial_eps=EPSILON,
        exploration_final_eps=EPSILON,
        optimize_memory_usage=True,
        replay_buffer_kwargs={"handle_timeout_termination": False},
        seed=job.seed,
    )
    clock = Clock(job)
    model.learn(total_timesteps=10_000_000, callback=ClockCallback(clock))
    env.close()
    settings = {
        "game": GAME,
        "num_envs": job.num_envs,
        "policy": "CnnPolicy",
        "learning_rate": LEARNING_RATE,
        "buffer_size": REPLAY_CAPACITY,
        "optimize_memory_usage": True,
        "learning_starts": job.learning_starts,
        "batch_size": job.batch_size,
        "train_freq": train_freq,
        "gradient_steps": gradient_steps,
        "target_update_interval": 1000,
        "epsilon": EPSILON,
        "device": str(model.device),
        "threads": torch.get_num_threads(),
    }
    packages = ("stable-baselines3", "torch", "numpy", "gymnasium", "ale-py")
    return clock.measurement(settings, versions(*packages))
