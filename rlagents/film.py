"""Film: the frames of takes become a video's pictures, and what is shown its JSON.

A picture is a frame enlarged with sharp pixels; then each lens may draw on it. Several takes,
played together, are shown as tiles of one picture. Beside a video of one take there may be others
of the same frames with something drawn on them, its overlays.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypedDict, Unpack

from rlagents.agents.base import ValueKind
from rlagents.caption import Caption
from rlagents.config import MAX_SCALE, RecordingConfig
from rlagents.envs import Player
from rlagents.errors import UsageError
from rlagents.explain import METHODS, Score, check_method
from rlagents.overlays import Draw
from rlagents.takes import Moment, Take
from rlagents.tiles import Tiles
from rlagents.types import Array
from rlagents.video import ANIMATIONS, VideoError, enlarge, even, frame_stride, open_writer

# Takes an enlarged frame, [H, W, 3] uint8 RGB, and what is so while it is shown; returns the
# picture, of the same size for every frame of a video.
Lens = Callable[[Array, Moment], Array]
# Names a video, from a return and whether the episode was completed.
Name = Callable[[float, bool], Path]

_MAX_SECONDS = 1e9  # longer than any episode; beyond, numbers of frames are none


class ViewOptions(TypedDict, total=False):
    """What may be said about how episodes are shown; see `View`."""

    scale: int
    caption: bool
    from_second: float
    seconds: float
    explain: Sequence[str]
    explain_of: Score


@dataclass(frozen=True)
class View:
    """How episodes are shown.

    Attributes:
        scale: each pixel becomes a square of this many pixels a side.
        caption: whether there is a strip below with return, step, action and value.
        from_second: where in the episode the video begins.
        seconds: how long it is at most; to the end if None.
        explain: by which methods there is a second video that shows where the network looks.
        explain_of: what is explained, as in `Explainer`.
    """

    scale: int = 1
    caption: bool = False
    from_second: float = 0.0
    seconds: float | None = None
    explain: Sequence[str] = ()
    explain_of: Score = "action"

    def __post_init__(self) -> None:
        if not 1 <= self.scale <= MAX_SCALE:
            raise UsageError(f"--scale: expected 1 to {MAX_SCALE}, got {self.scale}.")
        if not 0 <= self.from_second <= _MAX_SECONDS:
            raise UsageError(
                f"--from-second: expected a number, 0 to {_MAX_SECONDS:g}, got "
                f"{self.from_second:g}."
            )
        if self.seconds is not None and not 0 < self.seconds <= _MAX_SECONDS:
            raise UsageError(
                f"--seconds: expected a number above 0, up to {_MAX_SECONDS:g}, got "
                f"{self.seconds:g}."
            )
        for method in self.explain:
            check_method(method)
        if len(set(self.explain)) < len(self.explain):
            raise UsageError(f"--explain: expected each method once, got {','.join(self.explain)}.")
        if self.explain_of != "action" and not self.explain:
            raise UsageError("--explain-of says what --explain explains; add --explain.")

    @classmethod
    def from_config(cls, config: RecordingConfig, **options: Unpack[ViewOptions]) -> Self:
        """Return the view of `[recording]`, with options on top.

        Raises:
            UsageError: an option is out of range.
        """
        given = ViewOptions(scale=config.scale, caption=config.caption) | options
        return cls(**given)

    def lenses(self, player: Player, values_are: ValueKind | None) -> list[Lens]:
        """Return what draws on the enlarged frames of an episode, in this order."""
        if not self.caption:
            return []
        number = int(getattr(player.action_space, "n"))  # noqa: B009 - discrete, as agents need
        return [Caption(player.action_names, number, values_are)]


class _Cut:
    """Which frames of an episode a video shows, from their numbers."""

    def __init__(self, view: View, frames_per_second: float, stride: int) -> None:
        self.first = round(view.from_second * frames_per_second)
        self._end: float = math.inf
        if view.seconds is not None:
            self._end = self.first + max(1, round(view.seconds * frames_per_second))
        self._stride = stride

    def shows(self, frame: int) -> bool:
        """Return whether a frame is shown."""
        return self.first <= frame < self._end and (frame - self.first) % self._stride == 0

    def last(self, num_frames: int) -> int:
        """Return the last frame of the part that is shown, of an episode with so many."""
        return int(min(self._end, num_frames)) - 1

    def place(self, frame: int) -> int:
        """Return the number in the video of a frame, or of the one shown in its stead."""
        return (frame - self.first) // self._stride


def film(
    takes: Sequence[Take],
    view: View,
    *,
    path: Name,
    about: Mapping[str, Any],
    tiled: bool = False,
    overlays: Mapping[str, Draw] | None = None,
) -> Path:
    """Play takes into a video, and write its JSON beside it.

    Args:
        takes: of players of one environment; one, or several for tiles.
        view: how they are shown.
        path: names the video, from the episode's return or the mean of several, and from whether
            the episode, or each of several, was completed.
        about: goes into the JSON as it is; `values_are` also names the values in a caption.
        tiled: show the takes at once, each in a part of the picture.
        overlays: what draws on the frames of one take for further videos, by their names.

    Raises:
        NotReproducedError: an episode came out otherwise.
        UsageError: there is nothing to be seen then, or there are too many tiles.
        VideoError: it cannot be written; nothing is left behind.
    """
    player = takes[0].player
    name = path(0.0, False)
    name.parent.mkdir(parents=True, exist_ok=True)
    stride = frame_stride(name, player.frames_per_second)
    cut = _Cut(view, player.frames_per_second, stride)
    lenses = view.lenses(player, about.get("values_are"))

    def develop(moment: Moment, scale: int) -> Array:
        picture = enlarge(moment.frame, scale)
        for lens in lenses:
            picture = lens(picture, moment)
        return picture

    overlays = overlays or {}

    def develop_all(moment: Moment) -> tuple[Array, ...]:
        frames = (moment.frame, *(draw(moment) for draw in overlays.values()))
        return tuple(develop(moment._replace(frame=frame), view.scale) for frame in frames)

    known: dict[str, Any] = {}
    pictures: Iterator[tuple[Array, ...]]
    if tiled:
        tiles = Tiles(takes, develop, view.scale)
        pictures = ((picture,) for picture in tiles.pictures(cut.shows))
        known |= {"tiles": [tiles.rows, tiles.columns]}
    else:
        pictures = _pictures(takes[0], develop_all, cut)
    temporary = name.parent / f".{name.stem}-{os.getpid()}.part"
    rate = player.frames_per_second / stride
    with contextlib.ExitStack() as stack:
        video = stack.enter_context(open_writer(name, rate, temporary))
        drawn_on = {
            method: stack.enter_context(open_writer(name, rate, overlay_path(temporary, method)))
            for method in overlays
        }
        for shown in pictures:
            for writer, picture in zip((video, *drawn_on.values()), shown, strict=True):
                writer.add(picture)
        num_frames = max(take.num_frames for take in takes)
        if video.num_frames == 0:
            raise UsageError(
                f"--from-second: the episode lasts {num_frames / player.frames_per_second:.2f} s, "
                f"got {view.from_second:g}; name an earlier second."
            )
        height, width = even(shown[0]).shape[:2]
        episodes = [take.about(cut.first, cut.last(take.num_frames), cut.place) for take in takes]
        known |= {
            "frames_per_second": rate,
            "num_frames": video.num_frames,
            "height": height,
            "width": width,
            "action_names": None if player.action_names is None else list(player.action_names),
        }
        if cut.first > 0 or cut.last(num_frames) < num_frames - 1:
            known |= {"from_second": cut.first / player.frames_per_second}
        known |= {"episodes": episodes} if tiled else episodes[0]
        target = path(
            sum(take.episodic_return for take in takes) / len(takes),
            all(take.outcome is not None and take.outcome.success is True for take in takes),
        )
        content = {**about, **known}
        older = _read_sidecar(target)
        there = older.pop("overlays", {})
        # What shows the same pictures keeps its other overlays; those of anything else must go.
        same = older == json.loads(json.dumps(content))
        kept = {method: of for method, of in there.items() if same and method not in overlays}
        drawn = kept | dict.fromkeys(overlays, view.explain_of)
        with _json_beside(target, content | ({"overlays": drawn} if drawn else {})):
            for method, writer in drawn_on.items():
                writer.close(overlay_path(target, method))
            video.close(target)
    for method in set(there) - set(drawn):
        overlay_path(target, method).unlink(missing_ok=True)
    return target


def _pictures(
    take: Take, develop: Callable[[Moment], tuple[Array, ...]], cut: _Cut
) -> Iterator[tuple[Array, ...]]:
    """Yield the pictures of one take that are shown, one for each video."""
    for number, moment in enumerate(take):
        if cut.shows(number):
            yield develop(moment)


def sidecar(path: Path) -> Path:
    """Return where the JSON of a video lies.

    That of an animation has the animation's whole name, since often a video of the same name lies
    beside it, which shows more of its frames.
    """
    return path.with_suffix(f"{path.suffix}.json" if path.suffix in ANIMATIONS else ".json")


def overlay_path(path: Path, method: str) -> Path:
    """Return where a video's overlay by a method lies."""
    return path.with_name(f"{path.stem}.{method}{path.suffix}")


def _read_sidecar(path: Path) -> dict[str, Any]:
    """Return the JSON of an older video of this name, {} if there is none that can be read."""
    try:
        content = json.loads(sidecar(path).read_text(encoding="utf-8"))
        there = content.get("overlays", {}).items()
        return {**content, "overlays": {name: of for name, of in there if name in METHODS}}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


@contextlib.contextmanager
def _json_beside(path: Path, content: Mapping[str, Any]) -> Iterator[None]:
    """Write the JSON under another name first, and give it its own when the video has one."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}.json.part")
    try:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
        yield
        os.replace(temporary, sidecar(path))
    except VideoError:
        raise
    except OSError as error:
        raise VideoError(f"{sidecar(path)} cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
