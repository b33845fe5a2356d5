/* SPDX-License-Identifier: MIT */
/* A memory cgroup in which tasks meet the kernel's OOM killer, where this user may make one.  See tasks.h. */
#include <fcntl.h>
#include <sys/stat.h>

#include "tasks.h"

#define LIMIT "25165824"

/* As version 1 or 2 of cgroups has it. */
static const struct {
    const char *folder, *limit_file, *swap_file;
} controllers[] = {
    {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"},
    {"/sys/fs/cgroup", "memory.max", "memory.swap.max"},
};

static char folder[100];

static int write_into(const char *name, const char *text)
{
    char path[160];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t written = write(fd, text, strlen(text));
    close(fd);
    return written == (ssize_t)strlen(text);
}

void make_oom_group(void)
{
    books->oom_group[0] = '\0';
    for (uint32_t i = 0; i < sizeof controllers / sizeof controllers[0]; i++) {
        snprintf(folder, sizeof folder, "%s/brood-torture-%d", controllers[i].folder, (int)getpid());
        if (mkdir(folder, 0755) != 0)
            continue;
        if (write_into(controllers[i].limit_file, LIMIT)) {
            write_into(controllers[i].swap_file, i == 0 ? LIMIT : "0"); /* there may be no swap to limit */
            snprintf(books->oom_group, sizeof books->oom_group, "%s/cgroup.procs", folder);
            return;
        }
        rmdir(folder);
    }
    folder[0] = '\0';
}

/* The dead leave it a little later than their parent knows of their end. */
void remove_oom_group(void)
{
    int64_t limit = brood_after_ms(GONE_WITHIN_MS);
    int error = folder[0] != '\0' ? rmdir(folder) : 0;

    while (error != 0 && errno == EBUSY && bri_now_ns() < limit) {
        pause_us(1000);
        error = rmdir(folder);
    }
    expect(LEAVINGS, error == 0, "%s is left: %s", folder, strerror(errno));
}
