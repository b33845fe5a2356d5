/* SPDX-License-Identifier: MIT */
/* Event and Barrier. */
#include "core.h"

#include <errno.h>

static PyObject *reduce_plain(PyObject *self, PyObject *unused)
{
    (void)unused;
    return core_object_reduce(self, PyTuple_New(0));
}

/* ------------------------------------------------------------------------------------------------------ Event ---- */

/* Takes keywords that it does not know, so that a Python subclass may have its own __init__. */
static int event_init(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    brood_event *event = NULL;

    (void)arguments, (void)keywords;
    struct core_call call = core_call_begin();
    int error = brood_event_create(&event);
    core_call_end(call);
    return core_object_fill(self, CORE_EVENT, error, event);
}

static PyObject *event_set(PyObject *self, PyObject *unused)
{
    void *event = core_object_handle(self);

    (void)unused;
    return event != NULL ? core_none(brood_event_set(event)) : NULL;
}

static PyObject *event_clear(PyObject *self, PyObject *unused)
{
    void *event = core_object_handle(self);

    (void)unused;
    return event != NULL ? core_none(brood_event_clear(event)) : NULL;
}

static PyObject *event_is_set(PyObject *self, PyObject *unused)
{
    void *event = core_object_handle(self);

    (void)unused;
    if (event == NULL)
        return NULL;
    int is_set = brood_event_is_set(event);
    return is_set < 0 ? core_raise(is_set) : PyBool_FromLong(is_set);
}

static int step_event(void *event, int64_t deadline)
{
    return brood_event_wait(event, deadline);
}

static PyObject *event_wait(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"timeout", NULL};
    PyObject *timeout = Py_None;
    int64_t deadline;
    void *event = core_object_handle(self);

    if (event == NULL || !PyArg_ParseTupleAndKeywords(arguments, keywords, "|O:wait", names, &timeout) ||
        core_deadline(timeout, &deadline) < 0)
        return NULL;
    int result = core_wait(step_event, event, deadline);
    if (result == -ETIMEDOUT)
        Py_RETURN_FALSE;
    return result < 0 ? core_raise(result) : Py_NewRef(Py_True);
}

static PyMethodDef event_methods[] = {
    {"set", event_set, METH_NOARGS, "set($self)\n--\n\nSets the flag; all who wait go on."},
    {"clear", event_clear, METH_NOARGS, "clear($self)\n--\n\nClears the flag."},
    {"is_set", event_is_set, METH_NOARGS, "is_set($self)\n--\n\nIs the flag set?"},
    {"wait", (PyCFunction)(void (*)(void))event_wait, METH_VARARGS | METH_KEYWORDS,
     "wait($self, timeout=None)\n--\n\nWaits until the flag is set; False when the time is over."},
    {"__reduce__", reduce_plain, METH_NOARGS, "Pickles as a reference."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot event_slots[] = {
    {Py_tp_doc, "Event()\n--\n\nA flag that processes wait for."},
    {Py_tp_init, event_init},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, core_object_dealloc},
    {Py_tp_methods, event_methods},
    {0, NULL},
};

static PyType_Spec event_spec = {
    .name = "brood._core.Event",
    .basicsize = sizeof(struct core_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = event_slots,
};

/* ---------------------------------------------------------------------------------------------------- Barrier ---- */

static int barrier_init(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"parties", NULL};
    int parties;
    brood_barrier *barrier = NULL;

    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "i:Barrier", names, &parties))
        return -1;
    if (parties < 1) {
        PyErr_SetString(PyExc_ValueError, "parties must be > 0");
        return -1;
    }
    struct core_call call = core_call_begin();
    int error = brood_barrier_create((uint32_t)parties, &barrier);
    core_call_end(call);
    return core_object_fill(self, CORE_BARRIER, error, barrier);
}

static int step_barrier(void *barrier, int64_t deadline)
{
    return brood_barrier_wait(barrier, deadline);
}

/* A barrier breaks when a wait of it ends before all are there: there is no trying first. */
static PyObject *barrier_wait(PyObject *self, PyObject *timeout)
{
    int64_t deadline;
    void *barrier = core_object_handle(self);

    if (barrier == NULL || core_deadline(timeout, &deadline) < 0)
        return NULL;
    int result = core_wait_once(step_barrier, barrier, deadline);
    if (result == -EPIPE || result == -ETIMEDOUT) {
        PyErr_SetNone(core_state_of(self)->broken_barrier);
        return NULL;
    }
    return result < 0 ? core_raise(result) : PyLong_FromLong(result);
}

/* Of the barrier, through one that takes its mutex; -1 with an exception. */
static int ask_barrier(PyObject *self, int (*function)(brood_barrier *barrier))
{
    void *barrier = core_object_handle(self);

    if (barrier == NULL)
        return -1;
    struct core_call call = core_call_begin();
    int answer = function(barrier);
    core_call_end(call);
    if (answer < 0)
        core_raise(answer);
    return answer < 0 ? -1 : answer;
}

static PyObject *barrier_abort(PyObject *self, PyObject *unused)
{
    (void)unused;
    return ask_barrier(self, brood_barrier_abort) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *barrier_reset(PyObject *self, PyObject *unused)
{
    (void)unused;
    return ask_barrier(self, brood_barrier_reset) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *number_of_barrier(PyObject *self, int (*function)(brood_barrier *barrier))
{
    int number = ask_barrier(self, function);

    return number < 0 ? NULL : PyLong_FromLong(number);
}

static PyObject *barrier_parties(PyObject *self, void *unused)
{
    (void)unused;
    return number_of_barrier(self, brood_barrier_parties);
}

static PyObject *barrier_waiting(PyObject *self, void *unused)
{
    (void)unused;
    return number_of_barrier(self, brood_barrier_waiting);
}

static PyObject *barrier_broken(PyObject *self, void *unused)
{
    int is_broken = ask_barrier(self, brood_barrier_is_broken);

    (void)unused;
    return is_broken < 0 ? NULL : PyBool_FromLong(is_broken);
}

static PyMethodDef barrier_methods[] = {
    {"wait", barrier_wait, METH_O,
     "wait($self, timeout)\n--\n\nWaits for all parties; returns the order of arrival."},
    {"abort", barrier_abort, METH_NOARGS, "abort($self)\n--\n\nBreaks the barrier."},
    {"reset", barrier_reset, METH_NOARGS,
     "reset($self)\n--\n\nMakes it whole; who waits gets BrokenBarrierError."},
    {"__reduce__", reduce_plain, METH_NOARGS, "Pickles as a reference."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef barrier_properties[] = {
    {"parties", barrier_parties, NULL, "How many trip it.", NULL},
    {"n_waiting", barrier_waiting, NULL, "How many wait in it now.", NULL},
    {"broken", barrier_broken, NULL, "Is it broken?", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot barrier_slots[] = {
    {Py_tp_doc, "Barrier(parties)\n--\n\nProcesses and threads that wait for each other."},
    {Py_tp_init, barrier_init},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, core_object_dealloc},
    {Py_tp_methods, barrier_methods},
    {Py_tp_getset, barrier_properties},
    {0, NULL},
};

static PyType_Spec barrier_spec = {
    .name = "brood._core.Barrier",
    .basicsize = sizeof(struct core_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = barrier_slots,
};

int core_add_flags(PyObject *module)
{
    struct core_state *state = PyModule_GetState(module);

    return core_add_type(module, &event_spec, &state->event_type) < 0
               ? -1
               : core_add_type(module, &barrier_spec, &state->barrier_type);
}
