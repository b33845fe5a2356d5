/* SPDX-License-Identifier: MIT */
/* The descriptor for poll: readable when there is something to read, whoever put it and however that one ended. */
#include "queue/queue_testing.h"

#include <poll.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { NOW = 0, PATIENCE_MS = 30000 };

static int is_readable(int fd, int timeout_ms)
{
    struct pollfd watch = {.fd = fd, .events = POLLIN};

    return poll(&watch, 1, timeout_ms) == 1 && (watch.revents & POLLIN) != 0;
}

static int try_get(brood_queue *queue)
{
    char buffer[16];
    size_t bytes;

    return brood_queue_get(queue, buffer, sizeof buffer, &bytes, BROOD_NOW);
}

static void put_x(brood_queue *queue)
{
    child_check(brood_queue_put(queue, "x", 1, BROOD_NOW) == 0);
}

static void level_semantics(void **state)
{
    brood_queue *queue = new_queue(0, 0);

    (void)state;
    put_x(queue);
    int fd = brood_queue_fd(queue);
    assert_true(fd >= 0);
    assert_int_equal(brood_queue_fd(queue), fd);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_true(is_readable(fd, NOW));
    for (int round = 0; round < 100; round++) {
        put_x(queue);
        assert_int_equal(try_get(queue), 0);
        assert_true(is_readable(fd, NOW));
        assert_int_equal(try_get(queue), 0);
        assert_int_equal(try_get(queue), -ETIMEDOUT);
        assert_false(is_readable(fd, NOW));
        put_x(queue);
        assert_true(is_readable(fd, NOW));
    }
    assert_int_equal(brood_queue_fd_close(queue), 0);
    assert_int_equal(brood_queue_fd_close(queue), 0);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    put_x(queue);
    assert_int_equal(brood_queue_destroy(queue), 0);
}

static void closing_makes_readable(void **state)
{
    brood_queue *queue = new_queue(0, 0);
    int fd = brood_queue_fd(queue);

    (void)state;
    assert_false(is_readable(fd, NOW));
    assert_int_equal(brood_queue_close(queue), 0);
    assert_true(is_readable(fd, NOW));
    assert_int_equal(try_get(queue), -ESHUTDOWN);
    assert_true(is_readable(fd, NOW));
    assert_int_equal(brood_queue_destroy(queue), 0);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
}

/* ---- other processes ---- */

enum { COUNT = 2000 };

static void put_slowly(brood_queue *queue, void *argument)
{
    (void)argument;
    for (int i = 0; i < COUNT; i++) {
        put_x(queue);
        if (i % 7 == 0)
            sched_yield();
    }
}

static int poll_and_get(brood_queue *queue, int fd, int count)
{
    int got = 0;

    while (got < count) {
        if (!is_readable(fd, PATIENCE_MS))
            return got;
        int error = try_get(queue);
        if (error != 0 && error != -ETIMEDOUT)
            return got;
        got += error == 0;
    }
    return got;
}

static void others_ring(void **state)
{
    brood_queue *queue = new_queue(0, 0);
    int fd = brood_queue_fd(queue);
    struct child producers[3];

    (void)state;
    for (int i = 0; i < 3; i++)
        producers[i] = start_child(put_slowly, queue, NULL);
    assert_int_equal(poll_and_get(queue, fd, 3 * COUNT), 3 * COUNT);
    for (int i = 0; i < 3; i++)
        assert_ends_well(&producers[i]);
    assert_int_equal(try_get(queue), -ETIMEDOUT);
    assert_false(is_readable(fd, NOW));
    assert_int_equal(brood_queue_destroy(queue), 0);
}

static void poll_for_one(brood_queue *queue, void *ready)
{
    int fd = brood_queue_fd(queue);

    child_check(fd >= 0);
    bri_add_acq_rel((_Atomic uint32_t *)ready, 1u);
    child_check(poll_and_get(queue, fd, 1) == 1);
}

/* The child has the parent's pipe by inheritance, and needs one of its own. */
static void child_asks_for_itself(void **state)
{
    brood_queue *queue = new_queue(0, 0);
    _Atomic uint32_t *ready = shared_memory(sizeof *ready);
    int fd = brood_queue_fd(queue);

    (void)state;
    assert_true(fd >= 0);
    struct child a = start_child(poll_for_one, queue, ready), b = start_child(poll_for_one, queue, ready);
    while (bri_load_acquire(ready) < 2)
        sched_yield();
    put_x(queue);
    put_x(queue);
    assert_ends_well(&a);
    assert_ends_well(&b);
    assert_true(is_readable(fd, NOW));
    assert_int_equal(try_get(queue), -ETIMEDOUT);
    assert_int_equal(brood_queue_destroy(queue), 0);
}

static void hang_bell(brood_queue *queue, void *ready)
{
    child_check(brood_queue_fd(queue) >= 0);
    bri_add_acq_rel((_Atomic uint32_t *)ready, 1u);
    for (;;)
        pause();
}

static void sixteen_at_most(void **state)
{
    brood_queue *queue = new_queue(0, 0);
    _Atomic uint32_t *ready = shared_memory(sizeof *ready);
    struct child children[BRI_BELLS];
    int status;

    (void)state;
    for (int i = 0; i < BRI_BELLS; i++)
        children[i] = start_child(hang_bell, queue, ready);
    while (bri_load_acquire(ready) < BRI_BELLS)
        sched_yield();
    assert_int_equal(brood_queue_fd(queue), -EAGAIN);
    kill(children[3].pid, SIGKILL);
    assert_int_equal(waitpid(children[3].pid, &status, 0), children[3].pid); /* unreported */
    int fd = brood_queue_fd(queue);
    assert_true(fd >= 0);
    for (int i = 0; i < BRI_BELLS; i++)
        if (i != 3)
            kill(children[i].pid, SIGKILL);
    put_x(queue); /* rings the dead too: no SIGPIPE */
    assert_true(is_readable(fd, NOW));
    for (int i = 0; i < BRI_BELLS; i++)
        if (i != 3)
            end_of(&children[i]);
    assert_int_equal(brood_queue_destroy(queue), 0);
}

/* Kills at any moment: what was put before is seen by the poller, who is alone and told of the death by nobody. */
static void put_for_ever(brood_queue *queue, void *count)
{
    for (;;) {
        put_x(queue);
        bri_add_acq_rel((_Atomic uint32_t *)count, 1u);
    }
}

static void killed_producers(void **state)
{
    brood_queue *queue = new_queue(0, 0);
    _Atomic uint32_t *count = shared_memory(sizeof *count);
    int fd = brood_queue_fd(queue), status;
    uint32_t random = 11;

    (void)state;
    for (int round = 0; round < 100; round++) {
        struct child child = start_child(put_for_ever, queue, count);
        assert_int_equal(poll_and_get(queue, fd, (int)(next_random(&random) % 200)) >= 0, 1);
        kill(child.pid, SIGKILL);
        assert_int_equal(waitpid(child.pid, &status, 0), child.pid);
        while (is_readable(fd, NOW)) {
            int error = try_get(queue);
            assert_true(error == 0 || error == -ETIMEDOUT);
        }
        assert_int_equal(brood_queue_size(queue), 0);
        bri_report_if_ended(name_of(&child));
    }
    assert_int_equal(brood_queue_destroy(queue), 0);
}

#if defined(BROOD_FAULT_POINTS) && BROOD_FAULT_POINTS

/* A putter that stops between its ring and its commit, until it is told to go on. */
static void stop_when_rung(const char *point)
{
    if (strcmp(point, "queue.put.rung") == 0)
        raise(SIGSTOP);
}

static void put_and_stop(brood_queue *queue, void *argument)
{
    (void)argument;
    bri_fault_hook = stop_when_rung;
    put_x(queue);
}

static void let_go_on(pid_t pid)
{
    assert_int_equal(kill(pid, SIGCONT), 0);
}

static void kill_it(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
}

static int size_is_one(brood_queue *queue)
{
    return brood_queue_size(queue) == 1;
}

static int get_gets(brood_queue *queue)
{
    return try_get(queue) == 0;
}

/* Ends the stop once this process has looked and waits: its thread that does so is in the state S. */
struct ender {
    pid_t looker, putter;
    void (*end)(pid_t putter);
};

static int sleeps(pid_t pid)
{
    char path[40], state = 0;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *stat = fopen(path, "re");
    if (stat == NULL)
        return 0;
    if (fscanf(stat, "%*d (%*[^)]) %c", &state) != 1)
        state = 0;
    fclose(stat);
    return state == 'S';
}

static void end_the_stop(brood_queue *queue, void *argument)
{
    struct ender *ender = argument;

    (void)queue;
    while (!sleeps(ender->looker))
        sched_yield();
    ender->end(ender->putter);
}

static int sees_it(int (*look)(brood_queue *queue), void (*end)(pid_t putter))
{
    brood_queue *queue = new_queue(0, 0);
    int fd = brood_queue_fd(queue), status;

    struct child putter = start_child(put_and_stop, queue, NULL);
    assert_int_equal(waitpid(putter.pid, &status, WUNTRACED), putter.pid);
    assert_true(WIFSTOPPED(status));
    assert_true(is_readable(fd, NOW));
    struct ender ender = {getpid(), putter.pid, end};
    struct child helper = start_child(end_the_stop, queue, &ender);
    int seen = look(queue);
    assert_ends_well(&helper);
    if (end == let_go_on)
        assert_ends_well(&putter);
    else
        end_of(&putter);
    assert_int_equal(try_get(queue), seen && look == size_is_one ? 0 : -ETIMEDOUT);
    assert_int_equal(try_get(queue), -ETIMEDOUT);
    assert_false(is_readable(fd, NOW));
    assert_int_equal(brood_queue_destroy(queue), 0);
    return seen;
}

/* Who was rung finds what it was rung for. */
static void rung_before_the_commit(void **state)
{
    (void)state;
    assert_true(sees_it(get_gets, let_go_on));
    assert_true(sees_it(size_is_one, let_go_on));
    assert_false(sees_it(get_gets, kill_it));
    assert_false(sees_it(size_is_one, kill_it));
}

#else

static void rung_before_the_commit(void **state)
{
    (void)state;
    skip_because("needs -Dfault_points=true");
}

#endif

/* ---- descriptors ---- */

static void without_descriptors(void **state)
{
    brood_queue *queue = new_queue(0, 0);
    struct rlimit limit, few = {0, 0};

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    few.rlim_max = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    assert_int_equal(brood_queue_fd(queue), -EMFILE);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    int fd = brood_queue_fd(queue);
    assert_true(fd >= 0);
    assert_int_equal(brood_queue_destroy(queue), 0);
}

/* Somebody else's file at our number is left alone. */
static void closed_behind_our_back(void **state)
{
    brood_queue *queue = new_queue(0, 0);
    int fd = brood_queue_fd(queue), pipe_fds[2];

    (void)state;
    close(fd);
    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(pipe_fds[0], fd);
    assert_int_equal(write(pipe_fds[1], "keep", 4), 4);
    put_x(queue);
    assert_int_equal(try_get(queue), 0);
    assert_int_equal(try_get(queue), -ETIMEDOUT);
    char kept[8];
    assert_int_equal(read(pipe_fds[0], kept, sizeof kept), 4);
    int again = brood_queue_fd(queue);
    assert_true(again >= 0 && again != fd);
    put_x(queue);
    assert_true(is_readable(again, NOW));
    assert_int_equal(brood_queue_destroy(queue), 0);
    assert_true(fcntl(fd, F_GETFD) >= 0);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(level_semantics),
        cmocka_unit_test(closing_makes_readable),
        cmocka_unit_test(others_ring),
        cmocka_unit_test(child_asks_for_itself),
        cmocka_unit_test(sixteen_at_most),
        cmocka_unit_test(killed_producers),
        cmocka_unit_test(without_descriptors),
        cmocka_unit_test(closed_behind_our_back),
        cmocka_unit_test(rung_before_the_commit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
