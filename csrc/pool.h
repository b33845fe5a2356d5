/* SPDX-License-Identifier: MIT */
/*
 * Pools for Python.
 *
 *   pool.c   Pool: the owner's side, and the hooks around forks      job.c    Job: what was submitted, and its replies
 *   task.c   what a worker does with an item                         stream.c Stream: imap
 *   crash.c  how a worker that crashes leaves its Python stack
 *
 * A task is one chunk of calls.  Its item is a header, the pickled callable (or where in the arena it lies) and the pickled arguments; its reply is
 * one byte, enum task_reply, one byte, how often it was begun here (255: or more often), and a pickle.
 */
#ifndef BROOD_CORE_POOL_H
#define BROOD_CORE_POOL_H

#include "core.h"
#include "pickling.h"

enum task_mode {
    TASK_CALL, /* arguments: (args, kwds).  Reply: the value */
    TASK_MAP,  /* arguments: a tuple, an argument each.  Reply: the list of values */
    TASK_STARMAP,
    TASK_NOTHING /* there is neither callable nor argument.  Reply: None */
};

enum task_reply { TASK_VALUE, TASK_ERROR };
enum { TASK_REPLY_HEAD = 2 };

/* How tasks may end before they are done: "(III)" from brood._ends.Plan. */
struct task_ends {
    unsigned item_timeout_ms, timeout_ms, retries; /* 0: none */
};

struct task_header {
    uint64_t serial;      /* of the callable; 0: not to be kept from one task to the next */
    uint64_t blob;        /* address in the arena of the pickled callable; 0: it follows the header */
    uint32_t call_bytes;  /* of the pickled callable */
    uint32_t mode;        /* enum task_mode */
    uint64_t job;         /* its number in the pool, from 0; seeds of random numbers depend on it */
    uint64_t chunk_items; /* of the user's, per task; 0: a call */
    uint64_t first;       /* of the user's items: where one call has several jobs, as an imap has */
};

/* Of which job the items are, as the header has it. */
struct task_origin {
    uint64_t job, chunk_items, first;
    int is_retried; /* an item may be run again, with the arguments as they were */
};

/* What is submitted over and over: a callable, pickled once. */
struct callable {
    PyObject_HEAD PyObject *pickled; /* bytes, or NULL once it lies in the arena */
    PyObject *held;                  /* list: shared data that it refers to */
    struct task_header header;
};

/* What Python does for a pool: callables, or None. */
enum pool_hook {
    HOOK_BEGIN,      /* in a worker: begin(), initialize() and end(), at their times */
    HOOK_INITIALIZE, /* False: the pool is broken */
    HOOK_END,
    HOOK_SEED, /* in a worker: seed_item(job, index), before each call of the user's */
    HOOKS_OF_WORKERS,
    HOOK_STACK = HOOKS_OF_WORKERS, /* in the owner: stack_of(pid), a text or None, of a worker that died */
    HOOK_START, /* in the owner: start(pool, anchor, supervisor), the pid.  None: workers are forked from the owner */
    HOOK_RESCUE, /* in the owner: rescue(arguments, mode, first item, error or None, sink): see task.c */
    HOOKS
};

struct pool {
    PyObject_HEAD brood_pool *handle; /* NULL: destroyed, or not made yet */
    PyObject *hooks[HOOKS];           /* NULL: not made yet */
    struct core_state *state;         /* of the module; workers need it without a way to look it up */
    char is_terminated;               /* by its owner: deaths by the signals of that are its doing */
    struct left_behind *_Atomic left; /* jobs that were dropped before they were done */
    PyObject *keep;                   /* list: callables of streams that were dropped; until the pool's end */
};

/* A job that nobody asks for any more stays until it is done: its workers read the callable. */
struct left_behind {
    struct left_behind *next;
    brood_result *result;
    PyObject *callable, *keep;
};

void pool_leave_behind(struct pool *pool, struct left_behind *left);

/* Frees those that are done, or, with the pool gone, all. */
void pool_sweep(struct pool *pool, int all);

/* The handle; NULL with ValueError once the pool is destroyed. */
brood_pool *pool_handle(struct pool *pool);

/* As core_raise, but PoolBroken where the pool is what failed. */
PyObject *pool_raise(struct core_state *state, int error);

/* An item on its way to the core. */
struct task_item {
    brood_message message; /* memory of PyMem */
    PyObject *keep;        /* holds the large data that it refers to, until the task has ended; or NULL */
    size_t kept_bytes;     /* of that, what was put there for this task alone */
};

/* The item for `arguments`, which begin with the user's item `first`; 0 or -1 with an exception. */
int task_make_item(struct pool *pool, const struct callable *callable, struct task_origin origin,
                   PyObject *arguments, size_t first, struct task_item *ret_item);

/* One that does nothing; 0 or -1 with an exception. */
int task_make_nothing(struct task_origin origin, brood_message *ret_item);

/* The one task function of all Python pools. */
int task_run(brood_task *task, const void *item, void *result);

/* In the worker: task_run runs for this pool, in this thread. */
void task_begin_worker(struct pool *pool);
void task_end_worker(void);

/* How often the task was begun, in all its workers. */
int task_attempts(const brood_outcome *outcome, const brood_message *reply);

/* Of the module, in a worker: _task_ending() → 0 or what brood_task_is_ending says; _note_attempts(n). */
extern PyMethodDef task_functions[];

/* Which items of the user's a task stands for.  size 0: a call. */
struct task_place {
    size_t first, size;
};

/* The value of a task from its outcome and reply; NULL with the exception of the task, or of its loss. */
PyObject *task_value(struct pool *pool, struct task_place place, const brood_outcome *outcome,
                     const brood_message *reply);

int pool_add_job(PyObject *module);
int pool_add_stream(PyObject *module);
int pool_add_crash(PyObject *module);

#endif
