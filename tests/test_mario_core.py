"""The fast console, on cartridges made here: no game has to be installed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nes_tools import INSTRUCTIONS, MODES, ORIGIN, Reference6502, Scene, make_rom, show_scene

from rlagents.envs.mario import core
from rlagents.envs.mario.core import LUMINANCE, PALETTE, CoreConsole, JammedError, Shrink
from rlagents.errors import UsageError
from rlagents.types import Array

IDLE = bytes([0x4C, 0x00, 0x80])  # JMP to itself


def test_the_library_is_built() -> None:
    assert core.available()


@pytest.mark.parametrize("content", [b"", b"none"])
def test_a_damaged_library_is_refused(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "_core.so"
    file.write_bytes(content)
    monkeypatch.setattr(core, "_library_file", lambda: file)
    core._library.cache_clear()
    try:
        with pytest.raises(UsageError, match=r"cannot be loaded.*install rlagents again"):
            core.available()
    finally:
        core._library.cache_clear()


# Which files are cartridges.


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda rom: b"", "no iNES file"),
        (lambda rom: rom[:15], "no iNES file"),
        (lambda rom: b"FDS" + rom[3:], "no iNES file"),
        (lambda rom: rom[:6] + b"\x11" + rom[7:], "NROM"),  # mapper 1
        (lambda rom: rom[:7] + b"\x40" + rom[8:], "NROM"),  # mapper 64
        (lambda rom: rom[:6] + b"\x05" + rom[7:], "NROM"),  # a trainer
        (lambda rom: rom[:6] + b"\x09" + rom[7:], "NROM"),  # four name tables
        (lambda rom: rom[:4] + b"\x03" + rom[5:], "NROM"),  # 48 KB
        (lambda rom: rom[:4] + b"\x00" + rom[5:], "NROM"),
        (lambda rom: rom[:5] + b"\x00" + rom[6:], "NROM"),  # tiles in RAM
        (lambda rom: rom[:-1], "size"),
        (lambda rom: rom + b"\0", "size"),
        (lambda rom: rom[:4] + b"\x01" + rom[5:], "size"),
    ],
)
def test_other_files_are_refused(damage, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=says):
        CoreConsole(damage(make_rom(IDLE)))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=64))
def test_any_bytes_are_refused_or_played(content: bytes) -> None:
    rom = content + make_rom(IDLE)[len(content) :]
    try:
        console = CoreConsole(rom)
    except UsageError:
        return
    try:
        console.frame(0)
    except JammedError:
        assert content[16:]


def test_16_kb_of_program_appear_twice() -> None:
    program = bytes([0xAD, 0x01, 0x80, 0x85, 0x10, 0xAD, 0x01, 0xC0, 0x85, 0x11])  # LDA, STA
    program += bytes([0x4C, 0x0A, 0x80])
    long = make_rom(program)
    rom = long[:4] + b"\x01" + long[5 : 16 + 0x4000 - 6] + long[16 + 0x7FFA :]
    console = CoreConsole(rom)
    console.frame(0)
    assert console.ram[0x10] == console.ram[0x11] == program[1]


# The processor.


def play(program: bytes) -> tuple[CoreConsole, bool]:
    """Return a console after its first frame, and whether it met an undocumented opcode."""
    console = CoreConsole(make_rom(program))
    try:
        console.frame(0)
    except JammedError:
        return console, True
    return console, False


ORDINARY = sorted(
    code
    for code, (name, mode, *_) in INSTRUCTIONS.items()
    if mode not in ("rel", "ind") and name not in ("JMP", "JSR", "RTS", "RTI", "BRK")
)
BRANCHES = sorted(code for code, (_, mode, *_) in INSTRUCTIONS.items() if mode == "rel")


@st.composite
def instructions(draw: st.DrawFn) -> bytes:
    """Draw one instruction; addresses are in RAM or in the program, branches go a little on."""
    code = draw(st.one_of(st.sampled_from(ORDINARY), st.sampled_from(BRANCHES)))
    mode = INSTRUCTIONS[code][1]
    if mode == "rel":
        return bytes([code, draw(st.integers(0, 9))])
    operand = draw(st.integers(0, 255))
    if MODES[mode] == 1:
        return bytes([code])
    if MODES[mode] == 2:
        return bytes([code, operand])
    return bytes([code, operand, draw(st.sampled_from((*range(0x10), 0x1E, 0x80, 0xFE)))])


def compare_with_the_reference(program: bytes) -> None:
    reference = Reference6502(make_rom(program))
    try:
        reference.frame()
    except Exception as error:
        assume(type(error).__name__ != "TouchedRegisterError")
        raise
    console, jammed = play(program)
    assert jammed == reference.jammed
    assert console.ram.tobytes() == bytes(reference.ram)


# What a program leaves behind: A, X, Y, the flags, and a count that shows how many cycles it took.
SHOW = bytes(
    [
        *(0x08, 0x8D, 0x00, 0x06, 0x8E, 0x01, 0x06, 0x8C, 0x02, 0x06, 0x68, 0x8D, 0x03, 0x06),
        *(0xBA, 0x8E, 0x04, 0x06),  # PHP, STA, STX, STY, PLA, STA, TSX, STX
    ]
)


def count_at(address: int) -> bytes:
    """Return a program, to stand at `address`, that counts until the frame is over."""
    return bytes([0xEE, 0x10, 0x06, 0xD0, 0xFB, 0xEE, 0x11, 0x06, 0x4C]) + address.to_bytes(
        2, "little"
    )


@settings(max_examples=250, deadline=None)
@given(st.lists(instructions(), min_size=1, max_size=60))
def test_the_processor_does_what_the_reference_does(listing: list[bytes]) -> None:
    program = b"".join(listing) + b"\xea" * 10 + SHOW
    compare_with_the_reference(program + count_at(ORIGIN + len(program)))


@pytest.mark.parametrize("code", sorted(INSTRUCTIONS))
def test_each_instruction_in_turn(code: int) -> None:
    """All registers and flags are set to something before it, and it leads to what follows it.

    But for BRK, which leads to the begin.
    """
    name, mode, *_ = INSTRUCTIONS[code]
    for a, x, y, flags in ((0x80, 0xFF, 1, 0xCF), (0x7F, 3, 0x80, 0x02), (0, 0x40, 0xFD, 0x41)):
        returns = {"RTS": 6, "RTI": 9}.get(name, 0)  # bytes that push where it returns to
        before = bytes([0xA9, 2, 0x85, 0x42, 0x85, 0x43])  # a pointer to $0202
        setup = bytes([0xA9, flags, 0x48, 0xA9, 0x9C, 0x8D, 0x02, 0x02])  # for PLP; what is there
        setup += bytes([0xA9, a, 0xA2, x, 0xA0, y, 0x28])
        at = ORIGIN + len(before) + returns + len(setup)
        if returns:
            back = at + 1 - (name == "RTS")
            before += bytes([0xA9, back >> 8, 0x48, 0xA9, back & 0xFF, 0x48])
        if name == "RTI":
            before += bytes([0xA9, 0x83, 0x48])
        operand = {1: b"", 2: b"\x42", 3: b"\x02\x02"}[MODES[mode]]
        if mode == "rel":
            operand = b"\x00"
        elif mode == "ind":  # through a pointer that lies behind it
            operand = (at + 3).to_bytes(2, "little") + (at + 5).to_bytes(2, "little")
        elif name in ("JMP", "JSR"):
            operand = (at + 3).to_bytes(2, "little")
        program = before + setup + bytes([code]) + operand + SHOW
        compare_with_the_reference(program + count_at(ORIGIN + len(program)))


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=1, max_size=300))
def test_any_bytes_run_like_in_the_reference(program: bytes) -> None:
    compare_with_the_reference(program)


def test_all_other_opcodes_are_undocumented() -> None:
    assert len(INSTRUCTIONS) == 151
    push = bytes([0xA9, ORIGIN >> 8, 0x48, 0xA9, ORIGIN & 0xFF, 0x48, 0x08])  # for RTI
    for code in range(256):
        assert play(push + bytes([code]))[1] == (code not in INSTRUCTIONS), hex(code)


def test_a_jammed_console_stays_so_and_snapshots_keep_it() -> None:
    console = CoreConsole(make_rom(bytes([0x02])))
    with pytest.raises(JammedError, match="instruction"):
        console.frame(0)
    other = CoreConsole(make_rom(bytes([0x02])))
    other.load(console.save())
    for one in (console, other):
        with pytest.raises(JammedError):
            one.frame(0)


def test_programs_in_ram_run() -> None:
    copied = bytes([0xA9, 0x77, 0x85, 0x20, 0x4C, 0x04, 0x03])  # LDA, STA, JMP to itself
    program = b"".join(
        bytes([0xA9, byte, 0x8D, index, 0x03]) for index, byte in enumerate(copied)
    ) + bytes([0x4C, 0x00, 0x03])
    console, jammed = play(program)
    assert not jammed
    assert console.ram[0x20] == 0x77


# Buttons.


def test_buttons_are_read_one_by_one() -> None:
    read = b"".join(
        bytes([0xAD, 0x16, 0x40, 0x29, 0x01, 0x95, 0x10, 0xE8]) for _ in range(10)
    )  # LDA $4016, AND #1, STA $10,X, INX
    program = bytes([0xA9, 1, 0x8D, 0x16, 0x40, 0xA9, 0, 0x8D, 0x16, 0x40, 0xA2, 0]) + read
    program += bytes([0x4C]) + (ORIGIN + len(program)).to_bytes(2, "little")
    console = CoreConsole(make_rom(program))
    console.frame(0b10110010)
    assert console.ram[0x10:0x1A].tolist() == [0, 1, 0, 0, 1, 1, 0, 1, 1, 1]


# The picture.

COLOURS = st.integers(0, 63)


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tiles = generator.integers(4, size=(512, 8, 8), dtype=np.uint8)
    tiles[generator.random(512) < 0.5] = 0
    palette = generator.integers(64, size=32, dtype=np.uint8)
    palette[16::4] = palette[:16:4]
    sprites = generator.integers(256, size=(64, 4), dtype=np.uint8)
    if draw(st.booleans()):  # many on few lines
        sprites[:, 0] = generator.integers(100, 116, size=64)
    return Scene(
        tiles=tiles,
        names=generator.integers(256, size=(2, 1024), dtype=np.uint8),
        palette=palette,
        sprites=sprites,
        scroll_x=draw(st.integers(0, 511)),
        scroll_y=draw(st.integers(0, 239)),
        ctrl=draw(st.sampled_from((0x00, 0x08, 0x10, 0x18, 0x20, 0x30))),
        mask=draw(st.sampled_from((0x00, 0x08, 0x10, 0x18, 0x1A, 0x1C, 0x1E, 0x1F))),
    )


@settings(max_examples=15, deadline=None)
@given(scenes())
def test_a_picture_is_what_the_reference_draws(scene: Scene) -> None:
    console = CoreConsole(show_scene(scene))
    for _ in range(3):
        console.frame(0)
    np.testing.assert_array_equal(console.screen(), PALETTE[scene.picture()])


def test_waiting_for_sprite_0_takes_as_long_as_round_by_round() -> None:
    """A wait at $200A, which is $2002 again, is not recognised, so it runs round by round."""
    generator = np.random.default_rng(5)
    scene = Scene(
        tiles=generator.integers(4, size=(512, 8, 8), dtype=np.uint8),
        names=generator.integers(256, size=(2, 1024), dtype=np.uint8),
        palette=np.zeros(32, dtype=np.uint8),
        sprites=generator.integers(256, size=(64, 4), dtype=np.uint8),
        scroll_x=3,
        scroll_y=0,
        ctrl=0x80,
        mask=0x1E,
    )
    seen = []
    for y in (0, 24, 100, 230):
        counts = []
        for register in (0x02, 0x0A):
            scene.sprites[0] = (y, 7, 0, 88)
            console = CoreConsole(show_scene(scene, wait_at=register))
            for _ in range(12):
                console.frame(0)
            counts.append(console.ram[0x700:0x704].tolist())
        assert counts[0] == counts[1]
        seen.append(tuple(counts[0]))
    assert len(set(seen)) == 4  # how much time is left after the hit depends on where it is


# Snapshots.


def counting_scene() -> bytes:
    generator = np.random.default_rng(1)
    return show_scene(
        Scene(
            tiles=generator.integers(4, size=(512, 8, 8), dtype=np.uint8),
            names=generator.integers(256, size=(2, 1024), dtype=np.uint8),
            palette=generator.integers(64, size=32, dtype=np.uint8),
            sprites=generator.integers(256, size=(64, 4), dtype=np.uint8),
            scroll_x=100,
            scroll_y=9,
            ctrl=0x90,
            mask=0x1E,
        ),
        wait_at=0x02,
    )


def test_a_snapshot_holds_the_picture_and_what_follows() -> None:
    console = CoreConsole(counting_scene())
    for _ in range(5):
        console.frame(0)
    state, picture = console.save(), console.screen()
    assert len(np.unique(picture)) > 8
    after = []
    for _ in range(5):
        console.frame(0)
        after.append((console.screen(), console.ram.copy()))
    other = CoreConsole(counting_scene())
    for one in (console, other):
        one.load(state)
        np.testing.assert_array_equal(one.screen(), picture)
        assert one.save() == state
        for screen, ram in after:
            one.frame(0)
            np.testing.assert_array_equal(one.screen(), screen)
            np.testing.assert_array_equal(one.ram, ram)


def test_drawing_changes_nothing_but_the_picture() -> None:
    drawn, undrawn = CoreConsole(counting_scene()), CoreConsole(counting_scene())
    for _ in range(9):
        drawn.frame(0)
        undrawn.frame(0, draw=False)
    assert not np.array_equal(drawn.screen(), undrawn.screen())
    drawn.frame(0)
    undrawn.frame(0)
    assert drawn.save() == undrawn.save()


def test_screens_are_copies_and_the_ram_is_live() -> None:
    console = CoreConsole(counting_scene())
    for _ in range(4):
        console.frame(0)
    screen = console.screen()
    before = screen.copy()
    console.ram[0x123] = 0x45
    state = console.save()
    screen[:] = 0
    np.testing.assert_array_equal(console.screen(), before)
    other = CoreConsole(counting_scene())
    other.load(state)
    assert other.ram[0x123] == 0x45


def test_states_that_are_none_are_refused() -> None:
    console = CoreConsole(make_rom(IDLE))
    state = console.save()
    for damaged in (b"", state[:-1], state + b"\0", b"x" + state[1:], state[16:]):
        with pytest.raises(ValueError, match="state"):
            console.load(damaged)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_states_that_were_never_saved_do_no_harm(seed: int) -> None:
    console = CoreConsole(counting_scene())
    state = bytearray(console.save())
    generator = np.random.default_rng(seed)
    state[16:] = generator.bytes(len(state) - 16)
    console.load(bytes(state))
    assert console.screen().shape == (240, 256, 3)
    for _ in range(3):
        try:
            console.frame(int(generator.integers(256)))
        except JammedError:
            break
    assert console.screen().shape == (240, 256, 3)


def test_a_closed_console_says_so() -> None:
    console = CoreConsole(make_rom(IDLE))
    ram = console.ram
    console.close()
    for use in (lambda: console.frame(0), console.screen, console.save):
        with pytest.raises(ValueError, match="closed"):
            use()
    ram[0] = 1  # still somebody's memory


# Grey, and small.


def test_grey_is_opencvs() -> None:
    expected = cv2.cvtColor(PALETTE[None], cv2.COLOR_RGB2GRAY)[0]
    np.testing.assert_array_equal(LUMINANCE, expected)


def opencv(picture: Array, top: int, bottom: int, size: int) -> Array:
    rows = np.ascontiguousarray(picture[top : 240 - bottom])
    return np.asarray(cv2.resize(rows, (size, size), interpolation=cv2.INTER_AREA))


def random_picture(seed: int) -> Array:
    generator = np.random.default_rng(seed)
    coarse = LUMINANCE[generator.integers(64, size=(30, 32))].repeat(8, axis=0).repeat(8, axis=1)
    noise = LUMINANCE[generator.integers(64, size=(240, 256))]
    return np.where(generator.random((240, 256)) < generator.random(), coarse, noise)


@pytest.mark.parametrize("size", [42, 60, 64, 84])
@pytest.mark.parametrize("crop", [(0, 0), (32, 0)])
def test_usual_sizes_are_opencvs_to_the_bit(crop: tuple[int, int], size: int) -> None:
    shrink = Shrink(crop, size)
    for seed in range(40):
        picture = random_picture(seed)
        np.testing.assert_array_equal(shrink(picture), opencv(picture, *crop, size))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 200), st.integers(0, 200), st.integers(1, 240), st.integers(0, 99))
def test_all_sizes_are_opencvs_to_the_bit(top: int, bottom: int, size: int, seed: int) -> None:
    assume(size <= 240 - top - bottom)
    picture = random_picture(seed)
    np.testing.assert_array_equal(
        Shrink((top, bottom), size)(picture), opencv(picture, top, bottom, size)
    )


@pytest.mark.parametrize(("crop", "size"), [((0, 0), 16), ((48, 0), 64), ((112, 0), 128)])
def test_whole_factors_are_opencvs_to_the_bit(crop: tuple[int, int], size: int) -> None:
    for seed in range(20):
        picture = random_picture(seed)
        np.testing.assert_array_equal(Shrink(crop, size)(picture), opencv(picture, *crop, size))


@pytest.mark.parametrize(("crop", "size"), [((0, 0), 241), ((200, 0), 41), ((0, -1), 8)])
def test_pictures_are_not_made_larger(crop: tuple[int, int], size: int) -> None:
    with pytest.raises(ValueError, match="rows"):
        Shrink(crop, size)
