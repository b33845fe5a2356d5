/* SPDX-License-Identifier: MIT */
/*
 * Shared memory that is written over while a pool and a queue are in use.  Each input is the life of an arena: its owner, this process, submits,
 * waits, gets, cancels, dumps, puts and destroys, and between two of these calls words of what is shared are overwritten, by this process, or by a
 * worker while all goes on.  The words are those of the pool, its seats, jobs, chunk tables, counts, failures and replies, of the queue and its
 * segments, of blocks' headers, free lists, the page table and the roster; the values are random, small, sizes, offsets of whatever there is.
 *
 * What must hold: this process and the supervisors do not crash, no call takes longer than LIMIT_S, and no mutex stays held.  What calls answer is
 * not looked at: it may be anything that they can answer.  Workers may die.
 *
 * Left out, as arena.h says that nothing helps against it: names that live.  A value that is one is not written.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "arena/roster.h"
#include "base/time.h"
#include "brood.h"
#include "heap/heap.h"
#include "heap/pages.h"
#include "input.h"
#include "plat/children.h"
#include "pool/result.h"
#include "queue/queue.h"
#include "sync/mutex.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum {
    RESULTS = 4,
    ITEMS_MOST = 64,
    CALLS_MOST = 48,
    SUPERVISORS_MOST = 64,
    WORKERS = 2,
    GRACE_MS = 20,
    WAIT_MS = 15,
    LIMIT_S = 20,
    ARENA_BYTES = 64 << 20
};

/* The life. */
static struct {
    brood_pool *pool;
    struct bri_pool_shm *shared; /* of the pool; workers are told with each item */
    brood_result *results[RESULTS];
    brood_queue *queue;
    brood_message borrowed, reserved;
    void *blocks[4];
    pid_t supervisors[SUPERVISORS_MOST];
    int supervisor_count, null;
    struct bri_header_shm *pristine; /* as it was when nobody but this process was there */
} life;

static const char *volatile doing = "nothing";
static timer_t watchdog;

/* --- what must not happen --- */

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s (%s)\n", doing, what, brood_error_text());
    abort();
}

static void take_too_long(int number)
{
    static const char text[] = ": takes too long\n";
    size_t length = strlen(doing);

    (void)number;
    if (write(STDERR_FILENO, doing, length) == (ssize_t)length &&
        write(STDERR_FILENO, text, sizeof text - 1) == (ssize_t)sizeof text - 1)
        abort();
    _exit(1);
}

static int is_supervisor(pid_t pid)
{
    for (int i = 0; i < life.supervisor_count; i++)
        if (life.supervisors[i] == pid)
            return 1;
    return 0;
}

static void begin_call(const char *name)
{
    static const struct itimerspec limit = {.it_value = {.tv_sec = LIMIT_S}};

    doing = name;
    timer_settime(watchdog, 0, &limit, NULL);
}

static void end_call(void)
{
    if (bri_mutexes_held != 0)
        fail("a mutex is still held");
    if (life.pool != NULL && life.supervisor_count < SUPERVISORS_MOST &&
        !is_supervisor(life.pool->supervisor_pid))
        life.supervisors[life.supervisor_count++] = life.pool->supervisor_pid;
}

#define call(expression) (begin_call(#expression), (void)(expression), end_call())

/* It ends by itself, or because its name was buried, or was killed by its owner or here. */
static void check_end(pid_t pid, int status)
{
    int is_fine = WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL
                                      : WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 127;

    if (is_supervisor(pid) && !is_fine) {
        fprintf(stderr, "status %x\n", (unsigned)status);
        fail("a supervisor crashed");
    }
}

/* splitmix64 */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* --- scribbling --- */

struct place {
    void *at;
    uint64_t bytes;
};

/* Of a job of the owner's, or, in a worker, which knows none of these, of one that is visited.  0: none. */
static int find_view(uint64_t *random, struct bri_job_view *ret_view)
{
    const brood_result *result = life.results[next_random(random) % RESULTS];

    if (result != NULL)
        *ret_view = result->view;
    if (result != NULL)
        return 1;
    uint64_t visiting =
        bri_load_relaxed(&bri_pool_seat(life.shared, (uint32_t)(next_random(random) % WORKERS))->visiting);
    struct bri_job_shm *job = bri_heap_find(bri_visit_job(visiting), BRI_KIND_JOB, sizeof *job);
    return job != NULL && bri_job_read(job, ret_view);
}

static struct place place_in_pool(uint64_t *random)
{
    struct bri_pool_shm *shared = life.shared;

    switch (next_random(random) % 5) {
    case 0:
        return (struct place){bri_pool_ring(shared, 0), 64 * sizeof(bri_offset)};
    case 1:
        return (struct place){bri_pool_return(shared, 0), 8 * sizeof(struct bri_return_shm)};
    case 2:
        return (struct place){bri_block_of(shared), sizeof(struct bri_block_shm)};
    case 3:
        return (struct place){bri_pool_seat(shared, 0), WORKERS * sizeof(struct bri_seat_shm)};
    default:
        return (struct place){shared, sizeof *shared};
    }
}

/* What a job's list leads to. */
static struct place place_in_list(const _Atomic bri_offset *list)
{
    void *node = bri_at_checked(bri_load_relaxed(list), sizeof(struct bri_failure_shm), BRI_CACHE_LINE);

    return node == NULL
               ? (struct place){NULL, 0}
               : (struct place){bri_block_of(node), sizeof(struct bri_block_shm) + 3 * sizeof(uint64_t)};
}

static struct place place_in_job(uint64_t *random)
{
    struct bri_job_view view;

    if (!find_view(random, &view))
        return (struct place){NULL, 0};
    switch (next_random(random) % 7) {
    case 0:
        return (struct place){view.table, view.chunks * sizeof *view.table};
    case 1:
        return (struct place){view.counts, view.counts == NULL ? 0 : WORKERS * sizeof *view.counts};
    case 2:
        return (struct place){view.replies, view.replies == NULL ? 0 : view.count * sizeof *view.replies};
    case 3:
        return (struct place){bri_block_of(view.job), sizeof(struct bri_block_shm)};
    case 4:
        return place_in_list(&view.job->failures);
    case 5:
        return place_in_list(&view.job->resumes);
    default:
        return (struct place){view.job, sizeof *view.job};
    }
}

static struct place place_in_queue(uint64_t *random)
{
    struct bri_queue_shm *queue = (struct bri_queue_shm *)(void *)life.queue;

    if (queue == NULL)
        return (struct place){NULL, 0};
    void *segment = bri_at_checked(bri_load_relaxed(&queue->head), 4096, BRI_CACHE_LINE);
    return next_random(random) % 2 && segment != NULL
               ? (struct place){bri_block_of(segment), 512}
               : (struct place){bri_block_of(queue), sizeof(struct bri_block_shm) + sizeof *queue};
}

static struct place place_in_arena(uint64_t *random)
{
    struct bri_header_shm *header = bri_arena_current->header;
    uint64_t page = next_random(random) % 64;

    switch (next_random(random) % 5) {
    case 0:
        return (struct place){header, offsetof(struct bri_header_shm, slots)};
    case 1:
        return (struct place){header->classes, sizeof header->classes};
    case 2:
        return (struct place){header->slots, 8 * sizeof *header->slots};
    case 3:
        return (struct place){bri_page_word(0), 64 * sizeof(uint64_t)};
    default:
        return (struct place){bri_page_at(page), page < bri_arena_grown() ? BRI_PAGE_BYTES : 0};
    }
}

static struct place some_place(uint64_t *random)
{
    switch (next_random(random) % 8) {
    case 0:
    case 1:
        return place_in_arena(random);
    case 2:
        return place_in_queue(random);
    case 3:
    case 4:
        return place_in_job(random);
    default:
        return place_in_pool(random);
    }
}

static uint64_t some_value(uint64_t *random, uint64_t old)
{
    uint64_t any = next_random(random);

    switch (any >> 8 & 7) {
    case 0:
        return any >> 12 & 3;
    case 1:
        return UINT64_MAX - (any >> 12 & 3);
    case 2:
        return bri_arena_current->pages_at + (any >> 12) % (4u << 20) / 64 * 64; /* of a block, perhaps */
    case 3:
        return any >> 12 & 0xffff;
    case 4:
        return old + (any >> 12 & 0x1ff) - 0x100;
    case 5:
        return UINT64_C(1) << (any >> 12 & 63);
    case 6: {
        struct place place = some_place(random);
        return place.at == NULL ? 0 : bri_offset_of(place.at);
    }
    default:
        return any;
    }
}

static int is_name(uint32_t value)
{
    return value == BRI_MUTEX_GRAVE || bri_is_alive(value) || bri_is_dead_and_unburied(value);
}

/* Halves of a word, too: many of the words that lie there are of 32 bits. */
static void scribble_once(uint64_t *random)
{
    struct place place = some_place(random);

    if (place.at == NULL || place.bytes < sizeof(uint64_t))
        return;
    _Atomic uint64_t *word =
        (_Atomic uint64_t *)place.at + next_random(random) % (place.bytes / sizeof(uint64_t));
    uint64_t old = bri_load_relaxed(word), new = some_value(random, old), which = next_random(random) % 4;
    if (which == 1)
        new = (old & UINT64_C(0xffffffff)) | new << 32;
    if (which == 2)
        new = (old & ~UINT64_C(0xffffffff)) | (new &UINT64_C(0xffffffff));
    if (!is_name((uint32_t) new) && !is_name((uint32_t)(new >> 32)))
        bri_store_relaxed(word, new);
}

static void scribble(uint64_t seed, uint32_t times)
{
    for (uint64_t random = seed; times > 0; times--)
        scribble_once(&random);
}

/* --- tasks --- */

struct item {
    uint64_t value;
    bri_offset pool;
};

static int triple(brood_task *task, const void *item, void *result)
{
    (void)task;
    *(uint64_t *)result = 3 * ((const struct item *)item)->value;
    return 0;
}

static int fail_some(brood_task *task, const void *item, void *result)
{
    uint64_t value = ((const struct item *)item)->value;

    *(uint64_t *)result = value;
    return value % 3 == 0 ? brood_task_fail(task, 7, "a third of them fails") : 0;
}

static int die_some(brood_task *task, const void *item, void *result)
{
    (void)task, (void)result;
    if (((const struct item *)item)->value % 16 == 0)
        _exit(5);
    return 0;
}

static int scribble_in_worker(brood_task *task, const void *item, void *result)
{
    (void)task, (void)result;
    life.shared = bri_at(((const struct item *)item)->pool);
    scribble(((const struct item *)item)->value, 4);
    return 0;
}

static int reply(brood_task *task, const void *item, void *result)
{
    (void)result;
    return brood_task_reply(task, item, brood_task_item_bytes(task));
}

static int loop(brood_task *task, const void *item, void *result)
{
    (void)task, (void)result;
    while (item != NULL)
        poll(NULL, 0, 1);
    return 0;
}

/* What the fuzzer does about crashes, and sanitizers say, is for this process and the supervisor; that a worker crashes may be. */
static void crash_quietly(void *unused)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTERM};

    (void)unused;
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        signal(signals[i], SIG_DFL);
    dup2(life.null, STDERR_FILENO);
}

/* --- calls --- */

static void submit(brood_result **result)
{
    static brood_function *const functions[] = {triple,   fail_some, scribble_in_worker, triple,
                                                die_some, loop,      scribble_in_worker, triple};
    struct item items[ITEMS_MOST];
    uint32_t shape = take(2), count = 1 + take(1) % ITEMS_MOST;
    uint64_t random = shape;
    const brood_map_options *options =
        BROOD_MAP_OPTIONS(.chunk_items = shape >> 3 & 7, .retries = shape >> 6 & 1,
                          .item_timeout_ms = shape & 0x80 ? 5 : 0, .timeout_ms = shape & 0x100 ? 10 : 0);

    for (uint32_t i = 0; i < count; i++)
        items[i] = (struct item){next_random(&random), bri_offset_of(life.shared)};
    call(brood_pool_map_async(life.pool, functions[shape & 7], items, sizeof *items, sizeof(uint64_t), count,
                              options, result));
}

static void submit_bytes(brood_result **result)
{
    static uint8_t bytes[9000];
    brood_message items[16];
    uint32_t count = 1 + take(1) % 16, size = take(1) % 64;

    for (uint32_t i = 0; i < count; i++)
        items[i] = (brood_message){bytes, (size_t)size * (i % 4 == 3 ? 128u : 1u)};
    call(brood_pool_map_bytes_async(life.pool, reply, items, count, NULL, result));
}

static void drop(brood_result **result)
{
    call(brood_result_destroy(*result));
    *result = NULL;
}

static void look_at(brood_result *result)
{
    static uint64_t results[ITEMS_MOST];
    brood_outcome outcome;
    brood_message message;
    size_t item = take(1) % ITEMS_MOST;

    call(brood_result_outcome(result, item, &outcome));
    begin_call("brood_result_bytes");
    volatile uint8_t last;
    if (brood_result_bytes(result, item, &message) == 0 && message.bytes > 0)
        last = ((const uint8_t *)message.data)[message.bytes - 1], (void)last;
    end_call();
    call(brood_result_get(result, results, sizeof results, BROOD_NOW));
    call(brood_result_successful(result));
}

static void use_result(brood_result **result, uint32_t operation)
{
    if (*result == NULL) {
        if (operation % 4 == 3)
            submit_bytes(result);
        else
            submit(result);
        return;
    }
    switch (operation % 8) {
    case 0:
        drop(result);
        break;
    case 1:
        call(brood_result_cancel(*result));
        break;
    case 2:
        call(brood_result_cancel_running(*result));
        break;
    case 3:
        call(brood_result_fd(*result));
        break;
    case 4:
        look_at(*result);
        break;
    case 5:
        call(brood_result_wait_any(result, 1, brood_after_ms(WAIT_MS)));
        break;
    default:
        call(brood_result_wait(*result, brood_after_ms(WAIT_MS)));
    }
}

static int count_to_five(void *count, brood_message *ret_item)
{
    *ret_item = (brood_message){count, sizeof(int)};
    return ++*(int *)count <= 5;
}

static void stream(void)
{
    int count = 0;
    brood_stream *stream = NULL;
    brood_stream_item item;

    call(brood_pool_imap(life.pool, reply, count_to_five, &count, NULL, &stream));
    for (int i = 0; stream != NULL && i < 6; i++)
        call(brood_stream_next(stream, &item, brood_after_ms(WAIT_MS)));
    call(brood_stream_destroy(stream));
}

static void use_pool(uint32_t operation)
{
    struct item item = {operation, 0};
    brood_arena_stats stats = {.size = sizeof stats};

    switch (operation % 8) {
    case 0:
        call(brood_pool_dump(life.pool, life.null));
        break;
    case 1:
        call(brood_arena_stats_get(&stats));
        break;
    case 2:
        stream();
        break;
    case 3:
        call(operation % 64 == 3 ? brood_pool_close(life.pool) : 0);
        break;
    case 4:
        call(operation % 64 == 4 ? brood_pool_terminate(life.pool) : 0);
        break;
    case 5:
        call(brood_pool_join(life.pool, brood_after_ms(WAIT_MS)));
        break;
    default:
        if (life.results[0] == NULL)
            call(brood_pool_apply_async(life.pool, triple, &item, sizeof item, sizeof(uint64_t),
                                        &life.results[0]));
        break;
    }
}

static void use_queue(uint32_t operation)
{
    static uint8_t bytes[20000];
    brood_message messages[4];
    size_t size = operation % 5 == 0 ? operation * 60u : operation, got;

    switch (operation % 8) {
    case 0:
        call(brood_queue_put(life.queue, bytes, size, brood_after_ms(1)));
        break;
    case 1:
        call(brood_queue_get(life.queue, bytes, sizeof bytes, &got, brood_after_ms(1)));
        break;
    case 2:
        call(brood_queue_get_many(life.queue, bytes, sizeof bytes, messages, 4, BROOD_NOW));
        break;
    case 3:
        for (int i = 0; i < 4; i++)
            messages[i] = (brood_message){bytes, size};
        call(brood_queue_put_many(life.queue, messages, 4, BROOD_NOW));
        break;
    case 4:
        if (life.borrowed.data != NULL)
            call(brood_queue_release(life.queue, &life.borrowed));
        life.borrowed.data = NULL;
        call(brood_queue_borrow(life.queue, &life.borrowed, BROOD_NOW));
        break;
    case 5:
        if (life.reserved.data != NULL)
            call(brood_queue_commit(life.queue, &life.reserved, BROOD_NOW));
        life.reserved.data = NULL;
        call(brood_queue_reserve(life.queue, size, &life.reserved));
        break;
    default:
        call(brood_queue_size(life.queue));
    }
}

static void use_memory(uint32_t operation)
{
    void **block = &life.blocks[operation % 4];

    call(brood_free(*block));
    *block = NULL;
    call(brood_alloc(operation % 3 == 0 ? operation * 500u + 1 : operation + 1, block));
}

static void play(void)
{
    uint32_t kind = take(1), operation = take(1);

    switch (kind % 8) {
    case 0:
    case 1:
        doing = "scribbling";
        scribble(take(2), 1 + operation % 4);
        break;
    case 2:
        use_queue(operation);
        break;
    case 3:
        use_memory(operation);
        break;
    case 4:
        use_pool(operation);
        break;
    default:
        use_result(&life.results[kind / 8 % RESULTS], operation);
    }
}

/* --- a life --- */

static void must(const char *what, int error)
{
    doing = what;
    if (error != 0)
        fail("an arena that nobody has damaged yet, or no more");
}

static void prepare(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};

    signal(SIGUSR2, take_too_long);
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* so that it is seen how supervisors end */
    life.null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    life.pristine = malloc(sizeof *life.pristine);
    if (life.null < 0 || life.pristine == NULL || timer_create(CLOCK_MONOTONIC, &event, &watchdog) != 0)
        abort();
}

static void begin(void)
{
    const brood_pool_hooks *hooks = BROOD_POOL_HOOKS(.worker_begins = crash_quietly);

    must("brood_arena_create", brood_arena_create(BROOD_ARENA_OPTIONS(.max_bytes = ARENA_BYTES)));
    memcpy(life.pristine, bri_arena_current->header, sizeof *life.pristine);
    must("brood_queue_create", brood_queue_create(BROOD_QUEUE_OPTIONS(.max_messages = 64), &life.queue));
    must("brood_pool_create",
         brood_pool_create(BROOD_POOL_OPTIONS(.workers = WORKERS, .grace_ms = GRACE_MS, .hooks = hooks),
                           &life.pool));
    life.shared = life.pool->shared;
    end_call();
}

struct found {
    pid_t pids[64];
    int count;
};

/* A fork of this process, or a zombie, which has no program any more; libFuzzer's symbolizer is another. */
static void find_fork(pid_t pid, void *argument)
{
    struct found *found = argument;
    char path[40], its[300] = "", own[300] = "";

    snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
    int is_other = readlink(path, its, sizeof its - 1) > 0 &&
                   readlink("/proc/self/exe", own, sizeof own - 1) > 0 && strcmp(its, own) != 0;
    if (!is_other && found->count < 64)
        found->pids[found->count++] = pid;
}

/* Whoever ends leaves its children to this process. */
static void end_all(void)
{
    struct found found;
    int status;

    begin_call("the end of all processes");
    do {
        found.count = 0;
        bri_children_each(getpid(), find_fork, &found);
        for (int i = 0; i < found.count; i++) {
            kill(found.pids[i], SIGKILL);
            if (waitpid(found.pids[i], &status, 0) == found.pids[i])
                check_end(found.pids[i], status);
        }
    } while (found.count > 0);
}

static void end(void)
{
    for (int i = 0; i < RESULTS; i++)
        drop(&life.results[i]);
    brood_pool *pool = life.pool;
    life.pool = NULL;
    call(brood_queue_destroy(life.queue));
    call(brood_pool_destroy(pool));
    end_all();
    memcpy(bri_arena_current->header, life.pristine, sizeof *life.pristine);
    must("brood_arena_destroy", brood_arena_destroy());
    life.queue = NULL;
    life.supervisor_count = 0;
    memset(life.blocks, 0, sizeof life.blocks);
    life.borrowed.data = life.reserved.data = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (life.pristine == NULL)
        prepare();
    input.at = data;
    input.left = bytes;
    begin();
    for (int calls = 0; calls < CALLS_MOST && input.left > 0; calls++)
        play();
    end();
    return 0;
}
