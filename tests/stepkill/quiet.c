/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "quiet.h"

#ifdef __x86_64__

#include "visible.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { DESCRIPTORS = 1024 };

enum call { NOTICED, QUIET, OPENS, CLOSES };

static struct {
    pid_t pid;
    enum call call; /* that is being made */
    uint64_t descriptor;
    bool is_own[DESCRIPTORS]; /* opened on this way, and nobody else has it */
} way;

static void forget_all(void)
{
    memset(way.is_own, 0, sizeof way.is_own);
}

static bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

static bool is_such_a_name(const char *name)
{
    if (strcmp(name, "/proc") == 0)
        return true;
    return strncmp(name, "/proc/", 6) == 0 && isdigit((unsigned char)name[6]) &&
           (ends_with(name, "/stat") || ends_with(name, "/children"));
}

static bool is_of_proc(const char *link)
{
    struct statfs file_system;
    const int fd = open(link, O_PATH | O_CLOEXEC);
    const bool is = fd >= 0 && fstatfs(fd, &file_system) == 0 && file_system.f_type == PROC_SUPER_MAGIC;
    if (fd >= 0)
        close(fd);
    return is;
}

static bool is_such_a_file(pid_t pid, uint64_t descriptor)
{
    char link[64], name[256];
    snprintf(link, sizeof link, "/proc/%d/fd/%d", (int)pid, (int)descriptor);
    const ssize_t length = readlink(link, name, sizeof name - 1);
    if (length < 0)
        return false;
    name[length] = 0;
    return is_such_a_name(name) && is_of_proc(link);
}

/* Of another thread we do not know what calls it makes.  The folder has two links, and one for each. */
static bool has_one_thread(pid_t pid)
{
    char path[64];
    struct stat tasks;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    return stat(path, &tasks) == 0 && tasks.st_nlink == 3;
}

static bool is_own(pid_t pid, uint64_t descriptor)
{
    return descriptor < DESCRIPTORS && way.is_own[descriptor] && is_such_a_file(pid, descriptor) &&
           has_one_thread(pid);
}

static bool only_looks(uint64_t flags)
{
    return (flags & ~(uint64_t)(O_CLOEXEC | O_DIRECTORY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY)) == O_RDONLY;
}

/* The buffer is the second argument. */
static enum call read_by(pid_t pid, const struct user_regs_struct *r, uint64_t bytes)
{
    return is_own(pid, r->rdi) && !visible_is_shared(r->rsi, bytes) ? QUIET : NOTICED;
}

static enum call classify(pid_t pid, const struct user_regs_struct *r)
{
    switch (r->rax) {
    case SYS_openat:
        return only_looks(r->rdx) ? OPENS : NOTICED;
    case SYS_read:
    case SYS_pread64:
    case SYS_getdents64:
        return read_by(pid, r, r->rdx);
    case SYS_fstat:
        return read_by(pid, r, sizeof(struct stat));
    case SYS_lseek:
        return is_own(pid, r->rdi) ? QUIET : NOTICED;
    case SYS_close:
        return is_own(pid, r->rdi) ? CLOSES : NOTICED;
    case SYS_getpid:
    case SYS_kill:
        break;
    default: /* it may share descriptors, or put another one in the place of ours */
        forget_all();
    }
    return NOTICED;
}

void quiet_enter(pid_t pid)
{
    struct user_regs_struct registers;
    if (way.pid != pid)
        forget_all();
    way.pid = pid;
    way.call = NOTICED;
    if (ptrace(PTRACE_GETREGS, pid, NULL, &registers) != 0) {
        forget_all();
        return;
    }
    way.descriptor = registers.rdi;
    way.call = classify(pid, &registers);
}

static bool has_opened_such(pid_t pid, int64_t result)
{
    if (result == -ENOENT || result == -ESRCH)
        return true;
    if (result < 0 || result >= DESCRIPTORS || !is_such_a_file(pid, (uint64_t)result))
        return false;
    way.is_own[result] = true;
    return true;
}

bool quiet_leave(pid_t pid)
{
    struct user_regs_struct registers;
    if (way.call == NOTICED || ptrace(PTRACE_GETREGS, pid, NULL, &registers) != 0)
        return false;
    if (way.call == CLOSES)
        way.is_own[way.descriptor] = false;
    return way.call != OPENS || has_opened_such(pid, (int64_t)registers.rax);
}

#else

void quiet_enter(pid_t pid)
{
    (void)pid;
}

bool quiet_leave(pid_t pid)
{
    (void)pid;
    return false;
}

#endif
