/* SPDX-License-Identifier: MIT */
/*
 * Condition: the waiting room of a Python Condition, which may have any SemLock for its lock.
 *
 * The core's condition has a lock of its own.  Who waits enters the room, releases the user's lock and only then waits; who notifies
 * enters the room, too: no notify falls between the release and the wait.  The room is held for moments only, but a thread may hold it
 * while it waits for the GIL: whoever has the GIL must not wait for the room.
 */
#include "sync.h"

#include <errno.h>

#include "locks/locks.h"

enum { LOOK_MS = 200 };

static int condition_init(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {NULL};
    brood_condition *condition = NULL;

    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, ":Condition", names))
        return -1;
    struct core_call call = core_call_begin();
    int error = brood_condition_create(NULL, &condition);
    core_call_end(call);
    return core_object_fill(self, CORE_CONDITION, error, condition);
}

static int step_enter_room(void *condition, int64_t deadline)
{
    return brood_condition_acquire(condition, deadline);
}

/* Never with the GIL: to return it has to take the room again, whose holder may be waiting for the GIL. */
static int step_wait(void *condition, int64_t deadline)
{
    return brood_condition_wait(condition, deadline);
}

/* -1 with an exception: of a signal handler. */
static int acquire_again(struct semlock *lock, int64_t depth)
{
    for (int64_t i = 0; i < depth; i++)
        if (semlock_acquire_until(lock, BROOD_FOREVER) < 0)
            return -1;
    return 0;
}

/* With what the wait raised, if anything, set aside while the lock is acquired again. */
static PyObject *return_with_lock(struct semlock *lock, int64_t depth, int result)
{
    PyObject *type, *value, *traceback;

    if (result < 0 && result != -ETIMEDOUT)
        core_raise(result);
    PyErr_Fetch(&type, &value, &traceback);
    if (acquire_again(lock, depth) < 0) {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
        return NULL;
    }
    PyErr_Restore(type, value, traceback);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(result >= 0);
}

static PyObject *wait_in_room(brood_condition *room, struct semlock *lock, int64_t deadline)
{
    int64_t depth = bri_load_relaxed(&lock->object.lease->depth);
    int result = core_wait(step_enter_room, room, BROOD_FOREVER);

    if (result < 0)
        return core_raise(result);
    result = semlock_release_all(lock, depth);
    if (result >= 0)
        result = core_wait_once(step_wait, room, deadline);
    brood_condition_release(room);
    return return_with_lock(lock, depth, result);
}

static PyObject *condition_wait(PyObject *self, PyObject *arguments)
{
    PyObject *lock, *timeout;
    int64_t deadline;
    struct core_state *state = core_state_of(self);
    void *room = core_object_handle(self);

    if (room == NULL || !PyArg_ParseTuple(arguments, "O!O:wait", state->semlock_type, &lock, &timeout) ||
        core_object_handle(lock) == NULL || core_deadline(timeout, &deadline) < 0)
        return NULL;
    if (!semlock_is_mine((struct semlock *)lock)) {
        PyErr_SetString(PyExc_AssertionError, "must acquire() condition before using wait()");
        return NULL;
    }
    return wait_in_room(room, (struct semlock *)lock, deadline);
}

static int notify_and_leave(brood_condition *room, uint32_t count)
{
    struct core_call call = core_call_begin();
    int notified = brood_condition_notify(room, count);

    brood_condition_release(room);
    core_call_end(call);
    return notified;
}

static PyObject *condition_notify(PyObject *self, PyObject *argument)
{
    void *room = core_object_handle(self);
    long long count = PyLong_AsLongLong(argument);

    if (room == NULL || (count == -1 && PyErr_Occurred()))
        return NULL;
    if (count <= 0)
        return PyLong_FromLong(0);
    int result = core_wait(step_enter_room, room, BROOD_FOREVER);
    if (result < 0)
        return core_raise(result);
    result = notify_and_leave(room, count < UINT32_MAX ? (uint32_t)count : UINT32_MAX);
    return result < 0 ? core_raise(result) : PyLong_FromLong(result);
}

static long count_waiters(const struct brood_condition *room)
{
    uint64_t notified = bri_load_acquire(&room->notified);
    uint32_t width = bri_load_acquire(&room->width);
    long waiters = 0;

    for (uint32_t i = 0; i < width; i++)
        waiters += bri_load_acquire(&room->waiters[i].ticket) > notified;
    return waiters;
}

/* From inside the room, so that whoever has released the user's lock in order to wait is counted; from outside when somebody
 * stops in there. */
static PyObject *condition_waiters(PyObject *self, PyObject *unused)
{
    struct brood_condition *room = core_object_handle(self);

    (void)unused;
    if (room == NULL)
        return NULL;
    int entered = core_wait(step_enter_room, room, brood_after_ms(LOOK_MS));
    if (entered < 0 && entered != -ETIMEDOUT)
        return core_raise(entered);
    long waiters = count_waiters(room);
    if (entered >= 0)
        brood_condition_release(room);
    return PyLong_FromLong(waiters);
}

static PyObject *reduce_plain(PyObject *self, PyObject *unused)
{
    (void)unused;
    return core_object_reduce(self, PyTuple_New(0));
}

static PyMethodDef condition_methods[] = {
    {"wait", condition_wait, METH_VARARGS,
     "wait($self, lock, timeout)\n--\n\nReleases the SemLock wholly, waits for a notify, acquires it again."},
    {"notify", condition_notify, METH_O,
     "notify($self, count)\n--\n\nWakes up to `count`; returns how many."},
    {"waiters", condition_waiters, METH_NOARGS, "waiters($self)\n--\n\nHow many wait now."},
    {"__reduce__", reduce_plain, METH_NOARGS, "Pickles as a reference."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot condition_slots[] = {
    {Py_tp_doc, "Condition()\n--\n\nThe waiting room of a condition variable."},
    {Py_tp_init, condition_init},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, core_object_dealloc},
    {Py_tp_methods, condition_methods},
    {0, NULL},
};

static PyType_Spec condition_spec = {
    .name = "brood._core.Condition",
    .basicsize = sizeof(struct core_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = condition_slots,
};

int core_add_condition(PyObject *module)
{
    return core_add_type(module, &condition_spec,
                         &((struct core_state *)PyModule_GetState(module))->condition_type);
}
