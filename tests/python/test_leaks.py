# SPDX-License-Identifier: MIT
"""Nothing grows: tens of thousands of operations leave as many objects, bytes, descriptors and blocks of the arena as a few."""
import contextlib
import ctypes
import gc
import os
import pickle
import queue
import sys
import tracemalloc

import pytest

import brood as mp
from brood import _core

from support import runs_under

pytestmark = pytest.mark.skipif(runs_under("asan"), reason="AddressSanitizer keeps what is freed: nothing can be counted")

WITHIN = 30
MANY = 20_000
SOME = 4_000
FEW = 300  # how many objects may come and go by themselves: the interpreter keeps some to use them again
FEW_BYTES = 64 * 1024
FEW_BLOCKS = 20  # a worker gives some back a little later than its owner knows of the result
PER_ROUND = 0.01


@pytest.fixture(scope="module")
def pool():
    """A pool of one worker, so that it is always the same that is asked how much it has."""
    with mp.get_context("fork").Pool(1) as made:
        yield made


class _Mallinfo(ctypes.Structure):
    """What mallinfo2() returns."""

    _fields_ = [(name, ctypes.c_size_t) for name in
                ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]


def malloc_bytes():
    """How many bytes of malloc are in use, by Python or by C; 0 where the libc does not tell."""
    function = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if function is None:
        return 0
    function.restype = _Mallinfo
    info = function()
    return info.uordblks + info.hblkhd


def footprint():
    """Counts of what this process has: {name: (count, how much of it may come and go)}."""
    gc.collect()
    return {
        "objects": (sys.getallocatedblocks(), FEW),
        "bytes": (malloc_bytes(), FEW_BYTES),
        "descriptors": (len(os.listdir("/proc/self/fd")), 0),
        "blocks of the arena": (_core.arena_stats()["used_blocks"], FEW_BLOCKS),
    }


def grown(before, after, rounds):
    """What of it has grown."""
    return {name: count - before[name][0] for name, (count, slack) in after.items()
            if count - before[name][0] > slack + (PER_ROUND * rounds if slack else 0)}


def assert_flat(operation, rounds):
    """Call operation() so often, after a few calls to warm up; nothing may have grown by then."""
    for _ in range(rounds // 10):
        operation()
    for _ in range(3):  # a leak grows each time; what the interpreter keeps comes and goes, now and then by more than FEW
        before = footprint()
        for _ in range(rounds):
            operation()
        found = grown(before, footprint(), rounds)
        if not found:
            break
    assert found == {}
    assert_flat_to_tracemalloc(operation, rounds // 4)


def assert_flat_to_tracemalloc(operation, rounds):
    """The same as tracemalloc sees it, which also tells where.  A leak grows each time; a cache that grows once is none."""
    tracemalloc.start()
    try:
        for _ in range(rounds // 10):
            operation()
        for _ in range(3):
            lines = grown_lines(operation, rounds)
            if not lines:
                break
    finally:
        tracemalloc.stop()
    assert lines == []


def grown_lines(operation, rounds):
    """Where so many calls leave objects behind."""
    gc.collect()
    before = tracemalloc.take_snapshot()
    for _ in range(rounds):
        operation()
    gc.collect()
    differences = tracemalloc.take_snapshot().compare_to(before, "lineno")
    return [str(line) for line in differences if line.count_diff > FEW + PER_ROUND * rounds]


def square(x):
    return x * x


def fail(x):
    raise ValueError(f"no {x}")


# ---- queues and locks ----


@pytest.mark.parametrize("value", [7, "text" * 20, b"x" * 5000, {"a": [1, (2.5, None)]}, RuntimeError("one")],
                         ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue"])
def test_put_and_get(kind, value):
    made = getattr(mp, kind)()

    def there_and_back():
        made.put(value)
        made.get()

    assert_flat(there_and_back, MANY)


def test_queues_that_refuse():
    made = mp.Queue(1)

    def refuse():
        with contextlib.suppress(queue.Empty):
            made.get_nowait()
        with contextlib.suppress(Exception):
            made.put(refuse)  # has no pickle
        made.put(1)
        with contextlib.suppress(queue.Full):
            made.put([2], False)
        with contextlib.suppress(TypeError):
            made.put(obj=1, nonsense=2)
        assert made.get(timeout=1) == 1

    assert_flat(refuse, MANY // 4)


def test_put_many_and_get_many():
    made, items = mp.Queue(), [1, "two", [3.0], b"4" * 5000]

    def there_and_back():
        made.put_many(items)
        taken = []
        while len(taken) < len(items):
            taken += made.get_many(10)
        assert taken == items

    assert_flat(there_and_back, MANY // 4)


@pytest.mark.parametrize("size", [10, 5000])
def test_put_bytes_and_get_bytes(size):
    made, data = mp.Queue(), bytearray(size)

    def there_and_back():
        made.put_bytes(data)
        assert len(made.get_bytes()) == size
        with contextlib.suppress(TypeError):
            made.put_bytes("text")
        with contextlib.suppress(queue.Empty):
            made.get_bytes(False)

    assert_flat(there_and_back, MANY // 2)


def test_queues_from_handles():
    made = mp.Queue()

    def make_one():
        mp.queues.Queue.from_handle(made.handle).put_bytes(b"x")
        made.get_bytes()
        with contextlib.suppress(ValueError):
            mp.queues.Queue.from_handle(made.handle + 1)

    assert_flat(make_one, SOME)


def test_joinable_queue():
    made = mp.JoinableQueue()

    def one_task():
        made.put(None)
        made.get()
        made.task_done()
        made.join()

    assert_flat(one_task, MANY // 4)


def test_locks():
    locks = [mp.Lock(), mp.RLock(), mp.Semaphore(2), mp.BoundedSemaphore(1)]

    def acquire_all():
        for lock in locks:
            with lock:
                lock.acquire(False) and lock.release()
            repr(lock)
        with contextlib.suppress(ValueError):
            locks[3].release()

    assert_flat(acquire_all, MANY // 2)


def test_conditions_events_barriers():
    condition, event, barrier = mp.Condition(), mp.Event(), mp.Barrier(1)

    def use_all():
        with condition:
            condition.wait(0)
            condition.notify_all()
        event.set()
        event.wait(1)
        event.clear()
        event.wait(0)
        barrier.wait()

    assert_flat(use_all, MANY // 4)


@pytest.mark.parametrize("make", ["Lock", "RLock", "Semaphore", "Condition", "Event", "Queue", "JoinableQueue", "SimpleQueue"])
def test_objects_come_and_go(make):
    def make_one():
        made = getattr(mp, make)()
        copy = pickle.loads(pickle.dumps(made))
        del made, copy

    assert_flat(make_one, SOME)


def test_shared_values_come_and_go():
    def make_some():
        value, array = mp.Value("i", 3), mp.Array("d", [1.0, 2.0])
        copy = pickle.loads(bytes(mp.reduction.ForkingPickler.dumps(value)))
        copy.value += 1
        assert (value.value, array[:]) == (4, [1.0, 2.0])

    assert_flat(make_some, SOME)


# ---- pools ----


def test_apply(pool):
    assert_flat(lambda: pool.apply(square, (3,)), MANY // 2)


def test_map(pool):
    assert_flat(lambda: pool.map(square, range(100), 10), SOME)


def test_imap(pool):
    assert_flat(lambda: list(pool.imap(square, iter(range(20)), 2, buffersize=3)), SOME)


def test_an_imap_that_is_dropped(pool):
    def take_one():
        assert next(pool.imap(square, range(5))) == 0

    assert_flat(take_one, SOME)


def test_errors_of_tasks(pool):
    def one_error():
        with contextlib.suppress(ValueError):
            pool.apply(fail, (3,))

    assert_flat(one_error, SOME)


def test_new_functions(pool):
    assert_flat(lambda: pool.apply(lambda x: x + 1, (3,)), SOME)


def test_long_functions(pool):
    def apply_long():
        data = bytes(5000)
        assert pool.map(lambda x: len(data) + x, [1]) == [5001]

    assert_flat(apply_long, SOME)


def test_results_that_nobody_fetches(pool):
    def submit():
        pool.apply_async(square, (3,)).wait(WITHIN)

    assert_flat(submit, SOME)


def test_what_cannot_be_submitted(pool):
    generator = (x for x in ())

    def refuse():
        with contextlib.suppress(TypeError):
            pool.apply(square, (generator,))

    assert_flat(refuse, SOME)


def test_workers_grow_no_more_than_owners(pool):
    def work():
        pool.map(square, range(50), 5)
        with contextlib.suppress(ValueError):
            pool.apply(fail, (3,))

    for _ in range(SOME // 10):
        work()
    gc.collect()  # the errors that were caught here are in cycles, and have their jobs
    before = pool.apply(footprint)
    for _ in range(SOME):
        work()
    gc.collect()
    assert grown(before, pool.apply(footprint), SOME) == {}


def test_pools_come_and_go():
    def one_pool():
        with mp.Pool(2) as made:
            assert made.map(square, range(4)) == [0, 1, 4, 9]

    assert_flat(one_pool, 30)


def test_processes_come_and_go():
    made = mp.Queue()

    def one_process():
        process = mp.Process(target=made.put, args=(1,))
        process.start()
        process.join(WITHIN)
        assert made.get(timeout=WITHIN) == 1
        process.close()

    assert_flat(one_process, 50)
