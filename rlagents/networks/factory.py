"""From a `[network]` table to a torso that fits the observations."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch

from rlagents.errors import UsageError
from rlagents.networks.impala import ImpalaResNet
from rlagents.networks.nature import NatureCNN
from rlagents.networks.pictures import PictureTorso
from rlagents.networks.torsos import MLP, NetworkConfig

_HIDDEN_SIZES = {"mlp": [128, 128], "nature-cnn": [512], "impala-resnet": [256]}
_FOR_PICTURES = '"nature-cnn" or "impala-resnet"'


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


def make_torso(config: NetworkConfig, observation_space: gym.spaces.Box) -> MLP | PictureTorso:
    """Return the torso that a resolved config asks for.

    Raises:
        UsageError: it does not fit the observations.
    """
    shape = observation_space.shape
    hidden_sizes = config.hidden_sizes
    if hidden_sizes is None:
        hidden_sizes = _HIDDEN_SIZES[config.torso]
    if config.center_pictures and config.standardize_pictures:
        raise UsageError(
            "[network] center_pictures: standardize_pictures centers them too; leave "
            "center_pictures out."
        )
    if config.layer_norm and not hidden_sizes:
        raise UsageError(
            "[network] layer_norm: hidden_sizes = [] leaves no fully connected layer to normalise; "
            "set hidden_sizes, or leave layer_norm out."
        )
    if config.torso == "mlp":
        if config.difference_frames:
            raise UsageError(f"[network] difference_frames: needs torso = {_FOR_PICTURES}.")
        if config.center_pictures:
            raise UsageError(f"[network] center_pictures: needs torso = {_FOR_PICTURES}.")
        if config.standardize_pictures:
            raise UsageError(f"[network] standardize_pictures: needs torso = {_FOR_PICTURES}.")
        if config.width != 1:
            raise UsageError(f"[network] width: needs torso = {_FOR_PICTURES}.")
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
                f"shape {list(shape)}; set torso = {_FOR_PICTURES}."
            )
        return MLP(
            int(np.prod(shape)), hidden_sizes, layer_norm=config.layer_norm, noisy=config.noisy
        )
    if len(shape) != 3 or observation_space.dtype != np.uint8:
        raise UsageError(
            f'[network] torso: "{config.torso}" takes pictures, but the environment shows vectors '
            f'of shape {list(shape)}; set torso = "mlp".'
        )
    if config.torso == "nature-cnn" and min(shape[1:]) < 36:
        raise UsageError(
            f'[network] torso: "nature-cnn" needs pictures of 36 by 36 or more, got '
            f"{shape[1]} by {shape[2]}; set a larger [env] frame_size."
        )
    if config.difference_frames and shape[0] < 2:
        raise UsageError(
            "[network] difference_frames: needs two frames to subtract; set [env] frame_stack = 2."
        )
    torso = ImpalaResNet if config.torso == "impala-resnet" else NatureCNN
    return torso(
        (shape[0], shape[1], shape[2]),
        hidden_sizes,
        width=config.width,
        center_pictures=config.center_pictures,
        standardize_pictures=config.standardize_pictures,
        difference_frames=config.difference_frames,
        dtype=torch.bfloat16 if config.precision == "bfloat16" else torch.float32,
        layer_norm=config.layer_norm,
        noisy=config.noisy,
    )
