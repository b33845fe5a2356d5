/* SPDX-License-Identifier: MIT */
/*
 * A worker that crashes leaves its Python stack behind; python/brood/_stacks.py says where.
 *
 * Python's faulthandler can write the stack from a signal handler, but for fatal signals it has one descriptor, and that is the user's (python
 * -X faulthandler, faulthandler.enable, pytest).  So faulthandler.register has it write to ours at a signal that nobody sends otherwise, and
 * the handler here sends that signal, to the thread that crashed:
 *
 *   fatal signal:  C1  the action that was there before is put back
 *                  C2  the descriptor gets a file position of this process's own, at its place in the file
 *                  C3  raise(signal of the dump): when it returns, the stack is in the file
 *                  C4  raise(fatal signal): pending until the handler returns; then the user's faulthandler, or the death
 *
 *
 * The signal that tells a task to end (its time is over, say) does C2 and C3 too, for the owner's TaskTimeout, and then goes on to the handler
 * that was there: Python's.  If that one has an exception raised in the task, its traceback is written over the stack (_stacks.leave).
 *
 * death table: killed before C3 → no stack; in C3 → the first part of it; after C3 → all of it.  A fault in the handler is a death at once,
 * as the signal is blocked by then.
 *
 * Everything happens when it is too late to matter what it costs: until then a worker has done no more than set the handlers up.
 * A process that the worker forks has inherited them: it skips C2 and C3, hence `pid`.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pool.h"

enum {
    STACK_BYTES = 64 * 1024
}; /* for a thread that has used its own up, and three handlers, one within the other */

static const int fatal_signals[] = {SIGSEGV, SIGABRT, SIGFPE, SIGBUS, SIGILL};

enum { FATAL_SIGNALS = sizeof fatal_signals / sizeof *fatal_signals };

static struct {
    pid_t pid;
    int dump_signal;
    int fd; /* all workers' of the pool: they share its position until C2 */
    unsigned long long device, inode;
    long long place_bytes; /* of the file, for each pid */
    long long most_bytes;  /* of the file, in all, or what was left unread is dropped */
    char path[32];         /* opens the file anew */
    struct sigaction before[FATAL_SIGNALS];
    void (*before_soft)(int number);
} crash;

static void restore(int number)
{
    for (size_t i = 0; i < FATAL_SIGNALS; i++)
        if (fatal_signals[i] == number)
            sigaction(number, &crash.before[i], NULL);
}

/* C2.  The host may have closed the descriptor, and its number be another file's by now. */
static int take_place(void)
{
    const off_t place = (off_t)crash.pid * crash.place_bytes;
    struct stat status;

    if (fstat(crash.fd, &status) < 0 || status.st_dev != crash.device || status.st_ino != crash.inode)
        return -1;
    if (status.st_blocks * 512LL > crash.most_bytes && ftruncate(crash.fd, 0) < 0)
        return -1;
    int fd = open(crash.path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -1;
    /* What an earlier bearer of the pid has left. */
    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, place, crash.place_bytes);
    return lseek(fd, place, SEEK_SET) < 0 ? -1 : dup2(fd, crash.fd);
}

/* C3. */
static void dump(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, crash.dump_signal);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    raise(crash.dump_signal);
}

static void on_fatal_signal(int number)
{
    int error = errno;

    restore(number);
    if (getpid() == crash.pid && take_place() >= 0)
        dump();
    errno = error;
    raise(number);
}

static void on_soft_signal(int number)
{
    int error = errno;

    if (getpid() == crash.pid && take_place() >= 0)
        dump();
    errno = error;
    crash.before_soft(number);
}

/* Only where somebody has set a handler: nobody else is told to end by that signal. */
static void go_before_soft(int number)
{
    struct sigaction action;

    if (sigaction(number, NULL, &action) < 0 || action.sa_handler == SIG_DFL ||
        action.sa_handler == SIG_IGN || action.sa_handler == on_soft_signal)
        return;
    crash.before_soft = action.sa_handler;
    action.sa_handler = on_soft_signal;
    sigaction(number, &action, NULL);
}

/* Nobody's, or Python's: its faulthandler goes on to the action that it found, or is gone on to by us.  Others may have a use for faults (a
 * JVM, say) and expect to be the first to see them; and in a worker's worker it is ours already. */
static int may_be_followed(const struct sigaction *action)
{
    Dl_info owner, python;

    if (action->sa_handler == SIG_DFL || action->sa_handler == SIG_IGN)
        return action->sa_handler == SIG_DFL;
    return dladdr((void *)(uintptr_t)action->sa_handler, &owner) != 0 &&
           dladdr((void *)(uintptr_t)Py_IncRef, &python) != 0 && owner.dli_fbase == python.dli_fbase;
}

static void take_over(size_t i)
{
    const struct sigaction ours = {.sa_handler = on_fatal_signal, .sa_flags = SA_ONSTACK};
    struct sigaction before;

    if (sigaction(fatal_signals[i], NULL, &before) < 0 || !may_be_followed(&before))
        return;
    crash.before[i] = before;
    sigaction(fatal_signals[i], &ours, NULL);
}

static int take_over_all(PyObject *signals)
{
    for (size_t i = 0; i < FATAL_SIGNALS; i++) {
        PyObject *number = PyLong_FromLong(fatal_signals[i]);
        int is_wanted = number != NULL ? PySet_Contains(signals, number) : -1;
        Py_XDECREF(number);
        if (is_wanted < 0)
            return -1;
        if (is_wanted)
            take_over(i);
    }
    return 0;
}

/* report_crashes(signals, soft_signal, dump_signal, descriptor, device, inode, place_bytes, most_bytes): of this process, at whichever of
 * `signals` are fatal, and at the soft one. */
static PyObject *report_crashes(PyObject *module, PyObject *arguments)
{
    static char stack[STACK_BYTES];
    const stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    PyObject *signals;
    int soft_signal;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "O!iiiKKLL:_report_crashes", &PyFrozenSet_Type, &signals, &soft_signal,
                          &crash.dump_signal, &crash.fd, &crash.device, &crash.inode, &crash.place_bytes,
                          &crash.most_bytes))
        return NULL;
    crash.pid = getpid();
    snprintf(crash.path, sizeof crash.path, "/proc/self/fd/%d", crash.fd);
    sigaltstack(&alternate, NULL);
    go_before_soft(soft_signal);
    return take_over_all(signals) < 0 ? NULL : Py_NewRef(Py_None);
}

/* forget(descriptor, offset, bytes): gives that part of a file back; it reads as if it had never been written. */
static PyObject *forget(PyObject *module, PyObject *arguments)
{
    long long offset, bytes;
    int fd;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "iLL:_forget", &fd, &offset, &bytes))
        return NULL;
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"_report_crashes", report_crashes, METH_VARARGS,
     "_report_crashes(signals, soft_signal, dump_signal, descriptor, device, inode, place_bytes, "
     "most_bytes)\n--\n\n"
     "In a worker: at each of these, first raises dump_signal."},
    {"_forget", forget, METH_VARARGS,
     "_forget(descriptor, offset, bytes)\n--\n\nGives a part of a file back to the system."},
    {NULL, NULL, 0, NULL},
};

int pool_add_crash(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
