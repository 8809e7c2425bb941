"""Write one frame of a recorded video as a PNG picture.

Example:
    python scripts/extract_frame.py runs/RUN/videos/VIDEO.mp4 --output frame.png --second 12.5
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import av
import cv2
import numpy as np
from numpy.typing import NDArray


def read_frame(path: Path, second: float | None) -> NDArray[np.uint8]:
    """Return the frame shown at a time: [H, W, 3] uint8, RGB.

    Args:
        path: the video.
        second: from its beginning; the middle if None.

    Raises:
        ValueError: it has no picture at that time.
        OSError: it cannot be read as a video.
    """
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("there are no pictures in it")
        stream = container.streams.video[0]
        if stream.duration is None or stream.time_base is None:
            raise ValueError("it does not tell how long it is")
        length = float(stream.duration * stream.time_base)
        wanted = length / 2 if second is None else second
        if not 0 <= wanted < length:
            raise ValueError(f"it lasts {length:.2f} s, so there is no second {wanted:g} in it")
        wanted += float((stream.start_time or 0) * stream.time_base)  # a video may begin after 0
        container.seek(int(wanted / stream.time_base), stream=stream)  # to the key frame before it
        shown: av.VideoFrame | None = None
        for frame in container.decode(stream):
            if shown is not None and frame.time is not None and frame.time > wanted + 1e-6:
                break
            shown = frame
        if shown is None:
            raise ValueError("no picture of it can be decoded")
        return np.asarray(shown.to_ndarray(format="rgb24"), dtype=np.uint8)


def fail(message: str) -> NoReturn:
    """End with a message and exit code 2."""
    print(f"extract_frame: {message}", file=sys.stderr)
    raise SystemExit(2)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", type=Path, metavar="VIDEO", help="an MP4 file")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE.png", help="the picture"
    )
    parser.add_argument(
        "--second",
        type=float,
        metavar="S",
        help="the frame shown S seconds after the beginning (default: the middle of the video)",
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Read the frame and write the picture."""
    options = parse()
    if options.output.suffix != ".png":
        fail(f"--output: expected a file that ends in .png, got {str(options.output)!r}.")
    try:
        frame = read_frame(options.video, options.second)
    except (OSError, ValueError) as error:
        fail(f"{options.video}: {error}.")
    try:
        written = cv2.imwrite(str(options.output), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    except cv2.error:
        written = False
    if not written:
        fail(f"--output: {options.output} cannot be written.")
    print(options.output)


if __name__ == "__main__":
    main()
