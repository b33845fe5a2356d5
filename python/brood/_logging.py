# SPDX-License-Identifier: MIT
"""Log records of workers, handled by their owner's handlers.

In a worker one handler takes the place of those that the owner has; it puts each record, as bytes, into a queue of the
core before the call that logs returns: what was logged is there, however the worker ends.  In the owner a thread takes
them out and gives each to the logger of its name.  Levels are the worker's business, which begins with the owner's;
filters, propagation and handlers are the owner's.

The queue has a bound: a worker that finds it full waits for the thread, but not for ever, as the handler that the thread
is in may itself wait for this worker.
"""
from __future__ import annotations

import logging
import pickle
import sys
import threading
from collections.abc import Iterator
from typing import Any

from . import _core

__all__: list[str] = []

_MOST_WAITING = 8192  # records
_PATIENCE = 1.0  # seconds that a worker waits for room
_BATCH = 64
_END = b""
_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"taskName"}


def check(choice: Any) -> tuple[logging.Logger, int] | None:
    """What the argument `logging` asks for: the logger whose records are relayed, and from which level on."""
    if choice is None or choice is False:
        return None
    if choice is True:
        return logging.root, logging.NOTSET
    if isinstance(choice, logging.Logger):
        if logging.getLogger(choice.name) is not choice:
            raise ValueError(f"logging must be a logger of logging.getLogger(), not {choice!r}")
        return choice, logging.NOTSET
    return logging.root, _level_of(choice)


def _level_of(choice: Any) -> int:
    if isinstance(choice, int):
        return choice
    if not isinstance(choice, str):
        raise TypeError(f"logging must be a bool, a level, a logger or None, not {type(choice).__name__}")
    level = logging.getLevelName(choice)
    if not isinstance(level, int):
        raise ValueError(f"logging must be a bool, a level, a logger or None, and {choice!r} is the name of no level")
    return level


def _below(top: logging.Logger) -> Iterator[logging.Logger]:
    """The logger and those that there are below it."""
    yield top
    for name, logger in list(logging.root.manager.loggerDict.items()):
        is_below = top is logging.root or name.startswith(top.name + ".")
        if is_below and isinstance(logger, logging.Logger):
            yield logger


# ---- a record as bytes ----


def _pickle(value: Any) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception:
        try:
            return pickle.dumps(repr(value))
        except Exception as error:
            return pickle.dumps(f"<neither pickle nor repr: {type(error).__name__}>")


def _pack(record: logging.LogRecord) -> bytes:
    """Message and traceback are made into text here, where arguments and frames are; what a program has added goes as it is if it can."""
    state = dict(vars(record), msg=record.getMessage(), args=None, exc_info=None)
    if record.exc_info and not record.exc_text:
        state["exc_text"] = logging.Formatter().formatException(record.exc_info)
    added = {name: _pickle(state.pop(name)) for name in list(state) if name not in _STANDARD}
    return pickle.dumps((state, added))


def _unpickle(value: bytes) -> Any:
    try:
        return pickle.loads(value)
    except Exception as error:
        return f"<cannot be unpickled here: {error}>"


def _unpack(data: bytes) -> logging.LogRecord:
    state, added = pickle.loads(data)
    return logging.makeLogRecord({**state, **{name: _unpickle(value) for name, value in added.items()}})


# ---- the worker ----


class Outlet:
    """Where the workers of a pool put their records.  Travels to them."""

    def __init__(self, top: logging.Logger, level: int) -> None:
        self.queue = _core.Queue()
        self.room = _core.Event()  # set whenever the owner has taken something out
        self._top = top.name
        self._level = level
        self._disabled_level = logging.root.manager.disable
        self._settings = [(one.name, one.level, one.propagate, one.disabled) for one in _below(top)]
        self._is_patient = True

    def prepare(self) -> None:
        """Do nothing in the process that workers are forked from: it goes on to log as it did."""

    def begin(self) -> None:
        """In a new worker: log as the owner would, into the queue."""
        logging.disable(self._disabled_level)
        for name, level, propagate, disabled in self._settings:
            logger = logging.getLogger(name)
            if logger.level != level:  # each change clears all loggers' caches
                logger.setLevel(level)
            logger.propagate, logger.disabled = propagate, disabled
        top = logging.getLogger(self._top)
        top.propagate = False
        handler = _OutletHandler(self, self._level)
        for logger in _below(top):
            logger.handlers[:] = [] if logger.propagate and logger is not top else [handler]
            logger.filters[:] = []

    def put(self, data: bytes) -> None:
        """Put a record, and wait for room before that."""
        if self.queue.qsize() < _MOST_WAITING:
            self._is_patient = True
        elif self._is_patient:
            self.room.clear()
            if self.queue.qsize() >= _MOST_WAITING:
                self._is_patient = self.room.wait(_PATIENCE)
        self.queue.put(data)


class _OutletHandler(logging.Handler):
    def __init__(self, outlet: Outlet, level: int) -> None:
        super().__init__(level)
        self._outlet = outlet

    def emit(self, record: logging.LogRecord) -> None:
        """Put the record into the queue."""
        try:
            self._outlet.put(_pack(record))
        except Exception:
            self.handleError(record)


# ---- the owner ----


class Relay:
    """The owner's end: has the records handled, by a thread that is there from the first job on."""

    def __init__(self, top: logging.Logger, level: int) -> None:
        self.outlet = Outlet(top, level)
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._is_finished = False  # _END was put
        self._is_over = False  # and taken

    def start(self) -> None:
        """Have a thread, if there is none yet."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None and not self._is_finished:
                thread = threading.Thread(target=self._run, daemon=True, name="brood-logging")
                thread.start()
                self._thread = thread

    def finish(self, timeout: float | None) -> None:
        """After the last worker's end: wait until all records were handled, and the thread is gone.

        Not where that would be waiting for oneself: in a handler.  The thread then ends by itself.
        """
        with self._lock:
            if not self._is_finished:
                self.outlet.queue.put(_END)
                self._is_finished = True
        if self._thread is threading.current_thread() or _has_lock_of_logging():
            return
        if self._thread is not None:
            self._thread.join(timeout)
            return
        with self._lock:
            self._run()

    def _run(self) -> None:
        queue, room = self.outlet.queue, self.outlet.room
        while not self._is_over:
            batch = queue.get_many(_BATCH)
            if not room.is_set():  # before a handler takes its time
                room.set()
            for data in batch:
                self._is_over = data == _END
                if not self._is_over:
                    _handle(data)


def _handle(data: bytes) -> None:
    try:
        record = _unpack(data)
        logging.getLogger(record.name).handle(record)
    except (Exception, SystemExit):
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


def _has_lock_of_logging() -> bool:
    """Whether this thread is in a handler, or in logging's own critical section: who handles records needs these locks."""
    handlers = [reference() for reference in logging._handlerList]  # type: ignore[attr-defined]
    locks = [logging._lock, *(handler.lock for handler in handlers if handler is not None)]  # type: ignore[attr-defined]
    return any(lock._is_owned() for lock in locks if hasattr(lock, "_is_owned"))
