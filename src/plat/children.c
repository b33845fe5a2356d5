/* SPDX-License-Identifier: MIT */
#include "plat/children.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "plat/process.h"

enum { LIST_BYTES = 1024, ENTRIES_BYTES = 4096, STAT_BYTES = 512, PARENT_FIELD = 4 };

/* Pids with a blank after each.  A pid may begin in one part of the text and end in the next: `pid` is what has been read of it. */
static pid_t visit_listed(const char *text, size_t bytes, pid_t pid, bri_child_visit *visit, void *argument)
{
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] >= '0' && text[i] <= '9') {
            pid = pid * 10 + (text[i] - '0');
        } else if (pid != 0) {
            visit(pid, argument);
            pid = 0;
        }
    }
    return pid;
}

int bri_children_listed(pid_t parent, bri_child_visit *visit, void *argument)
{
    char path[64], text[LIST_BYTES];
    pid_t pid = 0;
    ssize_t got;

    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)parent, (int)parent);
    bri_fault("children.list");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    while ((got = read(fd, text, sizeof text)) > 0)
        pid = visit_listed(text, (size_t)got, pid, visit, argument);
    int error = got < 0 ? -errno : 0;
    close(fd);
    return error;
}

/* 0: it has ended. */
static pid_t parent_of(int proc, const char *pid)
{
    char path[32], stat[STAT_BYTES];

    stpcpy(stpncpy(path, pid, sizeof path - sizeof "/stat"), "/stat");
    return bri_stat_read(proc, path, stat, sizeof stat)
               ? (pid_t)strtol(bri_stat_field(stat, PARENT_FIELD), NULL, 10)
               : 0;
}

static void visit_found(int proc, const struct dirent64 *entry, pid_t parent, bri_child_visit *visit,
                        void *argument)
{
    const char *name = entry->d_name;

    if (name[0] >= '1' && name[0] <= '9' && parent_of(proc, name) == parent)
        visit((pid_t)strtol(name, NULL, 10), argument);
}

int bri_children_found(pid_t parent, bri_child_visit *visit, void *argument)
{
    _Alignas(struct dirent64) char entries[ENTRIES_BYTES];
    ssize_t got;

    bri_fault("children.walk");
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (proc < 0)
        return -errno;
    while ((got = getdents64(proc, entries, sizeof entries)) > 0)
        for (ssize_t at = 0; at < got;) {
            const struct dirent64 *entry = (const void *)(entries + at);
            visit_found(proc, entry, parent, visit, argument);
            at += entry->d_reclen;
        }
    int error = got < 0 ? -errno : 0;
    close(proc);
    return error;
}

int bri_children_each(pid_t parent, bri_child_visit *visit, void *argument)
{
    return bri_children_listed(parent, visit, argument) == 0 ? 0
                                                             : bri_children_found(parent, visit, argument);
}
