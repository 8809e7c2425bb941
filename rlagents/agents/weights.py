"""Taking over trained weights: whether they fit a network, and putting them there."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def take_over(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a network the weights of another one.

    Raises:
        ValueError: they do not fit; the first tensor that does not is named, with both shapes.
    """
    own = network.state_dict()
    for name in [*own, *sorted(set(tensors) - set(own))]:
        here, there = own.get(name), tensors.get(name)
        if here is None or there is None or here.shape != there.shape:
            raise ValueError(f"{name} is {_shape(there)} there and {_shape(here)} here")
    network.load_state_dict(dict(tensors))


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else str(list(tensor.shape))
