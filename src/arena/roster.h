/* SPDX-License-Identifier: MIT */
/* Names and slots of participants.  The structures are drawn in arena.h. */
#ifndef BRI_ROSTER_H
#define BRI_ROSTER_H

#include "arena/arena.h"

/* The calling process's name; 0 before it has joined. */
static inline bri_name bri_self(void)
{
    return bri_load_acquire(&bri_load_acquire(&bri_identity)->name);
}

static inline struct bri_slot_shm *bri_slot_of(bri_name name)
{
    return &bri_arena_current->header->slots[name & (BRI_SLOTS - 1)];
}

static inline uint32_t bri_epoch_of(bri_name name)
{
    return name >> BRI_SLOT_BITS;
}

/* One load.  False for 0. */
int bri_is_alive(bri_name name);

/* A slot is DEAD and not yet free again: what its holder held is not wholly passed on. */
int bri_is_dead_and_unburied(bri_name name);

/* Claims a slot for a process that the caller, a participant, is about to fork.  0 and its name; -EAGAIN: the roster is full. */
int bri_roster_claim(enum bri_role role, bri_name *ret_name);

/* The calling process joins by itself, and its identity carries the name.  0 when it is in; -EAGAIN: the roster is full. */
int bri_roster_join(struct bri_identity *identity);

/* In the new process: takes the claimed name as its own.  -ECANCELED: the claim was buried meanwhile, its maker died: end. */
int bri_roster_enter(bri_name name);

/* Its pid; 0 as long as it is not known, and once the slot is free or another's. */
uint32_t bri_roster_pid_of(bri_name name);

/* Which process the claim is for, as soon as its maker knows: one that is killed before it enters is missed by its pid. */
void bri_roster_tell_pid(bri_name name, uint32_t pid);

/* A claim whose process never came to be. */
void bri_roster_cancel(bri_name name);

/* Says that the named process has ended: its slot turns DEAD.  Whoever calls this calls bri_undertake() (heap/recover.h) next.  True when
 * this call did it, false when it was not alive any more.  `end`: BRI_END_…. */
int bri_roster_bury(bri_name name, uint32_t end);

/* Asks the kernel (pid and start time) whether the named process still runs; true also for a name that is not alive. */
int bri_roster_has_ended(bri_name name);

/* The participant that it depends on; 0: none.  Of a claim, who made it: right after it the slot's fields are still those of the last
 * holder, and stay so when the maker dies there. */
bri_name bri_roster_boss_of(bri_name name);

/* How it ended, as told to bury; for slots that are DEAD. */
uint32_t bri_roster_end_of(bri_name name);

/* LIVE → DEAD → FREE, of oneself, by who holds nothing. */
void bri_roster_leave(void);

/* DEAD → FREE, once everything is passed on.  Any number may do it at once. */
void bri_roster_release(bri_name name);

/* The name that the slot shows now, with its state; a snapshot. */
bri_name bri_roster_name_at(uint32_t slot, enum bri_slot_state *ret_state);

#endif
