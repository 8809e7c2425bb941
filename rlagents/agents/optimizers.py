"""Optimizers: one that PyTorch does not have, and Adam without PyTorch's compiler."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


class _Uncompiled(torch.optim.Optimizer):
    """What PyTorch's optimizers do, without its compiler.

    Some of their methods tell the compiler not to look into them, and import it for that when they
    are first called: eight hundred modules, a second of processor time at the start of every
    training, which compiles nothing. Here are the functions that those methods wrap.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


class Adam(_Uncompiled, torch.optim.Adam):
    """`torch.optim.Adam` (Kingma and Ba 2015), to the bit, without importing the compiler."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


class CenteredRMSprop(_Uncompiled):
    """RMSProp divided by the standard deviation of the gradient: Graves (2013), Eq. 38-41.

    As Mnih et al. (2015) use it (Extended Data Table 1; `NeuralQLearner.lua` of their code):

        m <- decay m + (1 - decay) g
        v <- decay v + (1 - decay) g^2
        w <- w - learning_rate g / sqrt(v - m^2 + epsilon)

    `torch.optim.RMSprop(centered=True)` adds epsilon outside of the root, which makes another
    floor of it: 0.01 in place of 0.1 for the paper's 0.01. The "gradient momentum" of the paper's
    table is the decay of m; the step has no momentum.

    A step changes nothing where a tensor `found_inf` is set to 1, as a fused Adam's does not.

    Args:
        parameters: to be changed.
        lr: learning rate, a number or a tensor of one.
        decay: of both averages.
        epsilon: added to the variance of the gradient.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float | Tensor,
        decay: float,
        epsilon: float,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "decay": decay, "epsilon": epsilon})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step along the gradients at hand."""
        assert closure is None
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        for group in self.param_groups:
            keep, epsilon = group["decay"], group["epsilon"]
            decay: float | Tensor = keep
            if found_inf is not None:
                decay = torch.full_like(found_inf, keep).masked_fill_(found_inf > 0, 1)
            for parameter in group["params"]:
                gradient: Tensor | None = parameter.grad
                if gradient is None:
                    continue
                if found_inf is not None:
                    gradient.masked_fill_(found_inf > 0, 0)
                state = self.state[parameter]
                if not state:
                    state["mean"] = torch.zeros_like(parameter)
                    state["square"] = torch.zeros_like(parameter)
                mean: Tensor = state["mean"].mul_(decay).add_(gradient, alpha=1 - keep)
                square: Tensor = state["square"].mul_(decay)
                square.addcmul_(gradient, gradient, value=1 - keep)
                # Rounding can take the variance of large, steady gradients below zero.
                variance = (square - mean * mean).clamp_min_(0)
                deviation, rate = variance.add_(epsilon).sqrt_(), group["lr"]
                if isinstance(rate, Tensor):
                    parameter.sub_((gradient / deviation).mul_(rate))
                else:
                    parameter.addcdiv_(gradient, deviation, value=-rate)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the step size of all parameters; one that is a tensor stays where it is."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
