"""The rules of Super Mario Bros.: against the original, and against the RAM of made-up games."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Any

import numpy as np
import pytest
from mario_tools import BACKENDS, FakeConsole, installed, needs_mario, way_through_1_1

import verify_mario
from rlagents.envs.mario import backends, memory, rom
from rlagents.envs.mario.backends import make_console, resolve_backend
from rlagents.envs.mario.buttons import encode
from rlagents.envs.mario.game import (
    ALL_STAGES,
    LONGEST_WAIT,
    Game,
    GameStuckError,
    parse_stage,
    parse_stages,
)
from rlagents.envs.mario.memory import Memory, read_info
from rlagents.errors import UsageError

FRAMES = {"nes-py": 2_014, "core": 2_013}  # on nes-py a stage begins a frame later


@needs_mario
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_way_through_1_1(backend: str) -> None:
    console = make_console(backend)
    game = Game(console, (1, 1))
    buttons = encode("simple").tolist()
    total, frames, frame = 0.0, 0, None
    for action in way_through_1_1():
        for _ in range(4):
            frame = game.frame(buttons[action])
            total += frame.classic
            frames += 1
            if frame.over:
                break
    console.close()
    assert frame is not None
    assert frame.over
    assert frame.info["flag_get"] is True
    assert (frame.info["x_pos"], total, frames) == (3161, 3021.0, FRAMES[backend])
    assert (frame.info["world"], frame.info["stage"], frame.info["life"]) == (1, 1, 2)


if installed("gym-super-mario-bros").startswith("7.4"):

    @needs_mario
    @pytest.mark.parametrize("stages", [["1-1", "1-2"], ["4-4", "8-1"], ["game"]])
    def test_frame_by_frame_the_same_as_the_original(
        stages: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        frames = 700 if stages == ["game"] else 250
        words = ["--stages", *stages, "--frames", str(frames), "--seed", "3", "--json"]
        assert verify_mario.main(words) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["frames"] == frames * len(stages)
        assert found["differing"] == dict.fromkeys(verify_mario.QUANTITIES, 0)

    @needs_mario
    @pytest.mark.slow
    def test_the_way_through_1_1_in_the_original() -> None:
        theirs = verify_mario.upstream((1, 1))
        theirs.reset()
        total, frames, done = 0.0, 0, False
        buttons = encode("simple").tolist()
        for action in way_through_1_1():
            for _ in range(4):
                _, reward, done, info = theirs.step(buttons[action])
                total += reward
                frames += 1
                if done:
                    break
        assert (info["x_pos"], bool(info["flag_get"]), total, frames) == (3161, True, 3021, 2_014)

    @needs_mario
    def test_a_difference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            "rlagents.envs.mario.game.classic_reward", lambda dx, dt, died: np.float64(dx + 1)
        )
        assert verify_mario.main(["--stages", "1-1", "--frames", "20"]) == 1


def test_the_program_names_a_stage_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_mario.main(["--stages", "9-1"]) == 2
    assert "expected a stage from '1-1' to '8-4', got '9-1'" in capsys.readouterr().err


# The RAM, byte by byte.


def ram(**places: Any) -> np.ndarray[Any, Any]:
    found = np.zeros(memory.RAM_SIZE, dtype=np.uint8)
    for place, value in places.items():
        address = int(place.removeprefix("at_"), 16)
        values = [value] if isinstance(value, int) else value
        found[address : address + len(values)] = values
    return found


def test_info() -> None:
    shown = read_info(
        ram(
            at_6d=2,
            at_86=0x10,
            at_3b8=176,
            at_b5=1,
            at_7ed=[4, 2],
            at_7de=[0, 0, 1, 2, 3, 0],
            at_7f8=[3, 9, 8],
            at_75a=2,
            at_756=1,
            at_75f=3,
            at_75c=1,
        )
    )
    assert shown == {
        "x_pos": 528,
        "y_pos": 79,
        "coins": 42,
        "score": 1230,
        "time": 398,
        "life": 2,
        "status": "tall",
        "world": 4,
        "stage": 2,
        "flag_get": False,
    }
    assert {type(value) for value in shown.values()} == {int, str, bool}


def test_above_the_picture() -> None:
    assert Memory(ram(at_3b8=250, at_b5=0)).y == 260
    assert Memory(ram(at_3b8=250, at_b5=1)).y == 5


@pytest.mark.parametrize(
    ("status", "name"), list(enumerate(("small", "tall", "fireball", "fireball")))
)
def test_status(status: int, name: str) -> None:
    assert read_info(ram(at_756=status))["status"] == name


@pytest.mark.parametrize(
    ("places", "dying", "dead", "completed"),
    [
        ({}, False, False, False),
        ({"at_0e": 0x0B}, True, False, False),
        ({"at_b5": 2}, True, False, False),
        ({"at_0e": 0x06}, False, True, False),
        ({"at_770": 2}, False, False, True),
        ({"at_1d": 3}, False, False, False),  # a vine
        ({"at_1d": 3, "at_16": 0x31}, False, False, True),
        ({"at_1d": 3, "at_1a": 0x2D}, False, False, True),
        ({"at_1d": 3, "at_1b": 0x31}, False, False, False),  # not one of the five
        ({"at_1d": 1, "at_16": 0x31}, False, False, False),
    ],
)
def test_ends(places: dict[str, int], dying: bool, dead: bool, completed: bool) -> None:
    now = Memory(ram(**places))
    assert (now.is_dying, now.is_dead, now.is_completed) == (dying, dead, completed)


def test_a_look_stays_as_it_was() -> None:
    changing = ram(at_86=7)
    now = Memory(changing)
    changing[0x86] = 8
    assert now.x == 7
    assert Memory.from_hex(now.hex()).x == 7


# Games that are made up.


def made_up(target: tuple[int, int] | None = (1, 1)) -> tuple[Game, FakeConsole]:
    console = FakeConsole()
    game = Game(console, target)
    console.frames.clear()
    return game, console


def change(console: FakeConsole, **places: int) -> Callable[[], None]:
    """Return what sets bytes of the RAM."""

    def play() -> None:
        for place, value in places.items():
            console.ram[int(place.removeprefix("at_"), 16)] = value

    return play


def test_the_start_is_pressed_and_the_stage_written() -> None:
    console = FakeConsole()
    console.play, start = (lambda: None), console.play
    begun: list[tuple[int, ...]] = []

    def boot() -> None:
        if len(console.frames) == 5:
            console.play = start
        begun.append(tuple(console.ram[[memory.WORLD, memory.STAGE, memory.AREA]].tolist()))

    console.play = boot
    game = Game(console, (4, 2))
    assert console.frames[:4] == [8, 0, 8, 0]
    assert begun[3] == (3, 1, 2)  # 4-2 has the short area before it
    assert not game.over


@pytest.mark.parametrize(
    ("stage", "area"), [((1, 1), 0), ((1, 2), 2), ((3, 2), 1), ((7, 4), 4), ((8, 4), 3)]
)
def test_areas_of_stages(stage: tuple[int, int], area: int) -> None:
    console = FakeConsole()
    game = Game(console, stage)
    game._write_stage(*stage)
    assert console.ram[memory.AREA] == area


def test_death_ends_a_stage_and_nothing_is_skipped() -> None:
    game, console = made_up()
    console.play = change(console, at_0e=0x0B)
    frame = game.frame(128)
    assert frame.over
    assert (frame.classic, console.frames) == (-15.0, [128])


def test_death_in_the_whole_game_is_cut_short() -> None:
    game, console = made_up(None)
    steps = iter([change(console, at_0e=0x0B), lambda: None, change(console, at_0e=8)])
    written: list[tuple[int, int]] = []

    def play() -> None:
        written.append((int(console.ram[0x0E]), int(console.ram[0x7A0])))
        console.ram[0x7A0] = 9
        next(steps)()

    console.play = play
    frame = game.frame(128)
    assert not frame.over
    assert frame.classic == -15.0
    # Dying: the state is written and one frame played; dead is no cut-scene, so that is all.
    assert console.frames == [128, 0]
    assert written[1][0] == 6


def test_cut_scenes_are_skipped_after_the_info_was_read() -> None:
    game, console = made_up()
    console.play = change(console, at_0e=4, at_86=50, at_6de=20)
    timers: list[int] = []

    def after() -> None:
        timers.append(int(console.ram[0x7A0]))
        console.ram[0x86] += 1
        console.ram[0x0E] = 4 if len(timers) < 3 else 8

    first = console.play

    def play() -> None:
        first()
        console.ram[0x7A0] = 9
        console.play = after

    console.play = play
    frame = game.frame(128)
    assert console.frames == [128, 0, 0, 0]
    assert timers == [0, 0, 0]  # written before each of them
    assert console.ram[0x6DE] == 1  # a longer one is cut short
    assert frame.info["x_pos"] == 50
    assert game.info()["x_pos"] == 53


def test_the_whole_game_ends_with_the_last_life_only() -> None:
    game, console = made_up(None)
    console.play = change(console, at_75a=0xFF)
    assert game.frame(0).over
    game, console = made_up((1, 1))
    console.play = change(console, at_75a=0xFF)
    assert not game.frame(0).over


def test_waiting_is_bounded() -> None:
    game, console = made_up()
    console.play = change(console, at_0e=4)
    with pytest.raises(GameStuckError, match=f"a cut-scene for {LONGEST_WAIT} frames"):
        game.frame(0)
    game, console = made_up(None)
    console.play = change(console, at_770=2)
    with pytest.raises(GameStuckError, match="did not end a world"):
        game.frame(0)
    console = FakeConsole()
    console.play = lambda: None
    with pytest.raises(GameStuckError, match="title screen"):
        Game(console, None)


def walk(game: Game, console: FakeConsole, places: list[dict[str, int]]) -> list[float]:
    rewards = []
    for place in places:
        console.play = change(console, **place)
        rewards.append(game.frame(0).progress)
    return rewards


def test_progress_begins_anew_in_another_area() -> None:
    game, console = made_up()
    there = {"at_e7": 1}
    assert walk(
        game,
        console,
        [
            *({"at_86": 3}, {"at_86": 2}, {"at_86": 4}),  # only the last pixel is new
            *({"at_86": 9},),  # five pixels
            *({"at_86": 1} | there, {"at_86": 4} | there),
        ],
    ) == [3.0, 0.0, 1.0, 5.0, 0.0, 3.0]


def test_completion_is_rewarded_once_in_an_area() -> None:
    game, console = made_up(None)
    flag = {"at_1d": 3, "at_16": 0x31}
    assert walk(game, console, [flag, flag, flag | {"at_75c": 1}]) == [15.0, 0.0, 15.0]
    game.reset()
    assert walk(game, console, [flag]) == [15.0]


def test_states() -> None:
    game, console = made_up()
    walk(game, console, [{"at_86": 3}])
    state, picture = json.loads(json.dumps(game.save())), console.save()
    moves = [{"at_86": 5, "at_e7": 1}, {"at_86": 8, "at_e7": 1}]
    expected = walk(game, console, moves)
    console.load(picture)
    game.restore(state)
    assert walk(game, console, moves) == expected
    assert game.save() != state


# Consoles.


@needs_mario
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_console_goes_back_exactly(backend: str) -> None:
    console, other = make_console(backend), make_console(backend)
    for each in (console, other):
        Game(each, (1, 1))
    for number in range(40):
        console.frame(128 + number % 2)
    console.ram[0x756] = 2  # written and not yet played
    state, ram, screen = console.save(), console.ram.copy(), console.screen()

    def play(played: backends.Console) -> list[Any]:
        seen = []
        for number in range(60):
            if number == 20:
                played.ram[0x7F8] = 1
            played.frame(128 if number % 30 < 20 else 129)
            seen.append((played.ram.tobytes(), played.screen().tobytes()))
        return seen

    expected = play(console)
    assert len({ram for ram, _ in expected}) == 60
    for each in (console, other):
        each.load(state)
        assert np.array_equal(each.ram, ram)
        assert np.array_equal(each.screen(), screen)
        assert each.save() == state
        assert play(each) == expected
        each.close()


@needs_mario
@pytest.mark.parametrize("backend", BACKENDS)
def test_pictures_are_copies(backend: str) -> None:
    console = make_console(backend)
    Game(console, (1, 1))
    picture = console.screen()
    before = picture.copy()
    for _ in range(30):
        console.frame(128)
    assert np.array_equal(picture, before)
    assert not np.array_equal(console.screen(), before)
    assert picture.shape == (240, 256, 3)
    assert picture.dtype == np.uint8
    assert picture[100, 10].tolist() == [104, 136, 252]  # the sky of 1-1, as RGB
    console.close()


@needs_mario
def test_states_of_others_are_refused() -> None:
    one, other = make_console("nes-py"), make_console("nes-py")
    Game(one, (1, 1))
    Game(other, (1, 2))
    state = one.save()
    with pytest.raises(ValueError, match="started in another way"):
        other.load(state)
    with pytest.raises(ValueError, match="cut off or damaged"):
        one.load(state[:-1])
    one.load(state)
    one.close()
    one.close()  # twice does no harm
    other.close()


@needs_mario
def test_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_backend("nes-py") == "nes-py"
    assert resolve_backend("auto") == BACKENDS[-1]
    with pytest.raises(UsageError, match=r"no backend 'nespy'; did you mean 'nes-py'\?"):
        resolve_backend("nespy")
    monkeypatch.setattr(backends, "core_available", lambda: False)
    assert resolve_backend("auto") == "nes-py"
    with pytest.raises(UsageError, match='"core" is not built'):
        resolve_backend("core")
    monkeypatch.setattr(backends, "core_available", lambda: True)
    assert resolve_backend("auto") == "core"
    assert resolve_backend("nes-py") == "nes-py"


def test_without_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rom, "package_folder", lambda name: None)
    monkeypatch.setattr(backends, "package_folder", lambda name: None)
    monkeypatch.setattr(backends, "core_available", lambda: False)
    for ask in (rom.find_rom, make_console, lambda: resolve_backend("auto")):
        with pytest.raises(UsageError, match=r"run: pip install 'rlagents\[mario\]'"):
            ask()
    assert "gym-super-mario-bros" in str(rom.why_missing())


@pytest.mark.parametrize("name", ["lib_nes_env.so", f"_native{EXTENSION_SUFFIXES[0]}"])
def test_a_damaged_emulator_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / name).write_bytes(b"none")
    monkeypatch.setattr(backends, "package_folder", lambda name: tmp_path)
    load = backends._library if name.startswith("lib") else backends._native_module
    load.cache_clear()
    try:
        with pytest.raises(UsageError, match=r"nes-py.* cannot be loaded .*; run: pip install"):
            load()
    finally:
        load.cache_clear()


def test_another_rom_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "_roms").mkdir()
    (tmp_path / "_roms" / "super-mario-bros.nes").write_bytes(b"NES\x1a")
    monkeypatch.setattr(rom, "package_folder", lambda name: tmp_path)
    with pytest.raises(UsageError, match="expected ec299b99"):
        rom.find_rom()


def test_folders_of_packages() -> None:
    folder = rom.package_folder("rlagents")
    assert folder is not None
    assert (folder / "cli.py").is_file()
    assert rom.package_folder("no_such_package_here") is None


def test_names_of_stages() -> None:
    assert len(ALL_STAGES) == 32
    assert parse_stage("8-4") == (8, 4)
    assert parse_stages(["1-1", "2-3"]) == ((1, 1), (2, 3))
    for wrong in ("0-1", "1-5", "9-1", "1-1 ", "11", 11, None):
        with pytest.raises(UsageError, match="from '1-1' to '8-4'"):
            parse_stage(wrong)
    for wrong_list in ("1-1", [], 5, None):
        with pytest.raises(UsageError, match="expected a list such as"):
            parse_stages(wrong_list)
