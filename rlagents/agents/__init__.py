"""Agents: one file an algorithm, and the names by which a config finds them."""

from __future__ import annotations

import importlib
from typing import Any

from rlagents.errors import UsageError, did_you_mean

# Looked up by name, so that torch is only imported once an agent is asked for.
_BUILTIN = {
    "dqn": ("rlagents.agents.dqn", "DQN", "Deep Q-network (Mnih et al. 2015), double as an option"),
    "ppo": (
        "rlagents.agents.ppo",
        "PPO",
        "Proximal policy optimization (Schulman et al. 2017), generalized advantages",
    ),
    "reinforce": (
        "rlagents.agents.reinforce",
        "Reinforce",
        "Policy gradient by whole episodes (Williams 1992), learned baseline as an option",
    ),
}
_registered: dict[str, Any] = {}


def register_agent(name: str, agent: Any) -> None:
    """Make an agent class available as `[agent] name`, in this process.

    Args:
        name: what a config says.
        agent: a class like `rlagents.agents.base.Agent`, with `Config` and `from_config`.

    Raises:
        UsageError: the name is taken, or the class lacks `Config` or `from_config`.
    """
    if name in _BUILTIN or _registered.get(name, agent) is not agent:
        raise UsageError(f"register_agent: the name {name!r} is taken; choose another.")
    for attribute in ("Config", "from_config"):
        if not hasattr(agent, attribute):
            raise UsageError(
                f"register_agent: {agent!r} has no {attribute}; see docs/your-own-agent.md."
            )
    _registered[name] = agent


def find_agent(name: str) -> Any:
    """Return the agent class of a name.

    Raises:
        UsageError: there is none.
    """
    if name in _registered:
        return _registered[name]
    if name not in _BUILTIN:
        known = [*_BUILTIN, *_registered]
        raise UsageError(
            f"[agent] name: there is no agent {name!r}{did_you_mean(name, known)} "
            f"There are: {', '.join(sorted(known))}."
        )
    module, attribute, _ = _BUILTIN[name]
    return getattr(importlib.import_module(module), attribute)


def list_agents() -> list[tuple[str, str]]:
    """Return the name and a description of every agent."""
    builtin = [(name, description) for name, (_, _, description) in _BUILTIN.items()]
    own = [
        (name, (agent.__doc__ or "").strip().split("\n")[0]) for name, agent in _registered.items()
    ]
    return sorted(builtin + own)
