# SPDX-License-Identifier: MIT
"""How the errors of tasks travel from worker to owner, and brood's own exceptions.

The standard library's exceptions for this are the owner's business: their module imports more than all else that a worker needs.
"""
from __future__ import annotations

import errno
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from multiprocessing.context import ProcessError
from multiprocessing.reduction import ForkingPickler
from typing import Any, NoReturn

from . import _core, _stacks, _travel
from ._ends import Limits, TaskTimeout, cancelled

__all__: list[str] = []

_ERROR, _DIED, _CANCELLED, _TIMED_OUT = 2, 3, 4, 5
_CAUSES = (None, "cpu", "memory", "oom")  # enum brood_cause
_NOT_BEGUN = "the task was cancelled before it began, or its pool was terminated"
_limits = Limits(0, 0, 0, 0)  # of the worker's pool
_worker_pid = 0


def begin_worker(limits: Limits) -> None:
    """In a worker, as it begins: errors say which of the limits they come from."""
    global _limits, _worker_pid
    _limits, _worker_pid = limits, os.getpid()


class WorkerDied(ProcessError):
    """The worker that ran a task died in the middle of it.

    A task is a chunk of items; all of it is lost.

    Attributes:
        index: the first item of the lost chunk; 0 for a call.
        items: range of the lost items.
        pid, signal (0: none), exit_code (None: none): how the worker ended.
        cause: why, where there is evidence: "cpu" (more than the pool's max_cpu_seconds), "memory" (near its
            max_memory_per_worker), "oom" (likely the kernel's OOM killer); else None.
        attempts: how often the task was begun, and has killed its worker: more than once with ``retries``.
        stack: its Python stack, if it crashed (SIGSEGV, SIGABRT, SIGFPE, SIGBUS, SIGILL); else None.
    """

    index: int
    items: range
    pid: int | None
    signal: int
    exit_code: int | None
    stack: str | None = None

    def __init__(
        self, text: str, index: int = 0, pid: int | None = None, signal: int = 0, exit_code: int | None = None,
        count: int = 1, cause: str | None = None, attempts: int = 1,
    ) -> None:
        super().__init__(text, index, pid, signal, exit_code, count, cause, attempts)
        self.index, self.pid, self.signal, self.exit_code = index, pid, signal, exit_code
        self.cause: str | None = cause
        self.attempts: int = attempts
        self.items = range(index, index + count)

    def __str__(self) -> str:
        return str(self.args[0])


class PoolBroken(ProcessError):
    """The pool ended, or cannot go on, before this was done."""


class TaskError(Exception):
    """Stands for an exception of a task that cannot be pickled: type_name and text are the original's."""

    type_name: str
    text: str

    def __init__(self, type_name: str, text: str) -> None:
        super().__init__(type_name, text)
        self.type_name, self.text = type_name, text

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}"


def _text_of(thing: object, function: Callable[[object], str]) -> str:
    try:
        return function(thing)
    except Exception as error:
        return f"<{function.__name__}() raised {type(error).__name__}>"


def _travels(error: object) -> bytes | None:
    """Pickle the error if the other side can read it; None if it cannot."""
    try:
        data = bytes(ForkingPickler.dumps(error))
        return data if isinstance(pickle.loads(data), BaseException) else None
    except BaseException:
        return None


def _end_child(error: BaseException) -> NoReturn:
    """A task has forked, and in the child ends with this: as any child of a fork would, and not as the task."""
    code = 1
    try:
        if not isinstance(error, SystemExit):
            traceback.print_exception(error)
        elif error.code is None or isinstance(error.code, int):
            code = error.code or 0
        else:
            print(error.code, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


class _Printed:
    """Stands for what is printed so."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _encoding_error(reason: str, value: str) -> BaseException:
    from ._std_pool import MaybeEncodingError

    return MaybeEncodingError(_Printed(reason), _Printed(value))


class _EncodingError(Exception):
    """In a worker: the value of a task has no pickle.  Arrives as MaybeEncodingError, and prints as that."""

    def __reduce__(self) -> Any:
        return _encoding_error, self.args

    def __str__(self) -> str:
        reason, value = self.args
        return f"Error sending result: '{value}'. Reason: '{reason}'"


def pack(error: BaseException, position: int, value: Any, index: int) -> bytes:
    """In a worker: the error of a task as bytes.  value: what it returned, when the error is that this has no pickle."""
    if os.getpid() != _worker_pid:
        _end_child(error)
    if value is not None and not isinstance(error, MemoryError):
        error = _EncodingError(repr(error), _text_of(value, repr))  # it may be too deep for repr, too
    limit = _limits.broken_by(error)
    if limit is not None:
        error.add_note(limit)
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    if _core._task_ending():
        _stacks.leave(text)
    data = _travels(error)
    if data is None:
        data = _travels(TaskError(type(error).__qualname__, _text_of(error, str)))
    return pickle.dumps((data, text, position, os.getpid()))


def _place(first: int, size: int) -> str:
    """Which items a task stands for, in words."""
    if size == 0:
        return "the call"
    return f"item {first}" if size == 1 else f"one of the items {first} to {first + size - 1}"


def _note(error: BaseException, first: int, size: int, position: int, pid: int) -> None:
    place = _place(first + position, 1) if position >= 0 and size else _place(first, size)
    error.add_note(f"raised by {place} of a pool's job, in the worker with pid {pid}")


def _told(first: int, size: int, text: str) -> str:
    """What the core says of a task, of the user's items."""
    _, _, what = text.partition(": ")
    return f"{_place(first, size)}: {what}"


def _with_stack(error: WorkerDied, stack_of: Callable[[int], str | None] | None) -> WorkerDied:
    """The error, with the stack that a worker that crashed has left."""
    if stack_of is not None and error.pid is not None and error.signal in _stacks.SIGNALS:
        error.stack = stack_of(error.pid)
        if error.stack:
            error.add_note(f"The Python stack of the worker when it crashed:\n{error.stack}")
    return error


def _remote_traceback(text: str) -> BaseException:
    from ._std_pool import RemoteTraceback

    return RemoteTraceback(f'\n"""\n{text}"""')


def _from_where(error: BaseException, pid: int, stack_of: Callable[[int], str | None] | None) -> BaseException:
    """The error of a task that was ended, with where it was then, if its worker could still say so."""
    text = stack_of(pid) if stack_of is not None and pid else None
    if text:
        error.__cause__ = _remote_traceback(f"{text}\n")
    return error


def unpack(
    packed: bytes | None, first: int, size: int, kind: int, code: int, pid: int, signal: int, exit_code: int, cause: int,
    attempts: int, text: str | None, stack_of: Callable[[int], str | None] | None,
) -> BaseException:
    """In the owner: the exception for a task that has no value."""
    if packed is not None:
        data, remote, position, pid = pickle.loads(packed)
        try:
            error = pickle.loads(data)
        except Exception as reason:
            error = TaskError(type(reason).__qualname__, f"the error of the task cannot be unpickled here: {reason}")
        error.__cause__ = _remote_traceback(remote)  # which shows what it brought along, too
        _note(error, first, size, position, pid)
        return error
    if kind == _DIED:
        died = WorkerDied(_told(first, size, text or ""), first, pid, signal, exit_code if exit_code >= 0 else None,
                          max(size, 1), _CAUSES[cause], attempts)
        return _with_stack(died, stack_of)
    if kind == _TIMED_OUT:
        return _from_where(TaskTimeout(_told(first, size, text or "")), pid, stack_of)
    if kind == _CANCELLED:
        return _from_where(cancelled(_told(first, size, text) if text else _NOT_BEGUN), pid, stack_of)
    if kind == _ERROR and code == -errno.ENOMEM:
        return MemoryError(_told(first, size, f": {text}"))
    if kind == _ERROR:
        return TaskError("Exception", _told(first, size, f": {text}"))
    return PoolBroken(text or "the pool ended before the task was done")


def blame_value(error: BaseException, first: int, size: int) -> BaseException:
    """In the owner: the exception for a task whose value cannot be unpickled here."""
    error.add_note(f"raised by unpickling here what {_place(first, size)} of a pool's job returned")
    return error


for _class in (WorkerDied, PoolBroken, TaskError):
    _class.__module__ = "brood"  # where users find them
_EncodingError.__module__, _EncodingError.__qualname__ = "multiprocessing.pool", "MaybeEncodingError"
_core._set_error_helpers(pack, unpack, blame_value, _travel.rescue_value, PoolBroken)
