/* SPDX-License-Identifier: MIT */
/* Every public function with what may not be: the documented errno, a sentence that names the argument, outputs untouched, nothing leaked. */
#include "testing.h"

#define FAR_IN_THE_PAST (-1)
#define ABSURD          (SIZE_MAX / 4)

static brood_pool *pool;

static int copy_int(brood_task *task, const void *item, void *result)
{
    (void)task;
    *(int *)result = *(const int *)item;
    return 0;
}

static int make_pool(void **state)
{
    int error = make_arena(state), item = 1;

    pool = error == 0 ? new_pool(1) : NULL;
    if (error == 0)
        assert_ok(brood_pool_apply(pool, copy_int, &item, sizeof item, &item,
                                   sizeof item)); /* its standing job is no leak */
    return error;
}

static int drop_pool(void **state)
{
    (void)state;
    return brood_pool_destroy(pool);
}

static int nothing(void *unused)
{
    (void)unused;
    return 0;
}

static int give_no_item(void *unused, brood_message *ret_item)
{
    (void)unused, (void)ret_item;
    return 0;
}

/* After a refusal the pool is as good as before. */
static void assert_pool_works(void)
{
    int item = 17, value = 0;

    assert_ok(brood_pool_apply(pool, copy_int, &item, sizeof item, &value, sizeof value));
    assert_int_equal(value, 17);
    await_true(!is_at_job(pool, 0));
}

static void tidy(void)
{
    brood_result *result;
    int item = 1;

    assert_ok(brood_pool_apply_async(pool, copy_int, &item, sizeof item, sizeof item, &result));
    assert_ok(brood_result_wait(result, brood_after_ms(WITHIN_MS)));
    await_true(!is_at_job(pool, 0));
    assert_ok(brood_result_destroy(result));
}

/* --- arena, CPUs, random --- */

static void arena_functions_refuse(void **unused)
{
    void *memory = &memory, *const before = memory;
    brood_arena_stats stats = {.size = sizeof stats - 1};
    brood_cpu_info info = {.size = 1};
    char local[64];

    (void)unused;
    assert_refused(brood_alloc(0, &memory), EINVAL, "bytes");
    assert_refused(brood_alloc(((size_t)1 << 47) + 1, &memory), EINVAL, "bytes");
    assert_refused(brood_alloc(SIZE_MAX, &memory), EINVAL, "bytes");
    assert_refused(brood_alloc(1, NULL), EINVAL, "ret_memory");
    assert_refused(brood_alloc((size_t)1 << 46, &memory), ENOMEM, "arena");
    assert_ptr_equal(memory, before);
    assert_refused(brood_free(local), EINVAL, "memory");
    assert_refused(brood_free((void *)(uintptr_t)64), EINVAL, "memory");
    assert_refused(brood_free(pool->shared), EINVAL, "memory");
    assert_int_equal(brood_free(NULL), 0);
    assert_refused(brood_arena_stats_get(NULL), EINVAL, "ret_stats");
    assert_refused(brood_arena_stats_get(&stats), EINVAL, "ret_stats");
    assert_refused(brood_cpu_info_get(NULL), EINVAL, "ret_info");
    assert_refused(brood_cpu_info_get(&info), EINVAL, "ret_info");
    assert_refused(brood_arena_create(NULL), EALREADY, "arena");
    assert_refused(brood_arena_create(BROOD_ARENA_OPTIONS(.max_bytes = 1)), EINVAL, "max_bytes");
    assert_refused(brood_arena_create(BROOD_ARENA_OPTIONS(.max_bytes = UINT64_MAX)), EINVAL, "max_bytes");
    assert_refused(brood_arena_destroy(), EBUSY, "processes");
}

static void freed_memory_is_refused(void **unused)
{
    void *memory;

    (void)unused;
    for (size_t bytes = 1; bytes < 1000000; bytes *= 10) {
        assert_ok(brood_alloc(bytes, &memory));
        assert_refused(brood_free((char *)memory + 64), EINVAL, "memory");
        assert_refused(brood_free((char *)memory + 1), EINVAL, "memory");
        assert_refused(brood_free((char *)memory - 64), EINVAL, "memory");
        assert_ok(brood_free(memory));
        assert_refused(brood_free(memory), EINVAL, "memory");
    }
}

/* --- options --- */

struct newer_pool_options {
    brood_pool_options known;
    uint64_t tail[2];
};

struct newer_map_options {
    brood_map_options known;
    uint64_t tail;
};

static void options_of_other_versions(void **unused)
{
    struct newer_pool_options newer = {.known = {.size = sizeof newer, .workers = 1}};
    struct newer_map_options newer_map = {.known = {.size = sizeof newer_map}};
    brood_pool_options known = {.size = sizeof known, .workers = 1};
    brood_pool *other = NULL;
    int item = 1, value = 0;

    (void)unused;
    assert_ok(brood_pool_create(&newer.known, &other));
    assert_ok(brood_pool_destroy(other));
    other = NULL;
    newer.tail[1] = 1;
    assert_refused(brood_pool_create(&newer.known, &other), E2BIG, "options");
    known.size = 4;
    assert_refused(brood_pool_create(&known, &other), EINVAL, "options");
    known.size = 0;
    assert_refused(brood_pool_create(&known, &other), EINVAL, "options");
    known.size = ABSURD;
    assert_refused(brood_pool_create(&known, &other), E2BIG, "options");
    assert_null(other);
    known.size = offsetof(brood_pool_options, tasks_per_worker); /* an older caller */
    known.grace_ms = 123456;
    assert_ok(brood_pool_create(&known, &other));
    assert_int_equal(other->options.grace_ms, 500);
    assert_ok(brood_pool_destroy(other));
    assert_ok(brood_pool_map(pool, copy_int, &item, sizeof item, &value, sizeof value, 1, &newer_map.known));
    newer_map.tail = 1;
    assert_refused(
        brood_pool_map(pool, copy_int, &item, sizeof item, &value, sizeof value, 1, &newer_map.known), E2BIG,
        "options");
}

#define NEWER(type, name) \
    struct {              \
        type known;       \
        uint64_t tail;    \
    } name = {.known = {.size = sizeof name}, .tail = 1}

static void unknown_fields_are_refused_everywhere(void **unused)
{
    NEWER(brood_arena_options, arena);
    NEWER(brood_queue_options, queue);
    NEWER(brood_process_options, process);
    NEWER(brood_map_options, map);
    NEWER(brood_imap_options, imap);
    brood_queue *made_queue = NULL;
    brood_process *made_process = NULL;
    brood_result *result = NULL;
    brood_stream *stream = NULL;
    brood_message item = {NULL, 0};

    (void)unused;
    assert_refused(brood_arena_create(&arena.known), E2BIG, "options");
    assert_refused(brood_queue_create(&queue.known, &made_queue), E2BIG, "options");
    assert_refused(brood_process_start(nothing, NULL, &process.known, &made_process), E2BIG, "options");
    assert_refused(brood_pool_map_async(pool, copy_int, NULL, 0, 0, 1, &map.known, &result), E2BIG,
                   "options");
    assert_refused(brood_pool_map_bytes_async(pool, copy_int, &item, 1, &map.known, &result), E2BIG,
                   "options");
    assert_refused(brood_pool_imap(pool, copy_int, give_no_item, NULL, &imap.known, &stream), E2BIG,
                   "options");
    assert_true(made_queue == NULL && made_process == NULL && result == NULL && stream == NULL);
}

/* --- pools --- */

static void creating_refuses(void **unused)
{
    brood_pool *other = NULL;

    (void)unused;
    assert_refused(brood_pool_create(BROOD_POOL_OPTIONS(.workers = 1025), &other), EINVAL, "workers");
    assert_refused(brood_pool_create(BROOD_POOL_OPTIONS(.workers = UINT32_MAX), &other), EINVAL, "workers");
    assert_refused(brood_pool_create(NULL, NULL), EINVAL, "ret_pool");
    assert_null(other);
}

static void submitting_refuses(void **unused)
{
    int items[4] = {0}, values[4];
    brood_result *result = NULL;
    brood_message bytes[2] = {{NULL, 0}, {NULL, 1}};

    (void)unused;
    assert_refused(brood_pool_map(NULL, copy_int, items, 4, values, 4, 4, NULL), EINVAL, "pool");
    assert_refused(brood_pool_map(pool, NULL, items, 4, values, 4, 4, NULL), EINVAL, "function");
    assert_refused(brood_pool_map(pool, copy_int, NULL, 4, values, 4, 4, NULL), EINVAL, "items");
    assert_refused(brood_pool_map(pool, copy_int, items, 4, NULL, 4, 4, NULL), EINVAL, "results");
    assert_refused(brood_pool_map(pool, copy_int, items, 4, values, 4, 0, NULL), EINVAL, "count");
    assert_refused(brood_pool_map(pool, copy_int, items, ABSURD, values, 4, 8, NULL), EINVAL, "item_bytes");
    assert_refused(brood_pool_map(pool, copy_int, items, 4, values, ABSURD, 8, NULL), EINVAL, "result_bytes");
    assert_refused(brood_pool_map(pool, copy_int, NULL, 0, NULL, 0, SIZE_MAX, NULL), EINVAL, "count");
    assert_refused(brood_pool_map_async(pool, copy_int, items, 4, 4, 4, NULL, NULL), EINVAL, "ret_result");
    assert_refused(brood_pool_map_async(pool, copy_int, items, 4, SIZE_MAX, SIZE_MAX, NULL, &result), EINVAL,
                   "count");
    assert_refused(brood_pool_apply(pool, copy_int, NULL, 4, values, 4), EINVAL, "item");
    assert_refused(brood_pool_apply(pool, copy_int, items, 4, NULL, 4), EINVAL, "result");
    assert_refused(brood_pool_apply_async(pool, copy_int, items, 4, 4, NULL), EINVAL, "ret_result");
    assert_refused(brood_pool_map_bytes_async(pool, copy_int, NULL, 1, NULL, &result), EINVAL, "items");
    assert_refused(brood_pool_map_bytes_async(pool, copy_int, bytes, 0, NULL, &result), EINVAL, "count");
    assert_refused(brood_pool_map_bytes_async(pool, copy_int, bytes, 2, NULL, &result), EINVAL, "items[1]");
    assert_refused(brood_pool_map_bytes_async(pool, copy_int, bytes, 1, NULL, NULL), EINVAL, "ret_result");
    bytes[1] = (brood_message){items, ABSURD};
    assert_refused(brood_pool_map_bytes_async(pool, copy_int, bytes, 2, NULL, &result), EINVAL, "items");
    assert_null(result);
    assert_pool_works();
}

/* Neither on the heap, nor data, nor code that came later. */
static void functions_must_lie_in_a_module(void **unused)
{
    static char data[16];
    void *heap = malloc(16),
         *code = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const uintptr_t addresses[] = {(uintptr_t)heap, (uintptr_t)data, (uintptr_t)&data, (uintptr_t)code, 1,
                                   UINTPTR_MAX};
    int item = 1, value;

    (void)unused;
    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++)
        assert_refused(
            brood_pool_apply(pool, (brood_function *)addresses[i], &item, sizeof item, &value, sizeof value),
            EFAULT, "function");
    munmap(code, 4096);
    free(heap);
    assert_pool_works();
}

static void pool_handles_are_checked(void **unused)
{
    char no_pool[sizeof(brood_pool)] = {0};
    brood_pool *others[] = {NULL, (brood_pool *)(void *)no_pool, NULL};

    (void)unused;
    others[2] = new_pool(1);
    assert_ok(brood_pool_destroy(others[2]));
    for (int i = 0; i < 3; i++) {
        assert_refused(brood_pool_close(others[i]), EINVAL, "pool");
        assert_refused(brood_pool_terminate(others[i]), EINVAL, "pool");
        assert_refused(brood_pool_join(others[i], BROOD_NOW), EINVAL, "pool");
        assert_refused(brood_pool_worker_pid(others[i], 0), EINVAL, "pool");
        assert_refused(brood_pool_apply(others[i], copy_int, NULL, 0, NULL, 0), EINVAL, "pool");
        assert_refused(brood_pool_dump(others[i], 1), EINVAL, "pool");
        assert_int_equal(brood_pool_workers(others[i]), 0);
        assert_int_equal(brood_pool_destroy(others[i]), i == 0 ? 0 : -EINVAL);
    }
    assert_refused(brood_pool_join(pool, FAR_IN_THE_PAST), EINVAL, "deadline");
    assert_refused(brood_pool_worker_pid(pool, 1), ERANGE, "index");
    assert_refused(brood_pool_worker_pid(pool, UINT32_MAX), ERANGE, "index");
    assert_refused(brood_pool_dump(pool, -1), EINVAL, "fd");
    assert_refused(brood_pool_dump(pool, 1000000), EINVAL, "fd");
    assert_pool_works();
}

static void result_handles_are_checked(void **unused)
{
    int item = 5, value = 0;
    brood_result *result;
    brood_outcome outcome;
    brood_message reply;

    (void)unused;
    assert_refused(brood_result_wait(NULL, BROOD_NOW), EINVAL, "result");
    assert_refused(brood_result_ready(NULL), EINVAL, "result");
    assert_refused(brood_result_successful(NULL), EINVAL, "result");
    assert_refused(brood_result_get(NULL, &value, sizeof value, BROOD_NOW), EINVAL, "result");
    assert_refused(brood_result_bytes(NULL, 0, &reply), EINVAL, "result");
    assert_refused(brood_result_outcome(NULL, 0, &outcome), EINVAL, "result");
    assert_refused((int)brood_result_cancel(NULL), EINVAL, "result");
    assert_refused(brood_result_fd(NULL), EINVAL, "result");
    assert_int_equal(brood_result_count(NULL), 0);
    assert_int_equal(brood_result_destroy(NULL), 0);
    assert_ok(brood_pool_apply_async(pool, copy_int, &item, sizeof item, sizeof value, &result));
    assert_refused(brood_result_wait(result, INT64_MIN), EINVAL, "deadline");
    assert_refused(brood_result_get(result, &value, sizeof value, FAR_IN_THE_PAST), EINVAL, "deadline");
    assert_refused(brood_result_get(result, NULL, 1, BROOD_FOREVER), EINVAL, "results");
    assert_refused(brood_result_get(result, &value, 0, BROOD_FOREVER), EMSGSIZE, "capacity");
    assert_int_equal(value, 0);
    assert_refused(brood_result_outcome(result, 0, NULL), EINVAL, "ret_outcome");
    assert_refused(brood_result_outcome(result, 1, &outcome), ERANGE, "index");
    assert_refused(brood_result_bytes(result, 0, NULL), EINVAL, "ret_reply");
    assert_ok(brood_result_get(result, &value, sizeof value, BROOD_FOREVER));
    assert_int_equal(value, 5);
    assert_ok(brood_result_destroy(result));
}

/* --- processes --- */

static void process_functions_refuse(void **unused)
{
    brood_process *process = NULL;
    int code;

    (void)unused;
    assert_refused(brood_process_start(NULL, NULL, NULL, &process), EINVAL, "function");
    assert_refused(brood_process_start(nothing, NULL, NULL, NULL), EINVAL, "ret_process");
    assert_null(process);
    assert_refused(brood_process_join(NULL, BROOD_NOW), EINVAL, "process");
    assert_refused(brood_process_is_alive(NULL), EINVAL, "process");
    assert_refused(brood_process_exit_code(NULL, &code), EINVAL, "process");
    assert_refused(brood_process_pid(NULL), EINVAL, "process");
    assert_refused(brood_process_fd(NULL), EINVAL, "process");
    assert_refused(brood_process_terminate(NULL), EINVAL, "process");
    assert_refused(brood_process_kill(NULL), EINVAL, "process");
    assert_null(brood_process_name(NULL));
    assert_int_equal(brood_process_destroy(NULL), 0);
    assert_ok(brood_process_start(nothing, NULL, NULL, &process));
    assert_ok(brood_process_join(process, BROOD_FOREVER));
    assert_refused(brood_process_exit_code(process, NULL), EINVAL, "ret_exit_code");
    assert_ok(brood_process_destroy(process));
}

/* --- queues and locks: their own tests know more --- */

static void queue_functions_refuse(void **unused)
{
    brood_message message = {NULL, 0};
    brood_queue *const nulls[] = {NULL, (brood_queue *)(void *)pool->shared, (brood_queue *)(void *)&message};
    char byte;
    size_t bytes;

    (void)unused;
    assert_refused(brood_queue_create(NULL, NULL), EINVAL, "ret_queue");
    for (int i = 0; i < 3; i++) {
        assert_refused(brood_queue_put(nulls[i], "x", 1, BROOD_NOW), EINVAL, "queue");
        assert_refused(brood_queue_get(nulls[i], &byte, 1, &bytes, BROOD_NOW), EINVAL, "queue");
        assert_refused(brood_queue_reserve(nulls[i], 1, &message), EINVAL, "queue");
        assert_refused(brood_queue_borrow(nulls[i], &message, BROOD_NOW), EINVAL, "queue");
        assert_refused((int)brood_queue_size(nulls[i]), EINVAL, "queue");
        assert_refused(brood_queue_close(nulls[i]), EINVAL, "queue");
        assert_refused(brood_queue_fd(nulls[i]), EINVAL, "queue");
        assert_int_equal(brood_queue_destroy(nulls[i]), i == 0 ? 0 : -EINVAL);
    }
}

static void lock_functions_refuse(void **unused)
{
    (void)unused;
    assert_refused(brood_lock_create(NULL), EINVAL, "ret_lock");
    assert_refused(brood_lock_acquire(NULL, BROOD_NOW), EINVAL, "lock");
    assert_refused(brood_lock_release((brood_lock *)(void *)pool), EINVAL, "lock");
    assert_refused(brood_rlock_create(NULL), EINVAL, "ret_lock");
    assert_refused(brood_rlock_acquire((brood_rlock *)(void *)pool->shared, BROOD_NOW), EINVAL, "lock");
    assert_refused(brood_semaphore_create(UINT32_MAX, NULL), EINVAL, "semaphore");
    assert_refused(brood_semaphore_acquire(NULL, BROOD_NOW), EINVAL, "semaphore");
    assert_refused(brood_condition_create(NULL, NULL), EINVAL, "ret_condition");
    assert_refused(brood_condition_wait(NULL, BROOD_NOW), EINVAL, "condition");
    assert_refused(brood_event_create(NULL), EINVAL, "ret_event");
    assert_refused(brood_event_wait(NULL, BROOD_NOW), EINVAL, "event");
    assert_refused(brood_barrier_create(0, NULL), EINVAL, "barrier");
    assert_refused(brood_barrier_wait(NULL, BROOD_NOW), EINVAL, "barrier");
}

/* --- other processes --- */

static void use_parents_handles(void *result)
{
    int item = 1, value;
    brood_outcome outcome;
    brood_message reply;

    child_check(brood_pool_apply(pool, copy_int, &item, sizeof item, &value, sizeof value) == -EPERM);
    child_check(strstr(brood_error_text(), "pool") != NULL);
    child_check(brood_pool_close(pool) == -EPERM && brood_pool_terminate(pool) == -EPERM);
    child_check(brood_pool_join(pool, BROOD_NOW) == -EPERM && brood_pool_destroy(pool) == -EPERM);
    child_check(brood_pool_workers(pool) == 1);
    child_check(brood_result_wait(result, BROOD_NOW) == -EPERM && brood_result_ready(result) == -EPERM);
    child_check(brood_result_get(result, NULL, 0, BROOD_NOW) == -EPERM &&
                brood_result_cancel(result) == -EPERM);
    child_check(brood_result_outcome(result, 0, &outcome) == -EPERM &&
                brood_result_bytes(result, 0, &reply) == -EPERM);
    child_check(brood_result_fd(result) == -EPERM);
    child_check(brood_result_destroy(result) == -EPERM);
    child_check(brood_arena_destroy() < 0);
}

static void handles_are_their_makers(void **unused)
{
    int item = 5, value;
    brood_result *result;

    (void)unused;
    assert_ok(brood_pool_apply_async(pool, copy_int, &item, sizeof item, sizeof value, &result));
    in_child(use_parents_handles, result);
    assert_ok(brood_result_get(result, &value, sizeof value, BROOD_FOREVER));
    assert_ok(brood_result_destroy(result));
    assert_pool_works();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        clean_test(arena_functions_refuse),
        clean_test(freed_memory_is_refused),
        clean_test(options_of_other_versions),
        clean_test(unknown_fields_are_refused_everywhere),
        clean_test(creating_refuses),
        clean_test(submitting_refuses),
        clean_test(functions_must_lie_in_a_module),
        clean_test(pool_handles_are_checked),
        clean_test(result_handles_are_checked),
        clean_test(process_functions_refuse),
        clean_test(queue_functions_refuse),
        clean_test(lock_functions_refuse),
        clean_test(handles_are_their_makers),
    };

    prepare_tests();
    tidy_up = tidy;
    return cmocka_run_group_tests_name("bad_input", tests, make_pool, drop_pool);
}
