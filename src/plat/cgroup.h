/* SPDX-License-Identifier: MIT */
/* What the control groups allow this process: CPU time, memory, and how often the OOM killer came.
 *
 * A process stands in one group of each hierarchy; a limit on any ancestor binds it as its own limit does.
 * So the answers are taken over the own group and all ancestors, up to the top of the mount we can see.
 * Version 1 (a hierarchy per controller), version 2 (one for all) and both at once (hybrid) are searched
 * alike; a controller lives in one of them only and leaves no files in the other.
 *
 * In a container the path in /proc/self/cgroup may lie outside of what is mounted.  Then the mount point
 * itself is the closest ancestor we can see, and it is what we read.
 *
 * All functions: nothing is cached, no memory is allocated, no lock is taken, descriptors are O_CLOEXEC and
 * closed again; callable from any thread and in a child after fork.  About 24 KiB of stack.
 * `root` is put before every path: "" in production, the directory of a made-up /proc and /sys in tests.
 *
 * They return 1 when there is an answer, 0 when there is none (no limit, no such files, not allowed to read),
 * and -EMFILE, -ENFILE, -ENOMEM or -ENAMETOOLONG when it could not be had although there may be one. */
#ifndef BRI_CGROUP_H
#define BRI_CGROUP_H

#include <stddef.h>
#include <stdint.h>

/* The tightest CPU quota: the one with the smallest quota / period, neither of them zero. */
int bri_cgroup_cpu_quota(const char *root, uint64_t *ret_quota_us, uint64_t *ret_period_us);

/* Bytes that can still be charged before the OOM killer comes: the smallest limit - usage + file cache that
 * the kernel would drop first.  Others in the group may take them before us: a hint, not a reservation. */
int bri_cgroup_memory_headroom(const char *root, uint64_t *ret_bytes);

/* Processes of our memory group the OOM killer has killed since the group was made; 0 when unknown.
 * Only the difference of two calls says anything. */
uint64_t bri_cgroup_oom_kills(const char *root);

/* Reads <dir>/<name>, a kernel file of at most size - 2 bytes, as a string.  Empty and longer files count as
 * missing; ret_text is scratch space then. */
int bri_kernel_file_read(const char *dir, const char *name, size_t size, char *ret_text);

#endif
