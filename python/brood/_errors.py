# SPDX-License-Identifier: MIT
"""How the errors of tasks travel from worker to owner, and brood's own exceptions."""
import os
import pickle
import traceback
from concurrent.futures import CancelledError
from multiprocessing.context import ProcessError
from ._std_pool import ExceptionWithTraceback, MaybeEncodingError, RemoteTraceback
from multiprocessing.reduction import ForkingPickler

from . import _core

__all__: list[str] = []

_ERROR, _DIED, _CANCELLED = 2, 3, 4


class WorkerDied(ProcessError):
    """The worker that ran a task died in the middle of it.

    Attributes: index (of the task in its job), pid, signal (or 0), exit_code (or None).
    """

    def __init__(self, text, index=None, pid=None, signal=0, exit_code=None):
        super().__init__(text, index, pid, signal, exit_code)
        self.index, self.pid, self.signal, self.exit_code = index, pid, signal, exit_code

    def __str__(self):
        return self.args[0]


class PoolBroken(ProcessError):
    """The pool ended, or cannot go on, before this was done."""


class TaskError(Exception):
    """Stands for an exception of a task that cannot be pickled: type_name and text are the original's."""

    def __init__(self, type_name, text):
        super().__init__(type_name, text)
        self.type_name, self.text = type_name, text

    def __str__(self):
        return f"{self.type_name}: {self.text}"


def _text_of(thing, function):
    try:
        return function(thing)
    except Exception as error:
        return f"<{function.__name__}() raised {type(error).__name__}>"


def _travels(error):
    """Pickle the error if the other side can read it; None if it cannot."""
    try:
        data = bytes(ForkingPickler.dumps(error))
        return data if isinstance(pickle.loads(data), BaseException) else None
    except BaseException:
        return None


def pack(error, position, value, index):
    """In a worker: the error of a task as bytes.  value: what it returned, when the error is that this has no pickle."""
    if value is not None:
        error = MaybeEncodingError(error, value)
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    data = _travels(ExceptionWithTraceback(error, error.__traceback__))
    if data is None:
        data = _travels(TaskError(type(error).__qualname__, _text_of(error, str)))
    return pickle.dumps((data, text, position, os.getpid()))


def _note(error, index, position, pid):
    place = f"chunk {index}" + (f", its item {position}" if position >= 0 else "")
    note = f"raised in a task of a pool: {place}, worker pid {pid}"
    if hasattr(error, "add_note"):
        error.add_note(note)


def unpack(packed, index, kind, code, pid, signal, exit_code, text):
    """In the owner: the exception for a task that has no value."""
    if packed is not None:
        data, text, position, pid = pickle.loads(packed)
        try:
            error = pickle.loads(data)
        except Exception as reason:
            error = TaskError(type(reason).__qualname__, f"the error of the task cannot be unpickled here: {reason}")
        if error.__cause__ is None:
            error.__cause__ = RemoteTraceback(f'\n"""\n{text}"""')
        _note(error, index, position, pid)
        return error
    if kind == _DIED:
        return WorkerDied(text, index, pid, signal, exit_code if exit_code >= 0 else None)
    if kind == _CANCELLED:
        return CancelledError("the task was cancelled before it began, or its pool was terminated")
    if kind == _ERROR:
        return PoolBroken(text)
    return PoolBroken(text or "the pool ended before the task was done")


_core._set_error_helpers(pack, unpack, PoolBroken)
