"""`rlagents report`: one page about a run that holds everything it shows, to be sent by mail."""

from __future__ import annotations

import base64
import importlib.resources
import json
import math
import re
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from rlagents.errors import RLAgentsError, UsageError, did_you_mean
from rlagents.history import History, read_history
from rlagents.output import check_name, check_writable, write_whole
from rlagents.run import RunFolder
from rlagents.statistics import RECENT_EPISODES
from rlagents.types import EvaluationRow
from rlagents.watch.videos import otherwise, read_header
from rlagents.wording import duration, percent, value_text

MAX_VIDEO_BYTES = 25_000_000  # mails refuse more
NO_VIDEO = "none"

_MIME_TYPES = {".mp4": "video/mp4", ".webm": "video/webm"}
_VIDEO_NAME = re.compile(r"(?P<training>training-)?step-(?P<step>\d+)-episode-\d+-return-.+")
# Inches: one picture for a wide page and one for a telephone, whose text is as large.
_PICTURES = {"wide": (7.2, 3.3), "narrow": (3.7, 3.1)}
# Colours that stand for what the page's style decides, which is different in the dark.
_COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--line)",
    "#030303": "var(--training)",
    "#040404": "var(--evaluation)",
    "#050505": "var(--paper)",
}


@dataclass(frozen=True)
class Video:
    """A video in a run's folder, complete and with its JSON beside it.

    Attributes:
        path: of the file; its name without the ending is the video's id.
        step: agent steps that the run had done.
        of_training: whether it shows an episode of training, otherwise of an evaluation.
    """

    path: Path
    step: int
    of_training: bool

    @property
    def id(self) -> str:
        """Return what the video is called."""
        return self.path.stem

    @property
    def otherwise(self) -> str | None:
        """Return what was not as in training when it was played, None if nothing was."""
        try:
            return otherwise(read_header(self.path.with_suffix(".json")))
        except RLAgentsError:
            return None

    @property
    def num_bytes(self) -> int:
        """Return the size of the file."""
        return self.path.stat().st_size


def write_report(
    run: str | Path, output: Path, *, runs_dir: Path = Path("runs"), video: str | None = None
) -> None:
    """Write one page that shows what was trained and how it went.

    Args:
        run: the run's folder, or its name under `runs_dir`.
        output: the page; an older one is replaced.
        runs_dir: the runs folder.
        video: the id of the video that goes in, or "none"; if None, the newest video of the best
            evaluation, else of the last evaluation recorded, else of training.

    Raises:
        UsageError: it is not a run or is damaged, there is no such video, the video is too large,
            or the page cannot be written there.
        RLAgentsError: the page was not written, though the folder could be written to.
    """
    check_name(output, (".html",))
    history = read_history(run, runs_dir)
    chosen = choose_video(history, video)
    check_writable(output.parent, output)
    page = render_report(history, chosen, with_video=video != NO_VIDEO)
    write_whole(output, page.encode("utf-8", "replace"))  # files may hold halves of letters


def list_videos(folder: RunFolder) -> list[Video]:
    """Return a run's videos, the newest last: by agent steps, then by the time of the file."""
    found = []
    for path in folder.videos.glob("*"):
        name = _VIDEO_NAME.fullmatch(path.stem)
        # Unfinished files have a dot in front; overlays have no JSON of their own.
        is_whole = path.is_file() and path.with_suffix(".json").is_file() and path.stat().st_size
        if name and path.suffix in _MIME_TYPES and is_whole:
            found.append(Video(path, int(name["step"]), name["training"] is not None))
    return sorted(found, key=lambda video: (video.step, video.path.stat().st_mtime_ns, video.id))


def choose_video(history: History, wanted: str | None) -> Video | None:
    """Return the video that a page shows.

    Args:
        history: the run.
        wanted: a video's id, "none", or None for the newest of the best evaluation, else of the
            last one recorded, else of training.

    Raises:
        UsageError: there is no such video, or it is too large to be sent.
    """
    videos = list_videos(history.folder)
    if wanted == NO_VIDEO:
        return None
    if wanted is not None:
        chosen = next((video for video in videos if video.id == wanted), None)
        if chosen is None:
            nearest = did_you_mean(wanted, [video.id for video in videos])
            raise UsageError(
                f"--video: {history.folder.videos} has no video {wanted!r}{nearest} Give a video's "
                f"name without its ending, or {NO_VIDEO}."
            )
    else:
        best = history.best_evaluation
        played = [video for video in videos if not video.of_training and not video.otherwise]
        shown = [video for video in played if best is not None and video.step == best.step]
        chosen = next(reversed(shown or played or videos), None)
    if chosen is not None and chosen.num_bytes > MAX_VIDEO_BYTES:
        small = [video.id for video in videos if video.num_bytes <= MAX_VIDEO_BYTES]
        smaller = f"choose a smaller one, --video {small[-1]}; " if small else ""
        raise UsageError(
            f"--video: {chosen.path} has {chosen.num_bytes / 1e6:.1f} MB, more than the "
            f"{MAX_VIDEO_BYTES / 1e6:.0f} MB that mails take; {smaller}leave the video out, "
            f"--video {NO_VIDEO}; or record a smaller one."
        )
    return chosen


def render_report(history: History, video: Video | None, *, with_video: bool = True) -> str:
    """Return the page.

    Args:
        history: the run.
        video: is embedded.
        with_video: whether the page has a place for a video, if only to say that there is none.
    """
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = importlib.resources.files("rlagents").joinpath("report.html.j2")
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        title=f"{history.recipe}, seed {history.seed}",
        name=history.name,
        facts=list(_facts(history)),
        results=list(_results(history)),
        recent=RECENT_EPISODES,
        pictures=_pictures(history) if history.evaluations or len(history.returns) else {},
        evaluations=[_evaluation(history, row) for row in history.evaluations],
        tells_success=bool(history.success_rates),
        best_step=f"{history.best_evaluation.step:,}" if history.best_evaluation else None,
        tables=_tables(history.manifest["config"]),
        versions=_pairs(history.manifest["versions"]),
        with_video=with_video,
        video=None if video is None else _embedded(video),
        record_command=f"rlagents record {shlex.quote(str(history.folder.directory))}",
        made=_moment(time.time()),
    )


def _facts(history: History) -> Iterator[tuple[str, str]]:
    """Yield what was trained, and on what."""
    manifest = history.manifest
    agent = manifest["config"].get("agent")
    yield "environment", history.env_id
    yield "agent", str(agent.get("name", "-")) if isinstance(agent, Mapping) else "-"
    yield "recipe", history.recipe
    yield "seed", str(history.seed)
    yield "state", _state(history.status)
    if history.status.get("error"):
        yield "error", str(history.status["error"])
    total = manifest["config"].get("total_steps")
    of_all = f" of {total:,}" if isinstance(total, int) else ""
    yield "agent steps", f"{history.steps:,}{of_all}"
    yield "training time", duration(history.wall_time_s)
    yield "training episodes", f"{len(history.returns):,}"
    hardware = manifest.get("hardware")
    if isinstance(hardware, Mapping):
        yield from _hardware(hardware)
    yield "threads", str(manifest["threads"])
    if manifest.get("git_commit"):
        yield "git commit", str(manifest["git_commit"])


def _hardware(hardware: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in hardware.items():
        if key == "memory_bytes" and isinstance(value, int):
            yield "memory", f"{value / 1e9:.1f} GB"
        else:
            yield str(key), value_text(value)


def _state(status: Mapping[str, Any]) -> str:
    """Return a run's state; a running one may have died, so its last sign of life is given."""
    state = str(status.get("state", "not known"))
    heartbeat = status.get("heartbeat")
    if state == "running" and isinstance(heartbeat, int | float):
        return f"running, last heard of on {_moment(heartbeat)}"
    return state


def _moment(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):  # no time that a calendar has
        return "an unknown date"


def _results(history: History) -> Iterator[tuple[str, str, str]]:
    """Yield what to look at first: what it is, the number, and what belongs to it."""
    best, last = history.best_evaluation, history.last_evaluation
    for name, row in (("best evaluation", best), ("last evaluation", last)):
        if row is not None:
            rate = history.success_rates.get(row.step)
            completed = "" if rate is None else f", {percent(rate)} completed"
            spread = (
                f"± {_number(row.std_return)}, {row.episodes} episodes{completed}, "
                f"step {row.step:,}"
            )
            yield name, _number(row.mean_return), spread
    if history.recent_return is not None:
        count = min(RECENT_EPISODES, len(history.returns))
        yield "training", _number(history.recent_return), f"mean of the last {count} episodes"


def _number(value: float) -> str:
    return f"{value:,.2f}" if math.isfinite(value) else str(value)


def _evaluation(history: History, row: EvaluationRow) -> dict[str, str]:
    """Return the cells of an evaluation's row."""
    rate = history.success_rates.get(row.step)
    return {
        "step": f"{row.step:,}",
        "completed": "-" if rate is None else percent(rate),
        "mean": _number(row.mean_return),
        "std": _number(row.std_return),
        "iqm": _number(row.iqm_return),
        "min": f"{row.min_return:g}",
        "max": f"{row.max_return:g}",
        "episodes": f"{row.episodes:,}",
        "time": duration(row.wall_time_s),
    }


def _tables(config: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return a config's tables as names and rows, those keys first that stand in none."""
    top = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    tables = [(f"[{name}]", _pairs(config[name])) for name in config if name not in top]
    return [("", _pairs(top)), *tables]


def _pairs(table: Any) -> list[tuple[str, str]]:
    """Return a table of config.json as rows of text."""
    if not isinstance(table, Mapping):
        return []
    return [(str(key), value_text(value)) for key, value in table.items()]


def _embedded(video: Video) -> dict[str, str]:
    """Return a video as a data address, and what to say below it."""
    mime = _MIME_TYPES[video.path.suffix]
    text = base64.b64encode(video.path.read_bytes()).decode("ascii")
    return {"source": f"data:{mime};base64,{text}", "mime": mime, "caption": _caption(video)}


def _caption(video: Video) -> str:
    played = "an episode of training" if video.of_training else "an evaluation"
    parts = [f"{played} at step {video.step:,}"]
    if video.otherwise:
        parts.append(video.otherwise)
    try:
        about = json.loads(video.path.with_suffix(".json").read_text(encoding="utf-8"))
        parts.append(f"return {float(about['episodic_return']):g}")
        if about.get("completed") is True:
            parts.append("completed")
        parts.append(f"{int(about['episodic_length']):,} agent steps")
        parts.append(duration(about["num_frames"] / about["frames_per_second"]))
    except (OSError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError):
        pass  # the video can be looked at without
    return ", ".join(parts)


def _pictures(history: History) -> dict[str, Markup]:
    """Return the learning curve as inline SVG, for a wide page and for a narrow one."""
    from rlagents.plots import Palette, draw_run, render

    palette = Palette(*_COLOURS)
    pictures = {}
    for name, size in _PICTURES.items():
        figure = draw_run(history, axis="steps", what="training", palette=palette, size=size)
        text = render(figure, "svg", salt=name).decode("utf-8")
        pictures[name] = Markup(_inline(text, name))  # nothing in it comes from the run's texts
    return pictures


def _inline(svg: str, name: str) -> str:
    """Return an SVG file's text as it can stand in a page, beside others."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, rest = svg.split(">", 1)
    # The page's style says how large it is; names of namespaces are for files.
    head = re.sub(r' (width|height|xmlns|xmlns:xlink|version)="[^"]*"', "", head)
    svg = f"{head}>{rest}"
    for own in ('id="', 'href="#', "url(#"):  # a name stands for one thing on a page
        svg = svg.replace(own, f"{own}{name}-")
    for colour, meaning in _COLOURS.items():
        svg = svg.replace(colour, meaning)
    return svg
