/* SPDX-License-Identifier: MIT */
/*
 * The undertaker: passes on what the dead held.
 *
 *   U1  takes the undertaker's word (CAS that names it; from a dead one by CAS too)
 *   U2  settle: each block that carries the dead one's name either lives on (the arena's) or is marked to be freed.  The dead one's locks
 *       are still its own, so that nothing that it was changing moves
 *   U3  mourn: the heap's locks, then every object: what the dead held is repaired and freed, the dead is taken out
 *   U4  frees the blocks that still carry the name
 *   U5  the slot is free again
 *   U6  the obituary + 1: everybody looks again
 *
 * death table: killed after any step, the slot is still DEAD and every step may be done again: U2 changes only tags that carry the name, U3
 * takes over only locks that carry it, U4 frees only blocks that carry it.  The next undertaker treats the dead undertaker likewise.  A death
 * between U5 and U6 leaves sleepers asleep, until the obituary of the undertaker itself.
 *
 * Order matters: U2 before U3, as a freed lock lets others change what U2 decides by.
 */
#include <signal.h>
#include <sys/wait.h>

#include "arena/roster.h"
#include "arena/undertaker.h"
#include "base/check.h"
#include "base/time.h"
#include "heap/heap.h"
#include "sync/event.h"
#include "sync/mutex.h"

enum { SLICE_MS = 20 };

static _Thread_local unsigned
    depth; /* undertaking within undertaking: a mourner waited for a lock of somebody who died meanwhile */

/* Whom this thread is passing on: the inner undertaking leaves them to the outer one.  Its walk holds tags that it has read, and would free
 * once more what the inner one had freed. */
struct in_hand {
    bri_name name;
    const struct in_hand *outer;
};
static _Thread_local const struct in_hand *in_hand;

static int is_in_hand(bri_name name)
{
    for (const struct in_hand *one = in_hand; one != NULL; one = one->outer)
        if (one->name == name)
            return 1;
    return 0;
}

/* What is asked of the block's kind; NULL: nothing. */
static const struct bri_kind_ops *ops_of(struct bri_block_shm *block, uint64_t tag)
{
    enum bri_kind kind = bri_tag_kind(tag);
    const struct bri_kind_ops *ops = (unsigned)kind < BRI_KINDS ? bri_kind_ops[kind] : NULL;

    return ops != NULL && bri_heap_find(bri_offset_of(bri_payload_of(block)), kind, ops->bytes) != NULL
               ? ops
               : NULL;
}

static void settle_block(struct bri_block_shm *block, uint64_t tag, void *argument)
{
    bri_name dead = *(bri_name *)argument;
    const struct bri_kind_ops *ops = bri_tag_owner(tag) == dead ? ops_of(block, tag) : NULL;

    if (ops != NULL && ops->settle != NULL && ops->settle(block, dead))
        bri_cas_acq_rel(&block->tag, &tag, bri_tag_with_owner(tag, 0));
}

static void mourn_object(struct bri_block_shm *block, uint64_t tag, void *argument)
{
    const struct bri_kind_ops *ops = ops_of(block, tag);

    if (ops != NULL && ops->mourn != NULL &&
        (bri_tag_owner(tag) == 0 || bri_load_acquire(&block->aux[2]) == BRI_READY))
        ops->mourn(bri_payload_of(block), *(bri_name *)argument);
}

static void free_block(struct bri_block_shm *block, uint64_t tag, void *argument)
{
    if (bri_tag_owner(tag) == *(bri_name *)argument)
        bri_heap_free(bri_payload_of(block));
}

/* A worker writes into blocks of its pool's owner, and a supervisor reads them: the owner's blocks wait until these have ended too, or, as a
 * supervisor does by taking 0 for its boss, have said that they are done with them.  Also when it is one of them who asks: it may only be
 * passing somebody else on. */
static int depends_on(bri_name name, bri_name dead)
{
    bri_name boss = bri_roster_boss_of(name);
    uint32_t role = bri_load_relaxed(&bri_slot_of(name)->role);

    if (role == BRI_ROLE_SUPERVISOR)
        return boss == dead;
    return role == BRI_ROLE_WORKER &&
           !bri_is_alive(boss); /* about to die with its supervisor, whoever the owner was */
}

static int others_depend_on(bri_name dead)
{
    uint32_t high = bri_slots_high();

    bri_fence_seq_cst(); /* let_go_of in pool/supervisor.c */
    for (uint32_t slot = 0; slot < high; slot++) {
        enum bri_slot_state state;
        bri_name name = bri_roster_name_at(slot, &state);
        if ((state == BRI_SLOT_LIVE || state == BRI_SLOT_CLAIMED) && depends_on(name, dead) &&
            !bri_roster_has_ended(name))
            return 1;
    }
    return 0;
}

static void pass_on(bri_name dead)
{
    bri_heap_walk(settle_block, &dead); /* U2 */
    bri_fault("recover.settled");
    bri_heap_mourn(dead); /* U3 */
    bri_heap_walk(mourn_object, &dead);
    bri_fault("recover.mourned");
    if (others_depend_on(dead))
        return;                       /* whoever buries the last of them comes here again */
    bri_heap_walk(free_block, &dead); /* U4 */
    bri_fault("recover.freed");
    bri_roster_release(dead); /* U5 */
}

static void claim_of_the_dead(bri_name dead)
{
    uint32_t high = bri_slots_high();

    for (uint32_t slot = 0; slot < high; slot++) {
        enum bri_slot_state state;
        bri_name name = bri_roster_name_at(slot, &state);
        if (state == BRI_SLOT_CLAIMED && bri_roster_boss_of(name) == dead && bri_roster_pid_of(name) == 0)
            bri_roster_bury(name, BRI_END_KILLED);
    }
}

static void pass_on_those(int are_workers)
{
    uint32_t high = bri_slots_high();

    for (uint32_t slot = 0; slot < high; slot++) {
        enum bri_slot_state state;
        bri_name name = bri_roster_name_at(slot, &state);
        if (state != BRI_SLOT_DEAD ||
            (bri_load_relaxed(&bri_slot_of(name)->role) == BRI_ROLE_WORKER) != are_workers)
            continue;
        if (is_in_hand(name))
            continue;
        struct in_hand this = {name, in_hand};
        in_hand = &this;
        claim_of_the_dead(name);
        pass_on(name);
        in_hand = this.outer;
    }
}

/* Workers first: what they were about to pass on is decided by a look into blocks of their pool's owner. */
static void pass_on_all(void)
{
    pass_on_those(1);
    pass_on_those(0);
}

static int try_lock(struct bri_mutex_shm *word, bri_name from)
{
    return bri_cas_acq_rel(&word->owner, &from, bri_self());
}

/* The parent knows best how a child ended.  Noted without reaping it: the pid stays the child's until the parent itself reaps it. */
static uint32_t note_end(bri_name name)
{
    struct bri_slot_shm *slot = bri_slot_of(name);
    siginfo_t info = {.si_pid = 0};

    if (bri_load_relaxed(&slot->boss) != bri_self() ||
        waitid(P_PID, bri_roster_pid_of(name), &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0)
        return BRI_END_KILLED;
    bri_store_release(&slot->end_status, info.si_code == CLD_EXITED ? info.si_status : -info.si_status);
    return info.si_code == CLD_EXITED ? BRI_END_CLEAN : BRI_END_KILLED;
}

/* Workers and processes of brood are watched by their parents, who say how they ended: others leave it to them. */
static int is_watched_by_other(bri_name name)
{
    uint32_t role = bri_load_relaxed(&bri_slot_of(name)->role);
    bri_name boss = bri_load_relaxed(&bri_slot_of(name)->boss);

    return (role == BRI_ROLE_WORKER || role == BRI_ROLE_PROCESS) && boss != bri_self() &&
           bri_is_alive(boss) && !bri_roster_has_ended(boss);
}

/* While we wait, the undertaker may wait for a lock that a child of ours died with: it leaves such deaths to us, so we say them here. */
static void bury_own_children(void)
{
    uint32_t high = bri_slots_high();

    for (uint32_t slot = 0; slot < high; slot++) {
        enum bri_slot_state state;
        bri_name name = bri_roster_name_at(slot, &state);
        if (state == BRI_SLOT_LIVE && bri_load_relaxed(&bri_slot_of(name)->boss) == bri_self() &&
            bri_roster_has_ended(name))
            bri_roster_bury(name, note_end(name));
    }
}

static int take_from_dead(struct bri_mutex_shm *word)
{
    bri_name owner = bri_load_acquire(&word->owner);

    if (bri_mutex_is_damaged(owner))
        return try_lock(word, owner);
    if (owner == 0 || owner == bri_self() || !bri_roster_has_ended(owner) || is_watched_by_other(owner))
        return 0;
    bri_roster_bury(owner, note_end(owner));
    return try_lock(word, owner);
}

/* Not bri_mutex_lock: nobody else could report the death of an undertaker to. */
static void lock_undertaker(struct bri_mutex_shm *word)
{
    if (try_lock(word, 0))
        return;
    bri_before_sleep();
    while (!try_lock(word, 0)) {
        uint32_t obituary = bri_obituary_key();
        uint32_t key = bri_event_prepare(&word->event);
        if (try_lock(word, 0) || take_from_dead(word))
            return;
        bury_own_children();
        bri_event_sleep(&word->event, key, obituary, bri_after_ns(SLICE_MS * BRI_NS_PER_MS));
    }
}

void bri_undertake(void)
{
    struct bri_mutex_shm *word = &bri_arena_current->header->undertaker;

    if (depth++ == 0)
        lock_undertaker(word); /* U1 */
    pass_on_all();
    if (--depth > 0)
        return;
    bri_store_release(&word->owner, (bri_name)0);
    bri_event_signal(&word->event, 1);
    bri_obituary_publish(); /* U6 */
}

/* Once it is DEAD, its watcher may wait for us, the undertaker. */
static int may_bury(bri_name name)
{
    return name != 0 && name != bri_self() && bri_roster_has_ended(name) &&
           !(bri_is_alive(name) && is_watched_by_other(name));
}

void bri_bury_the_ended(void)
{
    uint32_t high = bri_slots_high();
    int some_are_dead = 0;

    for (uint32_t slot = 0; slot < high; slot++) {
        enum bri_slot_state state;
        bri_name name = bri_roster_name_at(slot, &state);
        if ((state == BRI_SLOT_LIVE || state == BRI_SLOT_CLAIMED) && may_bury(name))
            bri_roster_bury(name, note_end(name));
        some_are_dead |= bri_is_dead_and_unburied(name);
    }
    if (some_are_dead)
        bri_undertake();
}

int bri_report_if_ended(bri_name name)
{
    if (!may_bury(name))
        return 0;
    bri_roster_bury(name, note_end(name));
    if (bri_mutexes_held == 0) {
        bri_undertake();
    } else {
        bri_heap_mourn(name);
        bri_undertaking_is_due = 1;
    }
    return 1;
}
