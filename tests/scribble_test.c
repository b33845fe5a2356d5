/* SPDX-License-Identifier: MIT */
/*
 * A worker that scribbles over its arena, at random, while the owner runs maps: the owner survives and ends within a bound, whatever it is
 * told of its maps, and so does the supervisor; a pool in another arena does not notice.  What the assertion ladder would say of damage is not of
 * interest here: the library is the one without (tests/meson.build).
 */
#include "testing.h"

enum {
    WORKERS = 2,
    ITEMS = 64,
    MAPS = 4,
    ROUNDS = 3,
    WORDS = 200,
    GRACE_MS = 50,
    MAP_MS = 150,
    ROUND_MS = 60000,
    SUPERVISORS = 32
};

/* Between the test, owners and somebody else, in memory that brood does not know of. */
static struct shared {
    _Atomic int supervisors[SUPERVISORS]; /* pids */
    _Atomic int is_over, maps_elsewhere, maps, maps_gone_wrong;
} * shared;

/* Where the words are that are written over. */
enum where { EVERYWHERE, HEADER, TABLE, PAGES, POOL, WHERES };

struct order {
    uint32_t seed;
    enum where where;
    bri_offset pool;
};

static uint64_t draw(uint32_t *state)
{
    uint64_t high = next_random(state), low = next_random(state);

    return high << 40 ^ low << 16 ^ next_random(state);
}

struct range {
    uint64_t begin, bytes; /* offsets */
};

static struct range range_of(const struct order *order)
{
    const struct bri_arena *arena = bri_arena_current;
    uint64_t end = arena->pages_at + bri_arena_grown() * BRI_PAGE_BYTES;

    switch (order->where) {
    case HEADER:
        return (struct range){0, offsetof(struct bri_header_shm, slots) + 16 * sizeof(struct bri_slot_shm)};
    case TABLE:
        return (struct range){arena->table_at, bri_arena_grown() * sizeof(uint64_t)};
    case PAGES:
        return (struct range){arena->pages_at, end - arena->pages_at};
    case POOL:
        return (struct range){order->pool, bri_pool_bytes(WORKERS)};
    default:
        return (struct range){0, end};
    }
}

/* A quarter of what is written are small numbers, a quarter offsets of pages.  A name that lives is not among them: nothing helps against
 * that (arena.h). */
static void write_over(_Atomic uint32_t *word, uint32_t *state)
{
    uint64_t any = draw(state);
    uint32_t value = (uint32_t)any;

    if (any >> 32 & 1)
        value = any >> 33 & 1 ? value & 0xfff : value & UINT32_C(0xffff0000);
    if (!bri_is_alive(value) && !bri_is_dead_and_unburied(value) && value != BRI_SLOTS - 1)
        bri_store_relaxed(word, value);
}

static int scribble(brood_task *task, const void *item, void *result)
{
    const struct order *order = item;
    struct range range = range_of(order);
    uint32_t state = order->seed;

    (void)task;
    *(uint32_t *)result = order->seed;
    for (int i = 0; i < WORDS; i++) {
        uint64_t at = range.begin + draw(&state) % (range.bytes / sizeof(uint32_t)) * sizeof(uint32_t);
        write_over(bri_at(at == 0 ? sizeof(uint32_t) : at), &state);
    }
    return 0;
}

static int triple(brood_task *task, const void *item, void *result)
{
    (void)task;
    *(uint32_t *)result = 3 * *(const uint32_t *)item;
    return 0;
}

/* One map in which the first item is an order to scribble, and all that an owner can ask about it. */
static void map_and_look(brood_pool *pool, struct order order, int null)
{
    struct order orders[ITEMS];
    uint32_t results[ITEMS];
    brood_outcome outcome;
    brood_result *result;

    for (uint32_t i = 0; i < ITEMS; i++) {
        orders[i] = order;
        orders[i].seed += i;
    }
    bri_add_relaxed(&shared->maps, 1);
    if (brood_pool_map_async(pool, scribble, orders, sizeof *orders, sizeof *results, ITEMS,
                             BROOD_MAP_OPTIONS(.chunk_items = 3), &result) < 0) {
        bri_add_relaxed(&shared->maps_gone_wrong, 1);
        return;
    }
    brood_result_wait(result, brood_after_ms(MAP_MS));
    brood_pool_dump(pool, null);
    for (size_t i = 0; i < ITEMS; i++)
        brood_result_outcome(result, i, &outcome);
    if (brood_result_get(result, results, sizeof results, brood_after_ms(MAP_MS)) < 0)
        bri_add_relaxed(&shared->maps_gone_wrong, 1);
    brood_result_cancel_running(result);
    brood_result_destroy(result);
}

static void note_supervisor(pid_t pid)
{
    int i = 0;

    while (i < SUPERVISORS - 1 && bri_load_relaxed(&shared->supervisors[i]) != 0 &&
           bri_load_relaxed(&shared->supervisors[i]) != pid)
        i++;
    bri_store_relaxed(&shared->supervisors[i], pid);
}

static void be_owner(void *argument)
{
    struct order order = *(struct order *)argument;
    brood_pool *pool;
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

    child_check(brood_arena_create(BROOD_ARENA_OPTIONS(.max_bytes = 64 << 20)) == 0);
    child_check(brood_pool_create(BROOD_POOL_OPTIONS(.workers = WORKERS, .grace_ms = GRACE_MS), &pool) == 0);
    order.pool = bri_offset_of(pool->shared);
    for (int i = 0; i < MAPS; i++) {
        order.seed += ITEMS;
        map_and_look(pool, order, null);
        note_supervisor(pool->supervisor_pid);
    }
    brood_pool_destroy(pool);
}

/* --- somebody else --- */

static void map_well(brood_pool *pool)
{
    uint32_t items[ITEMS], results[ITEMS];

    for (uint32_t i = 0; i < ITEMS; i++)
        items[i] = i;
    child_check(brood_pool_map(pool, triple, items, sizeof *items, results, sizeof *results, ITEMS,
                               BROOD_MAP_OPTIONS(.chunk_items = 3)) == 0);
    for (uint32_t i = 0; i < ITEMS; i++)
        child_check(results[i] == 3 * i);
}

/* Another arena. */
static void be_somebody_else(void *unused)
{
    brood_pool *pool;

    (void)unused;
    child_check(brood_pool_create(BROOD_POOL_OPTIONS(.workers = WORKERS), &pool) == 0);
    while (!bri_load_acquire(&shared->is_over)) {
        map_well(pool);
        bri_add_relaxed(&shared->maps_elsewhere, 1);
    }
    child_check(brood_pool_destroy(pool) == 0);
}

/* --- the test --- */

/* What a dead owner leaves may still be on its way out. */
static int nobody_is_left(void)
{
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    return errno == ECHILD;
}

static int is_supervisor(pid_t pid)
{
    for (int i = 0; i < SUPERVISORS; i++)
        if (bri_load_relaxed(&shared->supervisors[i]) == pid)
            return 1;
    return 0;
}

/* Whom an owner leaves comes to this process.  A supervisor ends by itself, or because its name was buried, or its owner had it killed.
 * Returns the status of `awaited`. */
static int bury_until(pid_t awaited)
{
    for (int status;;) {
        pid_t pid = waitpid(-1, &status, 0);
        int is_fine = WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL
                                          : WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 127;
        assert_true(pid > 0);
        if (pid == awaited)
            return status;
        if (is_supervisor(pid) && !is_fine)
            fail_msg("a supervisor ended with status %x", (unsigned)status);
    }
}

static void play_round(uint32_t seed, enum where where)
{
    struct order order = {.seed = seed, .where = where};
    pid_t owner = start_child(be_owner, &order);
    int fd = pidfd_of(owner);

    assert_ends_within(fd, ROUND_MS);
    int status = bury_until(owner);
    if (status != 0)
        fail_msg("BROOD_TEST_SEED=%u, where %d: the owner ended with status %x", (unsigned)seed, (int)where,
                 (unsigned)status);
}

static void owners_survive_workers_that_scribble(void **state)
{
    uint32_t seed = choose_seed();

    (void)state;
    shared = shared_pages(sizeof *shared);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pid_t other = start_child(be_somebody_else, NULL);
    for (uint32_t i = 0; i < ROUNDS * WHERES; i++)
        play_round(seed + i * 1000, (enum where)(i % WHERES));
    int maps = bri_load_acquire(&shared->maps_elsewhere);
    await_true(bri_load_acquire(&shared->maps_elsewhere) > maps);
    bri_store_release(&shared->is_over, 1);
    assert_int_equal(bury_until(other), 0);
    await_true(nobody_is_left());
    print_message("# %d maps, %d of them went wrong\n", shared->maps, shared->maps_gone_wrong);
    assert_true(shared->maps_gone_wrong > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(owners_survive_workers_that_scribble)};

    alarm(TEST_SECONDS);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
