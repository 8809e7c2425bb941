"""A DQN in one plain loop, written for this benchmark with the settings of CleanRL's dqn_atari.py.

One environment of Gymnasium with Stable-Baselines3's wrappers and ReplayBuffer, Adam, the Nature
CNN (Mnih et al. 2015), the squared error of one-step targets. CleanRL's own logging is left out,
and its wrapper that ends episodes at a lost life, which Pong does not have. Its replay of a million
is 100,000 here, as the other peers' is.
"""

from __future__ import annotations

import random
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common import atari_wrappers
from stable_baselines3.common.buffers import ReplayBuffer
from torch import nn

from measuring import Measurement
from peers.jobs import EPSILON, GAME, LEARNING_RATE, REPLAY_CAPACITY, Clock, PeerJob, versions

GAMMA = 0.99
TARGET_PERIOD_STEPS = 1000


def make_env() -> gym.Env[Any, Any]:
    """Return Pong in 84x84 grey, a stack of 4."""
    env: gym.Env[Any, Any] = gym.wrappers.RecordEpisodeStatistics(gym.make(GAME))
    env = atari_wrappers.NoopResetEnv(env, noop_max=30)
    env = atari_wrappers.MaxAndSkipEnv(env, skip=4)
    env = atari_wrappers.FireResetEnv(env)
    env = atari_wrappers.ClipRewardEnv(env)
    env = gym.wrappers.ResizeObservation(env, (84, 84))
    env = gym.wrappers.GrayscaleObservation(env)
    return gym.wrappers.FrameStackObservation(env, 4)


class QNetwork(nn.Module):
    """The Nature CNN: [B, 4, 84, 84] pictures from 0 to 255 -> [B, A] values."""

    def __init__(self, num_actions: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(4, 32, 8, stride=4),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 7 * 7, 512),
            nn.ReLU(),
            nn.Linear(512, num_actions),
        )

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return the value of every action."""
        values: torch.Tensor = self.layers(pictures / 255.0)
        return values


def measure(job: PeerJob) -> Measurement:
    """Train, and read the clock at the end of each round of the loop."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner
    gym.register_envs(ale_py)
    random.seed(job.seed)
    np.random.seed(job.seed)
    torch.manual_seed(job.seed)
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # Gymnasium before 1.0, which CleanRL is written for, resets in the step that ends an episode.
    env = SyncVectorEnv([make_env], autoreset_mode=AutoresetMode.SAME_STEP)
    space = env.single_action_space
    assert isinstance(space, gym.spaces.Discrete)
    space.seed(job.seed)
    network = QNetwork(int(space.n)).to(device)
    target_network = QNetwork(int(space.n)).to(device)
    target_network.load_state_dict(network.state_dict())
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    replay = ReplayBuffer(
        REPLAY_CAPACITY,
        env.single_observation_space,
        space,
        device,
        optimize_memory_usage=True,
        handle_timeout_termination=False,
    )

    def learn() -> None:
        batch = replay.sample(job.batch_size)
        with torch.no_grad():
            next_values = target_network(batch.next_observations).amax(dim=1)
            going_on = 1 - batch.dones.flatten()
            target = batch.rewards.flatten() + GAMMA * going_on * next_values
        value = network(batch.observations).gather(1, batch.actions).squeeze(1)
        loss = nn.functional.mse_loss(value, target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    clock = Clock(job)
    step = updates = 0
    observation, _ = env.reset(seed=job.seed)
    while clock.tick(step, updates):
        if random.random() < EPSILON:
            action = np.array([space.sample()])
        else:
            values = network(torch.Tensor(observation).to(device))
            action = values.argmax(dim=1).cpu().numpy()
        following, reward, terminated, truncated, infos = env.step(action)
        successor = following.copy()
        for index in np.flatnonzero(truncated):
            successor[index] = infos["final_obs"][index]
        replay.add(observation, successor, action, reward, terminated, [infos])
        observation = following
        step += 1
        if step > job.learning_starts and step % job.update_period == 0:
            learn()
            updates += 1
        if step > job.learning_starts and step % TARGET_PERIOD_STEPS == 0:
            target_network.load_state_dict(network.state_dict())
    env.close()
    settings = {
        "game": GAME,
        "num_envs": 1,
        "learning_rate": LEARNING_RATE,
        "buffer_size": REPLAY_CAPACITY,
        "optimize_memory_usage": True,
        "learning_starts": job.learning_starts,
        "batch_size": job.batch_size,
        "train_frequency": job.update_period,
        "target_network_frequency": TARGET_PERIOD_STEPS,
        "epsilon": EPSILON,
        "device": str(device),
        "threads": torch.get_num_threads(),
    }
    packages = ("stable-baselines3", "torch", "numpy", "gymnasium", "ale-py")
    return clock.measurement(settings, versions(*packages))
