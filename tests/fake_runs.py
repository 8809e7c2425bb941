"""Folders of runs that nobody has trained, with numbers that a test can work with by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlagents.run import RunFolder
from rlagents.types import Episode, EvaluationRow


def write_run(
    runs_dir: Path,
    name: str,
    *,
    seed: int = 1,
    env: str = "pong",
    recipe: str = "pong-dqn",
    returns: Sequence[float] = (),
    evaluations: Sequence[Sequence[float]] = (),
    step: int = 10,
    step_s: float = 0.5,
    **agent: Any,
) -> RunFolder:
    """Write a run's folder.

    Args:
        runs_dir: where.
        name: of the run.
        seed: of the run.
        env: its environment.
        recipe: what its config is called.
        returns: of its training episodes, which end at `step`, 2 `step`, ... agent steps.
        evaluations: the returns of each evaluation's episodes; they are played at 100, 200, ...
        step: agent steps of an episode.
        step_s: seconds of an agent step.
        **agent: keys of its `[agent]` table.
    """
    folder = RunFolder.create(runs_dir, name)
    folder.write_manifest(
        {
            "recipe": recipe,
            "config": {
                "total_steps": 1000,
                "seed": seed,
                "env": {"id": env, "kwargs": {}},
                "agent": {"name": "dqn", "n_step": 1} | agent,
                "replay": None,
            },
            "observation_space": {},
            "action_space": {},
            "reproducible": True,
            "difference": None,
            "threads": 2,
            "versions": {"python": "3.11.0", "torch": "2.13.0"},
            "git_commit": "abc123",
            "hardware": {"system": "Linux", "cores": 2, "memory_bytes": 8_000_000_000, "gpu": None},
        }
    )
    episodes = [
        Episode(k, end, end, 0, k, float(value), step, "terminated", end * step_s)
        for k, value in enumerate(returns)
        for end in [(k + 1) * step]
    ]
    rows = []
    for number, own in enumerate(evaluations, start=1):
        mean = sum(own) / len(own)
        std = (sum((value - mean) ** 2 for value in own) / len(own)) ** 0.5
        at = 100 * number
        rows.append(
            EvaluationRow(at, at, len(own), mean, std, mean, min(own), max(own), at * step_s)
        )
    _write_rows(folder.directory / "episodes.csv", Episode._fields, episodes)
    _write_rows(folder.directory / "evaluations.csv", EvaluationRow._fields, rows)
    folder.write_status("finished", max(len(returns) * step, 100 * len(evaluations)))
    return folder


def write_video(
    folder: RunFolder, step: int, *, episode: int = 0, training: bool = False, size: int = 64
) -> Path:
    """Write what has the name and the JSON of a video; its content is made up."""
    stem = f"{'training-' if training else ''}step-{step}-episode-{episode}-return-{step / 8:g}"
    path = folder.videos / f"{stem}.mp4"
    path.write_bytes(f"video of step {step}, episode {episode}".encode())
    with path.open("r+b") as file:
        file.truncate(size)  # a large one takes no space on the disk
    about = {"episodic_return": step / 8, "episodic_length": 1500}
    about |= {"frames_per_second": 30, "num_frames": 3000}
    path.with_suffix(".json").write_text(json.dumps(about))
    return path


def _write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    lines = [header, *([str(value) for value in row] for row in rows)]
    path.write_text("".join(",".join(line) + "\n" for line in lines))
