"""Training episodes on demand: each is played again by a process of its own.

The server stays responsive, and never imports torch or an environment. As a program,
`python -m rlagents.watch.rebuild RUN EPISODE OUTPUT` writes the video and prints lines of JSON:
`{"done": 12, "steps": 480}` on the way, `{"path": "…"}` in the end. OUTPUT ends in .mp4; where this
machine makes WebM instead, so does the path.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from rlagents.errors import RLAgentsError
from rlagents.watch.summaries import Json, file_signature
from rlagents.watch.videos import MIME

_CACHE_BYTES = 1 << 30
_QUEUE = 8  # episodes that wait
_REMEMBERED = 200  # states that are kept, ready ones included
_LIMIT_S = 900.0  # for one episode
_PERIOD_S = 0.1  # between two lines of progress
# -P: no module is taken from the folder that the server was started in.
_PROGRAM = (sys.executable, "-P", "-m", "rlagents.watch.rebuild")
_LONGEST_LINE = 1 << 16
_LONGEST_SENTENCE = 500  # that is shown
_NICENESS = 5  # a training that is being watched goes first


class BusyError(RLAgentsError):
    """Too many episodes wait to be rebuilt."""


@dataclass
class Job:
    """One episode that is being rebuilt, or was."""

    run: Path
    episode: int
    folder: Path  # its video goes here
    state: Literal["playing", "ready", "failed"] = "playing"
    progress: float = 0.0
    video: Path | None = None
    error: str | None = None
    size: int = 0  # bytes on the disk


class Rebuilder:
    """Rebuilds training episodes one at a time, and keeps the last ones in a temporary folder.

    Args:
        cache_bytes: of videos that are kept; those that were asked for last stay.
        queue: episodes that may wait while one is being played.
        limit_s: seconds after which an episode is given up.
        allow_import: whether environments may be code that this user has not trained with here.
        command: the words that start the program, before RUN EPISODE OUTPUT.
    """

    def __init__(
        self,
        *,
        cache_bytes: int = _CACHE_BYTES,
        queue: int = _QUEUE,
        limit_s: float = _LIMIT_S,
        allow_import: bool = False,
        command: Sequence[str] = _PROGRAM,
    ) -> None:
        self._cache_bytes = cache_bytes
        self._queue_length = queue
        self._limit_s = limit_s
        self._command = tuple(command)
        self._options = ("--allow-import",) if allow_import else ()
        self._jobs: OrderedDict[Any, Job] = OrderedDict()  # the last used one at the end
        self._waiting: list[Job] = []
        self._changed = threading.Condition()
        self._folder: Path | None = None
        self._worker: threading.Thread | None = None
        self._child: subprocess.Popen[str] | None = None
        self._closed = False
        self._number = 0

    @staticmethod
    def _key(run: Path, episode: int) -> Any:
        # `resume` writes config.json anew, and may play other episodes of the same numbers.
        return run, file_signature(run / "config.json"), episode

    def find(self, run: Path, episode: int) -> Job | None:
        """Return what is known of an episode, None if nobody has asked for it yet."""
        with self._changed:
            key = self._key(run, episode)
            job = self._jobs.get(key)
            if job is not None:
                self._jobs.move_to_end(key)
            return job

    def request(self, run: Path, episode: int) -> Job:
        """Begin to rebuild an episode, unless that is done or under way; failed ones begin anew.

        Raises:
            BusyError: too many are waiting.
            RLAgentsError: there is no place for videos.
        """
        with self._changed:
            job = self.find(run, episode)
            if job is not None and job.state != "failed":
                return job
            if len(self._waiting) >= self._queue_length:
                raise BusyError(
                    f"{self._queue_length} episodes are waiting to be played already; try again "
                    "when some of them are done."
                )
            if self._folder is None:
                self._folder = _make_folder()
            self._number += 1
            job = Job(run, episode, self._folder / str(self._number))
            self._jobs[self._key(run, episode)] = job
            self._jobs.move_to_end(self._key(run, episode))
            self._waiting.append(job)
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, daemon=True)
                self._worker.start()
            self._changed.notify()
            return job

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                job = self._waiting.pop(0)
            try:
                self._play(job)
            except Exception as error:  # such as a full disk; the next one may work
                self._fail(job, f"Episode {job.episode} cannot be played: {error}.")
            with self._changed:
                self._forget_oldest(job)

    def _play(self, job: Job) -> None:
        job.folder.mkdir()
        output = job.folder / f"training-{job.episode}.mp4"
        words = [*self._command, str(job.run), str(job.episode), str(output), *self._options]
        errors_path = job.folder / "errors.txt"
        with errors_path.open("wb") as errors, self._changed:
            if self._closed:
                return
            child = self._child = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,  # by whose end the program knows that we are gone
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        is_late = threading.Event()

        def give_up() -> None:
            is_late.set()
            _end(child)

        limit = threading.Timer(self._limit_s, give_up)
        limit.daemon = True
        limit.start()

        def end_with_it() -> None:
            # What the environment has started, and left behind, may hold our end of the pipe.
            child.wait()
            _end(child)

        threading.Thread(target=end_with_it, daemon=True).start()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            with child.stdin, child.stdout:
                path = self._follow(job, child.stdout)
                code = child.wait()
        finally:
            _end(child)
            limit.cancel()
            self._child = None
        if code == 0 and path is not None and _is_complete(path):
            job.size = sum(file.stat().st_size for file in job.folder.iterdir())
            job.video, job.progress, job.state = path, 1.0, "ready"
        elif is_late.is_set():
            self._fail(job, f"Episode {job.episode} took more than {self._limit_s:g} s to play.")
        else:
            self._fail(job, _last_line(errors_path) or f"Playing ended with exit code {code}.")

    @staticmethod
    def _follow(job: Job, lines: IO[str]) -> Path | None:
        """Note the progress that a process prints, and return where the video is."""
        path = None
        while line := lines.readline(_LONGEST_LINE):
            # An environment may print as well, whatever it likes.
            with contextlib.suppress(
                ValueError, TypeError, KeyError, ArithmeticError, RecursionError
            ):
                told = json.loads(line)
                if "path" in told:
                    path = job.folder / Path(told["path"]).name
                elif 0 <= told["done"] <= told["steps"]:
                    job.progress = float(told["done"] / told["steps"])
        return path

    @staticmethod
    def _fail(job: Job, error: str) -> None:
        shutil.rmtree(job.folder, ignore_errors=True)
        job.error, job.state = error, "failed"

    def _forget_oldest(self, newest: Job) -> None:
        """Drop what was asked for longest ago until the rest fits; the newest always stays."""
        done = [
            key for key, job in self._jobs.items() if job is not newest and job.state != "playing"
        ]
        for key in done:
            size = sum(job.size for job in self._jobs.values())
            if size <= self._cache_bytes and len(self._jobs) <= _REMEMBERED:
                return
            shutil.rmtree(self._jobs.pop(key).folder, ignore_errors=True)

    def close(self) -> None:
        """Stop what is being played, and remove all that was."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            if self._child is not None:
                _end(self._child)  # what it writes is dropped anyhow
            self._changed.notify_all()
        if self._worker is not None:
            self._worker.join(timeout=10)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _make_folder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="rlagents-watch-"))
    except OSError as error:
        raise RLAgentsError(
            f"No folder for videos can be made in {tempfile.gettempdir()} ({error.strerror}); make "
            "room there, or start rlagents watch with TMPDIR=DIR."
        ) from None


def _end(child: subprocess.Popen[str]) -> None:
    """Kill a program, and what it has started."""
    if not hasattr(os, "killpg"):  # Windows
        child.kill()
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):  # there is nobody left
        os.killpg(child.pid, signal.SIGKILL)


def _is_complete(path: Path) -> bool:
    return path.suffix in MIME and path.is_file() and path.with_suffix(".json").is_file()


def _last_line(path: Path) -> str:
    """Return the last line of a text that has any letters, "" if none has."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LONGEST_LINE))
        lines = file.read(_LONGEST_LINE).decode("utf-8", "replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[-_LONGEST_SENTENCE:]


def printer(say: Callable[[Json], None], period_s: float = _PERIOD_S) -> Callable[[int, int], None]:
    """Return a function that tells the progress, so often at most."""
    last = -period_s

    def progress(done: int, steps: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= period_s:
            last = now
            say({"done": done, "steps": steps})

    return progress


def main(arguments: Sequence[str]) -> int:
    """Rebuild an episode in this process; the program that the server starts."""
    run, episode, output, *options = arguments
    from rlagents.api import open_run
    from rlagents.video import video_suffix

    def say(value: Json) -> None:
        # When the server is gone, so is the pipe, and this process ends.
        print(json.dumps(value), flush=True)

    try:
        path = open_run(run, allow_import="--allow-import" in options).record_training_episode(
            int(episode),
            output=Path(output).with_suffix(video_suffix()),
            progress=printer(say),
        )
    except RLAgentsError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return error.exit_code
    say({"path": str(path)})
    return 0


def end_with(server: IO[str]) -> None:
    """End this process when the server that has started it is gone."""

    def wait() -> None:
        while server.read(_LONGEST_LINE):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    end_with(sys.stdin)
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    sys.exit(main(sys.argv[1:]))
