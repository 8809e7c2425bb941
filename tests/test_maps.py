"""`rlagents evaluate --map`: where episodes ended, over pictures of the places they led to."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corridor import GOAL, PIT, Corridor
from PIL import Image

import rlagents
from rlagents import plots
from rlagents.envs import EnvConfig, EnvSpec, Map, MapEnd, MapPart, Walk
from rlagents.errors import RLAgentsError
from rlagents.types import Outcome

WORDS: Any = {"completed": "goal", "failed": "pit", "cut off": "out of patience"}
PIXELS = 40  # of a place of the corridor
asked: list[tuple[EnvConfig, Sequence[Walk]]] = []


def draw(config: EnvConfig, walks: Sequence[Walk]) -> Map:
    """The corridor from the pit to the goal."""
    asked.append((config, walks))
    picture = np.zeros((20, PIXELS * (GOAL - PIT + 1), 3), dtype=np.uint8)
    picture[:, -PIXELS:] = (0, 255, 0)
    ends = [MapEnd(PIXELS * (float(walk.outcome.values["x"]) - PIT), walk.kind) for walk in walks]  # type: ignore[union-attr, arg-type]
    return Map([MapPart("the corridor", picture, ends)], WORDS)


def test_how_an_episode_ended() -> None:
    won, lost = Outcome({}, True), Outcome({}, False)
    kinds = [
        Walk(1, np.zeros(1, np.int64), end, outcome).kind
        for end in ("terminated", "truncated")
        for outcome in (won, lost, Outcome({}, None), None)
    ]
    assert kinds == ["completed", "failed", "failed", "failed", "completed", *["cut off"] * 3]


# --- the picture ---


def part(width: int, ends: Sequence[MapEnd], title: str = "a") -> MapPart:
    picture = np.zeros((30, width, 3), dtype=np.uint8)
    picture[:, ::2] = (255, 0, 0)
    return MapPart(title, picture, ends)


def bars_of(figure: Any, number: int = 0) -> dict[str, dict[int, int]]:
    """The episodes that a histogram shows, by colour and by the left edge of the bar."""
    axes = [one for one in figure.axes if one.containers][number]
    shown: dict[str, dict[int, int]] = {}
    for bar in axes.patches:
        if bar.get_height():
            colour = tuple(round(255 * value) for value in bar.get_facecolor()[:3])
            heights = shown.setdefault("#{:02x}{:02x}{:02x}".format(*colour), {})
            heights[round(bar.get_x())] = round(bar.get_height())
    return shown


def test_ends_are_counted_by_their_kind_and_place() -> None:
    ends = [
        *[MapEnd(35.0, "completed")] * 3, MapEnd(47.9, "completed"), MapEnd(48.0, "completed"),
        *[MapEnd(35.0, "failed")] * 2, MapEnd(0.0, "cut off"),
        MapEnd(-7.0, "failed"), MapEnd(5000.0, "failed"),  # outside of what was seen
    ]  # fmt: skip
    figure = plots.draw_map(Map([part(100, ends)], WORDS), "title")
    assert bars_of(figure) == {
        "#009e73": {32: 4, 48: 1}, "#d55e00": {0: 1, 32: 2, 96: 1}, "#555555": {0: 1},
    }  # fmt: skip
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "goal: 5", "pit: 4", "out of patience: 1",
    ]  # fmt: skip
    assert figure.texts[0].get_text() == "title"


def test_what_does_not_occur_is_not_in_the_legend() -> None:
    figure = plots.draw_map(Map([part(100, [MapEnd(3.0, "failed")])], WORDS, "1 elsewhere"), "")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["pit: 1"]
    assert figure.texts[-1].get_text() == "1 elsewhere"


def test_a_level_is_as_sharp_as_in_the_game() -> None:
    content = plots.render(plots.draw_map(Map([part(1600, [])], WORDS), "wide"), "png")
    picture = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    red = (picture[..., 0] > 250) & (picture[..., 1:] < 5).all(axis=-1)
    row = np.flatnonzero(red.sum(axis=1) > 700)  # of the level, where every other pixel is red
    assert 25 <= len(row) <= 30  # the axes' lines lie on some of the 30
    columns = np.flatnonzero(red[row[len(row) // 2]])
    assert set(np.diff(columns).tolist()) == {2}
    assert len(columns) >= 798


def test_histogram_and_level_have_the_same_scale() -> None:
    figure = plots.draw_map(Map([part(300, []), part(200, [], "b")], WORDS), "two")
    pairs = list(zip(figure.axes[::2], figure.axes[1::2], strict=True))
    assert len(pairs) == 2
    for (level, bars), width in zip(pairs, (300, 200), strict=True):
        assert level.get_xlim() == bars.get_xlim() == (0, width)
        assert level.get_position().x0 == bars.get_position().x0
        assert level.get_position().x1 == bars.get_position().x1
        assert level.get_position().y1 == pytest.approx(bars.get_position().y0)
    widths = [level.get_position().width for level, _ in pairs]
    assert widths[0] / widths[1] == pytest.approx(300 / 200)
    assert pairs[0][0].get_position().y0 > pairs[1][1].get_position().y1  # one below the other


# --- the command ---


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> rlagents.Run:
    rlagents.register_env(
        EnvSpec(name="corridor-with-map", make=Corridor, outcome=("x",), draw_map=draw)
    )
    return rlagents.train(
        "cartpole-reinforce",
        {
            "env.id": "corridor-with-map",
            "env.kwargs": {"wind": 0.3},
            "env.num_envs": 2,
            "agent.episodes_per_update": 4,
            "evaluation.period_steps": 0,
            "recording.enabled": False,
        },
        total_steps=64,
        runs_dir=tmp_path_factory.mktemp("runs"),
        name="run",
        quiet=True,
    )


def test_the_map_shows_the_episodes_of_the_evaluation(
    run: rlagents.Run, cli: Callable[..., Any], tmp_path: Path
) -> None:
    asked.clear()
    path = tmp_path / "new" / "map.png"
    shown = cli("evaluate", run.directory, "--episodes", "6", "--map", path, "--allow-import")
    assert shown.code == 0
    assert shown.out.splitlines()[-1] == str(path)
    assert Image.open(path).format == "PNG"
    ((config, walks),) = asked
    assert config.kwargs == {"wind": 0.3}
    played = run.evaluate(6).played
    assert [walk.seed for walk in walks] == [one.seed for one in played]
    assert all(np.array_equal(w.actions, one.actions) for w, one in zip(walks, played, strict=True))
    assert [(walk.end, walk.outcome) for walk in walks] == [(o.end, o.outcome) for o in played]


def test_json_and_a_map(run: rlagents.Run, cli: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "map.svg"
    words = ("evaluate", run.directory, "--episodes", "2", "--map", path, "--json")
    report = json.loads(cli(*words, "--allow-import").out)
    assert report["episodes"] == 2
    assert "of 2 (" in path.read_text()  # the title says how many were completed
    assert "out of patience" in path.read_text() or "pit" in path.read_text()


def test_no_map_without_one(tiny_run: Any, cli: Callable[..., Any], tmp_path: Path) -> None:
    shown = cli("evaluate", tiny_run.directory, "--map", tmp_path / "map.png")
    assert shown.code == 2
    assert shown.err == (
        "rlagents: --map: cartpole has no map, as Super Mario Bros. has; leave it out.\n"
    )
    assert shown.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["map.jpg", "map", "folder.png"])
def test_a_file_that_is_no_picture(
    run: rlagents.Run, cli: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    (tmp_path / "folder.png").mkdir()
    asked.clear()
    shown = cli("evaluate", run.directory, "--map", tmp_path / name, "--allow-import")
    assert shown.code == 2
    assert "--map: " in shown.err
    assert asked == []


def test_a_map_that_fails_is_one_sentence(
    run: rlagents.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Map:
        raise ZeroDivisionError("no ground")

    broken = EnvSpec(name="corridor-with-map", make=Corridor, draw_map=fail)
    monkeypatch.setitem(rlagents.envs.registry._registered, "corridor-with-map", broken)
    with pytest.raises(RLAgentsError, match=r"corridor-with-map draws no map: .*no ground"):
        run.draw_map(run.evaluate(1), tmp_path / "map.png")
    assert list(tmp_path.iterdir()) == []
