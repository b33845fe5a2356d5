/* SPDX-License-Identifier: MIT */
/* The queue in one process, and with others that live: contents, bounds, waits, and what it costs. */
#include "queue/queue_testing.h"

#include <sys/prctl.h>
#include <sys/syscall.h>

#include "base/time.h"

static char big[10 * 1024 * 1024], back[10 * 1024 * 1024 + 1];

static void fill(char *data, size_t bytes, uint32_t seed)
{
    for (size_t i = 0; i < bytes; i++)
        data[i] = (char)(seed + i * 31 + (i >> 9));
}

static void assert_is(const char *data, size_t bytes, uint32_t seed)
{
    static char expected[sizeof big];

    fill(expected, bytes, seed);
    assert_memory_equal(data, expected, bytes);
}

static void put_filled(brood_queue *queue, size_t bytes, uint32_t seed)
{
    fill(big, bytes, seed);
    assert_int_equal(brood_queue_put(queue, big, bytes, BROOD_FOREVER), 0);
}

static void get_filled(brood_queue *queue, size_t bytes, uint32_t seed)
{
    size_t got = 12345;

    assert_int_equal(brood_queue_get(queue, back, sizeof back, &got, BROOD_NOW), 0);
    assert_int_equal(got, bytes);
    assert_is(back, bytes, seed);
}

static void destroy_whole(brood_queue *queue)
{
    assert_true(bri_queue_is_valid(queue));
    assert_int_equal(brood_queue_destroy(queue), 0);
}

/* ---- contents ---- */

static const size_t sizes[] = {0,    1,    15,   16,   17,    63,    64,    65,      1000,       4095, 4096,
                               4097, 8063, 8064, 8065, 65407, 65408, 65409, 1000000, sizeof big, 3};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

static void sizes_come_back(void **state)
{
    uint64_t before = used_blocks();
    brood_queue *queue = new_queue(0, 0);

    (void)state;
    for (uint32_t i = 0; i < SIZES; i++) {
        put_filled(queue, sizes[i], i);
        get_filled(queue, sizes[i], i);
    }
    for (uint32_t i = 0; i < SIZES; i++)
        put_filled(queue, sizes[i], i);
    assert_int_equal(brood_queue_size(queue), SIZES);
    assert_true(bri_queue_is_valid(queue));
    for (uint32_t i = 0; i < SIZES; i++)
        get_filled(queue, sizes[i], i);
    assert_int_equal(brood_queue_size(queue), 0);
    destroy_whole(queue);
    assert_int_equal(used_blocks(), before);
}

/* Long and short backlogs, so that segments of all sizes come and go. */
static void order_holds_over_segments(void **state)
{
    brood_queue *queue = new_queue(0, 0);
    uint32_t random = 1, put = 0, got = 0, length[4096];

    (void)state;
    for (int round = 0; round < 400; round++) {
        uint32_t target = next_random(&random) % (round % 50 == 0 ? 4000 : 60);
        while (put - got < target) {
            length[put % 4096] = next_random(&random) % (put % 97 == 0 ? 6000 : 200);
            put_filled(queue, length[put % 4096], put);
            put++;
        }
        while (put - got > target) {
            get_filled(queue, length[got % 4096], got);
            got++;
        }
        assert_int_equal(brood_queue_size(queue), put - got);
    }
    assert_true(bri_queue_is_valid(queue));
    destroy_whole(queue);
}

static void many_at_once(void **state)
{
    brood_queue *queue = new_queue(0, 0);
    brood_message messages[SIZES], taken[SIZES];
    char *at = big;

    (void)state;
    for (uint32_t i = 0; i < SIZES - 2; i++) {
        messages[i] = (brood_message){at, sizes[i]};
        fill(at, sizes[i], i);
        at += sizes[i];
    }
    assert_int_equal(brood_queue_put_many(queue, messages, SIZES - 2, BROOD_NOW), SIZES - 2);
    assert_int_equal(brood_queue_size(queue), SIZES - 2);
    assert_int_equal(brood_queue_get_many(queue, back, sizeof back, taken, SIZES, BROOD_NOW), SIZES - 2);
    for (uint32_t i = 0; i < SIZES - 2; i++) {
        assert_int_equal(taken[i].bytes, sizes[i]);
        assert_int_equal((uintptr_t)taken[i].data % 16, 0);
        assert_is(taken[i].data, sizes[i], i);
    }
    assert_int_equal(brood_queue_put_many(queue, NULL, 0, BROOD_NOW), 0);
    destroy_whole(queue);
}

static void many_take_what_fits(void **state)
{
    brood_queue *queue = new_queue(0, 0);
    brood_message taken[8];
    _Alignas(16) char buffer[64];

    (void)state;
    for (uint32_t i = 0; i < 5; i++)
        put_filled(queue, 20, i);
    assert_int_equal(brood_queue_get_many(queue, buffer, sizeof buffer, taken, 8, BROOD_NOW), 2);
    assert_int_equal(brood_queue_get_many(queue, buffer, sizeof buffer, taken, 1, BROOD_NOW), 1);
    assert_int_equal(brood_queue_get_many(queue, buffer, 19, taken, 8, BROOD_NOW), -EMSGSIZE);
    assert_int_equal(brood_queue_size(queue), 2);
    assert_int_equal(brood_queue_get_many(queue, buffer + 1, 63, taken, 8, BROOD_NOW), 1);
    assert_is(taken[0].data, 20, 3);
    destroy_whole(queue);
}

/* ---- bounds ---- */

static void message_bound(void **state)
{
    brood_queue *queue = new_queue(3, 0);
    brood_message five[5] = {{big, 1}, {big, 1}, {big, 1}, {big, 1}, {big, 1}};

    (void)state;
    assert_int_equal(brood_queue_put_many(queue, five, 5, BROOD_NOW), 3);
    assert_int_equal(brood_queue_put(queue, "x", 1, BROOD_NOW), -ETIMEDOUT);
    int64_t deadline = brood_after_ms(20);
    assert_int_equal(brood_queue_put(queue, "x", 1, deadline), -ETIMEDOUT);
    assert_true(bri_now_ns() >= deadline);
    assert_int_equal(brood_queue_put(queue, big, 5000, BROOD_NOW), -ETIMEDOUT);
    size_t bytes;
    assert_int_equal(brood_queue_get(queue, back, 1, &bytes, BROOD_NOW), 0);
    assert_int_equal(brood_queue_put(queue, big, 5000, BROOD_NOW), 0);
    assert_int_equal(brood_queue_size(queue), 3);
    destroy_whole(queue);
}

static void byte_bound(void **state)
{
    uint64_t before = used_blocks();
    brood_queue *queue = new_queue(0, 10000);
    size_t bytes;

    (void)state;
    assert_int_equal(brood_queue_put(queue, big, 10001, BROOD_NOW), -EMSGSIZE);
    assert_int_equal(brood_queue_put(queue, big, 10000, BROOD_NOW), 0);
    assert_int_equal(brood_queue_put(queue, "", 0, BROOD_NOW), 0);
    assert_int_equal(brood_queue_put(queue, "x", 1, BROOD_NOW), -ETIMEDOUT);
    assert_int_equal(brood_queue_get(queue, back, 10000, &bytes, BROOD_NOW), 0);
    assert_int_equal(brood_queue_put(queue, big, 6000, BROOD_NOW), 0);
    assert_int_equal(brood_queue_put(queue, big, 4001, BROOD_NOW), -ETIMEDOUT);
    assert_int_equal(brood_queue_put(queue, big, 4000, BROOD_NOW), 0);
    destroy_whole(queue);
    assert_int_equal(used_blocks(), before);
}

static void too_long_for_the_buffer(void **state)
{
    brood_queue *queue = new_queue(0, 0);
    static const size_t lengths[] = {100, 5000};

    (void)state;
    for (int i = 0; i < 2; i++) {
        size_t bytes = 0;
        put_filled(queue, lengths[i], 7);
        assert_int_equal(brood_queue_get(queue, back, lengths[i] - 1, &bytes, BROOD_NOW), -EMSGSIZE);
        assert_int_equal(bytes, lengths[i]);
        assert_int_equal(brood_queue_get(queue, NULL, 0, &bytes, BROOD_NOW), -EMSGSIZE);
        get_filled(queue, lengths[i], 7);
    }
    destroy_whole(queue);
}

static void fill_small_arena(brood_queue *unused, void *argument)
{
    brood_queue *queue;
    size_t bytes;
    int put = 0, error;

    (void)unused, (void)argument;
    child_check(brood_queue_create(NULL, &queue) == 0);
    while ((error = brood_queue_put(queue, big, 3000, BROOD_NOW)) == 0)
        put++;
    child_check(error == -ENOMEM && put > 100);
    child_check(brood_queue_put(queue, big, 100000, BROOD_NOW) == -ENOMEM);
    for (int i = 0; i < put; i++)
        child_check(brood_queue_get(queue, back, 3000, &bytes, BROOD_NOW) == 0);
    child_check(brood_queue_size(queue) == 0 && bri_queue_is_valid(queue));
    child_check(brood_queue_put(queue, big, 100000, BROOD_NOW) == 0);
    child_check(brood_queue_destroy(queue) == 0);
}

/* The first test: there is no arena yet, so the child makes one of its own. */
static void arena_full(void **state)
{
    pid_t pid = fork();
    int status;

    (void)state;
    if (pid == 0) {
        child_check(brood_arena_create(BROOD_ARENA_OPTIONS(.max_bytes = 1024 * 1024)) == 0);
        fill_small_arena(NULL, NULL);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* ---- zero-copy ---- */

static void reserve_and_borrow(void **state)
{
    uint64_t before = used_blocks();
    brood_queue *queue = new_queue(0, 0), *other = new_queue(0, 0);
    brood_message message, copy;

    (void)state;
    for (uint32_t i = 0; i < SIZES; i++) {
        assert_int_equal(brood_queue_reserve(queue, sizes[i], &message), 0);
        assert_true(message.data != NULL && message.bytes == sizes[i] && (uintptr_t)message.data % 16 == 0);
        fill(message.data, sizes[i], i);
        void *data = message.data;
        copy = message;
        assert_int_equal(brood_queue_commit(queue, &message, BROOD_NOW), 0);
        assert_int_equal(brood_queue_commit(queue, &copy, BROOD_NOW), -EINVAL);
        assert_int_equal(brood_queue_abandon(queue, &copy), -EINVAL);
        assert_int_equal(brood_queue_borrow(queue, &message, BROOD_NOW), 0);
        assert_ptr_equal(message.data, data);
        assert_is(message.data, message.bytes, i);
        assert_int_equal(brood_queue_commit(other, &message, BROOD_NOW), 0); /* forwarded as it is */
        get_filled(other, sizes[i], i);
    }
    put_filled(queue, 100, 5);
    assert_int_equal(brood_queue_borrow(queue, &message, BROOD_NOW), 0);
    assert_is(message.data, 100, 5);
    assert_int_equal(brood_queue_release(queue, &message), 0);
    assert_int_equal(brood_queue_release(queue, &message), -EINVAL);
    assert_int_equal(brood_queue_reserve(queue, 100, &message), 0);
    assert_int_equal(brood_queue_abandon(queue, &message), 0);
    assert_int_equal(brood_queue_borrow(queue, &message, BROOD_NOW), -ETIMEDOUT);
    destroy_whole(queue);
    destroy_whole(other);
    assert_int_equal(used_blocks(), before);
}

static void commit_waits_and_shrinks(void **state)
{
    brood_queue *queue = new_queue(0, 100);
    brood_message message;

    (void)state;
    assert_int_equal(brood_queue_reserve(queue, 101, &message), -EMSGSIZE);
    put_filled(queue, 80, 1);
    assert_int_equal(brood_queue_reserve(queue, 50, &message), 0);
    fill(message.data, 50, 2);
    assert_int_equal(brood_queue_commit(queue, &message, BROOD_NOW), -ETIMEDOUT);
    message.bytes = 51;
    assert_int_equal(brood_queue_commit(queue, &message, BROOD_NOW), -EINVAL);
    message.bytes = 20;
    assert_int_equal(brood_queue_commit(queue, &message, BROOD_NOW), 0);
    get_filled(queue, 80, 1);
    get_filled(queue, 20, 2);
    destroy_whole(queue);
}

static void use_message_of_parent(brood_queue *queue, void *message)
{
    child_check(brood_queue_commit(queue, message, BROOD_NOW) == -EINVAL);
    child_check(brood_queue_abandon(queue, message) == -EINVAL);
    child_check(strstr(brood_error_text(), "message") != NULL);
}

static void message_belongs_to_its_process(void **state)
{
    brood_queue *queue = new_queue(0, 0);
    brood_message message;

    (void)state;
    assert_int_equal(brood_queue_reserve(queue, 10, &message), 0);
    struct child child = start_child(use_message_of_parent, queue, &message);
    assert_ends_well(&child);
    assert_int_equal(brood_queue_abandon(queue, &message), 0);
    destroy_whole(queue);
}

/* ---- waiting ---- */

static void get_one(brood_queue *queue, void *argument)
{
    char buffer[16];
    size_t bytes;
    int expected = *(int *)argument;

    child_check(brood_queue_get(queue, buffer, sizeof buffer, &bytes, BROOD_FOREVER) == expected);
}

static void put_one(brood_queue *queue, void *argument)
{
    child_check(brood_queue_put(queue, "y", 1, BROOD_FOREVER) == *(int *)argument);
}

static void get_waits(void **state)
{
    brood_queue *queue = new_queue(0, 0);
    int expected = 0;
    struct child children[3];

    (void)state;
    for (int i = 0; i < 3; i++)
        children[i] = start_child(get_one, queue, &expected);
    for (int i = 0; i < 3; i++)
        await_sleep(&children[i]);
    assert_int_equal(brood_queue_destroy(queue), -EBUSY);
    for (int i = 0; i < 3; i++)
        assert_int_equal(brood_queue_put(queue, "x", 1, BROOD_NOW), 0);
    for (int i = 0; i < 3; i++)
        assert_ends_well(&children[i]);
    destroy_whole(queue);
}

static void put_waits(void **state)
{
    brood_queue *queue = new_queue(1, 0);
    int expected = 0;
    size_t bytes;

    (void)state;
    put_filled(queue, 10, 1);
    struct child a = start_child(put_one, queue, &expected), b = start_child(put_one, queue, &expected);
    await_sleep(&a);
    await_sleep(&b);
    get_filled(queue, 10, 1);
    for (int i = 0; i < 2; i++)
        assert_int_equal(brood_queue_get(queue, back, 1, &bytes, BROOD_FOREVER), 0);
    assert_ends_well(&a);
    assert_ends_well(&b);
    destroy_whole(queue);
}

static void close_ends_waits(void **state)
{
    brood_queue *full = new_queue(1, 0), *empty = new_queue(0, 0);
    int expected = -ESHUTDOWN;
    size_t bytes;

    (void)state;
    put_filled(full, 10, 1);
    struct child putter = start_child(put_one, full, &expected),
                 getter = start_child(get_one, empty, &expected);
    await_sleep(&putter);
    await_sleep(&getter);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(brood_queue_close(full), 0);
        assert_int_equal(brood_queue_close(empty), 0);
    }
    assert_ends_well(&putter);
    assert_ends_well(&getter);
    assert_int_equal(brood_queue_put(full, "x", 1, BROOD_FOREVER), -ESHUTDOWN);
    assert_int_equal(brood_queue_put(full, big, 5000, BROOD_FOREVER), -ESHUTDOWN);
    get_filled(full, 10, 1);
    assert_int_equal(brood_queue_get(full, back, 1, &bytes, BROOD_FOREVER), -ESHUTDOWN);
    destroy_whole(full);
    destroy_whole(empty);
}

static void deadlines(void **state)
{
    brood_queue *queue = new_queue(0, 0);
    size_t bytes = 77;

    (void)state;
    assert_int_equal(brood_queue_get(queue, back, 1, &bytes, BROOD_NOW), -ETIMEDOUT);
    int64_t deadline = brood_after_ms(20);
    assert_int_equal(brood_queue_get(queue, back, 1, &bytes, deadline), -ETIMEDOUT);
    assert_true(bri_now_ns() >= deadline);
    assert_int_equal(bytes, 77);
    destroy_whole(queue);
}

/* ---- law 6 ---- */

/* The kernel kills whoever makes a system call other than read, write and exit. */
static void put_and_get_without_kernel(brood_queue *queue, void *argument)
{
    size_t bytes;

    (void)argument;
    child_check(prctl(PR_SET_SECCOMP, 1) == 0);
    for (int i = 0; i < 1000; i++) {
        child_check(brood_queue_put(queue, big, 64, BROOD_FOREVER) == 0);
        child_check(brood_queue_put(queue, big, 5000, BROOD_FOREVER) == 0);
        child_check(brood_queue_get(queue, back, 5000, &bytes, BROOD_FOREVER) == 0);
        child_check(brood_queue_get(queue, back, 5000, &bytes, BROOD_FOREVER) == 0);
    }
    syscall(SYS_exit, 0);
}

static void no_system_call_when_awake(void **state)
{
    (void)state;
    if (runs_under("valgrind"))
        skip_because("valgrind makes system calls of its own, which the kernel cannot tell from ours");
    brood_queue *queue = new_queue(4, 0);
    put_filled(queue, 5000, 0);
    get_filled(queue, 5000, 0);
    struct child child = start_child(put_and_get_without_kernel, queue, NULL);
    assert_ends_well(&child);
    destroy_whole(queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_full),
        cmocka_unit_test(sizes_come_back),
        cmocka_unit_test(order_holds_over_segments),
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(many_take_what_fits),
        cmocka_unit_test(message_bound),
        cmocka_unit_test(byte_bound),
        cmocka_unit_test(too_long_for_the_buffer),
        cmocka_unit_test(reserve_and_borrow),
        cmocka_unit_test(commit_waits_and_shrinks),
        cmocka_unit_test(message_belongs_to_its_process),
        cmocka_unit_test(get_waits),
        cmocka_unit_test(put_waits),
        cmocka_unit_test(close_ends_waits),
        cmocka_unit_test(deadlines),
        cmocka_unit_test(no_system_call_when_awake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
