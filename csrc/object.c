/* SPDX-License-Identifier: MIT */
/* What all Python objects that stand for an object of the arena have in common: a lease, a reduction, an end. */
#include "core.h"

void core_object_dealloc(PyObject *self)
{
    struct core_object *object = (struct core_object *)self;
    PyTypeObject *type = Py_TYPE(self);

    core_lease_drop(object->lease);
    object->lease = NULL;
    type->tp_free(self);
    Py_DECREF(type);
}

void *core_object_handle(PyObject *self)
{
    struct core_object *object = (struct core_object *)self;

    if (object->lease != NULL)
        return object->lease->object;
    PyErr_Format(PyExc_ValueError, "%s.__init__() was not called", Py_TYPE(self)->tp_name);
    return NULL;
}

int core_object_fill(PyObject *self, enum core_kind kind, int error, void *object)
{
    struct core_object *target = (struct core_object *)self;
    struct core_lease *lease = NULL, *old = target->lease;

    if (error == 0)
        error = core_lease_create(kind, object, &lease);
    if (error < 0) {
        core_raise(error);
        return -1;
    }
    target->lease = lease;
    core_lease_drop(old);
    return 0;
}

/* What a Python subclass wants to carry. */
static PyObject *get_state(PyObject *self)
{
    PyObject *state = PyObject_CallMethod(self, "__getstate__", NULL);

    if (state != NULL || !PyErr_ExceptionMatches(PyExc_AttributeError))
        return state;
    PyErr_Clear(); /* object has it since Python 3.11 */
    state = PyObject_GetAttrString(self, "__dict__");
    if (state == NULL)
        PyErr_Clear();
    return state != NULL ? state : Py_NewRef(Py_None);
}

PyObject *core_object_reduce(PyObject *self, PyObject *extra)
{
    struct core_object *object = (struct core_object *)self;
    uint64_t offset;
    uint32_t generation;
    PyObject *state = extra != NULL && core_object_handle(self) != NULL ? get_state(self) : NULL;

    if (state == NULL) {
        Py_XDECREF(extra);
        return NULL;
    }
    int error = core_lease_ticket(object->lease, &offset, &generation);
    if (error < 0) {
        Py_DECREF(extra);
        Py_DECREF(state);
        return core_raise(error);
    }
    return Py_BuildValue("(O(OKIIN)N)", core_state_of(self)->rebuild, Py_TYPE(self),
                         (unsigned long long)offset, (unsigned)generation, (unsigned)object->lease->kind,
                         extra, state);
}
