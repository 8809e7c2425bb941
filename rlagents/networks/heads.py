"""Heads: from features to action values or probabilities, always in float32."""

from __future__ import annotations

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
