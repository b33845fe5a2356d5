/* SPDX-License-Identifier: MIT */
/* brood._core: the module, its state, and the table of its parts. */
#include "core.h"

#include <errno.h>
#include <stddef.h>

struct core_state *core_state_of(PyObject *object)
{
    PyObject *module = PyType_GetModuleByDef(Py_TYPE(object), &core_module);

    return module != NULL ? PyModule_GetState(module) : NULL;
}

int core_add_type(PyObject *module, PyType_Spec *spec, PyObject **ret_type)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);

    if (type == NULL)
        return -1;
    Py_XSETREF(*ret_type, type);
    return PyModule_AddType(module, (PyTypeObject *)type);
}

/* May an object of `type` stand for one of that kind? */
static int fits(const struct core_state *state, PyTypeObject *type, unsigned kind)
{
    PyObject *const by_kind[CORE_KINDS] = {
        [CORE_LOCK] = state->semlock_type,      [CORE_RLOCK] = state->semlock_type,
        [CORE_SEMAPHORE] = state->semlock_type, [CORE_CONDITION] = state->condition_type,
        [CORE_EVENT] = state->event_type,       [CORE_BARRIER] = state->barrier_type,
        [CORE_QUEUE] = state->queue_type,       [CORE_FOREIGN_QUEUE] = state->queue_type,
        [CORE_TALLY] = state->tally_type,       [CORE_MEMORY] = state->memory_type,
    };

    return kind > 0 && kind < CORE_KINDS && by_kind[kind] != NULL &&
           PyType_IsSubtype(type, (PyTypeObject *)by_kind[kind]);
}

static PyObject *make_with_lease(PyTypeObject *type, struct core_lease *lease, PyObject *extra)
{
    PyObject *self = type->tp_alloc(type, 0);

    if (self == NULL) {
        core_lease_drop(lease);
        return NULL;
    }
    ((struct core_object *)self)->lease = lease;
    if (PyTuple_GET_SIZE(extra) > 0) {
        PyObject *restore = PyObject_GetAttrString(self, "_restore");
        PyObject *done = restore != NULL ? PyObject_CallObject(restore, extra) : NULL;
        Py_XDECREF(restore);
        if (done == NULL)
            Py_CLEAR(self);
        Py_XDECREF(done);
    }
    return self;
}

static PyObject *rebuild(PyObject *module, PyObject *arguments)
{
    PyTypeObject *type;
    unsigned long long offset;
    unsigned generation, kind;
    PyObject *extra;
    struct core_lease *lease;

    if (!PyArg_ParseTuple(arguments, "O!KIIO!:_rebuild", &PyType_Type, &type, &offset, &generation, &kind,
                          &PyTuple_Type, &extra))
        return NULL;
    if (!fits(PyModule_GetState(module), type, kind))
        return PyErr_Format(PyExc_TypeError, "%R does not stand for objects of kind %u", type, kind);
    int error = core_lease_open((enum core_kind)kind, offset, generation, &lease);
    return error < 0 ? core_raise(error) : make_with_lease(type, lease, extra);
}

static PyMethodDef functions[] = {
    {"_rebuild", rebuild, METH_VARARGS, "_rebuild(type, offset, generation, kind, extra)\n--\n\nUnpickles."},
    {NULL, NULL, 0, NULL},
};

static int import_into(PyObject **slot, const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);

    if (module != NULL)
        Py_XSETREF(*slot, PyObject_GetAttrString(module, name));
    Py_XDECREF(module);
    return *slot != NULL ? 0 : -1;
}

static int import_what_we_need(struct core_state *state)
{
    PyObject *pickler = NULL;

    if (import_into(&state->empty, "queue", "Empty") < 0 || import_into(&state->full, "queue", "Full") < 0 ||
        import_into(&state->broken_barrier, "threading", "BrokenBarrierError") < 0 ||
        import_into(&state->plain_dumps, "_pickle", "dumps") < 0 ||
        import_into(&state->plain_loads, "_pickle", "loads") < 0 ||
        import_into(&state->copyreg_table, "copyreg", "dispatch_table") < 0 ||
        import_into(&pickler, "multiprocessing.reduction", "ForkingPickler") < 0)
        return -1;
    state->forking_pickler = pickler;
    state->loads_keywords = Py_BuildValue("(s)", "buffers");
    return state->loads_keywords != NULL ? 0 : -1;
}

static int (*const parts[])(PyObject *module) = {
    core_add_waiting,   core_add_arena, core_add_leases,   core_add_sync,  core_add_guarded,
    core_add_condition, core_add_flags, core_add_queue,    core_add_tally, core_add_memory,
    core_add_buffer,    core_add_sink,  core_add_snapshot, core_add_libc,  core_add_pool,
};

static int execute(PyObject *module)
{
    struct core_state *state = PyModule_GetState(module);

    if (import_what_we_need(state) < 0)
        return -1;
    state->rebuild = PyObject_GetAttrString(module, "_rebuild");
    if (state->rebuild == NULL)
        return -1;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (parts[i](module) < 0)
            return -1;
    return 0;
}

/* The state is a struct of nothing but PyObject pointers. */
static int traverse(PyObject *module, visitproc visit, void *arg) /* Py_VISIT wants that name */
{
    PyObject **members = PyModule_GetState(module);

    for (size_t i = 0; members != NULL && i < sizeof(struct core_state) / sizeof(PyObject *); i++)
        Py_VISIT(members[i]);
    return 0;
}

static int clear(PyObject *module)
{
    PyObject **members = PyModule_GetState(module);

    for (size_t i = 0; members != NULL && i < sizeof(struct core_state) / sizeof(PyObject *); i++)
        Py_CLEAR(members[i]);
    return 0;
}

static void free_module(void *module)
{
    clear(module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "brood._core",
    .m_doc = "The C library brood as Python objects: what is shared between processes.",
    .m_size = sizeof(struct core_state),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = free_module,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&core_module);
}
