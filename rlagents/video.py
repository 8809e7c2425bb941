"""Streaming video files that browsers play: H.264 in MP4, through PyAV.

Frames are encoded as they come, into a fragmented MP4 under a temporary name, so that memory stays
flat and what was written can be played after a kill. Closing copies the packets into a plain MP4
with its index at the front ("faststart") and renames it into place.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import cv2
import numpy as np

from rlagents.types import Array

_FRAGMENT_US = 250_000  # what is written can be played up to the last fragment


class VideoWriter:
    """Writes one video.

    Args:
        temporary: where frames go until the video is closed; its name should start with a dot.
        frames_per_second: of the frames that are added.
        scale: each pixel becomes a square of this many pixels a side.
    """

    def __init__(self, temporary: Path, frames_per_second: float, scale: int = 1) -> None:
        self._temporary = temporary
        self._rate = Fraction(frames_per_second).limit_denominator(1000)
        self._scale = scale
        self._container: av.container.OutputContainer | None = None
        self._stream: av.VideoStream | None = None
        self.num_frames = 0

    def add(self, frame: Array) -> None:
        """Append a frame: [H, W, 3] uint8, RGB. All frames of a video have the first one's size."""
        picture = enlarge(frame, self._scale)
        if self._stream is None:
            self._open(picture.shape[0], picture.shape[1])
        assert self._stream is not None
        assert self._container is not None
        # OpenCV's conversion takes a fifth of the time of the one inside the encoder.
        yuv = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2YUV_I420)
        planes = np.asarray(yuv, dtype=np.uint8)
        image = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        image.pts = self.num_frames
        image.time_base = 1 / self._rate
        self._container.mux(self._stream.encode(image))
        self.num_frames += 1

    def _open(self, height: int, width: int) -> None:
        self._container = av.open(
            str(self._temporary),
            "w",
            format="mp4",
            options={
                "movflags": "frag_keyframe+empty_moov+default_base_moof",
                "frag_duration": str(_FRAGMENT_US),
                "flush_packets": "1",
            },
        )
        stream = self._container.add_stream("libx264", rate=self._rate)
        stream.height, stream.width = height, width
        stream.pix_fmt = "yuv420p"  # the only layout that every browser plays
        # Without B-frames the first picture stands at time 0, and picture k at k / rate; without
        # lookahead a kill loses a few pictures only. For a game's flat colours "ultrafast" takes
        # half of the time of "veryfast", for files that are larger by a half.
        stream.options = {"preset": "ultrafast", "crf": "20", "bf": "0", "rc-lookahead": "0"}
        stream.gop_size = max(1, round(self._rate))  # a key frame a second: seeking, and kills
        self._stream = stream

    def close(self, path: Path) -> Path:
        """Finish the video and give it its name.

        Raises:
            ValueError: no frame was added.
            OSError: it cannot be put there; nothing is left behind.
        """
        if self._container is None or self._stream is None:
            raise ValueError("a video needs at least one frame")
        self._container.mux(self._stream.encode(None))
        self._container.close()
        self._container = None
        finished = self._temporary.with_name(f"{self._temporary.name}.mp4")
        try:
            self._remux(finished)
            os.replace(finished, path)
        finally:
            finished.unlink(missing_ok=True)
            self._temporary.unlink(missing_ok=True)
        return path

    def _remux(self, finished: Path) -> None:
        """Copy the fragments into a file with its index at the front."""
        with (
            av.open(str(self._temporary)) as source,
            av.open(str(finished), "w", format="mp4", options={"movflags": "faststart"}) as target,
        ):
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)

    def discard(self) -> None:
        """Close without a result and remove what was written."""
        if self._container is not None:
            self._container.close()
            self._container = None
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Return the writer; leaving by an exception discards what was written."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the temporary file unless `close` has been called."""
        if self._container is not None or kind is not None:
            self.discard()


def enlarge(frame: Array, scale: int) -> Array:
    """Repeat each pixel `scale` times both ways, and the last row or column to even sizes."""
    if scale > 1:
        size = (scale * frame.shape[1], scale * frame.shape[0])
        frame = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_NEAREST))
    odd = (frame.shape[0] % 2, frame.shape[1] % 2)
    if any(odd):
        frame = np.pad(frame, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
    return frame
