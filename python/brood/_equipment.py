# SPDX-License-Identifier: MIT
"""What the workers of a pool are given besides tasks: each part is asked for by a keyword of ``Pool``.

    logging             _logging    their log records go to the owner's handlers
    faulthandler        _stacks     their Python stacks, when they crash, go into WorkerDied
    threads_per_worker  _threads    how many threads BLAS and OpenMP may have in each
    seed                _random     what their tasks draw at random depends on it alone
"""
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import _random, _stacks, _threads

if TYPE_CHECKING:
    from logging import Logger
    from typing import Literal, TypedDict

    class Options(TypedDict, total=False):
        """The keywords."""

        logging: bool | int | str | Logger | None
        faulthandler: bool
        threads_per_worker: int | Literal["auto"] | None
        seed: int | None

__all__: list[str] = []

_LAST_WAIT = 5.0  # seconds for handlers of a pool that nobody has ended


class Kit:
    """The worker's half.  Travels to workers; ``begin`` is called in each, before the initializer."""

    def __init__(
        self, outlet: Any, stacks: _stacks.Stacks | None, cap: _threads.Cap | None, seeds: _random.Seeds | None
    ) -> None:
        self.environment = cap.environment if cap is not None else {}  # what a worker's has besides the owner's
        self.seed_item = seeds.seed_item if seeds is not None else None
        self._parts: list[Any] = [part for part in (stacks, outlet, cap, seeds) if part is not None]

    def prepare(self) -> None:
        """In the process that workers are forked from: what need not be done in each of them."""
        for part in self._parts:
            part.prepare()

    def begin(self) -> None:
        """In a new worker."""
        _random.diverge_in_python()
        for part in self._parts:
            part.begin()


class Equipment:
    """The owner's half."""

    def __init__(
        self,
        workers: int,
        logging: bool | int | str | Logger | None,
        faulthandler: bool,
        threads_per_worker: int | Literal["auto"] | None,
        seed: int | None,
    ) -> None:
        if not isinstance(faulthandler, bool):
            raise TypeError(f"faulthandler must be a bool, not {type(faulthandler).__name__}")
        seed = _random.check_seed(seed)
        cap = _threads.Cap.of(threads_per_worker, workers)
        self._relay = _relay_of(logging)
        self._stacks = _make_stacks() if faulthandler else None
        self.kit = Kit(self._relay and self._relay.outlet, self._stacks, cap, None if seed is None else _random.Seeds(seed))

    @property
    def stack_of(self) -> Callable[[int], str | None] | None:
        """What tells the stack of a worker that died, by its pid."""
        return self._stacks.stack_of if self._stacks is not None else None

    @property
    def wants_jobs(self) -> bool:
        """Whether start does anything."""
        return self._relay is not None

    def start(self) -> None:
        """Before a job: from now on there may be something to do."""
        if self._relay is not None:
            self._relay.start()

    def finish(self, timeout: float | None = None) -> None:
        """After the last worker's end."""
        if self._relay is not None:
            self._relay.finish(timeout)
        if self._stacks is not None:
            self._stacks.close()

    def drop(self) -> None:
        """The same for a pool that nobody has ended: the program may be at its end, or in the middle of anything."""
        self.finish(_LAST_WAIT)


def _make_stacks() -> _stacks.Stacks | None:
    try:
        return _stacks.Stacks()
    except OSError:  # no descriptor left: the pool has to do without
        return None


def _relay_of(logging: Any) -> Any:
    if logging is None or logging is False:
        return None
    from . import _logging

    wanted = _logging.check(logging)
    return _logging.Relay(*wanted) if wanted is not None else None
