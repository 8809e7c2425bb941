"""Seeds: which number starts which episode, and generators that belong to one purpose each.

Episode seeds are 31-bit numbers, since the Atari emulator takes nothing larger. Their two highest
bits name the purpose, so that an episode of training, one that chose the best checkpoint and one of
a final evaluation never have the same seed. Whether their games differ is the environment's affair:
Atari and Mario without sticky actions take only the number of no-ops at the beginning from a seed.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Purpose = Literal["training", "selection", "evaluation", "probe"]

_PURPOSES: dict[Purpose, int] = {"training": 0, "selection": 1, "evaluation": 2, "probe": 3}
_PURPOSE_SHIFT = 29


def episode_seed(run_seed: int, purpose: Purpose, index: int, episode: int = 0) -> int:
    """Return the seed of an episode: in [0, 2**31), a different range for every purpose.

    Args:
        run_seed: the run's seed, not negative.
        purpose: what the episode is played for.
        index: the environment in training, the number of the episode elsewhere.
        episode: how many episodes this environment has begun before.
    """
    number = _PURPOSES[purpose]
    word = int(np.random.SeedSequence([run_seed, number, index, episode]).generate_state(1)[0])
    return (number << _PURPOSE_SHIFT) | (word >> (32 - _PURPOSE_SHIFT))


def generator(seed: int, purpose: int, *more: int) -> np.random.Generator:
    """Return a generator of its own for `seed` and the numbers that name its purpose.

    Numbers of different lengths never mean the same: a spawn key is mixed in after the seed's four
    words, where plain entropy would be filled up to four with zeros.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose, *more)))
