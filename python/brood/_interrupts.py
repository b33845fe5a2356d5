# SPDX-License-Identifier: MIT
"""Ctrl-C while processes come up: it goes to every process of the terminal, and is the owner's business alone.

A process that is to ignore it is started with SIGINT blocked, which outlasts exec, until it can say so itself.
"""
from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker as _tracker
from typing import Any

__all__: list[str] = []


_resource_tracker: Any = _tracker  # ensure_running has no types
_had_interrupts = False


@contextlib.contextmanager
def held_back(stays: bool = False) -> Iterator[None]:
    """Start a process that is to ignore interrupts.  stays: the caller restores the mask of signals."""
    global _had_interrupts
    _resource_tracker.ensure_running()  # which lets them through when it has to start its process
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    outer, _had_interrupts = _had_interrupts, _had_interrupts or signal.SIGINT not in before
    try:
        yield
    finally:
        _had_interrupts = outer
        if not stays:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def were_let_through() -> bool:
    """In held_back: whether they were before."""
    return _had_interrupts


def ignore() -> None:
    """In such a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def let_children_have_them() -> None:
    """In the fork server, which keeps them blocked: what it forks has them again, and what that forks in turn is let alone."""
    server = os.getpid()

    def let_through() -> None:
        nonlocal server
        if os.getppid() == server:
            server = -1
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])

    os.register_at_fork(after_in_child=let_through)
