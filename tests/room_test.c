/* SPDX-License-Identifier: MIT */
/*
 * Before an allocation fails, everything that nobody needs any more is had back: slabs of another size, what the dead held, jobs that were
 * given up.  Every test runs in a child that has a small arena of its own.
 */
#include "testing.h"

#include "base/check.h"
#include "heap/pages.h"

enum { BOUND = 8 << 20, PIECES = 1 << 17, LARGE = 1 << 20, CHILDREN = 4, HELD = 40, LIVES = 40, STEPS = 600 };

static void make_bounded_arena(void)
{
    child_check(brood_arena_create(BROOD_ARENA_OPTIONS(.max_bytes = BOUND)) == 0);
}

static brood_arena_stats stats(void)
{
    brood_arena_stats now = {.size = sizeof now};

    child_check(brood_arena_stats_get(&now) == 0);
    return now;
}

/* Fills the arena with blocks of one size; how many. */
static int fill(size_t bytes, void **pieces)
{
    int count = 0;

    while (count < PIECES && brood_alloc(bytes, &pieces[count]) == 0)
        count++;
    child_check(count > 0 && count < PIECES);
    return count;
}

static void free_all(void **pieces, int count)
{
    while (count > 0)
        child_check(brood_free(pieces[--count]) == 0);
}

/* --- other sizes --- */

static const size_t sizes[] = {16, 100, 700, 5000, 30000, 300000, BOUND / 2};

static void use_all_sizes(void)
{
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *memory;
        void *any;
        child_check(brood_alloc(sizes[i], &any) == 0);
        memory = any;
        child_check(memory[0] == 0 && memory[sizes[i] - 1] == 0);
        memset(memory, 0xff, sizes[i]);
        child_check(brood_free(memory) == 0);
    }
}

static void use_queue_and_lock(void)
{
    brood_queue *queue;
    brood_lock *lock;

    child_check(brood_queue_create(NULL, &queue) == 0);
    child_check(brood_queue_put(queue, sizes, sizeof sizes, BROOD_NOW) == 0);
    child_check(brood_queue_destroy(queue) == 0);
    child_check(brood_lock_create(&lock) == 0);
    child_check(brood_lock_destroy(lock) == 0);
}

static void fill_with_each_size(void *unused)
{
    void **pieces = calloc(PIECES, sizeof *pieces);

    (void)unused;
    child_check(pieces != NULL);
    make_bounded_arena();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes - 1; i++) {
        free_all(pieces, fill(sizes[i], pieces));
        use_all_sizes();
        use_queue_and_lock();
        child_check(stats().used_blocks == 0 && bri_heap_is_valid());
    }
    free(pieces);
}

static void any_size_may_follow_any_other(void **unused)
{
    (void)unused;
    in_child(fill_with_each_size, NULL);
}

/* Each slab but one is given back, though all have the same class. */
static void keep_one_block(void *unused)
{
    void **pieces = calloc(PIECES, sizeof *pieces);

    (void)unused;
    child_check(pieces != NULL);
    make_bounded_arena();
    int count = fill(100, pieces);
    unsigned char *kept = pieces[--count];
    memset(kept, 0x5a, 100);
    free_all(pieces, count);
    use_all_sizes();
    for (int i = 0; i < 100; i++)
        child_check(kept[i] == 0x5a);
    free_all(pieces, fill(100, pieces)); /* the kept one's neighbours are on the list still */
    child_check(stats().used_blocks == 1 && brood_free(kept) == 0);
    free(pieces);
}

static void blocks_in_use_keep_their_slab(void **unused)
{
    (void)unused;
    in_child(keep_one_block, NULL);
}

/* Law 4. */
static void run_out_after_lock(void *unused)
{
    brood_lock *lock;
    void *memory;

    (void)unused;
    make_bounded_arena();
    child_check(brood_lock_create(&lock) == 0);
    uint64_t page = (bri_offset_of(lock) - bri_arena_current->header->pages_at) / BRI_PAGE_BYTES;
    uint64_t word = bri_load_acquire(bri_page_word(page));
    child_check(bri_page_state_of(word) == BRI_PAGE_SLAB);
    child_check(brood_lock_destroy(lock) == 0);
    child_check(brood_alloc(BOUND - 1, &memory) == -ENOMEM);
    child_check(bri_load_acquire(bri_page_word(page)) == word);
}

static void memory_of_locks_stays_such(void **unused)
{
    (void)unused;
    in_child(run_out_after_lock, NULL);
}

/* What has grown already counts, though a long run does not fit into it. */
static void grow_to_the_bound(void *unused)
{
    void *small, *large;

    (void)unused;
    make_bounded_arena();
    child_check(brood_alloc(1, &small) == 0);
    child_check(stats().grown_bytes > BRI_PAGE_BYTES);
    child_check(brood_alloc(BOUND - BRI_PAGE_BYTES - BRI_CACHE_LINE, &large) == 0);
    child_check(stats().grown_bytes == BOUND);
}

static void a_run_may_take_all_that_is_left(void **unused)
{
    (void)unused;
    in_child(grow_to_the_bound, NULL);
}

/* --- many at once, some of whom die --- */

struct held {
    unsigned char *memory;
    size_t bytes;
};

static int deadly_passing;

static void die_while_trimming(const char *point)
{
    if (strncmp(point, "heap.trim.", 10) == 0 && --deadly_passing == 0)
        raise(SIGKILL);
}

static void drop(struct held *held, unsigned char mark)
{
    if (held->memory == NULL)
        return;
    for (size_t at = 0; at < held->bytes; at += 61)
        child_check(held->memory[at] == mark);
    bri_heap_free(held->memory);
    held->memory = NULL;
}

/* Any error but that of a full arena is one too many. */
static void take(struct held *held, size_t bytes, unsigned char mark)
{
    void *memory;
    int error = bri_heap_alloc(BRI_KIND_DATA, bytes, bri_self(), &memory);

    child_check(error == 0 || error == -ENOMEM);
    if (error < 0)
        return;
    *held = (struct held){memory, bytes};
    memset(memory, mark, bytes);
}

static void live_in_short_supply(void *argument)
{
    uint32_t seed = *(uint32_t *)argument;
    unsigned char mark = (unsigned char)(seed | 1);
    struct held held[HELD] = {{NULL, 0}};

    child_check(bri_arena_enter() == 0);
    deadly_passing = (int)(next_random(&seed) % 8);
    bri_fault_hook = die_while_trimming;
    for (int i = 0; i < STEPS; i++) {
        struct held *one = &held[next_random(&seed) % HELD];
        drop(one, mark);
        take(one, sizes[next_random(&seed) % 6] * (1 + next_random(&seed) % 4), mark);
        child_check(stats().used_bytes <= BOUND);
    }
    for (int i = 0; i < HELD; i++)
        drop(&held[i], mark);
}

static void live_together(void *unused)
{
    uint32_t seed = choose_seed();
    void *memory;

    (void)unused;
    make_bounded_arena();
    for (int i = 0; i < LIVES; i += CHILDREN) {
        pid_t pids[CHILDREN];
        for (int j = 0; j < CHILDREN; j++) {
            uint32_t own = next_random(&seed);
            pids[j] = start_child(live_in_short_supply, &own);
        }
        for (int j = 0; j < CHILDREN; j++) {
            int status = status_of(pids[j]);
            child_check(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
        }
        child_check(bri_heap_is_valid());
    }
    child_check(brood_alloc(BOUND * 3 / 4, &memory) == 0 && brood_free(memory) == 0);
    child_check(stats().used_blocks == 0);
}

static void slabs_come_and_go_under_everybody(void **unused)
{
    (void)unused;
    in_child(live_together, NULL);
}

/* --- the dead --- */

static void reserve_and_die(void *queue)
{
    brood_message message;

    child_check(brood_queue_reserve(queue, LARGE, &message) == 0);
    raise(SIGKILL);
}

static void lose_children(brood_queue *queue, int count)
{
    for (int i = 0; i < count; i++) {
        int status = status_of(start_child(reserve_and_die, queue));
        child_check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
}

static void lose_many(void *unused)
{
    brood_message message;
    brood_queue *queue;
    void *memory;

    (void)unused;
    make_bounded_arena();
    child_check(brood_queue_create(NULL, &queue) == 0);
    lose_children(queue, 3 * BOUND / LARGE);
    child_check(brood_alloc(BOUND * 3 / 4, &memory) == 0);
    child_check(brood_queue_reserve(queue, LARGE, &message) == 0);
}

static void what_the_dead_reserved_is_had_back(void **unused)
{
    (void)unused;
    in_child(lose_many, NULL);
}

/* Fills what is left and dies: whatever comes next needs it back. */
static void hold_all_and_die(void *unused)
{
    void *memory;

    (void)unused;
    child_check(bri_arena_enter() == 0);
    for (size_t bytes = LARGE; bytes > 16; bytes /= 2)
        while (bri_heap_alloc(BRI_KIND_DATA, bytes, bri_self(), &memory) == 0) {
        }
    raise(SIGKILL);
}

/* A segment is needed with the queue's lock held. */
static void put_after_death(void *unused)
{
    char message[500] = "";
    brood_queue *queue;

    (void)unused;
    make_bounded_arena();
    child_check(brood_queue_create(NULL, &queue) == 0);
    child_check(WIFSIGNALED(status_of(start_child(hold_all_and_die, NULL))));
    for (int i = 0; i < 1000; i++)
        child_check(brood_queue_put(queue, message, sizeof message, BROOD_NOW) == 0);
}

static void puts_have_it_back_too(void **unused)
{
    (void)unused;
    in_child(put_after_death, NULL);
}

/* --- pools whose owner was somebody's worker --- */

static _Atomic int *word; /* shared with all */

static int nothing(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item, (void)result;
    return 0;
}

static void nest(void)
{
    brood_pool *inner;

    child_check(brood_pool_create(BROOD_POOL_OPTIONS(.workers = 2), &inner) == 0);
    child_check(brood_pool_apply(inner, nothing, NULL, 0, NULL, 0) == 0);
    bri_store_release(word, 1);
    for (;;)
        pause();
}

static int nest_in_task(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item, (void)result;
    nest();
    return 0;
}

static int nest_in_process(void *unused)
{
    (void)unused;
    nest();
    return 0;
}

static void await_word(void)
{
    for (int64_t end = brood_after_ms(WITHIN_MS); !bri_load_acquire(word) && bri_now_ns() < end;)
        breathe();
    child_check(bri_load_acquire(word));
}

/* Nobody asks: those who killed them have said so. */
static void await_nothing_left(uint64_t blocks)
{
    brood_arena_stats now = stats();

    for (int64_t end = brood_after_ms(WITHIN_MS); now.participants > 1 && bri_now_ns() < end; now = stats())
        breathe();
    child_check(now.participants == 1);
    if (now.used_blocks != blocks)
        bri_heap_walk(print_block, NULL);
    child_check(now.used_blocks == blocks);
}

static void destroy_outer_pool(void *unused)
{
    brood_pool *outer;
    brood_result *result;

    (void)unused;
    child_check(brood_arena_create(NULL) == 0);
    uint64_t blocks = stats().used_blocks;
    child_check(brood_pool_create(BROOD_POOL_OPTIONS(.workers = 1, .grace_ms = 1), &outer) == 0);
    child_check(brood_pool_apply_async(outer, nest_in_task, NULL, 0, 0, &result) == 0);
    await_word();
    child_check(brood_result_destroy(result) == 0);
    child_check(brood_pool_destroy(outer) == 0);
    await_nothing_left(blocks);
}

static void end_daemon(void *unused)
{
    brood_process *process;

    (void)unused;
    child_check(brood_arena_create(NULL) == 0);
    uint64_t blocks = stats().used_blocks;
    child_check(brood_process_start(nest_in_process, NULL, BROOD_PROCESS_OPTIONS(.daemon = 1), &process) ==
                0);
    await_word();
    child_check(brood_process_kill(process) == 0);
    child_check(brood_process_join(process, brood_after_ms(WITHIN_MS)) == 0);
    child_check(brood_process_destroy(process) == 0);
    await_nothing_left(blocks);
}

static void nested_pools_leave_nothing(void **unused)
{
    (void)unused;
    word = shared_pages(sizeof *word);
    in_child(destroy_outer_pool, NULL);
    bri_store_release(word, 0);
    in_child(end_daemon, NULL);
}

/* --- jobs that were given up --- */

static int wait_for_word(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item, (void)result;
    while (!bri_load_acquire(word))
        breathe();
    return 0;
}

/* Destroys the handle of a job of half the arena while it runs, and lets it end. */
static void give_up_large_job(brood_pool *pool)
{
    static char large[BOUND / 2];
    brood_message item = {large, sizeof large};
    brood_result *result;

    bri_store_release(word, 0);
    child_check(brood_pool_map_bytes_async(pool, wait_for_word, &item, 1, NULL, &result) == 0);
    for (int64_t end = brood_after_ms(WITHIN_MS); !is_at_job(pool, 0);)
        child_check(bri_now_ns() < end);
    child_check(brood_result_destroy(result) == 0);
    bri_store_release(word, 1);
    for (int64_t end = brood_after_ms(WITHIN_MS); is_at_job(pool, 0);)
        child_check(bri_now_ns() < end);
}

static void give_up_jobs(void *unused)
{
    static char large[BOUND / 2];
    brood_message item = {large, sizeof large};
    brood_pool *pool;
    void *memory;

    (void)unused;
    make_bounded_arena();
    child_check(brood_pool_create(BROOD_POOL_OPTIONS(.workers = 1), &pool) == 0);
    give_up_large_job(pool);
    child_check(brood_alloc(BOUND / 2, &memory) == 0 && brood_free(memory) == 0);
    give_up_large_job(pool);
    brood_result *result;
    child_check(brood_pool_map_bytes_async(pool, nothing, &item, 1, NULL, &result) == 0);
    child_check(brood_result_get(result, NULL, 0, brood_after_ms(WITHIN_MS)) == 0);
    child_check(brood_result_destroy(result) == 0 && brood_pool_destroy(pool) == 0);
}

static void jobs_that_were_given_up_are_had_back(void **unused)
{
    (void)unused;
    word = shared_pages(sizeof *word);
    in_child(give_up_jobs, NULL);
}

/* --- the same, when a worker needs the memory --- */

static int take_half(brood_task *task, const void *item, void *result)
{
    void *memory;

    (void)item, (void)result;
    return brood_alloc(BOUND / 2, &memory) == 0 && brood_free(memory) == 0
               ? 0
               : brood_task_fail(task, 1, brood_error_text());
}

/* The other worker is at the job that was given up. */
static int take_half_some_time(brood_task *task, const void *item, void *result)
{
    void *memory;

    (void)item, (void)result;
    bri_store_release(word, 1);
    for (int64_t end = brood_after_ms(WITHIN_MS); brood_alloc(BOUND / 2, &memory) < 0; breathe())
        if (bri_now_ns() > end)
            return brood_task_fail(task, 1, brood_error_text());
    return brood_free(memory);
}

static void need_what_was_given_up_before(void *unused)
{
    brood_pool *pool;

    (void)unused;
    make_bounded_arena();
    child_check(brood_pool_create(BROOD_POOL_OPTIONS(.workers = 1), &pool) == 0);
    give_up_large_job(pool);
    child_check(brood_pool_apply(pool, take_half, NULL, 0, NULL, 0) == 0);
    child_check(brood_pool_destroy(pool) == 0);
}

static void need_what_is_being_given_up(void *unused)
{
    static char large[BOUND / 2];
    brood_message item = {large, sizeof large};
    brood_pool *pool;
    brood_result *result;

    (void)unused;
    make_bounded_arena();
    bri_store_release(word, 0);
    child_check(brood_pool_create(BROOD_POOL_OPTIONS(.workers = 2), &pool) == 0);
    child_check(brood_pool_map_bytes_async(pool, wait_for_word, &item, 1, NULL, &result) == 0);
    child_check(brood_result_destroy(result) == 0);
    child_check(brood_pool_apply(pool, take_half_some_time, NULL, 0, NULL, 0) == 0);
    child_check(brood_pool_destroy(pool) == 0);
}

static void workers_have_them_too(void **unused)
{
    (void)unused;
    word = shared_pages(sizeof *word);
    in_child(need_what_was_given_up_before, NULL);
    in_child(need_what_is_being_given_up, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_size_may_follow_any_other),
        cmocka_unit_test(blocks_in_use_keep_their_slab),
        cmocka_unit_test(memory_of_locks_stays_such),
        cmocka_unit_test(a_run_may_take_all_that_is_left),
        cmocka_unit_test(slabs_come_and_go_under_everybody),
        cmocka_unit_test(what_the_dead_reserved_is_had_back),
        cmocka_unit_test(puts_have_it_back_too),
        cmocka_unit_test(nested_pools_leave_nothing),
        cmocka_unit_test(jobs_that_were_given_up_are_had_back),
        cmocka_unit_test(workers_have_them_too),
    };

    prepare_tests();
    return cmocka_run_group_tests_name("room", tests, NULL, NULL);
}
