/* SPDX-License-Identifier: MIT */
/*
 * Every operation of a queue, killed at every instruction.  After each kill: the queue is whole, holds the messages from
 * one number to another without a gap, each of them whole, as many as the operation allows; it takes and gives more; and
 * when it is destroyed no block is left.
 */
#define _GNU_SOURCE
#include "arena_checks.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "queue/queue.h"

enum { SMALL = 100, LARGE = 6000, MOST = 8000, FIRST_SEGMENT = 63 };

struct state {
    brood_queue *queue;
    uint64_t blocks; /* before the queue */
    uint32_t there;  /* messages in the beginning */
    int least, most; /* by how much the victim may have changed that */
    int is_closed;   /* may be */
    int fd;          /* of the survivor, or -1 */
    _Atomic bri_name victim;
    brood_queue *second; /* of create and destroy */
};

#define REQUIRE(condition)                                                                      \
    do {                                                                                        \
        if (!(condition))                                                                       \
            return stepkill_fail("line %d: %s (%s)", __LINE__, #condition, brood_error_text()); \
    } while (0)

static void fill(char *data, uint32_t number, size_t bytes)
{
    memset(data, (int)(number * 7 + 1), bytes);
    memcpy(data, &number, sizeof number);
}

static int put_number(brood_queue *queue, uint32_t number, size_t bytes)
{
    static char buffer[MOST];

    fill(buffer, number, bytes);
    return brood_queue_put(queue, buffer, bytes, BROOD_NOW);
}

static struct state *make_state(uint32_t there, uint32_t large, int least, int most)
{
    struct state *s = stepkill_shared(sizeof *s);

    if (open_arena() < 0)
        return NULL;
    s->blocks = arena_now().used_blocks;
    if (brood_queue_create(NULL, &s->queue) < 0)
        return NULL;
    for (uint32_t i = 0; i < there; i++)
        if (put_number(s->queue, i, i < large ? LARGE : SMALL) < 0)
            return NULL;
    s->there = there;
    s->least = least;
    s->most = most;
    s->fd = -1;
    return s;
}

static void *three(void)
{
    return make_state(3, 0, 0, 1);
}
static void *three_closing(void)
{
    struct state *s = make_state(3, 0, 0, 0);
    s->is_closed = 1;
    return s;
}
static void *full_segment(void)
{
    return make_state(FIRST_SEGMENT, 0, 0, 1);
}
static void *for_many(void)
{
    return make_state(FIRST_SEGMENT - 2, 0, 0, 5);
}
static void *take_one(void)
{
    return make_state(3, 0, -1, 0);
}
static void *take_large(void)
{
    return make_state(3, 2, -1, 0);
}
static void *take_many(void)
{
    return make_state(5, 1, -5, 0);
}
static void *nothing_changes(void)
{
    return make_state(3, 1, 0, 0);
}
static void *polled(void)
{
    struct state *s = make_state(0, 0, 0, 1);
    s->fd = brood_queue_fd(s->queue);
    return s->fd < 0 ? NULL : s;
}

/* The first segment is read to its end; the next get retires it. */
static void *segment_read(void)
{
    struct state *s = make_state(FIRST_SEGMENT + 3, 0, -1, 0);
    char buffer[MOST];
    size_t bytes;

    for (int i = 0; i < FIRST_SEGMENT; i++)
        brood_queue_get(s->queue, buffer, sizeof buffer, &bytes, BROOD_NOW);
    return s;
}

static void enter(struct state *s)
{
    brood_queue_size(s->queue);
    bri_store_release(&s->victim, bri_self());
}

static void put_small(void *ctx)
{
    struct state *s = ctx;
    char buffer[SMALL];

    fill(buffer, s->there, SMALL);
    enter(s);
    stepkill_begin();
    brood_queue_put(s->queue, buffer, SMALL, BROOD_NOW);
    stepkill_end();
}

static void put_large(void *ctx)
{
    struct state *s = ctx;
    char buffer[LARGE];

    fill(buffer, s->there, LARGE);
    enter(s);
    stepkill_begin();
    brood_queue_put(s->queue, buffer, LARGE, BROOD_NOW);
    stepkill_end();
}

static void put_many(void *ctx)
{
    struct state *s = ctx;
    static char buffers[5][MOST];
    brood_message messages[5];

    for (uint32_t i = 0; i < 5; i++) {
        messages[i] = (brood_message){buffers[i], i == 3 ? LARGE : SMALL};
        fill(buffers[i], s->there + i, messages[i].bytes);
    }
    enter(s);
    stepkill_begin();
    brood_queue_put_many(s->queue, messages, 5, BROOD_NOW);
    stepkill_end();
}

static void commit(void *ctx)
{
    struct state *s = ctx;
    brood_message message;

    enter(s);
    stepkill_begin();
    if (brood_queue_reserve(s->queue, SMALL, &message) == 0) {
        fill(message.data, s->there, SMALL);
        brood_queue_commit(s->queue, &message, BROOD_NOW);
    }
    stepkill_end();
}

static void abandon(void *ctx)
{
    struct state *s = ctx;
    brood_message message;

    enter(s);
    stepkill_begin();
    if (brood_queue_reserve(s->queue, LARGE, &message) == 0)
        brood_queue_abandon(s->queue, &message);
    stepkill_end();
}

static void get(void *ctx)
{
    struct state *s = ctx;
    char buffer[MOST];
    size_t bytes;

    enter(s);
    stepkill_begin();
    brood_queue_get(s->queue, buffer, sizeof buffer, &bytes, BROOD_NOW);
    stepkill_end();
}

static void get_many(void *ctx)
{
    struct state *s = ctx;
    static char buffer[6 * MOST];
    brood_message messages[8];

    enter(s);
    stepkill_begin();
    brood_queue_get_many(s->queue, buffer, sizeof buffer, messages, 8, BROOD_NOW);
    stepkill_end();
}

static void borrow(void *ctx)
{
    struct state *s = ctx;
    brood_message message;

    enter(s);
    stepkill_begin();
    brood_queue_borrow(s->queue, &message, BROOD_NOW);
    brood_queue_release(s->queue, &message);
    stepkill_end();
}

static void close_it(void *ctx)
{
    struct state *s = ctx;

    enter(s);
    stepkill_begin();
    brood_queue_close(s->queue);
    stepkill_end();
}

static void create_and_destroy(void *ctx)
{
    struct state *s = ctx;

    enter(s);
    stepkill_begin();
    if (brood_queue_create(NULL, &s->second) == 0 && put_number(s->second, 0, SMALL) == 0 &&
        put_number(s->second, 1, LARGE) == 0)
        brood_queue_destroy(s->second);
    s->second = NULL;
    stepkill_end();
}

static void hang_bell(void *ctx)
{
    struct state *s = ctx;

    enter(s);
    stepkill_begin();
    brood_queue_fd(s->queue);
    brood_queue_fd_close(s->queue);
    stepkill_end();
}

static void report(void *ctx, pid_t pid, int status)
{
    struct state *s = ctx;

    (void)pid, (void)status;
    bri_report_if_ended(bri_load_acquire(&s->victim));
}

/* A queue that was made and not destroyed wholly lives on when its handle may have been returned. */
static void report_second(void *ctx, pid_t pid, int status)
{
    struct state *s = ctx;

    report(ctx, pid, status);
    if (s->second != NULL && bri_heap_is(s->second, BRI_KIND_QUEUE) && !bri_queue_is_valid(s->second))
        stepkill_fail("the second queue is not valid");
    if (s->second != NULL && bri_heap_is(s->second, BRI_KIND_QUEUE))
        brood_queue_destroy(s->second);
}

static int drain(struct state *s, uint32_t from, uint32_t end)
{
    static char buffer[MOST];
    uint32_t number;
    size_t bytes;

    for (uint32_t i = from; i < end; i++) {
        REQUIRE(brood_queue_get(s->queue, buffer, sizeof buffer, &bytes, BROOD_NOW) == 0);
        memcpy(&number, buffer, sizeof number);
        REQUIRE(number == i);
        for (size_t b = sizeof number; b < bytes; b++)
            REQUIRE(buffer[b] == (char)(number * 7 + 1));
    }
    return 0;
}

static int check(void *ctx)
{
    struct state *s = ctx;
    int taken_before = (int)s->there - (int)brood_queue_size(s->queue);
    int skipped = s->there > FIRST_SEGMENT + 2 ? FIRST_SEGMENT : 0; /* by segment_read */
    int change = skipped - taken_before;
    uint32_t from = (uint32_t)(skipped + (change < 0 ? -change : 0));
    uint32_t end = s->there + (change > 0 ? (uint32_t)change : 0);

    REQUIRE(s->least <= change && change <= s->most);
    REQUIRE(bri_queue_is_valid(s->queue));
    if (s->fd >= 0) { /* a poller that nobody tells of the death */
        struct pollfd watch = {.fd = s->fd, .events = POLLIN};
        REQUIRE(change == 0 || poll(&watch, 1, 0) == 1);
    }
    int put = put_number(s->queue, end, LARGE);
    REQUIRE(put == 0 || (s->is_closed && put == -ESHUTDOWN));
    REQUIRE(drain(s, from, end + (put == 0)) == 0);
    REQUIRE(brood_queue_size(s->queue) == 0);
    REQUIRE(brood_queue_destroy(s->queue) == 0);
    return check_heap(s->blocks);
}

/* Here nobody reports the death but the survivor itself, by using the queue. */
static int check_unreported(void *ctx)
{
    struct state *s = ctx;
    struct pollfd watch = {.fd = s->fd, .events = POLLIN};
    int got = 0;
    char buffer[MOST];
    size_t bytes;

    while (poll(&watch, 1, 0) == 1)
        got += brood_queue_get(s->queue, buffer, sizeof buffer, &bytes, BROOD_NOW) == 0;
    REQUIRE(got <= 1 && brood_queue_size(s->queue) == 0);
    REQUIRE(put_number(s->queue, 0, SMALL) == 0);
    REQUIRE(poll(&watch, 1, 0) == 1);
    report(ctx, 0, 0);
    REQUIRE(bri_queue_is_valid(s->queue));
    REQUIRE(brood_queue_destroy(s->queue) == 0);
    return check_heap(s->blocks);
}

#define SCENARIO(name_, setup_, victim_)                                                                 \
    {                                                                                                    \
        .name = "queue." name_, .setup = setup_, .victim = victim_, .after_kill = report, .check = check \
    }

const struct stepkill_scenario stepkill_queue[] = {
    SCENARIO("put", three, put_small),
    SCENARIO("put.segment", full_segment, put_small),
    SCENARIO("put.large", three, put_large),
    SCENARIO("put.polled", polled, put_small),
    {.name = "queue.put.unreported", .setup = polled, .victim = put_small, .check = check_unreported},
    SCENARIO("put_many", for_many, put_many),
    SCENARIO("commit", three, commit),
    SCENARIO("abandon", nothing_changes, abandon),
    SCENARIO("get", take_one, get),
    SCENARIO("get.segment", segment_read, get),
    SCENARIO("get.large", take_large, get),
    SCENARIO("get_many", take_many, get_many),
    SCENARIO("borrow", take_one, borrow),
    SCENARIO("borrow.large", take_large, borrow),
    SCENARIO("close", three_closing, close_it),
    SCENARIO("fd", nothing_changes, hang_bell),
    {.name = "queue.create",
     .setup = nothing_changes,
     .victim = create_and_destroy,
     .after_kill = report_second,
     .check = check},
    {.name = NULL},
};
