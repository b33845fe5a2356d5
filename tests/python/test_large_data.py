# SPDX-License-Identifier: MIT
"""Large data: arrays and buffers arrive as they were, are their receiver's own, and their memory is given back."""
import contextlib
import gc
import os
import pickle
import signal
import subprocess
import sys

import pytest

import brood as mp
from brood import _core

from support import child, ended, runs_under

numpy = pytest.importorskip("numpy")

from large import (  # noqa: E402, F401  # they need NumPy; fixtures
    LARGE, METHODS, Difference, add_one, first, given_back, large, pool, same, through_queue)


# ---- what arrives ----


class Tagged(numpy.ndarray):
    """A subclass with nothing of its own."""


RECORD = numpy.dtype([("x", "f8"), ("name", "S8"), ("n", "i4", (3,))])


def arrays():
    """Large arrays of all kinds."""
    plain = numpy.arange(LARGE, dtype="u1")
    grid = numpy.arange(LARGE // 8, dtype=float).reshape(256, -1)
    frozen = large(3.0)
    frozen.flags.writeable = False
    return {
        "plain": plain, "reversed": plain[::-1], "strided": grid[::2, 1::3], "fortran": numpy.asfortranarray(grid),
        "transposed": grid.T, "slice": plain[1000:], "bools": plain % 3 == 0, "read-only": frozen,
        "records": numpy.zeros(LARGE // RECORD.itemsize, RECORD), "dates": numpy.arange(LARGE // 8).astype("M8[s]"),
        "text": numpy.array(["word"] * (LARGE // 16)), "complex": numpy.ones(LARGE // 16, complex),
        "swapped": numpy.arange(LARGE // 4, dtype=">i4"), "none": numpy.empty((0, LARGE)), "scalar": numpy.array(7.0),
        "broadcast": numpy.broadcast_to(numpy.arange(1000), (300, 1000)), "half": numpy.ones(LARGE // 2, "f2"),
        "subclass": grid.view(Tagged), "masked": numpy.ma.masked_less(grid, 9.0), "small": numpy.arange(10),
    }


@pytest.mark.parametrize("name", list(arrays()))
def test_arrays_arrive_as_they_were(pool, given_back, name):
    array = arrays()[name]
    for got in (through_queue(array), pool.apply(same, (array,))):
        assert type(got) is type(array)
        assert got.dtype == array.dtype
        assert got.shape == array.shape
        assert numpy.array_equal(got, array)
        assert got.flags.writeable
        del got


def test_arrays_of_objects_are_pickled_whole(pool, given_back):
    array = numpy.array([1, "two", [3]] * 10000, dtype=object)
    with Difference() as done:
        assert list(through_queue(array)) == list(array)
    assert done.counts["bulks_made"] == 0
    assert list(pool.apply(same, (array,))) == list(array)


@pytest.mark.parametrize("value", [b"x" * LARGE, bytearray(b"y" * LARGE), "z" * LARGE, ["w" * LARGE, {1: b"v" * LARGE}]],
                         ids=["bytes", "bytearray", "str", "nested"])
def test_long_bytes_and_strings(pool, given_back, value):
    with Difference() as done:
        got = through_queue(value)
    assert got == value
    assert type(got) is type(value)
    total = 2 * LARGE if isinstance(value, list) else LARGE
    assert done.counts["copied_bytes"] == total  # into the queue, once
    assert pool.apply(same, (value,)) == value
    assert pool.map(same, [value] * 3) == [value] * 3


def test_nested_containers(pool, given_back):
    array = large(5.0)
    value = {"a": [array, (array, {"b": large(6.0)})], "n": 1}
    for got in (through_queue(value), pool.apply(same, (value,))):
        assert got["a"][0] is got["a"][1][0], "one array is one array"
        assert first(got["a"][0]) == 5.0
        assert first(got["a"][1][1]["b"]) == 6.0
        del got


def test_picklable_buffers_of_any_type(given_back):
    class Wrapped:
        def __init__(self, data):
            self.data = data

    class Holder:
        def __init__(self, data):
            self.data = data

        def __reduce_ex__(self, protocol):
            return bytearray, (pickle.PickleBuffer(self.data),) if protocol >= 5 else (bytes(self.data),)

    data = bytes(range(256)) * 4096
    assert through_queue(Holder(data)) == data
    assert through_queue(Holder(memoryview(data)[1:])) == data[1:]
    assert through_queue(Holder(data[:100])) == data[:100]
    assert through_queue(Holder(b"")) == b""


def test_bool_of_small_arrays_is_as_with_the_standard_library(given_back):
    small = numpy.arange(10)
    small.flags.writeable = False
    got = through_queue(small)
    assert got.flags.writeable
    assert got.flags.owndata


def test_several_at_once(given_back):
    queue = mp.SimpleQueue()
    values = [1, large(1.0), "two", large(2.0), b"x" * LARGE, None]
    assert queue.put_many(values) == len(values)
    got = []
    while len(got) < len(values):
        got += queue.get_many(10)
    assert got[0] == 1
    assert first(got[1]) == 1.0
    assert got[2] == "two"
    assert first(got[3]) == 2.0
    assert got[4:] == [b"x" * LARGE, None]
    del got, queue


def test_what_does_not_fit_into_a_full_queue_is_given_back(given_back):
    queue = mp.Queue(1)
    queue.put(1)
    with pytest.raises(mp.queues.Full):
        queue.put(large(), timeout=0)
    with pytest.raises(mp.queues.Full):
        queue.put_many([large()], timeout=0)
    assert queue.get() == 1


@pytest.mark.parametrize("method", METHODS)
def test_all_start_methods(method, given_back):
    with mp.get_context(method).Pool(2) as workers:
        made = workers.map(add_one, [large(float(i)) for i in range(6)], chunksize=1)
        assert [first(array) for array in made] == [float(i + 1) for i in range(6)]
        made = list(workers.imap(add_one, (large(float(i)) for i in range(20)), buffersize=3))
        assert [first(array) for array in made] == [float(i + 1) for i in range(20)]
        assert first(workers.apply(add_one, (large(1.0),), retries=2)) == 2.0
        del made


def test_what_is_sent_is_free_again_at_once(pool, given_back):
    data, array = bytearray(LARGE), large()
    result = pool.map_async(same, [data, array], chunksize=1)
    data.extend(b"more")
    array.resize(LARGE, refcheck=False)
    assert len(result.get()[0]) == LARGE
    assert len(result.get()[1]) == LARGE // 8
    del result


def test_an_imap_is_bounded_in_bytes(pool, given_back):
    made = []

    def arrays_of_8_mib():
        for i in range(40):
            made.append(i)
            yield numpy.full(LARGE, float(i))

    stream = pool.imap(first, arrays_of_8_mib(), buffersize=100)
    assert len(made) == 64 // 8, "the bound is 64 MiB in flight"
    assert list(stream) == [float(i) for i in range(40)]


def test_lambdas_and_large_arguments(pool, given_back):
    assert pool.apply(lambda array, add: float(array[0]) + add(1), (large(1.0), lambda x: x + 1)) == 3.0


# ---- whose it is ----


def test_what_arrives_is_its_receivers_own(pool, given_back):
    array = large(1.0)
    got = through_queue(array)
    got += 1
    assert first(array) == 1.0
    again = through_queue(got)  # lies in shared memory, and is no less a copy for that
    again += 1
    assert (first(got), first(again)) == (2.0, 3.0)
    assert first(pool.apply(add_one, (array,))) == 2.0
    assert first(array) == 1.0
    assert [first(one) for one in pool.map(add_one, [array] * 3, chunksize=1)] == [2.0] * 3


def spoil_and_die(array, path):
    """The first time: change the argument and die.  The second time: what is it?"""
    if not os.path.exists(path):
        array += 1
        with open(path, "x", encoding="ascii"):
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    return first(array)


def test_a_retry_has_the_arguments_as_they_were(tmp_path, given_back):
    with mp.get_context("fork").Pool(1) as workers:
        assert workers.apply(spoil_and_die, (large(4.0), str(tmp_path / "once")), retries=1) == 4.0


def test_what_was_got_is_private_to_both_sides_of_a_fork(given_back):
    got = through_queue(large(1.0))
    there, back = mp.SimpleQueue(), mp.SimpleQueue()

    def look():
        assert first(got) == 1.0
        got[0] = 5.0
        there.put("changed mine")
        assert back.get() == "changed mine, too"
        assert first(got) == 5.0
        assert got[-1] == 1.0

    pid = child(look)
    assert there.get() == "changed mine"
    assert first(got) == 1.0
    got[:] = 7.0
    back.put("changed mine, too")
    assert ended(pid) == 0
    assert first(got) == 7.0
    del got


def test_what_was_got_outlives_the_parent_in_a_child(given_back):
    """The parent gives it back, and what comes to lie there must not show in the child."""
    got = through_queue(large(1.0))
    there, back = mp.SimpleQueue(), mp.SimpleQueue()

    def look():
        there.put("here")
        back.get()
        assert first(got) == 1.0
        assert numpy.all(got == 1.0)

    pid = child(look)
    there.get()
    del got
    gc.collect()
    others = [through_queue(large(2.0)) for _ in range(4)]
    back.put("given back")
    assert ended(pid) == 0
    assert all(first(one) == 2.0 for one in others)
    del others


RESULTS = {}


def first_of_results():
    """What a worker that was forked later sees of the owner's."""
    RESULTS["array"] += 1
    return first(RESULTS["array"])


def test_workers_inherit_what_their_owner_had_got(given_back):
    RESULTS["array"] = through_queue(large(1.0))
    with mp.get_context("fork").Pool(1, maxtasksperchild=1) as workers:
        array = RESULTS.pop("array")
        assert workers.apply(first_of_results) == 2.0
        del array
        gc.collect()
        others = [through_queue(large(9.0)) for _ in range(4)]
        assert workers.apply(first_of_results) == 2.0  # another worker, forked after the owner had given it back
        del others


# ---- given back ----


def test_it_lives_as_long_as_what_lies_in_it(given_back):
    got = through_queue(large(1.0))
    part = got[10:20]
    del got
    gc.collect()
    others = [through_queue(large(2.0)) for _ in range(4)]
    assert list(part) == [1.0] * 10
    del part, others


def test_blocks_are_used_again(given_back):
    through_queue(large())
    grown = _core.arena_stats()["grown_bytes"]
    for _ in range(50):
        through_queue(large())
    assert _core.arena_stats()["grown_bytes"] == grown


def test_what_nobody_gets_is_given_back(given_back):
    queue = mp.SimpleQueue()
    for _ in range(5):
        queue.put(large())
    del queue  # with all that is in it


def test_results_that_nobody_asks_for(pool, given_back):
    result = pool.map_async(same, [large()] * 4, chunksize=1)
    result.wait()
    del result
    stream = pool.imap(same, (large() for _ in range(8)))
    next(stream)
    del stream
    pool.apply(same, (1,))


def get_and_die(queue):
    """Die with what was got."""
    queue.get()[0] = 1
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_receiver_that_is_killed(given_back):
    queue = mp.SimpleQueue()
    for _ in range(3):
        queue.put(large())
        pid = child(lambda: get_and_die(queue))
        assert ended(pid) == -signal.SIGKILL
    del queue


def test_children_that_are_killed_as_they_begin(given_back):
    for i in range(20):
        got = through_queue(large(float(i)))
        pid = child(lambda: None)
        os.kill(pid, signal.SIGKILL)
        assert ended(pid) in (0, -signal.SIGKILL)
        assert first(got) == float(i)
    del got
    descriptors = len(os.listdir("/proc/self/fd"))
    through_queue(large())  # looks after these forks
    assert len(os.listdir("/proc/self/fd")) < descriptors


def keep_and_die(array):
    """Hold the argument and something that was got, and die."""
    held = [array, through_queue(array)]
    os.kill(os.getpid(), signal.SIGKILL)
    return held


def test_workers_that_are_killed(given_back):
    with mp.get_context("fork").Pool(2) as workers:
        for _ in range(3):
            with pytest.raises(mp.WorkerDied):
                workers.apply(keep_and_die, (large(),))
        assert first(workers.apply(same, (large(3.0),))) == 3.0


def put_and_die(queue):
    """What was put before is there, whoever put it."""
    queue.put(large(8.0))
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_sender_that_is_killed(given_back):
    queue = mp.SimpleQueue()
    with mp.get_context("fork").Pool(1) as workers, pytest.raises(mp.WorkerDied):
        workers.apply(put_and_die, (queue,))
    got = queue.get()
    others = [through_queue(large(2.0)) for _ in range(4)]
    assert numpy.all(got == 8.0)
    assert first(got) == 8.0
    del got, others, queue


def test_a_result_outlives_its_worker_and_its_pool(given_back):
    with mp.get_context("fork").Pool(1) as workers:
        got = workers.apply(same, (large(6.0),))
    others = [through_queue(large(2.0)) for _ in range(4)]
    assert numpy.all(got == 6.0)
    del got, others


KEPT = []


def keep(array):
    """Keep an argument longer than its task."""
    KEPT.append(array)
    return float(sum(first(one) for one in KEPT))


def test_arguments_that_a_worker_keeps(given_back):
    with mp.get_context("fork").Pool(1) as workers:
        assert [workers.apply(keep, (large(1.0),)) for _ in range(4)] == [1.0, 2.0, 3.0, 4.0]


# ---- when there is no memory ----

BOUNDED = """
import os, resource
import numpy
import brood as mp
from brood import _core

def make(megabytes):
    return numpy.ones(megabytes << 20, "u1")

def length(array):
    return len(array)

if __name__ == "__main__":
    queue = mp.SimpleQueue()
    limit = os.fstat(_core.arena_ticket()[0]).st_size + (96 << 20)
    with mp.get_context("fork").Pool(1) as pool:
        pool.apply(make, (1,))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        queue.put("kept")
        for big in (make(200), make(200).tobytes()):
            for call in (lambda: queue.put(big), lambda: queue.put_many([big]), lambda: pool.apply(length, (big,)),
                         lambda: pool.map(length, [big]), lambda: pool.share(big), lambda: list(pool.imap(length, [big]))):
                try:
                    call()
                except MemoryError as error:
                    assert "arena" in str(error), error
                else:
                    raise AssertionError("there was memory")
        try:
            mp.empty(200 << 20, "u1")
        except MemoryError:
            pass
        assert queue.get() == "kept" and queue.empty()
        assert pool.apply(length, (make(40),)) == 40 << 20
        assert len(pool.apply(make, (40,))) == 40 << 20
    with mp.get_context("fork").Pool(1) as pool:  # whose workers have the limit
        try:
            pool.apply(make, (200,))
        except MemoryError:
            pass
        else:
            raise AssertionError("there was memory for the result")
        assert len(pool.apply(make, (40,))) == 40 << 20
    kept = [mp.empty(60 << 20, "u1")]
    try:
        queue.put(make(60))
    except MemoryError:
        del kept
    else:
        raise AssertionError("there was memory for both")
    queue.put(make(60))
    assert len(queue.get()) == 60 << 20
"""


def test_memory_that_is_out_is_an_error_at_the_call(tmp_path):
    script = tmp_path / "bounded.py"
    script.write_text(BOUNDED, encoding="utf-8")
    subprocess.run([sys.executable, script], check=True, timeout=300)


def available():
    """Bytes of memory that are free in the machine."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


def total(array):
    """Its length, first and last byte."""
    return len(array), int(array[0]), int(array[-1])


@pytest.mark.skipif(available() < 16 << 30 or runs_under("asan"), reason="less than 16 GiB are free")
def test_more_than_4_gib(given_back):
    size = (4 << 30) + 4096
    array = numpy.zeros(size, "u1")
    array[0], array[-1] = 1, 2
    with mp.get_context("fork").Pool(1) as workers:
        assert workers.apply(total, (array,)) == (size, 1, 2)
        assert workers.apply(numpy.zeros, (size, "u1")).nbytes == size
    del array
    gc.collect()
    data = bytearray(size)
    data[-1] = 7
    queue = mp.SimpleQueue()
    queue.put(data)
    del data
    got = queue.get()
    assert (len(got), got[-1]) == (size, 7)


# ---- others ----


def test_pyarrow(pool, given_back):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"a": numpy.arange(LARGE), "b": ["x"] * LARGE})
    with Difference() as done:
        got = through_queue(table)
    assert got.equals(table)
    assert done.counts["bulks_made"] >= 2
    assert pool.apply(same, (table,)).equals(table)
    del got


def test_torch(pool, given_back):
    torch = pytest.importorskip("torch")
    tensor = torch.arange(LARGE)
    assert torch.equal(through_queue(tensor), tensor)
    shared = torch.from_numpy(mp.zeros(LARGE))
    shared += 1
    assert float(shared.sum()) == LARGE
    del shared


def test_brood_does_not_need_numpy():
    code = "import sys; sys.modules['numpy'] = None; import brood as mp; q = mp.SimpleQueue(); q.put(bytearray(1 << 20));" \
           "assert len(q.get()) == 1 << 20; p = mp.Pool(1); assert p.share([1, 2]).get() == [1, 2]; p.terminate(); p.join()"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, brood; brood.Queue, brood.Pool; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_damaged_letters_are_errors():
    queue = mp.SimpleQueue()
    head = b"\0letter1"
    for data in (head, head + bytes(16), head + b"\xff" * 16, head + b"\1\0\0\0" + b"\0" * 12 + b"\xff" * 40,
                 head + b"\1\0\0\0" + b"\0" * 12 + bytes(16) + b"\xff" * 16 + bytes(8),
                 head + b"\2\0\0\0\2\0\0\0" + b"\0" * 8 + bytes(80)):
        queue.put_bytes(data)
        with pytest.raises((ValueError, EOFError, OSError, pickle.UnpicklingError)):
            queue.get()
    with contextlib.suppress(ValueError):
        queue.close()
