/* SPDX-License-Identifier: MIT */
/* A host that runs with 0, 1 and 2 closed: none of the descriptors that are kept gets these numbers, and everything works. */
#include "pool_testing.h"

#include "plat/descriptor.h"

enum { ITEMS = 100 };

static void close_standard(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        close(fd);
}

static int is_open(pid_t pid, int fd)
{
    char path[40], target[8];

    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, fd);
    return readlink(path, target, sizeof target) > 0;
}

static int none_is_low(pid_t pid)
{
    return !is_open(pid, STDIN_FILENO) && !is_open(pid, STDOUT_FILENO) && !is_open(pid, STDERR_FILENO);
}

/* Exit codes say where: there is no place to print to. */
#define must(condition)                \
    do {                               \
        if (!(condition))              \
            _exit(__LINE__ % 200 + 1); \
    } while (0)

static int is_readable(int fd)
{
    struct pollfd watch = {fd, POLLIN, 0};

    return poll(&watch, 1, WITHIN_MS) == 1;
}

static void use_pool(brood_pool *own)
{
    long items[ITEMS], results[ITEMS];
    brood_result *result = NULL;

    for (long i = 0; i < ITEMS; i++)
        items[i] = i;
    must(brood_pool_map_async(own, triple, items, sizeof *items, sizeof *results, ITEMS, NULL, &result) == 0);
    int fd = brood_result_fd(result);
    must(fd > STDERR_FILENO && none_is_low(getpid()));
    must(is_readable(fd));
    must(brood_result_get(result, results, sizeof results, brood_after_ms(WITHIN_MS)) == 0);
    for (long i = 0; i < ITEMS; i++)
        must(results[i] == 3 * i);
    must(brood_result_destroy(result) == 0);
}

static void use_queue(void)
{
    brood_queue *queue = NULL;

    must(brood_queue_create(NULL, &queue) == 0);
    int fd = brood_queue_fd(queue);
    must(fd > STDERR_FILENO && none_is_low(getpid()));
    must(brood_queue_put(queue, "x", 1, BROOD_NOW) == 0);
    must(is_readable(fd));
    must(brood_queue_destroy(queue) == 0);
}

static int seven(void *unused)
{
    (void)unused;
    return 7;
}

static void use_process(void)
{
    brood_process *process = NULL;
    int exit_code = -1;

    must(brood_process_start(seven, NULL, NULL, &process) == 0);
    must(brood_process_fd(process) > STDERR_FILENO && none_is_low(getpid()));
    must(brood_process_join(process, brood_after_ms(WITHIN_MS)) == 0);
    must(brood_process_exit_code(process, &exit_code) == 0 && exit_code == 7);
    must(brood_process_destroy(process) == 0);
}

static void use_all(void *unused)
{
    brood_pool *own = NULL;

    (void)unused;
    alarm(TEST_SECONDS);
    close_standard();
    must(brood_pool_create(BROOD_POOL_OPTIONS(.workers = 2), &own) == 0);
    must(none_is_low(getpid()));
    must(none_is_low(supervisor_pid(own)));
    use_pool(own);
    use_queue();
    use_process();
    must(none_is_low(getpid()));
    must(brood_pool_destroy(own) == 0);
    must(brood_arena_destroy() == 0);
}

/* Before this process has an arena: the child makes one of its own. */
static void nothing_kept_is_low(void **unused)
{
    (void)unused;
    in_child(use_all, NULL);
}

static void attach_low(void *unused)
{
    brood_arena_ticket ticket = {.size = sizeof ticket};

    (void)unused;
    must(brood_arena_ticket_get(&ticket) == 0);
    int passed = dup(ticket.fd);
    must(brood_arena_destroy() == 0);
    ticket.fd = passed;
    close_standard();
    must(brood_arena_attach(&ticket) == 0 && none_is_low(getpid()));
}

static void nor_is_what_it_attaches_with(void **unused)
{
    (void)unused;
    in_child(attach_low, NULL);
}

static void raise_all(void *unused)
{
    int fds[2];

    (void)unused;
    close_standard();
    must(bri_fd_high(open("/", O_RDONLY | O_CLOEXEC)) > STDERR_FILENO && none_is_low(getpid()));
    must(bri_pipe_high(fds) == 0 && none_is_low(getpid()));
    must(bri_fd_high(open("/no such file", O_RDONLY)) == -ENOENT);
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){3, 3});
    must(bri_fd_high(open("/", O_RDONLY | O_CLOEXEC)) == -EMFILE && none_is_low(getpid()));
    must(bri_pipe_high(fds) == -EMFILE && none_is_low(getpid()));
}

static void a_low_one_is_raised_or_closed(void **unused)
{
    (void)unused;
    in_child(raise_all, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_kept_is_low),
        cmocka_unit_test(nor_is_what_it_attaches_with),
        cmocka_unit_test(a_low_one_is_raised_or_closed),
    };

    prepare_tests();
    return cmocka_run_group_tests_name("descriptors", tests, NULL, NULL);
}
