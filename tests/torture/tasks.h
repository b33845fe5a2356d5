/* SPDX-License-Identifier: MIT */
/*
 * The tasks of the part "pools", and how each may end.
 *
 * Books, outside of the arena: for each item how often it was begun and ended.  An item is begun once, and once more for each retry that it may
 * have.  It has a value if it was ended and nobody died; it died if it was told to, or at the hands of the killer: of those there are not more
 * than victims.  It ran out of time, or was cancelled, if its batch may be.
 */
#ifndef BROOD_TORTURE_TASKS_H
#define BROOD_TORTURE_TASKS_H

#include "torture.h"

enum {
    REGIONS_EACH = 128,
    REGIONS = 64 * REGIONS_EACH,
    ITEMS = 300,
    REPLY_MOST = 9000,
    MEMORY_MIB = 48, /* max_memory_bytes of a limited pool */
    FILES_MOST = 64,
    CPU_SECONDS = 1
};

/* From DIE_BY_KILL on: those that end their worker; HANG goes on until somebody ends it. */
enum errand {
    WORK,
    SPIN,
    NAP,
    FAIL,
    RETURN_CODE,
    ALLOCATE,
    OPEN_FILES,
    TAKE_MEMORY,
    DIE_ONCE,
    HANG,
    HANG_DEAF,
    DIE_BY_KILL,
    DIE_BY_FAULT,
    DIE_BY_ABORT,
    DIE_BY_STACK,
    DIE_BY_EXIT,
    DIE_BY_EXIT_AT_ONCE,
    DIE_BY_MEMORY,
    DIE_BY_CPU,
    DIE_BY_OOM
};

struct item {
    uint32_t region, index;
    uint32_t errand;
    uint32_t bytes; /* of the reply */
    uint64_t value;
};

struct life_shm {
    _Atomic uint16_t begun, ended;
};

struct task_books_shm {
    struct life_shm lives[REGIONS][ITEMS];
    _Atomic uint32_t killed; /* workers, by the killer; a supervisor counts for all of its workers */
    _Atomic uint32_t supervisors_killed;
    _Atomic uint32_t died; /* items that were not told to */
    _Atomic uint32_t killer_may_go;
    char oom_group[128]; /* cgroup.procs of a small memory cgroup, or empty */
};

extern struct task_books_shm *books;

/* What may come over the items of a batch. */
struct fate {
    uint32_t retries;
    int may_be_late, may_be_cancelled, may_be_ended; /* ended: cancelled while it runs */
};

int run_fixed(brood_task *task, const void *item, void *result);
int run_bytes(brood_task *task, const void *item, void *result);

int is_told_to_die(const struct item *item);
int is_told_to_fail(const struct item *item);

uint64_t value_of(const struct item *item);

/* One item's end, once it is known. */
void check_outcome(const struct item *item, const brood_outcome *outcome, const struct fate *fate);
void check_value(const struct item *item, uint64_t value);
void check_reply(const struct item *item, const brood_message *reply);

/* A memory cgroup of a few MiB for tasks to enter, where this user may make one; it is put into the books. */
void make_oom_group(void);
void remove_oom_group(void);

#endif
