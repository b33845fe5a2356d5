/* SPDX-License-Identifier: MIT */
/* Looking in: brood_pool_dump and BROOD_TRACE. */
#include "testing.h"

#include "sync/mutex.h"

enum { CALLS = 3, WORKERS = 2, TEXT_BYTES = 1 << 16, LINES_MAX = 2000 };

static int hang(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item, (void)result;
    while (pause() != 0) {
    }
    return 0;
}

static int nothing(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item, (void)result;
    return 0;
}

/* --- dump --- */

static char *dump(brood_pool *pool)
{
    static char text[TEXT_BYTES];
    int fd = memfd_create("dump", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_ok(brood_pool_dump(pool, fd));
    ssize_t got = pread(fd, text, sizeof text - 1, 0);
    close(fd);
    assert_true(got > 0);
    text[got] = '\0';
    return text;
}

static void assert_says(const char *text, const char *format, int number)
{
    char wanted[60];

    snprintf(wanted, sizeof wanted, format, number); /* NOLINT(clang-diagnostic-format-nonliteral) */
    if (strstr(text, wanted) == NULL)
        fail_msg("\"%s\" is not in:\n%s", wanted, text);
}

static void check_dump(brood_pool *pool, const pid_t *pids)
{
    const char *text = dump(pool);

    assert_says(text, "pool of %d workers", WORKERS);
    for (int i = 0; i < WORKERS; i++)
        assert_says(text, "pid %d", pids[i]);
}

static void note_pids(brood_pool *pool, pid_t *pids)
{
    for (uint32_t i = 0; i < WORKERS; i++)
        pids[i] = brood_pool_worker_pid(pool, i);
    pids[WORKERS] = supervisor_pid(pool);
}

static int all_run(brood_pool *pool)
{
    for (uint32_t i = 0; i < WORKERS; i++)
        if (!(bri_load_acquire(
                  &bri_slot_of(bri_load_acquire(&bri_pool_seat(pool->shared, i)->name))->progress) &
              BRI_PROGRESS_RUNNING))
            return 0;
    return 1;
}

static void dumps_say_what_runs(void **unused)
{
    brood_pool *pool = new_pool(WORKERS);
    brood_result *result;
    pid_t pids[WORKERS + 1];

    (void)unused;
    note_pids(pool, pids);
    check_dump(pool, pids);
    for (int i = 0; i < CALLS; i++)
        assert_ok(brood_pool_apply(pool, nothing, NULL, 0, NULL, 0));
    assert_says(dump(pool), "%d calls in the standing job\n", CALLS);
    assert_ok(brood_pool_map_async(pool, hang, NULL, 0, 0, 5, BROOD_MAP_OPTIONS(.chunk_items = 1), &result));
    await_true(all_run(pool));
    check_dump(pool, pids);
    assert_says(dump(pool), "%d items", 5);
    assert_says(dump(pool), "runs item %d", 0);
    assert_ok(brood_pool_close(pool));
    assert_non_null(strstr(dump(pool), "closing"));
    assert_ok(brood_pool_terminate(pool));
    assert_ok(brood_pool_join(pool, brood_after_ms(WITHIN_MS)));
    assert_non_null(strstr(dump(pool), "ended"));
    assert_ok(brood_result_destroy(result));
    assert_ok(brood_pool_destroy(pool));
}

static void dumps_need_nobody_alive(void **unused)
{
    brood_pool *pool = new_pool(WORKERS);
    pid_t pids[WORKERS + 1];

    (void)unused;
    note_pids(pool, pids);
    for (int i = WORKERS; i >= 0; i--)
        kill(pids[i], SIGSTOP);
    check_dump(pool, pids);
    int pidfd = pidfd_of(pids[WORKERS]);
    kill(pids[WORKERS], SIGKILL);
    assert_ends_within(pidfd, WITHIN_MS);
    check_dump(pool, pids);
    assert_ok(brood_pool_destroy(pool));
}

static void dump_with_lock_held(void *pool)
{
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

    child_check(brood_pool_dump(pool, null) == 0); /* shared: a child may look */
    close(null);
}

static void dumps_take_no_lock(void **unused)
{
    brood_pool *pool = new_pool(WORKERS);
    pid_t pids[WORKERS + 1];

    (void)unused;
    note_pids(pool, pids);
    pthread_mutex_lock(&pool->lock);
    bri_mutex_lock(&bri_arena_current->header->page_lock);
    check_dump(pool, pids);
    in_child(dump_with_lock_held, pool);
    bri_mutex_unlock(&bri_arena_current->header->page_lock);
    pthread_mutex_unlock(&pool->lock);
    assert_ok(brood_pool_destroy(pool));
    assert_refused(brood_pool_dump(NULL, 1), EINVAL, "pool");
}

/* --- trace: in a program of its own, as the environment is looked at once --- */

struct line {
    double seconds;
    int pid;
};

static int traced_program(void)
{
    brood_pool *pool;

    if (brood_pool_create(BROOD_POOL_OPTIONS(.workers = WORKERS), &pool) != 0)
        return 1;
    for (int i = 0; i < 20; i++)
        if (brood_pool_map(pool, nothing, NULL, 0, NULL, 0, 10, BROOD_MAP_OPTIONS(.chunk_items = 1)) != 0)
            return 2;
    return brood_pool_destroy(pool) == 0 ? 0 : 3;
}

static void be_traced_program(void *fd)
{
    setenv("BROOD_TRACE", "1", 1);
    dup2(*(int *)fd, STDERR_FILENO);
    execl("/proc/self/exe", "pool_look_test", "traced", (char *)NULL);
    _exit(127);
}

static size_t parse_lines(char *text, struct line *lines)
{
    size_t count = 0;
    char *rest = NULL;

    for (char *at = strtok_r(text, "\n", &rest); at != NULL && count < LINES_MAX;
         at = strtok_r(NULL, "\n", &rest)) {
        char *end;
        if (strncmp(at, "brood ", 6) != 0)
            fail_msg("not a line of the trace: %s", at);
        lines[count].seconds = strtod(at + 6, &end);
        assert_memory_equal(end, " [", 2);
        lines[count].pid = (int)strtol(end + 2, &end, 10);
        assert_memory_equal(end, "] ", 2);
        assert_true(strlen(end + 2) > 0);
        count++;
    }
    return count;
}

/* A process's own lines are in order; those of others may come late by what the scheduler put between clock and write. */
static void check_order(const struct line *lines, size_t count)
{
    for (size_t i = 1; i < count; i++)
        for (size_t j = 0; j < i; j++)
            assert_true(lines[j].pid != lines[i].pid || lines[j].seconds <= lines[i].seconds);
}

static size_t count_pids(const struct line *lines, size_t count)
{
    size_t distinct = 0;

    for (size_t i = 0; i < count; i++) {
        size_t first = 0;
        while (lines[first].pid != lines[i].pid)
            first++;
        distinct += first == i;
    }
    return distinct;
}

static void traces_are_lines_in_order(void **unused)
{
    static char text[TEXT_BYTES];
    static struct line lines[LINES_MAX];
    int fd = memfd_create("trace", MFD_CLOEXEC);

    (void)unused;
    assert_int_equal(fcntl(fd, F_SETFL, O_APPEND), 0);
    in_child(be_traced_program, &fd);
    ssize_t got = pread(fd, text, sizeof text - 1, 0);
    close(fd);
    assert_true(got > 0 && text[got - 1] == '\n');
    assert_non_null(strstr(text, "worker 1: begins"));
    assert_non_null(strstr(text, "job 3 of 10 items in 10 chunks"));
    assert_non_null(strstr(text, "supervisor: ends"));
    size_t count = parse_lines(text, lines);
    assert_in_range(count, 200, LINES_MAX);
    assert_true(count_pids(lines, count) == WORKERS + 2);
    check_order(lines, count);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        clean_test(dumps_say_what_runs),
        clean_test(dumps_need_nobody_alive),
        clean_test(dumps_take_no_lock),
        clean_test(traces_are_lines_in_order),
    };

    if (argc > 1 && strcmp(argv[1], "traced") == 0)
        return traced_program();
    prepare_tests();
    return cmocka_run_group_tests_name("pool_look", tests, make_arena, NULL);
}
