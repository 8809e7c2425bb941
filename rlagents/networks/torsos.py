"""Torsos of vectors, and what `[network]` says about torsos of either kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from rlagents.networks.noisy import linear
from rlagents.tables import Int, Table

Width = Annotated[Int, Field(ge=1, le=65_536)]


class NetworkConfig(Table):
    """`[network]`: what turns observations into features."""

    torso: Literal["mlp", "nature-cnn", "impala-resnet"] = "mlp"
    """mlp for vectors; nature-cnn, or the deeper and slower impala-resnet, for pictures."""
    hidden_sizes: Annotated[list[Width], Field(max_length=16)] | None = None
    """Of the fully connected layers; mlp [128, 128], nature-cnn [512], impala-resnet [256]."""
    width: Annotated[float, Field(ge=0.125, le=8)] = 1.0
    """Multiplies the channels: nature-cnn's 32, 64 and 64, impala-resnet's 16, 32 and 32."""
    center_pictures: bool = False
    """Subtract its mean brightness from each picture, so that a bright background adds nothing."""
    standardize_pictures: bool = False
    """Center each frame and divide by its standard deviation, so that small things count."""
    difference_frames: bool = False
    """Subtract each frame of a stack from the next, so that the network sees what moved."""
    layer_norm: bool = False
    """Normalise the output of each fully connected layer of the torso, before its ReLU."""
    dueling: bool = False
    """Action values from a value and advantages of their own (dqn)."""
    noisy: bool = False
    """Explore by learned noise on fully connected layers and heads (dqn), best without epsilon."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of convolutions; all that follows them is float32. auto: bfloat16 where it is fast."""


class MLP(nn.Module):
    """Fully connected layers with ReLU: [B, D] -> [B, features].

    Args:
        in_features: D.
        hidden_sizes: of the layers.
        layer_norm: normalise what a layer computes before it goes through the ReLU (Ba et al. 2016,
            Eq. 4), with a gain and a bias that are learned.
        noisy: make the layers noisy ones.
    """

    def __init__(
        self,
        in_features: int,
        hidden_sizes: Sequence[int],
        *,
        layer_norm: bool = False,
        noisy: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden_sizes:
            layers.append(linear(in_features, width, noisy=noisy))
            if layer_norm:
                layers.append(nn.LayerNorm(width))
            layers.append(nn.ReLU())
            in_features = width
        self.layers = nn.Sequential(*layers)
        self.layers.apply(initialize)
        self.out_features = in_features

    def forward(self, observation: Tensor) -> Tensor:
        """Return features: [B, D] float32 -> [B, features] float32."""
        features: Tensor = self.layers(observation.flatten(1))
        return features


def initialize(module: nn.Module) -> None:
    """Give a layer orthogonal weights (Saxe et al. 2014), scaled to keep the variance through ReLU.

    With PyTorch's own smaller weights the first thousand updates of Pong went by before a
    difference between two pictures reached the output.
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.orthogonal_(module.weight, gain=nn.init.calculate_gain("relu"))
        assert module.bias is not None
        nn.init.zeros_(module.bias)
