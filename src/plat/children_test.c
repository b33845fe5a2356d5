/* SPDX-License-Identifier: MIT */
/* Children are the test's own, more than one read gives; the two ways must agree with what fork() said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/testing.h"
#include "plat/children.h"

enum { MANY = 300, SEEN_MOST = MANY + 8 };

typedef int way(pid_t parent, bri_child_visit *visit, void *argument);

struct seen {
    size_t count;
    pid_t pids[SEEN_MOST];
};

static void note(pid_t child, void *argument)
{
    struct seen *seen = argument;

    assert_true(seen->count < SEEN_MOST);
    seen->pids[seen->count++] = child;
}

static size_t times_seen(const struct seen *seen, pid_t pid)
{
    size_t times = 0;

    for (size_t i = 0; i < seen->count; i++)
        times += seen->pids[i] == pid;
    return times;
}

static struct seen look(way *look_way, pid_t parent)
{
    struct seen seen = {.count = 0};

    assert_int_equal(look_way(parent, note, &seen), 0);
    return seen;
}

/* Lives until it is killed, or its parent dies. */
static pid_t fork_sleeper(void)
{
    pid_t parent = getpid(), pid = fork();

    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (getppid() == parent) /* it may have died before that */
        pause();
    _exit(0);
}

static void fork_sleepers(pid_t *ret_pids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        ret_pids[i] = fork_sleeper();
        assert_true(ret_pids[i] > 0);
    }
}

static void end(const pid_t *pids, size_t count)
{
    for (size_t i = 0; i < count; i++)
        assert_int_equal(kill(pids[i], SIGKILL), 0);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(waitpid(pids[i], NULL, 0), pids[i]);
}

static int kernel_has_lists(void)
{
    return bri_children_listed(getpid(), note, &(struct seen){.count = 0}) != -ENOENT;
}

static void assert_each_is_seen_once(way *look_way)
{
    pid_t pids[MANY];

    fork_sleepers(pids, MANY);
    struct seen seen = look(look_way, getpid());
    assert_int_equal(seen.count, MANY);
    for (size_t i = 0; i < MANY; i++)
        assert_int_equal(times_seen(&seen, pids[i]), 1);
    end(pids, MANY);
    assert_int_equal(look(look_way, getpid()).count, 0);
}

static void each_is_listed(void **unused)
{
    (void)unused;
    if (!kernel_has_lists())
        skip_because("this kernel has no /proc/PID/task/TID/children");
    assert_each_is_seen_once(bri_children_listed);
}

static void each_is_found(void **unused)
{
    (void)unused;
    assert_each_is_seen_once(bri_children_found);
}

static void either_way_will_do(void **unused)
{
    (void)unused;
    assert_each_is_seen_once(bri_children_each);
}

/* A zombie stays, whatever its name is, until it is reaped. */
static void assert_zombie_is_seen(way *look_way)
{
    siginfo_t info;
    pid_t pid = fork();

    if (pid == 0) {
        prctl(PR_SET_NAME, ") R 1 (");
        _exit(0);
    }
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    struct seen seen = look(look_way, getpid());
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.pids[0], pid);
    end(&pid, 1);
}

static void zombies_are_children(void **unused)
{
    (void)unused;
    assert_zombie_is_seen(bri_children_found);
    if (kernel_has_lists())
        assert_zombie_is_seen(bri_children_listed);
}

/* In the middle of three generations. */
static void be_parent(int to_test)
{
    pid_t grandchildren[2];

    fork_sleepers(grandchildren, 2);
    if (write(to_test, grandchildren, sizeof grandchildren) == sizeof grandchildren)
        pause();
    _exit(0);
}

static void assert_of_others(way *look_way, pid_t child, const pid_t *grandchildren)
{
    struct seen own = look(look_way, getpid()), theirs = look(look_way, child);

    assert_int_equal(own.count, 1);
    assert_int_equal(own.pids[0], child);
    assert_int_equal(theirs.count, 2);
    assert_int_equal(times_seen(&theirs, grandchildren[0]), 1);
    assert_int_equal(times_seen(&theirs, grandchildren[1]), 1);
    assert_int_equal(look(look_way, grandchildren[0]).count, 0);
}

static void grandchildren_are_their_parents(void **unused)
{
    pid_t grandchildren[2];
    int fds[2];

    (void)unused;
    assert_int_equal(pipe(fds), 0);
    pid_t child = fork();
    if (child == 0)
        be_parent(fds[1]);
    assert_int_equal(read(fds[0], grandchildren, sizeof grandchildren), sizeof grandchildren);
    close(fds[0]);
    close(fds[1]);
    assert_of_others(bri_children_found, child, grandchildren);
    if (kernel_has_lists())
        assert_of_others(bri_children_listed, child, grandchildren);
    end(&child, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_is_listed),
        cmocka_unit_test(each_is_found),
        cmocka_unit_test(either_way_will_do),
        cmocka_unit_test(zombies_are_children),
        cmocka_unit_test(grandchildren_are_their_parents),
    };

    return cmocka_run_group_tests_name("plat/children", tests, NULL, NULL);
}
