/* SPDX-License-Identifier: MIT */
#include "plat/memory.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plat/cgroup.h"

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

uint64_t bri_memory_headroom(void)
{
    uint64_t machine = available_in_machine(), cgroup;

    if (bri_cgroup_memory_headroom("", &cgroup) <= 0)
        return machine;
    return cgroup < machine ? cgroup : machine;
}
