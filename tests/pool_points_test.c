/* SPDX-License-Identifier: MIT */
/*
 * Every fault point of the library that owner, supervisor and workers pass in a scenario, replayed with a kill at it: once at the first passing,
 * once at the third.  Whoever is killed, nothing hangs or leaks, and no item is run twice.
 */
#include "testing.h"

#include "base/check.h"

enum { ITEMS = 24, CHUNK = 3, REPLIES = 10, POINTS_MAX = 64, NAME_BYTES = 40, DIES = 5, FAILS = 11 };

enum who { OWNER, SUPERVISOR, WORKER, WHOS };

struct point {
    char name[NAME_BYTES];
    enum who who;
};

/* Shared by all processes of the scenario. */
static struct stage {
    _Atomic int is_recording, lock, left; /* left: passings until the kill */
    pid_t owner;
    size_t count;
    struct point points[POINTS_MAX], target;
    _Atomic int begun[ITEMS];
} * stage;

/* --- the hook --- */

static enum who who_am_i(const char *point)
{
    if (getpid() == stage->owner)
        return OWNER;
    if (bri_self() == 0)
        return strcmp(point, "supervisor.forked") == 0 ? SUPERVISOR : WORKER;
    return bri_load_relaxed(&bri_slot_of(bri_self())->role) == BRI_ROLE_SUPERVISOR ? SUPERVISOR : WORKER;
}

static int is_known(const char *name, enum who who)
{
    for (size_t i = 0; i < stage->count; i++)
        if (stage->points[i].who == who && strcmp(stage->points[i].name, name) == 0)
            return 1;
    return 0;
}

static void record(const char *name, enum who who)
{
    while (bri_exchange_acq_rel(&stage->lock, 1))
        sched_yield();
    if (!is_known(name, who) && stage->count < POINTS_MAX) {
        snprintf(stage->points[stage->count].name, NAME_BYTES, "%s", name);
        stage->points[stage->count++].who = who;
    }
    bri_store_release(&stage->lock, 0);
}

static void at_point(const char *name)
{
    enum who who = who_am_i(name);

    if (bri_load_acquire(&stage->is_recording))
        record(name, who);
    else if (stage->target.who == who && strcmp(stage->target.name, name) == 0 &&
             bri_add_relaxed(&stage->left, -1) == 1)
        kill(getpid(), SIGKILL);
}

/* --- the scenario, in the owner --- */

static int work(brood_task *task, const void *item, void *result)
{
    size_t index = brood_task_index(task);

    (void)item;
    bri_add_relaxed(&stage->begun[index], 1);
    if (index == DIES)
        raise(SIGKILL);
    if (index == FAILS)
        return brood_task_fail(task, 3, "fails");
    *(size_t *)result = index + 100;
    return 0;
}

static int reply(brood_task *task, const void *item, void *result)
{
    (void)result;
    return brood_task_reply(task, item, brood_task_item_bytes(task));
}

static void check_item(brood_result *result, size_t index, const size_t *values, int *deaths)
{
    brood_outcome outcome;

    child_check(brood_result_outcome(result, index, &outcome) == 0);
    *deaths += outcome.kind == BROOD_DIED;
    child_check(bri_load_relaxed(&stage->begun[index]) <= 1);
    if (index == DIES)
        child_check(outcome.kind == BROOD_DIED);
    else if (index == FAILS)
        child_check(outcome.kind == BROOD_ERROR || outcome.kind == BROOD_DIED);
    else
        child_check(outcome.kind == BROOD_DIED ||
                    (outcome.kind == BROOD_VALUE && values[index] == index + 100));
}

/* One item dies by itself; the kill may take another, or, with the supervisor, one of each worker. */
static void map_items(brood_pool *pool, int most_deaths)
{
    size_t values[ITEMS];
    brood_result *result;
    int deaths = 0;

    for (size_t i = 0; i < ITEMS; i++)
        bri_store_relaxed(&stage->begun[i], 0);
    child_check(brood_pool_map_async(pool, work, NULL, 0, sizeof *values, ITEMS,
                                     BROOD_MAP_OPTIONS(.chunk_items = CHUNK), &result) == 0);
    int error = brood_result_get(result, values, sizeof values, brood_after_ms(WITHIN_MS));
    child_check(error == -EOWNERDEAD);
    for (size_t i = 0; i < ITEMS; i++)
        check_item(result, i, values, &deaths);
    child_check(deaths <= most_deaths);
    child_check(brood_result_destroy(result) == 0);
}

static void map_replies(brood_pool *pool)
{
    char texts[REPLIES][100];
    brood_message items[REPLIES], got;
    brood_result *result;
    brood_outcome outcome;

    for (size_t i = 0; i < REPLIES; i++) {
        memset(texts[i], (int)i + 'a', sizeof texts[i]);
        items[i] = (brood_message){texts[i], i * 10};
    }
    child_check(brood_pool_map_bytes_async(pool, reply, items, REPLIES, NULL, &result) == 0);
    int error = brood_result_get(result, NULL, 0, brood_after_ms(WITHIN_MS));
    child_check(error == 0 || error == -EOWNERDEAD);
    for (size_t i = 0; i < REPLIES; i++) {
        child_check(brood_result_outcome(result, i, &outcome) == 0);
        if (outcome.kind == BROOD_DIED)
            continue;
        child_check(brood_result_bytes(result, i, &got) == 0);
        child_check(got.bytes == i * 10 && memcmp(got.data, texts[i], got.bytes) == 0);
    }
    child_check(brood_result_destroy(result) == 0);
}

static void perform(void *unused)
{
    brood_pool *pool;

    (void)unused;
    stage->owner = getpid();
    bri_fault_hook = at_point;
    child_check(brood_pool_create(BROOD_POOL_OPTIONS(.workers = 2), &pool) == 0);
    map_items(pool, 4);
    map_replies(pool);
    map_items(pool, 4);
    child_check(brood_pool_destroy(pool) == 0);
}

/* --- the tests --- */

static void replay(const struct point *point, int passing)
{
    stage->target = *point;
    stage->left = passing;
    fprintf(stderr, "# killed at %s (%d), passing %d\n", point->name, (int)point->who, passing);
    int status = status_of(start_child(perform, NULL));
    int was_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    if (status != 0 && !(point->who == OWNER && was_killed))
        fail_msg("killed at %s (%d), passing %d: status %x", point->name, (int)point->who, passing,
                 (unsigned)status);
    assert_nothing_leaked();
}

static void replay_all(enum who who)
{
    for (size_t i = 0; i < stage->count; i++)
        for (int passing = 1; passing <= 3; passing += 2)
            if (stage->points[i].who == who)
                replay(&stage->points[i], passing);
}

static void the_scenario_passes_points(void **unused)
{
    size_t passed[WHOS] = {0};

    (void)unused;
    stage->is_recording = 1;
    in_child(perform, NULL);
    stage->is_recording = 0;
    for (size_t i = 0; i < stage->count; i++)
        passed[stage->points[i].who]++;
    assert_true(passed[OWNER] > 0 && passed[SUPERVISOR] > 5 && passed[WORKER] > 5);
}

static void workers_may_be_killed_at_each(void **unused)
{
    (void)unused;
    replay_all(WORKER);
}

static void supervisors_may_be_killed_at_each(void **unused)
{
    (void)unused;
    replay_all(SUPERVISOR);
}

static void owners_may_be_killed_at_each(void **unused)
{
    (void)unused;
    replay_all(OWNER);
}

static int make_stage(void **state)
{
    stage = shared_pages(sizeof *stage);
    return make_arena(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        clean_test(the_scenario_passes_points),
        clean_test(workers_may_be_killed_at_each),
        clean_test(supervisors_may_be_killed_at_each),
        clean_test(owners_may_be_killed_at_each),
    };

    prepare_tests();
    return cmocka_run_group_tests_name("pool_points", tests, make_stage, NULL);
}
