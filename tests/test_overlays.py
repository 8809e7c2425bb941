"""Where a network looks, drawn on an episode: the right map on the right frames, in files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import rlagents
from rlagents import trained
from rlagents.envs import EnvConfig, find_env, make_player, make_vector_env, resolve_env_config
from rlagents.errors import UsageError
from rlagents.explain import METHODS, Explainer
from rlagents.film import overlay_path
from rlagents.overlays import Overlays
from rlagents.takes import Moment, replay
from rlagents.types import Array, FloatArray, IntArray
from rlagents.watch.videos import OVERLAYS

Cli = Callable[..., Any]

# Episodes of 40 steps: of steps that are explained together, the second block is a part of one.
SHORT = ("--env.max-episode-frames", "160")
TINY = (
    *("--total-steps", "80"),
    *("--env.num-envs", "2"),
    *SHORT,
    *("--agent.learning-starts", "1000"),
    *("--replay.capacity", "1000"),
    *("--network.width", "0.125"),
    *("--network.hidden-sizes", "[8]"),
    *("--evaluation.period-steps", "0"),
)


@pytest.fixture(scope="module")
def pong(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of Pong that has learned nothing; its games are cut off after 40 steps."""
    runs = tmp_path_factory.mktemp("pong")
    outcome = cli("train", "pong-dqn", *TINY, "--runs-dir", runs, "--name", "pong")
    assert outcome.code == 0, outcome.err
    return runs / "pong"


def frames_of(path: Path) -> Array:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


class Marking:
    """Stands in for an explainer: one bright place, which tells the number of the step."""

    def __init__(self) -> None:
        self.seen: list[Array] = []
        self.chosen: list[int] = []

    def maps(self, observations: Array, actions: IntArray) -> FloatArray:
        maps = np.zeros((len(actions), *observations.shape[2:]), dtype=np.float32)
        for index, action in enumerate(actions.tolist()):
            row = 8 + len(self.chosen) % (maps.shape[1] - 16)
            maps[index, row : row + 2, 12:20] = 1
            self.seen.append(observations[index])
            self.chosen.append(action)
        return maps


def short_pong() -> tuple[Any, EnvConfig]:
    spec = find_env("pong")
    config = EnvConfig(
        id="pong", crop=[35, 15], frame_size=64, frame_stack=2, max_episode_frames=160
    )
    return spec, resolve_env_config(config, spec)


def test_each_step_is_explained_by_what_the_agent_saw_then() -> None:
    spec, config = short_pong()
    actions = np.random.default_rng(0).integers(6, size=40)
    env = make_vector_env(spec, config, 1)
    seen = [env.reset(np.ones(1, dtype=np.bool_), [5])[0].copy()]
    total = 0.0
    for action in actions:  # the slow and obvious way
        env.send(np.array([action]))
        step = env.recv()
        total += float(step.reward[0])
        seen.append(step.observation[0].copy())
    marking = Marking()
    overlays = Overlays({"gradient": marking}, env, 5, actions, [35, 15])  # type: ignore[dict-item]
    draw = overlays.draws()["gradient"]
    take = replay(make_player(spec, config), 5, actions, values=None, episodic_return=total)
    steps = set()
    for moment in take:
        picture = draw(moment)
        changed = np.flatnonzero((picture != moment.frame).any(axis=(1, 2)))
        if moment.action is None:
            assert len(changed) == 0
            continue
        steps.add(moment.step)
        # A row of the map is 160 / 64 rows of the field, which begins at row 35.
        middle = 35 + (8 + moment.step + 1) * 160 / 64
        assert abs(np.mean([changed[0], changed[-1]]) - middle) < 3
    env.close()
    assert steps == set(range(40))
    np.testing.assert_array_equal(np.stack(marking.seen), np.stack(seen[:40]))
    assert marking.chosen == actions.tolist()


def test_where_the_player_shows_what_the_agent_sees_nothing_is_played_again() -> None:
    marking = Marking()
    overlays = Overlays({"gradient": marking}, None, 0, np.zeros(3, dtype=np.int64), [0, 0])  # type: ignore[arg-type,dict-item]
    draw = overlays.draws()["gradient"]
    frame = np.zeros((32, 32, 3), dtype=np.uint8)
    for step in (0, 0, 2):  # step 1 is not shown
        observation = np.full((1, 32, 32), step, dtype=np.uint8)
        picture = draw(Moment(frame, step, observation, 1, None, 0.0))
        assert (picture != frame).any()
    assert [int(one.max()) for one in marking.seen] == [0, 2]
    assert marking.chosen == [1, 1]


def test_explain_writes_an_overlay_beside_the_video(pong: Path, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "game.mp4"
    words = ("--output", path, "--scale", 1)
    outcome = cli("record", pong, *words, "--explain", "gradient,grad-cam")
    assert outcome.code == 0, outcome.err
    over = [tmp_path / f"game.{method}.mp4" for method in ("gradient", "grad-cam")]
    assert outcome.out.split() == [str(path), *map(str, over)]
    about = json.loads(path.with_suffix(".json").read_text())
    assert about["overlays"] == {"gradient": "action", "grad-cam": "action"}
    plain = frames_of(path).astype(int)
    assert len(plain) == about["num_frames"]
    for file in over:
        change = np.abs(frames_of(file) - plain).mean(axis=(0, 2, 3))
        assert change[35:195].max() > 5 * change[:33].max()  # the agent does not see the score
    assert (frames_of(over[0]) != frames_of(over[1])).any()


def test_another_overlay_joins_those_of_the_same_pictures(
    pong: Path, cli: Cli, tmp_path: Path
) -> None:
    path = tmp_path / "game.mp4"

    def record(*words: object) -> dict[str, str]:
        assert cli("record", pong, "--output", path, "--seconds", 0.5, *words).code == 0
        overlays = json.loads(path.with_suffix(".json").read_text()).get("overlays", {})
        there = {file.name for file in tmp_path.glob("game.*.mp4")}
        assert there == {overlay_path(path, method).name for method in overlays}
        return dict(overlays)

    assert record("--explain", "gradient") == {"gradient": "action"}
    both = {"gradient": "action", "grad-cam": "advantage"}
    assert record("--explain", "grad-cam", "--explain-of", "advantage") == both
    assert record() == both
    assert record("--scale", 1) == {}  # those of the old size are gone
    assert record("--scale", 1, "--explain", "gradient") == {"gradient": "action"}
    assert record("--scale", 1, "--explain", "gradient", "--seed", 9) == {"gradient": "action"}
    assert record("--scale", 1, "--seed", 8) == {}  # another game


def test_explain_of_changes_what_is_drawn(pong: Path, tmp_path: Path) -> None:
    run = rlagents.open_run(pong)
    pictures = []
    for of in ("action", "advantage"):
        path = tmp_path / f"{of}.mp4"
        run.record(output=path, scale=1, seconds=1.0, explain=["gradient"], explain_of=of)  # type: ignore[typeddict-item]
        assert json.loads(path.with_suffix(".json").read_text())["overlays"] == {"gradient": of}
        pictures.append(frames_of(overlay_path(path, "gradient")))
    assert (pictures[0] != pictures[1]).any()


def test_explain_alone_means_perturbation(pong: Path, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "game.mp4"
    outcome = cli("record", pong, "--output", path, "--seconds", 0.5, "--explain")
    assert outcome.code == 0, outcome.err
    assert outcome.out.split() == [str(path), str(tmp_path / "game.perturbation.mp4")]


def test_a_fault_while_explaining_leaves_nothing(
    pong: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rlagents.mp4.Mp4Writer._finish", fail)
    outcome = cli("record", pong, "--output", tmp_path / "game.mp4", "--explain", "gradient")
    assert outcome.code == 1
    assert "No space left" in outcome.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--explain", "grad-kam"], "no method 'grad-kam'; did you mean 'grad-cam'?"),
        (["--explain", "gradient,gradient"], "expected each method once"),
        (["--explain-of", "advantage"], "add --explain"),
        (["--explain", "--tiled", "--episodes", "2"], "does not go with --tiled"),
        (["--explain", "--training-episode", "0"], "does not go with --training-episode"),
    ],
)
def test_what_cannot_be_explained_is_one_sentence(
    pong: Path, cli: Cli, tmp_path: Path, words: list[str], sentence: str
) -> None:
    outcome = cli("record", pong, "--output", tmp_path / "game.mp4", *words)
    assert outcome.code == 2
    assert sentence in outcome.err
    assert outcome.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_vectors_cannot_be_explained(
    tiny_run: Any, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(trained, "play_episodes")  # nothing is played in vain
    outcome = cli("record", tiny_run.directory, "--output", tmp_path / "x.mp4", "--explain")
    assert outcome.code == 2
    assert "needs an agent that sees pictures" in outcome.err


def test_a_policy_has_no_advantage(pong: Path) -> None:
    policy = rlagents.open_run(pong).policy()
    policy.kind = "probabilities"
    with pytest.raises(UsageError, match="leave --explain-of out"):
        Explainer(policy, "gradient", of="advantage")


def test_the_page_knows_every_method() -> None:
    assert OVERLAYS == METHODS
