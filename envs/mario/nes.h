/* A console for NROM cartridges (iNES mapper 0), made for stepping many games at once.
 *
 * Whole instructions of the 6502 and whole lines of the picture, no sound. All that a game can
 * change lies in `Machine`, plain data: copying it is a snapshot. Times are counted in dots of the
 * picture, 3 to a CPU cycle, 341 to a line, 262 lines to a frame. Memory is the caller's, zeros at
 * first; nothing is allocated here.
 */
#ifndef RLAGENTS_NES_H
#define RLAGENTS_NES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef int32_t i32;
typedef int64_t i64;

#if defined(__GNUC__)
#define EXPORT __attribute__((visibility("default")))
#define LIKELY(condition) __builtin_expect(!!(condition), 1)
#else
#define EXPORT
#define LIKELY(condition) (condition)
#endif

enum { WIDTH = 256, HEIGHT = 240, DOTS_PER_LINE = 341, RAM_SIZE = 2048 };

/* Python and the library must agree on all structures and functions; core.py has the same number. */
enum { INTERFACE = 1 };

/* Why a file is refused (cartridge_init). */
enum { NOT_INES = 1, NOT_NROM = 2, WRONG_SIZE = 3 };

/* Bits of the PPU's registers. */
enum {
    CTRL_DOWN = 0x04,       /* $2007 moves by a row of tiles instead of one */
    CTRL_SPRITES_HIGH = 0x08,
    CTRL_TILES_HIGH = 0x10,
    CTRL_TALL_SPRITES = 0x20,
    CTRL_NMI = 0x80,
    MASK_GREY = 0x01,
    MASK_TILES_LEFT = 0x02, /* the background also in the 8 leftmost columns */
    MASK_SPRITES_LEFT = 0x04,
    MASK_TILES = 0x08,
    MASK_SPRITES = 0x10,
    MASK_ANY = MASK_TILES | MASK_SPRITES,
    STATUS_HIT = 0x40,      /* sprite 0 has met the background */
    STATUS_VBLANK = 0x80,
};

/* What is read only; shared by all consoles that play it. */
typedef struct {
    u8 prg[0x8000];         /* 16 KB of program appear twice */
    u8 tiles[512][8][2];    /* rows of 8 pixels: two quads of 4, 2 bits each, leftmost lowest */
    bool vertical;          /* the two name tables lie side by side */
} Cartridge;

/* Everything that a game can change, and nothing else. */
typedef struct {
    u8 ram[RAM_SIZE];
    u8 names[0x800];        /* two name tables: which tiles the background shows */
    u8 palette[32];
    u8 sprites[256];        /* 64 of y, tile, attributes, x */
    i64 cycle;              /* CPU cycles since power on */
    i64 next_frame;         /* the dot at which the next frame begins */
    u16 pc, v, t;           /* program counter; the PPU's address, now and for the next line */
    u8 a, x, y, s, p;
    u8 ctrl, mask, status, sprite_address, fine_x, second_write, read_buffer;
    u8 nmi, odd_frame;
    u8 buttons, shift, strobe;
    u8 jammed;              /* an undocumented opcode was met: the CPU has stopped */
} Machine;

/* A console: its machine, the picture, and what holds within one frame only. */
typedef struct {
    Machine m;
    u8 picture[HEIGHT][WIDTH]; /* each of the 64 colours as `shades` says */
    const Cartridge *cartridge;
    u8 shades[64];

    i64 stop;               /* the CPU leaves off at this cycle and looks around */
    i64 first_line;         /* the dot at which line 0 begins */
    i64 hit;                /* the dot at which sprite 0 will meet the background, or NEVER */
    int event;              /* next one: 2 * line at its begin, 2 * line + 1 at its dot 256 */
    bool draw;

    bool listed;            /* the lists below are those of the sprites as they are */
    u8 listed_count[HEIGHT];
    u8 listed_sprites[HEIGHT][8];

    u8 quads[4][256][4];    /* 4 pixels of the background in each of the 4 palettes, as shades */
    u8 quads_palette[16];   /* ... which were these */
    u8 quads_mask;
    bool quads_made;
} Nes;

static const i64 NEVER = INT64_MAX;
enum { EVENTS = 2 * HEIGHT };

/* cartridge.c */
EXPORT i64 cartridge_size(void);
EXPORT i32 cartridge_init(Cartridge *cartridge, const u8 *file, i64 size);

/* nes.c */
EXPORT i32 core_interface(void);
EXPORT i64 nes_size(void);
EXPORT void nes_init(Nes *nes, const Cartridge *cartridge);
EXPORT void nes_set_shades(Nes *nes, const u8 shades[64]);
EXPORT void nes_frame(Nes *nes, i32 buttons, i32 draw);
EXPORT u8 *nes_ram(Nes *nes);
EXPORT const u8 *nes_picture(const Nes *nes);
EXPORT i64 nes_state_size(void);
EXPORT void nes_save(const Nes *nes, u8 *state);
EXPORT void nes_load(Nes *nes, const u8 *state);
EXPORT i32 nes_jammed(const Nes *nes);
u8 nes_read_register(Nes *nes, u16 address, i64 cycle);
i64 nes_write_register(Nes *nes, u16 address, u8 value, i64 cycle);

/* cpu.c */
void cpu_run(Nes *nes, i64 until);

/* ppu.c */
u8 ppu_read(Nes *nes, u16 address, i64 cycle);
void ppu_write(Nes *nes, u16 address, u8 value, i64 cycle);
void ppu_catch_up(Nes *nes, i64 dot);
void ppu_changed(Nes *nes);
i64 ppu_find_hit(const Nes *nes, int line);

static inline u8 nes_read(Nes *nes, u16 address, i64 cycle)
{
    if (address < 0x2000)
        return nes->m.ram[address % RAM_SIZE];
    if (address >= 0x8000)
        return nes->cartridge->prg[address - 0x8000];
    return nes_read_register(nes, address, cycle);
}

#endif
