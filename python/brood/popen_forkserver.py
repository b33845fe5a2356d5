# SPDX-License-Identifier: MIT
"""Starts a process by asking the fork server, which has the arena; the child is handed it as well."""
from __future__ import annotations

import contextlib
import errno
import os
import signal
from multiprocessing import connection
from typing import Any

from . import _interrupts, _std, forkserver, spawn, util
from ._std import TYPE_CHECKING
from .popen_fork import Resting

if TYPE_CHECKING:
    import multiprocessing.popen_forkserver as _real
else:
    _real = _std.load("popen_forkserver")

__all__ = ["Popen"]

_FORKS_WITHIN = 5.0  # seconds: what the server was asked for is there, or was read already, just when Ctrl-C came


class Popen(_real.Popen, Resting):
    """The standard library's but for what the child is sent."""

    _fds: list[int]  # that the child inherits
    sentinel: int
    finalizer: util.Finalize
    pid: int

    def _launch(self, process_obj: Any) -> None:
        message = spawn.pickled(self, process_obj)
        self.sentinel, writes = forkserver.connect_to_new_process(self._fds)
        # A second writing end stays open: the child sees our end by its closing.
        self.finalizer = util.Finalize(self, util.close_fds, (os.dup(writes), self.sentinel))
        try:
            with open(writes, "wb") as pipe:
                pipe.write(message)
            connection.wait([self.sentinel])
            with _interrupts.held_back():
                self.pid = forkserver.read_signed(self.sentinel)
        except EOFError:
            raise BlockingIOError(errno.EAGAIN, "the fork server ended before it had made the process") from None
        except BaseException:  # Ctrl-C: the server does not see it and goes on, and the process would be nobody's
            self._take_back()
            raise

    def _take_back(self) -> None:
        with _interrupts.held_back(), contextlib.suppress(EOFError, OSError):
            pid = getattr(self, "pid", None)
            if pid is None and connection.wait([self.sentinel], _FORKS_WITHIN):
                pid = forkserver.read_signed(self.sentinel)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)


_std.mirror(globals())
