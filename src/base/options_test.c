/* SPDX-License-Identifier: MIT */
/* Options structs of older and newer callers. */
#include "base/options.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/testing.h"
#include "brood.h"

struct known {
    size_t size;
    uint32_t first, second;
    uint64_t third;
};

enum { NEWER_BYTES = 64, LARGEST = 4096 };

static void null_means_defaults(void **unused)
{
    struct known known;

    (void)unused;
    memset(&known, 0xff, sizeof known);
    assert_int_equal(bri_options_take(NULL, &known, sizeof known, "options"), 0);
    assert_int_equal(known.size, sizeof known);
    assert_int_equal(known.first, 0);
    assert_true(known.third == 0);
}

static void fields_are_copied(void **unused)
{
    struct known given = {sizeof given, 1, 2, UINT64_MAX}, known;

    (void)unused;
    assert_int_equal(bri_options_take(&given, &known, sizeof known, "options"), 0);
    assert_memory_equal(&given, &known, sizeof known);
}

static void older_callers_have_fewer_fields(void **unused)
{
    struct known given = {offsetof(struct known, second), 1, 2, 3}, known;

    (void)unused;
    assert_int_equal(bri_options_take(&given, &known, sizeof known, "options"), 0);
    assert_int_equal(known.size, sizeof known);
    assert_int_equal(known.first, 1);
    assert_int_equal(known.second, 0);
    assert_true(known.third == 0);
    given.size = sizeof given.size;
    assert_int_equal(bri_options_take(&given, &known, sizeof known, "options"), 0);
    assert_int_equal(known.first, 0);
}

static void newer_callers_may_leave_their_fields_zero(void **unused)
{
    _Alignas(struct known) unsigned char newer[NEWER_BYTES] = {0};
    struct known given = {sizeof newer, 1, 2, 3}, known;

    (void)unused;
    memcpy(newer, &given, sizeof given);
    assert_int_equal(bri_options_take(newer, &known, sizeof known, "options"), 0);
    assert_true(known.third == 3);
    for (size_t i = sizeof given; i < sizeof newer; i++) {
        newer[i] = 1;
        assert_int_equal(bri_options_take(newer, &known, sizeof known, "what it is"), -E2BIG);
        assert_non_null(strstr(brood_error_text(), "what it is"));
        newer[i] = 0;
    }
}

static void absurd_sizes_are_refused(void **unused)
{
    static const size_t too_small[] = {0, 1, sizeof(size_t) - 1},
                        too_large[] = {LARGEST + 1, SIZE_MAX / 2, SIZE_MAX};
    struct known given = {0, 1, 2, 3}, known = {7, 7, 7, 7};

    (void)unused;
    for (int i = 0; i < 3; i++) {
        given.size = too_small[i];
        assert_int_equal(bri_options_take(&given, &known, sizeof known, "options"), -EINVAL);
        given.size = too_large[i];
        assert_int_equal(bri_options_take(&given, &known, sizeof known, "options"), -E2BIG);
    }
    assert_int_equal(known.size, 7); /* untouched */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(null_means_defaults),
        cmocka_unit_test(fields_are_copied),
        cmocka_unit_test(older_callers_have_fewer_fields),
        cmocka_unit_test(newer_callers_may_leave_their_fields_zero),
        cmocka_unit_test(absurd_sizes_are_refused),
    };

    return cmocka_run_group_tests_name("base/options", tests, NULL, NULL);
}
