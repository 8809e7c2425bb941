"""What videos are called, and where they can be put."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlagents.errors import UsageError
from rlagents.film import Name, sidecar
from rlagents.output import check_name, check_writable
from rlagents.run import RunFolder
from rlagents.video import ANIMATIONS, VIDEOS, video_suffix, why_no_mp4

_GITHUB_MB = 10  # of a picture that is put into a README by dragging


def video_path(folder: RunFolder, step: int, episode: int) -> Name:
    """Return the function that names an evaluation's video by how the episode came out."""
    return named_by_result(folder.videos / f"step-{step}-episode-{episode}")


def named_by_result(stem: Path) -> Name:
    """Return the function that puts how an episode came out behind a name.

    That is its return, whether it was completed, and this machine's ending.
    """

    def name(episodic_return: float, completed: bool) -> Path:
        mark = "-completed" if completed else ""
        return stem.with_name(f"{stem.name}-return-{episodic_return:g}{mark}{video_suffix()}")

    return name


def beside_others(
    path: Path, seeds: Sequence[int] | None, differences: Mapping[str, Any] | None = None
) -> Path:
    """Return the path, with a number if a file of other episodes has it.

    Args:
        path: of a video.
        seeds: of the episodes that it shows; None if it takes the place of no file.
        differences: of what was played from the training's config, by table.
    """
    shown = None if seeds is None else (list(seeds), dict(differences or {}))
    candidate, number = path, 1
    while candidate.exists() or sidecar(candidate).exists():
        if shown is not None and _shows(sidecar(candidate)) == shown:
            break
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate


def _shows(path: Path) -> tuple[list[int], dict[str, Any]] | None:
    """Return the seeds and differences of what a video shows, None if its JSON is no such."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        seeds = [episode["seed"] for episode in about.get("episodes", [about])]
        return seeds, {table: about[table] for table in ("env", "evaluation") if table in about}
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None


def check_output(output: str | Path | None, videos: Path) -> Path | None:
    """Return where a video goes, None for a name in `videos`; the folder can be written."""
    if output is None:
        check_writable(videos)
        return None
    path = Path(output)
    check_name(path, (*VIDEOS, *ANIMATIONS))
    if path.suffix == ".mp4" and (reason := why_no_mp4()) is not None:
        raise UsageError(
            f"--output: {path} cannot be written, since {reason}; name a file that ends in .webm, "
            "or install it: pip install av"
        )
    check_writable(path.parent, path)
    return path


def size_note(path: Path) -> str | None:
    """Return a sentence on the size of an animation, which people load with a page; else None."""
    if path.suffix not in ANIMATIONS:
        return None
    num_bytes = path.stat().st_size
    size = f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 100_000 else f"{num_bytes / 1e3:.1f} kB"
    note = f"{path.name} has {size}"
    if num_bytes <= _GITHUB_MB * 1e6:
        return f"{note}."
    return (
        f"{note}, more than the {_GITHUB_MB} MB that GitHub takes; --seconds and --scale make it "
        "smaller."
    )


def numbered(path: Path, number: int, count: int) -> Name:
    """Return the function that names a video `path`, with a number if there are several."""
    return lambda *_: path if count == 1 else path.with_stem(f"{path.stem}-{number}")
