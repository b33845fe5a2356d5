/* SPDX-License-Identifier: MIT */
/* Processes as the kernel knows them. */
#ifndef BRI_PLAT_PROCESS_H
#define BRI_PLAT_PROCESS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The text of a /proc/PID/stat, its path as seen from a folder (a descriptor or AT_FDCWD): 1, or 0 when it cannot be read, as after the end. */
int bri_stat_read(int folder, const char *path, char *stat, size_t size);

/* Where a field of that text begins (proc(5) numbers them); "" when it has fewer.  The name of the program (field 2) may hold blanks and
 * brackets: fields are counted from the last ')'. */
const char *bri_stat_field(const char *stat, int wanted);

/* When the process began, in clock ticks since boot (field 22 of /proc/PID/stat, proc(5)); 0 when unknown. */
uint64_t bri_process_start_time(pid_t pid);

/* Has the process with this pid that began at start_time (0: unknown) ended?  A zombie has. */
int bri_process_has_ended(pid_t pid, uint64_t start_time);

/* Is the calling thread all that this process has? */
int bri_process_has_one_thread(void);

/* A descriptor for the process, close-on-exec, readable once it has ended; -ESRCH, -EMFILE, …. */
int bri_pidfd_open(pid_t pid);
int bri_pidfd_signal(int pidfd, int signal);
int bri_pidfd_has_ended(int pidfd);
/* Until it has ended: 0, or -ETIMEDOUT; the first also -EINTR, when a signal's handler has run. */
int bri_pidfd_wait_once(int pidfd, int64_t deadline);
int bri_pidfd_wait(int pidfd, int64_t deadline);

/*
 * Forks a process that is not the caller's child, so that no wait() of the host sees it, with everything that fork() does for the child's
 * locks: a short-lived helper shares the caller's memory (CLONE_VM | CLONE_VFORK, invisible to wait() since its exit signal is 0), calls
 * fork() there, and ends.  Runs child(argument) in the new process, which must not return.  Its pid, or -EAGAIN, -ENOMEM.
 */
pid_t bri_fork_detached(void (*child)(void *argument), void *argument);

#endif
