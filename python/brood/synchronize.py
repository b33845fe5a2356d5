# SPDX-License-Identifier: MIT
"""Locks, semaphores, conditions, events and barriers among processes, as in :mod:`multiprocessing.synchronize`.

What is different: a process that dies holding a lock or a semaphore gives it back (the next to acquire it finds
``lock._semlock.owner_died`` true), a notify given to a process that died passes on to another waiter, and a
barrier breaks when one of its parties dies.  Every object may be pickled at any time, not only while a process starts.
"""
from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from . import _core, process

__all__ = ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event"]

RECURSIVE_MUTEX, SEMAPHORE = 0, 1
SEM_VALUE_MAX = _core.SemLock.SEM_VALUE_MAX


class Acquire(Protocol):
    """The method acquire of a lock."""

    def __call__(self, block: bool = True, timeout: float | None = None) -> bool:
        """Acquire it; False when the time is over."""
        ...


class SemLock(_core.LockFace):
    """What the locks and semaphores have in common: ``acquire``, ``release`` and ``with`` are the core's own."""

    def __init__(self, kind: int, value: int, maxvalue: int, *, ctx: Any) -> None:
        self._semlock = _core.SemLock(kind, value, maxvalue)

    def __getstate__(self) -> _core.SemLock:
        return self._semlock

    def __setstate__(self, state: _core.SemLock) -> None:
        self._semlock = state

    def _owner(self) -> tuple[str, Any]:
        """Who holds it, as far as this process knows, and how often."""
        if self._semlock._is_mine():
            name = process.current_process().name
            if threading.current_thread().name != "MainThread":
                name += "|" + threading.current_thread().name
            return name, self._semlock._count()
        if self._semlock._get_value() == 1:
            return "None", 0
        if self._semlock._count() > 0:
            return "SomeOtherThread", "nonzero"
        return "SomeOtherProcess", "nonzero"


class Semaphore(SemLock):
    """A semaphore."""

    def __init__(self, value: int = 1, *, ctx: Any) -> None:
        SemLock.__init__(self, SEMAPHORE, value, SEM_VALUE_MAX, ctx=ctx)

    def get_value(self) -> int:
        """Return how often it could be acquired now."""
        return self._semlock._get_value()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(value={_or_unknown(self._semlock._get_value)})>"


class BoundedSemaphore(Semaphore):
    """A semaphore that cannot be released more often than acquired."""

    def __init__(self, value: int = 1, *, ctx: Any) -> None:
        SemLock.__init__(self, SEMAPHORE, value, value, ctx=ctx)

    def __repr__(self) -> str:
        value = _or_unknown(self._semlock._get_value)
        return f"<{type(self).__name__}(value={value}, maxvalue={self._semlock.maxvalue})>"


class Lock(SemLock):
    """A lock that is not recursive; another thread or process may release it."""

    def __init__(self, *, ctx: Any) -> None:
        SemLock.__init__(self, SEMAPHORE, 1, 1, ctx=ctx)

    def __repr__(self) -> str:
        owner = _or_unknown(self._owner)
        return f"<{type(self).__name__}(owner={owner if owner == 'unknown' else owner[0]})>"


class RLock(SemLock):
    """A recursive lock."""

    def __init__(self, *, ctx: Any) -> None:
        SemLock.__init__(self, RECURSIVE_MUTEX, 1, 1, ctx=ctx)

    def __repr__(self) -> str:
        owner = _or_unknown(self._owner)
        name, count = ("unknown", "unknown") if owner == "unknown" else owner
        return f"<{type(self).__name__}({name}, {count})>"


def _or_unknown(look: Callable[[], Any]) -> Any:
    """Return what ``look`` does, or ``"unknown"``: a repr does not raise."""
    try:
        return look()
    except Exception:
        return "unknown"


class _Reading:
    """A number of the standard library's Condition, which keeps it in a semaphore."""

    def __init__(self, read: Callable[[], int]) -> None:
        self.get_value = read


class Condition:
    """A condition variable on any of the locks above."""

    acquire: Acquire
    release: Callable[[], None]

    def __init__(self, lock: SemLock | None = None, *, ctx: Any) -> None:
        self.__setstate__((lock or ctx.RLock(), _core.Condition()))

    def __getstate__(self) -> tuple[SemLock, _core.Condition]:
        return self._lock, self._room

    def __setstate__(self, state: tuple[SemLock, _core.Condition]) -> None:
        self._lock, self._room = state
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(self, *details: object) -> None:
        self._lock.__exit__(*details)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self._lock}, {_or_unknown(self._room.waiters)})>"

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, wait for a notify, and acquire it again; False when the time is over."""
        assert self._lock._semlock._is_mine(), "must acquire() condition before using wait()"
        return self._room.wait(self._lock._semlock, timeout)

    def notify(self, n: int = 1) -> None:
        """Wake up to ``n`` of those who wait, the oldest first."""
        assert self._lock._semlock._is_mine(), "lock is not owned"
        self._room.notify(n)

    def notify_all(self) -> None:
        """Wake all who wait."""
        self.notify(n=sys.maxsize)

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until ``predicate()`` is true, and return it; what it is when the time is over, at the latest."""
        end = None if timeout is None else time.monotonic() + timeout
        while not (result := predicate()):
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    @property
    def _sleeping_count(self) -> _Reading:
        return _Reading(self._room.waiters)

    @property
    def _woken_count(self) -> _Reading:
        return _Reading(lambda: 0)

    @property
    def _wait_semaphore(self) -> _Reading:
        return _Reading(lambda: 0)


class Event(_core.Event):
    """A flag that processes wait for; ``set``, ``clear``, ``is_set`` and ``wait`` are the core's own methods."""

    def __init__(self, *, ctx: Any) -> None:
        super().__init__()

    def __repr__(self) -> str:
        flag = "set" if self.is_set() else "unset"
        return f"<{type(self).__qualname__} at {id(self):#x} {flag}>"


class Barrier(threading.Barrier):
    """A barrier.  With an action there is a second gate: all wait in it while one of them runs the action."""

    def __init__(
        self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None, *, ctx: Any
    ) -> None:
        after = None if action is None else _core.Barrier(parties)
        self.__setstate__((_core.Barrier(parties), after, action, timeout))

    def __getstate__(self) -> tuple[Any, ...]:
        return self._gate, self._after, self._action, self._timeout

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._gate, self._after, self._action, self._timeout = state

    def __repr__(self) -> str:
        cls = type(self)
        name = f"{cls.__module__}.{cls.__qualname__} at {id(self):#x}"
        if self.broken:
            return f"<{name}: broken>"
        return f"<{name}: waiters={self.n_waiting}/{self.parties}>"

    def wait(self, timeout: float | None = None) -> int:
        """Wait for all parties; return the order of arrival.  Raise BrokenBarrierError when the barrier breaks."""
        if timeout is None:
            timeout = self._timeout
        index = self._gate.wait(timeout)
        if self._after is not None:
            if index == self.parties - 1:
                self._act()
            self._after.wait(timeout)
        return index

    def _act(self) -> None:
        try:
            self._action()
        except BaseException:
            self.abort()
            raise

    def reset(self) -> None:
        """Make it whole and empty; those who wait get BrokenBarrierError."""
        self._gate.reset()
        if self._after is not None:
            self._after.reset()

    def abort(self) -> None:
        """Break it: those who wait, and who will, get BrokenBarrierError until reset."""
        self._gate.abort()
        if self._after is not None:
            self._after.abort()

    @property
    def parties(self) -> int:
        """How many trip it."""
        return self._gate.parties

    @property
    def n_waiting(self) -> int:
        """How many wait in it now."""
        return self._gate.n_waiting

    @property
    def broken(self) -> bool:
        """Is it broken?"""
        return self._gate.broken or (self._after is not None and self._after.broken)
