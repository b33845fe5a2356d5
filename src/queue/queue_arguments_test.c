/* SPDX-License-Identifier: MIT */
/* What is wrong is refused, changes nothing, and the sentence names the argument. */
#include "queue/queue_testing.h"

static char big[200], back[200];

#define assert_bad(call, err, word)                          \
    do {                                                     \
        assert_int_equal((call), -(err));                    \
        assert_non_null(strstr(brood_error_text(), (word))); \
    } while (0)

static void bad_handles(void **state)
{
    brood_queue *gone = new_queue(0, 0), *bad[4];
    brood_message message = {back, 1};
    void *other;
    size_t bytes;

    (void)state;
    assert_int_equal(brood_queue_destroy(gone), 0);
    assert_int_equal(brood_alloc(64, &other), 0);
    bad[0] = NULL, bad[1] = gone, bad[2] = other, bad[3] = (brood_queue *)(void *)&message;
    for (int i = 0; i < 4; i++) {
        assert_bad(brood_queue_put(bad[i], "x", 1, BROOD_NOW), EINVAL, "queue");
        assert_bad(brood_queue_put_many(bad[i], &message, 1, BROOD_NOW), EINVAL, "queue");
        assert_bad(brood_queue_get(bad[i], back, 1, &bytes, BROOD_NOW), EINVAL, "queue");
        assert_bad(brood_queue_get_many(bad[i], back, 1, &message, 1, BROOD_NOW), EINVAL, "queue");
        assert_bad(brood_queue_reserve(bad[i], 1, &message), EINVAL, "queue");
        assert_bad(brood_queue_commit(bad[i], &message, BROOD_NOW), EINVAL, "queue");
        assert_bad(brood_queue_abandon(bad[i], &message), EINVAL, "queue");
        assert_bad(brood_queue_borrow(bad[i], &message, BROOD_NOW), EINVAL, "queue");
        assert_bad(brood_queue_release(bad[i], &message), EINVAL, "queue");
        assert_bad((int)brood_queue_size(bad[i]), EINVAL, "queue");
        assert_bad(brood_queue_close(bad[i]), EINVAL, "queue");
        assert_bad(brood_queue_fd(bad[i]), EINVAL, "queue");
        assert_bad(brood_queue_fd_close(bad[i]), EINVAL, "queue");
        if (bad[i] != NULL)
            assert_bad(brood_queue_destroy(bad[i]), EINVAL, "queue");
    }
    assert_int_equal(brood_queue_destroy(NULL), 0);
    assert_int_equal(brood_free(other), 0);
}

static void bad_arguments(void **state)
{
    brood_queue *queue = new_queue(0, 100);
    brood_message message = {NULL, 1}, not_one = {back, 1};
    struct {
        brood_queue_options known;
        char more;
    } newer = {.known = {.size = sizeof newer}, .more = 1};
    size_t bytes;

    (void)state;
    assert_bad(brood_queue_create(NULL, NULL), EINVAL, "ret_queue");
    assert_bad(brood_queue_create(&newer.known, &queue), E2BIG, "options");
    assert_bad(brood_queue_put(queue, NULL, 1, BROOD_NOW), EINVAL, "data");
    assert_bad(brood_queue_put(queue, "x", 1, -1), EINVAL, "deadline");
    assert_bad(brood_queue_put(queue, big, 101, BROOD_NOW), EMSGSIZE, "max_bytes");
    assert_bad(brood_queue_put_many(queue, NULL, 1, BROOD_NOW), EINVAL, "messages");
    assert_bad(brood_queue_put_many(queue, &message, 1, BROOD_NOW), EINVAL, "data");
    assert_bad(brood_queue_put_many(queue, &not_one, 1, -1), EINVAL, "deadline");
    assert_bad(brood_queue_get(queue, NULL, 1, &bytes, BROOD_NOW), EINVAL, "buffer");
    assert_bad(brood_queue_get(queue, back, 1, NULL, BROOD_NOW), EINVAL, "ret_bytes");
    assert_bad(brood_queue_get(queue, back, 1, &bytes, -1), EINVAL, "deadline");
    assert_bad(brood_queue_get_many(queue, NULL, 1, &message, 1, BROOD_NOW), EINVAL, "buffer");
    assert_bad(brood_queue_get_many(queue, back, 1, NULL, 1, BROOD_NOW), EINVAL, "ret_messages");
    assert_bad(brood_queue_get_many(queue, back, 1, &message, 0, BROOD_NOW), EINVAL, "count");
    assert_bad(brood_queue_get_many(queue, back, 1, &message, 1, INT64_MIN), EINVAL, "deadline");
    assert_bad(brood_queue_reserve(queue, 1, NULL), EINVAL, "ret_message");
    assert_bad(brood_queue_reserve(queue, 101, &message), EMSGSIZE, "max_bytes");
    assert_bad(brood_queue_commit(queue, NULL, BROOD_NOW), EINVAL, "message");
    assert_bad(brood_queue_commit(queue, &not_one, BROOD_NOW), EINVAL, "message");
    assert_bad(brood_queue_abandon(queue, &not_one), EINVAL, "message");
    assert_int_equal(brood_queue_reserve(queue, 1, &message), 0);
    assert_bad(brood_queue_commit(queue, &message, -1), EINVAL, "deadline");
    assert_int_equal(brood_queue_abandon(queue, &message), 0);
    assert_bad(brood_queue_borrow(queue, NULL, BROOD_NOW), EINVAL, "ret_message");
    assert_bad(brood_queue_borrow(queue, &message, -1), EINVAL, "deadline");
    assert_int_equal(brood_queue_size(queue), 0);
    assert_int_equal(brood_queue_destroy(queue), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_handles),
        cmocka_unit_test(bad_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
