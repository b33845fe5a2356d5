# SPDX-License-Identifier: MIT
"""Starts a process by asking the fork server, which has the arena; the child is handed it as well."""
from __future__ import annotations

import os
from typing import Any

from . import _std, forkserver, spawn, util

__all__ = ["Popen"]


class Popen(_std.load("popen_forkserver").Popen):  # type: ignore[misc]
    """The standard library's but for what the child is sent."""

    def _launch(self, process_obj: Any) -> None:
        message = spawn.pickled(self, process_obj)
        self.sentinel, writes = forkserver.connect_to_new_process(self._fds)
        # A second writing end stays open: the child sees our end by its closing.
        self.finalizer = util.Finalize(self, util.close_fds, (os.dup(writes), self.sentinel))
        with open(writes, "wb") as pipe:
            pipe.write(message)
        self.pid = forkserver.read_signed(self.sentinel)


_std.mirror(globals())
