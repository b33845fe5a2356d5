/* SPDX-License-Identifier: MIT */
/*
 * How long an object of the arena lives.
 *
 * Rule: as long as a process has a Python object for it, or a pickle of it is under way.  Whose process made it does not
 * matter: `q = Queue(); Process(target=f, args=(q,)).start()` drops q in its maker at once, while the child uses it.
 *
 *   record (in the arena, one per object, never freed, used again with the next generation):
 *   holders    one bit per slot of the roster: a process that has a lease
 *   pickled    pickles of it that nobody has opened yet
 *   forking    children that are being forked and will set their bit themselves
 *
 *   The object is destroyed by whoever finds holders, pickled and forking all empty, bits of processes that have ended not
 *   counted.  A process that drops its lease while others hold on remembers the record (stragglers) and looks again whenever it
 *   makes an object, since the others may be killed and never drop theirs.
 *
 * field                          writer                      protection
 * object, kind, holders,         any holder of the chunk's   lock of the chunk: a brood_lock, which outlives its holder's death
 * pickled, forking, generation   lock
 * magic, lock                    maker of the chunk          before anybody else is there
 *
 * ticket (pickling)      T1  lock  T2  pickled + 1
 * open (unpickling)      O1  lock  O2  generation is another's: gone  O3  own bit  O4  pickled - 1, if it is not 0
 * fork                   F1  before, in the parent: lock, forking + 1     F2  in the child: own bit, forking - 1
 *                        between them: a lease that comes adds to forking, one that goes takes its part back
 * drop                   D1  lock  D2  own bit off  D3  nobody left: generation + 1, unlock, destroy the object
 *
 * death table (each field changes by one store, so that a killed holder of the lock leaves every field whole)
 *   T2 done, pickle lost       pickled stays: the object lives as long as the arena
 *   O3                         own bit of a dead one: not counted.  pickled stays too high: as T2
 *   F1, fork failed or
 *   the child killed in F2     forking stays too high: as T2
 *   D2                         nobody looks again until a process that remembers it makes an object
 *   D3                         generation says gone: nobody opens it; the object itself is lost until the arena goes
 * All of these err on the side of living.  A slot that a new process got after its holder died counts for the new process
 * until that ends: the same side.
 *
 * A pickle that is opened more often than it was made (initargs of a pool, say): the first takes `pickled` over, the others
 * find the object as long as somebody has it, else "gone" and not a crash.
 *
 * Chunks of a worker that dies in the task that made them are freed with the rest of what the task had allocated
 * (brood_alloc); whoever has a lease from there gets -EINVAL from the chunk's lock and leaves the chunk alone.
 */
#include "core.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "arena/undertaker.h"
#include "base/error.h"
#include "bulk.h"

enum { RECORDS_PER_CHUNK = 14, BUCKETS = 1024, WORDS = BRI_SLOTS / 64 };
#define MAGIC UINT64_C(0x62726f6f645f7079)

struct core_record_shm {
    uint64_t magic;
    uint64_t lock;   /* offset of the chunk's brood_lock */
    uint64_t object; /* offset */
    uint32_t kind;
    uint32_t generation;
    uint32_t pickled;
    uint32_t forking;
    uint64_t holders[WORDS];
};

struct straggler {
    struct straggler *next;
    struct core_record_shm *record;
    uint32_t generation;
};

/* Of the process, whatever interpreters it has; all under table_mutex. */
static pthread_mutex_t table_mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static struct core_lease *table[BUCKETS];
static struct straggler *stragglers;
static struct core_record_shm *spare; /* linked by `object`: offsets of records that are free */
static uint32_t is_forking;           /* 1: between F1 and the end of the fork, by the holder of the mutex */
static _Atomic uint32_t fork_count;

uint32_t core_fork_count(void)
{
    return bri_load_relaxed(&fork_count);
}

/* Whoever forks holds the mutex while hooks of others run Python: so it is waited for without the GIL, and in that very thread
 * leases may come and go meanwhile, by the hooks or by a collection (hence recursive, and is_forking). */
void core_lock_table(void)
{
    if (pthread_mutex_trylock(&table_mutex) == 0)
        return;
    Py_BEGIN_ALLOW_THREADS;
    pthread_mutex_lock(&table_mutex);
    Py_END_ALLOW_THREADS;
}

void core_unlock_table(void)
{
    pthread_mutex_unlock(&table_mutex);
}

/* ---- the core's objects by kind ---- */

static int destroy_lock(void *object)
{
    int error = brood_lock_destroy(object);

    if (error == -EBUSY && brood_lock_release(object) == 0) /* dropped while it was held */
        error = brood_lock_destroy(object);
    return error;
}

static int destroy_rlock(void *object)
{
    int error = brood_rlock_destroy(object);

    while (error == -EBUSY && brood_rlock_release(object) == 0)
        error = brood_rlock_destroy(object);
    return error;
}

static int destroy_semaphore(void *object)
{
    return brood_semaphore_destroy(object);
}

static int destroy_condition(void *object)
{
    return brood_condition_destroy(object);
}

static int destroy_event(void *object)
{
    return brood_event_destroy(object);
}

static int destroy_barrier(void *object)
{
    return brood_barrier_destroy(object);
}

static int destroy_queue(void *object)
{
    return brood_queue_destroy(object);
}

/* A queue of from_handle: its maker destroys it. */
static int leave_alone(void *object)
{
    (void)object;
    return 0;
}

/* Its condition has a record of its own. */
static int destroy_memory(void *object)
{
    return brood_free(object);
}

/* What a destroy refuses, since somebody without a lease still uses it, stays in the arena. */
static void destroy(enum core_kind kind, void *object)
{
    static int (*const by_kind[CORE_KINDS])(void *) = {
        [CORE_LOCK] = destroy_lock,           [CORE_RLOCK] = destroy_rlock,
        [CORE_SEMAPHORE] = destroy_semaphore, [CORE_CONDITION] = destroy_condition,
        [CORE_EVENT] = destroy_event,         [CORE_BARRIER] = destroy_barrier,
        [CORE_QUEUE] = destroy_queue,         [CORE_FOREIGN_QUEUE] = leave_alone,
        [CORE_TALLY] = destroy_memory,        [CORE_MEMORY] = destroy_memory,
    };

    by_kind[kind](object);
}

/* ---- records ---- */

static brood_lock *lock_of(const struct core_record_shm *record)
{
    return bri_at(record->lock);
}

/* False when the chunk is gone. */
static int lock_record(struct core_record_shm *record)
{
    return bri_arena_holds(record, sizeof *record) && record->magic == MAGIC &&
           brood_lock_acquire(lock_of(record), BROOD_FOREVER) >= 0;
}

static void unlock_record(struct core_record_shm *record)
{
    brood_lock_release(lock_of(record));
}

static void set_own_bit(struct core_record_shm *record, int on)
{
    uint32_t slot = bri_self() & (BRI_SLOTS - 1);
    uint64_t bit = UINT64_C(1) << slot % 64;

    if (on)
        record->holders[slot / 64] |= bit;
    else
        record->holders[slot / 64] &= ~bit;
}

/* Asks the kernel only about those who may have ended unseen. */
static int slot_is_used(uint32_t slot)
{
    enum bri_slot_state state;
    bri_name name = bri_roster_name_at(slot, &state);

    return state != BRI_SLOT_FREE && state != BRI_SLOT_DEAD && !bri_report_if_ended(name);
}

static int word_is_held(struct core_record_shm *record, uint32_t word)
{
    while (record->holders[word] != 0) {
        uint32_t slot = word * 64 + (uint32_t)__builtin_ctzll(record->holders[word]);
        if (slot_is_used(slot))
            return 1;
        record->holders[word] &= ~(UINT64_C(1) << slot % 64);
    }
    return 0;
}

/* By the holder of its lock. */
static int is_held(struct core_record_shm *record)
{
    if (record->pickled > 0 || record->forking > 0)
        return 1;
    for (uint32_t word = 0; word < WORDS; word++)
        if (word_is_held(record, word))
            return 1;
    return 0;
}

static void keep_as_spare(struct core_record_shm *record)
{
    record->object = bri_offset_of(spare);
    spare = record;
}

/* D3, with its lock, which is given back.  True when the object is gone after this. */
static int destroy_unless_held(struct core_record_shm *record)
{
    if (is_held(record)) {
        unlock_record(record);
        return 0;
    }
    void *object = bri_at(record->object);
    enum core_kind kind = (enum core_kind)record->kind;
    record->generation++;
    unlock_record(record);
    destroy(kind, object);
    keep_as_spare(record);
    return 1;
}

static int make_chunk(void)
{
    void *memory;
    brood_lock *lock;
    int error = brood_lock_create(&lock);

    if (error < 0)
        return error;
    error = brood_alloc(RECORDS_PER_CHUNK * sizeof(struct core_record_shm), &memory);
    if (error < 0) {
        brood_lock_destroy(lock);
        return error;
    }
    struct core_record_shm *records = memory;
    for (int i = 0; i < RECORDS_PER_CHUNK; i++) {
        records[i].lock = bri_offset_of(lock);
        records[i].magic = MAGIC;
        keep_as_spare(&records[i]);
    }
    return 0;
}

/* ---- stragglers ---- */

static void remember(struct core_record_shm *record, uint32_t generation)
{
    struct straggler *entry = PyMem_RawMalloc(sizeof *entry);

    if (entry == NULL)
        return; /* the object lives as long as the arena */
    *entry = (struct straggler){stragglers, record, generation};
    stragglers = entry;
}

/* True when there is nothing to remember any more. */
static int settle_straggler(struct core_record_shm *record, uint32_t generation)
{
    if (!lock_record(record))
        return 1;
    if (record->generation == generation)
        return destroy_unless_held(record);
    unlock_record(record);
    return 1;
}

/* Looks at two of them, oldest unseen first by turning the list round: cheap, and in the end all are looked at. */
static void look_after_stragglers(void)
{
    for (int i = 0; i < 2 && stragglers != NULL; i++) {
        struct straggler *entry = stragglers;
        stragglers = entry->next;
        if (settle_straggler(entry->record, entry->generation)) {
            PyMem_RawFree(entry);
            continue;
        }
        struct straggler **end = &stragglers;
        while (*end != NULL)
            end = &(*end)->next;
        entry->next = NULL;
        *end = entry;
    }
}

/* ---- leases ---- */

static struct core_lease **bucket_of(const struct core_record_shm *record)
{
    return &table[bri_offset_of(record) / 64 * UINT64_C(0x9e3779b97f4a7c15) >> 54];
}

static struct core_lease *find(const struct core_record_shm *record, uint32_t generation)
{
    struct core_lease *lease = *bucket_of(record);

    while (lease != NULL && (lease->record != record || lease->generation != generation))
        lease = lease->next;
    return lease;
}

static struct core_lease *add_lease(struct core_record_shm *record)
{
    struct core_lease *lease = PyMem_RawCalloc(1, sizeof *lease);

    if (lease == NULL)
        return NULL;
    lease->record = record;
    lease->object = bri_at(record->object);
    lease->generation = record->generation;
    lease->kind = (enum core_kind)record->kind;
    lease->count = 1;
    lease->forks = fork_count;
    lease->next = *bucket_of(record);
    *bucket_of(record) = lease;
    return lease;
}

static int create_in_table(enum core_kind kind, void *object, struct core_lease **ret_lease)
{
    look_after_stragglers();
    int error = spare == NULL ? make_chunk() : 0;
    if (error < 0)
        return error;
    struct core_record_shm *record = spare;
    spare = bri_at(record->object);
    if (!lock_record(record))
        return bri_fail(EINVAL, "the arena's memory for this object was freed");
    memset(record->holders, 0, sizeof record->holders);
    record->object = bri_offset_of(object);
    record->kind = (uint32_t)kind;
    record->pickled = 0;
    record->forking = is_forking;
    set_own_bit(record, 1);
    unlock_record(record);
    *ret_lease = add_lease(record);
    return *ret_lease != NULL ? 0 : bri_fail(ENOMEM, "no memory for a lease");
}

int core_lease_create(enum core_kind kind, void *object, struct core_lease **ret_lease)
{
    core_lock_table();
    struct core_call call = core_call_begin();
    int error = create_in_table(kind, object, ret_lease);
    if (error < 0)
        destroy(kind, object);
    core_call_end(call);
    core_unlock_table();
    return error;
}

int core_lease_ticket(struct core_lease *lease, uint64_t *ret_offset, uint32_t *ret_generation)
{
    struct core_record_shm *record = lease->record;
    struct core_call call = core_call_begin();
    int is_there = lock_record(record);

    core_call_end(call);
    if (!is_there)
        return bri_fail(ENOENT, "the object is gone: the worker that made it died in the same task");
    record->pickled++; /* T2 */
    unlock_record(record);
    *ret_offset = bri_offset_of(record);
    *ret_generation = lease->generation;
    return 0;
}

static int open_in_table(enum core_kind kind, struct core_record_shm *record, uint32_t generation,
                         struct core_lease **ret_lease)
{
    if (!lock_record(record))
        return bri_fail(EINVAL,
                        "offset is not that of an object: unpickle in a process that shares the arena");
    struct core_lease *lease = NULL;
    int error = 0;
    if (record->generation != generation)
        error = bri_fail(ENOENT, "the object is gone: nobody had it any more when it was unpickled");
    else if (record->kind != (uint32_t)kind)
        error = bri_fail(EINVAL, "the object is of another kind");
    else if ((lease = find(record, generation)) != NULL)
        lease->count++;
    else if ((lease = add_lease(record)) == NULL)
        error = bri_fail(ENOMEM, "no memory for a lease");
    else
        record->forking += is_forking;
    if (error == 0) {
        set_own_bit(record, 1);                 /* O3 */
        record->pickled -= record->pickled > 0; /* O4 */
        *ret_lease = lease;
    }
    unlock_record(record);
    return error;
}

int core_lease_open(enum core_kind kind, uint64_t offset, uint32_t generation, struct core_lease **ret_lease)
{
    int error = bri_arena_enter();

    if (error < 0)
        return error;
    if (offset % _Alignof(struct core_record_shm) != 0)
        return bri_fail(EINVAL, "offset is not that of an object");
    core_lock_table();
    struct core_call call = core_call_begin();
    error = open_in_table(kind, bri_at(offset), generation, ret_lease);
    core_call_end(call);
    core_unlock_table();
    return error;
}

static void drop_last(struct core_lease *lease)
{
    struct core_lease **link = bucket_of(lease->record);
    struct core_record_shm *record = lease->record;

    while (*link != lease)
        link = &(*link)->next;
    *link = lease->next;
    if (bri_arena_enter() == 0 && lock_record(record)) { /* D1 */
        record->forking -= is_forking && record->forking > 0;
        set_own_bit(record, 0); /* D2 */
        if (!destroy_unless_held(record))
            remember(record, lease->generation);
    }
    PyMem_RawFree(lease);
}

void core_lease_drop(struct core_lease *lease)
{
    if (lease == NULL)
        return;
    core_lock_table();
    struct core_call call = core_call_begin();
    if (--lease->count == 0)
        drop_last(lease);
    core_call_end(call);
    core_unlock_table();
}

/* ---- fork: registered with os.register_at_fork, so that they run around the forks of this interpreter and no others ---- */

static void for_each_record(void (*act)(struct core_record_shm *))
{
    for (int i = 0; i < BUCKETS; i++)
        for (struct core_lease *lease = table[i]; lease != NULL; lease = lease->next)
            if (lock_record(lease->record)) {
                act(lease->record);
                unlock_record(lease->record);
            }
}

static void announce_child(struct core_record_shm *record)
{
    record->forking++;
}

static void settle_child(struct core_record_shm *record)
{
    set_own_bit(record, 1);
    record->forking -= record->forking > 0;
}

/* The mutex is held across the fork, so that the child finds the table whole.  It is free again there before any Python runs, which may drop
 * leases ahead of our own hook; and in children that were forked in other ways. */
static void free_mutex_in_child(void)
{
    table_mutex = (pthread_mutex_t)PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
}

static PyObject *before_fork(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    core_lock_table();
    for_each_record(announce_child);
    core_holdings_before_fork();
    is_forking = 1;
    Py_RETURN_NONE;
}

static PyObject *after_fork_in_parent(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    is_forking = 0;
    core_holdings_after_fork_in_parent();
    core_unlock_table();
    Py_RETURN_NONE;
}

/* Spare records and stragglers stay the parent's. */
static PyObject *after_fork_in_child(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    is_forking = 0;
    fork_count++;
    core_note_main_thread();
    stragglers = NULL;
    spare = NULL;
    if (bri_arena_current != NULL && bri_arena_enter() == 0) {
        for_each_record(settle_child);
        core_holdings_after_fork_in_child();
    }
    Py_RETURN_NONE;
}

/* Says that this process ends by itself, as nobody sees how a process ends that the core did not start: what it has acquired as a message
 * stays spent, barriers that it waited in stay whole.  A thread that goes on takes part anew. */
static void say_end(void)
{
    bri_name name = bri_arena_current != NULL ? bri_self() : 0;

    if (name == 0)
        return;
    bri_store_release(&bri_identity->name, (bri_name)0);
    bri_roster_bury(name, BRI_END_CLEAN);
    if (bri_arena_enter() == 0) { /* who undertakes needs a name of its own */
        bri_undertake();
        bri_roster_leave();
    }
}

static PyObject *leave(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    core_holdings_leave();
    say_end();
    Py_RETURN_NONE;
}

/* When there is no Python any more, and no object that something of the arena belongs to: until then memory must not become others'. */
static PyObject *leave_at_exit(PyObject *module, PyObject *unused)
{
    static _Atomic int is_registered;

    (void)module, (void)unused;
    if (!atomic_exchange(&is_registered, 1) && Py_AtExit(say_end) < 0)
        return PyErr_Format(PyExc_RuntimeError,
                            "too many functions are to be called at the end of the process");
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"_before_fork", before_fork, METH_NOARGS, "Before os.fork(): each object expects one more holder."},
    {"_after_fork_in_parent", after_fork_in_parent, METH_NOARGS, "After os.fork(), in the parent."},
    {"_after_fork_in_child", after_fork_in_child, METH_NOARGS,
     "After os.fork(): the child holds what it inherited."},
    {"leave", leave, METH_NOARGS,
     "leave()\n--\n\nSays that this process ends cleanly; the last call before os._exit()."},
    {"leave_at_exit", leave_at_exit, METH_NOARGS,
     "leave_at_exit()\n--\n\nHas the same said once the interpreter has ended."},
    {NULL, NULL, 0, NULL},
};

static int register_at_fork(PyObject *module)
{
    PyObject *os = PyImport_ImportModule("os"), *arguments = PyTuple_New(0), *done = NULL;
    PyObject *hooks =
        Py_BuildValue("{s:N,s:N,s:N}", "before", PyObject_GetAttrString(module, "_before_fork"),
                      "after_in_parent", PyObject_GetAttrString(module, "_after_fork_in_parent"),
                      "after_in_child", PyObject_GetAttrString(module, "_after_fork_in_child"));
    PyObject *function = os != NULL ? PyObject_GetAttrString(os, "register_at_fork") : NULL;

    if (function != NULL && hooks != NULL && arguments != NULL)
        done = PyObject_Call(function, arguments, hooks);
    Py_XDECREF(function);
    Py_XDECREF(hooks);
    Py_XDECREF(arguments);
    Py_XDECREF(os);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

/* Once per process: a second module object, of a subinterpreter say, has the same table. */
int core_add_leases(PyObject *module)
{
    static _Atomic int is_registered;

    if (PyModule_AddFunctions(module, functions) < 0)
        return -1;
    if (atomic_exchange(&is_registered, 1))
        return 0;
    if (pthread_atfork(NULL, NULL, free_mutex_in_child) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    return register_at_fork(module);
}
