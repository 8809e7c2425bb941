"""A first convolution whose gradient is computed the fast way on processors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

# oneDNN (3.12, in torch 2.13) has a kernel of its own for the gradient of weights where there are
# 3 channels, as in colour pictures; any other number below 8 costs as much as 8. For 64 pictures of
# 2 by 64 by 64 and 16 filters of 8 by 8, on one core with AVX2: 1.5 ms with 3 channels, 4.3 with 2.
_FAST_CHANNELS = 3


class FirstConv2d(nn.Conv2d):
    """`nn.Conv2d` for [B, C, H, W] pictures, which need no gradient of their own.

    Args:
        in_channels: C.
        out_channels: of the output.
        kernel_size: rows and columns, or one number for both.
        stride: likewise.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int],
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride)

    def forward(self, input: Tensor) -> Tensor:
        """Return what `nn.Conv2d` returns."""
        faster = (
            input.device.type == "cpu"
            and input.dtype == torch.float32
            and self.in_channels < _FAST_CHANNELS
            and not input.requires_grad
            and not torch.is_autocast_enabled("cpu")
        )
        if not faster:
            return super().forward(input)
        convolve: Callable[..., Tensor] = _Convolve.apply
        return convolve(input, self.weight, self.bias, self.stride)


class _Convolve(torch.autograd.Function):
    """A convolution that takes its weights' gradient with an empty channel more."""

    @staticmethod
    def forward(
        ctx: Any, pictures: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(pictures, weight)
        ctx.stride = stride
        return F.conv2d(pictures, weight, bias, stride)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, Tensor, None]:
        pictures, weight = ctx.saved_tensors
        channels = pictures.shape[1]
        missing = (0, 0, 0, 0, 0, _FAST_CHANNELS - channels)  # after the last channel
        gradient: Tensor = conv2d_weight(  # type: ignore[no-untyped-call]
            F.pad(pictures, missing),
            (len(weight), _FAST_CHANNELS, *weight.shape[2:]),
            gradients[0],
            stride=ctx.stride,
        )
        return None, gradient[:, :channels], gradients[0].sum(dim=(0, 2, 3)), None
