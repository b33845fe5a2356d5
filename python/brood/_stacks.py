# SPDX-License-Identifier: MIT
"""The Python stacks of workers that crashed, or whose task had to end: into their owner's WorkerDied or TaskTimeout.

A pool has one file, in memory and without a name, in which each pid has a place; a file takes room only where something
was written.  csrc/crash.c is how a stack gets there.  The owner reads it when it learns of the death, and gives the
room back; what nobody asks for is dropped once it is too much.
"""
from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

from . import _core
from ._ends import SIGNAL

__all__: list[str] = []

SIGNALS = frozenset((signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGBUS, signal.SIGILL))

_PLACE = 1 << 24  # bytes from one pid's place to the next's; faulthandler writes at most 100 frames of 100 threads
_MOST_READ = 1 << 16
_MOST_UNREAD = 1 << 22

_own: tuple[int, int] | None = None  # in a worker: its pid, and the file


class Stacks:
    """Where the workers of one pool leave their stacks.  Travels to them."""

    _fd = -1

    def __init__(self) -> None:
        self._fd = os.memfd_create("brood-stacks", os.MFD_CLOEXEC)
        self._identity = _identity(self._fd) or (0, 0)
        self._kept: dict[int, str] = {}  # once the file is closed

    def __del__(self) -> None:
        self._close_file()

    # ---- the owner ----

    def stack_of(self, pid: int) -> str | None:
        """The stack of a worker that is dead, once."""
        return self._read(pid) if self._has_file() else self._kept.pop(pid, None)

    def _read(self, pid: int) -> str | None:
        text = os.pread(self._fd, _MOST_READ, pid * _PLACE).partition(b"\0")[0]
        if not text:
            return None
        _core._forget(self._fd, pid * _PLACE, _PLACE)
        return text.decode("utf-8", "backslashreplace").rstrip()

    def close(self) -> None:
        """After the last worker's end: keep what is there, for results that have not been asked yet, and no descriptor."""
        if self._has_file():
            for pid in list(self._pids()):
                self._kept[pid] = self._read(pid) or ""
        self._close_file()

    def _pids(self) -> Iterator[int]:
        """Whose places have something written to."""
        place = 0
        while True:
            try:
                pid = os.lseek(self._fd, place, os.SEEK_DATA) // _PLACE
            except OSError:  # nothing behind it
                return
            yield pid
            place = (pid + 1) * _PLACE

    def _has_file(self) -> bool:
        """Not once it is closed, nor when the host has closed it: the number may be another file's by now."""
        return self._fd >= 0 and _identity(self._fd) == self._identity

    def _close_file(self) -> None:
        if self._has_file():
            os.close(self._fd)
        self._fd = -1

    # ---- the worker ----

    def prepare(self) -> None:
        """In the process that workers are forked from: what need not be done in each."""
        import faulthandler  # noqa: F401

        self._dump_signal = _free_signal()
        self._wanted = frozenset(one for one in SIGNALS if signal.getsignal(one) is signal.SIG_DFL)

    def begin(self) -> None:
        """In a new worker."""
        if self._dump_signal == 0:
            return
        import faulthandler

        global _own
        _own = os.getpid(), self._fd
        faulthandler.register(self._dump_signal, self._fd, all_threads=True)
        _core._report_crashes(self._wanted, SIGNAL, self._dump_signal, self._fd, *self._identity, _PLACE, _MOST_UNREAD)

    # ---- on the way to an exec'd process ----

    def __reduce__(self) -> Any:
        from .reduction import DupFd

        return _arrive, (DupFd(self._fd), self._identity)


def leave(text: str) -> None:
    """In a worker whose task has to end: the traceback of its exception, in the place of the stack that is there."""
    if _own is None or _own[0] != os.getpid():
        return
    try:
        os.pwrite(_own[1], text.encode("utf-8", "backslashreplace")[: _MOST_READ - 1] + b"\0", _own[0] * _PLACE)
    except OSError:  # closed by the task; no memory: as in a crash, there is none then
        pass


def _arrive(handle: Any, identity: tuple[int, int]) -> Stacks:
    stacks = Stacks.__new__(Stacks)
    stacks._fd, stacks._identity, stacks._kept = handle.detach(), identity, {}
    os.set_inheritable(stacks._fd, False)
    return stacks


def _identity(fd: int) -> tuple[int, int] | None:
    """Which file the descriptor stands for."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _free_signal() -> int:
    """A signal that nobody has a use for, or 0: the kernel never sends the first, and hardly any program takes the last ones."""
    numbers = (signal.SIGSTKFLT, *range(signal.SIGRTMAX, signal.SIGRTMAX - 8, -1))
    return next((number for number in numbers if signal.getsignal(number) is signal.SIG_DFL), 0)
