"""`rlagents doctor`: does everything that a run needs work on this machine?"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rlagents.cores import num_cores


def examine() -> bool:
    """Print a line for each check; return whether all of them passed."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("versions", _versions),
        ("processor", _processor),
        ("device", _device),
        ("precision", _precision),
        ("memory", _memory),
        ("disk", _disk),
        ("Atari games", _games),
        ("Super Mario", _mario),
        ("video encoder", _encoder),
    ]
    good = True
    for name, check in checks:
        try:
            print(f"ok    {name:14} {check()}")
        except Exception as error:  # whatever is broken is what this command is to show
            good = False
            print(f"FAIL  {name:14} {type(error).__name__}: {error}")
    return good


def _versions() -> str:
    from rlagents import machine

    return ", ".join(f"{package} {version}" for package, version in machine.versions().items())


def _processor() -> str:
    from rlagents import machine

    pictures, vectors = machine.choose_threads(True), machine.choose_threads(False)
    shared = machine.choose_threads(True, sharing=2)
    return (
        f"{machine.cpu_name()}, {num_cores()} cores; networks are computed with {pictures} "
        f"thread(s) for pictures, {shared} for each of two where [agent] pipelined = true, "
        f"{vectors} for vectors"
    )


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    return "cpu (no GPU that PyTorch can use)"


def _precision() -> str:
    from rlagents import machine
    from rlagents.networks import NetworkConfig, resolve_precision

    device = machine.choose_device("auto")
    chosen = resolve_precision(NetworkConfig(torso="nature-cnn"), device).precision
    has = "has" if chosen == "bfloat16" else "does not have"
    unit = "the GPU" if device == "cuda" else "the processor"
    return f'"auto" means {chosen} for convolutions: {unit} {has} fast bfloat16'


def _memory() -> str:
    from rlagents import machine

    return f"{machine.available_memory() / 1e9:.1f} GB free for stored experience"


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free
    if free < 1e9:
        raise OSError(f"only {free / 1e9:.2f} GB free in this folder; runs need 1 GB or more")
    return f"{free / 1e9:.1f} GB free in this folder"


def _games() -> str:
    from rlagents.envs import EnvConfig, find_env, make_vector_env, resolve_env_config
    from rlagents.envs.atari import games

    spec = find_env("pong")
    env = make_vector_env(spec, resolve_env_config(EnvConfig(id="pong"), spec), 1)
    observation = env.reset(np.ones(1, dtype=np.bool_), [1])
    env.close()
    return f"{len(games())} games; Pong shows {'x'.join(map(str, observation.shape[1:]))} pictures"


def _mario() -> str:
    from rlagents.envs import EnvConfig, find_env, make_player, resolve_env_config
    from rlagents.envs.mario.rom import INSTALL, is_installed

    if not is_installed():
        return f"not installed; to play it: {INSTALL}"
    spec = find_env("mario-1-1")
    config = resolve_env_config(EnvConfig(id="mario-1-1"), spec)
    player = make_player(spec, config)
    shape = player.reset(1).frames[0].shape
    player.close()
    backend = config.kwargs["backend"]
    return f"1-1 shows {'x'.join(map(str, shape))} pictures; the console is emulated by {backend}"


def _encoder() -> str:
    import cv2

    from rlagents.video import open_writer, video_suffix, why_no_mp4

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"test{video_suffix()}"
        with open_writer(path, 60, path.with_name(".test.part")) as video:
            for brightness in range(0, 250, 10):
                video.add(np.full((210, 160, 3), brightness, dtype=np.uint8))
            video.close(path)
        reader = cv2.VideoCapture(str(path))
        frames = 0
        while reader.grab():
            frames += 1
        reader.release()
    if frames != 25:
        raise RuntimeError(f"25 frames were written and {frames} came back")
    reason = why_no_mp4()
    serves = "H.264 in MP4, through PyAV" if reason is None else "VP8 in WebM, through OpenCV"
    because = "" if reason is None else f" ({reason})"
    return f"{serves}, 25 of 25 frames read back{because}"
