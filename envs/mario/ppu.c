/* The picture unit: registers, the background, sprites, and when sprite 0 meets the background.
 *
 * Nothing of it runs while the CPU does. It catches up when the CPU is about to change something
 * that it shows, and at the end of the frame. A line shows the state at its begin; at dot 256 the
 * address moves on to the next line. https://www.nesdev.org/wiki/PPU_scrolling has the meaning of
 * the bits of `v` and `t`: fine y (3), name table (2), coarse y (5), coarse x (5).
 */
#include "nes.h"

#include <string.h>

enum { COARSE_X = 0x001f, COARSE_Y = 0x03e0, TABLE_X = 0x0400, TABLE_Y = 0x0800, FINE_Y = 0x7000 };
enum { SPRITE_PALETTE = 0x03, SPRITE_BEHIND = 0x20, SPRITE_FLIP_X = 0x40, SPRITE_FLIP_Y = 0x80 };

/* Where a byte of the name tables lies in the 2 KB of the console. */
static inline int name_index(const Nes *nes, int address)
{
    address &= 0x0fff;
    return nes->cartridge->vertical ? address & 0x7ff
                                    : (address & 0x3ff) | (address >> 1 & 0x400);
}

static inline int palette_index(int address)
{
    address &= 0x1f;
    return (address & 0x13) == 0x10 ? address & 0x0f : address; /* $3f10, 14, 18, 1c are mirrors */
}

/* The byte of the tiles that the CPU would see: one bit plane of a row. */
static u8 tile_plane(const Nes *nes, int address)
{
    const u8 *row = nes->cartridge->tiles[address >> 4][address & 7];
    int plane = address >> 3 & 1, byte = 0;
    for (int x = 0; x < 8; x++)
        byte |= (row[x / 4] >> (2 * (x % 4) + plane) & 1) << (7 - x);
    return (u8)byte;
}

static void move_address(Machine *m)
{
    m->v = (u16)(m->v + (m->ctrl & CTRL_DOWN ? 32 : 1)) & 0x7fff;
}

static u8 read_data(Nes *nes)
{
    Machine *m = &nes->m;
    int address = m->v & 0x3fff;
    u8 value = m->read_buffer;
    if (address >= 0x3f00)
        value = m->palette[palette_index(address)];
    m->read_buffer = address < 0x2000 ? tile_plane(nes, address)
                                      : m->names[name_index(nes, address)];
    move_address(m);
    return value;
}

static void write_data(Nes *nes, u8 value)
{
    Machine *m = &nes->m;
    int address = m->v & 0x3fff;
    if (address >= 0x3f00)
        m->palette[palette_index(address)] = value & 63;
    else if (address >= 0x2000)
        m->names[name_index(nes, address)] = value;
    move_address(m);
}

/* Read $2000-$3fff in an instruction that began at `cycle`. */
u8 ppu_read(Nes *nes, u16 address, i64 cycle)
{
    Machine *m = &nes->m;
    switch (address & 7) {
    case 2: {
        u8 status = m->status;
        m->status &= 0x7f;
        m->second_write = 0;
        return status;
    }
    case 4:
        return m->sprites[m->sprite_address];
    case 7: {
        ppu_catch_up(nes, cycle * 3);
        u8 value = read_data(nes);
        ppu_changed(nes);
        return value;
    }
    default:
        return 0;
    }
}

/* Write $2000-$3fff in an instruction that began at `cycle`. */
void ppu_write(Nes *nes, u16 address, u8 value, i64 cycle)
{
    Machine *m = &nes->m;
    ppu_catch_up(nes, cycle * 3);
    switch (address & 7) {
    case 0:
        if ((value & CTRL_NMI) && !(m->ctrl & CTRL_NMI) && (m->status & STATUS_VBLANK)) {
            m->nmi = 1;
            nes->stop = 0;
        }
        m->ctrl = value;
        m->t = (u16)((m->t & ~(TABLE_X | TABLE_Y)) | (value & 3) << 10);
        break;
    case 1:
        m->mask = value;
        break;
    case 3:
        m->sprite_address = value;
        break;
    case 4:
        m->sprites[m->sprite_address++] = value;
        break;
    case 5:
        if (!m->second_write) {
            m->t = (u16)((m->t & ~COARSE_X) | value >> 3);
            m->fine_x = value & 7;
        } else {
            m->t = (u16)((m->t & ~(FINE_Y | COARSE_Y)) | (value & 7) << 12 | (value & 0xf8) << 2);
        }
        m->second_write ^= 1;
        break;
    case 6:
        if (!m->second_write) {
            m->t = (u16)((m->t & 0x00ff) | (value & 0x3f) << 8);
        } else {
            m->t = (u16)((m->t & 0xff00) | value);
            m->v = m->t;
        }
        m->second_write ^= 1;
        break;
    case 7:
        write_data(nes, value);
        break;
    default:
        break;
    }
    ppu_changed(nes);
}

/* The address for the next line: one row down, and back to the left edge that `t` has. */
static u16 next_line(u16 v, u16 t)
{
    if ((v & FINE_Y) != FINE_Y) {
        v += 0x1000;
    } else {
        int row = (v & COARSE_Y) >> 5;
        v &= (u16) ~(FINE_Y | COARSE_Y);
        if (row == 29)
            v ^= TABLE_Y;
        else if (row != 31) /* rows 30 and 31 are attributes shown as tiles, then it wraps */
            v |= (u16)((row + 1) << 5);
    }
    return (u16)((v & ~(COARSE_X | TABLE_X)) | (t & (COARSE_X | TABLE_X)));
}

/* The row of a tile of the background: two quads of pixels. */
static inline const u8 *tile_row(const Nes *nes, int tile, int v)
{
    int half = nes->m.ctrl & CTRL_TILES_HIGH ? 256 : 0;
    return nes->cartridge->tiles[half + tile][v >> 12 & 7];
}

static inline int pixel(const u8 *quads, int x)
{
    return quads[x >> 2] >> 2 * (x & 3) & 3;
}

/* The colour, 0 (none) to 3, of the background at column x of the line of `v`. */
static int background(const Nes *nes, int v, int x)
{
    if (!(nes->m.mask & MASK_TILES) || (x < 8 && !(nes->m.mask & MASK_TILES_LEFT)))
        return 0;
    int column = (v & COARSE_X) + ((x + nes->m.fine_x) >> 3);
    int address = (v & 0x0fe0) | (column & 31);
    if (column > 31)
        address ^= TABLE_X;
    u8 tile = nes->m.names[name_index(nes, address)];
    return pixel(tile_row(nes, tile, v), (x + nes->m.fine_x) & 7);
}

/* The row of sprite `index` that lies in `line`, or NULL: two quads of pixels, not yet flipped. */
static const u8 *sprite_row(const Nes *nes, int index, int line)
{
    const u8 *sprite = nes->m.sprites + 4 * index;
    int height = nes->m.ctrl & CTRL_TALL_SPRITES ? 16 : 8;
    int row = line - 1 - sprite[0];
    if (row < 0 || row >= height)
        return NULL;
    if (sprite[2] & SPRITE_FLIP_Y)
        row = height - 1 - row;
    int tile = sprite[1];
    if (height == 16)
        tile = (tile & 1) << 8 | (tile & 0xfe) | row >> 3;
    else if (nes->m.ctrl & CTRL_SPRITES_HIGH)
        tile += 256;
    return nes->cartridge->tiles[tile][row & 7];
}

static inline i64 line_dot(const Nes *nes, int line)
{
    return nes->first_line + (i64)line * DOTS_PER_LINE;
}

/* Return the dot at which sprite 0 meets the background in `line` or later, if nothing changes. */
i64 ppu_find_hit(const Nes *nes, int line)
{
    const Machine *m = &nes->m;
    const u8 *sprite = m->sprites;
    if ((m->mask & MASK_ANY) != MASK_ANY)
        return NEVER;
    u16 v = m->v;
    if (nes->event & 1) /* the line under way has not moved on yet */
        v = next_line(v, m->t);
    for (; line < HEIGHT && line <= sprite[0] + 16; line++, v = next_line(v, m->t)) {
        const u8 *row = sprite_row(nes, 0, line);
        if (!row)
            continue;
        for (int i = 0; i < 8 && sprite[3] + i < 255; i++) {
            int x = sprite[3] + i;
            if (!pixel(row, sprite[2] & SPRITE_FLIP_X ? 7 - i : i))
                continue;
            if (background(nes, v, x) && (x >= 8 || (m->mask & MASK_SPRITES_LEFT)))
                return line_dot(nes, line) + x + 1;
        }
    }
    return NEVER;
}

/* Look again when sprite 0 will meet the background: something that it depends on has changed. */
void ppu_changed(Nes *nes)
{
    nes->listed = false;
    if (nes->event >= EVENTS || (nes->m.status & STATUS_HIT))
        return;
    int line = (nes->event + 1) / 2; /* the first that has not begun */
    if (nes->hit < line_dot(nes, line))
        return;
    nes->hit = ppu_find_hit(nes, line);
    nes->stop = 0;
}

/* Make the background's quads in the palettes as they are now, unless they are made. */
static void make_quads(Nes *nes)
{
    const Machine *m = &nes->m;
    u8 grey = m->mask & MASK_GREY;
    if (nes->quads_made && nes->quads_mask == grey && !memcmp(nes->quads_palette, m->palette, 16))
        return;
    for (int palette = 0; palette < 4; palette++) {
        u8 colours[4];
        for (int i = 0; i < 4; i++)
            colours[i] = nes->shades[m->palette[i ? 4 * palette + i : 0] & (grey ? 0x30 : 0x3f)];
        for (int quad = 0; quad < 256; quad++)
            for (int i = 0; i < 4; i++)
                nes->quads[palette][quad][i] = colours[quad >> 2 * i & 3];
    }
    memcpy(nes->quads_palette, m->palette, 16);
    nes->quads_mask = grey;
    nes->quads_made = true;
}

/* Draw the tiles of one row of a name table: columns `first` up to `end`. */
static u8 *draw_tiles(const Nes *nes, u8 *out, int v, int first, int end)
{
    const u8 *names = nes->m.names + name_index(nes, v & (TABLE_X | TABLE_Y));
    const u8 *tiles = names + (v & COARSE_Y);
    const u8 *attributes = names + 0x3c0 + (v >> 4 & 0x38); /* each for 4 x 4 tiles */
    int shift = v >> 4 & 4;
    for (int column = first; column < end; column++, out += 8) {
        int palette = attributes[column >> 2] >> (shift | (column & 2)) & 3;
        const u8 *row = tile_row(nes, tiles[column], v);
        memcpy(out, nes->quads[palette][row[0]], 4);
        memcpy(out + 4, nes->quads[palette][row[1]], 4);
    }
    return out;
}

static void draw_background(const Nes *nes, u8 *line)
{
    const Machine *m = &nes->m;
    u8 nothing = nes->quads[0][0][0];
    if (!(m->mask & MASK_TILES)) {
        memset(line, nothing, WIDTH);
        return;
    }
    u8 tiles[33 * 8];
    int first = m->v & COARSE_X;
    u8 *rest = draw_tiles(nes, tiles, m->v, first, 32);
    draw_tiles(nes, rest, m->v ^ TABLE_X, 0, first + 1);
    memcpy(line, tiles + m->fine_x, WIDTH);
    if (!(m->mask & MASK_TILES_LEFT))
        memset(line, nothing, 8);
}

/* List the first 8 sprites of each line; the console shows no more. */
static void list_sprites(Nes *nes)
{
    int height = nes->m.ctrl & CTRL_TALL_SPRITES ? 16 : 8;
    memset(nes->listed_count, 0, HEIGHT);
    for (int index = 0; index < 64; index++) {
        int top = nes->m.sprites[4 * index] + 1;
        for (int line = top; line < top + height && line < HEIGHT; line++)
            if (nes->listed_count[line] < 8)
                nes->listed_sprites[line][nes->listed_count[line]++] = (u8)index;
    }
    nes->listed = true;
}

/* Draw the sprites of a line. The first in the list that is not transparent at a column decides,
 * also where it then hides behind the background. */
static void draw_sprites(const Nes *nes, int line, u8 *out)
{
    const Machine *m = &nes->m;
    u8 taken[WIDTH] = {0};
    if (!(m->mask & MASK_SPRITES_LEFT))
        memset(taken, 1, 8);
    for (int i = 0; i < nes->listed_count[line]; i++) {
        int index = nes->listed_sprites[line][i];
        const u8 *sprite = m->sprites + 4 * index, *row = sprite_row(nes, index, line);
        const u8 *colours = m->palette + 16 + 4 * (sprite[2] & SPRITE_PALETTE);
        for (int column = 0; column < 8; column++) {
            int x = sprite[3] + column;
            int colour = pixel(row, sprite[2] & SPRITE_FLIP_X ? 7 - column : column);
            if (!colour || x >= WIDTH || taken[x])
                continue;
            taken[x] = 1;
            if (!(sprite[2] & SPRITE_BEHIND) || !background(nes, m->v, x))
                out[x] = nes->shades[colours[colour] & (m->mask & MASK_GREY ? 0x30 : 0x3f)];
        }
    }
}

static void draw_line(Nes *nes, int line)
{
    make_quads(nes);
    draw_background(nes, nes->picture[line]);
    if (!(nes->m.mask & MASK_SPRITES))
        return;
    if (!nes->listed)
        list_sprites(nes);
    if (nes->listed_count[line])
        draw_sprites(nes, line, nes->picture[line]);
}

/* Do what the PPU has done up to and at `dot`. */
void ppu_catch_up(Nes *nes, i64 dot)
{
    Machine *m = &nes->m;
    for (; nes->event < EVENTS; nes->event++) {
        int line = nes->event / 2;
        bool begins = nes->event % 2 == 0;
        if (line_dot(nes, line) + (begins ? 0 : 256) > dot)
            return;
        if (begins && nes->draw)
            draw_line(nes, line);
        if (!begins && (m->mask & MASK_ANY))
            m->v = next_line(m->v, m->t);
    }
}
