"""Streaming video files: what the writers share, and which one serves on this machine.

Frames are encoded as they come, into a file under a temporary name, so that memory stays flat and
what was written can be played after a kill. Closing completes the file and renames it into place.
H.264 in MP4 is what every browser plays (`rlagents.mp4`); where PyAV is missing or cannot encode
it, VP8 in WebM takes its place (`rlagents.webm`). GIF and animated WebP are for pages that show no
videos (`rlagents.animation`).
"""

from __future__ import annotations

import contextlib
import functools
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from rlagents.errors import RLAgentsError
from rlagents.types import Array

VIDEOS = (".mp4", ".webm")
ANIMATIONS = (".gif", ".webp")


class VideoError(RLAgentsError, OSError):
    """A video cannot be written: the disk is full, or the encoder has failed."""


class VideoWriter(ABC):
    """Writes one video; a file format says how, in the methods at the end.

    Args:
        temporary: where frames go until the video is closed; its name should start with a dot.
        frames_per_second: of the frames that are added.
    """

    def __init__(self, temporary: Path, frames_per_second: float) -> None:
        self._temporary = temporary
        self._frames_per_second = frames_per_second
        self.num_frames = 0

    def add(self, frame: Array) -> None:
        """Append a frame: [H, W, 3] uint8, RGB. All frames of a video have the first one's size.

        Raises:
            VideoError: it cannot be written.
        """
        picture = np.ascontiguousarray(even(frame))
        try:
            if self.num_frames == 0:
                self._open(picture.shape[0], picture.shape[1])
            self._add(picture)
        except Exception as error:  # encoders have errors of their own
            raise VideoError(f"{self._temporary} cannot be written: {error}") from error
        self.num_frames += 1

    def close(self, path: Path) -> Path:
        """Finish the video and give it its name.

        Raises:
            ValueError: no frame was added.
            VideoError: it cannot be put there; nothing is left behind.
        """
        if self.num_frames == 0:
            raise ValueError("a video needs at least one frame")
        try:
            self._finish(path)
        except Exception as error:
            raise VideoError(f"{path} cannot be written: {error}") from error
        finally:
            self.discard()
        return path

    def discard(self) -> None:
        """Give up what has not been closed, and remove the temporary file."""
        with contextlib.suppress(Exception):  # an encoder that has failed fails once more
            self._abandon()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Return the writer; leaving without `close` discards what was written."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the temporary file, which is there unless `close` has been called."""
        self.discard()

    @abstractmethod
    def _open(self, height: int, width: int) -> None:
        """Begin the temporary file, for frames of an even height and width."""

    @abstractmethod
    def _add(self, picture: Array) -> None:
        """Encode a frame: [H, W, 3] uint8, RGB, contiguous."""

    @abstractmethod
    def _finish(self, path: Path) -> None:
        """Complete the file and rename it; what else was made must be gone, also on an error."""

    @abstractmethod
    def _abandon(self) -> None:
        """Free the encoder, if there is one."""


def enlarge(frame: Array, scale: int) -> Array:
    """Return the frame with each pixel as a square of `scale` by `scale`."""
    if scale == 1:
        return frame
    size = (scale * frame.shape[1], scale * frame.shape[0])
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_NEAREST))


def even(frame: Array) -> Array:
    """Return the frame with its last row and column repeated where their number is odd."""
    odd = (frame.shape[0] % 2, frame.shape[1] % 2)
    if not any(odd):
        return frame
    return np.pad(frame, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")


def why_no_mp4() -> str | None:
    """Return why MP4 files cannot be written here, None if they can."""
    try:
        import av
    except ImportError as error:  # not installed, or its libraries do not load
        return f"PyAV cannot be imported ({error})"
    if "libx264" not in av.codecs_available:
        return f"PyAV {av.__version__} has no H.264 encoder"
    return None


@functools.cache
def video_suffix() -> str:
    """Return the ending of the videos made here; if it is not .mp4, say so once."""
    reason = why_no_mp4()
    if reason is None:
        return ".mp4"
    print(
        f"warning: {reason}, so videos are written as WebM; `pip install av` brings MP4 back",
        file=sys.stderr,
    )
    return ".webm"


def open_writer(path: Path, frames_per_second: float, temporary: Path) -> VideoWriter:
    """Return the writer for the file format that a path's ending names.

    Args:
        path: ends in one of `VIDEOS` or `ANIMATIONS`.
        frames_per_second: of the frames that are added.
        temporary: where they go until the video is closed.
    """
    from rlagents.animation import GifWriter, WebpWriter
    from rlagents.webm import WebmWriter

    if path.suffix == ".mp4":
        from rlagents.mp4 import Mp4Writer

        return Mp4Writer(temporary, frames_per_second)
    writers: dict[str, Callable[[Path, float], VideoWriter]] = {
        ".webm": WebmWriter,
        ".gif": GifWriter,
        ".webp": WebpWriter,
    }
    return writers[path.suffix](temporary, frames_per_second)


def frame_stride(path: Path, frames_per_second: float) -> int:
    """Return which frames a file can show: every one, or every second, third, ...

    Browsers show a picture of a GIF for 20 ms or more, one of an animated WebP for 11 ms or more;
    what is to be shown for less they show for 100 ms.
    """
    shortest_s = {".gif": 0.020, ".webp": 0.011}.get(path.suffix, 0.0)
    stride = 1
    while stride / frames_per_second < shortest_s:
        stride += 1
    return stride
