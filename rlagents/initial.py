"""Where a new run's weights come from: those of a trained run, and nothing else of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as read_safetensors
from torch import Tensor

from rlagents.agents.base import Agent
from rlagents.checkpoint import CheckpointStore
from rlagents.config import RunConfig
from rlagents.errors import UsageError
from rlagents.run import RunFolder

_WEIGHTS = Path("agent") / "network.safetensors"  # what plays; every agent's `save` writes it
# Keys of these tables decide what a network looks like, or what its inputs and outputs mean.
_TABLES = ("network", "env", "agent")


@dataclass(frozen=True)
class Donor:
    """A trained run whose weights another one begins with."""

    directory: Path
    checkpoint: str  # "step-50000"
    sha256: str  # of the file that the weights were read from
    config: Mapping[str, Any]  # the tables of its config.json
    weights: Mapping[str, Tensor]

    def as_dict(self) -> dict[str, str]:
        """Return what config.json says about it."""
        return {
            "run": str(self.directory.resolve()),
            "checkpoint": self.checkpoint,
            "sha256": self.sha256,
        }


def find_donor(run: str | Path, which: str | None, runs_dir: Path) -> Donor:
    """Read the weights of a run's checkpoint; nothing of the run is changed or executed.

    Args:
        run: its folder, or its name under the runs folder.
        which: "best", "last" or a step; None for the best, else the last.
        runs_dir: the runs folder.

    Raises:
        UsageError: there is no such run or checkpoint, or it is damaged.
    """
    folder = RunFolder.open(run, runs_dir)
    manifest = folder.manifest()
    found = CheckpointStore(folder.checkpoints).find(which, experience=False)
    path = found.directory / _WEIGHTS
    try:
        data = path.read_bytes()
        weights = read_safetensors(data)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"--init-from: {path} cannot be read: {error}.") from None
    sha256 = hashlib.sha256(data).hexdigest()
    return Donor(folder.directory, found.name, sha256, manifest["config"], weights)


def give_weights(donor: Donor, agent: Agent, config: RunConfig) -> None:
    """Let an agent that was just made begin with the weights of a run.

    Args:
        donor: the run.
        agent: new.
        config: the agent's, resolved.

    Raises:
        UsageError: the agent cannot take them.
    """
    there, here = donor.config.get("agent", {}), config.agent_name
    fitting = (here, *agent.weights_from)
    if there.get("name") not in fitting:
        raise UsageError(
            f"--init-from: {donor.directory} was trained by {there.get('name')!r} and this config "
            f"is for {here!r}; choose a run of {' or '.join(fitting)}."
        )
    try:
        agent.take_weights(donor.weights, there)
    except ValueError as error:
        keys = _differences(donor.config, config.model_dump(mode="json"), agent.network_keys)
        reason = f"the configs differ in {', '.join(keys)}" if keys else "the configs do not differ"
        raise UsageError(
            f"--init-from: the weights of {donor.directory} do not fit: {error} ({reason}). Choose "
            "a run whose networks are the same, or set these keys as it has them."
        ) from None


def _differences(
    there: Mapping[str, Any], here: Mapping[str, Any], agent_keys: tuple[str, ...]
) -> list[str]:
    """Return the keys that the fit of a network can depend on and that two configs differ in."""
    found = []
    for table in _TABLES:
        one, other = there.get(table) or {}, here.get(table) or {}
        names = agent_keys if table == "agent" else sorted({*one, *other} - {"num_envs"})
        found += [f"{table}.{name}" for name in names if one.get(name) != other.get(name)]
    return found
