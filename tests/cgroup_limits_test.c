/* SPDX-License-Identifier: MIT */
/* Real limits of real control groups: skipped where this user may not make any. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/testing.h"
#include "brood.h"

#define MIB (UINT64_C(1) << 20)

enum { PIECE_MIB = 8, LIMIT_MIB = 64 };

/* One controller, as version 1 or 2 has it. */
struct controller {
    const char *folder, *limit_file, *limit;
};

static const struct controller memory_controllers[] = {
    {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "67108864"},
    {"/sys/fs/cgroup", "memory.max", "67108864"},
};
static const struct controller cpu_controllers[] = {
    {"/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", "50000"},
    {"/sys/fs/cgroup", "cpu.max", "50000 100000"},
};

static int write_file(const char *folder, const char *name, const char *text)
{
    char path[256];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t written = write(fd, text, strlen(text));
    int error = written < 0 ? -errno : 0;
    close(fd);
    return error;
}

/* A group of this test's own with the limit set, or 0. */
static int make_group(const struct controller *controller, char *ret_folder, size_t size)
{
    snprintf(ret_folder, size, "%s/brood-test-%d", controller->folder, (int)getpid());
    if (mkdir(ret_folder, 0755) != 0)
        return 0;
    if (write_file(ret_folder, controller->limit_file, controller->limit) == 0)
        return 1;
    rmdir(ret_folder);
    return 0;
}

/* Runs body in a child inside the group; its exit status.  Skips the test where no group can be had. */
static int run_limited(const struct controller *controllers, int (*body)(void))
{
    char folder[256];
    int status = 0;

    if (!make_group(&controllers[0], folder, sizeof folder) &&
        !make_group(&controllers[1], folder, sizeof folder))
        skip_because("this user may not make control groups here");
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(write_file(folder, "cgroup.procs", "0") == 0 ? body() : 99);
    assert_int_equal(waitpid(child, &status, 0), child);
    while (rmdir(folder) != 0 && errno == EBUSY) {
    }
    if (WIFSIGNALED(status))
        print_error("ended by signal %d\n", WTERMSIG(status)); /* the OOM killer, or SIGBUS */
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int fill_memory(void)
{
    uint64_t total = 0;
    void *piece;
    int error;

    while ((error = brood_alloc(PIECE_MIB * MIB, &piece)) == 0 && total < 2 * LIMIT_MIB * MIB) {
        memset(piece, 1, PIECE_MIB * MIB);
        total += PIECE_MIB * MIB;
    }
    if (error != -ENOMEM || strstr(brood_error_text(), "no memory") == NULL)
        return 1;
    return total >= LIMIT_MIB / 2 * MIB && total <= LIMIT_MIB * MIB ? 0 : 2;
}

static int fill_queue(void)
{
    brood_queue *queue;
    static char message[MIB];
    size_t count = 0, bytes;
    int error = brood_queue_create(NULL, &queue);

    while (error == 0 && (error = brood_queue_put(queue, message, sizeof message, BROOD_NOW)) == 0)
        count++;
    if (error != -ENOMEM || count < LIMIT_MIB / 2)
        return 1;
    for (size_t i = 0; i < count; i++) /* nothing that was accepted is lost */
        if (brood_queue_get(queue, message, sizeof message, &bytes, BROOD_NOW) != 0 ||
            bytes != sizeof message)
            return 2;
    return brood_queue_put(queue, message, sizeof message, BROOD_NOW) == 0 ? 0 : 3;
}

/* Its own memory, page after page: the OOM killer takes the largest of the group. */
static int eat(brood_task *task, const void *item, void *result)
{
    (void)task, (void)result;
    for (size_t i = 0; i < 2 * LIMIT_MIB && *(const int *)item; i++) {
        char *piece = malloc(MIB);
        if (piece != NULL)
            memset(piece, 1, MIB);
    }
    return 0;
}

static int die_of_hunger(void)
{
    const int items[] = {0, 1, 0};
    brood_pool *pool;
    brood_result *result;
    brood_outcome outcomes[3];

    if (brood_pool_create(BROOD_POOL_OPTIONS(.workers = 1), &pool) != 0)
        return 1;
    if (brood_pool_map_async(pool, eat, items, sizeof *items, 0, 3, NULL, &result) != 0 ||
        brood_result_wait(result, brood_after_ms(60000)) != 0)
        return 2;
    for (size_t i = 0; i < 3; i++)
        brood_result_outcome(result, i, &outcomes[i]);
    brood_result_destroy(result);
    brood_pool_destroy(pool);
    if (outcomes[0].kind != BROOD_VALUE || outcomes[2].kind != BROOD_VALUE)
        return 3;
    if (outcomes[1].kind != BROOD_DIED || outcomes[1].signal != SIGKILL)
        return 4;
    return outcomes[1].cause == BROOD_CAUSE_OOM && strstr(outcomes[1].text, "OOM killer") != NULL ? 0 : 5;
}

static int count_cpus(void)
{
    return brood_cpu_count();
}

static void test_full_memory_is_an_error_at_the_call(void **state)
{
    (void)state;
    assert_int_equal(run_limited(memory_controllers, fill_memory), 0);
}

static void test_full_memory_stops_a_queue_and_loses_nothing(void **state)
{
    (void)state;
    assert_int_equal(run_limited(memory_controllers, fill_queue), 0);
}

static void test_an_oom_kill_is_named(void **state)
{
    (void)state;
    assert_int_equal(run_limited(memory_controllers, die_of_hunger), 0);
}

static void test_half_a_cpu_is_one(void **state)
{
    (void)state;
    unsetenv("BROOD_CPU_COUNT");
    assert_int_equal(run_limited(cpu_controllers, count_cpus), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_memory_is_an_error_at_the_call),
        cmocka_unit_test(test_full_memory_stops_a_queue_and_loses_nothing),
        cmocka_unit_test(test_an_oom_kill_is_named),
        cmocka_unit_test(test_half_a_cpu_is_one),
    };

    return cmocka_run_group_tests_name("cgroup_limits", tests, NULL, NULL);
}
