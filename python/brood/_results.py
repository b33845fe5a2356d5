# SPDX-License-Identifier: MIT
"""What a pool's calls return: results that will be there, and the thread that calls callbacks."""
from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from multiprocessing.context import TimeoutError
from typing import Any, Generic, Literal, TypeVar, overload

from . import _arguments, _core, _route

__all__ = ["ApplyResult", "AsyncResult", "MapResult", "CallbackThread"]

_R = TypeVar("_R")
_Job = _core.Job | _route.RoutedJob


class ApplyResult(Generic[_R]):
    """What apply_async returns: the result of one call, once it is there."""

    # What is not so for one of them is an attribute of its own: most begin and end with these.
    _callback: Callable[[Any], object] | None = None
    _error_callback: Callable[[BaseException], object] | None = None
    _called: threading.Event | None = None  # with callbacks the result is ready once they were called, as in multiprocessing
    _success: bool | None = None
    _value: Any = None  # or the exception, without success
    _all: Any = None  # what get(return_exceptions=True) returns
    _attempts: list[int] = []
    _pool: Any = None  # which is kept by what it owes

    def __init__(
        self,
        job: _Job | None,
        callback: Callable[[_R], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> None:
        self._job = job
        if callback is not None or error_callback is not None:
            self._callback = callback
            self._error_callback = error_callback
            self._called = threading.Event()

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
            self._called.wait(_arguments.seconds(timeout))
        elif self._success is None and self._job is not None:
            self._job.wait(timeout)

    @overload
    def get(self, timeout: float | None = None, *, return_exceptions: Literal[False] = False) -> _R: ...
    @overload
    def get(self, timeout: float | None = None, *, return_exceptions: bool) -> Any: ...
    def get(self, timeout: float | None = None, *, return_exceptions: bool = False) -> Any:
        """Wait and return what the call returned; raises what it raised, TimeoutError, WorkerDied or PoolBroken.

        timeout: seconds to wait; TimeoutError when they are over, and the call goes on.
        return_exceptions: True: return what would be raised instead; of a map, in the place of the items that failed.
        """
        if self._called is not None and not self._called.wait(_arguments.seconds(timeout)):
            raise TimeoutError
        if self._success is None:
            job = self._job
            if job is not None and not job.wait(timeout):
                raise TimeoutError
            self._settle()
        if return_exceptions:
            return self._all
        if self._success:
            return self._value
        raise self._value

    def cancel(self, *, running: bool = False) -> bool:
        """Cancel what has not begun; True when that was something.

        running: and end what runs, as for a time-out, with CancelledError; True unless all had ended already.  The
            workers are replaced.
        """
        if self._job is None:
            return False
        had_ended = self._job.ready()
        return self._job.cancel(running) > 0 or (running and not had_ended)

    def attempts(self) -> Any:
        """Return how often the call was begun, once it has ended: more than once with retries; 0: never."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        self._settle()
        return self._attempts[0] if self._attempts else 0

    def _settle(self) -> None:
        """Take values or exceptions out of the job, once."""
        job = self._job
        if self._success is not None:
            return
        values, error, self._attempts = job.collect() if job is not None else ([], None, [])
        self._all = self._shaped(values)
        self._value = self._all if error is None else error
        self._success = error is None
        self._job = self._pool = None

    @staticmethod
    def _shaped(values: list[Any]) -> Any:
        """What get returns, of the values of all calls."""
        return values[0]

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

    @property
    def _number_left(self) -> int:
        """How many chunks have not ended: a name that others lean on."""
        return self._job.left() if self._job is not None else 0

    def attempts(self) -> list[int]:
        """Return how often each task (chunk) was begun, once all have ended."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        self._settle()
        return self._attempts

    @staticmethod
    def _shaped(values: list[Any]) -> Any:
        return values


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
