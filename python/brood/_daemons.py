# SPDX-License-Identifier: MIT
"""Daemonic processes at their parent's exit: they are terminated, and those that do not end by that are killed.

The standard library waits for them, for ever when one ignores SIGTERM, or is stopped.
"""
from __future__ import annotations

import os
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


def _end() -> None:
    daemons = [child for child in process.active_children() if child.daemon]
    for child in daemons:
        child.terminate()
    end = time.monotonic() + GRACE
    for child in daemons:
        child.join(max(0.0, end - time.monotonic()))
        if child.is_alive():
            child.kill()
