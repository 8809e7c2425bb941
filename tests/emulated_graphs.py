"""CUDA graphs on the CPU: operations that are repeated from a recording as a GPU repeats kernels.

What a recording is blind to is the same: Python is not run again, numbers that Python handed over
stay, and every operation reads and writes the memory of the first time. What waits for the GPU is
refused, as CUDA refuses it. Streams, and what only a GPU's own operations do, are not emulated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rlagents.agents.graphs import Tensors

# Reading a number, making a tensor of Python's numbers, and results whose size is found out: each
# waits for the GPU or copies from the CPU's memory, which ends a recording.
_NOT_RECORDED = {
    *("_local_scalar_dense", "equal", "lift_fresh"),
    *("masked_select", "nonzero", "_unique2", "bincount", "repeat_interleave"),
}


class NotRecordedError(RuntimeError):
    """An operation that CUDA would not record."""


@dataclass
class _Operation:
    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: list[Tensor]  # which nothing else may reuse the memory of

    def repeat(self) -> None:
        given = {_place(tensor) for tensor in _tensors((self.args, self.kwargs))}
        again = _tensors(self.function(*self.args, **self.kwargs))
        for before, now in zip(self.results, again, strict=True):
            if _place(before) not in given:  # else it is a view, or was changed in place
                before.copy_(now)


class _Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[_Operation] = []

    def __torch_dispatch__(  # type: ignore[no-untyped-def]
        self, func, types, args=(), kwargs=None
    ) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        masks = name.startswith("index") and any(
            tensor.dtype == torch.bool for tensor in _tensors(args[1:2])
        )
        draws = kwargs.get("generator") is not None  # its state lies with Python
        if name in _NOT_RECORDED or masks or draws:
            raise NotRecordedError(name)
        results = func(*args, **kwargs)
        self.operations.append(_Operation(func, args, kwargs, _tensors(results)))
        return results


class EmulatedRecorder:
    """Records what is computed on the CPU.

    Unlike on a GPU, what is recorded is computed, and the first repetition is left out for it.
    """

    def __init__(self) -> None:
        self.rehearsed = 0
        self.recorded = 0
        self.repeated = 0

    def rehearse(self, function: Callable[[], Tensors]) -> Tensors:
        self.rehearsed += 1
        return function()

    def record(self, function: Callable[[], Tensors]) -> tuple[Callable[[], None], Tensors]:
        self.recorded += 1
        with _Recording() as recording:
            results = function()
        first = True

        @torch.no_grad()
        def repeat() -> None:
            nonlocal first
            self.repeated += 1
            if not first:
                for operation in recording.operations:
                    operation.repeat()
            first = False

        return repeat, results


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
