# SPDX-License-Identifier: MIT
"""Pools whose subclass makes the queues itself, to pickle in its own way: ``Pool._setup_queues``, as joblib has it.

In the standard library a pool's tasks go through its ``_inqueue``, and what comes of them through its ``_outqueue``: each
a pipe with a pickler of its own at both ends.  Here tasks go through the core, which loses none when a worker dies, and
such queues are asked for their pickling alone.  They are made of a context whose pipes are *wires*: both ends are in one
process, and nothing is sent anywhere.

    owner    ``_quick_put(task)``    what lies on the wires then is the argument of ``run``
    worker   ``_inqueue.get()``      its wires were given just that: the task, which is called
             ``_outqueue.put(...)``  what lies on the wires then is what ``run`` returns
    owner    ``_quick_get()``        its wires were given just that: what the task returned

Task and reply are the tuples of the standard library, so that queues may look at them.  The errors of tasks travel as
those of all pools do.
"""
from __future__ import annotations

import collections
import itertools
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any

from . import _core
from ._std_pool import MaybeEncodingError, mapstar, starmapstar
from ._travel import CALL, MAP

__all__: list[str] = []

_Wire = collections.deque[bytes]
_Message = tuple[tuple[bytes, ...], ...]  # what lies on each wire


class _WireEnd:
    """An end of a pipe that is a wire, with the methods of a Connection."""

    def __init__(self, reads: _Wire | None, writes: _Wire | None) -> None:
        self._reads = reads
        self._writes = writes
        self.closed = False

    @property
    def readable(self) -> bool:
        """May it be read?"""
        return self._reads is not None

    @property
    def writable(self) -> bool:
        """May it be written?"""
        return self._writes is not None

    def close(self) -> None:
        """Use it no more."""
        self.closed = True

    def _open_wire(self, wire: _Wire | None, what: str) -> _Wire:
        if self.closed:
            raise OSError("handle is closed")
        if wire is None:
            raise OSError(f"connection is {what}-only")
        return wire

    def send_bytes(self, buf: Any, offset: int = 0, size: int | None = None) -> None:
        """Put bytes on the wire."""
        view = memoryview(buf).cast("B")
        end = len(view) if size is None else offset + size
        self._open_wire(self._writes, "read").append(bytes(view[offset:end]))

    def send(self, obj: Any) -> None:
        """Put an object on the wire."""
        self.send_bytes(ForkingPickler.dumps(obj))

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Does anything lie on the wire?"""
        return bool(self._open_wire(self._reads, "write"))

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """Take bytes off the wire."""
        wire = self._open_wire(self._reads, "write")
        if not wire:
            raise EOFError("nothing was sent: a pool's queues are asked for one task or reply at a time")
        return wire.popleft()

    def recv(self) -> Any:
        """Take an object off the wire."""
        return pickle.loads(self.recv_bytes())

    def __enter__(self) -> _WireEnd:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


class _WireQueue:
    """A SimpleQueue over a wire: what a pool has that does not make queues of its own kind."""

    def __init__(self, reader: _WireEnd, writer: _WireEnd) -> None:
        self._reader = reader
        self._writer = writer

    def put(self, obj: Any) -> None:
        """Put an object on the wire."""
        self._writer.send(obj)

    def get(self) -> Any:
        """Take the oldest object off the wire."""
        return self._reader.recv()

    def empty(self) -> bool:
        """Does nothing lie on the wire?"""
        return not self._reader.poll()

    def close(self) -> None:
        """Use it no more."""
        self._reader.close()
        self._writer.close()


class WireContext:
    """A pool's context while its queues are made: pipes are wires, all else is the context's."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._wires: list[_Wire] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def _new_wire(self) -> _Wire:
        self._wires.append(collections.deque())
        return self._wires[-1]

    def Pipe(self, duplex: bool = True) -> tuple[_WireEnd, _WireEnd]:
        """Return the two ends of a wire, or of two."""
        wire, back = self._new_wire(), self._new_wire() if duplex else None
        return _WireEnd(wire, back), _WireEnd(back, wire)

    def SimpleQueue(self) -> _WireQueue:
        """Return a queue over a wire."""
        return _WireQueue(*self.Pipe(duplex=False))


class Route:
    """The queues of one pool, as what pickles its tasks and replies.  Travels to the workers."""

    def __init__(self, inqueue: Any, outqueue: Any, wires: list[_Wire]) -> None:
        self._inqueue = inqueue
        self._outqueue = outqueue
        self._wires = wires

    def _taken(self) -> _Message:
        message = tuple(tuple(wire) for wire in self._wires)
        if not any(message):
            raise TypeError("_setup_queues() made a queue that puts nothing on the pipes of the pool's _ctx")
        return message

    def _clear(self) -> None:
        for wire in self._wires:
            wire.clear()

    def pickled(self, put: Callable[[Any], object], obj: Any) -> _Message:
        """What ``put`` makes of an object."""
        self._clear()
        try:
            put(obj)
            return self._taken()
        finally:
            self._clear()

    def unpickled(self, get: Callable[[], Any], message: _Message) -> Any:
        """What ``get`` makes of it."""
        self._clear()
        for wire, parts in zip(self._wires, message, strict=True):
            wire.extend(parts)
        try:
            return get()
        finally:
            self._clear()

    def enter(self) -> None:
        """In a worker, as it begins: what ``run`` goes by."""
        global _here
        _here = self

    def call(self, message: _Message) -> _Message:
        """In a worker: do a task."""
        job, index, function, args, kwds = self.unpickled(self._inqueue.get, message)
        value = function(*args, **kwds)
        try:
            return self.pickled(self._outqueue.put, (job, index, (True, value)))
        except Exception as error:
            raise MaybeEncodingError(error, value) from None


_here: Route | None = None  # of the worker's pool


def run(message: _Message) -> _Message:
    """In a worker: the function of all tasks of a pool with a route."""
    assert _here is not None
    return _here.call(message)


class Sender:
    """The owner's side of a route."""

    def __init__(self, route: Route, put: Callable[[Any], object], get: Callable[[], Any]) -> None:
        self.route = route
        self._put = put
        self._get = get
        self._lock = threading.RLock()  # threads share the wires
        self._numbers = itertools.count()

    def tasks(self, function: Callable[..., Any], mode: int, chunks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """What the core is to call ``run`` with, for each chunk."""
        job = next(self._numbers)
        for index, chunk in enumerate(chunks):
            if mode == CALL:
                task = (job, index, function, chunk[0], chunk[1] or {})
            else:
                task = (job, index, mapstar if mode == MAP else starmapstar, ((function, chunk),), {})
            with self._lock:
                message = self.route.pickled(self._put, task)
            yield (message,), None

    def value(self, message: _Message) -> Any:
        """What the task returned, of what ``run`` did."""
        with self._lock:
            _, _, (_, value) = self.route.unpickled(self._get, message)
        return value


class RoutedJob:
    """A Job whose values are what ``run`` returned.  sizes: of its chunks; None: it is one call."""

    def __init__(self, job: _core.Job, sender: Sender, sizes: list[int] | None) -> None:
        self._job = job
        self._sender = sender
        self._sizes = sizes
        self.wait: Callable[[float | None], bool] = job.wait
        self.ready: Callable[[], bool] = job.ready
        self.wait_for: Callable[[int, float | None], bool] = job.wait_for
        self.take_ended: Callable[[Any, Any], int] = job.take_ended
        self.left: Callable[[], int] = job.left
        self.nbytes: int = job.nbytes
        self.cancel: Callable[[bool], int] = job.cancel
        self.fileno: Callable[[], int] = job.fileno

    def __len__(self) -> int:
        return len(self._job)

    def value(self, index: int) -> Any:
        """What the task returned; raises what it raised."""
        return self._sender.value(self._job.value(index))

    def collect(self) -> tuple[list[Any], BaseException | None, list[int]]:
        """As a Job does; for the core each task is one call, whose value is a message."""
        values: list[Any] = []
        first_error: BaseException | None = None
        for index in range(len(self._job)):
            value, error = self._outcome(index)
            if self._sizes is None:
                values.append(value if error is None else error)
            else:
                values += value if error is None else [error] * self._sizes[index]
            first_error = first_error or error
        return values, first_error, [self._job.attempts(index) for index in range(len(self._job))]

    def _outcome(self, index: int) -> tuple[Any, BaseException | None]:
        try:
            return self.value(index), None
        except BaseException as error:  # the task's, whatever it is
            if isinstance(error, KeyboardInterrupt) and not hasattr(error, "__notes__"):
                raise  # ours
            return None, error


class RoutedStream:
    """A Stream whose values are what ``run`` returned."""

    def __init__(self, stream: _core.Stream, sender: Sender) -> None:
        self._stream = stream
        self._sender = sender

    def next(self, timeout: float | None) -> Any:
        """The value of the next task."""
        return self._sender.value(self._stream.next(timeout))


def sender_of(pool: Any) -> Sender | None:
    """Let the pool make its queues; None when these pickle as the core does."""
    context = pool._ctx
    pool._ctx = wired = WireContext(context)
    try:
        pool._setup_queues()
    finally:
        pool._ctx = context
    inqueue, outqueue = pool._inqueue, pool._outqueue
    if _pickles_as_the_core_does(inqueue) and _pickles_as_the_core_does(outqueue):
        return None
    if not wired._wires:
        raise TypeError("_setup_queues() made queues that are not of the pool's _ctx: their Pipe() or SimpleQueue() has to be")
    route = Route(inqueue, outqueue, wired._wires)
    return Sender(route, getattr(pool, "_quick_put", inqueue.put), getattr(pool, "_quick_get", outqueue.get))


def _pickles_as_the_core_does(queue: Any) -> bool:
    return isinstance(queue, _core.Queue) and (type(queue).put, type(queue).get) == (_core.Queue.put, _core.Queue.get)
