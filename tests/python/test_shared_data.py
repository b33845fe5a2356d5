# SPDX-License-Identifier: MIT
"""Data that is shared on purpose, and counts of what large data costs: copies, page faults, system calls."""
import gc
import os
import pickle
import resource
import subprocess
import sys

import pytest

import brood as mp

from support import runs_under

numpy = pytest.importorskip("numpy")

from large import (  # noqa: E402, F401  # they need NumPy; fixtures
    LARGE, METHODS, Difference, counts, first, given_back, large, pool, same, through_queue)

RECORD = numpy.dtype([("x", "f8"), ("n", "i4", (3,))])


# ---- shared on purpose ----


def write_at(array, index, value):
    """Write one element."""
    array[index] = value


@pytest.mark.parametrize("method", METHODS)
def test_shared_arrays_are_one_memory(method, given_back):
    array = mp.zeros((100, 1000))
    with mp.get_context(method).Pool(2) as workers:
        with Difference() as done:
            workers.starmap(write_at, [(array, (i, 5), i + 1) for i in range(100)])
            workers.apply(write_at, (array[:, ::3], (7, 2), 77.0))
            workers.apply(write_at, (array.T, (9, 3), 99.0))
        assert done.counts["copied_bytes"] == 0
        assert list(array[:, 5]) == [i + 1.0 for i in range(100)]
        assert array[7, 6] == 77.0
        assert array[3, 9] == 99.0
        back = workers.apply(same, (array[10:20],))
        back[0, 0] = 5.5
        assert array[10, 0] == 5.5
        del back
    del array


def write_to_argument(array):
    """In a process of its own."""
    array[0] = 3.0


@pytest.mark.parametrize("method", METHODS)
def test_shared_arrays_as_arguments_of_processes(method, given_back):
    array = mp.zeros(LARGE)
    process = mp.get_context(method).Process(target=write_to_argument, args=(array,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert array[0] == 3.0
    del array, process


def test_shared_arrays_as_numpy_makes_them(given_back):
    assert mp.empty(5).shape == (5,)
    assert mp.empty((2, 3), "i4", "F").flags.f_contiguous
    assert mp.zeros((2, 3), RECORD).dtype == RECORD
    assert numpy.all(mp.zeros(LARGE, "u1") == 0)
    assert numpy.array_equal(mp.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]])
    assert mp.array(numpy.asfortranarray(numpy.ones((3, 4)))).flags.f_contiguous
    assert mp.array(3.5) == 3.5
    assert mp.empty(0).size == 0
    with pytest.raises(TypeError, match="Python objects"):
        mp.empty(3, object)
    with pytest.raises(ValueError, match="negative"):
        mp.empty((3, -1))


def test_zeros_are_zero_where_something_was(given_back):
    through_queue(large(9.0))
    assert not mp.zeros(LARGE // 8).any()


def test_shared_arrays_travel_through_queues(given_back):
    array = mp.zeros(LARGE)
    view = array[100:-100:7][::-1]
    view.flags.writeable = False
    with Difference() as done:
        got = through_queue([array, view, array[:0]])
    assert done.counts["copied_bytes"] == 0
    got[0][100] = 4.0
    assert view[-1] == 4.0
    assert got[1][-1] == 4.0
    assert not got[1].flags.writeable
    assert got[2].size == 0
    del got, array, view


def test_shared_arrays_in_functions_and_beside_lambdas(pool, given_back):
    array = mp.zeros(LARGE)

    def task(index):
        array[index] = index

    pool.map(task, range(10))
    assert list(array[:10]) == list(range(10))
    pool.map(task, range(20), retries=1, retry_on=(ValueError,))
    assert list(pool.imap(lambda index: float(array[index]), range(20))) == list(range(20))
    assert pool.apply(lambda part, change: change(part), (array[::2], lambda part: part.fill(7.0))) is None
    assert array[2] == 7.0
    assert array[3] == 3.0
    shared = pool.share(large(4.0))
    assert pool.map(lambda i: first(shared.get()) + i, range(3)) == [4.0, 5.0, 6.0]
    del array, task, shared
    pool.map(same, [1])


def test_any_size_is_passed_in_the_same_few_bytes(given_back):
    sizes = []
    for megabytes in (1, 64):
        array = mp.empty(megabytes << 20, "u1")
        queue = mp.SimpleQueue()
        queue.put(array)
        sizes.append(len(queue.get_bytes()))
        del array, queue
    assert sizes[0] == sizes[1] < 1000


def test_pickle_itself_and_pipes_copy(given_back):
    array = mp.array(large(1.0))
    copy = pickle.loads(pickle.dumps(array))
    reader, writer = mp.Pipe()
    writer.send(mp.array(numpy.arange(1000.0)))
    assert reader.recv()[999] == 999.0
    copy += 1
    assert first(array) == 1.0
    del array, copy


def keep_to_the_end(array):
    """Until the interpreter has ended, which is when the process says that it has."""
    kept = {"array": array, "own": mp.zeros(1000)}
    kept["itself"] = kept
    numpy.kept_by_test = kept


def write_last_words(connection):
    """After the process object's own end: what the interpreter calls at its end."""
    import atexit
    own = mp.zeros(200_000)

    def last_words():
        connection.send("about to end")
        connection.recv()
        own[:] = 7.0

    atexit.register(last_words)


def test_memory_is_a_processs_own_to_its_end(given_back):
    ours, theirs = mp.Pipe()
    process = mp.get_context("spawn").Process(target=write_last_words, args=(theirs,))
    process.start()
    assert ours.recv() == "about to end"
    arrays = [mp.zeros(200_000) for _ in range(4)]
    ours.send("go on")
    process.join()
    assert process.exitcode == 0
    assert [array.max() for array in arrays] == [0.0] * 4
    del arrays


@pytest.mark.parametrize("method", METHODS)
def test_arrays_may_live_until_a_process_ends(method, given_back):
    array = mp.zeros(1000)
    process = mp.get_context(method).Process(target=keep_to_the_end, args=(array,))
    process.start()
    process.join()
    assert process.exitcode == 0
    array[0] = 1.0
    others = [mp.zeros(1000) for _ in range(10)]
    for other in others:
        other[:] = 2.0
    assert array[0] == 1.0
    assert array[1] == 0.0
    del array, others, other


# ---- without a pickler ----


@pytest.fixture
def reduced(monkeypatch):
    """The arrays that a pickler has reduced."""
    from brood import _arrays
    found, reduce = [], _arrays.reduce

    def noting(array):
        found.append(array)
        return reduce(array)

    monkeypatch.setattr(_arrays, "reduce", noting)
    yield found
    found.clear()


@pytest.mark.parametrize("dtype", ["i1", "u2", "<i4", "i8", "f2", "f4", "f8", "c16", "?"])
@pytest.mark.parametrize("shape", [(7,), (2, 3), (1, 2, 3, 4), (2, 1, 2, 1, 2, 1), ()])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_travel_without_a_pickler(dtype, shape, order, reduced, given_back):
    array = mp.zeros(shape, dtype, order)
    array[...] = numpy.arange(array.size).reshape(shape)
    got, label = through_queue((array, "label"))
    assert reduced == []
    assert (got.dtype, got.shape, got.strides, label) == (array.dtype, array.shape, array.strides, "label")
    assert (got == array).all()
    got[...] = 1
    assert (array == 1).all()
    del got, array


def test_slices_that_lie_in_one_piece(reduced, given_back):
    array = mp.zeros((10, 5))
    got = through_queue([array[2:4], {"row": array[7]}, (array[9:, 1:2],)])
    assert reduced == []
    got[0][1, 2], got[1]["row"][4], got[2][0][0, 0] = 1.0, 2.0, 3.0
    assert (array[3, 2], array[7, 4], array[9, 1]) == (1.0, 2.0, 3.0)
    del got, array


class Own(numpy.ndarray):
    """A subclass, which is to stay one."""


OTHERS = ["holes", "backwards", "fixed", "twice", "record", "swapped", "text", "time", "noted", "with others"]


def other(name):
    """What a pickler has to see."""
    array = mp.zeros((4, 6))
    fixed = array[:2]
    fixed.flags.writeable = False
    return {
        "holes": array[:, ::2], "backwards": array[::-1], "fixed": fixed, "twice": [array, array],
        "record": mp.zeros(3, RECORD), "swapped": mp.zeros(3, ">i4"), "text": mp.zeros(3, "U4"), "time": mp.zeros(3, "M8[s]"),
        "noted": mp.zeros(3, numpy.dtype("f8", metadata={"unit": "m"})), "with others": [array, 1j],
    }[name]


@pytest.mark.parametrize("name", OTHERS)
def test_what_a_pickler_has_to_see(name, reduced, given_back):
    value = other(name)
    got = through_queue(value)
    assert reduced != []
    first_value, first_got = (value[0], got[0]) if isinstance(value, list) else (value, got)
    assert (first_got.dtype, first_got.dtype.metadata, first_got.shape, first_got.flags.writeable) == (
        first_value.dtype, first_value.dtype.metadata, first_value.shape, first_value.flags.writeable)
    if name == "twice":
        assert got[0] is got[1]
    reduced.clear()
    del value, got, first_value, first_got


def test_subclasses_of_arrays_stay_what_they_are(given_back):
    array = mp.zeros(5).view(Own)
    assert type(through_queue([array])[0]) is Own
    del array


def test_reducers_of_the_program_are_asked(given_back):
    import copyreg
    from multiprocessing.reduction import ForkingPickler
    array = mp.zeros(5)
    copyreg.pickle(numpy.ndarray, lambda array: (str, ("copyreg",)))
    try:
        assert through_queue([array]) == ["copyreg"]
    finally:
        del copyreg.dispatch_table[numpy.ndarray]
    before = ForkingPickler._extra_reducers[numpy.ndarray]
    ForkingPickler.register(numpy.ndarray, lambda array: (str, ("register",)))
    try:
        assert through_queue([array]) == ["register"]
    finally:
        ForkingPickler.register(numpy.ndarray, before)
    assert through_queue([array])[0].shape == (5,)
    del array


def test_reducers_of_the_program_beside_what_travels_by_value(pool, given_back):
    import copyreg
    array = mp.zeros(5)
    copyreg.pickle(numpy.ndarray, lambda array: (str, ("the program's",)))
    try:
        assert pool.apply(lambda *given: given[:2], (array, numpy.zeros(3), lambda: 0)) == ("the program's",) * 2
    finally:
        del copyreg.dispatch_table[numpy.ndarray]
    del array


class Clears:
    """Clears a list when it is collected."""

    def __init__(self, victim):
        self.victim, self.itself = victim, self

    def __del__(self):
        self.victim.clear()


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_what_is_cleared_while_it_is_written(kind, given_back):
    """By a collection, which making the tuple of a shape may start."""
    array, ends = mp.zeros((1,) * 17), 0
    queue = mp.SimpleQueue()
    threshold = gc.get_threshold()
    try:
        for objects in range(1, 40):
            items = [array] + [f"text {i}" for i in range(40)]
            inner = items if kind == "list" else dict(enumerate(items))
            gc.collect()
            Clears(inner)
            gc.set_threshold(objects)
            queue.put([inner, "end"])
            gc.set_threshold(*threshold)
            got, end = queue.get()
            assert end == "end"
            assert len(got) in (0, 41)
            ends += len(got)
            del got, inner, items
    finally:
        gc.set_threshold(*threshold)
    assert ends > 0
    del array


def test_who_has_no_numpy_yet(given_back, tmp_path):
    (tmp_path / "receiver.py").write_text(
        "import sys\n"
        "def receive(queue, back):\n"
        "    before = 'numpy' in sys.modules\n"
        "    array, label = queue.get()\n"
        "    back.put((before, array.dtype.str, float(array[3]), label))\n"
        "    array[4] = 5.0\n")
    sys.path.insert(0, str(tmp_path))
    try:
        import receiver
        context = mp.get_context("spawn")
        queue, back = context.SimpleQueue(), context.SimpleQueue()
        array = mp.zeros(8)
        array[3] = 4.0
        queue.put((array, "label"))
        process = context.Process(target=receiver.receive, args=(queue, back))
        process.start()
        has_numpy, dtype, value, label = back.get()
        process.join()
        assert (dtype, value, label, array[4]) == ("<f8", 4.0, "label", 5.0)
        assert not has_numpy
    finally:
        sys.path.remove(str(tmp_path))
    del array


# ---- share() ----


def look(shared):
    """What a task sees, whether it may write, and what it sees after it has."""
    array = shared.get()["array"]
    before, may_write = first(array), array.flags.writeable
    if may_write:
        array[0] += 1
    return before, may_write, first(array)


@pytest.mark.parametrize("method", METHODS)
def test_share_is_read_only(method, given_back):
    with mp.get_context(method).Pool(2) as workers:
        shared = workers.share({"array": large(1.0), "more": list(range(1000))})
        with Difference() as done:
            assert workers.map(look, [shared] * 20, chunksize=1) == [(1.0, False, 1.0)] * 20
        assert done.counts["copied_bytes"] == 0
        value = shared.get()
        assert value["more"] == list(range(1000))
        with pytest.raises(ValueError, match="read-only"):
            value["array"][0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            value["array"].flags.writeable = True
        del shared, value


def test_share_private_and_shared(pool, given_back):
    private = pool.share({"array": large(1.0)}, writable="private")
    assert [pool.apply(look, (private,)) for _ in range(3)] == [(1.0, True, 2.0)] * 3
    assert first(private.get()["array"]) == 1.0
    shared = pool.share({"array": large(1.0)}, writable="shared")
    assert [pool.apply(look, (shared,)) for _ in range(3)] == [(1.0 + i, True, 2.0 + i) for i in range(3)]
    assert first(shared.get()["array"]) == 4.0
    little = pool.share({"array": numpy.ones(3)}, writable="private")
    assert [pool.apply(look, (little,)) for _ in range(2)] == [(1.0, True, 2.0)] * 2
    del private, shared, little


def test_share_is_a_snapshot_that_lasts(pool, given_back):
    array = large(1.0)
    shared = pool.share([array, mp.array(array)])
    array[:] = 2.0
    values = shared.get()
    assert "bytes" in repr(shared)
    assert shared.nbytes > 2 * LARGE
    del shared
    gc.collect()
    others = [through_queue(large(3.0)) for _ in range(4)]
    assert [first(one) for one in values] == [1.0, 1.0]
    del values, others


def test_share_says_what_it_cannot(pool):
    with pytest.raises(ValueError, match="writable must be"):
        pool.share(1, writable=True)
    with pytest.raises(TypeError, match=r"obj\[1\]"):
        pool.share([1, (i for i in range(3))])
    with mp.get_context("fork").Pool(1) as ended_pool:
        pass
    with pytest.raises(ValueError, match="not running"):
        ended_pool.share(1)


def test_a_view_of_a_share_stays_read_only_wherever_it_goes(pool, given_back):
    shared = pool.share(large(1.0))
    got = through_queue(shared.get())
    assert not got.flags.writeable
    assert first(got) == 1.0
    del shared, got


# ---- counts ----


def test_one_copy_each_way(pool, given_back):
    array = large(1.0)
    with Difference() as done:
        got = pool.apply(same, (array,))
    assert done.counts == {"copied_bytes": LARGE, "bulks_made": 1, "references": 0}
    before = pool.apply(counts)
    pool.apply(same, (array,))
    after = pool.apply(counts)
    assert after["copied_bytes"] - before["copied_bytes"] == LARGE, "the worker copies the result out, and nothing in"
    del got


def faults():
    """Page faults of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@pytest.mark.skipif(runs_under("asan"), reason="AddressSanitizer touches pages of its own")
def test_pages_are_warm_the_second_time(pool, given_back):
    array = numpy.ones(8 * LARGE // 8)
    for _ in range(4):
        pool.apply(same, (array,))
    before, theirs = faults(), pool.apply(faults)
    for _ in range(10):
        pool.apply(same, (array,))
    pages = 2 * 10 * array.nbytes // resource.getpagesize()  # that went through this process
    assert faults() - before < pages // 50
    assert pool.apply(faults) - theirs < pages // 50


COUNTING = """
import numpy, os, sys
import brood as mp
array, queue = numpy.ones(1 << 20), mp.SimpleQueue()
shared = mp.empty(1 << 24)
def turn():
    queue.put(array)
    queue.get()
    queue.put(shared)
    queue.get()
for _ in range(20):
    turn()
os.access("/begin", 0)
for _ in range(100):
    turn()
os.access("/end", 0)
"""


@pytest.mark.skipif(runs_under("asan"), reason="AddressSanitizer makes system calls of its own")
def test_no_system_call(tmp_path):
    strace = next((path for path in ("/usr/bin/strace", "/bin/strace") if os.access(path, os.X_OK)), None)
    if strace is None:
        pytest.skip("strace is not there")
    log = tmp_path / "log"
    subprocess.run([strace, "-o", log, sys.executable, "-c", COUNTING], check=True)
    lines = log.read_text(encoding="utf-8").splitlines()
    begin = next(i for i, line in enumerate(lines) if '"/begin"' in line)
    end = next(i for i, line in enumerate(lines) if '"/end"' in line)
    assert end - begin - 1 <= 20, lines[begin + 1:end]
