"""Torsos: from an observation to features. Pictures come as uint8 and are scaled in here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import gymnasium as gym
import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from rlagents.errors import UsageError
from rlagents.tables import Int, Table

Width = Annotated[Int, Field(ge=1, le=65_536)]


class NetworkConfig(Table):
    """`[network]`: what turns observations into features."""

    torso: Literal["mlp", "nature-cnn"] = "mlp"
    """mlp for vectors, nature-cnn for pictures."""
    hidden_sizes: Annotated[list[Width], Field(max_length=16)] | None = None
    """Widths of the fully connected layers; mlp [128, 128], nature-cnn [512]."""
    width: Annotated[float, Field(ge=0.125, le=8)] = 1.0
    """nature-cnn: multiplies its 32, 64 and 64 channels."""
    center_pictures: bool = False
    """Subtract its mean brightness from each picture, so that a bright background adds nothing."""
    difference_frames: bool = False
    """Subtract each frame of a stack from the next, so that the network sees what moved."""
    dueling: bool = False
    """Action values from a value and advantages of their own (dqn)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of convolutions; all that follows them is float32. auto: bfloat16 where it is fast."""


class MLP(nn.Module):
    """Fully connected layers with ReLU: [B, D] -> [B, features]."""

    def __init__(self, in_features: int, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden_sizes:
            layers += [nn.Linear(in_features, width), nn.ReLU()]
            in_features = width
        self.layers = nn.Sequential(*layers)
        self.layers.apply(_initialize)
        self.out_features = in_features

    def forward(self, observation: Tensor) -> Tensor:
        """Return features: [B, D] float32 -> [B, features] float32."""
        features: Tensor = self.layers(observation.flatten(1))
        return features


class NatureCNN(nn.Module):
    """The convolutions of Mnih et al. (2015), Methods, "Model architecture".

    Args:
        shape: (C, H, W) of the pictures.
        hidden_sizes: of the fully connected layers; the paper's is one of 512.
        width: multiplies the paper's 32, 64 and 64 channels.
        center_pictures: subtract its mean brightness from each picture. A bright background is
            common to all that the network sees; early gradients against it can push every filter
            of the first layer below zero for good.
        difference_frames: give the convolutions C - 1 differences in place of C frames.
        dtype: what the convolutions compute in; what follows is float32.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        hidden_sizes: Sequence[int] = (512,),
        *,
        width: float = 1.0,
        center_pictures: bool = False,
        difference_frames: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        channels = shape[0] - difference_frames
        self._center_pictures = center_pictures
        self._difference_frames = difference_frames
        self._dtype = dtype
        first, second, third = (round(number * width) for number in (32, 64, 64))
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, first, kernel_size=8, stride=4),
            nn.ReLU(),
            nn.Conv2d(first, second, kernel_size=4, stride=2),
            nn.ReLU(),
            nn.Conv2d(second, third, kernel_size=3, stride=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        with torch.no_grad():
            flat = self.convolutions(torch.zeros(1, channels, *shape[1:])).shape[1]
        self.fully_connected = MLP(flat, hidden_sizes)
        self.out_features = self.fully_connected.out_features
        self.convolutions.apply(_initialize)

    def forward(self, observation: Tensor) -> Tensor:
        """Return features: [B, C, H, W] uint8 -> [B, features] float32."""
        pixels = observation.to(self._dtype)  # [B, C, H, W], exact in bfloat16 too
        if self._difference_frames:
            pixels = pixels[:, 1:] - pixels[:, :-1]  # [B, C - 1, H, W]
        scaled = pixels / 255
        if self._center_pictures:
            scaled = scaled - scaled.mean(dim=(2, 3), keepdim=True)
        lower = self._dtype != torch.float32
        with torch.autocast(observation.device.type, self._dtype, enabled=lower):
            pictures = self.convolutions(scaled)
        features: Tensor = self.fully_connected(pictures.float())  # [B, features]
        return features


def _initialize(module: nn.Module) -> None:
    """Give a layer orthogonal weights (Saxe et al. 2014), scaled to keep the variance through ReLU.

    With PyTorch's own smaller weights the first thousand updates of Pong went by before a
    difference between two pictures reached the output.
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.orthogonal_(module.weight, gain=nn.init.calculate_gain("relu"))
        assert module.bias is not None
        nn.init.zeros_(module.bias)


def resolve_precision(config: NetworkConfig, device: str) -> NetworkConfig:
    """Return `config` with "auto" replaced by what this machine is fast at.

    bfloat16 where the processor multiplies it in hardware (AVX512-BF16 or AMX: measured 1.7 times
    as fast as float32 for the Nature CNN; slower elsewhere) or on a GPU from Ampere on.
    """
    if config.precision != "auto":
        return config
    if config.torso == "mlp":
        fast = False
    elif device == "cuda":
        fast = torch.cuda.get_device_capability() >= (8, 0)
    else:
        # Older releases of torch do not tell; then float32 is the safe answer.
        processor: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        fast = bool(processor.get("avx512_bf16") or processor.get("amx_bf16"))
    return config.model_copy(update={"precision": "bfloat16" if fast else "float32"})


def make_torso(config: NetworkConfig, observation_space: gym.spaces.Box) -> MLP | NatureCNN:
    """Return the torso that a resolved config asks for.

    Raises:
        UsageError: it does not fit the observations.
    """
    shape = observation_space.shape
    if config.torso == "mlp":
        if config.difference_frames:
            raise UsageError('[network] difference_frames: needs torso = "nature-cnn".')
        if config.center_pictures:
            raise UsageError('[network] center_pictures: needs torso = "nature-cnn".')
        if config.width != 1:
            raise UsageError('[network] width: needs torso = "nature-cnn".')
        if config.precision == "bfloat16":
            raise UsageError('[network] precision: torso = "mlp" computes in float32.')
        if observation_space.dtype == np.uint8 and len(shape) != 3:
            raise UsageError(
                f'[network] torso: "mlp" takes vectors of float32, but the environment shows bytes '
                f"of shape {list(shape)}; let it return float32."
            )
        if observation_space.dtype == np.uint8:
            raise UsageError(
                f'[network] torso: "mlp" takes vectors, but the environment shows pictures of '
                f'shape {list(shape)}; set torso = "nature-cnn".'
            )
        sizes = [128, 128] if config.hidden_sizes is None else config.hidden_sizes
        return MLP(int(np.prod(shape)), sizes)
    if len(shape) != 3 or observation_space.dtype != np.uint8:
        raise UsageError(
            f'[network] torso: "nature-cnn" takes pictures, but the environment shows vectors of '
            f'shape {list(shape)}; set torso = "mlp".'
        )
    if min(shape[1:]) < 36:
        raise UsageError(
            f'[network] torso: "nature-cnn" needs pictures of 36 by 36 or more, got '
            f"{shape[1]} by {shape[2]}; set a larger [env] frame_size."
        )
    if config.difference_frames and shape[0] < 2:
        raise UsageError(
            "[network] difference_frames: needs two frames to subtract; set [env] frame_stack = 2."
        )
    return NatureCNN(
        (shape[0], shape[1], shape[2]),
        (512,) if config.hidden_sizes is None else config.hidden_sizes,
        width=config.width,
        center_pictures=config.center_pictures,
        difference_frames=config.difference_frames,
        dtype=torch.bfloat16 if config.precision == "bfloat16" else torch.float32,
    )
