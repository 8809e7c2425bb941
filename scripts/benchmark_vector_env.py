r"""Measure environments alone: agent steps per second of Pong, random actions, beside EnvPool.

All sides play Pong in 84x84 grey with a stack of 4, a frame skip of 4, up to 30 no-ops, six actions
and no sticky ones, on as many threads as there are cores. They take turns, and each measurement is
a process of its own:
    rlagents       the vector environment that DQN trains in: all environments are stepped together,
                   and one whose episode is over is reset with a seed of its own
    envpool        EnvPool's, all environments stepped together
    envpool-async  EnvPool's, where a step returns as soon as some of the environments are done; as
                   its own benchmark advises, 2.7 times as many environments as it waits for

The clock starts after 50 steps of each environment. Steps that begin an episode count for nobody,
and the time that they take for all. Random play ends an episode about every 900 steps, and all
environments begin together: with far fewer --steps than that, no beginning is measured.

EnvPool lives in a virtual environment of its own. From the root of the repository:

    python3 -m venv peers-envpool
    peers-envpool/bin/pip install envpool==1.2.5 --constraint constraints.txt

Examples:
    python scripts/benchmark_vector_env.py --envpool-python peers-envpool/bin/python
    python scripts/benchmark_vector_env.py --envpool-python peers-envpool/bin/python \
        --num-envs 16 --steps 1250 --json vector.json
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

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

SIDES = {OURS: "rlagents", "envpool": "EnvPool", "envpool-async": "EnvPool, asynchronous"}
WARM_UP_STEPS = 50  # of each environment
NUM_ACTIONS = 6
SET_UP_ENVPOOL = """To set it up, from the root of the repository:
  python3 -m venv peers-envpool
  peers-envpool/bin/pip install envpool==1.2.5 --constraint constraints.txt
and then give --envpool-python peers-envpool/bin/python"""


@dataclass(frozen=True)
class Job:
    """What a process is to measure.

    Attributes:
        side: one of SIDES.
        num_envs: environments.
        steps: agent steps to measure, over all environments.
        threads: that step the environments.
        seed: of the actions and the episodes.
    """

    side: str
    num_envs: int
    steps: int
    threads: int
    seed: int


class Progress(NamedTuple):
    """What a step, or all steps of a measurement, came to.

    Attributes:
        steps: agent steps.
        episodes: that were begun.
        reset_s: seconds in which all environments waited for them to begin.
    """

    steps: int
    episodes: int
    reset_s: float


def time_steps(
    step: Callable[[], Progress], job: Job, now: Callable[[], float] = time.perf_counter
) -> tuple[Progress, float]:
    """Return what a warm-up is followed by, and the seconds that it took.

    Args:
        step: steps environments, all or some.
        job: how many agent steps to measure.
        now: the time in seconds.
    """
    done = 0
    while done < WARM_UP_STEPS * job.num_envs:
        done += step().steps
    done, episodes, reset_s, began = 0, 0, 0.0, now()
    while done < job.steps:
        progress = step()
        done += progress.steps
        episodes += progress.episodes
        reset_s += progress.reset_s
    return Progress(done, episodes, reset_s), now() - began


def measure_ours(job: Job) -> Measurement:
    """Step the vector environment that training makes of `[env] id = "pong"`."""
    from rlagents import machine
    from rlagents.envs import EnvConfig, find_env, make_vector_env, resolve_env_config

    spec = find_env("pong")
    config = resolve_env_config(
        EnvConfig(
            id="pong",
            num_envs=job.num_envs,
            action_set="minimal",
            frame_size=84,
            frame_stack=4,
            frame_skip=4,
            noop_max=30,
            crop=[0, 0],
            kwargs={"num_threads": job.threads},
        ),
        spec,
    )
    env = make_vector_env(spec, config, job.num_envs)
    generator = np.random.default_rng(job.seed)
    seeds = iter(range(job.seed << 16, (job.seed + 1) << 16))

    def reset(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> float:
        began = time.perf_counter()
        env.reset(mask, [next(seeds) for _ in range(int(mask.sum()))])
        return time.perf_counter() - began

    def step() -> Progress:
        env.send(generator.integers(NUM_ACTIONS, size=job.num_envs))
        result = env.recv()
        over = result.terminated | result.truncated
        episodes = int(over.sum())
        return Progress(job.num_envs, episodes, reset(over) if episodes else 0.0)

    reset(np.ones(job.num_envs, dtype=np.bool_))
    progress, seconds = time_steps(step, job)
    env.close()
    settings = {
        "env": config.model_dump(),
        "episodes_begun": progress.episodes,
        "seconds_in_resets": round(progress.reset_s, 3),
    }
    return Measurement(progress.steps, seconds, settings, machine.versions())


def measure_envpool(job: Job) -> Measurement:
    """Step EnvPool's Pong, all at once or asynchronously. Needs its environment."""
    import envpool

    asynchronous = job.side == "envpool-async"
    batch_size = job.num_envs * 3 // 8 if asynchronous else job.num_envs
    settings: dict[str, Any] = {
        "task": "Pong-v5",
        "env_type": "gymnasium",
        "num_envs": job.num_envs,
        "batch_size": batch_size,
        "num_threads": job.threads,
        "seed": job.seed,
    }
    env = envpool.make(settings["task"], **{k: v for k, v in settings.items() if k != "task"})
    assert env.action_space.n == NUM_ACTIONS
    generator = np.random.default_rng(job.seed)

    def step() -> Progress:
        *_, info = env.recv()
        actions = generator.integers(NUM_ACTIONS, size=batch_size, dtype=np.int32)
        env.send(actions, info["env_id"])  # those that have just come back
        begun = int(np.count_nonzero(info["elapsed_step"] == 0))
        return Progress(batch_size - begun, begun, 0.0)  # the others go on meanwhile

    env.async_reset()
    progress, seconds = time_steps(step, job)
    env.close()
    versions = {"python": platform.python_version()}
    versions |= {package: importlib.metadata.version(package) for package in ("envpool", "numpy")}
    settings["episodes_begun"] = progress.episodes
    return Measurement(progress.steps, seconds, settings, versions)


def child_command(job: Job, python: str) -> list[str]:
    """Return the words that measure one side once."""
    return [python, __file__, "--child", json.dumps(asdict(job))]


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all sides in turn, print every repetition, and return all numbers."""
    from rlagents.cores import num_cores

    envpool_python = check_python(
        "--envpool-python", options.envpool_python, "envpool", "EnvPool", SET_UP_ENVPOOL
    )
    threads: int = options.threads or num_cores()
    result = show_machine() | {"threads": threads, "num_envs": {}}
    for num_envs in options.num_envs:
        print(f"\n{num_envs} environments, {threads} threads")
        found: dict[str, list[Measurement]] = {side: [] for side in SIDES}
        for number in range(1, options.repetitions + 1):
            for side, title in SIDES.items():
                job = Job(side, num_envs, options.steps * num_envs, threads, number)
                words = child_command(job, sys.executable if side == OURS else envpool_python)
                measured = run_child(side, words)
                if number == 1:
                    show_side(title, measured, words)
                show(number, side, measured)
                found[side].append(measured)
        result["num_envs"][num_envs] = {
            "measurements": {side: [asdict(one) for one in all_] for side, all_ in found.items()},
            "summary": summarise(found),
        }
    return result


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--envpool-python", metavar="PATH", help="the Python that has EnvPool (required)"
    )
    parser.add_argument(
        "--num-envs",
        type=_num_envs,
        nargs="+",
        default=[16, 64],
        metavar="N",
        help="environments, one comparison for each number (default: 16 64)",
    )
    parser.add_argument(
        "--steps",
        type=count,
        default=2000,
        metavar="N",
        help="agent steps of each environment in each measurement (default: 2000)",
    )
    parser.add_argument(
        "--repetitions",
        type=count,
        default=5,
        metavar="N",
        help="measurements of each side (default: 5)",
    )
    parser.add_argument(
        "--threads",
        type=count,
        metavar="N",
        help="threads that step the environments, all sides (default: one a core)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all numbers here")
    parser.add_argument("--child", metavar="JOB", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _num_envs(text: str) -> int:
    number = count(text)
    if number < 3:  # EnvPool's asynchronous side waits for 3 of 8
        raise argparse.ArgumentTypeError(f"expected 3 environments or more, got {text!r}")
    return number


def main() -> None:
    """Compare, or be one of the processes that measure."""
    options = parse()
    if options.child is not None:
        job = Job(**json.loads(options.child))
        measured = measure_ours(job) if job.side == OURS else measure_envpool(job)
        print(json.dumps(asdict(measured)))
        return
    write_json(options.json, compare(options))


if __name__ == "__main__":
    main()
