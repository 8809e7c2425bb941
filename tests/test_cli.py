"""The commands, called in this process: what they print, return and leave behind."""

from __future__ import annotations

import csv
import json
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

import rlagents
from rlagents import machine
from rlagents.checkpoint import CheckpointStore
from rlagents.config import RunConfig, builtin_configs, options, read_config
from rlagents.evaluate import Evaluation
from rlagents.run import ActionLog, RunFolder

Cli = Callable[..., Any]
VERBS = (
    *("train", "resume", "evaluate", "record", "watch", "compare", "report", "list", "doctor"),
)
EVALUATION_KEYS = [
    "run",
    "checkpoint",
    "step",
    "env_id",
    "seed",
    "epsilon",
    "episodes",
    "mean_return",
    "std_return",
    "iqm_return",
    "iqm_ci95",
    "min_return",
    "max_return",
    "mean_length",
    "returns",
    "lengths",
]


def squeezed(text: str) -> str:
    return " ".join(text.split())


# --- help ----------------------------------------


def test_help_names_every_command(cli: Cli) -> None:
    outcome = cli("--help")
    assert outcome.code == 0
    for verb in VERBS:
        assert re.search(rf"^\s+{verb}\b", outcome.out, re.MULTILINE)


def test_no_words_at_all_show_the_help(cli: Cli) -> None:
    assert cli() == cli("--help")


def test_version(cli: Cli) -> None:
    outcome = cli("--version")
    assert outcome.code == 0
    assert re.fullmatch(r"rlagents \d+\.\d+\.\d+\n", outcome.out)


@pytest.mark.parametrize(
    ("verb", "texts"),
    [
        ("resume", ["RUN", "--runs-dir", "default: runs", "--total-steps", "1 or more"]),
        (
            "evaluate",
            [
                *("--episodes", "1 or more", "the config's number", "--checkpoint"),
                *("best|last|STEP", "the best, else the last", "--seed", "0 or more", "--json"),
                "--pretrained",
            ],
        ),
        (
            "record",
            [
                *("--episodes", "default: 1", "--checkpoint", "--training-episode", "--output"),
                *("0 or more", "in the run's videos folder", "--seed", "default: runs"),
                *("--pretrained", "a new name in the current folder"),
            ],
        ),
        (
            "compare",
            [
                *("RUN", "--runs-dir", "default: runs", "--output", ".svg", ".pdf", "--json"),
                *("--x {steps,time}", "default: steps", "--what {training,evaluation}"),
                *("default: training", "--statistic {mean,iqm}", "default: mean"),
            ],
        ),
        (
            "report",
            [
                *("RUN", "--runs-dir", "default: runs", "--output FILE.html", "--video ID|none"),
                *("at most 25 MB", "default: the newest of the best evaluation"),
            ],
        ),
        (
            "watch",
            [
                *("RUNS_DIR", "default: runs", "--port", "0 to 65535", "8420", "--host"),
                *("127.0.0.1", "--token", "16 to 200", "--open", "--no-open", "--allow-import"),
            ],
        ),
        ("list", ["envs", "agents", "configs", "pretrained", "--json"]),
        ("doctor", ["--help"]),
    ],
)
def test_help_of_a_command_names_options_defaults_and_bounds(
    cli: Cli, verb: str, texts: list[str]
) -> None:
    outcome = cli(verb, "--help")
    assert outcome.code == 0
    assert outcome.err == ""
    for text in texts:
        assert text in squeezed(outcome.out), text


def test_help_of_train_names_every_key_with_default_and_bounds(cli: Cli) -> None:
    outcome = cli("train", "--help")
    assert outcome.code == 0
    text = squeezed(outcome.out)
    for agent in ("dqn", "ppo", "reinforce"):
        for option in options(RunConfig.for_agent(agent)):
            if option.name in ("network", "replay"):
                continue
            assert option.flag in text
            assert f"{option.help} [{option.takes}; default: " in text, option.name
    for name in builtin_configs():
        assert name in text
    assert "--runs-dir DIR the runs folder (default: runs)" in text
    assert "CONFIG-sSEED-TIMESTAMP" in text


def test_help_of_train_shows_a_recipes_own_values(cli: Cli) -> None:
    tables, _ = read_config("pong-dqn")
    text = squeezed(cli("train", "pong-dqn", "--help").out)
    rate = json.dumps(tables["agent"]["learning_rate"])
    assert re.search(rf"--agent\.learning-rate [^\[]*\[[^\]]*default: {re.escape(rate)}\]", text)
    assert "--agent.episodes-per-update" not in text  # that is another agent's
    assert "--replay.capacity" not in cli("train", "cartpole-reinforce", "--help").out


def test_help_of_train_takes_no_options_value_for_the_config(cli: Cli) -> None:
    words = ("--name", "foo", "--runs-dir", "bar", "--seed", "3")
    help_of_the_recipe = cli("train", "cartpole-dqn", "--help")
    assert cli("train", *words, "cartpole-dqn", "--help") == help_of_the_recipe
    assert cli("train", "cartpole-dqn", *words, "--help") == help_of_the_recipe
    assert cli("train", *words, "--help") == cli("train", "--help")


def test_help_of_train_says_who_decides_where_a_key_is_left_out(cli: Cli) -> None:
    text = squeezed(cli("train", "--help").out)
    found = set()
    for option in options(RunConfig.for_agent("dqn")):
        if option.default is None and "." in option.name:
            by_table = {"env": ", as the environment says", "network": ", as the torso says"}
            shown = "none" + by_table.get(option.name.partition(".")[0], "")
            assert f"{option.help} [{option.takes}; default: {shown}]" in text, option.name
            found.add(option.name)
    assert {"env.frame_skip", "network.hidden_sizes", "agent.target_tau"} <= found


@pytest.mark.parametrize("text", ["[env]\nid = 'cartpole'\n", "[agent]\n", ""])
def test_help_of_train_for_a_file_without_an_agent(cli: Cli, tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    outcome = cli("train", tmp_path / "mine.toml", "--help")
    assert outcome.code == 0
    assert "--agent.learning-rate" in outcome.out


@pytest.mark.parametrize("text", ["agent = 3\n", "env = 3\n[agent]\nname = 'dqn'\n"])
def test_help_of_train_for_a_broken_file_is_no_crash(cli: Cli, tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    assert cli("train", tmp_path / "mine.toml", "--help").code in (0, 2)


def test_nothing_imports_torch_before_it_is_needed() -> None:
    program = (
        "import sys\n"
        "import rlagents\n"
        "assert 'torch' not in sys.modules\n"
        "from rlagents.cli import main\n"
        "for words in (['--help'], ['evaluate', '--help'], ['--version']):\n"
        "    try:\n"
        "        main(words)\n"
        "    except SystemExit as end:\n"
        "        assert not end.code\n"
        "for heavy in ('torch', 'gymnasium', 'cv2', 'pydantic', 'tensorboard'):\n"
        "    assert heavy not in sys.modules, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_the_module_is_the_same_program() -> None:
    command = [sys.executable, "-m", "rlagents"]
    done = subprocess.run([*command, "list", "agents"], check=True, capture_output=True, text=True)
    assert done.stdout.split()[0] == "dqn"
    failed = subprocess.run([*command, "trian"], check=False, capture_output=True, text=True)
    assert failed.returncode == 2
    assert failed.stdout == ""
    assert "Traceback" not in failed.stderr


# --- list and doctor ----------------------------------------


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("envs", ["cartpole", "pong", "atari/breakout", "atari/space_invaders"]),
        ("agents", ["dqn", "ppo", "reinforce"]),
        (
            "configs",
            [
                *("atari-dqn-2015", "cartpole-dqn", "cartpole-ppo", "cartpole-reinforce"),
                *("pong-dqn", "pong-ppo", "pong-reinforce"),
            ],
        ),
    ],
)
def test_list(cli: Cli, what: str, names: list[str]) -> None:
    plain = cli("list", what)
    assert plain.code == 0
    first_column = [line.split()[0] for line in plain.out.splitlines()]
    assert set(names) <= set(first_column)
    outcome = cli("list", what, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    rows = json.loads(outcome.out)
    assert [row["name"] for row in rows] == first_column
    for row in rows:
        assert set(row) == {"name", "description"}
        assert row["description"]
        assert isinstance(row["description"], str)


def test_doctor(cli: Cli) -> None:
    outcome = cli("doctor")
    assert outcome.code == 0
    for check in ("encoder", "games", "device", "disk"):
        assert check in outcome.out
    assert "FAIL" not in outcome.out


@pytest.mark.parametrize(("cores", "shared"), [(1, 1), (2, 1), (8, 4)])
def test_doctor_explains_what_is_chosen(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, cores: int, shared: int
) -> None:
    for module in ("machine", "doctor"):
        monkeypatch.setattr(f"rlagents.{module}.num_cores", lambda: cores)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for fast, precision in (
        (True, "bfloat16"),
        (False, "float32"),
    ):
        monkeypatch.setattr(
            "torch.cpu.get_capabilities", lambda fast=fast: {"avx512_bf16": fast}, raising=False
        )
        out = cli("doctor").out
        assert f"{cores} cores; networks are computed with {cores} thread(s) for pictures" in out
        assert f"{shared} for each of two where [agent] pipelined = true" in out
        assert f'"auto" means {precision} for convolutions: the processor' in out


def test_doctor_says_what_is_broken(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("no encoder here")

    monkeypatch.setattr("rlagents.video.VideoWriter.add", broken)
    outcome = cli("doctor")
    assert outcome.code == 1
    assert re.search(r"FAIL\s+video encoder.*no encoder here", outcome.out)
    assert "ok    disk" in outcome.out


# --- wrong usage ----------------------------------------


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["trian"], ["trian", "train"]),
        (["train"], ["CONFIG"]),
        (["evaluate"], ["RUN"]),
        (["list", "env"], ["envs", "configs"]),
        (["train", "pong-dqm"], ["pong-dqm", "did you mean 'pong-dqn'"]),
        (["train", "cartpole-dqn", "--learning-rate", "1"], ["did you mean --agent.learning-rate"]),
        (["train", "cartpole-dqn", "--learning_rate", "1"], ["did you mean --agent.learning-rate"]),
        (["train", "cartpole-dqn", "--capacity=5"], ["did you mean --replay.capacity"]),
        (["train", "cartpole-dqn", "--total-step", "5"], ["did you mean --total-steps"]),
        (["train", "cartpole-dqn", "--agent.gama", "1"], ["--agent.gama", "--agent.gamma?"]),
        (["train", "cartpole-dqn", "--run-dir", "x"], ["did you mean --runs-dir"]),
        (["train", "cartpole-dqn", "--total-steps"], ["--total-steps", "value"]),
        (["train", "cartpole-dqn", "--agent.gamma", "--seed", "1"], ["--agent.gamma", "value"]),
        (["train", "cartpole-dqn", "another"], ["another"]),
        (["train", "cartpole-dqn", "--seed", "-1"], ["--seed", "0 or more", "-1"]),
        (["train", "cartpole-dqn", "--agent.gamma", "2"], ["--agent.gamma", "at most 1", "got 2"]),
        (["train", "cartpole-dqn", "--env.id", "cartpoel"], ["cartpoel", "did you mean 'cartpole"]),
        (["train", "cartpole-dqn", "--env.id", "atari/pongg"], ["pongg", "did you mean 'pong'"]),
        (["train", "cartpole-dqn", "--env.id", "no/file.py:make"], ["no/file.py", "make"]),
        (["train", "cartpole-dqn", "--env.id", "no_module:Id-v0"], ["no_module"]),
        (["train", "cartpole-dqn", "--env.noop-max", "3"], ["noop_max", "cartpole"]),
        (["train", "cartpole-dqn", "--agent.name", "dqm"], ["dqm", "did you mean 'dqn'"]),
        (["train", "cartpole-dqn", "--name", "a/b"], ["--name", "a/b"]),
        (["train", "cartpole-dqn", "--name", ""], ["--name"]),
        (["train", "cartpole-dqn", "--env.id", "Pendulum-v1"], ["action space", "Box"]),
        (["train", "cartpole-reinforce", "--env.id", "Pendulum-v1"], ["action space", "Box"]),
        (["train", "cartpole-dqn", "--network.torso", "nature-cnn"], ["torso"]),
    ],
)
def test_wrong_usage_of_train_writes_nothing(
    cli: Cli, tmp_path: Path, words: list[str], texts: list[str]
) -> None:
    more = ["--runs-dir", str(tmp_path / "runs")] if words[0] == "train" and words[1:] else []
    outcome = cli(*words, *more)
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    for text in texts:
        assert text in outcome.err, text
    assert not (tmp_path / "runs").exists()
    assert len(outcome.err.splitlines()) == 1
    assert "  " not in outcome.err.strip()
    assert " See:" not in outcome.err or re.search(r"[.?] See:", outcome.err)


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["evaluate", "RUN", "--episode", "3"], ["--episode", "--episodes"]),
        (["evaluate", "RUN", "--episodes", "0"], ["--episodes", "1 or more", "'0'"]),
        (["evaluate", "RUN", "--episodes", "many"], ["--episodes", "1 or more", "'many'"]),
        (["evaluate", "RUN", "--seed", "-3"], ["--seed"]),
        (["evaluate", "RUN", "--checkpoint", "99"], ["--checkpoint", "99", "best", "last", "480"]),
        (["evaluate", "RUN", "--checkpoint", "bets"], ["bets", "best"]),
        (["evaluate", "RUN", "--checkpoint", "../../tiny"], ["--checkpoint"]),
        (["record", "RUN", "--checkpoint", "99"], ["--checkpoint", "99", "480"]),
        (["record", "RUN", "--output", "film.avi"], ["--output", ".mp4", "film.avi"]),
        (["record", "RUN", "--training-episode", "-1"], ["--training-episode"]),
        (["record", "RUN", "--training-episode", "100000"], ["100000", "0 to "]),
        (["record", "RUN", "--training-episode", "0", "--seed", "3"], ["--seed"]),
        (["record", "RUN", "--training-episode", "0", "--episodes", "3"], ["--episodes"]),
        (["record", "RUN", "--training-episode", "0", "--checkpoint", "last"], ["--checkpoint"]),
        (["resume", "RUN"], ["finished", "480", "--total-steps"]),
        (["resume", "RUN", "--total-steps", "100"], ["--total-steps", "480 or more", "100"]),
        (["resume", "RUN", "--total-steps", "480"], ["finished", "480", "--total-steps"]),
        (["resume", "RUN", "--total-steps", "0"], ["--total-steps", "1 or more"]),
        (["resume", "RUN", "--agent.gamma", "0.5"], ["--agent.gamma"]),
    ],
)
def test_wrong_usage_of_a_run_changes_nothing(
    cli: Cli, own_run: Path, words: list[str], texts: list[str]
) -> None:
    before = snapshot(own_run)
    outcome = cli(*[str(own_run) if word == "RUN" else word for word in words])
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    for text in texts:
        assert text in outcome.err, text
    assert snapshot(own_run) == before


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("verb", ["evaluate", "record", "resume"])
def test_something_that_is_not_a_run(cli: Cli, verb: str, own_run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    outcome = cli(verb, tmp_path / "empty")
    assert outcome.code == 2
    assert "not a run" in outcome.err
    outcome = cli(verb, "onw", "--runs-dir", own_run.parent)
    assert outcome.code == 2
    assert "did you mean 'own'?" in outcome.err
    assert str(own_run.parent) in outcome.err
    outcome = cli(verb, tmp_path / "nowhere")
    assert outcome.code == 2
    for text in ("{}", "not json", "[]", '{"format": 99}'):
        (tmp_path / "empty" / "config.json").write_text(text)
        outcome = cli(verb, tmp_path / "empty")
        assert outcome.code == 2
        assert "config.json" in outcome.err


@pytest.mark.parametrize("verb", ["evaluate", "record", "resume"])
def test_a_run_that_has_no_checkpoint_yet(cli: Cli, verb: str, own_run: Path) -> None:
    for path in sorted((own_run / "checkpoints").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    outcome = cli(verb, own_run)
    assert outcome.code == 2
    assert "none yet" in outcome.err


@pytest.mark.parametrize("verb", ["evaluate", "record"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "manifest"])
def test_a_damaged_checkpoint_is_named(cli: Cli, own_run: Path, verb: str, damage: str) -> None:
    checkpoint = own_run / "checkpoints" / "step-480"
    victim = checkpoint / "agent" / "network.safetensors"
    data = victim.read_bytes()
    if damage == "flip":
        victim.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    elif damage == "cut":
        victim.write_bytes(data[:-1])
    elif damage == "remove":
        victim.unlink()
    else:
        victim = checkpoint / "manifest.json"
        victim.write_text(victim.read_text()[:-20])
    before = snapshot(own_run)
    outcome = cli(verb, own_run, "--checkpoint", "480")
    assert outcome.code in (1, 2)
    assert outcome.out == ""
    assert str(checkpoint) in outcome.err
    assert "damaged" in outcome.err
    if damage != "manifest":
        assert "network.safetensors" in outcome.err
    # The remedy must be one that this command knows.
    for option in set(re.findall(r"--[a-z-]+", outcome.err)):
        assert option in cli(verb, "--help").out, option
    assert snapshot(own_run) == before


def test_resume_takes_the_newest_intact_checkpoint(cli: Cli, own_run: Path) -> None:
    checkpoints = own_run / "checkpoints"
    (checkpoints / "step-480" / "agent" / "network.safetensors").write_bytes(b"")
    older = max(
        int(path.name.removeprefix("step-"))
        for path in checkpoints.glob("step-*")
        if path.name != "step-480"
    )
    outcome = cli("resume", own_run, "--total-steps", "488")
    assert outcome.code == 0, outcome.err
    assert f"warning: The checkpoint {checkpoints / 'step-480'} is damaged" in outcome.err
    assert f"resuming at step {older}" in outcome.err
    assert json.loads((own_run / "status.json").read_text())["state"] == "finished"


@pytest.mark.parametrize("verb", ["evaluate", "record", "resume"])
def test_a_damaged_index_of_checkpoints(cli: Cli, own_run: Path, verb: str) -> None:
    index = own_run / "checkpoints" / "index.json"
    for text in ("", "{", "[]", '{"last": 3}', '{"last": "step-77", "best": "step-77"}'):
        index.write_text(text)
        if verb == "resume":  # it is found, and finished
            assert "has done 480 of 480" in cli(verb, own_run).err, text
        else:
            assert cli(verb, own_run, "--episodes", "1").code == 0, text
            outcome = cli(verb, own_run, "--checkpoint", "best")
            assert outcome.code == 2
            assert "no checkpoint 'best'; there are: last" in outcome.err


@pytest.mark.parametrize("verb", ["evaluate", "record", "resume"])
def test_a_manifest_of_a_run_that_lost_a_key(cli: Cli, own_run: Path, verb: str) -> None:
    path = own_run / "config.json"
    whole = json.loads(path.read_text())
    for key in ("config", "threads", "reproducible", "versions"):
        path.write_text(json.dumps({name: value for name, value in whole.items() if name != key}))
        more = ["--total-steps", "488"] if verb == "resume" else ["--episodes", "1"]
        outcome = cli(verb, own_run, *more)  # a crash would fail here
        assert outcome.code in (0, 1, 2)


@pytest.mark.parametrize("below", ["", "runs"])
def test_a_runs_folder_that_cannot_be_written(
    cli: Cli, tiny: tuple[str, ...], tmp_path: Path, below: str
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    outcome = cli("train", "cartpole-dqn", *tiny, "--runs-dir", file / below)
    assert outcome.code == 2
    assert outcome.out == ""
    assert "--runs-dir" in outcome.err
    assert str(file) in outcome.err
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]


def test_a_name_that_is_taken(cli: Cli, tiny: tuple[str, ...], own_run: Path) -> None:
    before = snapshot(own_run)
    more = ("--runs-dir", own_run.parent, "--name", "own")
    outcome = cli("train", "cartpole-dqn", *tiny, *more)
    assert outcome.code == 2
    assert outcome.out == ""
    assert "--name" in outcome.err
    assert f"rlagents resume {own_run}" in outcome.err
    assert snapshot(own_run) == before


def test_no_gpu(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    runs = tmp_path / "runs"
    outcome = cli("train", "cartpole-dqn", "--device", "cuda", "--runs-dir", runs)
    assert outcome.code == 2
    assert "--device" in outcome.err
    assert "cpu" in outcome.err
    assert not runs.exists()


def test_replay_that_cannot_fit_into_memory(cli: Cli, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    outcome = cli("train", "pong-dqn", "--replay.capacity", "1_000_000_000", "--runs-dir", runs)
    assert outcome.code == 2
    assert "capacity" in outcome.err
    assert "GB" in outcome.err
    found = re.search(r"--replay\.capacity to (\d+)", outcome.err)
    assert found is not None
    assert 0 < int(found[1]) < 1_000_000_000
    assert not runs.exists()


def test_a_rollout_that_cannot_fit_into_memory(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlagents.machine.available_memory", lambda: 10_000_000)
    options = ("--agent.rollout-steps", "40_000", "--runs-dir", tmp_path / "runs")
    outcome = cli("train", "cartpole-ppo", *options)
    assert outcome.code == 2
    assert "[agent] rollout_steps: stored experience would take" in outcome.err
    found = re.search(r"--agent\.rollout-steps to (\d+) or less", outcome.err)
    assert found is not None
    assert 0 < int(found[1]) < 40_000
    assert not (tmp_path / "runs").exists()


def test_resume_with_little_memory_warns(
    cli: Cli, own_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlagents.machine.available_memory", lambda: 1_000)
    outcome = cli("resume", own_run, "--total-steps", "488")
    assert outcome.code == 0, outcome.err
    assert "warning: [replay] capacity: stored experience would take" in outcome.err


def test_files_kept_in_memory_are_free_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    unlimited = machine.available_memory()
    assert unlimited > 20_000
    (tmp_path / "memory.max").write_text("20000\n")
    (tmp_path / "memory.current").write_text("19000\n")
    (tmp_path / "memory.stat").write_text(
        "anon 400\nfile 9000\ninactive_anon 7\ninactive_file 3000\nactive_file 500\nslab 3\n"
    )
    assert machine.available_memory() == 1_000 + 3_000 + 500
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.available_memory() > 20_000


def test_output_that_cannot_be_written(cli: Cli, tiny_run: Any, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for more in ([], ["--training-episode", "0"]):
        outcome = cli("record", tiny_run.directory, "--output", file / "film.mp4", *more)
        assert outcome.code in (1, 2)
        assert str(file) in outcome.err


@pytest.mark.parametrize("more", [[], ["--training-episode", "0"]])
def test_output_into_a_folder_that_takes_no_files(
    cli: Cli, tiny_run: Any, tmp_path: Path, more: list[str]
) -> None:
    (tmp_path / "folder.mp4").mkdir()
    for output in (Path("/proc/film.mp4"), tmp_path / "folder.mp4"):  # nobody may write in /proc
        outcome = cli("record", tiny_run.directory, "--output", output, *more)
        assert outcome.code == 2
        assert outcome.err.startswith(f"rlagents: --output: {output} ")
        assert len(outcome.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "folder.mp4"]
    assert not list((tmp_path / "folder.mp4").iterdir())


@pytest.mark.parametrize("torn", ["", "17,480,480", "17,480,480,0,5,20.0,20,terminated,1."])
def test_a_row_of_episodes_that_a_kill_cut_off(cli: Cli, own_run: Path, torn: str) -> None:
    file = own_run / "episodes.csv"
    *rows, last = file.read_text().splitlines(keepends=True)
    number = int(last.partition(",")[0])
    file.write_text("".join(rows) + torn)
    assert [row.episode for row in RunFolder(own_run).episodes()] == list(range(number))
    outcome = cli("record", own_run, "--training-episode", number)
    assert outcome.code == 2
    assert f"no row of episode {number}" in outcome.err


# --- train ----------------------------------------


def test_train_prints_the_run_first_and_last(tiny_run: Any) -> None:
    lines = tiny_run.outcome.out.splitlines()
    assert lines[0] == lines[-1] == f"run: {tiny_run.directory}"
    assert "480/480" in tiny_run.outcome.err


def test_a_runs_folder_holds_what_the_contract_says(tiny_run: Any) -> None:
    names = {path.name for path in tiny_run.directory.iterdir()}
    assert names == {
        *("config.json", "status.json", "episodes.csv", "actions", "evaluations.csv"),
        *("metrics.jsonl", "tensorboard", "videos", "checkpoints", "run.log"),
    }
    assert not [path for path in tiny_run.directory.rglob(".*") if path.is_file()]


def test_the_resolved_config_is_kept(tiny_run: Any) -> None:
    manifest = json.loads((tiny_run.directory / "config.json").read_text())
    config = manifest["config"]
    assert config["total_steps"] == 480
    assert config["env"]["frame_skip"] == 1
    assert config["device"] in ("cpu", "cuda")
    assert config["network"]["precision"] in ("float32", "bfloat16")
    assert manifest["threads"] >= 1
    assert manifest["reproducible"] is True
    assert {"python", "rlagents", "torch", "numpy", "gymnasium"} <= set(manifest["versions"])
    assert "git_commit" in manifest
    assert manifest["hardware"]["cores"] >= 1


def test_columns_and_rows_of_episodes(tiny_run: Any) -> None:
    with (tiny_run.directory / "episodes.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    expected = "episode,step,frames,env_index,seed,episodic_return,episodic_length,end,wall_time_s"
    assert ",".join(header) == expected
    episodes = list(RunFolder(tiny_run.directory).episodes())
    assert len(rows) == len(episodes) > 8
    assert [episode.episode for episode in episodes] == list(range(len(episodes)))
    assert len({episode.seed for episode in episodes}) == len(episodes)
    log = ActionLog(RunFolder(tiny_run.directory))
    for episode in episodes:
        assert episode.frames == episode.step
        assert episode.end == "terminated"
        assert episode.episodic_return == episode.episodic_length
        assert len(log.read(episode.episode)) == episode.episodic_length
        assert episode.env_index in range(4)
    steps = [episode.step for episode in episodes]
    assert steps == sorted(steps)
    for index in range(4):
        own = [episode for episode in episodes if episode.env_index == index]
        assert sum(episode.episodic_length for episode in own) <= 120
        assert own[-1].step == 4 * sum(episode.episodic_length for episode in own)


def test_columns_and_rows_of_evaluations(tiny_run: Any) -> None:
    with (tiny_run.directory / "evaluations.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = (
        "step,frames,episodes,mean_return,std_return,iqm_return,min_return,max_return,wall_time_s"
    )
    assert ",".join(rows[0]) == expected
    assert [int(row["step"]) for row in rows] == [200, 400, 480]
    for row in rows:
        low, mean, high = (float(row[k]) for k in ("min_return", "mean_return", "max_return"))
        assert low <= mean <= high
        assert low <= float(row["iqm_return"]) <= high
        assert int(row["episodes"]) == 3


def test_checkpoints_and_their_index(tiny_run: Any) -> None:
    folder = tiny_run.directory / "checkpoints"
    index = json.loads((folder / "index.json").read_text())
    assert set(index) == {"best", "last"}
    assert index["last"] == "step-480"
    names = {path.name for path in folder.iterdir()}
    assert {index["best"], index["last"], "index.json"} <= names
    with (tiny_run.directory / "evaluations.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    best = max(rows, key=lambda row: (float(row["mean_return"]), int(row["step"])))
    assert index["best"] == f"step-{best['step']}"


def test_status_after_the_end(tiny_run: Any) -> None:
    status = json.loads((tiny_run.directory / "status.json").read_text())
    assert status["state"] == "finished"
    assert status["step"] == 480
    assert isinstance(status["pid"], int)
    assert status["host"] == platform.node()
    assert isinstance(status["heartbeat"], float)


def test_videos_of_evaluations(tiny_run: Any) -> None:
    films = sorted((tiny_run.directory / "videos").glob("*.mp4"))
    assert len(films) == 3
    for film in films:
        found = re.fullmatch(r"step-(\d+)-episode-(\d+)-return-([\d.]+)\.mp4", film.name)
        assert found is not None
        about = json.loads(film.with_suffix(".json").read_text())
        assert about["step"] == int(found[1])
        assert about["episodic_return"] == float(found[3])
        check_film(film, about)


def check_film(film: Path, about: dict[str, Any]) -> None:
    arrays = [about[name] for name in ("frame", "action", "reward", "values", "terminated")]
    assert {len(array) for array in arrays} == {about["episodic_length"]}
    assert sum(about["reward"]) == about["episodic_return"]
    assert about["terminated"][-1] in (True, False)
    assert not any(about["terminated"][:-1])
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        frames = sum(1 for _ in container.decode(stream))
    assert frames == about["num_frames"]
    assert about["frame"] == sorted(about["frame"])
    assert about["frame"][-1] < frames


def test_the_default_name(
    cli: Cli, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    short = (*tiny, "--total-steps", "8", "--evaluation.period-steps", "0")
    names = []
    for _ in range(2):  # within one second, and yet two folders
        outcome = cli("train", "cartpole-dqn", "--seed=3", *short)
        assert outcome.code == 0
        names.append(outcome.out.splitlines()[0])
    assert names[0] != names[1]
    for name in names:
        assert re.fullmatch(r"run: runs/cartpole-dqn-s3-\d{8}-\d{6}(-\d+)?", name)
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_a_config_file_names_its_runs(cli: Cli, tiny: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "my-game.toml"
    path.write_text("[env]\nid = 'cartpole'\n[agent]\nname = 'dqn'\n")
    more = ("--total-steps", "8", "--evaluation.period-steps", "0", "--runs-dir", tmp_path / "r")
    outcome = cli("train", path, *tiny, *more)
    assert outcome.code == 0
    assert "my-game-s1-" in outcome.out


def test_underscores_are_hyphens_on_the_command_line(
    cli: Cli, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    more = ("--total_steps", "8", "--evaluation.period_steps", "0", "--runs-dir", tmp_path)
    outcome = cli("train", "cartpole-dqn", *tiny, *more, "--name", "a")
    assert outcome.code == 0, outcome.err
    assert rlagents.open_run(tmp_path / "a").config.total_steps == 8


def test_the_expected_memory_is_said_before_training(
    cli: Cli, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    more = ("--total-steps", "8", "--evaluation.period-steps", "0", "--runs-dir", tmp_path)
    outcome = cli("train", "cartpole-dqn", *tiny, *more, "--replay.capacity", "2_000_000")
    first = outcome.err.splitlines()[0]
    found = re.search(r"up to ([\d.]+) GB", first)
    assert found is not None
    assert 0.05 < float(found[1]) < 0.2


# --- evaluate ----------------------------------------


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_evaluate_as_json_has_null_for_what_is_no_number(
    cli: Cli, tiny_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Evaluation, "returns", property(lambda self: [1.0, float("inf")]))
    outcome = cli("evaluate", tiny_run.directory, "--episodes", "2", "--json")
    assert outcome.code == 0
    assert "Infinity" not in outcome.out
    assert "NaN" not in outcome.out
    result = json.loads(outcome.out)
    assert result["returns"] == [1.0, None]
    assert (result["min_return"], result["max_return"]) == (1.0, None)


def test_evaluate_as_json(cli: Cli, tiny_run: Any) -> None:
    outcome = cli("evaluate", tiny_run.directory, "--episodes", "7", "--json")
    assert outcome.code == 0
    result = json.loads(outcome.out)
    assert list(result) == EVALUATION_KEYS
    assert result["run"] == str(tiny_run.directory)
    assert result["env_id"] == "cartpole"
    assert result["seed"] == 1
    assert result["epsilon"] == 0
    assert result["episodes"] == len(result["returns"]) == len(result["lengths"]) == 7
    returns = np.array(result["returns"])
    assert result["mean_return"] == pytest.approx(returns.mean())
    assert result["std_return"] == pytest.approx(returns.std())
    assert result["iqm_return"] == pytest.approx(np.sort(returns)[1:6].mean())
    assert (result["min_return"], result["max_return"]) == (returns.min(), returns.max())
    assert result["mean_length"] == pytest.approx(np.mean(result["lengths"]))
    low, high = result["iqm_ci95"]
    assert low <= result["iqm_return"] <= high
    index = json.loads((tiny_run.directory / "checkpoints" / "index.json").read_text())
    assert result["checkpoint"] == index["best"]
    assert f"step-{result['step']}" == index["best"]


def test_evaluate_is_repeatable_and_follows_its_seed(cli: Cli, tiny_run: Any) -> None:
    first, again, other = (
        json.loads(cli("evaluate", tiny_run.directory, "--json", *more).out)
        for more in ([], [], ["--seed", "5"])
    )
    assert first == again
    assert first["episodes"] == 3  # the config's number
    assert other["seed"] == 5
    assert other["returns"] != first["returns"]


def test_evaluate_takes_the_checkpoint_it_is_told(cli: Cli, own_run: Path) -> None:
    last = json.loads(cli("evaluate", own_run, "--json", "--checkpoint", "last").out)
    number = json.loads(cli("evaluate", own_run, "--json", "--checkpoint", "480").out)
    assert last["checkpoint"] == "step-480"
    assert number == last
    (own_run / "checkpoints" / "index.json").write_text('{"last": "step-480"}')
    assert json.loads(cli("evaluate", own_run, "--json").out) == last  # no best: the last


def test_evaluate_finds_a_run_by_its_name(cli: Cli, tiny_run: Any) -> None:
    outcome = cli("evaluate", "tiny", "--runs-dir", tiny_run.directory.parent, "--episodes", "1")
    assert outcome.code == 0


def test_evaluate_for_people(cli: Cli, tiny_run: Any) -> None:
    outcome = cli("evaluate", tiny_run.directory, "--episodes", "5")
    result = json.loads(cli("evaluate", tiny_run.directory, "--episodes", "5", "--json").out)
    assert outcome.code == 0
    for text in (
        str(tiny_run.directory),
        result["checkpoint"],
        f"{result['mean_return']:.2f} ± {result['std_return']:.2f}",
        f"{result['iqm_return']:.2f}",
        f"{result['iqm_ci95'][0]:.2f}",
        f"{result['iqm_ci95'][1]:.2f}",
    ):
        assert text in outcome.out, text


def test_evaluation_seeds_never_chose_the_best_checkpoint(tiny_run: Any) -> None:
    run = rlagents.open_run(tiny_run.directory)
    played = {episode.seed for episode in run.evaluate(episodes=50).played}
    films = (tiny_run.directory / "videos").glob("step-*.json")
    chosen = {json.loads(film.read_text())["seed"] for film in films}
    trained = {episode.seed for episode in run.episodes()}
    assert len(played) == 50
    assert chosen
    assert not played & chosen
    assert not played & trained
    assert not chosen & trained


# --- record ----------------------------------------


def test_record_writes_the_episodes_that_evaluate_plays(cli: Cli, own_run: Path) -> None:
    before = set((own_run / "videos").iterdir())
    outcome = cli("record", own_run, "--episodes", "2", "--seed", "9")
    assert outcome.code == 0
    films = [Path(line) for line in outcome.out.splitlines()]
    assert len(films) == 2
    new = set((own_run / "videos").iterdir()) - before
    assert new >= {film.with_suffix(".json") for film in films}
    result = json.loads(cli("evaluate", own_run, "--episodes", "2", "--seed", "9", "--json").out)
    for film, expected in zip(films, result["returns"], strict=True):
        about = json.loads(film.with_suffix(".json").read_text())
        assert about["episodic_return"] == expected
        assert len(about["values"][0]) == 2
        assert about["action"] == [int(np.argmax(values)) for values in about["values"]]
        check_film(film, about)


@pytest.mark.parametrize("verb", ["evaluate", "record"])
def test_the_checkpoint_is_looked_up_once(
    cli: Cli, own_run: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    found: list[Any] = []
    find = CheckpointStore.find

    def watched(store: CheckpointStore, *words: Any, **options: Any) -> Any:
        found.append(find(store, *words, **options))
        return found[-1]

    monkeypatch.setattr(CheckpointStore, "find", watched)
    assert cli(verb, own_run, "--episodes", "1").code == 0
    assert len(found) == 1


def test_record_into_a_file(cli: Cli, tiny_run: Any, tmp_path: Path) -> None:
    film = tmp_path / "new" / "film.mp4"
    outcome = cli("record", tiny_run.directory, "--output", film)
    assert outcome.code == 0
    assert outcome.out == f"{film}\n"
    assert sorted(path.name for path in film.parent.iterdir()) == ["film.json", "film.mp4"]
    check_film(film, json.loads(film.with_suffix(".json").read_text()))


def test_record_several_into_numbered_files(cli: Cli, tiny_run: Any, tmp_path: Path) -> None:
    outcome = cli("record", tiny_run.directory, "--episodes", 2, "--output", tmp_path / "f.mp4")
    assert [Path(line).name for line in outcome.out.splitlines()] == ["f-0.mp4", "f-1.mp4"]


@pytest.mark.parametrize("which", ["first", "last"])
def test_record_an_episode_of_training(cli: Cli, tiny_run: Any, tmp_path: Path, which: str) -> None:
    episodes = list(RunFolder(tiny_run.directory).episodes())
    episode = episodes[0 if which == "first" else -1]
    film = tmp_path / "film.mp4"
    more = ("--training-episode", episode.episode, "--output", film)
    outcome = cli("record", tiny_run.directory, *more)
    assert outcome.code == 0, outcome.err
    about = json.loads(film.with_suffix(".json").read_text())
    assert about["seed"] == episode.seed
    assert about["episodic_return"] == episode.episodic_return
    assert about["episodic_length"] == episode.episodic_length
    played = ActionLog(RunFolder(tiny_run.directory)).read(episode.episode)
    assert about["action"] == played.tolist()
    check_film(film, about)


def test_an_episode_of_training_goes_into_the_videos_folder(cli: Cli, own_run: Path) -> None:
    outcome = cli("record", own_run, "--training-episode", "3")
    film = Path(outcome.out.strip())
    assert film.parent == own_run / "videos"
    assert "episode-3" in film.name


def test_an_episode_that_comes_out_otherwise_is_not_shown(cli: Cli, own_run: Path) -> None:
    actions = own_run / "actions" / "actions.bin"
    actions.write_bytes(bytes(len(actions.read_bytes())))  # to the left only: it falls at once
    longest = max(RunFolder(own_run).episodes(), key=lambda row: row.episodic_length)
    before = set((own_run / "videos").iterdir())
    outcome = cli("record", own_run, "--training-episode", longest.episode)
    assert outcome.code == 1
    assert "came out otherwise" in outcome.err
    assert set((own_run / "videos").iterdir()) == before


# --- resume ----------------------------------------


def test_resume_of_a_finished_run_names_the_way_on(cli: Cli, own_run: Path) -> None:
    outcome = cli("resume", own_run)
    assert outcome.code == 2
    assert outcome.out == ""
    assert re.search(rf"rlagents resume {re.escape(str(own_run))} --total-steps \d+", outcome.err)


@pytest.mark.parametrize("state", ["stopped", "failed", "running"])
def test_resume_with_fewer_steps_than_are_done_changes_nothing(
    cli: Cli, own_run: Path, state: str
) -> None:
    status = json.loads((own_run / "status.json").read_text())
    (own_run / "status.json").write_text(json.dumps(status | {"state": state}))
    before = snapshot(own_run)
    outcome = cli("resume", own_run, "--total-steps", "479")
    assert outcome.code == 2
    assert "--total-steps: expected 480 or more" in outcome.err
    assert snapshot(own_run) == before


def test_resume_with_more_steps_goes_on(cli: Cli, own_run: Path) -> None:
    outcome = cli("resume", own_run, "--total-steps", "560")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0] == lines[-1] == f"run: {own_run}"
    assert "exactly" in outcome.err
    assert "not exactly" not in outcome.err
    run = rlagents.open_run(own_run)
    assert run.config.total_steps == 560
    assert run.status()["step"] == 560
    assert run.checkpoint("last").step == 560


def test_a_run_that_reached_its_return_is_finished_until_more_steps_are_asked_for(
    cli: Cli, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    goal = ("--evaluation.stop-return", "1", "--total-steps", "2000")
    goal += ("--evaluation.stop-episodes", "1")
    outcome = cli("train", "cartpole-dqn", *tiny, *goal, "--runs-dir", tmp_path, "--name", "a")
    assert outcome.code == 0, outcome.err
    assert "enough to finish" in outcome.err
    run = rlagents.open_run(tmp_path / "a")
    reached = run.status()["step"]
    assert reached < 2000
    assert run.status()["state"] == "finished"
    outcome = cli("resume", tmp_path / "a")
    assert outcome.code == 2
    assert "stop_return = 1" in outcome.err
    assert f"rlagents resume {tmp_path / 'a'} --total-steps 2000" in outcome.err
    outcome = cli("resume", tmp_path / "a", "--total-steps", reached + 200)
    assert outcome.code == 0, outcome.err
    assert "not exactly" not in outcome.err
    assert "stop_return = 1 has been reached and no longer counts" in outcome.err
    assert run.status()["step"] == reached + 200


def test_stop_episodes_alone_are_refused(cli: Cli) -> None:
    outcome = cli("train", "atari-dqn-2015", "--evaluation.stop-episodes", "50")
    assert outcome.code == 2
    assert "[evaluation] stop_episodes: needs stop_return" in outcome.err


def test_a_return_that_was_not_reached_still_counts_when_more_steps_are_asked_for(
    cli: Cli, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    goal = ("--evaluation.stop-return", "1e6")
    outcome = cli("train", "cartpole-dqn", *tiny, *goal, "--runs-dir", tmp_path, "--name", "a")
    assert outcome.code == 0, outcome.err
    outcome = cli("resume", tmp_path / "a", "--total-steps", "488")
    assert outcome.code == 0, outcome.err
    assert "no longer counts" not in outcome.err
    config = rlagents.open_run(tmp_path / "a").config
    assert (config.total_steps, config.evaluation.stop_return) == (488, 1e6)


@pytest.mark.parametrize("number", ["600", "6e2", "6_00"])
def test_resume_reads_numbers_as_train_does(cli: Cli, own_run: Path, number: str) -> None:
    outcome = cli("resume", own_run, "--total-steps", number)
    assert outcome.code == 0, outcome.err
