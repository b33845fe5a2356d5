/* SPDX-License-Identifier: MIT */
/* For the tests of all layers: what a tool cannot run is skipped, and no test leaves a descriptor, a child or an arena behind. */
#ifndef BRI_TESTING_H
#define BRI_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

/* Is the test run by tools/sanitize under that tool ("valgrind", "asan", "tsan")?  For cases that the tool cannot run. */
static inline int runs_under(const char *tool)
{
    const char *name = getenv("BROOD_TEST_TOOL");

    return name != NULL && strcmp(name, tool) == 0;
}

/* cmocka's skip(), with the reason that tools/run-tests prints. */
#define skip_because(reason) (fprintf(stderr, "# skipped %s: %s\n", __func__, (reason)), skip())

/* --- leaks --- */

/* "." and ".." are not counted; the directory's own descriptor in /proc/self/fd always is. */
static inline int count_entries(const char *path)
{
    DIR *directory = opendir(path);
    int count = -2;

    if (directory == NULL)
        return 0;
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

static inline int count_arena_mappings(void)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];
    int count = 0;

    assert_non_null(maps);
    while (fgets(line, sizeof line, maps) != NULL)
        count += strstr(line, "memfd:brood") != NULL;
    fclose(maps);
    return count;
}

static struct holdings {
    int descriptors, mappings;
} held_before;

static inline struct holdings look_at_holdings(void)
{
    return (struct holdings){count_entries("/proc/self/fd"), count_arena_mappings()};
}

static inline int note_holdings(void **unused)
{
    (void)unused;
    held_before = look_at_holdings();
    return 0;
}

/* A test may make the arena, or destroy it: one mapping with one descriptor. */
static inline int check_holdings(void **unused)
{
    struct holdings now = look_at_holdings();

    (void)unused;
    if (now.mappings > 1 || now.descriptors - now.mappings != held_before.descriptors - held_before.mappings)
        fail_msg("leaked, before → after: descriptors %d → %d, mappings of arenas %d → %d",
                 held_before.descriptors, now.descriptors, held_before.mappings, now.mappings);
    errno = 0;
    assert_int_equal(waitpid(-1, NULL, WNOHANG | __WALL), -1);
    assert_int_equal(errno, ECHILD);
    return 0;
}

/* Every test of a program that includes this is looked at so; those with a setup of their own see to it themselves. */
#undef cmocka_unit_test
#define cmocka_unit_test(function) cmocka_unit_test_setup_teardown(function, note_holdings, check_holdings)

#endif
