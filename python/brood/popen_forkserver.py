# SPDX-License-Identifier: MIT
"""Starts a process by asking the fork server, which has the arena; the child is handed it as well."""
from __future__ import annotations

import errno
import os
from typing import Any

from . import _std, forkserver, spawn, util
from ._std import TYPE_CHECKING

if TYPE_CHECKING:
    import multiprocessing.popen_forkserver as _real
else:
    _real = _std.load("popen_forkserver")

__all__ = ["Popen"]


class Popen(_real.Popen):
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
        with open(writes, "wb") as pipe:
            pipe.write(message)
        try:
            self.pid = forkserver.read_signed(self.sentinel)
        except EOFError:
            raise BlockingIOError(errno.EAGAIN, "the fork server ended before it had made the process") from None


_std.mirror(globals())
