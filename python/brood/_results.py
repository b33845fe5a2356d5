# SPDX-License-Identifier: MIT
"""What a pool's calls return: results that will be there, iterators, and the thread that calls callbacks."""
from __future__ import annotations

import collections
import sys
import threading
from collections.abc import Callable
from multiprocessing.context import TimeoutError
from typing import Any, Generic, TypeVar

from . import _core, _route

__all__ = ["ApplyResult", "AsyncResult", "MapResult", "IMapIterator", "IMapUnorderedIterator", "CallbackThread"]

_R = TypeVar("_R")
_Job = _core.Job | _route.RoutedJob


class ApplyResult(Generic[_R]):
    """What apply_async returns: the result of one call, once it is there."""

    def __init__(
        self,
        job: _Job | None,
        callback: Callable[[_R], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> None:
        self._job = job
        self._callback = callback
        self._error_callback = error_callback
        self._success: bool | None = None
        self._value: Any = None  # or the exception, without success
        # With callbacks the result is ready once they were called, as in multiprocessing.
        self._called = threading.Event() if callback is not None or error_callback is not None else None

    def ready(self) -> bool:
        """Whether the call has ended, and its callback was called."""
        return self._called.is_set() if self._called is not None else self._has_ended()

    def _has_ended(self) -> bool:
        return self._success is not None or self._job is None or self._job.ready()

    def successful(self) -> bool:
        """Whether the call ended without an exception; ValueError when it has not ended."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        self._settle()
        return self._success is True

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the end of the call, or timeout seconds."""
        if self._called is not None:
            self._called.wait(timeout)
        elif self._success is None and self._job is not None:
            self._job.wait(timeout)

    def get(self, timeout: float | None = None) -> _R:
        """Wait and return what the call returned; raises what it raised, TimeoutError, WorkerDied or PoolBroken."""
        if self._called is not None and not self._called.wait(timeout):
            raise TimeoutError
        if self._success is None:
            if self._job is not None and not self._job.wait(timeout):
                raise TimeoutError
            self._settle()
        if self._success:
            return self._value
        raise self._value

    def cancel(self) -> bool:
        """Cancel what has not begun; True when that was something."""
        return self._job is not None and self._job.cancel() > 0

    def _settle(self) -> None:
        """Take value or exception out of the job, once."""
        job = self._job
        if self._success is not None:
            return
        try:
            value: Any = self._collect(job)
            success = True
        except BaseException as error:  # the task's, whatever it is
            value, success = error, False
            if isinstance(error, KeyboardInterrupt) and not hasattr(error, "__notes__"):
                raise  # ours
        self._value, self._success, self._job = value, success, None

    def _collect(self, job: _Job | None) -> Any:
        assert job is not None
        return job.value(0)

    def _notify(self) -> None:
        """In the thread of the callbacks: call the one that it is for."""
        try:
            self._settle()
            callback = self._callback if self._success else self._error_callback
            if callback is not None:
                callback(self._value)
        finally:
            if self._called is not None:
                self._called.set()

    def _give_up(self) -> None:
        """The pool was terminated: nobody is called any more."""
        try:
            self._settle()
        finally:
            if self._called is not None:
                self._called.set()


AsyncResult = ApplyResult


class MapResult(ApplyResult[list[_R]]):
    """What map_async returns: the list of results, once all are there."""

    def _collect(self, job: _Job | None) -> list[_R]:
        if job is None:
            return []
        values: list[_R] = []
        for index in range(len(job)):
            values += job.value(index)
        return values


class IMapIterator(Generic[_R]):
    """What imap returns."""

    def __init__(self, stream: _core.Stream | _route.RoutedStream) -> None:
        self._stream = stream
        self._items: collections.deque[_R] = collections.deque()

    def __iter__(self) -> IMapIterator[_R]:
        return self

    def next(self, timeout: float | None = None) -> _R:
        """The next result; TimeoutError when it takes longer than timeout seconds."""
        while not self._items:
            self._items.extend(self._stream.next(timeout))
        return self._items.popleft()

    __next__ = next


IMapUnorderedIterator = IMapIterator


class CallbackThread:
    """Calls callbacks as jobs end, in a thread of its own that lives as long as there is something to call."""

    def __init__(self, core: _core.Pool) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._results: list[ApplyResult[Any]] = []
        self._thread: threading.Thread | None = None

    def add(self, result: ApplyResult[Any]) -> None:
        """Have the result's callbacks called when it is ready."""
        with self._lock:
            self._results.append(result)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name="brood-callbacks")
                self._thread.start()

    def finish(self) -> None:
        """Wait until all callbacks were called."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            try:
                key = self._core.prepare()
            except ValueError:
                self._give_up()
                return
            with self._lock:
                ready = [result for result in self._results if result._has_ended()]
                if not ready and not self._results:
                    self._thread = None
                    return
                self._results = [result for result in self._results if not any(result is one for one in ready)]
            for result in ready:
                self._call(result)
            if not ready:
                self._sleep(key)

    def _give_up(self) -> None:
        with self._lock:
            results, self._results, self._thread = self._results, [], None
        for result in results:
            result._give_up()

    def _sleep(self, key: tuple[int, int]) -> None:
        try:
            self._core.sleep(key, 0.5)
        except ValueError:
            pass  # terminated: seen at the next turn

    @staticmethod
    def _call(result: ApplyResult[Any]) -> None:
        try:
            result._notify()
        except BaseException:
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
