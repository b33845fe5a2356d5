/* SPDX-License-Identifier: MIT */
/* Pool: the owner's side, and the hooks around the forks of the interpreter. */
#include "pool.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <structmember.h>

#include "pool/pool.h"
#include "sync/event.h"

enum { BLOB_BYTES = 1024 }; /* a longer callable lies in the arena, once for all its tasks */

/* --- hooks: with or without the GIL; see brood_pool_hooks --- */

/* Between the two hooks.  The import lock is held, so there is one fork at a time. */
static struct {
    PyGILState_STATE gil;
    struct core_call call;
    sigset_t mask;
    PyObject *error;
} fork_of_owner;

/* What a handler raised while functions of os.register_at_fork run would be printed and lost, a KeyboardInterrupt above all: signals
 * wait, and an exception for one that has come already is set again after the fork. */
static void before_fork(void *argument)
{
    PyGILState_STATE state = PyGILState_Ensure();
    struct core_call call = core_callback_begin();
    sigset_t all, mask;
    PyObject *error = NULL;

    (void)argument;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &mask);
    if (!PyErr_Occurred()) /* else a pool is dropped while an exception goes by: that one is kept, too */
        PyErr_CheckSignals();
    if (PyErr_Occurred())
        error = core_take_error();
    PyOS_BeforeFork();
    fork_of_owner.gil = state;
    fork_of_owner.call = call;
    fork_of_owner.mask = mask;
    fork_of_owner.error = error;
}

static void after_fork(void *argument)
{
    PyGILState_STATE state = fork_of_owner.gil;
    struct core_call call = fork_of_owner.call;
    sigset_t mask = fork_of_owner.mask;
    PyObject *error = fork_of_owner.error;

    (void)argument;
    fork_of_owner.error = NULL;
    PyOS_AfterFork_Parent();
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    if (error != NULL)
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    Py_XDECREF(error);
    core_callback_end(call);
    PyGILState_Release(state);
}

static int call_hook(PyObject *callable)
{
    PyObject *done = callable != Py_None ? PyObject_CallNoArgs(callable) : Py_NewRef(Py_None);

    int is_fine = done != NULL && done != Py_False;

    if (done == NULL)
        PyErr_WriteUnraisable(callable);
    Py_XDECREF(done);
    return is_fine ? 0 : -1;
}

/* The worker is a copy of the thread that called before_fork, which held the GIL. */
static void worker_begins(void *argument)
{
    struct pool *pool = argument;

    PyOS_AfterFork_Child();
    Py_CLEAR(fork_of_owner.error); /* the owner's */
    call_hook(pool->hooks[HOOK_BEGIN]);
    task_begin_worker(pool);
}

static int initialize(void *argument)
{
    struct pool *pool = argument;

    if (pool->hooks[HOOK_INITIALIZE] == Py_None)
        return 0;
    task_end_worker();
    int error = call_hook(pool->hooks[HOOK_INITIALIZE]);
    task_begin_worker(pool);
    return error < 0 ? 1 : 0;
}

static void worker_ends(void *argument)
{
    task_end_worker();
    call_hook(((struct pool *)argument)->hooks[HOOK_END]);
}

/* start(pool, anchor, supervisor) → pid; with SIGINT blocked from before the process is there, which has no business with it, and here until
 * its pid is known. */
static int start_supervisor(void *argument, const brood_pool_ticket *ticket)
{
    struct pool *pool = argument;
    PyGILState_STATE state = PyGILState_Ensure();
    struct core_call call = core_callback_begin();
    PyObject *passing = PyErr_Occurred() ? core_take_error() : NULL;
    sigset_t mask;

    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    PyObject *pid = PyObject_CallFunction(pool->hooks[HOOK_START], "KKI", (unsigned long long)ticket->pool,
                                          (unsigned long long)ticket->anchor, (unsigned)ticket->supervisor);
    long number = pid != NULL ? PyLong_AsLong(pid) : -1;

    if (PyErr_Occurred() &&
        (pool->handle != NULL || pool->is_terminated)) /* else who makes the pool raises it */
        PyErr_WriteUnraisable(pool->hooks[HOOK_START]);
    Py_XDECREF(pid);
    if (passing != NULL)
        PyErr_SetObject((PyObject *)Py_TYPE(passing), passing);
    Py_XDECREF(passing);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    core_callback_end(call);
    PyGILState_Release(state);
    return number > 0 ? (int)number : -EAGAIN;
}

static brood_pool_hooks hooks_of(struct pool *pool, int is_owner)
{
    brood_pool_hooks hooks = {.size = sizeof hooks,
                              .before_fork = before_fork,
                              .after_fork = after_fork,
                              .worker_begins = worker_begins,
                              .worker_ends = worker_ends,
                              .anchor = task_run,
                              .argument = pool};

    if (is_owner && pool->hooks[HOOK_START] != Py_None)
        hooks.start_supervisor = start_supervisor;
    return hooks;
}

/* --- a pool's beginning --- */

/* The first `count` of the hooks; the rest is None. */
static int take_hooks(struct pool *pool, PyObject *const *hooks, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (hooks[i] != Py_None && !PyCallable_Check(hooks[i])) {
            PyErr_Format(PyExc_TypeError, "%R is not callable", hooks[i]);
            return -1;
        }
    for (size_t i = 0; i < HOOKS; i++)
        pool->hooks[i] = Py_NewRef(i < count ? hooks[i] : Py_None);
    pool->keep = PyList_New(0);
    return pool->keep != NULL ? 0 : -1;
}

static int init(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"workers", "tasks_per_worker", "begin",    "initialize",
                            "end",     "seed_item",        "stack_of", "start",
                            "rescue",  "limits",           NULL};
    struct pool *pool = (struct pool *)self;
    unsigned workers, tasks;
    PyObject *hooks[HOOKS];
    unsigned long long max_memory;
    unsigned max_cpu, max_files, grace_ms;
    int soft_signal;

    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "IIOOOOOOO(KIIIi):Pool", names, &workers, &tasks,
                                     &hooks[HOOK_BEGIN], &hooks[HOOK_INITIALIZE], &hooks[HOOK_END],
                                     &hooks[HOOK_SEED], &hooks[HOOK_STACK], &hooks[HOOK_START],
                                     &hooks[HOOK_RESCUE], &max_memory, &max_cpu, &max_files, &grace_ms,
                                     &soft_signal))
        return -1;
    if (pool->keep != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the pool was made already");
        return -1;
    }
    pool->state = core_state_of(self);
    if (pool->state == NULL || take_hooks(pool, hooks, HOOKS) < 0)
        return -1;
    brood_pool_hooks of_core = hooks_of(pool, 1);
    int error = brood_pool_create(
        BROOD_POOL_OPTIONS(.workers = workers, .tasks_per_worker = tasks, .max_memory_bytes = max_memory,
                           .max_cpu_seconds = max_cpu, .max_open_files = max_files, .grace_ms = grace_ms,
                           .soft_signal = soft_signal, .in_background = 1, .initializer = initialize,
                           .initializer_argument = pool, .hooks = &of_core),
        &pool->handle);
    if (error < 0)
        pool_raise(pool->state, error);
    return PyErr_Occurred() ? -1 : 0; /* a signal's handler may have raised */
}

/* supervise(pool, anchor, supervisor, begin, initialize, end, seed_item): in a process that was exec'd; does not return. */
static PyObject *supervise(PyObject *type, PyObject *arguments)
{
    unsigned long long pool_at, anchor;
    unsigned supervisor;
    PyObject *hooks[HOOKS_OF_WORKERS];

    if (!PyArg_ParseTuple(arguments, "KKIOOOO:_supervise", &pool_at, &anchor, &supervisor, &hooks[HOOK_BEGIN],
                          &hooks[HOOK_INITIALIZE], &hooks[HOOK_END], &hooks[HOOK_SEED]))
        return NULL;
    struct pool *pool = (struct pool *)((PyTypeObject *)type)->tp_alloc((PyTypeObject *)type, 0);
    if (pool == NULL)
        return NULL;
    pool->state = core_state_of((PyObject *)pool);
    if (pool->state == NULL || take_hooks(pool, hooks, HOOKS_OF_WORKERS) < 0) {
        Py_DECREF(pool);
        return NULL;
    }
    brood_pool_hooks of_core = hooks_of(pool, 0);
    brood_pool_ticket ticket = {
        .size = sizeof ticket, .pool = pool_at, .anchor = anchor, .supervisor = supervisor};
    PyOS_BeforeFork();
    int error = brood_pool_supervise(
        &ticket,
        BROOD_POOL_OPTIONS(.initializer = initialize, .initializer_argument = pool, .hooks = &of_core),
        task_run);
    PyOS_AfterFork_Parent();
    Py_DECREF(pool);
    return core_raise(error);
}

brood_pool *pool_handle(struct pool *pool)
{
    if (pool->handle == NULL)
        PyErr_SetString(PyExc_ValueError, "Pool not running");
    return pool->handle;
}

/* --- the end --- */

/* Without the GIL several threads drop jobs and submit others. */
void pool_leave_behind(struct pool *pool, struct left_behind *left)
{
    left->next = bri_load_relaxed(&pool->left);
    while (!bri_cas_acq_rel(&pool->left, &left->next, left))
        ;
}

/* All are taken first: nobody else has them meanwhile. */
void pool_sweep(struct pool *pool, int all)
{
    struct left_behind *next = bri_exchange_acq_rel(&pool->left, NULL);

    while (next != NULL) {
        struct left_behind *left = next;
        next = left->next;
        struct core_call call = core_call_begin();
        int is_done = all || brood_result_ready(left->result) != 0;
        if (is_done)
            brood_result_destroy(left->result);
        core_call_end(call);
        if (!is_done) {
            pool_leave_behind(pool, left);
            continue;
        }
        Py_DECREF(left->callable);
        Py_XDECREF(left->keep);
        PyMem_Free(left);
    }
}

static PyObject *close_pool(PyObject *self, PyObject *unused)
{
    brood_pool *handle = ((struct pool *)self)->handle;

    (void)unused;
    return core_none(handle != NULL ? brood_pool_close(handle) : 0);
}

static PyObject *terminate(PyObject *self, PyObject *unused)
{
    brood_pool *handle = ((struct pool *)self)->handle;

    (void)unused;
    ((struct pool *)self)->is_terminated = 1;
    return core_none(handle != NULL ? brood_pool_terminate(handle) : 0);
}

static int step_join(void *handle, int64_t deadline)
{
    return brood_pool_join(handle, deadline);
}

static PyObject *join(PyObject *self, PyObject *timeout)
{
    brood_pool *handle = ((struct pool *)self)->handle;
    int64_t deadline;

    if (core_deadline(timeout, &deadline) < 0)
        return NULL;
    int error = handle != NULL ? core_wait(step_join, handle, deadline) : 0;
    if (error == -ETIMEDOUT)
        Py_RETURN_FALSE;
    return error < 0 ? core_raise(error) : Py_NewRef(Py_True);
}

/* In a forked child the pool is the parent's: its handle is just forgotten. */
static void destroy_handle(struct pool *pool)
{
    brood_pool *handle = pool->handle;

    pool->handle = NULL;
    pool->is_terminated = 1;
    if (handle == NULL)
        return;
    Py_BEGIN_ALLOW_THREADS;
    brood_pool_destroy(handle);
    Py_END_ALLOW_THREADS;
    pool_sweep(pool, 1);
    Py_CLEAR(pool->keep);
}

static PyObject *destroy(PyObject *self, PyObject *unused)
{
    (void)unused;
    destroy_handle((struct pool *)self);
    Py_RETURN_NONE;
}

/* --- submitting --- */

static int put_in_arena(struct callable *callable)
{
    void *memory;
    struct core_call call = core_call_begin();
    int error = brood_alloc(callable->header.call_bytes, &memory);

    core_call_end(call);
    if (error < 0) {
        core_raise(error);
        return -1;
    }
    memcpy(memory, PyBytes_AS_STRING(callable->pickled), callable->header.call_bytes);
    callable->header.blob = (uint64_t)(uintptr_t)memory;
    Py_CLEAR(callable->pickled);
    return 0;
}

/* callable(pickled, mode, is_kept, held): is_kept: a worker may use one object for all tasks. */
static PyObject *make_callable(PyObject *self, PyObject *arguments)
{
    static _Atomic uint64_t serial;
    struct core_state *state = ((struct pool *)self)->state;
    PyObject *pickled, *held;
    unsigned mode;
    int is_kept;

    if (!PyArg_ParseTuple(arguments, "O!IpO!:callable", &PyBytes_Type, &pickled, &mode, &is_kept,
                          &PyList_Type, &held))
        return NULL;
    if (mode > TASK_STARMAP || PyBytes_GET_SIZE(pickled) > UINT32_MAX)
        return PyErr_Format(PyExc_ValueError, "mode or the size of the pickled callable is too large");
    struct callable *callable =
        (struct callable *)PyType_GenericAlloc((PyTypeObject *)state->callable_type, 0);
    if (callable == NULL)
        return NULL;
    callable->pickled = Py_NewRef(pickled);
    callable->held = Py_NewRef(held);
    callable->header = (struct task_header){
        .serial = is_kept ? ++serial : 0, .call_bytes = (uint32_t)PyBytes_GET_SIZE(pickled), .mode = mode};
    if (PyBytes_GET_SIZE(pickled) > BLOB_BYTES && put_in_arena(callable) < 0)
        Py_CLEAR(callable);
    return (PyObject *)callable;
}

static void dealloc_callable(PyObject *self)
{
    struct callable *callable = (struct callable *)self;
    PyTypeObject *type = Py_TYPE(self);
    struct core_call call = core_call_begin();

    if (callable->header.blob != 0)
        brood_free((void *)(uintptr_t)callable->header.blob);
    core_call_end(call);
    Py_XDECREF(callable->pickled);
    Py_XDECREF(callable->held);
    type->tp_free(self);
    Py_DECREF(type);
}

/* --- looking --- */

static PyObject *worker_pid(PyObject *self, PyObject *index)
{
    brood_pool *handle = pool_handle((struct pool *)self);
    unsigned long number = handle != NULL ? PyLong_AsUnsignedLong(index) : 0;

    if (PyErr_Occurred())
        return NULL;
    int pid = brood_pool_worker_pid(handle, (uint32_t)number);
    return pid < 0 ? core_raise(pid) : PyLong_FromLong(pid);
}

static PyObject *dump(PyObject *self, PyObject *descriptor)
{
    brood_pool *handle = pool_handle((struct pool *)self);
    int fd = handle != NULL ? PyObject_AsFileDescriptor(descriptor) : -1;

    return fd < 0 ? NULL : core_none(brood_pool_dump(handle, fd));
}

struct finish {
    struct bri_pool_shm *shared;
    uint32_t key, obituary;
};

static int step_finish(void *argument, int64_t deadline)
{
    struct finish *finish = argument;

    if (deadline == BROOD_NOW)
        return (bri_load_acquire(&finish->shared->finished) | BRI_EVENT_WAITING) != finish->key ? 0
                                                                                                : -ETIMEDOUT;
    int slept = bri_event_sleep(&finish->shared->finished, finish->key, finish->obituary, deadline);
    return slept == -EINTR ? -ETIMEDOUT : slept;
}

/* key = prepare(); look at the jobs; sleep(key, timeout): until a job has ended since.  Nobody rings when the supervisor was killed: whoever has
 * slept in vain asks after it, so that the next look at a job starts another. */
static PyObject *prepare(PyObject *self, PyObject *unused)
{
    brood_pool *handle = pool_handle((struct pool *)self);

    (void)unused;
    if (handle == NULL)
        return NULL;
    unsigned obituary = bri_obituary_key();
    return Py_BuildValue("II", bri_event_prepare(&handle->shared->finished), obituary);
}

static PyObject *sleep_until(PyObject *self, PyObject *arguments)
{
    brood_pool *handle = pool_handle((struct pool *)self);
    struct finish finish;
    PyObject *timeout;
    int64_t deadline;

    if (handle == NULL ||
        !PyArg_ParseTuple(arguments, "(II)O:sleep", &finish.key, &finish.obituary, &timeout) ||
        core_deadline(timeout, &deadline) < 0)
        return NULL;
    finish.shared = handle->shared;
    int error = core_wait(step_finish, &finish, deadline);
    handle = ((struct pool *)self)->handle; /* with the GIL: it may have been destroyed meanwhile, not now */
    if (error == -ETIMEDOUT && handle != NULL)
        bri_pool_look_after(handle);
    return error < 0 && error != -ETIMEDOUT ? core_raise(error) : Py_NewRef(Py_None);
}

/* --- the type --- */

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    struct pool *pool = (struct pool *)self;

    Py_VISIT(Py_TYPE(self));
    for (size_t i = 0; i < HOOKS; i++)
        Py_VISIT(pool->hooks[i]);
    Py_VISIT(pool->keep);
    return 0;
}

static int clear(PyObject *self)
{
    struct pool *pool = (struct pool *)self;

    for (size_t i = 0; i < HOOKS; i++)
        Py_CLEAR(pool->hooks[i]);
    Py_CLEAR(pool->keep);
    return 0;
}

static void dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    destroy_handle((struct pool *)self);
    clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

enum { SUBMIT_METHODS = 3 };
extern PyMethodDef pool_submit_methods[SUBMIT_METHODS], pool_imap_method; /* job.c, stream.c */

static PyMethodDef methods[] = {
    {"close", close_pool, METH_NOARGS, "close()\n--\n\nNo further jobs; the workers end when all are done."},
    {"terminate", terminate, METH_NOARGS, "terminate()\n--\n\nEnds the workers now, whatever they do."},
    {"join", join, METH_O, "join(timeout)\n--\n\nWaits for the workers' end; False when that takes longer."},
    {"destroy", destroy, METH_NOARGS, "destroy()\n--\n\nEnds the pool and gives it back."},
    {"callable", make_callable, METH_VARARGS,
     "callable(pickled, mode, is_kept, held)\n--\n\nWhat submit takes: a pickled callable, how it is called, "
     "and "
     "what it refers to."},
    {"worker_pid", worker_pid, METH_O, "worker_pid(index)\n--\n\nIts pid now; 0 while it is being replaced."},
    {"dump", dump, METH_O, "dump(file)\n--\n\nPrints workers, jobs and counters to a file."},
    {"prepare", prepare, METH_NOARGS, "prepare()\n--\n\nA key for sleep; look at the jobs in between."},
    {"sleep", sleep_until, METH_VARARGS,
     "sleep(key, timeout)\n--\n\nWaits for the end of a job since the key was given."},
    {"_supervise", supervise, METH_VARARGS | METH_CLASS,
     "_supervise(pool, anchor, supervisor, begin, initialize, end, seed_item)\n--\n\nIs the supervisor; does "
     "not return."},
    {NULL, NULL, 0, NULL}, /* those of submitting */
    {NULL, NULL, 0, NULL},
    {NULL, NULL, 0, NULL},
    {NULL, NULL, 0, NULL}, /* imap */
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Pool(workers, tasks_per_worker, begin, initialize, end, seed_item, stack_of, start, rescue, "
                "limits)\n--\n\n"
                "A pool of the core."},
    {Py_tp_init, init},
    {Py_tp_methods, methods},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_dealloc, dealloc},
    {0, NULL},
};

static PyType_Spec spec = {.name = "brood._core.Pool",
                           .basicsize = sizeof(struct pool),
                           .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
                           .slots = slots};

static PyType_Slot callable_slots[] = {
    {Py_tp_doc, "A callable as it travels to workers; Pool.callable makes them."},
    {Py_tp_dealloc, dealloc_callable},
    {0, NULL},
};

static PyType_Spec callable_spec = {.name = "brood._core.Callable",
                                    .basicsize = sizeof(struct callable),
                                    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                                    .slots = callable_slots};

PyObject *pool_raise(struct core_state *state, int error)
{
    if (PyErr_Occurred() || state->pool_broken == NULL || (error != -ENOTRECOVERABLE && error != -ECANCELED))
        return core_raise(error);
    PyErr_SetString(state->pool_broken, brood_error_text());
    return NULL;
}

/* set_error_helpers(pack, unpack, blame, rescue, PoolBroken): how errors travel; see task.c. */
static PyObject *set_error_helpers(PyObject *module, PyObject *arguments)
{
    struct core_state *state = PyModule_GetState(module);
    PyObject *pack, *unpack, *blame, *rescue, *broken;

    if (!PyArg_ParseTuple(arguments, "OOOOO:_set_error_helpers", &pack, &unpack, &blame, &rescue, &broken))
        return NULL;
    Py_XSETREF(state->pool_broken, Py_NewRef(broken));
    Py_XSETREF(state->pack_error, Py_NewRef(pack));
    Py_XSETREF(state->unpack_error, Py_NewRef(unpack));
    Py_XSETREF(state->blame_value, Py_NewRef(blame));
    Py_XSETREF(state->rescue_value, Py_NewRef(rescue));
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"_set_error_helpers", set_error_helpers, METH_VARARGS,
     "_set_error_helpers(pack, unpack, blame, rescue, broken)\n--\n\nHow the errors of tasks travel."},
    {NULL, NULL, 0, NULL},
};

int core_add_pool(PyObject *module)
{
    struct core_state *state = PyModule_GetState(module);
    PyMethodDef *added = methods + sizeof methods / sizeof *methods - (SUBMIT_METHODS + 2);

    memcpy(added, pool_submit_methods, sizeof pool_submit_methods);
    added[SUBMIT_METHODS] = pool_imap_method;
    if (PyModule_AddFunctions(module, functions) < 0 || PyModule_AddFunctions(module, task_functions) < 0 ||
        core_add_type(module, &spec, &state->pool_type) < 0 ||
        core_add_type(module, &callable_spec, &state->callable_type) < 0)
        return -1;
    return pool_add_job(module) < 0 || pool_add_stream(module) < 0 ? -1 : pool_add_crash(module);
}
