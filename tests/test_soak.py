"""The script that watches a long training: what it reads, and when it calls that flat."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

import soak

BEFORE = soak.Sample(time_s=0.0, rss_kb=100_000, anon_kb=1, fds=10, threads=5, steps=0)
LATER = [
    replace(BEFORE, time_s=60.0 * k, rss_kb=200_000 + 100 * k, steps=1000 * k) for k in range(1, 20)
]


def test_what_came_before_does_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.report([BEFORE, *LATER], 1000)
    assert "from step 1,000 on, 18 min and 19 samples: 200.1 to 201.9 MB (0.90%)" in (
        capsys.readouterr().out
    )
    assert not soak.report([BEFORE, *LATER], 0)


def test_more_memory_or_more_files_are_not_flat() -> None:
    assert not soak.report([*LATER, replace(LATER[-1], rss_kb=204_200)], 1000)
    assert soak.report([*LATER, replace(LATER[-1], rss_kb=204_000)], 1000)
    assert not soak.report([*LATER, replace(LATER[-1], fds=12)], 1000)


def test_a_process_is_read() -> None:
    mine = soak.sample(os.getpid(), 7)
    assert mine.steps == 7
    assert mine.rss_kb > 10_000
    assert mine.fds >= 3


def test_a_training_is_watched_stopped_and_read_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "soak.csv"
    words = ["--", "train", "cartpole-dqn", "--total-steps", "10000000"]
    words += ["--evaluation.period-steps", "0", "--recording.enabled", "false"]
    words += ["--runs-dir", str(tmp_path / "runs")]
    options = ["--steps", "1000", "--period", "0.05", "--settled", "1", "--csv", str(kept)]
    soak.main([*options, *words])
    printed = capsys.readouterr().out
    samples = soak.read(kept)
    assert samples[-1].steps > samples[0].steps == 0
    soak.main(["--settled", "1", "--read", str(kept)])
    assert capsys.readouterr().out in printed
    (run,) = (tmp_path / "runs").iterdir()
    assert "stopped" in (run / "status.json").read_text()
