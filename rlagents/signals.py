"""Stopping in an orderly way: the first signal asks, the second insists."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

from rlagents.errors import StoppedError
from rlagents.streams import silence_gone_streams

_EXIT_CODE = StoppedError.exit_code
# SIGUSR1 is what a cluster's scheduler sends some time before it takes the machine away; SIGHUP
# comes when the terminal is closed or the connection to it is lost.
_NUMBERS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
    if hasattr(signal, name)
)
# It comes more than once, from the shell and from the system, often with SIGTERM right behind, and
# nobody sits there who insists.
_HANGUP = getattr(signal, "SIGHUP", None)


class StopSignal:
    """Notes SIGINT, SIGTERM, SIGUSR1 and SIGHUP while entered; a second one ends the process.

    SIGHUP is none of the two that count, and is left alone where it is ignored, as by `nohup`.

    Python calls a handler between two of its own steps only. So that a second signal ends a process
    that waits for an emulator or a disk as well, a thread of its own counts what has come.

    Args:
        count: whether to count in that way; not beside somebody who takes a signal and then sends
            it again, as web servers do. They know nothing of SIGHUP, so that is left alone too.
    """

    def __init__(self, *, count: bool = True) -> None:
        self.requested = False
        self._insisted = False  # a signal came that SIGHUP is not
        self._counts = count
        self._at_once = False
        self._previous: dict[signal.Signals, Any] = {}
        self._counter: threading.Thread | None = None
        self._told: int | None = None  # where the operating system writes each signal's number
        self._previous_told = -1

    def __call__(self) -> bool:
        """Tell whether a stop was asked for."""
        return self.requested

    @contextlib.contextmanager
    def at_once(self, message: str) -> Iterator[None]:
        """Let the first signal stop what is being done here, where there is nothing to save.

        Args:
            message: of the error.

        Raises:
            StoppedError: there was a signal.
        """
        self._at_once = True
        try:
            if self.requested:
                raise KeyboardInterrupt
            yield
        except KeyboardInterrupt:
            raise StoppedError(message) from None
        finally:
            self._at_once = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == _HANGUP:
            silence_gone_streams()  # or whoever prints next would fail
        elif self._insisted:
            os._exit(_EXIT_CODE)  # nothing on disk is ever half-written under its final name
        else:
            self._insisted = True
        if self.requested:
            return
        self.requested = True
        if self._at_once:
            raise KeyboardInterrupt  # no Exception, so that nobody takes it for a failure

    def __enter__(self) -> Self:
        """Take over the signals; only a main thread can."""
        if threading.current_thread() is threading.main_thread():
            if self._counts:
                self._begin_to_count()
            for number in _NUMBERS:
                ignored = not self._counts or signal.getsignal(number) == signal.SIG_IGN
                if not (number == _HANGUP and ignored):
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def _begin_to_count(self) -> None:
        reader, self._told = os.pipe()
        os.set_blocking(self._told, False)
        self._counter = threading.Thread(
            target=_insist, args=(reader,), name="signals", daemon=True
        )
        self._counter.start()
        self._previous_told = signal.set_wakeup_fd(self._told, warn_on_full_buffer=False)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._told is not None and self._counter is not None:
            signal.set_wakeup_fd(self._previous_told)
            os.close(self._told)
            self._counter.join()
            self._told = None


def _insist(reader: int) -> None:
    """End the process at the second signal that is written to a pipe, until that is closed."""
    seen = 0
    while number := os.read(reader, 1):
        seen += number[0] in _NUMBERS and number[0] != _HANGUP
        if seen > 1:
            os._exit(_EXIT_CODE)
    os.close(reader)
