# SPDX-License-Identifier: MIT
"""Queues among processes, as in :mod:`multiprocessing.queues`.

What is different: there is no feeder thread.  ``put`` pickles in the caller, so that what cannot be pickled raises
there, and the object is in the queue when it returns; a process may end, or be joined, with objects of it still in
the queue.  A process killed in ``put`` or ``get`` harms nobody.  ``put_many`` and ``get_many`` move several at once.

``put_bytes`` and ``get_bytes`` move bytes without a pickle, for C programs that share the queue: they know it by its
``handle``; a queue that they made is ``Queue.from_handle(handle)`` here.  See ``brood.arena_ticket``.
"""
from __future__ import annotations

import importlib
import types
from queue import Empty, Full
from typing import Any, NoReturn

from . import _core

__all__ = ["Queue", "SimpleQueue", "JoinableQueue", "Empty", "Full"]


def _standard() -> Any:
    return importlib.import_module("._std_queues", __package__)


def __getattr__(name: str) -> Any:
    return getattr(_standard(), name)  # private names, which others import


# What only a queue of the standard library has: the buffer and the thread between put and the pipe, and the pipe's locks.
_PARTS = frozenset((
    "_feed", "_start_thread", "_buffer", "_notempty", "_reset", "_send_bytes", "_recv_bytes", "_sem", "_rlock", "_wlock"))


def _names_in(namespace: dict[str, Any]) -> set[str]:
    """The names that a class body defines, and those that its functions mention."""
    names = set(namespace)
    for value in namespace.values():
        code = getattr(getattr(value, "__func__", value), "__code__", None)
        names.update(getattr(code, "co_names", ()))
    return names


class _QueueType(type):
    """The type of queue classes.

    A subclass that is written over the parts of the standard library's queue is derived from that instead: its code
    could have no effect here.  (So are loky's, whose processes are not brood's, and have no arena.)
    """

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> Any:
        if _PARTS.isdisjoint(_names_in(namespace)):
            return super().__new__(mcs, name, bases, namespace, **options)
        bases = tuple(getattr(_standard(), base.__name__) if base.__module__ == __name__ else base for base in bases)
        return type(name, bases, namespace, **options)


class _End:
    """One end of a queue, with what programs use of the Connection that a queue of the standard library has there.

    It holds the queue, and the queue does not hold it: there is no cycle that would keep a queue until a collection.
    """

    def __init__(self, queue: _Ends) -> None:
        self._queue = queue

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._queue is self._queue

    def __hash__(self) -> int:
        return hash((type(self), id(self._queue)))

    @property
    def closed(self) -> bool:
        """Is it, or its queue, closed in this process?"""
        return self._queue._closed or type(self) in self._queue._closed_ends

    def close(self) -> None:
        """Close this end: only fileno() and the other methods here notice."""
        self._queue._closed_ends |= {type(self)}

    def _open_queue(self) -> _Ends:
        if self.closed:
            raise OSError("handle is closed")
        return self._queue

    def fileno(self) -> int:
        """Return a descriptor of this process, readable while there are objects."""
        return self._open_queue()._fileno()


class _Reader(_End):
    def poll(self, timeout: float | None = 0.0) -> bool:
        """Wait until there is an object; False when the time is over."""
        queue = self._open_queue()
        if not queue.empty() or timeout == 0:
            return not queue.empty()
        from .connection import wait

        return bool(wait([self], timeout)) and not queue.empty()  # type: ignore[list-item]  # has a fileno

    def recv(self) -> Any:
        """Take the oldest object."""
        return self._open_queue().get()


class _Writer(_End):
    def send(self, obj: Any) -> None:
        """Put an object."""
        self._open_queue().put(obj)


class _EndOf:
    """Makes an end when it is asked for; a subclass may put one of its own in its place."""

    def __init__(self, end: type[_End]) -> None:
        self._end = end

    def __get__(self, queue: _Ends | None, owner: object = None) -> Any:
        return self if queue is None else self._end(queue)


class _Ends(_core.Queue, metaclass=_QueueType):
    """A queue with ``_reader`` and ``_writer``."""

    _closed_ends: frozenset[type] = frozenset()
    _reader = _EndOf(_Reader)
    _writer = _EndOf(_Writer)

    def _poll(self, timeout: float | None = 0.0) -> bool:
        return self._reader.poll(timeout)

    def __getstate__(self) -> Any:
        return None

    def __setstate__(self, state: Any) -> None:
        pass


class Queue(_Ends):
    """A queue of any number of producers and consumers, with at most ``maxsize`` objects if that is positive."""

    _ignore_epipe = False  # concurrent.futures sets it

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        super().__init__(maxsize)

    @property
    def _maxsize(self) -> int:
        return self._bound or _core.SemLock.SEM_VALUE_MAX

    def __getstate__(self) -> Any:
        return self._ignore_epipe

    def __setstate__(self, state: Any) -> None:
        self._ignore_epipe = state

    def close(self) -> None:
        """Neither put nor get any more, in this process."""
        self._closed = True

    def join_thread(self) -> None:
        """Return at once: there is no thread, and all that was put is in the queue."""
        assert self._closed, f"Queue {self!r} not closed"

    def cancel_join_thread(self) -> None:
        """Do nothing: there is no thread."""

    def _terminate_broken(self) -> None:
        """Close it after an error; concurrent.futures does."""
        self.close()

    @staticmethod
    def _on_queue_feeder_error(error: Exception, obj: Any) -> None:
        """Decide about an object that cannot be pickled; here: raise, in the caller of put.  Subclasses may do else."""
        from ._travel import explained

        raise explained(error, "obj", obj)


class JoinableQueue(Queue):
    """A queue that knows what of it is done."""

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        super().__init__(maxsize, ctx=ctx)
        self._tally = _core.Tally()
        self._room = _core.Condition()

    def __getstate__(self) -> Any:
        return super().__getstate__(), self._tally, self._room

    def __setstate__(self, state: Any) -> None:
        inherited, self._tally, self._room = state
        super().__setstate__(inherited)

    @classmethod
    def from_handle(cls, handle: int, /) -> NoReturn:
        """Refuse: what of a queue is done is not in the queue.  A C program may take part in a JoinableQueue of Python's."""
        raise TypeError("a JoinableQueue cannot be made from a handle: pickle it, or use Queue.from_handle")

    def task_done(self) -> None:
        """Say that one object that was got is done with; ValueError when all that were put are."""
        self._tally.task_done(self, self._room)

    def join(self) -> None:
        """Wait until task_done was called for every object that was put."""
        self._tally.join(self, self._room)


class SimpleQueue(_Ends):
    """A queue with ``put`` and ``get`` and little else; ``_reader`` may be waited for (connection.wait, select)."""

    def __init__(self, *, ctx: Any = None) -> None:  # torch's Pool gives none
        super().__init__()

    def close(self) -> None:
        """Neither put nor get any more, in this process."""
        self._closed = True

    def _refuse(self) -> None:
        raise OSError("handle is closed")

    def empty(self) -> bool:
        """Is there no object?"""
        if self._closed:
            self._refuse()
        return super().empty()

    __class_getitem__: Any = classmethod(types.GenericAlias)
