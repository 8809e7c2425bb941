"""What the tests of whole commands share: the program in this process, and one tiny run."""

from __future__ import annotations

import contextlib
import csv
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import settings
from no_skips import (  # noqa: F401 - pytest finds its hooks here
    pytest_addoption,
    pytest_make_collect_report,
    pytest_runtest_makereport,
)

from rlagents.cli import main
from rlagents.cores import num_cores

# Machines that train in the background are slow at times; that is no failure.
settings.register_profile("rlagents", deadline=None)
settings.load_profile("rlagents")

# A run of CartPole that does everything that a long one does, in about a second.
TINY = (
    *("--total-steps", "480"),
    *("--env.num-envs", "4"),
    *("--agent.learning-starts", "64"),
    *("--replay.capacity", "400"),
    *("--replay.batch-size", "16"),
    *("--network.hidden-sizes", "[16]"),
    *("--evaluation.period-steps", "200"),
    *("--evaluation.episodes", "3"),
    *("--checkpoint.period-steps", "160"),
    *("--checkpoint.keep", "2"),
    *("--recording.period-steps", "none"),
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Let `-n auto` be the cores that there are for us; xdist counts those of the whole machine."""
    return num_cores()


class Outcome(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


def run_command(*words: object) -> Outcome:
    """Call the program in this process; an exception that reaches a user fails the test."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:  # argparse leaves in this way after --help and --version
            code = end.code if isinstance(end.code, int) else 1
    assert "Traceback" not in err.getvalue()
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def cli() -> Callable[..., Outcome]:
    return run_command


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    return TINY


class TinyRun(NamedTuple):
    """A finished run of CartPole, to be read and not changed."""

    directory: Path
    outcome: Outcome


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    runs = tmp_path_factory.mktemp("tiny") / "runs"
    outcome = run_command("train", "cartpole-dqn", *TINY, "--runs-dir", runs, "--name", "tiny")
    assert outcome.code == 0, outcome.err
    return TinyRun(runs / "tiny", outcome)


@pytest.fixture
def own_run(tiny_run: TinyRun, tmp_path: Path) -> Path:
    """A copy of the tiny run that a test may damage."""
    return Path(shutil.copytree(tiny_run.directory, tmp_path / "runs" / "own"))


@pytest.fixture(scope="session")
def read_rows() -> Callable[[Path], list[dict[str, str]]]:
    """Read a CSV file without the column that no two runs share."""

    def read(path: Path) -> list[dict[str, str]]:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            row.pop("wall_time_s")
        return rows

    return read


@pytest.fixture(scope="session", autouse=True)
def own_state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the id of whoever runs the tests out of them, in child processes too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what a test registers, and what a run has told torch in this process."""
    from rlagents import agents
    from rlagents.envs import registry

    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    monkeypatch.setattr(agents, "_registered", dict(agents._registered))
    torch.set_flush_denormal(False)
    torch.set_num_threads(1)  # what tests compute is small, and `make test` uses all cores already
