# SPDX-License-Identifier: MIT
"""What a pool's worker does besides running tasks: how it begins and ends."""
from __future__ import annotations

import itertools
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing import process as _process, util as _util
from typing import Any, NoReturn

from . import _core, _ends, _equipment, _errors, _interrupts, _travel
from ._std import TYPE_CHECKING

if TYPE_CHECKING:
    from . import _route

__all__: list[str] = []

# A worker becomes a process of multiprocessing by names of theirs that have no types.
process: Any = _process
util: Any = _util


def name_of(method: str, pid: int | None) -> str:
    """Return what the worker of a pool is called."""
    return f"{method.capitalize()}PoolWorker-{pid}"


class _WorkerProcess(_process.BaseProcess):
    """The current process, in a worker: a daemon that may have children, since these end with it."""

    def __init__(self, owner: Any, method: str) -> None:
        self._identity = (*owner._identity, os.getpid())
        self._config = {name: value for name, value in owner._config.items() if name != "daemon"}  # start() looks there
        self._parent_pid = os.getppid()
        self._parent_name = owner.name
        self._popen = None
        self._closed = False
        self._name = name_of(method, os.getpid())

    @property
    def daemon(self) -> bool:
        """It ends with its owner."""
        return True

    @daemon.setter
    def daemon(self, daemonic: bool) -> None:
        raise AssertionError("process has already started")


class Life:
    """How the workers of one pool begin and end.  Travels to the process that forks them."""

    def __init__(
        self, method: str, initializer: Callable[..., object] | None, initargs: tuple[Any, ...], route: _route.Route | None,
        limits: _ends.Limits, kit: _equipment.Kit,
    ) -> None:
        self.method = method
        self._route = route
        self._limits = limits
        self.kit = kit
        self.owner_pid = os.getpid()
        self.owner_name = process.current_process().name
        self._initializer = initializer
        self._initargs = initargs
        self.main = _travel.Main(method)

    def begin(self) -> None:
        """In the new worker, first of all."""
        owner = process.current_process()
        process._current_process = _WorkerProcess(owner, self.method)
        process._parent_process = _parent(self.owner_name, self.owner_pid)
        process._process_counter = itertools.count(1)
        process._children = set()
        util._close_stdin()
        util._finalizer_registry.clear()
        util._run_after_forkers()
        if self._route is not None:
            self._route.enter()
        _ends.begin_worker()
        _errors.begin_worker(self._limits)
        self.kit.begin()

    def initialize(self) -> bool:
        """Call the user's initializer; False when it fails."""
        if self._initializer is None:
            return True
        try:
            self._initializer(*self._initargs)
        except BaseException:
            # In one piece: all workers do this at the same time.
            text = f"{process.current_process().name}: the initializer failed:\n{traceback.format_exc()}"
            print(text, end="", file=sys.stderr)
            util._flush_std_streams()
            return False
        return True

    def end(self) -> None:
        """In a worker that ends by itself, last of all."""
        try:
            util._exit_function()
        finally:
            threading._shutdown()  # type: ignore[attr-defined]
            util._flush_std_streams()

    def rescue(
        self, arguments: Any, mode: int, first: int, error: BaseException | None, sink: _core._Sink) -> bool:
        """In the owner: see _travel."""
        return _travel.rescue(self.main, arguments, mode, first, error, sink)

    def __getstate__(self) -> dict[str, Any]:
        parts = [("initializer", self._initializer), ("initargs", self._initargs)]
        pickled, _ = _travel.dumps((self._initializer, self._initargs), self.main, parts)
        return {**vars(self), "main": None, "_initializer": None, "_initargs": pickled}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._initializer, self._initargs = pickle.loads(state["_initargs"])


def _parent(name: str, pid: int) -> Any:
    try:
        sentinel = os.pidfd_open(pid)
    except OSError:
        sentinel = -1
    return process._ParentProcess(name, pid, sentinel)


class Starter:
    """Starts the supervisor of a pool of spawn or forkserver; called by the core, again when a supervisor was killed."""

    def __init__(self, context: Any, life: Life) -> None:
        self._context = context
        self._life = life
        self._started: list[Any] = []

    def __call__(self, pool: int, anchor: int, supervisor: int) -> int:
        self._started = [one for one in self._started if one.is_alive()]
        template = self._context.Process(target=_supervise, args=(self._life, pool, anchor, supervisor),
                                         name="PoolTemplate", daemon=True)
        template._brood_environment = self._life.kit.environment
        template._ignores_interrupts = template._outlives_parent = True  # it has to end what that leaves
        current = process.current_process()
        daemon = current._config.pop("daemon", None)  # pools nest: a worker may have a template of its own
        try:
            with _interrupts.held_back(stays=True):  # until the core has the pid
                template.start()
        finally:
            if daemon is not None:
                current._config["daemon"] = daemon
        process._children.discard(template)
        self._started.append(template)
        return int(template.pid)


def _supervise(life: Life, pool: int, anchor: int, supervisor: int) -> NoReturn:
    """In the template: never returns."""
    life.kit.prepare()
    _core.Pool._supervise(pool, anchor, supervisor, life.begin, life.initialize, life.end, life.kit.seed_item)
