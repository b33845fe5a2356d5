/* SPDX-License-Identifier: MIT */
/*
 * The part "room": an arena that is too small.  Processes that take all of it and are killed, beside a pool and a queue that go on.
 *
 * Whatever allocates may be told -ENOMEM, and then nothing has happened: a message is in the queue or not, a task has its value or says why
 * not, and once the hogs are gone all of the room is there again.
 */
#include <sys/mman.h>

#include "torture.h"

enum {
    HOGS = 4,
    ARENA_MIB = 12,
    MIB = 1 << 20,
    PIECES = 64,
    ITEMS = 40,
    REPLY_BYTES = 20000,
    MESSAGE_WORDS = 3000,
    AT_ONCE = 30
};

/* Outside of the arena: what each hog has, so that somebody can free it when the hog is dead.  A kill in between loses one block. */
struct piece_shm {
    uint64_t *_Atomic memory;
    _Atomic uint32_t words;
};

static struct piece_shm (*pieces)[PIECES]; /* of each hog */
static brood_pool *pool;
static brood_queue *queue;
static uint32_t hogs_killed;
static uint32_t put, got; /* messages; the number of each is in it */

/* --- hogs, in seats --- */

static void fill_piece(uint64_t *piece, size_t words, uint64_t number)
{
    for (size_t i = 0; i < words; i++)
        piece[i] = number + i;
}

static void check_piece(const uint64_t *piece, size_t words, uint64_t number)
{
    for (size_t i = 0; i < words; i++)
        if (piece[i] != number + i) {
            complain(MEMORY, "word %zu of a block of %zu is not what was written", i, words);
            return;
        }
}

/* 0 when there is no room. */
static int take_piece(struct piece_shm *piece, uint64_t *random)
{
    uint32_t words = 64 + below(random, MIB / 8);
    void *memory = NULL;
    int error = brood_alloc(words * sizeof(uint64_t), &memory);

    expect(CALLS, error == 0 || error == -ENOMEM, "brood_alloc: %d: %s", error, brood_error_text());
    if (error < 0) {
        note_fault(NO_ROOM);
        return 0;
    }
    bri_store_relaxed(&piece->words, words);
    bri_store_release(&piece->memory, (uint64_t *)memory);
    fill_piece(memory, words, words);
    return 1;
}

static void give_back(struct piece_shm *piece, int is_whole)
{
    uint64_t *memory = atomic_exchange(&piece->memory, NULL);

    if (memory == NULL)
        return;
    if (is_whole)
        check_piece(memory, bri_load_relaxed(&piece->words), bri_load_relaxed(&piece->words));
    expect_0(brood_free(memory), "brood_free");
}

/* Takes what there is, looks at it, gives it back. */
static void play_hog(uint32_t seat, uint32_t life, uint64_t random)
{
    (void)life;
    now_doing(seat, "takes memory");
    while (!is_stopping()) {
        for (uint32_t i = 0; i < PIECES && take_piece(&pieces[seat][i], &random); i++) {
        }
        pause_us(below(&random, 20000));
        for (uint32_t i = 0; i < PIECES; i++)
            give_back(&pieces[seat][i], 1);
        pause_us(below(&random, 10000));
    }
}

static void bury(uint32_t seat, enum killed killed)
{
    for (uint32_t i = 0; i < PIECES; i++)
        give_back(&pieces[seat][i], 0);
    if (killed == KILLED)
        note_fault(KILL_PLAYER);
    hogs_killed += killed != ALIVE;
}

/* --- queue --- */

static void put_some(void)
{
    static uint64_t message[MESSAGE_WORDS];

    for (uint32_t i = below(&torture.random, AT_ONCE); i > 0; i--) {
        size_t words = 1 + below(&torture.random, MESSAGE_WORDS);
        fill_piece(message, words, put);
        int error = brood_queue_put(queue, message, words * sizeof *message, BROOD_NOW);
        expect(CALLS, error == 0 || error == -ENOMEM || error == -ETIMEDOUT, "put: %d: %s", error,
               brood_error_text());
        put += error == 0;
        if (error == -ENOMEM)
            note_fault(NO_ROOM);
    }
}

static void get_all(void)
{
    static uint64_t message[MESSAGE_WORDS];

    while (got < put) {
        size_t bytes = 0;
        int error = brood_queue_get(queue, message, sizeof message, &bytes, BROOD_NOW);
        expect(TAKEN, error == 0, "message %u of %u: %d: %s", got, put, error, brood_error_text());
        if (error != 0)
            return;
        expect(ORDER, message[0] == got, "message %llu comes as number %u", (unsigned long long)message[0],
               got);
        check_piece(message, bytes / sizeof *message, got);
        note_checked(MESSAGES, 1);
        got++;
    }
    expect(TAKEN, brood_queue_size(queue) == 0, "the queue has more than was put");
}

/* --- pool --- */

static int reply_much(brood_task *task, const void *item, void *result)
{
    uint64_t number = *(const uint64_t *)item;
    void *memory;

    (void)result;
    int error = brood_task_reply_reserve(task, REPLY_BYTES, &memory);
    if (error < 0)
        return brood_task_fail(task, -error, "reply");
    fill_piece(memory, REPLY_BYTES / sizeof number, number);
    return 0;
}

static void check_item(brood_result *result, uint32_t i, uint64_t number)
{
    brood_outcome outcome = {.kind = BROOD_PENDING};
    brood_message reply;

    expect_0(brood_result_outcome(result, i, &outcome), "brood_result_outcome");
    note_checked(TASKS, 1);
    if (outcome.kind == BROOD_ERROR) {
        expect(OUTCOMES, outcome.code == ENOMEM, "item %u failed with %d: %s", i, outcome.code, outcome.text);
        note_fault(NO_ROOM);
        return;
    }
    expect(OUTCOMES, outcome.kind == BROOD_VALUE, "item %u is of outcome %d: %s", i, outcome.kind,
           outcome.text);
    if (outcome.kind == BROOD_VALUE && brood_result_bytes(result, i, &reply) == 0)
        check_piece(reply.data, reply.bytes / sizeof number, number);
}

static void run_job(void)
{
    uint64_t numbers[ITEMS];
    brood_message items[ITEMS];
    brood_result *result;
    uint32_t count = 1 + below(&torture.random, ITEMS);

    for (uint32_t i = 0; i < count; i++) {
        numbers[i] = next_random(&torture.random);
        items[i] = (brood_message){&numbers[i], sizeof numbers[i]};
    }
    int error = brood_pool_map_bytes_async(pool, reply_much, items, count, NULL, &result);
    expect(CALLS, error == 0 || error == -ENOMEM, "map: %d: %s", error, brood_error_text());
    if (error < 0) {
        note_fault(NO_ROOM);
        return;
    }
    error = brood_result_wait(result, brood_after_ms(WITHIN_MS));
    expect(HANGS, error == 0, "a job is not done: %d: %s", error, brood_error_text());
    for (uint32_t i = 0; error == 0 && i < count; i++)
        check_item(result, i, numbers[i]);
    expect_0(brood_result_destroy(result), "brood_result_destroy");
}

/* --- the controller --- */

static void hammer(void)
{
    int64_t end = brood_after_ms(ROUND_MS);

    while (bri_now_ns() < end && !has_failed()) {
        put_some();
        run_job();
        if (below(&torture.random, 2))
            get_all();
        if (below(&torture.random, 4) == 0)
            kill_seat(below(&torture.random, HOGS));
        sweep_seats();
    }
}

static void play_round(void)
{
    put = got = hogs_killed = 0;
    pieces = shared_pages(sizeof *pieces * HOGS);
    int error = brood_queue_create(NULL, &queue);
    expect_0(error, "brood_queue_create");
    if (error == 0)
        error = brood_pool_create(BROOD_POOL_OPTIONS(.workers = 2), &pool);
    expect_0(error, "brood_pool_create");
    if (error != 0)
        return;
    fill_all_seats();
    hammer();
    settle_seats();
    bri_store_release(&torture.shared->stop, 1u);
    await_seats(0, HOGS, NULL);
    get_all();
    expect_0(brood_pool_destroy(pool), "brood_pool_destroy");
    expect_0(brood_queue_destroy(queue), "brood_queue_destroy");
    bury_all();
    uint32_t forgotten = free_forgotten_blocks();
    expect(MEMORY, forgotten <= hogs_killed, "%u blocks were lost with %u dead", forgotten, hogs_killed);
    munmap(pieces, sizeof *pieces * HOGS);
}

const struct part room_part = {
    .name = "room",
    .checks = 1u << MEMORY | 1u << TAKEN | 1u << ORDER | 1u << OUTCOMES,
    .play_round = play_round,
    .seats = HOGS,
    .play = play_hog,
    .bury = bury,
    .arena_bytes = (uint64_t)ARENA_MIB * MIB,
};
