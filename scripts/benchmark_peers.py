r"""Measure training speed beside Stable-Baselines3's DQN: agent steps per second on Pong.

Both sides train on the same game (frame skip 4, up to 30 no-ops, no sticky actions; the peer sees
84x84 grey and a stack of 4, ours what its recipe says) with the same number of replayed samples per
agent step, alternating: ours, theirs, ours, theirs. Each measurement is a process of its own. The
clock starts after learning has started and ends before anything is saved, so it covers acting,
emulating, replay and learning, and for ours also the log files that a training writes. Evaluation
and recording are off. Both sides explore with epsilon = 0.01, as in most of a long training.

Stable-Baselines3 runs with RL-Zoo's settings for Atari (learning rate 1e-4, CnnPolicy, one
environment, batch 32 every 4 steps, replay of 100,000 with optimize_memory_usage) and lives in a
virtual environment of its own. From the root of the repository:

    python3 -m venv peers
    peers/bin/pip install torch==2.13.0 --constraint constraints.txt
    peers/bin/pip install stable-baselines3==2.9.2 ale-py opencv-python-headless \
        --constraint constraints.txt
    peers/bin/python -c "import torch; print(torch.__version__)"

constraints.txt pins the version of torch. The last line should print 2.13.0+cpu: a build for CUDA
is a fair peer as well, but is then a different one from ours.

Examples:
    # the recipe with the peer's 8 samples for each agent step
    python scripts/benchmark_peers.py --peer-python peers/bin/python \
        --set agent.update_period_steps=8

    # and the same network and pictures on both sides: the Nature CNN of full width with one head,
    # six actions, 84x84, a stack of 4, uniform replay
    python scripts/benchmark_peers.py --peer-python peers/bin/python \
        --set agent.update_period_steps=8 --set network.width=1.0 \
        --set network.hidden_sizes=[512] --set network.dueling=false \
        --set env.action_set=minimal --set env.frame_size=84 --set env.frame_stack=4 \
        --set env.crop=[0,0] --set replay.kind=uniform --set replay.priority_exponent=0.6

    # and also the same computation: float32, one-step targets without double DQN, and for the
    # peer as many environments and samples per update as ours has: as above, with
    #   --set network.precision=float32 --set agent.n_step=1 --set agent.double=false
    #   --peer-envs 8 --peer-batch-size 64
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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

EPSILON = 0.01
LINE_PERIOD_S = 0.5  # between our lines of metrics.jsonl, which the clock is read from
PEER_REPLAY = 100_000
PEER_GAME = "PongNoFrameskip-v4"
SET_UP_PEER = """To set it up, from the root of the repository:
  python3 -m venv peers
  peers/bin/pip install torch==2.13.0 --constraint constraints.txt
  peers/bin/pip install stable-baselines3==2.9.2 ale-py opencv-python-headless \
--constraint constraints.txt
and then give --peer-python peers/bin/python"""


@dataclass(frozen=True)
class OursJob:
    """What a process of ours is to measure.

    Attributes:
        config: a recipe's name or a TOML file.
        overrides: by dotted key.
        seed: of the training.
        learning_starts: transitions in replay before the first update.
        warm_up: agent steps between the start of learning and that of the clock.
        steps: agent steps to measure.
    """

    config: str
    overrides: dict[str, Any]
    seed: int
    learning_starts: int
    warm_up: int
    steps: int


@dataclass(frozen=True)
class PeerJob:
    """What a process of Stable-Baselines3 is to measure.

    Attributes:
        seed: of the training.
        learning_starts: transitions in replay before the first update.
        warm_up: agent steps between the start of learning and that of the clock.
        steps: agent steps to measure.
        num_envs: environments stepped together.
        batch_size: transitions of one update.
        update_period: agent steps for each update.
        threads: of torch; its own choice if None.
    """

    seed: int
    learning_starts: int
    warm_up: int
    steps: int
    num_envs: int
    batch_size: int
    update_period: int
    threads: int | None


@dataclass(frozen=True)
class Measurement:
    """One repetition of one side.

    Attributes:
        steps: agent steps between the two readings of the clock.
        seconds: between them.
        settings: what was run, as the side itself resolved it.
        versions: of Python and packages.
    """

    steps: int
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def steps_per_second(self) -> float:
        """Return agent steps per second."""
        return self.steps / self.seconds


def measure_ours(job: OursJob) -> Measurement:
    """Train through the public API and read the clock from the lines of metrics.jsonl."""
    import rlagents
    from rlagents import machine

    begin = job.learning_starts + job.warm_up
    total = begin + job.steps
    overrides = {
        "agent.epsilon_start": EPSILON,
        "agent.epsilon_end": EPSILON,
        "evaluation.period_steps": 0,
        "recording.enabled": False,
        "checkpoint.period_steps": 10**12,  # one at the end, behind the last reading
        "checkpoint.replay": "never",
        "logging.period_s": LINE_PERIOD_S,
        **job.overrides,
        "agent.learning_starts": job.learning_starts,
        "total_steps": total,
        "seed": job.seed,
    }
    with tempfile.TemporaryDirectory() as runs:
        run = rlagents.train(job.config, overrides, runs_dir=runs, quiet=True)
        manifest = json.loads((run.directory / "config.json").read_text(encoding="utf-8"))
        text = (run.directory / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    # The last step is followed by a checkpoint: lines from there on have its time in them.
    window = [line for line in lines if begin <= line["step"] < total]
    if len(window) < 2:
        fail(f"ours: {job.steps} steps are over too soon to be timed; give more --steps.")
    if not all("losses/td_loss" in line for line in window):
        fail("ours: there is a line without a loss: learning had not started.")
    config = manifest["config"]
    settings = {
        "env": config["env"],
        "agent": config["agent"],
        "network": config["network"],
        "replay": config["replay"],
        "device": config["device"],
        "threads": manifest["threads"],
    }
    return Measurement(
        window[-1]["step"] - window[0]["step"],
        window[-1]["wall_time_s"] - window[0]["wall_time_s"],
        settings,
        machine.versions(),
    )


def measure_peer(job: PeerJob) -> Measurement:
    """Train with Stable-Baselines3 and read the clock in a callback. Needs its environment."""
    import importlib.metadata
    import platform

    import ale_py
    import gymnasium
    import torch
    from stable_baselines3 import DQN
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.vec_env import VecFrameStack

    class Clock(BaseCallback):  # type: ignore[misc, unused-ignore]  # untyped where it is missing
        """Reads the clock and the number of updates at two counts of steps, then stops."""

        def __init__(self) -> None:
            super().__init__()
            self.readings: list[tuple[int, float, int]] = []

        def _on_step(self) -> bool:
            begin = job.learning_starts + job.warm_up
            due = begin if not self.readings else self.readings[0][0] + job.steps
            cycle = max(job.update_period, job.num_envs)
            if self.num_timesteps >= due and self.num_timesteps % cycle == 0:
                updates = int(self.model._n_updates)
                self.readings.append((self.num_timesteps, time.perf_counter(), updates))
            return len(self.readings) < 2

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner
    gymnasium.register_envs(ale_py)
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    train_freq = max(1, job.update_period // job.num_envs)
    gradient_steps = max(1, job.num_envs // job.update_period)
    env = VecFrameStack(make_atari_env(PEER_GAME, n_envs=job.num_envs, seed=job.seed), n_stack=4)
    model = DQN(
        "CnnPolicy",
        env,
        learning_rate=1e-4,
        buffer_size=PEER_REPLAY,
        learning_starts=job.learning_starts,
        batch_size=job.batch_size,
        train_freq=train_freq,
        gradient_steps=gradient_steps,
        target_update_interval=1000,
        exploration_initial_eps=EPSILON,
        exploration_final_eps=EPSILON,
        optimize_memory_usage=True,
        replay_buffer_kwargs={"handle_timeout_termination": False},
        seed=job.seed,
    )
    clock = Clock()
    model.learn(total_timesteps=10_000_000, callback=clock)
    env.close()
    (first, began, updates_before), (last, ended, updates_after) = clock.readings
    steps, updates = last - first, updates_after - updates_before
    if updates * job.update_period != steps:
        fail(f"Stable-Baselines3: {updates} updates in {steps} steps, expected another number.")
    settings = {
        "game": PEER_GAME,
        "num_envs": job.num_envs,
        "policy": "CnnPolicy",
        "learning_rate": 1e-4,
        "buffer_size": PEER_REPLAY,
        "optimize_memory_usage": True,
        "learning_starts": job.learning_starts,
        "batch_size": job.batch_size,
        "train_freq": train_freq,
        "gradient_steps": gradient_steps,
        "target_update_interval": 1000,
        "epsilon": EPSILON,
        "device": str(model.device),
        "threads": torch.get_num_threads(),
        "updates_measured": updates,
    }
    packages = ("stable-baselines3", "torch", "numpy", "gymnasium", "ale-py")
    versions = {"python": platform.python_version()}
    versions |= {package: importlib.metadata.version(package) for package in packages}
    return Measurement(steps, ended - began, settings, versions)


def child_command(side: str, job: OursJob | PeerJob, python: str) -> list[str]:
    """Return the words that measure one side once."""
    return [python, __file__, "--child", side, json.dumps(asdict(job))]


def run_child(side: str, job: OursJob | PeerJob, python: str) -> Measurement:
    """Measure in a process of its own."""
    words = child_command(side, job, python)
    # Standard error is left alone, so that a failure can be read.
    result = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        fail(f"The process of {side} failed (exit code {result.returncode}): {shlex.join(words)}")
    return Measurement(**json.loads(result.stdout.splitlines()[-1]))


def check_peer(python: str | None) -> str:
    """Return the peer's Python, or end with what to do."""
    if python is None:
        fail(f"--peer-python is missing: the Python that has Stable-Baselines3.\n{SET_UP_PEER}")
    probe = [python, "-c", "import stable_baselines3, ale_py, cv2"]
    try:
        result = subprocess.run(probe, capture_output=True, text=True, check=False)
    except OSError as error:
        fail(f"--peer-python: {python} cannot be run ({error.strerror}).\n{SET_UP_PEER}")
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        fail(f"--peer-python: {python} has no Stable-Baselines3 ({reason}).\n{SET_UP_PEER}")
    return python


def fail(message: str) -> NoReturn:
    """End with a message and exit code 2."""
    print(f"benchmark_peers: {message}", file=sys.stderr)
    raise SystemExit(2)


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measure both sides in turn, print every repetition, and return all numbers."""
    from rlagents import machine

    ours, peer = make_jobs(options)
    peer_python = check_peer(options.peer_python)
    hardware = machine.hardware()
    load = os.getloadavg()[0]
    print(f"machine     {hardware['cpu']}, {hardware['cores']} cores, {hardware['system']}")
    print(f"load        {load:.2f} before the first repetition")
    if load > 0.5:
        print("warning: other programs are running, so these numbers are of little worth")
    print(f"commit      {machine.git_commit()}")
    print(f"command     {shlex.join(['python', *sys.argv])}")
    records: list[dict[str, Any]] = []
    pairs: list[tuple[Measurement, Measurement]] = []
    for number in range(1, options.repetitions + 1):
        job = OursJob(**(asdict(ours) | {"seed": number}))
        first = run_child("ours", job, sys.executable)
        if number == 1:
            show_side("ours", first, child_command("ours", job, sys.executable))
        show(number, "ours", first)
        peer_job = PeerJob(**(asdict(peer) | {"seed": number}))
        second = run_child("peer", peer_job, peer_python)
        if number == 1:
            show_side("peer", second, child_command("peer", peer_job, peer_python))
        show(number, "peer", second)
        pairs.append((first, second))
        for side, measurement in (("ours", first), ("peer", second)):
            speed = {"steps_per_second": measurement.steps_per_second}
            records.append({"repetition": number, "side": side} | speed | asdict(measurement))
    return {
        "hardware": hardware,
        "load_before": load,
        "git_commit": machine.git_commit(),
        "command": ["python", *sys.argv],
        "jobs": {"ours": asdict(ours), "peer": asdict(peer)},
        "measurements": records,
        "summary": summarise(pairs),
    }


def make_jobs(options: argparse.Namespace) -> tuple[OursJob, PeerJob]:
    """Check the options against the recipe and return the first job of each side."""
    from rlagents.config import build_config, parse_option_values, read_config
    from rlagents.errors import UsageError

    texts = {}
    for word in options.set:
        key, equals, text = word.partition("=")
        if not equals:
            fail(f"--set: expected KEY=VALUE, got {word!r}.")
        texts[key] = text
    try:
        overrides = parse_option_values(texts)
        tables, recipe = read_config(options.config)
        config = build_config(tables, overrides, recipe)
    except UsageError as error:
        fail(str(error))
    if config.agent_name != "dqn":
        fail(f"--config: expected a recipe of the agent dqn, got one of {config.agent_name!r}.")
    batch_size: int = getattr(config.replay, "batch_size", 0)
    period: int = getattr(config.agent, "update_period_steps", 0)
    learning_starts: int = options.learning_starts or getattr(config.agent, "learning_starts", 0)
    peer_period, rest = divmod(options.peer_batch_size * period, batch_size)
    num_envs: int = options.peer_envs
    whole = peer_period and max(peer_period, num_envs) % min(peer_period, num_envs) == 0
    if rest or not whole:
        fail(
            f"--peer-batch-size, --peer-envs: {options.peer_batch_size} samples and {num_envs} "
            f"environments cannot make {batch_size} / {period} samples per agent step, as ours has."
        )
    print(f"samples     {batch_size / period:g} replayed per agent step, on both sides")
    ours = OursJob(
        options.config, overrides, 1, learning_starts, options.warm_up, steps=options.steps
    )
    peer = PeerJob(
        1,
        learning_starts,
        options.warm_up,
        options.peer_steps,
        num_envs,
        options.peer_batch_size,
        peer_period,
        options.peer_threads,
    )
    return ours, peer


def show_side(side: str, measurement: Measurement, words: Sequence[str]) -> None:
    """Print what a side runs."""
    name = "ours, rlagents" if side == "ours" else "peer, Stable-Baselines3"
    print(f"{name}:")
    print(f"  command   {shlex.join(words)}")
    print("  versions  " + ", ".join(f"{k} {v}" for k, v in measurement.versions.items()))
    for key, value in measurement.settings.items():
        if isinstance(value, Mapping):
            inner = ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)
            print(f"  [{key}] {inner}")
    plain = {k: v for k, v in measurement.settings.items() if not isinstance(v, Mapping)}
    print("  " + ", ".join(f"{key} {value}" for key, value in plain.items()))


def show(number: int, side: str, measurement: Measurement) -> None:
    """Print a repetition."""
    print(
        f"repetition {number}  {side}  {measurement.steps_per_second:8.1f} steps/s"
        f"  ({measurement.steps:,} steps in {measurement.seconds:.2f} s)",
        flush=True,
    )


def summarise(pairs: Sequence[tuple[Measurement, Measurement]]) -> dict[str, Any]:
    """Print and return minimum, median and maximum of each side, and the ratios."""
    summary: dict[str, Any] = {}
    print(f"\n{'steps/s':<10}{'min':>10}{'median':>10}{'max':>10}")
    for side, index in (("ours", 0), ("peer", 1)):
        speeds = [pair[index].steps_per_second for pair in pairs]
        low, middle, high = min(speeds), statistics.median(speeds), max(speeds)
        print(f"{side:<10}{low:>10.1f}{middle:>10.1f}{high:>10.1f}")
        summary[side] = {"min": low, "median": middle, "max": high}
    ratios = [ours.steps_per_second / peer.steps_per_second for ours, peer in pairs]
    ratio = summary["ours"]["median"] / summary["peer"]["median"]
    print(f"ratio of medians   {ratio:.2f}")
    print("ratio by pair      " + "  ".join(f"{value:.2f}" for value in ratios))
    return summary | {"ratio_of_medians": ratio, "ratios": ratios}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def count(flag: str, default: int | None, text: str) -> None:
        shown = "" if default is None else f" (default: {default})"
        parser.add_argument(flag, type=_count, default=default, metavar="N", help=text + shown)

    parser.add_argument(
        "--peer-python", metavar="PATH", help="the Python that has Stable-Baselines3 (required)"
    )
    count("--repetitions", 3, "measurements of each side")
    count("--steps", 10_000, "agent steps measured in each repetition of ours")
    count("--peer-steps", 3_000, "agent steps measured in each repetition of the peer")
    count("--warm-up", 500, "agent steps from the start of learning to that of the clock")
    count("--learning-starts", None, "transitions before learning, both sides (default: config's)")
    parser.add_argument("--config", default="pong-dqn", help="our recipe (default: pong-dqn)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a key of our recipe, such as network.width=1.0; may be given repeatedly",
    )
    count("--peer-threads", None, "torch's threads in the peer (default: torch's own choice)")
    count("--peer-envs", 1, "the peer's environments")
    count("--peer-batch-size", 32, "samples of each of the peer's updates; their period follows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all numbers here")
    parser.add_argument("--child", nargs=2, metavar=("SIDE", "JOB"), help=argparse.SUPPRESS)
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
        side, job = options.child
        values = json.loads(job)
        measured = (
            measure_ours(OursJob(**values)) if side == "ours" else measure_peer(PeerJob(**values))
        )
        print(json.dumps(asdict(measured)))
        return
    result = compare(options)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
