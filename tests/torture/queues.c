/* SPDX-License-Identifier: MIT */
/*
 * Queues among processes that are killed: what was committed is taken once, in its producer's order, and nothing else is.
 *
 * Books, outside of the arena.  A stream is what one process puts into one queue: messages 0, 1, 2, …
 *
 *   begun   messages that may have been put: raised before a put       producer
 *   put     messages that were put: raised after it                    producer
 *   taken   a bit per message, set by who took it                      consumers; a bit that is set already: taken twice
 *
 * A producer that dies within a put has put a prefix of put … begun - 1.  A consumer that dies within a get may have taken what it did not
 * note: it writes down how much that may be before the call, and if it died awake, the queue is allowed to lack so many at the end.
 */
#include <sys/mman.h>

#include "torture.h"

enum {
    QUEUES = 3,
    CONSUMERS = 2 * QUEUES,
    PRODUCERS = 4,
    LIVES = 1024,
    SEQUENCES = 8192,
    MANY = 8,
    LONGEST = 150000,
    BACKLOG = 400
};

struct stream_shm {
    _Atomic uint32_t begun, put;
    _Atomic uint64_t taken[SEQUENCES / 64];
};

struct books_shm {
    _Atomic uint64_t noted[QUEUES];     /* bits set */
    _Atomic uint64_t uncertain[QUEUES]; /* takes that may lack a note */
    struct stream_shm streams[LIVES][QUEUES];
};

struct header {
    uint32_t life, sequence;
    uint64_t bytes;
};

static struct books_shm *books;
static brood_queue *queues[QUEUES];
static uint32_t longest[QUEUES]; /* message */
static int kills_producers, kills_consumers;

/* --- messages --- */

static uint64_t word_of(const struct header *header, uint64_t i)
{
    return ((uint64_t)header->life << 40) ^ ((uint64_t)header->sequence << 20) ^
           (i * UINT64_C(0x9e3779b97f4a7c15));
}

static void write_message(void *memory, const struct header *header)
{
    uint64_t words = header->bytes / sizeof(uint64_t);

    memcpy(memory, header, sizeof *header);
    for (uint64_t i = 2; i < words; i++)
        ((uint64_t *)memory)[i] = word_of(header, i);
}

static int is_whole(const void *memory, const struct header *header)
{
    uint64_t words = header->bytes / sizeof(uint64_t);

    for (uint64_t i = 2; i < words; i++)
        if (((const uint64_t *)memory)[i] != word_of(header, i))
            return 0;
    return 1;
}

static size_t choose_bytes(uint32_t queue, uint64_t *random)
{
    uint32_t most = longest[queue];

    if (below(random, 4) != 0 && most > 200)
        most = 200; /* mostly short ones */
    return sizeof(struct header) + (size_t)below(random, most - (uint32_t)sizeof(struct header));
}

/* --- consumers --- */

struct consumer {
    uint32_t seat, queue;
    uint64_t random;
    int64_t last[LIVES]; /* sequence seen of each producer */
    char *buffer;
};

static void note_message(struct consumer *consumer, const brood_message *message)
{
    struct header header;

    if (message->bytes < sizeof header) {
        complain(CONTENT, "queue %u: a message of %zu bytes", consumer->queue, message->bytes);
        return;
    }
    memcpy(&header, message->data, sizeof header);
    if (header.life >= LIVES || header.sequence >= SEQUENCES || header.bytes != message->bytes ||
        !is_whole(message->data, &header)) {
        complain(CONTENT, "queue %u: message %u of %u, %zu bytes (%llu), is not whole", consumer->queue,
                 header.sequence, header.life, message->bytes, (unsigned long long)header.bytes);
        return;
    }
    struct stream_shm *stream = &books->streams[header.life][consumer->queue];
    uint64_t bit = UINT64_C(1) << (header.sequence % 64);
    expect(TAKEN, !(bri_or_seq_cst(&stream->taken[header.sequence / 64], bit) & bit),
           "queue %u: message %u of %u is taken twice", consumer->queue, header.sequence, header.life);
    bri_add_relaxed(&books->noted[consumer->queue], UINT64_C(1));
    expect(ORDER, consumer->last[header.life] < (int64_t)header.sequence,
           "queue %u: message %u of %u comes after %lld", consumer->queue, header.sequence, header.life,
           (long long)consumer->last[header.life]);
    consumer->last[header.life] = header.sequence;
}

static void begin_call(struct consumer *consumer, uint32_t most, const char *what)
{
    now_doing(consumer->seat, what);
    bri_store_seq_cst(&notes_of(consumer->seat)->uncertain, most);
}

static void end_call(struct consumer *consumer)
{
    bri_store_seq_cst(&notes_of(consumer->seat)->uncertain, 0u);
}

static int take_one(struct consumer *consumer, int64_t deadline)
{
    size_t capacity = below(&consumer->random, 3) == 0 ? below(&consumer->random, 300) : LONGEST, bytes = 0;

    begin_call(consumer, 1, "get");
    int error = brood_queue_get(queues[consumer->queue], consumer->buffer, capacity, &bytes, deadline);
    if (error == 0)
        note_message(consumer, &(brood_message){consumer->buffer, bytes});
    end_call(consumer);
    if (error != -EMSGSIZE)
        return error;
    expect(CALLS, bytes > capacity, "get: -EMSGSIZE for %zu bytes in %zu", bytes, capacity);
    return -ETIMEDOUT;
}

static int take_many(struct consumer *consumer, int64_t deadline)
{
    brood_message messages[MANY];
    uint32_t count = 1 + below(&consumer->random, MANY);

    begin_call(consumer, count, "get_many");
    int taken =
        brood_queue_get_many(queues[consumer->queue], consumer->buffer, LONGEST, messages, count, deadline);
    for (int i = 0; i < taken; i++)
        note_message(consumer, &messages[i]);
    end_call(consumer);
    expect(CALLS, taken <= (int)count, "get_many: %d of %u", taken, count);
    return taken;
}

static int borrow_one(struct consumer *consumer, int64_t deadline)
{
    brood_message message;

    begin_call(consumer, 1, "borrow");
    int error = brood_queue_borrow(queues[consumer->queue], &message, deadline);
    if (error == 0)
        note_message(consumer, &message);
    end_call(consumer);
    if (error == 0) {
        int released = brood_queue_release(queues[consumer->queue], &message);
        expect(CALLS, released == 0, "release: %d: %s", released, brood_error_text());
    }
    return error;
}

/* As somebody with an event loop does. */
static int poll_one(struct consumer *consumer)
{
    now_doing(consumer->seat, "poll");
    struct pollfd watch = {.fd = brood_queue_fd(queues[consumer->queue]), .events = POLLIN};
    if (watch.fd < 0) {
        expect(CALLS, watch.fd == -EAGAIN, "fd: %d: %s", watch.fd, brood_error_text());
        return take_one(consumer, BROOD_FOREVER);
    }
    poll(&watch, 1, -1);
    int error = take_one(consumer, BROOD_NOW);
    if (below(&consumer->random, 8) == 0)
        brood_queue_fd_close(queues[consumer->queue]);
    return error;
}

static int take(struct consumer *consumer)
{
    int64_t deadline = choose_deadline(&consumer->random, 5);

    switch (below(&consumer->random, 5)) {
    case 0:
        return take_many(consumer, deadline);
    case 1:
        return borrow_one(consumer, deadline);
    case 2:
        return poll_one(consumer);
    default:
        return take_one(consumer, deadline);
    }
}

static void prepare_consumer(struct consumer *consumer)
{
    for (uint32_t i = 0; i < LIVES; i++)
        consumer->last[i] = -1;
    consumer->buffer = malloc(LONGEST);
    if (consumer->buffer == NULL)
        abort();
}

/* Until the queue is closed and drained. */
static void consume(uint32_t seat, uint64_t random)
{
    struct consumer consumer = {.seat = seat, .queue = seat % QUEUES, .random = random};
    int taken;

    prepare_consumer(&consumer);
    do
        taken = take(&consumer);
    while (taken >= 0 || taken == -ETIMEDOUT || taken == -EMSGSIZE);
    expect(CALLS, taken == -ESHUTDOWN, "a getter got %d: %s", taken, brood_error_text());
    free(consumer.buffer);
}

/* --- producers --- */

struct producer {
    uint32_t seat, life;
    uint64_t random;
    char *buffer; /* for MANY messages */
};

static struct header next_header(struct producer *producer, uint32_t queue, uint32_t ahead)
{
    struct stream_shm *stream = &books->streams[producer->life][queue];

    return (struct header){producer->life, bri_load_relaxed(&stream->put) + ahead,
                           choose_bytes(queue, &producer->random)};
}

static void begin_put(struct producer *producer, uint32_t queue, uint32_t count, const char *what)
{
    struct stream_shm *stream = &books->streams[producer->life][queue];

    now_doing(producer->seat, what);
    bri_store_seq_cst(&stream->begun, bri_load_relaxed(&stream->put) + count);
}

static void end_put(struct producer *producer, uint32_t queue, int count)
{
    struct stream_shm *stream = &books->streams[producer->life][queue];
    uint32_t put = bri_load_relaxed(&stream->put) + (uint32_t)(count > 0 ? count : 0);

    bri_store_seq_cst(&stream->put, put);
    bri_store_seq_cst(&stream->begun, put);
    expect(CALLS, count >= 0 || count == -ETIMEDOUT, "a put: %d: %s", count, brood_error_text());
}

static void put_one(struct producer *producer, uint32_t queue, int64_t deadline)
{
    struct header header = next_header(producer, queue, 0);

    write_message(producer->buffer, &header);
    begin_put(producer, queue, 1, "put");
    int error = brood_queue_put(queues[queue], producer->buffer, header.bytes, deadline);
    end_put(producer, queue, error == 0 ? 1 : error);
}

static void put_many(struct producer *producer, uint32_t queue, int64_t deadline)
{
    brood_message messages[MANY];
    uint32_t count = 1 + below(&producer->random, MANY);

    for (uint32_t i = 0; i < count; i++) {
        struct header header = next_header(producer, queue, i);
        messages[i] = (brood_message){producer->buffer + (size_t)i * LONGEST, header.bytes};
        write_message(messages[i].data, &header);
    }
    begin_put(producer, queue, count, "put_many");
    int put = brood_queue_put_many(queues[queue], messages, count, deadline);
    end_put(producer, queue, put);
    expect(CALLS, put <= (int)count, "put_many: %d of %u", put, count);
}

static void put_reserved(struct producer *producer, uint32_t queue, int64_t deadline)
{
    struct header header = next_header(producer, queue, 0);
    brood_message message;

    now_doing(producer->seat, "reserve");
    int error = brood_queue_reserve(queues[queue], header.bytes, &message);
    if (error < 0) {
        complain(CALLS, "reserve: %d: %s", error, brood_error_text());
        return;
    }
    write_message(message.data, &header);
    begin_put(producer, queue, 1, "commit");
    error =
        below(&producer->random, 8) == 0 ? -ETIMEDOUT : brood_queue_commit(queues[queue], &message, deadline);
    end_put(producer, queue, error == 0 ? 1 : error);
    if (error < 0) {
        error = brood_queue_abandon(queues[queue], &message);
        expect(CALLS, error == 0, "abandon: %d: %s", error, brood_error_text());
    }
}

static int is_full(const struct producer *producer)
{
    for (uint32_t queue = 0; queue < QUEUES; queue++)
        if (bri_load_relaxed(&books->streams[producer->life][queue].put) + MANY >= SEQUENCES)
            return 1;
    return 0;
}

static void produce(uint32_t seat, uint32_t life, uint64_t random)
{
    struct producer producer = {
        .seat = seat, .life = life, .random = random, .buffer = malloc((size_t)MANY * LONGEST)};

    if (producer.buffer == NULL)
        abort();
    while (!is_stopping() && !is_full(&producer)) {
        uint32_t queue = below(&producer.random, QUEUES);
        int64_t deadline = choose_deadline(&producer.random, 5);
        if (brood_queue_size(queues[queue]) > BACKLOG) {
            now_doing(seat, "pauses");
            pause_us(300);
            continue;
        }
        switch (below(&producer.random, 4)) {
        case 0:
            put_many(&producer, queue, deadline);
            break;
        case 1:
            put_reserved(&producer, queue, deadline);
            break;
        default:
            put_one(&producer, queue, deadline);
        }
    }
    free(producer.buffer);
}

static void play(uint32_t seat, uint32_t life, uint64_t random)
{
    if (seat < CONSUMERS)
        consume(seat, random);
    else
        produce(seat, life, random);
}

/* --- the controller --- */

static void make_queues(void)
{
    for (uint32_t i = 0; i < QUEUES; i++) {
        uint64_t messages = below(&torture.random, 2) ? 1 + below(&torture.random, 40) : 0;
        uint64_t bytes = below(&torture.random, 3) == 0 ? LONGEST + below(&torture.random, 200000) : 0;
        static const uint32_t lengths[] = {200, 4200, 20000, LONGEST};
        longest[i] = lengths[below(&torture.random, 4)];
        int error =
            brood_queue_create(BROOD_QUEUE_OPTIONS(.max_messages = messages, .max_bytes = bytes), &queues[i]);
        if (error < 0)
            complain(CALLS, "brood_queue_create: %d: %s", error, brood_error_text());
    }
}

static void bury(uint32_t seat, enum killed killed)
{
    if (killed == KILLED)
        note_fault(seat < CONSUMERS ? KILL_CONSUMER : KILL_PRODUCER);
    if (seat < CONSUMERS)
        bri_add_relaxed(&books->uncertain[seat % QUEUES], (uint64_t)uncertain_in(seat));
}

static uint32_t choose_victim(void)
{
    if (kills_producers && kills_consumers)
        return below(&torture.random, torture.seats_count);
    return kills_consumers ? below(&torture.random, CONSUMERS)
                           : CONSUMERS + below(&torture.random, PRODUCERS);
}

static void hammer(void)
{
    int64_t end = brood_after_ms(ROUND_MS);

    while (bri_now_ns() < end && !has_failed()) {
        pause_us(1000 + below(&torture.random, 8000));
        if (below(&torture.random, 4) == 0)
            stop_seat(choose_victim());
        else
            kill_seat(choose_victim());
        sweep_seats();
    }
    settle_seats();
}

static void drain(uint32_t queue)
{
    static struct consumer consumer;

    consumer = (struct consumer){.seat = SEATS_MAX - 1, .queue = queue};
    prepare_consumer(&consumer);
    while (take_one(&consumer, BROOD_NOW) == 0) {
    }
    free(consumer.buffer);
}

static int is_taken(struct stream_shm *stream, uint32_t sequence)
{
    return (int)(bri_load_relaxed(&stream->taken[sequence / 64]) >> (sequence % 64) & 1);
}

/* How many of the stream's committed messages nobody has noted. */
static uint64_t missing_of(struct stream_shm *stream, uint32_t life, uint32_t queue)
{
    uint32_t put = bri_load_relaxed(&stream->put), begun = bri_load_relaxed(&stream->begun), committed = put;
    uint64_t missing = 0;

    for (uint32_t i = put; i < SEQUENCES; i++)
        if (is_taken(stream, i)) {
            expect(TAKEN, i < begun, "queue %u: message %u of %u was never put", queue, i, life);
            committed = i + 1;
        }
    for (uint32_t i = 0; i < committed; i++)
        missing += !is_taken(stream, i);
    return missing;
}

static void check_queue(uint32_t queue)
{
    uint64_t missing = 0, uncertain = bri_load_relaxed(&books->uncertain[queue]);

    for (uint32_t life = 0; life < torture.next_life; life++)
        missing += missing_of(&books->streams[life][queue], life, queue);
    expect(TAKEN, missing <= uncertain,
           "queue %u: %llu messages were lost, while the dead may have taken %llu", queue,
           (unsigned long long)missing, (unsigned long long)uncertain);
    expect(TAKEN, brood_queue_size(queues[queue]) == 0, "queue %u: size is %lld", queue,
           (long long)brood_queue_size(queues[queue]));
    note_checked(MESSAGES, bri_load_relaxed(&books->noted[queue]));
}

/* Producers first, so that all that they can put is put. */
static void stop(void)
{
    bri_store_release(&torture.shared->stop, 1u);
    await_seats(CONSUMERS, torture.seats_count, NULL);
    for (uint32_t i = 0; i < QUEUES; i++)
        brood_queue_close(queues[i]);
    await_seats(0, CONSUMERS, NULL);
}

static void play_round(void)
{
    books = shared_pages(sizeof *books);
    kills_producers = below(&torture.random, 4) != 0;
    kills_consumers = !kills_producers || below(&torture.random, 3) != 0;
    make_queues();
    fill_all_seats();
    hammer();
    stop();
    bury_all();
    for (uint32_t i = 0; i < QUEUES; i++) {
        drain(i);
        check_queue(i);
        expect_0(brood_queue_destroy(queues[i]), "brood_queue_destroy");
    }
    munmap(books, sizeof *books);
}

const struct part queues_part = {
    .name = "queues",
    .checks = 1u << TAKEN | 1u << ORDER | 1u << CONTENT,
    .play_round = play_round,
    .seats = CONSUMERS + PRODUCERS,
    .play = play,
    .bury = bury,
    .lives = LIVES,
};
