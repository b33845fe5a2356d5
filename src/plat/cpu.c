/* SPDX-License-Identifier: MIT */
/* The count of CPUs and its parts.
 *
 * Numbers of workers are chosen with it, so it always has an answer: a part that cannot be read (no /proc, no
 * permission, no descriptors left) counts as absent, and the count is what the others say, at least 1.
 * Nothing is kept between calls: masks and quotas change while a program runs. */
#include "plat/cpu.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "plat/cgroup.h"

enum {
    FIRST_MASK_CPUS = 1024, /* what cpu_set_t holds; larger kernels refuse it with EINVAL */
    MOST_MASK_CPUS = 1 << 20,
    MOST_OVERRIDE = 65536,
    LIST_BYTES = 8192, /* the kernel gives at most a page of 4096 */
    NUMBER_BYTES = 32
};

/* What a caller compiled against the first brood.h passes at least. */
#define FIRST_INFO_BYTES (offsetof(brood_cpu_info, overridden) + sizeof(int))

/* ---- affinity and quota ---- */

int bri_cpu_affinity(bri_affinity_call *call, cpu_set_t **ret_mask, size_t *ret_mask_bytes)
{
    for (size_t cpus = FIRST_MASK_CPUS; cpus <= MOST_MASK_CPUS; cpus *= 2) {
        size_t bytes = CPU_ALLOC_SIZE(cpus);
        cpu_set_t *mask = CPU_ALLOC(cpus);
        if (mask == NULL)
            return -ENOMEM;
        CPU_ZERO_S(bytes, mask);
        if (call(0, bytes, mask) == 0) {
            *ret_mask = mask;
            *ret_mask_bytes = bytes;
            return 0;
        }
        int err = errno;
        CPU_FREE(mask);
        if (err != EINVAL)
            return -err;
    }
    return -EINVAL;
}

/* Rounded up: under a quota of 2.5 CPUs two workers would leave half a CPU unused. */
int bri_cpu_usable(int affinity, uint64_t quota_us, uint64_t period_us)
{
    int usable = affinity;

    if (period_us != 0) {
        uint64_t whole = quota_us / period_us + (quota_us % period_us != 0);
        if (whole < (uint64_t)usable)
            usable = (int)whole;
    }
    return usable < 1 ? 1 : usable;
}

/* ---- the machine ---- */

static bool take_number(const char **text, unsigned long *ret_number)
{
    char *end;

    if (**text < '0' || **text > '9')
        return false;
    *ret_number = strtoul(*text, &end, 10);
    *text = end;
    return true;
}

/* "3" or "0-7" */
static bool take_range(const char **list, unsigned long *ret_count)
{
    unsigned long first;
    unsigned long last;

    if (!take_number(list, &first))
        return false;
    last = first;
    if (**list == '-') {
        (*list)++;
        if (!take_number(list, &last))
            return false;
    }
    if (last < first || last >= MOST_MASK_CPUS)
        return false;
    *ret_count = last - first + 1;
    return true;
}

/* The number of CPUs in a list such as "0-3,8,10-11"; 0 when it is not one. */
static int count_list(const char *list)
{
    unsigned long count = 0;
    unsigned long range;

    for (;;) {
        if (!take_range(&list, &range))
            return 0;
        count += range;
        if (*list != ',')
            break;
        list++;
    }
    return count <= MOST_MASK_CPUS && (*list == '\n' || *list == '\0') ? (int)count : 0;
}

static int count_online(const char *root)
{
    char list[LIST_BYTES];
    int count = 0;

    if (bri_kernel_file_read(root, "sys/devices/system/cpu/online", sizeof list, list) > 0)
        count = count_list(list);
    if (count == 0)
        count = (int)sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : count;
}

/* A small number that names a part of CPU `cpu`; false when the kernel does not know it (no file, or -1). */
static bool read_id(const char *root, int cpu, const char *name, uint64_t *ret_id)
{
    char file[80];
    char text[NUMBER_BYTES];

    snprintf(file, sizeof file, "sys/devices/system/cpu/cpu%d/topology/%s", cpu, name);
    if (bri_kernel_file_read(root, file, sizeof text, text) <= 0 || text[0] < '0' || text[0] > '9')
        return false;
    *ret_id = strtoull(text, NULL, 10);
    return true;
}

/* A number for the core that `cpu` is a thread of.  Core ids repeat in each die, die ids in each package. */
static bool read_core(const char *root, int cpu, uint64_t *ret_core)
{
    uint64_t core;
    uint64_t package;
    uint64_t die = 0;

    if (!read_id(root, cpu, "core_id", &core) || !read_id(root, cpu, "physical_package_id", &package))
        return false;
    read_id(root, cpu, "die_id", &die); /* since Linux 5.2 */
    if (core > UINT32_MAX || die > UINT16_MAX || package > UINT16_MAX)
        return false;
    *ret_core = package << 48 | die << 32 | core;
    return true;
}

static int compare_cores(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;

    return (a > b) - (a < b);
}

static int count_distinct(uint64_t *cores, size_t count)
{
    int distinct = 0;

    qsort(cores, count, sizeof *cores, compare_cores);
    for (size_t i = 0; i < count; i++)
        distinct += i == 0 || cores[i] != cores[i - 1];
    return distinct;
}

/* Cores among the CPUs of the mask, 0 when one of them is unknown. */
static int count_cores(const char *root, const cpu_set_t *mask, size_t mask_bytes)
{
    size_t count = (size_t)CPU_COUNT_S(mask_bytes, mask);
    uint64_t *cores = calloc(count, sizeof *cores);
    size_t known = 0;

    if (cores == NULL)
        return 0;
    for (int cpu = 0; (size_t)cpu < mask_bytes * CHAR_BIT; cpu++) {
        if (!CPU_ISSET_S((size_t)cpu, mask_bytes, mask))
            continue;
        if (!read_core(root, cpu, &cores[known]))
            break;
        known++;
    }
    int distinct = known == count ? count_distinct(cores, count) : 0;
    free(cores);
    return distinct;
}

/* ---- together ---- */

/* BROOD_CPU_COUNT: digits only, 1 to 65536.  0 when it is not set or anything else: a typing error in an
 * environment must not stop a program, and the measured count is always a good answer. */
static int read_override(void)
{
    const char *text = getenv("BROOD_CPU_COUNT");

    if (text == NULL || text[0] == '\0' || text[strspn(text, "0123456789")] != '\0')
        return 0;
    unsigned long count = strtoul(text, NULL, 10);
    return count <= MOST_OVERRIDE ? (int)count : 0;
}

/* Fills in all but the cores.  The mask is NULL when the kernel does not tell it. */
static void measure_count(const char *root, brood_cpu_info *info, cpu_set_t **ret_mask, size_t *ret_bytes)
{
    int err = bri_cpu_affinity(sched_getaffinity, ret_mask, ret_bytes);
    int override = read_override();

    info->online = count_online(root);
    info->affinity = err < 0 ? info->online : CPU_COUNT_S(*ret_bytes, *ret_mask);
    bri_cgroup_cpu_quota(root, &info->quota_us, &info->period_us);
    info->usable = bri_cpu_usable(info->affinity, info->quota_us, info->period_us);
    if (override > 0) {
        info->usable = override;
        info->overridden = 1;
    }
}

void bri_cpu_measure(const char *root, brood_cpu_info *ret_info)
{
    brood_cpu_info info = {.size = sizeof info};
    cpu_set_t *mask = NULL;
    size_t mask_bytes = 0;

    measure_count(root, &info, &mask, &mask_bytes);
    if (mask != NULL)
        info.physical = count_cores(root, mask, mask_bytes);
    CPU_FREE(mask);
    *ret_info = info;
}

/* The cores would cost three file reads for each CPU, so this goes without them. */
int brood_cpu_count(void)
{
    brood_cpu_info info = {.size = sizeof info};
    cpu_set_t *mask = NULL;
    size_t mask_bytes = 0;

    measure_count("", &info, &mask, &mask_bytes);
    CPU_FREE(mask);
    return info.usable;
}

int brood_cpu_info_get(brood_cpu_info *ret_info)
{
    brood_cpu_info info;

    if (ret_info == NULL)
        return bri_fail(EINVAL, "ret_info is NULL: pass the brood_cpu_info to fill in");
    size_t size = ret_info->size;
    if (size < FIRST_INFO_BYTES)
        return bri_fail(EINVAL, "ret_info->size is %zu: set it to sizeof(brood_cpu_info) before", size);
    bri_cpu_measure("", &info);
    info.size = size;
    memcpy(ret_info, &info, size < sizeof info ? size : sizeof info);
    return 0;
}
