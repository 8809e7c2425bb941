"""Updates that are not finite: they are never made, and the batch of the first one is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from rlagents.agents.base import Fault


class Guard:
    """Looks at each update before it is made; after the first that is not finite, none is made.

    On the CPU a number can be read as soon as it is computed. On a GPU reading one would wait for
    all that is under way, so there the verdict stays a tensor: what makes the update takes it as it
    is, and somebody reads it at the next logging interval.

    Args:
        device: where losses and gradients are.
        read: whether to read each verdict at once; where that costs nothing, if None.
    """

    def __init__(self, device: torch.device, *, read: bool | None = None) -> None:
        self._read = device.type == "cpu" if read is None else read
        self._skip: bool | Tensor = False if self._read else torch.zeros((), device=device)
        self._loss = torch.zeros((), device=device)  # of the update that was not finite
        self._norm = torch.zeros((), device=device)
        self._batch: dict[str, Tensor] = {}

    @property
    def skips(self) -> bool | Tensor:
        """Whether updates are no longer made; as a tensor, it is changed in place."""
        return self._skip

    def look(
        self, loss: Tensor, norm: Tensor, batch: Callable[[], Mapping[str, Tensor]]
    ) -> bool | Tensor:
        """Return whether an update must not be made: 1.0 or 0.0 where it stays a tensor.

        Args:
            loss: the update's.
            norm: of its gradients, all of them.
            batch: returns what they were computed from, to be kept if they are not finite.
        """
        if not isinstance(self._skip, Tensor):
            if not self._skip and not (math.isfinite(loss) and math.isfinite(norm)):
                self._skip = True
                self._loss, self._norm = loss.clone(), norm.clone()
                self._batch = {name: tensor.clone() for name, tensor in batch().items()}
            return self._skip
        # All of it in place: a recording of the update writes where it wrote the first time.
        bad = ~(torch.isfinite(loss) & torch.isfinite(norm))
        first = bad & (self._skip == 0)
        self._loss.copy_(torch.where(first, loss, self._loss))
        self._norm.copy_(torch.where(first, norm, self._norm))
        for name, tensor in batch().items():
            if name not in self._batch:
                self._batch[name] = torch.zeros_like(tensor)
            self._batch[name].copy_(torch.where(first, tensor, self._batch[name]))
        self._skip.copy_(torch.maximum(self._skip, bad.to(self._skip.dtype)))
        return self._skip

    def fault(self) -> Fault | None:
        """Return what was not finite, None as long as all was; on a GPU this waits."""
        if not bool(self._skip):
            return None
        return Fault(float(self._loss), float(self._norm), self._batch)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Shorten gradients to a length, 0 for as they are; return the length that they had."""
    if max_norm > 0:
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    return torch.nn.utils.get_total_norm(
        [parameter.grad for parameter in parameters if parameter.grad is not None]
    )


def step_unless(skip: bool | Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer take a step unless `Guard.look` says otherwise; then nothing of it changes.

    A tensor is given as gradient scalers give theirs: fused Adam leaves parameters, averages and
    step count alone where `found_inf` is 1, and so does `CenteredRMSprop`.
    """
    if isinstance(skip, Tensor):
        optimizer.found_inf = skip  # type: ignore[attr-defined]
    elif skip:
        return
    optimizer.step()
