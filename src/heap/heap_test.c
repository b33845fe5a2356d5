/* SPDX-License-Identifier: MIT */
/* Blocks under many processes, some of which are killed. */
#include "heap/heap.h"
#include "base/testing.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "arena/roster.h"
#include "arena/undertaker.h"
#include "base/check.h"
#include "brood.h"
#include "heap/pages.h"

enum { CHILDREN = 4, HELD = 24, STEPS = 1500, LIVES = 60, LARGEST = 10 << 20 };

#define child_check(condition)                                                                              \
    ((condition) ? (void)0                                                                                  \
                 : (dprintf(STDERR_FILENO, "# %s:%d: does not hold in the child: %s\n", __FILE__, __LINE__, \
                            #condition),                                                                    \
                    _exit(99)))

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static brood_arena_stats stats(void)
{
    brood_arena_stats now = {.size = sizeof now};

    assert_int_equal(brood_arena_stats_get(&now), 0);
    return now;
}

static void *take(enum bri_kind kind, uint64_t bytes)
{
    void *memory = NULL;

    assert_int_equal(bri_heap_alloc(kind, bytes, bri_self(), &memory), 0);
    return memory;
}

/* --- one process --- */

static void blocks_are_aligned_and_known(void **unused)
{
    uint64_t before = stats().used_blocks;

    (void)unused;
    for (uint64_t bytes = 0; bytes <= LARGEST; bytes = bytes * 3 / 2 + 1) {
        char *memory = take(BRI_KIND_DATA, bytes);
        assert_int_equal((uintptr_t)memory % BRI_CACHE_LINE, 0);
        assert_true(bri_load_relaxed(&bri_block_of(memory)->bytes) == bytes);
        assert_int_equal(bri_tag_owner(bri_load_relaxed(&bri_block_of(memory)->tag)), bri_self());
        memset(memory, 0xa5, bytes);
        if (bytes >= sizeof(struct bri_block_shm)) /* the copy of a header begins no block */
            memcpy(memory, (void *)bri_block_of(memory), sizeof(struct bri_block_shm));
        assert_true(bri_heap_is(memory, BRI_KIND_DATA));
        assert_false(bri_heap_is(memory, BRI_KIND_USER));
        assert_false(bri_heap_is(memory + 64, BRI_KIND_DATA));
        assert_false(bri_heap_is(memory + 1, BRI_KIND_DATA));
        assert_true(bri_heap_is_valid());
        bri_heap_free(memory);
        assert_false(bri_heap_is(memory, BRI_KIND_DATA));
    }
    assert_true(stats().used_blocks == before);
}

static void addresses_from_anywhere_are_no_blocks(void **unused)
{
    int local;
    const struct bri_header_shm *header = bri_arena_current->header;
    const char *end = bri_arena_current->base + header->window_bytes;

    (void)unused;
    assert_false(bri_heap_is(NULL, BRI_KIND_DATA));
    assert_false(bri_heap_is(&local, BRI_KIND_DATA));
    assert_false(bri_heap_is(header, BRI_KIND_DATA));
    assert_false(bri_heap_is(end, BRI_KIND_DATA));
    assert_false(bri_heap_is(end - 64, BRI_KIND_DATA));
    assert_false(bri_heap_is((const void *)UINTPTR_MAX, BRI_KIND_DATA));
    for (const char *at = bri_page_at(0) - 4096; at < bri_page_at(2); at += 32)
        bri_heap_is(at, BRI_KIND_DATA);
}

static void zeroed_is_zero_also_when_used_before(void **unused)
{
    (void)unused;
    for (uint64_t bytes = 1; bytes <= 1 << 20; bytes *= 4) {
        char *memory = take(BRI_KIND_DATA, bytes);
        void *again;
        memset(memory, 0xff, bytes);
        bri_heap_free(memory);
        assert_int_equal(bri_heap_alloc_zeroed(BRI_KIND_DATA, bytes, bri_self(), &again), 0);
        for (uint64_t i = 0; i < bytes; i++)
            assert_int_equal(((char *)again)[i], 0);
        bri_heap_free(again);
    }
}

/* What was used before, and is warm, goes first. */
static void memory_is_used_again(void **unused)
{
    (void)unused;
    for (uint64_t bytes = 100; bytes <= LARGEST; bytes *= 10) {
        bri_heap_free(take(BRI_KIND_DATA, bytes));
        uint64_t grown = stats().grown_bytes;
        for (int i = 0; i < 100; i++)
            bri_heap_free(take(BRI_KIND_DATA, bytes));
        assert_true(stats().grown_bytes == grown);
    }
}

static _Atomic uint64_t *page_word_of(const void *memory)
{
    return bri_page_word((bri_offset_of(memory) - bri_arena_current->header->pages_at) / BRI_PAGE_BYTES);
}

/* Memory that holds a lock is never put to another use. */
static void locks_have_pages_of_their_own(void **unused)
{
    void *locks[200], *data[200], *last = take(BRI_KIND_DATA, 48);

    (void)unused;
    for (int i = 0; i < 200; i++)
        locks[i] = take(BRI_KIND_LOCK, 48);
    assert_int_equal(bri_page_state_of(*page_word_of(locks[0])), BRI_PAGE_SLAB); /* runs are put to any use */
    assert_int_not_equal(bri_page_class_of(*page_word_of(locks[0])), bri_page_class_of(*page_word_of(last)));
    bri_heap_free(last);
    for (int i = 0; i < 200; i++)
        bri_heap_free(locks[i]);
    for (int i = 0; i < 200; i++) {
        data[i] = take(BRI_KIND_DATA, 48);
        for (int j = 0; j < 200; j++)
            assert_ptr_not_equal(data[i], locks[j]);
    }
    for (int i = 0; i < 200; i++)
        bri_heap_free(data[i]);
}

static void running_out_is_an_error(void **unused)
{
    void *memory = NULL;

    (void)unused;
    assert_int_equal(bri_heap_alloc(BRI_KIND_DATA, UINT64_MAX - 63, bri_self(), &memory), -ENOMEM);
    assert_int_equal(bri_heap_alloc(BRI_KIND_DATA, UINT64_C(1) << 46, bri_self(), &memory), -ENOMEM);
    assert_null(memory);
    assert_true(bri_heap_is_valid());
}

/* --- several processes --- */

/* A block's first and last bytes and some between tell whose it is. */
static void stamp(unsigned char *memory, uint64_t bytes, unsigned char mark)
{
    for (uint64_t at = 0; at < bytes; at += bytes / 50 + 1)
        memory[at] = mark;
    memory[bytes - 1] = mark;
}

static int is_stamped(const unsigned char *memory, uint64_t bytes, unsigned char mark)
{
    for (uint64_t at = 0; at < bytes; at += bytes / 50 + 1)
        if (memory[at] != mark)
            return 0;
    return memory[bytes - 1] == mark;
}

/* Small ones are much likelier. */
static uint64_t random_bytes(uint32_t *seed)
{
    uint64_t most = UINT64_C(2) << next_random(seed) % 24;

    return 1 + next_random(seed) % (most < LARGEST ? most : LARGEST);
}

struct held {
    unsigned char *memory;
    uint64_t bytes;
};

static void step(struct held *held, uint32_t *seed, unsigned char mark)
{
    if (held->memory != NULL) {
        child_check(is_stamped(held->memory, held->bytes, mark));
        bri_heap_free(held->memory);
        held->memory = NULL;
        return;
    }
    void *memory;
    held->bytes = random_bytes(seed);
    child_check(bri_heap_alloc(BRI_KIND_DATA, held->bytes, bri_self(), &memory) == 0);
    held->memory = memory;
    stamp(held->memory, held->bytes, mark);
}

static int deadly_passing;
static const char *deadly_point;

static void die_at_point(const char *point)
{
    if (deadly_passing > 0 && strcmp(point, deadly_point) == 0 && --deadly_passing == 0)
        raise(SIGKILL);
}

/* Every second child dies at a fault point by itself, the others are killed or live through. */
static void live(uint32_t seed, unsigned char mark)
{
    static const char *const points[] = {"heap.alloc.unlinked", "heap.pages.split"};
    struct held held[HELD] = {{NULL, 0}};

    child_check(bri_arena_enter() == 0);
    deadly_point = points[next_random(&seed) % 2];
    deadly_passing = next_random(&seed) % 2 ? 1 + (int)(next_random(&seed) % 40) : 0;
    bri_fault_hook = die_at_point;
    for (int i = 0; i < STEPS / LIVES * 10; i++)
        step(&held[next_random(&seed) % HELD], &seed, mark);
    for (int i = 0; i < HELD; i++)
        if (held[i].memory != NULL)
            step(&held[i], &seed, mark);
    _exit(0);
}

static pid_t start_life(uint32_t *seed, int index)
{
    pid_t parent = getpid(), pid = fork();
    uint32_t childs = next_random(seed);

    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent)
            live(childs, (unsigned char)(index + 1));
        _exit(98);
    }
    return pid;
}

static void report_the_ended(void)
{
    for (uint32_t slot = 0; slot < BRI_SLOTS; slot++) {
        enum bri_slot_state state;
        bri_name name = bri_roster_name_at(slot, &state);
        if (state == BRI_SLOT_LIVE)
            bri_report_if_ended(name);
    }
}

struct storm {
    uint32_t seed;
    int started, alive;
    pid_t pids[CHILDREN]; /* 0: ended */
};

static void kill_some(struct storm *storm)
{
    pid_t pid = storm->pids[next_random(&storm->seed) % CHILDREN];

    if (pid != 0 && next_random(&storm->seed) % 3 == 0)
        kill(pid, SIGKILL);
}

static void bury_one(struct storm *storm)
{
    int status, index = 0;
    pid_t pid = waitpid(-1, &status, 0);

    while (index < CHILDREN && storm->pids[index] != pid)
        index++;
    assert_in_range(index, 0, CHILDREN - 1);
    assert_true(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
    report_the_ended();
    assert_true(bri_heap_is_valid());
    storm->pids[index] = storm->started < LIVES ? start_life(&storm->seed, index) : 0;
    storm->alive -= storm->started++ >= LIVES;
}

static void processes_may_be_killed_in_it(void **unused)
{
    struct storm storm = {
        .seed = (uint32_t)brood_random_between(1, INT32_MAX), .started = CHILDREN, .alive = CHILDREN};
    uint64_t before = stats().used_blocks;

    (void)unused;
    fprintf(stderr, "# seed %u\n", (unsigned)storm.seed);
    for (int i = 0; i < CHILDREN; i++)
        storm.pids[i] = start_life(&storm.seed, i);
    while (storm.alive > 0) {
        kill_some(&storm);
        bury_one(&storm);
    }
    assert_true(stats().used_blocks == before);
}

/* --- whose a block is --- */

static void hold_and_die(void **shown)
{
    child_check(bri_arena_enter() == 0);
    for (int i = 0; i < 4; i++)
        child_check(bri_heap_alloc(BRI_KIND_DATA, i < 2 ? 100 : 100000, bri_self(), &shown[i]) == 0);
    bri_block_pass(bri_block_of(shown[1]), 0);
    bri_block_pass(bri_block_of(shown[3]), 0);
    raise(SIGKILL);
}

static void what_was_passed_on_lives_on(void **unused)
{
    void **shown = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t before = stats().used_blocks;
    pid_t pid = fork();

    (void)unused;
    if (pid == 0)
        hold_and_die(shown);
    waitpid(pid, NULL, 0);
    assert_true(stats().used_blocks == before + 4);
    report_the_ended();
    assert_true(stats().used_blocks == before + 2);
    for (int i = 0; i < 4; i++)
        assert_int_equal(bri_heap_is(shown[i], BRI_KIND_DATA), i % 2);
    bri_heap_free(shown[1]);
    bri_heap_free(shown[3]);
    munmap(shown, 4096);
}

static int enter(void **state)
{
    (void)state;
    return bri_arena_enter();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_aligned_and_known),
        cmocka_unit_test(addresses_from_anywhere_are_no_blocks),
        cmocka_unit_test(zeroed_is_zero_also_when_used_before),
        cmocka_unit_test(memory_is_used_again),
        cmocka_unit_test(locks_have_pages_of_their_own),
        cmocka_unit_test(running_out_is_an_error),
        cmocka_unit_test(processes_may_be_killed_in_it),
        cmocka_unit_test(what_was_passed_on_lives_on),
    };

    return cmocka_run_group_tests_name("heap/heap", tests, enter, NULL);
}
