"""Heads: from features to action values or probabilities, always in float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlagents.networks.noisy import linear
from rlagents.networks.pictures import PictureTorso
from rlagents.networks.torsos import MLP

Torso = MLP | PictureTorso


class QNetwork(nn.Module):
    """Action values: observation [B, ...] -> [B, A] float32.

    With `dueling` they are Q = V + A - mean(A), Wang et al. (2016), Eq. 9; the two streams share
    the torso's last layer, where the paper gives each a hidden layer of its own. With `noisy` the
    heads are noisy layers.
    """

    def __init__(
        self, torso: Torso, num_actions: int, *, dueling: bool = False, noisy: bool = False
    ) -> None:
        super().__init__()
        self.torso = torso
        self.head = linear(torso.out_features, num_actions, noisy=noisy)
        self.value_head = linear(torso.out_features, 1, noisy=noisy) if dueling else None

    def forward(self, observation: Tensor) -> Tensor:
        """Return the value of every action."""
        features = self.torso(observation)  # [B, features]
        values: Tensor = self.head(features)  # [B, A]
        if self.value_head is not None:
            values = self.value_head(features) + values - values.mean(dim=1, keepdim=True)
        return values


class CategoricalQNetwork(nn.Module):
    """Action values as the means of distributions: observation [B, ...] -> [B, A] float32.

    Each action's return has a probability for each of K atoms, values that lie evenly between the
    least and the largest (Bellemare et al., "A Distributional Perspective on Reinforcement
    Learning", 2017). With `dueling` the two streams give logits of K atoms each, which are put
    together atom by atom (Hessel et al., "Rainbow", 2018).

    Args:
        torso: gives the features.
        num_actions: A.
        atoms: K, and the least and the largest value.
        dueling, noisy: as in `QNetwork`.
    """

    atoms: Tensor

    def __init__(
        self,
        torso: Torso,
        num_actions: int,
        *,
        atoms: tuple[int, float, float],
        dueling: bool = False,
        noisy: bool = False,
    ) -> None:
        super().__init__()
        count, least, largest = atoms
        self.torso = torso
        self.head = linear(torso.out_features, num_actions * count, noisy=noisy)
        self.value_head = linear(torso.out_features, count, noisy=noisy) if dueling else None
        self.register_buffer("atoms", torch.linspace(least, largest, count), persistent=False)

    def logits(self, observation: Tensor) -> Tensor:
        """Return the logit of every action's every atom: [B, A, K]."""
        features = self.torso(observation)  # [B, features]
        logits: Tensor = self.head(features).unflatten(1, (-1, len(self.atoms)))
        if self.value_head is not None:
            value = self.value_head(features)[:, None]  # [B, 1, K]
            logits = value + logits - logits.mean(dim=1, keepdim=True)
        return logits

    def forward(self, observation: Tensor) -> Tensor:
        """Return the value of every action."""
        return self.logits(observation).softmax(dim=2) @ self.atoms


class PolicyNetwork(nn.Module):
    """Logits of a policy: observation [B, ...] -> [B, A] float32."""

    def __init__(self, torso: Torso, num_actions: int) -> None:
        super().__init__()
        self.torso = torso
        self.head = _policy_head(torso, num_actions)

    def forward(self, observation: Tensor) -> Tensor:
        """Return the logit of every action."""
        logits: Tensor = self.head(self.torso(observation))
        return logits


class PolicyValueNetwork(PolicyNetwork):
    """Logits of a policy, and a value, from the same features."""

    def __init__(self, torso: Torso, num_actions: int) -> None:
        super().__init__(torso, num_actions)
        self.value_head = nn.Linear(torso.out_features, 1)

    def logits_and_value(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [B, A] and values [B]."""
        features = self.torso(observation)
        return self.head(features), self.value_head(features).squeeze(1)


def _policy_head(torso: Torso, num_actions: int) -> nn.Linear:
    # Small weights, so that a new policy is close to uniform whatever it sees.
    head = nn.Linear(torso.out_features, num_actions)
    nn.init.orthogonal_(head.weight, gain=0.01)
    nn.init.zeros_(head.bias)
    return head
