# SPDX-License-Identifier: MIT
"""Starts a process in a fresh interpreter that is handed the arena."""
from __future__ import annotations

import os
from typing import Any

from . import _descriptors, _std, resource_tracker, spawn, util
from ._std import TYPE_CHECKING
from .popen_fork import Resting

if TYPE_CHECKING:
    import multiprocessing.popen_spawn_posix as _real
else:
    _real = _std.load("popen_spawn_posix")

__all__ = ["Popen"]

_NEEDS = 6  # two pipes, and one that tells of a failure to exec


class Popen(_real.Popen, Resting):
    """The standard library's but for what the child is started and sent."""

    _fds: list[int | None]  # that the child inherits
    sentinel: int
    finalizer: util.Finalize
    pid: int

    def _launch(self, process_obj: Any) -> None:
        tracker_fd = resource_tracker.getfd()
        self._fds.append(tracker_fd)
        message = spawn.pickled(self, process_obj)
        _descriptors.expect_room(_NEEDS)
        # Each process reads one pipe and keeps the other's writing end: it sees its counterpart's end there.
        self.sentinel, child_alive = os.pipe()
        child_reads, parent_writes = os.pipe()
        self.finalizer = util.Finalize(self, util.close_fds, (self.sentinel, parent_writes))
        try:
            self._fds += [child_reads, child_alive]
            command = spawn.get_command_line(tracker_fd=tracker_fd, pipe_handle=child_reads)
            self.pid = util.spawnv_passfds(spawn.get_executable(), command, self._fds)  # type: ignore[arg-type]
        finally:
            util.close_fds(child_reads, child_alive)
        with open(parent_writes, "wb", closefd=False) as pipe:
            pipe.write(message)


_std.mirror(globals())
