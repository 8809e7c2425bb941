"""Cartridges made for tests, and slow, plain references for the fast console.

The references share nothing with it: the processor is a table of functions, the picture is made
pixel by pixel from what the console's memory should hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from rlagents.types import Array

ORIGIN = 0x8000  # of programs
FRAME_DOTS = 262 * 341


def make_rom(
    program: bytes, *, nmi: int = ORIGIN, tiles: bytes = b"", vertical: bool = True
) -> bytes:
    """Return an iNES file of 32 KB with a program at its begin, and 8 KB of tiles."""
    prg = bytearray(program.ljust(0x8000, b"\xea"))
    prg[0x7FFA:0x8000] = b"".join(at.to_bytes(2, "little") for at in (nmi, ORIGIN, ORIGIN))
    header = b"NES\x1a" + bytes([2, 1, int(vertical), 0]) + bytes(8)
    return header + bytes(prg) + tiles.ljust(0x2000, b"\0")


class TouchedRegisterError(Exception):
    """A program of the reference has touched what it does not have."""


MODES = {  # bytes of an instruction
    "imp": 1, "acc": 1, "imm": 2, "zp": 2, "zpx": 2, "zpy": 2, "abs": 3, "abx": 3, "aby": 3,
    "inx": 2, "iny": 2, "rel": 2, "ind": 3,
}  # fmt: skip

# One line for each instruction: mode, opcode, cycles; a + stands for one more at a crossed page.
_TABLE = """
ADC imm 69 2 zp 65 3 zpx 75 4 abs 6D 4 abx 7D 4+ aby 79 4+ inx 61 6 iny 71 5+
AND imm 29 2 zp 25 3 zpx 35 4 abs 2D 4 abx 3D 4+ aby 39 4+ inx 21 6 iny 31 5+
ASL acc 0A 2 zp 06 5 zpx 16 6 abs 0E 6 abx 1E 7
BCC rel 90 2
BCS rel B0 2
BEQ rel F0 2
BIT zp 24 3 abs 2C 4
BMI rel 30 2
BNE rel D0 2
BPL rel 10 2
BRK imp 00 7
BVC rel 50 2
BVS rel 70 2
CLC imp 18 2
CLD imp D8 2
CLI imp 58 2
CLV imp B8 2
CMP imm C9 2 zp C5 3 zpx D5 4 abs CD 4 abx DD 4+ aby D9 4+ inx C1 6 iny D1 5+
CPX imm E0 2 zp E4 3 abs EC 4
CPY imm C0 2 zp C4 3 abs CC 4
DEC zp C6 5 zpx D6 6 abs CE 6 abx DE 7
DEX imp CA 2
DEY imp 88 2
EOR imm 49 2 zp 45 3 zpx 55 4 abs 4D 4 abx 5D 4+ aby 59 4+ inx 41 6 iny 51 5+
INC zp E6 5 zpx F6 6 abs EE 6 abx FE 7
INX imp E8 2
INY imp C8 2
JMP abs 4C 3 ind 6C 5
JSR abs 20 6
LDA imm A9 2 zp A5 3 zpx B5 4 abs AD 4 abx BD 4+ aby B9 4+ inx A1 6 iny B1 5+
LDX imm A2 2 zp A6 3 zpy B6 4 abs AE 4 aby BE 4+
LDY imm A0 2 zp A4 3 zpx B4 4 abs AC 4 abx BC 4+
LSR acc 4A 2 zp 46 5 zpx 56 6 abs 4E 6 abx 5E 7
NOP imp EA 2
ORA imm 09 2 zp 05 3 zpx 15 4 abs 0D 4 abx 1D 4+ aby 19 4+ inx 01 6 iny 11 5+
PHA imp 48 3
PHP imp 08 3
PLA imp 68 4
PLP imp 28 4
ROL acc 2A 2 zp 26 5 zpx 36 6 abs 2E 6 abx 3E 7
ROR acc 6A 2 zp 66 5 zpx 76 6 abs 6E 6 abx 7E 7
RTI imp 40 6
RTS imp 60 6
SBC imm E9 2 zp E5 3 zpx F5 4 abs ED 4 abx FD 4+ aby F9 4+ inx E1 6 iny F1 5+
SEC imp 38 2
SED imp F8 2
SEI imp 78 2
STA zp 85 3 zpx 95 4 abs 8D 4 abx 9D 5 aby 99 5 inx 81 6 iny 91 6
STX zp 86 3 zpy 96 4 abs 8E 4
STY zp 84 3 zpx 94 4 abs 8C 4
TAX imp AA 2
TAY imp A8 2
TSX imp BA 2
TXA imp 8A 2
TXS imp 9A 2
TYA imp 98 2
"""


def _read_table() -> dict[int, tuple[str, str, int, bool]]:
    found = {}
    for line in _TABLE.strip().splitlines():
        name, *words = line.split()
        for mode, opcode, cycles in zip(words[::3], words[1::3], words[2::3], strict=True):
            found[int(opcode, 16)] = (name, mode, int(cycles.rstrip("+")), cycles.endswith("+"))
    return found


INSTRUCTIONS = _read_table()  # by opcode: name, mode, cycles, whether a crossed page costs one


@dataclass
class Reference6502:
    """The documented 6502 without decimal mode, beside RAM and a program that cannot be written."""

    rom: bytes
    ram: bytearray = field(default_factory=lambda: bytearray(0x800))
    cycle: int = 7
    a: int = 0
    x: int = 0
    y: int = 0
    s: int = 0xFD
    jammed: bool = False

    def __post_init__(self) -> None:
        self.flags = {"C": 0, "Z": 0, "I": 1, "D": 0, "V": 0, "N": 0}
        self.pc = self.word(0xFFFC)

    def read(self, address: int) -> int:
        address &= 0xFFFF
        if address < 0x2000:
            return self.ram[address & 0x7FF]
        if address >= 0x8000:
            return self.rom[16 + address - 0x8000]
        raise TouchedRegisterError

    def write(self, address: int, value: int) -> None:
        address &= 0xFFFF
        if address < 0x2000:
            self.ram[address & 0x7FF] = value & 0xFF
        elif address < 0x8000:
            raise TouchedRegisterError

    def word(self, address: int) -> int:
        return self.read(address) | self.read(address + 1) << 8

    def word_in_page(self, address: int) -> int:
        following = (address & 0xFF00) | (address + 1 & 0xFF)
        return self.read(address) | self.read(following) << 8

    def push(self, value: int) -> None:
        self.ram[0x100 + self.s] = value & 0xFF
        self.s = self.s - 1 & 0xFF

    def pull(self) -> int:
        self.s = self.s + 1 & 0xFF
        return self.ram[0x100 + self.s]

    def status(self, *, by_program: bool) -> int:
        bits = {"C": 0, "Z": 1, "I": 2, "D": 3, "V": 6, "N": 7}
        return sum(self.flags[n] << b for n, b in bits.items()) | 0x20 | (0x10 * by_program)

    def set_status(self, value: int) -> None:
        self.flags = {n: value >> b & 1 for n, b in zip("CZIDVN", (0, 1, 2, 3, 6, 7), strict=True)}

    def judge(self, value: int) -> int:
        value &= 0xFF
        self.flags["Z"], self.flags["N"] = int(value == 0), value >> 7
        return value

    def locate(self, mode: str, operand: int) -> tuple[int, bool]:
        """Return the address that an instruction means, and whether a page is crossed."""
        if mode in ("zp", "abs"):
            return operand, False
        if mode in ("zpx", "zpy"):
            return (operand + (self.x if mode == "zpx" else self.y)) & 0xFF, False
        if mode == "inx":
            return self.word_in_page((operand + self.x) & 0xFF), False
        base = self.word_in_page(operand) if mode == "iny" else operand
        address = (base + (self.x if mode == "abx" else self.y)) & 0xFFFF
        return address, address >> 8 != base >> 8

    def step(self) -> None:
        """Do one instruction."""
        opcode = self.read(self.pc)
        if opcode not in INSTRUCTIONS:
            self.jammed = True
            return
        name, mode, cycles, page_costs = INSTRUCTIONS[opcode]
        size = MODES[mode]
        operand = {1: 0, 2: 0, 3: 0}[size]
        if size == 2:
            operand = self.read(self.pc + 1)
        elif size == 3:
            operand = self.word(self.pc + 1)
        begin, self.pc = self.pc, self.pc + size & 0xFFFF
        self.cycle += cycles
        if mode == "rel":
            self.branch(name, operand)
        elif name in ("JMP", "JSR", "RTS", "RTI", "BRK"):
            self.jump(name, mode, operand, begin)
        elif name in ("STA", "STX", "STY"):
            self.write(self.locate(mode, operand)[0], getattr(self, name[2].lower()))
        elif mode == "imp":
            self.implied(name)
        elif name in ("ASL", "LSR", "ROL", "ROR", "INC", "DEC"):
            if mode == "acc":
                self.a = self.modify(name, self.a)
            else:
                address = self.locate(mode, operand)[0]
                self.write(address, self.modify(name, self.read(address)))
        else:
            value = operand
            if mode != "imm":
                address, crossed = self.locate(mode, operand)
                self.cycle += int(crossed and page_costs)
                value = self.read(address)
            self.compute(name, value)

    def branch(self, name: str, operand: int) -> None:
        flag, wanted = {
            "BCC": ("C", 0), "BCS": ("C", 1), "BNE": ("Z", 0), "BEQ": ("Z", 1),
            "BPL": ("N", 0), "BMI": ("N", 1), "BVC": ("V", 0), "BVS": ("V", 1),
        }[name]  # fmt: skip
        if self.flags[flag] != wanted:
            return
        target = (self.pc + (operand ^ 0x80) - 0x80) & 0xFFFF
        self.cycle += 1 + int(target >> 8 != self.pc >> 8)
        self.pc = target

    def jump(self, name: str, mode: str, operand: int, begin: int) -> None:
        if name == "JMP":
            self.pc = operand if mode == "abs" else self.word_in_page(operand)
        elif name == "JSR":
            self.push(begin + 2 >> 8)
            self.push(begin + 2)
            self.pc = operand
        elif name == "BRK":
            self.push(begin + 2 >> 8)
            self.push(begin + 2)
            self.push(self.status(by_program=True))
            self.flags["I"] = 1
            self.pc = self.word(0xFFFE)
        else:
            if name == "RTI":
                self.set_status(self.pull())
            low = self.pull()
            self.pc = (low | self.pull() << 8) + int(name == "RTS") & 0xFFFF

    def implied(self, name: str) -> None:
        if name in ("CLC", "CLD", "CLI", "CLV", "SEC", "SED", "SEI"):
            self.flags[name[2]] = int(name.startswith("SE"))
        elif name in ("INX", "INY", "DEX", "DEY"):
            register = name[2].lower()
            change = 1 if name.startswith("IN") else -1
            setattr(self, register, self.judge(getattr(self, register) + change))
        elif name == "TXS":
            self.s = self.x
        elif name.startswith("T"):
            setattr(self, name[2].lower(), self.judge(getattr(self, name[1].lower())))
        elif name == "PHA":
            self.push(self.a)
        elif name == "PHP":
            self.push(self.status(by_program=True))
        elif name == "PLA":
            self.a = self.judge(self.pull())
        elif name == "PLP":
            self.set_status(self.pull())
        else:
            assert name == "NOP"

    def modify(self, name: str, value: int) -> int:
        if name in ("INC", "DEC"):
            return self.judge(value + (1 if name == "INC" else -1))
        carry = self.flags["C"] if name.startswith("RO") else 0
        if name.endswith("L"):  # ASL, ROL
            self.flags["C"] = value >> 7
            return self.judge(value << 1 | carry)
        if name in ("LSR", "ROR"):
            self.flags["C"] = value & 1
            return self.judge(value >> 1 | carry << 7)
        raise AssertionError(name)

    def compute(self, name: str, value: int) -> None:
        if name in ("LDA", "LDX", "LDY"):
            setattr(self, name[2].lower(), self.judge(value))
        elif name in ("AND", "ORA", "EOR"):
            operation: Callable[[int, int], int] = {
                "AND": int.__and__, "ORA": int.__or__, "EOR": int.__xor__,
            }[name]  # fmt: skip
            self.a = self.judge(operation(self.a, value))
        elif name in ("CMP", "CPX", "CPY"):
            register = self.a if name == "CMP" else getattr(self, name[2].lower())
            self.flags["C"] = int(register >= value)
            self.judge(register - value)
        elif name == "BIT":
            self.flags["Z"] = int(self.a & value == 0)
            self.flags["V"], self.flags["N"] = value >> 6 & 1, value >> 7
        else:
            signed = [(n ^ 0x80) - 0x80 for n in (self.a, value)]
            if name == "ADC":
                total = self.a + value + self.flags["C"]
                exact = signed[0] + signed[1] + self.flags["C"]
                self.flags["C"] = int(total > 0xFF)
            else:
                total = self.a - value - (1 - self.flags["C"])
                exact = signed[0] - signed[1] - (1 - self.flags["C"])
                self.flags["C"] = int(total >= 0)
            self.flags["V"] = int(not -128 <= exact <= 127)
            self.a = self.judge(total)

    def frame(self) -> None:
        """Do what fits into the first frame."""
        while not self.jammed and self.cycle * 3 < FRAME_DOTS:
            self.step()


@dataclass
class Scene:
    """What a picture is made of.

    Attributes:
        tiles: [512, 8, 8] 0 to 3.
        names: [2, 1024] two name tables and their attributes.
        palette: [32] colours, those of entries 16, 20, 24 and 28 being entries 0, 4, 8 and 12.
        sprites: [64, 4] y, tile, attributes, x.
        scroll_x, scroll_y: in pixels; 0 to 511 (vertical mirroring), 0 to 239.
        ctrl, mask: the registers, without name table and interrupt.
    """

    tiles: Array
    names: Array
    palette: Array
    sprites: Array
    scroll_x: int
    scroll_y: int
    ctrl: int
    mask: int

    def background(self) -> Array:
        """Return entries of the palette: [240, 256]; 0 where nothing is."""
        found = np.zeros((240, 256), dtype=np.int64)
        if not self.mask & 8:
            return found
        for y in range(240):
            row, fine_y = divmod((y + self.scroll_y) % 240, 8)
            for x in range(0 if self.mask & 2 else 8, 256):
                at = (x + self.scroll_x) % 512
                table = self.names[at // 256]
                column, fine_x = divmod(at % 256, 8)
                tile = int(table[row * 32 + column]) + (256 if self.ctrl & 16 else 0)
                colour = int(self.tiles[tile, fine_y, fine_x])
                attribute = int(table[960 + row // 4 * 8 + column // 4])
                shift = row % 4 // 2 * 4 + column % 4 // 2 * 2
                found[y, x] = colour and (attribute >> shift & 3) * 4 + colour
        return found

    def picture(self) -> Array:
        """Return numbers of colours: [240, 256] uint8."""
        entries = self.background()
        height = 16 if self.ctrl & 32 else 8
        for line in range(240):
            if not self.mask & 16:
                break
            rows = [(line - 1 - int(sprite[0]), sprite) for sprite in self.sprites]
            here = [(row, sprite) for row, sprite in rows if 0 <= row < height][:8]
            for row, sprite in reversed(here):  # the first is drawn last
                self._draw_sprite(entries, line, row, [int(n) for n in sprite], height)
        grey = 0x30 if self.mask & 1 else 0x3F
        return (self.palette[entries] & grey).astype(np.uint8)

    def _draw_sprite(
        self, entries: Array, line: int, row: int, sprite: Sequence[int], height: int
    ) -> None:
        _, tile, attributes, left = sprite
        if attributes & 0x80:
            row = height - 1 - row
        if height == 16:
            tile = (tile & 1) * 256 + (tile & 0xFE) + row // 8
        elif self.ctrl & 8:
            tile += 256
        pixels = self.tiles[tile, row % 8]
        if attributes & 0x40:
            pixels = pixels[::-1]
        for x, colour in enumerate(pixels.tolist(), start=left):
            if colour == 0 or x > 255 or (x < 8 and not self.mask & 4):
                continue
            entry = 16 + (attributes & 3) * 4 + colour
            # What a sprite behind the background would cover, it hides of later sprites too.
            if attributes & 0x20 and self._solid[line, x]:
                entry = int(self._solid[line, x])
            entries[line, x] = entry

    def __post_init__(self) -> None:
        self._solid = self.background()


def encode_tiles(tiles: Array) -> bytes:
    """Return two bit planes for each tile: [512, 8, 8] 0 to 3 -> 8 KB."""
    planes = [np.packbits(tiles >> plane & 1, axis=2)[:, :, 0] for plane in (0, 1)]
    return np.stack(planes, axis=1).astype(np.uint8).tobytes()


def show_scene(scene: Scene, *, wait_at: int | None = None) -> bytes:
    """Return a cartridge that shows a scene from its third frame on.

    Args:
        scene: the name tables lie side by side (vertical mirroring).
        wait_at: the low byte of a register's address. From each interrupt on, the program waits
            there until sprite 0 has not, and then until it has met the background, and counts at
            $700 and on until the next interrupt. Without, it does nothing in later frames.
    """

    def store(value: int, address: int) -> list[int]:  # LDA, STA
        return [0xA9, value, 0x8D, address & 0xFF, address >> 8]

    def copy(source: int, pages: int) -> list[int]:  # pages to $2007, through a pointer at $00
        return [
            *(0xA9, source & 0xFF, 0x85, 0x00, 0xA9, source >> 8, 0x85, 0x01, 0xA2, pages),
            *(0xA0, 0x00, 0xB1, 0x00, 0x8D, 0x07, 0x20, 0xC8, 0xD0, 0xF8, 0xE6, 0x01),
            *(0xCA, 0xD0, 0xF1),
        ]

    data = 0x9000
    names_at, palette_at, sprites_at = data, data + 0x800, data + 0x900
    # LDA $2002, BPL back: wait until nothing is drawn, twice.
    blank = [0xAD, 0x02, 0x20, 0x10, 0xFB] * 2
    program = [
        *store(0, 0x2000),
        *store(0, 0x2001),
        *blank,
        *store(0x20, 0x2006),
        *store(0x00, 0x2006),
        *copy(names_at, 8),
        *store(0x3F, 0x2006),
        *store(0x00, 0x2006),
    ]
    for index in range(32):
        program += [0xAD, (palette_at & 0xFF) + index, palette_at >> 8, 0x8D, 0x07, 0x20]
    program += blank[:5]
    program += [
        *store(0, 0x2003),
        *store(sprites_at >> 8, 0x4014),
        *store(0, 0x2006),
        *store(0, 0x2006),
        *store(scene.scroll_x & 255, 0x2005),
        *store(scene.scroll_y, 0x2005),
        *store(scene.ctrl & 0x7F | scene.scroll_x // 256, 0x2000),
        *store(scene.mask, 0x2001),
    ]
    if scene.ctrl & 0x80:
        program += store(scene.ctrl | scene.scroll_x // 256, 0x2000)
    here = ORIGIN + len(program)
    program += [0x4C, here & 0xFF, here >> 8]
    nmi = ORIGIN + len(program)
    if wait_at is not None:
        counting = nmi + 14
        program += [
            *(0xAD, wait_at, 0x20, 0x29, 0x40, 0xD0, 0xF9),  # LDA, AND #$40, BNE
            *(0xAD, wait_at, 0x20, 0x29, 0x40, 0xF0, 0xF9),  # ... BEQ
            *(0xEE, 0x00, 0x07, 0xD0, 0xFB, 0xEE, 0x01, 0x07, 0x4C, counting & 0xFF, counting >> 8),
        ]
    else:
        program += [0x40]
    image = bytearray(bytes(program).ljust(0x8000, b"\xea"))
    for at, content in (
        (names_at, scene.names.tobytes()),
        (palette_at, scene.palette.tobytes()),
        (sprites_at, scene.sprites.tobytes()),
    ):
        image[at - ORIGIN : at - ORIGIN + len(content)] = content
    return make_rom(bytes(image), nmi=nmi, tiles=encode_tiles(scene.tiles))
