/* SPDX-License-Identifier: MIT */
#include "arena/roster.h"

#include <errno.h>
#include <sys/types.h>
#include <unistd.h>

#include "arena/undertaker.h"
#include "base/error.h"
#include "plat/process.h"

#define EPOCH_MASK ((UINT32_C(1) << (32 - BRI_SLOT_BITS)) - 1)

static uint64_t make_word(uint32_t upper, uint32_t epoch, enum bri_slot_state state)
{
    return (uint64_t)upper << 32 | (uint64_t)epoch << 8 | (uint64_t)state;
}

static enum bri_slot_state state_of(uint64_t word)
{
    return (enum bri_slot_state)(word & 0xff);
}

static uint32_t epoch_of(uint64_t word)
{
    return (uint32_t)word >> 8;
}

static uint32_t upper_of(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

static int shows(bri_name name, uint64_t *ret_word)
{
    *ret_word = bri_load_acquire(&bri_slot_of(name)->word);
    return name != 0 && epoch_of(*ret_word) == bri_epoch_of(name);
}

int bri_is_alive(bri_name name)
{
    uint64_t word;

    return shows(name, &word) && (state_of(word) == BRI_SLOT_LIVE || state_of(word) == BRI_SLOT_CLAIMED);
}

int bri_is_dead_and_unburied(bri_name name)
{
    uint64_t word;

    return shows(name, &word) && state_of(word) == BRI_SLOT_DEAD;
}

static void raise_high(uint32_t count)
{
    _Atomic uint32_t *high = &bri_arena_current->header->slots_high;
    uint32_t seen = bri_load_relaxed(high);

    while (seen < count && !bri_cas_acq_rel(high, &seen, count)) {
    }
}

static int may_be_claimed(uint64_t word)
{
    if (state_of(word) == BRI_SLOT_JOINING)
        return bri_process_has_ended((pid_t)upper_of(word), 0);
    return state_of(word) == BRI_SLOT_FREE;
}

/* slots_high is raised before the claim, so that every walk that begins after a claim sees it. */
static int claim_slot(uint32_t slot, uint32_t upper, enum bri_slot_state state, bri_name *ret_name)
{
    struct bri_slot_shm *entry = &bri_arena_current->header->slots[slot];
    uint64_t word = bri_load_acquire(&entry->word);

    if (!may_be_claimed(word))
        return 0;
    uint32_t epoch = (epoch_of(word) + 1) & EPOCH_MASK;
    if (epoch == 0)
        epoch = 1;
    raise_high(slot + 1);
    if (!bri_cas_acq_rel(&entry->word, &word, make_word(upper, epoch, state)))
        return 0;
    *ret_name = epoch << BRI_SLOT_BITS | slot;
    return 1;
}

static int claim_any(uint32_t upper, enum bri_slot_state state, bri_name *ret_name)
{
    for (uint32_t slot = 0; slot < BRI_SLOTS; slot++)
        if (claim_slot(slot, upper, state, ret_name))
            return 0;
    return bri_fail(EAGAIN, "%u processes use the arena already, the most that it has room for", BRI_SLOTS);
}

/* The pid of this very holder: whoever is late with it, for a claim that was buried meanwhile, must not say it of the next holder, who would
 * be taken for dead with that process. */
static uint64_t tagged(bri_name name, uint32_t pid)
{
    return (uint64_t)bri_epoch_of(name) << 32 | pid;
}

static void reset_fields(bri_name name, enum bri_role role, bri_name boss)
{
    struct bri_slot_shm *entry = bri_slot_of(name);

    bri_store_relaxed(&entry->role, (uint32_t)role);
    bri_store_relaxed(&entry->boss, boss);
    bri_store_relaxed(&entry->pid, tagged(name, 0));
    bri_store_relaxed(&entry->start_time, UINT64_C(0));
    bri_store_relaxed(&entry->progress, UINT64_C(0));
    bri_store_relaxed(&entry->end_status, BRI_STATUS_UNKNOWN);
    bri_store_release(&entry->idle, role == BRI_ROLE_SUPERVISOR || role == BRI_ROLE_KEEPER);
}

int bri_roster_claim(enum bri_role role, bri_name *ret_name)
{
    bri_name name;
    int error = claim_any(bri_self(), BRI_SLOT_CLAIMED, &name);

    if (error < 0)
        return error;
    reset_fields(name, role, bri_self());
    *ret_name = name;
    return 0;
}

/* False: the slot is another's by now. */
static int tell_pid(bri_name name, uint32_t pid)
{
    uint64_t unknown = tagged(name, 0);

    return bri_cas_acq_rel(&bri_slot_of(name)->pid, &unknown, tagged(name, pid)) ||
           unknown == tagged(name, pid);
}

uint32_t bri_roster_pid_of(bri_name name)
{
    uint64_t pid = bri_load_acquire(&bri_slot_of(name)->pid), word;

    return shows(name, &word) && state_of(word) != BRI_SLOT_FREE && pid >> 32 == bri_epoch_of(name)
               ? (uint32_t)pid
               : 0;
}

/* By the slot's holder alone: as long as it is LIVE, nobody else can come to have the slot. */
static void tell_start_time(bri_name name)
{
    bri_store_relaxed(&bri_slot_of(name)->start_time, bri_process_start_time(getpid()));
}

/* Nobody watches a process that the user forked: what it held is passed on when somebody waits for it, or here, before room runs out. */
int bri_roster_join(struct bri_identity *identity)
{
    bri_name name;
    int error = claim_any((uint32_t)getpid(), BRI_SLOT_JOINING, &name);

    if (error < 0)
        return error;
    struct bri_slot_shm *entry = bri_slot_of(name);
    reset_fields(name, BRI_ROLE_USER, 0);
    tell_pid(name, (uint32_t)getpid());
    tell_start_time(name);
    bri_store_release(&entry->word, make_word(0, bri_epoch_of(name), BRI_SLOT_LIVE));
    bri_store_release(&identity->name, name);
    if ((name & (BRI_SLOTS - 1)) >= BRI_SLOTS / 2)
        bri_bury_the_ended();
    return 0;
}

int bri_roster_enter(bri_name name)
{
    struct bri_slot_shm *entry = bri_slot_of(name);
    uint64_t word = make_word(bri_roster_boss_of(name), bri_epoch_of(name), BRI_SLOT_CLAIMED);

    if (!tell_pid(name, (uint32_t)getpid()) ||
        !bri_cas_acq_rel(&entry->word, &word, make_word(0, bri_epoch_of(name), BRI_SLOT_LIVE)))
        return bri_fail(ECANCELED, "the process that started this one has died meanwhile");
    tell_start_time(name);
    bri_store_release(&bri_identity->name, name);
    return 0;
}

void bri_roster_tell_pid(bri_name name, uint32_t pid)
{
    tell_pid(name, pid); /* it may have come and gone */
}

void bri_roster_cancel(bri_name name)
{
    struct bri_slot_shm *entry = bri_slot_of(name);
    uint64_t word = make_word(bri_self(), bri_epoch_of(name), BRI_SLOT_CLAIMED);

    bri_cas_acq_rel(&entry->word, &word, make_word(0, bri_epoch_of(name), BRI_SLOT_FREE));
}

int bri_roster_bury(bri_name name, uint32_t end)
{
    uint64_t word;

    while (shows(name, &word) && (state_of(word) == BRI_SLOT_LIVE || state_of(word) == BRI_SLOT_CLAIMED))
        if (bri_cas_seq_cst(&bri_slot_of(name)->word, &word,
                            make_word(end, bri_epoch_of(name), BRI_SLOT_DEAD)))
            return 1;
    return 0;
}

/* The kernel is asked.  `maker`: of a claim whose process is not there yet, on which it stands and falls; else 0. */
static int has_ended(bri_name name, bri_name *ret_maker)
{
    uint64_t word;

    *ret_maker = 0;
    if (!bri_is_alive(name) || name == bri_self())
        return name != bri_self();
    uint32_t pid = bri_roster_pid_of(name);
    uint64_t start_time = bri_load_relaxed(&bri_slot_of(name)->start_time);
    if (!shows(name, &word) || state_of(word) == BRI_SLOT_DEAD)
        return 1;
    if (state_of(word) == BRI_SLOT_CLAIMED && pid == 0)
        *ret_maker = upper_of(word);
    return pid == 0 || bri_process_has_ended((pid_t)pid, start_time);
}

/* A maker has entered long ago: if its word says that it is a claim, too, it is damaged, and counts as ended. */
int bri_roster_has_ended(bri_name name)
{
    bri_name maker, none;
    int ended = has_ended(name, &maker);

    return maker == 0 ? ended : has_ended(maker, &none);
}

/* The word first: the field is this holder's once that shows LIVE. */
bri_name bri_roster_boss_of(bri_name name)
{
    uint64_t word;

    if (!shows(name, &word))
        return 0;
    return state_of(word) == BRI_SLOT_CLAIMED ? upper_of(word) : bri_load_relaxed(&bri_slot_of(name)->boss);
}

uint32_t bri_roster_end_of(bri_name name)
{
    uint64_t word;

    return shows(name, &word) && state_of(word) == BRI_SLOT_DEAD ? upper_of(word) : BRI_END_UNKNOWN;
}

void bri_roster_release(bri_name name)
{
    struct bri_slot_shm *entry = bri_slot_of(name);
    uint64_t word = bri_load_acquire(&entry->word);

    if (epoch_of(word) != bri_epoch_of(name) || state_of(word) != BRI_SLOT_DEAD)
        return;
    bri_cas_acq_rel(&entry->word, &word, make_word(0, bri_epoch_of(name), BRI_SLOT_FREE));
}

/* By way of DEAD: killed in the middle, it is a dead one like others, and not one that is alive for ever without a pid to ask for. */
void bri_roster_leave(void)
{
    bri_name name = bri_self();

    bri_store_release(&bri_identity->name, (bri_name)0);
    bri_roster_bury(name, BRI_END_CLEAN);
    bri_roster_release(name);
}

bri_name bri_roster_name_at(uint32_t slot, enum bri_slot_state *ret_state)
{
    uint64_t word = bri_load_acquire(&bri_arena_current->header->slots[slot].word);

    *ret_state = state_of(word);
    return epoch_of(word) == 0 ? 0 : epoch_of(word) << BRI_SLOT_BITS | slot;
}
