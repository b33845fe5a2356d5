/* SPDX-License-Identifier: MIT */
/* From the core's numbers to Python: exceptions, deadlines, and the one wait. */
#include "core.h"

#include <errno.h>
#include <math.h>
#include <time.h>

#include "sync/event.h"

#define NS_PER_S  INT64_C(1000000000)
#define FOREVER_S 9e9 /* seconds that fit no int64_t of nanoseconds */

PyObject *core_raise(int error)
{
    if (PyErr_Occurred() || error == -EINTR)
        return NULL;
    switch (error) {
    case -EINVAL:
    case -EOVERFLOW:
    case -ESHUTDOWN:
    case -EMSGSIZE:
    case -ENOENT:
        PyErr_SetString(PyExc_ValueError, brood_error_text());
        break;
    case -ENOMEM:
        PyErr_SetString(PyExc_MemoryError, brood_error_text());
        break;
    default: {
        PyObject *arguments = Py_BuildValue("(is)", -error, brood_error_text());
        if (arguments != NULL)
            PyErr_SetObject(PyExc_OSError, arguments);
        Py_XDECREF(arguments);
    }
    }
    return NULL;
}

PyObject *core_take_error(void)
{
    PyObject *type, *error, *traceback;

    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(error, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return error;
}

PyObject *core_none(int error)
{
    return error < 0 ? core_raise(error) : Py_NewRef(Py_None);
}

static int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

int core_deadline(PyObject *timeout, int64_t *ret_deadline)
{
    if (timeout == NULL || timeout == Py_None) {
        *ret_deadline = BROOD_FOREVER;
        return 0;
    }
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError, "timeout must be a number or None, not %s",
                         Py_TYPE(timeout)->tp_name);
        return -1;
    }
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "timeout is not a number");
        return -1;
    }
    if (seconds <= 0)
        *ret_deadline = BROOD_NOW;
    else if (seconds >= FOREVER_S)
        *ret_deadline = BROOD_FOREVER;
    else if (__builtin_add_overflow(now_ns(), (int64_t)(seconds * (double)NS_PER_S), ret_deadline))
        *ret_deadline = BROOD_FOREVER;
    return 0;
}

int core_deadline_if(PyObject *block, PyObject *timeout, int64_t *ret_deadline)
{
    int is_true = PyObject_IsTrue(block);

    if (is_true > 0)
        return core_deadline(timeout, ret_deadline);
    *ret_deadline = BROOD_NOW;
    return is_true;
}

static int parse_keyword(PyObject *name, PyObject *value, Py_ssize_t positional, const char *function,
                         const char *const *names, Py_ssize_t width, PyObject **values)
{
    Py_ssize_t which = 0;

    while (which < width && PyUnicode_CompareWithASCIIString(name, names[which]) != 0)
        which++;
    if (which == width)
        PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", function, name);
    else if (which < positional)
        PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%U'", function, name);
    else
        values[which] = value;
    return PyErr_Occurred() ? -1 : 0;
}

int core_parse(PyObject *const *arguments, Py_ssize_t count, PyObject *keywords, const char *function,
               const char *const *names, Py_ssize_t width, PyObject **values)
{
    Py_ssize_t named = keywords != NULL ? PyTuple_GET_SIZE(keywords) : 0;

    if (count > width) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %zd arguments (%zd given)", function, width, count);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++)
        values[i] = arguments[i];
    for (Py_ssize_t i = 0; i < named; i++)
        if (parse_keyword(PyTuple_GET_ITEM(keywords, i), arguments[count + i], count, function, names, width,
                          values) < 0)
            return -1;
    for (Py_ssize_t i = 0; i < width; i++)
        if (values[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument: '%s'", function, names[i]);
            return -1;
        }
    return 0;
}

/* ---- waiting ---- */

/* The thread's state while it waits in the core without the GIL; NULL: it does not, and signals can wait. */
static _Thread_local PyThreadState *waiting;
static _Atomic unsigned long main_thread;

void core_note_main_thread(void)
{
    main_thread = PyThread_get_thread_ident();
}

/* The core calls it between two sleeps of any wait (brood_on_interrupt), holding nothing.  Handlers run here, so that one that does not
 * raise leaves the wait as it was: a barrier does not break for a SIGCHLD.  What one raises stays in the thread's state. */
static int run_handlers(void)
{
    PyThreadState *state = waiting;

    if (state == NULL || main_thread != PyThread_get_thread_ident())
        return 0;
    waiting = NULL; /* a handler may wait, too */
    PyEval_RestoreThread(state);
    int result = PyErr_CheckSignals();
    waiting = PyEval_SaveThread();
    return result < 0;
}

/* ---- the GIL, when a call has to sleep ---- */

static _Thread_local struct core_call call __attribute__((tls_model("initial-exec")));

static void give_gil(void)
{
    if (call.may_give && call.given == NULL)
        call.given = PyEval_SaveThread();
}

struct core_call core_call_begin(void)
{
    struct core_call outer = call;

    call = (struct core_call){.may_give = 1};
    return outer;
}

void core_call_end(struct core_call outer)
{
    PyThreadState *given = call.given;

    call = outer;
    if (given != NULL)
        PyEval_RestoreThread(given);
}

struct core_call core_callback_begin(void)
{
    struct core_call outer = call;

    call = (struct core_call){.may_give = 0};
    return outer;
}

void core_callback_end(struct core_call outer)
{
    call = outer;
}

int core_wait_once(core_step *step, void *argument, int64_t deadline)
{
    if (PyErr_CheckSignals() < 0) /* one that came just before interrupts no sleep */
        return -EINTR;
    PyThreadState *state = PyEval_SaveThread();
    waiting = state;
    int result = step(argument, deadline);
    waiting = NULL;
    PyEval_RestoreThread(state);
    return PyErr_Occurred() ? -EINTR : result;
}

int core_wait(core_step *step, void *argument, int64_t deadline)
{
    struct core_call outer = core_call_begin();
    int result = step(argument, BROOD_NOW);

    core_call_end(outer);
    if (result != -ETIMEDOUT || deadline == BROOD_NOW)
        return result;
    return core_wait_once(step, argument, deadline);
}

/* The module is executed by the thread that imports it first, which need not be the main one. */
static int ask_for_main_thread(void)
{
    PyObject *threading = PyImport_ImportModule("threading"), *ident = NULL;
    PyObject *thread = threading != NULL ? PyObject_CallMethod(threading, "main_thread", NULL) : NULL;

    if (thread != NULL)
        ident = PyObject_GetAttrString(thread, "ident");
    if (ident != NULL)
        main_thread = PyLong_AsUnsignedLong(ident);
    Py_XDECREF(threading);
    Py_XDECREF(thread);
    Py_XDECREF(ident);
    return PyErr_Occurred() ? -1 : 0;
}

int core_add_waiting(PyObject *module)
{
    (void)module;
    brood_on_interrupt(run_handlers);
    bri_on_sleep(give_gil);
    return ask_for_main_thread();
}
