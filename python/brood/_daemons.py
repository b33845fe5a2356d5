# SPDX-License-Identifier: MIT
"""Daemonic processes at their parent's end.

When it exits they are terminated, and those that do not end by that are killed: the standard library waits for them, for ever
when one ignores SIGTERM, or is stopped.

When it is killed, nobody of it is left to end them, and the standard library's go on.  Here the kernel does: each has a pipe
whose writing end only its parent keeps open, and has asked for SIGKILL when that is closed (O_ASYNC and F_SETSIG, fcntl(2)).
PR_SET_PDEATHSIG would not do: it comes when the *thread* ends that has started the child.
"""
from __future__ import annotations

import fcntl
import os
import select
import signal
import time
from typing import Any

from . import process, util

__all__: list[str] = []

GRACE = 5.0  # seconds
_pid = 0  # of the process that has registered


def watch(child: Any) -> None:
    """Before the child starts."""
    global _pid
    if child.daemon and _pid != os.getpid():
        _pid = os.getpid()
        util.Finalize(None, _end, exitpriority=0)  # last before the standard library's look at them


def end_with_parent() -> None:
    """In a child that begins: if it is a daemon, it is killed when its parent ends, however that ends."""
    child, parent = process.current_process(), process.parent_process()
    if not child.daemon or parent is None or getattr(child, "_outlives_parent", False):
        return
    alive = parent.sentinel
    fcntl.fcntl(alive, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(alive, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(alive, fcntl.F_SETFL, fcntl.fcntl(alive, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(alive, select.POLLIN)
    if poll.poll(0):  # it has ended before that
        os.kill(os.getpid(), signal.SIGKILL)


def _end() -> None:
    daemons = [child for child in process.active_children() if child.daemon]
    for child in daemons:
        child.terminate()
    end = time.monotonic() + GRACE
    for child in daemons:
        child.join(max(0.0, end - time.monotonic()))
        if child.is_alive():
            child.kill()
