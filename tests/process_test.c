/* SPDX-License-Identifier: MIT */
/* brood_process: what runs, how it ends, and who may ask. */
#include "testing.h"

#include "base/check.h"

enum { PROCESSES = 10 };

static brood_process *start(brood_process_function *function, void *argument)
{
    brood_process *process = NULL;

    assert_ok(brood_process_start(function, argument, NULL, &process));
    return process;
}

static void join(brood_process *process)
{
    assert_ok(brood_process_join(process, brood_after_ms(WITHIN_MS)));
    assert_int_equal(brood_process_is_alive(process), 0);
}

static int exit_code_of(brood_process *process)
{
    int code = INT_MIN;

    join(process);
    assert_ok(brood_process_exit_code(process, &code));
    assert_ok(brood_process_destroy(process));
    return code;
}

/* --- ends --- */

static int return_it(void *argument)
{
    return *(int *)argument;
}

static int exit_with_3(void *unused)
{
    (void)unused;
    exit(3);
}

static int abort_now(void *unused)
{
    (void)unused;
    abort();
}

static int hang(void *unused)
{
    (void)unused;
    while (pause() != 0) {
    }
    return 0;
}

static void exit_codes_are_known(void **unused)
{
    int codes[] = {0, 7, 255};

    (void)unused;
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(exit_code_of(start(return_it, &codes[i])), codes[i]);
    assert_int_equal(exit_code_of(start(exit_with_3, NULL)), 3);
    assert_int_equal(exit_code_of(start(abort_now, NULL)), -SIGABRT);
}

static void it_is_ended_by_signals(void **unused)
{
    brood_process *process = start(hang, NULL);
    int code = 99;

    (void)unused;
    assert_int_equal(brood_process_is_alive(process), 1);
    assert_refused(brood_process_exit_code(process, &code), EAGAIN, "process");
    assert_int_equal(code, 99);
    assert_ok(brood_process_terminate(process));
    assert_int_equal(exit_code_of(process), -SIGTERM);
    process = start(hang, NULL);
    assert_ok(brood_process_kill(process));
    join(process);
    assert_ok(brood_process_kill(process));
    assert_ok(brood_process_terminate(process));
    assert_int_equal(exit_code_of(process), -SIGKILL);
}

/* As a terminal does; its keeper, in the same group, lives to tell. */
static void interrupt_group(void *unused)
{
    brood_process *process;
    int code = 0;

    (void)unused;
    signal(SIGINT, SIG_DFL);
    child_check(setpgid(0, 0) == 0);
    child_check(brood_process_start(hang, NULL, NULL, &process) == 0);
    signal(SIGINT, SIG_IGN);
    child_check(kill(0, SIGINT) == 0);
    child_check(brood_process_join(process, brood_after_ms(WITHIN_MS)) == 0);
    child_check(brood_process_exit_code(process, &code) == 0 && code == -SIGINT);
    child_check(brood_process_destroy(process) == 0);
}

static void ctrl_c_is_its_own_business(void **unused)
{
    (void)unused;
    in_child(interrupt_group, NULL);
}

static void join_keeps_its_deadline(void **unused)
{
    brood_process *process = start(hang, NULL);

    (void)unused;
    assert_refused(brood_process_join(process, BROOD_NOW), ETIMEDOUT, "process");
    int64_t begin = bri_now_ns();
    assert_refused(brood_process_join(process, bri_after_ns(20 * BRI_NS_PER_MS)), ETIMEDOUT, "process");
    assert_true(bri_now_ns() - begin >= 20 * BRI_NS_PER_MS);
    assert_refused(brood_process_join(process, -1), EINVAL, "deadline");
    assert_ok(brood_process_kill(process));
    assert_ok(brood_process_join(process, BROOD_FOREVER));
    assert_ok(brood_process_join(process, BROOD_NOW));
    assert_ok(brood_process_destroy(process));
}

/* Ends once its starter counts as asleep, so that others may spin. */
static int await_idle(void *slot)
{
    while (!bri_load_acquire(&((struct bri_slot_shm *)slot)->idle))
        sched_yield();
    return 0;
}

static void who_joins_counts_as_asleep(void **unused)
{
    brood_arena_stats stats = {.size = sizeof stats};

    (void)unused;
    assert_ok(brood_arena_stats_get(&stats)); /* there is an arena, and this process has a slot in it */
    struct bri_slot_shm *slot = bri_slot_of(bri_self());
    assert_int_equal(exit_code_of(start(await_idle, slot)), 0);
    assert_int_equal(bri_load_acquire(&slot->idle), 0);
}

static void its_descriptor_tells_of_the_end(void **unused)
{
    brood_process *process = start(hang, NULL);
    struct pollfd watch = {.fd = brood_process_fd(process), .events = POLLIN};

    (void)unused;
    assert_int_equal(poll(&watch, 1, 0), 0);
    assert_ok(brood_process_kill(process));
    assert_int_equal(poll(&watch, 1, WITHIN_MS), 1);
    assert_int_equal(exit_code_of(process), -SIGKILL);
}

/* --- what it is --- */

static int tell_pid(void *argument)
{
    *(_Atomic pid_t *)argument = getpid();
    return 0;
}

static void it_has_a_pid_and_a_name(void **unused)
{
    _Atomic pid_t *told = shared_pages(sizeof *told);
    char name[] = "Otto";
    brood_process *process;

    (void)unused;
    assert_ok(brood_process_start(tell_pid, told, BROOD_PROCESS_OPTIONS(.name = name), &process));
    name[0] = 'X';
    assert_string_equal(brood_process_name(process), "Otto");
    join(process);
    assert_int_equal(brood_process_pid(process), *told);
    assert_ok(brood_process_destroy(process));
    process = start(tell_pid, told);
    assert_memory_equal(brood_process_name(process), "Process-", 8);
    join(process);
    assert_ok(brood_process_destroy(process));
    munmap(told, sizeof *told);
}

static int variable = 1;

static int see_variable(void *unused)
{
    (void)unused;
    return variable++;
}

static void it_sees_memory_as_it_is_now(void **unused)
{
    (void)unused;
    variable = 5;
    brood_process *process = start(see_variable, NULL);
    variable = 6;
    assert_int_equal(exit_code_of(process), 5);
    assert_int_equal(variable, 6);
}

static int print_once(void *unused)
{
    (void)unused;
    printf("child\n");
    return 0;
}

static void ring_at_exit(void)
{
    printf("atexit\n");
}

static void print_around(void *fd)
{
    brood_process *process;

    dup2(*(int *)fd, STDOUT_FILENO);
    atexit(ring_at_exit);
    printf("before\n");
    child_check(brood_process_start(print_once, NULL, NULL, &process) == 0);
    child_check(brood_process_join(process, brood_after_ms(WITHIN_MS)) == 0);
    printf("after\n");
    fflush(stdout);
    _exit(0);
}

static void output_is_printed_once(void **unused)
{
    char path[] = "/tmp/brood-test-XXXXXX", text[200] = "";
    int fd = mkstemp(path);

    (void)unused;
    assert_true(fd >= 0);
    unlink(path);
    in_child(print_around, &fd);
    assert_true(pread(fd, text, sizeof text - 1, 0) > 0);
    close(fd);
    assert_string_equal(text, "before\nchild\nafter\n");
}

/* --- random numbers --- */

struct draw {
    int rand;
    long random;
    double drand48;
    int64_t brood;
};

static int draw(void *argument)
{
    *(struct draw *)argument =
        (struct draw){rand(), random(), drand48(), brood_random_between(INT64_MIN, INT64_MAX)};
    return 0;
}

static void random_numbers_differ(void **unused)
{
    struct draw *draws = shared_pages(PROCESSES * sizeof *draws);
    brood_process *processes[PROCESSES];

    (void)unused;
    brood_random_between(0, 1);
    for (int i = 0; i < PROCESSES; i++)
        processes[i] = start(draw, &draws[i]);
    for (int i = 0; i < PROCESSES; i++)
        assert_int_equal(exit_code_of(processes[i]), 0);
    for (int i = 0; i < PROCESSES; i++)
        for (int j = 0; j < i; j++) {
            assert_int_not_equal(draws[i].random, draws[j].random);
            assert_int_not_equal(draws[i].rand, draws[j].rand);
            assert_true(draws[i].drand48 < draws[j].drand48 || draws[i].drand48 > draws[j].drand48);
            assert_int_not_equal(draws[i].brood, draws[j].brood);
        }
    munmap(draws, PROCESSES * sizeof *draws);
}

static void random_numbers_lie_between(void **unused)
{
    int seen[5] = {0};

    (void)unused;
    for (int i = 0; i < 10000; i++) {
        int64_t number = brood_random_between(i % 2 ? -2 : 2, i % 2 ? 2 : -2);
        assert_true(number >= -2 && number <= 2);
        seen[number + 2]++;
    }
    for (int i = 0; i < 5; i++)
        assert_in_range(seen[i], 1700, 2300);
    assert_int_equal(brood_random_between(9, 9), 9);
}

/* --- relatives --- */

static int start_grandchild(void *argument)
{
    brood_process *process;

    if (brood_process_start(tell_pid, argument, NULL, &process) != 0 ||
        brood_process_join(process, brood_after_ms(WITHIN_MS)) != 0)
        return 1;
    return brood_process_destroy(process) == 0 ? 0 : 2;
}

static void processes_start_processes(void **unused)
{
    _Atomic pid_t *told = shared_pages(sizeof *told);

    (void)unused;
    assert_int_equal(exit_code_of(start(start_grandchild, told)), 0);
    assert_int_not_equal(*told, 0);
    munmap(told, sizeof *told);
}

static void ask_in_child(void *argument)
{
    brood_process *process = argument;
    int code;

    child_check(brood_process_join(process, BROOD_NOW) == -EPERM);
    child_check(brood_process_is_alive(process) == -EPERM);
    child_check(brood_process_exit_code(process, &code) == -EPERM);
    child_check(brood_process_terminate(process) == -EPERM);
    child_check(brood_process_kill(process) == -EPERM);
    child_check(strstr(brood_error_text(), "process") != NULL);
}

static void only_the_starter_may_ask(void **unused)
{
    brood_process *process = start(hang, NULL);

    (void)unused;
    in_child(ask_in_child, process);
    assert_int_equal(brood_process_is_alive(process), 1);
    assert_ok(brood_process_kill(process));
    assert_int_equal(exit_code_of(process), -SIGKILL);
}

static void destroying_a_daemon_ends_it(void **unused)
{
    brood_process *process;

    (void)unused;
    assert_ok(brood_process_start(hang, NULL, BROOD_PROCESS_OPTIONS(.daemon = 1), &process));
    int pidfd = pidfd_of(brood_process_pid(process));
    assert_ok(brood_process_destroy(process));
    assert_ends_within(pidfd, WITHIN_MS);
}

static void destroying_another_lets_it_go_on(void **unused)
{
    brood_process *process = start(hang, NULL);
    int pidfd = pidfd_of(brood_process_pid(process));

    (void)unused;
    assert_ok(brood_process_destroy(process));
    assert_int_equal(bri_pidfd_wait(pidfd, brood_after_ms(20)), -ETIMEDOUT);
    bri_pidfd_signal(pidfd, SIGKILL);
    assert_ends_within(pidfd, WITHIN_MS);
    assert_int_equal(brood_process_destroy(NULL), 0);
}

/* --- the keeper --- */

static pid_t parent_pid_of(pid_t pid)
{
    char text[20];

    snprintf(text, sizeof text, "%d", (int)pid);
    return parent_of(text);
}

static void a_killed_keeper_takes_the_exit_code_along(void **unused)
{
    brood_process *process = start(hang, NULL);
    pid_t pid = brood_process_pid(process), keeper = parent_pid_of(pid);
    int keeper_fd = pidfd_of(keeper), code;

    (void)unused;
    assert_true(keeper > 1 && keeper != getpid());
    kill(keeper, SIGKILL);
    assert_ends_within(keeper_fd, WITHIN_MS);
    assert_int_equal(brood_process_is_alive(process), 1);
    assert_int_equal(brood_process_join(process, brood_after_ms(20)), -ETIMEDOUT);
    assert_ok(brood_process_kill(process));
    join(process);
    assert_refused(brood_process_exit_code(process, &code), ENODATA, "process");
    assert_ok(brood_process_destroy(process));
}

static void a_daemon_ends_with_its_keeper(void **unused)
{
    brood_process *process;

    (void)unused;
    assert_ok(brood_process_start(hang, NULL, BROOD_PROCESS_OPTIONS(.daemon = 1), &process));
    kill(parent_pid_of(brood_process_pid(process)), SIGKILL);
    join(process);
    assert_ok(brood_process_destroy(process));
}

static void kill_new_keeper(const char *point)
{
    if (strcmp(point, "keeper.forked") == 0)
        raise(SIGKILL);
}

static void a_keeper_may_die_at_once(void **unused)
{
    brood_process *process = NULL;

    (void)unused;
    bri_fault_hook = kill_new_keeper;
    assert_refused(brood_process_start(hang, NULL, NULL, &process), EAGAIN, "process");
    bri_fault_hook = NULL;
    assert_null(process);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        clean_test(exit_codes_are_known),
        clean_test(it_is_ended_by_signals),
        clean_test(ctrl_c_is_its_own_business),
        clean_test(join_keeps_its_deadline),
        clean_test(who_joins_counts_as_asleep),
        clean_test(its_descriptor_tells_of_the_end),
        clean_test(it_has_a_pid_and_a_name),
        clean_test(it_sees_memory_as_it_is_now),
        clean_test(output_is_printed_once),
        clean_test(random_numbers_differ),
        clean_test(random_numbers_lie_between),
        clean_test(processes_start_processes),
        clean_test(only_the_starter_may_ask),
        clean_test(destroying_a_daemon_ends_it),
        clean_test(destroying_another_lets_it_go_on),
        clean_test(a_killed_keeper_takes_the_exit_code_along),
        clean_test(a_daemon_ends_with_its_keeper),
        clean_test(a_keeper_may_die_at_once),
    };

    prepare_tests();
    return cmocka_run_group_tests_name("process", tests, make_arena, NULL);
}
