"""The program of a worker process: it steps its share of the environments when it is told to.

Commands come as lines of JSON on standard input and are answered by lines on a pipe; observations,
rewards and actions lie in shared memory. It imports what environments need, and never torch.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import gymnasium as gym
import numpy as np

from rlagents.envs.faults import EnvFault
from rlagents.envs.registry import EnvConfig, EnvSpec, find_env, make_single
from rlagents.envs.shared import SharedArrays
from rlagents.envs.vector import SyncVectorEnv
from rlagents.errors import UsageError
from rlagents.spaces import FrameStack
from rlagents.types import Outcome

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


class Share(SyncVectorEnv):
    """The environments of one process: as in the program's own, with the arrays in shared memory.

    Args:
        plan: what the environments are.
        count: how many.
    """

    def __init__(self, plan: Mapping[str, Any], count: int) -> None:
        spec = _find(plan)
        config = EnvConfig(**plan["config"])
        # Whoever gives the commands counts how often.
        super().__init__(
            [lambda: make_single(spec, config)] * count,
            spec.outcome_reader(),
            max_restarts=sys.maxsize,
        )
        self._shared: SharedArrays | None = None
        self._first = 0
        self._number = 0

    def attach(self, shared: SharedArrays, first: int, number: int) -> None:
        """Use shared memory from now on; the environments' rows begin at `first`."""
        self._shared, self._first, self._number = shared, first, number

    def begin_rows(self, rows: Sequence[int], seeds: Sequence[int]) -> None:
        """Begin an episode in some environments, given by their rows among all."""
        own = np.arange(self._first, self._first + self.num_envs)
        self.reset(np.isin(own, rows), seeds)
        self._show(rows)

    def step_rows(self, rows: Sequence[int]) -> dict[int, Outcome]:
        """Step some environments, which are in an episode; the others wait.

        Returns:
            how the episodes came out that ended, by the rows among all.
        """
        shared, first = self._shared, self._first
        assert shared is not None
        self._waiting[:] = True
        self._waiting[[row - first for row in rows]] = False
        self.send(shared.action[first : first + self.num_envs])
        step = self.recv()
        self._show(rows)
        for row in rows:
            shared.reward[row] = step.reward[row - first]
            shared.terminated[row] = step.terminated[row - first]
            shared.truncated[row] = step.truncated[row - first]
            shared.life_lost[row] = step.life_lost[row - first]
        return {first + index: outcome for index, outcome in step.outcomes.items()}

    def restore_rows(
        self,
        rows: Sequence[int],
        seeds: Sequence[int],
        actions: Sequence[Sequence[int]],
        compare: bool,
    ) -> dict[int, str]:
        """Bring some environments into the middle of their episodes.

        Args:
            rows: which.
            seeds: of their episodes.
            actions: of each episode so far.
            compare: with what the shared memory shows.

        Returns:
            of those that did not come back, why.
        """
        assert self._shared is not None
        problems: dict[int, str] = {}
        for row, seed, played in zip(rows, seeds, actions, strict=True):
            own = row - self._first
            try:
                self._replay(own, seed, played)
            except Exception as error:  # somebody else's environment: whatever it raises
                self._make_anew(own, error)
                self._faults.clear()
                problems[row] = repr(error)
                continue
            seen, now = self._shared.observation[row], self._observation[own]
            if compare and not np.array_equal(seen, now, equal_nan=seen.dtype.kind == "f"):
                problems[row] = "it showed something else when its episode was played again"
        self._show([row for row in rows if row not in problems])
        return problems

    def over(self) -> list[int]:
        """Return the rows that are in no episode."""
        return (self._first + np.flatnonzero(self._waiting)).tolist()

    def faults(self) -> list[EnvFault]:
        """Return what has failed since the last call, by the rows among all."""
        return [
            fault._replace(env_index=self._first + (fault.env_index or 0))
            for fault in self.take_faults()
        ]

    def _show(self, rows: Sequence[int]) -> None:
        assert self._shared is not None
        for row in rows:
            self._shared.observation[row] = self._observation[row - self._first]

    def _call(self, index: int) -> None:
        super()._call(index)
        if self._shared is not None:
            self._shared.calls[self._number, 1] += 1
            self._shared.calls[self._number, 0] = self._first + index

    def rest(self) -> None:
        """Note that no environment is being called."""
        assert self._shared is not None
        self._shared.calls[self._number, 0] = -1


def _find(plan: Mapping[str, Any]) -> EnvSpec:
    """Return the spec of a plan: that of its id, or made by the function that it refers to."""
    if plan["make"] is None:
        return find_env(plan["config"]["id"])
    module, name = plan["make"]
    try:
        make: Any = importlib.import_module(module)
        for part in name.split("."):
            make = getattr(make, part)
    except Exception as error:  # somebody else's module: whatever it raises
        raise UsageError(
            f"[env] num_workers: {module}.{name} cannot be imported: {error!r}"
        ) from error
    return EnvSpec(
        name=plan["name"],
        make=make,
        action_sets=plan["action_sets"],
        outcome=plan["outcome"],
        success=plan["success"],
    )


def describe(space: gym.Space[Any]) -> dict[str, Any]:
    """Return a JSON object from which `rebuild` makes an equal space, bounds included.

    Raises:
        UsageError: it is none that can be.
    """
    if isinstance(space, FrameStack):
        return {"kind": "frame-stack", "shape": list(space.shape)}
    if isinstance(space, gym.spaces.Box):
        return {
            "kind": "box",
            "shape": list(space.shape),
            "dtype": str(space.dtype),
            "low": space.low.tolist(),
            "high": space.high.tolist(),
        }
    if isinstance(space, gym.spaces.Discrete):
        return {"kind": "discrete", "n": int(space.n), "start": int(space.start)}
    raise UsageError(
        f"[env] num_workers: actions must be numbers from a Discrete space, not from {space}."
    )


def rebuild(description: Mapping[str, Any]) -> gym.Space[Any]:
    """Return the space that `describe` described."""
    match description["kind"]:
        case "frame-stack":
            return FrameStack(*description["shape"])
        case "box":
            dtype = np.dtype(description["dtype"])
            low, high = (np.array(description[key], dtype) for key in ("low", "high"))
            return gym.spaces.Box(low, high, tuple(description["shape"]), dtype.type)
        case _:
            return gym.spaces.Discrete(description["n"], start=description["start"])


def serve(plan: Mapping[str, Any]) -> None:
    """Make environments as planned, and do what is commanded until there is nobody to command."""
    _outlive_signals()
    _die_with(plan["parent"])
    np.random.seed()  # from the system: not the same numbers in every process
    for descriptor in (plan["memory"], plan["replies"]):
        os.set_inheritable(descriptor, False)  # not for the processes that environments start
    commands = _take_standard_input()
    with os.fdopen(plan["replies"], "wb", buffering=0) as replies:

        def reply(**answer: Any) -> None:
            replies.write(json.dumps(answer).encode() + b"\n")

        with contextlib.suppress(BrokenPipeError):
            try:
                share = Share(plan, plan["count"])
                spaces = [describe(share.observation_space), describe(share.action_space)]
            except UsageError as error:
                reply(refused=str(error))
                return
            reply(spaces=spaces)
            _obey(share, plan, commands, reply)
            share.close()


def _obey(share: Share, plan: Mapping[str, Any], commands: BinaryIO, reply: Any) -> None:
    for line in commands:
        command = json.loads(line)
        answer: dict[str, Any] = {}
        match command.pop("do"):
            case "attach":
                first, number = command.pop("first"), command.pop("number")
                share.attach(SharedArrays(plan["memory"], **command), first, number)
            case "begin":
                share.begin_rows(**command)
            case "step":
                answer = {"outcomes": list(share.step_rows(**command).items())}
            case "restore":
                answer = {
                    "problems": list(share.restore_rows(**command).items()),
                    "over": share.over(),
                }
            case "close":
                return
        share.rest()
        reply(faults=share.faults(), **answer)


def _take_standard_input() -> BinaryIO:
    """Return the commands' file, and leave environments an empty standard input."""
    commands = os.fdopen(os.dup(0), "rb")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return commands


def _outlive_signals() -> None:
    """Leave it to the program whether a signal ends the run: it saves first.

    They are handled and not ignored, since processes that environments start would ignore them too.
    """
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"):
        number = getattr(signal, name)
        if not (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):  # under nohup
            signal.signal(number, lambda number, frame: None)


def _die_with(parent: int) -> None:
    """See to it that this process does not outlive the program, even while an environment hangs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it is gone already
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
