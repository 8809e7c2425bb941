"""Where a network looks: maps of the pixels that a policy's choice depends on, drawn on its game.

A map answers for one number, the score of an action a: Q(o, a) or, as its advantage,
Q(o, a) - mean_b Q(o, b), of action values; log pi(a | o) of a policy.

    gradient      max over channels of |d score / d pixel|
    grad-cam      ReLU(sum_k w_k A_k),  w_k = mean over places of d score / d A_k
    perturbation  1/2 (score(o) - score(o'))^2,  o' = (1 - M) o + M blur(o),  M a Gaussian bump

Simonyan et al., "Deep Inside Convolutional Networks" (2013), Section 3; Selvaraju et al.,
"Grad-CAM" (2017), Eq. 1 and 2; Greydanus et al., "Visualizing and Understanding Atari Agents"
(2018), Eq. 1 to 3.

Differences from the papers:
- Grad-CAM takes the last feature maps: of a residual network, what its last block adds up to.
- Perturbation blurs all frames of a stack at the same place, where the paper's network sees one
  frame. Its score is the number above, where the paper takes all logits of a policy, or its value.
  Points lie in the middles of the cells of a grid, and its lengths grow with the picture.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.autograd.graph import allow_mutation_on_saved_tensors

from rlagents.agents.base import Policy
from rlagents.errors import UsageError, did_you_mean
from rlagents.networks.torsos import MLP
from rlagents.types import Array, FloatArray, IntArray

METHODS = ("gradient", "grad-cam", "perturbation")

Score = Literal["action", "advantage"]

# Greydanus et al. (2018), Section 3.1 and their saliency.py, in pixels of a picture of 80 by 80.
_PAPER_SIZE = 80
_STRIDE = 5
_MASK_SIGMA = 5
_BLUR_SIGMA = 3

_MAX_COPIES = 64  # disturbed ones that go through the network together: memory stays bounded

# How an overlay looks: tried out on Pong until a person saw what moved the score.
_SMOOTHING = 1 / 50  # sigma as a part of the map's shorter side: the grain of gradients goes
_BRIGHTEST_PERCENTILE = 99.5  # of a map's places; the few above it may be outliers
_OPACITY = 0.6  # of the hottest places, through which the game can still be seen
# Blue, green, yellow, red; without the dark ends, which cannot be told from a dark game.
_COLOURS = cv2.applyColorMap(
    np.linspace(30, 215, 256).round().astype(np.uint8)[:, None], cv2.COLORMAP_TURBO
)[:, 0, ::-1]  # [256, 3] RGB


def check_method(method: str) -> None:
    """Raise UsageError if there is no such method."""
    if method not in METHODS:
        raise UsageError(
            f"--explain: there is no method {method!r}{did_you_mean(method, METHODS)} "
            f"There are: {', '.join(METHODS)}."
        )


class Explainer:
    """Shows what a policy's choices depend on; the policy stays as it is.

    Args:
        policy: to be explained.
        method: one of `METHODS`.
        of: "action": the action's value or log-probability; "advantage": by how much its value
            is above the mean of all actions' values.

    Raises:
        UsageError: there is no such method, or it does not fit the policy.
    """

    def __init__(self, policy: Policy, method: str, *, of: Score = "action") -> None:
        check_method(method)
        if of == "advantage" and policy.kind != "action values":
            raise UsageError(
                "--explain: an advantage is of action values, and this policy has "
                "probabilities; leave --explain-of out."
            )
        if isinstance(getattr(policy.network, "torso", None), MLP):
            raise UsageError(_needs_pictures("its network takes vectors"))
        self._network = policy.network
        self._device = policy.device
        self._of_policy = policy.kind == "probabilities"
        self._of_advantage = of == "advantage"
        self._maps = {
            "gradient": self._gradient,
            "grad-cam": self._grad_cam,
            "perturbation": self._perturbation,
        }[method]

    def maps(self, observations: Array, actions: IntArray) -> FloatArray:
        """Return how much each place matters to the score of an action.

        Args:
            observations: [B, C, H, W] uint8.
            actions: [B] int64, whose scores are explained.

        Returns:
            [B, H, W] float32, 0 or more.

        Raises:
            UsageError: the observations are no pictures.
        """
        if observations.ndim != 4 or observations.dtype != np.uint8:
            shape = list(observations.shape[1:])
            raise UsageError(_needs_pictures(f"it sees {observations.dtype} of shape {shape}"))
        pictures = torch.from_numpy(np.ascontiguousarray(observations)).to(self._device)
        maps = self._maps(pictures.float(), torch.from_numpy(actions).to(self._device))
        return np.asarray(maps.cpu().numpy())

    def _scores(self, pictures: Tensor, actions: Tensor) -> Tensor:
        """Return [B] scores for [B, C, H, W] float32, which are changed: torsos scale in place."""
        outputs: Tensor = self._network(pictures)  # [B, A]
        if self._of_policy:
            outputs = outputs.log_softmax(dim=1)
        scores = outputs.gather(1, actions[:, None])[:, 0]
        return scores - outputs.mean(dim=1) if self._of_advantage else scores

    def _gradient(self, pictures: Tensor, actions: Tensor) -> Tensor:
        pictures.requires_grad_()
        # Torsos change pixels in place after autograd has taken note of them.
        with torch.enable_grad(), allow_mutation_on_saved_tensors():
            scores = self._scores(pictures.clone(), actions)
            (gradient,) = torch.autograd.grad(scores.sum(), pictures)
        return gradient.abs().amax(dim=1)

    def _grad_cam(self, pictures: Tensor, actions: Tensor) -> Tensor:
        size = pictures.shape[2:]
        last: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                last[:] = [output]

        parts = [module for module in self._network.modules() if not any(module.children())]
        hooks = [module.register_forward_hook(keep) for module in parts]
        pictures.requires_grad_()
        try:
            with torch.enable_grad(), allow_mutation_on_saved_tensors():
                scores = self._scores(pictures.clone(), actions)
                if not last:
                    raise UsageError(
                        "--explain: grad-cam needs a network with convolutions, and this one has "
                        "none; take gradient or perturbation."
                    )
                (gradient,) = torch.autograd.grad(scores.sum(), last)
        finally:
            for hook in hooks:
                hook.remove()
        weights = gradient.float().mean(dim=(2, 3), keepdim=True)  # [B, K, 1, 1], Eq. 1
        activations = last[0].detach().float()  # [B, K, h, w]
        maps = (weights * activations).sum(dim=1, keepdim=True).relu()  # [B, 1, h, w], Eq. 2
        return _enlarge(maps, size)

    @torch.no_grad()
    def _perturbation(self, pictures: Tensor, actions: Tensor) -> Tensor:
        count, _, height, width = pictures.shape
        unit = min(height, width) / _PAPER_SIZE
        rows = _bumps(height, unit).to(self._device)  # [h, H]
        columns = _bumps(width, unit).to(self._device)  # [w, W]
        blurred = _blur(pictures, _BLUR_SIGMA * unit)
        scores = self._scores(pictures.clone(), actions)
        changed = []
        points = torch.cartesian_prod(torch.arange(len(rows)), torch.arange(len(columns)))
        for index in range(count):
            for part in torch.split(points, _MAX_COPIES):
                masks = rows[part[:, 0], None, :, None] * columns[part[:, 1], None, None]
                copies = torch.lerp(pictures[index], blurred[index], masks)  # Eq. 1
                changed.append(self._scores(copies, actions[index].expand(len(copies))))
        changes = torch.cat(changed).view(count, 1, len(rows), len(columns))
        return _enlarge((scores[:, None, None, None] - changes).square() / 2, (height, width))


class Heat:
    """Turns maps, one after the other, into what is drawn, at a brightness that does not flicker.

    A map is smoothed a little, what its lower half has is taken off, and the square root of the
    rest is scaled so that 1 is a high quantile of the peaks of the latest maps: a single outburst
    does not darken the maps after it, and where little matters little is drawn. The same maps in
    the same order give the same heat.

    Args:
        window: how many maps are looked back on.
        quantile: of their peaks.
    """

    def __init__(self, window: int = 128, quantile: float = 0.75) -> None:
        self._peaks: deque[float] = deque(maxlen=window)
        self._quantile = quantile

    def update(self, saliency: FloatArray) -> FloatArray:
        """Return a map's heat: [H, W] float32, 0 or more -> [H, W] float32 from 0 to 1."""
        sigma = _SMOOTHING * min(saliency.shape)
        smooth = cv2.GaussianBlur(saliency, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
        standing_out = np.maximum(smooth - np.median(smooth), 0)
        self._peaks.append(float(np.percentile(standing_out, _BRIGHTEST_PERCENTILE)))
        hottest = float(np.quantile(self._peaks, self._quantile))
        if hottest == 0:  # nothing has stood out so far
            return np.zeros_like(saliency)
        return np.asarray(np.sqrt(np.minimum(standing_out / hottest, 1)), dtype=np.float32)


def overlay(frame: Array, heat: FloatArray, rows: slice) -> Array:
    """Draw heat on a game's picture: blue, green, yellow and red for what matters more and more.

    Args:
        frame: [H, W, 3] uint8 RGB, as the game showed it; it is left as it is.
        heat: [h, w] float32 from 0 to 1, of `Heat`.
        rows: of the frame that the network saw, at the frame's full width.

    Returns:
        [H, W, 3] uint8 RGB; where there is no heat, and outside of `rows`, the frame.
    """
    picture = frame.copy()
    seen = picture[rows]  # a view
    size = (seen.shape[1], seen.shape[0])
    stretched = cv2.resize(heat, size, interpolation=cv2.INTER_LINEAR)
    colours = _COLOURS[np.rint(255 * stretched).astype(np.uint8)]
    opacity = _OPACITY * stretched[..., None]
    seen[...] = np.rint((1 - opacity) * seen + opacity * colours)
    return picture


def _needs_pictures(but: str) -> str:
    return (
        f"--explain: needs an agent that sees pictures, [C, H, W] uint8, but {but}; explain a run "
        'with [network] torso = "nature-cnn" or "impala-resnet".'
    )


def _enlarge(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Stretch [B, 1, h, w] to [B, H, W], each cell over its share of the picture."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)[:, 0]


def _bumps(length: int, unit: float) -> Tensor:
    """Return Gaussian bumps of height 1 around the middles of n equal cells: [n, length]."""
    number = max(1, round(length / (_STRIDE * unit)))
    centers = (torch.arange(number) + 0.5) * (length / number) - 0.5
    distance = torch.arange(length) - centers[:, None]
    return torch.exp(-0.5 * (distance / (_MASK_SIGMA * unit)).square())


def _blur(pictures: Tensor, sigma: float) -> Tensor:
    """Return [B, C, H, W] pictures blurred by a Gaussian."""
    blurred = [
        cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
        for picture in pictures.flatten(0, 1).cpu().numpy()
    ]
    return torch.from_numpy(np.stack(blurred)).view_as(pictures).to(pictures.device)
