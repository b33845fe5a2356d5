# SPDX-License-Identifier: MIT
"""Starts a process by fork: the child has the arena, provided that there was one."""
from __future__ import annotations

import os
import threading
from multiprocessing import util as _util
from typing import Any

from . import _arena, _core, _descriptors, _random, _std
from ._std import TYPE_CHECKING

if TYPE_CHECKING:
    import multiprocessing.popen_fork as _real
else:
    _real = _std.load("popen_fork")

__all__ = ["Popen"]

_NEEDS = 4  # two pipes
util: Any = _util  # its close_fds has no type


_parent_ends: set[int] = set()  # a child sees by one of them that its parent has ended: siblings must not keep it open


def _close(sentinel: int, parent_end: int) -> None:
    _parent_ends.discard(parent_end)  # first: the number may be another's soon
    util.close_fds(sentinel, parent_end)


class _Leaving:
    """The process as its child runs it: whose end the core is told of, since it did not start it and cannot see how it ends."""

    def __init__(self, process_obj: Any) -> None:
        self._process_obj = process_obj

    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        _random.diverge()
        code = self._process_obj._bootstrap(parent_sentinel=parent_sentinel)
        _core.leave()
        return code


class Resting(_real.Popen):
    """How all Popens wait: meanwhile the processor of this process is for those that it waits for, who may spin then.

    Once brood is installed, what the real Popens of spawn and forkserver derive from is Popen below; else it is the real one,
    and wait is found here first, since they have none of their own.
    """

    def wait(self, timeout: float | None = None) -> int | None:
        """Return the exit code, or None when the time is over."""
        if threading.active_count() > 1:  # others may have something to do
            return super().wait(timeout)
        try:
            _core.rest(True)
            return super().wait(timeout)
        finally:
            _core.rest(False)


class Popen(Resting):
    """The standard library's, in a process that has an arena.  A fork that fails leaves no descriptors."""

    sentinel: int
    finalizer: _util.Finalize
    pid: int

    def _launch(self, process_obj: Any) -> None:
        _arena.ensure()
        _descriptors.expect_room(_NEEDS)
        sentinel, child_end = os.pipe()  # readable once the child has ended
        parent_sentinel, parent_end = os.pipe()
        try:
            self.pid = os.fork()
        except OSError:
            util.close_fds(sentinel, child_end, parent_sentinel, parent_end)
            raise
        if self.pid == 0:
            code = 1
            try:
                util.close_fds(sentinel, parent_end, *_parent_ends)
                _parent_ends.clear()
                code = _Leaving(process_obj)._bootstrap(parent_sentinel)
            finally:
                os._exit(code)
        util.close_fds(child_end, parent_sentinel)
        _parent_ends.add(parent_end)
        self.finalizer = util.Finalize(self, _close, (sentinel, parent_end))
        self.sentinel = sentinel


_std.mirror(globals())
