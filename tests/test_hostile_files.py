"""Runs and configs that somebody sent: refused in a sentence, nothing executed, bounded memory."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import edit, last, npy, safetensors, sign

import rlagents
from rlagents.agents import storage
from rlagents.config import read_config
from rlagents.errors import UsageError
from rlagents.files import load_array, read_json
from rlagents.replay.items import CompressedItems
from rlagents.run import ActionLog, RunFolder
from rlagents.spaces import rebuild_space

Cli = Callable[..., Any]
NETWORK = "agent/network.safetensors"


class Payload:
    """What a pickle would run."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("/tmp/rlagents-was-executed",)


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Nothing is executed, and no file makes memory grow by more than some of its own size."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400_000, "kilobytes"
    assert not Path("/tmp/rlagents-was-executed").exists()


def refused(outcome: Any, *words: str) -> None:
    assert outcome.code == 2, outcome
    assert outcome.err.count("\n") == 1, outcome.err  # one sentence
    assert len(outcome.err) < 1_000
    for word in words:
        assert word in outcome.err, outcome.err


# --- a checkpoint's files, with a manifest that is true ----------------------------------------

WEIGHTS: dict[str, bytes] = {
    "pickle": pickle.dumps(Payload()),
    "empty": b"",
    "short": b"\x01\x00",
    "no header": safetensors(b""),
    "no json": safetensors(b"{"),
    "a header longer than the file": (10**12).to_bytes(8, "little") + b"{}",
    "a header of a gigabyte": (1 << 30).to_bytes(8, "little") + b"{}",
    "a header of spaces": safetensors(b" " * (2 << 20)),
    "nested": safetensors(b"[" * 100_000),
    "huge shape": safetensors(
        {"x": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 4]}}, b"1234"
    ),
    "overflowing shape": safetensors(
        {"x": {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 0]}}
    ),
    "overlapping": safetensors(
        {
            "x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
            "y": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]},
        },
        b"123456",
    ),
    "beyond the end": safetensors(
        {"x": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}}, b"1234"
    ),
    "backwards": safetensors({"x": {"dtype": "U8", "shape": [4], "data_offsets": [4, 0]}}, b"1234"),
    "no tensors": safetensors({}),
    "another network": safetensors(
        {"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"1234"
    ),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_that_lie(own_run: Path, cli: Cli, kind: str) -> None:
    checkpoint = last(own_run)
    (checkpoint / NETWORK).write_bytes(WEIGHTS[kind])
    sign(checkpoint)
    refused(cli("evaluate", own_run, "--checkpoint", "last"), str(checkpoint))
    with pytest.raises(UsageError, match="network"):
        rlagents.load_agent(own_run, "last")
    refused(cli("resume", own_run, "--total-steps", 488), str(checkpoint))


ARRAYS: dict[str, bytes] = {
    "pickle": pickle.dumps(Payload()),
    "an object array": b"",  # below
    "a zip file": b"",  # below
    "empty": b"",
    "no header": b"\x93NUMPY\x01\x00\xff\xff",
    "huge shape": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"),
    "an overflowing shape": npy(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (9223372036854775807, 2, 0), }"
    ),
    "a negative shape": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }"),
    "objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"x" * 8),
    "code": npy("__import__('os').mkdir('/tmp/rlagents-was-executed')"),
    "nested": npy("(" * 5_000),
    "a structure": npy(
        "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }", b"x" * 8
    ),
    "another version": npy(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", b"x" * 8, b"\x02\x00"
    ),
    "more than it says": npy(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", b"x" * 800
    ),
}


def array_of(kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "an object array":
        np.lib.format.write_array(file, np.array([Payload()], dtype=object), allow_pickle=True)
    elif kind == "a zip file":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", bytes(50_000_000))
    else:
        return ARRAYS[kind]
    return file.getvalue()


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize(
    "name", ["actions.npy", "agent/replay/items-0-0.npy", "agent/replay/reward.npy"]
)
def test_arrays_that_lie(own_run: Path, cli: Cli, name: str, kind: str) -> None:
    checkpoint = last(own_run)
    assert (checkpoint / name).is_file()
    (checkpoint / name).write_bytes(array_of(kind))
    sign(checkpoint)
    refused(cli("resume", own_run, "--total-steps", 488), "cannot be gone on from", Path(name).name)


@pytest.mark.parametrize("kind", ARRAYS)
def test_an_array_is_the_one_that_is_expected_or_an_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "some.npy"
    path.write_bytes(array_of(kind))
    for shape in ((None,), (1,), (None, None, None)):
        with pytest.raises(ValueError, match=r"some\.npy"):
            load_array(path, np.float64, shape)


@pytest.mark.parametrize("array", [np.zeros((2, 3), np.float32), np.zeros(2), np.zeros((2, 3))])
def test_an_array_of_another_kind_is_refused(tmp_path: Path, array: Any) -> None:
    np.save(tmp_path / "some.npy", array)
    with pytest.raises(ValueError, match=r"some\.npy"):
        load_array(tmp_path / "some.npy", np.int64, (2, 3))
    with pytest.raises(ValueError, match=r"some\.npy"):
        load_array(tmp_path / "some.npy", array.dtype, (*array.shape, 9))


JSONS: dict[str, str] = {
    "nested": "[" * 1_000_000,
    "nested objects": '{"a":' * 1_000_000,
    "a list": "[1]",
    "a huge number": '{"step": ' + "9" * 10_000 + "}",
    "not utf-8": "\udcff",
    "nothing": "",
}


@pytest.mark.parametrize("kind", JSONS)
@pytest.mark.parametrize("name", ["manifest.json", "runner.json", "agent/state.json"])
def test_json_that_lies(own_run: Path, cli: Cli, name: str, kind: str) -> None:
    checkpoint = last(own_run)
    text = JSONS[kind].encode("utf-8", "surrogateescape")
    (checkpoint / name).write_bytes(text)
    if name != "manifest.json":
        sign(checkpoint)
        refused(cli("resume", own_run, "--total-steps", 488), str(checkpoint))
    refused_or_fine = cli("evaluate", own_run, "--checkpoint", "last", "--episodes", 1)
    assert refused_or_fine.code == (2 if name == "manifest.json" else 0)


def test_ten_million_keys_are_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    with path.open("w") as file:
        block = "".join(f'"{key}": 0, ' for key in range(100_000))
        file.write("{" + 100 * block + '"": 0}')
    tracemalloc.start()
    with pytest.raises(ValueError, match="more than the"):
        read_json(path)
    assert tracemalloc.get_traced_memory()[1] < 40 << 20
    tracemalloc.stop()


WRONG: dict[str, Any] = {
    "runner.json step": ("runner.json", "step", "x"),
    "runner.json lengths": ("runner.json", "lengths", [10**18] * 4),
    "runner.json negative lengths": ("runner.json", "lengths", [-1, 1, 1, 1]),
    "runner.json begun": ("runner.json", "begun", []),
    "runner.json recent": ("runner.json", "recent", 7),
    "runner.json seeds": ("runner.json", "seeds", None),
    "state.json steps": ("agent/state.json", "steps", {}),
    "state.json sampling": ("agent/state.json", "sampling", {"bit_generator": "X"}),
    "state.json exploration": ("agent/state.json", "exploration", 3),
    "replay heads": ("agent/replay/state.json", "head", [10**30] * 4),
    "replay negative heads": ("agent/replay/state.json", "head", [-5] * 4),
    "replay texts": ("agent/replay/state.json", "head", ["a"] * 4),
    "replay fresh": ("agent/replay/state.json", "fresh", [2] * 4),
    "replay rows": ("agent/replay/state.json", "rows", 10**12),
}


@pytest.mark.parametrize("kind", WRONG)
def test_values_that_nobody_wrote(own_run: Path, cli: Cli, kind: str) -> None:
    name, key, value = WRONG[kind]
    checkpoint = last(own_run)
    edit(checkpoint / name, lambda state: state | {key: value})
    sign(checkpoint)
    refused(cli("resume", own_run, "--total-steps", 488), "cannot be gone on from")


def test_an_optimizer_of_another_network(own_run: Path, cli: Cli) -> None:
    checkpoint = last(own_run)
    for name in ("7777.step", "x.step", "0.exp_avg"):
        header = {name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
        (checkpoint / "agent" / "optimizer.safetensors").write_bytes(safetensors(header, bytes(24)))
        sign(checkpoint)
        refused(cli("resume", own_run, "--total-steps", 488), "optimizer.safetensors")


def test_compressed_items_that_lie(tmp_path: Path) -> None:
    items = CompressedItems(4, (100,), np.uint8)
    items.put(np.arange(3), np.arange(300, dtype=np.uint8).reshape(3, 100))
    items.save(tmp_path / "good.npy", 0, 3)
    items.load(tmp_path / "good.npy", 0, 3)
    good = load_array(tmp_path / "good.npy", np.uint8, (None,)).tobytes()
    lengths, rest = np.frombuffer(good[:12], "<i4"), good[12:]
    bomb = CompressedItems(1, (10_000_000,), np.uint8).held[0]  # 40 kB that become 10 MB
    larger = CompressedItems(1, (101,), np.uint8).held[0]
    smaller = CompressedItems(1, (99,), np.uint8).held[0]
    for lies, data in (
        ([*lengths[:2], lengths[2] + 1], rest),
        ([*lengths[:2], -1], rest),
        ([2**31 - 1] * 3, rest),
        (lengths, rest[:-1]),
        (lengths, rest + b"x"),
        (lengths, bytes(len(rest))),
        *(([len(item), 0, 0], item) for item in (bomb, larger, smaller)),
    ):
        whole = np.array(lies, "<i4").tobytes() + data
        np.save(tmp_path / "bad.npy", np.frombuffer(whole, np.uint8))
        with pytest.raises(ValueError, match=r"bad\.npy"):
            items.load(tmp_path / "bad.npy", 0, 3)


# --- names that lead elsewhere ----------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../step-1/runner.json",
        "/etc/passwd",
        "agent/../../x",
        "agent//x",
        "./runner.json",
        "agent\\x",
        "x\0y",
        "",
        ".",
        "agent/",
    ],
)
def test_a_manifest_names_only_what_is_in_its_folder(own_run: Path, cli: Cli, name: str) -> None:
    checkpoint = last(own_run)
    entry = {"size": 0, "sha256": "0" * 64}
    edit(checkpoint / "manifest.json", lambda value: value["files"].update({name: entry}))
    refused(cli("evaluate", own_run, "--checkpoint", "last"), "damaged", "manifest.json names")


@pytest.mark.parametrize(
    "entry",
    [
        None,
        7,
        [],
        {},
        {"size": "3", "sha256": "0" * 64},
        {"size": 3},
        {"size": True, "sha256": "0" * 64},
        {"size": 3, "sha256": "0" * 63},
        {"size": 3, "sha256": 5},
        {"size": 10**30, "sha256": "0" * 64},
        {"size": -1, "sha256": "0" * 64},
    ],
)
def test_a_manifest_says_what_its_files_are(own_run: Path, cli: Cli, entry: Any) -> None:
    checkpoint = last(own_run)
    edit(checkpoint / "manifest.json", lambda value: value["files"].update({"runner.json": entry}))
    refused(cli("evaluate", own_run, "--checkpoint", "last"), "damaged", "runner.json")


def test_a_file_that_the_manifest_does_not_name_is_not_read(own_run: Path, cli: Cli) -> None:
    checkpoint = last(own_run)

    def leave_out(manifest: Any) -> None:
        del manifest["files"]["agent/state.json"]

    edit(checkpoint / "manifest.json", leave_out)
    what = "agent/state.json is not in manifest"
    refused(cli("evaluate", own_run, "--checkpoint", "last"), what)
    resumed = cli("resume", own_run, "--total-steps", 488)  # from the one before
    assert resumed.code == 0
    assert what in resumed.err


def test_a_file_manager_may_leave_its_own_behind(own_run: Path, cli: Cli) -> None:
    (last(own_run) / ".DS_Store").write_bytes(b"x")
    assert cli("evaluate", own_run, "--checkpoint", "last", "--episodes", 1).code == 0


@pytest.mark.parametrize("what", ["file", "folder", "checkpoint"])
def test_links_are_not_followed(own_run: Path, tmp_path: Path, cli: Cli, what: str) -> None:
    checkpoint = last(own_run)
    victim = {
        "file": checkpoint / NETWORK,
        "folder": checkpoint / "agent",
        "checkpoint": checkpoint,
    }[what]
    outside = victim.rename(tmp_path / "outside")
    victim.symlink_to(outside)
    refused(cli("evaluate", own_run, "--checkpoint", "last"), "damaged", "is a link")


@pytest.mark.parametrize("name", ["config.json", "run.log", "episodes.csv", "videos", "actions/x"])
@pytest.mark.parametrize("verb", ["resume", "evaluate", "record", "report"])
def test_nothing_is_written_through_links(
    own_run: Path, tmp_path: Path, cli: Cli, name: str, verb: str
) -> None:
    outside = tmp_path / "outside"
    if (own_run / name).exists():
        (own_run / name).rename(outside)
    else:
        outside.write_text("somebody's")
    (own_run / name).symlink_to(outside)
    before = outside.read_bytes() if outside.is_file() else sorted(outside.iterdir())
    options = ["--output", str(tmp_path / "report.html")] if verb == "report" else []
    refused(cli(verb, own_run, *options), str(own_run / name), "leads out of the run's folder")
    after = outside.read_bytes() if outside.is_file() else sorted(outside.iterdir())
    assert after == before


def test_a_run_and_its_runs_folder_may_be_links(own_run: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "link").symlink_to(own_run)
    (own_run / "notes").symlink_to("config.json")
    assert cli("evaluate", tmp_path / "link", "--episodes", 1).code == 0


def test_a_pipe_in_place_of_a_file_is_not_waited_for(own_run: Path, cli: Cli) -> None:
    for name in (NETWORK, "manifest.json"):
        run = Path(shutil.copytree(own_run, own_run.with_name(name[:5])))
        path = last(run) / name
        path.unlink()
        os.mkfifo(path)
        refused(cli("evaluate", run, "--checkpoint", "last"), "damaged")
    (own_run / "config.json").unlink()
    os.mkfifo(own_run / "config.json")
    assert cli("evaluate", own_run).code == 2


@pytest.mark.parametrize("name", ["../elsewhere", "/tmp", "step-1/../../elsewhere", "agent", 3, ""])
def test_the_index_names_only_checkpoints(
    own_run: Path, tmp_path: Path, cli: Cli, name: Any
) -> None:
    shutil.copytree(last(own_run), own_run / "elsewhere")
    (own_run / "checkpoints" / "index.json").write_text(json.dumps({"best": name, "last": name}))
    result = json.loads(cli("evaluate", own_run, "--episodes", 1, "--json").out)
    assert result["checkpoint"] == "step-480"  # the newest, as if there were no index
    refused(cli("evaluate", own_run, "--checkpoint", "1/../../../elsewhere"), "no checkpoint")


def test_a_manifest_of_another_step_is_refused(own_run: Path, cli: Cli) -> None:
    edit(last(own_run) / "manifest.json", lambda value: value | {"step": 10**9})
    refused(cli("evaluate", own_run, "--checkpoint", "last"), "damaged", "1000000000")


def test_a_damaged_checkpoint_asked_for_by_name_is_never_replaced(own_run: Path, cli: Cli) -> None:
    checkpoint = last(own_run)
    (checkpoint / NETWORK).write_bytes(b"x")
    for which in ("last", checkpoint.name.removeprefix("step-")):
        refused(cli("evaluate", own_run, "--checkpoint", which), checkpoint.name, "damaged")
        refused(cli("record", own_run, "--checkpoint", which), checkpoint.name, "damaged")
        with pytest.raises(UsageError, match="damaged"):
            rlagents.load_agent(own_run, which)
    resumed = cli("resume", own_run, "--total-steps", 488)  # whoever goes on takes the one before
    assert resumed.code == 0
    assert f"{checkpoint} is damaged" in resumed.err


# --- a run's own files ----------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("observation_space", {"kind": "box", "shape": [1 << 20, 1 << 20], "dtype": "float32"}),
        ("observation_space", {"kind": "box", "shape": [4], "dtype": "O"}),
        ("observation_space", {"kind": "box", "shape": "4", "dtype": "float32"}),
        ("observation_space", {"kind": "frame-stack", "shape": [4, 84], "dtype": "uint8"}),
        ("observation_space", {"kind": "?", "shape": [4], "dtype": "float32"}),
        ("observation_space", {}),
        ("observation_space", []),
        ("action_space", {"kind": "discrete", "n": 10**12}),
        ("action_space", {"kind": "discrete", "n": "2"}),
        ("action_space", {"kind": "discrete", "n": -1}),
        ("threads", 10**9),
        ("threads", "2"),
        ("threads", 0),
        ("versions", 3),
        ("config", "x"),
        ("config", {}),
        ("reproducible", "yes"),
    ],
)
def test_a_run_that_describes_what_cannot_be(own_run: Path, cli: Cli, key: str, value: Any) -> None:
    edit(own_run / "config.json", lambda manifest: manifest | {key: value})
    refused(cli("evaluate", own_run))


def test_a_network_larger_than_its_weights_is_not_made(own_run: Path, cli: Cli) -> None:
    def widen(manifest: Any) -> None:
        manifest["config"]["network"]["hidden_sizes"] = [65_536] * 16  # 258 GB

    edit(own_run / "config.json", widen)
    refused(cli("evaluate", own_run), "too short for the network")


def test_spaces_come_back() -> None:
    for space in ({"kind": "box", "shape": [3, 2], "dtype": "int8"}, {"kind": "discrete", "n": 4}):
        assert rebuild_space(space) is not None


@pytest.mark.parametrize("kind", JSONS)
def test_a_runs_json_that_lies(own_run: Path, cli: Cli, kind: str) -> None:
    for name in ("status.json", "config.json"):
        (own_run / name).write_bytes(JSONS[kind].encode("utf-8", "surrogateescape"))
        refused(cli("resume", own_run, "--total-steps", 488), name)


@pytest.mark.parametrize(
    "row",
    [
        "0,0,999999999999999999,1",
        "0,999999999999999999,1,1",
        "0,0,5,9",
        "0,0,5,0",
    ],
)
def test_actions_that_are_not_there(own_run: Path, row: str) -> None:
    (own_run / "actions" / "index.csv").write_text(f"episode,offset,length,itemsize\n{row}\n")
    size = (own_run / "actions" / "actions.bin").stat().st_size
    log = ActionLog(RunFolder(own_run))
    with pytest.raises(UsageError, match="damaged"):
        log.read(0)
    log.cut(1)
    assert (own_run / "actions" / "actions.bin").stat().st_size <= size  # never longer


@pytest.mark.parametrize("row", ["-1,0,5,1", "0,0,5", "0,0,5,1,1", "a,b,c,d", "9" * 5_000])
def test_rows_of_actions_that_are_none(own_run: Path, row: str) -> None:
    (own_run / "actions" / "index.csv").write_text(f"episode,offset,length,itemsize\n{row}\n")
    with pytest.raises(UsageError, match="none yet"):
        ActionLog(RunFolder(own_run)).read(0)


@pytest.mark.parametrize("name", ["episodes.csv", "evaluations.csv", "metrics.jsonl"])
@pytest.mark.parametrize(
    "text", ["\0\xff,,\n", "step\n" + "9" * 9_999 + "\n", '{"step": {}}\n', "[" * 99_999]
)
def test_logs_that_lie_are_no_traceback(own_run: Path, cli: Cli, name: str, text: str) -> None:
    (own_run / name).write_bytes(text.encode("latin-1"))
    assert cli("resume", own_run, "--total-steps", 488).code in (0, 2)


# --- configs ----------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 60_000,
        "a = " + "{a = " * 10_000,
        "[" + "a." * 10_000 + "a]\n",
        "seed = " + "9" * 60_000,
        "seed = 1e99999",
        "\0",
        "seed = nan",
        "[env]\nid = " + '"' + "x" * 50_000 + '"',
        "[agent]\nname = " + '"' + "x" * 50_000 + '"',
        "[env]\nid = 'cartpole'\n" + "x" * 50_000 + " = 1",
        "[env]\nid = 'cartpole'\nnum_envs = " + '"' + "x" * 50_000 + '"',
        "[env]\nid = 'cartpole'\n[replay]\nkind = " + '"' + "x" * 50_000 + '"',
        "\n".join(f"a{number} = 1" for number in range(5_000)),
    ],
    ids=lambda text: text[:20],
)
def test_a_config_that_lies(tmp_path: Path, cli: Cli, text: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    outcome = cli("train", tmp_path / "config.toml", "--runs-dir", tmp_path / "runs")
    assert outcome.code == 2
    assert len(outcome.err) < 5_000
    assert not (tmp_path / "runs").exists()


def test_a_config_of_ten_million_keys_is_not_parsed(tmp_path: Path) -> None:
    with (tmp_path / "config.toml").open("w") as file:
        block = "".join(f"a{key} = 0\n" for key in range(100_000))
        for number in range(100):
            file.write(f"[{number}]\n{block}")
    tracemalloc.start()
    with pytest.raises(UsageError, match=r"more than the 65,536 bytes"):
        read_config(tmp_path / "config.toml")
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


def test_a_tensor_file_of_a_long_header_is_not_parsed(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(safetensors(b'{"a":' * 1_000_000))
    with pytest.raises(ValueError, match="a header of 5,000,000 bytes"):
        storage.load_tensors(tmp_path / "x.safetensors")
