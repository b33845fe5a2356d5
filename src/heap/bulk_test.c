/* SPDX-License-Identifier: MIT */
/* Bulks and letters among processes. */
#include "heap/bulk.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "arena/roster.h"
#include "arena/undertaker.h"
#include "brood.h"

enum { LARGE = 300000, SMALL = 100 };

static uint64_t used_blocks(void)
{
    brood_arena_stats now = {.size = sizeof now};

    assert_int_equal(brood_arena_stats_get(&now), 0);
    return now.used_blocks;
}

static struct bri_bulk_shm *make(uint64_t bytes)
{
    struct bri_bulk_shm *bulk = NULL;

    assert_int_equal(bri_bulk_create(bytes, 0, 0, &bulk), 0);
    return bulk;
}

static struct bri_ref_shm ref_to(struct bri_bulk_shm *bulk)
{
    return (struct bri_ref_shm){
        .bulk = bri_offset_of(bulk), .serial = bri_load_relaxed(&bulk->serial), .bytes = bulk->bytes};
}

static struct bri_ref_shm *write_letter(struct bri_bulk_shm *bulk)
{
    void *memory;

    assert_int_equal(bri_heap_alloc(BRI_KIND_REPLY, sizeof(struct bri_ref_shm), 0, &memory), 0);
    *(struct bri_ref_shm *)memory = ref_to(bulk);
    bri_letter_mark(memory, 0, 1);
    bri_bulk_add_letter(bulk);
    return memory;
}

static void data_is_aligned_and_its_own(void **unused)
{
    uint64_t before = used_blocks();
    struct bri_bulk_shm *small = make(SMALL), *large = make(LARGE);

    (void)unused;
    assert_false(bri_bulk_has_pages(small));
    assert_true(bri_bulk_has_pages(large));
    assert_int_equal((uintptr_t)bri_bulk_data(large) % 4096, 0);
    assert_int_equal((uintptr_t)bri_bulk_data(small) % 64, 0);
    memset(bri_bulk_data(small), 1, SMALL);
    memset(bri_bulk_data(large), 2, LARGE);
    bri_bulk_drop(small);
    bri_bulk_drop(large);
    assert_int_equal(used_blocks(), before);
}

static void zeroed_is_zero(void **unused)
{
    struct bri_bulk_shm *bulk = make(LARGE);
    char *data = bri_bulk_data(bulk);

    (void)unused;
    memset(data, 3, LARGE);
    bri_bulk_drop(bulk);
    assert_int_equal(bri_bulk_create(LARGE, 0, 1, &bulk), 0);
    data = bri_bulk_data(bulk);
    for (int i = 0; i < LARGE; i++)
        assert_int_equal(data[i], 0);
    bri_bulk_drop(bulk);
}

static void a_letter_keeps_it(void **unused)
{
    uint64_t before = used_blocks();
    struct bri_bulk_shm *bulk = make(LARGE), *again;
    struct bri_ref_shm *letter = write_letter(bulk);

    (void)unused;
    bri_bulk_drop(bulk);
    bri_bulk_sweep();
    assert_true(bri_heap_is(bulk, BRI_KIND_BULK));
    assert_int_equal(bri_bulk_open(letter, 1, &again), 0);
    assert_ptr_equal(again, bulk);
    assert_int_equal(letter->is_opened, 1);
    bri_heap_free(letter);
    bri_bulk_sweep();
    assert_true(bri_heap_is(bulk, BRI_KIND_BULK));
    bri_bulk_drop(bulk);
    assert_int_equal(used_blocks(), before);
}

static void opening_twice_counts_once(void **unused)
{
    struct bri_bulk_shm *bulk = make(LARGE), *again;
    struct bri_ref_shm *letter = write_letter(bulk), *other = write_letter(bulk);

    (void)unused;
    assert_int_equal(bri_bulk_open(letter, 1, &again), 0);
    assert_int_equal(bri_bulk_open(letter, 1, &again), 0);
    assert_int_equal(bri_load_relaxed(&bulk->letters), 1);
    bri_bulk_drop(bulk);
    assert_int_equal(bri_bulk_open(other, 1, &again), 0);
    bri_bulk_drop(bulk);
    bri_heap_free(letter);
    bri_heap_free(other);
}

static void what_is_lost_with_its_letter_is_found(void **unused)
{
    uint64_t before = used_blocks();
    struct bri_bulk_shm *lost = make(LARGE), *kept = make(LARGE);
    struct bri_ref_shm *letter = write_letter(lost), *other = write_letter(kept);

    (void)unused;
    bri_bulk_drop(lost);
    bri_bulk_drop(kept);
    bri_heap_free(letter);
    bri_bulk_sweep();
    assert_int_equal(used_blocks(), before + 2);
    assert_true(bri_heap_is(kept, BRI_KIND_BULK));
    bri_heap_free(other);
    bri_bulk_sweep();
    assert_int_equal(used_blocks(), before);
}

static void references_are_checked(void **unused)
{
    struct bri_bulk_shm *bulk = make(LARGE), *again = NULL;
    struct bri_ref_shm good = ref_to(bulk), bad;

    (void)unused;
    bad = good, bad.serial++;
    assert_int_equal(bri_bulk_open(&bad, 0, &again), -ENOENT);
    bad = good, bad.serial = 0;
    assert_int_equal(bri_bulk_open(&bad, 0, &again), -ENOENT);
    bad = good, bad.bulk += 64;
    assert_int_equal(bri_bulk_open(&bad, 0, &again), -ENOENT);
    bad = good, bad.bulk = UINT64_MAX;
    assert_int_equal(bri_bulk_open(&bad, 0, &again), -ENOENT);
    bad = good, bad.bytes++;
    assert_int_equal(bri_bulk_open(&bad, 0, &again), -EINVAL);
    bad = good, bad.at = UINT64_MAX;
    assert_int_equal(bri_bulk_open(&bad, 0, &again), -EINVAL);
    assert_null(again);
    bri_bulk_drop(bulk);
    assert_int_equal(bri_bulk_open(&good, 0, &again), -ENOENT);
}

static void the_dead_hold_nothing(void **unused)
{
    uint64_t before = used_blocks();
    pid_t pid = fork();
    int status;

    (void)unused;
    if (pid == 0) {
        struct bri_bulk_shm *bulk;
        if (bri_arena_enter() == 0 && bri_bulk_create(LARGE, 0, 0, &bulk) == 0)
            raise(SIGKILL);
        _exit(1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    bri_bury_the_ended();
    assert_int_equal(used_blocks(), before);
}

static void private_views_are_private(void **unused)
{
    struct bri_bulk_shm *bulk = make(LARGE);
    char *data = bri_bulk_data(bulk);
    void *view;

    (void)unused;
    memset(data, 1, LARGE);
    assert_int_equal(bri_bulk_map(bulk, &view), 0);
    memset(view, 2, LARGE / 2);
    assert_int_equal(data[0], 1);
    assert_int_equal(((char *)view)[LARGE - 1], 1);
    bri_bulk_unmap(bulk, view);
    assert_int_equal(bri_bulk_detach(bulk), 0);
    data[0] = 9;
    assert_int_equal(bri_bulk_attach(bulk), 0);
    assert_int_equal(data[0], 1);
    bri_bulk_drop(bulk);
}

static int open_arena(void **unused)
{
    (void)unused;
    return bri_arena_enter();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_is_aligned_and_its_own),
        cmocka_unit_test(zeroed_is_zero),
        cmocka_unit_test(a_letter_keeps_it),
        cmocka_unit_test(opening_twice_counts_once),
        cmocka_unit_test(what_is_lost_with_its_letter_is_found),
        cmocka_unit_test(references_are_checked),
        cmocka_unit_test(the_dead_hold_nothing),
        cmocka_unit_test(private_views_are_private),
    };

    return cmocka_run_group_tests(tests, open_arena, NULL);
}
