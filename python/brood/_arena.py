# SPDX-License-Identifier: MIT
"""How the arena gets into a process that was exec'd.

A forked child has the arena, at its address.  One that is exec'd, by spawn or by the fork server, is handed the arena's
descriptor; it has to attach before it unpickles anything that may refer into the arena.  So a ``Passport`` is the first
thing in what such a child is sent, and unpickling it is what lets the child in.

Other programs, written in C or Python, that the program starts itself or is started by, are let in by ``arena_ticket``
and ``attach``: C's ``brood_arena_ticket_get`` and ``brood_arena_attach``.
"""
from __future__ import annotations

import os
import sys
from typing import Any, NamedTuple

from . import _core, _std

if _std.TYPE_CHECKING:
    from multiprocessing.resource_sharer import DupFd

__all__ = ["ArenaTicket", "Passport", "arena_ticket", "attach", "attach_and_close", "ensure", "package_parent"]


def package_parent() -> str:
    """The directory that has to be on a child's ``sys.path`` for it to import this very brood."""
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class ArenaTicket(NamedTuple):
    """What another program needs to take part in this one's shared memory.

    Attributes:
        fd: a descriptor of this process, the library's own: to be handed on (``pass_fds`` of ``subprocess``), not closed.
        base, window_bytes: where the memory lies, in every process that has it.
    """

    fd: int
    base: int
    window_bytes: int


def arena_ticket() -> ArenaTicket:
    """Return the ticket to the arena of this process, which is made if there is none."""
    return ArenaTicket(*_core.arena_ticket())


def attach(fd: int, base: int, window_bytes: int) -> None:
    """Take part in the arena of a ticket that another program gave; ``fd`` is that ticket's descriptor in this process.

    It is the first use of brood in this process: OSError (EALREADY) when there is an arena already, ValueError when the
    three are no ticket.  ``fd`` stays the caller's to close.
    """
    _core.attach(fd, base, window_bytes)
    _core.leave_at_exit()  # an end that nobody else could tell from a death


def ensure() -> None:
    """Make the arena before a fork, so that parent and child share one whoever uses it first."""
    _core.arena_ticket()


def attach_and_close(fd: int, base: int, window_bytes: int) -> None:
    """Take part in the arena of our own parent, and close ``fd``.

    The fork server attaches when it starts, so that its preloaded modules may hold brood's objects; what it forks
    need not do so again.
    """
    try:
        _core.attach(fd, base, window_bytes)
    except OSError:
        if not _is_ours(fd):
            raise
    finally:
        os.close(fd)


def _is_ours(fd: int) -> bool:
    return os.path.sameopenfile(fd, _core.arena_ticket()[0])


class Passport:
    """The first thing an exec'd child unpickles: the arena, the start method, and whether brood is installed.

    environment: variables that the child is to have before it imports anything of the program's.
    """

    def __init__(self, start_method: str | None, environment: dict[str, str], ignores_interrupts: bool):
        self._start_method = start_method
        self._environment = environment
        self._ignores_interrupts = ignores_interrupts

    def __reduce__(self) -> Any:
        """Pickle while a process is being started: the descriptor is handed on with it."""
        from .reduction import DupFd

        fd, base, window_bytes = _core.arena_ticket()
        return _admit, (DupFd(fd), base, window_bytes, self._start_method, _std.installed(), self._environment,
                        self._ignores_interrupts)


def _admit(
    handle: DupFd, base: int, window_bytes: int, start_method: str | None, installed: bool, environment: dict[str, str],
    ignores_interrupts: bool,
) -> None:
    """In the child."""
    from . import _interrupts, _random, context, util
    from ._install import install

    if ignores_interrupts:
        _interrupts.ignore()
    os.environ.update(environment)
    _random.diverge()
    if installed:
        install()
    attach_and_close(handle.detach(), base, window_bytes)
    _core.leave_at_exit()  # an end that nobody else could tell from a death
    context._default_context.set_start_method(start_method, force=True)


def path_prologue() -> str:
    """A Python expression for a child's command line that makes brood importable there.

    The child gets its parent's ``sys.path`` only with the preparation data, which need brood already.
    """
    return f"__import__('sys').path.append({package_parent()!r})"


def is_frozen() -> bool:
    """Whether the program is one executable with the interpreter inside."""
    return bool(getattr(sys, "frozen", False))
