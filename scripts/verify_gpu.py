r"""Train on a GPU with and without what is for GPUs alone, and compare the weights bit by bit.

Each kind of DQN below is trained on the same seed six times: as it is, as it is once more (whether
the GPU reproduces itself at all), with recorded kernels (`agent.cuda_graphs`), with frames in the
GPU's memory (`replay.storage`), with both, and with both and a stop and a resumption half way. All
must end with the same weights and have played the same episodes, and who records must have made
three recordings. Agent steps per second, of a whole training with its start, are printed beside
them; benchmark_peers.py measures speed properly, with the same options:

    python scripts/verify_gpu.py
    python scripts/benchmark_peers.py --peer cleanrl --peer-python peers/bin/python \
        --set agent.update_period_steps=8 --set agent.pipelined=false \
        --set agent.cuda_graphs=true --set replay.storage=device

The exit status is 1 if anything differs, and 2 without a GPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

import rlagents
from measuring import count, fail
from rlagents.agents import dqn
from rlagents.agents.graphs import CudaRecorder, Tensors

Options = dict[str, Any]

KINDS: dict[str, tuple[str, Options]] = {
    "pong-dqn": ("pong-dqn", {}),
    "averaged, soft target, huber": (
        "pong-dqn",
        {
            "agent.loss": "huber",
            "agent.average_decay": 0.9,
            "agent.target_tau": 0.01,
            "agent.target_period_steps": 10_000,
        },
    ),
    "noisy": ("pong-dqn", {"network.noisy": True}),
    "atari-dqn-2015": ("atari-dqn-2015", {"env.id": "pong"}),
    "cartpole-dqn": ("cartpole-dqn", {}),
}
WAYS: dict[str, Options] = {
    "as it is": {},
    "once more": {},
    "recorded": {"agent.cuda_graphs": True},
    "frames there": {"replay.storage": "device"},
    "both": {"agent.cuda_graphs": True, "replay.storage": "device"},
    "both, resumed": {"agent.cuda_graphs": True, "replay.storage": "device"},
}
_PARTS = 3  # of an agent that are recorded


class CountingRecorder(CudaRecorder):
    """Counts the recordings of all agents."""

    made = 0

    def record(self, function: Callable[[], Tensors]) -> tuple[Callable[[], None], Tensors]:
        """Record a function."""
        CountingRecorder.made += 1
        return super().record(function)


class Outcome(NamedTuple):
    """What came of a training."""

    weights: bytes
    episodes: str  # episodes.csv without its times
    steps_per_second: float
    recordings: int


def train(config: str, options: Mapping[str, Any], *, resumed: bool) -> Outcome:
    """Train for a short time and return what came of it.

    Args:
        config: a recipe.
        options: of it.
        resumed: whether to stop half way and go on.
    """
    steps, before = options["total_steps"], CountingRecorder.made
    with tempfile.TemporaryDirectory() as runs:
        start = time.perf_counter()
        first = {**options, "total_steps": steps // 2} if resumed else dict(options)
        run = rlagents.train(config, first, runs_dir=runs, quiet=True)
        if resumed:
            rlagents.resume(run.directory, total_steps=steps, quiet=True)
        seconds = time.perf_counter() - start
        agent = run.checkpoint("last").directory / "agent"
        weights = (agent / "network.safetensors").read_bytes()
        lines = Path(run.directory, "episodes.csv").read_text(encoding="utf-8").splitlines()
    episodes = "\n".join(line.rpartition(",")[0] for line in lines)
    return Outcome(weights, episodes, steps / seconds, CountingRecorder.made - before)


def options_of(kind: str, steps: int, device: str) -> Options:
    """Return the options of a kind's trainings."""
    return {
        **KINDS[kind][1],
        "device": device,
        "seed": 1,
        "total_steps": steps,
        "agent.pipelined": False,  # is for processors
        "agent.learning_starts": steps // 4,
        "agent.epsilon_start": 0.5,  # so that the network acts from the start
        "replay.capacity": steps,
        "evaluation.period_steps": 0,
        "recording.enabled": False,
        "checkpoint.period_steps": 10**9,
    }


def verify(
    kinds: Sequence[str], steps: int, device: str, train: Callable[..., Outcome] = train
) -> bool:
    """Print a line for each training; return whether all are as they must be."""
    all_good = True
    for kind in kinds:
        config, base = KINDS[kind][0], options_of(kind, steps, device)
        expected: Outcome | None = None
        for way, changes in WAYS.items():
            found = train(config, base | changes, resumed=way.endswith("resumed"))
            expected = expected or found
            wrong = [
                f"other {name}"
                for name in ("weights", "episodes")
                if getattr(found, name) != getattr(expected, name)
            ]
            if "agent.cuda_graphs" in changes and found.recordings < _PARTS:
                wrong.append(f"{found.recordings} recordings")
            all_good = all_good and not wrong
            words = ", ".join(wrong) or "the same"
            print(f"{kind:30} {way:14} {found.steps_per_second:7.0f} steps/s  {words}", flush=True)
    return all_good


def main() -> None:
    """Verify the kinds that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="some of them (default: all)"
    )
    parser.add_argument(
        "--steps", type=count, default=4000, metavar="N", help="agent steps of each (default: 4000)"
    )
    options = parser.parse_args()
    if not torch.cuda.is_available():
        fail("PyTorch finds no GPU here.")
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    dqn.CudaRecorder = CountingRecorder  # type: ignore[misc]
    sys.exit(not verify(options.kinds, options.steps, "cuda"))


if __name__ == "__main__":
    main()
