"""Standard output and error, where nobody may be left to read them."""

from __future__ import annotations

import os
import select


def silence_gone_streams() -> bool:
    """Let standard output and error lead to nowhere if their terminal or their reader is gone.

    From then on it is no error to print, for an environment of one's own either.

    Returns:
        whether one of them was gone.
    """
    if not hasattr(select, "poll"):  # Windows: nothing there tells
        return False
    gone = False
    for number in (1, 2):
        poll = select.poll()
        poll.register(number, 0)  # errors and hangups are told unasked
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
            gone = True
    return gone
