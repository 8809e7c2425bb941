"""What a run's files say about how it went; read without loading its environment or its network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rlagents.curves import running_mean
from rlagents.errors import UsageError
from rlagents.logs import read_success_rates
from rlagents.run import RunFolder
from rlagents.statistics import RECENT_EPISODES, Float64Array
from rlagents.types import EvaluationRow
from rlagents.wording import printable

Axis = Literal["steps", "time"]
What = Literal["training", "evaluation"]


@dataclass(frozen=True)
class History:
    """A run, as far as it has come.

    Attributes:
        folder: the run's.
        manifest: its config.json.
        status: its status.json, empty if that cannot be read.
        seed: of the run.
        env_id: of its environment.
        episode_steps: [T] agent steps of the run at the end of each training episode.
        episode_times_s: [T] seconds of training then.
        returns: [T] of the training episodes.
        evaluations: in order.
        success_rates: the share of completed episodes of those that tell, by their steps.
    """

    folder: RunFolder
    manifest: Mapping[str, Any]
    status: Mapping[str, Any]
    seed: int
    env_id: str
    episode_steps: Float64Array
    episode_times_s: Float64Array
    returns: Float64Array
    evaluations: tuple[EvaluationRow, ...]
    success_rates: Mapping[int, float]

    @property
    def name(self) -> str:
        """Return the run's name."""
        return printable(self.folder.name)

    @property
    def recipe(self) -> str:
        """Return what the run's config is called."""
        return printable(str(self.manifest.get("recipe") or self.env_id))

    @property
    def steps(self) -> int:
        """Return the agent steps that are known to be done."""
        step = self.status.get("step")
        known = [step if isinstance(step, int) else 0, *(row.step for row in self.evaluations[-1:])]
        return max(*known, int(self.episode_steps[-1]) if len(self.episode_steps) else 0)

    @property
    def wall_time_s(self) -> float:
        """Return the seconds of training up to the last episode or evaluation."""
        known = [0.0, *self.episode_times_s[-1:], *(row.wall_time_s for row in self.evaluations)]
        return float(max(known))

    @property
    def best_evaluation(self) -> EvaluationRow | None:
        """Return the evaluation with the highest mean return, the latest of equals.

        Where episodes tell whether they were completed, the highest share of those comes first.
        """
        rows = [row for row in self.evaluations if not math.isnan(row.mean_return)]

        def rank(row: EvaluationRow) -> tuple[float, float, int]:
            return self.success_rates.get(row.step, 0.0), row.mean_return, row.step

        return max(rows, key=rank, default=None)

    @property
    def last_evaluation(self) -> EvaluationRow | None:
        """Return the newest evaluation."""
        return self.evaluations[-1] if self.evaluations else None

    @property
    def recent_return(self) -> float | None:
        """Return the mean return of the last training episodes."""
        return float(self.returns[-RECENT_EPISODES:].mean()) if len(self.returns) else None

    def curve(self, what: What, axis: Axis) -> tuple[Float64Array, Float64Array]:
        """Return a learning curve.

        Args:
            what: the mean return of the last training episodes, or that of the evaluations.
            axis: over agent steps, or over seconds of training.

        Returns:
            where the values are [T], never falling, and the values [T].
        """
        if what == "training":
            x = self.episode_steps if axis == "steps" else self.episode_times_s
            return x, running_mean(self.returns, RECENT_EPISODES)
        rows = self.evaluations
        x = np.array([row.step if axis == "steps" else row.wall_time_s for row in rows], np.float64)
        return x, np.array([row.mean_return for row in rows], np.float64)


def read_history(run: str | Path, runs_dir: Path) -> History:
    """Read a run by its folder, or by its name under the runs folder.

    Raises:
        UsageError: it is not a run, is of another version, or one of its files is damaged.
    """
    folder = RunFolder.open(run, runs_dir)
    manifest = folder.manifest()
    config = manifest["config"]
    try:
        seed, env_id = int(config["seed"]), printable(str(config["env"]["id"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        path = folder.directory / "config.json"
        raise UsageError(
            f"{path} is damaged: expected a config with a seed and an environment's id."
        ) from None
    try:
        status = folder.status()
    except (OSError, TypeError, ValueError, RecursionError):
        status = {}
    numbers = [(row.step, row.wall_time_s, row.episodic_return) for row in folder.episodes()]
    try:
        steps, times, returns = np.array(numbers, dtype=np.float64).reshape(-1, 3).T
    except OverflowError:
        path = folder.directory / "episodes.csv"
        raise UsageError(f"{path} is damaged: a step has too many digits for a number.") from None
    return History(
        folder,
        manifest,
        status,
        seed,
        env_id,
        steps,
        times,
        returns,
        tuple(folder.evaluations()),
        read_success_rates(folder.directory),
    )
