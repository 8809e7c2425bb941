"""Agents' state as files: safetensors for tensors, JSON for the rest, nothing that executes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from rlagents.files import read_json

Module = TypeVar("Module", bound=nn.Module)
_MOST_COUNTED = 1 << 60
_LARGEST_HEADER = 1 << 20  # bytes; that of a network of hundreds of layers has some ten thousand


def save_module(module: nn.Module, path: Path) -> None:
    """Write a module's parameters and buffers to a safetensors file."""
    save_tensors(module.state_dict(), path)


def load_module(module: nn.Module, path: Path) -> None:
    """Read back what `save_module` wrote.

    Raises:
        ValueError: the file is damaged, or belongs to another network.
    """
    try:
        module.load_state_dict(load_tensors(path))
    except RuntimeError as error:
        raise ValueError(f"{path.name}: {error}") from error


def load_new_module(make: Callable[[], Module], path: Path) -> Module:
    """Return the module that `make` makes, with what `save_module` wrote.

    It is planned first, without memory: a config that asks for more than the file holds gets none.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is damaged, or belongs to another network.
    """
    with torch.device("meta"):
        planned = make()
    # What comes with the package may hold half as many bytes for a number as the network.
    least = sum(t.numel() * min(t.element_size(), 2) for t in planned.state_dict().values())
    if least > path.stat().st_size:
        raise ValueError(f"{path.name} is too short for the network of the config")
    module = make()
    load_module(module, path)
    return module


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors to a safetensors file.

    Raises:
        OSError: it cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path.write_bytes(save(plain))  # the library's own writing names a full disk as its own error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read back what `save_tensors` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is damaged.
    """
    # The library checks that the header's shapes and places fit the file, but first parses it.
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > _LARGEST_HEADER:
        raise ValueError(f"{path.name}: a header of {length:,} bytes")
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(f"{path.name}: {error}") from error


def save_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Write an optimizer's state (not its settings) to a safetensors file."""
    state: dict[int, dict[str, Tensor]] = optimizer.state_dict()["state"]
    save_tensors(
        {
            f"{index}.{name}": tensor
            for index, values in state.items()
            for name, tensor in values.items()
        },
        path,
    )


def load_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Read back what `save_optimizer` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is damaged, or belongs to another network.
    """
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in load_tensors(path).items():
        index, name = key.split(".", 1)
        if not index.isdecimal() or int(index) >= len(parameters):
            raise ValueError(f"{path.name}: there is no parameter {index:.20}")
        if tensor.numel() > 1 and tensor.shape != parameters[int(index)].shape:
            raise ValueError(f"{path.name}: {key:.80} has the shape {list(tensor.shape)}")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def generator_state(generator: np.random.Generator) -> dict[str, Any]:
    """Return a numpy generator's state as a JSON object."""
    return dict(generator.bit_generator.state)


def set_generator_state(generator: np.random.Generator, state: dict[str, Any]) -> None:
    """Set a numpy generator to a state that `generator_state` returned."""
    generator.bit_generator.state = state


def torch_generator_state(generator: torch.Generator) -> str:
    """Return a torch generator's state as text for a JSON object."""
    return bytes(generator.get_state().tolist()).hex()


def set_torch_generator_state(generator: torch.Generator, state: str) -> None:
    """Set a torch generator to a state that `torch_generator_state` returned.

    Raises:
        ValueError: it is not the state of such a generator.
    """
    try:
        generator.set_state(torch.tensor(list(bytes.fromhex(state)), dtype=torch.uint8))
    except RuntimeError as error:
        raise ValueError(f"the state of the noise: {error}") from error


def save_json(state: dict[str, Any], path: Path) -> None:
    """Write counters and generator states."""
    path.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def load_json(path: Path) -> dict[str, Any]:
    """Read back what `save_json` wrote.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a JSON object.
    """
    return read_json(path)


def count_in(state: dict[str, Any], key: str) -> int:
    """Return a number of something, 0 or more, from what `load_json` read.

    Raises:
        ValueError: there is none under that key.
    """
    value = state.get(key)
    if type(value) is not int or not 0 <= value < _MOST_COUNTED:
        raise ValueError(f"{key}: expected a whole number, 0 or more, got {value!r:.80}")
    return value
