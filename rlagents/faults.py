"""What is kept of an update that was not finite, and what may help."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlagents.agents.base import Fault
from rlagents.agents.storage import save_tensors
from rlagents.config import RunConfig
from rlagents.run import write_json


def write_fault(directory: Path, fault: Fault, step: int, config: RunConfig) -> str:
    """Write an update's batch to `faults/step-N` of a run's folder.

    Returns:
        a sentence on where it is, and one on what to try.
    """
    folder = directory / "faults" / f"step-{step}"
    temporary = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)  # of the same step, before the run was resumed
    temporary.mkdir(parents=True)
    save_tensors(dict(fault.batch), temporary / "batch.safetensors")
    advice = _advice(fault, config)
    about: dict[str, Any] = {
        "step": step,
        "loss": str(fault.loss),  # JSON knows no nan
        "gradient_norm": str(fault.gradient_norm),
        "not_finite": _not_finite(fault.batch),
        "agent": config.agent.model_dump(mode="json"),
        "advice": advice,
    }
    write_json(temporary / "fault.json", about)
    temporary.rename(folder)
    return f"Its batch is in {folder}. {advice}"


def _not_finite(batch: Mapping[str, Tensor]) -> dict[str, int]:
    """Return how many numbers of each tensor are not finite, of those that have any."""
    counts = {name: int((~torch.isfinite(tensor)).sum()) for name, tensor in batch.items()}
    return {name: count for name, count in counts.items() if count}


def _advice(fault: Fault, config: RunConfig) -> str:
    bad = _not_finite(fault.batch)
    if "observation" in bad:
        return (
            f"Its observations are not finite, so it is the environment {config.env.id} that must "
            "be mended."
        )
    advice = "Try a lower --agent.learning-rate"
    norm = getattr(config.agent, "max_grad_norm", None)
    if norm is not None:
        advice += f" or --agent.max-grad-norm (now {f'{norm:g}' if norm else 'none'})"
    if bad:
        advice += ", and see whether the environment's rewards and observations are finite"
    return (
        f"{advice}, in a new run that begins with the last good weights (--init-from); resuming "
        "this one repeats the same updates."
    )
