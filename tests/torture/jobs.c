/* SPDX-License-Identifier: MIT */
/* The jobs of the part "pools": maps, applies and streams of tasks that may end in any way, and what became of each.  See tasks.h. */
#include "pools.h"

enum { BATCH = 3 };

/* Those that end their worker are rare, so that a job is mostly whole; those that take long are rarer. */
static uint32_t choose_deadly_errand(void)
{
    uint32_t dice = below(&torture.random, 24);

    if (!is_limited || dice < 20)
        return DIE_BY_KILL + dice % 6;
    if (dice < 23)
        return DIE_BY_MEMORY;
    return below(&torture.random, 4) > 0 && books->oom_group[0] != '\0' ? DIE_BY_OOM : DIE_BY_CPU;
}

static uint32_t choose_failing_errand(void)
{
    static const uint32_t failing[] = {FAIL, RETURN_CODE, OPEN_FILES, TAKE_MEMORY};

    return failing[below(&torture.random, is_limited ? 4 : 2)];
}

static uint32_t choose_errand(const struct fate *fate, int may_allocate)
{
    uint32_t dice = below(&torture.random, 400);

    if (dice < 5)
        return choose_deadly_errand();
    if (dice < 12)
        return choose_failing_errand();
    if (dice < 24 && (fate->may_be_late || fate->may_be_ended))
        return dice % 2 ? HANG : HANG_DEAF;
    if (dice < 28 && fate->retries > 0)
        return DIE_ONCE;
    if (dice < 60)
        return may_allocate ? ALLOCATE : WORK;
    return dice < 120 ? SPIN : dice < 128 ? NAP : WORK;
}

/* What may come over this batch, besides what its errands say. */
static void choose_fate(struct batch *batch)
{
    switch (below(&torture.random, 6)) {
    case 0:
        batch->item_timeout_ms = 15 + below(&torture.random, 60);
        break;
    case 1:
        batch->timeout_ms = 20 + below(&torture.random, 200);
        break;
    case 2:
        batch->fate.may_be_ended = 1;
        break;
    case 3:
        batch->fate.may_be_cancelled = 1;
        break;
    default:
        break;
    }
    batch->fate.may_be_late = batch->item_timeout_ms != 0 || batch->timeout_ms != 0;
    batch->fate.retries = below(&torture.random, 3) == 0 ? 1 + below(&torture.random, 2) : 0;
}

static void make_items(struct batch *batch, int may_allocate)
{
    static const uint32_t most[] = {3, 40, ITEMS};
    uint32_t region = first_region + regions_used++ % REGIONS_EACH;

    batch->count = 1 + below(&torture.random, most[below(&torture.random, 3)]);
    for (uint32_t i = 0; i < batch->count; i++) {
        batch->items[i] = (struct item){region, i, choose_errand(&batch->fate, may_allocate),
                                        below(&torture.random, REPLY_MOST), next_random(&torture.random)};
        bri_store_relaxed(&books->lives[region][i].begun, (uint16_t)0);
        bri_store_relaxed(&books->lives[region][i].ended, (uint16_t)0);
    }
}

static const brood_map_options *options_of(const struct batch *batch)
{
    static brood_map_options options;

    options =
        (brood_map_options){.size = sizeof options,
                            .chunk_items = below(&torture.random, 2) ? 0 : 1 + below(&torture.random, 20),
                            .timeout_ms = batch->timeout_ms,
                            .item_timeout_ms = batch->item_timeout_ms,
                            .retries = batch->fate.retries};
    return &options;
}

void submit(struct batch *batch, int is_bytes, int may_allocate)
{
    brood_message messages[ITEMS];
    int error;

    make_items(batch, may_allocate && !is_bytes);
    batch->is_bytes = is_bytes;
    for (uint32_t i = 0; i < batch->count; i++)
        messages[i] = (brood_message){&batch->items[i], sizeof batch->items[i]};
    if (is_bytes)
        error = brood_pool_map_bytes_async(pool, run_bytes, messages, batch->count, options_of(batch),
                                           &batch->result);
    else if (batch->count == 1 && !batch->fate.may_be_late && batch->fate.retries == 0)
        error = brood_pool_apply_async(pool, run_fixed, batch->items, sizeof batch->items[0],
                                       sizeof(uint64_t), &batch->result);
    else
        error = brood_pool_map_async(pool, run_fixed, batch->items, sizeof batch->items[0], sizeof(uint64_t),
                                     batch->count, options_of(batch), &batch->result);
    expect_0(error, "submit");
    if (error < 0)
        batch->result = NULL;
}

static void check_end(const struct batch *batch, uint32_t i, const brood_outcome *outcome)
{
    check_outcome(&batch->items[i], outcome, &batch->fate);
    if (outcome->kind == BROOD_TIMED_OUT && batch->item_timeout_ms != 0)
        note_fault(LATE_ITEM);
}

static void check_item(struct batch *batch, uint32_t i, const uint64_t *values)
{
    brood_outcome outcome = {.kind = BROOD_PENDING};
    brood_message reply;

    expect_0(brood_result_outcome(batch->result, i, &outcome), "brood_result_outcome");
    check_end(batch, i, &outcome);
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

static void check_get(const struct batch *batch, int error)
{
    const struct fate *fate = &batch->fate;

    expect(CALLS,
           error == 0 || error == -EREMOTEIO || error == -EOWNERDEAD ||
               (error == -ETIME && fate->may_be_late) ||
               (error == -ECANCELED && (fate->may_be_cancelled || fate->may_be_ended)),
           "brood_result_get: %d: %s", error, brood_error_text());
    if (error == -ETIME && batch->timeout_ms != 0)
        note_fault(LATE_WHOLE);
}

void collect(struct batch *batch)
{
    static uint64_t values[ITEMS];

    if (batch->result == NULL)
        return;
    int error = brood_result_wait(batch->result, brood_after_ms(WITHIN_MS));
    if (error < 0) {
        complain(HANGS, "a job of %u items is not done after %d ms: %d: %s", batch->count, WITHIN_MS, error,
                 brood_error_text());
        brood_pool_dump(pool, STDOUT_FILENO);
        print_states(getsid(0));
    } else {
        check_get(batch, brood_result_get(batch->result, batch->is_bytes ? NULL : values,
                                          batch->is_bytes ? 0 : sizeof values, BROOD_NOW));
        for (uint32_t i = 0; i < batch->count; i++)
            check_item(batch, i, values);
        expect(OUTCOMES, batch->cancelled == 0 || (batch->fate.may_be_ended && batch->cancelled < 0),
               "%lld items too many were said to be cancelled", (long long)batch->cancelled);
    }
    expect_0(brood_result_destroy(batch->result), "brood_result_destroy");
}

static void cancel_if_told(struct batch *batch)
{
    if (batch->result == NULL || !(batch->fate.may_be_cancelled || batch->fate.may_be_ended))
        return;
    if (below(&torture.random, 2))
        pause_us(below(&torture.random, 3000));
    batch->cancelled = batch->fate.may_be_ended ? brood_result_cancel_running(batch->result)
                                                : brood_result_cancel(batch->result);
    expect(CALLS, batch->cancelled >= 0, "cancel: %d: %s", (int)batch->cancelled, brood_error_text());
    note_fault(batch->fate.may_be_ended ? CANCEL_RUNNING : CANCEL);
}

void play_batches(void)
{
    static struct batch batches[BATCH];
    uint32_t count = 1 + below(&torture.random, BATCH);

    for (uint32_t i = 0; i < count; i++) {
        batches[i] = (struct batch){0};
        choose_fate(&batches[i]);
        submit(&batches[i], (int)below(&torture.random, 2), 1);
    }
    for (uint32_t i = 0; i < count;
         i++) /* all before one is waited for: what hangs keeps the workers from the others */
        cancel_if_told(&batches[i]);
    for (uint32_t i = 0; i < count; i++)
        collect(&batches[i]);
}

/* One that nobody waits for. */
void drop_batch(void)
{
    static struct batch batch;

    batch = (struct batch){0};
    submit(&batch, (int)below(&torture.random, 2), 0);
    if (batch.result != NULL)
        expect_0(brood_result_destroy(batch.result), "brood_result_destroy");
}

void play_map(void)
{
    static struct batch batch;
    static uint64_t values[ITEMS];
    uint32_t failing = 0, lacking = 0;

    batch = (struct batch){.fate = {.retries = below(&torture.random, 2)}};
    make_items(&batch, 0);
    memset(values, 0, sizeof values);
    int error = brood_pool_map(pool, run_fixed, batch.items, sizeof batch.items[0], values, sizeof values[0],
                               batch.count, options_of(&batch));
    for (uint32_t i = 0; i < batch.count; i++) {
        int fails = is_told_to_die(&batch.items[i]) || is_told_to_fail(&batch.items[i]);
        failing += (uint32_t)fails;
        lacking += !fails && values[i] != value_of(&batch.items[i]);
    }
    note_checked(TASKS, batch.count);
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

static brood_stream *begin_stream(struct batch *batch, int is_ordered)
{
    size_t max_items = below(&torture.random, 2) ? 0 : 1 + below(&torture.random, 12);
    brood_stream *stream = NULL;

    *batch = (struct batch){.fate = {.retries = below(&torture.random, 2)}};
    if (below(&torture.random, 3) == 0)
        batch->item_timeout_ms = 15 + below(&torture.random, 60);
    batch->fate.may_be_late = batch->item_timeout_ms != 0;
    make_items(batch, 0);
    const brood_imap_options *options =
        BROOD_IMAP_OPTIONS(.max_items = max_items, .item_timeout_ms = batch->item_timeout_ms,
                           .retries = batch->fate.retries);
    int error = is_ordered ? brood_pool_imap(pool, run_bytes, next_item, batch, options, &stream)
                           : brood_pool_imap_unordered(pool, run_bytes, next_item, batch, options, &stream);
    expect_0(error, "imap");
    return error == 0 ? stream : NULL;
}

void play_stream(void)
{
    static struct batch batch;
    static uint8_t seen[ITEMS];
    brood_stream_item item;
    int is_ordered = (int)below(&torture.random, 2), got = 1;
    size_t count = 0;

    memset(seen, 0, sizeof seen);
    brood_stream *stream = begin_stream(&batch, is_ordered);
    uint32_t stop_at = below(&torture.random, 4) == 0 ? below(&torture.random, batch.count) : UINT32_MAX;
    while (stream != NULL && count < stop_at &&
           (got = brood_stream_next(stream, &item, brood_after_ms(WITHIN_MS))) == 1) {
        expect(VALUES,
               item.index < batch.count && !seen[item.index]++ && (!is_ordered || item.index == count),
               "a stream gives item %zu as number %zu", item.index, count);
        check_end(&batch, (uint32_t)item.index, &item.outcome);
        if (item.outcome.kind == BROOD_VALUE)
            check_reply(&batch.items[item.index], &item.reply);
        count++;
    }
    expect(OUTCOMES, stream == NULL || got == 1 || (got == 0 && count == batch.count),
           "a stream ends with %d after %zu of %u items: %s", got, count, batch.count, brood_error_text());
    if (stream != NULL)
        expect_0(brood_stream_destroy(stream), "brood_stream_destroy");
}
