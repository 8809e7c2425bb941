/* The 6502, its documented instructions, one at a time: https://www.nesdev.org/obelisk-6502-guide/
 *
 * The NES's has no decimal mode. An undocumented opcode stops it for good (`jammed`), so that a
 * program which needs one is found out. Nobody sees the order of the cycles within an instruction.
 *
 * Flags are kept apart while the CPU runs. Zero and negative follow from the last result: zero is
 * set if its low byte is 0, negative if bit 7 or bit 15 is set (PLP may set both).
 */
#include "nes.h"

enum { CARRY = 0x01, ZERO = 0x02, BREAK = 0x10, ALWAYS = 0x20, OVERFLOW = 0x40, NEGATIVE = 0x80 };
enum { INTERRUPT_OFF = 0x04, KEPT = 0x0c /* decimal, and interrupts off: of no effect here */ };
enum { NMI_VECTOR = 0xfffa, BREAK_VECTOR = 0xfffe };

/* Cycles without those for crossed pages, taken branches and sprite copies. */
static const u8 CYCLES[256] = {
    7, 6, 2, 8, 3, 3, 5, 5, 3, 2, 2, 2, 4, 4, 6, 6, 2, 5, 2, 8, 4, 4, 6, 6, 2, 4, 2, 7, 4, 4, 7, 7,
    6, 6, 2, 8, 3, 3, 5, 5, 4, 2, 2, 2, 4, 4, 6, 6, 2, 5, 2, 8, 4, 4, 6, 6, 2, 4, 2, 7, 4, 4, 7, 7,
    6, 6, 2, 8, 3, 3, 5, 5, 3, 2, 2, 2, 3, 4, 6, 6, 2, 5, 2, 8, 4, 4, 6, 6, 2, 4, 2, 7, 4, 4, 7, 7,
    6, 6, 2, 8, 3, 3, 5, 5, 4, 2, 2, 2, 5, 4, 6, 6, 2, 5, 2, 8, 4, 4, 6, 6, 2, 4, 2, 7, 4, 4, 7, 7,
    2, 6, 2, 6, 3, 3, 3, 3, 2, 2, 2, 2, 4, 4, 4, 4, 2, 6, 2, 6, 4, 4, 4, 4, 2, 5, 2, 5, 5, 5, 5, 5,
    2, 6, 2, 6, 3, 3, 3, 3, 2, 2, 2, 2, 4, 4, 4, 4, 2, 5, 2, 5, 4, 4, 4, 4, 2, 4, 2, 4, 4, 4, 4, 4,
    2, 6, 2, 8, 3, 3, 5, 5, 2, 2, 2, 2, 4, 4, 6, 6, 2, 5, 2, 8, 4, 4, 6, 6, 2, 4, 2, 7, 4, 4, 7, 7,
    2, 6, 2, 8, 3, 3, 5, 5, 2, 2, 2, 2, 4, 4, 6, 6, 2, 5, 2, 8, 4, 4, 6, 6, 2, 4, 2, 7, 4, 4, 7, 7,
};

/* What programs outside the cartridge read as instructions: RAM, and 0 (BRK) from registers. */
static u8 peek(const Nes *nes, u16 address)
{
    if (address < 0x2000)
        return nes->m.ram[address % RAM_SIZE];
    return address >= 0x8000 ? nes->cartridge->prg[address - 0x8000] : 0;
}

/* Return the cycles that a wait for a flag of the PPU spends before its last look.
 *
 * `wait: LDA $2002; AND #mask; BEQ wait` (or BNE), 9 cycles a round, sees the same until the CPU
 * is stopped for the next event. All rounds but the last before that are left out. */
static i64 skip_wait(const Nes *nes, const u8 *code, u16 pc, i64 cycle)
{
    enum { AND = 0x29, BNE = 0xd0, BEQ = 0xf0, BACK = 0xf9, ROUND = 9 };
    bool waits = pc < 0xfff0 && code[3] == AND && code[6] == BACK;
    if (!waits || (code[5] != BEQ && code[5] != BNE) || (pc + 7) >> 8 != pc >> 8)
        return 0;
    u8 mask = code[4], seen = nes->m.status & mask;
    bool again = (seen == 0) == (code[5] == BEQ);
    if (!again || (mask & STATUS_VBLANK) || nes->stop <= cycle) /* looking clears that flag */
        return 0;
    return (nes->stop - 1 - cycle) / ROUND * ROUND;
}

/* Run whole instructions as long as they begin before the cycle `until`, or leave off earlier
 * because what the CPU waits for has changed (nes->stop). */
void cpu_run(Nes *nes, i64 until)
{
    Machine *m = &nes->m;
    u8 *ram = m->ram;
    const u8 *prg = nes->cartridge->prg;
    i64 cycle = m->cycle;
    if (m->jammed) {
        m->cycle = until;
        return;
    }
    u16 pc = m->pc;
    u8 a = m->a, x = m->x, y = m->y, s = m->s;
    u8 carry = m->p & CARRY, overflow = m->p & OVERFLOW, kept = m->p & KEPT;
    unsigned result = (unsigned)(m->p & NEGATIVE) << 8 | !(m->p & ZERO);
    nes->stop = until;

#define PUSH(value) (ram[0x100 | s--] = (u8)(value))
#define POP() (ram[0x100 | ++s])
#define FLAGS()                                                                                    \
    ((u8)(carry | overflow | kept | ALWAYS | (result & 0xff ? 0 : ZERO) |                          \
          ((result | result >> 8) & NEGATIVE)))
#define SET_FLAGS(value)                                                                           \
    do {                                                                                           \
        u8 flags_ = (value);                                                                       \
        carry = flags_ & CARRY;                                                                    \
        overflow = flags_ & OVERFLOW;                                                              \
        kept = flags_ & KEPT;                                                                      \
        result = (unsigned)(flags_ & NEGATIVE) << 8 | !(flags_ & ZERO);                            \
    } while (0)

    if (m->nmi && cycle < until) {
        m->nmi = 0;
        PUSH(pc >> 8);
        PUSH(pc);
        PUSH(FLAGS());
        kept |= INTERRUPT_OFF;
        pc = (u16)(prg[NMI_VECTOR - 0x8000] | prg[NMI_VECTOR + 1 - 0x8000] << 8);
        cycle += 7;
    }

    while (cycle < nes->stop) {
        const i64 begin = cycle; /* registers see the time at which an instruction begins */
        u8 copied[3];
        const u8 *code = copied;
        if (LIKELY(pc >= 0x8000 && pc <= 0xfffd))
            code = prg + (pc - 0x8000);
        else
            for (int i = 0; i < 3; i++)
                copied[i] = peek(nes, (u16)(pc + i));
        const u8 opcode = code[0];
        cycle += CYCLES[opcode];
        u16 address;
        u8 value;

/* Memory. Names of the addressing modes are those of the guide above. */
#define READ(where) nes_read(nes, (where), begin)
#define WRITE(where, what)                                                                         \
    do {                                                                                           \
        u16 where_ = (where);                                                                      \
        u8 what_ = (what);                                                                         \
        if (where_ < 0x2000) {                                                                     \
            ram[where_ % RAM_SIZE] = what_;                                                        \
        } else if (where_ < 0x8000) {                                                              \
            i64 wait_ = nes_write_register(nes, where_, what_, begin);                             \
            if (wait_)                                                                             \
                cycle += wait_ + (cycle & 1); /* copies begin at an even cycle */                  \
        }                                                                                          \
    } while (0)
#define WORD() ((u16)(code[1] | code[2] << 8))
#define INDEXED(base_, index)                                                                      \
    do {                                                                                           \
        u16 from_ = (u16)(base_);                                                                  \
        address = (u16)(from_ + (index));                                                          \
        cycle += from_ >> 8 != address >> 8; /* a page is crossed */                               \
    } while (0)
#define POINTER(zero_page) (ram[(u8)(zero_page)] | ram[(u8)((zero_page) + 1)] << 8)

#define IMMEDIATE() (value = code[1], pc += 2)
#define ZERO_PAGE() (address = code[1], pc += 2)
#define ZERO_PAGE_X() (address = (u8)(code[1] + x), pc += 2)
#define ZERO_PAGE_Y() (address = (u8)(code[1] + y), pc += 2)
#define ABSOLUTE() (address = WORD(), pc += 3)
#define ABSOLUTE_X()                                                                               \
    do {                                                                                           \
        INDEXED(WORD(), x);                                                                        \
        pc += 3;                                                                                   \
    } while (0)
#define ABSOLUTE_Y()                                                                               \
    do {                                                                                           \
        INDEXED(WORD(), y);                                                                        \
        pc += 3;                                                                                   \
    } while (0)
#define INDIRECT_X() (address = (u16)POINTER(code[1] + x), pc += 2)
#define INDIRECT_Y()                                                                               \
    do {                                                                                           \
        INDEXED(POINTER(code[1]), y);                                                              \
        pc += 2;                                                                                   \
    } while (0)
/* Where memory is written, a crossed page costs nothing more. */
#define ABSOLUTE_X_WRITE() (address = (u16)(WORD() + x), pc += 3)
#define ABSOLUTE_Y_WRITE() (address = (u16)(WORD() + y), pc += 3)
#define INDIRECT_Y_WRITE() (address = (u16)(POINTER(code[1]) + y), pc += 2)

/* Operations on `value`. */
#define LOAD(reg) (result = (reg) = value)
#define ORA() (result = a |= value)
#define AND() (result = a &= value)
#define EOR() (result = a ^= value)
#define ADC()                                                                                      \
    do {                                                                                           \
        unsigned sum_ = a + value + carry;                                                         \
        carry = (u8)(sum_ >> 8);                                                                   \
        overflow = (u8)((~(a ^ value) & (a ^ sum_) & 0x80) >> 1);                                  \
        result = a = (u8)sum_;                                                                     \
    } while (0)
#define SBC()                                                                                      \
    do {                                                                                           \
        value ^= 0xff;                                                                             \
        ADC();                                                                                     \
    } while (0)
#define COMPARE(reg) (carry = (reg) >= value, result = (u8)((reg) - value))
#define BIT()                                                                                      \
    (overflow = value & OVERFLOW, result = (unsigned)(value & NEGATIVE) << 8 | (value & a))
#define ASL(v) (carry = (v) >> 7, result = (v) = (u8)((v) << 1))
#define LSR(v) (carry = (v) & 1, result = (v) = (v) >> 1)
#define ROL(v)                                                                                     \
    do {                                                                                           \
        u8 in_ = carry;                                                                            \
        carry = (v) >> 7;                                                                          \
        result = (v) = (u8)((v) << 1 | in_);                                                       \
    } while (0)
#define ROR(v)                                                                                     \
    do {                                                                                           \
        u8 in_ = carry;                                                                            \
        carry = (v) & 1;                                                                           \
        result = (v) = (u8)((v) >> 1 | in_ << 7);                                                  \
    } while (0)
#define INC(v) (result = (u8) ++(v))
#define DEC(v) (result = (u8) --(v))

/* Kinds of instructions, as cases of the switch. */
#define ON_MEMORY(code_, mode, operation)                                                          \
    case code_:                                                                                    \
        mode();                                                                                    \
        value = READ(address);                                                                     \
        operation;                                                                                 \
        break;
#define ON_IMMEDIATE(code_, operation)                                                             \
    case code_:                                                                                    \
        IMMEDIATE();                                                                               \
        operation;                                                                                 \
        break;
#define STORE(code_, mode, reg)                                                                    \
    case code_:                                                                                    \
        mode();                                                                                    \
        WRITE(address, reg);                                                                       \
        break;
#define IMPLIED(code_, operation)                                                                  \
    case code_:                                                                                    \
        pc += 1;                                                                                   \
        operation;                                                                                 \
        break;
#define MODIFY(code_, mode, operation)                                                             \
    case code_:                                                                                    \
        mode();                                                                                    \
        value = READ(address);                                                                     \
        operation;                                                                                 \
        WRITE(address, value);                                                                     \
        break;
#define BRANCH(code_, condition)                                                                   \
    case code_:                                                                                    \
        pc += 2;                                                                                   \
        if (condition) {                                                                           \
            u16 target = (u16)(pc + (int8_t)code[1]);                                              \
            cycle += 1 + (pc >> 8 != target >> 8);                                                 \
            pc = target;                                                                           \
        }                                                                                          \
        break;
/* The eight modes of the instructions between the accumulator and memory. */
#define ARITHMETIC(immediate, operation)                                                           \
    ON_IMMEDIATE(immediate, operation)                                                             \
    ON_MEMORY(immediate - 4, ZERO_PAGE, operation)                                                 \
    ON_MEMORY(immediate + 12, ZERO_PAGE_X, operation)                                              \
    ON_MEMORY(immediate + 4, ABSOLUTE, operation)                                                  \
    ON_MEMORY(immediate + 20, ABSOLUTE_X, operation)                                               \
    ON_MEMORY(immediate + 16, ABSOLUTE_Y, operation)                                               \
    ON_MEMORY(immediate - 8, INDIRECT_X, operation)                                                \
    ON_MEMORY(immediate + 8, INDIRECT_Y, operation)
/* The four modes, besides the accumulator, of those that change memory. */
#define MODIFYING(zero_page, operation)                                                            \
    MODIFY(zero_page, ZERO_PAGE, operation)                                                        \
    MODIFY(zero_page + 16, ZERO_PAGE_X, operation)                                                 \
    MODIFY(zero_page + 8, ABSOLUTE, operation)                                                     \
    MODIFY(zero_page + 24, ABSOLUTE_X_WRITE, operation)

        switch (opcode) {
            ARITHMETIC(0x09, ORA())
            ARITHMETIC(0x29, AND())
            ARITHMETIC(0x49, EOR())
            ARITHMETIC(0x69, ADC())
            ARITHMETIC(0xc9, COMPARE(a))
            ARITHMETIC(0xe9, SBC())

            ON_IMMEDIATE(0xa9, LOAD(a))
            ON_MEMORY(0xa5, ZERO_PAGE, LOAD(a))
            ON_MEMORY(0xb5, ZERO_PAGE_X, LOAD(a))
        case 0xad:
            ABSOLUTE();
            if (address == 0x2002 && code != copied) {
                i64 skipped = skip_wait(nes, code, (u16)(pc - 3), begin);
                value = nes_read(nes, address, begin + skipped);
                cycle += skipped;
            } else {
                value = READ(address);
            }
            LOAD(a);
            break;
            ON_MEMORY(0xbd, ABSOLUTE_X, LOAD(a))
            ON_MEMORY(0xb9, ABSOLUTE_Y, LOAD(a))
            ON_MEMORY(0xa1, INDIRECT_X, LOAD(a))
            ON_MEMORY(0xb1, INDIRECT_Y, LOAD(a))
            ON_IMMEDIATE(0xa2, LOAD(x))
            ON_MEMORY(0xa6, ZERO_PAGE, LOAD(x))
            ON_MEMORY(0xb6, ZERO_PAGE_Y, LOAD(x))
            ON_MEMORY(0xae, ABSOLUTE, LOAD(x))
            ON_MEMORY(0xbe, ABSOLUTE_Y, LOAD(x))
            ON_IMMEDIATE(0xa0, LOAD(y))
            ON_MEMORY(0xa4, ZERO_PAGE, LOAD(y))
            ON_MEMORY(0xb4, ZERO_PAGE_X, LOAD(y))
            ON_MEMORY(0xac, ABSOLUTE, LOAD(y))
            ON_MEMORY(0xbc, ABSOLUTE_X, LOAD(y))

            STORE(0x85, ZERO_PAGE, a)
            STORE(0x95, ZERO_PAGE_X, a)
            STORE(0x8d, ABSOLUTE, a)
            STORE(0x9d, ABSOLUTE_X_WRITE, a)
            STORE(0x99, ABSOLUTE_Y_WRITE, a)
            STORE(0x81, INDIRECT_X, a)
            STORE(0x91, INDIRECT_Y_WRITE, a)
            STORE(0x86, ZERO_PAGE, x)
            STORE(0x96, ZERO_PAGE_Y, x)
            STORE(0x8e, ABSOLUTE, x)
            STORE(0x84, ZERO_PAGE, y)
            STORE(0x94, ZERO_PAGE_X, y)
            STORE(0x8c, ABSOLUTE, y)

            IMPLIED(0xaa, result = x = a)
            IMPLIED(0xa8, result = y = a)
            IMPLIED(0x8a, result = a = x)
            IMPLIED(0x98, result = a = y)
            IMPLIED(0xba, result = x = s)
            IMPLIED(0x9a, s = x)
            IMPLIED(0xe8, INC(x))
            IMPLIED(0xc8, INC(y))
            IMPLIED(0xca, DEC(x))
            IMPLIED(0x88, DEC(y))

            ON_IMMEDIATE(0xe0, COMPARE(x))
            ON_MEMORY(0xe4, ZERO_PAGE, COMPARE(x))
            ON_MEMORY(0xec, ABSOLUTE, COMPARE(x))
            ON_IMMEDIATE(0xc0, COMPARE(y))
            ON_MEMORY(0xc4, ZERO_PAGE, COMPARE(y))
            ON_MEMORY(0xcc, ABSOLUTE, COMPARE(y))
            ON_MEMORY(0x24, ZERO_PAGE, BIT())
            ON_MEMORY(0x2c, ABSOLUTE, BIT())

            IMPLIED(0x0a, ASL(a))
            IMPLIED(0x4a, LSR(a))
            IMPLIED(0x2a, ROL(a))
            IMPLIED(0x6a, ROR(a))
            MODIFYING(0x06, ASL(value))
            MODIFYING(0x46, LSR(value))
            MODIFYING(0x26, ROL(value))
            MODIFYING(0x66, ROR(value))
            MODIFYING(0xe6, INC(value))
            MODIFYING(0xc6, DEC(value))

            BRANCH(0x10, !((result | result >> 8) & NEGATIVE))
            BRANCH(0x30, (result | result >> 8) & NEGATIVE)
            BRANCH(0x50, !overflow)
            BRANCH(0x70, overflow)
            BRANCH(0x90, !carry)
            BRANCH(0xb0, carry)
            BRANCH(0xd0, result & 0xff)
            BRANCH(0xf0, !(result & 0xff))

        case 0x4c: /* JMP */
            address = WORD();
            if (address == pc && cycle < nes->stop) /* it waits for an interrupt */
                cycle += (nes->stop - cycle + 2) / 3 * 3;
            pc = address;
            break;
        case 0x6c: /* JMP indirect; the pointer does not leave its page */
            address = WORD();
            value = READ(address);
            pc = (u16)(value | READ((u16)((address & 0xff00) | (u8)(address + 1))) << 8);
            break;
        case 0x20: /* JSR */
            address = WORD();
            pc += 2;
            PUSH(pc >> 8);
            PUSH(pc);
            pc = address;
            break;
        case 0x60: /* RTS */
            value = POP();
            pc = (u16)((value | POP() << 8) + 1);
            break;
        case 0x40: /* RTI */
            SET_FLAGS(POP());
            value = POP();
            pc = (u16)(value | POP() << 8);
            break;
        case 0x00: /* BRK */
            pc += 2;
            PUSH(pc >> 8);
            PUSH(pc);
            PUSH(FLAGS() | BREAK);
            kept |= INTERRUPT_OFF;
            pc = (u16)(prg[BREAK_VECTOR - 0x8000] | prg[BREAK_VECTOR + 1 - 0x8000] << 8);
            break;
            IMPLIED(0x48, PUSH(a))
            IMPLIED(0x68, result = a = POP())
            IMPLIED(0x08, PUSH(FLAGS() | BREAK))
            IMPLIED(0x28, SET_FLAGS(POP()))
            IMPLIED(0x18, carry = 0)
            IMPLIED(0x38, carry = 1)
            IMPLIED(0x58, kept &= (u8)~INTERRUPT_OFF)
            IMPLIED(0x78, kept |= INTERRUPT_OFF)
            IMPLIED(0xb8, overflow = 0)
            IMPLIED(0xd8, kept &= (u8)~0x08)
            IMPLIED(0xf8, kept |= 0x08)
            IMPLIED(0xea, (void)0)
        default:
            m->jammed = 1;
            cycle = until;
            nes->stop = 0;
            break;
        }
    }

    m->pc = pc;
    m->a = a;
    m->x = x;
    m->y = y;
    m->s = s;
    m->p = FLAGS();
    m->cycle = cycle;
}
