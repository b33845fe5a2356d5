# SPDX-License-Identifier: MIT
"""What the tests of large data share: a pool of one worker, and fixtures that see to it that all memory comes back."""
import gc

import numpy
import pytest

import brood as mp
from brood import _core

from support import until

LARGE = 1 << 20  # bytes of an array that travels in a block of its own
METHODS = ("fork", "spawn", "forkserver")


@pytest.fixture(scope="module")
def pool():
    """A pool of one worker: it is always the same that is asked."""
    with mp.get_context("fork").Pool(1) as made:
        yield made


@pytest.fixture
def given_back(pool):
    """What the test took of the arena is free again at its end."""
    gc.collect()
    before = used(pool)
    yield
    gc.collect()
    until(lambda: used(pool) < before + LARGE // 2)


def used(pool):
    """How many bytes of shared memory hold something, without those that go when the next is asked for: jobs that a worker still looks
    at, and what was lost with somebody."""
    pool.apply(same, (1,))
    _core._sweep()
    return _core.arena_stats()["used_bytes"]


def large(value=0.0):
    """A new array that is large."""
    return numpy.full(LARGE // 8, value)


def counts():
    """What this process has done with large data."""
    return _core._bulk_counts()


class Difference:
    """How much of what counts() says is done in a with statement: its `counts` after that."""

    def __enter__(self):
        self._before = counts()
        return self

    def __exit__(self, *details):
        self.counts = {name: value - self._before[name] for name, value in counts().items()}


def same(value):
    """What a task got, back."""
    return value


def first(array):
    """The first element."""
    return float(array.flat[0])


def add_one(array):
    """Write to what was got, and return it."""
    array += 1
    return array


def through_queue(value):
    """Put it into a queue and get it."""
    queue = mp.SimpleQueue()
    queue.put(value)
    return queue.get()
