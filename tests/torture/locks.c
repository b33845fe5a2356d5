/* SPDX-License-Identifier: MIT */
/* The part "locks": its controller.  See locks.h. */
#include <sys/mman.h>

#include "locks.h"

struct lock_objects here;

static void make_objects(void)
{
    int error = 0;

    here.parties = 2 + below(&torture.random, PARTIES_MOST - 1);
    for (uint32_t i = 0; i < LOCKS; i++)
        error |= brood_lock_create(&here.locks[i]);
    for (uint32_t i = 0; i < RLOCKS; i++)
        error |= brood_rlock_create(&here.rlocks[i]);
    for (uint32_t i = 0; i < SEMAPHORES; i++) {
        here.tokens[i] = 1 + below(&torture.random, 4);
        error |= i % 2 ? brood_semaphore_create(here.tokens[i], &here.semaphores[i])
                       : brood_semaphore_create_bounded(here.tokens[i], &here.semaphores[i]);
    }
    error |= brood_condition_create(NULL, &here.condition);
    error |= brood_event_create(&here.event);
    error |= brood_barrier_create(here.parties, &here.barrier);
    expect_0(error, "create");
}

/* Its bits are taken away by one operation: it neither holds a token nor is it being killed. */
static void settle_books(uint32_t seat)
{
    for (uint32_t i = 0; i < SEMAPHORES; i++)
        atomic_fetch_and(&here.books->holders[i], ~(UINT64_C(0x100000001) << seat));
    for (uint32_t i = 0; i < SECTIONS; i++)
        bri_add_relaxed(&here.books->sections[i].dead_within,
                        (uint64_t)atomic_exchange(&here.books->sections[i].within[seat], 0u));
    bri_add_relaxed(&here.books->dead_in_tickets,
                    (uint64_t)atomic_exchange(&here.books->in_tickets[seat], 0u));
    bri_add_relaxed(&here.books->all_deaths, UINT64_C(1));
}

static void condemn(uint32_t seat)
{
    for (uint32_t i = 0; i < SEMAPHORES; i++)
        bri_or_seq_cst(&here.books->holders[i], UINT64_C(0x100000000) << seat);
}

/* Did it end with a lock or a token? */
static int was_holder(uint32_t seat)
{
    int is = (int)bri_load_relaxed(&here.books->in_tickets[seat]);

    for (uint32_t i = 0; i < SECTIONS; i++)
        is |= bri_load_relaxed(&here.books->sections[i].guard) == seat + 1;
    for (uint32_t i = 0; i < SEMAPHORES; i++)
        is |= (int)(bri_load_relaxed(&here.books->holders[i]) >> seat & 1);
    return is;
}

static uint32_t lost_blocks;

static void bury(uint32_t seat, enum killed killed)
{
    if (killed == KILLED)
        note_fault(was_holder(seat) ? KILL_HOLDER : KILL_PLAYER);
    if (killed != ALIVE)
        lost_blocks += uncertain_in(seat);
    settle_books(seat);
}

/* Whom the others depend on now and then: it is not killed. */
static void help(void)
{
    expect_0(brood_event_set(here.event), "event: set");
    if (!is_acquired(brood_condition_acquire(here.condition, brood_after_ms(ENDS_WITHIN_MS)), BROOD_FOREVER,
                     "the controller's condition"))
        return;
    uint64_t tickets = bri_load_relaxed(&here.books->tickets.count);
    bri_add_relaxed(&here.books->tickets.done[0], UINT64_C(1));
    bri_store_relaxed(&here.books->tickets.count, tickets + 1);
    brood_condition_notify(here.condition, is_stopping() ? UINT32_MAX : 1);
    expect_0(brood_condition_release(here.condition), "condition: release");
}

/* Every second time somebody who is within a section: there is mostly nobody there long enough to be met by chance. */
static uint32_t choose_victim(void)
{
    uint32_t guard = bri_load_relaxed(&here.books->sections[below(&torture.random, SECTIONS)].guard);

    return guard != 0 && below(&torture.random, 2) ? guard - 1 : below(&torture.random, SEATS);
}

static void hammer(void)
{
    int64_t end = brood_after_ms(ROUND_MS);

    while (bri_now_ns() < end && !has_failed()) {
        pause_us(1000 + below(&torture.random, 8000));
        if (below(&torture.random, 4) == 0)
            stop_seat(choose_victim());
        else
            kill_seat(choose_victim());
        help();
        sweep_seats();
    }
}

/* Those who wait for somebody who has left already. */
static void nudge(void)
{
    help();
    expect_0(brood_barrier_abort(here.barrier), "barrier: abort");
}

static void check_sections(void)
{
    for (uint32_t i = 0; i < SECTIONS; i++) {
        struct section_shm *section = &here.books->sections[i];
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
    int64_t balance = (int64_t)bri_load_relaxed(&here.books->tickets.done[0]),
            count = (int64_t)bri_load_relaxed(&here.books->tickets.count);
    int64_t dead = (int64_t)bri_load_relaxed(&here.books->dead_in_tickets);

    for (uint32_t seat = 0; seat < SEATS; seat++)
        balance += (int64_t)bri_load_relaxed(&here.books->given[seat]) -
                   (int64_t)bri_load_relaxed(&here.books->taken[seat]);
    expect(TICKETS, count >= 0 && llabs(balance - count) <= dead,
           "%lld tickets are there, %lld should be, %lld died within", (long long)count, (long long)balance,
           (long long)dead);
}

static void check_arrivals(void)
{
    uint64_t least = UINT64_MAX, most = 0, deaths = bri_load_relaxed(&here.books->all_deaths);

    for (uint32_t i = 0; i < here.parties; i++) {
        uint64_t times = bri_load_relaxed(&here.books->arrivals[i]);
        least = times < least ? times : least;
        most = times > most ? times : most;
    }
    expect(ARRIVALS, most - least <= deaths,
           "orders of arrival were given out %llu to %llu times, with %llu deaths", (unsigned long long)least,
           (unsigned long long)most, (unsigned long long)deaths);
}

static void free_blocks(void)
{
    for (uint32_t i = 0; i < SHARED_BLOCKS; i++) {
        uint64_t *block = atomic_exchange(&here.books->blocks[i], NULL);
        if (block != NULL) {
            check_block(block);
            expect_0(brood_free(block), "brood_free");
        }
    }
    uint32_t forgotten = free_forgotten_blocks();
    expect(MEMORY, forgotten <= lost_blocks, "%u blocks were lost, the dead may have lost %u", forgotten,
           lost_blocks);
}

static void destroy_objects(void)
{
    for (uint32_t i = 0; i < LOCKS; i++)
        expect_0(brood_lock_destroy(here.locks[i]), "lock: destroy");
    for (uint32_t i = 0; i < RLOCKS; i++)
        expect_0(brood_rlock_destroy(here.rlocks[i]), "rlock: destroy");
    for (uint32_t i = 0; i < SEMAPHORES; i++) {
        int value = brood_semaphore_value(here.semaphores[i]);
        expect(TOKENS, value == (int)here.tokens[i], "semaphore %u of %u tokens has %d at the end", i,
               here.tokens[i], value);
        expect_0(brood_semaphore_destroy(here.semaphores[i]), "semaphore: destroy");
    }
    expect_0(brood_condition_destroy(here.condition), "condition: destroy");
    expect_0(brood_event_destroy(here.event), "event: destroy");
    expect_0(brood_barrier_destroy(here.barrier), "barrier: destroy");
}

static void play_round(void)
{
    here.books = shared_pages(sizeof *here.books);
    lost_blocks = 0;
    make_objects();
    fill_all_seats();
    hammer();
    settle_seats();
    bri_store_release(&torture.shared->stop, 1u);
    await_seats(0, SEATS, nudge);
    bury_all();
    check_sections();
    check_tickets();
    check_arrivals();
    free_blocks();
    destroy_objects();
    note_checked(OPERATIONS, bri_load_relaxed(&here.books->operations));
    munmap(here.books, sizeof *here.books);
}

const struct part locks_part = {
    .name = "locks",
    .checks = 1u << EXCLUSION | 1u << COUNTS | 1u << TOKENS | 1u << TICKETS | 1u << ARRIVALS | 1u << MEMORY,
    .play_round = play_round,
    .seats = SEATS,
    .play = use_locks,
    .condemn = condemn,
    .bury = bury,
};
