# SPDX-License-Identifier: MIT
"""Random numbers in workers: no process draws another's, and with a seed each task draws the same in every run.

What draws is meant to be `random`, NumPy's global generator and libc's rand, random and drand48.  The seeds of a task
are a hash of the pool's seed, the number of the job and the index of the item: who runs it, and together with what,
does not count.
"""
from __future__ import annotations

import operator
import struct
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import _core

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["task_seed"]

_task_seed: int | None = None


def task_seed() -> int | None:
    """Return the seed of the task that this worker runs, an int of 128 bits that no other task has.

    ``numpy.random.default_rng(brood.task_seed())`` and ``random.Random(brood.task_seed())`` are generators of the task's
    own.  None, which both take for a seed that nobody knows, in a pool without a seed and where there is no task.
    """
    return _task_seed


task_seed.__module__ = "brood"


def diverge() -> None:
    """In a new process: draw other numbers than the one that it was forked from, or than others that were exec'd."""
    _core._seed_libc(None)
    diverge_in_python()


def diverge_in_python() -> None:
    """The same where the core has seeded libc already.

    Python's own `random` sees to that by itself.  A generator that a program has made is the program's business.
    """
    global _task_seed
    _task_seed = None
    for finder in [one for one in sys.meta_path if type(one) is _Watch]:
        sys.meta_path.remove(finder)
    _seed_numpy(None)


def _seed_numpy(words: Sequence[int] | None) -> None:
    """Seed NumPy's global generator if there is one; None: with what nobody knows."""
    numpy_random: Any = sys.modules.get("numpy.random")
    if not hasattr(numpy_random, "mtrand"):
        return
    generator = numpy_random.mtrand._rand._bit_generator
    if type(generator) is numpy_random.MT19937 and generator.lock.acquire(False):
        generator.lock.release()
        numpy_random.seed(words)
    elif hasattr(numpy_random, "set_bit_generator"):
        # The program has put another in its place, or a thread that was not forked with us has the lock.
        numpy_random.set_bit_generator(type(generator)(words))


def check_seed(seed: Any) -> int | None:
    """Return the seed as an int, or None; TypeError when it is neither."""
    if seed is None:
        return None
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise TypeError(f"seed must be an int or None, not {type(seed).__name__}")
    return operator.index(seed)


class Seeds:
    """The seeds of a pool's tasks.  Travels to its workers."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._words: Sequence[int] | None = None  # before the first item

    def prepare(self) -> None:
        """In the process that workers are forked from: import what each would."""
        import hashlib  # noqa: F401
        import random  # noqa: F401

    def begin(self) -> None:
        """In a new worker."""
        if "numpy.random" not in sys.modules:
            sys.meta_path.insert(0, _Watch(self))

    def seed_item(self, job: int, index: int) -> None:
        """In a worker, before it calls the function of the job with that item."""
        import hashlib
        import random

        global _task_seed
        digest = hashlib.blake2b(b"%d/%d/%d" % (self._seed, job, index), digest_size=56).digest()
        # A share of its own for each: random and NumPy have the same generator, and would draw the same.
        low, high, first, second, *words, libc = struct.unpack("<4Q4IQ", digest)
        _task_seed = high << 64 | low
        random.seed(second << 64 | first)
        self._words = words
        self.seed_numpy()
        _core._seed_libc(libc)

    def seed_numpy(self) -> None:
        """Seed NumPy's part of the latest item."""
        _seed_numpy(self._words)


class _Watch:
    """Finds numpy.random, as the other finders do, and seeds it: a task may be the first that imports it."""

    def __init__(self, seeds: Seeds) -> None:
        self._seeds = seeds

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Nothing for other names; for this one the spec, once."""
        if fullname != "numpy.random":
            return None
        sys.meta_path.remove(self)
        found = (finder.find_spec(fullname, path, target) for finder in sys.meta_path)
        spec = next((one for one in found if one is not None), None)
        if spec is not None and spec.loader is not None:
            self._add_seeding(spec.loader)
        return spec

    def _add_seeding(self, loader: Any) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module
            execute(module)
            self._seeds.seed_numpy()

        loader.exec_module = exec_module
