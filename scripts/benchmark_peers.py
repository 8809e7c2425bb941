r"""Measure training speed beside other frameworks' DQN: agent steps per second on Pong.

Both sides train on the same game (frame skip 4, up to 30 no-ops, no sticky actions; the peer sees
84x84 grey and a stack of 4, ours what its recipe says) with the same number of replayed samples per
agent step, alternating: ours, theirs, ours, theirs. Each measurement is a process of its own. The
clock starts after learning has started and ends before anything is saved, so it covers acting,
emulating, replay and learning, and for ours also the log files that a training writes. Evaluation
and recording are off. Both sides explore with epsilon = 0.01, as in most of a long training.

The peers, each in a file of scripts/peers:
    sb3       Stable-Baselines3 with RL-Zoo's settings for Atari (learning rate 1e-4, CnnPolicy, one
              environment, batch 32 every 4 steps, replay of 100,000 with optimize_memory_usage)
    cleanrl   one plain loop with the settings of CleanRL's dqn_atari.py (the same numbers, and
              Stable-Baselines3's wrappers and replay, as CleanRL has them)
    tianshou  Tianshou with the settings of its examples/atari/atari_dqn.py (ten environments of
              EnvPool, an update every 10 steps, double DQN with 3-step targets, replay of 100,000
              single frames); its batch is 80 where its example has 32, so that 8 samples are
              replayed for each agent step

A peer lives in a virtual environment of its own. From the root of the repository:

    # sb3 and cleanrl
    python3 -m venv peers
    peers/bin/pip install torch==2.13.0 --constraint constraints.txt
    peers/bin/pip install stable-baselines3==2.9.2 ale-py opencv-python-headless \
        --constraint constraints.txt

    # tianshou, which wants other versions of a few packages than constraints.txt has
    python3 -m venv peers-tianshou
    peers-tianshou/bin/pip install torch==2.13.0 --constraint constraints.txt
    peers-tianshou/bin/pip install tianshou==2.0.1 envpool==1.2.5 numpy==2.4.6 gymnasium==1.4.0 \
        opencv-python-headless==5.0.0.93

    peers/bin/python -c "import torch; print(torch.__version__)"

constraints.txt pins the version of torch. The last line should print 2.13.0+cpu: a build for CUDA
is a fair peer as well, but is then a different one from ours.

Examples:
    # the recipe with 8 samples for each agent step, beside each peer
    python scripts/benchmark_peers.py --peer-python peers/bin/python \
        --set agent.update_period_steps=8
    python scripts/benchmark_peers.py --peer cleanrl --peer-python peers/bin/python \
        --set agent.update_period_steps=8
    python scripts/benchmark_peers.py --peer tianshou --peer-python peers-tianshou/bin/python \
        --set agent.update_period_steps=8

    # and the same network and pictures on both sides: the Nature CNN of full width with one head,
    # six actions, 84x84, a stack of 4, uniform replay
    python scripts/benchmark_peers.py --peer-python peers/bin/python \
        --set agent.update_period_steps=8 --set network.width=1.0 \
        --set network.hidden_sizes=[512] --set network.dueling=false \
        --set env.action_set=minimal --set env.frame_size=84 --set env.frame_stack=4 \
        --set env.crop=[0,0] --set replay.kind=uniform --set replay.priority_exponent=0.6 \
        --set agent.loss=huber --set network.precision=auto

    # and also the same computation: float32, one-step targets without double DQN, and for the
    # peer as many environments and samples per update as ours has: as above, with
    #   --set network.precision=float32 --set agent.n_step=1 --set agent.double=false
    #   --peer-envs 8 --peer-batch-size 64
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from measuring import (
    OURS,
    Measurement,
    check_python,
    count,
    fail,
    run_child,
    show,
    show_machine,
    show_side,
    summarise,
    write_json,
)
from peers import PEERS
from peers.jobs import OursJob, PeerJob


def child_command(side: str, job: OursJob | PeerJob, python: str) -> list[str]:
    """Return the words that measure one side once."""
    return [python, __file__, "--child", side, json.dumps(asdict(job))]


def measure(side: str, job: str) -> Measurement:
    """Be the process that measures a side: `ours`, or a peer's name."""
    make = OursJob if side == OURS else PeerJob
    # Only the environment of this side has what its file imports.
    module = importlib.import_module(f"peers.{'ours' if side == OURS else side}")
    measured: Measurement = module.measure(make(**json.loads(job)))
    return measured


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measure both sides in turn, print every repetition, and return all numbers."""
    ours, theirs = make_jobs(options)
    peer = PEERS[options.peer]
    python = check_python(
        "--peer-python", options.peer_python, peer.modules, peer.title, peer.set_up
    )
    common = show_machine()
    sides: dict[str, tuple[str, OursJob | PeerJob, str]] = {
        OURS: (OURS, ours, sys.executable),
        options.peer: (peer.title, theirs, python),
    }
    found: dict[str, list[Measurement]] = {side: [] for side in sides}
    for number in range(1, options.repetitions + 1):
        for side, (title, job, interpreter) in sides.items():
            words = child_command(side, replace(job, seed=number), interpreter)
            measured = run_child(side, words)
            if number == 1:
                show_side(title, measured, words)
            show(number, side, measured)
            found[side].append(measured)
    return common | {
        "jobs": {side: asdict(job) for side, (_, job, _) in sides.items()},
        "measurements": {side: [asdict(one) for one in all_] for side, all_ in found.items()},
        "summary": summarise(found),
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
    # A recipe's stages begin with how well it plays, and would change what is measured.
    late = [key for key in type(config.agent).model_fields if key.startswith("late_")]
    overrides |= {f"agent.{key}": None for key in late if getattr(config.agent, key) is not None}
    peer = PEERS[options.peer]
    num_envs: int = options.peer_envs or peer.num_envs
    peer_batch_size: int = options.peer_batch_size or peer.batch_size
    if peer.one_env and num_envs != 1:
        fail(f"--peer-envs: {peer.title} plays in 1 environment, got {num_envs}.")
    peer_period, rest = divmod(peer_batch_size * period, batch_size)
    whole = peer_period and max(peer_period, num_envs) % min(peer_period, num_envs) == 0
    if rest or not whole:
        fail(
            f"--peer-batch-size, --peer-envs: {peer_batch_size} samples and {num_envs} "
            f"environments cannot make {batch_size} / {period} samples per agent step, as ours has."
        )
    print(f"samples     {batch_size / period:g} replayed per agent step, on both sides")
    ours = OursJob(
        options.config, overrides, 1, learning_starts, options.warm_up, steps=options.steps
    )
    theirs = PeerJob(
        1,
        learning_starts,
        options.warm_up,
        options.peer_steps,
        num_envs,
        peer_batch_size,
        peer_period,
        options.peer_threads,
    )
    return ours, theirs


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def number(flag: str, default: int | None, text: str) -> None:
        shown = "" if default is None else f" (default: {default})"
        parser.add_argument(flag, type=count, default=default, metavar="N", help=text + shown)

    parser.add_argument(
        "--peer", choices=[*PEERS], default="sb3", help="who is measured beside us (default: sb3)"
    )
    parser.add_argument(
        "--peer-python", metavar="PATH", help="the Python of the peer's environment (required)"
    )
    number("--repetitions", 3, "measurements of each side")
    number("--steps", 10_000, "agent steps measured in each repetition of ours")
    number("--peer-steps", 3_000, "agent steps measured in each repetition of the peer")
    number("--warm-up", 500, "agent steps from the start of learning to that of the clock")
    number("--learning-starts", None, "transitions before learning, both sides (default: config's)")
    parser.add_argument("--config", default="pong-dqn", help="our recipe (default: pong-dqn)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a key of our recipe, such as network.width=1.0; may be given repeatedly",
    )
    number("--peer-threads", None, "torch's threads in the peer (default: torch's own choice)")
    number("--peer-envs", None, "the peer's environments (default: 1, tianshou 10)")
    number(
        "--peer-batch-size",
        None,
        "samples of each of the peer's updates; their period follows (default: 32, tianshou 80)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all numbers here")
    parser.add_argument("--child", nargs=2, metavar=("SIDE", "JOB"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    """Compare, or be one of the processes that measure."""
    options = parse()
    if options.child is not None:
        print(json.dumps(asdict(measure(*options.child))))
        return
    write_json(options.json, compare(options))


if __name__ == "__main__":
    main()
