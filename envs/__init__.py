"""Environments: names, preprocessing, vector environments and players. Never imports torch."""

from rlagents.envs.faults import EnvFailedError, EnvFault, TellsFaults
from rlagents.envs.maps import Map, MapEnd, MapPart, Walk
from rlagents.envs.outcomes import OutcomeReader
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
    "Map",
    "MapEnd",
    "MapPart",
    "OutcomeReader",
    "Player",
    "PlayerStep",
    "Preprocessing",
    "TellsFaults",
    "VectorEnv",
    "VectorStep",
    "Walk",
    "find_difference",
    "find_env",
    "list_envs",
    "make_eval_env",
    "make_player",
    "make_vector_env",
    "register_env",
    "resolve_env_config",
]
