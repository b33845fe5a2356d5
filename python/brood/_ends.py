# SPDX-License-Identifier: MIT
"""How calls of a pool may end before they are done, and begin again: time-outs, cancelling, retries, limits of workers."""
from __future__ import annotations

import errno
import math
import operator
import pickle
import signal
from collections.abc import Callable
from multiprocessing.context import TimeoutError as MultiprocessingTimeoutError
from typing import Any, NamedTuple, TypedDict

from . import _core, _travel

__all__: list[str] = []

_MOST_MS = 2**32 - 1
_MOST_RETRIES = 1000
SIGNAL = signal.SIGRTMIN + 7  # tells a worker that its task has to end; then come SIGTERM and SIGKILL


def cancelled(text: str) -> BaseException:
    """What a cancelled task ends with.  Its module imports more than all of this package: it is there once it is needed."""
    from concurrent.futures import CancelledError

    return CancelledError(text)


def _is_ending(error: BaseException) -> bool:
    return isinstance(error, TaskTimeout) or isinstance(error, type(cancelled("")))


class TaskTimeout(MultiprocessingTimeoutError, TimeoutError):
    """The time of a task, or of the whole call, was over.  Raised in the task first, so that it can clean up.

    Its ``__cause__`` shows where the task was: the traceback of what was raised in it, or, where that ended nothing, the
    Python stack of its worker when the time ran out (not with ``faulthandler=False``).
    """


class Ends(TypedDict, total=False):
    """The keyword arguments of a pool's calls that say how they may end.

    timeout: seconds that each task may take, from the call of the function on (that its module is imported first does not
        count).  One that takes longer is ended: TaskTimeout is
        raised in it; if that does not end it, SIGTERM and SIGKILL follow, the pool's ``grace`` apart.  Its result is
        TaskTimeout, its worker is replaced, and the other tasks go on.
    total_timeout: seconds for the whole call, from its submission on.
    retries: how often a task is begun again whose worker died.
    retry_on: exceptions (a class or a tuple of classes) after which a task is begun again as well, in its worker.
    """

    timeout: float | None
    total_timeout: float | None
    retries: int
    retry_on: type[BaseException] | tuple[type[BaseException], ...]


class Plan(NamedTuple):
    """What is asked for, checked; the first three are what the core is given."""

    timeout_ms: int
    total_timeout_ms: int
    retries: int
    retry_on: tuple[type[BaseException], ...]

    @property
    def for_core(self) -> tuple[int, int, int]:
        """The arguments of the core."""
        return self[:3]

    @property
    def is_given(self) -> bool:
        """Whether single tasks may end: then each item is a task of its own by default."""
        return any(self[:3])


def milliseconds(name: str, seconds: Any) -> int:
    """Return seconds as whole milliseconds, rounded up; 0 for None."""
    if seconds is None:
        return 0
    if isinstance(seconds, bool) or not hasattr(seconds, "__float__"):
        raise TypeError(f"{name} must be a number of seconds or None, not {type(seconds).__name__}")
    seconds = float(seconds)
    if not 0 < seconds * 1000 <= _MOST_MS:
        raise ValueError(f"{name} must be over 0 and at most {_MOST_MS // 1000} seconds, not {seconds}")
    return max(math.ceil(seconds * 1000 - 1e-6), 1)  # 0.3 is not quite 300 ms


def whole(name: str, value: Any, most: int, least: int = 0) -> int:
    """Return `value` when it is an int from `least` to `most`; 0 for None."""
    if value is None:
        return 0
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an int or None, not {type(value).__name__}")
    value = operator.index(value)
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}, not {value}")
    return value


def plan_of(ends: Ends) -> Plan:
    """Check what is asked for."""
    unknown = ends.keys() - Ends.__annotations__.keys()
    if unknown:
        raise TypeError(f"unexpected keyword argument {min(unknown)!r}: those that say how a call may end are {', '.join(Ends.__annotations__)}")
    retry_on = ends.get("retry_on", ())
    classes = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    if not all(isinstance(one, type) and issubclass(one, BaseException) for one in classes):
        raise TypeError("retry_on must be an exception class, or a tuple of them")
    return Plan(
        milliseconds("timeout", ends.get("timeout")), milliseconds("total_timeout", ends.get("total_timeout")),
        whole("retries", ends.get("retries"), _MOST_RETRIES), classes)


class Limits(NamedTuple):
    """Limits of a pool's workers; 0: none."""

    max_memory: int
    max_cpu_seconds: int
    max_open_files: int
    grace_ms: int

    @property
    def for_core(self) -> tuple[int, int, int, int, int]:
        """The argument of the core."""
        return self.max_memory, self.max_cpu_seconds, self.max_open_files, self.grace_ms, SIGNAL

    @classmethod
    def of(cls, max_memory: Any, max_cpu_seconds: Any, max_open_files: Any, grace: Any) -> Limits:
        """Check what is asked for."""
        return cls(
            whole("max_memory_per_worker", max_memory, 2**63 - 1, 1), whole("max_cpu_seconds", max_cpu_seconds, 2**31, 1),
            whole("max_open_files", max_open_files, 2**31, 1), milliseconds("grace", grace))

    def broken_by(self, error: BaseException) -> str | None:
        """Say which limit it was that the task has met, going by the exception that it ended with."""
        if isinstance(error, MemoryError) and self.max_memory:
            return f"the limit of the pool is max_memory_per_worker={self.max_memory} bytes"
        if isinstance(error, OSError) and error.errno == errno.EMFILE and self.max_open_files:
            return f"the limit of the pool is max_open_files={self.max_open_files}"
        return None


class Retry:
    """Stands for a function that is called again after some exceptions."""

    def __init__(self, pickled: bytes, retries: int, retry_on: tuple[type[BaseException], ...]) -> None:
        self._pickled = pickled
        self._retries = retries
        self._retry_on = retry_on
        self._function: Callable[..., Any] | None = None

    def __call__(self, *args: Any, **kwds: Any) -> Any:
        """Call it, and again while attempts are left."""
        function: Callable[..., Any] = self._function or pickle.loads(self._pickled)
        self._function = function
        for attempt in range(1, self._retries + 2):
            _core._note_attempts(attempt)
            try:
                return function(*args, **kwds)
            except self._retry_on as error:
                if _is_ending(error):
                    raise
                if attempt > self._retries or _core._task_ending():
                    error.add_note(f"attempt {attempt} of {self._retries + 1}")
                    raise

    def __reduce__(self) -> Any:
        return Retry, (self._pickled, self._retries, self._retry_on)


def with_retries(function: Callable[..., Any], plan: Plan, main: _travel.Main) -> Callable[..., Any]:
    """The function, or what stands for it when it is to be called again after some exceptions."""
    if not plan.retries or not plan.retry_on:
        return function
    return Retry(_travel.pickle_callable(function, main)[0], plan.retries, plan.retry_on)


_CANCELLED, _TIMED_OUT = 4, 5  # enum brood_outcome_kind


def _end_task(number: int, frame: object) -> None:
    ending = _core._task_ending()
    if ending == _TIMED_OUT:
        raise TaskTimeout("the time of this task is over")
    if ending == _CANCELLED:
        raise cancelled("this task was cancelled")


def begin_worker() -> None:
    """In a worker, as it begins: tasks can be told to end."""
    signal.signal(SIGNAL, _end_task)


TaskTimeout.__module__ = "brood"  # where users find it
