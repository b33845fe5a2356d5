# SPDX-License-Identifier: MIT
"""Tasks that work, fail, crash and leave, and what each has to come to.  A task is (number, errand); how often it was begun stands in the books."""
import ctypes
import os
import resource
import signal
import sys

import brood as mp
from common import complain, expect, open_books, pause

WORKED = 1 << 19  # where the books note which pids have done a task
PIDS = 1 << 16
EXIT_CODE = 5

HARMLESS = ("work", "spin", "nap", "big", "fail")
LIMITS = {"max_memory_per_worker": 64 << 20, "max_open_files": 64, "max_cpu_seconds": 1}  # of limited pools
FAILING_AT_LIMITS = {"limit-memory": MemoryError, "limit-files": OSError}
FAILING_ANYWHERE = {"sys-exit": SystemExit, "interrupt": KeyboardInterrupt, "no-memory": MemoryError,
                    "no-pickle": mp.pool.MaybeEncodingError, "no-unpickle": Exception}
FAILING = FAILING_ANYWHERE | FAILING_AT_LIMITS
DEADLY_ANYWHERE = {"crash-kill": signal.SIGKILL, "crash-fault": signal.SIGSEGV, "crash-abort": signal.SIGABRT, "crash-exit": 0}
DEADLY = DEADLY_ANYWHERE | {"limit-cpu": signal.SIGXCPU}

_books = None


class Awkward(Exception):
    """Pickles, and does not unpickle."""

    def __init__(self, one, two):
        super().__init__(one)
        self.two = two


def books():
    """The books, opened at the first task of a process."""
    global _books
    if _books is None:
        _books = open_books()
    return _books


def cell_of(pid):
    """Where the books note that the process has done a task."""
    return WORKED + pid % PIDS


def value_of(number, errand):
    """What the task returns."""
    value = number * 2654435761 % 2**32
    return value.to_bytes(4, "little") * 50_000 if errand == "big" else value


def _take_memory():
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 20, hard))  # less than it has: whatever is mapped now fails
    try:
        return bytearray(256 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _open_files():
    files = []
    while len(files) < 2 * LIMITS["max_open_files"]:
        files.append(open(os.devnull, encoding="utf-8"))
    return files


def _crash(errand):
    while errand == "limit-cpu":
        pass
    if errand == "crash-kill":
        signal.raise_signal(signal.SIGKILL)
    elif errand == "crash-fault":
        ctypes.string_at(0)
    elif errand == "crash-abort":
        os.abort()
    os._exit(EXIT_CODE)


def _fail(number, errand):
    if errand == "fail":
        raise ValueError(f"no {number}")
    if errand == "sys-exit":
        sys.exit(number)
    if errand == "interrupt":
        raise KeyboardInterrupt(number)
    if errand == "no-memory":
        _take_memory()
    if errand == "limit-memory":
        bytearray(2 * LIMITS["max_memory_per_worker"])
    if errand == "limit-files":
        _open_files()
    raise Awkward(number, errand)


def run(task):
    """A task, in a worker."""
    number, errand = task
    books().cells[number] += 1
    if errand in DEADLY:
        _crash(errand)
    if errand == "no-pickle":
        return (n for n in range(number))
    if errand == "fail" or errand in FAILING:
        _fail(number, errand)
    if errand == "spin":
        sum(range(number % 20_000))
    elif errand == "nap":
        pause(number % 5 / 1000)
    elif errand == "hang":
        while True:
            pause(1)
    books().cells[cell_of(os.getpid())] = 1
    return value_of(number, errand)


def run_two(number, errand):
    """The same with two arguments."""
    return run((number, errand))


class Judge:
    """Counts what died without having been told to, and holds every outcome against its errand."""

    def __init__(self, noted):
        self.noted = noted
        self.died = 0

    def begun(self, task, most=1):
        """No task is begun more often than it may be."""
        expect(self.noted.cells[task[0]] <= most, f"task {task} was begun {self.noted.cells[task[0]]} times")

    def value(self, task, value, retries=0):
        """The task has returned that."""
        number, errand = task
        self.noted.note("tasks")
        self.begun(task, 1 + retries)
        expect(errand not in DEADLY and errand not in FAILING and errand != "fail", f"{task} has a value")
        expect(value == value_of(number, errand), f"{task} has a wrong value: {repr(value)[:80]}")

    def error(self, task, error, retries=0):
        """The task has raised that, alone in its chunk."""
        number, errand = task
        self.noted.note("tasks")
        self.begun(task, 1 + retries)
        if isinstance(error, mp.WorkerDied):
            self.death([task], error)
        elif errand == "fail":
            expect(isinstance(error, ValueError) and str(error) == f"no {number}", f"{task} raised {error!r}")
        elif errand in FAILING:
            expect(isinstance(error, FAILING[errand]), f"{task} raised {error!r}")
            is_named = any("the limit of the pool is" in note for note in getattr(error, "__notes__", ()))
            expect(is_named or errand not in FAILING_AT_LIMITS, f"{task}: the limit is not named: {error!r}")
            self.noted.note(errand)
        else:
            complain(f"{task} raised {type(error).__name__}: {error}")

    def death(self, tasks, error):
        """The worker of a chunk of these tasks has died."""
        told = [errand for number, errand in tasks if errand in DEADLY]
        if error.signal in [DEADLY[errand] for errand in told if errand != "crash-exit"]:
            self.noted.note(next(errand for errand in told if DEADLY[errand] == error.signal))
            expect(error.signal != signal.SIGXCPU or error.cause == "cpu", f"{tasks[:3]}: the cause is {error.cause}")
        elif "crash-exit" in told and error.exit_code == EXIT_CODE:
            self.noted.note("crash-exit")
        else:
            self.died += 1
            is_unknown = error.signal == 0 and error.exit_code is None
            expect(error.signal == signal.SIGKILL or is_unknown, f"{tasks[:3]}: {error}")
