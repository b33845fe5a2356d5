/* SPDX-License-Identifier: MIT */
/*
 * Enumerates the kill points: each operation is killed at each fault point that it passes, the heap's included, and each
 * undertaking of such a death is killed at each fault point of its own.  Then the survivors look.
 */
#include "queue/queue_testing.h"

#if defined(BROOD_FAULT_POINTS) && BROOD_FAULT_POINTS

static _Thread_local int points_left;

static void die_at_point(const char *point)
{
    (void)point;
    if (points_left > 0 && --points_left == 0)
        raise(SIGKILL);
}

/* Messages: their first four bytes are numbers without a gap. */
enum { SMALL = 100, LARGE = 6000, MOST = 8000 };

static void put_number(brood_queue *queue, uint32_t number, size_t bytes)
{
    static char buffer[MOST];

    memcpy(buffer, &number, sizeof number);
    child_check(brood_queue_put(queue, buffer, bytes, BROOD_NOW) == 0);
}

struct scenario {
    const char *name;
    uint32_t there; /* messages before it, the last `large_there` of them large */
    uint32_t large_there;
    int32_t least,
        most; /* by how many messages it changes the queue when it is killed, and when not: most or least */
    void (*operate)(brood_queue *queue, uint32_t there);
};

static void put_small(brood_queue *queue, uint32_t there)
{
    put_number(queue, there, SMALL);
}

static void put_large(brood_queue *queue, uint32_t there)
{
    put_number(queue, there, LARGE);
}

static void put_many(brood_queue *queue, uint32_t there)
{
    static char buffers[6][MOST];
    brood_message messages[6];

    for (uint32_t i = 0; i < 6; i++) {
        uint32_t number = there + i;
        memcpy(buffers[i], &number, sizeof number);
        messages[i] = (brood_message){buffers[i], i == 3 ? LARGE : 3000};
    }
    child_check(brood_queue_put_many(queue, messages, 6, BROOD_NOW) == 6);
}

static void reserve_and_commit(brood_queue *queue, uint32_t there)
{
    brood_message message;

    child_check(brood_queue_reserve(queue, SMALL, &message) == 0);
    memcpy(message.data, &there, sizeof there);
    child_check(brood_queue_commit(queue, &message, BROOD_NOW) == 0);
}

static void get_one(brood_queue *queue, uint32_t there)
{
    static char buffer[MOST];
    size_t bytes;

    (void)there;
    child_check(brood_queue_get(queue, buffer, sizeof buffer, &bytes, BROOD_NOW) == 0);
}

static void get_all(brood_queue *queue, uint32_t there)
{
    static char buffer[40 * MOST];
    brood_message messages[200];

    child_check(brood_queue_get_many(queue, buffer, sizeof buffer, messages, 200, BROOD_NOW) == (int)there);
}

static void borrow_and_release(brood_queue *queue, uint32_t there)
{
    brood_message message;

    (void)there;
    child_check(brood_queue_borrow(queue, &message, BROOD_NOW) == 0);
    child_check(brood_queue_release(queue, &message) == 0);
}

static void close_it(brood_queue *queue, uint32_t there)
{
    (void)there;
    child_check(brood_queue_close(queue) == 0);
}

static void hang_bell(brood_queue *queue, uint32_t there)
{
    (void)there;
    child_check(brood_queue_fd(queue) >= 0);
    child_check(brood_queue_fd_close(queue) == 0);
}

static void create_and_destroy(brood_queue *queue, uint32_t there)
{
    brood_queue *own;

    (void)queue, (void)there;
    int points = points_left;
    points_left = 0; /* only destroy: a queue that was handed out lives */
    child_check(brood_queue_create(NULL, &own) == 0);
    for (uint32_t i = 0; i < 5; i++)
        put_number(own, i, i < 3 ? 4000 : LARGE);  /* two segments, two blocks */
    bri_block_pass(bri_block_of(own), bri_self()); /* as destroy does first */
    points_left = points;
    child_check(brood_queue_destroy(own) == 0);
}

/* The first segment holds 63 messages of 100 bytes, the next twice as many. */
static const struct scenario scenarios[] = {
    {"put", 3, 0, 0, 1, put_small},
    {"put into a new segment", 63, 0, 0, 1, put_small},
    {"put into a third segment", 190, 0, 0, 1, put_small},
    {"put large", 3, 0, 0, 1, put_large},
    {"put large into a new segment", 63, 0, 0, 1, put_large},
    {"put many", 3, 0, 0, 6, put_many},
    {"commit", 3, 0, 0, 1, reserve_and_commit},
    {"get", 3, 0, -1, 0, get_one},
    {"get large", 2, 2, -1, 0, get_one},
    {"get many", 150, 3, -150, 0, get_all},
    {"borrow", 3, 0, -1, 0, borrow_and_release},
    {"borrow large", 2, 2, -1, 0, borrow_and_release},
    {"close", 3, 0, 0, 0, close_it},
    {"bell", 3, 0, 0, 0, hang_bell},
    {"destroy", 3, 0, 0, 0, create_and_destroy},
};

static void run_scenario(brood_queue *queue, void *argument)
{
    const struct scenario *scenario = argument;

    scenario->operate(queue, scenario->there);
}

/* Starts `function` in a child that dies at its n-th fault point; returns whether it got there. */
struct victim {
    child_function *function;
    void *argument;
    int points;
};

static void be_victim(brood_queue *queue, void *argument)
{
    struct victim *victim = argument;

    points_left = victim->points;
    bri_fault_hook = die_at_point;
    victim->function(queue, victim->argument);
}

static int dies_at(int points, child_function *function, brood_queue *queue, void *argument,
                   bri_name *ret_name)
{
    struct victim victim = {function, argument, points};
    struct child child = start_child(be_victim, queue, &victim);
    int status;

    assert_int_equal(waitpid(child.pid, &status, 0), child.pid);
    *ret_name = name_of(&child);
    assert_true(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
    return status != 0;
}

static void report_to(brood_queue *queue, void *argument)
{
    (void)queue;
    bri_report_if_ended(*(bri_name *)argument);
}

static void drain_numbers(brood_queue *queue, uint32_t first, uint32_t end)
{
    static char buffer[MOST];
    uint32_t number;
    size_t bytes;

    for (uint32_t i = first; i < end; i++) {
        assert_int_equal(brood_queue_get(queue, buffer, sizeof buffer, &bytes, BROOD_NOW), 0);
        memcpy(&number, buffer, sizeof number);
        assert_int_equal(number, i);
    }
    assert_int_equal(brood_queue_size(queue), 0);
}

static void survivors_look(const struct scenario *scenario, brood_queue *queue, uint64_t before)
{
    int64_t change = brood_queue_size(queue) - (int64_t)scenario->there;

    assert_true(bri_queue_is_valid(queue));
    assert_true(bri_heap_is_valid());
    assert_true(scenario->least <= change && change <= scenario->most);
    if (scenario->operate != close_it)
        put_number(queue, scenario->there + (uint32_t)(change > 0 ? change : 0), SMALL);
    uint32_t first = change < 0 ? (uint32_t)-change : 0;
    uint32_t end = scenario->there + (uint32_t)(change > 0 ? change : 0) + (scenario->operate != close_it);
    drain_numbers(queue, first, end);
    assert_true(bri_queue_is_valid(queue));
    assert_int_equal(brood_queue_destroy(queue), 0);
    assert_int_equal(used_blocks(), before);
}

static brood_queue *queue_for(const struct scenario *scenario)
{
    brood_queue *queue = new_queue(0, 0);

    for (uint32_t i = 0; i < scenario->there; i++)
        put_number(queue, i, i + scenario->large_there >= scenario->there ? LARGE : SMALL);
    return queue;
}

/* Kills the operation at point n and, when m is not 0, its undertaker at point m.  Returns whether both got there. */
static int kill_at(const struct scenario *scenario, int n, int m)
{
    uint64_t before = used_blocks();
    brood_queue *queue = queue_for(scenario);
    bri_name victim, undertaker;
    int both = dies_at(n, run_scenario, queue, (void *)(uintptr_t)scenario, &victim);

    if (both && m != 0)
        both = dies_at(m, report_to, queue, &victim, &undertaker);
    bri_report_if_ended(victim);
    if (m != 0)
        bri_report_if_ended(undertaker);
    bri_undertake();
    survivors_look(scenario, queue, before);
    return both;
}

static void every_kill(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++) {
        int kills = 0, n = 1;
        for (; kill_at(&scenarios[i], n, 0); n++)
            for (int m = 1; kill_at(&scenarios[i], n, m); m++)
                kills++;
        print_message("%s: killed at %d points, its undertakers at %d\n", scenarios[i].name, n - 1, kills);
        assert_true(n > 1);
    }
}

/* The queue is not there before create returns. */
static void create_one(brood_queue *unused, void *argument)
{
    brood_queue *queue;

    (void)unused, (void)argument;
    child_check(brood_queue_create(NULL, &queue) == 0);
    points_left = 0;
    child_check(brood_queue_destroy(queue) == 0);
}

static void every_kill_of_create(void **state)
{
    uint64_t before = used_blocks();
    bri_name victim, undertaker;

    (void)state;
    for (int n = 1; dies_at(n, create_one, NULL, NULL, &victim); n++) {
        bri_report_if_ended(victim);
        assert_int_equal(used_blocks(), before);
        for (int m = 1, died = 1; died; m++) {
            dies_at(n, create_one, NULL, NULL, &victim);
            died = dies_at(m, report_to, NULL, &victim, &undertaker);
            bri_report_if_ended(undertaker);
            bri_undertake();
            assert_int_equal(used_blocks(), before);
        }
    }
}

#else

static void every_kill(void **state)
{
    (void)state;
    skip_because("needs -Dfault_points=true");
}

#define every_kill_of_create every_kill

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kill),
        cmocka_unit_test(every_kill_of_create),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
