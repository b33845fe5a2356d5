/* SPDX-License-Identifier: MIT */
/*
 * A bell: makes a file descriptor of a process readable when something in shared memory happens.
 *
 * Up to 16 processes hang a bell on an object (struct bri_bell_shm).  Each is a pipe of its process; its entry says in which
 * process and at which number, and others ring it through /proc/<pid>/fd/<number>.  Opened for reading and writing,
 * so that a ringer never meets a pipe without reader (SIGPIPE).  The inode tells our pipe from what came to that number later.
 *
 * armed word: bit i: entry i wants to be rung.       entry: name 0: free; else whose it is (a forked child has another name)
 *
 * field – writer – readers – protection
 *   armed          owner of the entry: or, and; ringer: and            ringers      each bit by itself; set for nobody: harmless
 *   entries        owner, with `lock`; mourn: name: CAS → 0            ringers      a torn entry fails the inode check
 *
 * the poller                                          a ringer
 *   Q1  empties its pipe                                R1  a state begins that is_ready sees as "soon" (a lock is taken)
 *   Q2  arms its bit (seq_cst)                          R2  fence; if armed: one byte into the pipe, then the bit off
 *   Q3  is_ready? then a byte into its own pipe         R3  the thing happens (a commit)
 *   Q4  poll, then try, then Q1                         R4  the state ends (unlock)
 *
 * Q2 before Q3 and R1 before R2: either the ringer sees the bit, or the poller sees the state of R1 or what follows, and
 * stays readable.  is_ready looks for the state of R1 first and for the thing second.
 *
 * A poller that was rung at R2 may look before R3.  Who has a bell and finds nothing therefore waits until the state of R1 has ended
 * and looks once more, before it says that there is nothing: readable means that somebody else took it, or that it is there.
 *
 * death table
 *   ringer, R1 … R4    no byte, or a byte too many: the poller looks.  What it finds busy it asks about (bri_report_if_ended)
 *   poller             its pipe is gone; mourn frees the entry; ringers find no process or another inode
 *
 * right:  while (get(BROOD_NOW) == -ETIMEDOUT) poll(fd)
 * wrong:  poll(fd); get(BROOD_FOREVER)        another process may have been faster
 */
#ifndef BRI_BELL_H
#define BRI_BELL_H

#include "arena/arena.h"
#include "sync/mutex.h"

enum { BRI_BELLS = 16 };

struct bri_bell_entry_shm {
    _Atomic bri_name name;
    _Atomic uint32_t pid;
    _Atomic int32_t read_fd;
    _Atomic int32_t write_fd; /* held open, so that the pipe never reads as ended */
    _Atomic uint64_t inode;
};

struct bri_bell_shm {
    _Atomic uint32_t armed;
    struct bri_mutex_shm lock;
    struct bri_bell_entry_shm entries[BRI_BELLS];
};

/* Has it happened, or is somebody about to make it happen?  Called without locks. */
typedef int bri_bell_is_ready(void *argument);

/* The calling process's descriptor, made if need be.  -EMFILE, -ENFILE, -ENOMEM, -EAGAIN: 16 processes have one already. */
int bri_bell_open(struct bri_bell_shm *bell, bri_bell_is_ready *is_ready, void *argument);

/* Closes the calling process's descriptor, if it has one. */
void bri_bell_close(struct bri_bell_shm *bell);

/* Has the calling process a bell here? */
int bri_bell_is_hung(struct bri_bell_shm *bell);

/* Q1 … Q3: the calling process looked and found nothing.  Does nothing when it has no bell here. */
void bri_bell_quiet(struct bri_bell_shm *bell, bri_bell_is_ready *is_ready, void *argument);

void bri_bell_ring_slow(struct bri_bell_shm *bell);

/* R2.  After a compare-and-swap that took the lock; that is a fence already on x86. */
static inline void bri_bell_ring(struct bri_bell_shm *bell)
{
#if defined(__x86_64__)
    atomic_signal_fence(memory_order_seq_cst);
#else
    bri_fence_seq_cst();
#endif
    if (bri_load_relaxed(&bell->armed) != 0)
        bri_bell_ring_slow(bell);
}

/* Takes the dead out. */
void bri_bell_mourn(struct bri_bell_shm *bell, bri_name dead);

#endif
