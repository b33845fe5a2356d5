/* SPDX-License-Identifier: MIT */
#ifndef BRI_KEEPER_H
#define BRI_KEEPER_H

#include <signal.h>

#include "brood.h"
#include "proc/record.h"

/* What the keeper takes along when it is forked. */
struct bri_keep {
    struct bri_process_shm *record;
    brood_process_function *function;
    void *argument;
    bri_name name; /* the keeper's, claimed by the starter */
    sigset_t mask; /* the user's */
};

/* The keeper's life; for bri_fork_detached. */
void bri_keeper_main(void *keep);

#endif
