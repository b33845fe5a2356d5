/* SPDX-License-Identifier: MIT */
/* Bulks and letters: whoever dies, what nobody holds any more is given back, and what somebody holds is not. */
#define _GNU_SOURCE
#include "arena_checks.h"

#include <signal.h>
#include <string.h>

#include "heap/bulk.h"

enum { BYTES = 1000 };

struct state {
    uint64_t blocks; /* in use before there was a bulk */
    bri_name victim, dead;
    struct bri_bulk_shm *bulk;
    struct bri_ref_shm *letter; /* a block with one reference */
};

static struct state *state; /* shared with the victim */

static struct bri_bulk_shm *make_bulk(void)
{
    struct bri_bulk_shm *bulk = NULL;
    if (bri_bulk_create(BYTES, 0, 0, &bulk) != 0)
        _exit(1);
    return bulk;
}

/* A letter of the caller's. */
static void write_letter(struct bri_bulk_shm *bulk, bri_name owner)
{
    void *memory;
    if (bri_heap_alloc(BRI_KIND_REPLY, sizeof(struct bri_ref_shm), owner, &memory) != 0)
        _exit(1);
    struct bri_ref_shm ref = {
        .bulk = bri_offset_of(bulk), .serial = bri_load_relaxed(&bulk->serial), .bytes = BYTES};
    memcpy(memory, &ref, sizeof ref);
    state->letter = memory;
    bri_letter_mark(memory, 0, 1);
    bri_bulk_add_letter(bulk);
}

/* --- what the victim finds -------------------------------------------------------------------- */

static void *setup_empty(void)
{
    state = stepkill_shared(sizeof *state);
    if (open_arena() != 0)
        return NULL;
    void *memory; /* the slabs are there */
    if (bri_heap_alloc(BRI_KIND_REPLY, sizeof(struct bri_ref_shm), 0, &memory) != 0)
        return NULL;
    bri_heap_free(memory);
    bri_bulk_drop(make_bulk());
    state->blocks = arena_now().used_blocks;
    return state;
}

/* A bulk that nobody holds, and a letter to it. */
static void *setup_letter(void)
{
    if (setup_empty() == NULL)
        return NULL;
    state->bulk = make_bulk();
    write_letter(state->bulk, 0);
    bri_bulk_drop(state->bulk);
    return state;
}

/* The letter is lost. */
static void *setup_lost(void)
{
    if (setup_letter() == NULL)
        return NULL;
    bri_heap_free(state->letter);
    return state;
}

/* A bulk that the driver holds. */
static void *setup_held(void)
{
    if (setup_empty() == NULL)
        return NULL;
    state->bulk = make_bulk();
    return state;
}

/* The last holder has died. */
static void *setup_dead(void)
{
    if (setup_empty() == NULL)
        return NULL;
    const pid_t pid = fork();
    if (pid == 0) {
        if (bri_arena_enter() != 0)
            _exit(1);
        state->dead = bri_self();
        state->bulk = make_bulk();
        raise(SIGKILL);
    }
    waitpid(pid, NULL, 0);
    return state;
}

/* --- what it does ----------------------------------------------------------------------------- */

static void enter(void)
{
    if (bri_arena_enter() != 0)
        _exit(1);
    state->victim = bri_self();
}

static void create_and_drop(void *ctx)
{
    struct bri_bulk_shm *bulk;
    (void)ctx;
    enter();
    stepkill_begin();
    if (bri_bulk_create(BYTES, 0, 0, &bulk) == 0)
        bri_bulk_drop(bulk);
    stepkill_end();
}

static void write_one(void *ctx)
{
    (void)ctx;
    enter();
    state->bulk = make_bulk();
    stepkill_begin();
    write_letter(state->bulk, bri_self());
    stepkill_end();
}

static void open_and_drop(void *ctx)
{
    struct bri_bulk_shm *bulk;
    (void)ctx;
    enter();
    stepkill_begin();
    if (bri_bulk_open(state->letter, 1, &bulk) == 0)
        bri_bulk_drop(bulk);
    stepkill_end();
}

static void arrive(void *ctx)
{
    (void)ctx;
    enter();
    bri_bulk_expect(state->bulk);
    stepkill_begin();
    bri_bulk_arrive(state->bulk);
    bri_bulk_leave(0);
    stepkill_end();
}

static void sweep(void *ctx)
{
    (void)ctx;
    enter();
    stepkill_begin();
    bri_bulk_sweep();
    stepkill_end();
}

static void bury(void *ctx)
{
    (void)ctx;
    enter();
    stepkill_begin();
    bri_report_if_ended(state->dead);
    stepkill_end();
}

/* --- what must be left ------------------------------------------------------------------------ */

static void report(void *ctx, pid_t pid, int status)
{
    (void)ctx, (void)pid, (void)status;
    bri_report_if_ended(state->victim);
    if (state->dead != 0)
        bri_report_if_ended(state->dead);
}

static int check_nothing_left(void *ctx)
{
    (void)ctx;
    if (report_others() != 0)
        return stepkill_fail("the dead are not buried");
    bri_bulk_sweep();
    bri_bulk_drop(make_bulk()); /* the lock is free */
    return check_heap(state->blocks);
}

/* As long as there is the letter and it was not opened, so is what it refers to. */
static int check_letter(void *ctx)
{
    struct bri_ref_shm ref;
    struct bri_bulk_shm *bulk;
    memcpy(&ref, state->letter, sizeof ref);
    bri_bulk_sweep();
    if (bri_load_relaxed(&state->bulk->letters) > 0 && bri_bulk_open(&ref, 1, &bulk) == 0)
        bri_bulk_drop(bulk);
    else if (bri_load_relaxed(&state->bulk->holders[0]) != 0)
        return stepkill_fail("a dead one holds it");
    bri_heap_free(state->letter);
    return check_nothing_left(ctx);
}

/* What the driver holds nobody frees. */
static int check_held(void *ctx)
{
    (void)ctx;
    if (report_others() != 0)
        return stepkill_fail("the dead are not buried");
    bri_bulk_sweep();
    if (!bri_heap_is(state->bulk, BRI_KIND_BULK))
        return stepkill_fail("it was freed under who holds it");
    while (bri_load_relaxed(&state->bulk->expected) > 0) /* by whoever died before it could say so */
        bri_bulk_unexpect(state->bulk);
    bri_bulk_drop(state->bulk);
    return check_heap(state->blocks);
}

const struct stepkill_scenario stepkill_bulk[] = {
    {.name = "bulk.create",
     .setup = setup_empty,
     .victim = create_and_drop,
     .after_kill = report,
     .check = check_nothing_left},
    {.name = "bulk.letter",
     .setup = setup_empty,
     .victim = write_one,
     .after_kill = report,
     .check = check_nothing_left},
    {.name = "bulk.open",
     .setup = setup_letter,
     .victim = open_and_drop,
     .after_kill = report,
     .check = check_letter},
    {.name = "bulk.arrive", .setup = setup_held, .victim = arrive, .after_kill = report, .check = check_held},
    {.name = "bulk.sweep",
     .setup = setup_lost,
     .victim = sweep,
     .after_kill = report,
     .check = check_nothing_left},
    {.name = "bulk.held", .setup = setup_held, .victim = sweep, .after_kill = report, .check = check_held},
    {.name = "recover.bulk",
     .setup = setup_dead,
     .victim = bury,
     .after_kill = report,
     .check = check_nothing_left},
    {.name = NULL},
};
