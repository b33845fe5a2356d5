/* SPDX-License-Identifier: MIT */
/*
 * One word at a time: what a call answers when a certain word of shared memory has been written over.  The rules stand in arena/arena.h and
 * pool/pool.h; fuzz/damage.c and scribble_test.c go on where this list ends.  Each case is a process with an arena of its own; the library
 * is the one without the assertion ladder (tests/meson.build), which would end the process instead.
 */
#include "testing.h"

#include "heap/pages.h"
#include "locks/locks.h"
#include "pool/result.h"
#include "queue/queue.h"
#include "sync/mutex.h"

enum { NOBODY = 0x7b00beef };

static struct bri_header_shm *header(void)
{
    return bri_arena_current->header;
}

static void enter(void)
{
    alarm(TEST_SECONDS);
    child_check(brood_arena_create(BROOD_ARENA_OPTIONS(.max_bytes = 64 << 20)) == 0);
}

static int can_allocate(size_t bytes)
{
    void *memory;

    if (brood_alloc(bytes, &memory) < 0)
        return 0;
    memset(memory, 1, bytes);
    return brood_free(memory) == 0;
}

/* --- memory --- */

static void lead_free_lists_astray(void *unused)
{
    static const bri_offset nowhere[] = {64, UINT64_MAX - 63, UINT64_C(1) << 40, 12345};

    (void)unused;
    enter();
    for (size_t i = 0; i < sizeof nowhere / sizeof *nowhere; i++) {
        child_check(can_allocate(100));
        for (int class = 0; class < 16; class ++)
            bri_store_relaxed(&header()->classes[class].free, nowhere[i]);
        child_check(can_allocate(100));
        child_check(can_allocate(5000));
    }
}

static void make_runs_of_no_pages(void *unused)
{
    (void)unused;
    enter();
    child_check(can_allocate(200000));
    for (uint64_t page = 0; page < bri_arena_grown(); page++)
        bri_store_relaxed(bri_page_word(page), bri_page_make(BRI_PAGE_RUN, 0, 0));
    bri_store_relaxed(&header()->search_from, UINT64_C(0));
    child_check(can_allocate(200000)); /* behind them */
}

static void make_runs_too_long(void *unused)
{
    (void)unused;
    enter();
    child_check(can_allocate(200000));
    bri_store_relaxed(bri_page_word(0), bri_page_make(BRI_PAGE_FREE, 1 << 30, 0));
    bri_store_relaxed(&header()->search_from, UINT64_C(0));
    child_check(!can_allocate(60 << 20) || bri_arena_grown() * BRI_PAGE_BYTES >= 60 << 20);
    child_check(can_allocate(200000));
}

/* It would be walked to its end, and the file ends before. */
static void say_that_more_has_grown(void *unused)
{
    brood_arena_stats stats = {.size = sizeof stats};

    (void)unused;
    enter();
    child_check(can_allocate(200000));
    bri_store_relaxed(&header()->grown, UINT64_MAX / BRI_PAGE_BYTES);
    child_check(brood_arena_stats_get(&stats) == 0 && stats.grown_bytes < 64 << 20);
    child_check(can_allocate(200000));
}

/* Somebody dies, and every object is asked whether that concerns it. */
static void let_one_die(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        child_check(can_allocate(1));
        _exit(0);
    }
    child_check(waitpid(pid, NULL, 0) == pid);
    bri_bury_the_ended();
}

/* The block has no room for what it says it is. */
static void give_a_block_another_kind(void *unused)
{
    static const uint64_t kinds[] = {0xff,           BRI_KINDS,     BRI_KIND_SEMAPHORE, BRI_KIND_CONDITION,
                                     BRI_KIND_QUEUE, BRI_KIND_POOL, BRI_KIND_BARRIER,   BRI_KIND_PROCESS};
    void *memory;

    (void)unused;
    enter();
    child_check(brood_alloc(10, &memory) == 0);
    memset(memory, 0xff, 10);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        bri_store_relaxed(&bri_block_of(memory)->tag, kinds[i] << 8 | 1);
        let_one_die();
    }
}

/* --- participants --- */

static void let_claims_claim_each_other(void *unused)
{
    bri_name names[2];

    (void)unused;
    enter();
    for (int i = 0; i < 2; i++)
        child_check(bri_roster_claim(BRI_ROLE_WORKER, &names[i]) == 0);
    for (int i = 0; i < 2; i++)
        bri_store_relaxed(&bri_slot_of(names[i])->word, (uint64_t)names[1 - i] << 32 |
                                                            (uint64_t)bri_epoch_of(names[i]) << 8 |
                                                            BRI_SLOT_CLAIMED);
    child_check(bri_roster_has_ended(names[0]));
}

static void say_that_there_are_more_slots(void *unused)
{
    brood_arena_stats stats = {.size = sizeof stats};

    (void)unused;
    enter();
    bri_store_relaxed(&header()->slots_high, UINT32_MAX);
    child_check(brood_arena_stats_get(&stats) == 0 && stats.participants == 1);
    bri_bury_the_ended();
}

static void hold_mutexes_as(bri_name owner)
{
    enter();
    bri_store_relaxed(&header()->page_lock.owner, owner);
    bri_store_relaxed(&header()->undertaker.owner, owner);
    for (int class = 0; class < 16; class ++)
        bri_store_relaxed(&header()->classes[class].lock.owner, owner);
    child_check(can_allocate(100));
    child_check(can_allocate(200000));
    bri_undertake();
}

static void hold_mutexes_as_nobody(void *unused)
{
    (void)unused;
    hold_mutexes_as(NOBODY);
}

/* A name that it got after one that died with them. */
static void hold_mutexes_as_oneself(void *unused)
{
    (void)unused;
    hold_mutexes_as(1u << BRI_SLOT_BITS);
    child_check(bri_self() == 1u << BRI_SLOT_BITS);
}

/* --- queues --- */

static void lead_a_queue_astray(void *unused)
{
    brood_queue *queue;
    size_t bytes;
    char buffer[8];

    (void)unused;
    enter();
    child_check(brood_queue_create(NULL, &queue) == 0);
    child_check(brood_queue_put(queue, "x", 1, BROOD_NOW) == 0);
    struct bri_queue_shm *shared = (struct bri_queue_shm *)(void *)queue;
    bri_store_relaxed(&shared->head, bri_offset_of(queue));
    child_check(brood_queue_get(queue, buffer, sizeof buffer, &bytes, BROOD_NOW) == -EBADMSG);
    bri_store_relaxed(&shared->tail, bri_offset_of(queue));
    child_check(brood_queue_put(queue, "x", 1, BROOD_NOW) == -EBADMSG);
    child_check(brood_queue_destroy(queue) == 0);
}

/* Its lock is somebody else's, by an offset. */
static void lead_a_condition_astray(void *unused)
{
    brood_condition *condition;

    (void)unused;
    enter();
    child_check(brood_condition_create(NULL, &condition) == 0);
    condition->lock = UINT64_C(1) << 50;
    child_check(brood_condition_notify(condition, 1) == -EPERM);
    child_check(brood_condition_acquire(condition, BROOD_NOW) == 0);
    child_check(brood_condition_notify(condition, 1) == 0);
}

/* --- pools --- */

static int fail_always(brood_task *task, const void *item, void *result)
{
    (void)item, (void)result;
    return brood_task_fail(task, 7, "as it should");
}

static brood_pool *make_pool(void)
{
    brood_pool *pool;

    enter();
    child_check(brood_pool_create(BROOD_POOL_OPTIONS(.workers = 1, .grace_ms = 100), &pool) == 0);
    return pool;
}

static brood_result *submit_failure(brood_pool *pool)
{
    brood_result *result;
    int item = 1;

    child_check(brood_pool_apply_async(pool, fail_always, &item, sizeof item, sizeof item, &result) == 0);
    return result;
}

static struct bri_failure_shm *failure_of(brood_result *result)
{
    return bri_at(bri_load_acquire(&result->view.job->failures));
}

static void make_a_list_a_ring(void *unused)
{
    brood_pool *pool = make_pool();
    brood_result *result = submit_failure(pool);
    brood_outcome outcome;
    int value;

    (void)unused;
    child_check(brood_result_wait(result, BROOD_FOREVER) == 0);
    failure_of(result)->index = 5; /* so that the walk for item 0 goes on */
    failure_of(result)->next = bri_load_relaxed(&result->view.job->failures);
    child_check(brood_result_outcome(result, 0, &outcome) == 0);
    child_check(brood_result_get(result, &value, sizeof value, BROOD_FOREVER) == -ENOTRECOVERABLE);
    child_check(brood_result_destroy(result) == 0);
    child_check(brood_pool_destroy(pool) == 0);
}

static void make_an_outcome_of_no_kind(void *unused)
{
    brood_pool *pool = make_pool();
    brood_result *result = submit_failure(pool);
    brood_outcome outcome = {.kind = BROOD_PENDING};

    (void)unused;
    child_check(brood_result_wait(result, BROOD_FOREVER) == 0);
    failure_of(result)->outcome.kind = 1234;
    child_check(brood_result_outcome(result, 0, &outcome) == -ENOTRECOVERABLE &&
                outcome.kind == BROOD_PENDING);
    memset(&failure_of(result)->outcome, 'x', sizeof(brood_outcome));
    failure_of(result)->outcome.kind = BROOD_ERROR;
    child_check(brood_result_outcome(result, 0, &outcome) == 0);
    child_check(strlen(outcome.text) < sizeof outcome.text);
    child_check(brood_result_destroy(result) == 0);
    child_check(brood_pool_destroy(pool) == 0);
}

/* The numbers of a job become others: the owner goes by its own. */
static void make_a_job_larger(void *unused)
{
    brood_pool *pool = make_pool();
    brood_result *result = submit_failure(pool);
    struct bri_job_shm *job = result->view.job;
    int value;

    (void)unused;
    child_check(brood_result_wait(result, BROOD_FOREVER) == 0);
    job->count = job->chunks = job->chunk_items = job->result_bytes = UINT64_C(1) << 39;
    job->table_at = job->results_at = 64;
    child_check(brood_result_count(result) == 1);
    child_check(brood_result_get(result, &value, sizeof value, BROOD_FOREVER) == -EREMOTEIO);
    child_check(brood_result_cancel_running(result) == 0);
    child_check(brood_result_destroy(result) == 0);
    child_check(brood_pool_destroy(pool) == 0);
}

/* Nobody takes it any more. */
static void take_a_job_out_of_the_ring(void *unused)
{
    brood_pool *pool = make_pool();
    pid_t worker = brood_pool_worker_pid(pool, 0);
    int value;

    (void)unused;
    kill(worker, SIGSTOP);
    brood_result *result = submit_failure(pool);
    bri_store_release(bri_pool_ring(pool->shared, result->index), (bri_offset)0);
    kill(worker, SIGCONT);
    child_check(brood_result_get(result, &value, sizeof value, BROOD_FOREVER) == -ENOTRECOVERABLE);
    child_check(brood_result_destroy(result) == 0);
    child_check(brood_pool_destroy(pool) == 0);
}

struct call_damage {
    uint16_t word;
    int is_withdrawn, is_led_astray;
};

/* By another process, once the owner's call lies in the standing job, whose worker is stopped. */
static pid_t damage_next_call(brood_pool *pool, const struct call_damage *damage)
{
    pid_t worker = brood_pool_worker_pid(pool, 0), pid;
    struct bri_job_shm *job = pool->standing.job;

    kill(worker, SIGSTOP);
    if ((pid = fork()) != 0)
        return pid;
    while (bri_load_acquire(&job->word) != BRI_CHUNK_FREE)
        breathe();
    if (damage->is_withdrawn)
        bri_store_release(&pool->shared->standing, (bri_offset)0);
    if (damage->is_led_astray)
        job->table_at = bri_offset_of(&pool->shared->workers); /* which is not FREE */
    bri_store_release(&job->word, damage->word);
    kill(worker, SIGCONT);
    _exit(0);
}

static void damage_call(const struct call_damage *damage)
{
    brood_pool *pool = make_pool();
    int value = 1;

    child_check(brood_pool_apply(pool, fail_always, &value, sizeof value, &value, sizeof value) ==
                -EREMOTEIO);
    pid_t pid = damage_next_call(pool, damage);
    child_check(brood_pool_apply(pool, fail_always, &value, sizeof value, &value, sizeof value) ==
                -ENOTRECOVERABLE);
    child_check(waitpid(pid, NULL, 0) == pid);
    child_check(brood_pool_destroy(pool) == 0);
}

/* By a worker that listens, and so has claimed nothing. */
static void claim_a_call(void *unused)
{
    (void)unused;
    damage_call(&(struct call_damage){.word = 1});
}

static void take_a_call_away(void *unused)
{
    (void)unused;
    damage_call(&(struct call_damage){.word = BRI_CHUNK_ARMING, .is_withdrawn = 1});
}

/* Workers look for a call where there is none, and the owner's own word says that it is offered. */
static void take_the_word_of_a_call_away(void *unused)
{
    (void)unused;
    damage_call(&(struct call_damage){.word = BRI_CHUNK_FREE, .is_led_astray = 1});
}

static void move_the_head_of_the_ring(void *unused)
{
    brood_pool *pool = make_pool();
    brood_result *result;
    int item = 1;

    (void)unused;
    bri_store_release(&pool->shared->head, UINT64_C(1) << 50);
    child_check(brood_pool_apply_async(pool, fail_always, &item, sizeof item, sizeof item, &result) ==
                -ENOTRECOVERABLE);
    child_check(brood_pool_destroy(pool) == 0);
}

/* What was asked for is asked for again. */
static void have_it_run_for_ever(void *unused)
{
    brood_pool *pool = make_pool();

    (void)unused;
    kill(pool->supervisor_pid, SIGSTOP);
    child_check(brood_pool_close(pool) == 0);
    bri_store_release(&pool->shared->state, (uint32_t)BRI_POOL_RUNNING);
    kill(pool->supervisor_pid, SIGCONT);
    child_check(brood_pool_destroy(pool) == 0);
}

/* The supervisor's slot says that nobody is there: two must not be at work. */
static void lose_the_supervisor(void *unused)
{
    brood_pool *pool = make_pool();
    int first = pidfd_of(pool->supervisor_pid), value;

    (void)unused;
    bri_store_release(&bri_slot_of(pool->supervisor)->word, UINT64_C(0));
    child_check(brood_pool_apply(pool, fail_always, &value, sizeof value, &value, sizeof value) ==
                -EREMOTEIO);
    child_check(bri_pidfd_wait(first, brood_after_ms(WITHIN_MS)) == 0);
    child_check(brood_pool_destroy(pool) == 0);
}

/* --- all --- */

struct damage {
    void (*function)(void *unused);
};

static void run_case(void **state)
{
    in_child(((const struct damage *)*state)->function, NULL);
}

#define damage_case(name)                             \
    {                                                 \
#name, run_case, NULL, NULL, &(struct damage) \
        {                                             \
            name                                      \
        }                                             \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        damage_case(lead_free_lists_astray),
        damage_case(make_runs_of_no_pages),
        damage_case(make_runs_too_long),
        damage_case(say_that_more_has_grown),
        damage_case(give_a_block_another_kind),
        damage_case(let_claims_claim_each_other),
        damage_case(say_that_there_are_more_slots),
        damage_case(hold_mutexes_as_nobody),
        damage_case(hold_mutexes_as_oneself),
        damage_case(lead_a_queue_astray),
        damage_case(lead_a_condition_astray),
        damage_case(make_a_list_a_ring),
        damage_case(make_an_outcome_of_no_kind),
        damage_case(make_a_job_larger),
        damage_case(take_a_job_out_of_the_ring),
        damage_case(claim_a_call),
        damage_case(take_a_call_away),
        damage_case(take_the_word_of_a_call_away),
        damage_case(move_the_head_of_the_ring),
        damage_case(have_it_run_for_ever),
        damage_case(lose_the_supervisor),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
