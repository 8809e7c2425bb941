"""The videos of a run: found by listing its folder, never by joining a path to what was asked for.

Beside a video lies a JSON file about it and, perhaps, overlays: `<video>.gradient.mp4`. A name that
starts with a dot is a file that is being written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any

import pydantic_core

from rlagents.errors import RLAgentsError, UsageError
from rlagents.watch.values import number
from rlagents.wording import printable, value_text

OVERLAYS = ("gradient", "grad-cam", "perturbation")
MIME = {".mp4": "video/mp4", ".webm": "video/webm"}
LARGEST_SIDECAR = 64 << 20
_HEAD = 1 << 14  # bytes of a sidecar in which what is not a list of all steps stands
_LONGEST_CHANGES = 200  # characters
_IN_HEAD = {"num_frames", "seed", "episodic_return", "episodic_length"}
_NAME = re.compile(
    r"(training-|tiled-)?step-(\d+)-episodes?-(\d+)-return-"
    r"(?:(-?(?:[\d.]+(?:e[-+]\d+)?|inf|nan))(-completed)?)?"
)


class NotFoundError(RLAgentsError):
    """What was asked for is not there (any more)."""


def can_be_asked_for(name: str) -> bool:
    """Tell whether a file or folder is shown: it has no dot in front, and its name is UTF-8.

    No address can name any other, and a browser refuses to make one.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return not name.startswith(".")


def video_names(directory: Path) -> dict[str, str]:
    """Return the names of a run's finished videos by their ids: without overlays.

    Two files of the same id are one video, in the first of the formats.
    """
    found: dict[str, str] = {}
    for name in _names(directory):
        stem, suffix = os.path.splitext(name)
        if suffix in MIME and os.path.splitext(stem)[1].lstrip(".") not in OVERLAYS:
            found.setdefault(stem, name)
    return found


def _names(directory: Path) -> list[str]:
    """Return what is in the folder of videos, but for what is being written or has no address."""
    try:
        return sorted(filter(can_be_asked_for, os.listdir(directory / "videos")))
    except OSError:  # no such folder, or the run was deleted
        return []


def overlays_of(directory: Path, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the names of the overlays of each of a run's videos, by their methods."""
    there = set(_names(directory))
    found = {}
    for name in names:
        stem, suffix = os.path.splitext(name)
        wanted = {method: f"{stem}.{method}{suffix}" for method in OVERLAYS}
        found[name] = {method: overlay for method, overlay in wanted.items() if overlay in there}
    return found


def checked_file(path: Path, root: Path) -> Path:
    """Return the path of a plain file in `root`, with links followed.

    Raises:
        NotFoundError: it is gone, or a link leads out of `root`.
    """
    try:
        resolved = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise NotFoundError(f"{path.name} is gone; perhaps it was deleted.") from None
    if not resolved.is_relative_to(root):
        raise NotFoundError(f"{path.name} is a link out of {root}, which is not followed.")
    if not resolved.is_file():
        raise NotFoundError(f"{path.name} is no file.")
    return resolved


def _is_column(value: Any) -> bool:
    """Tell whether a value is a list of numbers and nulls, or is not there."""
    return value is None or (
        isinstance(value, list) and {type(one) for one in value} <= {int, float, NoneType}
    )


def _is_table(value: Any) -> bool:
    """Tell whether a value is a list of such lists, or is not there."""
    return value is None or (isinstance(value, list) and all(_is_column(row) for row in value))


def _is_size(value: Any) -> bool:
    """Tell whether a value is a number above 0, or is not there."""
    return value is None or (number(value) or 0) > 0


# What the page draws of a video's JSON, and how it is known to be that.
_DRAWN: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("frame", "action", "reward"), _is_column),
    "values": _is_table,
    **dict.fromkeys(("frames_per_second", "num_frames"), _is_size),
}


def read_sidecar(path: Path) -> bytes:
    """Return the JSON about a video, such that browsers read it.

    Raises:
        UsageError: it is too large, or does not hold what the page draws.
        NotFoundError: it is gone.
    """
    content = _read(path)
    about = _parse(content, path)
    damaged = next((name for name, fits in _DRAWN.items() if not fits(about.get(name))), None)
    if damaged is not None:
        raise UsageError(f"{path.name} is damaged: its {damaged} cannot be drawn.")
    # Words that Python writes and that JSON does not know; a name may hold them too.
    if b"NaN" in content or b"Infinity" in content:
        return pydantic_core.to_json(about, inf_nan_mode="null")
    return content


def read_header(path: Path) -> dict[str, Any]:
    """Return what a sidecar says besides its lists of all steps.

    Raises:
        UsageError: it is too large, or no JSON object.
        NotFoundError: it is gone.
    """
    head, found, _ = _read(path, _HEAD).partition(b'"frame":')
    if found:
        try:
            about = pydantic_core.from_json(head.rstrip().rstrip(b",") + b"}")
        except ValueError:
            about = None
        if isinstance(about, dict) and set(about) >= _IN_HEAD:
            return about
    return _parse(_read(path), path)


def _read(path: Path, length: int | None = None) -> bytes:
    """Return a file, or so many bytes of its beginning."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_SIDECAR + 1 if length is None else length)
    except OSError as error:
        raise NotFoundError(f"{path.name} cannot be read: {error.strerror}.") from None
    if len(content) > LARGEST_SIDECAR:
        raise UsageError(f"{path.name} is larger than 64 MB, too large to show.")
    return content


def _parse(content: bytes, path: Path) -> dict[str, Any]:
    try:
        about = pydantic_core.from_json(content)
    except ValueError as error:
        raise UsageError(f"{path.name} is damaged, it is not valid JSON: {error}.") from None
    if not isinstance(about, dict):
        raise UsageError(f"{path.name} is damaged: expected a JSON object.")
    return about


def otherwise(header: Mapping[str, Any]) -> str | None:
    """Return what was not as in training when an episode was played: `epsilon = 0.5`.

    Args:
        header: of the video's JSON.
    """
    tables = [header.get(table) for table in ("env", "evaluation")]
    changes = [change for table in tables if isinstance(table, dict) for change in table.items()]
    text = ", ".join(f"{key} = {value_text(value)}" for key, value in changes)
    return printable(text)[:_LONGEST_CHANGES] or None


def describe_video(
    name: str,
    header: Mapping[str, Any],
    overlays: Iterable[str],
    wall_times: Mapping[float, float],
) -> dict[str, Any]:
    """Return what the page is told of a video; null where its JSON is missing or damaged.

    Args:
        name: of the file.
        header: of its JSON.
        overlays: the methods of those it has.
        wall_times: of the evaluations, by their steps.
    """
    stem, suffix = os.path.splitext(name)
    match = _NAME.search(stem)
    step, episodic_return = number(header.get("step")), number(header.get("episodic_return"))
    count = None
    prefix = match[1] if match else None
    if match:  # what the JSON does not say
        count = int(match[3])
        step = int(match[2]) if step is None else step
        episodic_return = _float(match[4]) if episodic_return is None else episodic_return
    completed = header.get("completed")
    if not isinstance(completed, bool):
        completed = True if match and match[5] else None
    is_training = header.get("training") is True or prefix == "training-"
    is_tiled = "tiles" in header or prefix == "tiled-"
    return {
        "id": stem,
        "kind": "training" if is_training else "tiled" if is_tiled else "evaluation",
        "step": step,
        "episode": None if is_tiled else count,  # of tiles it is how many there are
        "return": episodic_return,
        "completed": completed,
        "otherwise": otherwise(header),
        "length": number(header.get("episodic_length")),
        "frames_per_second": _size(header.get("frames_per_second")),
        "num_frames": _size(header.get("num_frames")),
        "seed": number(header.get("seed")),
        "overlays": [{"method": method} for method in overlays],
        "mime": MIME[suffix],
        "wall_time_s": None if step is None or is_training else wall_times.get(step),
    }


def _size(value: Any) -> float | None:
    return number(value) if _is_size(value) else None


def _float(word: str | None) -> float | None:
    try:
        return None if word is None else float(word)
    except ValueError:
        return None
