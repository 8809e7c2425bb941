"""A worker process as the program sees it: started, told, waited for, and ended."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from rlagents.envs.faults import NO_ANSWER
from rlagents.errors import RLAgentsError

# It imports as this process does: what a script's folder or a test has put on the path included.
_PROGRAM = (
    "import json, sys; plan = json.loads(sys.stdin.buffer.readline()); sys.path[:] = plan['path'];"
    " from rlagents.envs.worker import serve; serve(plan)"
)
_LOOK_PERIOD_S = 1.0  # at a process that says nothing
_CLOSING_S = 5.0  # that environments have to close


class WorkerLostError(RLAgentsError):
    """A worker process ended, or had to be ended; the message says why, without a full stop."""


class Worker:
    """A process of its own that runs `rlagents.envs.worker`.

    It is in a process group of its own, so that Ctrl-C does not reach it, and what its environments
    have started is ended with it.

    Args:
        plan: what its environments are.
        memory: descriptor of the shared memory.
        count: how many environments it has.
        step_limit_s: seconds without an answer after which it is taken to hang.
        calls: returns how many calls of an environment it has begun, from the shared memory; each
            has `step_limit_s`.
    """

    def __init__(
        self,
        plan: Mapping[str, Any],
        memory: int,
        count: int,
        *,
        step_limit_s: float,
        calls: Callable[[], int],
    ) -> None:
        self._limit_s = step_limit_s
        self._calls = calls
        self._since = (0, 0.0)  # calls seen, and when they were first seen
        own_end, its_end = os.pipe()
        self._replies: BinaryIO = os.fdopen(own_end, "rb", buffering=0)
        self._read = b""  # the beginning of a line
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM],
                stdin=subprocess.PIPE,
                bufsize=0,
                pass_fds=(its_end, memory),
                process_group=0,
            )
        except BaseException:
            self._replies.close()
            raise
        finally:
            os.close(its_end)
        known = {"path": sys.path, "parent": os.getpid(), "replies": its_end, "memory": memory}
        self._send({**plan, **known, "count": count})

    @property
    def pid(self) -> int:
        """Return the process's number."""
        return self._process.pid

    def command(self, do: str, **arguments: Any) -> None:
        """Tell it what to do; `answer` waits for it."""
        self._send({"do": do, **arguments})

    def _send(self, message: Mapping[str, Any]) -> None:
        self._since = (self._calls(), time.monotonic())
        assert self._process.stdin is not None
        line = memoryview(json.dumps(message).encode() + b"\n")
        with contextlib.suppress(BrokenPipeError):  # then `answer` finds that out
            while line:
                line = line[self._process.stdin.write(line) :]

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to the last command.

        Raises:
            WorkerLostError: there will be none.
        """
        ready = select.poll()
        ready.register(self._replies, select.POLLIN)
        period_s = min(_LOOK_PERIOD_S, self._limit_s / 4)
        while b"\n" not in self._read:
            if ready.poll(period_s * 1000):
                more = self._replies.read(1 << 16)
                if not more:
                    raise WorkerLostError(self._how_it_ended())
                self._read += more
                continue
            if self._process.poll() is not None:  # though what it has started lives on
                raise WorkerLostError(self._how_it_ended())
            calls, now = self._calls(), time.monotonic()
            if calls != self._since[0]:
                self._since = (calls, now)
            elif now - self._since[1] >= self._limit_s:
                raise WorkerLostError(NO_ANSWER.format(limit=self._limit_s))
        line, _, self._read = self._read.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(_CLOSING_S)
        except subprocess.TimeoutExpired:  # it has closed its end of the pipe
            return "its process no longer answers"
        if code >= 0:
            return f"its process ended with exit code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"its process was ended by {name}"

    def ask_to_close(self) -> None:
        """Let environments close; `close` waits for that."""
        with contextlib.suppress(OSError, ValueError):  # it may have been killed
            self.command("close")

    def close(self) -> None:
        """End the process, once its environments are closed or have had time enough."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSING_S)
        self.kill()

    def kill(self) -> None:
        """End the process at once, and what its environments have started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._replies.close()
