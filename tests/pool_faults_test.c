/* SPDX-License-Identifier: MIT */
/*
 * Death is a result: whatever ends a worker or the supervisor, and whenever, each item has exactly one outcome, the right one, and is never
 * run twice.
 */
#include "testing.h"

#include <sched.h>
#include <sys/resource.h>

#include "base/check.h"

enum { ITEMS = 60, KILLS = 200, SUPERVISOR_KILLS = 10, POINTS = 64, POINT_BYTES = 40 };

/* How often each item was begun and finished; in the arena. */
struct tally {
    _Atomic int begun[1024], finished[1024];
};
static struct tally *tally;

static int make_tally(void **state)
{
    void *memory = NULL;

    if (make_arena(state) != 0 || brood_alloc(sizeof *tally, &memory) < 0)
        return -1;
    tally = memory;
    return 0;
}

static void clear_tally(void)
{
    memset(tally, 0, sizeof *tally);
}

/* --- tasks that end their worker --- */

enum deed { DEED_WORK, DEED_SEGFAULT, DEED_ABORT, DEED_EXIT_3, DEED_EXIT_0, DEED_KILL, DEED_FAIL, DEEDS };

/* The kernel is to notice, no sanitizer before it. */
__attribute__((no_sanitize("undefined", "address"))) static void segfault(void)
{
    int *_Atomic nowhere = NULL;

    *nowhere = 1;
}

static int do_deed(brood_task *task, const void *item, void *result)
{
    int deed = *(const int *)item;

    bri_add_relaxed(&tally->begun[brood_task_index(task)], 1);
    switch ((enum deed)deed) {
    case DEED_SEGFAULT:
        segfault();
        break;
    case DEED_ABORT:
        abort();
    case DEED_EXIT_3:
        _exit(3);
    case DEED_EXIT_0:
        exit(0);
    case DEED_KILL:
        raise(SIGKILL);
        break;
    case DEED_FAIL:
        return brood_task_fail(task, 7, "as it was told");
    default:
        break;
    }
    *(size_t *)result = brood_task_index(task) * 3 + 1;
    bri_add_relaxed(&tally->finished[brood_task_index(task)], 1);
    return 0;
}

static const struct {
    int kind, signal, exit_code, code;
} ends[DEEDS] = {
    [DEED_WORK] = {BROOD_VALUE, 0, 0, 0},        [DEED_SEGFAULT] = {BROOD_DIED, SIGSEGV, -1, 0},
    [DEED_ABORT] = {BROOD_DIED, SIGABRT, -1, 0}, [DEED_EXIT_3] = {BROOD_DIED, 0, 3, 0},
    [DEED_EXIT_0] = {BROOD_DIED, 0, 0, 0},       [DEED_KILL] = {BROOD_DIED, SIGKILL, -1, 0},
    [DEED_FAIL] = {BROOD_ERROR, 0, 0, 7},
};

static void check_end(brood_result *result, size_t index, int deed, const size_t *values)
{
    brood_outcome outcome;

    assert_ok(brood_result_outcome(result, index, &outcome));
    assert_int_equal(outcome.kind, ends[deed].kind);
    assert_int_equal(outcome.signal, ends[deed].signal);
    assert_int_equal(outcome.code, ends[deed].code);
    assert_int_equal(bri_load_relaxed(&tally->begun[index]), 1);
    if (outcome.kind == BROOD_VALUE) {
        assert_int_equal(values[index], index * 3 + 1);
        return;
    }
    assert_true(outcome.pid > 0);
    if (outcome.kind == BROOD_DIED)
        assert_int_equal(outcome.exit_code, ends[deed].exit_code);
    assert_true(strlen(outcome.text) > 0);
}

static void run_deeds(brood_pool *pool, const int *deeds, size_t chunk_items, int expected)
{
    brood_result *result;
    size_t values[ITEMS];

    clear_tally();
    assert_ok(brood_pool_map_async(pool, do_deed, deeds, sizeof *deeds, sizeof *values, ITEMS,
                                   BROOD_MAP_OPTIONS(.chunk_items = chunk_items), &result));
    assert_int_equal(brood_result_get(result, values, sizeof values, brood_after_ms(WITHIN_MS)), expected);
    for (size_t i = 0; i < ITEMS; i++)
        check_end(result, i, deeds[i], values);
    assert_int_equal(brood_result_successful(result), expected == 0);
    assert_ok(brood_result_destroy(result));
}

static void each_item_has_its_own_end(void **unused)
{
    static const size_t chunks[] = {1, 7, 0, ITEMS, ITEMS + 1};
    int deeds[ITEMS] = {0};

    (void)unused;
    for (int i = 0; i < ITEMS; i++)
        deeds[i] = i % 3 == 1 ? 1 + i / 3 % (DEEDS - 1) : DEED_WORK;
    for (uint32_t workers = 1; workers <= 3; workers += 2) {
        brood_pool *pool = new_pool(workers);
        for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++)
            run_deeds(pool, deeds, chunks[i], -EOWNERDEAD);
        assert_string_not_equal(brood_error_text(), "");
        assert_ok(brood_pool_destroy(pool));
    }
}

static void the_first_failure_is_named(void **unused)
{
    int deeds[ITEMS] = {0};
    brood_pool *pool = new_pool(2);

    (void)unused;
    deeds[40] = DEED_KILL;
    run_deeds(pool, deeds, 1, -EOWNERDEAD);
    assert_non_null(strstr(brood_error_text(), "item 40"));
    assert_non_null(strstr(brood_error_text(), "signal 9"));
    deeds[12] = DEED_FAIL;
    run_deeds(pool, deeds, 7, -EREMOTEIO);
    assert_non_null(strstr(brood_error_text(), "item 12"));
    assert_non_null(strstr(brood_error_text(), "as it was told"));
    deeds[5] = DEED_EXIT_3;
    run_deeds(pool, deeds, 0, -EOWNERDEAD);
    assert_non_null(strstr(brood_error_text(), "item 5"));
    assert_non_null(strstr(brood_error_text(), "exit code 3"));
    assert_ok(brood_pool_destroy(pool));
}

static void every_item_may_die(void **unused)
{
    int deeds[ITEMS];
    brood_pool *pool = new_pool(2);

    (void)unused;
    for (int i = 0; i < ITEMS; i++)
        deeds[i] = DEED_KILL;
    run_deeds(pool, deeds, 0, -EOWNERDEAD);
    run_deeds(pool, deeds, 7, -EOWNERDEAD);
    memset(deeds, 0, sizeof deeds);
    run_deeds(pool, deeds, 0, 0);
    assert_ok(brood_pool_destroy(pool));
}

/* --- kills from outside --- */

static int work_a_little(brood_task *task, const void *item, void *result)
{
    size_t index = brood_task_index(task);
    int64_t end = bri_now_ns() + *(const int *)item;

    bri_add_relaxed(&tally->begun[index], 1);
    while (bri_now_ns() < end) {
    }
    bri_add_relaxed(&tally->finished[index], 1);
    if (result == NULL)
        return brood_task_reply(task, &index, sizeof index);
    *(size_t *)result = index * 3 + 1;
    return 0;
}

/* Deaths outside of items right after the start make a pool give up in the end: the victim has begun to work. */
static int is_at_work(const struct bri_seat_shm *seat)
{
    bri_name name = bri_load_acquire(&seat->name);

    return name != 0 && bri_load_acquire(&seat->started) &&
           ((bri_load_acquire(&bri_slot_of(name)->progress) & BRI_PROGRESS_RUNNING) ||
            bri_load_relaxed(&seat->items) != seat->items_at_birth);
}

static int kill_one(brood_pool *pool, uint32_t *seed, int signal)
{
    uint32_t index = next_random(seed) % brood_pool_workers(pool);
    struct bri_seat_shm *seat = bri_pool_seat(pool->shared, index);
    pid_t pid = is_at_work(seat) ? brood_pool_worker_pid(pool, index) : 0;

    return pid > 0 && kill(pid, signal) == 0;
}

/* Items are run once at most; a value means that its item was finished.  Returns how many died. */
static int check_survivors(brood_result *result, const size_t *values)
{
    int died = 0;

    for (size_t i = 0; i < brood_result_count(result); i++) {
        brood_outcome outcome;
        assert_ok(brood_result_outcome(result, i, &outcome));
        assert_true(outcome.kind == BROOD_VALUE || outcome.kind == BROOD_DIED);
        assert_true(bri_load_relaxed(&tally->begun[i]) <= 1);
        if (outcome.kind == BROOD_DIED) {
            assert_true(outcome.pid > 0);
            died++;
            continue;
        }
        assert_int_equal(bri_load_relaxed(&tally->finished[i]), 1);
        if (values != NULL)
            assert_int_equal(values[i], i * 3 + 1);
    }
    return died;
}

static int wait_and_kill(brood_pool *pool, brood_result *result, uint32_t *seed, int most)
{
    int killed = 0;

    while (brood_result_wait(result, bri_after_ns((int64_t)(next_random(seed) % 3000) * 1000)) == -ETIMEDOUT)
        if (killed < most)
            killed += kill_one(pool, seed, SIGKILL);
    return killed;
}

static int storm_over_map(brood_pool *pool, uint32_t *seed, int most)
{
    int items[400];
    size_t values[400], count = 1 + next_random(seed) % 400;
    brood_result *result;

    clear_tally();
    for (size_t i = 0; i < count; i++)
        items[i] = (int)(next_random(seed) % 60000);
    assert_ok(brood_pool_map_async(pool, work_a_little, items, sizeof *items, sizeof *values, count,
                                   BROOD_MAP_OPTIONS(.chunk_items = next_random(seed) % 20), &result));
    int killed = wait_and_kill(pool, result, seed, most);
    int error = brood_result_get(result, values, sizeof values, BROOD_NOW);
    int died = check_survivors(result, values);
    assert_int_equal(error, died > 0 ? -EOWNERDEAD : 0);
    assert_true(died <= killed);
    assert_ok(brood_result_destroy(result));
    return killed;
}

static void maps_survive_random_kills(void **unused)
{
    uint32_t seed = choose_seed();
    brood_pool *pool = new_pool(3);

    (void)unused;
    for (int killed = 0; killed < KILLS;)
        killed += storm_over_map(pool, &seed, KILLS - killed);
    clear_tally();
    assert_ok(brood_pool_destroy(pool));
}

static void applies_survive_random_kills(void **unused)
{
    enum { CALLS = 100 };
    uint32_t seed = choose_seed();
    brood_pool *pool = new_pool(3);
    brood_result *results[CALLS];
    int nap = 100000, killed = 0;

    (void)unused;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < CALLS; i++)
            assert_ok(
                brood_pool_apply_async(pool, work_a_little, &nap, sizeof nap, sizeof(size_t), &results[i]));
        int before = killed, died = 0;
        for (int i = 0; i < CALLS; i++) {
            size_t value = 0;
            killed += wait_and_kill(pool, results[i], &seed, 1);
            int error = brood_result_get(results[i], &value, sizeof value, BROOD_NOW);
            assert_true(error == -EOWNERDEAD || (error == 0 && value == 1));
            died += error != 0;
            assert_ok(brood_result_destroy(results[i]));
        }
        assert_true(died <= killed - before);
    }
    assert_ok(brood_pool_destroy(pool));
}

struct counter {
    int next, end, value;
};

static int count_up(void *argument, brood_message *ret_item)
{
    struct counter *counter = argument;

    if (counter->next++ == counter->end)
        return 0;
    *ret_item = (brood_message){&counter->value, sizeof counter->value};
    return 1;
}

static void streams_survive_random_kills(void **unused)
{
    uint32_t seed = choose_seed();
    brood_pool *pool = new_pool(3);
    struct counter counter = {0, 300, 50000};
    brood_stream *stream;
    brood_stream_item item;
    int died = 0, killed = 0, got = 0, more;

    (void)unused;
    assert_ok(brood_pool_imap(pool, work_a_little, count_up, &counter, NULL, &stream));
    while ((more = brood_stream_next(stream, &item, brood_after_ms(WITHIN_MS))) == 1) {
        assert_int_equal(item.index, got++);
        assert_true(item.outcome.kind == BROOD_VALUE || item.outcome.kind == BROOD_DIED);
        died += item.outcome.kind == BROOD_DIED;
        killed += next_random(&seed) % 4 == 0 && kill_one(pool, &seed, SIGKILL);
    }
    assert_int_equal(more, 0);
    assert_int_equal(got, 300);
    assert_true(died <= killed);
    assert_ok(brood_stream_destroy(stream));
    assert_ok(brood_pool_destroy(pool));
}

/* --- the supervisor --- */

static void kill_supervisor(brood_pool *pool)
{
    pid_t pid = supervisor_pid(pool);

    if (pid > 0)
        kill(pid, SIGKILL);
}

static void a_killed_supervisor_is_replaced(void **unused)
{
    uint32_t seed = choose_seed();
    brood_pool *pool = new_pool(2);
    int items[200];
    size_t values[200];

    (void)unused;
    for (int i = 0; i < 200; i++)
        items[i] = 300000;
    for (int round = 0; round < SUPERVISOR_KILLS; round++) {
        brood_result *result;
        clear_tally();
        assert_ok(brood_pool_map_async(pool, work_a_little, items, sizeof *items, sizeof *values, 200,
                                       BROOD_MAP_OPTIONS(.chunk_items = next_random(&seed) % 9), &result));
        assert_int_equal(brood_result_wait(result, bri_after_ns((int64_t)(next_random(&seed) % 5000) * 1000)),
                         -ETIMEDOUT);
        kill_supervisor(pool);
        int error = brood_result_get(result, values, sizeof values, brood_after_ms(WITHIN_MS));
        int died = check_survivors(result, values);
        assert_in_range(died, 0, 2);
        assert_int_equal(error, died > 0 ? -EOWNERDEAD : 0);
        assert_ok(brood_result_destroy(result));
    }
    assert_ok(brood_pool_destroy(pool));
}

static void a_supervisor_that_is_killed_for_ever_breaks_the_pool(void **unused)
{
    brood_pool *pool = new_pool(1);
    brood_result *result;
    int nap = 20000000, error;
    size_t value;

    (void)unused;
    do {
        error = brood_pool_apply_async(pool, work_a_little, &nap, sizeof nap, sizeof(size_t), &result);
        if (error == 0) {
            kill_supervisor(pool);
            error = brood_result_get(result, &value, sizeof value, brood_after_ms(WITHIN_MS));
            assert_ok(brood_result_destroy(result));
        }
    } while (error == -EOWNERDEAD || error == 0);
    assert_int_equal(error, -ENOTRECOVERABLE);
    assert_non_null(strstr(brood_error_text(), "supervisor"));
    assert_ok(brood_pool_destroy(pool));
}

static void kill_worker(brood_pool *pool, uint32_t index)
{
    pid_t pid = brood_pool_worker_pid(pool, index);

    assert_true(pid > 0);
    assert_int_equal(kill(pid, SIGKILL), 0);
}

static void idle_pools_are_made_whole_again(void **unused)
{
    brood_pool *pool = new_pool(3);
    int deeds[ITEMS] = {0};

    (void)unused;
    for (uint32_t i = 0; i < 3; i++)
        kill_worker(pool, i);
    run_deeds(pool, deeds, 1, 0);
    kill_supervisor(pool);
    run_deeds(pool, deeds, 1, 0);
    kill_supervisor(pool);
    assert_ok(brood_pool_destroy(pool));
}

/* --- stopped processes --- */

static char state_of_process(pid_t pid)
{
    char path[40], stat[256] = "";

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    size_t got = fread(stat, 1, sizeof stat - 1, file);
    fclose(file);
    stat[got] = '\0';
    return strrchr(stat, ')')[2];
}

static void stop(pid_t pid)
{
    assert_int_equal(kill(pid, SIGSTOP), 0);
    await_true(state_of_process(pid) == 'T');
}

static void a_stopped_worker_only_delays(void **unused)
{
    brood_pool *pool = new_pool(2);
    int items[100];
    size_t values[100];
    brood_result *result;
    pid_t pid = brood_pool_worker_pid(pool, 0);

    (void)unused;
    for (int i = 0; i < 100; i++)
        items[i] = 200000;
    clear_tally();
    assert_ok(brood_pool_map_async(pool, work_a_little, items, sizeof *items, sizeof *values, 100,
                                   BROOD_MAP_OPTIONS(.chunk_items = 10), &result));
    await_true(is_at_work(bri_pool_seat(pool->shared, 0)));
    stop(pid);
    await_true(bri_load_relaxed(&tally->finished[99]) + bri_load_relaxed(&tally->finished[89]) == 2);
    kill(pid, SIGCONT);
    assert_ok(brood_result_get(result, values, sizeof values, brood_after_ms(WITHIN_MS)));
    assert_int_equal(check_survivors(result, values), 0);
    assert_int_equal(brood_pool_worker_pid(pool, 0), pid);
    assert_ok(brood_result_destroy(result));
    assert_ok(brood_pool_destroy(pool));
}

static void a_stopped_supervisor_only_delays(void **unused)
{
    brood_pool *pool = new_pool(2);
    int deeds[ITEMS] = {0};
    size_t values[ITEMS];
    brood_result *result;

    (void)unused;
    stop(supervisor_pid(pool));
    run_deeds(pool, deeds, 1, 0);
    deeds[0] = deeds[59] = DEED_KILL;
    assert_ok(
        brood_pool_map_async(pool, do_deed, deeds, sizeof *deeds, sizeof(size_t), ITEMS, NULL, &result));
    assert_int_equal(brood_result_wait(result, brood_after_ms(50)), -ETIMEDOUT);
    kill(supervisor_pid(pool), SIGCONT);
    assert_int_equal(brood_result_get(result, values, sizeof values, brood_after_ms(WITHIN_MS)), -EOWNERDEAD);
    assert_ok(brood_result_destroy(result));
    assert_ok(brood_pool_destroy(pool));
}

static void stopped_pools_can_be_destroyed(void **unused)
{
    brood_pool *pool = new_pool(2);
    pid_t workers[] = {brood_pool_worker_pid(pool, 0), brood_pool_worker_pid(pool, 1)};

    (void)unused;
    stop(supervisor_pid(pool));
    stop(workers[0]);
    stop(workers[1]);
    assert_ok(brood_pool_destroy(pool));
}

/* --- what a host may do to itself --- */

static int ignore_and_wait(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item, (void)result;
    signal(SIGTERM, SIG_IGN);
    for (;;)
        pause();
    return 0;
}

/* In a process of its own, which cannot signal its supervisor any more. */
static int destroy_without_rights(void)
{
    brood_pool *pool;
    brood_result *result;

    alarm(WITHIN_MS / 1000);
    if (brood_pool_create(BROOD_POOL_OPTIONS(.workers = 1, .grace_ms = 10), &pool) < 0 ||
        setuid(65534) != 0 || brood_pool_apply_async(pool, ignore_and_wait, NULL, 0, 0, &result) < 0)
        return 1;
    while (!is_at_job(pool, 0))
        sched_yield();
    return brood_pool_destroy(pool) == 0 && brood_result_wait(result, BROOD_NOW) == 0 ? 0 : 2;
}

static int nap(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item, (void)result;
    poll(NULL, 0, 50);
    return 0;
}

static void owners_may_give_up_their_rights(void **unused)
{
    int status = 0;

    (void)unused;
    if (getuid() != 0)
        skip_because("only root has rights to give up");
    pid_t pid = fork();
    if (pid == 0)
        _exit(destroy_without_rights());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* The supervisor is gone when the descriptor is made, or goes later: somebody has to say so. */
static void descriptors_tell_of_a_killed_supervisor(void **unused)
{
    brood_pool *pool = new_pool(1);
    long item = 3;

    (void)unused;
    for (int before = 0; before < 2; before++) {
        brood_result *result;
        struct pollfd watch = {.events = POLLIN};
        if (before)
            kill_supervisor(pool);
        assert_ok(brood_pool_apply_async(pool, nap, &item, sizeof item, sizeof item, &result));
        watch.fd = brood_result_fd(result);
        assert_true(watch.fd >= 0);
        if (!before)
            kill_supervisor(pool);
        int64_t end = brood_after_ms(WITHIN_MS);
        while (brood_result_wait(result, BROOD_NOW) == -ETIMEDOUT) {
            assert_true(bri_now_ns() < end);
            assert_int_equal(poll(&watch, 1, WITHIN_MS), 1);
        }
        assert_ok(brood_result_destroy(result));
    }
    assert_ok(brood_pool_destroy(pool));
}

/* The owner does nothing but ask: a dead worker's item has its outcome, and a further one is done. */
static void polling_tells_of_a_killed_supervisor(void **unused)
{
    brood_pool *pool = new_pool(1);
    long item = 3, value = 0;
    brood_result *result;

    (void)unused;
    for (int round = 0; round < 5; round++) {
        assert_ok(brood_pool_apply_async(pool, nap, &item, sizeof item, sizeof item, &result));
        kill_supervisor(pool);
        await_true(brood_result_ready(result) == 1);
        int error = brood_result_get(result, &value, sizeof value, BROOD_NOW);
        assert_true(error == -EOWNERDEAD || error == 0);
        assert_ok(brood_result_destroy(result));
        assert_ok(brood_pool_apply_async(pool, nap, &item, sizeof item, sizeof item, &result));
        await_true(brood_result_ready(result) == 1);
        assert_ok(brood_result_get(result, &value, sizeof value, BROOD_NOW));
        assert_ok(brood_result_destroy(result));
    }
    assert_ok(brood_pool_destroy(pool));
}

/* One descriptor too few for all that it watches: an error, not one that does not tell. */
static void descriptors_are_whole_or_not_at_all(void **unused)
{
    brood_pool *pool = new_pool(1);
    struct rlimit before, limit;
    long item = 3;
    brood_result *result;
    int fd = -1, refused = 0;

    (void)unused;
    assert_ok(brood_pool_apply_async(pool, nap, &item, sizeof item, sizeof item, &result));
    getrlimit(RLIMIT_NOFILE, &before);
    for (limit = before, limit.rlim_cur = 3; fd < 0; limit.rlim_cur++) {
        setrlimit(RLIMIT_NOFILE, &limit);
        fd = brood_result_fd(result);
        refused += fd == -EMFILE;
    }
    setrlimit(RLIMIT_NOFILE, &before);
    assert_true(refused > 0);
    kill_supervisor(pool);
    struct pollfd watch = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&watch, 1, WITHIN_MS), 1);
    assert_ok(brood_result_destroy(result));
    assert_ok(brood_pool_destroy(pool));
}

/* --- a child that a task forks --- */

/* The child comes back from the function; its exit code is the result. */
static int fork_and_return(brood_task *task, const void *item, void *result)
{
    int status = 0;

    bri_add_relaxed(&tally->begun[brood_task_index(task)], 1);
    pid_t child = fork();
    if (child == 0)
        return *(const int *)item;
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
        return 99;
    *(int *)result = WEXITSTATUS(status);
    return 0;
}

static void a_child_that_returns_is_no_worker(void **state)
{
    static const int items[ITEMS] = {0, 1, 1, 0, 1};
    int results[ITEMS];
    brood_pool *pool;

    (void)state;
    clear_tally();
    assert_ok(brood_pool_create(BROOD_POOL_OPTIONS(.workers = 2), &pool));
    assert_ok(brood_pool_map(pool, fork_and_return, items, sizeof *items, results, sizeof *results, ITEMS,
                             BROOD_MAP_OPTIONS(.chunk_items = 7)));
    for (int i = 0; i < ITEMS; i++) {
        assert_int_equal(results[i], items[i]);
        assert_int_equal(tally->begun[i], 1);
    }
    assert_ok(brood_pool_destroy(pool));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        clean_test(each_item_has_its_own_end),
        clean_test(the_first_failure_is_named),
        clean_test(every_item_may_die),
        clean_test(maps_survive_random_kills),
        clean_test(applies_survive_random_kills),
        clean_test(streams_survive_random_kills),
        clean_test(a_killed_supervisor_is_replaced),
        clean_test(a_supervisor_that_is_killed_for_ever_breaks_the_pool),
        clean_test(idle_pools_are_made_whole_again),
        clean_test(a_child_that_returns_is_no_worker),
        clean_test(a_stopped_worker_only_delays),
        clean_test(a_stopped_supervisor_only_delays),
        clean_test(stopped_pools_can_be_destroyed),
        clean_test(owners_may_give_up_their_rights),
        clean_test(descriptors_tell_of_a_killed_supervisor),
        clean_test(polling_tells_of_a_killed_supervisor),
        clean_test(descriptors_are_whole_or_not_at_all),
    };

    prepare_tests();
    return cmocka_run_group_tests_name("pool_faults", tests, make_tally, NULL);
}
