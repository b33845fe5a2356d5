/* SPDX-License-Identifier: MIT */
/* Laws 2 and 3: however an owner ends, nothing of it is left; and what the host sees of brood's processes is nothing. */
#include "testing.h"

#include <sys/mount.h>

enum { NOTES = 16, WORKERS = 2, ROUNDS = 20 };

/* Pids that an owner wrote down. */
struct notes {
    _Atomic int count;
    _Atomic pid_t pids[NOTES];
};
static struct notes *notes;

static int make_notes(void **state)
{
    notes = shared_pages(sizeof *notes);
    return make_arena(state);
}

static void note(pid_t pid)
{
    int at = bri_add_relaxed(&notes->count, 1);

    bri_store_release(&notes->pids[at], pid);
}

static int have_noted(int count)
{
    int there = 0;

    for (int i = 0; i < NOTES; i++)
        there += bri_load_acquire(&notes->pids[i]) != 0;
    return there == count;
}

/* The promise, and what is allowed where many others want the CPUs too. */
static int64_t a_second_ms(void)
{
    double load = 0;

    return getloadavg(&load, 1) == 1 && load > 2 * brood_cpu_count() ? 10000 : 1000;
}

/* --- owners --- */

static void sleep_long(void)
{
    execlp("sleep", "sleep", "1000", (char *)NULL);
    _exit(127);
}

static void start_program(void)
{
    pid_t pid = fork();

    if (pid == 0)
        sleep_long();
    note(pid);
}

/* Its parent ends, its session is its own. */
static void start_runaway(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        setsid();
        pid = fork();
        if (pid == 0)
            sleep_long();
        note(pid);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
}

static int litter(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item, (void)result;
    note(getpid());
    start_program();
    start_runaway();
    while (pause() != 0) {
    }
    return 0;
}

static int hang(void *unused)
{
    (void)unused;
    note(getpid());
    while (pause() != 0) {
    }
    return 0;
}

enum { NOTES_OF_OWNER = 3 * WORKERS + 2 };

/* Handles that are forgotten, but not lost: a search for leaks finds them. */
static void own_much(void)
{
    static brood_pool *pool;
    static brood_result *result;
    static brood_process *process;

    child_check(brood_pool_create(BROOD_POOL_OPTIONS(.workers = WORKERS), &pool) == 0);
    child_check(brood_pool_map_async(pool, litter, NULL, 0, 0, WORKERS, NULL, &result) == 0);
    child_check(brood_process_start(hang, NULL, BROOD_PROCESS_OPTIONS(.daemon = 1), &process) == 0);
    note(supervisor_pid(pool));
}

static void own_and_wait(void *unused)
{
    (void)unused;
    own_much();
    for (;;)
        pause();
}

static void own_and_end(void *how)
{
    own_much();
    while (!have_noted(NOTES_OF_OWNER))
        breathe();
    ((void (*)(int))(uintptr_t)how)(0);
}

/* The descriptors of all that an owner has noted. */
static void watch_noted(int *pidfds)
{
    for (int i = 0; i < NOTES_OF_OWNER; i++)
        pidfds[i] = pidfd_of(bri_load_acquire(&notes->pids[i]));
}

static void forget_notes(void)
{
    memset(notes, 0, sizeof *notes);
}

static void the_killed_owner_leaves_nothing(void **unused)
{
    int pidfds[NOTES_OF_OWNER];

    (void)unused;
    forget_notes();
    pid_t owner = start_child(own_and_wait, NULL);
    await_true(have_noted(NOTES_OF_OWNER));
    watch_noted(pidfds);
    int64_t end = brood_after_ms(a_second_ms());
    kill(owner, SIGKILL);
    for (int i = 0; i < NOTES_OF_OWNER; i++)
        assert_ends_within(pidfds[i], (end - bri_now_ns()) / BRI_NS_PER_MS);
    assert_int_equal(status_of(owner), SIGKILL);
}

static void the_ended_owner_leaves_nothing(void (*how)(int))
{
    int pidfds[NOTES_OF_OWNER];

    forget_notes();
    pid_t owner = start_child(own_and_end, (void *)(uintptr_t)how);
    await_true(have_noted(NOTES_OF_OWNER));
    watch_noted(pidfds);
    assert_exits_well(owner);
    int64_t end = brood_after_ms(a_second_ms());
    for (int i = 0; i < NOTES_OF_OWNER; i++)
        assert_ends_within(pidfds[i], (end - bri_now_ns()) / BRI_NS_PER_MS);
}

static void owners_that_forget_to_destroy_leave_nothing(void **unused)
{
    (void)unused;
    the_ended_owner_leaves_nothing(exit);
    the_ended_owner_leaves_nothing(_exit);
}

static void destroy_with_programs_running(void)
{
    brood_pool *pool = new_pool(WORKERS);
    brood_result *result;
    int pidfds[3 * WORKERS];

    forget_notes();
    assert_ok(brood_pool_map_async(pool, litter, NULL, 0, 0, WORKERS, NULL, &result));
    await_true(have_noted(3 * WORKERS));
    for (int i = 0; i < 3 * WORKERS; i++)
        pidfds[i] = pidfd_of(notes->pids[i]);
    assert_ok(brood_pool_destroy(pool));
    for (int i = 0; i < 3 * WORKERS; i++)
        assert_ends_within(pidfds[i], 0);
    assert_ok(brood_result_destroy(result));
}

/* The programs that tasks have started end with the pool, whenever their parents leave them to the supervisor. */
static void destroy_ends_what_tasks_started(void **unused)
{
    (void)unused;
    for (int round = 0; round < ROUNDS; round++)
        destroy_with_programs_running();
}

/* --- files, System V --- */

static int count_lines(const char *path)
{
    FILE *file = fopen(path, "re");
    int count = 0, c;

    while (file != NULL && (c = fgetc(file)) != EOF)
        count += c == '\n';
    if (file != NULL)
        fclose(file);
    return count;
}

static void look_for_litter(void *unused)
{
    (void)unused;
    if (unshare(CLONE_NEWNS | CLONE_NEWIPC) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", "/dev/shm", "tmpfs", 0, NULL) != 0)
        _exit(77); /* not allowed here */
    pid_t owner = fork();
    if (owner == 0)
        own_and_wait(NULL);
    while (!have_noted(NOTES_OF_OWNER))
        breathe();
    child_check(count_entries("/dev/shm") == 0);
    kill(owner, SIGKILL);
    waitpid(owner, NULL, 0);
    child_check(count_entries("/dev/shm") == 0);
    child_check(count_lines("/proc/sysvipc/shm") + count_lines("/proc/sysvipc/sem") +
                    count_lines("/proc/sysvipc/msg") ==
                3);
}

static void nothing_is_named(void **unused)
{
    (void)unused;
    forget_notes();
    int status = status_of(start_child(look_for_litter, NULL));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip_because("no namespaces of its own for this user");
    assert_int_equal(status, 0);
}

/* --- signals and children of the host --- */

static int own_pid(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item;
    *(pid_t *)result = getpid();
    return 0;
}

static void interrupt_group(void *unused)
{
    brood_pool *pool;
    pid_t before[WORKERS], pid;

    (void)unused;
    setpgid(0, 0);
    child_check(brood_pool_create(BROOD_POOL_OPTIONS(.workers = WORKERS), &pool) == 0);
    for (uint32_t i = 0; i < WORKERS; i++)
        before[i] = brood_pool_worker_pid(pool, i);
    signal(SIGINT, SIG_IGN);
    child_check(kill(0, SIGINT) == 0);
    for (int i = 0; i < 10; i++)
        child_check(brood_pool_apply(pool, own_pid, NULL, 0, &pid, sizeof pid) == 0);
    for (uint32_t i = 0; i < WORKERS; i++)
        child_check(brood_pool_worker_pid(pool, i) == before[i]);
    child_check(brood_pool_destroy(pool) == 0);
}

static void workers_survive_ctrl_c(void **unused)
{
    (void)unused;
    in_child(interrupt_group, NULL);
}

static _Atomic int signals_seen;

static void count_signal(int signal)
{
    (void)signal;
    bri_add_relaxed(&signals_seen, 1);
}

static int die(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item, (void)result;
    raise(SIGKILL);
    return 0;
}

static int return_7(void *unused)
{
    (void)unused;
    return 7;
}

static void use_everything(int expected_wait_errno)
{
    brood_pool *pool = new_pool(WORKERS);
    brood_process *process;
    int code;

    assert_int_equal(waitpid(-1, NULL, WNOHANG), expected_wait_errno == 0 ? 0 : -1);
    assert_int_equal(brood_pool_apply(pool, die, NULL, 0, NULL, 0), -EOWNERDEAD);
    assert_ok(brood_process_start(return_7, NULL, NULL, &process));
    assert_int_equal(waitpid(-1, NULL, WNOHANG), expected_wait_errno == 0 ? 0 : -1);
    assert_ok(brood_process_join(process, brood_after_ms(WITHIN_MS)));
    assert_ok(brood_process_exit_code(process, &code));
    assert_int_equal(code, 7);
    assert_ok(brood_process_destroy(process));
    assert_int_equal(waitpid(-1, NULL, WNOHANG), expected_wait_errno == 0 ? 0 : -1);
    assert_ok(brood_pool_destroy(pool));
    assert_int_equal(waitpid(-1, NULL, WNOHANG), expected_wait_errno == 0 ? 0 : -1);
}

static void the_host_sees_no_child_of_ours(void **unused)
{
    (void)unused;
    signals_seen = 0;
    signal(SIGCHLD, count_signal);
    use_everything(ECHILD);
    assert_int_equal(signals_seen, 0);
    signal(SIGCHLD, SIG_DFL);
}

static void wait_for_end(void *gate)
{
    char byte;

    child_check(read(*(int *)gate, &byte, 1) == 0);
    _exit(5);
}

static void the_host_sees_its_own_children(void **unused)
{
    int gate[2];

    (void)unused;
    assert_int_equal(pipe2(gate, O_CLOEXEC), 0);
    fflush(NULL);
    pid_t child = fork(), waited;
    if (child == 0) {
        close(gate[1]);
        wait_for_end(&gate[0]);
    }
    use_everything(0);
    close(gate[0]);
    close(gate[1]);
    int status;
    waited = wait(&status);
    assert_int_equal(waited, child);
    assert_int_equal(WEXITSTATUS(status), 5);
}

/* A host that ignores SIGCHLD has its children reaped by the kernel, and we learn of ours all the same. */
static void hosts_may_ignore_sigchld(void **unused)
{
    (void)unused;
    signal(SIGCHLD, SIG_IGN);
    use_everything(ECHILD);
    signal(SIGCHLD, SIG_DFL);
}

/* Keepers and supervisors hold none of the host's pipes open. */
static void nobody_holds_a_pipe_open(void **unused)
{
    brood_process *process;
    int pipes[2];
    char byte;

    (void)unused;
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    forget_notes();
    assert_ok(brood_process_start(hang, NULL, NULL, &process));
    close(pipes[1]);
    assert_ok(brood_process_kill(process));
    assert_int_equal(read(pipes[0], &byte, 1), 0);
    assert_ok(brood_process_join(process, brood_after_ms(WITHIN_MS)));
    assert_ok(brood_process_destroy(process));
    close(pipes[0]);
}

/* --- daemons --- */

static void start_two(void *unused)
{
    brood_process *process;

    (void)unused;
    child_check(brood_process_start(hang, NULL, BROOD_PROCESS_OPTIONS(.daemon = 1), &process) == 0);
    while (!have_noted(1))
        breathe();
    child_check(brood_process_start(hang, NULL, NULL, &process) == 0);
    for (;;)
        pause();
}

static void daemons_end_with_their_starter(void **unused)
{
    (void)unused;
    forget_notes();
    pid_t starter = start_child(start_two, NULL);
    await_true(have_noted(2));
    int daemon = pidfd_of(notes->pids[0]), other = pidfd_of(notes->pids[1]);
    kill(starter, SIGKILL);
    assert_int_equal(status_of(starter), SIGKILL);
    assert_ends_within(daemon, a_second_ms());
    assert_int_equal(bri_pidfd_wait(other, brood_after_ms(20)), -ETIMEDOUT);
    bri_pidfd_signal(other, SIGKILL);
    assert_ends_within(other, WITHIN_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        clean_test(the_killed_owner_leaves_nothing), clean_test(owners_that_forget_to_destroy_leave_nothing),
        clean_test(destroy_ends_what_tasks_started), clean_test(nothing_is_named),
        clean_test(workers_survive_ctrl_c),          clean_test(the_host_sees_no_child_of_ours),
        clean_test(the_host_sees_its_own_children),  clean_test(hosts_may_ignore_sigchld),
        clean_test(nobody_holds_a_pipe_open),        clean_test(daemons_end_with_their_starter),
    };

    prepare_tests();
    return cmocka_run_group_tests_name("life", tests, make_notes, NULL);
}
