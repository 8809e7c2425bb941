"""Noisy layers: Fortunato et al., "Noisy Networks for Exploration" (2018), Section 3.

A layer's weights are learned as means and standard deviations, and noise of the factorised kind
moves them about (Eq. 10 and 11):

    w_ij = mu_ij + sigma_ij f(e_i) f(e_j),    b_j = mu_j + sigma_j f(e_j),    f(x) = sgn(x) sqrt|x|

Differences from the paper: the means of hidden layers begin as those of every other layer of the
torso (orthogonal); those of the heads begin as the paper's, uniform in [-1/sqrt(p), 1/sqrt(p)].
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

SIGMA_0 = 0.5  # Section 3.2


class NoisyLinear(nn.Linear):
    """A linear layer with factorised Gaussian noise: [B, p] -> [B, q] float32.

    `weight` and `bias` are the means. In training mode a layer computes with the noise that was
    drawn last (with none before the first draw), in evaluation mode with the means alone.
    """

    weight_sigma: nn.Parameter
    bias_sigma: nn.Parameter
    noise_in: Tensor
    noise_out: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        sigma = SIGMA_0 / math.sqrt(in_features)
        self.weight_sigma = nn.Parameter(torch.full((out_features, in_features), sigma))
        self.bias_sigma = nn.Parameter(torch.full((out_features,), sigma))
        # Drawn afresh for every use, so there is nothing in it to save.
        self.register_buffer("noise_in", torch.zeros(in_features), persistent=False)
        self.register_buffer("noise_out", torch.zeros(out_features), persistent=False)

    def draw_noise(self, generator: torch.Generator) -> None:
        """Draw new noise; the generator must be on the layer's device."""
        self.noise_in.copy_(_factor(self.in_features, generator))  # in place: a recording reads it
        self.noise_out.copy_(_factor(self.out_features, generator))

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output: [B, p] -> [B, q]."""
        if not self.training:
            return super().forward(input)
        weight = self.weight + self.weight_sigma * torch.outer(self.noise_out, self.noise_in)
        return F.linear(input, weight, self.bias + self.bias_sigma * self.noise_out)


def linear(in_features: int, out_features: int, *, noisy: bool) -> nn.Linear:
    """Return a fully connected layer; the same seed gives it the same means, noisy or not."""
    return NoisyLinear(in_features, out_features) if noisy else nn.Linear(in_features, out_features)


def has_noise(network: nn.Module) -> bool:
    """Tell whether any layer of a network is noisy."""
    return any(isinstance(module, NoisyLinear) for module in network.modules())


def draw_noise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw new noise for every noisy layer of a network, in the order of its layers."""
    for module in network.modules():
        if isinstance(module, NoisyLinear):
            module.draw_noise(generator)


def _factor(size: int, generator: torch.Generator) -> Tensor:
    noise = torch.randn(size, generator=generator, device=generator.device)
    return noise.sign() * noise.abs().sqrt()
