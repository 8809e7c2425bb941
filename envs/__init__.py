"""Environments: names, preprocessing, vector environments and players. Never imports torch."""

from rlagents.envs.faults import EnvFailedError, EnvFault, TellsFaults
from rlagents.envs.players import Player, PlayerStep
from rlagents.envs.preprocessing import Preprocessing
from rlagents.envs.registry import (
    EnvConfig,
    EnvSpec,
    find_env,
    list_envs,
    make_eval_env,
    make_player,
    make_vector_env,
    register_env,
    resolve_env_config,
)
from rlagents.envs.reproducible import find_difference
from rlagents.envs.vector import VectorEnv, VectorStep

__all__ = [
    "EnvConfig",
    "EnvFailedError",
    "EnvFault",
    "EnvSpec",
    "Player",
    "PlayerStep",
    "Preprocessing",
    "TellsFaults",
    "VectorEnv",
    "VectorStep",
    "find_difference",
    "find_env",
    "list_envs",
    "make_eval_env",
    "make_player",
    "make_vector_env",
    "register_env",
    "resolve_env_config",
]
