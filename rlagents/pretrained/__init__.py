"""The trained agents that come with the package: a folder each, of a network and its description.

`<name>/network.safetensors` holds the weights, `<name>/manifest.json` how to play with them and how
they were trained. `scripts/ship_pretrained.py` makes such a folder from a run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlagents.errors import UsageError, did_you_mean
from rlagents.wording import percent

MANIFEST = "manifest.json"
NETWORK = "network.safetensors"
FOLDER = Path(__file__).parent


def pretrained_names() -> list[str]:
    """Return the names of the agents."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{MANIFEST}"))


def find_pretrained(name: str) -> Path:
    """Return the folder of an agent.

    Raises:
        UsageError: there is none of that name.
    """
    known = pretrained_names()
    if name not in known:
        raise UsageError(
            f"There is no pretrained agent {name!r}{did_you_mean(name, known)} "
            f"There are: {', '.join(known)}."
        )
    return FOLDER / name


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return what describes the agent in a folder."""
    return dict(json.loads((directory / MANIFEST).read_text(encoding="utf-8")))


def list_pretrained() -> list[tuple[str, str]]:
    """Return each agent's name, and what it is: algorithm, steps of training, score."""
    rows = []
    for name in pretrained_names():
        manifest = read_manifest(FOLDER / name)
        config, played = manifest["config"], manifest["evaluation"]
        rate = played.get("success_rate")
        rows.append(
            (
                name,
                f"{config['agent']['name']} on {config['env']['id']}, "
                f"{manifest['training']['step']:,} steps: mean return "
                f"{played['mean_return']:.1f} ± {played['std_return']:.1f} over "
                f"{played['episodes']} episodes"
                + ("" if rate is None else f", {percent(rate)} completed"),
            )
        )
    return rows
