# SPDX-License-Identifier: MIT
"""The contexts: what the public names are, for each start method.

They are subclasses of the standard library's, so that whoever asks ``isinstance(ctx, multiprocessing.context.BaseContext)``
(torch, joblib, concurrent.futures) gets the answer it wants; what they make is brood's.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from . import _std
from ._std import TYPE_CHECKING

if TYPE_CHECKING:
    import multiprocessing.context as _real
    from multiprocessing.connection import Connection
    from multiprocessing.context import (
        assert_spawning as assert_spawning,
        get_spawning_popen as get_spawning_popen,
        set_spawning_popen as set_spawning_popen,
    )

    from typing import Unpack

    from . import _equipment, managers, pool, queues, synchronize
else:
    _real = _std.load("context")
    # One thread-local for both worlds: an object that is pickled asks here whether a process is being started.
    get_spawning_popen = _real.get_spawning_popen
    set_spawning_popen = _real.set_spawning_popen
    assert_spawning = _real.assert_spawning

__all__: tuple[str, ...] = ()

ProcessError = _real.ProcessError
BufferTooShort = _real.BufferTooShort
TimeoutError = _real.TimeoutError
AuthenticationError = _real.AuthenticationError
BaseContext = _real.BaseContext
process = _real.process  # type: ignore[attr-defined]


def __getattr__(name: str) -> Any:
    return getattr(_real, name)  # `reduction` among them, which a context's `reducer` may have replaced


class BroodContext(BaseContext):
    """What all start methods have in common."""

    def cpu_count(self) -> int:
        """How many CPUs this process may use: affinity and the quotas of control groups count."""
        from . import _core

        return int(_core.cpu_count())

    def Manager(self) -> managers.SyncManager:
        """Start a server process and return its manager, whose methods make objects that live in the server."""
        from .managers import SyncManager

        manager = SyncManager(ctx=self.get_context())
        manager.start()
        return manager

    def Pipe(self, duplex: bool = True) -> tuple[Connection[Any, Any], Connection[Any, Any]]:
        """Return the two connections of a pipe."""
        from .connection import Pipe

        return Pipe(duplex)

    def Lock(self) -> synchronize.Lock:
        """Return a lock that is not recursive."""
        from .synchronize import Lock

        return Lock(ctx=self.get_context())

    def RLock(self) -> synchronize.RLock:
        """Return a recursive lock."""
        from .synchronize import RLock

        return RLock(ctx=self.get_context())

    def Condition(self, lock: synchronize.SemLock | None = None) -> synchronize.Condition:
        """Return a condition variable."""
        from .synchronize import Condition

        return Condition(lock, ctx=self.get_context())

    def Semaphore(self, value: int = 1) -> synchronize.Semaphore:
        """Return a semaphore."""
        from .synchronize import Semaphore

        return Semaphore(value, ctx=self.get_context())

    def BoundedSemaphore(self, value: int = 1) -> synchronize.BoundedSemaphore:
        """Return a semaphore that cannot be released more often than acquired."""
        from .synchronize import BoundedSemaphore

        return BoundedSemaphore(value, ctx=self.get_context())

    def Event(self) -> synchronize.Event:
        """Return an event."""
        from .synchronize import Event

        return Event(ctx=self.get_context())

    def Barrier(self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None) -> synchronize.Barrier:
        """Return a barrier."""
        from .synchronize import Barrier

        return Barrier(parties, action, timeout, ctx=self.get_context())

    def Queue(self, maxsize: int = 0) -> queues.Queue:
        """Return a queue."""
        from .queues import Queue

        return Queue(maxsize, ctx=self.get_context())

    def JoinableQueue(self, maxsize: int = 0) -> queues.JoinableQueue:
        """Return a queue with ``task_done`` and ``join``."""
        from .queues import JoinableQueue

        return JoinableQueue(maxsize, ctx=self.get_context())

    def SimpleQueue(self) -> queues.SimpleQueue:
        """Return a queue with ``put`` and ``get`` and little else."""
        from .queues import SimpleQueue

        return SimpleQueue(ctx=self.get_context())

    def Pool(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        **options: Unpack[_equipment.Options],
    ) -> pool.Pool:
        """Return a pool of worker processes; ``options`` are what ``brood.pool.Pool`` adds."""
        from .pool import Pool

        return Pool(processes, initializer, initargs, maxtasksperchild, context=self.get_context(), **options)

    def RawValue(self, typecode_or_type: Any, *args: Any) -> Any:
        """Return a ctypes object in shared memory, without a lock."""
        from .sharedctypes import RawValue

        return RawValue(typecode_or_type, *args)

    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any) -> Any:
        """Return a ctypes array in shared memory, without a lock."""
        from .sharedctypes import RawArray

        return RawArray(typecode_or_type, size_or_initializer)

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:
        """Return a ctypes object in shared memory, with a lock."""
        from .sharedctypes import Value

        return Value(typecode_or_type, *args, lock=lock, ctx=self.get_context())

    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> Any:
        """Return a ctypes array in shared memory, with a lock."""
        from .sharedctypes import Array

        return Array(typecode_or_type, size_or_initializer, lock=lock, ctx=self.get_context())

    def set_forkserver_preload(self, module_names: list[str]) -> None:
        """Name the modules that the fork server imports before it forks; a hint."""
        from .forkserver import set_forkserver_preload

        set_forkserver_preload(module_names)

    def get_context(self, method: str | None = None) -> Any:
        """Return the context of a start method, this one for None."""
        if method is None:
            return self
        try:
            context = _concrete_contexts[method]
        except KeyError:
            raise ValueError(f"cannot find context for {method!r}") from None
        context._check_available()
        return context


# ---- processes: the standard library's, started by our Popen classes ----


class Process(_real.Process):
    """A process of whichever start method is the default when it is started."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        return _default_context.get_context().Process._Popen(process_obj)

    @staticmethod
    def _after_fork() -> Any:
        return _default_context.get_context().Process._after_fork()


class ForkProcess(_real.ForkProcess):
    """A copy of its parent."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        from . import _daemons
        from .popen_fork import Popen

        _daemons.watch(process_obj)
        return Popen(process_obj)

    @classmethod
    def _after_fork(cls) -> None:
        _begin_child("fork")
        super()._after_fork()  # type: ignore[misc]


class SpawnProcess(_real.SpawnProcess):
    """A fresh interpreter."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        from . import _daemons
        from .popen_spawn_posix import Popen

        _daemons.watch(process_obj)
        return Popen(process_obj)

    @staticmethod
    def _after_fork() -> None:
        _begin_child("spawn")


class ForkServerProcess(_real.ForkServerProcess):
    """A copy of the fork server."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        from . import _daemons
        from .popen_forkserver import Popen

        _daemons.watch(process_obj)
        return Popen(process_obj)

    @classmethod
    def _after_fork(cls) -> None:
        _begin_child("forkserver")
        super()._after_fork()  # type: ignore[misc]


# ---- one context per start method, and the default one, which is whichever the program chose ----


class ForkContext(BroodContext, _real.ForkContext):
    """Start method ``fork``."""

    Process: ClassVar[type[ForkProcess]] = ForkProcess


class SpawnContext(BroodContext, _real.SpawnContext):
    """Start method ``spawn``."""

    Process: ClassVar[type[SpawnProcess]] = SpawnProcess


class ForkServerContext(BroodContext, _real.ForkServerContext):
    """Start method ``forkserver``."""

    Process: ClassVar[type[ForkServerProcess]] = ForkServerProcess


class DefaultContext(_real.DefaultContext, BroodContext):
    """The context behind the package's own functions.

    The standard library's comes first here: which context is meant is its code, what the context makes is ours.
    """

    Process: ClassVar[type[Process]] = Process


_concrete_contexts: dict[str, Any] = {
    "fork": ForkContext(),
    "spawn": SpawnContext(),
    "forkserver": ForkServerContext(),
}
# The default start method is that of the running Python (3.14: forkserver).
_default_context = DefaultContext(_concrete_contexts[_real._default_context._default_context._name])  # type: ignore[attr-defined]


def _force_start_method(method: str) -> None:
    _default_context._actual_context = _concrete_contexts[method]  # type: ignore[attr-defined]


def _begin_child(method: str) -> None:
    from . import _daemons

    _force_start_method(method)
    _daemons.end_with_parent()
