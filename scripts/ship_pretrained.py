"""Make an agent that comes with the package out of a run: its network, and how it was trained.

Half the size costs some agents their play, so what float16 does to the score is measured and shown.

Examples:
    python scripts/ship_pretrained.py runs/RUN --name pong --checkpoint best
    python scripts/ship_pretrained.py runs/RUN --name pong --dtype float16
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rlagents.agents import find_agent
from rlagents.agents.storage import load_tensors, save_tensors
from rlagents.api import Pretrained, Run, open_run
from rlagents.checkpoint import Checkpoint
from rlagents.config import (
    RunConfig,
    build_config,
    builtin_configs,
    option_flag,
    options,
    read_config,
)
from rlagents.envs import find_env, resolve_env_config
from rlagents.errors import RLAgentsError, UsageError
from rlagents.evaluate import Evaluation
from rlagents.pretrained import FOLDER, MANIFEST, NETWORK
from rlagents.run import RunFolder, write_json

DTYPES = {"float16": torch.float16, "float32": torch.float32}


def ship(
    run: Run,
    name: str,
    *,
    checkpoint: str | None,
    episodes: int,
    dtype: str,
    into: Path,
    command: str | None,
) -> Path:
    """Write the folder of an agent and say how it plays.

    Args:
        run: that it was trained in.
        name: of the agent; a folder of that name is replaced.
        checkpoint: "best", "last" or a step; the best, else the last, if None.
        episodes: of its evaluation.
        dtype: of the weights in the file.
        into: where the folder is made.
        command: that trained it; put together from the run's recipe and config if None.

    Raises:
        UsageError: something about these is wrong; nothing has been written.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise UsageError(f"--name: expected small letters, digits and '-', got {name!r}.")
    manifest = RunFolder(run.directory).manifest()
    command = command or training_command(run.config, manifest["recipe"])
    found = run.checkpoint(checkpoint)
    source = found.directory / "agent" / NETWORK
    if not source.is_file():
        raise UsageError(
            f"{source} is not there: only agents that save their network in one file can be "
            "shipped."
        )
    del manifest["format"]
    about = manifest | {
        "config": run.config.model_dump(mode="json"),
        "training": {
            "command": command,
            "seed": run.config.seed,
            "step": found.step,
            "wall_time_s": wall_time(run, found),
        },
        "dtype": dtype,
    }
    if dtype != "float32":  # which is what networks are trained in
        exact = run.evaluate(episodes, checkpoint=found.step)
        print(f"{found.name} in float32: {describe(exact)}", flush=True)
        about["evaluation_in_float32"] = {
            "mean_return": exact.mean_return,
            "std_return": exact.std_return,
        }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / name
        folder.mkdir()
        tensors = load_tensors(source)
        for key, tensor in tensors.items():
            if tensor.is_floating_point():
                tensors[key] = tensor.to(DTYPES[dtype])
        save_tensors(tensors, folder / NETWORK)
        (folder / NETWORK).chmod(0o644)  # safetensors lets nobody else read it
        write_json(folder / MANIFEST, about)
        shipped = Pretrained(folder).evaluate(episodes)
        write_json(folder / MANIFEST, about | {"evaluation": score(shipped)})
        target = into / name
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(folder, target)
    size = (target / NETWORK).stat().st_size
    print(f"as shipped, {dtype} in {size / 1e6:.2f} MB: {describe(shipped)}")
    return target


def training_command(config: RunConfig, recipe: str) -> str:
    """Return the command that trains by a run's config: its recipe, and what differs from that.

    Raises:
        UsageError: the recipe is none that comes with the package.
    """
    if recipe not in builtin_configs():
        raise UsageError(
            f"The run was trained from {recipe!r}, which is no recipe of the package: say with "
            "--command how others can train it."
        )
    tables, _ = read_config(recipe)
    chosen = {"env.id": config.env.id, "agent.name": config.agent_name}
    plain = build_config(tables, chosen, recipe)
    plain = plain.model_copy(
        update={
            "device": config.device,
            "env": resolve_env_config(plain.env, find_env(config.env.id)),
            **find_agent(config.agent_name).resolve(plain, config.device),
        }
    )
    mine, usual = (flatten(each) for each in (config, plain))
    for key in chosen:  # a recipe's own, where it was not changed
        table, _, name = key.partition(".")
        usual[key] = tables.get(table, {}).get(name)
    words = ["rlagents", "train", recipe, "--seed", str(config.seed)]
    for key, value in mine.items():
        if key != "seed" and value != usual[key]:
            words += [option_flag(key), value if isinstance(value, str) else toml(value)]
    return shlex.join(words)


def flatten(config: RunConfig) -> dict[str, Any]:
    """Return every value of a config by its dotted key."""
    values = config.model_dump(mode="json")
    flat = {}
    for option in options(type(config)):
        table, dot, key = option.name.partition(".")
        flat[option.name] = (values[table] or {}).get(key) if dot else values[table]
    return flat


def toml(value: Any) -> str:
    """Return a value as an option has it: as in TOML, on one line, or "none"."""
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)


def wall_time(run: Run, checkpoint: Checkpoint) -> float | None:
    """Return the seconds of training until a checkpoint, None where no line was logged by then."""
    lines = (run.directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    clocks = [json.loads(line) for line in lines if line.endswith("}")]
    times = [clock["wall_time_s"] for clock in clocks if clock["step"] <= checkpoint.step]
    return round(max(times), 1) if times else None


def score(evaluation: Evaluation) -> dict[str, Any]:
    """Return what `rlagents evaluate --json` prints, without where the run lay."""
    return {key: value for key, value in evaluation.as_dict().items() if key != "run"}


def describe(evaluation: Evaluation) -> str:
    """Return an evaluation in words."""
    return (
        f"mean return {evaluation.mean_return:.2f} ± {evaluation.std_return:.2f} over "
        f"{len(evaluation.returns)} episodes"
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder, or its name in the runs folder")
    parser.add_argument("--name", required=True, help="of the agent; replaces one of that name")
    parser.add_argument(
        "--checkpoint", metavar="best|last|STEP", help="default: the best, else the last"
    )
    parser.add_argument(
        "--episodes", type=int, default=100, metavar="N", help="of its evaluation (default: 100)"
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="of the weights in the file (default: float32)",
    )
    parser.add_argument(
        "--into", type=Path, default=FOLDER, metavar="DIR", help="default: the package's own folder"
    )
    parser.add_argument(
        "--command", help="that trained it (default: from the run's recipe and config)"
    )
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), metavar="DIR")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Ship the agent and return the exit code."""
    given = parse(arguments)
    try:
        target = ship(
            open_run(given.run, runs_dir=given.runs_dir),
            given.name,
            checkpoint=given.checkpoint,
            episodes=given.episodes,
            dtype=given.dtype,
            into=given.into,
            command=given.command,
        )
    except RLAgentsError as error:
        print(f"ship_pretrained: {error}", file=sys.stderr)
        return error.exit_code
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
