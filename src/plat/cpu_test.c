/* SPDX-License-Identifier: MIT */
/* The files are made up, and so is the kernel where a test needs more CPUs than the machine has; the affinity
 * mask of the measuring tests is the real one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/testing.h"
#include "brood.h"
#include "plat/cpu.h"

static char tree[64];

static int make_tree(void **state)
{
    (void)state;
    unsetenv("BROOD_CPU_COUNT");
    strcpy(tree, "/tmp/brood-cpu-XXXXXX");
    return mkdtemp(tree) == NULL;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status, (void)type, (void)walk;
    return remove(path);
}

static int remove_tree(void **state)
{
    (void)state;
    return nftw(tree, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static void put(const char *path, const char *text)
{
    char full[PATH_MAX];
    int length = snprintf(full, sizeof full, "%s%s", tree, path);

    assert_in_range(length, 1, sizeof full - 1);
    for (char *slash = strchr(full + strlen(tree) + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        assert_true(mkdir(full, 0700) == 0 || errno == EEXIST);
        *slash = '/';
    }
    int fd = open(full, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static void put_id(size_t cpu, const char *name, int id)
{
    char path[128];
    char text[16];

    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/topology/%s", cpu, name);
    snprintf(text, sizeof text, "%d\n", id);
    put(path, text);
}

static void put_quota(const char *cpu_max)
{
    put("/proc/self/cgroup", "0::/a\n");
    put("/proc/self/mountinfo", "35 24 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    put("/sys/fs/cgroup/a/cpu.max", cpu_max);
}

static cpu_set_t own_mask(void)
{
    cpu_set_t mask;

    assert_int_equal(sched_getaffinity(0, sizeof mask, &mask), 0);
    return mask;
}

/* ---- the rounding rule ---- */

static void test_usable_rounds_up(void **state)
{
    (void)state;
    assert_int_equal(bri_cpu_usable(8, 250000, 100000), 3);
    assert_int_equal(bri_cpu_usable(8, 50000, 100000), 1);
    assert_int_equal(bri_cpu_usable(8, 100000, 100000), 1);
    assert_int_equal(bri_cpu_usable(8, 100001, 100000), 2);
    assert_int_equal(bri_cpu_usable(8, 140000, 100000), 2); /* not the nearest */
    assert_int_equal(bri_cpu_usable(8, 200000, 100000), 2);
    assert_int_equal(bri_cpu_usable(8, 1, 1000000), 1);
}

static void test_usable_bounds(void **state)
{
    (void)state;
    assert_int_equal(bri_cpu_usable(8, 0, 0), 8);
    assert_int_equal(bri_cpu_usable(8, 0, 100000), 1);
    assert_int_equal(bri_cpu_usable(2, 6400000, 100000), 2);
    assert_int_equal(bri_cpu_usable(8, UINT64_MAX, 1), 8);
    assert_int_equal(bri_cpu_usable(8, 1, UINT64_MAX), 1);
    assert_int_equal(bri_cpu_usable(0, 0, 0), 1);
}

/* ---- more CPUs than cpu_set_t holds ---- */

enum { BIG_KERNEL_CPUS = 5000, BIG_KERNEL_ALLOWED = 3000 };

static int big_kernel_calls;

/* As Linux with 5000 CPU ids: every mask that cannot hold them all is refused. */
static int big_kernel(pid_t pid, size_t mask_bytes, cpu_set_t *mask)
{
    big_kernel_calls++;
    assert_int_equal(pid, 0);
    if (mask_bytes * CHAR_BIT < BIG_KERNEL_CPUS) {
        errno = EINVAL;
        return -1;
    }
    for (size_t cpu = BIG_KERNEL_CPUS - BIG_KERNEL_ALLOWED; cpu < BIG_KERNEL_CPUS; cpu++)
        CPU_SET_S(cpu, mask_bytes, mask);
    return 0;
}

static int no_such_mask(pid_t pid, size_t mask_bytes, cpu_set_t *mask)
{
    (void)pid, (void)mask_bytes, (void)mask;
    errno = EINVAL;
    return -1;
}

static int forbidding_kernel(pid_t pid, size_t mask_bytes, cpu_set_t *mask)
{
    (void)pid, (void)mask_bytes, (void)mask;
    errno = EPERM;
    return -1;
}

static void test_masks_grow(void **state)
{
    cpu_set_t *mask = NULL;
    size_t bytes = 0;

    (void)state;
    big_kernel_calls = 0;
    assert_int_equal(bri_cpu_affinity(big_kernel, &mask, &bytes), 0);
    assert_int_equal(CPU_COUNT_S(bytes, mask), BIG_KERNEL_ALLOWED);
    assert_true(CPU_ISSET_S((size_t)BIG_KERNEL_CPUS - 1, bytes, mask));
    assert_int_equal(big_kernel_calls, 4); /* 1024, 2048, 4096, 8192 */
    CPU_FREE(mask);
}

static void test_affinity_failures(void **state)
{
    cpu_set_t *mask = NULL;
    size_t bytes = 7;

    (void)state;
    assert_int_equal(bri_cpu_affinity(no_such_mask, &mask, &bytes), -EINVAL);
    assert_int_equal(bri_cpu_affinity(forbidding_kernel, &mask, &bytes), -EPERM);
    assert_null(mask);
    assert_int_equal(bytes, 7);
}

/* ---- measuring ---- */

static void test_measure_without_files(void **state)
{
    cpu_set_t mask = own_mask();
    brood_cpu_info info;

    (void)state;
    memset(&info, 0xff, sizeof info);
    bri_cpu_measure(tree, &info);
    assert_int_equal(info.size, sizeof info);
    assert_int_equal(info.affinity, CPU_COUNT(&mask));
    assert_int_equal(info.usable, info.affinity);
    assert_int_equal(info.online, sysconf(_SC_NPROCESSORS_ONLN));
    assert_int_equal(info.physical, 0);
    assert_int_equal(info.quota_us, 0);
    assert_int_equal(info.period_us, 0);
    assert_int_equal(info.overridden, 0);
}

static void test_measure_quota(void **state)
{
    brood_cpu_info info;

    (void)state;
    put_quota("30000 100000\n");
    bri_cpu_measure(tree, &info);
    assert_int_equal(info.usable, 1);
    assert_int_equal(info.quota_us, 30000);
    assert_int_equal(info.period_us, 100000);
    put_quota("max 100000\n");
    bri_cpu_measure(tree, &info);
    assert_int_equal(info.usable, info.affinity);
    assert_int_equal(info.period_us, 0);
}

static void test_online_lists(void **state)
{
    static const struct {
        const char *list;
        int count;
    } good[] = {
        {"0\n", 1}, {"0-3\n", 4}, {"0-3,8,10-11\n", 7}, {"0-4999", 5000}, {"7,9\n", 2},
    };
    static const char *const bad[] = {"",
                                      "\n",
                                      "-\n",
                                      "3-1\n",
                                      "0,\n",
                                      "0-\n",
                                      "-3\n",
                                      "x\n",
                                      "0 1\n",
                                      "0-99999999999\n",
                                      "0-1048575,0-1048575\n"};
    brood_cpu_info info;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        put("/sys/devices/system/cpu/online", good[i].list);
        bri_cpu_measure(tree, &info);
        assert_int_equal(info.online, good[i].count);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        put("/sys/devices/system/cpu/online", bad[i]);
        bri_cpu_measure(tree, &info);
        assert_int_equal(info.online, sysconf(_SC_NPROCESSORS_ONLN));
    }
}

/* Gives the CPUs of our mask the ids of a machine that is filled thread by thread, core by core. */
static int measure_cores(int threads_per_core, int cores_per_die, int dies_per_package)
{
    cpu_set_t mask = own_mask();
    brood_cpu_info info;
    int rank = 0;

    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &mask))
            continue;
        int core = rank++ / threads_per_core;
        put_id(cpu, "core_id", core % cores_per_die);
        put_id(cpu, "die_id", core / cores_per_die % dies_per_package);
        put_id(cpu, "physical_package_id", core / cores_per_die / dies_per_package);
    }
    bri_cpu_measure(tree, &info);
    return info.physical;
}

static void test_physical_cores(void **state)
{
    cpu_set_t mask = own_mask();
    int cpus = CPU_COUNT(&mask);

    (void)state;
    assert_int_equal(measure_cores(1, 1000, 1), cpus);           /* every CPU its own core */
    assert_int_equal(measure_cores(2, 1000, 1), (cpus + 1) / 2); /* two threads each */
    assert_int_equal(measure_cores(1, 1, 1000), cpus);           /* all core 0, in different dies */
    assert_int_equal(measure_cores(1, 1, 1), cpus);              /* the same, in different packages */
    assert_int_equal(measure_cores(1000, 1, 1), (cpus + 999) / 1000);
}

static void test_physical_unknown(void **state)
{
    cpu_set_t mask = own_mask();
    size_t last = CPU_SETSIZE;
    brood_cpu_info info;

    (void)state;
    do
        last--;
    while (!CPU_ISSET(last, &mask));
    assert_true(measure_cores(1, 1000, 1) > 0);
    put_id(last, "physical_package_id", -1);
    bri_cpu_measure(tree, &info);
    assert_int_equal(info.physical, 0);
    put_id(last, "physical_package_id", 0);
    put_id(last, "die_id", -1); /* not known is as good as none */
    bri_cpu_measure(tree, &info);
    assert_true(info.physical > 0);
    put_id(last, "core_id", -1);
    bri_cpu_measure(tree, &info);
    assert_int_equal(info.physical, 0);
}

/* ---- the environment ---- */

static void test_override(void **state)
{
    static const struct {
        const char *text;
        int count;
    } good[] = {
        {"1", 1},
        {"7", 7},
        {"008", 8},
        {"65536", 65536},
    };
    brood_cpu_info info = {.size = sizeof info};

    (void)state;
    put_quota("30000 100000\n");
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        setenv("BROOD_CPU_COUNT", good[i].text, 1);
        bri_cpu_measure(tree, &info);
        assert_int_equal(info.usable, good[i].count);
        assert_int_equal(info.overridden, 1);
        assert_int_equal(info.quota_us, 30000); /* the parts stay what they are */
        assert_int_equal(brood_cpu_count(), good[i].count);
    }
}

static void test_override_ignored(void **state)
{
    static const char *const texts[] = {"",    "0",
                                        "-1",  "+4",
                                        " 4",  "4 ",
                                        "4,2", "0x4",
                                        "1e3", "4.0",
                                        "ab",  "65537",
                                        "-0",  "18446744073709551617",
                                        "000", "99999999999999999999999999999999"};
    brood_cpu_info info;

    (void)state;
    unsetenv("BROOD_CPU_COUNT");
    int measured = brood_cpu_count();
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        setenv("BROOD_CPU_COUNT", texts[i], 1);
        bri_cpu_measure(tree, &info);
        assert_int_equal(info.usable, info.affinity);
        assert_int_equal(info.overridden, 0);
        assert_int_equal(brood_cpu_count(), measured);
    }
    unsetenv("BROOD_CPU_COUNT");
}

/* ---- the public face, on this machine ---- */

static void test_count_and_info_agree(void **state)
{
    brood_cpu_info info = {.size = sizeof info};

    (void)state;
    assert_int_equal(brood_cpu_info_get(&info), 0);
    assert_int_equal(info.size, sizeof info);
    assert_int_equal(info.usable, brood_cpu_count());
    assert_in_range(info.usable, 1, info.affinity);
    assert_in_range(info.affinity, 1, info.online);
    assert_in_range(info.physical, 0, info.affinity);
}

static void test_info_arguments(void **state)
{
    brood_cpu_info info = {.size = 0, .usable = 123};

    (void)state;
    assert_int_equal(brood_cpu_info_get(NULL), -EINVAL);
    assert_non_null(strstr(brood_error_text(), "ret_info"));
    assert_int_equal(brood_cpu_info_get(&info), -EINVAL);
    assert_non_null(strstr(brood_error_text(), "size"));
    info.size = sizeof info / 2;
    assert_int_equal(brood_cpu_info_get(&info), -EINVAL);
    assert_int_equal(info.usable, 123);
}

static void test_info_of_a_newer_caller(void **state)
{
    struct {
        brood_cpu_info info;
        unsigned char more[16];
    } wide;

    (void)state;
    memset(&wide, 0x5a, sizeof wide);
    wide.info.size = sizeof wide;
    assert_int_equal(brood_cpu_info_get(&wide.info), 0);
    assert_int_equal(wide.info.size, sizeof wide);
    assert_true(wide.info.usable >= 1);
    for (size_t i = 0; i < sizeof wide.more; i++)
        assert_int_equal(wide.more[i], 0x5a);
}

/* The next two run in a child, so that the mask and the limit end with it: 0 or the check that failed. */
static int check_one_cpu(void)
{
    cpu_set_t mask = own_mask();
    cpu_set_t one;
    size_t cpu = CPU_SETSIZE;
    brood_cpu_info info = {.size = sizeof info};

    do
        cpu--;
    while (!CPU_ISSET(cpu, &mask));
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0)
        return 1;
    if (brood_cpu_count() != 1)
        return 2;
    if (brood_cpu_info_get(&info) != 0 || info.affinity != 1 || info.usable != 1)
        return 3;
    return info.physical > 1 || info.online < CPU_COUNT(&mask) ? 4 : 0;
}

static int check_without_descriptors(void)
{
    struct rlimit none;
    cpu_set_t mask = own_mask();

    if (getrlimit(RLIMIT_NOFILE, &none) != 0)
        return 1;
    none.rlim_cur = 0; /* the other limit stays: valgrind has descriptors of its own and keeps it */
    if (setrlimit(RLIMIT_NOFILE, &none) != 0)
        return 1;
    return brood_cpu_count() == CPU_COUNT(&mask) ? 0 : 2;
}

static void run_in_child(int (*check)(void))
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        _exit(check());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_restricted_affinity(void **state)
{
    (void)state;
    run_in_child(check_one_cpu);
}

static void test_no_descriptors_left(void **state)
{
    (void)state;
    run_in_child(check_without_descriptors);
}

#define IN_TREE(test) cmocka_unit_test_setup_teardown(test, make_tree, remove_tree)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usable_rounds_up),
        cmocka_unit_test(test_usable_bounds),
        cmocka_unit_test(test_masks_grow),
        cmocka_unit_test(test_affinity_failures),
        IN_TREE(test_measure_without_files),
        IN_TREE(test_measure_quota),
        IN_TREE(test_online_lists),
        IN_TREE(test_physical_cores),
        IN_TREE(test_physical_unknown),
        IN_TREE(test_override),
        IN_TREE(test_override_ignored),
        IN_TREE(test_count_and_info_agree),
        IN_TREE(test_info_arguments),
        IN_TREE(test_info_of_a_newer_caller),
        IN_TREE(test_restricted_affinity),
        IN_TREE(test_no_descriptors_left),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
