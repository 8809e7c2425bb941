"""What docs/mario.md shows is so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from mario_tools import BACKENDS, needs_mario

from rlagents.envs import EnvConfig, find_env, make_vector_env, resolve_env_config
from rlagents.envs.mario import MarioEnv, specs
from rlagents.envs.mario.tiles import PLANES
from rlagents.envs.registry import PROCESS_KEYS

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "mario.md").read_text(encoding="utf-8")


@needs_mario
def test_the_reward_of_ones_own(tmp_path: Path) -> None:
    code = next(block for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
    file = tmp_path / "my_mario.py"
    file.write_text(code)
    env_id = f"{file}:make_env"
    config = resolve_env_config(EnvConfig(id=env_id), find_env(env_id))
    env = make_vector_env(find_env(env_id), config, 1)
    assert env.reset(np.ones(1, dtype=np.bool_), [1]).shape == (1, 4, 84, 84)
    total = 0.0
    for _ in range(10):
        env.send(np.array([1]))
        total += float(env.recv().reward[0])
    assert total > 20  # pixels
    env.close()


@needs_mario
def test_the_lines_of_python() -> None:
    code = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[1]
    names: dict[str, object] = {}
    exec(code, names)
    assert isinstance(names["env"], MarioEnv)
    assert names["terminated"] is False
    names["env"].close()


@needs_mario
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_clock_and_the_speed_of_the_cartridge(backend: str) -> None:
    """A unit in 20 frames, 3 pixels a frame: until he meets the first enemy."""
    env = MarioEnv(1, 1, action_set=[["right", "B"]], frame_skip=1, backend=backend)
    env.reset(seed=0)
    infos = [env.step(0)[4] for _ in range(100)]
    x, time = ([info[name] for info in infos] for name in ("x_pos", "time"))
    ticks = [frame for frame in range(1, 100) if time[frame] < time[frame - 1]]
    assert np.diff(ticks).tolist() == [20] * 4
    assert set(np.diff(x[40:])) == {3}
    env.close()


def test_every_option_is_named() -> None:
    first_columns = re.findall(r"^\| (`.*?) \|", TEXT, re.MULTILINE)
    rows = {name for column in first_columns for name in re.findall(r"`(\w+)`", column)}
    assert set(specs._KWARGS) | {"stages"} <= rows
    others = {"id", "num_envs", "kwargs", *PROCESS_KEYS}  # which are not of this game
    assert set(EnvConfig.model_fields) - others <= rows
    assert set(PLANES) <= {row.split(" | ")[0].strip("| ") for row in TEXT.splitlines()}
