/* SPDX-License-Identifier: MIT */
/* brood's queue, in processes that were forked by the program itself: nobody watches them. */
#include "pool_use.h"
#include "sample.h"
#include "traffic.h"

#include <brood.h>
#include <errno.h>

static brood_queue *queue;
static brood_event *never;

static void create(int producers, int consumers, int batch)
{
    (void)producers, (void)consumers, (void)batch;
    must_brood(brood_queue_create(BROOD_QUEUE_OPTIONS(.max_messages = QUEUED), &queue), "brood_queue_create");
    must_brood(brood_event_create(&never), "brood_event_create");
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

static void put(const struct message *messages, int count)
{
    brood_message parts[BATCH];

    if (count == 1) {
        must_brood(brood_queue_put(queue, messages, sizeof *messages, BROOD_FOREVER), "brood_queue_put");
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
    size_t bytes;

    if (count == 1) {
        must_brood(brood_queue_get(queue, messages, sizeof *messages, &bytes, BROOD_FOREVER),
                   "brood_queue_get");
        if (bytes != sizeof *messages)
            fail("a message of %zu bytes", bytes);
        return 1;
    }
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

int main(int argc, char **argv)
{
    static const struct subject subjects[] = {{"brood", brood_version, measure, traffic_all}};

    return bench_main(argc, argv, subjects, 1);
}
