/* SPDX-License-Identifier: MIT */
/*
 * What stands between Python's `lock.acquire()`, `with lock:`, `value.value += 1`, and a SemLock: bases of the classes of brood.synchronize and brood.sharedctypes,
 * which would be two calls of Python's more each.
 *
 *   LockFace           _semlock, acquire, release, __enter__, __exit__
 *   Guarded            _obj and _lock, the same two and get_obj, get_lock; the lock is anything that has acquire and release
 *   guarded(name)      a property of Guarded: the attribute of _obj, read and written with the lock held
 */
#include "sync.h"

#include <stddef.h>
#include <structmember.h>

struct face {
    PyObject_HEAD PyObject *semlock; /* NULL: not yet */
};

struct guarded {
    PyObject_HEAD PyObject *object, *lock;
    PyObject *semlock; /* of the lock where it is a LockFace; else NULL */
};

struct property {
    PyObject_HEAD PyObject *name;
    PyTypeObject *guarded_type; /* as in the module's state */
};

/* ---- LockFace ---- */

static PyObject *get_semlock(PyObject *self, void *unused)
{
    PyObject *semlock = ((struct face *)self)->semlock;

    (void)unused;
    if (semlock == NULL)
        PyErr_SetString(PyExc_AttributeError, "_semlock");
    return Py_XNewRef(semlock);
}

static int set_semlock(PyObject *self, PyObject *value, void *unused)
{
    struct core_state *state = core_state_of(self);

    (void)unused;
    if (state == NULL)
        return -1;
    if (value == NULL || !PyObject_TypeCheck(value, (PyTypeObject *)state->semlock_type)) {
        PyErr_SetString(PyExc_TypeError, "_semlock must be a SemLock");
        return -1;
    }
    Py_XSETREF(((struct face *)self)->semlock, Py_NewRef(value));
    return 0;
}

static PyObject *acquire_face(PyObject *self, PyObject *const *arguments, Py_ssize_t count,
                              PyObject *keywords)
{
    PyObject *semlock = get_semlock(self, NULL);
    PyObject *acquired = semlock != NULL ? semlock_acquire(semlock, arguments, count, keywords) : NULL;

    Py_XDECREF(semlock);
    return acquired;
}

static PyObject *release_face(PyObject *self, PyObject *unused)
{
    PyObject *semlock = get_semlock(self, NULL);
    PyObject *released = semlock != NULL ? semlock_release(semlock, unused) : NULL;

    Py_XDECREF(semlock);
    return released;
}

static PyObject *enter_face(PyObject *self, PyObject *unused)
{
    PyObject *semlock = get_semlock(self, NULL);
    PyObject *entered = semlock != NULL ? semlock_enter(semlock, unused) : NULL;

    Py_XDECREF(semlock);
    return entered;
}

static PyObject *exit_face(PyObject *self, PyObject *const *details, Py_ssize_t count)
{
    PyObject *semlock = get_semlock(self, NULL);
    PyObject *left = semlock != NULL ? semlock_exit(semlock, details, count) : NULL;

    Py_XDECREF(semlock);
    return left;
}

static int traverse_face(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((struct face *)self)->semlock);
    return 0;
}

static int clear_face(PyObject *self)
{
    Py_CLEAR(((struct face *)self)->semlock);
    return 0;
}

/* Of both: their subclasses of Python's call it last. */
static void dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    inquiry clear = PyType_GetSlot(type, Py_tp_clear);

    PyObject_GC_UnTrack(self);
    clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef face_methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))acquire_face, METH_FASTCALL | METH_KEYWORDS,
     "acquire($self, block=True, timeout=None)\n--\n\nAcquire it; False when the time is over."},
    {"release", release_face, METH_NOARGS, "release($self)\n--\n\nRelease it."},
    {"__enter__", enter_face, METH_NOARGS, "Acquires it."},
    {"__exit__", (PyCFunction)(void (*)(void))exit_face, METH_FASTCALL, "Releases it."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef face_properties[] = {
    {"_semlock", get_semlock, set_semlock, "The core's.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot face_slots[] = {
    {Py_tp_doc, "LockFace()\n--\n\nWhat has a SemLock."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_methods, face_methods},
    {Py_tp_getset, face_properties},
    {Py_tp_traverse, traverse_face},
    {Py_tp_clear, clear_face},
    {Py_tp_dealloc, dealloc},
    {0, NULL},
};

static PyType_Spec face_spec = {.name = "brood._core.LockFace",
                                .basicsize = sizeof(struct face),
                                .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
                                .slots = face_slots};

/* ---- Guarded ---- */

static int init_guarded(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"obj", "lock", NULL};
    struct guarded *guarded = (struct guarded *)self;
    struct core_state *state = core_state_of(self);
    PyObject *object, *lock;

    if (state == NULL ||
        !PyArg_ParseTupleAndKeywords(arguments, keywords, "OO:Guarded", names, &object, &lock))
        return -1;
    Py_XSETREF(guarded->object, Py_NewRef(object));
    Py_XSETREF(guarded->lock, Py_NewRef(lock));
    Py_CLEAR(guarded->semlock);
    if (PyObject_TypeCheck(lock, (PyTypeObject *)state->face_type))
        guarded->semlock = get_semlock(lock, NULL);
    return PyErr_Occurred() ? -1 : 0;
}

static int is_made(const struct guarded *guarded)
{
    if (guarded->lock == NULL)
        PyErr_SetString(PyExc_ValueError, "Guarded.__init__() was not called");
    return guarded->lock != NULL;
}

static PyObject *enter_guarded(PyObject *self, PyObject *unused)
{
    struct guarded *guarded = (struct guarded *)self;

    if (!is_made(guarded))
        return NULL;
    return guarded->semlock != NULL ? semlock_enter(guarded->semlock, unused)
                                    : PyObject_CallMethod(guarded->lock, "__enter__", NULL);
}

static PyObject *exit_guarded(PyObject *self, PyObject *const *details, Py_ssize_t count)
{
    struct guarded *guarded = (struct guarded *)self;

    if (!is_made(guarded))
        return NULL;
    if (guarded->semlock != NULL)
        return semlock_exit(guarded->semlock, details, count);
    PyObject *leave = PyObject_GetAttrString(guarded->lock, "__exit__");
    PyObject *left = leave != NULL ? PyObject_Vectorcall(leave, details, (size_t)count, NULL) : NULL;
    Py_XDECREF(leave);
    return left;
}

static PyObject *get_object(PyObject *self, PyObject *unused)
{
    (void)unused;
    return is_made((struct guarded *)self) ? Py_NewRef(((struct guarded *)self)->object) : NULL;
}

static PyObject *get_lock(PyObject *self, PyObject *unused)
{
    (void)unused;
    return is_made((struct guarded *)self) ? Py_NewRef(((struct guarded *)self)->lock) : NULL;
}

static int traverse_guarded(PyObject *self, visitproc visit, void *arg)
{
    struct guarded *guarded = (struct guarded *)self;

    Py_VISIT(Py_TYPE(self));
    Py_VISIT(guarded->object);
    Py_VISIT(guarded->lock);
    Py_VISIT(guarded->semlock);
    return 0;
}

static int clear_guarded(PyObject *self)
{
    struct guarded *guarded = (struct guarded *)self;

    Py_CLEAR(guarded->object);
    Py_CLEAR(guarded->lock);
    Py_CLEAR(guarded->semlock);
    return 0;
}

static PyMethodDef guarded_methods[] = {
    {"__enter__", enter_guarded, METH_NOARGS, "Acquires the lock."},
    {"__exit__", (PyCFunction)(void (*)(void))exit_guarded, METH_FASTCALL, "Releases the lock."},
    {"get_obj", get_object, METH_NOARGS, "get_obj($self, /)\n--\n\nReturn the ctypes object itself."},
    {"get_lock", get_lock, METH_NOARGS, "get_lock($self, /)\n--\n\nReturn the lock."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef guarded_members[] = {
    {"_obj", T_OBJECT_EX, offsetof(struct guarded, object), READONLY, "The object."},
    {"_lock", T_OBJECT_EX, offsetof(struct guarded, lock), READONLY, "Its lock."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot guarded_slots[] = {
    {Py_tp_doc, "Guarded(obj, lock)\n--\n\nAn object and the lock that is held when it is used."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, init_guarded},
    {Py_tp_methods, guarded_methods},
    {Py_tp_members, guarded_members},
    {Py_tp_traverse, traverse_guarded},
    {Py_tp_clear, clear_guarded},
    {Py_tp_dealloc, dealloc},
    {0, NULL},
};

static PyType_Spec guarded_spec = {.name = "brood._core.Guarded",
                                   .basicsize = sizeof(struct guarded),
                                   .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
                                   .slots = guarded_slots};

/* ---- its properties ---- */

static int acquire(const struct guarded *guarded)
{
    if (guarded->semlock != NULL)
        return core_object_handle(guarded->semlock) == NULL
                   ? -1
                   : semlock_acquire_until((struct semlock *)guarded->semlock, BROOD_FOREVER);
    PyObject *done = PyObject_CallMethod(guarded->lock, "acquire", NULL);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

static int release_lock(const struct guarded *guarded)
{
    PyObject *done = guarded->semlock != NULL ? semlock_release(guarded->semlock, NULL)
                                              : PyObject_CallMethod(guarded->lock, "release", NULL);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

/* With an exception on its way, that one stays. */
static int release(const struct guarded *guarded)
{
    PyObject *type, *error, *traceback;

    if (PyErr_Occurred() == NULL)
        return release_lock(guarded);
    PyErr_Fetch(&type, &error, &traceback);
    int released = release_lock(guarded);
    PyErr_Restore(type, error, traceback);
    return released;
}

static int is_guarded(const struct property *property, PyObject *instance)
{
    if (PyObject_TypeCheck(instance, property->guarded_type))
        return is_made((struct guarded *)instance);
    PyErr_Format(PyExc_TypeError, "%U is a property of Guarded, not of %s", property->name,
                 Py_TYPE(instance)->tp_name);
    return 0;
}

static PyObject *read_property(PyObject *self, PyObject *instance, PyObject *owner)
{
    struct guarded *guarded = (struct guarded *)instance;

    (void)owner;
    if (instance == NULL || instance == Py_None)
        return Py_NewRef(self);
    if (!is_guarded((struct property *)self, instance) || acquire(guarded) < 0)
        return NULL;
    PyObject *value = PyObject_GetAttr(guarded->object, ((struct property *)self)->name);
    if (release(guarded) < 0)
        Py_CLEAR(value);
    return value;
}

static int write_property(PyObject *self, PyObject *instance, PyObject *value)
{
    struct guarded *guarded = (struct guarded *)instance;

    if (value == NULL) {
        PyErr_Format(PyExc_AttributeError, "%U cannot be deleted", ((struct property *)self)->name);
        return -1;
    }
    if (!is_guarded((struct property *)self, instance) || acquire(guarded) < 0)
        return -1;
    int error = PyObject_SetAttr(guarded->object, ((struct property *)self)->name, value);
    return release(guarded) < 0 ? -1 : error;
}

static void dealloc_property(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    Py_XDECREF(((struct property *)self)->name);
    Py_XDECREF(((struct property *)self)->guarded_type);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot property_slots[] = {
    {Py_tp_doc, "An attribute of the ctypes object, read and written with the lock held."},
    {Py_tp_descr_get, read_property},
    {Py_tp_descr_set, write_property},
    {Py_tp_dealloc, dealloc_property},
    {0, NULL},
};

static PyType_Spec property_spec = {.name = "brood._core.GuardedProperty",
                                    .basicsize = sizeof(struct property),
                                    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                                    .slots = property_slots};

static PyObject *guarded_property(PyObject *module, PyObject *name)
{
    struct core_state *state = PyModule_GetState(module);

    if (!PyUnicode_Check(name))
        return PyErr_Format(PyExc_TypeError, "name must be a str, not %s", Py_TYPE(name)->tp_name);
    PyObject *property = PyType_GenericAlloc((PyTypeObject *)state->property_type, 0);
    if (property != NULL) {
        Py_INCREF(name);
        PyUnicode_InternInPlace(&name);
        ((struct property *)property)->name = name;
        ((struct property *)property)->guarded_type = (PyTypeObject *)Py_NewRef(state->guarded_type);
    }
    return property;
}

static PyMethodDef functions[] = {
    {"_guarded_property", guarded_property, METH_O,
     "_guarded_property(name, /)\n--\n\nA property of Guarded: an attribute of its object."},
    {NULL, NULL, 0, NULL},
};

int core_add_guarded(PyObject *module)
{
    struct core_state *state = PyModule_GetState(module);

    if (core_add_type(module, &face_spec, &state->face_type) < 0 ||
        core_add_type(module, &guarded_spec, &state->guarded_type) < 0 ||
        core_add_type(module, &property_spec, &state->property_type) < 0)
        return -1;
    return PyModule_AddFunctions(module, functions);
}
