/* SPDX-License-Identifier: MIT */
/* The queue among processes that are killed: nothing committed is lost or doubled, nobody hangs, no block stays. */
#include "queue/queue_testing.h"

enum { MOST = 70000 };

/* Every message begins with its producer, its number and a checksum over the rest. */
struct head {
    uint32_t producer, number, sum, rest;
};

static uint32_t checksum(const char *data, size_t bytes)
{
    uint32_t sum = 17;

    for (size_t i = 0; i < bytes; i++)
        sum = sum * 31 + (unsigned char)data[i];
    return sum;
}

static size_t make_message(char *buffer, uint32_t producer, uint32_t number, size_t rest)
{
    struct head head = {producer, number, 0, (uint32_t)rest};

    memset(buffer + sizeof head, (int)(number * 7 + producer), rest);
    head.sum = checksum(buffer + sizeof head, rest);
    memcpy(buffer, &head, sizeof head);
    return sizeof head + rest;
}

static int is_whole(const char *buffer, size_t bytes, struct head *ret_head)
{
    if (bytes < sizeof *ret_head)
        return 0;
    memcpy(ret_head, buffer, sizeof *ret_head);
    return ret_head->rest == bytes - sizeof *ret_head &&
           ret_head->sum == checksum(buffer + sizeof *ret_head, ret_head->rest);
}

/* ---- many producers, many consumers ---- */

enum { PRODUCERS = 3, CONSUMERS = 3, EACH = 4000 };

struct tally {
    _Atomic uint64_t count, sum;
    _Atomic uint32_t producers;
};

static void produce(brood_queue *queue, void *argument)
{
    struct tally *tally = argument;
    uint32_t producer = bri_add_relaxed(&tally->producers, 1u), random = producer;
    static char buffer[MOST];

    for (uint32_t i = 0; i < EACH; i++) {
        size_t rest = next_random(&random) % (i % 50 == 0 ? 20000 : 300);
        size_t bytes = make_message(buffer, producer, i, rest);
        child_check(brood_queue_put(queue, buffer, bytes, BROOD_FOREVER) == 0);
    }
}

static void consume(brood_queue *queue, void *argument)
{
    struct tally *tally = argument;
    int64_t last[PRODUCERS] = {-1, -1, -1};
    static char buffer[MOST];
    struct head head;
    size_t bytes;
    int error;

    while ((error = brood_queue_get(queue, buffer, sizeof buffer, &bytes, BROOD_FOREVER)) == 0) {
        child_check(is_whole(buffer, bytes, &head) && head.producer < PRODUCERS);
        child_check(head.number > last[head.producer]);
        last[head.producer] = head.number;
        bri_add_relaxed(&tally->count, UINT64_C(1));
        bri_add_relaxed(&tally->sum, (uint64_t)head.producer * EACH + head.number);
    }
    child_check(error == -ESHUTDOWN);
}

static void run_many(uint64_t max_messages, uint64_t max_bytes)
{
    struct child producers[PRODUCERS], consumers[CONSUMERS];
    struct tally *tally = shared_memory(sizeof *tally);
    uint64_t before = used_blocks(), all = (uint64_t)PRODUCERS * EACH;
    brood_queue *queue = new_queue(max_messages, max_bytes);

    for (int i = 0; i < CONSUMERS; i++)
        consumers[i] = start_child(consume, queue, tally);
    for (int i = 0; i < PRODUCERS; i++)
        producers[i] = start_child(produce, queue, tally);
    for (int i = 0; i < PRODUCERS; i++)
        assert_ends_well(&producers[i]);
    assert_int_equal(brood_queue_close(queue), 0);
    for (int i = 0; i < CONSUMERS; i++)
        assert_ends_well(&consumers[i]);
    assert_int_equal(tally->count, all);
    assert_int_equal(tally->sum, all * (all - 1) / 2);
    assert_true(bri_queue_is_valid(queue));
    assert_int_equal(brood_queue_destroy(queue), 0);
    assert_int_equal(used_blocks(), before);
}

static void many_to_many(void **state)
{
    (void)state;
    run_many(0, 0);
    run_many(1, 0);
    run_many(64, 0);
    run_many(0, 30000);
}

/* ---- kills at random ---- */

struct log {
    _Atomic uint32_t begun, done;
};

static void produce_for_ever(brood_queue *queue, void *argument)
{
    struct log *log = argument;
    uint32_t random = (uint32_t)getpid();
    static char buffer[MOST];

    for (uint32_t i = bri_load_relaxed(&log->done);; i++) {
        size_t bytes = make_message(buffer, 0, i, next_random(&random) % (i % 16 == 0 ? 20000 : 300));
        bri_store_release(&log->begun, i + 1);
        child_check(brood_queue_put(queue, buffer, bytes, BROOD_FOREVER) == 0);
        bri_store_release(&log->done, i + 1);
    }
}

/* Takes what is there: numbers from `next` on without a gap, and returns the number behind. */
static uint32_t drain(brood_queue *queue, uint32_t next)
{
    static char buffer[MOST];
    struct head head;
    size_t bytes;

    while (brood_queue_get(queue, buffer, sizeof buffer, &bytes, BROOD_NOW) == 0) {
        assert_true(is_whole(buffer, bytes, &head));
        assert_int_equal(head.number, next);
        next++;
    }
    return next;
}

static void kills_of_producers(void **state)
{
    uint64_t before = used_blocks();
    brood_queue *queue = new_queue(0, 0);
    struct log *log = shared_memory(sizeof *log);
    uint32_t random = 3;

    (void)state;
    for (int round = 0; round < 200; round++) {
        uint32_t first = bri_load_relaxed(&log->done);
        struct child child = start_child(produce_for_ever, queue, log);
        while (bri_load_acquire(&log->done) < first + next_random(&random) % 40)
            sched_yield();
        for (uint32_t i = next_random(&random) % 3000; i > 0; i--)
            bri_cpu_relax();
        kill_child(&child);
        assert_true(bri_queue_is_valid(queue));
        uint32_t behind = drain(queue, first);
        assert_in_range(behind, bri_load_relaxed(&log->done), bri_load_relaxed(&log->begun));
        bri_store_relaxed(&log->done, behind);
    }
    assert_int_equal(brood_queue_destroy(queue), 0);
    assert_int_equal(used_blocks(), before);
}

static void consume_for_ever(brood_queue *queue, void *argument)
{
    struct log *log = argument;
    static char buffer[MOST];
    struct head head;
    size_t bytes;

    for (uint32_t i = bri_load_relaxed(&log->done);; i++) {
        brood_message message = {buffer, 0};
        bri_store_release(&log->begun, i + 1);
        if (i % 2 == 0) {
            child_check(brood_queue_borrow(queue, &message, BROOD_FOREVER) == 0);
            bytes = message.bytes;
        } else {
            child_check(brood_queue_get(queue, buffer, sizeof buffer, &bytes, BROOD_FOREVER) == 0);
        }
        child_check(is_whole(message.data, bytes, &head) && head.number == i);
        bri_store_release(&log->done, i + 1);
        if (i % 2 == 0)
            child_check(brood_queue_release(queue, &message) == 0);
    }
}

static void put_upto(brood_queue *queue, uint32_t from, uint32_t end, uint32_t *random)
{
    static char buffer[MOST];

    for (uint32_t i = from; i < end; i++) {
        size_t bytes = make_message(buffer, 0, i, next_random(random) % (i % 16 == 0 ? 20000 : 300));
        assert_int_equal(brood_queue_put(queue, buffer, bytes, BROOD_NOW), 0);
    }
}

static void kills_of_consumers(void **state)
{
    uint64_t before = used_blocks();
    struct log *log = shared_memory(sizeof *log);
    uint32_t random = 5;

    (void)state;
    for (int round = 0; round < 200; round++) {
        brood_queue *queue = new_queue(0, 0);
        bri_store_relaxed(&log->done, 0u);
        bri_store_relaxed(&log->begun, 0u);
        put_upto(queue, 0, 200, &random);
        struct child child = start_child(consume_for_ever, queue, log);
        while (bri_load_acquire(&log->done) < next_random(&random) % 190)
            sched_yield();
        kill_child(&child);
        assert_true(bri_queue_is_valid(queue));
        uint32_t left = (uint32_t)brood_queue_size(queue);
        assert_in_range(200 - left, bri_load_relaxed(&log->done), bri_load_relaxed(&log->begun));
        assert_int_equal(drain(queue, 200 - left), 200);
        assert_int_equal(brood_queue_destroy(queue), 0);
        assert_int_equal(used_blocks(), before);
    }
}

/* Whoever waits goes on when a peer dies; a dead waiter does not keep the queue from being destroyed. */
static void get_for_ever(brood_queue *queue, void *argument)
{
    static char buffer[MOST];
    size_t bytes;

    (void)argument;
    child_check(brood_queue_get(queue, buffer, sizeof buffer, &bytes, BROOD_FOREVER) == 0);
}

static void dead_waiters(void **state)
{
    uint64_t before = used_blocks();
    brood_queue *queue = new_queue(0, 0);

    (void)state;
    struct child first = start_child(get_for_ever, queue, NULL),
                 second = start_child(get_for_ever, queue, NULL);
    await_sleep(&first);
    await_sleep(&second);
    int status;
    kill(first.pid, SIGKILL); /* unreported: the slices of the second must do */
    assert_int_equal(waitpid(first.pid, &status, 0), first.pid);
    assert_int_equal(brood_queue_put(queue, "0123456789abcdef", 16, BROOD_NOW), 0);
    assert_ends_well(&second);
    struct child third = start_child(get_for_ever, queue, NULL);
    await_sleep(&third);
    assert_int_equal(brood_queue_destroy(queue), -EBUSY);
    kill(third.pid, SIGKILL);
    assert_int_equal(waitpid(third.pid, &status, 0), third.pid);
    assert_int_equal(brood_queue_destroy(queue), 0);
    bri_report_if_ended(name_of(&first));
    assert_int_equal(used_blocks(), before);
}

static void reserve_and_die(brood_queue *queue, void *argument)
{
    brood_message message;

    (void)argument;
    child_check(brood_queue_reserve(queue, 100000, &message) == 0);
    child_check(brood_queue_put(queue, "large", 5, BROOD_NOW) == 0);
    child_check(brood_queue_reserve(queue, 5000, &message) == 0);
    child_check(brood_queue_commit(queue, &message, BROOD_NOW) == 0);
    child_check(brood_queue_borrow(queue, &message, BROOD_NOW) == 0);
}

/* What a process put stays after its end; what it had in its hands goes with it. */
static void ends_with_messages_in_hand(void **state)
{
    uint64_t before = used_blocks();
    brood_queue *queue = new_queue(0, 0);
    uint64_t empty = used_blocks();
    brood_message message;

    (void)state;
    struct child child = start_child(reserve_and_die, queue, NULL);
    assert_ends_well(&child);
    assert_int_equal(used_blocks(), empty + 1);
    assert_int_equal(brood_queue_size(queue), 1);
    assert_int_equal(brood_queue_borrow(queue, &message, BROOD_NOW), 0);
    assert_int_equal(message.bytes, 5000);
    assert_int_equal(brood_queue_release(queue, &message), 0);
    assert_int_equal(brood_queue_destroy(queue), 0);
    assert_int_equal(used_blocks(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_to_many),
        cmocka_unit_test(kills_of_producers),
        cmocka_unit_test(kills_of_consumers),
        cmocka_unit_test(dead_waiters),
        cmocka_unit_test(ends_with_messages_in_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
