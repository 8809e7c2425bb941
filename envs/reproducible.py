"""Finding out whether an environment reproduces itself: same seed, same actions, same episode."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rlagents import seeding
from rlagents.envs.vector import VectorEnv
from rlagents.types import Array

STEPS = 64


def find_difference(make: Callable[[], VectorEnv], num_actions: int, run_seed: int) -> str | None:
    """Play the same episode twice and say where the two first differ.

    One environment has played another episode before, the other is fresh, so that whatever leaks
    from one episode into the next shows as well as randomness that does not come from the seed.

    Args:
        make: makes a vector environment of one.
        num_actions: of its discrete action space.
        run_seed: the actions and seeds are drawn from it.

    Returns:
        None where all observations, rewards and ends were equal, else a few words on the first
        difference.

    Raises:
        ValueError: a reward is no finite number, from which nothing could be learned.
    """
    actions = seeding.generator(run_seed, 99).integers(num_actions, size=STEPS)
    seed = seeding.episode_seed(run_seed, "probe", 0)
    used, fresh = make(), make()
    try:
        _play(used, seeding.episode_seed(run_seed, "probe", 1), actions[::-1])
        for step, (first, second) in enumerate(
            zip(_play(used, seed, actions), _play(fresh, seed, actions), strict=True)
        ):
            for name, one, other in zip(_FIELDS, first, second, strict=True):
                if not np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
                    return f"{name} differs at step {step}"
    finally:
        used.close()
        fresh.close()
    return None


_FIELDS = ("observation", "reward", "end of the episode")


def _play(env: VectorEnv, seed: int, actions: Array) -> list[tuple[Array, Array, Array]]:
    played: list[tuple[Array, Array, Array]] = [
        (env.reset(np.ones(1, dtype=np.bool_), [seed]), np.zeros(1), np.zeros(1))
    ]
    for action in actions:
        env.send(np.array([action], dtype=np.int64))
        step = env.recv()
        if not np.isfinite(step.reward[0]):
            raise ValueError(
                f"step() returned a reward of {step.reward[0]}, expected a finite number"
            )
        over = step.terminated | step.truncated
        played.append((step.observation.copy(), step.reward, over))
        if over[0]:
            break
    return played
