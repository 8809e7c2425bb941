"""What scripts/benchmark_pong.py makes of a run's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark_pong import Crossing, Game, crossing, main, read_games


def games(*returns: float) -> list[Game]:
    return [Game(1000 * (i + 1), value, 2.5 * (i + 1)) for i, value in enumerate(returns)]


def test_a_goal_is_reached_with_the_mean_of_enough_games() -> None:
    played = games(21, 21, 3, 15, 18, 21, -21)
    assert crossing(played, 18, recent=3) == Crossing(6000, 15.0)  # 15, 18 and 21
    assert crossing(played, 21, recent=2) == Crossing(2000, 5.0)
    assert crossing(played, 19, recent=3) is None
    assert crossing(played[:2], 18, recent=3) is None  # two good games are not enough


def test_games_are_read_from_a_runs_folder(tmp_path: Path) -> None:
    (tmp_path / "episodes.csv").write_text(
        "episode,step,frames,env_index,seed,episodic_return,episodic_length,end,wall_time_s\n"
        "0,1200,4800,3,7,-20.0,1100,terminated,4.5\n"
        "1,1304,5216,1,8,-21.0,1204,terminated,5.25\n"
    )
    assert read_games(tmp_path) == [Game(1200, -20.0, 4.5), Game(1304, -21.0, 5.25)]


def test_a_setting_without_a_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--set", "agent.gamma"])
    assert refused.value.code == 2
    assert "expected TABLE.KEY=VALUE, got 'agent.gamma'" in capsys.readouterr().err


def test_a_refused_setting_ends_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--runs-dir", str(tmp_path), "--set", "agent.gamma=2"]
    assert main(["--seeds", "1", "2", "--config", "cartpole-dqn", *options]) == 2
    error = capfd.readouterr().err
    assert "--agent.gamma: expected number" in error
    assert "Traceback" not in error


def test_a_short_training_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--config", "cartpole-reinforce", "--seeds", "3", "--episodes", "2"]
    options += ["--goal", "20", "--total-steps", "6000", "--runs-dir", str(tmp_path)]
    options += ["--set", "recording.enabled=false", "--json", str(tmp_path / "found.json")]
    assert main(options) == 0
    printed = capsys.readouterr().out
    assert "| 3 | " in printed
    assert "solved: 1 of 1 seeds, median 0." in printed
    assert '"seed": 3' in (tmp_path / "found.json").read_text()
