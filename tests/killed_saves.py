"""A program that saves checkpoints in processes which end at a chosen call, and looks at each.

A forked process does what `save` does, real replay included, and leaves by `os._exit` before or
after its n-th call that changes the disk or waits for it: nothing is flushed, nothing tidied up.
The parent then looks at what is there. Prints how many calls there were.

    python killed_saves.py FOLDER next-step|same-step|on-exit before|after
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from replay_simulation import Simulation, make_replay

from rlagents.checkpoint import REPLAY, CheckpointStore
from rlagents.replay import segments
from rlagents.spaces import FrameStack

SPACE = FrameStack(3, 2, 3)
CALLS = ("fsync", "rename", "replace", "link", "unlink", "mkdir", "rmdir")
ENDED = 77


def main() -> None:
    folder, case, when = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    segments.SEGMENT_BYTES = 60  # ten rows
    replay, simulation = make_replay(SPACE, 2, capacity=60), Simulation(SPACE, 2, seed=0)
    template = folder / "template"
    template.mkdir()
    store = CheckpointStore(template, keep=2)
    held: dict[int, list[bytes]] = {}

    def save(store: CheckpointStore, step: int) -> None:
        def write(directory: Path) -> None:
            (directory / REPLAY).mkdir(parents=True)
            replay.save(directory / REPLAY)
            (directory / "runner.json").write_text(str(step))

        store.save(step, write)
        if case == "on-exit":
            store.lighten(REPLAY, lambda directory: (directory / "told").touch())

    for step in (1, 2):
        simulation.feed(replay, 17)
        save(store, step)
        held[step] = frames(replay)
    simulation.feed(replay, 17)
    new = 2 if case == "same-step" else 3
    expected = {2: [held[2]], new: [held[2], frames(replay)] if new == 2 else [frames(replay)]}

    for number in itertools.count(1):
        place = folder / str(number)
        # With links, as the run would have it: what shares a file goes on sharing it.
        shutil.copytree(template, place, copy_function=os.link)
        child = os.fork()
        if child == 0:
            end_at(number, when)
            save(CheckpointStore(place, keep=2), new)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, ENDED), code
        look(place, expected, save)
        shutil.rmtree(place)
        if code == 0:
            print(number - 1)
            return


def end_at(number: int, when: str) -> None:
    """Leave before or after the `number`-th call."""
    counter = itertools.count(1)

    def watch(name: str) -> None:
        original = getattr(os, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            mine = next(counter)
            if when == "before" and mine == number:
                os._exit(ENDED)
            try:
                return original(*arguments, **options)
            finally:
                if when == "after" and mine == number:
                    os._exit(ENDED)

        setattr(os, name, watched)

    for name in CALLS:
        watch(name)


def look(place: Path, expected: dict[int, list[list[bytes]]], save: Any) -> None:
    """Whatever is listed is whole, and the last is one of the two that it can be."""
    store = CheckpointStore(place, keep=2)
    for path in place.glob("step-*"):
        store.find(path.name.removeprefix("step-"))
    last = store.find("last")
    intact, problem = store.find_intact()  # tidies up: it may have lain under another name
    assert (intact.name, intact.step, problem) == (last.name, last.step, None)
    loaded = make_replay(SPACE, 2, capacity=60)
    loaded.load(intact.directory / REPLAY)
    assert frames(loaded) in expected[last.step]
    save(CheckpointStore(place, keep=2), 9)  # and the next process goes on
    assert store.find("last").step == 9
    assert sorted(path.name for path in place.glob(".*")) == []
    assert len(list(place.glob("step-*"))) == 2


def frames(replay: Any) -> list[bytes]:
    ring = replay._ring
    array = np.concatenate(
        [
            ring.frames.items.array[env * ring.rows : env * ring.rows + min(head, ring.rows)]
            for env, head in enumerate(ring.head.tolist())
        ]
    )
    return [array.tobytes(), ring._action.tobytes(), ring.head.tobytes()]


if __name__ == "__main__":
    main()
