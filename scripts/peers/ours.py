"""rlagents: trained through its public API, timed by the lines that it logs."""

from __future__ import annotations

import json
import tempfile

import rlagents
from measuring import Measurement, fail
from peers.jobs import EPSILON, REPLAY_CAPACITY, OursJob
from rlagents import machine

LINE_PERIOD_S = 0.5  # between the lines of metrics.jsonl, which the clock is read from


def measure(job: OursJob) -> Measurement:
    """Train and read the clock from the lines of metrics.jsonl."""
    begin = job.learning_starts + job.warm_up
    total = begin + job.steps
    overrides = {
        "agent.epsilon_start": EPSILON,
        "agent.epsilon_end": EPSILON,
        "agent.epsilon_spread": 0.0,
        "replay.capacity": REPLAY_CAPACITY,
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
