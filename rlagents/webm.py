"""VP8 in WebM, through OpenCV: what can be written where PyAV is missing.

OpenCV hands the file on in blocks of a quarter megabyte; after a kill it can be played up to the
last of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import cv2

from rlagents.types import Array
from rlagents.video import VideoWriter


class WebmWriter(VideoWriter):
    """Writes a WebM file."""

    def __init__(self, temporary: Path, frames_per_second: float) -> None:
        # OpenCV takes the file format from the name.
        super().__init__(temporary.with_name(f"{temporary.name}.webm"), frames_per_second)
        self._encoder: cv2.VideoWriter | None = None

    def _open(self, height: int, width: int) -> None:
        with _silence():
            self._encoder = cv2.VideoWriter(
                str(self._temporary),
                cv2.CAP_FFMPEG,
                cv2.VideoWriter.fourcc(*"VP80"),
                self._frames_per_second,
                (width, height),
            )
        if not self._encoder.isOpened():
            raise OSError("OpenCV cannot open it for VP8")

    def _add(self, picture: Array) -> None:
        assert self._encoder is not None  # opened
        self._encoder.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def _finish(self, path: Path) -> None:
        assert self._encoder is not None  # opened
        self._encoder.release()
        # OpenCV reports no error while it writes; on a full disk the last picture is not there.
        reader = cv2.VideoCapture(str(self._temporary), cv2.CAP_FFMPEG)
        reader.set(cv2.CAP_PROP_POS_FRAMES, self.num_frames - 1)
        complete, _ = reader.read()
        reader.release()
        if not complete:
            raise OSError("the disk is full, or the encoder has failed")
        os.replace(self._temporary, path)

    def _abandon(self) -> None:
        if self._encoder is not None:
            self._encoder.release()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep a remark of OpenCV about VP8's number off standard error: it is no mistake."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)
