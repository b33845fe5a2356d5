# SPDX-License-Identifier: MIT
"""Pools of worker processes, as :mod:`multiprocessing.pool` has them, on the core's pool.

``Pool`` submits jobs to ``brood._core.Pool``; a task is one chunk of calls.  Workers are forked by a supervisor, which
is a fork of the owner (start method fork) or one process of the start method (spawn, forkserver); ``_worker`` is what
they do besides running tasks.  There is no thread, unless a callback is given.
"""
from __future__ import annotations

import itertools
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from multiprocessing import util
from multiprocessing.context import TimeoutError
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from ._std_pool import (
    CLOSE, INIT, RUN, TERMINATE, ExceptionWithTraceback, MaybeEncodingError, RemoteTraceback, ThreadPool, mapstar,
    rebuild_exc, starmapstar, worker)

from . import _arguments, _core, _ends, _equipment, _route, _share, _travel, _worker
from ._ends import Ends, TaskTimeout
from ._errors import PoolBroken, WorkerDied
from ._imap import Ahead, Bounded, Feeder, IMapIterator as IMapIterator, IMapUnorderedIterator as IMapUnorderedIterator
from ._results import (
    ApplyResult as ApplyResult, AsyncResult as AsyncResult, CallbackThread, MapResult as MapResult)

if TYPE_CHECKING:
    from logging import Logger
    from typing import Literal

    from ._share import Shared

__all__ = ["Pool", "ThreadPool", "TaskTimeout", "WorkerDied", "PoolBroken"]

_CHUNKS_PER_WORKER = 4
_MANY, _LONG = 4096, 256  # items of a map, and of its chunks, that are worth a job for each chunk

_R = TypeVar("_R")
_T = TypeVar("_T")
_Result = TypeVar("_Result", bound="ApplyResult[Any]")
_Chunk = tuple[Any, ...]
_Job = _core.Job | _route.RoutedJob


class _WorkerView:
    """A worker as ``Pool._pool`` shows it: whoever sits in that seat now."""

    daemon = True

    def __init__(self, pool: _core.Pool, index: int, method: str) -> None:
        self._core_pool = pool
        self._index = index
        self._method = method

    @property
    def name(self) -> str:
        """What ``current_process().name`` is there."""
        return _worker.name_of(self._method, self.pid)

    @property
    def pid(self) -> int | None:
        """The pid of the worker in this seat; waits while it is being replaced."""
        for _ in range(500):
            pid = self._core_pool.worker_pid(self._index)
            if pid:
                return pid
            time.sleep(0.01)
        return None

    ident = pid

    @property
    def exitcode(self) -> None:
        """None: one that ended was replaced already."""
        return None

    def is_alive(self) -> bool:
        """Whether somebody sits in this seat."""
        return self._core_pool.worker_pid(self._index) != 0

    def join(self, timeout: float | None = None) -> None:
        """Do nothing: ``Pool.join`` waits for all."""

    def __repr__(self) -> str:
        pid = self._core_pool.worker_pid(self._index)
        return f"<{_worker.name_of(self._method, pid)} pid={pid}>"


class Pool:
    """A pool of worker processes that run functions in parallel.

    Args:
        processes: how many workers; default ``brood.cpu_count()``.
        initializer, initargs: called in each worker as it starts.  When it raises, the pool is broken.
        maxtasksperchild: chunks that a worker does before it is replaced; default: no limit.
        context: the start method's context.
        max_memory_per_worker: bytes that a worker may allocate on top of what it was forked with: MemoryError beyond it.
            Between tasks a worker that holds more than half of it is replaced.
        max_cpu_seconds: of CPU time for each task; the worker of one that uses more dies (WorkerDied, cause "cpu").
        max_open_files: descriptors of a worker: OSError beyond it.
        grace: seconds between the steps when a task or the pool is ended: TaskTimeout in the task, SIGTERM, SIGKILL;
            default 0.5.
        logging: True: records that workers log are handled by this process's handlers, in a thread, and all of them by
            the time that join or terminate returns.  A level (or its name): those of at least that level.  A logger:
            its own, and those of loggers below it.
        faulthandler: whether a worker that crashes leaves its Python stack in WorkerDied, and one whose task is past its
            time in TaskTimeout.
        threads_per_worker: how many threads BLAS and OpenMP may have in each worker.  "auto": all workers' together are
            no more than ``brood.cpu_count()``, but what the environment says (OMP_NUM_THREADS and the like) stays.
            None: they are left alone.
        seed: an int: what tasks draw from `random`, NumPy's global generator and libc's rand depends on it, on the
            number of the job in the pool and the index of the item, and on nothing else; so does ``brood.task_seed()``.

    apply, apply_async, map, map_async, starmap, starmap_async, imap and imap_unordered take keyword arguments that say how
    they may end before they are done, and begin again (``**ends`` in their signatures):

        timeout: seconds that each task may take.  TaskTimeout is raised in one that takes longer; SIGTERM and SIGKILL follow,
            ``grace`` apart, if that does not end it.  Its result is TaskTimeout, and the other tasks go on.
        total_timeout: seconds for the whole call, from its submission on; not for imap and imap_unordered.
        retries: how often a task is begun again whose worker died.
        retry_on: an exception class, or a tuple of them, after which a task is begun again as well.

    A worker that dies costs the task that it ran, whose result raises WorkerDied; it is replaced.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        *,
        max_memory_per_worker: int | None = None,
        max_cpu_seconds: int | None = None,
        max_open_files: int | None = None,
        grace: float | None = None,
        logging: bool | int | str | Logger | None = None,
        faulthandler: bool = True,
        threads_per_worker: int | Literal["auto"] | None = "auto",
        seed: int | None = None,
    ) -> None:
        self._state = INIT
        self._limits = _ends.Limits.of(max_memory_per_worker, max_cpu_seconds, max_open_files, grace)
        if context is None:
            from . import get_context as default_context
            context = default_context()
        self._ctx = context
        self._sender = None if type(self)._setup_queues is Pool._setup_queues else _route.sender_of(self)
        self._processes = self._check_arguments(processes, initializer, initargs, maxtasksperchild)
        self._maxtasksperchild = maxtasksperchild
        self._initializer = initializer
        self._initargs = initargs
        self._callbacks: CallbackThread | None = None
        self._last: tuple[Callable[..., Any], int, _core.Callable] | None = None
        self._lock = threading.Lock()
        self._jobs = itertools.count()
        self._feeder = Feeder()
        self._bounded: weakref.WeakSet[Bounded] = weakref.WeakSet()
        self._equipment = _equipment.Equipment(self._processes, logging, faulthandler, threads_per_worker, seed)
        self._core = self._make_core(initializer, initargs, maxtasksperchild or 0)
        self._pool = [_WorkerView(self._core, index, _method_of(self._ctx)) for index in range(self._processes)]
        # Nothing but the core has to know of a call, and no subclass asks to.
        self._is_direct = self._sender is None and not self._equipment.wants_jobs and type(self).apply_async is Pool.apply_async
        self._terminate = util.Finalize(self, _destroy, args=(self._core, self._equipment), exitpriority=15)
        self._state = RUN

    # ---- start ----

    @staticmethod
    def _check_arguments(processes: Any, initializer: Any, initargs: Any, maxtasksperchild: Any) -> int:
        if processes is None:
            processes = _core.cpu_count()
        processes = _arguments.index("processes", processes)
        if processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if processes > 1024:
            raise ValueError(f"Number of processes must be at most 1024, not {processes}")
        if maxtasksperchild is not None and (not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None:
            _arguments.check_callable("initializer", initializer)
            _arguments.check_iterable("initargs", initargs)
        return processes

    def _make_core(self, initializer: Callable[..., object] | None, initargs: Iterable[Any], tasks: int) -> _core.Pool:
        route = self._sender.route if self._sender is not None else None
        kit = self._equipment.kit
        self._life = life = _worker.Life(
            _method_of(self._ctx), initializer, () if initializer is None else tuple(initargs), route, self._limits, kit)
        if life.method == "fork":
            kit.prepare()
        start = _worker.Starter(self._ctx, life) if life.method != "fork" else None
        return _core.Pool(
            self._processes, tasks, life.begin, life.initialize, life.end, kit.seed_item, self._equipment.stack_of, start,
            life.rescue, self._limits.for_core)

    # ---- calls ----

    def apply(
        self, func: Callable[..., _R], args: Iterable[Any] = (), kwds: Mapping[str, Any] = {}, **ends: Unpack[Ends]
    ) -> _R:
        """Call func(*args, **kwds) in a worker and return what it returns."""
        if self._is_direct and type(args) is tuple and not kwds and not ends:
            self._check_running()
            return self._core.apply(self._callable(func, _travel.CALL), args, None, next(self._jobs))
        return self.apply_async(func, args, kwds, **ends).get()

    def apply_async(
        self,
        func: Callable[..., _R],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callable[[_R], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        **ends: Unpack[Ends],
    ) -> ApplyResult[_R]:
        """Call func(*args, **kwds) in a worker; return an ApplyResult at once."""
        number = self._begin_job()
        _arguments.check_call(args, kwds)
        if callback is None and error_callback is None and not ends and self._sender is None:  # the short way
            result: ApplyResult[_R] = ApplyResult(self._core.submit_call(self._callable(func, _travel.CALL), args, kwds or None, number))
            result._pool = self
            return result
        _arguments.check_callbacks(callback, error_callback)
        job = self._submit(func, _travel.CALL, [(args, kwds or None)], 0, 0, _ends.plan_of(ends), number)
        return self._watched(ApplyResult(job, callback, error_callback))

    def map(
        self,
        func: Callable[[_T], _R],
        iterable: Iterable[_T],
        chunksize: int | None = None,
        *,
        return_exceptions: bool = False,
        **ends: Unpack[Ends],
    ) -> list[_R]:
        """Return the list of func(x) for each x of the iterable, in order.

        return_exceptions: True: what an item raised stands in its place, instead of being raised.
        """
        items: Any = iterable  # whose type is what counts
        if self._is_direct and not ends and not return_exceptions and type(items) in (list, tuple, range) and len(items) >= _MANY:
            self._check_running()
            size = self._chunksize(len(items), chunksize)
            if size >= _LONG:
                return self._map_in_flight(func, items, size)
        return self._map_async(func, iterable, _travel.MAP, chunksize, None, None, ends).get(
            return_exceptions=return_exceptions)

    def map_async(
        self,
        func: Callable[[_T], _R],
        iterable: Iterable[_T],
        chunksize: int | None = None,
        callback: Callable[[list[_R]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        **ends: Unpack[Ends],
    ) -> MapResult[_R]:
        """Return a MapResult at once."""
        return self._map_async(func, iterable, _travel.MAP, chunksize, callback, error_callback, ends)

    def starmap(
        self,
        func: Callable[..., _R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        *,
        return_exceptions: bool = False,
        **ends: Unpack[Ends],
    ) -> list[_R]:
        """Return the list of func(*x) for each x of the iterable, in order.  See map for return_exceptions."""
        return self._map_async(func, iterable, _travel.STARMAP, chunksize, None, None, ends).get(
            return_exceptions=return_exceptions)

    def starmap_async(
        self,
        func: Callable[..., _R],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[_R]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        **ends: Unpack[Ends],
    ) -> MapResult[_R]:
        """Return a MapResult at once."""
        return self._map_async(func, iterable, _travel.STARMAP, chunksize, callback, error_callback, ends)

    def _map_async(
        self,
        func: Callable[..., _R],
        iterable: Any,
        mode: int,
        chunksize: int | None,
        callback: Callable[[list[_R]], object] | None,
        error_callback: Callable[[BaseException], object] | None,
        ends: Ends,
    ) -> MapResult[_R]:
        number = self._begin_job()
        _arguments.check_callbacks(callback, error_callback)
        plan = _ends.plan_of(ends)
        if not hasattr(iterable, "__len__"):
            iterable = list(iterable)
        chunks: list[_Chunk] = []
        if len(iterable):
            if chunksize is None and plan.is_given:  # what ends one item is to leave the others alone
                chunksize = 1
            chunksize = self._chunksize(len(iterable), chunksize)
            chunks = list(_chunks_of(iterable, chunksize))
        items = sum(map(len, chunks))  # which may be more or fewer than its __len__ said
        job = self._submit(func, mode, chunks, chunksize, items, plan, number) if chunksize and chunks else None
        return self._watched(MapResult(job, callback, error_callback))

    def _chunksize(self, items: int, chunksize: int | None) -> int:
        if chunksize is None:
            return -(-items // (self._processes * _CHUNKS_PER_WORKER))
        return _arguments.positive("chunksize", chunksize)

    def _map_in_flight(self, func: Callable[[_T], _R], items: Sequence[_T], chunksize: int) -> list[_R]:
        """A map of long chunks: the workers have the first while the second is pickled, and what is done is unpickled while they go on."""
        items = items[:]  # pickling calls the program, which may change a list
        stream = self._core.imap(
            self._callable(func, _travel.MAP), _chunks_of(items, chunksize), True, -(-len(items) // chunksize), chunksize, (0, 0, 0), next(self._jobs))
        values: list[_R] = []
        first_error: BaseException | None = None
        for _ in range(0, len(items), chunksize):
            try:
                values += stream.next(None)
            except BaseException as error:  # the task's, whatever it is
                if isinstance(error, KeyboardInterrupt) and not hasattr(error, "__notes__"):
                    raise  # ours
                first_error = first_error or error
        if first_error is not None:
            raise first_error
        return values

    def imap(
        self,
        func: Callable[[_T], _R],
        iterable: Iterable[_T],
        chunksize: int = 1,
        *,
        buffersize: int | None = None,
        **ends: Unpack[Ends],
    ) -> IMapIterator[_R]:
        """Return an iterator over func(x) for each x of the iterable, in order.

        buffersize: how many chunks may be in flight or wait to be fetched; the input is read as results are fetched.
        Default: all of it is read and worked on, in a thread when it is long or has no length.
        """
        return self._imap(func, iterable, chunksize, buffersize, True, ends)

    def imap_unordered(
        self,
        func: Callable[[_T], _R],
        iterable: Iterable[_T],
        chunksize: int = 1,
        *,
        buffersize: int | None = None,
        **ends: Unpack[Ends],
    ) -> IMapIterator[_R]:
        """Return an iterator over func(x) for each x of the iterable, as they finish.  See imap for buffersize."""
        return self._imap(func, iterable, chunksize, buffersize, False, ends)

    def share(self, obj: _T, *, writable: Literal[False, "private", "shared"] = False) -> Shared[_T]:
        """Put an object into shared memory, once for all tasks: return a handle that travels as a few bytes.

        A task calls ``get()`` of the handle.  The arrays of what it gets are not copied: they lie where they were put.

        writable: False: they are read-only.  "private": each ``get()`` has arrays of its own to write to; only the pages that it
            does write to are copied.  "shared": what a task writes to an array, all see.
        """
        self._check_running()
        return _share.share(obj, writable)

    def _imap(
        self,
        func: Callable[..., _R],
        iterable: Iterable[Any],
        chunksize: int,
        buffersize: int | None,
        in_order: bool,
        ends: Ends,
    ) -> IMapIterator[_R]:
        number = self._begin_job()
        plan = _ends.plan_of(ends)
        if plan.total_timeout_ms:
            raise ValueError("total_timeout is for calls that return all results at once, not for imap")
        chunksize = _arguments.positive("chunksize", chunksize)
        if buffersize is not None:
            buffersize = _arguments.positive("buffersize", buffersize)
        chunks: Iterable[_Chunk] = _chunks_of(iter(iterable), chunksize)
        if buffersize is None:
            return self._imap_ahead(func, iterable, iter(chunks), chunksize, in_order, plan, number)
        bounded = Bounded(chunks, lambda chunks: self._stream(func, chunks, chunksize, buffersize, in_order, plan, number))
        self._bounded.add(bounded)
        return IMapIterator(bounded, self)

    def _stream(
        self, func: Callable[..., Any], chunks: Iterator[_Chunk], chunksize: int, buffersize: int, in_order: bool, plan: _ends.Plan,
        number: int,
    ) -> _core.Stream | _route.RoutedStream:
        if self._sender is None:
            made = self._callable(func, _travel.MAP, plan)
            return self._core.imap(made, chunks, in_order, buffersize, chunksize, plan.for_core, number)
        tasks = self._sender.tasks(_ends.with_retries(func, plan, self._life.main), _travel.MAP, chunks)
        made = self._callable(_route.run, _travel.CALL)
        return _route.RoutedStream(
            self._core.imap(made, tasks, in_order, buffersize, chunksize, plan.for_core, number), self._sender)

    def _imap_ahead(
        self, func: Callable[..., _R], iterable: Any, chunks: Iterator[_Chunk], chunksize: int, in_order: bool, plan: _ends.Plan,
        number: int,
    ) -> IMapIterator[_R]:
        is_at_hand = type(iterable) in (list, tuple, range)  # all of it: reading takes no time, and does nothing else
        ahead = Ahead(self._core, self._processes, in_order, is_at_hand, lambda: self._state == TERMINATE)
        made = self._callable(func, _travel.MAP, plan) if self._sender is None else self._callable(_route.run, _travel.CALL)

        def submit(chunks: list[_Chunk], first: int) -> _Job:
            return self._submit_to(made, func, _travel.MAP, chunks, chunksize, sum(map(len, chunks)), plan, number, first, True)

        if not isinstance(iterable, Sized) or not ahead.feed(chunks, submit, False):
            self._feeder.add(ahead, chunks, submit)
        return IMapIterator(ahead, self)

    def _submit(
        self, func: Callable[..., Any], mode: int, chunks: list[_Chunk], chunksize: int, items: int, plan: _ends.Plan,
        number: int,
    ) -> _Job:
        made = self._callable(func, mode, plan) if self._sender is None else self._callable(_route.run, _travel.CALL)
        return self._submit_to(made, func, mode, chunks, chunksize, items, plan, number, 0)

    def _submit_to(
        self, made: _core.Callable, func: Callable[..., Any], mode: int, chunks: list[_Chunk], chunksize: int, items: int,
        plan: _ends.Plan, number: int, first: int, tells_each: bool = False,
    ) -> _Job:
        if self._sender is None:
            return self._core.submit(made, chunks, chunksize, items, plan.for_core, number, first, tells_each)
        tasks = list(self._sender.tasks(_ends.with_retries(func, plan, self._life.main), mode, chunks))
        job = self._core.submit(made, tasks, chunksize, items, plan.for_core, number, first, tells_each)
        return _route.RoutedJob(job, self._sender, None if mode == _travel.CALL else [len(chunk) for chunk in chunks])

    def _begin_job(self) -> int:
        """Return its number; ValueError when the pool takes no jobs."""
        self._check_running()
        self._equipment.start()
        return next(self._jobs)

    def _callable(self, func: Callable[..., Any], mode: int, plan: _ends.Plan | None = None) -> _core.Callable:
        """Pickle func, or take what was made of it last; only a plain function may be kept by the workers."""
        last = self._last
        if last is not None and last[0] is func and last[1] == mode and (plan is None or not plan.retry_on):
            return last[2]
        held: list[Any] = []  # what of shared arrays it refers to, as long as it is there
        before = _core._hold(held)
        try:
            func = func if plan is None else _ends.with_retries(func, plan, self._life.main)
            _arguments.check_callable("func", func)
            pickled, is_kept, is_lasting = _travel.pickle_callable(func, self._life.main)
        finally:
            _core._hold(before)
        made = self._core.callable(pickled, mode, is_kept, held)
        if is_lasting:
            self._last = (func, mode, made)
        return made

    def _watched(self, result: _Result) -> _Result:
        result._pool = self
        if result._callback is not None or result._error_callback is not None:
            with self._lock:
                if self._callbacks is None:
                    self._callbacks = CallbackThread(self._core)
                self._callbacks.add(result)
        return result

    # ---- the end ----

    def close(self) -> None:
        """Take no further jobs; the workers end when all are done."""
        if self._state == RUN:
            self._state = CLOSE
            self._feeder.when_done(self._core.close)

    def terminate(self) -> None:
        """End the workers now, whatever they do, within ``grace`` and a second.  What is not done raises PoolBroken."""
        self._state = TERMINATE
        self._core.terminate()
        self._feeder.hurry()
        self._terminate()
        self._equipment.finish()

    def join(self) -> None:
        """After close or terminate: wait for the workers' end."""
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state not in (CLOSE, TERMINATE):
            raise ValueError("In unknown state")
        if self._state == CLOSE:
            self._feeder.finish()
            for bounded in list(self._bounded):
                bounded.finish()
            self._core.join(None)
        if self._callbacks is not None:
            self._callbacks.finish()
        self._equipment.finish()
        self._pool = []
        self._terminate()

    def _check_running(self) -> None:
        if self._state != RUN:
            raise ValueError("Pool not running")

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self.terminate()

    def __del__(self, _warn: Callable[..., object] = warnings.warn, RUN: Any = RUN) -> None:
        if getattr(self, "_state", None) == RUN:
            _warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self)

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __repr__(self) -> str:
        return (f"<{type(self).__module__}.{type(self).__qualname__} state={self._state} "
                f"pool_size={len(self._pool)}>")

    # ---- names that others lean on ----

    def _setup_queues(self) -> None:
        """Make ``_inqueue`` and ``_outqueue``: called where a subclass has its own, whose pickling then is the pool's (_route)."""
        self._inqueue = self._ctx.SimpleQueue()
        self._outqueue = self._ctx.SimpleQueue()
        self._quick_put = self._inqueue._writer.send
        self._quick_get = self._outqueue._reader.recv

    @property
    def _cache(self) -> dict[int, Any]:
        """Nothing: jobs are known to their results alone."""
        return {}

    def _repopulate_pool(self) -> None:
        """Do nothing: the supervisor replaces workers by itself."""

    _maintain_pool = _repopulate_pool

    def Process(self, *args: Any, **kwds: Any) -> Any:  # noqa: N802
        """A process of the pool's context."""
        return self._ctx.Process(*args, **kwds)

    @staticmethod
    def _get_tasks(func: _T, it: Iterable[Any], size: int) -> Iterator[tuple[_T, _Chunk]]:
        for chunk in _chunks_of(it, size):
            yield (func, chunk)


def _destroy(core: _core.Pool, equipment: _equipment.Equipment) -> None:
    core.destroy()
    equipment.drop()


def _method_of(context: Any) -> str:
    return getattr(context, "_name", None) or context.get_start_method()


def _chunks_of(iterable: Iterable[Any], size: int) -> Iterator[_Chunk]:
    iterator = iter(iterable)
    while chunk := tuple(itertools.islice(iterator, size)):
        yield chunk
