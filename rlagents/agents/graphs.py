"""CUDA graphs: kernels that a GPU repeats from a recording, in place of Python starting each anew.

A small network's update is a few hundred kernels, and a GPU is done with most of them before Python
has started the next one. A recording starts all of them at once, and computes the same to the bit,
since they are the same kernels. Python is not run again: what it decides, and every number that it
hands over, stays as it was when the recording was made. So a function that is recorded takes what
changes as tensors, and keeps what it changes in tensors that stay where they are.

Source: PyTorch's notes on CUDA semantics, "CUDA Graphs".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
TensorFunction = Callable[[Mapping[str, Tensor]], Tensors]

# Calls that are made as they come, since the first ones make what later ones only change: the
# optimizer's averages, and the workspaces of the GPU's libraries. PyTorch's notes have three.
_REHEARSALS = 3


class Recorder(Protocol):
    """Makes recordings on a device."""

    def rehearse(self, function: Callable[[], Tensors]) -> Tensors:
        """Call a function in the way that it will be recorded in."""

    def record(self, function: Callable[[], Tensors]) -> tuple[Callable[[], None], Tensors]:
        """Record a function without computing anything.

        Returns:
            what computes it, and the tensors that hold the results afterwards.
        """


class CudaRecorder:
    """Makes CUDA graphs on the GPU at hand, on a stream of its own; one at a time in a process."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def rehearse(self, function: Callable[[], Tensors]) -> Tensors:
        """Call a function on the stream that it will be recorded on."""
        here = torch.cuda.current_stream()
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            results = function()
        here.wait_stream(self._stream)
        # Memory of the other stream, which may give it to somebody else when it is free again.
        return {name: tensor.clone() for name, tensor in results.items()}

    def record(self, function: Callable[[], Tensors]) -> tuple[Callable[[], None], Tensors]:
        """Record a function."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            results = function()
        return graph.replay, results


class Recorded:
    """Calls a function of tensors, which is recorded after its first calls.

    Args:
        recorder: makes the recording.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._calls = 0
        self._replay: Callable[[], None] | None = None
        self._inputs: Tensors = {}  # where the recording reads
        self._results: Tensors = {}  # and where it writes

    def __call__(self, function: TensorFunction, inputs: Mapping[str, Tensor]) -> Tensors:
        """Return what the function returns for these tensors, which stay as they are.

        Args:
            function: from tensors by name to new tensors by name; the same at each call.
            inputs: of the same names, shapes and dtypes at each call.
        """
        if self._calls < _REHEARSALS:
            self._calls += 1
            return self._recorder.rehearse(lambda: function(inputs))
        if self._replay is None:
            self._inputs = {name: tensor.clone() for name, tensor in inputs.items()}
            self._replay, self._results = self._recorder.record(lambda: function(self._inputs))
        for name, tensor in inputs.items():
            assert tensor.shape == self._inputs[name].shape, name
            self._inputs[name].copy_(tensor)
        self._replay()
        return {name: tensor.clone() for name, tensor in self._results.items()}

    def forget(self) -> None:
        """Record anew, since tensors that the function uses have been replaced by others."""
        self._calls = 0
        self._replay = None
        self._inputs, self._results = {}, {}
