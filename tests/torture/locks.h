/* SPDX-License-Identifier: MIT */
/*
 * Locks, semaphores, conditions, events, barriers and memory among processes that are killed.
 *
 * Books, outside of the arena, for each object:
 *
 *   lock, rlock   guard: the seat within, by exchange; a second one is only found there by who is told BROOD_OWNER_DIED.
 *                 count: raised by load and store within; done[seat]: raised just before it.
 *                 sum of done - dead within the section ≤ count ≤ sum of done
 *   semaphore     holders: a word with a bit per seat that holds a token (low half) and per seat that is being killed (high half), so
 *                 that one atomic operation says how many hold one for certain
 *   condition     tickets, given and taken under its lock; given - taken = tickets, but for the dead within the section
 *   barrier       how often each order of arrival was given out: equally often, but for the dead
 *   memory        blocks are filled, handed over through a table, checked and freed by another seat; a death may lose one
 */
#ifndef BROOD_TORTURE_LOCKS_H
#define BROOD_TORTURE_LOCKS_H

#include "torture.h"

enum {
    SEATS = 9,
    LOCKS = 3,
    RLOCKS = 2,
    SECTIONS = LOCKS + RLOCKS,
    SEMAPHORES = 3,
    SHARED_BLOCKS = 8,
    PARTIES_MOST = 4
};

struct section_shm {
    _Atomic uint32_t guard; /* seat + 1 of who is within */
    _Atomic uint64_t count; /* by load and store: what the lock protects */
    _Atomic uint64_t done[SEATS];
    _Atomic uint32_t within[SEATS]; /* 1: the seat may have raised done and not count */
    _Atomic uint64_t dead_within;
};

struct lock_books_shm {
    struct section_shm sections[SECTIONS];
    _Atomic uint64_t holders[SEMAPHORES];
    struct section_shm tickets; /* count: tickets now; done: given; guard unused */
    _Atomic uint64_t given[SEATS], taken[SEATS];
    _Atomic uint32_t in_tickets[SEATS];
    _Atomic uint64_t dead_in_tickets, all_deaths;
    _Atomic uint64_t arrivals[PARTIES_MOST];
    _Atomic uint64_t trips, breaks;
    _Atomic(uint64_t *) blocks[SHARED_BLOCKS];
    _Atomic uint64_t operations;
};

struct lock_objects {
    brood_lock *locks[LOCKS];
    brood_rlock *rlocks[RLOCKS];
    brood_semaphore *semaphores[SEMAPHORES];
    uint32_t tokens[SEMAPHORES];
    brood_condition *condition;
    brood_event *event;
    brood_barrier *barrier;
    uint32_t parties;
    struct lock_books_shm *books;
};

extern struct lock_objects here;

/* The life of the process in a seat: one use after the other. */
void use_locks(uint32_t seat, uint32_t life, uint64_t random);

/* For the controller, too. */
int is_acquired(int error, int64_t deadline, const char *what);
void check_block(const uint64_t *block);

#endif
