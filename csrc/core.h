/* SPDX-License-Identifier: MIT */
/*
 * What the parts of brood._core share.
 *
 *   module.c      the module and its state                 sync.c, sync.h     SemLock
 *   errors.c      errno to exception, deadlines, the wait  condition.c        Condition
 *   lease.c       how long an object of the arena lives    flags.c            Event, Barrier
 *   object.c      what its Python objects share            queue*.c, queue.h  Queue
 *   pickling.c    objects to bytes and back (and plain.c)  tally.c            JoinableQueue's count
 *   arena.c       the arena for other programs             memory.c           Memory
 *   libc.c        seeds, mapped libraries                  guarded.c          with lock, value.value
 *   pool.h        has the list of the pool's files         bulk.h             and of those for large data
 *
 * A part is a function that adds its types and functions to the module; module.c has the table of parts.
 * Of what is global, the table of leases belongs to the process and has a mutex of its own, and the rest is atomic.
 */
#ifndef BROOD_CORE_H
#define BROOD_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#include "brood.h"

/* Each is NULL until its part has been added. */
struct core_state {
    PyObject *semlock_type, *condition_type, *event_type, *barrier_type;
    PyObject *face_type, *guarded_type, *property_type;
    PyObject *queue_type, *tally_type, *memory_type;
    PyObject *empty, *full, *broken_barrier; /* queue.Empty, queue.Full, threading.BrokenBarrierError */
    PyObject *plain_dumps, *plain_loads;     /* of _pickle */
    PyObject *forking_pickler;               /* multiprocessing.reduction.ForkingPickler */
    PyObject *loads_keywords;                /* ("buffers",) */
    PyObject *buffer_type, *sink_type, *open_buffer, *take_buffer;
    PyObject *array_type, *dtype_type;      /* numpy.ndarray and numpy.dtype, once they are there */
    PyObject *last_dtype, *last_dtype_name; /* that travelled */
    PyObject *copyreg_table;
    PyObject *reduce_array, *reduce_elsewhere;
    PyObject *rebuild; /* brood._core._rebuild */
    PyObject *pool_type, *callable_type, *job_type, *stream_type;
    PyObject *pack_error, *unpack_error, *blame_value, *rescue_value,
        *pool_broken; /* of brood._errors and _travel */
};

/* The state of the module that made the type, or a base, of `object`. */
struct core_state *core_state_of(PyObject *object);
extern struct PyModuleDef core_module;

/* Makes a heap type, keeps it in *ret_type and adds it to the module. */
int core_add_type(PyObject *module, PyType_Spec *spec, PyObject **ret_type);

/* ---- the parts: 0, or -1 with an exception ---- */

int core_add_waiting(PyObject *module);
int core_add_arena(PyObject *module);
int core_add_leases(PyObject *module);
int core_add_sync(PyObject *module);
int core_add_guarded(PyObject *module);
int core_add_condition(PyObject *module);
int core_add_flags(PyObject *module);
int core_add_queue(PyObject *module);
int core_add_tally(PyObject *module);
int core_add_memory(PyObject *module);
int core_add_buffer(PyObject *module);
int core_add_sink(PyObject *module);
int core_add_snapshot(PyObject *module);
int core_add_libc(PyObject *module);
int core_add_pool(PyObject *module);

/* ---- errors.c ---- */

/* Sets the exception for a negative errno of brood, its sentence included, unless one is set.  Returns NULL. */
PyObject *core_raise(int error);

/* The exception that is set, with its traceback, no longer set; the caller's. */
PyObject *core_take_error(void);

/* None, or as core_raise when the error is one. */
PyObject *core_none(int error);

/* The deadline for `timeout` seconds (None: for ever; negative: now).  -1 with an exception. */
int core_deadline(PyObject *timeout, int64_t *ret_deadline);

/* The deadline for block and timeout as the standard library's acquire, get and put take them. */
int core_deadline_if(PyObject *block, PyObject *timeout, int64_t *ret_deadline);

/* Arguments of a hot function (METH_FASTCALL | METH_KEYWORDS) into values[0 … width-1]; those not given stay as they are, and one that
 * is NULL then is missing.  -1 with an exception. */
int core_parse(PyObject *const *arguments, Py_ssize_t count, PyObject *keywords, const char *function,
               const char *const *names, Py_ssize_t width, PyObject **values);

/* One attempt of an operation that waits, by its own deadline. */
typedef int core_step(void *argument, int64_t deadline);

/* THE wait: tries at once with the GIL held, then waits without it.  Python's signal handlers run while it waits.  Returns what the
 * step did, or -EINTR with an exception set when such a handler raised. */
int core_wait(core_step *step, void *argument, int64_t deadline);

/* The same without the first try, for a step that cannot be tried. */
int core_wait_once(core_step *step, void *argument, int64_t deadline);

/* Around calls of the core with the GIL, which mostly return at once but may have to wait until another process lets go of something: then
 * the GIL is given away until core_call_end, whatever they do meanwhile.  Nothing of Python's may be touched in between; a callback of the
 * core's that takes the GIL stands between core_callback_begin and core_callback_end.  They nest. */
struct core_call {
    PyThreadState *given; /* the GIL was given away, and with what it is taken again */
    char may_give;
};
struct core_call core_call_begin(void);
void core_call_end(struct core_call outer);
struct core_call core_callback_begin(void);
void core_callback_end(struct core_call outer);

/* Signals are the calling thread's business from now on: in a child that was forked by it. */
void core_note_main_thread(void);

/* ---- arena.c ---- */

/* A number from 0 to 2^64-1 that is called `name`.  -1 with an exception. */
int core_word(PyObject *value, const char *name, uint64_t *ret_word);

/* ---- lease.c ---- */

enum core_kind {
    CORE_LOCK = 1,
    CORE_RLOCK,
    CORE_SEMAPHORE,
    CORE_CONDITION,
    CORE_EVENT,
    CORE_BARRIER,
    CORE_QUEUE,
    CORE_FOREIGN_QUEUE, /* a queue that is not ours to destroy */
    CORE_TALLY,
    CORE_MEMORY,
    CORE_KINDS
};

struct core_record_shm;

/* This process's share in one object of the arena; one per object and process, however many Python objects stand for it. */
struct core_lease {
    struct core_lease *next;        /* in its bucket; table_mutex */
    struct core_record_shm *record; /* in the arena */
    void *object;                   /* the handle of the core */
    uint32_t generation;            /* of the record */
    uint32_t count;                 /* Python objects that have it; table_mutex */
    enum core_kind kind;
    uint32_t forks;        /* fork_count when depth and thread were set */
    _Atomic int64_t depth; /* SemLock: how often this process has acquired it more than released */
    _Atomic unsigned long long thread; /* SemLock: which of its threads acquired it last */
};

/* The mutex of what this process knows of the arena; recursive, and held while the process forks.  The GIL is given away while it is waited for. */
void core_lock_table(void);
void core_unlock_table(void);

/* How many forks lie between the first process and this one; tells inherited knowledge from own. */
uint32_t core_fork_count(void);

/* Takes an object of the arena over: from now on it lives as long as anybody has a lease of it.  0, or a negative errno
 * (then the object is destroyed). */
int core_lease_create(enum core_kind kind, void *object, struct core_lease **ret_lease);

/* What a pickle carries.  The object stays alive until somebody has opened the ticket. */
int core_lease_ticket(struct core_lease *lease, uint64_t *ret_offset, uint32_t *ret_generation);

/* -ENOENT: the object is gone.  -EINVAL: not a ticket. */
int core_lease_open(enum core_kind kind, uint64_t offset, uint32_t generation, struct core_lease **ret_lease);

/* Gives one Python object's share back; the last one of all processes destroys the object. */
void core_lease_drop(struct core_lease *lease);

/* Every Python object that stands for an object of the arena begins so. */
struct core_object {
    PyObject_HEAD struct core_lease *lease; /* NULL until __init__ */
};

/* tp_dealloc of these.  They refer to no Python objects, so that only their Python subclasses need the collector. */
void core_object_dealloc(PyObject *self);

/* __reduce__: (_rebuild, (type, offset, generation, extra), __dict__ or None).  Steals `extra`, a tuple. */
PyObject *core_object_reduce(PyObject *self, PyObject *extra);

/* Puts a new object of the arena into self; with error < 0 raises.  -1 with an exception. */
int core_object_fill(PyObject *self, enum core_kind kind, int error, void *object);

/* The handle; NULL with an exception before __init__. */
void *core_object_handle(PyObject *self);

#endif
