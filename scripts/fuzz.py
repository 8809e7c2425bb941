"""Read many damaged and invented files, and see that nothing but the documented errors comes.

For each reader there is a folder of files that are valid. An input is one of them, replaced: with
some of its bytes flipped, cut out, doubled or overwritten, or by values made up from the names that
the reader knows. In half of the inputs to the loader of checkpoints the manifest is made true
again, as somebody who wants to do harm would have it. Hypothesis chooses, and shrinks what it
finds.

Example:
    nice python scripts/fuzz.py --inputs 100000
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import shutil
import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import rlagents
from measuring import count
from rlagents.checkpoint import MANIFEST, CheckpointStore
from rlagents.config import RunConfig, build_config, parse_option_values, read_config
from rlagents.errors import RLAgentsError, UsageError
from rlagents.observers.files import cut_logs
from rlagents.replay import ReplayConfig, make_replay
from rlagents.run import ActionLog, RunFolder
from rlagents.runner import _read_state
from rlagents.watch.videos import read_header, read_sidecar

TINY: dict[str, Any] = {
    "total_steps": 96,
    "env.num_envs": 2,
    "agent.learning_starts": 32,
    "agent.n_step": 2,
    "replay.capacity": 100,
    "replay.batch_size": 4,
    "network.hidden_sizes": [4],
    "evaluation.period_steps": 48,
    "evaluation.episodes": 1,
    "recording.enabled": False,
}


@dataclass
class Reader:
    """Something that reads files.

    Attributes:
        folder: of the files.
        read: reads them.
        errors: that it may raise.
        names: the files that are replaced.
        words: that mean something in them.
        sign: whether a manifest is to be made true again in half of the inputs.
        inputs: how many there have been.
        refused: how many of them it refused.
    """

    folder: Path
    read: Callable[[], object]
    errors: tuple[type[Exception], ...]
    names: list[str]
    words: tuple[str, ...] = ()
    sign: Path | None = None
    inputs: int = 0
    refused: int = 0

    def check(self, name: str, data: bytes, sign: bool) -> None:
        """Read the folder with one of its files replaced."""
        path = self.folder / name
        before = {each: each.read_bytes() for each in (path, *([self.sign] if self.sign else []))}
        self.inputs += 1
        try:
            path.write_bytes(data)
            if self.sign is not None and sign and path != self.sign:
                _make_true(self.sign)
            self.read()
        except self.errors:
            self.refused += 1
        finally:
            for each, content in before.items():
                each.write_bytes(content)


def _make_true(manifest: Path) -> None:
    """Write sizes and hashes as they are now."""
    value = json.loads(manifest.read_bytes())
    for name in value["files"]:
        data = (manifest.parent / name).read_bytes()
        value["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest.write_text(json.dumps(value))


# --- inputs ----------------------------------------

_INTS = st.one_of(st.integers(-3, 300), st.integers(), st.sampled_from([2**31, 2**63, 10**30]))
_BYTES = st.binary(max_size=40)


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    """Return valid bytes in which something has gone wrong."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 64))
        match draw(st.sampled_from(["flip", "cut", "double", "splice", "end", "insert"])):
            case "flip" if place < len(data):
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[place : place + length]
            case "double":
                to = draw(st.integers(0, len(data)))
                data[to:to] = data[place : place + length]
            case "splice":
                other = draw(st.integers(0, len(data)))
                data[place : place + length] = data[other : other + length]
            case "end":
                del data[place:]
            case "insert":
                data[place:place] = draw(_BYTES)
    return bytes(data)


@functools.cache
def values(words: tuple[str, ...]) -> st.SearchStrategy[Any]:
    """Return JSON values whose keys and texts often mean something."""
    texts = st.one_of(st.sampled_from([*words, "", "..", "none"]), st.text(max_size=8))
    leaves = st.one_of(st.none(), st.booleans(), _INTS, st.floats(allow_subnormal=False), texts)
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=6)
        ),
        max_leaves=12,
    )


@st.composite
def edited_json(draw: st.DrawFn, original: bytes, words: tuple[str, ...]) -> bytes:
    """Return valid JSON in which a value has been replaced, removed or added, somewhere."""
    value = json.loads(original)
    node = value
    while True:
        keys: list[Any] = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = draw(st.sampled_from(keys))
        child = node[key]
        if isinstance(child, dict | list) and child and draw(st.booleans()):
            node = child
            continue
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                node[key] = draw(values(words))
            case "remove":
                del node[key]
            case "add" if isinstance(node, dict):
                node[draw(st.sampled_from(words) if words else st.text())] = draw(values(words))
            case "add":
                node.insert(key, draw(values(words)))
        break
    return json.dumps(value).encode()


@st.composite
def toml(draw: st.DrawFn, words: tuple[str, ...]) -> bytes:
    """Return text that looks like a config."""
    lines = []
    word = st.one_of(st.sampled_from(list(words)), st.text(max_size=6))
    value = st.one_of(
        values(words).map(lambda each: json.dumps(each)),
        st.sampled_from(["1e6", ".5", "inf", "nan", "1979-05-27T07:32:00Z", "[[]]", "{a = 1}", ""]),
        word,
    )
    for _ in range(draw(st.integers(0, 8))):
        if draw(st.integers(0, 3)) == 0:
            lines.append(f"[{draw(word)}]")
        else:
            lines.append(f"{draw(word)} = {draw(value)}")
    return "\n".join(lines).encode("utf-8", "surrogatepass")


@st.composite
def npy(draw: st.DrawFn) -> bytes:
    """Return an array's file with any header."""
    descr = draw(st.sampled_from(["|u1", "<f4", "<f8", "<i8", "|b1", "|O", "<U9", ">i8", "|V8"]))
    shape = tuple(draw(st.lists(st.one_of(st.integers(0, 9), _INTS), max_size=4)))
    header = {"descr": descr, "fortran_order": draw(st.booleans()), "shape": shape}
    text = (repr(header)[:-1] + ", }" + " " * draw(st.integers(0, 64)) + "\n").encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) % 65536) + text + draw(_BYTES)


@st.composite
def tensors(draw: st.DrawFn, words: tuple[str, ...]) -> bytes:
    """Return a file of tensors with any header."""
    tensor = st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "F64", "U8", "BF16", "I64", "BOOL", "X"]),
            "shape": st.lists(_INTS, max_size=4),
            "data_offsets": st.lists(_INTS, min_size=2, max_size=2),
        }
    )
    named = st.dictionaries(st.sampled_from(list(words)), st.one_of(tensor, values(words)))
    text = json.dumps(draw(named)).encode()
    length = draw(st.one_of(st.just(len(text)), st.integers(0, 2**64 - 1)))
    return struct.pack("<Q", length) + text + draw(_BYTES)


def inputs(reader: Reader) -> st.SearchStrategy[tuple[str, bytes]]:
    """Return the names and contents of files to be replaced."""
    kinds: list[st.SearchStrategy[tuple[str, bytes]]] = []
    for name in reader.names:
        original = (reader.folder / name).read_bytes()
        made = [mutated(original), mutated(original)]
        if name.endswith(".json") and original:
            made += [edited_json(original, reader.words)] * 2
            made.append(values(reader.words).map(lambda value: json.dumps(value).encode()))
        elif name.endswith(".toml"):
            made += [toml(reader.words)] * 2
        elif name.endswith(".npy"):
            made.append(npy())
        elif name.endswith(".safetensors"):
            made.append(tensors(reader.words))
        kinds.append(st.tuples(st.just(name), st.one_of(made)))
    return st.one_of(kinds)


# --- readers ----------------------------------------


def config_words() -> tuple[str, ...]:
    """Return the names of all tables and keys, and some values."""
    model = RunConfig.for_agent("dqn")
    found = ["dqn", "ppo", "reinforce", "cartpole", "pong", "uniform", "mlp", *model.model_fields]
    for table in model.model_fields.values():
        found += list(getattr(table.annotation, "model_fields", {}))
    return tuple(found)


def make_readers(folder: Path) -> dict[str, Reader]:
    """Return all readers, with valid files in folders of their own."""
    trained = rlagents.train("cartpole-dqn", TINY, runs_dir=folder, name="run", quiet=True)

    def copy(name: str) -> Path:
        return Path(shutil.copytree(trained.directory, folder / name))

    return {
        "config": _config_reader(folder / "config"),
        "checkpoint": _checkpoint_reader(copy("checkpoint")),
        "replay": _replay_reader(folder / "replay"),
        "run": _run_reader(copy("json")),
        "sidecar": _sidecar_reader(folder / "sidecar"),
    }


def _config_reader(folder: Path) -> Reader:
    folder.mkdir()
    tables, _ = read_config("pong-dqn")
    lines = [f"{key} = {json.dumps(each)}" for key, each in tables.items() if key == "total_steps"]
    for table, keys in tables.items():
        if isinstance(keys, dict):
            lines += [f"[{table}]", *(f"{key} = {json.dumps(each)}" for key, each in keys.items())]
    (folder / "config.toml").write_text("\n".join(lines))

    def read() -> None:
        parse_option_values({"seed": (folder / "config.toml").read_bytes().decode("latin-1")})
        found, source = read_config(folder / "config.toml")
        build_config(found, {}, source)

    return Reader(folder, read, (UsageError,), ["config.toml"], config_words())


def _checkpoint_reader(run: Path) -> Reader:
    store = CheckpointStore(run / "checkpoints")
    last = store.find("last").directory

    def read() -> None:
        store.index()
        store.find_intact()
        found = store.find("last")
        rlagents.load_agent(run, "last")
        try:
            _read_state(found.directory / "runner.json", 2)
        except (OSError, ValueError) as error:  # what `resume` makes a UsageError
            raise UsageError(str(error)) from error

    names = [str(last.relative_to(run) / name) for name in (MANIFEST, "runner.json")]
    names += [str(last.relative_to(run) / "agent" / "network.safetensors")]
    names += ["checkpoints/index.json"]
    state = json.loads((last / "runner.json").read_text())
    words = ("step-96", "step-1/../..", "best", "last", "files", "size", "sha256", *state)
    return Reader(run, read, (UsageError,), names, words, sign=last / MANIFEST)


def _replay_reader(folder: Path) -> Reader:
    """Everything that a replay is saved as; compressed and prioritized, it has all its files."""
    import gymnasium as gym

    from rlagents.types import Transition

    folder.mkdir()
    space = gym.spaces.Box(-1, 1, (3,), np.float32)

    def make() -> Any:
        config = ReplayConfig(kind="prioritized", capacity=100, batch_size=4, compression="lz4")
        return make_replay(
            config, space, 2, n_step=2, gamma=0.9, generator=np.random.default_rng(0)
        )

    replay = make()
    draws = np.random.default_rng(0)
    for _ in range(20):
        seen = draws.normal(size=(2, 2, 3)).astype(np.float32)
        over = draws.random((2, 2)) < 0.1
        action, reward = draws.integers(2, size=2), draws.normal(size=2).astype(np.float32)
        replay.observe(Transition(seen[0], action, reward, seen[1], over[0], over.any(axis=0)))
    replay.save(folder)

    def read() -> None:
        loaded = make()
        loaded.load(folder)
        try:
            loaded.sample(0)
        except RuntimeError as error:
            if "no complete transition" not in str(error):
                raise

    names = sorted(path.name for path in folder.iterdir())
    words = ("head", "fresh", "rows", "highest")
    return Reader(folder, read, (OSError, ValueError), names, words)


def _run_reader(run: Path) -> Reader:
    folder = RunFolder(run)
    names = ["config.json", "status.json", "episodes.csv", "evaluations.csv", "metrics.jsonl"]
    names += ["actions/index.csv", "actions/actions.bin"]
    kept = {name: (run / name).read_bytes() for name in names}

    def read() -> None:
        try:
            rlagents.Run(folder)
            folder.status()
            list(folder.episodes())
            list(folder.evaluations())
            ActionLog(folder).read(1)
        finally:
            try:
                cut_logs(folder, 50, 3)
            finally:
                for name, data in kept.items():  # it changes them
                    (run / name).write_bytes(data)

    words = (*config_words(), "kind", "box", "discrete", "frame-stack", "shape", "dtype", "n")
    return Reader(run, read, (UsageError,), names, words)


def _sidecar_reader(folder: Path) -> Reader:
    folder.mkdir()
    about = {
        "env_id": "cartpole",
        "step": 3,
        "num_frames": 2,
        "seed": 3,
        "episodic_return": 2.0,
        "episodic_length": 2,
        "frame": [0, 1],
        "values": [[0.5, float("nan")], [1.0, 2.0]],
    }
    (folder / "video.json").write_text(json.dumps(about))

    def read() -> None:
        read_header(folder / "video.json")
        read_sidecar(folder / "video.json")

    return Reader(folder, read, (RLAgentsError,), ["video.json"], tuple(about))


def fuzz(reader: Reader, number: int, seed: int) -> None:
    """Give a reader so many inputs; what it should not have raised is raised, with the input."""

    @hypothesis.seed(seed)
    @settings(
        max_examples=number,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        report_multiple_bugs=False,  # a group of them hides what each says
    )
    @given(inputs(reader), st.booleans())
    def test(replaced: tuple[str, bytes], sign: bool) -> None:
        reader.check(*replaced, sign)

    test()


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--inputs", type=count, default=100_000, metavar="N", help="for each (default: 100000)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the first ten thousand")
    parser.add_argument("--reader", action="append", help="only this one; may be repeated")
    return parser.parse_args(arguments)


def main() -> None:
    """Read, and print how much of it."""
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        readers = make_readers(Path(folder))
        for name in options.reader or readers:
            reader = readers[name]
            began = time.perf_counter()
            # In parts, since Hypothesis becomes slower the more it remembers.
            for part in range(-(-options.inputs // 10_000)):
                left = min(10_000, options.inputs - part * 10_000)
                fuzz(reader, left, options.seed + part)
            print(
                f"{name:<12}{reader.inputs:>9,} inputs  {reader.refused:>9,} refused  "
                f"{reader.inputs - reader.refused:>9,} read  0 other errors  "
                f"{time.perf_counter() - began:8.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
