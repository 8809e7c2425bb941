"""What this machine is: for a run's records, for checks before a run starts, and for `doctor`."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch

from rlagents.cores import num_cores
from rlagents.errors import UsageError

_CGROUP = Path("/sys/fs/cgroup")
_PACKAGES = (
    "rlagents",
    "torch",
    "numpy",
    "gymnasium",
    "ale-py",
    "opencv-python-headless",
    "av",
    "safetensors",
)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_commit() -> str | None:
    """Return the commit of the checkout that this package runs from, None outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None


def hardware() -> dict[str, Any]:
    """Return what results and speed depend on."""
    return {
        "system": platform.platform(),
        "cpu": cpu_name(),
        "cores": num_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def describe() -> dict[str, Any]:
    """Return what a run's config.json says about where it is trained."""
    return {"versions": versions(), "git_commit": git_commit(), "hardware": hardware()}


def difference(before: Mapping[str, Any], now: Mapping[str, Any], device: str) -> str | None:
    """Return what changes a result's last bits between two places that `describe` described.

    Returns:
        a few words on each package of another version and each processor of another kind that takes
        part; None where there is none.
    """
    parts = [("cpu", "the processor"), *([("gpu", "the GPU")] if device == "cuda" else [])]
    found = [
        f"{package} {before['versions'].get(package)} is now {version}"
        for package, version in now["versions"].items()
        if before["versions"].get(package) != version
    ]
    there, here = before.get("hardware", {}), now["hardware"]
    found += [
        f"{words} {there.get(key)} is now {here[key]}"
        for key, words in parts
        if there.get(key) != here[key]
    ]
    return "; ".join(found) or None


@functools.cache
def cpu_name() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def available_memory() -> int:
    """Return the bytes that a run can still take, with a container's limit counted in.

    What a container uses includes files that the kernel keeps in memory and gives up when asked.
    """
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (int((_CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):  # no such limit
        return free
    files = [line.split()[1] for line in lines if line.startswith(("inactive_file", "active_file"))]
    return min(free, limit - used + sum(map(int, files)))


def available_device_memory() -> int:
    """Return the bytes of the GPU's own memory that are free, or kept by PyTorch for later."""
    kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return int(torch.cuda.mem_get_info()[0]) + kept


def choose_device(device: str) -> str:
    """Return "cpu" or "cuda" for a config's `device`.

    Raises:
        UsageError: a GPU is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "--device: expected a GPU that PyTorch can use, got none. Use --device cpu, or install "
            "PyTorch for your GPU (https://pytorch.org/get-started/locally)."
        )
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def choose_threads(pictures: bool, sharing: int = 1) -> int:
    """Return how many threads a network is computed with: all cores for pictures, one for vectors.

    Small layers are done before a second thread has woken up: measured on two cores, a DQN update
    of two layers of 128 takes longer with two threads than with one.

    Args:
        pictures: whether it sees pictures.
        sharing: the networks that are computed at the same time, which share the cores.
    """
    return max(num_cores() // sharing, 1) if pictures else 1


def _keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next update, where it would hand it back every time.

    Batches and activations are blocks of a few megabytes. Getting them afresh from the system cost
    4.4 million page faults in 500 updates of Pong's network, and half of the forward passes' time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library manages memory its own way
        return
    trim_threshold, mmap_threshold = -1, -3  # numbers of glibc's malloc.h
    mallopt(trim_threshold, 1 << 30)
    mallopt(mmap_threshold, 32 << 20)  # the largest that glibc takes


def prepare_torch(threads: int, device: str) -> None:
    """Set what must be set before torch starts its threads, or first uses a GPU.

    Args:
        threads: for one network.
        device: "cpu" or "cuda".
    """
    _keep_freed_memory()
    if device == "cuda":
        # A GPU's libraries add up in whatever order comes first unless they are told not to, and
        # then no run could be resumed exactly. PyTorch's notes on reproducibility have these.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # Meant for finding mistakes.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # Off again on the CPU, whose results would depend on what ran before in this process.
    torch.use_deterministic_algorithms(device == "cuda", warn_only=True)
    # Sparse rewards let Adam's moments decay into denormals, which are many times slower.
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
