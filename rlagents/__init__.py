"""Train deep reinforcement learning agents and watch the games they play."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlagents.agents import register_agent
    from rlagents.agents.base import Agent, Policy
    from rlagents.api import (
        Pretrained,
        Run,
        load_agent,
        load_pretrained,
        open_run,
        resume,
        train,
    )
    from rlagents.envs import EnvSpec, Preprocessing, register_env
    from rlagents.errors import RLAgentsError, RunFailedError, StoppedError, UsageError

__all__ = [
    "Agent",
    "EnvSpec",
    "Policy",
    "Preprocessing",
    "Pretrained",
    "RLAgentsError",
    "Run",
    "RunFailedError",
    "StoppedError",
    "UsageError",
    "load_agent",
    "load_pretrained",
    "open_run",
    "register_agent",
    "register_env",
    "resume",
    "train",
]

# Imported when first used, so that `import rlagents` does not wait for torch.
_HOMES = {
    "Agent": "rlagents.agents.base",
    "EnvSpec": "rlagents.envs",
    "Policy": "rlagents.agents.base",
    "Preprocessing": "rlagents.envs",
    "Pretrained": "rlagents.api",
    "RLAgentsError": "rlagents.errors",
    "Run": "rlagents.api",
    "RunFailedError": "rlagents.errors",
    "StoppedError": "rlagents.errors",
    "UsageError": "rlagents.errors",
    "load_agent": "rlagents.api",
    "load_pretrained": "rlagents.api",
    "open_run": "rlagents.api",
    "register_agent": "rlagents.agents",
    "register_env": "rlagents.envs",
    "resume": "rlagents.api",
    "train": "rlagents.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rlagents' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
