# SPDX-License-Identifier: MIT
"""How the arena gets into a process that was exec'd.

A forked child has the arena, at its address.  One that is exec'd, by spawn or by the fork server, is handed the arena's
descriptor; it has to attach before it unpickles anything that may refer into the arena.  So a ``Passport`` is the first
thing in what such a child is sent, and unpickling it is what lets the child in.
"""
from __future__ import annotations

import os
import sys
from typing import Any

from . import _core, _std

if _std.TYPE_CHECKING:
    from multiprocessing.resource_sharer import DupFd

__all__ = ["Passport", "attach", "ensure", "package_parent"]

_LAST = -1_000_000  # of the finalizers at exit


def package_parent() -> str:
    """The directory that has to be on a child's ``sys.path`` for it to import this very brood."""
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def ensure() -> None:
    """Make the arena before a fork, so that parent and child share one whoever uses it first."""
    _core.arena_ticket()


def attach(fd: int, base: int, size: int) -> None:
    """Take part in the arena behind ``fd``, and close ``fd``.

    The fork server attaches when it starts, so that its preloaded modules may hold brood's objects; what it forks
    need not do so again.
    """
    try:
        _core.attach(fd, base, size)
    except OSError:
        if not _is_ours(fd):
            raise
    finally:
        os.close(fd)


def _is_ours(fd: int) -> bool:
    return os.path.sameopenfile(fd, _core.arena_ticket()[0])


class Passport:
    """The first thing an exec'd child unpickles: the arena, the start method, and whether brood is installed."""

    def __init__(self, start_method: str | None):
        self._start_method = start_method

    def __reduce__(self) -> Any:
        """Pickle while a process is being started: the descriptor is handed on with it."""
        from .reduction import DupFd

        fd, base, size = _core.arena_ticket()
        return _admit, (DupFd(fd), base, size, self._start_method, _std.installed())


def _admit(handle: DupFd, base: int, size: int, start_method: str | None, installed: bool) -> None:
    """In the child."""
    from . import context, util
    from ._install import install

    if installed:
        install()
    attach(handle.detach(), base, size)
    util.Finalize(None, _core.leave, exitpriority=_LAST)  # a clean end, which nobody else could tell from a death
    context._default_context.set_start_method(start_method, force=True)


def path_prologue() -> str:
    """A Python expression for a child's command line that makes brood importable there.

    The child gets its parent's ``sys.path`` only with the preparation data, which need brood already.
    """
    return f"__import__('sys').path.append({package_parent()!r})"


def is_frozen() -> bool:
    """Whether the program is one executable with the interpreter inside."""
    return bool(getattr(sys, "frozen", False))
