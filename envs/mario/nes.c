/* The console: what happens in a frame, the registers outside the PPU, snapshots. */
#include "nes.h"

#include <string.h>

i32 core_interface(void)
{
    return INTERFACE;
}

i64 nes_size(void)
{
    return sizeof(Nes);
}

/* Make a console that has just been switched on. The cartridge must outlive it. */
void nes_init(Nes *nes, const Cartridge *cartridge)
{
    Machine *m = &nes->m;
    nes->cartridge = cartridge;
    for (int colour = 0; colour < 64; colour++)
        nes->shades[colour] = (u8)colour;
    nes->event = EVENTS;
    nes->hit = NEVER;
    m->s = 0xfd;
    m->p = 0x24; /* interrupts off */
    m->pc = (u16)(cartridge->prg[0x7ffc] | cartridge->prg[0x7ffd] << 8);
    m->cycle = 7;
}

/* Choose the byte that stands for each of the 64 colours in pictures; by default its number. */
void nes_set_shades(Nes *nes, const u8 shades[64])
{
    memcpy(nes->shades, shades, 64);
    nes->quads_made = false;
}

static void run_until(Nes *nes, i64 dot)
{
    i64 cycle = (dot + 2) / 3; /* an instruction runs if it begins before the dot */
    while (nes->m.cycle < cycle)
        cpu_run(nes, cycle);
}

/* Run the CPU over the visible lines and the one after them; the PPU catches up where it must. */
static void run_lines(Nes *nes, bool draw)
{
    i64 end = nes->first_line + (HEIGHT + 1) * DOTS_PER_LINE;
    nes->event = 0;
    nes->draw = draw;
    nes->listed = false;
    nes->hit = ppu_find_hit(nes, 0);
    while (nes->m.cycle * 3 < end) {
        i64 dot = nes->hit < end ? nes->hit : end;
        cpu_run(nes, (dot + 2) / 3);
        if (nes->m.cycle * 3 >= nes->hit) {
            nes->m.status |= STATUS_HIT;
            nes->hit = NEVER;
        }
    }
    ppu_catch_up(nes, end);
    nes->m.next_frame = end;
}

/* Run one frame, from the end of a picture to the end of the next. Games work while nothing is
 * drawn (vertical blank), and the picture then shows what came of it.
 *
 * buttons: A, B, select, start, up, down, left, right from the lowest bit.
 * draw: also make the picture; all else is the same without. */
void nes_frame(Nes *nes, i32 buttons, i32 draw)
{
    Machine *m = &nes->m;
    i64 end_of_blank = m->next_frame + 20 * DOTS_PER_LINE;
    m->buttons = (u8)buttons;
    m->status |= STATUS_VBLANK;
    if (m->ctrl & CTRL_NMI)
        m->nmi = 1;
    run_until(nes, end_of_blank);
    m->status &= 0x1f;
    run_until(nes, end_of_blank + 300);
    bool rendering = m->mask & MASK_ANY;
    if (rendering)
        m->v = m->t;
    nes->first_line = end_of_blank + DOTS_PER_LINE - (rendering && m->odd_frame);
    m->odd_frame ^= 1;
    run_until(nes, nes->first_line);
    run_lines(nes, draw);
}

/* Read $2000-$7fff. */
u8 nes_read_register(Nes *nes, u16 address, i64 cycle)
{
    Machine *m = &nes->m;
    if (address < 0x4000)
        return ppu_read(nes, address, cycle);
    if (address == 0x4016) {
        if (m->strobe)
            return 0x40 | (m->buttons & 1);
        u8 button = m->shift & 1;
        m->shift = m->shift >> 1 | 0x80;
        return 0x40 | button;
    }
    return address == 0x4017 ? 0x40 : 0;
}

/* Write $2000-$7fff; return the cycles that the CPU waits. */
i64 nes_write_register(Nes *nes, u16 address, u8 value, i64 cycle)
{
    Machine *m = &nes->m;
    if (address < 0x4000) {
        ppu_write(nes, address, value, cycle);
    } else if (address == 0x4014) { /* a page becomes the sprites */
        ppu_catch_up(nes, cycle * 3);
        for (int i = 0; i < 256; i++)
            m->sprites[(u8)(m->sprite_address + i)] = nes_read(nes, (u16)(value << 8 | i), cycle);
        ppu_changed(nes);
        return 513;
    } else if (address == 0x4016) {
        m->strobe = value & 1;
        if (m->strobe)
            m->shift = m->buttons;
    }
    return 0;
}

/* The 2,048 bytes of work RAM, to be read and written between frames. */
u8 *nes_ram(Nes *nes)
{
    return nes->m.ram;
}

/* The picture drawn last: HEIGHT x WIDTH bytes. */
const u8 *nes_picture(const Nes *nes)
{
    return nes->picture[0];
}

/* Bytes of a snapshot: the machine and the picture. */
i64 nes_state_size(void)
{
    return sizeof(Machine) + HEIGHT * WIDTH;
}

void nes_save(const Nes *nes, u8 *state)
{
    memcpy(state, &nes->m, sizeof(Machine));
    memcpy(state + sizeof(Machine), nes->picture, HEIGHT * WIDTH);
}

/* Load a snapshot; bytes that were never saved do no harm. */
void nes_load(Nes *nes, const u8 *state)
{
    Machine *m = &nes->m;
    memcpy(m, state, sizeof(Machine));
    memcpy(nes->picture, state + sizeof(Machine), HEIGHT * WIDTH);
    m->fine_x &= 7;
    for (int i = 0; i < 32; i++)
        m->palette[i] &= 63;
    /* Far from where sums of times would overflow; no game has run for a thousand years. */
    const i64 longest = INT64_MAX / 8;
    if (m->cycle < 0 || m->cycle > longest || m->next_frame < 0 || m->next_frame > longest) {
        m->cycle = 0;
        m->next_frame = 0;
    }
    if (m->cycle > m->next_frame / 3 + 1000000 || m->next_frame > m->cycle * 3 + 1000000)
        m->next_frame = m->cycle * 3;
}

/* Whether the CPU has met an undocumented opcode and stands still. */
i32 nes_jammed(const Nes *nes)
{
    return nes->m.jammed;
}
