/* SPDX-License-Identifier: MIT */
/*
 * A process started by brood_process_start, as its starter and its keeper see it.
 *
 * starter --forks, detached--> keeper --forks--> child, which runs the user's function
 *
 * The keeper is the child's parent: it waits for it, writes down how it ended, passes on what it held, and ends.  So the starter has no child
 * that its own wait() could see, and a daemon ends with its starter however that ends (the keeper watches it).
 *
 * state:   STARTING --keeper--> RUNNING --keeper--> ENDED
 *             |                    |
 *             |                    +--mourn(keeper)--> LOST --mourn(child)--> ENDED, status unknown
 *             +--keeper: fork failed--> FAILED
 *
 * field – writer – readers
 *   state        the keeper; after its death the undertaker – starter
 *   pid, status  the keeper before the state that tells of them – starter
 *   gone         STARTER by the starter or its undertaker, KEEPER by the keeper or its undertaker; whoever sets the second bit frees the record,
 *                and says by LAST_… in the same CAS that it is the one: should it die before, its undertaker frees the record
 *
 * death table
 *   starter, any time    its undertaker sets STARTER; the keeper kills a daemon, else stops watching the starter
 *   keeper, STARTING     the starter sees its death (slice of its wait): -EAGAIN; a child that was forked finds its keeper dead and ends
 *   keeper, later        LOST; a daemon dies with it (PR_SET_PDEATHSIG), another child goes on; join waits for the child itself
 *   child                the keeper reaps it: status
 *   keeper, status written, ENDED not: as "keeper, later": status unknown
 */
#ifndef BRI_RECORD_H
#define BRI_RECORD_H

#include "heap/heap.h"

enum bri_process_state {
    BRI_PROCESS_STARTING,
    BRI_PROCESS_RUNNING,
    BRI_PROCESS_LOST,
    BRI_PROCESS_ENDED,
    BRI_PROCESS_FAILED
};

enum {
    BRI_GONE_STARTER = 1,
    BRI_GONE_KEEPER = 2,
    BRI_GONE_BOTH = 3,
    BRI_GONE_LAST_STARTER = BRI_GONE_STARTER << 2,
    BRI_GONE_LAST_KEEPER = BRI_GONE_KEEPER << 2
};

struct bri_process_shm {
    _Atomic uint32_t state;
    _Atomic uint32_t event; /* signalled at every change of state */
    _Atomic uint32_t gone;
    _Atomic bri_name starter, keeper, child;
    _Atomic int32_t pid;    /* of the child */
    _Atomic int32_t status; /* exit code, or minus the signal, or BRI_STATUS_UNKNOWN; FAILED: minus errno */
    uint32_t is_daemon;
};

/* Sets one bit of `gone`, and frees the record with the second. */
void bri_process_leave(struct bri_process_shm *record, uint32_t who);

extern const struct bri_kind_ops bri_process_ops;

#endif
