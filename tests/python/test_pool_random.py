# SPDX-License-Identifier: MIT
"""Random numbers: with a seed the same in every run, without one other numbers in every process."""
import collections
import ctypes
import hashlib
import os
import random
import sys
import threading

import pytest

import brood as mp
from brood import _random
from programs import METHODS, run_program

libc = ctypes.CDLL(None)
libc.drand48.restype = ctypes.c_double

try:
    import numpy
except ImportError:
    numpy = None

WITHIN = 30


@pytest.fixture(params=METHODS)
def method(request):
    """Each start method in turn."""
    return request.param


def draw(_=None):
    """A number from each generator that a process has."""
    numbers = [random.random(), libc.rand(), libc.drand48()]
    if numpy is not None:
        numbers.append(float(numpy.random.random()))
    return tuple(numbers)


def draw_twice(x, y=0):
    return mp.task_seed(), draw(), draw()


# ---- with a seed ----


def test_numbers_depend_on_seed_job_and_item_alone():
    runs = []
    for method, workers, chunksize in [("fork", 1, None), ("fork", 2, 1), ("fork", 3, 7), ("spawn", 2, 3), ("forkserver", 2, None)]:
        with mp.get_context(method).Pool(workers, seed=42, maxtasksperchild=5) as pool:
            runs.append([
                pool.map(draw_twice, range(12), chunksize=chunksize),
                list(pool.imap(draw_twice, iter(range(12)), chunksize or 1)),
                sorted(pool.imap_unordered(draw_twice, range(12), chunksize or 1)),
                pool.starmap(draw_twice, [(i, i) for i in range(12)], chunksize),
                [pool.apply(draw_twice, (0,)), pool.apply_async(draw_twice, (0,)).get(WITHIN)],
            ])
    for run in runs[1:]:
        assert run == runs[0]
    drawn = [number for job in runs[0] for _, *pairs in job for pair in pairs for number in pair]
    assert len(set(drawn)) == len(drawn)  # no two of all these are the same


def test_another_seed_is_another_stream():
    with mp.Pool(1, seed=1) as one, mp.Pool(1, seed=2) as two, mp.Pool(1, seed=-1) as three, mp.Pool(1, seed=2**200) as four:
        values = [number for pool in (one, two, three, four) for number in pool.apply(draw)]
    assert len(set(values)) == len(values)


def task_seeds(_):
    return mp.task_seed()


def expected(seed, job, index):
    return int.from_bytes(hashlib.blake2b(f"{seed}/{job}/{index}".encode(), digest_size=56).digest()[:16], "little")


def test_the_seed_of_a_task(method):
    with mp.get_context(method).Pool(2, seed=7) as pool:
        assert pool.map(task_seeds, range(5)) == [expected(7, 0, i) for i in range(5)]
        assert pool.map(task_seeds, []) == []  # a job, too
        assert pool.apply(task_seeds, (0,)) == expected(7, 2, 0)
        assert list(pool.imap(task_seeds, range(4), 3)) == [expected(7, 3, i) for i in range(4)]
    assert mp.task_seed() is None
    with mp.get_context(method).Pool(2) as pool:
        assert pool.apply(task_seeds, (0,)) is None


def draw_from_ones_own(_):
    return *draw(), random.Random(mp.task_seed()).random()


def test_every_generator_has_a_stream_of_its_own():
    """Python's and NumPy's are the same algorithm: the same seed would give the same numbers."""
    with mp.Pool(1, seed=3) as pool:
        for numbers in pool.map(draw_from_ones_own, range(50)):
            assert len(set(numbers)) == len(numbers)


@pytest.mark.skipif(numpy is None, reason="NumPy is not there")
def test_generators_of_the_tasks_own():
    with mp.Pool(2, seed=3) as pool:
        first = pool.map(lambda _: float(numpy.random.default_rng(mp.task_seed()).random()), range(10))
    with mp.Pool(1, seed=3) as pool:
        assert pool.map(lambda _: float(numpy.random.default_rng(mp.task_seed()).random()), range(10)) == first
    assert len(set(first)) == 10
    with mp.Pool(2) as pool:
        assert len(set(pool.map(lambda _: float(numpy.random.default_rng(mp.task_seed()).random()), range(10)))) == 10


def test_numpy_that_a_task_is_the_first_to_import(method, tmp_path):
    pytest.importorskip("numpy")
    outputs = {run_program(tmp_path, """
        import sys, brood as mp

        def draw(_):
            import numpy
            return float(numpy.random.random())

        if __name__ == "__main__":
            assert "numpy" not in sys.modules
            with mp.get_context(sys.argv[1]).Pool(int(sys.argv[2]), seed=5) as pool:
                print(pool.map(draw, range(6), chunksize=1))
        """, method, workers) for workers in (1, 3)}
    assert len(outputs) == 1 and len(set(outputs.pop().strip("[]\n").split(", "))) == 6


def nested(_):
    with mp.Pool(2, seed=mp.task_seed()) as seeded, mp.Pool(2) as free:
        return seeded.map(draw, range(3)), free.map(draw, range(3))


def test_pools_in_seeded_tasks():
    runs = []
    for workers in (1, 2):
        with mp.Pool(workers, seed=9) as pool:
            runs.append(pool.map(nested, range(2), chunksize=1))
    assert [seeded for seeded, _ in runs[0]] == [seeded for seeded, _ in runs[1]]
    all_free = [number for run in runs for _, free in run for numbers in free for number in numbers]
    assert len(set(all_free)) == len(all_free)


def test_children_of_seeded_tasks_that_are_the_first_to_import_numpy(tmp_path):
    pytest.importorskip("numpy")
    numbers = run_program(tmp_path, """
        import brood as mp

        def draw(_):
            import numpy
            return float(numpy.random.random())

        def nested(_):
            with mp.Pool(1) as one, mp.Pool(1) as two:
                return one.apply(draw, (0,)), two.apply(draw, (0,))

        mp.set_start_method("fork")
        with mp.Pool(1, seed=5) as pool:
            print(*pool.apply(nested, (0,)), *pool.apply(nested, (0,)))
        """).split()
    assert len(numbers) == 4 == len(set(numbers))


def fork_two(_):
    """What two children of a seeded task draw."""
    queue = mp.Queue()
    for _ in range(2):
        process = mp.get_context("fork").Process(target=put_draw, args=(queue,))
        process.start()
        process.join()
    return [queue.get(timeout=WITHIN) for _ in range(2)]


def put_draw(queue):
    queue.put((mp.task_seed(), draw()))


def allow_children():
    mp.process.current_process()._config["daemon"] = False


def test_children_of_seeded_tasks_draw_their_own():
    with mp.Pool(1, initializer=allow_children, seed=9) as pool:
        drawn = pool.apply(fork_two, (0,)) + pool.apply(fork_two, (0,))
    assert {seed for seed, _ in drawn} == {None}
    numbers = [number for _, four in drawn for number in four]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("value", ["1", 1.0, True, [], b"x"])
def test_bad_values(value):
    with pytest.raises(TypeError, match="seed must be"):
        mp.Pool(1, seed=value)


@pytest.mark.skipif(numpy is None, reason="NumPy is not there")
def test_numbers_of_numpy_are_seeds():
    with mp.Pool(1, seed=numpy.int64(7)) as pool:
        assert pool.apply(task_seeds, (0,)) == expected(7, 0, 0)


# ---- without ----


def seed_everything():
    """What a program may have done before it makes a pool: all that is forked from it would draw the same."""
    random.seed(1)
    libc.srand(1)
    libc.srand48(1)
    if numpy is not None:
        numpy.random.seed(1)


def draw_and_die(_):
    numbers = draw()
    if random.random() < 2:
        queue_of_drawn.put(numbers)
    os._exit(1)


def take_queue(queue):
    global queue_of_drawn
    queue_of_drawn = queue


def assert_no_two_are_the_same(drawn):
    """Each generator's numbers differ, whoever drew them."""
    assert drawn
    for numbers in zip(*drawn, strict=True):
        assert len(set(numbers)) == len(numbers), collections.Counter(numbers).most_common(3)


def wait_and_draw(barrier):
    barrier.wait(WITHIN)  # no worker does two of them
    return draw()


def test_workers_draw_other_numbers(method):
    seed_everything()
    context = mp.get_context(method)
    drawn = [draw()]
    for _ in range(2):
        with context.Pool(4) as pool:
            drawn += pool.map(wait_and_draw, [context.Barrier(4)] * 4, chunksize=1)
    assert_no_two_are_the_same(drawn)


def test_replacements_draw_other_numbers(method):
    seed_everything()
    queue = mp.Queue()
    with mp.get_context(method).Pool(2, initializer=take_queue, initargs=(queue,)) as pool:
        for _ in range(6):
            with pytest.raises(mp.WorkerDied):
                pool.apply(draw_and_die, (0,))
    with mp.get_context(method).Pool(2, maxtasksperchild=1) as pool:
        assert_no_two_are_the_same([queue.get(timeout=WITHIN) for _ in range(6)] + pool.map(draw, range(6), chunksize=1))


def nested_free(_):
    with mp.Pool(2) as pool:
        barrier = mp.Barrier(2)
        return pool.map(wait_and_draw, [barrier] * 2, chunksize=1)


def test_workers_of_workers_draw_other_numbers(method):
    seed_everything()
    with mp.get_context(method).Pool(2) as pool:
        assert_no_two_are_the_same([numbers for inner in pool.map(nested_free, range(2), chunksize=1) for numbers in inner])


def test_processes_draw_other_numbers(method):
    seed_everything()
    context = mp.get_context(method)
    queue = context.Queue()
    processes = [context.Process(target=put_draw, args=(queue,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(WITHIN)
    assert_no_two_are_the_same([draw()] + [queue.get(timeout=WITHIN)[1] for _ in range(4)])


def test_what_the_fork_server_has_loaded(tmp_path):
    """NumPy is in the server before workers, templates and processes are forked from it."""
    pytest.importorskip("numpy")
    numbers = run_program(tmp_path, """
        import brood as mp

        def draw(queue):
            import numpy
            queue.put(float(numpy.random.random()))

        if __name__ == "__main__":
            mp.set_start_method("forkserver")
            mp.set_forkserver_preload(["numpy.random"])
            queue = mp.Queue()
            processes = [mp.Process(target=draw, args=(queue,)) for _ in range(3)]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
            with mp.Pool(1) as one, mp.Pool(1) as two:
                one.apply(draw, (queue,)), two.apply(draw, (queue,))
            print(*(queue.get() for _ in range(5)))
        """).split()
    assert len(numbers) == 5 == len(set(numbers))


def test_the_owner_goes_on_as_it_would():
    seed_everything()
    before = [draw() for _ in range(2)]
    seed_everything()
    first = draw()
    with mp.Pool(2, seed=1) as pool:
        pool.map(draw, range(4))
    assert [first, draw()] == before


@pytest.mark.skipif(not hasattr(getattr(numpy, "random", None), "set_bit_generator"), reason="NumPy of 1.24 or later")
def test_another_bit_generator():
    before = numpy.random.get_bit_generator()
    numpy.random.set_bit_generator(numpy.random.PCG64(3))
    try:
        with mp.get_context("fork").Pool(4) as pool:
            barrier = mp.Barrier(4)
            assert_no_two_are_the_same([draw(), *pool.map(wait_and_draw, [barrier] * 4, chunksize=1)])
        runs = []
        for workers in (1, 2):
            with mp.get_context("fork").Pool(workers, seed=3) as pool:
                runs.append(pool.map(draw, range(6), chunksize=1))
        assert runs[0] == runs[1] and len(set(runs[0])) == 6
    finally:
        numpy.random.set_bit_generator(before)


@pytest.mark.skipif(not hasattr(getattr(numpy, "random", None), "set_bit_generator"), reason="NumPy of 1.24 or later")
def test_a_lock_of_numpy_that_another_thread_has_at_the_fork():
    held, done = threading.Event(), threading.Event()

    def hold():
        with numpy.random.get_bit_generator().lock:
            held.set()
            done.wait(WITHIN)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(WITHIN)
    try:
        with mp.get_context("fork").Pool(2) as pool:
            assert_no_two_are_the_same(pool.map_async(draw, range(4), 1).get(WITHIN))
    finally:
        done.set()
        holder.join(WITHIN)


def test_no_finder_is_left_behind():
    before = list(sys.meta_path)
    with mp.Pool(1, seed=1) as pool:
        finders = pool.apply(lambda: [type(finder).__name__ for finder in sys.meta_path])
    assert sys.meta_path == before
    assert finders.count(_random._Watch.__name__) == ("numpy.random" not in sys.modules)
