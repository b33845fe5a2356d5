# SPDX-License-Identifier: MIT
"""The iterators that imap returns, and the thread that reads what an imap is given.

With ``buffersize`` the input is read in the thread that takes the results, and no further ahead than it may: the core's
stream does that.  Without, an imap is what it is in multiprocessing: all of the input is worked on, whether somebody takes
the results or not, and a generator that is slow, or waits for what becomes of earlier results, holds nobody up.  What has
a length is submitted at once, as far as may be in flight; the rest, and all other input, is read in one thread per pool, which
lives as long as there is something to read.
"""
from __future__ import annotations

import builtins
import collections
import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.context import TimeoutError
from typing import Any, Generic, TypeVar

from . import _arguments, _core, _route
from ._errors import PoolBroken

__all__ = ["IMapIterator", "IMapUnorderedIterator", "Feeder"]

_MOST, _MOST_BYTES = 1024, 64 << 20  # chunks, and bytes of them, that are in flight; one is always let in
_AHEAD = 65536  # chunks whose results nobody has taken: the feeder waits, unless the pool is closed
_BLOCK, _BLOCK_BYTES = 64, 1 << 20  # chunks, and bytes of them, that are submitted together, where all input is there
_SLICE, _PAUSE = 0.5, 0.001  # seconds
_NEAR = 64  # of the oldest tasks, or more: those that end next are nearly always among them

_CUT = "the pool ended before all of this imap's input was submitted"

_R = TypeVar("_R")
_Chunk = tuple[Any, ...]
_Submit = Callable[[list[_Chunk], int], Any]  # chunks, the index of the first item; a job of one task for each
_Task = tuple[Any, int]  # a job, and which of its tasks


class _Failed:
    """In the place of a job of one task: what the input raised, or a chunk that could not be submitted."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __len__(self) -> int:
        return 1

    def wait_for(self, index: int, timeout: float | None) -> bool:
        return True

    def take_ended(self, owner: Any, append: Callable[[_Task], object]) -> int:
        append((owner, 0))
        return 0

    def value(self, index: int) -> Any:
        raise self._error


class Bounded:
    """The core's stream: one thread at a time, and not from within its own input or a signal handler."""

    def __init__(self, chunks: Iterable[_Chunk], start: Callable[[Iterator[_Chunk]], _core.Stream | _route.RoutedStream]) -> None:
        self._lock = threading.RLock()
        self._is_busy = False
        self._is_stopped = False
        self._early: collections.deque[tuple[list[Any], BaseException | None]] = collections.deque()
        self._stream = start(self._input_of(iter(chunks)))

    def _input_of(self, chunks: Iterator[_Chunk]) -> Iterator[_Chunk]:
        while not self._is_stopped:
            chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk
        raise ValueError("the pool was joined before all of this imap's input was read")

    def next(self, timeout: float | None) -> list[Any]:
        """The results of the next chunk."""
        with self._lock:
            if self._early:
                values, error = self._early.popleft()
                if error is not None:
                    raise error
                return values
            return self._ask(timeout)

    def _ask(self, timeout: float | None) -> list[Any]:
        if self._is_busy:
            raise ValueError("the iterator of an imap is used by what it calls itself")
        self._is_busy = True
        try:
            values: list[Any] = self._stream.next(timeout)
            return values
        except builtins.TimeoutError as error:
            if type(error) is builtins.TimeoutError and not hasattr(error, "__notes__"):  # not a task's
                raise TimeoutError from None
            raise
        finally:
            self._is_busy = False

    def finish(self) -> None:
        """Read no further, and wait for what is in flight: the pool is joined."""
        with self._lock:
            self._is_stopped = True
            while True:
                try:
                    self._early.append((self._ask(None), None))
                except StopIteration as error:
                    if not hasattr(error, "__notes__"):
                        return
                    self._early.append(([], error))
                except Exception as error:
                    self._early.append(([], error))


class Ahead:
    """The jobs of an imap whose input is read ahead.

    A job is a block of chunks, each a task: where all of the input is at hand, many are submitted at once, which costs less.
    """

    def __init__(
        self, core: _core.Pool, workers: int, in_order: bool, is_at_hand: bool, is_terminated: Callable[[], bool],
    ) -> None:
        self._core = core
        self._near = max(_NEAR, 4 * workers)
        self._in_order = in_order
        self._most_in_block = _BLOCK if is_at_hand else 1
        self._block = 1  # chunks of the next one
        # In order, the tasks that nobody has taken, oldest first; else the jobs that have such tasks.
        self._jobs: collections.deque[Any] = collections.deque()
        self._most_jobs = _AHEAD if in_order else _AHEAD // self._most_in_block
        self._ended: collections.deque[_Task] = collections.deque()  # not in order: tasks that have ended and were not taken
        self._in_flight: list[Any] = []  # jobs that had not ended when it was last looked
        self._flying = 0  # their chunks
        self._bytes = 0  # that their items are
        self._first = 0  # of the items of the next chunk
        self._fed = 0  # chunks that were read
        self._changed = threading.Condition()
        self._is_terminated = is_terminated
        self._is_over = False  # nothing comes any more
        self._broken: PoolBroken | None = None  # why not all that was to come came
        self._is_dropped = False  # nobody takes anything any more
        self._is_hurried = False  # nobody may take anything before all is read

    def feed(self, chunks: Iterator[_Chunk], submit: _Submit, may_wait: bool) -> bool:
        """Read the input; False when it is not over, and no more may be in flight."""
        try:
            while self._has_room(may_wait) and (may_wait or self._fed < _MOST):
                block = list(itertools.islice(chunks, self._block))
                if not block:
                    return self._end()
                self._submit_block(submit, block)
            return False
        except PoolBroken as error:
            self._broken = error
            return self._end()
        except BaseException as error:
            self._put(_Failed(error))
            return self._end()

    def _has_ended(self) -> bool:
        """Whether the pool takes nothing any more: not for this chunk's fault, and so it will be with all others."""
        try:
            self._core.prepare()
        except ValueError:
            return True
        return self._is_terminated()

    def _end(self) -> bool:
        self._is_terminated = bool  # False; and what has been read keeps no pool
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        return True

    def _submit_block(self, submit: _Submit, block: list[_Chunk]) -> None:
        try:
            job = submit(block, self._first)
        except PoolBroken:
            raise
        except Exception as error:
            if self._has_ended():
                raise PoolBroken(_CUT) from None
            if len(block) > 1:  # which of them it was is told in its place
                for chunk in block:
                    self._submit_block(submit, [chunk])
                return
            job = _Failed(error)
        else:
            self._in_flight.append(job)
            self._flying += len(job)
            self._bytes += job.nbytes
            self._block = min(2 * len(block), self._most_in_block, max(_BLOCK_BYTES * len(block) // max(job.nbytes, 1), 1))
        self._put(job)
        self._first += sum(map(len, block))
        self._fed += len(block)

    def _is_full(self) -> bool:
        return self._flying >= _MOST or (self._bytes >= _MOST_BYTES and bool(self._in_flight))

    def _look(self) -> int:
        """How many of those in flight have ended since the last look."""
        before = self._flying
        self._in_flight = [job for job in self._in_flight if not job.ready()]
        self._flying = sum(map(len, self._in_flight))
        self._bytes = sum(job.nbytes for job in self._in_flight)
        return before - self._flying

    def _has_room(self, may_wait: bool) -> bool:
        while self._is_full():
            key = self._core.prepare()
            ended = self._look()
            if not may_wait:
                return ended > 0
            if ended == 0:
                self._core.sleep(key, _SLICE)
            if ended < _MOST // 8:  # looking costs: it is worth it when some more have ended
                with self._changed:
                    self._changed.wait(_PAUSE)
        return True

    def _put(self, job: Any) -> None:
        with self._changed:
            while len(self._jobs) >= self._most_jobs and not self._is_dropped and not self._is_hurried:
                self._changed.wait()
            if not self._is_dropped:
                self._jobs.extend((job, index) for index in range(len(job))) if self._in_order else self._jobs.append(job)
            self._changed.notify()

    def hurry(self) -> None:
        """Read on whether results are taken or not."""
        with self._changed:
            self._is_hurried = True
            self._changed.notify_all()

    def drop(self) -> None:
        """Nobody takes results any more: the tasks are done all the same."""
        with self._changed:
            self._is_dropped = True
            self._jobs.clear()
            self._ended.clear()
            self._changed.notify_all()

    # Threads, a signal handler and the input itself may be in here at once: a task is taken by one step, and waited for in
    # nobody's way.

    def next(self, timeout: float | None) -> list[Any]:
        """The results of the next chunk."""
        seconds = _arguments.seconds(timeout)
        deadline = None if seconds is None else time.monotonic() + seconds
        task = None
        while task is None:
            if not self._jobs and not self._ended:
                self._wait_for_job(deadline)
            task = self._take_oldest(deadline) if self._in_order else self._take_any(deadline)
        if len(self._jobs) >= self._most_jobs - 1:
            with self._changed:
                self._changed.notify_all()
        job, index = task
        values: list[Any] = job.value(index)
        return values

    @staticmethod
    def _left(deadline: float | None) -> float | None:
        return None if deadline is None else max(deadline - time.monotonic(), 0)

    def _wait_for_job(self, deadline: float | None) -> None:
        with self._changed:
            while not self._jobs and not self._ended:
                if self._broken is not None:
                    raise PoolBroken(_CUT) from self._broken
                if self._is_over:
                    raise StopIteration
                if not self._changed.wait(self._left(deadline)):
                    raise TimeoutError

    def _take_oldest(self, deadline: float | None) -> _Task | None:
        task: _Task
        try:
            task = self._jobs.popleft()
        except IndexError:
            return None
        has_ended = False
        try:
            has_ended = task[0].wait_for(task[1], self._left(deadline))
        finally:
            if not has_ended:
                self._jobs.appendleft(task)
        if not has_ended:
            raise TimeoutError
        return task

    def _take_any(self, deadline: float | None) -> _Task | None:
        task = self._take_ended(self._near)
        if task is None:
            key = self._core.prepare()
            task = self._take_ended(self._near)
        left = self._left(deadline)
        if task is None and left != 0:
            self._core.sleep(key, _SLICE if left is None else min(left, _SLICE))  # a killed supervisor rings nobody
            task = self._take_ended(self._near)
        if task is None:
            task = self._take_ended(len(self._jobs))
        if task is None and left == 0:
            raise TimeoutError
        return task

    def _oldest(self, most: int) -> list[Any]:
        while True:
            try:
                return list(itertools.islice(self._jobs, most))
            except RuntimeError:  # the collector ran, and with it whoever puts or takes: once more
                continue

    def _take_ended(self, most: int) -> _Task | None:
        if not self._ended:
            for job in self._oldest(most):
                # A job stays among the jobs until its last task is among the ended: nobody takes that for the end.
                if job.take_ended(job, self._ended.append) == 0:
                    with contextlib.suppress(ValueError):
                        self._jobs.remove(job)
        try:
            return self._ended.popleft()
        except IndexError:
            return None


class IMapIterator(Generic[_R]):
    """What imap returns."""

    def __init__(self, source: Bounded | Ahead, pool: Any) -> None:
        self._source = source
        self._drop = source.drop if isinstance(source, Ahead) else None
        self._pool = pool  # which is kept by what it owes
        self._items: collections.deque[_R] = collections.deque()

    def __iter__(self) -> IMapIterator[_R]:
        return self

    def next(self, timeout: float | None = None) -> _R:
        """The next result; TimeoutError when it takes longer than timeout seconds."""
        while not self._items:
            try:
                self._items.extend(self._source.next(timeout))
            except StopIteration as error:
                if hasattr(error, "__notes__"):  # a task's: it must not pass for the end
                    raise RuntimeError("a task raised StopIteration") from error
                self._pool = None
                raise
        return self._items.popleft()

    __next__ = next

    def __del__(self) -> None:
        drop = getattr(self, "_drop", None)
        if drop is not None:
            drop()


IMapUnorderedIterator = IMapIterator


class Feeder:
    """Reads the inputs of a pool's imaps, one after the other, in a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inputs: collections.deque[tuple[Ahead, Iterator[_Chunk], _Submit]] = collections.deque()
        self._thread: threading.Thread | None = None
        self._at_end: Callable[[], None] | None = None

    def add(self, ahead: Ahead, chunks: Iterator[_Chunk], submit: _Submit) -> None:
        """Read this input, too."""
        with self._lock:
            self._inputs.append((ahead, chunks, submit))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name="brood-imap")
                self._thread.start()

    def when_done(self, close: Callable[[], None]) -> None:
        """The pool is closed: call this once all inputs have been read."""
        with self._lock:
            if self._thread is None:
                close()
                return
            self._at_end = close

    def hurry(self) -> None:
        """Read on whether results are taken or not: the pool is joined or, which ends it, terminated."""
        with self._lock:
            for ahead, _, _ in self._inputs:
                ahead.hurry()

    def finish(self) -> None:
        """Wait until all inputs have been read."""
        with self._lock:
            thread = self._thread
        self.hurry()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._inputs:
                    if self._at_end is not None:
                        self._at_end()
                    self._thread = None
                    return
                ahead, chunks, submit = self._inputs[0]
            ahead.feed(chunks, submit, True)
            with self._lock:
                self._inputs.popleft()
            del ahead, chunks, submit  # nobody is kept by a thread that waits
