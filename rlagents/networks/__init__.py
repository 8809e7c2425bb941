"""Networks: a torso that sees and a head that decides."""

from rlagents.networks.factory import make_torso, resolve_precision
from rlagents.networks.heads import CategoricalQNetwork, PolicyNetwork, PolicyValueNetwork, QNetwork
from rlagents.networks.noisy import draw_noise, has_noise
from rlagents.networks.torsos import NetworkConfig

__all__ = [
    "CategoricalQNetwork",
    "NetworkConfig",
    "PolicyNetwork",
    "PolicyValueNetwork",
    "QNetwork",
    "draw_noise",
    "has_noise",
    "make_torso",
    "resolve_precision",
]
