/* SPDX-License-Identifier: MIT */
/* The arena's ticket for exec'd processes and other programs, and the processors. */
#include "core.h"

#include "arena/roster.h"
#include "sync/event.h"

int core_word(PyObject *value, const char *name, uint64_t *ret_word)
{
    if (!PyLong_Check(value)) {
        PyErr_Format(PyExc_TypeError, "%s must be an int, not %R", name, Py_TYPE(value));
        return -1;
    }
    *ret_word = PyLong_AsUnsignedLongLong(value);
    if (!PyErr_Occurred())
        return 0;
    PyErr_Clear();
    PyErr_Format(PyExc_ValueError, "%s is %R: a number from 0 to 2**64-1 is needed", name, value);
    return -1;
}

/* --- the ticket --- */

static PyObject *arena_ticket(PyObject *module, PyObject *unused)
{
    brood_arena_ticket ticket = {.size = sizeof ticket};
    int error = brood_arena_ticket_get(&ticket);

    (void)module, (void)unused;
    if (error < 0)
        return core_raise(error);
    return Py_BuildValue("iKK", ticket.fd, (unsigned long long)ticket.base,
                         (unsigned long long)ticket.window_bytes);
}

static PyObject *attach(PyObject *module, PyObject *arguments)
{
    brood_arena_ticket ticket = {.size = sizeof ticket};
    PyObject *base, *bytes;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "iOO:attach", &ticket.fd, &base, &bytes) ||
        core_word(base, "base", &ticket.base) < 0 ||
        core_word(bytes, "window_bytes", &ticket.window_bytes) < 0)
        return NULL;
    int error = brood_arena_attach(&ticket);
    return error < 0 ? core_raise(error) : Py_NewRef(Py_None);
}

static PyObject *arena_stats(PyObject *module, PyObject *unused)
{
    brood_arena_stats stats = {.size = sizeof stats};
    int error = brood_arena_stats_get(&stats);

    (void)module, (void)unused;
    if (error < 0)
        return core_raise(error);
    return Py_BuildValue("{sKsKsKsKsI}", "max_bytes", (unsigned long long)stats.max_bytes, "grown_bytes",
                         (unsigned long long)stats.grown_bytes, "used_bytes",
                         (unsigned long long)stats.used_bytes, "used_blocks",
                         (unsigned long long)stats.used_blocks, "participants", stats.participants);
}

/* --- the processors --- */

static PyObject *cpu_count(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromLong(brood_cpu_count());
}

static PyObject *rest(PyObject *module, PyObject *is_resting)
{
    int rests = PyObject_IsTrue(is_resting);

    (void)module;
    if (rests >= 0 && bri_arena_current != NULL && bri_self() != 0)
        bri_set_idle((uint32_t)rests);
    return rests < 0 ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef functions[] = {
    {"rest", rest, METH_O,
     "rest(is_resting, /)\n--\n\nThis process waits for something that the core knows nothing of, and others "
     "may have its processor meanwhile; or it does so no longer."},
    {"arena_ticket", arena_ticket, METH_NOARGS,
     "arena_ticket()\n--\n\n(fd, base, window_bytes): what an exec'd process needs to attach."},
    {"attach", attach, METH_VARARGS,
     "attach(fd, base, window_bytes)\n--\n\nTakes part in the arena of the ticket."},
    {"arena_stats", arena_stats, METH_NOARGS,
     "arena_stats()\n--\n\nThe shared memory of this process and its relatives: bound, size, what is in use, "
     "by how many."},
    {"cpu_count", cpu_count, METH_NOARGS, "cpu_count()\n--\n\nThe processors that this process may use."},
    {NULL, NULL, 0, NULL},
};

int core_add_arena(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
