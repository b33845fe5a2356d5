/* SPDX-License-Identifier: MIT */
/*
 * Tasks that are ended: past their time, past the time of the whole, cancelled while they run; and tasks that are tried again.  Each time
 * the others go on, and each item has one outcome, the right one.
 */
#include "pool_testing.h"

#include <sched.h>
#include <time.h>

#include "base/check.h"

enum { WORKERS = 2, ITEMS = 40, LIMIT_MS = 60, ROUNDS = 25 };

/* What a task does, in the order of its item's value. */
enum deed { DEED_WORK, DEED_HANG, DEED_HANG_DEAF, DEED_DIE, DEED_DIE_TWICE, DEED_SLEEP_DEAF };

/* How often each item was begun and finished; in the arena. */
static struct tally {
    _Atomic int begun[1024], finished[1024];
} * tally;

static int make_tally_and_pool(void **state)
{
    void *memory = NULL;

    if (make_pool_of(WORKERS, state) != 0 || brood_alloc(sizeof *tally, &memory) < 0)
        return -1;
    tally = memory;
    brood_pool_destroy(pool); /* its workers do not know the tally */
    pool =
        brood_pool_create(BROOD_POOL_OPTIONS(.workers = WORKERS, .grace_ms = 50), &pool) == 0 ? pool : NULL;
    return pool == NULL;
}

static void hang(void)
{
    for (;;)
        sched_yield();
}

static int do_deed(brood_task *task, const void *item, void *result)
{
    size_t index = brood_task_index(task);
    int begun = bri_add_relaxed(&tally->begun[index], 1);

    switch ((enum deed) * (const int *)item) {
    case DEED_HANG:
        hang();
        break;
    case DEED_HANG_DEAF:
        signal(SIGTERM, SIG_IGN);
        hang();
        break;
    case DEED_SLEEP_DEAF:
        signal(SIGTERM, SIG_IGN);
        for (;;)
            poll(NULL, 0, 1000);
    case DEED_DIE:
        raise(SIGKILL);
        break;
    case DEED_DIE_TWICE:
        if (begun < 2)
            raise(SIGKILL);
        break;
    case DEED_WORK:
        break;
    }
    *(size_t *)result = index * 3 + 1;
    bri_add_relaxed(&tally->finished[index], 1);
    return 0;
}

static brood_result *begin(brood_pool *in, const int *deeds, size_t count, const brood_map_options *options)
{
    brood_result *result;

    memset(tally, 0, sizeof *tally);
    assert_ok(
        brood_pool_map_async(in, do_deed, deeds, sizeof *deeds, sizeof(size_t), count, options, &result));
    return result;
}

static brood_outcome outcome_of(brood_result *result, size_t index)
{
    brood_outcome outcome;

    assert_ok(brood_result_outcome(result, index, &outcome));
    return outcome;
}

static void assert_has_value(brood_result *result, size_t index)
{
    brood_outcome outcome = outcome_of(result, index);

    if (outcome.kind != BROOD_VALUE)
        fail_msg("item %zu: outcome %d: %s", index, outcome.kind, outcome.text);
    assert_int_equal(bri_load_relaxed(&tally->finished[index]), 1);
}

/* Never twice.  An item that is ended before its first instruction has not counted itself. */
static void assert_was_begun_once(size_t index, int kind)
{
    int begun = bri_load_relaxed(&tally->begun[index]);

    if (begun != 1 && !(begun == 0 && (kind == BROOD_TIMED_OUT || kind == BROOD_DIED)))
        fail_msg("item %zu was begun %d times, outcome %d", index, begun, kind);
}

static void assert_ended(brood_result *result, size_t index, int kind, const char *why)
{
    brood_outcome outcome = outcome_of(result, index);

    if (outcome.kind != kind || strstr(outcome.text, why) == NULL)
        fail_msg("item %zu: outcome %d: %s", index, outcome.kind, outcome.text);
    assert_was_begun_once(index, kind);
    assert_int_equal(bri_load_relaxed(&tally->finished[index]), 0);
}

/* All items but those of `deed` are values. */
static void assert_others_have_values(brood_result *result, const int *deeds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (deeds[i] == DEED_WORK)
            assert_has_value(result, i);
}

/* --- time per item --- */

static void items_past_their_time(int deed, size_t chunk_items)
{
    int deeds[ITEMS] = {[3] = deed, [17] = deed, [ITEMS - 1] = deed};
    brood_result *result =
        begin(pool, deeds, ITEMS, BROOD_MAP_OPTIONS(.chunk_items = chunk_items, .item_timeout_ms = LIMIT_MS));

    assert_ok(brood_result_wait(result, brood_after_ms(WITHIN_MS)));
    for (size_t i = 0; i < ITEMS; i++)
        if (deeds[i] != DEED_WORK)
            assert_ended(result, i, BROOD_TIMED_OUT, "not done within its 60 ms");
    assert_others_have_values(result, deeds, ITEMS);
    assert_refused(brood_result_get(result, NULL, 0, BROOD_NOW), EMSGSIZE, "capacity");
    size_t results[ITEMS];
    assert_refused(brood_result_get(result, results, sizeof results, BROOD_NOW), ETIME, "item 3");
    assert_int_equal(results[4], 4 * 3 + 1);
    assert_ok(brood_result_destroy(result));
}

static void an_item_past_its_time_is_ended(void **unused)
{
    (void)unused;
    items_past_their_time(DEED_HANG, 1);
    items_past_their_time(DEED_HANG, 7);
    items_past_their_time(DEED_HANG, ITEMS);
}

static void also_when_it_ignores_sigterm(void **unused)
{
    (void)unused;
    items_past_their_time(DEED_HANG_DEAF, 7);
    items_past_their_time(DEED_SLEEP_DEAF, 1);
}

/* Short items, many of them: none is ended, and the supervisor is not woken for each. */
static void short_items_are_left_alone(void **unused)
{
    static int deeds[1000];
    brood_result *result = begin(pool, deeds, 1000, BROOD_MAP_OPTIONS(.item_timeout_ms = 20000));

    (void)unused;
    assert_ok(brood_result_wait(result, brood_after_ms(WITHIN_MS)));
    assert_others_have_values(result, deeds, 1000);
    assert_ok(brood_result_destroy(result));
    for (uint32_t i = 0; i < WORKERS; i++)
        await_true(bri_load_acquire(&bri_pool_seat(pool->shared, i)->ends_at) == BROOD_FOREVER);
}

/* An item that takes about as long as it may: it ends one way or the other, and its neighbours live. */
static int spin_for(brood_task *task, const void *item, void *result)
{
    int64_t end = bri_now_ns() + *(const int *)item * INT64_C(1000);

    bri_add_relaxed(&tally->begun[brood_task_index(task)], 1);
    while (bri_now_ns() < end)
        bri_cpu_relax();
    *(size_t *)result = brood_task_index(task) * 3 + 1;
    bri_add_relaxed(&tally->finished[brood_task_index(task)], 1);
    return 0;
}

static void ends_at_the_brink(void **unused)
{
    uint32_t random = choose_seed();

    (void)unused;
    for (int round = 0; round < ROUNDS; round++) {
        int micros[ITEMS];
        size_t results[ITEMS];
        brood_result *result;
        memset(tally, 0, sizeof *tally);
        for (size_t i = 0; i < ITEMS; i++) /* every fourth takes 3.5 to 4.5 ms of the 4 that it has */
            micros[i] = i % 4 == 3 ? 3500 + (int)(next_random(&random) % 1000) : 10;
        assert_ok(brood_pool_map_async(pool, spin_for, micros, sizeof *micros, sizeof *results, ITEMS,
                                       BROOD_MAP_OPTIONS(.item_timeout_ms = 4, .chunk_items = 8), &result));
        assert_ok(brood_result_wait(result, brood_after_ms(WITHIN_MS)));
        int error = brood_result_get(result, results, sizeof results, BROOD_NOW);
        assert_true(error == 0 || error == -ETIME);
        for (size_t i = 0; i < ITEMS; i++) {
            brood_outcome outcome = outcome_of(result, i);
            int finished = bri_load_relaxed(&tally->finished[i]);
            assert_was_begun_once(i, outcome.kind);
            assert_true(outcome.kind == BROOD_VALUE || outcome.kind == BROOD_TIMED_OUT);
            if (outcome.kind == BROOD_VALUE) {
                assert_int_equal(finished, 1);
                assert_int_equal(results[i], i * 3 + 1);
            }
        }
        assert_ok(brood_result_destroy(result));
    }
}

/* --- time of the whole --- */

static void the_time_of_the_whole(void **unused)
{
    int deeds[ITEMS] = {[0] = DEED_HANG, [ITEMS / 2] = DEED_HANG_DEAF};
    size_t results[ITEMS];
    brood_result *result =
        begin(pool, deeds, ITEMS, BROOD_MAP_OPTIONS(.chunk_items = 4, .timeout_ms = LIMIT_MS));

    (void)unused;
    assert_ok(brood_result_wait(result, brood_after_ms(WITHIN_MS)));
    assert_ended(result, 0, BROOD_TIMED_OUT, "still running when the 60 ms of the whole were over");
    assert_ended(result, ITEMS / 2, BROOD_TIMED_OUT,
                 bri_load_relaxed(&tally->begun[ITEMS / 2]) ? "still running" : "not begun");
    for (size_t i = 0; i < ITEMS; i++) {
        brood_outcome outcome = outcome_of(result, i);
        assert_true(outcome.kind == (bri_load_relaxed(&tally->finished[i]) ? BROOD_VALUE : BROOD_TIMED_OUT));
        assert_int_equal(outcome.attempts,
                         outcome.kind == BROOD_VALUE || strstr(outcome.text, "still running") != NULL);
    }
    assert_refused(brood_result_get(result, results, sizeof results, BROOD_NOW), ETIME, "item 0");
    assert_ok(brood_result_destroy(result));
}

/* All workers are busy with another job, so that nobody ever looks at this one. */
static void the_time_of_what_is_never_begun(void **unused)
{
    int hangs[WORKERS] = {DEED_HANG, DEED_HANG}, work[3] = {0};
    size_t results[3];
    brood_result *busy = begin(pool, hangs, WORKERS, NULL), *late;

    (void)unused;
    await_true(bri_load_acquire(&tally->begun[0]) && bri_load_acquire(&tally->begun[1]));
    assert_ok(brood_pool_map_async(pool, do_deed, work, sizeof *work, sizeof(size_t), 3,
                                   BROOD_MAP_OPTIONS(.timeout_ms = LIMIT_MS), &late));
    int fd = brood_result_fd(late); /* nobody waits for it but this descriptor */
    assert_int_equal(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, WITHIN_MS), 1);
    assert_int_equal(brood_result_ready(late), 1);
    assert_int_equal(outcome_of(late, 2).kind, BROOD_TIMED_OUT);
    assert_refused(brood_result_get(late, results, sizeof results, BROOD_NOW), ETIME, "60 ms");
    assert_ok(brood_result_destroy(late));
    assert_int_equal(brood_result_ready(busy), 0);
    assert_int_equal(brood_result_cancel_running(busy), 0);
    assert_ok(brood_result_wait(busy, brood_after_ms(WITHIN_MS)));
    assert_ok(brood_result_destroy(busy));
}

static void many_deadlines(void **unused)
{
    int hangs[WORKERS] = {DEED_HANG, DEED_HANG}, work = DEED_WORK;
    brood_result *busy = begin(pool, hangs, WORKERS, NULL), *late[8];

    (void)unused;
    for (uint32_t i = 0; i < 8; i++)
        assert_ok(brood_pool_map_async(pool, do_deed, &work, sizeof work, sizeof(size_t), 1,
                                       BROOD_MAP_OPTIONS(.timeout_ms = 160 - 20 * i), &late[i]));
    for (uint32_t i = 0; i < 8; i++)
        assert_ok(brood_result_wait(late[7 - i], brood_after_ms(WITHIN_MS)));
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(outcome_of(late[i], 0).kind, BROOD_TIMED_OUT);
        assert_ok(brood_result_destroy(late[i]));
    }
    brood_result_cancel_running(busy);
    assert_ok(brood_result_wait(busy, brood_after_ms(WITHIN_MS)));
    assert_ok(brood_result_destroy(busy));
}

/* --- cancel --- */

static void what_runs_is_cancelled(void **unused)
{
    int deeds[ITEMS];
    size_t results[ITEMS];

    (void)unused;
    for (size_t i = 0; i < ITEMS; i++)
        deeds[i] = DEED_HANG;
    brood_result *result = begin(pool, deeds, ITEMS, BROOD_MAP_OPTIONS(.chunk_items = 5));
    await_true(bri_load_acquire(&tally->begun[0]) && bri_load_acquire(&tally->begun[ITEMS / 2]));
    brood_result *other;
    assert_ok(brood_pool_map_async(pool, triple, (const long[]){1, 2, 3}, sizeof(long), sizeof(long), 3, NULL,
                                   &other));
    assert_int_equal(brood_result_cancel_running(result), ITEMS - 10);
    assert_ok(brood_result_wait(result, brood_after_ms(WITHIN_MS)));
    assert_ended(result, 0, BROOD_CANCELLED, "cancelled while it ran");
    assert_ended(result, ITEMS / 2, BROOD_CANCELLED, "cancelled while it ran");
    for (size_t i = 0; i < ITEMS; i++)
        assert_int_equal(outcome_of(result, i).kind, BROOD_CANCELLED);
    assert_refused(brood_result_get(result, results, sizeof results, BROOD_NOW), ECANCELED, "item 0");
    assert_int_equal(brood_result_cancel_running(result), 0);
    long triples[3];
    assert_ok(brood_result_get(other, triples, sizeof triples, brood_after_ms(WITHIN_MS)));
    assert_int_equal(triples[2], 9);
    assert_ok(brood_result_destroy(other));
    assert_ok(brood_result_destroy(result));
}

/* At any moment of a job of short items, another job running beside it. */
static void cancelled_at_any_moment(void **unused)
{
    static int deeds[1000];
    uint32_t random = choose_seed();

    (void)unused;
    for (int round = 0; round < ROUNDS * 4; round++) {
        brood_result *result =
                         begin(pool, deeds, 1000, BROOD_MAP_OPTIONS(.chunk_items = 1 + (size_t)round % 13)),
                     *other;
        long items[ITEMS], triples[ITEMS];
        for (size_t i = 0; i < ITEMS; i++)
            items[i] = (long)i;
        assert_ok(
            brood_pool_map_async(pool, triple, items, sizeof *items, sizeof *triples, ITEMS, NULL, &other));
        for (uint32_t spin = next_random(&random) % 20000; spin > 0; spin--)
            bri_cpu_relax();
        assert_true(brood_result_cancel_running(result) >= 0);
        assert_ok(brood_result_wait(result, brood_after_ms(WITHIN_MS)));
        assert_ok(brood_result_get(other, triples, sizeof triples, brood_after_ms(WITHIN_MS)));
        for (size_t i = 0; i < 1000; i++) {
            int kind = outcome_of(result, i).kind, finished = bri_load_relaxed(&tally->finished[i]);
            assert_true(kind == BROOD_VALUE ? finished == 1 : kind == BROOD_CANCELLED);
            assert_true(bri_load_relaxed(&tally->begun[i]) <= 1);
        }
        assert_int_equal(triples[ITEMS - 1], 3 * (ITEMS - 1));
        assert_ok(brood_result_destroy(other));
        assert_ok(brood_result_destroy(result));
    }
}

/* --- soft ends --- */

static brood_task *the_task;
static _Atomic int is_told;

static void tell(int signal)
{
    (void)signal;
    bri_store_relaxed(&is_told, brood_task_is_ending(the_task));
}

static int listen(void *unused)
{
    (void)unused;
    return signal(SIGRTMIN + 5, tell) == SIG_ERR;
}

/* Returns by itself once it is told, half a value in its hands. */
static int work_until_told(brood_task *task, const void *item, void *result)
{
    the_task = task;
    bri_add_relaxed(&tally->begun[brood_task_index(task)], 1);
    while (*(const int *)item != 0 && !bri_load_relaxed(&is_told))
        bri_cpu_relax();
    *(size_t *)result = brood_task_index(task);
    bri_add_relaxed(&tally->finished[brood_task_index(task)], 1);
    return 0;
}

static void a_soft_signal_comes_first(void **unused)
{
    const int deeds[6] = {0, 0, 1, 0, 1, 0};
    brood_pool *soft;
    brood_result *result;

    (void)unused;
    memset(tally, 0, sizeof *tally);
    assert_ok(brood_pool_create(BROOD_POOL_OPTIONS(.workers = 2, .grace_ms = WITHIN_MS, .initializer = listen,
                                                   .soft_signal = SIGRTMIN + 5),
                                &soft));
    assert_ok(brood_pool_map_async(soft, work_until_told, deeds, sizeof *deeds, sizeof(size_t), 6,
                                   BROOD_MAP_OPTIONS(.item_timeout_ms = LIMIT_MS, .chunk_items = 3),
                                   &result));
    assert_ok(brood_result_wait(result, brood_after_ms(WITHIN_MS)));
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(bri_load_relaxed(&tally->finished[i]), 1); /* neither killed nor run again */
        assert_int_equal(outcome_of(result, i).kind, deeds[i] ? BROOD_TIMED_OUT : BROOD_VALUE);
    }
    assert_ok(brood_result_destroy(result));
    assert_ok(brood_pool_destroy(soft));
}

/* Without any signal that it could notice: the function asks by itself. */
static int work_until_asked(brood_task *task, const void *item, void *result)
{
    bri_add_relaxed(&tally->begun[brood_task_index(task)], 1);
    while (*(const int *)item != 0 && !brood_task_is_ending(task))
        bri_cpu_relax();
    *(size_t *)result = brood_task_index(task);
    bri_add_relaxed(&tally->finished[brood_task_index(task)], 1);
    return 0;
}

static int be_deaf(void *unused)
{
    (void)unused;
    return signal(SIGTERM, SIG_IGN) == SIG_ERR;
}

static void a_function_may_ask(void **unused)
{
    const int deeds[6] = {0, 0, 1, 0, 0, 0};
    brood_pool *polite;
    brood_result *result;

    (void)unused;
    memset(tally, 0, sizeof *tally);
    assert_ok(brood_pool_create(
        BROOD_POOL_OPTIONS(.workers = 1, .grace_ms = WITHIN_MS, .initializer = be_deaf), &polite));
    assert_ok(brood_pool_map_async(polite, work_until_asked, deeds, sizeof *deeds, sizeof(size_t), 6,
                                   BROOD_MAP_OPTIONS(.chunk_items = 3), &result));
    await_true(bri_load_acquire(&tally->begun[2]));
    assert_int_equal(brood_result_cancel_running(result), 3);
    assert_ok(brood_result_wait(result, brood_after_ms(WITHIN_MS)));
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(outcome_of(result, i).kind, i < 2 ? BROOD_VALUE : BROOD_CANCELLED);
    assert_int_equal(bri_load_relaxed(&tally->finished[2]), 1); /* it was let end by itself */
    assert_int_equal(brood_task_is_ending(NULL), 0);
    assert_ok(brood_result_destroy(result));
    assert_ok(brood_pool_destroy(polite));
}

/* --- retries --- */

static void items_are_tried_again(void **unused)
{
    for (size_t chunk_items = 1; chunk_items <= ITEMS; chunk_items *= 6) {
        int deeds[ITEMS] = {
            [0] = DEED_DIE_TWICE, [9] = DEED_DIE, [20] = DEED_DIE_TWICE, [ITEMS - 1] = DEED_DIE};
        brood_result *result =
            begin(pool, deeds, ITEMS, BROOD_MAP_OPTIONS(.chunk_items = chunk_items, .retries = 2));
        (void)unused;
        assert_ok(brood_result_wait(result, brood_after_ms(WITHIN_MS)));
        for (size_t i = 0; i < ITEMS; i++) {
            brood_outcome outcome = outcome_of(result, i);
            assert_int_equal(outcome.kind, deeds[i] == DEED_DIE ? BROOD_DIED : BROOD_VALUE);
            assert_int_equal(outcome.attempts, deeds[i] == DEED_WORK ? 1 : 3);
            assert_int_equal(bri_load_relaxed(&tally->begun[i]), outcome.attempts);
        }
        assert_non_null(strstr(outcome_of(result, 9).text, "it has killed 3 workers"));
        assert_ok(brood_result_destroy(result));
    }
}

static void what_was_ended_is_not_tried_again(void **unused)
{
    int deeds[4] = {[1] = DEED_HANG};
    brood_result *result =
        begin(pool, deeds, 4, BROOD_MAP_OPTIONS(.item_timeout_ms = LIMIT_MS, .retries = 5, .chunk_items = 2));

    (void)unused;
    assert_ok(brood_result_wait(result, brood_after_ms(WITHIN_MS)));
    assert_ended(result, 1, BROOD_TIMED_OUT, "not done within");
    assert_int_equal(outcome_of(result, 1).attempts, 1);
    assert_others_have_values(result, deeds, 4);
    assert_ok(brood_result_destroy(result));
}

static int give_deeds(void *argument, brood_message *ret_item)
{
    static const int deeds[] = {DEED_WORK, DEED_HANG, DEED_DIE_TWICE, DEED_WORK};
    size_t *next = argument;

    if (*next == 4)
        return 0;
    *ret_item = (brood_message){(void *)(uintptr_t)&deeds[(*next)++], sizeof *deeds};
    return 1;
}

static int do_deed_and_reply(brood_task *task, const void *item, void *unused)
{
    size_t result;
    int error = do_deed(task, item, &result);

    (void)unused;
    return error == 0 ? brood_task_reply(task, &result, sizeof result) : error;
}

static void streams_too(void **unused)
{
    const int kinds[] = {BROOD_VALUE, BROOD_TIMED_OUT, BROOD_VALUE, BROOD_VALUE};
    brood_stream *stream;
    brood_stream_item item;
    size_t next = 0;

    (void)unused;
    memset(tally, 0, sizeof *tally);
    assert_ok(brood_pool_imap(pool, do_deed_and_reply, give_deeds, &next,
                              BROOD_IMAP_OPTIONS(.item_timeout_ms = LIMIT_MS, .retries = 2), &stream));
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(brood_stream_next(stream, &item, brood_after_ms(WITHIN_MS)), 1);
        assert_int_equal(item.outcome.kind, kinds[i]);
        assert_int_equal(item.outcome.attempts, i == 2 ? 3 : 1);
    }
    assert_int_equal(brood_stream_next(stream, &item, brood_after_ms(WITHIN_MS)), 0);
    assert_ok(brood_stream_destroy(stream));
}

/* --- together with other deaths --- */

/* The supervisor is killed again and again while items are past their time. */
static void supervisors_die_meanwhile(void **unused)
{
    int deeds[ITEMS] = {[2] = DEED_HANG, [11] = DEED_HANG_DEAF, [30] = DEED_HANG};

    (void)unused;
    for (int round = 0; round < 8; round++) {
        brood_pool *own = new_pool(WORKERS);
        brood_result *result =
            begin(own, deeds, ITEMS, BROOD_MAP_OPTIONS(.item_timeout_ms = LIMIT_MS, .chunk_items = 3));
        await_true(bri_load_acquire(&tally->begun[2]) || bri_load_acquire(&tally->begun[30]));
        assert_int_equal(brood_result_wait(result, brood_after_ms(LIMIT_MS - 20 + round * 5)) <= 0, 1);
        kill(supervisor_pid(own), SIGKILL);
        assert_ok(brood_result_wait(result, brood_after_ms(WITHIN_MS)));
        for (size_t i = 0; i < ITEMS; i++) {
            int kind = outcome_of(result, i).kind;
            assert_was_begun_once(i, kind);
            assert_true(kind == (deeds[i] == DEED_WORK ? BROOD_VALUE : BROOD_TIMED_OUT) ||
                        kind == BROOD_DIED);
        }
        assert_ok(brood_result_destroy(result));
        assert_ok(brood_pool_destroy(own));
    }
}

/* --- bad input --- */

static void bad_options(void **unused)
{
    brood_result *result;
    brood_stream *stream;
    brood_pool *made;
    size_t next = 0;

    (void)unused;
    assert_refused(
        brood_pool_map_async(pool, nothing, NULL, 0, 0, 1, BROOD_MAP_OPTIONS(.retries = 1001), &result),
        EINVAL, "options->retries");
    assert_refused(
        brood_pool_imap(pool, nothing, give_deeds, &next, BROOD_IMAP_OPTIONS(.retries = 1001), &stream),
        EINVAL, "options->retries");
    assert_refused(brood_pool_create(BROOD_POOL_OPTIONS(.soft_signal = 65), &made), EINVAL,
                   "options->soft_signal");
    assert_refused(brood_pool_create(BROOD_POOL_OPTIONS(.soft_signal = -1), &made), EINVAL,
                   "options->soft_signal");
    assert_refused(brood_result_cancel_running(NULL), EINVAL, "result");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        clean_test(an_item_past_its_time_is_ended),
        clean_test(also_when_it_ignores_sigterm),
        clean_test(short_items_are_left_alone),
        clean_test(ends_at_the_brink),
        clean_test(the_time_of_the_whole),
        clean_test(the_time_of_what_is_never_begun),
        clean_test(many_deadlines),
        clean_test(what_runs_is_cancelled),
        clean_test(cancelled_at_any_moment),
        clean_test(a_soft_signal_comes_first),
        clean_test(a_function_may_ask),
        clean_test(items_are_tried_again),
        clean_test(what_was_ended_is_not_tried_again),
        clean_test(streams_too),
        clean_test(supervisors_die_meanwhile),
        clean_test(bad_options),
    };
    prepare_tests();
    return cmocka_run_group_tests(tests, make_tally_and_pool, drop_pool);
}
