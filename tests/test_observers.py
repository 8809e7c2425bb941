"""Observers: what they write, and that none of them can end a run that it may not end."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import rlagents
from rlagents.agents.base import Policy
from rlagents.checkpoint import CheckpointStore
from rlagents.config import CheckpointConfig, build_config, parse_option_values
from rlagents.errors import RunFailedError
from rlagents.evaluate import PlayedEpisode
from rlagents.events import (
    CheckpointDue,
    Clock,
    EpisodeEnded,
    Evaluated,
    Event,
    Logged,
    Progressed,
    RunEnded,
    RunStarted,
)
from rlagents.observers.checkpoints import CheckpointObserver
from rlagents.observers.console import ConsoleObserver
from rlagents.observers.files import FileObserver
from rlagents.observers.patience import Patience
from rlagents.observers.tensorboard import TensorBoardObserver
from rlagents.observers.video import VideoObserver
from rlagents.run import ActionLog, RunFolder
from rlagents.types import Episode, Outcome


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs", "a-run")


def episode_ended(number: int, step: int, length: int) -> EpisodeEnded:
    clock = Clock(step, 4 * step, step / 3)
    episode = Episode(
        number, step, 4 * step, 0, 1000 + number, -1.5, length, "truncated", clock.wall_time_s
    )
    return EpisodeEnded(clock, episode, np.arange(length) % 3)


def evaluated(
    step: int,
    returns: Sequence[float],
    *,
    is_best: bool = False,
    previous_step: int = -1,
    is_enough: bool = False,
    successes: Sequence[bool] = (),
    warning: str | None = None,
) -> Evaluated:
    outcomes = [Outcome({"is_success": success}, success) for success in successes]
    episodes = tuple(
        PlayedEpisode(
            i, np.zeros(3, np.int64), np.zeros((3, 2), np.float32), value, "terminated", outcome
        )
        for i, (value, outcome) in enumerate(
            zip(returns, outcomes or [None] * len(returns), strict=True)
        )
    )
    policy = Policy(nn.Identity(), "action values", torch.device("cpu"))
    return Evaluated(
        Clock(step, 4 * step, step / 3),
        episodes,
        policy,
        is_best,
        previous_step,
        is_enough,
        warning,
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- files ----------------------------------------


def test_status_follows_the_run(folder: RunFolder) -> None:
    observer = FileObserver(folder, 3)
    clock = Clock(0, 0, 0.0)
    observer(RunStarted(clock, 100))
    assert folder.status()["state"] == "running"
    assert folder.status()["pid"] == os.getpid()
    first = folder.status()["heartbeat"]
    observer(Logged(Clock(40, 160, 1.0), {}))
    assert (folder.status()["state"], folder.status()["step"]) == ("running", 40)
    assert folder.status()["heartbeat"] >= first
    observer(RunEnded(Clock(60, 240, 2.0), "stopped"))
    assert (folder.status()["state"], folder.status()["step"]) == ("stopped", 60)
    observer(RunEnded(Clock(100, 400, 3.0), "finished"))
    assert folder.status()["state"] == "finished"
    observer.close()


def test_headers_are_there_from_the_start_and_only_once(folder: RunFolder) -> None:
    for _ in range(2):  # a resume starts again
        FileObserver(folder, 3)(RunStarted(Clock(0, 0, 0.0), 100))
    assert (folder.directory / "episodes.csv").read_text() == (
        "episode,step,frames,env_index,seed,episodic_return,episodic_length,end,wall_time_s\n"
    )
    assert (folder.directory / "evaluations.csv").read_text() == (
        "step,frames,episodes,mean_return,std_return,iqm_return,min_return,max_return,wall_time_s\n"
    )


def test_a_line_for_each_episode(folder: RunFolder) -> None:
    observer = FileObserver(folder, 3)
    observer(RunStarted(Clock(0, 0, 0.0), 100))
    events = [episode_ended(0, 7, 7), episode_ended(1, 20, 13)]
    for event in events:
        observer(event)
        text = (folder.directory / "episodes.csv").read_text()
        assert text.endswith("\n")  # whole lines, at once
    assert text.splitlines()[1] == "0,7,28,0,1000,-1.5,7,truncated,2.333"
    assert list(folder.episodes()) == [
        event.episode._replace(wall_time_s=round(event.episode.wall_time_s, 3)) for event in events
    ]
    for event in events:
        read = ActionLog(folder).read(event.episode.episode)
        assert read.tolist() == event.actions.tolist()


def test_actions_are_there_before_the_row_that_promises_them(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError("full")

    observer = FileObserver(folder, 3)
    observer(RunStarted(Clock(0, 0, 0.0), 100))
    with monkeypatch.context() as patch:
        patch.setattr(ActionLog, "append", fails)
        observer(episode_ended(0, 7, 7))
    assert list(folder.episodes()) == []
    observer(Logged(Clock(40, 160, 1.0), {}))  # tried again
    assert [episode.episode for episode in folder.episodes()] == [0]
    assert len(ActionLog(folder).read(0)) == 7


def test_logs_wait_while_the_disk_is_full(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    observer = FileObserver(folder, 3, say=said.append)
    observer(RunStarted(Clock(0, 0, 0.0), 100))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "episodes.csv")

    with monkeypatch.context() as patch:
        patch.setattr("rlagents.observers.files.append_whole", full)
        for number in range(5):  # more episodes than tries: only the first is one
            observer(episode_ended(number, 7 * (number + 1), 7))
        observer(Logged(Clock(40, 160, 1.0), {"x": 1.0}))
        with pytest.raises(OSError, match="No space"):
            observer.sync()  # so that no checkpoint is written without them
        observer(episode_ended(5, 42, 7))
    assert [text.split("training goes on")[0] for text in said] == [
        f"warning: The logs in {folder.directory} could not be written "
        "(No space left on device: episodes.csv); "
    ] * 2
    assert "2 more times" in said[0]
    assert "1 more time" in said[1]
    assert list(folder.episodes()) == []
    observer(Logged(Clock(60, 240, 2.0), {"x": 2.0}))
    assert [episode.episode for episode in folder.episodes()] == list(range(6))
    assert [line["x"] for line in lines(folder.directory / "metrics.jsonl")] == [1.0, 2.0]
    observer(episode_ended(6, 70, 7))  # written at once, as before
    assert len(list(folder.episodes())) == 7
    with monkeypatch.context() as patch:
        patch.setattr("rlagents.observers.files.append_whole", full)
        observer(Logged(Clock(70, 240, 2.0), {}))
        observer(Logged(Clock(80, 240, 2.0), {}))
        with pytest.raises(RunFailedError, match=r"3 times in a row.*Make room"):
            observer(Logged(Clock(90, 240, 2.0), {}))


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (FileNotFoundError(2, "No such file"), "was moved or deleted"),
        (PermissionError(13, "Permission denied"), "changed who may write"),
        (OSError(28, "No space left on device"), "Make room on the disk"),
    ],
)
def test_what_cannot_be_written_says_what_to_look_at(error: OSError, advice: str) -> None:
    with pytest.raises(RunFailedError, match=advice):
        Patience("It", "soon", print).failed(error, is_last=True)


def test_a_full_disk_at_the_end_of_a_run_is_not_forgiven(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    observer = FileObserver(folder, 3)
    observer(RunStarted(Clock(0, 0, 0.0), 100))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rlagents.run.sync", full)  # of status.json
    with pytest.raises(RunFailedError, match=r"could not be written \(No space"):
        observer(RunEnded(Clock(100, 400, 3.0), "finished"))
    assert folder.status()["state"] == "running"
    assert not list(folder.directory.glob(".*"))


def test_a_line_for_each_evaluation(folder: RunFolder) -> None:
    observer = FileObserver(folder, 3)
    observer(RunStarted(Clock(0, 0, 0.0), 100))
    observer(evaluated(30, [1.0, 2.0, 3.0, 10.0]))
    with (folder.directory / "evaluations.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert {key: float(value) for key, value in row.items()} == {
        "step": 30,
        "frames": 120,
        "episodes": 4,
        "mean_return": 4.0,
        "std_return": pytest.approx(np.std([1, 2, 3, 10])),
        "iqm_return": 2.5,
        "min_return": 1,
        "max_return": 10,
        "wall_time_s": 10,
    }
    (line,) = lines(folder.directory / "metrics.jsonl")
    assert line == {"step": 30, "frames": 120, "wall_time_s": 10, "eval/episodic_return": 4.0}


def test_a_line_of_metrics(folder: RunFolder) -> None:
    observer = FileObserver(folder, 3)
    observer(Logged(Clock(5, 20, 1.5), {"charts/SPS": 3.0, "losses/td_loss": 0.1}))
    observer(Logged(Clock(6, 24, 2.5), {"charts/SPS": 4.0}))
    assert lines(folder.directory / "metrics.jsonl") == [
        {"step": 5, "frames": 20, "wall_time_s": 1.5, "charts/SPS": 3.0, "losses/td_loss": 0.1},
        {"step": 6, "frames": 24, "wall_time_s": 2.5, "charts/SPS": 4.0},
    ]


def test_metric_keys_of_a_real_run(tiny_run: Any) -> None:
    rows = lines(tiny_run.directory / "metrics.jsonl")
    keys = {key for row in rows for key in row}
    assert {
        *("step", "frames", "wall_time_s", "charts/episodic_return", "charts/episodic_length"),
        *("charts/SPS", "charts/epsilon", "losses/td_loss", "losses/q_values"),
        "eval/episodic_return",
    } == keys
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    for row in rows:
        assert {"step", "frames", "wall_time_s"} < set(row)
        assert all(np.isfinite(value) for value in row.values())


def test_metric_keys_of_reinforce(tmp_path: Path) -> None:
    run = rlagents.train(
        "cartpole-reinforce",
        {
            "total_steps": 600,
            "env.num_envs": 4,
            "agent.episodes_per_update": 8,
            "evaluation.period_steps": 0,
        },
        runs_dir=tmp_path,
        quiet=True,
    )
    keys = {key for row in lines(run.directory / "metrics.jsonl") for key in row}
    assert {"losses/policy_loss", "losses/value_loss", "losses/entropy"} <= keys
    assert "losses/td_loss" not in keys
    assert "charts/epsilon" not in keys


def test_metric_keys_of_ppo(tmp_path: Path) -> None:
    run = rlagents.train(
        "cartpole-ppo",
        {
            "total_steps": 600,
            "env.num_envs": 4,
            "agent.rollout_steps": 16,
            "agent.learning_rate_end": 0.0,
            "agent.learning_rate_decay_steps": 1_000,
            "evaluation.period_steps": 0,
        },
        runs_dir=tmp_path,
        quiet=True,
    )
    keys = {key for row in lines(run.directory / "metrics.jsonl") for key in row}
    assert {key for key in keys if key.startswith("losses/")} == {
        *("losses/policy_loss", "losses/value_loss", "losses/entropy", "losses/approx_kl"),
        *("losses/clip_fraction", "losses/explained_variance"),
    }
    assert "charts/learning_rate" in keys


# --- TensorBoard ----------------------------------------


def read_scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def scalars_of_metrics(directory: Path) -> dict[str, list[tuple[int, Any]]]:
    expected: dict[str, list[tuple[int, Any]]] = {}
    for row in lines(directory / "metrics.jsonl"):
        for key, value in row.items():
            if "/" in key:
                expected.setdefault(key, []).append((row["step"], pytest.approx(value, rel=1e-5)))
    return expected


def test_tensorboard_has_the_same_scalars(tiny_run: Any) -> None:
    expected = scalars_of_metrics(tiny_run.directory)
    assert read_scalars(tiny_run.directory / "tensorboard") == expected
    assert len(expected["eval/episodic_return"]) == 3


def test_tensorboard_has_the_same_scalars_after_a_resume(own_run: Path) -> None:
    rlagents.resume(own_run, total_steps=640, quiet=True)
    expected = scalars_of_metrics(own_run)
    assert [step for step, _ in expected["eval/episodic_return"]] == [200, 400, 480, 600, 640]
    assert read_scalars(own_run / "tensorboard") == expected


def test_tensorboard_forgets_what_is_repeated(folder: RunFolder) -> None:
    first = TensorBoardObserver(folder)
    first(RunStarted(Clock(0, 0, 0.0), 100))
    for step in (10, 20, 30):
        first(Logged(Clock(step, step, 1.0), {"charts/SPS": 1.0}))
    first.close()
    second = TensorBoardObserver(folder)
    second(RunStarted(Clock(20, 20, 1.0), 100))
    second(Logged(Clock(25, 25, 2.0), {"charts/SPS": 2.0}))
    second(evaluated(26, [3.0, 5.0]))
    second.close()
    assert read_scalars(folder.directory / "tensorboard") == {
        "charts/SPS": [(10, 1.0), (20, 1.0), (25, 2.0)],
        "eval/episodic_return": [(26, 4.0)],
    }


# --- console ----------------------------------------


def show(folder: RunFolder, events: Sequence[Event], *, terminal: bool, quiet: bool) -> str:
    console = Console(
        force_terminal=terminal,
        quiet=quiet,
        width=120,
        record=True,
        file=(folder.directory / "shown").open("w"),
    )
    observer = ConsoleObserver(folder, quiet=quiet, console=console)
    try:
        for event in events:
            observer(event)
    finally:
        observer.close()
        console.file.close()
    return (folder.directory / "shown").read_text()


A_RUN: tuple[Event, ...] = (
    RunStarted(Clock(0, 0, 0.0), 1_000),
    Progressed(Clock(50, 200, 1.0), None),
    episode_ended(0, 60, 60),
    Logged(
        Clock(60, 240, 2.0),
        {"charts/SPS": 321.0, "charts/epsilon": 0.125, "losses/td_loss": 0.0625},
    ),
    Progressed(Clock(500, 2000, 11.0), 2.25),
    evaluated(500, [1.0, 4.0], is_best=True),
    Progressed(Clock(900, 3600, 12.0), 2.75),
    RunEnded(Clock(1_000, 4000, 14.0), "finished"),
)


def test_plain_lines_where_there_is_no_terminal(folder: RunFolder) -> None:
    shown = show(folder, A_RUN, terminal=False, quiet=False)
    assert shown == (folder.directory / "run.log").read_text()
    assert "\x1b" not in shown
    line = next(text for text in shown.splitlines() if "500/1,000" in text)
    for part in ("321 steps/s", "return 2.25", "ε 0.125", "loss 0.0625"):
        assert part in line
    assert "900/1,000" not in shown  # one line in ten seconds
    assert "mean return 2.50 (from 1 to 4), the best so far" in shown
    assert shown.splitlines()[-1] == "finished at step 1,000 after 14 s"


def test_a_live_panel_on_a_terminal(folder: RunFolder) -> None:
    shown = show(folder, A_RUN, terminal=True, quiet=False)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    for part in ("900 / 1,000 steps", "321 steps/s", "left", "2.75", "0.125", "0.0625"):
        assert part in plain, part
    assert "last evaluation" in plain
    assert "2.50 at step 500" in plain
    assert "run" in plain
    log = (folder.directory / "run.log").read_text()
    assert "\x1b" not in log
    assert "500/1,000" in log
    assert "finished at step 1,000" in log


@pytest.mark.parametrize("events_before", range(len(A_RUN)))
def test_a_terminal_may_be_gone_at_any_moment(
    folder: RunFolder, events_before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    monkeypatch.setattr(
        "rlagents.observers.console.silence_gone_streams", lambda: looked.append("there")
    )
    master, terminal = os.openpty()
    file = os.fdopen(terminal, "w")
    observer = ConsoleObserver(folder, console=Console(force_terminal=True, file=file))
    for event in A_RUN[:events_before]:
        observer(event)
    os.close(master)
    for event in A_RUN[events_before:]:
        observer(event)
    observer.close()
    with contextlib.suppress(OSError):  # of what could not be shown
        file.close()
    log = (folder.directory / "run.log").read_text()
    assert log.count("warning: nothing more can be shown") == len(looked) == 1
    assert log.splitlines()[-1].startswith("finished" if events_before < 7 else "warning")


def test_a_terminal_that_is_busy_for_a_moment_is_none_that_is_gone(folder: RunFolder) -> None:
    class Busy(io.StringIO):
        times = 0

        def write(self, text: str) -> int:
            self.times += "evaluation" in text
            if self.times == 1:
                raise BlockingIOError
            return super().write(text)

    shown = Busy()
    observer = ConsoleObserver(folder, console=Console(file=shown, width=120))
    for event in A_RUN:
        observer(event)
    assert "evaluation" in shown.getvalue()  # a little later
    assert "finished at step 1,000" in shown.getvalue()
    assert "nothing more" not in (folder.directory / "run.log").read_text()


def test_completed_episodes_are_spoken_of(folder: RunFolder) -> None:
    events: tuple[Event, ...] = (
        RunStarted(Clock(0, 0, 0.0), 1_000),
        Progressed(Clock(500, 2000, 11.0), 2.25, 0.125),
        evaluated(500, [1.0, 4.0, 1.0], successes=[True, False, True], is_best=True),
        Logged(Clock(800, 2400, 21.0), {"charts/success_rate": 0.625}),
        evaluated(900, [1.0], warning="nobody tells"),
        RunEnded(Clock(1_000, 4000, 24.0), "finished"),
    )
    shown = show(folder, events, terminal=False, quiet=False).splitlines()
    assert "completed 12.5 %" in shown[0]
    assert shown[1].endswith("(from 1 to 4), completed 2 of 3, the best so far")
    assert "completed" not in shown[2]
    assert shown[3] == "warning: nobody tells"
    assert "completed 62.5 %" in shown[4]
    panel = show(folder, events[:3], terminal=True, quiet=False)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", panel)
    assert re.search(r"completed, last 100 episodes +12.5 %", plain)


def test_success_rates_are_metrics(folder: RunFolder) -> None:
    board = TensorBoardObserver(folder)
    board(RunStarted(Clock(0, 0, 0.0), 1_000))
    for event in (
        evaluated(100, [1.0, 4.0, 1.0, 0.0], successes=[True, False, True, True]),
        evaluated(200, [1.0]),
    ):
        for observer in (FileObserver(folder, 3), board):
            observer(event)
    board.close()
    scalars = read_scalars(folder.directory / "tensorboard")
    assert scalars["eval/success_rate"] == [(100, 0.75)]
    first, second = lines(folder.directory / "metrics.jsonl")
    assert (first["eval/episodic_return"], first["eval/success_rate"]) == (1.5, 0.75)
    assert "eval/success_rate" not in second


def test_quiet_shows_nothing_and_logs_all(folder: RunFolder) -> None:
    assert show(folder, A_RUN, terminal=False, quiet=True) == ""
    assert "finished at step 1,000" in (folder.directory / "run.log").read_text()


def test_the_log_of_a_real_run_is_what_the_console_showed(tiny_run: Any) -> None:
    assert (tiny_run.directory / "run.log").read_text() == tiny_run.outcome.err


# --- checkpoints ----------------------------------------


@pytest.mark.parametrize(
    ("replay", "expected"),
    [
        ("always", [True, True, True]),
        ("on-exit", [False, True, True]),
        ("never", [False, False, False]),
    ],
)
def test_experience_is_saved_when_the_config_says(
    tmp_path: Path, replay: Any, expected: list[bool]
) -> None:
    asked: list[bool] = []
    store = CheckpointStore(tmp_path)
    observer = CheckpointObserver(store, CheckpointConfig(replay=replay))
    for step, reason in enumerate(("period", "end", "stop")):
        observer(
            CheckpointDue(
                Clock(step, step, 0.0),
                reason,  # type: ignore[arg-type]
                reason == "period",
                lambda directory, experience: asked.append(experience),
            )
        )
    assert asked == expected
    assert store.index() == {"best": "step-0", "last": "step-2"}


def test_what_cannot_be_made_smaller_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(directory: Path, _: bool) -> None:
        (directory / "agent" / "replay").mkdir(parents=True)
        (directory / "agent" / "replay" / "frames.npy").touch()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rlagents.checkpoint.shutil.copytree", full)
    store = CheckpointStore(tmp_path)
    observer = CheckpointObserver(store, CheckpointConfig(replay="on-exit"))
    for step in (1, 2):
        observer(CheckpointDue(Clock(step, step, 0.0), "stop", False, write))
        assert store.find("last").step == step
    assert (store.find("1").directory / "agent" / "replay").is_dir()


# --- observers that fail ----------------------------------------


def train(directory: Path, tiny: tuple[str, ...], **overrides: object) -> rlagents.Run:
    words = zip(tiny[::2], tiny[1::2], strict=True)
    keys = {word[2:].replace("-", "_"): value for word, value in words}
    return rlagents.train(
        "cartpole-dqn",
        {**parse_option_values(keys), "recording.enabled": False, **overrides},
        runs_dir=directory,
        name="run",
        quiet=True,
    )


def failing(
    method: str, closed: list[bool] | None = None, error: Exception | None = None
) -> type[Any]:
    """An observer whose `method` fails at an evaluation, or when it is closed."""

    class Failing:
        def __init__(self, *_: object, **__: object) -> None:
            self.calls = 0

        def __call__(self, event: Event) -> None:
            if method == "__call__" and isinstance(event, Evaluated):
                raise error or OSError("no encoder")

        def close(self) -> None:
            if closed is not None:
                closed.append(True)
            if method == "close":
                raise error or OSError("no encoder")

    return Failing


def test_the_evaluation_that_ends_a_run_is_recorded_whatever_the_period(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[int] = []
    monkeypatch.setattr(
        "rlagents.observers.video.record_episodes",
        lambda *_, about, **__: recorded.append(about["step"]),
    )
    keys = {"recording.period_steps": 1_000, "total_steps": 5_500}
    config = build_config({"env": {"id": "cartpole"}}, keys, "test")
    folder = RunFolder.create(tmp_path, "run")
    observer = VideoObserver(folder, config, cast(Any, lambda: None), reproducible=True)
    observer(evaluated(100, [1]))
    observer(evaluated(200, [1], previous_step=100))
    assert recorded == [100]
    observer(evaluated(300, [1], previous_step=200, is_enough=True))
    assert recorded == [100, 300]
    observer(evaluated(1_000, [1], previous_step=999))
    assert recorded == [100, 300, 1_000]
    observer(evaluated(5_500, [1], previous_step=5_400))
    assert recorded == [100, 300, 1_000, 5_500]
    observer(evaluated(5_600, [1], previous_step=5_500))  # more steps than there were to be
    assert recorded == [100, 300, 1_000, 5_500, 5_600]


@pytest.mark.parametrize("name", ["VideoObserver", "TensorBoardObserver"])
def test_an_optional_observer_that_fails_is_switched_off(
    tmp_path: Path, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    plain = train(tmp_path / "plain", tiny)
    closed: list[bool] = []
    monkeypatch.setattr(f"rlagents.training.{name}", failing("__call__", closed))
    run = train(tmp_path, tiny, **{"recording.enabled": True})
    assert run.status()["state"] == "finished"
    log = (run.directory / "run.log").read_text()
    assert log.count("is switched off") == 1
    assert "no encoder" in log
    assert closed == [True]  # what it holds is freed all the same
    one, other = (
        [episode._replace(wall_time_s=0) for episode in each.episodes()] for each in (plain, run)
    )
    assert one == other


@pytest.mark.parametrize("name", ["VideoObserver", "TensorBoardObserver"])
def test_an_optional_observer_that_cannot_be_closed_does_no_harm(
    tmp_path: Path, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(f"rlagents.training.{name}", failing("close"))
    run = train(tmp_path, tiny, **{"recording.enabled": True})
    assert run.status()["state"] == "finished"
    assert "no encoder" in (run.directory / "run.log").read_text()


def test_an_environment_that_cannot_be_filmed_is_trained_all_the_same(
    tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    (tmp_path / "blind.py").write_text(
        "import gymnasium as gym\n"
        "def make():\n"
        "    return gym.make('CartPole-v1', disable_env_checker=True)\n"
    )
    overrides = {"env.id": f"{tmp_path}/blind.py:make", "recording.enabled": True}
    run = train(tmp_path, tiny, **overrides)
    log = (run.directory / "run.log").read_text()
    assert "rgb_array" in log
    assert "switched off" in log
    assert len((run.directory / "evaluations.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize("name", ["FileObserver", "CheckpointObserver"])
def test_an_observer_that_is_needed_ends_the_run(
    tmp_path: Path, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    error = OSError(28, "No space left on device")

    class Full(failing("__call__", error=error)):  # type: ignore[misc]
        def sync(self) -> None:
            pass

    monkeypatch.setattr(f"rlagents.training.{name}", Full)
    with pytest.raises(RunFailedError, match="No space left") as caught:
        train(tmp_path, tiny)
    assert str(tmp_path / "run") in str(caught.value)
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed"
    assert "No space left" in status["error"]


def test_a_run_that_failed_names_the_last_good_checkpoint(
    tmp_path: Path,
    tiny: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    cli: Callable[..., Any],
) -> None:
    from rlagents.agents.dqn import DQN

    observe = DQN.observe

    def breaks(self: DQN, transition: Any) -> None:
        observe(self, transition)
        if self._steps == 400:
            raise RuntimeError("cosmic ray")

    more = ("--recording.enabled", "false", "--checkpoint.replay", "always")
    with monkeypatch.context() as patch:
        patch.setattr(DQN, "observe", breaks)
        words = ("train", "cartpole-dqn", *tiny, *more)
        outcome = cli(*words, "--runs-dir", tmp_path, "--name", "run")
    assert outcome.code == 1
    assert "cosmic ray" in outcome.err
    assert str(tmp_path / "run" / "checkpoints" / "step-320") in outcome.err
    assert f"rlagents resume {tmp_path / 'run'}" in outcome.err
    assert cli("resume", tmp_path / "run").code == 0
