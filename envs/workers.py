"""Environments in worker processes: on several cores, and where a failure stays contained.

Each process has its share of the environments. What they show and are told lies in shared memory.
An environment that raises is made anew where it is. A process that dies or hangs is started anew:
the environment that it had called loses its episode, and the others of that process come back into
the middle of theirs, by their seeds and actions.
"""

from __future__ import annotations

import os
import weakref
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from rlagents.envs.faults import EnvFailedError, EnvFault
from rlagents.envs.process import Worker, WorkerLostError
from rlagents.envs.shared import SharedArrays, open_memory
from rlagents.envs.vector import VectorStep, freeze
from rlagents.envs.worker import rebuild
from rlagents.errors import UsageError
from rlagents.types import Array, BoolArray, IntArray, Outcome


class WorkerVectorEnv:
    """N environments in W processes.

    Args:
        plan: what the environments are, for `rlagents.envs.worker`.
        name: what to call them in messages.
        num_envs: N.
        num_workers: W, at most N.
        step_limit_s: seconds after which an environment that does not answer is taken to hang.
        max_restarts: how many failures are made good; the next one raises.
        repeat: bring an environment that fails back into its episode, and repeat its step or its
            reset, where otherwise the episode is cut off; a failure in that raises.

    Raises:
        UsageError: a worker process cannot make the environment.
        EnvFailedError: an environment failed once too often.
    """

    def __init__(
        self,
        plan: Mapping[str, Any],
        name: str,
        num_envs: int,
        num_workers: int,
        *,
        step_limit_s: float,
        max_restarts: int = 0,
        repeat: bool = False,
    ) -> None:
        self.num_envs = num_envs
        self._plan = plan
        self._name = name
        self._step_limit_s = step_limit_s
        self._restarts_left = max_restarts
        self._repeats = repeat
        self._faults: list[EnvFault] = []
        ends = [(number + 1) * num_envs // num_workers for number in range(num_workers)]
        self._rows = [range(begin, end) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
        self._memory = open_memory()
        self._arrays: list[SharedArrays] = []  # one, as soon as the first process has told its size
        self._workers: list[Worker] = []
        self._end = weakref.finalize(self, _end, self._workers, self._memory)
        self.observation_space: gym.spaces.Box
        self.action_space: gym.Space[Any]
        try:
            for number in range(num_workers):  # they all start at once
                self._workers.append(self._start(number))
            for number in range(num_workers):
                self._attach(number)
        except BaseException:
            self._end()
            raise
        space = self.observation_space
        self._observation = np.zeros((num_envs, *space.shape), space.dtype)
        self._waiting = np.ones(num_envs, dtype=np.bool_)
        self._seeds = [0] * num_envs
        self._played = [array("q") for _ in range(num_envs)]  # actions of each episode
        self._stepped: list[list[int]] = [[] for _ in self._workers]  # rows of the step under way
        self._outcomes: dict[int, Outcome] = {}  # of the episodes that ended in this step
        # Environments that were lost between two steps: the next step tells.
        self._lost: dict[int, EnvFault] = {}

    # --- the protocol ----------------------------------------

    def reset(self, mask: BoolArray, seeds: Sequence[int]) -> Array:
        """Begin an episode in each environment of `mask`, with one seed for each of them."""
        for row, seed in zip(np.flatnonzero(mask).tolist(), seeds, strict=True):
            self._seeds[row], self._played[row] = seed, array("q")
            self._waiting[row] = True  # until it has begun
            self._lost.pop(row, None)
        begun = [[row for row in rows if mask[row]] for rows in self._rows]
        for number, rows in enumerate(begun):
            self._begin(number, rows)
        for number, rows in enumerate(begun):
            failed = self._finish(number, rows, self._begin)
            self._take([row for row in rows if row not in failed])
            for row in rows:
                self._waiting[row] = row in failed
        return self._observation.copy()

    def send(self, actions: IntArray) -> None:
        """Start a step of each environment that is in an episode, in all processes at once."""
        self._shared.action[:] = actions
        for number, rows in enumerate(self._rows):
            stepped = [row for row in rows if not self._waiting[row] and row not in self._lost]
            for row in stepped:
                self._played[row].append(int(actions[row]))
            self._step(number, stepped)
            self._stepped[number] = stepped

    def recv(self) -> VectorStep:
        """Wait for the step of every process."""
        shared = self._shared
        reward = np.zeros(self.num_envs, dtype=np.float32)
        terminated, truncated, life_lost = np.zeros((3, self.num_envs), dtype=np.bool_)
        self._outcomes = {}
        over = list(self._lost)
        self._faults += self._lost.values()
        self._lost.clear()
        for number, rows in enumerate(self._stepped):
            failed = self._finish(number, rows, self._step)
            good = [row for row in rows if row not in failed]
            self._take(good)
            reward[good] = shared.reward[good]
            terminated[good] = shared.terminated[good]
            truncated[good] = shared.truncated[good]
            life_lost[good] = shared.life_lost[good]
            over += failed
        for row in over:
            freeze(self._observation[row], self.observation_space)
            truncated[row] = True
        self._waiting |= terminated | truncated
        observation = self._observation.copy()
        return VectorStep(observation, reward, terminated, truncated, life_lost, self._outcomes)

    def restore(self, seeds: Sequence[int], actions: Sequence[Array]) -> Array:
        """Bring every environment into the middle of the episode of its seed and actions."""
        self._lost.clear()
        for row in range(self.num_envs):
            self._seeds[row], self._played[row] = seeds[row], array("q", actions[row].tolist())
        for number, rows in enumerate(self._rows):
            self._replay(number, rows, [self._played[row].tolist() for row in rows], compare=False)
        problems: dict[int, str] = {}
        for number, rows in enumerate(self._rows):
            try:
                answer = self._workers[number].answer()
            except WorkerLostError as error:
                self._replace(number)
                answer = {"over": [], "problems": [[row, str(error)] for row in rows]}
            self._waiting[rows] = np.isin(rows, answer["over"])
            problems |= dict(answer["problems"])
        self._waiting[list(problems)] = True
        self._take(range(self.num_envs))
        if problems:
            raise ValueError(next(iter(problems.values())))
        return self._observation.copy()

    def take_faults(self) -> list[EnvFault]:
        """Return what has failed since the last call."""
        faults, self._faults = self._faults, []
        return faults

    def close(self) -> None:
        """Close every environment, and end the processes."""
        self._end()

    # --- commands ----------------------------------------

    @property
    def _shared(self) -> SharedArrays:
        return self._arrays[0]

    def _begin(self, number: int, rows: Sequence[int]) -> None:
        if rows:
            seeds = [self._seeds[row] for row in rows]
            self._workers[number].command("begin", rows=list(rows), seeds=seeds)

    def _step(self, number: int, rows: Sequence[int]) -> None:
        if rows:
            self._workers[number].command("step", rows=list(rows))

    def _replay(
        self, number: int, rows: Sequence[int], played: Sequence[Sequence[int]], *, compare: bool
    ) -> None:
        seeds = [self._seeds[row] for row in rows]
        self._workers[number].command(
            "restore", rows=list(rows), seeds=seeds, actions=played, compare=compare
        )

    def _replay_until_now(self, number: int, rows: Sequence[int], under_way: Sequence[int]) -> None:
        """Let episodes be played again up to what was seen last.

        Args:
            number: of the process.
            rows: of the environments.
            under_way: rows whose last action has not been played yet.
        """
        played = [
            (self._played[row][:-1] if row in under_way else self._played[row]).tolist()
            for row in rows
        ]
        self._shared.observation[rows] = self._observation[rows]  # to be compared with
        self._replay(number, rows, played, compare=True)

    def _take(self, rows: Sequence[int]) -> None:
        """Take over what environments show, out of the memory that is written to again."""
        self._observation[rows] = self._shared.observation[rows]

    def _note_outcomes(self, answer: Mapping[str, Any]) -> None:
        for row, outcome in answer.get("outcomes", ()):
            self._outcomes[row] = Outcome(*outcome)

    # --- failures ----------------------------------------

    def _finish(
        self, number: int, rows: Sequence[int], command: Callable[[int, Sequence[int]], None]
    ) -> set[int]:
        """Wait until a process has done what it was told to, and make good what fails.

        Args:
            number: of the process.
            rows: of the environments that the command was for.
            command: what gave it, and gives it again to those that have come back.

        Returns:
            the rows that failed and are in no episode now.
        """
        failed = self._wait(number, rows, command)
        if failed and self._repeats:
            self._try_again(number, sorted(failed), command)
            return set()
        return failed

    def _try_again(
        self, number: int, rows: Sequence[int], command: Callable[[int, Sequence[int]], None]
    ) -> None:
        """Give a command again to environments that failed in it, each in its episode.

        Raises:
            EnvFailedError: one of them fails again.
        """
        in_episode = [row for row in rows if not self._waiting[row]]
        try:
            self._replay_until_now(number, in_episode, rows)
            problems = self._workers[number].answer()["problems"]
            if not problems:
                command(number, rows)
                answer = self._workers[number].answer()
                self._note_outcomes(answer)
                problems = [(row, reason) for row, _, _, reason in answer["faults"]]
        except WorkerLostError as error:
            called = int(self._shared.calls[number, 0])
            problems = [(called if called >= 0 else rows[0], str(error))]
        for row, reason in problems:
            steps = max(0, len(self._played[row]) - 1)
            raise EnvFailedError(EnvFault(row, self._seeds[row], steps, reason), self._name)

    def _wait(
        self, number: int, rows: Sequence[int], command: Callable[[int, Sequence[int]], None]
    ) -> set[int]:
        """Do what `_finish` does, without trying again."""
        failed: set[int] = set()
        left = list(rows)
        while left:
            try:
                answer = self._workers[number].answer()
            except WorkerLostError as error:
                self._bring_back(number, str(error), left, failed)
                left = [row for row in left if row not in failed]
                command(number, left)
                continue
            self._note_outcomes(answer)
            for row, seed, steps, reason in answer["faults"]:
                self._faults.append(self._count(EnvFault(row, seed, steps, reason)))
                failed.add(row)
            break
        return failed

    def _bring_back(self, number: int, reason: str, rows: Sequence[int], failed: set[int]) -> None:
        """Start a process anew, with its environments where they were before a command.

        Args:
            number: of the process.
            reason: why it was lost.
            rows: that the command was for.
            failed: takes in those of them that did not come back. Of others, the next step tells.
        """

        def lose(row: int, why: str) -> None:
            # The action of the step under way has not been played.
            steps = max(0, len(self._played[row]) - (row in rows))
            fault = self._count(EnvFault(row, self._seeds[row], steps, why))
            if row not in rows and self._repeats:
                raise EnvFailedError(fault, self._name)
            if row in rows:
                failed.add(row)
                self._faults.append(fault)
            else:
                self._lost[row] = fault

        while True:
            called = int(self._shared.calls[number, 0])
            if called >= 0:
                lose(called, reason)
            else:
                self._faults.append(self._count(EnvFault(None, 0, 0, reason)))
            self._replace(number)
            back = [
                row
                for row in self._rows[number]
                if not (self._waiting[row] or row in failed or row in self._lost)
            ]
            self._replay_until_now(number, back, rows)
            try:
                answer = self._workers[number].answer()
            except WorkerLostError as error:
                reason = str(error)
                continue
            for row, why in answer["problems"]:
                lose(row, why)
            return

    def _count(self, fault: EnvFault) -> EnvFault:
        """Return a fault that is made good.

        Raises:
            EnvFailedError: it is one too many.
        """
        if not self._restarts_left:
            raise EnvFailedError(fault, self._name)
        self._restarts_left -= 1
        return fault

    # --- processes ----------------------------------------

    def _start(self, number: int) -> Worker:
        arrays = self._arrays  # not self, which would then never be finalized

        def calls() -> int:
            return int(arrays[0].calls[number, 1]) if arrays else 0

        return Worker(
            self._plan,
            self._memory,
            len(self._rows[number]),
            step_limit_s=self._step_limit_s,
            calls=calls,
        )

    def _attach(self, number: int) -> None:
        """Wait until a process has made its environments, and give it its rows."""
        worker = self._workers[number]
        try:
            answer = worker.answer()
        except WorkerLostError as error:
            raise UsageError(
                f"[env] num_workers: a worker process could not make {self._name}: {error}."
            ) from error
        if "refused" in answer:
            raise UsageError(
                f"[env] num_workers: a worker process cannot make {self._name}: "
                f"{answer['refused']} What your program registers is unknown there: name it as "
                "package.module:Id-v0 or path/to/file.py:make_env."
            )
        if not self._arrays:
            observation_space, self.action_space = map(rebuild, answer["spaces"])
            assert isinstance(observation_space, gym.spaces.Box)
            self.observation_space = observation_space
            self._arrays.append(SharedArrays(self._memory, **self._layout(), create=True))
            self._shared.calls[:, 0] = -1
        rows = self._rows[number]
        worker.command("attach", first=rows[0], number=number, **self._layout())
        worker.answer()

    def _layout(self) -> dict[str, Any]:
        space = self.observation_space
        return {
            "num_envs": self.num_envs,
            "num_workers": len(self._rows),
            "shape": list(space.shape),
            "dtype": str(space.dtype),
        }

    def _replace(self, number: int) -> None:
        """Put a new process, whose environments are in no episode, in the place of one."""
        self._workers[number].kill()
        self._shared.calls[number, 0] = -1
        self._workers[number] = self._start(number)
        self._attach(number)


def _end(workers: Sequence[Worker], memory: int) -> None:
    """End processes: all are asked to first, so that they close their environments together."""
    for worker in workers:
        worker.ask_to_close()
    for worker in workers:
        worker.close()
    os.close(memory)
