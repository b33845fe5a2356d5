/* SPDX-License-Identifier: MIT */
#include "plat/memory.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plat/cgroup.h"

enum { VMSTAT_BYTES = 16384, STATM_BYTES = 128, STATM_DATA = 6 };

static uint64_t available_in_machine(void)
{
    char text[512];
    int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return UINT64_MAX;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    text[got > 0 ? got : 0] = '\0';
    const char *line = strstr(text, "MemAvailable:");
    return line == NULL ? UINT64_MAX : strtoull(line + strlen("MemAvailable:"), NULL, 10) * 1024;
}

/* The sixth number of statm. */
uint64_t bri_memory_private(void)
{
    char text[STATM_BYTES], *at = text;
    uint64_t pages = 0;

    if (bri_kernel_file_read("/proc/self", "statm", sizeof text, text) <= 0)
        return 0;
    for (int field = 0; field < STATM_DATA; field++)
        pages = strtoull(at, &at, 10);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t bri_memory_oom_kills(void)
{
    char text[VMSTAT_BYTES];
    uint64_t in_group = bri_cgroup_oom_kills("");

    if (in_group != 0 || bri_kernel_file_read("/proc", "vmstat", sizeof text, text) <= 0)
        return in_group;
    const char *line = strstr(text, "\noom_kill ");
    return line == NULL ? 0 : strtoull(line + strlen("\noom_kill "), NULL, 10);
}

uint64_t bri_memory_headroom(void)
{
    uint64_t machine = available_in_machine(), cgroup;

    if (bri_cgroup_memory_headroom("", &cgroup) <= 0)
        return machine;
    return cgroup < machine ? cgroup : machine;
}
