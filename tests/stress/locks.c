/* SPDX-License-Identifier: MIT */
/*
 * Locks, semaphores, conditions, events, barriers and memory among processes that are killed.
 *
 * Books, outside of the arena, for each object:
 *
 *   lock, rlock   guard: the seat within, by exchange; a second one is only found there by who is told BROOD_OWNER_DIED.
 *                 count: raised by load and store within; done[seat]: raised just before it.
 *                 sum of done - dead within the section ≤ count ≤ sum of done
 *   semaphore     holders: a word with a bit per seat that holds a token (low half) and per seat that is being killed (high half), so
 *                 that one atomic operation says how many hold one for certain
 *   condition     tickets, given and taken under its lock; given - taken = tickets, but for the dead within the section
 *   barrier       how often each order of arrival was given out: equally often, but for the dead
 *   memory        blocks are filled, handed over through a table, checked and freed by another seat; a death may lose one
 */
#include "stress.h"

enum check { PROCESSES, EXCLUSION, COUNTS, TOKENS, TICKETS, ARRIVALS, MEMORY, CALLS, ARENA, CHECKS };
static const char *const checks[CHECKS] = {
    [PROCESSES] = "processes end as they should, and none is left",
    [EXCLUSION] = "a lock has one holder, and a second one only hears of a death after a death",
    [COUNTS] = "counters under locks are exact but for the dead",
    [TOKENS] = "semaphores never have more holders than tokens, and all tokens at the end",
    [TICKETS] = "what is given under a condition is taken once, and nobody sleeps on",
    [ARRIVALS] = "barriers give out each order of arrival equally often, but for the dead",
    [MEMORY] = "shared memory holds what was written to it",
    [CALLS] = "no call fails for a reason it should not have",
    [ARENA] = "nothing is left in the arena",
};

enum {
    SEATS = 9,
    LOCKS = 3,
    RLOCKS = 2,
    SECTIONS = LOCKS + RLOCKS,
    SEMAPHORES = 3,
    SHARED_BLOCKS = 8,
    PARTIES_MOST = 4,
    ROUND_MS = 1300
};

struct section_shm {
    _Atomic uint32_t guard; /* seat + 1 of who is within */
    _Atomic uint64_t count; /* by load and store: what the lock protects */
    _Atomic uint64_t done[SEATS];
    _Atomic uint32_t within[SEATS]; /* 1: the seat may have raised done and not count */
    _Atomic uint64_t dead_within;
};

struct books_shm {
    struct section_shm sections[SECTIONS];
    _Atomic uint64_t holders[SEMAPHORES];
    struct section_shm tickets; /* count: tickets now; done: given; guard unused */
    _Atomic uint64_t given[SEATS], taken[SEATS];
    _Atomic uint32_t in_tickets[SEATS];
    _Atomic uint64_t dead_in_tickets, all_deaths;
    _Atomic uint64_t arrivals[PARTIES_MOST];
    _Atomic uint64_t trips, breaks;
    _Atomic(uint64_t *) blocks[SHARED_BLOCKS];
    _Atomic uint64_t operations;
};

static struct books_shm *books;
static brood_lock *locks[LOCKS];
static brood_rlock *rlocks[RLOCKS];
static brood_semaphore *semaphores[SEMAPHORES];
static uint32_t tokens[SEMAPHORES];
static brood_condition *condition;
static brood_event *event;
static brood_barrier *barrier;
static uint32_t parties;
static uint64_t all_operations;

struct player {
    uint32_t seat;
    uint64_t random;
};

static int64_t choose_deadline(uint64_t *random)
{
    switch (below(random, 4)) {
    case 0:
        return BROOD_NOW;
    case 1:
        return brood_after_ms(below(random, 20));
    default:
        return BROOD_FOREVER;
    }
}

/* 1 when it is held now, 0 when the deadline passed. */
static int is_acquired(int error, int64_t deadline, const char *what)
{
    if (error == 0 || error == BROOD_OWNER_DIED)
        return 1;
    expect(CALLS, error == -ETIMEDOUT && deadline != BROOD_FOREVER, "%s: acquire: %d: %s", what, error,
           brood_error_text());
    return 0;
}

static void expect_0(int error, const char *what)
{
    expect(CALLS, error == 0, "%s: %d: %s", what, error, brood_error_text());
}

/* Gives others a chance to come between. */
static void dawdle(struct player *player)
{
    if (below(&player->random, 16) == 0)
        sched_yield();
    if (below(&player->random, 64) == 0)
        pause_us(below(&player->random, 500));
}

/* --- locks --- */

static void work_within(struct player *player, struct section_shm *section, int acquired, const char *what)
{
    uint32_t before = atomic_exchange(&section->guard, player->seat + 1);

    expect(EXCLUSION, before == 0 || acquired == BROOD_OWNER_DIED,
           "%s: seat %u comes in while seat %u is within", what, player->seat, before - 1);
    bri_store_seq_cst(&section->within[player->seat], 1u);
    uint64_t count = bri_load_relaxed(&section->count);
    bri_add_relaxed(&section->done[player->seat], UINT64_C(1));
    dawdle(player);
    bri_store_relaxed(&section->count, count + 1);
    bri_store_seq_cst(&section->within[player->seat], 0u);
    before = atomic_exchange(&section->guard, 0u);
    expect(EXCLUSION, before == player->seat + 1, "%s: seat %u finds %d within when it leaves", what,
           player->seat, (int)before - 1);
}

static void use_lock(struct player *player)
{
    uint32_t i = below(&player->random, LOCKS);
    int64_t deadline = choose_deadline(&player->random);

    now_doing(player->seat, "lock");
    int acquired = brood_lock_acquire(locks[i], deadline);
    if (!is_acquired(acquired, deadline, "lock"))
        return;
    work_within(player, &books->sections[i], acquired, "lock");
    if (i + 1 < LOCKS && below(&player->random, 4) == 0) { /* in order, so that nobody waits in a ring */
        int second = brood_lock_acquire(locks[i + 1], BROOD_FOREVER);
        if (is_acquired(second, BROOD_FOREVER, "second lock")) {
            work_within(player, &books->sections[i + 1], second, "second lock");
            expect_0(brood_lock_release(locks[i + 1]), "second lock: release");
        }
    }
    expect_0(brood_lock_release(locks[i]), "lock: release");
}

static void use_rlock(struct player *player)
{
    uint32_t i = below(&player->random, RLOCKS), depth = 1 + below(&player->random, 3);
    int64_t deadline = choose_deadline(&player->random);

    now_doing(player->seat, "rlock");
    int acquired = brood_rlock_acquire(rlocks[i], deadline);
    if (!is_acquired(acquired, deadline, "rlock"))
        return;
    for (uint32_t n = 1; n < depth; n++)
        expect_0(brood_rlock_acquire(rlocks[i], BROOD_NOW), "rlock: once more");
    work_within(player, &books->sections[LOCKS + i], acquired, "rlock");
    for (uint32_t n = 0; n < depth; n++)
        expect_0(brood_rlock_release(rlocks[i]), "rlock: release");
}

/* --- semaphores --- */

static void use_semaphore(struct player *player)
{
    uint32_t i = below(&player->random, SEMAPHORES);
    uint64_t own = UINT64_C(1) << player->seat;
    int64_t deadline = choose_deadline(&player->random);

    now_doing(player->seat, "semaphore");
    if (!is_acquired(brood_semaphore_acquire(semaphores[i], deadline), deadline, "semaphore"))
        return;
    uint64_t holders = bri_or_seq_cst(&books->holders[i], own) | own;
    int certain = __builtin_popcountll(holders & ~(holders >> 32) & UINT32_MAX);
    expect(TOKENS, certain <= (int)tokens[i], "semaphore %u: %d hold one of its %u tokens", i, certain,
           tokens[i]);
    dawdle(player);
    atomic_fetch_and(&books->holders[i], ~own);
    expect_0(brood_semaphore_release(semaphores[i]), "semaphore: release");
}

/* --- condition --- */

static void change_tickets(struct player *player, int by)
{
    _Atomic uint64_t *note = by > 0 ? &books->given[player->seat] : &books->taken[player->seat];

    bri_store_seq_cst(&books->in_tickets[player->seat], 1u);
    uint64_t tickets = bri_load_relaxed(&books->tickets.count);
    bri_add_relaxed(note, UINT64_C(1));
    dawdle(player);
    bri_store_relaxed(&books->tickets.count, tickets + (uint64_t)(int64_t)by);
    bri_store_seq_cst(&books->in_tickets[player->seat], 0u);
}

static void give_ticket(struct player *player)
{
    now_doing(player->seat, "condition: gives");
    if (!is_acquired(brood_condition_acquire(condition, BROOD_FOREVER), BROOD_FOREVER, "condition"))
        return;
    change_tickets(player, 1);
    int woken = brood_condition_notify(condition, 1);
    expect(CALLS, woken == 0 || woken == 1, "condition: notify(1) woke %d: %s", woken, brood_error_text());
    expect_0(brood_condition_release(condition), "condition: release");
}

static void take_ticket(struct player *player)
{
    int64_t deadline = choose_deadline(&player->random);
    int waited = 0;

    now_doing(player->seat, "condition: takes");
    if (!is_acquired(brood_condition_acquire(condition, BROOD_FOREVER), BROOD_FOREVER, "condition"))
        return;
    while (waited >= 0 && bri_load_relaxed(&books->tickets.count) == 0 && !is_stopping()) {
        waited = brood_condition_wait(condition, deadline);
        expect(CALLS, waited >= 0 || (waited == -ETIMEDOUT && deadline != BROOD_FOREVER),
               "condition: wait: %d: %s", waited, brood_error_text());
    }
    if (bri_load_relaxed(&books->tickets.count) > 0)
        change_tickets(player, -1);
    expect_0(brood_condition_release(condition), "condition: release");
}

static void use_condition(struct player *player)
{
    if (bri_load_relaxed(&books->tickets.count) > 5 || below(&player->random, 2))
        take_ticket(player);
    else
        give_ticket(player);
}

/* --- event and barrier --- */

/* The controller sets the event now and then, so that nobody waits for ever. */
static void use_event(struct player *player)
{
    int64_t deadline = choose_deadline(&player->random);
    int error = 0;

    now_doing(player->seat, "event");
    switch (below(&player->random, 4)) {
    case 0:
        expect_0(brood_event_set(event), "event: set");
        break;
    case 1:
        expect_0(brood_event_clear(event), "event: clear");
        break;
    default:
        error = brood_event_wait(event, deadline);
        expect(CALLS, error == 0 || (error == -ETIMEDOUT && deadline != BROOD_FOREVER), "event: wait: %d: %s",
               error, brood_error_text());
    }
    error = brood_event_is_set(event);
    expect(CALLS, error == 0 || error == 1, "event: is_set: %d", error);
}

static void use_barrier(struct player *player)
{
    int64_t deadline =
        below(&player->random, 3) == 0 ? BROOD_FOREVER : brood_after_ms(5 + below(&player->random, 100));

    now_doing(player->seat, "barrier");
    int order = brood_barrier_wait(barrier, deadline);
    if (order >= 0 && order < (int)parties) {
        bri_add_relaxed(&books->arrivals[order], UINT64_C(1));
        return;
    }
    expect(ARRIVALS, order == -EPIPE || (order == -ETIMEDOUT && deadline != BROOD_FOREVER),
           "barrier: wait: %d: %s", order, brood_error_text());
    bri_add_relaxed(&books->breaks, UINT64_C(1));
    if (!is_stopping() && brood_barrier_is_broken(barrier) == 1)
        expect_0(brood_barrier_reset(barrier), "barrier: reset");
}

/* --- memory --- */

static uint64_t pattern_of(const uint64_t *block, uint64_t i)
{
    return block[0] ^ (i * UINT64_C(0x9e3779b97f4a7c15));
}

/* word 0: a number; word 1: how many words; the rest follows from them. */
static uint64_t *make_block(struct player *player)
{
    static const uint32_t most[] = {8, 60, 700, 5000, 40000};
    uint64_t words = 2 + below(&player->random, most[below(&player->random, 5)]);
    void *memory;
    int error = brood_alloc(words * sizeof(uint64_t), &memory);

    if (error < 0) {
        complain(CALLS, "brood_alloc of %llu words: %d: %s", (unsigned long long)words, error,
                 brood_error_text());
        return NULL;
    }
    uint64_t *block = memory;
    for (uint64_t i = 0; i < words; i++)
        if (block[i] != 0) {
            complain(MEMORY, "word %llu of a new block is not 0", (unsigned long long)i);
            break;
        }
    block[0] = next_random(&player->random);
    block[1] = words;
    for (uint64_t i = 2; i < words; i++)
        block[i] = pattern_of(block, i);
    return block;
}

static void check_block(const uint64_t *block)
{
    for (uint64_t i = 2; i < block[1]; i++)
        if (block[i] != pattern_of(block, i)) {
            complain(MEMORY, "word %llu of a block of %llu is not what was written", (unsigned long long)i,
                     (unsigned long long)block[1]);
            return;
        }
}

static void use_memory(struct player *player)
{
    now_doing(player->seat, "memory");
    bri_store_seq_cst(&notes_of(player->seat)->uncertain,
                      2u); /* the new one, and the one taken from the table */
    uint64_t *block = make_block(player);
    if (block != NULL)
        block = atomic_exchange(&books->blocks[below(&player->random, SHARED_BLOCKS)], block);
    if (block != NULL) {
        check_block(block);
        expect_0(brood_free(block), "brood_free");
    }
    bri_store_seq_cst(&notes_of(player->seat)->uncertain, 0u);
}

/* --- players --- */

static void play(uint32_t seat, uint32_t life, uint64_t random)
{
    static void (*const uses[])(struct player * player) = {
        use_lock,  use_lock,      use_rlock,     use_semaphore, use_semaphore,
        use_event, use_condition, use_condition, use_barrier,   use_memory};
    struct player player = {.seat = seat, .random = random};

    (void)life;
    while (!is_stopping()) {
        uses[below(&player.random, sizeof uses / sizeof uses[0])](&player);
        bri_add_relaxed(&books->operations, UINT64_C(1));
    }
}

/* --- the controller --- */

static void make_objects(void)
{
    int error = 0;

    parties = 2 + below(&stress.random, PARTIES_MOST - 1);
    for (uint32_t i = 0; i < LOCKS; i++)
        error |= brood_lock_create(&locks[i]);
    for (uint32_t i = 0; i < RLOCKS; i++)
        error |= brood_rlock_create(&rlocks[i]);
    for (uint32_t i = 0; i < SEMAPHORES; i++) {
        tokens[i] = 1 + below(&stress.random, 4);
        error |= i % 2 ? brood_semaphore_create(tokens[i], &semaphores[i])
                       : brood_semaphore_create_bounded(tokens[i], &semaphores[i]);
    }
    error |= brood_condition_create(NULL, &condition);
    error |= brood_event_create(&event);
    error |= brood_barrier_create(parties, &barrier);
    expect_0(error, "create");
}

/* Its bits are taken away by one operation: it neither holds a token nor is it being killed. */
static void settle_books(uint32_t seat)
{
    for (uint32_t i = 0; i < SEMAPHORES; i++)
        atomic_fetch_and(&books->holders[i], ~(UINT64_C(0x100000001) << seat));
    for (uint32_t i = 0; i < SECTIONS; i++)
        bri_add_relaxed(&books->sections[i].dead_within,
                        (uint64_t)atomic_exchange(&books->sections[i].within[seat], 0u));
    bri_add_relaxed(&books->dead_in_tickets, (uint64_t)atomic_exchange(&books->in_tickets[seat], 0u));
    bri_add_relaxed(&books->all_deaths, UINT64_C(1));
}

static uint32_t lost_blocks;

static void kill_and_replace(uint32_t seat)
{
    for (uint32_t i = 0; i < SEMAPHORES; i++)
        bri_or_seq_cst(&books->holders[i], UINT64_C(0x100000000) << seat);
    if (stress.seats[seat].pid != 0)
        kill_seat(seat);
    lost_blocks += uncertain_in(seat);
    settle_books(seat);
    fill_seat(seat);
}

/* Whom the others depend on now and then: it is not killed. */
static void help(void)
{
    struct player player = {.seat = 0};

    expect_0(brood_event_set(event), "event: set");
    if (!is_acquired(brood_condition_acquire(condition, brood_after_ms(ENDS_WITHIN_MS)), BROOD_FOREVER,
                     "the controller's condition"))
        return;
    uint64_t tickets = bri_load_relaxed(&books->tickets.count);
    bri_add_relaxed(&books->tickets.done[player.seat], UINT64_C(1));
    bri_store_relaxed(&books->tickets.count, tickets + 1);
    brood_condition_notify(condition, is_stopping() ? UINT32_MAX : 1);
    expect_0(brood_condition_release(condition), "condition: release");
}

static void hammer(void)
{
    int64_t end = brood_after_ms(ROUND_MS);

    while (bri_now_ns() < end && !has_failed()) {
        pause_us(1000 + below(&stress.random, 12000));
        kill_and_replace(below(&stress.random, SEATS));
        help();
        for (uint32_t i = 0; i < SEATS; i++)
            if (try_to_empty(i, 0, BROOD_NOW)) {
                complain(PROCESSES, "seat %u left before the end", i);
                fill_seat(i);
            }
    }
}

/* Those who wait for somebody who has left already. */
static void nudge(void)
{
    help();
    expect_0(brood_barrier_abort(barrier), "barrier: abort");
}

static void check_sections(void)
{
    for (uint32_t i = 0; i < SECTIONS; i++) {
        struct section_shm *section = &books->sections[i];
        uint64_t done = 0, count = bri_load_relaxed(&section->count),
                 dead = bri_load_relaxed(&section->dead_within);
        for (uint32_t seat = 0; seat < SEATS; seat++)
            done += bri_load_relaxed(&section->done[seat]);
        expect(COUNTS, count <= done && done <= count + dead,
               "section %u: count is %llu, done %llu times, %llu died within", i, (unsigned long long)count,
               (unsigned long long)done, (unsigned long long)dead);
    }
}

static void check_tickets(void)
{
    int64_t balance = (int64_t)bri_load_relaxed(&books->tickets.done[0]),
            count = (int64_t)bri_load_relaxed(&books->tickets.count);
    int64_t dead = (int64_t)bri_load_relaxed(&books->dead_in_tickets);

    for (uint32_t seat = 0; seat < SEATS; seat++)
        balance +=
            (int64_t)bri_load_relaxed(&books->given[seat]) - (int64_t)bri_load_relaxed(&books->taken[seat]);
    expect(TICKETS, count >= 0 && llabs(balance - count) <= dead,
           "%lld tickets are there, %lld should be, %lld died within", (long long)count, (long long)balance,
           (long long)dead);
}

static void check_arrivals(void)
{
    uint64_t least = UINT64_MAX, most = 0, deaths = bri_load_relaxed(&books->all_deaths);

    for (uint32_t i = 0; i < parties; i++) {
        uint64_t times = bri_load_relaxed(&books->arrivals[i]);
        least = times < least ? times : least;
        most = times > most ? times : most;
    }
    expect(ARRIVALS, most - least <= deaths,
           "orders of arrival were given out %llu to %llu times, with %llu deaths", (unsigned long long)least,
           (unsigned long long)most, (unsigned long long)deaths);
}

static void free_blocks(void)
{
    uint32_t forgotten = 0;

    for (uint32_t i = 0; i < SHARED_BLOCKS; i++) {
        uint64_t *block = atomic_exchange(&books->blocks[i], NULL);
        if (block != NULL) {
            check_block(block);
            expect_0(brood_free(block), "brood_free");
        }
    }
    bri_heap_walk(free_user_block, &forgotten);
    expect(MEMORY, forgotten <= lost_blocks, "%u blocks were lost, the dead may have lost %u", forgotten,
           lost_blocks);
}

static void destroy_objects(void)
{
    for (uint32_t i = 0; i < LOCKS; i++)
        expect_0(brood_lock_destroy(locks[i]), "lock: destroy");
    for (uint32_t i = 0; i < RLOCKS; i++)
        expect_0(brood_rlock_destroy(rlocks[i]), "rlock: destroy");
    for (uint32_t i = 0; i < SEMAPHORES; i++) {
        int value = brood_semaphore_value(semaphores[i]);
        expect(TOKENS, value == (int)tokens[i], "semaphore %u of %u tokens has %d at the end", i, tokens[i],
               value);
        expect_0(brood_semaphore_destroy(semaphores[i]), "semaphore: destroy");
    }
    expect_0(brood_condition_destroy(condition), "condition: destroy");
    expect_0(brood_event_destroy(event), "event: destroy");
    expect_0(brood_barrier_destroy(barrier), "barrier: destroy");
}

static void play_round(void)
{
    books = shared_pages(sizeof *books);
    lost_blocks = 0;
    make_objects();
    for (uint32_t i = 0; i < SEATS; i++)
        fill_seat(i);
    hammer();
    bri_store_release(&stress.shared->stop, 1u);
    await_seats(nudge, settle_books);
    bury_all();
    check_sections();
    check_tickets();
    check_arrivals();
    free_blocks();
    destroy_objects();
    check_processes(PROCESSES);
    check_arena(ARENA);
    all_operations += bri_load_relaxed(&books->operations);
    munmap(books, sizeof *books);
}

int main(int count, char **arguments)
{
    prepare(count, arguments, 8, checks, CHECKS);
    stress.play = play;
    stress.seats_count = SEATS;
    int failed = run_rounds(play_round);
    printf("# %llu operations\n", (unsigned long long)all_operations);
    return failed;
}
