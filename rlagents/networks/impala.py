"""The residual network of Espeholt et al., "IMPALA" (2018), Figure 3, right, without its LSTM.

    section(c):  conv 3x3 of c channels, max-pool 3x3 with stride 2, residual block, residual block
    block(x):    x + conv 3x3(ReLU(conv 3x3(ReLU(x))))
    network:     section(16), section(32), section(32), ReLU, fully connected 256, ReLU

Differences from the paper:
- Rewards, last actions and instructions are no inputs, and there is no LSTM behind the features.
- The paper does not tell its initial weights. They are orthogonal here, and the last convolution of
  each block begins at zero, so that a block begins as the identity (Goyal et al. 2017, Section
  5.1, for the last scale of a block): summed up, six blocks would multiply the variance by 64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rlagents.networks.pictures import PictureTorso, in_channels
from rlagents.networks.torsos import initialize


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut: [B, C, H, W] -> [B, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.last = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the input with the convolutions' answer added."""
        hidden = self.first(pictures.relu())
        change: Tensor = self.last(hidden.relu())
        return pictures + change


class ImpalaResNet(PictureTorso):
    """Three sections of a convolution, a pooling and two residual blocks.

    Args:
        shape: (C, H, W) of the pictures.
        hidden_sizes: of the fully connected layers; the paper's is one of 256.
        width: multiplies the paper's 16, 32 and 32 channels.
        center_pictures, standardize_pictures, difference_frames: as in `PictureTorso`.
        dtype, layer_norm, noisy: likewise.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        hidden_sizes: Sequence[int] = (256,),
        *,
        width: float = 1.0,
        center_pictures: bool = False,
        standardize_pictures: bool = False,
        difference_frames: bool = False,
        dtype: torch.dtype = torch.float32,
        layer_norm: bool = False,
        noisy: bool = False,
    ) -> None:
        channels = in_channels(shape, difference_frames)
        layers: list[nn.Module] = []
        for out_channels in (round(number * width) for number in (16, 32, 32)):
            layers += [
                nn.Conv2d(channels, out_channels, kernel_size=3, padding=1),
                nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
                ResidualBlock(out_channels),
                ResidualBlock(out_channels),
            ]
            channels = out_channels
        super().__init__(
            nn.Sequential(*layers, nn.ReLU(), nn.Flatten()),
            shape,
            hidden_sizes,
            center_pictures=center_pictures,
            standardize_pictures=standardize_pictures,
            difference_frames=difference_frames,
            dtype=dtype,
            layer_norm=layer_norm,
            noisy=noisy,
        )
        self.convolutions.apply(initialize)
        for module in self.convolutions:
            if isinstance(module, ResidualBlock):
                nn.init.zeros_(module.last.weight)
