"""The script that trains on stages of Super Mario Bros. and counts completed episodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mario_tools import needs_mario

import benchmark_stage

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


@needs_mario
def test_options_reach_the_training_and_both_evaluations_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, recipe = tmp_path / "stage.json", tmp_path / "short.toml"
    text = (CONFIGS / "mario-fast.toml").read_text(encoding="utf-8")
    text = text.replace("rollout_steps = 128", "rollout_steps = 8")
    recipe.write_text(text.replace("[env]", "[env]\nmax_episode_frames = 200"), encoding="utf-8")
    words = ["--configs", str(recipe), "--stages", "1-3", "--seeds", "5", "--train-sticky"]
    words += ["--stop-success", "0.9", "--total-steps", "256", "--episodes", "2"]
    benchmark_stage.main([*words, "--runs-dir", str(tmp_path / "runs"), "--json", str(kept)])
    (run,) = (tmp_path / "runs").iterdir()
    config = json.loads((run / "config.json").read_text())["config"]
    assert (config["env"]["id"], config["seed"], config["total_steps"]) == ("mario-1-3", 5, 256)
    assert config["env"]["sticky_probability"] == 0.25
    assert config["evaluation"]["stop_success"] == 0.9
    (result,) = json.loads(kept.read_text())["results"]
    assert (result["config"], result["stage"], result["seed"]) == (str(recipe), "1-3", 5)
    assert result["steps"] == result["best_step"] == 256
    assert 1 <= result["different"] <= 2
    assert result["completed"] == result["completed_sticky"] == 0.0  # within 200 frames
    assert "short.toml" in capsys.readouterr().out


def test_a_training_that_fails_says_what_it_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        benchmark_stage.main(["--configs", "mario-quick", "--runs-dir", str(tmp_path)])
    assert "There is no config 'mario-quick'" in capsys.readouterr().err
