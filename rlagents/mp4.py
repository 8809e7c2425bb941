"""H.264 in MP4, through PyAV: what every browser plays.

Frames go into a fragmented MP4, which can be played up to its last fragment after a kill. Closing
copies the packets into a plain MP4 with its index at the front ("faststart").
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from rlagents.types import Array
from rlagents.video import VideoWriter

_FRAGMENT_US = 250_000  # what is written can be played up to the last fragment


class Mp4Writer(VideoWriter):
    """Writes an MP4 file."""

    def __init__(self, temporary: Path, frames_per_second: float) -> None:
        super().__init__(temporary, frames_per_second)
        self._rate = Fraction(frames_per_second).limit_denominator(1000)
        self._container: av.container.OutputContainer | None = None
        self._stream: av.VideoStream | None = None

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

    def _add(self, picture: Array) -> None:
        assert self._container is not None  # opened
        assert self._stream is not None
        # OpenCV's conversion takes a fifth of the time of the one inside the encoder.
        planes = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420), dtype=np.uint8)
        image = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        image.pts = self.num_frames
        image.time_base = 1 / self._rate
        self._container.mux(self._stream.encode(image))

    def _finish(self, path: Path) -> None:
        assert self._container is not None  # opened
        assert self._stream is not None
        self._container.mux(self._stream.encode(None))
        self._container.close()
        finished = self._temporary.with_name(f"{self._temporary.name}.mp4")
        try:
            self._remux(finished)
            os.replace(finished, path)
        finally:
            finished.unlink(missing_ok=True)

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

    def _abandon(self) -> None:
        if self._container is not None:
            self._container.close()
