# SPDX-License-Identifier: MIT
"""What ``multiprocessing.forkserver`` has, with a server that has imported brood, and attached to the arena.

There is one fork server for a program and all its descendants, also when some of it uses multiprocessing and some of it
brood: the standard library's object, of our class from here on.
"""
from __future__ import annotations

import os
from typing import Any

from . import _arena, _core, _descriptors, _interrupts, _std
from ._std import TYPE_CHECKING
from ._install import install

if TYPE_CHECKING:
    import multiprocessing.forkserver as _real
    from multiprocessing.forkserver import (
        connect_to_new_process as connect_to_new_process,
        ensure_running as ensure_running,
        get_inherited_fds as get_inherited_fds,
        main as main,
        set_forkserver_preload as set_forkserver_preload,
    )
else:
    _real = _std.load("forkserver")

__all__ = list(_real.__all__)

_NEEDS = 6  # a socket, two pipes; in pairs


class _Preload(list):  # type: ignore[type-arg]
    """The modules to preload.  Formatted into the server's command line, it becomes a call of ``serving``.

    The command line is made inside ``ForkServer.ensure_running``, which differs between versions of Python; this list is
    the one thing in it that is ours.  It is evaluated in the server before anything is preloaded.
    """

    def __repr__(self) -> str:
        fd, base, window_bytes = _core.arena_ticket()
        ticket = (f"/proc/{os.getpid()}/fd/{fd}", base, window_bytes)
        arguments = f"{list(self)!r}, {ticket!r}, {_std.installed()}, {_interrupts.were_let_through()}"
        return f"({_arena.path_prologue()}, __import__('brood.forkserver').forkserver.serving({arguments}))[1]"


class ForkServer(_real.ForkServer):
    """The standard library's, whose server has brood's arena before it preloads anything."""

    _forkserver_pid: int | None

    def ensure_running(self) -> None:
        """Start the server unless there is one; it never sees Ctrl-C, not even while it starts."""
        with _interrupts.held_back():
            super().ensure_running()

    def connect_to_new_process(self, fds: Any) -> tuple[int, int]:
        """Ask the server for a process; not without the descriptors that it is to be sent."""
        self.ensure_running()
        _descriptors.expect_room(_NEEDS)
        try:
            return super().connect_to_new_process(fds)
        except ConnectionRefusedError:
            self._await_end()
            return super().connect_to_new_process(fds)

    def _await_end(self) -> None:
        """A server that could not fork is on its way out; the next one may be started once it is gone."""
        if self._forkserver_pid is not None:
            os.waitid(os.P_PID, self._forkserver_pid, os.WEXITED | os.WNOWAIT)

    @property
    def _preload_modules(self) -> list[str]:
        return _Preload(self.__dict__["_preload_modules"])

    @_preload_modules.setter
    def _preload_modules(self, names: list[str]) -> None:
        self.__dict__["_preload_modules"] = names


_forkserver = _real._forkserver
_forkserver.__class__ = ForkServer

if not TYPE_CHECKING:
    ensure_running = _forkserver.ensure_running
    get_inherited_fds = _forkserver.get_inherited_fds
    connect_to_new_process = _forkserver.connect_to_new_process
    set_forkserver_preload = _forkserver.set_forkserver_preload
    main = _real.main


def __getattr__(name: str) -> Any:
    return getattr(_real, name)


def serving(names: list[str], ticket: tuple[str, int, int], installed: bool, had_interrupts: bool) -> list[str]:
    """In the server, first of all: take part in the arena; returns the modules to preload.

    The processes that it forks would import what they begin with, each anew: the server has it.
    """
    if had_interrupts:
        _interrupts.let_children_have_them()
    if installed:
        install()
    path, base, window_bytes = ticket
    _arena.attach_and_close(os.open(path, os.O_RDWR | os.O_CLOEXEC), base, window_bytes)
    import pkgutil
    import runpy  # noqa: F401

    from . import _daemons, _worker, context, popen_forkserver, process, util  # noqa: F401
    return names
