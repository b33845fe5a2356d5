/* SPDX-License-Identifier: MIT */
/*
 * System calls that others cannot notice: looks into /proc.
 *
 * A walk over /proc is three system calls for each process of the machine, and a kill after each of them would leave what a kill before it
 * leaves.  Those are left out of the kill points; all other system calls are in: in doubt they are noticed.  Quiet are
 *
 *   openat                                          read-only, creating nothing, when what it opened is such a file of /proc, or when it
 *                                                   found nothing (ENOENT, ESRCH)
 *   read, pread64, getdents64, lseek, fstat, close  of a descriptor that such an openat gave
 *
 * such a file: /proc itself, and the files `stat` and `children` below /proc/PID, on a file system of type proc.  Asked of the kernel when the
 * call is made, of the descriptor and not of the path, by which there may be anything.
 *
 * The argument.  What a call leaves behind is what it stores to memory, the descriptor's own state (open or not, the position), and what it does
 * to the thing that the descriptor refers to.
 *   - memory: the caller's own, since buffers in shared memory are asked after, and goes with the caller.
 *   - the descriptor's state: the caller's own, since nobody but the caller has the open file: it was opened on the recorded way, and since then
 *     the caller, which has one thread, has made no call that could have shared it (fork, sendmsg, …; any that is not in the list of those
 *     that do not).  So it goes with the caller: who dies closes it.
 *   - the thing: the kernel makes the text up for each reader, and neither consumes nor changes anything (as a pipe, a socket, an eventfd,
 *     /proc/kmsg would).  Whoever sleeps in poll() or has set a watch is not woken: these files tell nobody that they were opened, read or closed,
 *     but a watch of inotify or fanotify, which no scenario has.
 * Hence memory, descriptors and things are after the call, and the caller's death, as they are after the death alone.  A close of a pipe, socket,
 * pidfd, memfd is noticed: its death would close it too, but somebody may have acted on it in between.
 */
#ifndef STEPKILL_QUIET_H
#define STEPKILL_QUIET_H

#include <stdbool.h>
#include <sys/types.h>

/* Around each system call of the recorded way, the process being stopped before it and after it. */
void quiet_enter(pid_t pid);

/* Was it a quiet one? */
bool quiet_leave(pid_t pid);

#endif
