/* SPDX-License-Identifier: MIT */
/*
 * SemLock (the interface of _multiprocessing.SemLock) over the core's locks.
 *
 * Who holds a SemLock in this process is kept in its lease, as the standard library keeps it in its SemLock: depth (acquired
 * minus released here) and the thread that acquired last.  What a forked child inherits of that does not count: it is told
 * from its own by the number of forks.
 */
#include "sync.h"

#include <errno.h>
#include <stddef.h>
#include <structmember.h>

#include "arena/roster.h"
#include "base/check.h"
#include "locks/locks.h"

enum { RECURSIVE_MUTEX, SEMAPHORE };

/* ---- what each kind of lock does ---- */

/* A lease says that the handle is one; that this process has joined the arena may be news after a fork. */
static int step_lock(void *lock, int64_t deadline)
{
    return bri_self() != 0 ? bri_lock_acquire(lock, deadline) : brood_lock_acquire(lock, deadline);
}

static int step_rlock(void *lock, int64_t deadline)
{
    return bri_self() != 0 ? bri_rlock_acquire(lock, deadline) : brood_rlock_acquire(lock, deadline);
}

static int step_semaphore(void *semaphore, int64_t deadline)
{
    return bri_self() != 0 ? bri_semaphore_acquire(semaphore, deadline)
                           : brood_semaphore_acquire(semaphore, deadline);
}

/* What most acquires find: the lock is free.  Nothing is waited for, so that the GIL stays where it is. */
static int takes_at_once(const struct core_lease *lease)
{
    bri_name self = bri_self();

    if (self == 0 || lease->kind == CORE_SEMAPHORE)
        return 0;
    return lease->kind == CORE_LOCK ? bri_lock_try(lease->object, self) : bri_rlock_try(lease->object);
}

static core_step *acquire_of(const struct core_lease *lease)
{
    return lease->kind == CORE_LOCK ? step_lock : lease->kind == CORE_RLOCK ? step_rlock : step_semaphore;
}

static int release_semaphore(void *semaphore)
{
    struct core_call call = core_call_begin();
    int error = bri_self() != 0 ? bri_semaphore_release(semaphore) : brood_semaphore_release(semaphore);

    core_call_end(call);
    return error;
}

static int release_core(const struct core_lease *lease)
{
    if (lease->kind == CORE_SEMAPHORE)
        return release_semaphore(lease->object);
    if (bri_self() == 0)
        return lease->kind == CORE_LOCK ? brood_lock_release(lease->object)
                                        : brood_rlock_release(lease->object);
    return lease->kind == CORE_LOCK ? bri_lock_release(lease->object) : bri_rlock_release(lease->object);
}

static int semaphore_value(void *semaphore)
{
    struct core_call call = core_call_begin();
    int value = brood_semaphore_value(semaphore);

    core_call_end(call);
    return value;
}

/* ---- who holds it here ---- */

static unsigned long long own_thread(void)
{
    static _Thread_local char mark __attribute__((tls_model("initial-exec")));

    return (uintptr_t)&mark;
}

static void forget_before_fork(struct core_lease *lease)
{
    if (lease->forks != core_fork_count()) {
        lease->forks = core_fork_count();
        bri_store_relaxed(&lease->depth, INT64_C(0));
    }
}

int semlock_is_mine(struct semlock *semlock)
{
    struct core_lease *lease = semlock->object.lease;

    forget_before_fork(lease);
    return bri_load_relaxed(&lease->depth) > 0 && bri_load_relaxed(&lease->thread) == own_thread();
}

/* A load and a store: for a lock, the lock itself keeps its acquires and releases apart.  A semaphore that threads of a build without
 * GIL use at once may be counted wrongly here, where nothing but its repr comes of it. */
static void change_depth(struct core_lease *lease, int by)
{
    forget_before_fork(lease);
    bri_store_relaxed(&lease->depth, bri_load_relaxed(&lease->depth) + by);
}

static void note_acquired(struct core_lease *lease)
{
    bri_store_relaxed(&lease->thread, own_thread());
    change_depth(lease, 1);
}

static void note_released(struct core_lease *lease)
{
    change_depth(lease, -1);
}

/* ---- construction ---- */

static int create(int kind, int value, int maxvalue, enum core_kind *ret_kind, void **ret_object)
{
    *ret_kind = kind == RECURSIVE_MUTEX       ? CORE_RLOCK
                : value == 1 && maxvalue == 1 ? CORE_LOCK
                                              : CORE_SEMAPHORE;
    if (*ret_kind == CORE_RLOCK)
        return brood_rlock_create((brood_rlock **)ret_object);
    if (*ret_kind == CORE_LOCK)
        return brood_lock_create((brood_lock **)ret_object);
    return value == maxvalue ? brood_semaphore_create_bounded((uint32_t)value, (brood_semaphore **)ret_object)
                             : brood_semaphore_create((uint32_t)value, (brood_semaphore **)ret_object);
}

/* `name` and `unlink` are the standard library's; there is nothing to name or to unlink. */
static int semlock_init(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"kind", "value", "maxvalue", "name", "unlink", NULL};
    struct semlock *semlock = (struct semlock *)self;
    int kind, value, maxvalue, unlink;
    PyObject *name;
    enum core_kind core_kind;
    void *object = NULL;

    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "iii|Op:SemLock", names, &kind, &value, &maxvalue,
                                     &name, &unlink))
        return -1;
    if (kind != RECURSIVE_MUTEX && kind != SEMAPHORE) {
        PyErr_SetString(PyExc_ValueError, "unrecognized kind");
        return -1;
    }
    if (value < 0 || value > maxvalue) {
        errno = EINVAL;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    struct core_call call = core_call_begin();
    int error = create(kind, value, maxvalue, &core_kind, &object);
    core_call_end(call);
    if (core_object_fill(self, core_kind, error, object) < 0)
        return -1;
    semlock->kind = kind;
    semlock->maxvalue = maxvalue;
    return 0;
}

static PyObject *semlock_reduce(PyObject *self, PyObject *unused)
{
    struct semlock *semlock = (struct semlock *)self;

    (void)unused;
    return core_object_reduce(self, Py_BuildValue("(ii)", semlock->kind, semlock->maxvalue));
}

static PyObject *semlock_restore(PyObject *self, PyObject *arguments)
{
    struct semlock *semlock = (struct semlock *)self;

    return PyArg_ParseTuple(arguments, "ii:_restore", &semlock->kind, &semlock->maxvalue) ? Py_NewRef(Py_None)
                                                                                          : NULL;
}

/* ---- acquire and release ---- */

/* One look: would an acquire have to wait, as it seems? */
static int is_taken(struct semlock *self)
{
    const struct core_lease *lease = self->object.lease;

    if (lease->kind ==
        CORE_LOCK) /* the holder's name: the lower half of a lock's word, the upper of an rlock's */
        return (uint32_t)bri_load_relaxed(&((brood_lock *)lease->object)->word) != 0;
    if (lease->kind == CORE_RLOCK)
        return bri_load_relaxed(&((brood_rlock *)lease->object)->word) >> 32 != 0 && !semlock_is_mine(self);
    return bri_load_relaxed(&((brood_semaphore *)lease->object)->free) == 0;
}

/* What is taken is not tried first: that would fail, and make a sentence of it. */
int semlock_acquire_until(struct semlock *self, int64_t deadline)
{
    struct core_lease *lease = self->object.lease;
    int result = takes_at_once(lease) ? 0
                 : deadline != BROOD_NOW && is_taken(self)
                     ? core_wait_once(acquire_of(lease), lease->object, deadline)
                     : core_wait(acquire_of(lease), lease->object, deadline);

    if (result == -ETIMEDOUT)
        return 0;
    if (result < 0) {
        core_raise(result);
        return -1;
    }
    self->owner_died = result == BROOD_OWNER_DIED;
    note_acquired(lease);
    return 1;
}

PyObject *semlock_acquire(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *keywords)
{
    static const char *const names[] = {"block", "timeout"};
    PyObject *values[] = {Py_True, Py_None};
    int64_t deadline = BROOD_FOREVER;

    if (core_object_handle(self) == NULL)
        return NULL;
    if ((count > 0 || keywords != NULL) &&
        (core_parse(arguments, count, keywords, "acquire", names, 2, values) < 0 ||
         core_deadline_if(values[0], values[1], &deadline) < 0))
        return NULL;
    int taken = semlock_acquire_until((struct semlock *)self, deadline);
    return taken < 0 ? NULL : PyBool_FromLong(taken);
}

int semlock_release_all(struct semlock *self, int64_t depth)
{
    int error = 0;

    for (int64_t i = 0; i < depth && error >= 0; i++) {
        error = release_core(self->object.lease);
        if (error >= 0)
            note_released(self->object.lease);
    }
    return error;
}

static PyObject *raise_release(const struct semlock *self, int error)
{
    if (self->kind == RECURSIVE_MUTEX && error == -EPERM) {
        PyErr_SetString(PyExc_AssertionError, "attempt to release recursive lock not owned by thread");
        return NULL;
    }
    if (error == -EPERM || error == -EOVERFLOW) {
        PyErr_SetString(PyExc_ValueError, "semaphore or lock released too many times");
        return NULL;
    }
    return core_raise(error);
}

/* A maxvalue that the core does not know: neither the initial value nor SEM_VALUE_MAX.  As in the standard library a
 * look before the release, and so not exact among processes. */
static int is_full(const struct semlock *self)
{
    return self->kind == SEMAPHORE && self->object.lease->kind == CORE_SEMAPHORE &&
           self->maxvalue < INT_MAX && semaphore_value(self->object.lease->object) >= self->maxvalue;
}

PyObject *semlock_release(PyObject *self, PyObject *unused)
{
    struct semlock *semlock = (struct semlock *)self;

    (void)unused;
    if (core_object_handle(self) == NULL)
        return NULL;
    int error = is_full(semlock) ? -EOVERFLOW : release_core(semlock->object.lease);
    if (error < 0)
        return raise_release(semlock, error);
    note_released(semlock->object.lease);
    Py_RETURN_NONE;
}

PyObject *semlock_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (core_object_handle(self) == NULL || semlock_acquire_until((struct semlock *)self, BROOD_FOREVER) < 0)
        return NULL;
    Py_RETURN_TRUE;
}

PyObject *semlock_exit(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    (void)arguments, (void)count;
    return semlock_release(self, NULL);
}

/* ---- looks ---- */

static PyObject *semlock_count(PyObject *self, PyObject *unused)
{
    struct core_lease *lease = ((struct core_object *)self)->lease;

    (void)unused;
    if (core_object_handle(self) == NULL)
        return NULL;
    forget_before_fork(lease);
    return PyLong_FromLongLong(lease->depth);
}

static PyObject *semlock_mine(PyObject *self, PyObject *unused)
{
    (void)unused;
    return core_object_handle(self) != NULL ? PyBool_FromLong(semlock_is_mine((struct semlock *)self)) : NULL;
}

/* Locks have no value in the core: 1 when they are free, as their word says. */
static int value_of(const struct core_lease *lease)
{
    if (lease->kind == CORE_SEMAPHORE)
        return semaphore_value(lease->object);
    if (lease->kind ==
        CORE_LOCK) /* the holder's name: the lower half of a lock's word, the upper of an rlock's */
        return (uint32_t)bri_load_acquire(&((brood_lock *)lease->object)->word) == 0;
    return bri_load_acquire(&((brood_rlock *)lease->object)->word) >> 32 == 0;
}

static PyObject *semlock_get_value(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (core_object_handle(self) == NULL)
        return NULL;
    int value = value_of(((struct core_object *)self)->lease);
    return value < 0 ? core_raise(value) : PyLong_FromLong(value);
}

static PyObject *semlock_is_zero(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (core_object_handle(self) == NULL)
        return NULL;
    int value = value_of(((struct core_object *)self)->lease);
    return value < 0 ? core_raise(value) : PyBool_FromLong(value == 0);
}

/* The standard library's classes call it in a child; here the lease knows. */
static PyObject *semlock_after_fork(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    Py_RETURN_NONE;
}

static PyObject *semlock_handle(PyObject *self, void *unused)
{
    void *handle = core_object_handle(self);

    (void)unused;
    return handle != NULL ? PyLong_FromVoidPtr(handle) : NULL;
}

static PyObject *semlock_name(PyObject *self, void *unused)
{
    (void)self, (void)unused;
    Py_RETURN_NONE;
}

static PyMethodDef semlock_methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))semlock_acquire, METH_FASTCALL | METH_KEYWORDS,
     "acquire($self, block=True, timeout=None)\n--\n\nAcquires it; False when the time is over."},
    {"release", semlock_release, METH_NOARGS, "release($self)\n--\n\nReleases it."},
    {"__enter__", semlock_enter, METH_NOARGS, "Acquires it."},
    {"__exit__", (PyCFunction)(void (*)(void))semlock_exit, METH_FASTCALL, "Releases it."},
    {"__reduce__", semlock_reduce, METH_NOARGS, "Pickles as a reference."},
    {"_restore", semlock_restore, METH_VARARGS, NULL},
    {"_count", semlock_count, METH_NOARGS, "How often this process has acquired it more than released."},
    {"_is_mine", semlock_mine, METH_NOARGS, "Does the calling thread hold it?"},
    {"_get_value", semlock_get_value, METH_NOARGS, "How often it could be acquired now."},
    {"_is_zero", semlock_is_zero, METH_NOARGS, "Would an acquire wait?"},
    {"_after_fork", semlock_after_fork, METH_NOARGS, "Does nothing."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef semlock_members[] = {
    {"kind", T_INT, offsetof(struct semlock, kind), READONLY, "RECURSIVE_MUTEX (0) or SEMAPHORE (1)"},
    {"maxvalue", T_INT, offsetof(struct semlock, maxvalue), READONLY, "its bound"},
    {"owner_died", T_BOOL, offsetof(struct semlock, owner_died), READONLY,
     "True when the last acquire through this object found that the previous holder had died holding it"},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef semlock_properties[] = {
    {"handle", semlock_handle, NULL, "The core's handle.", NULL},
    {"name", semlock_name, NULL, "None: nothing here has a name.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot semlock_slots[] = {
    {Py_tp_doc,
     "SemLock(kind, value, maxvalue, name=None, unlink=True)\n--\n\nSemaphore, lock or recursive lock."},
    {Py_tp_init, semlock_init},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, core_object_dealloc},
    {Py_tp_methods, semlock_methods},
    {Py_tp_members, semlock_members},
    {Py_tp_getset, semlock_properties},
    {0, NULL},
};

static PyType_Spec semlock_spec = {
    .name = "brood._core.SemLock",
    .basicsize = sizeof(struct semlock),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = semlock_slots,
};

static int add_limit(PyObject *type)
{
    PyObject *limit = PyLong_FromLong(INT_MAX);
    int error = limit == NULL ? -1 : PyObject_SetAttrString(type, "SEM_VALUE_MAX", limit);

    Py_XDECREF(limit);
    return error;
}

int core_add_sync(PyObject *module)
{
    struct core_state *state = PyModule_GetState(module);

    return core_add_type(module, &semlock_spec, &state->semlock_type) < 0 ? -1
                                                                          : add_limit(state->semlock_type);
}
