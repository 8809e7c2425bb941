r"""Measure replay alone: samples per second and bytes per transition, on frames of Pong.

Random play is recorded once, and every kind of replay is filled with it: ours plain, by priority,
compressed and on disk, and with --peer-python Stable-Baselines3's NStepReplayBuffer, which keeps
both stacks of every transition whole. Then batches are drawn: 256 transitions, 3-step returns. Each
measurement is a process of its own, and the kinds take turns.

A sample is what the learner is given, as tensors on the CPU. Memory is what the process has grown
by between no replay and a full one, without mapped files; the file of the disk's kind is counted by
the blocks that it takes. By priority, each batch is given new priorities, as in learning.

The peer lives in a virtual environment of its own; scripts/benchmark_peers.py says how to make it.

Examples:
    python scripts/benchmark_replay.py
    python scripts/benchmark_replay.py --peer-python peers/bin/python --json replay.json
    python scripts/benchmark_replay.py --transitions 1000000 --sides plain lz4 disk
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

STACK = 4
GAMMA = 0.99
OURS: dict[str, dict[str, str]] = {
    "plain": {},
    "prioritized": {"kind": "prioritized"},
    "lz4": {"compression": "lz4"},
    "disk": {"storage": "disk"},
}
PEER = "sb3"


@dataclass(frozen=True)
class Job:
    """What a process is to measure.

    Attributes:
        side: a key of OURS, or the peer.
        folder: with the recorded play.
        transitions: held by a full replay.
        num_envs: environments that were recorded.
        batch_size: transitions of a sample.
        n_step: steps of a return.
        warm_up: batches before the clock.
        batches: batches that are timed.
        seed: of the draws.
    """

    side: str
    folder: str
    transitions: int
    num_envs: int
    batch_size: int
    n_step: int
    warm_up: int
    batches: int
    seed: int


@dataclass(frozen=True)
class Measurement:
    """One repetition of one side.

    Attributes:
        samples: transitions drawn while the clock ran.
        seconds: it ran for.
        held: transitions that the replay holds.
        memory: bytes that the process has grown by.
        disk: bytes of files.
    """

    samples: int
    seconds: float
    held: int
    memory: int
    disk: int

    @property
    def speed(self) -> float:
        """Return samples per second."""
        return self.samples / self.seconds

    @property
    def memory_each(self) -> float:
        """Return bytes of memory per transition."""
        return self.memory / self.held


def record_play(folder: Path, steps: int, num_envs: int) -> None:
    """Play Pong at random and keep each frame once: `steps` of each environment."""
    from rlagents.envs import EnvConfig, find_env, make_vector_env, resolve_env_config

    spec = find_env("pong")
    config = resolve_env_config(EnvConfig(id="pong", num_envs=num_envs), spec)
    env = make_vector_env(spec, config, num_envs)
    generator = np.random.default_rng(0)
    shape = (steps + 1, num_envs, *env.observation_space.shape[1:])
    frames = np.lib.format.open_memmap(  # the newest of each observation
        folder / "frames.npy", mode="w+", dtype=np.uint8, shape=shape
    )
    action = generator.integers(3, size=(steps, num_envs))
    reward = np.zeros((steps, num_envs), dtype=np.float32)
    terminated = np.zeros((steps, num_envs), dtype=np.bool_)
    over = np.zeros((steps, num_envs), dtype=np.bool_)
    last = []  # frames of episodes
    seeds = iter(range(1, 10**9))
    everyone = np.ones(num_envs, dtype=np.bool_)
    observation = env.reset(everyone, [next(seeds) for _ in range(num_envs)])
    for t in range(steps):
        frames[t] = observation[:, -1]
        env.send(action[t])
        step = env.recv()
        observation = step.observation
        reward[t], terminated[t] = step.reward, step.terminated
        over[t] = step.terminated | step.truncated
        if over[t].any():
            last.extend(observation[over[t], -1].copy())
            observation = env.reset(over[t], [next(seeds) for _ in range(int(over[t].sum()))])
    frames[steps] = observation[:, -1]
    frames.flush()
    env.close()
    columns = {"action": action, "reward": reward, "terminated": terminated, "over": over}
    empty = np.zeros((0, *shape[2:]), dtype=np.uint8)
    np.savez(folder / "columns.npz", last=np.stack(last) if last else empty, **columns)


def play_back(folder: Path) -> Iterator[tuple[Any, ...]]:
    """Yield each step: observation, action, reward, next observation, terminated, episode over."""
    frames = np.load(folder / "frames.npy", allow_pickle=False, mmap_mode="r")
    columns = dict(np.load(folder / "columns.npz", allow_pickle=False))
    last = iter(columns["last"])
    num_envs = frames.shape[1]
    observation = np.zeros((num_envs, STACK, *frames.shape[2:]), dtype=np.uint8)
    observation[:, -1] = frames[0]
    for t in range(len(frames) - 1):
        over = columns["over"][t]
        following = np.concatenate([observation[:, 1:], frames[t + 1][:, None]], axis=1)
        for env in np.flatnonzero(over):
            following[env, -1] = next(last)
        step = (columns[name][t] for name in ("action", "reward"))
        yield observation, *step, following, columns["terminated"][t], over
        observation = following.copy()
        observation[over] = 0
        observation[over, -1] = frames[t + 1][over]


def own_memory() -> int:
    """Return the bytes of this process that are no file's, as Linux counts them."""
    _, resident, shared = Path("/proc/self/statm").read_text().split()[:3]
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def measure_ours(job: Job) -> Measurement:
    """Fill a replay of ours and draw from it."""
    import torch

    from rlagents.replay import PrioritizedReplay, ReplayConfig, make_replay
    from rlagents.spaces import FrameStack
    from rlagents.types import Transition

    steps = play_back(Path(job.folder))
    before = own_memory()
    config = ReplayConfig.model_validate(
        {"capacity": job.transitions, "batch_size": job.batch_size, **OURS[job.side]}
    )
    generator = np.random.default_rng(job.seed)
    replay = make_replay(
        config,
        FrameStack(STACK, 84, 84),
        job.num_envs,
        n_step=job.n_step,
        gamma=GAMMA,
        generator=generator,
    )
    for observation, action, reward, following, terminated, over in steps:
        replay.observe(Transition(observation, action, reward, following, terminated, over))
    memory = own_memory() - before

    def draw() -> None:
        batch = replay.sample()
        for array in batch[:5]:
            torch.from_numpy(array)
        if isinstance(replay, PrioritizedReplay):
            errors = generator.normal(size=job.batch_size).astype(np.float32)
            replay.update_priorities(batch.drawn, errors)

    seconds = time_draws(draw, job)
    return Measurement(job.batches * job.batch_size, seconds, len(replay), memory, unnamed_files())


def unnamed_files() -> int:
    """Return the bytes that the files without a name take which this process has open."""
    found = {}  # a file that is mapped is there twice
    for link in Path("/proc/self/fd").iterdir():
        try:
            status = link.stat()
        except FileNotFoundError:  # what this listing itself was open for
            continue
        if status.st_nlink == 0:
            found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def measure_peer(job: Job) -> Measurement:
    """Fill Stable-Baselines3's buffer and draw from it. Needs its environment."""
    from gymnasium import spaces
    from stable_baselines3.common.buffers import NStepReplayBuffer

    steps = play_back(Path(job.folder))
    before = own_memory()
    buffer = NStepReplayBuffer(
        job.transitions,
        spaces.Box(0, 255, (STACK, 84, 84), np.uint8),
        spaces.Discrete(3),
        device="cpu",
        n_envs=job.num_envs,
        n_steps=job.n_step,
        gamma=GAMMA,
    )
    for observation, action, reward, following, terminated, over in steps:
        truncated = over & ~terminated
        infos = [{"TimeLimit.truncated": bool(cut)} for cut in truncated]
        buffer.add(observation, following, action, reward, over, infos)
    memory = own_memory() - before
    np.random.seed(job.seed)  # the buffer draws from the global generator
    seconds = time_draws(lambda: buffer.sample(job.batch_size), job)
    held = buffer.size() * job.num_envs
    return Measurement(job.batches * job.batch_size, seconds, held, memory, 0)


def time_draws(draw: Callable[[], object], job: Job) -> float:
    """Return the seconds that the job's batches take."""
    for _ in range(job.warm_up):
        draw()
    began = time.perf_counter()
    for _ in range(job.batches):
        draw()
    return time.perf_counter() - began


def run_child(job: Job, python: str) -> Measurement:
    """Measure in a process of its own."""
    words = [python, __file__, "--child", json.dumps(asdict(job))]
    # Standard error is left alone, so that a failure can be read.
    result = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        fail(f"The process of {job.side} failed ({result.returncode}): {shlex.join(words)}")
    return Measurement(**json.loads(result.stdout.splitlines()[-1]))


def compare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure all sides in turn, print every repetition, and return all numbers."""
    from rlagents import machine

    hardware, load = machine.hardware(), os.getloadavg()[0]
    versions = machine.versions()
    print(f"machine   {hardware['cpu']}, {hardware['cores']} cores, {hardware['system']}")
    print("versions  " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"commit    {machine.git_commit()}")
    print(f"command   {shlex.join(['python', *sys.argv])}")
    print(f"load      {load:.2f} before the first repetition")
    if load > 0.5:
        print("warning: other programs are running, so these numbers are of little worth")
    print(f"recording {options.transitions:,} transitions", flush=True)
    record_play(folder, options.transitions // options.num_envs, options.num_envs)
    sides = [*options.sides, *([PEER] if options.peer_python else [])]
    found: dict[str, list[Measurement]] = {side: [] for side in sides}
    for number in range(1, options.repetitions + 1):
        for side in sides:
            job = Job(
                side,
                str(folder),
                options.transitions,
                options.num_envs,
                options.batch_size,
                options.n_step,
                options.warm_up,
                options.batches,
                number,
            )
            python = options.peer_python if side == PEER else sys.executable
            measured = run_child(job, python)
            found[side].append(measured)
            print(
                f"repetition {number}  {side:<12}{measured.speed:>12,.0f} samples/s"
                f"{measured.memory_each:>12,.1f} bytes of memory"
                f"{measured.disk / measured.held:>12,.1f} of disk per transition",
                flush=True,
            )
    return {
        "hardware": hardware,
        "versions": versions,
        "load_before": load,
        "git_commit": machine.git_commit(),
        "command": ["python", *sys.argv],
        "batch_size": options.batch_size,
        "n_step": options.n_step,
        "transitions": options.transitions,
        "measurements": {side: [asdict(one) for one in all_] for side, all_ in found.items()},
        "summary": summarise(found),
    }


def summarise(found: dict[str, list[Measurement]]) -> dict[str, Any]:
    """Print and return medians of each side, and their ratios to the first."""
    summary: dict[str, Any] = {}
    first = next(iter(found))
    print(f"\n{'median':<12}{'samples/s':>12}{'to ' + first:>12}{'bytes':>12}{'to ' + first:>12}")
    for side, all_ in found.items():
        speed = statistics.median(one.speed for one in all_)
        memory = statistics.median(one.memory_each for one in all_)
        if not summary:
            base_speed, base_memory = speed, memory
        ratios = (speed / base_speed, memory / base_memory)
        print(f"{side:<12}{speed:>12,.0f}{ratios[0]:>12.2f}{memory:>12,.1f}{ratios[1]:>12.3f}")
        summary[side] = {
            "samples_per_second": speed,
            "bytes_per_transition": memory,
            "speed_ratio": ratios[0],
            "memory_ratio": ratios[1],
        }
    return summary


def fail(message: str) -> NoReturn:
    """End with a message and exit code 2."""
    print(f"benchmark_replay: {message}", file=sys.stderr)
    raise SystemExit(2)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def count(flag: str, default: int, text: str) -> None:
        parser.add_argument(
            flag, type=_count, default=default, metavar="N", help=f"{text} (default: {default})"
        )

    parser.add_argument(
        "--sides",
        nargs="+",
        choices=[*OURS],
        default=[*OURS],
        help="kinds of ours; ratios are to the first (default: all)",
    )
    parser.add_argument(
        "--peer-python", metavar="PATH", help="the Python that has Stable-Baselines3"
    )
    count("--transitions", 100_000, "transitions that each replay is filled with")
    count("--repetitions", 3, "measurements of each side")
    count("--batches", 500, "batches of each measurement")
    count("--warm-up", 50, "batches before the clock")
    count("--batch-size", 256, "transitions of a batch")
    count("--n-step", 3, "steps of a return")
    count("--num-envs", 8, "environments that are recorded")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all numbers here")
    parser.add_argument("--child", metavar="JOB", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number, 1 or more, got {text!r}")
    return number


def main() -> None:
    """Compare, or be one of the processes that measure."""
    options = parse()
    if options.child is not None:
        job = Job(**json.loads(options.child))
        measured = measure_peer(job) if job.side == PEER else measure_ours(job)
        print(json.dumps(asdict(measured)))
        return
    if not Path("/proc/self/statm").exists():
        fail("memory is read from /proc/self/statm, which this system lacks; use Linux.")
    if options.peer_python is not None and not Path(options.peer_python).is_file():
        fail(f"--peer-python: there is no {options.peer_python}; see scripts/benchmark_peers.py.")
    with tempfile.TemporaryDirectory() as folder:
        result = compare(options, Path(folder))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
