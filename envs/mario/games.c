/* Many games of Super Mario Bros., each by the rules of gym-super-mario-bros 7.4.0.
 *
 * game.py has the same rules, slow and plain, and says what they mean. A frame is drawn only if
 * somebody looks at it. Which one is the last of a cut-scene is known afterwards, so the machine
 * before each frame is kept, and a frame that was not drawn is played again to be drawn.
 */
#include "nes.h"
#include "shrink.h"

#include <stdatomic.h>
#include <string.h>

/* The RAM: addresses as in memory.py. */
enum {
    PLAYER_STATE = 0x00e, ENEMIES = 0x016, MOVE_STATE = 0x01d, X_PAGE = 0x06d, X_PIXEL = 0x086,
    Y_PAGE = 0x0b5, AREA_DATA = 0x0e7, Y_PIXEL = 0x3b8, AREA_TIMER = 0x6de, POWER = 0x756,
    LIFE = 0x75a, STAGE = 0x75c, WORLD = 0x75f, MODE = 0x770, LEVEL_TIMER = 0x7a0,
    SCORE = 0x7de, COINS = 0x7ed, CLOCK = 0x7f8,
};
enum { DYING = 0x0b, DEAD = 0x06, SLIDING = 3, BOWSER = 0x2d, FLAG = 0x31, END_OF_WORLD = 2 };
enum { NO_LIVES = 0xff, LONGEST_WAIT = 2000 /* frames */ };

/* Columns of the info. */
enum { X_POS, Y_POS, N_COINS, N_SCORE, TIME, N_LIFE, STATUS, N_WORLD, N_STAGE, FLAG_GET, COLUMNS };

/* What can go wrong in a game; 0 is nothing. */
enum { JAMMED = 1, STUCK = 2, NO_EPISODE = 3 };

/* One part of a stage with one life: within it, x means one place. */
typedef struct {
    u8 world, stage, data[2];
} Area;

typedef struct {
    Nes nes;
    Machine before;         /* the last frame */
    u8 pressed;             /* in the last frame */
    bool drawn;             /* the picture is that of the last frame */
    bool full;              /* the whole game, not one stage */
    bool over;
    i32 last[COLUMNS];      /* the info of the last frame, before anything was skipped */
    i32 problem;
    /* for the progress reward */
    Area area;
    i32 greatest_x;
    bool completed;
    /* for whether the agent gets on */
    Area place;
    i32 place_life, place_x, stalled;
    i32 life;
} Game;

/* N games, and one step of them or a part of an episode. */
typedef struct {
    Game *games;
    i32 count;
    const u8 *active;       /* [N] which are played */
    const u8 **buttons;     /* [N] -> [steps, skip] */
    const i32 *steps;       /* [N] agent steps */
    i32 skip;
    const Shrink *shrink;   /* NULL to draw nothing */
    u8 *stacks;             /* [N, stack, size, size], newest last */
    i32 stack;
    double *classic, *progress; /* [N] rewards of the last step */
    i32 *info;              /* [N, COLUMNS] of the last frame */
    u8 *over, *life_lost;   /* [N] */
    i32 *stalled;           /* [N] agent steps without a new greatest x */
    i32 *played;            /* [N] agent steps until the episode's end */
    u8 *ram;                /* [N, RAM_SIZE] at the end, or NULL */
    i32 *problems;          /* [N] */
    _Atomic i32 next;       /* the game that no thread has taken yet */
} Job;

/* Begins of episodes. */
typedef struct {
    const u8 *start;        /* a snapshot of the console */
    i32 waits;              /* frames without a button */
} Begin;

#define RAM(address) (game->nes.m.ram[address])

static int number(const Game *game, int address, int digits)
{
    int value = 0;
    for (int i = 0; i < digits; i++)
        value = 10 * value + RAM(address + i);
    return value;
}

static bool is_dying(const Game *game)
{
    return RAM(PLAYER_STATE) == DYING || RAM(Y_PAGE) > 1;
}

static bool is_completed(const Game *game)
{
    if (RAM(MODE) == END_OF_WORLD)
        return true;
    if (RAM(MOVE_STATE) != SLIDING)
        return false;
    for (int slot = 0; slot < 5; slot++)
        if (RAM(ENEMIES + slot) == BOWSER || RAM(ENEMIES + slot) == FLAG)
            return true;
    return false;
}

static bool is_cut_scene(const Game *game)
{
    int state = RAM(PLAYER_STATE);
    return state <= 5 || state == 7 || RAM(MODE) == END_OF_WORLD;
}

static int x_position(const Game *game)
{
    return 256 * RAM(X_PAGE) + RAM(X_PIXEL);
}

static void read_info(const Game *game, i32 info[COLUMNS])
{
    info[X_POS] = x_position(game);
    info[Y_POS] = (RAM(Y_PAGE) < 1 ? 510 : 255) - RAM(Y_PIXEL);
    info[N_COINS] = number(game, COINS, 2);
    info[N_SCORE] = number(game, SCORE, 6);
    info[TIME] = number(game, CLOCK, 3);
    info[N_LIFE] = RAM(LIFE);
    info[STATUS] = RAM(POWER) < 2 ? RAM(POWER) : 2;
    info[N_WORLD] = RAM(WORLD) + 1;
    info[N_STAGE] = RAM(STAGE) + 1;
    info[FLAG_GET] = is_completed(game);
}

static Area read_area(const Game *game)
{
    Area area = {RAM(WORLD), RAM(STAGE), {RAM(AREA_DATA), RAM(AREA_DATA + 1)}};
    return area;
}

static bool same_area(Area one, Area other)
{
    return one.world == other.world && one.stage == other.stage && one.data[0] == other.data[0] &&
           one.data[1] == other.data[1];
}

static void advance(Game *game, u8 buttons, bool draw)
{
    if (!draw)
        game->before = game->nes.m;
    game->pressed = buttons;
    game->drawn = draw;
    nes_frame(&game->nes, buttons, draw);
}

/* Make the picture that of the last frame. */
static void show(Game *game)
{
    if (game->drawn)
        return;
    u8 ram[RAM_SIZE]; /* written to since, perhaps */
    memcpy(ram, game->nes.m.ram, RAM_SIZE);
    game->nes.m = game->before;
    nes_frame(&game->nes, game->pressed, true);
    memcpy(game->nes.m.ram, ram, RAM_SIZE);
    game->drawn = true;
}

static double clip(double reward)
{
    return reward < -15 ? -15 : reward > 15 ? 15 : reward;
}

static int positive(int value)
{
    return value > 0 ? value : 0;
}

/* The classic reward of a frame: rewards.py has the formula. */
static double classic_reward(const i32 *last, const i32 *now, bool died)
{
    int moved = now[X_POS] - last[X_POS], ticked = now[TIME] - last[TIME];
    if (moved < -5 || moved > 5)
        moved = 0;
    return clip(moved + (ticked < 0 ? ticked : 0) - (died ? 25 : 0));
}

/* The progress reward of a frame: rewards.py has the formula, game.py what is kept. */
static double progress_reward(Game *game, const i32 *last, const i32 *now, bool died)
{
    Area area = read_area(game);
    if (!same_area(area, game->area)) {
        game->area = area;
        game->greatest_x = now[X_POS];
        game->completed = false;
    }
    int gained = now[X_POS] - game->greatest_x, ticked = now[TIME] - last[TIME];
    int coins = now[N_COINS] - last[N_COINS];
    bool completed = now[FLAG_GET] && !game->completed;
    double reward = gained > 0 && gained <= 5 ? gained : 0;
    reward += ticked < 0 ? ticked : 0;
    reward += positive(now[N_SCORE] - last[N_SCORE]) / 100.0;
    reward += positive(coins < -50 ? coins + 100 : coins) * 5;
    reward += (now[STATUS] - last[STATUS]) * 5;
    reward += completed ? 50 : 0;
    reward -= died ? 25 : 0;
    if (now[X_POS] > game->greatest_x)
        game->greatest_x = now[X_POS];
    game->completed |= completed;
    return clip(reward);
}

/* Play on to the next frame in which the player has a part; return whether that came. */
static bool skip(Game *game)
{
    if (is_dying(game)) {
        RAM(PLAYER_STATE) = DEAD;
        advance(game, 0, false);
    }
    if (game->full && RAM(MODE) == END_OF_WORLD) {
        int time = number(game, CLOCK, 3), waited = 0;
        for (; number(game, CLOCK, 3) == time; waited++) {
            if (waited == LONGEST_WAIT)
                return false;
            advance(game, 0, false);
        }
    }
    if (RAM(AREA_TIMER) > 1 && RAM(AREA_TIMER) < 255)
        RAM(AREA_TIMER) = 1;
    for (int waited = 0; is_cut_scene(game); waited++) {
        if (waited == LONGEST_WAIT)
            return false;
        RAM(LEVEL_TIMER) = 0;
        advance(game, 0, false);
    }
    return true;
}

/* Play a frame with buttons pressed, and then what the player has no part in. */
static void play_frame(Game *game, u8 buttons, bool draw, double *classic, double *progress)
{
    advance(game, buttons, draw);
    i32 now[COLUMNS];
    read_info(game, now);
    bool died = is_dying(game) || RAM(PLAYER_STATE) == DEAD;
    *classic += classic_reward(game->last, now, died);
    *progress += progress_reward(game, game->last, now, died);
    game->over = game->full ? now[N_LIFE] == NO_LIVES : died || now[FLAG_GET];
    memcpy(game->last, now, sizeof now);
    if (!game->over && !skip(game))
        game->problem = STUCK;
    if (game->nes.m.jammed)
        game->problem = JAMMED;
}

/* Count the agent steps without a new greatest x; the count begins anew with an area and a life. */
static void count_stalled(Game *game)
{
    Area place = read_area(game);
    int x = x_position(game);
    if (!same_area(place, game->place) || RAM(LIFE) != game->place_life || x > game->place_x) {
        game->place = place;
        game->place_life = RAM(LIFE);
        game->place_x = x;
        game->stalled = 0;
    } else {
        game->stalled++;
    }
}

static void begin_game(Game *game, const u8 *start)
{
    nes_load(&game->nes, start);
    read_info(game, game->last);
    game->drawn = true;
    game->area = read_area(game);
    game->greatest_x = game->last[X_POS];
    game->completed = false;
    game->over = false;
    game->problem = 0;
}

/* Put the picture on top of a stack. */
static void push(const Job *job, i32 index)
{
    Game *game = job->games + index;
    size_t area = (size_t)job->shrink->size * (size_t)job->shrink->size;
    u8 *stack = job->stacks + (size_t)index * (size_t)job->stack * area;
    show(game);
    memmove(stack, stack + area, (size_t)(job->stack - 1) * area);
    shrink_picture(job->shrink, game->nes.picture[0], stack + (size_t)(job->stack - 1) * area);
}

/* Write down how a game stands. */
static void report(const Job *job, i32 index)
{
    const Game *game = job->games + index;
    job->over[index] = game->over;
    job->stalled[index] = game->stalled;
    job->problems[index] = game->problem;
    if (job->ram)
        memcpy(job->ram + RAM_SIZE * (size_t)index, game->nes.m.ram, RAM_SIZE);
}

/* Play the steps of one game. Pictures are drawn if they are in the stack at the end. */
static void play_game(const Job *job, i32 index)
{
    Game *game = job->games + index;
    const u8 *buttons = job->buttons[index];
    i32 step = 0, steps = job->steps[index];
    for (; step < steps && !game->over && !game->problem; step++, buttons += job->skip) {
        bool draw = job->shrink && step >= steps - job->stack;
        double classic = 0, progress = 0;
        for (i32 i = 0; i < job->skip && !game->over && !game->problem; i++)
            play_frame(game, buttons[i], draw && i == job->skip - 1, &classic, &progress);
        count_stalled(game);
        job->classic[index] = classic;
        job->progress[index] = progress;
        job->life_lost[index] = !game->over && RAM(LIFE) < game->life;
        game->life = RAM(LIFE);
        if (draw)
            push(job, index);
    }
    job->played[index] = step;
    memcpy(job->info + COLUMNS * index, game->last, sizeof game->last);
    report(job, index);
}

EXPORT i64 game_size(void)
{
    return sizeof(Game);
}

/* Switch N games on; they wait for `games_begin`. */
EXPORT void games_init(Game *games, const Cartridge *cartridge, i32 count, i32 full,
                       const u8 shades[64])
{
    for (i32 index = 0; index < count; index++) {
        nes_init(&games[index].nes, cartridge);
        nes_set_shades(&games[index].nes, shades);
        games[index].full = full;
        games[index].over = true;
    }
}

/* Begin an episode in each active game: its start, frames without a button, the first picture on a
 * stack of zeros. An episode that ends meanwhile is a problem: it would end so each time. */
EXPORT void games_begin(const Job *job, const Begin *begins)
{
    for (i32 index = 0; index < job->count; index++) {
        if (!job->active[index])
            continue;
        Game *game = job->games + index;
        double nobodys = 0;
        begin_game(game, begins[index].start);
        for (i32 i = 0; i < begins[index].waits && !game->over && !game->problem; i++)
            play_frame(game, 0, i == begins[index].waits - 1, &nobodys, &nobodys);
        if (game->over)
            game->problem = NO_EPISODE;
        read_info(game, job->info + COLUMNS * index);
        game->place = read_area(game);
        game->place_life = game->life = RAM(LIFE);
        game->place_x = x_position(game);
        game->stalled = 0;
        if (job->shrink) {
            size_t bytes = (size_t)job->shrink->size * (size_t)job->shrink->size *
                           (size_t)job->stack;
            memset(job->stacks + (size_t)index * bytes, 0, bytes);
            push(job, index);
        }
        report(job, index);
    }
}

/* Take games that no other thread has taken, and play them, until none is left. */
EXPORT void games_play(Job *job)
{
    for (i32 index; (index = atomic_fetch_add(&job->next, 1)) < job->count;)
        if (job->active[index])
            play_game(job, index);
}
