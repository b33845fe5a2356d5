/* SPDX-License-Identifier: MIT */
/* What the processes of the part "locks" do, and what they note down.  See locks.h. */
#include "locks.h"

struct player {
    uint32_t seat;
    uint64_t random;
};

/* 1 when it is held now, 0 when the deadline passed. */
int is_acquired(int error, int64_t deadline, const char *what)
{
    if (error == 0 || error == BROOD_OWNER_DIED)
        return 1;
    expect(CALLS, error == -ETIMEDOUT && deadline != BROOD_FOREVER, "%s: acquire: %d: %s", what, error,
           brood_error_text());
    return 0;
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
    int64_t deadline = choose_deadline(&player->random, 20);

    now_doing(player->seat, "lock");
    int acquired = brood_lock_acquire(here.locks[i], deadline);
    if (!is_acquired(acquired, deadline, "lock"))
        return;
    work_within(player, &here.books->sections[i], acquired, "lock");
    if (i + 1 < LOCKS && below(&player->random, 4) == 0) { /* in order, so that nobody waits in a ring */
        int second = brood_lock_acquire(here.locks[i + 1], BROOD_FOREVER);
        if (is_acquired(second, BROOD_FOREVER, "second lock")) {
            work_within(player, &here.books->sections[i + 1], second, "second lock");
            expect_0(brood_lock_release(here.locks[i + 1]), "second lock: release");
        }
    }
    expect_0(brood_lock_release(here.locks[i]), "lock: release");
}

static void use_rlock(struct player *player)
{
    uint32_t i = below(&player->random, RLOCKS), depth = 1 + below(&player->random, 3);
    int64_t deadline = choose_deadline(&player->random, 20);

    now_doing(player->seat, "rlock");
    int acquired = brood_rlock_acquire(here.rlocks[i], deadline);
    if (!is_acquired(acquired, deadline, "rlock"))
        return;
    for (uint32_t n = 1; n < depth; n++)
        expect_0(brood_rlock_acquire(here.rlocks[i], BROOD_NOW), "rlock: once more");
    work_within(player, &here.books->sections[LOCKS + i], acquired, "rlock");
    for (uint32_t n = 0; n < depth; n++)
        expect_0(brood_rlock_release(here.rlocks[i]), "rlock: release");
}

/* --- semaphores --- */

static void use_semaphore(struct player *player)
{
    uint32_t i = below(&player->random, SEMAPHORES);
    uint64_t own = UINT64_C(1) << player->seat;
    int64_t deadline = choose_deadline(&player->random, 20);

    now_doing(player->seat, "semaphore");
    if (!is_acquired(brood_semaphore_acquire(here.semaphores[i], deadline), deadline, "semaphore"))
        return;
    uint64_t holders = bri_or_seq_cst(&here.books->holders[i], own) | own;
    int certain = __builtin_popcountll(holders & ~(holders >> 32) & UINT32_MAX);
    expect(TOKENS, certain <= (int)here.tokens[i], "semaphore %u: %d hold one of its %u tokens", i, certain,
           here.tokens[i]);
    dawdle(player);
    atomic_fetch_and(&here.books->holders[i], ~own);
    expect_0(brood_semaphore_release(here.semaphores[i]), "semaphore: release");
}

/* --- condition --- */

static void change_tickets(struct player *player, int by)
{
    _Atomic uint64_t *note = by > 0 ? &here.books->given[player->seat] : &here.books->taken[player->seat];

    bri_store_seq_cst(&here.books->in_tickets[player->seat], 1u);
    uint64_t tickets = bri_load_relaxed(&here.books->tickets.count);
    bri_add_relaxed(note, UINT64_C(1));
    dawdle(player);
    bri_store_relaxed(&here.books->tickets.count, tickets + (uint64_t)(int64_t)by);
    bri_store_seq_cst(&here.books->in_tickets[player->seat], 0u);
}

static void give_ticket(struct player *player)
{
    now_doing(player->seat, "condition: gives");
    if (!is_acquired(brood_condition_acquire(here.condition, BROOD_FOREVER), BROOD_FOREVER, "condition"))
        return;
    change_tickets(player, 1);
    int woken = brood_condition_notify(here.condition, 1);
    expect(CALLS, woken == 0 || woken == 1, "condition: notify(1) woke %d: %s", woken, brood_error_text());
    expect_0(brood_condition_release(here.condition), "condition: release");
}

static void take_ticket(struct player *player)
{
    int64_t deadline = choose_deadline(&player->random, 20);
    int waited = 0;

    now_doing(player->seat, "condition: takes");
    if (!is_acquired(brood_condition_acquire(here.condition, BROOD_FOREVER), BROOD_FOREVER, "condition"))
        return;
    while (waited >= 0 && bri_load_relaxed(&here.books->tickets.count) == 0 && !is_stopping()) {
        waited = brood_condition_wait(here.condition, deadline);
        expect(CALLS, waited >= 0 || (waited == -ETIMEDOUT && deadline != BROOD_FOREVER),
               "condition: wait: %d: %s", waited, brood_error_text());
    }
    if (bri_load_relaxed(&here.books->tickets.count) > 0)
        change_tickets(player, -1);
    expect_0(brood_condition_release(here.condition), "condition: release");
}

static void use_condition(struct player *player)
{
    if (bri_load_relaxed(&here.books->tickets.count) > 5 || below(&player->random, 2))
        take_ticket(player);
    else
        give_ticket(player);
}

/* --- event and barrier --- */

/* The controller sets the event now and then, so that nobody waits for ever. */
static void use_event(struct player *player)
{
    int64_t deadline = choose_deadline(&player->random, 20);
    int error = 0;

    now_doing(player->seat, "event");
    switch (below(&player->random, 4)) {
    case 0:
        expect_0(brood_event_set(here.event), "event: set");
        break;
    case 1:
        expect_0(brood_event_clear(here.event), "event: clear");
        break;
    default:
        error = brood_event_wait(here.event, deadline);
        expect(CALLS, error == 0 || (error == -ETIMEDOUT && deadline != BROOD_FOREVER), "event: wait: %d: %s",
               error, brood_error_text());
    }
    error = brood_event_is_set(here.event);
    expect(CALLS, error == 0 || error == 1, "event: is_set: %d", error);
}

static void use_barrier(struct player *player)
{
    int64_t deadline =
        below(&player->random, 3) == 0 ? BROOD_FOREVER : brood_after_ms(5 + below(&player->random, 100));

    now_doing(player->seat, "barrier");
    int order = brood_barrier_wait(here.barrier, deadline);
    if (order >= 0 && order < (int)here.parties) {
        bri_add_relaxed(&here.books->arrivals[order], UINT64_C(1));
        return;
    }
    expect(ARRIVALS, order == -EPIPE || (order == -ETIMEDOUT && deadline != BROOD_FOREVER),
           "barrier: wait: %d: %s", order, brood_error_text());
    bri_add_relaxed(&here.books->breaks, UINT64_C(1));
    if (!is_stopping() && brood_barrier_is_broken(here.barrier) == 1)
        expect_0(brood_barrier_reset(here.barrier), "barrier: reset");
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

void check_block(const uint64_t *block)
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
        block = atomic_exchange(&here.books->blocks[below(&player->random, SHARED_BLOCKS)], block);
    if (block != NULL) {
        check_block(block);
        expect_0(brood_free(block), "brood_free");
    }
    bri_store_seq_cst(&notes_of(player->seat)->uncertain, 0u);
}

/* --- players --- */

void use_locks(uint32_t seat, uint32_t life, uint64_t random)
{
    static void (*const uses[])(struct player * player) = {
        use_lock,  use_lock,      use_rlock,     use_semaphore, use_semaphore,
        use_event, use_condition, use_condition, use_barrier,   use_memory};
    struct player player = {.seat = seat, .random = random};

    (void)life;
    while (!is_stopping()) {
        uses[below(&player.random, sizeof uses / sizeof uses[0])](&player);
        bri_add_relaxed(&here.books->operations, UINT64_C(1));
    }
}
