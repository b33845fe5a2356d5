/* SPDX-License-Identifier: MIT */
/*
 * brood's queue, in processes that were forked by the program itself: nobody watches them.  "brood" has calls for many messages;
 * "brood-packed" sends a batch as one message, as the peers do, which have no such calls.
 */
#include "pool_use.h"
#include "sample.h"
#include "traffic.h"

#include <brood.h>
#include <errno.h>

static brood_queue *queue;
static brood_event *never;

static void create_for(uint64_t most)
{
    must_brood(brood_queue_create(BROOD_QUEUE_OPTIONS(.max_messages = most), &queue), "brood_queue_create");
    must_brood(brood_event_create(&never), "brood_event_create");
}

static void create(int producers, int consumers, int batch)
{
    (void)producers, (void)consumers, (void)batch;
    create_for(QUEUED);
}

static void create_packed(int producers, int consumers, int batch)
{
    (void)producers, (void)consumers;
    create_for((uint64_t)(QUEUED / batch));
}

/* Its users were killed in their waits: the queue goes with the arena. */
static void destroy(void)
{
}

/* As a program does that waits for its processes by brood: then its CPU counts as free, and those that work may spin. */
static void rest(void)
{
    if (brood_event_wait(never, brood_after_ms(1)) != -ETIMEDOUT)
        fail("an event that nobody sets: %s", brood_error_text());
}

static void put_packed(const struct message *messages, int count)
{
    must_brood(brood_queue_put(queue, messages, (size_t)count * sizeof *messages, BROOD_FOREVER),
               "brood_queue_put");
}

static int get_packed(struct message *messages, int count)
{
    size_t bytes;

    must_brood(brood_queue_get(queue, messages, (size_t)count * sizeof *messages, &bytes, BROOD_FOREVER),
               "brood_queue_get");
    if (bytes != (size_t)count * sizeof *messages)
        fail("a message of %zu bytes", bytes);
    return count;
}

static void put(const struct message *messages, int count)
{
    brood_message parts[BATCH];

    if (count == 1) {
        put_packed(messages, 1);
        return;
    }
    for (int i = 0; i < count; i++)
        parts[i] = (brood_message){(void *)&messages[i], sizeof messages[i]};
    if (must_brood(brood_queue_put_many(queue, parts, (size_t)count, BROOD_FOREVER),
                   "brood_queue_put_many") != count)
        fail("a part of a batch was put");
}

static int get(struct message *messages, int count)
{
    brood_message parts[BATCH];

    if (count == 1)
        return get_packed(messages, 1);
    const long got = must_brood(brood_queue_get_many(queue, messages, (size_t)count * sizeof *messages, parts,
                                                     (size_t)count, BROOD_FOREVER),
                                "brood_queue_get_many");
    for (long i = 0; i < got; i++)
        if (parts[i].data != &messages[i] || parts[i].bytes != sizeof *messages)
            fail("message %ld of a batch: %zu bytes", i, parts[i].bytes);
    return (int)got;
}

static void measure(const struct call *call, struct sample *ret_sample)
{
    static const struct transport transport = {
        .create = create, .destroy = destroy, .put = put, .get = get, .rest = rest};

    measure_traffic(call, &transport, ret_sample);
}

static void measure_packed(const struct call *call, struct sample *ret_sample)
{
    static const struct transport transport = {
        .create = create_packed, .destroy = destroy, .put = put_packed, .get = get_packed, .rest = rest};

    measure_traffic(call, &transport, ret_sample);
}

int main(int argc, char **argv)
{
    static const struct subject subjects[] = {
        {"brood", brood_version, measure, traffic_all},
        {"brood-packed", brood_version, measure_packed, traffic_batched},
    };

    return bench_main(argc, argv, subjects, 2);
}
