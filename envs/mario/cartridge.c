/* Reading an iNES file, https://www.nesdev.org/wiki/INES: a header of 16 bytes, the program (PRG),
 * the tiles (CHR). */
#include "nes.h"

#include <string.h>

enum { HEADER = 16, PRG_BANK = 0x4000, CHR_BANK = 0x2000 };

static i32 refuse(const u8 *file, i64 size)
{
    if (size < HEADER || memcmp(file, "NES\x1a", 4) != 0)
        return NOT_INES;
    int prg_banks = file[4], chr_banks = file[5];
    bool mapper_0 = (file[6] & 0xf0) == 0 && (file[7] & 0xf0) == 0;
    bool extras = (file[6] & 0x0c) != 0; /* a trainer, or four name tables */
    if (!mapper_0 || extras || prg_banks < 1 || prg_banks > 2 || chr_banks != 1)
        return NOT_NROM;
    if (size != HEADER + prg_banks * PRG_BANK + CHR_BANK)
        return WRONG_SIZE;
    return 0;
}

/* Put the two bit planes of each row of each tile together. */
static void decode_tiles(Cartridge *cartridge, const u8 *chr)
{
    for (int tile = 0; tile < 512; tile++)
        for (int row = 0; row < 8; row++) {
            int low = chr[tile * 16 + row], high = chr[tile * 16 + 8 + row];
            for (int x = 0; x < 8; x++) {
                int colour = (low >> (7 - x) & 1) | (high >> (7 - x) & 1) << 1;
                cartridge->tiles[tile][row][x / 4] |= (u8)(colour << 2 * (x % 4));
            }
        }
}

i64 cartridge_size(void)
{
    return sizeof(Cartridge);
}

/* Read the cartridge in an iNES file; return 0, or why it is refused. */
i32 cartridge_init(Cartridge *cartridge, const u8 *file, i64 size)
{
    i32 reason = refuse(file, size);
    if (reason)
        return reason;
    int banks = file[4];
    for (int bank = 0; bank < 2; bank++)
        memcpy(cartridge->prg + bank * PRG_BANK, file + HEADER + bank % banks * PRG_BANK, PRG_BANK);
    decode_tiles(cartridge, file + HEADER + banks * PRG_BANK);
    cartridge->vertical = file[6] & 1;
    return 0;
}
