# SPDX-License-Identifier: MIT
"""What a pool's worker does besides running tasks: how it begins and ends, and how callables travel to it."""
from __future__ import annotations

import collections
import io
import itertools
import os
import sys
import threading
import traceback
import types
from collections.abc import Callable
from multiprocessing import process as _process, util as _util
from multiprocessing.reduction import ForkingPickler
from typing import Any, NoReturn

from . import _core, _ends, _errors, _route

__all__: list[str] = []

# A worker becomes a process of multiprocessing by names of theirs that have no types.
process: Any = _process
util: Any = _util


class _WorkerProcess(_process.BaseProcess):
    """The current process, in a worker."""

    def __init__(self, owner: Any, method: str) -> None:
        self._identity = (*owner._identity, os.getpid())
        self._config = dict(owner._config, daemon=True)
        self._parent_pid = os.getppid()
        self._parent_name = owner.name
        self._popen = None
        self._closed = False
        self._name = f"{method.capitalize()}PoolWorker-{os.getpid()}"


class Life:
    """How the workers of one pool begin and end.  Travels to the process that forks them."""

    def __init__(
        self, method: str, initializer: Callable[..., object] | None, initargs: tuple[Any, ...], route: _route.Route | None,
        limits: _ends.Limits,
    ) -> None:
        self.method = method
        self._route = route
        self._limits = limits
        self.owner_pid = os.getpid()
        self.owner_name = process.current_process().name
        self._initializer = initializer
        self._initargs = initargs
        self._main = {name: id(value) for name, value in vars(sys.modules["__main__"]).items()
                      if isinstance(value, types.FunctionType)}

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
        _route.enter(self._route)
        _ends.begin_worker()
        _errors.begin_worker(self._limits)

    def initialize(self) -> bool:
        """Call the user's initializer; False when it fails."""
        if self._initializer is None:
            return True
        try:
            self._initializer(*self._initargs)
        except BaseException:
            print(f"{process.current_process().name}: the initializer failed:", file=sys.stderr)
            traceback.print_exc()
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

    def has_in_main(self, function: types.FunctionType) -> bool:
        """Whether a worker finds the function of __main__ by its name."""
        if self.method == "fork":
            return self._main.get(function.__qualname__) == id(function)
        return hasattr(sys.modules["__main__"], "__file__")


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
        current = process.current_process()
        daemon = current._config.pop("daemon", None)  # pools nest: a worker may have a template of its own
        try:
            template.start()
        finally:
            if daemon is not None:
                current._config["daemon"] = daemon
        process._children.discard(template)
        self._started.append(template)
        return int(template.pid)


def _supervise(life: Life, pool: int, anchor: int, supervisor: int) -> NoReturn:
    """In the template: never returns."""
    _core.Pool._supervise(pool, anchor, supervisor, life.begin, life.initialize, life.end)


def pickle_callable(function: Callable[..., Any], life: Life) -> tuple[bytes, bool, bool]:
    """(bytes, is_kept, is_lasting): workers may keep the object for a job; its pickle will always be the same.

    Plain pickle first, then cloudpickle by value, for lambdas, closures, and functions that the workers have not seen.
    """
    is_function = isinstance(function, (types.FunctionType, types.BuiltinFunctionType))
    plain_error = None
    if not (isinstance(function, types.FunctionType) and function.__module__ == "__main__"
            and not life.has_in_main(function)):
        try:
            return bytes(ForkingPickler.dumps(function)), is_function, is_function
        except Exception as error:
            plain_error = error
    try:
        return _pickle_by_value(function), isinstance(function, types.FunctionType), False
    except Exception as error:
        raise (plain_error or error) from (error if plain_error else None)


def with_retries(function: Callable[..., Any], plan: _ends.Plan, life: Life) -> Callable[..., Any]:
    """The function, or what stands for it when it is to be called again after some exceptions."""
    if not plan.retries or not plan.retry_on:
        return function
    return _ends.Retry(pickle_callable(function, life)[0], plan.retries, plan.retry_on)


def _pickle_by_value(function: Callable[..., Any]) -> bytes:
    """With cloudpickle, and the reducers of ForkingPickler: what a closure holds of ours is shared, and not copied."""
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        dispatch_table = collections.ChainMap(
            ForkingPickler._extra_reducers,  # type: ignore[attr-defined]
            cloudpickle.Pickler.dispatch_table)  # pyright: ignore[reportArgumentType]

    buffer = io.BytesIO()
    Pickler(buffer).dump(function)
    return buffer.getvalue()
