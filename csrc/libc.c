/* SPDX-License-Identifier: MIT */
/* What of this process only C can reach: the generators of libc's random numbers, and the libraries that are mapped. */
#include <link.h>
#include <stdlib.h>

#include "core.h"
#include "plat/random.h"

/* seed_libc(seed): None: with what nobody knows. */
static PyObject *seed_libc(PyObject *module, PyObject *seed)
{
    (void)module;
    if (seed == Py_None) {
        bri_random_reseed();
        Py_RETURN_NONE;
    }
    unsigned long long number = PyLong_AsUnsignedLongLong(seed);
    if (PyErr_Occurred())
        return NULL;
    srandom((unsigned)number);
    srand48((long)(number >> 32));
    Py_RETURN_NONE;
}

static int add_name(struct dl_phdr_info *info, size_t size, void *names)
{
    PyObject *name = PyUnicode_DecodeFSDefault(info->dlpi_name);
    int error = name != NULL ? PyList_Append(names, name) : -1;

    (void)size;
    Py_XDECREF(name);
    return error;
}

static PyObject *mapped_libraries(PyObject *module, PyObject *unused)
{
    PyObject *names = PyList_New(0);

    (void)module, (void)unused;
    if (names != NULL && dl_iterate_phdr(add_name, names) != 0)
        Py_CLEAR(names);
    return names;
}

static PyMethodDef functions[] = {
    {"_seed_libc", seed_libc, METH_O,
     "_seed_libc(seed)\n--\n\nSeeds rand, random, drand48 and their kin, with an int of 64 bits or, for "
     "None, anew."},
    {"_mapped_libraries", mapped_libraries, METH_NOARGS,
     "_mapped_libraries()\n--\n\nThe paths of the shared libraries that this process has loaded."},
    {NULL, NULL, 0, NULL},
};

int core_add_libc(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
