"""The sides of benchmark_peers.py: a file each, run by the Python of the side's own environment.

`ours.py` is rlagents; `sb3.py`, `cleanrl.py` and `tianshou.py` are the peers of the table below.
Each has one function, `measure`, and imports what only its own environment has.
"""

from __future__ import annotations

from dataclasses import dataclass

_SET_UP_SB3 = """To set it up, from the root of the repository:
  python3 -m venv peers
  peers/bin/pip install torch==2.13.0 --constraint constraints.txt
  peers/bin/pip install stable-baselines3==2.9.2 ale-py opencv-python-headless \
--constraint constraints.txt
and then give --peer-python peers/bin/python"""

# Tianshou 2.0.1 wants an older virtualenv and with it an older filelock than constraints.txt has.
_SET_UP_TIANSHOU = """To set it up, from the root of the repository:
  python3 -m venv peers-tianshou
  peers-tianshou/bin/pip install torch==2.13.0 --constraint constraints.txt
  peers-tianshou/bin/pip install tianshou==2.0.1 envpool==1.2.5 numpy==2.4.6 gymnasium==1.4.0 \
opencv-python-headless==5.0.0.93
and then give --peer-python peers-tianshou/bin/python"""


@dataclass(frozen=True)
class Peer:
    """What the driver has to know of a peer.

    Attributes:
        title: its name.
        modules: what its Python must be able to import, separated by commas.
        set_up: the commands that make its virtual environment.
        num_envs: environments of its documented settings for Atari.
        batch_size: samples of an update; the peer's own where 8 samples per agent step leave it so.
        one_env: whether it can have no other number of environments.
    """

    title: str
    modules: str
    set_up: str
    num_envs: int
    batch_size: int
    one_env: bool = False


PEERS = {
    "sb3": Peer("Stable-Baselines3", "stable_baselines3, ale_py, cv2", _SET_UP_SB3, 1, 32),
    "cleanrl": Peer(
        "a loop like CleanRL's",
        "stable_baselines3, ale_py, cv2",
        _SET_UP_SB3,
        num_envs=1,
        batch_size=32,
        one_env=True,
    ),
    # Its own 32 samples every 10 steps are 3.2 per agent step; 80 are 8.
    "tianshou": Peer("Tianshou", "tianshou, envpool, cv2", _SET_UP_TIANSHOU, 10, 80),
}
