/* SPDX-License-Identifier: MIT */
/*
 * A pool whose workers are threads: J1 … J8 of job.h and L1 … L4 of standing.c against C1 … C6, F1, F2 of pool.h and the death tables.  Owners
 * submit, cancel, look and free; one of them calls; workers claim and run, and die at fault points and in items; the keeper of a seat does what a supervisor does for it.  Items, results and counts of
 * runs are no atomics, and a job's memory is the next one's: that is what ThreadSanitizer looks at.
 */
#include "pool/testing.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

enum {
    SEATS = 3,
    OWNERS = 2,
    JOBS = 500,
    CALLS = 3000,
    PAUSE_EVERY = 50,
    ITEMS_MOST = 60,
    CHUNK_MOST = 5,
    POINTS_MOST = 60,
    FLIGHTS = 4,
    FAILS = 7,
    WITHIN_MS = 60000
};

struct item {
    uint32_t number;
    uint32_t *runs; /* how often the item has been run; all threads have one memory */
};

struct seat {
    uint32_t index, random, deaths;
};

struct flight {               /* a job on its way */
    struct bri_job_view view; /* job NULL: none */
    uint64_t index;
    const uint32_t *runs;
};

static struct owner {
    uint32_t random;
    uint32_t runs[JOBS][ITEMS_MOST];
} owners[OWNERS];

static atomic_uint calls_made;

/* --- workers --- */

static _Thread_local uint32_t points_left; /* until this worker dies; 0: it does not */

static void pass_point(void)
{
    if (points_left > 0 && --points_left == 0)
        pthread_exit(NULL);
}

#if defined(BROOD_FAULT_POINTS) && BROOD_FAULT_POINTS
/* At others it may hold a lock, which as a thread it would keep. */
static void pass_fault_point(const char *point)
{
    if (strncmp(point, "claim.", 6) == 0 || strncmp(point, "job.", 4) == 0)
        pass_point();
}
#endif

static int run_item(brood_task *task, const void *item, void *result)
{
    const struct item *own = item;

    pass_point();
    ++*own->runs;
    *(uint32_t *)result = own->number * 3 + 1;
    pass_point();
    return own->number % FAILS == 0 ? brood_task_fail(task, FAILS, "as it was told") : 0;
}

/* As bri_worker_main. */
static void *work(void *argument)
{
    struct seat *own = argument;
    struct bri_claim claim = claim_of_seat(own->index);

    points_left = 1 + next_random(&own->random) % POINTS_MOST;
    while (bri_wait(&pool->shared->work, bri_claim_any, &claim, BROOD_FOREVER, 0) == BRI_CLAIMED) {
        bri_worker_run_chunk(pool, &claim);
        bri_claim_done(&claim);
    }
    points_left = 0;
    return own;
}

static void *keep_seat(void *argument)
{
    struct seat *own = argument;
    struct bri_seat_shm *seat = bri_pool_seat(pool->shared, own->index);
    void *left = NULL;

    for (; left == NULL; own->deaths += left == NULL) {
        pthread_t worker;
        bri_name name;
        thread_check(bri_seat_give(seat, bri_self(), &name) == 0);
        thread_check(pthread_create(&worker, NULL, work, own) == 0);
        thread_check(pthread_join(worker, &left) == 0);
        bury_worker(name, left != NULL ? BRI_END_CLEAN : BRI_END_KILLED);
    }
    return NULL;
}

/* --- owners --- */

static int is_complete(void *job)
{
    return bri_job_is_complete(job);
}

/* One outcome each, the right one, and run no oftener than that says. */
static void check_item(const struct bri_job_view *view, uint64_t index, uint32_t runs)
{
    struct bri_job_shm *job = view->job;
    uint32_t number = ((const struct item *)bri_at(job->items_at))[index].number;
    uint32_t value = ((const uint32_t *)bri_at(job->results_at))[index];
    brood_outcome outcome;

    thread_check(bri_job_outcome(view, index, &outcome) == 0);
    thread_check(runs <= (uint32_t)outcome.attempts);
    switch (outcome.kind) {
    case BROOD_VALUE:
        thread_check(runs >= 1 && value == number * 3 + 1 && number % FAILS != 0);
        break;
    case BROOD_ERROR:
        thread_check(runs >= 1 && outcome.code == FAILS && number % FAILS == 0);
        break;
    case BROOD_DIED:
        thread_check(outcome.attempts == (int)job->retries + 1 || bri_job_is_stopped(job));
        break;
    default:
        thread_check(outcome.kind == BROOD_CANCELLED && bri_load_relaxed(&job->cancel) != BRI_CANCEL_NONE);
    }
}

static void submit_job(struct owner *own, uint32_t number, struct flight *ret_flight)
{
    struct item items[ITEMS_MOST];
    uint32_t *runs = own->runs[number];
    struct bri_job_wish wish = {.function = run_item,
                                .items = items,
                                .count = 1 + next_random(&own->random) % ITEMS_MOST,
                                .item_bytes = sizeof *items,
                                .result_bytes = sizeof(uint32_t),
                                .chunk_items = 1 + next_random(&own->random) % CHUNK_MOST,
                                .notify = bri_offset_of(&pool->shared->finished),
                                .workers = SEATS,
                                .retries = next_random(&own->random) % 2};

    for (uint32_t i = 0; i < wish.count; i++)
        items[i] = (struct item){number + i, &runs[i]};
    thread_check(bri_job_make(&wish, &ret_flight->view) == 0);
    thread_check(bri_pool_offer(pool, &ret_flight->view, &ret_flight->index) == 0);
    bri_event_signal(&pool->shared->work, INT_MAX);
    ret_flight->runs = runs;
}

static void end_job(struct flight *flight)
{
    struct bri_job_shm *job = flight->view.job;

    if (job == NULL)
        return;
    thread_check(bri_wait(&job->event, is_complete, job, brood_after_ms(WITHIN_MS), 0) == 1);
    for (uint64_t i = 0; i < job->count; i++)
        check_item(&flight->view, i, flight->runs[i]);
    bri_pool_take_back(pool, &flight->view, flight->index);
    flight->view.job = NULL;
}

static void give_up_job(struct flight *flight)
{
    bri_pool_take_back(pool, &flight->view, flight->index);
    flight->view.job = NULL;
}

/* Between jobs, so that calls find nothing in the ring. */
static void wait_for_call(struct flight *flights)
{
    for (int i = 0; i < FLIGHTS; i++)
        end_job(&flights[i]);
    for (uint32_t made = atomic_load(&calls_made); made < CALLS && atomic_load(&calls_made) == made;)
        sched_yield();
}

static void *use_pool(void *argument)
{
    struct owner *own = argument;
    struct flight flights[FLIGHTS] = {{.runs = NULL}};

    for (uint32_t i = 0; i < JOBS; i++) {
        struct flight *flight = &flights[i % FLIGHTS];
        if (i % PAUSE_EVERY == 0)
            wait_for_call(flights);
        end_job(flight);
        submit_job(own, i, flight);
        uint32_t wish = next_random(&own->random) % 8;
        if (wish == 0)
            give_up_job(flight);
        else if (wish == BRI_CANCEL_WAITING || wish == BRI_CANCEL_RUNNING)
            bri_job_cancel(&flight->view, (enum bri_job_cancel)wish);
    }
    for (int i = 0; i < FLIGHTS; i++)
        end_job(&flights[i]);
    return NULL;
}

static struct caller {
    uint32_t runs[CALLS], died;
} caller;

static void check_call(uint32_t number, int error, uint32_t value)
{
    uint32_t runs = caller.runs[number];

    thread_check(runs <= 1);
    if (error == -EOWNERDEAD)
        caller.died++;
    else if (number % FAILS == 0)
        thread_check(error == -EREMOTEIO && runs == 1);
    else
        thread_check(error == 0 && runs == 1 && value == number * 3 + 1);
}

/* Each one once there is nothing in the ring: before, it would be a job as those above. */
static void *call_pool(void *argument)
{
    struct bri_job_wish wish = {.function = run_item,
                                .count = 1,
                                .item_bytes = sizeof(struct item),
                                .result_bytes = sizeof(uint32_t)};

    for (uint32_t i = 0; i < CALLS; i++) {
        struct item item = {i, &caller.runs[i]};
        uint32_t value = 0;
        wish.items = &item;
        int error;
        while ((error = bri_pool_call(pool, &wish, &value)) > 0)
            sched_yield();
        check_call(i, error, value);
        atomic_fetch_add(&calls_made, 1);
    }
    return argument;
}

/* --- the pool --- */

static uint32_t run_threads(void)
{
    pthread_t at_seats[SEATS], submitting[OWNERS], calling;
    struct seat seats[SEATS];
    uint32_t deaths = 0;

    for (uint32_t i = 0; i < SEATS; i++) {
        seats[i] = (struct seat){.index = i, .random = i};
        assert_int_equal(pthread_create(&at_seats[i], NULL, keep_seat, &seats[i]), 0);
    }
    for (uint32_t i = 0; i < OWNERS; i++) {
        owners[i].random = 100 + i;
        assert_int_equal(pthread_create(&submitting[i], NULL, use_pool, &owners[i]), 0);
    }
    assert_int_equal(pthread_create(&calling, NULL, call_pool, NULL), 0);
    for (int i = 0; i < OWNERS; i++)
        assert_int_equal(pthread_join(submitting[i], NULL), 0);
    assert_int_equal(pthread_join(calling, NULL), 0);
    bri_pool_advance(pool->shared, BRI_POOL_CLOSING);
    for (int i = 0; i < SEATS; i++) {
        assert_int_equal(pthread_join(at_seats[i], NULL), 0);
        deaths += seats[i].deaths;
    }
    return deaths;
}

static void each_item_has_one_outcome(void **state)
{
    void *memory = NULL;

    (void)state;
    assert_int_equal(brood_alloc(1, &memory), 0); /* the arena */
    uint64_t before = used_blocks();
    make_pool_without_processes(SEATS);
    assert_true(run_threads() >= SEATS);
    assert_true(caller.died > 0);
    bri_pool_drop(pool);
    assert_true(bri_heap_is_valid());
    assert_int_equal(used_blocks(), before);
    assert_int_equal(brood_free(memory), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_item_has_one_outcome)};

#if defined(BROOD_FAULT_POINTS) && BROOD_FAULT_POINTS
    bri_fault_hook = pass_fault_point;
#endif
    return cmocka_run_group_tests(tests, NULL, NULL);
}
