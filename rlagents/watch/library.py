"""A folder of runs, as the JSON that the page reads.

What was read is kept and looked at again only where a file has changed; of the runs that were
shown, the last few stay open. A run that cannot be read, or is deleted meanwhile, costs the others
nothing.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import shlex
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from rlagents.curves import SHORTER, group_curve, group_runs
from rlagents.errors import UsageError
from rlagents.logs import CAPACITY, Averages, EpisodePoint, RunLogs
from rlagents.statistics import Float64Array
from rlagents.trust import is_trusted
from rlagents.watch.summaries import (
    Json,
    evaluation_point,
    file_signature,
    read_manifest,
    read_status,
    signature,
    state_of,
    summarise,
    unreadable,
)
from rlagents.watch.values import text
from rlagents.watch.videos import (
    NotFoundError,
    can_be_asked_for,
    checked_file,
    describe_video,
    overlays_of,
    read_header,
    read_sidecar,
    video_names,
)

_SUMMARIES = 4000  # of runs that are kept
_OPEN_RUNS = 32  # whose curves are kept, at about 2 MB each
_HEADERS = 4000  # of videos
MOST_COMPARED = 32

_LARGEST = 2.0**53  # no larger whole number is exact

_Value = TypeVar("_Value")


class Recent(Generic[_Value]):
    """The values that were used last, by their keys.

    Args:
        most: how many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Any, _Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], _Value]) -> _Value:
        """Return the value of a key, made if it is not there."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()  # two at once may both make it; the first one counts
        with self._lock:
            value = self._values.setdefault(key, value)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value


class _OpenRun:
    """The logs of a run that is being shown."""

    def __init__(self, directory: Path) -> None:
        self.logs = RunLogs(directory)
        self.lock = threading.Lock()  # requests are answered by several threads
        self.name = secrets.token_hex(4)  # another one when it was closed and opened again


class Library:
    """The runs of a folder.

    Args:
        runs_dir: the folder.
        allow_import: whether environments that are code named in a run's config may be imported.
    """

    def __init__(self, runs_dir: Path, *, allow_import: bool = False) -> None:
        self.runs_dir = runs_dir
        self._root = runs_dir.resolve()
        self._allow_import = allow_import
        self._summaries: Recent[Json] = Recent(_SUMMARIES)
        self._open: Recent[_OpenRun] = Recent(_OPEN_RUNS)
        self._headers: Recent[Json | None] = Recent(_HEADERS)

    def run_ids(self) -> list[str]:
        """Return the names of the folders that are runs, or were."""
        try:
            with os.scandir(self._root) as entries:
                return [entry.name for entry in entries if self._is_run(entry)]
        except OSError:  # the folder was deleted
            return []

    @staticmethod
    def _is_run(entry: os.DirEntry[str]) -> bool:
        # Not entry.is_dir(), which raises for a link that leads to itself.
        if entry.name.startswith(".") or not os.path.isdir(entry.path):
            return False
        signs = ("config.json", "status.json", "episodes.csv")
        return any(os.path.isfile(os.path.join(entry.path, name)) for name in signs)

    def find(self, run_id: str) -> Path:
        """Return the folder of a run.

        Raises:
            NotFoundError: there is none of that name (any more).
        """
        if run_id not in self.run_ids():
            raise NotFoundError(
                f"There is no run {run_id!r} in {self.runs_dir}; perhaps it was deleted or renamed."
            )
        return self._directory(run_id)

    def _directory(self, run_id: str) -> Path:
        """Return the folder of a run that a listing named."""
        directory = (self._root / run_id).resolve()
        if not directory.is_relative_to(self._root):
            raise NotFoundError(
                f"{run_id!r} is a link out of {self.runs_dir}, which is not followed; start "
                f"rlagents watch on {directory.parent} to see that run."
            )
        return directory

    def runs(self) -> list[Json]:
        """Return the summaries of all runs, newest first."""
        summaries = [self._summary(run_id) for run_id in self.run_ids()]
        return sorted(summaries, key=lambda summary: (-summary["updated"], summary["id"]))

    def _summary(self, run_id: str) -> Json:
        if not can_be_asked_for(run_id):
            shown = run_id.encode("utf-8", "backslashreplace").decode("utf-8")
            problem = "The name of its folder is no text in UTF-8; rename it."
            return {"id": shown, "updated": 0.0} | unreadable(problem)
        try:
            directory = self._directory(run_id)
            status = read_status(directory)
            key = (directory, signature(directory))
            found = self._summaries.get(key, lambda: summarise(directory))
        except (NotFoundError, UsageError, OSError) as error:
            changed = file_signature(self._root / run_id / "config.json")
            updated = changed[2] / 1e9 if changed else 0.0
            return {"id": run_id, "updated": updated} | unreadable(str(error))
        state, updated = state_of(directory, status)
        return {"id": run_id, "state": state, "updated": updated, "problem": None} | found

    def details(self, run_id: str) -> Json:
        """Return what the page of a run shows, but for its curves.

        Raises:
            NotFoundError: there is no such run.
            UsageError: it cannot be read.
        """
        directory = self.find(run_id)
        manifest, status = read_manifest(directory), read_status(directory)
        summary = self._summary(run_id)
        with self._reading(directory) as logs:
            logs.update()
            evaluations, best = logs.evaluation_rows(), logs.best_evaluation()
            episodes, notes = logs.episodes, logs.notes()
            milestones = {
                "best": _episode(episodes.best),
                "worst": _episode(episodes.worst),
                "first_point": _episode(episodes.first_point),
            }
            summary["episodes"] = episodes.count
            summary["recent_return"] = episodes.recent_return
        summary["best_evaluation"] = evaluation_point(best)
        summary["last_evaluation"] = evaluation_point(evaluations[-1] if evaluations else None)
        headers = {name: self._header(directory, name) for name in video_names(directory).values()}
        damaged = sum(header is None for header in headers.values())
        if damaged:
            notes.append(
                f"The JSON beside {damaged} of the videos is missing or damaged, so "
                "their steps cannot be shown."
            )
        why_not = self._why_not(manifest)
        return summary | {
            "config": manifest["config"],
            "versions": manifest["versions"],
            "hardware": manifest.get("hardware", {}),
            "git_commit": text(manifest.get("git_commit")),
            "threads": manifest["threads"],
            "reproducible": manifest["reproducible"],
            "action_names": _action_names(headers.values()),
            "error": text(status.get("error")),
            "evaluations": evaluations,
            "videos": _videos(directory, headers, evaluations),
            "milestones": milestones,
            "can_rebuild": why_not is None,
            "why_not": why_not,
            "notes": notes,
        }

    @contextlib.contextmanager
    def _reading(self, directory: Path) -> Iterator[RunLogs]:
        """Hold the logs of a run, opened if they are not."""
        run = self._open.get(directory, lambda: _OpenRun(directory))
        with run.lock:
            yield run.logs

    def _header(self, directory: Path, name: str) -> Json | None:
        """Return what the JSON beside a video says, None if it is missing or damaged."""
        path = (directory / "videos" / name).with_suffix(".json")

        def read() -> Json | None:
            try:
                return read_header(checked_file(path, self._root))
            except (NotFoundError, UsageError):
                return None

        return self._headers.get((path, file_signature(path)), read)

    def _why_not(self, manifest: Mapping[str, Any]) -> str | None:
        """Return why no training episode of a run can be rebuilt, None if they can."""
        env_id = str(manifest["config"]["env"].get("id"))
        if not manifest["reproducible"]:
            return (
                f"{env_id} does not reproduce itself from a seed ({manifest['difference']}), so no "
                "training episode can be shown."
            )
        if not self._allow_import and not is_trusted(manifest):
            return (
                f"To show training episodes, the environment {env_id} must be imported, and it is "
                "code that you have not trained with on this machine. If you trust it, end this "
                "server and start: "
                f"rlagents watch {shlex.quote(str(self.runs_dir))} --allow-import"
            )
        return None

    def check_rebuild(self, run_id: str, episode: int) -> Path:
        """Return the folder of a run whose training episode can be rebuilt.

        Raises:
            NotFoundError: there is no such run or no such episode.
            UsageError: it cannot be rebuilt.
        """
        directory = self.find(run_id)
        why_not = self._why_not(read_manifest(directory))
        if why_not is not None:
            raise UsageError(why_not)
        with self._reading(directory) as logs:
            logs.episodes.update()
            count = logs.episodes.count
        if episode >= count:
            between = f"0 to {count - 1}" if count else "none yet"
            raise NotFoundError(
                f"{run_id} has no finished training episode {episode}; there are: {between}."
            )
        return directory

    def curves_version(self, run_id: str, points: int) -> str:
        """Return a text that is another one when `curves` would return something else.

        Raises:
            NotFoundError: there is no such run.
        """
        directory = self.find(run_id)
        run = self._open.get(directory, lambda: _OpenRun(directory))
        with run.lock:
            run.logs.update()
            return f"{run.name}-{run.logs.version}-{points}"

    def curves(self, run_id: str, points: int) -> Json:
        """Return the curves of a run, at most so many points each.

        Raises:
            NotFoundError: there is no such run.
            UsageError: the number of points is out of range.
        """
        directory = self.find(run_id)
        if not 2 <= points <= CAPACITY:
            raise UsageError(f"points: expected 2 to {CAPACITY}, got {points}.")
        with self._reading(directory) as logs:
            logs.update()
            return {
                "training": {
                    "episodes": [_episode(one) for one in logs.episodes.curve.episodes(points)],
                    "mean": _curve(logs.episodes.mean, points, "return"),
                },
                "metrics": {
                    name: _curve(series, points, "value")
                    for name, series in sorted(logs.metrics.series.items())
                },
            }

    def group_curves(
        self,
        run_ids: Sequence[str],
        x: Literal["step", "wall_time_s"],
        what: Literal["training", "evaluation"],
        statistic: Literal["mean", "iqm"],
    ) -> Json:
        """Return a curve with its band for each group of runs that differ in their seeds only.

        A group's curve begins where all its runs have values; one that ended before the others
        counts with its last value, as in `rlagents compare`.

        Raises:
            NotFoundError: there is no such run.
            UsageError: one cannot be read, or there are too many.
        """
        if not 1 <= len(run_ids) <= MOST_COMPARED:
            raise UsageError(f"run: expected 1 to {MOST_COMPARED} runs, got {len(run_ids)}.")
        configs = {}
        lines = {}
        notes = []
        for run_id in dict.fromkeys(run_ids):
            directory = self.find(run_id)
            manifest = read_manifest(directory)
            line = self._returns(directory, x, what)
            if not len(line[0]):
                notes.append(f"{run_id} has no {what} returns yet.")
                continue
            lines[run_id] = line
            configs[run_id] = {**manifest["config"], "recipe": text(manifest.get("recipe"))}
        groups = []
        for group in group_runs(configs):
            curve = group_curve(group.label, [lines[run_id] for run_id in group.runs], statistic)
            begun = np.isfinite(curve.center)  # not before each of the runs has a value
            groups.append(
                {
                    "label": group.label,
                    "runs": list(group.runs),
                    "x": curve.x[begun].tolist(),
                    "center": curve.center[begun].tolist(),
                    "low": curve.low[begun].tolist(),
                    "high": curve.high[begun].tolist(),
                }
            )
            ends = {run_id: float(lines[run_id][0][-1]) for run_id in group.runs}
            early = [run_id for run_id, end in ends.items() if end < SHORTER * max(ends.values())]
            if early:
                notes.append(
                    f"{group.label}: the curve counts runs that ended earlier with their last "
                    f"value: {', '.join(early)}."
                )
        return {"groups": groups, "notes": notes}

    def _returns(self, directory: Path, x: str, what: str) -> tuple[Float64Array, Float64Array]:
        """Return where a run's returns are, and the returns: finite ones only."""
        with self._reading(directory) as logs:
            if what == "training":
                logs.episodes.update()
                step, wall_time_s, returns = logs.episodes.mean.curve(CAPACITY)
                return (step if x == "step" else wall_time_s), returns
            logs.evaluations.update()
            rows = [(row[x], row["mean_return"]) for row in logs.evaluations.rows]
        table = np.array(rows, dtype=np.float64).reshape(-1, 2)
        positions, returns = table[np.isfinite(table).all(axis=1)].T
        return positions, returns

    def video(self, run_id: str, video_id: str) -> Path:
        """Return the file of a video.

        Raises:
            NotFoundError: there is no such run or video.
        """
        directory, name = self._video(run_id, video_id)
        return checked_file(directory / "videos" / name, self._root)

    def sidecar(self, run_id: str, video_id: str) -> bytes:
        """Return the JSON about a video.

        Raises:
            NotFoundError: there is no such run, video or JSON.
            UsageError: it is damaged or too large.
        """
        directory, name = self._video(run_id, video_id)
        path = (directory / "videos" / name).with_suffix(".json")
        return read_sidecar(checked_file(path, self._root))

    def overlay(self, run_id: str, video_id: str, method: str) -> Path:
        """Return the file of a video's overlay.

        Raises:
            NotFoundError: there is no such run, video or overlay.
        """
        directory, name = self._video(run_id, video_id)
        overlays = overlays_of(directory, [name])[name]
        if method not in overlays:
            raise NotFoundError(
                f"The video {video_id!r} of {run_id} has no overlay {method!r}; make one with: "
                "rlagents record RUN --explain"
            )
        return checked_file(directory / "videos" / overlays[method], self._root)

    def _video(self, run_id: str, video_id: str) -> tuple[Path, str]:
        directory = self.find(run_id)
        names = video_names(directory)
        if video_id not in names:
            raise NotFoundError(
                f"{run_id} has no video {video_id!r}; perhaps it is not finished, or was deleted."
            )
        return directory, names[video_id]


def _episode(one: EpisodePoint | None) -> Json | None:
    if one is None:
        return None
    return {("return" if key == "episodic_return" else key): v for key, v in one._asdict().items()}


def _curve(series: Averages, points: int, name: str) -> Json:
    """Return the lists of a curve; null where there is no finite value."""
    step, wall_time_s, value = series.curve(points)
    return {
        "step": np.clip(np.round(step), -_LARGEST, _LARGEST).astype(np.int64).tolist(),
        "wall_time_s": np.round(wall_time_s, 3).tolist(),
        name: value.tolist(),
    }


def _action_names(headers: Iterable[Json | None]) -> list[str] | None:
    """Return what the actions are called, of the first video that says so."""
    for header in headers:
        names = (header or {}).get("action_names")
        if isinstance(names, list) and all(text(name) == name for name in names):
            return names
    return None


def _videos(
    directory: Path, headers: Mapping[str, Json | None], evaluations: Sequence[Mapping[str, Any]]
) -> list[Json]:
    """Return a run's videos, in the order of training."""
    wall_times = {row["step"]: row["wall_time_s"] for row in evaluations}
    overlays = overlays_of(directory, headers)
    videos = [
        describe_video(name, header or {}, overlays[name], wall_times)
        for name, header in headers.items()
    ]

    def place(video: Json) -> tuple[float, ...]:
        known = [video[key] for key in ("step", "episode")]
        return tuple(one if isinstance(one, (int, float)) else math.inf for one in known)

    return sorted(videos, key=place)
