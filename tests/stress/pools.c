/* SPDX-License-Identifier: MIT */
/*
 * Pools whose tasks fail, crash and allocate, while a thread kills workers and now and then the supervisor; beside them, owners of pools that
 * are killed with all that is theirs.
 *
 * Books, outside of the arena: for each item how often it was begun and ended.  An item is begun once at most.  It has a value if it was
 * ended and nobody died; it died if it was told to, or at the hands of the killer: of those there are not more than victims.
 */
#include <pthread.h>

#include "plat/process.h"
#include "pool/pool.h"
#include "stress.h"

enum check { PROCESSES, OUTCOMES, ONCE, VALUES, DEATHS, CALLS, ARENA, CHECKS };
static const char *const checks[CHECKS] = {
    [PROCESSES] = "processes end as they should, and none is left",
    [OUTCOMES] = "every item has the outcome that it should have",
    [ONCE] = "no item is begun twice",
    [VALUES] = "values are right, and streams in order",
    [DEATHS] = "items die as they were told to, or at the hands of the killer",
    [CALLS] = "no call fails for a reason it should not have",
    [ARENA] = "nothing is left in the arena",
};

enum {
    REGIONS_EACH = 32,
    REGIONS = 64 * REGIONS_EACH,
    ITEMS = 300,
    WORKERS_MOST = 4,
    ROUND_MS = 1300,
    WITHIN_MS = 30000,
    OWNERS = 2,
    REPLY_MOST = 9000,
    BATCH = 3,
    IDLE_IN_A_ROW = 4
};

enum errand { WORK, SPIN, NAP, FAIL, RETURN_CODE, ALLOCATE, DIE_BY_KILL, DIE_BY_FAULT, DIE_BY_EXIT };
enum { EXIT_CODE = 7 };

struct item {
    uint32_t region, index;
    uint32_t errand;
    uint32_t bytes; /* of the reply */
    uint64_t value;
};

struct life_shm {
    _Atomic uint16_t begun, ended;
};

struct books_shm {
    struct life_shm lives[REGIONS][ITEMS];
    _Atomic uint32_t killed; /* workers, by the killer; a supervisor counts for all of its workers */
    _Atomic uint32_t supervisors_killed;
    _Atomic uint32_t died; /* items that were not told to */
    _Atomic uint32_t killer_may_go;
};

static struct books_shm *books;
static brood_pool *pool;
static uint32_t workers, regions_used,
    first_region; /* each owner has regions of its own, and leaves jobs behind when it is killed */
static uint64_t all_items, all_deaths;

/* --- tasks --- */

static uint64_t value_of(const struct item *item)
{
    uint64_t state = item->value ^ item->index;

    return next_random(&state) | 1;
}

static void spend_time(const struct item *item)
{
    volatile uint64_t sum = 0;

    for (uint64_t i = 0; item->errand == SPIN && i < item->value % 200000; i++)
        sum = sum + i;
    if (item->errand == NAP)
        pause_us((uint32_t)(item->value % 3000));
}

static void die_if_told(const struct item *item)
{
    switch (item->errand) {
    case DIE_BY_KILL:
        raise(SIGKILL);
        break;
    case DIE_BY_FAULT:
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
        break;
    case DIE_BY_EXIT:
        _exit(EXIT_CODE);
    default:
        break;
    }
}

static int fail_if_told(brood_task *task, const struct item *item)
{
    char text[40];

    if (item->errand == RETURN_CODE)
        return 5 + (int)(item->index % 3);
    if (item->errand != FAIL)
        return 0;
    snprintf(text, sizeof text, "item %u", item->index);
    return brood_task_fail(task, 100 + (int)(item->index % 3), text);
}

static int begin(brood_task *task, const struct item *item)
{
    bri_add_relaxed(&books->lives[item->region][item->index].begun, (uint16_t)1);
    spend_time(item);
    die_if_told(item);
    return fail_if_told(task, item);
}

static void end(const struct item *item)
{
    bri_add_relaxed(&books->lives[item->region][item->index].ended, (uint16_t)1);
}

/* A block whose first word is the value; its address is the result. */
static int allocate(brood_task *task, uint64_t value, uint64_t *ret_address)
{
    void *memory, *dropped;

    if (brood_alloc(64 + value % 5000, &dropped) < 0 || brood_alloc(8 + value % 100000, &memory) < 0)
        return brood_task_fail(task, 1, brood_error_text());
    if (brood_free(dropped) < 0)
        return brood_task_fail(task, 2, brood_error_text());
    memcpy(memory, &value, sizeof value);
    *ret_address = (uint64_t)(uintptr_t)memory;
    return 0;
}

static int run_fixed(brood_task *task, const void *memory, void *result)
{
    const struct item *item = memory;
    uint64_t value = value_of(item);
    int code = begin(task, item);

    if (code == 0 && item->errand == ALLOCATE)
        code = allocate(task, value_of(item), &value);
    if (code != 0)
        return code;
    memcpy(result, &value, sizeof value);
    end(item);
    return 0;
}

static void fill_reply(uint8_t *memory, const struct item *item)
{
    for (uint32_t i = 0; i < item->bytes; i++)
        memory[i] = (uint8_t)(value_of(item) + i);
}

static int run_bytes(brood_task *task, const void *memory, void *result)
{
    struct item item;
    uint8_t buffer[REPLY_MOST];
    void *place;

    (void)result;
    memcpy(&item, memory, sizeof item);
    int code = begin(task, &item);
    if (code != 0)
        return code;
    fill_reply(buffer, &item);
    if (item.value % 3 == 0 && brood_task_reply(task, buffer, 0) < 0) /* replaced by the next */
        return brood_task_fail(task, 3, brood_error_text());
    if (item.value % 2 == 0) {
        if (brood_task_reply(task, buffer, item.bytes) < 0)
            return brood_task_fail(task, 4, brood_error_text());
    } else {
        if (brood_task_reply_reserve(task, item.bytes, &place) < 0)
            return brood_task_fail(task, 5, brood_error_text());
        memcpy(place, buffer, item.bytes);
    }
    end(&item);
    return 0;
}

/* --- what is expected --- */

static void expect_0(int error, const char *what)
{
    expect(CALLS, error == 0, "%s: %d: %s", what, error, brood_error_text());
}

static int is_told_to_die(const struct item *item)
{
    return item->errand >= DIE_BY_KILL;
}

static int is_told_to_fail(const struct item *item)
{
    return item->errand == FAIL || item->errand == RETURN_CODE;
}

static void check_error(const struct item *item, const brood_outcome *outcome)
{
    char text[40] = "";
    int code = item->errand == FAIL ? 100 + (int)(item->index % 3) : 5 + (int)(item->index % 3);

    if (item->errand == FAIL)
        snprintf(text, sizeof text, "item %u", item->index);
    expect(OUTCOMES, is_told_to_fail(item) && outcome->code == code && strcmp(outcome->text, text) == 0,
           "item %u of errand %u failed with %d, \"%s\"", item->index, item->errand, outcome->code,
           outcome->text);
}

static int died_as_told(const struct item *item, const brood_outcome *outcome)
{
    switch (item->errand) {
    case DIE_BY_KILL:
        return outcome->signal == SIGKILL;
    case DIE_BY_FAULT:
        return outcome->signal == SIGSEGV;
    case DIE_BY_EXIT:
        return outcome->signal == 0 && outcome->exit_code == EXIT_CODE;
    default:
        return 0;
    }
}

static void check_death(const struct item *item, const brood_outcome *outcome)
{
    int is_unknown =
        outcome->signal == 0 && outcome->exit_code == -1 && bri_load_relaxed(&books->supervisors_killed) > 0;

    expect(OUTCOMES, outcome->pid > 0 && outcome->text[0] != '\0', "item %u died, pid %d, \"%s\"",
           item->index, outcome->pid, outcome->text);
    if (died_as_told(item, outcome))
        return;
    bri_add_relaxed(&books->died, 1u);
    expect(DEATHS, outcome->signal == SIGKILL || is_unknown,
           "item %u of errand %u died of signal %d, exit code %d", item->index, item->errand, outcome->signal,
           outcome->exit_code);
}

static void check_outcome(const struct item *item, const brood_outcome *outcome, int may_be_cancelled)
{
    struct life_shm *life = &books->lives[item->region][item->index];

    all_items++;
    expect(ONCE, bri_load_relaxed(&life->begun) <= 1, "item %u was begun %u times", item->index,
           bri_load_relaxed(&life->begun));
    switch (outcome->kind) {
    case BROOD_VALUE:
        expect(OUTCOMES,
               bri_load_relaxed(&life->ended) == 1 && !is_told_to_die(item) && !is_told_to_fail(item),
               "item %u of errand %u has a value, ended %u times", item->index, item->errand,
               bri_load_relaxed(&life->ended));
        break;
    case BROOD_ERROR:
        check_error(item, outcome);
        break;
    case BROOD_DIED:
        all_deaths++;
        check_death(item, outcome);
        break;
    default:
        expect(OUTCOMES,
               outcome->kind == BROOD_CANCELLED && may_be_cancelled && bri_load_relaxed(&life->begun) == 0,
               "item %u of errand %u is of outcome %d, begun %u times", item->index, item->errand,
               outcome->kind, bri_load_relaxed(&life->begun));
    }
}

static void check_value(const struct item *item, uint64_t value)
{
    uint64_t found = value;

    if (item->errand == ALLOCATE) {
        memcpy(&found, (const void *)(uintptr_t)value, sizeof found); /* NOLINT(performance-no-int-to-ptr) */
        expect_0(brood_free((void *)(uintptr_t)value),
                 "brood_free of a task's block"); /* NOLINT(performance-no-int-to-ptr) */
    }
    expect(VALUES, found == value_of(item), "item %u of errand %u has a wrong value", item->index,
           item->errand);
}

static void check_reply(const struct item *item, const brood_message *reply)
{
    const uint8_t *bytes = reply->data;
    int right = reply->bytes == item->bytes;

    for (uint32_t i = 0; right && i < item->bytes; i++)
        right = bytes[i] == (uint8_t)(value_of(item) + i);
    expect(VALUES, right, "item %u has a wrong reply of %zu bytes instead of %u", item->index, reply->bytes,
           item->bytes);
}

/* --- jobs --- */

struct batch {
    struct item items[ITEMS];
    uint32_t count;
    brood_result *result;
    int is_bytes, is_cancelled;
    int64_t cancelled;
};

static uint32_t choose_errand(int may_allocate)
{
    uint32_t dice = below(&stress.random, 200);

    if (dice < 3)
        return DIE_BY_KILL + dice;
    if (dice < 10)
        return FAIL + dice % 2;
    if (dice < 30)
        return may_allocate ? ALLOCATE : WORK;
    return dice < 60 ? SPIN : dice < 64 ? NAP : WORK;
}

static void make_items(struct batch *batch, int may_allocate)
{
    static const uint32_t most[] = {3, 40, ITEMS};
    uint32_t region = first_region + regions_used++ % REGIONS_EACH;

    *batch = (struct batch){.count = 1 + below(&stress.random, most[below(&stress.random, 3)])};
    for (uint32_t i = 0; i < batch->count; i++) {
        batch->items[i] = (struct item){region, i, choose_errand(may_allocate),
                                        below(&stress.random, REPLY_MOST), next_random(&stress.random)};
        bri_store_relaxed(&books->lives[region][i].begun, (uint16_t)0);
        bri_store_relaxed(&books->lives[region][i].ended, (uint16_t)0);
    }
}

static const brood_map_options *choose_chunk(void)
{
    static brood_map_options options;

    options = (brood_map_options){
        .size = sizeof options, .chunk_items = below(&stress.random, 2) ? 0 : 1 + below(&stress.random, 20)};
    return &options;
}

static void submit(struct batch *batch, int is_bytes, int may_allocate)
{
    brood_message messages[ITEMS];
    int error;

    make_items(batch, may_allocate && !is_bytes);
    batch->is_bytes = is_bytes;
    for (uint32_t i = 0; i < batch->count; i++)
        messages[i] = (brood_message){&batch->items[i], sizeof batch->items[i]};
    if (is_bytes)
        error = brood_pool_map_bytes_async(pool, run_bytes, messages, batch->count, choose_chunk(),
                                           &batch->result);
    else if (batch->count == 1)
        error = brood_pool_apply_async(pool, run_fixed, batch->items, sizeof batch->items[0],
                                       sizeof(uint64_t), &batch->result);
    else
        error = brood_pool_map_async(pool, run_fixed, batch->items, sizeof batch->items[0], sizeof(uint64_t),
                                     batch->count, choose_chunk(), &batch->result);
    expect_0(error, "submit");
    if (error < 0)
        batch->result = NULL;
}

static void check_item(struct batch *batch, uint32_t i, const uint64_t *values)
{
    brood_outcome outcome = {.kind = BROOD_PENDING};
    brood_message reply;

    expect_0(brood_result_outcome(batch->result, i, &outcome), "brood_result_outcome");
    check_outcome(&batch->items[i], &outcome, batch->is_cancelled);
    batch->cancelled -= outcome.kind == BROOD_CANCELLED;
    if (outcome.kind != BROOD_VALUE)
        return;
    if (!batch->is_bytes) {
        check_value(&batch->items[i], values[i]);
    } else {
        int error = brood_result_bytes(batch->result, i, &reply);
        expect_0(error, "brood_result_bytes");
        if (error == 0)
            check_reply(&batch->items[i], &reply);
    }
}

static void collect(struct batch *batch)
{
    static uint64_t values[ITEMS];

    if (batch->result == NULL)
        return;
    int error = brood_result_wait(batch->result, brood_after_ms(WITHIN_MS));
    if (error < 0) {
        complain(OUTCOMES, "a job of %u items is not done after %d ms: %d: %s", batch->count, WITHIN_MS,
                 error, brood_error_text());
        brood_pool_dump(pool, STDOUT_FILENO);
    } else {
        error = brood_result_get(batch->result, batch->is_bytes ? NULL : values,
                                 batch->is_bytes ? 0 : sizeof values, BROOD_NOW);
        expect(CALLS,
               error == 0 || error == -EREMOTEIO || error == -EOWNERDEAD ||
                   (error == -ECANCELED && batch->is_cancelled),
               "brood_result_get: %d: %s", error, brood_error_text());
        for (uint32_t i = 0; i < batch->count; i++)
            check_item(batch, i, values);
        expect(OUTCOMES, batch->cancelled == 0 || !batch->is_cancelled,
               "%lld items too many were said to be cancelled", (long long)batch->cancelled);
    }
    expect_0(brood_result_destroy(batch->result), "brood_result_destroy");
}

static void play_batches(void)
{
    static struct batch batches[BATCH];
    uint32_t count = 1 + below(&stress.random, BATCH);

    for (uint32_t i = 0; i < count; i++)
        submit(&batches[i], (int)below(&stress.random, 2), 1);
    for (uint32_t i = 0; i < count; i++) {
        if (batches[i].result != NULL && below(&stress.random, 10) == 0) {
            batches[i].is_cancelled = 1;
            batches[i].cancelled = brood_result_cancel(batches[i].result);
        }
        collect(&batches[i]);
    }
}

/* One that nobody waits for. */
static void drop_batch(void)
{
    static struct batch batch;

    submit(&batch, (int)below(&stress.random, 2), 0);
    if (batch.result != NULL)
        expect_0(brood_result_destroy(batch.result), "brood_result_destroy");
}

static void play_map(void)
{
    static struct batch batch;
    static uint64_t values[ITEMS];
    uint32_t failing = 0, lacking = 0;

    make_items(&batch, 0);
    memset(values, 0, sizeof values);
    int error = brood_pool_map(pool, run_fixed, batch.items, sizeof batch.items[0], values, sizeof values[0],
                               batch.count, choose_chunk());
    for (uint32_t i = 0; i < batch.count; i++) {
        int fails = is_told_to_die(&batch.items[i]) || is_told_to_fail(&batch.items[i]);
        failing += (uint32_t)fails;
        lacking += !fails && values[i] != value_of(&batch.items[i]);
    }
    all_items += batch.count;
    expect(OUTCOMES,
           error == -EREMOTEIO || error == -EOWNERDEAD || (error == 0 && failing == 0 && lacking == 0),
           "brood_pool_map of %u items, %u of them to fail: %d: %s", batch.count, failing, error,
           brood_error_text());
    bri_add_relaxed(&books->died, lacking);
}

static int next_item(void *argument, brood_message *ret_item)
{
    struct batch *batch = argument;

    if (batch->cancelled == batch->count) /* how many were given */
        return 0;
    struct item *item = &batch->items[batch->cancelled++];
    *ret_item = (brood_message){item, sizeof *item};
    return 1;
}

static void play_stream(void)
{
    static struct batch batch;
    static uint8_t seen[ITEMS];
    brood_stream *stream;
    brood_stream_item item;
    int is_ordered = (int)below(&stress.random, 2), got = 1;
    size_t max_items = below(&stress.random, 2) ? 0 : 1 + below(&stress.random, 12), expected = 0;

    make_items(&batch, 0);
    memset(seen, 0, sizeof seen);
    const brood_imap_options *options = BROOD_IMAP_OPTIONS(.max_items = max_items);
    int error = is_ordered ? brood_pool_imap(pool, run_bytes, next_item, &batch, options, &stream)
                           : brood_pool_imap_unordered(pool, run_bytes, next_item, &batch, options, &stream);
    expect_0(error, "imap");
    uint32_t stop_at = below(&stress.random, 4) == 0 ? below(&stress.random, batch.count) : UINT32_MAX;
    while (error == 0 && expected < stop_at &&
           (got = brood_stream_next(stream, &item, brood_after_ms(WITHIN_MS))) == 1) {
        expect(VALUES,
               item.index < batch.count && !seen[item.index]++ && (!is_ordered || item.index == expected),
               "a stream gives item %zu as number %zu", item.index, expected);
        check_outcome(&batch.items[item.index], &item.outcome, 0);
        if (item.outcome.kind == BROOD_VALUE)
            check_reply(&batch.items[item.index], &item.reply);
        expected++;
    }
    expect(OUTCOMES, got == 1 || (got == 0 && expected == batch.count),
           "a stream ends with %d after %zu of %u items: %s", got, expected, batch.count, brood_error_text());
    if (error == 0)
        expect_0(brood_stream_destroy(stream), "brood_stream_destroy");
}

/* --- killers and owners to be killed --- */

static int has_worked(uint32_t index)
{
    struct bri_seat_shm *seat = bri_pool_seat(pool->shared, index);

    return bri_load_relaxed(&seat->items) != seat->items_at_birth;
}

/* A pid that is a worker's after its descriptor was opened was a worker's then. */
static int kill_worker(uint32_t index)
{
    int pid = brood_pool_worker_pid(pool, index);
    int fd = pid > 0 ? bri_pidfd_open(pid) : -1;
    int is_hit = fd >= 0 && brood_pool_worker_pid(pool, index) == pid && !bri_pidfd_has_ended(fd);

    if (is_hit) {
        bri_add_relaxed(&books->killed, 1u);
        bri_pidfd_signal(fd, SIGKILL);
    }
    if (fd >= 0)
        close(fd);
    return is_hit;
}

static void kill_supervisor(void)
{
    bri_name name = bri_load_acquire(&pool->shared->supervisor);
    pid_t pid = (pid_t)bri_roster_pid_of(name);

    if (pid <= 0)
        return;
    bri_add_relaxed(&books->supervisors_killed, 1u);
    bri_add_relaxed(&books->killed, workers);
    kill(pid, SIGKILL);
}

/* A pool gives up when eight workers die in a row without having done anything: rightly so, also when nobody has given them any work.  So
 * no more of these in a row than would still leave a margin. */
static void kill_some_worker(uint64_t *random)
{
    static uint32_t idle_in_a_row;
    uint32_t victim = below(random, workers);

    if (has_worked(victim)) {
        kill_worker(victim);
        idle_in_a_row = 0;
    } else if (below(random, 4) == 0 && idle_in_a_row < IDLE_IN_A_ROW) {
        idle_in_a_row += (uint32_t)kill_worker(victim);
    }
}

static void *kill_now_and_then(void *argument)
{
    uint64_t random = *(uint64_t *)argument;
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC), kills_supervisors = below(&random, 2) == 0;

    while (!bri_load_acquire(&books->killer_may_go)) {
        pause_us(5000 + below(&random, 30000));
        kill_some_worker(&random);
        if (kills_supervisors && below(&random, 40) == 0 && bri_load_relaxed(&books->supervisors_killed) < 3)
            kill_supervisor();
        if (below(&random, 10) == 0)
            brood_pool_dump(pool, null);
    }
    close(null);
    return NULL;
}

/* In a seat: an owner with a pool of its own, until it is killed. */
static void play_owner(uint32_t seat, uint32_t life, uint64_t random)
{
    static struct batch batch;

    stress.random = random;
    first_region = (1 + life % (REGIONS / REGIONS_EACH - 1)) * REGIONS_EACH;
    regions_used = 0;
    now_doing(seat, "creates a pool");
    workers = 1 + below(&random, 2);
    int error = brood_pool_create(BROOD_POOL_OPTIONS(.workers = workers), &pool);
    expect(CALLS, error == 0, "a second owner's brood_pool_create: %d: %s", error, brood_error_text());
    while (error == 0 && !is_stopping()) {
        now_doing(seat, "runs jobs");
        submit(&batch, (int)below(&random, 2), 0);
        collect(&batch);
    }
    now_doing(seat, "destroys its pool");
    brood_pool_destroy(pool);
}

static void nothing(void)
{
}

static void no_books(uint32_t seat)
{
    (void)seat;
}

/* --- rounds --- */

static void create_pool(void)
{
    uint32_t tasks = below(&stress.random, 3) == 0 ? 1 + below(&stress.random, 30) : 0;

    workers = 1 + below(&stress.random, WORKERS_MOST);
    int error = brood_pool_create(
        BROOD_POOL_OPTIONS(.workers = workers, .tasks_per_worker = tasks, .grace_ms = 100), &pool);
    if (error < 0) {
        complain(CALLS, "brood_pool_create: %d: %s", error, brood_error_text());
        pool = NULL;
    }
}

static void play_jobs(void)
{
    int64_t end = brood_after_ms(ROUND_MS);

    while (bri_now_ns() < end && !has_failed()) {
        switch (below(&stress.random, 6)) {
        case 0:
            play_map();
            break;
        case 1:
        case 2:
            play_stream();
            break;
        case 3:
            drop_batch();
            break;
        default:
            play_batches();
        }
        uint32_t owner = below(&stress.random, OWNERS * 4);
        if (owner < OWNERS) {
            kill_seat(owner);
            fill_seat(owner);
        }
    }
}

/* One job runs when the pool's end comes. */
static void end_pool(void)
{
    static struct batch batch;

    submit(&batch, 1, 0);
    if (below(&stress.random, 2)) {
        expect_0(brood_pool_close(pool), "brood_pool_close");
        expect_0(brood_pool_join(pool, brood_after_ms(WITHIN_MS)), "brood_pool_join");
    } else {
        expect_0(brood_pool_terminate(pool), "brood_pool_terminate");
        batch.is_cancelled = 1;
    }
    if (batch.is_cancelled) /* how many nobody knows */
        for (uint32_t i = 0; i < batch.count; i++)
            bri_add_relaxed(&books->killed, 1u);
    int error = batch.result == NULL ? 0 : brood_result_wait(batch.result, brood_after_ms(WITHIN_MS));
    expect_0(error, "brood_result_wait at the end");
    if (batch.result != NULL)
        expect_0(brood_result_destroy(batch.result), "brood_result_destroy");
    expect_0(brood_pool_destroy(pool), "brood_pool_destroy");
}

static void play_with_killer(void)
{
    uint64_t random = next_random(&stress.random);
    pthread_t killer;

    if (pthread_create(&killer, NULL, kill_now_and_then, &random) != 0)
        abort();
    play_jobs();
    bri_store_release(&books->killer_may_go, 1u);
    pthread_join(killer, NULL);
}

static void play_round(void)
{
    books = shared_pages(sizeof *books);
    regions_used = 0;
    create_pool();
    for (uint32_t i = 0; pool != NULL && i < OWNERS; i++)
        fill_seat(i);
    if (pool != NULL) {
        play_with_killer();
        end_pool();
    }
    bri_store_release(&stress.shared->stop, 1u);
    await_seats(nothing, no_books);
    uint32_t died = bri_load_relaxed(&books->died), killed = bri_load_relaxed(&books->killed);
    expect(DEATHS, died <= killed, "%u items died that were not told to, %u workers were killed", died,
           killed);
    stress.deaths += killed;
    check_processes(PROCESSES);
    check_arena(ARENA);
    munmap(books, sizeof *books);
}

int main(int count, char **arguments)
{
    prepare(count, arguments, 8, checks, CHECKS);
    stress.play = play_owner;
    stress.seats_count = OWNERS;
    int failed = run_rounds(play_round);
    printf("# %llu items, %llu of which died\n", (unsigned long long)all_items,
           (unsigned long long)all_deaths);
    return failed;
}
