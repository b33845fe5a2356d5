/* SPDX-License-Identifier: MIT */
/* Each test makes a directory with the /proc and /sys of some machine and asks what its groups allow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plat/cgroup.h"

#define MOUNT_V2      "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
#define MOUNT_CPU     "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:11 - cgroup cgroup rw,cpu,cpuacct\n"
#define MOUNT_CPUSET  "34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
#define MOUNT_MEMORY  "36 31 0:32 / /sys/fs/cgroup/memory rw shared:12 - cgroup cgroup rw,memory\n"
#define MOUNT_UNIFIED "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"

#define V2     "/sys/fs/cgroup"
#define CPU    "/sys/fs/cgroup/cpu,cpuacct"
#define MEMORY "/sys/fs/cgroup/memory"

static char tree[64];

/* ---- the made-up machine ---- */

static int make_tree(void **state)
{
    (void)state;
    strcpy(tree, "/tmp/brood-cgroup-XXXXXX");
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

static void put_bytes(const char *path, const char *bytes, size_t size)
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
    assert_int_equal(write(fd, bytes, size), (ssize_t)size);
    close(fd);
}

static void put(const char *path, const char *text)
{
    put_bytes(path, text, strlen(text));
}

static void put_machine(const char *groups, const char *mounts)
{
    put("/proc/self/cgroup", groups);
    put("/proc/self/mountinfo", mounts);
}

static void expect_quota(uint64_t quota_us, uint64_t period_us)
{
    uint64_t quota = 0;
    uint64_t period = 0;

    assert_int_equal(bri_cgroup_cpu_quota(tree, &quota, &period), 1);
    assert_int_equal(quota, quota_us);
    assert_int_equal(period, period_us);
}

static void expect_no_quota(void)
{
    uint64_t quota = 77;
    uint64_t period = 78;

    assert_int_equal(bri_cgroup_cpu_quota(tree, &quota, &period), 0);
    assert_int_equal(quota, 77);
    assert_int_equal(period, 78);
}

static void expect_headroom(uint64_t bytes)
{
    uint64_t headroom = 1;

    assert_int_equal(bri_cgroup_memory_headroom(tree, &headroom), 1);
    assert_int_equal(headroom, bytes);
}

static void expect_no_headroom(void)
{
    uint64_t headroom = 79;

    assert_int_equal(bri_cgroup_memory_headroom(tree, &headroom), 0);
    assert_int_equal(headroom, 79);
}

/* ---- CPU quotas ---- */

static void test_nothing_there(void **state)
{
    (void)state;
    expect_no_quota();
    expect_no_headroom();
    assert_int_equal(bri_cgroup_oom_kills(tree), 0);
    put("/proc/self/cgroup", "0::/a\n");
    expect_no_quota();
    put("/proc/self/mountinfo", MOUNT_V2);
    expect_no_quota();
    expect_no_headroom();
}

static void test_v2_quota(void **state)
{
    (void)state;
    put_machine("0::/a/b\n", MOUNT_V2);
    put(V2 "/a/b/cpu.max", "250000 100000\n");
    expect_quota(250000, 100000);
    put(V2 "/a/b/cpu.max", "max 100000\n");
    expect_no_quota();
}

static void test_v2_tightest_ancestor(void **state)
{
    (void)state;
    put_machine("0::/a/b/c\n", MOUNT_V2);
    put(V2 "/a/b/c/cpu.max", "400000 100000\n");
    put(V2 "/a/cpu.max", "1200000 1000000\n");
    expect_quota(1200000, 1000000); /* the greater number, the smaller share */
    put(V2 "/cpu.max", "50000 100000\n");
    expect_quota(50000, 100000);
    put(V2 "/a/b/c/cpu.max", "10000 100000\n");
    expect_quota(10000, 100000);
}

static void test_limits_above_the_mount_are_not_read(void **state)
{
    (void)state;
    put_machine("0::/a\n", MOUNT_V2);
    put("/sys/fs/cpu.max", "10000 100000\n");
    put("/cpu.max", "10000 100000\n");
    expect_no_quota();
}

static void test_senseless_quotas(void **state)
{
    static const char *const texts[] = {"",         "\n",          "0 100000\n",   "100000 0\n",
                                        "100000\n", "-1 100000\n", "many 100000\n"};

    (void)state;
    put_machine("0::/a\n", MOUNT_V2);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        put(V2 "/a/cpu.max", texts[i]);
        expect_no_quota();
    }
    put(V2 "/a/cpu.max", "150000 100000");
    expect_quota(150000, 100000); /* no newline at the end */
}

static void test_v1_quota(void **state)
{
    (void)state;
    put_machine("5:cpuset:/other\n4:cpu,cpuacct:/a/b\n1:name=systemd:/x\n", MOUNT_CPU MOUNT_CPUSET);
    put(CPU "/a/b/cpu.cfs_quota_us", "-1\n");
    put(CPU "/a/b/cpu.cfs_period_us", "100000\n");
    expect_no_quota();
    put(CPU "/a/cpu.cfs_quota_us", "150000\n");
    put(CPU "/a/cpu.cfs_period_us", "50000\n");
    expect_quota(150000, 50000);
    put(CPU "/a/b/cpu.cfs_quota_us", "200000\n");
    expect_quota(200000, 100000);
    put(CPU "/a/b/cpu.cfs_period_us", "");
    expect_quota(150000, 50000);
}

static void test_v1_similar_names(void **state)
{
    (void)state;
    put_machine("5:cpuset:/a\n4:cpuacct:/a\n3:name=cpu:/a\n", MOUNT_CPUSET MOUNT_CPU);
    put(CPU "/a/cpu.cfs_quota_us", "150000\n");
    put(CPU "/a/cpu.cfs_period_us", "100000\n");
    expect_no_quota();
}

static void test_hybrid(void **state)
{
    (void)state;
    put_machine("4:cpu,cpuacct:/v1\n0::/v2\n", MOUNT_CPU MOUNT_UNIFIED);
    put(CPU "/v1/cpu.cfs_quota_us", "300000\n");
    put(CPU "/v1/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/unified/v2/memory.max", "5000\n");
    put("/sys/fs/cgroup/unified/v2/memory.current", "2000\n");
    put("/sys/fs/cgroup/unified/v2/memory.events", "oom 5\noom_kill 3\n");
    expect_quota(300000, 100000);
    expect_headroom(3000);
    assert_int_equal(bri_cgroup_oom_kills(tree), 3);
}

/* ---- containers and other ways to mount ---- */

static void test_mount_of_our_own_group(void **state)
{
    (void)state;
    put_machine("4:cpu,cpuacct:/docker/abc/inner\n",
                "33 31 0:30 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n");
    put(CPU "/cpu.cfs_quota_us", "90000\n");
    put(CPU "/cpu.cfs_period_us", "100000\n");
    expect_quota(90000, 100000);
    put(CPU "/inner/cpu.cfs_quota_us", "30000\n");
    put(CPU "/inner/cpu.cfs_period_us", "100000\n");
    expect_quota(30000, 100000);
}

static void test_mount_that_does_not_show_our_group(void **state)
{
    static const char *const mounts[] = {
        "35 24 0:30 /docker/other /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "35 24 0:30 /docker/ab /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "35 24 0:30 /docker/abc/deeper /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "35 24 0:30 /.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    };

    (void)state;
    put(V2 "/cpu.max", "70000 100000\n");
    put(V2 "/docker/abc/cpu.max", "60000 100000\n");
    put(V2 "/c/cpu.max", "50000 100000\n");
    for (size_t i = 0; i < sizeof mounts / sizeof mounts[0]; i++) {
        put_machine("0::/docker/abc\n", mounts[i]);
        expect_quota(70000, 100000);
    }
}

static void test_namespaces(void **state)
{
    (void)state;
    put(V2 "/cpu.max", "70000 100000\n");
    put(V2 "/x/cpu.max", "60000 100000\n");
    put("/sys/fs/cpu.max", "10000 100000\n");
    put("/sys/fs/x/cpu.max", "10000 100000\n");
    put_machine("0::/../x\n", MOUNT_V2); /* we were moved out of our namespace's root */
    expect_quota(70000, 100000);
    put_machine("0::/..\n", MOUNT_V2);
    expect_quota(70000, 100000);
    put_machine("0::/../..\n", "35 24 0:30 /.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    expect_quota(70000, 100000);
    put_machine("0::/../x\n", "35 24 0:30 /.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    expect_quota(60000, 100000);
    put(V2 "/..x/cpu.max", "20000 100000\n");
    put_machine("0::/..x\n", MOUNT_V2); /* an odd name, but a name */
    expect_quota(20000, 100000);
}

static void test_root_group(void **state)
{
    (void)state;
    put_machine("0::/\n", MOUNT_V2);
    put(V2 "/cpu.max", "120000 100000\n");
    expect_quota(120000, 100000);
    put_machine("0::/a\n", "35 24 0:30 / / rw - cgroup2 cgroup2 rw\n");
    put("/a/cpu.max", "110000 100000\n");
    expect_quota(110000, 100000);
}

static void test_escapes_in_mount_point(void **state)
{
    (void)state;
    put_machine("0::/my group/x\n",
                "35 24 0:30 /my\\040group /mnt/a\\040b\\134c\\011d\\08 rw - cgroup2 cgroup2 rw\n");
    put("/mnt/a b\\c\td\\08/x/cpu.max", "130000 100000\n");
    expect_quota(130000, 100000);
}

#define HIGH    "1 1 0:30 / /high rw - cgroup2 none rw\n"
#define HIGH2   "2 1 0:30 / /high2 rw - cgroup2 none rw\n"
#define LOW     "3 1 0:30 /a /low rw - cgroup2 none rw\n"
#define FOREIGN "4 1 0:30 /z /high rw - cgroup2 none rw\n"

static void test_several_mounts(void **state)
{
    (void)state;
    put("/high/cpu.max", "10000 100000\n");
    put("/low/cpu.max", "20000 100000\n");
    put("/high2/cpu.max", "30000 100000\n");
    put_machine("0::/a/b\n", HIGH LOW);
    expect_quota(10000, 100000);
    put_machine("0::/a/b\n", LOW HIGH);
    expect_quota(10000, 100000);
    put_machine("0::/a/b\n", HIGH HIGH2);
    expect_quota(30000, 100000);
    put_machine("0::/a/b\n", LOW FOREIGN);
    expect_quota(20000, 100000);
}

static void test_broken_lines(void **state)
{
    (void)state;
    put_machine("\n:\n0:\n0::\n0::relative\n::/x\n0::/a\n",
                "\n1\n1 2 3 4 5 6\n1 2 3 / /x rw - cgroup2\n1 2 3 / /x rw - cgroup2 none\n"
                "1 2 3 / /x rw cgroup2 none rw\n" MOUNT_V2);
    put("/x/cpu.max", "10000 100000\n");
    put(V2 "/a/cpu.max", "140000 100000\n");
    expect_quota(140000, 100000);
}

/* Lines of every length around the reader's buffer, the last of them beyond it several times. */
static void test_long_mountinfo(void **state)
{
    static const size_t lengths[] = {4000, 8180, 8190, 8191, 8192, 8193, 16384, 50000};
    size_t size = 0;
    char *text = malloc(200000);

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        memset(text + size, 'x', lengths[i]);
        size += lengths[i];
        text[size++] = '\n';
        for (int copies = 0; copies < 50; copies++)
            size += (size_t)sprintf(text + size, "36 31 0:7 / /mnt/%d rw - ext4 /dev/sda rw\n", copies);
    }
    size += (size_t)sprintf(text + size, MOUNT_V2);
    put_bytes("/proc/self/mountinfo", text, size - 1);
    put("/proc/self/cgroup", "0::/a");
    put(V2 "/a/cpu.max", "160000 100000\n");
    expect_quota(160000, 100000);
    free(text);
}

/* What comes after the buffer's 8191 bytes is not a line of its own, whether or not a newline ends it. */
static void test_tail_of_an_overlong_line(void **state)
{
    char text[8191 + sizeof HIGH];

    (void)state;
    memset(text, 'x', 8191);
    memcpy(text + 8191, HIGH, sizeof HIGH);
    put("/proc/self/cgroup", "0::/a\n");
    put("/high/cpu.max", "10000 100000\n");
    put_bytes("/proc/self/mountinfo", text, sizeof text - 1);
    expect_no_quota();
    put_bytes("/proc/self/mountinfo", text, sizeof text - 2);
    expect_no_quota();
}

/* ---- memory ---- */

static void test_v2_headroom(void **state)
{
    (void)state;
    put_machine("0::/a/b\n", MOUNT_V2);
    put(V2 "/a/b/memory.max", "max\n");
    put(V2 "/a/b/memory.current", "1000\n");
    expect_no_headroom();
    put(V2 "/a/b/memory.max", "64000\n");
    expect_headroom(63000); /* no memory.stat */
    put(V2 "/a/b/memory.stat", "anon 200\ninactive_file_9 999\nactive_file 7\ninactive_file 300\nslab 4\n");
    expect_headroom(63300);
    put(V2 "/a/memory.max", "9000\n");
    put(V2 "/a/memory.current", "4000\n");
    expect_headroom(5000);
    put(V2 "/a/memory.current", "9500\n");
    expect_headroom(0);
    put(V2 "/a/memory.stat", "inactive_file 20000\n");
    expect_headroom(9000); /* the two files are not read at one moment; never more than the limit */
}

static void test_v1_headroom(void **state)
{
    (void)state;
    put_machine("4:memory:/a\n", MOUNT_MEMORY);
    put(MEMORY "/memory.limit_in_bytes", "9223372036854771712\n");
    put(MEMORY "/memory.usage_in_bytes", "5000\n");
    put(MEMORY "/a/memory.limit_in_bytes", "9223372036854710272\n"); /* pages of 64 KiB */
    put(MEMORY "/a/memory.usage_in_bytes", "5000\n");
    expect_no_headroom();
    put(MEMORY "/a/memory.limit_in_bytes", "8000\n");
    put(MEMORY "/a/memory.stat", "inactive_file 5\ntotal_inactive_anon 9\ntotal_inactive_file 500\n");
    expect_headroom(3500);
    put(MEMORY "/memory.limit_in_bytes", "6000\n");
    expect_headroom(1000);
}

static void test_oom_kills(void **state)
{
    (void)state;
    put_machine("0::/a/b\n", MOUNT_V2);
    assert_int_equal(bri_cgroup_oom_kills(tree), 0);
    put(V2 "/a/memory.events", "low 0\nhigh 0\nmax 9\noom 2\noom_kill 4\noom_group_kill 0\n");
    assert_int_equal(bri_cgroup_oom_kills(tree), 4); /* no controller in b: a's counter is ours */
    put(V2 "/a/b/memory.events", "oom 2\noom_kill 1\n");
    assert_int_equal(bri_cgroup_oom_kills(tree), 1);
    put(MEMORY "/v1/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 18446744073709551615\n");
    put_machine("4:memory:/v1\n0::/a\n", MOUNT_MEMORY);
    assert_true(bri_cgroup_oom_kills(tree) == UINT64_MAX);
    put(MEMORY "/v1/memory.oom_control", "oom_kill_disable 7\nunder_oom 0\n"); /* before Linux 4.13 */
    assert_int_equal(bri_cgroup_oom_kills(tree), 0);
}

/* ---- running out ---- */

static int count_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int count = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

static void test_descriptors_are_closed(void **state)
{
    uint64_t ignored;
    int before = count_descriptors();

    (void)state;
    test_hybrid(state);
    test_broken_lines(state);
    assert_true(bri_cgroup_cpu_quota("", &ignored, &ignored) >= 0);
    assert_true(bri_cgroup_memory_headroom("", &ignored) >= 0);
    bri_cgroup_oom_kills("");
    assert_int_equal(count_descriptors(), before);
}

static void test_no_descriptors_left(void **state)
{
    struct rlimit old;
    uint64_t one = 1;
    uint64_t two = 2;

    (void)state;
    put_machine("0::/a\n", MOUNT_V2);
    put(V2 "/a/cpu.max", "100000 100000\n");
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    struct rlimit none = {.rlim_cur = 0, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int quota = bri_cgroup_cpu_quota(tree, &one, &two);
    int headroom = bri_cgroup_memory_headroom(tree, &one);
    uint64_t kills = bri_cgroup_oom_kills(tree);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(quota, -EMFILE);
    assert_int_equal(headroom, -EMFILE);
    assert_int_equal(kills, 0);
    assert_int_equal(one, 1);
    assert_int_equal(two, 2);
}

static void test_too_long_paths(void **state)
{
    char root[PATH_MAX + 1];
    uint64_t ignored;

    (void)state;
    memset(root, 'x', PATH_MAX);
    root[0] = '/';
    root[PATH_MAX] = '\0';
    assert_int_equal(bri_cgroup_cpu_quota(root, &ignored, &ignored), -ENAMETOOLONG);
}

#define IN_TREE(test) cmocka_unit_test_setup_teardown(test, make_tree, remove_tree)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_TREE(test_nothing_there),
        IN_TREE(test_v2_quota),
        IN_TREE(test_v2_tightest_ancestor),
        IN_TREE(test_limits_above_the_mount_are_not_read),
        IN_TREE(test_senseless_quotas),
        IN_TREE(test_v1_quota),
        IN_TREE(test_v1_similar_names),
        IN_TREE(test_hybrid),
        IN_TREE(test_mount_of_our_own_group),
        IN_TREE(test_mount_that_does_not_show_our_group),
        IN_TREE(test_namespaces),
        IN_TREE(test_root_group),
        IN_TREE(test_escapes_in_mount_point),
        IN_TREE(test_several_mounts),
        IN_TREE(test_broken_lines),
        IN_TREE(test_long_mountinfo),
        IN_TREE(test_tail_of_an_overlong_line),
        IN_TREE(test_v2_headroom),
        IN_TREE(test_v1_headroom),
        IN_TREE(test_oom_kills),
        IN_TREE(test_descriptors_are_closed),
        IN_TREE(test_no_descriptors_left),
        IN_TREE(test_too_long_paths),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
