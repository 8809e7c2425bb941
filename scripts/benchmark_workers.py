r"""Measure slow environments in worker processes, beside Gymnasium's and Stable-Baselines3's.

All sides step the same Gymnasium environment (`slow_env.py`), whose steps take 2 ms of a core each,
with random actions. They take turns, and each measurement is a program of its own:
    rlagents     `[env] num_workers` = 2, or what --workers says
    rlagents-0   without worker processes: one environment after the other
    rlagents-1   all environments in one worker process
    gymnasium    AsyncVectorEnv: a process for each environment
    sb3          SubprocVecEnv: a process for each environment; only with --sb3-python

The clock starts after 10 steps of each environment, and episodes end and begin meanwhile.

Stable-Baselines3 lives in a virtual environment of its own. From the root of the repository:

    python3 -m venv peers
    peers/bin/pip install stable-baselines3==2.9.2 --constraint constraints.txt

Examples:
    python scripts/benchmark_workers.py
    python scripts/benchmark_workers.py --sb3-python peers/bin/python --json workers.json
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from measuring import (
    OURS,
    Measurement,
    check_python,
    count,
    run_child,
    show,
    show_machine,
    show_side,
    summarise,
    write_json,
)

WARM_UP_STEPS = 10  # of each environment
NUM_ACTIONS = 4
LENGTH = 100  # steps of an episode
SET_UP_SB3 = """To set it up, from the root of the repository:
  python3 -m venv peers
  peers/bin/pip install stable-baselines3==2.9.2 --constraint constraints.txt
and then give --sb3-python peers/bin/python"""


@dataclass(frozen=True)
class Job:
    """What a program is to measure.

    Attributes:
        side: one of those above.
        num_envs: environments.
        workers: processes that step them, where that can be chosen.
        steps: of each environment that are measured.
        step_ms: milliseconds of a core that a step takes.
        seed: of the actions and the episodes.
    """

    side: str
    num_envs: int
    workers: int
    steps: int
    step_ms: float
    seed: int


def time_steps(
    step: Callable[[Any], None], job: Job, now: Callable[[], float] = time.perf_counter
) -> float:
    """Return the seconds that `job.steps` steps take, after a warm-up.

    Args:
        step: steps all environments with [N] actions.
        job: how many steps.
        now: the time in seconds.
    """
    generator = np.random.default_rng(job.seed)
    actions = generator.integers(NUM_ACTIONS, size=(WARM_UP_STEPS + job.steps, job.num_envs))
    for row in actions[:WARM_UP_STEPS]:
        step(row)
    began = now()
    for row in actions[WARM_UP_STEPS:]:
        step(row)
    return now() - began


def measure_ours(job: Job) -> Measurement:
    """Step the vector environment that training makes."""
    from rlagents import machine
    from rlagents.envs import EnvConfig, find_env, make_vector_env, resolve_env_config

    env_id = f"{Path(__file__).with_name('slow_env.py')}:Slow"
    spec = find_env(env_id)
    kwargs = {"step_ms": job.step_ms, "length": LENGTH}
    config = EnvConfig(id=env_id, num_envs=job.num_envs, num_workers=job.workers, kwargs=kwargs)
    config = resolve_env_config(config, spec)
    env = make_vector_env(spec, config, job.num_envs)
    seeds = iter(range(job.seed << 16, (job.seed + 1) << 16))

    def reset(mask: Any) -> None:
        env.reset(mask, [next(seeds) for _ in range(int(mask.sum()))])

    def step(actions: Any) -> None:
        env.send(actions)
        result = env.recv()
        over = result.terminated | result.truncated
        if over.any():
            reset(over)

    reset(np.ones(job.num_envs, dtype=np.bool_))
    seconds = time_steps(step, job)
    env.close()
    settings = {"env": config.model_dump()}
    return Measurement(job.steps * job.num_envs, seconds, settings, machine.versions())


def measure_gymnasium(job: Job) -> Measurement:
    """Step Gymnasium's AsyncVectorEnv, with its defaults."""
    from gymnasium.vector import AsyncVectorEnv

    from slow_env import Slow

    env = AsyncVectorEnv([functools.partial(Slow, job.step_ms, LENGTH)] * job.num_envs)
    env.reset(seed=job.seed)
    seconds = time_steps(env.step, job)
    env.close()
    return _measurement(job, seconds, "gymnasium", "numpy")


def measure_sb3(job: Job) -> Measurement:
    """Step Stable-Baselines3's SubprocVecEnv, with its defaults. Needs its environment."""
    from stable_baselines3.common.vec_env import SubprocVecEnv

    from slow_env import Slow

    env = SubprocVecEnv([functools.partial(Slow, job.step_ms, LENGTH)] * job.num_envs)
    env.seed(job.seed)
    env.reset()
    seconds = time_steps(env.step, job)
    env.close()
    return _measurement(job, seconds, "stable-baselines3", "gymnasium", "numpy")


def _measurement(job: Job, seconds: float, *packages: str) -> Measurement:
    versions = {"python": platform.python_version()}
    versions |= {package: importlib.metadata.version(package) for package in packages}
    return Measurement(job.steps * job.num_envs, seconds, {"job": asdict(job)}, versions)


def measure(job: Job) -> Measurement:
    """Measure one side once, in this program."""
    others = {"gymnasium": measure_gymnasium, "sb3": measure_sb3}
    return others.get(job.side, measure_ours)(job)


def make_jobs(options: argparse.Namespace, number: int) -> dict[str, Job]:
    """Return what each side is to measure in a repetition."""
    workers = {OURS: options.workers, f"{OURS}-0": 0, f"{OURS}-1": 1}
    sides = [*workers, "gymnasium", *(["sb3"] if options.sb3_python else [])]
    every = options.num_envs
    return {
        side: Job(side, every, workers.get(side, every), options.steps, options.step_ms, number)
        for side in sides
    }


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all sides in turn, print every repetition, and return all numbers."""
    pythons = {}
    if options.sb3_python is not None:
        pythons["sb3"] = check_python(
            "--sb3-python",
            options.sb3_python,
            "stable_baselines3",
            "Stable-Baselines3",
            SET_UP_SB3,
        )
    result = show_machine()
    found: dict[str, list[Measurement]] = {side: [] for side in make_jobs(options, 1)}
    for number in range(1, options.repetitions + 1):
        for side, job in make_jobs(options, number).items():
            words = [pythons.get(side, sys.executable), __file__, "--child"]
            words.append(json.dumps(asdict(job)))
            measured = run_child(side, words)
            if number == 1:
                show_side(side, measured, words)
            show(number, side, measured)
            found[side].append(measured)
    measurements = {side: [asdict(one) for one in all_] for side, all_ in found.items()}
    return result | {"measurements": measurements, "summary": summarise(found)}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for flag, kind, default, what in (
        ("--num-envs", count, 8, "environments"),
        ("--workers", count, 2, "worker processes of rlagents"),
        ("--steps", count, 500, "measured steps of each environment"),
        ("--repetitions", count, 5, "measurements of each side"),
        ("--step-ms", float, 2.0, "milliseconds of a core that a step takes"),
    ):
        parser.add_argument(
            flag, type=kind, default=default, metavar="N", help=f"{what} (default: {default})"
        )
    parser.add_argument(
        "--sb3-python", metavar="PATH", help="the Python that has Stable-Baselines3"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all numbers here")
    parser.add_argument("--child", metavar="JOB", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    """Compare, or be one of the programs that measure."""
    options = parse()
    if options.child is not None:
        print(json.dumps(asdict(measure(Job(**json.loads(options.child))))))
        return
    write_json(options.json, compare(options))


if __name__ == "__main__":
    main()
