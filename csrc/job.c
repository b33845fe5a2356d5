/* SPDX-License-Identifier: MIT */
/* Job: what was submitted to a pool, and what came back. */
#include "pool.h"

#include <structmember.h>

#include <errno.h>
#include <stddef.h>
#include <stdio.h>

#include "pool/result.h"

struct job {
    PyObject_HEAD struct pool *pool;
    PyObject *callable; /* its workers read it */
    PyObject *keep;     /* list: what holds the large data of its tasks; or NULL */
    brood_result *result;
    size_t chunk_items, items; /* of the user's; 0: a call */
    size_t first;              /* of the user's items, where one call has several jobs */
    size_t bytes;              /* that its items are in shared memory */
    char is_cancelled;         /* by its owner: else it was the pool that did not do it */
    char *taken;               /* of each task, by take_ended; NULL: of none */
    size_t taken_before;       /* all of these are */
};

/* --- submitting --- */

static void free_items(brood_message *items, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++)
        PyMem_Free(items[i].data);
    PyMem_Free(items);
}

/* What is kept goes to the end of *keep, a list that is made for the first. */
static int keep_also(PyObject **keep, PyObject *one)
{
    if (one == NULL)
        return 0;
    if (*keep == NULL)
        *keep = PyList_New(0);
    int error = *keep != NULL ? PyList_Append(*keep, one) : -1;
    Py_DECREF(one);
    return error;
}

static int make_item(struct pool *pool, struct callable *callable, struct task_origin origin,
                     PyObject *chunks, Py_ssize_t i, brood_message *ret_message, PyObject **keep,
                     size_t *bytes)
{
    PyObject *chunk = PyList_GetItem(chunks, i);
    size_t first = (size_t)(origin.first + (uint64_t)i * origin.chunk_items);
    struct task_item item;

    if (chunk == NULL || task_make_item(pool, callable, origin, chunk, first, &item) < 0)
        return -1;
    *ret_message = item.message;
    *bytes += item.message.bytes + item.kept_bytes;
    if (keep_also(keep, item.keep) == 0)
        return 0;
    PyMem_Free(item.message.data);
    return -1;
}

static brood_message *make_items(struct pool *pool, struct callable *callable, struct task_origin origin,
                                 PyObject *chunks, PyObject **ret_keep, size_t *ret_bytes)
{
    Py_ssize_t count = PyList_GET_SIZE(chunks);
    brood_message *items = PyMem_Calloc((size_t)count, sizeof *items);
    PyObject *keep = NULL;
    size_t bytes = 0;

    if (items == NULL)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; items != NULL && i < count; i++)
        if (make_item(pool, callable, origin, chunks, i, &items[i], &keep, &bytes) < 0) {
            free_items(items, i);
            Py_XDECREF(keep);
            return NULL;
        }
    *ret_keep = keep;
    *ret_bytes = bytes;
    return items;
}

static int offer(struct pool *pool, const brood_message *items, Py_ssize_t count, struct task_ends ends,
                 int tells_each, brood_result **ret_result)
{
    brood_pool *handle = pool->handle;
    struct core_call call = core_call_begin(); /* it waits while the pool has no room for a further job */

    int error = brood_pool_map_bytes_async(handle, task_run, items, (size_t)count,
                                           BROOD_MAP_OPTIONS(.chunk_items = 1, .timeout_ms = ends.timeout_ms,
                                                             .item_timeout_ms = ends.item_timeout_ms,
                                                             .retries = ends.retries,
                                                             .tell_each = (uint32_t)tells_each),
                                           ret_result);
    core_call_end(call);
    if (error < 0)
        pool_raise(pool->state, error);
    return error;
}

static struct job *new_job(struct pool *pool, PyObject *callable)
{
    struct job *job = (struct job *)PyType_GenericAlloc((PyTypeObject *)pool->state->job_type, 0);

    if (job != NULL) {
        job->pool = (struct pool *)Py_NewRef(pool);
        job->callable = Py_NewRef(callable);
    }
    return job;
}

/* All but the last of the chunks are full, so that place_of holds for each. */
static int are_counts_right(Py_ssize_t count, Py_ssize_t chunk_items, Py_ssize_t all_items)
{
    int are_right = count > 0 && chunk_items >= 0 &&
                    (chunk_items == 0 || (all_items > 0 && (all_items - 1) / chunk_items == count - 1));

    if (!are_right)
        PyErr_Format(PyExc_ValueError, "%zd chunks of %zd items are not %zd items", count, chunk_items,
                     all_items);
    return are_right;
}

/* submit(callable, chunks, chunk_items, items, ends, number, first, tells_each): a list of what each task is called with; how many of the user's items that is, 0 for
 * a call; how they may end; its number in the pool; whether wait_for hears of each. */
static PyObject *submit(PyObject *self, PyObject *arguments)
{
    struct pool *pool = (struct pool *)self;
    PyObject *callable, *chunks;
    Py_ssize_t chunk_items, all_items;
    struct task_ends ends;
    unsigned long long number, first;
    int tells_each = 0;

    if (!PyArg_ParseTuple(arguments, "O!O!nn(III)KK|p:submit", pool->state->callable_type, &callable,
                          &PyList_Type, &chunks, &chunk_items, &all_items, &ends.item_timeout_ms,
                          &ends.timeout_ms, &ends.retries, &number, &first, &tells_each) ||
        pool_handle(pool) == NULL)
        return NULL;
    Py_ssize_t count = PyList_GET_SIZE(chunks);
    if (!are_counts_right(count, chunk_items, all_items))
        return NULL;
    pool_sweep(pool, 0);
    struct task_origin origin = {number, (uint64_t)chunk_items, first, ends.retries > 0};
    PyObject *keep = NULL;
    size_t bytes = 0;
    brood_message *items = make_items(pool, (struct callable *)callable, origin, chunks, &keep, &bytes);
    if (items == NULL)
        return NULL;
    struct job *job = new_job(pool, callable);
    if (job != NULL && offer(pool, items, count, ends, tells_each, &job->result) < 0)
        Py_CLEAR(job);
    free_items(items, count);
    if (job == NULL) {
        Py_XDECREF(keep);
    } else {
        job->keep = keep;
        job->chunk_items = (size_t)chunk_items;
        job->items = (size_t)all_items;
        job->first = (size_t)first;
        job->bytes = bytes;
    }
    return (PyObject *)job;
}

static struct job *make_call(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    struct pool *pool = (struct pool *)self;
    struct task_item item;
    PyObject *keep = NULL;

    if (count != 4 || !Py_IS_TYPE(arguments[0], (PyTypeObject *)pool->state->callable_type)) {
        PyErr_SetString(PyExc_TypeError, "a callable of a pool, args, kwds and a number are needed");
        return NULL;
    }
    struct task_origin origin = {PyLong_AsUnsignedLongLong(arguments[3]), 0, 0, 0};
    if ((PyErr_Occurred() && origin.job == (uint64_t)-1) || pool_handle(pool) == NULL)
        return NULL;
    pool_sweep(pool, 0);
    PyObject *call = PyTuple_Pack(2, arguments[1], arguments[2]);
    int error =
        call != NULL ? task_make_item(pool, (struct callable *)arguments[0], origin, call, 0, &item) : -1;
    Py_XDECREF(call);
    if (error < 0)
        return NULL;
    struct job *job = keep_also(&keep, item.keep) == 0 ? new_job(pool, arguments[0]) : NULL;
    if (job != NULL)
        job->keep = Py_XNewRef(keep);
    if (job != NULL && offer(pool, &item.message, 1, (struct task_ends){0, 0, 0}, 0, &job->result) < 0)
        Py_CLEAR(job);
    PyMem_Free(item.message.data);
    Py_XDECREF(keep);
    return job;
}

static PyObject *submit_call(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    return (PyObject *)make_call(self, arguments, count);
}

static PyObject *apply(PyObject *self, PyObject *const *arguments, Py_ssize_t count);

PyMethodDef pool_submit_methods[] = {
    {"submit", submit, METH_VARARGS,
     "submit(callable, chunks, chunk_items, items, ends, number, first, tells_each=False)\n--\n\nA Job of "
     "one task per chunk."},
    {"submit_call", (PyCFunction)(void (*)(void))submit_call, METH_FASTCALL,
     "submit_call($self, callable, args, kwds, number, /)\n--\n\nA Job of one call."},
    {"apply", (PyCFunction)(void (*)(void))apply, METH_FASTCALL,
     "apply($self, callable, args, kwds, number, /)\n--\n\nThe same, and its value."},
};

/* --- waiting --- */

static int step_wait(void *result, int64_t deadline)
{
    return brood_result_wait(result, deadline);
}

struct one_of {
    brood_result *result;
    size_t index;
};

/* The first look is cheap, and leaves the GIL where it is; a wait that is in vain asks after the supervisor. */
static int wait_until(struct job *job, int64_t deadline)
{
    if (brood_result_ready(job->result) > 0)
        return 0;
    if (deadline == BROOD_NOW)
        return step_wait(job->result, deadline);
    return core_wait_once(step_wait, job->result, deadline);
}

static PyObject *wait(PyObject *self, PyObject *timeout)
{
    int64_t deadline;

    if (core_deadline(timeout, &deadline) < 0)
        return NULL;
    int error = wait_until((struct job *)self, deadline);
    if (error == -ETIMEDOUT)
        Py_RETURN_FALSE;
    return error < 0 ? core_raise(error) : Py_NewRef(Py_True);
}

static PyObject *ready(PyObject *self, PyObject *unused)
{
    struct core_call call = core_call_begin();
    int is_ready = brood_result_ready(((struct job *)self)->result);

    (void)unused;
    core_call_end(call);
    return is_ready < 0 ? core_raise(is_ready) : PyBool_FromLong(is_ready);
}

static int step_wait_for(void *argument, int64_t deadline)
{
    const struct one_of *one = argument;

    return brood_result_wait_item(one->result, one->index, deadline);
}

static PyObject *wait_for(PyObject *self, PyObject *arguments)
{
    struct one_of one = {.result = ((struct job *)self)->result};
    PyObject *timeout;
    Py_ssize_t index;
    int64_t deadline;

    if (!PyArg_ParseTuple(arguments, "nO:wait_for", &index, &timeout) ||
        core_deadline(timeout, &deadline) < 0)
        return NULL;
    one.index = (size_t)index;
    if (one.index < brood_result_count(one.result) && bri_result_has_item(one.result, one.index))
        Py_RETURN_TRUE;
    int error = core_wait_once(step_wait_for, &one, deadline);
    if (error == -ETIMEDOUT)
        Py_RETURN_FALSE;
    return error < 0 ? core_raise(error) : Py_NewRef(Py_True);
}

/* append((owner, index)).  -1 with an exception. */
static int hand_over(PyObject *append, PyObject *owner, size_t index)
{
    PyObject *pair = Py_BuildValue("On", owner, (Py_ssize_t)index);
    PyObject *done = pair != NULL ? PyObject_CallOneArg(append, pair) : NULL;

    Py_XDECREF(pair);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

/* take_ended(owner, append): of each task that has ended since, once.  `append` is a builtin's: no code of the program, a signal's handler among it,
 * runs between the look and the call, so that whoever comes next finds all. */
static PyObject *take_ended(PyObject *self, PyObject *arguments)
{
    struct job *job = (struct job *)self;
    PyObject *owner, *append;
    size_t count = brood_result_count(job->result), left = 0;

    if (!PyArg_ParseTuple(arguments, "OO:take_ended", &owner, &append))
        return NULL;
    if (job->taken == NULL && (job->taken = PyMem_Calloc(count, 1)) == NULL)
        return PyErr_NoMemory();
    for (size_t i = job->taken_before; i < count; i++) {
        if (!job->taken[i] && bri_result_has_item(job->result, i)) {
            job->taken[i] = 1;
            if (hand_over(append, owner, i) < 0)
                return NULL;
        }
        left += !job->taken[i];
        if (left == 0)
            job->taken_before = i + 1;
    }
    return PyLong_FromSize_t(left);
}

/* --- results --- */

/* Makes it an item that is still to be done, with the sentence why that will not be. */
static void blame_pool(brood_result *result, brood_outcome *outcome)
{
    outcome->kind = BROOD_PENDING;
    if (brood_result_get(result, NULL, 0, BROOD_NOW) < 0)
        snprintf(outcome->text, sizeof outcome->text, "%s", brood_error_text());
}

static struct task_place place_of(const struct job *job, size_t index)
{
    size_t first = index * job->chunk_items, left = job->items - first;

    return (struct task_place){job->first + first, job->chunk_items < left ? job->chunk_items : left};
}

/* How the task ended, and its reply where there is one. */
static int look_at(struct job *job, size_t index, brood_outcome *ret_outcome, brood_message *ret_reply)
{
    struct core_call call = core_call_begin();
    int error = brood_result_outcome(job->result, index, ret_outcome);

    *ret_reply = (brood_message){NULL, 0};
    if (error == 0 && ret_outcome->kind == BROOD_VALUE)
        error = brood_result_bytes(job->result, index, ret_reply);
    core_call_end(call);
    return error;
}

static PyObject *value_of(struct job *job, size_t index, int *ret_attempts)
{
    brood_outcome outcome;
    brood_message reply;
    int error = look_at(job, index, &outcome, &reply);

    if (error < 0)
        return core_raise(error);
    *ret_attempts = task_attempts(&outcome, &reply);
    if (outcome.kind == BROOD_CANCELLED && !job->is_cancelled)
        blame_pool(job->result, &outcome);
    return task_value(job->pool, place_of(job, index), &outcome, &reply);
}

static PyObject *value(PyObject *self, PyObject *number)
{
    size_t index = PyLong_AsSize_t(number);
    int attempts;

    if (index == (size_t)-1 && PyErr_Occurred())
        return NULL;
    return value_of((struct job *)self, index, &attempts);
}

static PyObject *attempts(PyObject *self, PyObject *number)
{
    size_t index = PyLong_AsSize_t(number);
    brood_outcome outcome;
    brood_message reply;

    if (index == (size_t)-1 && PyErr_Occurred())
        return NULL;
    int error = look_at((struct job *)self, index, &outcome, &reply);
    return error < 0 ? core_raise(error) : PyLong_FromLong(task_attempts(&outcome, &reply));
}

static PyObject *apply(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    struct job *job = make_call(self, arguments, count);
    PyObject *value = NULL;
    int attempts;

    if (job == NULL)
        return NULL;
    int error = wait_until(job, BROOD_FOREVER);
    if (error < 0)
        core_raise(error);
    else
        value = value_of(job, 0, &attempts);
    Py_DECREF(job);
    return value;
}

/* --- all at once --- */

/* Of collect: what has been collected so far. */
struct collection {
    PyObject *values;   /* list with a place for each call, or each item of the user's */
    PyObject *error;    /* the first */
    PyObject *attempts; /* list: of each task */
    Py_ssize_t count;   /* of values, so far */
};

/* What the task raised stands for each of its items.  -1: it was not the task that raised. */
static int collect_error(struct collection *into, size_t size)
{
    PyObject *error = core_take_error();

    if (PyErr_GivenExceptionMatches(error, PyExc_KeyboardInterrupt) &&
        !PyObject_HasAttrString(error, "__notes__")) { /* it came here, and no worker sent it */
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
        return -1;
    }
    for (size_t i = 0; i < size; i++)
        PyList_SET_ITEM(into->values, into->count++, Py_NewRef(error));
    if (into->error == NULL)
        into->error = error;
    else
        Py_DECREF(error);
    return 0;
}

static int collect_list(struct collection *into, PyObject *part, size_t size)
{
    if (!PyList_Check(part) || (size_t)PyList_GET_SIZE(part) != size) {
        Py_DECREF(part);
        PyErr_SetString(PyExc_SystemError, "a task has not as many values as items");
        return -1;
    }
    for (size_t i = 0; i < size; i++)
        PyList_SET_ITEM(into->values, into->count++, Py_NewRef(PyList_GET_ITEM(part, (Py_ssize_t)i)));
    Py_DECREF(part);
    return 0;
}

static int collect_task(struct job *job, size_t index, struct collection *into)
{
    int is_call = job->chunk_items == 0, times = 0;
    size_t size = is_call ? 1 : place_of(job, index).size;
    PyObject *value = value_of(job, index, &times);

    if (value == NULL && collect_error(into, size) < 0)
        return -1;
    if (value != NULL && is_call)
        PyList_SET_ITEM(into->values, into->count++, value);
    else if (value != NULL && collect_list(into, value, size) < 0)
        return -1;
    PyObject *number = PyLong_FromLong(times);
    if (number == NULL)
        return -1;
    PyList_SET_ITEM(into->attempts, (Py_ssize_t)index, number);
    return 0;
}

/* collect(): (values, first error or None, attempts): as value() of each task, once all have ended. */
static PyObject *collect(PyObject *self, PyObject *unused)
{
    struct job *job = (struct job *)self;
    size_t tasks = brood_result_count(job->result), index = 0;
    struct collection into = {
        .values = PyList_New(job->chunk_items == 0 ? (Py_ssize_t)tasks : (Py_ssize_t)job->items),
        .attempts = PyList_New((Py_ssize_t)tasks)};
    PyObject *made = NULL;

    (void)unused;
    if (into.values != NULL && into.attempts != NULL)
        while (index < tasks && collect_task(job, index, &into) == 0)
            index++;
    if (index == tasks && !PyErr_Occurred())
        made = PyTuple_Pack(3, into.values, into.error != NULL ? into.error : Py_None, into.attempts);
    Py_XDECREF(into.values);
    Py_XDECREF(into.error);
    Py_XDECREF(into.attempts);
    return made;
}

static PyObject *left(PyObject *self, PyObject *unused)
{
    struct job *job = (struct job *)self;
    size_t count = 0;
    brood_outcome outcome = {.kind = BROOD_PENDING};
    struct core_call call = core_call_begin();
    int error = 0;

    (void)unused;
    for (size_t i = 0; error == 0 && i < brood_result_count(job->result); i++) {
        error = brood_result_outcome(job->result, i, &outcome);
        count += outcome.kind == BROOD_PENDING;
    }
    core_call_end(call);
    return error < 0 ? core_raise(error) : PyLong_FromSize_t(count);
}

/* cancel(running): running: and ends those that have begun. */
static PyObject *cancel(PyObject *self, PyObject *running)
{
    struct job *job = (struct job *)self;
    int is_running = PyObject_IsTrue(running);

    if (is_running < 0)
        return NULL;
    struct core_call call = core_call_begin();
    int64_t cancelled =
        is_running ? brood_result_cancel_running(job->result) : brood_result_cancel(job->result);
    core_call_end(call);
    if (cancelled > 0 || (cancelled == 0 && is_running))
        job->is_cancelled = 1;
    return cancelled < 0 ? core_raise((int)cancelled) : PyLong_FromLongLong(cancelled);
}

static PyObject *file_number(PyObject *self, PyObject *unused)
{
    struct core_call call = core_call_begin();
    int fd = brood_result_fd(((struct job *)self)->result);

    (void)unused;
    core_call_end(call);
    return fd < 0 ? core_raise(fd) : PyLong_FromLong(fd);
}

static Py_ssize_t length(PyObject *self)
{
    return (Py_ssize_t)brood_result_count(((struct job *)self)->result);
}

/* --- the type --- */

/* One that is not done goes on: its callable stays as long. */
static void leave_behind(struct job *job)
{
    struct left_behind *left = PyMem_Malloc(sizeof *left);

    if (left == NULL)
        return; /* leaked, rather than freed under its workers */
    *left = (struct left_behind){NULL, job->result, Py_NewRef(job->callable), Py_XNewRef(job->keep)};
    pool_leave_behind(job->pool, left);
}

static void give_back(struct job *job)
{
    int goes_on = job->pool->handle != NULL;
    struct core_call call = core_call_begin();

    goes_on = goes_on && brood_result_ready(job->result) == 0;
    if (!goes_on)
        brood_result_destroy(job->result);
    core_call_end(call);
    if (goes_on)
        leave_behind(job);
}

static void dealloc(PyObject *self)
{
    struct job *job = (struct job *)self;
    PyTypeObject *type = Py_TYPE(self);

    if (job->result != NULL)
        give_back(job);
    PyMem_Free(job->taken);
    Py_XDECREF(job->callable);
    Py_XDECREF(job->keep);
    Py_XDECREF(job->pool);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"wait", wait, METH_O,
     "wait(timeout)\n--\n\nWaits until all tasks have ended; False when that takes longer."},
    {"ready", ready, METH_NOARGS, "ready()\n--\n\nHave all tasks ended?"},
    {"wait_for", wait_for, METH_VARARGS,
     "wait_for($self, index, timeout, /)\n--\n\nWaits until this task has ended; False when that takes "
     "longer."},
    {"take_ended", take_ended, METH_VARARGS,
     "take_ended($self, owner, append, /)\n--\n\nCalls append((owner, index)) for each task that has ended, "
     "once; "
     "how many are left."},
    {"value", value, METH_O,
     "value(index)\n--\n\nWhat the task returned; raises what it raised, or why it was lost."},
    {"collect", collect, METH_NOARGS,
     "collect($self, /)\n--\n\n(values, the first error or None, attempts) of all tasks, once they have "
     "ended."},
    {"left", left, METH_NOARGS, "left($self, /)\n--\n\nHow many tasks have not ended."},
    {"attempts", attempts, METH_O, "attempts($self, index, /)\n--\n\nHow often the task was begun."},
    {"cancel", cancel, METH_O,
     "cancel($self, running, /)\n--\n\nCancels tasks that have not begun; how many these are.  running: and "
     "ends the "
     "others."},
    {"fileno", file_number, METH_NOARGS,
     "fileno()\n--\n\nA descriptor that is readable once all tasks have ended."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"nbytes", T_PYSSIZET, offsetof(struct job, bytes), READONLY, "what its items are in shared memory"},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Tasks that were submitted together; Pool.submit makes them."},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_sq_length, length},
    {Py_tp_dealloc, dealloc},
    {0, NULL},
};

static PyType_Spec spec = {.name = "brood._core.Job",
                           .basicsize = sizeof(struct job),
                           .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                           .slots = slots};

int pool_add_job(PyObject *module)
{
    return core_add_type(module, &spec, &((struct core_state *)PyModule_GetState(module))->job_type);
}
