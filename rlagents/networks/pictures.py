"""What the torsos of pictures share: pixels come as uint8 and are scaled, and centred, in here."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rlagents.networks.torsos import MLP

_LEAST_DEVIATION = 0.01  # a picture with less is taken for an empty one, and its noise stays small


class PictureTorso(nn.Module):
    """Convolutions over prepared pictures, then fully connected layers: [B, C, H, W] uint8.

    Args:
        convolutions: from pictures [B, `in_channels`, H, W] to [B, any number].
        shape: (C, H, W) of the pictures.
        hidden_sizes: of the fully connected layers.
        center_pictures: subtract its mean brightness from each picture. A bright background is
            common to all that the network sees; early gradients against it can push every filter
            of the first layer below zero for good.
        standardize_pictures: the same for each frame or colour, and divide by the standard
            deviation that is left. Where small things move over a plain background, without it the
            convolutions are given a standard deviation of 0.03 (Pong), far from the 1 that their
            initial weights are scaled for.
        difference_frames: give the convolutions C - 1 differences in place of C frames.
        dtype: what the convolutions compute in; what follows is float32.
        layer_norm, noisy: of the fully connected layers, as in `MLP`.
    """

    def __init__(
        self,
        convolutions: nn.Sequential,
        shape: tuple[int, int, int],
        hidden_sizes: Sequence[int],
        *,
        center_pictures: bool = False,
        standardize_pictures: bool = False,
        difference_frames: bool = False,
        dtype: torch.dtype = torch.float32,
        layer_norm: bool = False,
        noisy: bool = False,
    ) -> None:
        super().__init__()
        self._center_pictures = center_pictures or standardize_pictures
        self._standardize_pictures = standardize_pictures
        self._difference_frames = difference_frames
        self._dtype = dtype
        self.convolutions = convolutions
        with torch.no_grad():
            picture = torch.zeros(1, in_channels(shape, difference_frames), *shape[1:])
            flat = self.convolutions(picture).shape[1]
        self.fully_connected = MLP(flat, hidden_sizes, layer_norm=layer_norm, noisy=noisy)
        self.out_features = self.fully_connected.out_features

    def forward(self, observation: Tensor) -> Tensor:
        """Return features: [B, C, H, W] uint8 -> [B, features] float32."""
        pixels = observation.to(self._dtype)  # [B, C, H, W], exact in bfloat16 too
        if self._difference_frames:
            pixels = pixels[:, 1:] - pixels[:, :-1]  # [B, C - 1, H, W]
        pixels /= 255  # in place, as below: another copy would take longer than the division
        if self._center_pictures:
            pixels -= pixels.mean(dim=(2, 3), keepdim=True)
        if self._standardize_pictures:
            # torch.std computes the same, and took 50 times as long.
            deviation = torch.linalg.vector_norm(pixels, dim=(2, 3), keepdim=True)  # [B, C, 1, 1]
            deviation /= math.sqrt(pixels.shape[2] * pixels.shape[3])
            pixels /= deviation.clamp_(min=_LEAST_DEVIATION)
        lower = self._dtype != torch.float32
        with torch.autocast(observation.device.type, self._dtype, enabled=lower):
            pictures = self.convolutions(pixels)
        features: Tensor = self.fully_connected(pictures.float())  # [B, features]
        return features


def in_channels(shape: tuple[int, int, int], difference_frames: bool) -> int:
    """Return how many channels the convolutions are given."""
    return shape[0] - difference_frames
