/* SPDX-License-Identifier: MIT */
/*
 * Running out: of descriptors, processes, the arena's bound, file size; and a /dev/shm that is full or not there.  Each is the documented errno at the call, leaks nothing, and goes by
 * when there is room again.  Every test runs in a child that has an arena of its own.
 */
#include "testing.h"

#include <grp.h>
#include <sys/mount.h>

enum { SPARE_MAX = 14, NOBODY = 65534, BOUND = 4 << 20, PIECE = 100000 };

/* --- children --- */

static void check_same_stock(const struct resources *before, int line)
{
    struct resources now = take_stock();

    for (int64_t end = brood_after_ms(WITHIN_MS); !is_same(&now, before) && bri_now_ns() < end;
         now = take_stock())
        breathe();
    if (is_same(&now, before))
        return;
    bri_heap_walk(print_block, NULL);
    dprintf(STDERR_FILENO, "# %s:%d: descriptors %d → %d, blocks %d → %d, participants %d → %d\n", __FILE__,
            line, before->descriptors, now.descriptors, (int)before->blocks, (int)now.blocks,
            (int)before->participants, (int)now.participants);
    _exit(99);
}

#define child_check_stock(before) check_same_stock(before, __LINE__)

static int is_among(int error, const int *errors)
{
    for (; *errors != 0; errors++)
        if (error == -*errors)
            return 1;
    return error == 0;
}

#define child_check_among(error, ...)                                        \
    do {                                                                     \
        if (!is_among(error, (const int[]){__VA_ARGS__, 0}))                 \
            dprintf(STDERR_FILENO, "# %d: %s\n", error, brood_error_text()); \
        child_check(is_among(error, (const int[]){__VA_ARGS__, 0}));         \
    } while (0)

static rlim_t lesser(rlim_t a, rlim_t b)
{
    return a < b ? a : b;
}

#define limit(resource, soft)                            \
    do {                                                 \
        struct rlimit limits;                            \
        child_check(getrlimit(resource, &limits) == 0);  \
        limits.rlim_cur = lesser(soft, limits.rlim_max); \
        child_check(setrlimit(resource, &limits) == 0);  \
    } while (0)
#define unlimit(resource) limit(resource, RLIM_INFINITY)

/* --- tasks --- */

static int add_one(brood_task *task, const void *item, void *result)
{
    (void)task;
    *(int *)result = *(const int *)item + 1;
    return 0;
}

static int return_7(void *unused)
{
    (void)unused;
    return 7;
}

static int crash(brood_task *task, const void *item, void *result)
{
    (void)task, (void)item, (void)result;
    raise(SIGKILL);
    return 0;
}

static int reply_much(brood_task *task, const void *item, void *result)
{
    void *memory;

    (void)item, (void)result;
    int error = brood_task_reply_reserve(task, BOUND, &memory);
    return error < 0 ? brood_task_fail(task, error, brood_error_text()) : 0;
}

static void use_pool(brood_pool *pool)
{
    int items[20], values[20];

    for (int i = 0; i < 20; i++)
        items[i] = i;
    child_check(brood_pool_map(pool, add_one, items, sizeof *items, values, sizeof *values, 20, NULL) == 0);
    for (int i = 0; i < 20; i++)
        child_check(values[i] == i + 1);
}

static void use_process(void)
{
    brood_process *process;
    int code = 0;

    child_check(brood_process_start(return_7, NULL, NULL, &process) == 0);
    child_check(brood_process_join(process, brood_after_ms(WITHIN_MS)) == 0);
    child_check(brood_process_exit_code(process, &code) == 0 && code == 7);
    child_check(brood_process_destroy(process) == 0);
}

/* --- descriptors --- */

static void try_pool_with_few_descriptors(rlim_t descriptors)
{
    brood_pool *pool = NULL;
    brood_result *result;

    limit(RLIMIT_NOFILE, descriptors);
    int error = brood_pool_create(BROOD_POOL_OPTIONS(.workers = 1), &pool);
    child_check_among(error, EMFILE);
    if (error == 0) {
        use_pool(pool);
        child_check(brood_pool_map_async(pool, crash, NULL, 0, 0, 2, NULL, &result) == 0);
        int fd = brood_result_fd(result);
        child_check(fd >= 0 || fd == -EMFILE);
        child_check(brood_result_get(result, NULL, 0, brood_after_ms(WITHIN_MS)) == -EOWNERDEAD);
        child_check(brood_result_destroy(result) == 0);
        use_pool(pool);
    }
    child_check(brood_pool_destroy(pool) == 0);
    unlimit(RLIMIT_NOFILE);
}

static void try_process_with_few_descriptors(rlim_t descriptors)
{
    brood_process *process = NULL;

    limit(RLIMIT_NOFILE, descriptors);
    int error = brood_process_start(return_7, NULL, NULL, &process);
    child_check_among(error, EMFILE);
    if (error == 0)
        child_check(brood_process_join(process, brood_after_ms(WITHIN_MS)) == 0);
    child_check(brood_process_destroy(process) == 0);
    unlimit(RLIMIT_NOFILE);
}

static rlim_t first_free_descriptor(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    close(fd);
    return (rlim_t)fd;
}

static void run_out_of_descriptors(void *unused)
{
    (void)unused;
    limit(RLIMIT_NOFILE, first_free_descriptor());
    child_check(brood_arena_create(NULL) == -EMFILE);
    unlimit(RLIMIT_NOFILE);
    child_check(brood_arena_create(NULL) == 0);
    struct resources before = take_stock();
    rlim_t used = first_free_descriptor();
    for (rlim_t spare = 0; spare < SPARE_MAX; spare++) {
        try_pool_with_few_descriptors(used + spare);
        child_check_stock(&before);
        try_process_with_few_descriptors(used + spare);
        child_check_stock(&before);
    }
    use_process();
    child_check_stock(&before);
}

static void descriptors_may_run_out(void **unused)
{
    (void)unused;
    in_child(run_out_of_descriptors, NULL);
}

/* --- processes --- */

static void try_with_few_processes(rlim_t processes)
{
    brood_pool *pool = NULL;
    brood_process *process = NULL;

    limit(RLIMIT_NPROC, processes);
    int error = brood_pool_create(BROOD_POOL_OPTIONS(.workers = 3), &pool);
    child_check_among(error, EAGAIN);
    if (error == 0)
        use_pool(pool);
    child_check(brood_pool_destroy(pool) == 0);
    error = brood_process_start(return_7, NULL, NULL, &process);
    child_check_among(error, EAGAIN);
    if (error == 0)
        child_check(brood_process_join(process, brood_after_ms(WITHIN_MS)) == 0);
    child_check(brood_process_destroy(process) == 0);
    unlimit(RLIMIT_NPROC);
}

static void run_out_of_processes(void *unused)
{
    brood_pool *pool;

    (void)unused;
    if (geteuid() != 0 || setgroups(0, NULL) != 0 || setgid(NOBODY) != 0 || setuid(NOBODY) != 0)
        _exit(77);
    child_check(brood_arena_create(NULL) == 0);
    struct resources before = take_stock();
    for (rlim_t processes = 0; processes < 12; processes++) {
        try_with_few_processes(processes);
        child_check_stock(&before);
    }
    child_check(brood_pool_create(BROOD_POOL_OPTIONS(.workers = 3), &pool) == 0);
    use_pool(pool);
    child_check(brood_pool_destroy(pool) == 0);
    use_process();
    child_check_stock(&before);
}

static void processes_may_run_out(void **unused)
{
    (void)unused;
    int status = status_of(start_child(run_out_of_processes, NULL));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip_because("only root may become another user, whose processes can be limited");
    assert_int_equal(status, 0);
}

/* --- the arena's bound --- */

static int fill_arena(void **pieces, int room)
{
    int count = 0, error = 0;

    while (count < room && (error = brood_alloc(PIECE, &pieces[count])) == 0)
        count++;
    child_check(error == -ENOMEM && strstr(brood_error_text(), "max_bytes") != NULL);
    return count;
}

static void try_everything_in_full_arena(brood_pool *pool, brood_queue *queue)
{
    static char large[BOUND];
    brood_pool *other = NULL;
    brood_result *result = NULL;
    brood_message item = {large, sizeof large};

    child_check(brood_pool_create(BROOD_POOL_OPTIONS(.workers = 2), &other) == -ENOMEM);
    child_check(brood_pool_map_async(pool, add_one, large, sizeof(int), sizeof(int), BOUND / sizeof(int),
                                     NULL, &result) == -ENOMEM);
    child_check(brood_pool_map_bytes_async(pool, add_one, &item, 1, NULL, &result) == -ENOMEM);
    child_check(brood_queue_put(queue, large, sizeof large, BROOD_NOW) == -ENOMEM);
    child_check(brood_queue_reserve(queue, sizeof large, &item) == -ENOMEM);
    child_check(other == NULL && result == NULL);
}

static void replies_fail_in_full_arena(brood_pool *pool)
{
    brood_message item = {NULL, 0};
    brood_result *result;
    brood_outcome outcome;

    child_check(brood_pool_map_bytes_async(pool, reply_much, &item, 1, NULL, &result) == 0);
    child_check(brood_result_get(result, NULL, 0, brood_after_ms(WITHIN_MS)) == -EREMOTEIO);
    child_check(brood_result_outcome(result, 0, &outcome) == 0 && outcome.code == -ENOMEM);
    child_check(brood_result_destroy(result) == 0);
}

static void reach_the_bound(void *unused)
{
    void *pieces[100];
    brood_pool *pool;
    brood_queue *queue;

    (void)unused;
    child_check(brood_arena_create(BROOD_ARENA_OPTIONS(.max_bytes = BOUND)) == 0);
    struct resources empty = take_stock();
    child_check(brood_pool_create(BROOD_POOL_OPTIONS(.workers = 2), &pool) == 0);
    child_check(brood_queue_create(NULL, &queue) == 0);
    use_pool(pool);
    struct resources before = take_stock();
    for (int round = 0; round < 3; round++) {
        int count = fill_arena(pieces, 100);
        try_everything_in_full_arena(pool, queue);
        while (count > 0)
            child_check(brood_free(pieces[--count]) == 0);
        replies_fail_in_full_arena(pool);
        use_pool(pool);
    }
    child_check(take_stock().blocks <= before.blocks + 2);
    child_check(brood_queue_destroy(queue) == 0);
    child_check(brood_pool_destroy(pool) == 0);
    child_check_stock(&empty);
    child_check(brood_arena_destroy() == 0);
    child_check(brood_arena_destroy() == 0);
    child_check(brood_arena_create(NULL) == 0); /* again */
    use_process();
    child_check(brood_arena_destroy() == 0);
}

static void the_arena_has_a_bound(void **unused)
{
    (void)unused;
    in_child(reach_the_bound, NULL);
}

/* --- file size --- */

static void reach_file_size(void *unused)
{
    void *memory = NULL;

    (void)unused;
    limit(RLIMIT_FSIZE, 4096);
    child_check(brood_arena_create(NULL) == -ENOMEM);
    child_check(strstr(brood_error_text(), "ulimit -f") != NULL);
    unlimit(RLIMIT_FSIZE);
    child_check(brood_arena_create(BROOD_ARENA_OPTIONS(.max_bytes = (uint64_t)1 << 30)) == 0);
    struct resources before = take_stock();
    limit(RLIMIT_FSIZE, 1 << 20);
    child_check(brood_alloc(10 << 20, &memory) == -ENOMEM);
    child_check(strstr(brood_error_text(), "ulimit -f") != NULL);
    unlimit(RLIMIT_FSIZE);
    child_check(brood_alloc(10 << 20, &memory) == 0);
    memset(memory, 1, 10 << 20);
    child_check(brood_free(memory) == 0);
    child_check_stock(&before);
}

static void file_size_may_be_limited(void **unused)
{
    (void)unused;
    in_child(reach_file_size, NULL);
}

/* --- /dev/shm --- */

enum shm { SHM_TINY, SHM_FULL, SHM_MISSING };

/* One of this process's own; 0 where that is not permitted. */
static int mount_shm(enum shm how)
{
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        return 0;
    return how == SHM_MISSING ? mount("none", "/dev", "tmpfs", 0, "size=64k") == 0
                              : mount("none", "/dev/shm", "tmpfs", 0, "size=64k") == 0;
}

static void fill_shm(void)
{
    static const char page[4096];
    int file = open("/dev/shm/filler", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

    child_check(file >= 0);
    while (write(file, page, sizeof page) > 0) {
    }
    child_check(errno == ENOSPC);
    close(file);
}

static void use_queue(void)
{
    static char message[BOUND], got[BOUND];
    brood_queue *queue;
    size_t bytes;

    memset(message, 7, sizeof message);
    child_check(brood_queue_create(NULL, &queue) == 0);
    child_check(brood_queue_put(queue, message, sizeof message, BROOD_NOW) == 0);
    child_check(brood_queue_get(queue, got, sizeof got, &bytes, BROOD_NOW) == 0 && bytes == sizeof got);
    child_check(memcmp(message, got, sizeof got) == 0);
    child_check(brood_queue_destroy(queue) == 0);
}

static void use_memory(void)
{
    void *memory;

    child_check(brood_alloc(10 * BOUND, &memory) == 0);
    memset(memory, 1, 10 * BOUND);
    child_check(brood_free(memory) == 0);
}

static void do_without_shm(void *how)
{
    enum shm kind = *(enum shm *)how;
    brood_pool *pool;

    if (!mount_shm(kind))
        _exit(77);
    if (kind == SHM_FULL)
        fill_shm();
    child_check((access("/dev/shm", F_OK) != 0) == (kind == SHM_MISSING));
    child_check(brood_pool_create(BROOD_POOL_OPTIONS(.workers = 2), &pool) == 0);
    use_pool(pool);
    use_queue();
    use_memory();
    use_process();
    child_check(brood_pool_destroy(pool) == 0);
    child_check(kind == SHM_MISSING || count_entries("/dev/shm") == (kind == SHM_FULL));
}

static void dev_shm_is_not_needed(void **unused)
{
    (void)unused;
    for (enum shm how = SHM_TINY; how <= SHM_MISSING; how++) {
        int status = status_of(start_child(do_without_shm, &how));
        if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
            skip_because("no mounts of its own for this user");
        assert_int_equal(status, 0);
    }
}

/* --- many short lives --- */

enum { LIVES = 5000 };

static void live_shortly(void *unused)
{
    void *memory;

    (void)unused;
    child_check(brood_alloc(100, &memory) == 0);
    child_check(brood_free(memory) == 0);
}

/* More than the roster has slots; nobody waits for them in brood. */
static void fork_many(void *unused)
{
    (void)unused;
    live_shortly(NULL);
    for (int i = 0; i < LIVES; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            live_shortly(NULL);
            _exit(0);
        }
        int status = -1;
        child_check(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
    }
}

static void the_roster_does_not_fill_with_the_dead(void **unused)
{
    (void)unused;
    in_child(fork_many, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(descriptors_may_run_out), cmocka_unit_test(processes_may_run_out),
        cmocka_unit_test(the_arena_has_a_bound),   cmocka_unit_test(file_size_may_be_limited),
        cmocka_unit_test(dev_shm_is_not_needed),   cmocka_unit_test(the_roster_does_not_fill_with_the_dead),
    };

    prepare_tests();
    return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
