"""The network of Mnih et al., "Human-level control through deep reinforcement learning" (2015)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from rlagents.networks.convolutions import FirstConv2d
from rlagents.networks.pictures import PictureTorso, in_channels
from rlagents.networks.torsos import initialize


class NatureCNN(PictureTorso):
    """The convolutions of the paper's Methods, "Model architecture".

    Args:
        shape: (C, H, W) of the pictures.
        hidden_sizes: of the fully connected layers; the paper's is one of 512.
        width: multiplies the paper's 32, 64 and 64 channels.
        center_pictures, standardize_pictures, difference_frames: as in `PictureTorso`.
        dtype, layer_norm, noisy: likewise.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        hidden_sizes: Sequence[int] = (512,),
        *,
        width: float = 1.0,
        center_pictures: bool = False,
        standardize_pictures: bool = False,
        difference_frames: bool = False,
        dtype: torch.dtype = torch.float32,
        layer_norm: bool = False,
        noisy: bool = False,
    ) -> None:
        first, second, third = (round(number * width) for number in (32, 64, 64))
        convolutions = nn.Sequential(
            FirstConv2d(in_channels(shape, difference_frames), first, kernel_size=8, stride=4),
            nn.ReLU(),
            nn.Conv2d(first, second, kernel_size=4, stride=2),
            nn.ReLU(),
            nn.Conv2d(second, third, kernel_size=3, stride=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        super().__init__(
            convolutions,
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
