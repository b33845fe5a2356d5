# SPDX-License-Identifier: MIT
"""Pools: the calls, the errors of tasks, the deaths of workers, what travels, and the ends."""
import collections
import functools
import gc
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import pytest

import brood as mp
from brood import WorkerDied, _core
from brood.pool import PoolBroken

from programs import run_program
from support import until

METHODS = ["fork", "spawn", "forkserver"]
WITHIN = 30


@pytest.fixture(params=METHODS)
def method(request):
    """Each start method in turn."""
    return request.param


@pytest.fixture
def pool():
    """A pool of two workers, gone after the test."""
    with mp.get_context("fork").Pool(2) as made:
        yield made


def square(x):
    return x * x


def add(x, y=0, *, z=0):
    return x + y + z


def fail(x):
    raise ValueError(f"no {x}")


def die(x):
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def leave(x):
    sys.exit(7)


def leave_at_once(x):
    os._exit(5)


def whoami(_):
    return mp.current_process().name, os.getpid(), mp.current_process().daemon, mp.parent_process().pid


def nested(n):
    with mp.Pool(2) as inner:
        return inner.map(square, range(n))


# ---- calls ----


def test_every_call(method):
    with mp.get_context(method).Pool(2) as pool:
        assert pool.apply(add, (1, 2), {"z": 3}) == 6
        assert pool.apply_async(add, [1], {"y": 5}).get(WITHIN) == 6
        assert pool.map(square, range(100)) == [x * x for x in range(100)]
        assert pool.map(square, (x for x in range(7)), chunksize=2) == [x * x for x in range(7)]
        assert pool.map(square, []) == []
        assert pool.map_async(square, [3]).get(WITHIN) == [9]
        assert pool.starmap(add, [(1, 2), (3, 4)]) == [3, 7]
        assert pool.starmap_async(add, zip(range(5), range(5)), 2).get(WITHIN) == [0, 2, 4, 6, 8]
        assert list(pool.imap(square, range(50), 7)) == [x * x for x in range(50)]
        assert sorted(pool.imap_unordered(square, iter(range(50)))) == [x * x for x in range(50)]


def test_results_tell_how_far_they_are(pool):
    gate = mp.Event()
    waiting = pool.apply_async(gate.wait)
    assert not waiting.ready()
    with pytest.raises(ValueError, match="not ready"):
        waiting.successful()
    with pytest.raises(mp.TimeoutError):
        waiting.get(0.01)
    waiting.wait(0.01)
    gate.set()
    assert waiting.get(WITHIN) is True
    assert waiting.ready() and waiting.successful()
    assert waiting.get() is True  # again


def kill_supervisor(pool):
    """The parent of the workers."""
    with open(f"/proc/{pool._pool[0].pid}/stat", encoding="utf-8") as stat:
        os.kill(int(stat.read().rpartition(")")[2].split()[1]), signal.SIGKILL)


def test_polling_tells_that_the_supervisor_was_killed(method):
    """Nobody waits in the core then."""
    with mp.get_context(method).Pool(1) as pool:
        gate = mp.Event()
        results = [pool.apply_async(gate.wait) for _ in range(3)]
        kill_supervisor(pool)
        gate.set()
        until(lambda: all(result.ready() for result in results), WITHIN)
        for result in results:
            try:
                assert result.get() is True
            except WorkerDied:
                pass


def test_callbacks_are_called_when_the_supervisor_was_killed(method):
    """Only the thread that calls them waits in the core then."""
    with mp.get_context(method).Pool(1) as pool:
        gate, calls = mp.Event(), []
        results = [pool.apply_async(gate.wait, callback=calls.append, error_callback=calls.append) for _ in range(3)]
        kill_supervisor(pool)
        gate.set()
        for result in results:
            result.wait(WITHIN)
            assert result.ready()
        assert all(call is True or isinstance(call, WorkerDied) for call in calls) and len(calls) == 3


def test_callbacks_are_called_in_the_order_of_the_ends(pool):
    gate, calls = mp.Event(), []
    slow = pool.apply_async(gate.wait, callback=calls.append)
    quick = pool.apply_async(square, (4,), callback=calls.append)
    bad = pool.apply_async(fail, (4,), callback=calls.append, error_callback=lambda e: calls.append(str(e)))
    quick.wait(WITHIN), bad.wait(WITHIN)
    deadline = time.monotonic() + WITHIN
    while len(calls) < 2 and time.monotonic() < deadline:
        os.sched_yield()
    assert calls == [16, "no 4"]
    gate.set()
    pool.close()
    pool.join()
    assert calls == [16, "no 4", True] and slow.ready()


def test_no_thread_without_callbacks(pool):
    pool.map(square, range(10))
    pool.apply_async(square, (1,)).get(WITHIN)
    assert threading.active_count() == 1


def test_number_left_counts_chunks(pool):
    gate = mp.Event()
    result = pool.map_async(wait_if_first, [(gate, i) for i in range(6)], chunksize=1)
    while result._number_left > 1:
        result.wait(0.01)
    assert not result.ready()
    gate.set()
    assert result.get(WITHIN) == [None] * 6 and result._number_left == 0
    assert pool.map_async(square, [])._number_left == 0


def wait_if_first(gate_and_index):
    gate, index = gate_and_index
    if index == 0:
        gate.wait()


# ---- errors ----


def test_errors_carry_where_and_what(pool):
    with pytest.raises(ValueError, match="no 2") as caught:
        pool.map(fail, [2, 3], chunksize=1)
    assert "in fail" in str(caught.value.__cause__)
    assert any("item 0 of" in note and "pid" in note for note in caught.value.__notes__)
    assert pool.map(square, [2]) == [4]


def test_every_base_exception_is_the_tasks_error(pool):
    with pytest.raises(SystemExit):
        pool.apply(leave, (1,))
    with pytest.raises(KeyboardInterrupt):
        pool.apply(_raise, (KeyboardInterrupt,))
    assert pool.apply(square, (3,)) == 9


def _raise(kind):
    raise kind


class Unreadable(Exception):
    """Pickles, but does not unpickle."""

    def __init__(self, first, second):
        super().__init__("both")


def raise_unreadable(_):
    raise Unreadable(1, 2)


def test_errors_that_do_not_unpickle_fail_their_own_task_only(pool):
    good = pool.map_async(square, range(10))
    with pytest.raises(Exception, match="Unreadable: both") as caught:
        pool.apply(raise_unreadable, (1,))
    assert "raise_unreadable" in str(caught.value.__cause__)
    assert good.get(WITHIN) == [x * x for x in range(10)]


class BringsItsCause(Exception):
    """As tblib makes them: its pickle has the cause."""

    def __reduce__(self):
        return with_cause, (type(self), self.args, self.__cause__)


def with_cause(kind, args, cause):
    error = kind(*args)
    error.__cause__ = cause
    return error


def raise_with_cause():
    raise BringsItsCause("above") from KeyError("below")


def test_the_workers_traceback_is_there_whatever_cause_an_error_brings(pool):
    with pytest.raises(BringsItsCause, match="above") as caught:
        pool.apply(raise_with_cause)
    assert isinstance(caught.value.__cause__, mp.pool.RemoteTraceback)
    assert "raise_with_cause" in str(caught.value.__cause__) and "below" in str(caught.value.__cause__)


def test_results_that_do_not_pickle_fail_their_own_task_only(pool):
    with pytest.raises(mp.pool.MaybeEncodingError):
        pool.apply(make_lock)
    assert pool.apply(square, (3,)) == 9


def make_lock():
    return threading.Lock()


def test_a_result_that_is_too_deep_is_said_to_be(pool):
    with pytest.raises(mp.pool.MaybeEncodingError, match="recursion"):
        pool.apply(nest_lists, (100000,))
    assert pool.apply(square, (3,)) == 9


def test_a_result_that_does_not_fit_into_the_arena_is_a_memory_error(tmp_path):
    program = """
        import resource
        import brood

        if __name__ == "__main__":
            brood.Queue().put(1)  # the arena begins
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000_000, 50_000_000))
            with brood.Pool(1) as pool:
                results = [pool.apply_async(bytes, (size,)) for size in (60_000_000, 1000, 70_000_000)]
                for result in results:
                    try:
                        print(len(result.get(60)))
                    except MemoryError as error:
                        print("the arena cannot grow" in str(error), len(str(error)) < 200)
        """
    assert run_program(tmp_path, program) == "True True\n1000\nTrue True\n"


def nest_lists(depth):
    lists = []
    for _ in range(depth):
        lists = [lists]
    return lists


def test_a_dead_worker_costs_its_task(method):
    with mp.get_context(method).Pool(2) as pool:
        results = [pool.apply_async(die, (x,)) for x in range(6)]
        for x, result in enumerate(results):
            if x != 3:
                assert result.get(WITHIN) == x
        with pytest.raises(WorkerDied, match="signal 9") as caught:
            results[3].get(WITHIN)
        assert caught.value.signal == signal.SIGKILL and caught.value.pid > 0
        with pytest.raises(WorkerDied, match="exit code 5"):
            pool.apply(leave_at_once, (1,))
        assert pool.map(square, range(4)) == [0, 1, 4, 9]
        assert pickle.loads(pickle.dumps(caught.value)).signal == 9


def die_at_666(x):
    if x == 666:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


@pytest.mark.parametrize("chunksize", [None, 1, 4, 100])
def test_what_was_lost_is_told_by_the_users_items(pool, chunksize):
    with pytest.raises(WorkerDied) as caught:
        pool.map(die_at_666, range(1000), chunksize=chunksize)
    lost = caught.value.items
    assert 666 in lost and len(lost) == (chunksize or 125) and caught.value.index == lost[0] and lost[-1] < 1000
    assert str(lost[0]) in str(caught.value)
    with pytest.raises(ValueError) as failed:
        pool.map(fail, range(1000), chunksize=chunksize)
    assert "item 0 of" in failed.value.__notes__[0]


def test_terminated_tasks_do_not_blame_their_workers(pool):
    result = pool.map_async(sleep_for_ever, range(2))
    pool.terminate()
    with pytest.raises(PoolBroken, match="terminated"):
        result.get(WITHIN)


def test_so_do_terminated_streams(pool):
    done, ordered, unordered = pool.imap(square, [1]), pool.imap(sleep_for_ever, range(5)), pool.imap_unordered(sleep_for_ever, iter("abc"))
    assert next(done) == 1
    pool.terminate()
    for stream in ordered, unordered:
        for _ in range(3):
            with pytest.raises(PoolBroken):
                stream.next(WITHIN)
    with pytest.raises(StopIteration):
        next(done)


def set_value(value):
    value.value = 5


def test_what_a_closure_holds_is_shared(pool):
    value = mp.Value("i", 0)
    pool.apply(lambda: set_value(value))
    assert value.value == 5

def test_an_initializer_that_fails_breaks_the_pool(capfd):
    with mp.Pool(2, initializer=fail, initargs=(1,)) as pool:
        with pytest.raises(PoolBroken):
            pool.map(square, range(3))
        for call in (pool.imap, pool.imap_unordered):
            with pytest.raises(PoolBroken):
                list(call(square, range(3)))
    assert "ValueError: no 1" in capfd.readouterr().err


# ---- what travels ----


def test_lambdas_closures_and_new_functions_travel(method):
    offset = 10
    with mp.get_context(method).Pool(2) as pool:
        assert pool.map(lambda x: x + offset, range(3)) == [10, 11, 12]
        assert pool.apply(functools.partial(add, z=3), (1, 2)) == 6
        assert pool.map(collections.Counter, ["aab"]) == [{"a": 2, "b": 1}]


def test_a_long_callable_travels_once(pool):
    data = bytes(range(256)) * 4000
    pool.map(square, range(3))  # the processes are up
    blocks = _core.arena_stats()["used_blocks"]
    assert pool.map(lambda x: data[x], range(50), chunksize=1) == list(range(50))
    gc.collect()
    pool.map(square, range(3))
    assert _core.arena_stats()["used_blocks"] <= blocks


def test_what_cannot_travel_raises_in_the_caller(pool):
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pool.apply_async(square, (threading.Lock(),))
    lock = threading.Lock()
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pool.apply_async(lambda: lock)


def test_brood_objects_travel_in_arguments(method):
    context = mp.get_context(method)
    queue, value = context.Queue(), context.Value("i", 0)
    with context.Pool(2) as pool:
        pool.starmap(put_and_count, [(queue, value, i) for i in range(10)])
    assert sorted(queue.get(timeout=WITHIN) for _ in range(10)) == list(range(10))
    assert value.value == 10


def put_and_count(queue, value, i):
    queue.put(i)
    with value.get_lock():
        value.value += 1


class Counted:
    """Counts its instances."""

    alive = 0

    def __init__(self):
        type(self).alive += 1

    def __del__(self):
        type(self).alive -= 1


def test_nothing_is_kept_of_arguments(pool):
    things = [Counted() for _ in range(10)]
    refs = [weakref.ref(thing) for thing in things]
    pool.map(id, things)
    del things
    gc.collect()
    assert [ref() for ref in refs] == [None] * 10


class Miscounted:
    """Says that it has so many items, and yields others."""

    def __init__(self, said, items):
        self.said, self.items = said, items

    def __len__(self):
        return self.said

    def __iter__(self):
        return iter(self.items)


def raise_key_error(x):
    raise KeyError(x)


@pytest.mark.parametrize("said, count, chunksize", [
    (5, 3, None), (5, 9, None), (5, 3, 1), (5, 9, 1), (5, 5000, 1), (100, 5000, 7), (9000, 5000, None), (5000, 9000, None), (3, 0, 1), (0, 3, 1)])
def test_iterables_that_yield_more_or_fewer_than_their_len(said, count, chunksize):
    with mp.get_context("fork").Pool(2) as pool:
        things = Miscounted(said, range(-count, 0))
        expected = list(range(count, 0, -1)) if said else []
        assert pool.map(abs, things, chunksize) == expected
        assert pool.starmap(abs, Miscounted(said, zip(range(-count, 0))), chunksize) == expected
        called = []
        pool.map_async(abs, things, chunksize, called.append).get()
        assert called == [expected]
        values = pool.map(raise_key_error, things, chunksize, return_exceptions=True)
        assert len(values) == len(expected) and all(type(value) is KeyError for value in values)
        if expected:
            with pytest.raises(KeyError):
                pool.map(raise_key_error, things, chunksize)


class Emptying:
    """Empties the list that it lies in when it is pickled."""

    def __init__(self, home):
        self.home = home

    def __reduce__(self):
        self.home.clear()
        return int, (7,)


@pytest.mark.parametrize("count", [20, 5000])
def test_a_list_that_changes_while_it_is_mapped(count):
    with mp.get_context("fork").Pool(2) as pool:
        things = list(range(count))
        things[count // 2] = Emptying(things)
        expected = [*range(count // 2), 7, *range(count // 2 + 1, count)]
        assert pool.map(abs, things) == expected
        assert things == []


# ---- workers ----


def test_workers_know_who_they_are(method):
    with mp.get_context(method).Pool(1) as pool:
        name, pid, daemon, parent = pool.apply(whoami, (0,))
        assert "PoolWorker" in name and daemon and parent == os.getpid()
        assert pool._pool[0].pid == pid and pool._processes == 1
        assert pool._pool[0].name == name


def fork_and(how):
    pid = os.fork()
    if pid == 0:
        how()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def leave_with_seven():
    print("from the child")
    sys.exit(7)


def fail_silently():
    sys.stderr = open(os.devnull, "w")
    raise ValueError


@pytest.mark.parametrize("how, code", [(leave_with_seven, 7), (sys.exit, 0), (fail_silently, 1)])
def test_a_child_that_a_task_forks_is_not_the_task(how, code, capfd):
    with mp.get_context("fork").Pool(1) as pool:
        assert pool.map(fork_and, [how, how], chunksize=2) == [code, code]
    assert capfd.readouterr().out == "from the child\n" * (2 if code == 7 else 0)


@pytest.mark.parametrize("method", METHODS)
def test_results_keep_their_pool(method):
    def started(call):
        pool = mp.get_context(method).Pool(1)
        return call(pool), weakref.ref(pool)

    result, its_pool = started(lambda pool: pool.map_async(square, range(3)))
    assert result.get(WITHIN) == [0, 1, 4]
    gc.collect()
    assert its_pool() is None
    results, its_pool = started(lambda pool: pool.imap(square, range(3)))
    assert list(results) == [0, 1, 4]
    gc.collect()
    assert its_pool() is None


def sum_in_child(x):
    queue = mp.Queue()
    child = mp.Process(target=queue.put, args=(x + 1,))
    child.start()
    child.join()
    return queue.get(timeout=WITHIN)


@pytest.mark.parametrize("method", METHODS)
def test_workers_may_have_children(method):
    with mp.get_context(method).Pool(2) as pool:
        assert pool.map(sum_in_child, range(4)) == [1, 2, 3, 4]


def test_pools_nest(pool):
    assert pool.map(nested, [3, 4]) == [[0, 1, 4], [0, 1, 4, 9]]


def test_workers_are_renewed():
    with mp.Pool(1, maxtasksperchild=3) as pool:
        pids = [pool.apply(os.getpid) for _ in range(9)]
    assert sorted(collections.Counter(pids).values()) == [3, 3, 3]


def note_end(path):
    import atexit
    import multiprocessing.util

    multiprocessing.util.Finalize(None, lambda: open(path, "a").write("x"), exitpriority=1)
    atexit.unregister(note_end)


def test_workers_end_in_good_order(tmp_path):
    pool = mp.Pool(2, initializer=note_end, initargs=(str(tmp_path / "ends"),))
    pool.map(square, range(10))
    pool.close()
    pool.join()
    assert (tmp_path / "ends").read_text() == "xx"


# ---- bad input, ends ----


@pytest.mark.parametrize("processes", [0, -1, 1025])
def test_processes_out_of_range(processes):
    with pytest.raises(ValueError, match="[Nn]umber of processes"):
        mp.Pool(processes)


@pytest.mark.parametrize("tasks", [0, -1, 0.5, "12"])
def test_maxtasksperchild_out_of_range(tasks):
    with pytest.raises(ValueError, match="maxtasksperchild"):
        mp.Pool(1, maxtasksperchild=tasks)


class Two:
    """Stands for an int, as numpy's do."""

    def __index__(self):
        return 2


def test_numbers_that_are_no_int(pool):
    with mp.Pool(Two()) as two:
        assert two._processes == 2
    assert pool.map(square, [1, 2, 3], Two()) == list(pool.imap(square, [1, 2, 3], Two(), buffersize=Two())) == [1, 4, 9]
    pool.apply_async(square, (1,)).wait(Two())


@pytest.mark.parametrize("error, match, call", [
    (TypeError, "processes", lambda pool: mp.Pool("2")),
    (TypeError, "processes", lambda pool: mp.Pool(1.5)),
    (TypeError, "initializer must be a callable", lambda pool: mp.Pool(1, initializer=3)),
    (TypeError, "initargs", lambda pool: mp.Pool(1, initializer=square, initargs=3)),
    (ValueError, "chunksize", lambda pool: pool.imap(square, [1], 0)),
    (ValueError, "chunksize", lambda pool: pool.imap_unordered(square, [1], -1)),
    (ValueError, "chunksize", lambda pool: pool.imap(square, [1], 1.5)),
    (TypeError, "chunksize", lambda pool: pool.imap(square, [1], "2")),
    (ValueError, "chunksize", lambda pool: pool.imap(square, [1], 10**30)),
    (ValueError, "chunksize", lambda pool: pool.map(square, [1], 0)),
    (ValueError, "chunksize", lambda pool: pool.map_async(square, [1], -1)),
    (ValueError, "chunksize", lambda pool: pool.starmap(square, [(1,)], 1.5)),
    (TypeError, "chunksize", lambda pool: pool.map(square, [1], [])),
    (ValueError, "buffersize", lambda pool: pool.imap(square, [1], buffersize=0)),
    (TypeError, "buffersize", lambda pool: pool.imap(square, [1], buffersize="many")),
    (TypeError, "buffersize", lambda pool: pool.imap(square, [1], buffersize=1.5)),
    (TypeError, "timeout", lambda pool: pool.apply_async(signal.pause).get("1")),
    (TypeError, "timeout", lambda pool: pool.apply_async(signal.pause, callback=print).get("1")),
    (ValueError, "timeout", lambda pool: pool.apply_async(signal.pause).wait(float("nan"))),
    (ValueError, "timeout", lambda pool: pool.apply_async(signal.pause, callback=print).wait(float("nan"))),
    (TypeError, "timeout", lambda pool: pool.imap(signal.pause, [1]).next("1")),
    (TypeError, "func must be a callable, not int", lambda pool: pool.apply_async(3)),
    (TypeError, "func", lambda pool: pool.map_async("square", [1])),
    (TypeError, "func", lambda pool: pool.imap(None, [1])),
    (TypeError, "args must be iterable, not int", lambda pool: pool.apply_async(square, 3)),
    (TypeError, "kwds must be a mapping, not list", lambda pool: pool.apply_async(square, (), [1])),
    (TypeError, "^callback", lambda pool: pool.apply_async(square, (1,), callback=3)),
    (TypeError, "error_callback", lambda pool: pool.map_async(square, [1], error_callback="x")),
    (TypeError, "not iterable", lambda pool: pool.map_async(square, 3)),
    (TypeError, "not iterable", lambda pool: pool.imap(square, 3)),
])
def test_bad_arguments_are_named_at_the_call(pool, error, match, call):
    with pytest.raises(error, match=match):
        call(pool)


def test_of_nothing_no_chunksize_is_too_small(pool):
    """As in multiprocessing: programs compute it by dividing the length."""
    assert pool.map(square, [], 0) == pool.starmap(square, (), 0) == []


def test_use_after_the_end():
    pool = mp.Pool(1)
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    pool.close()
    for call in (pool.map, pool.imap, pool.starmap, pool.map_async):
        with pytest.raises(ValueError, match="not running"):
            call(square, [1])
    with pytest.raises(ValueError, match="not running"):
        pool.apply(square, (1,))
    pool.join()
    pool.terminate()
    pool.join()
    with pytest.raises(NotImplementedError):
        pickle.dumps(pool)


def sleep_for_ever(_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()


def test_terminate_ends_whatever_the_workers_do():
    pool = mp.Pool(2)
    result = pool.apply_async(sleep_for_ever, (1,))
    waiting = [pool.apply_async(square, (1,)) for _ in range(5)]
    begun = time.monotonic()
    pool.terminate()
    pool.join()
    assert time.monotonic() - begun < 10
    for one in (result, *waiting):
        with pytest.raises((mp.ProcessError, Exception)):
            one.get(WITHIN)
        assert one.ready()


def test_a_pool_that_is_dropped_warns_and_ends():
    with pytest.warns(ResourceWarning, match="unclosed running"):
        pool = mp.Pool(1)
        pid = pool.apply(os.getpid)
        del pool
        gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def run_script(text, **options):
    return subprocess.run([sys.executable, "-c", textwrap.dedent(text)], capture_output=True, text=True, timeout=60, check=False,
                          **options)


def test_the_interpreter_ends_with_a_pool_open():
    done = run_script("""
        import brood as mp
        pool = mp.Pool(2)
        print(pool.map(abs, [-1, -2]))
        """)
    assert done.stdout == "[1, 2]\n" and done.returncode == 0, done.stderr


def test_one_keyboard_interrupt_and_no_noise():
    done = run_script("""
        import brood as mp, os, signal, threading, time
        def wait(x):
            signal.pause()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
        with mp.Pool(2) as pool:
            pool.map(abs, range(4))
            result = pool.map_async(wait, range(2))
            threading.Timer(0.2, os.killpg, (0, signal.SIGINT)).start()
            try:
                result.get()
            except KeyboardInterrupt:
                print("one")
        """, start_new_session=True)
    assert done.stdout == "one\n" and done.stderr == "" and done.returncode == 0


def test_processes_are_gone_when_the_owner_is_killed():
    done = run_script("""
        import brood as mp, os, signal
        pool = mp.Pool(2)
        print(*set(pool.map(lambda x: os.getpid(), range(64), chunksize=1)), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """)
    deadline = time.monotonic() + 2
    alive = {int(pid) for pid in done.stdout.split()}
    assert alive
    while alive and time.monotonic() < deadline:
        alive = {pid for pid in alive if os.path.exists(f"/proc/{pid}") and "State:\tZ" not in open(f"/proc/{pid}/status").read()}
    assert not alive


# ---- maps of long chunks, which are begun while the next is pickled ----

LONG = 5003


class Mute:
    """Does not pickle."""

    def __reduce__(self):
        raise TypeError("mute")


def fail_late(x):
    if x >= LONG - 2:
        raise ValueError(f"no {x}")
    return x


def die_late(x):
    if x == LONG - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def stop(x):
    raise StopIteration(x)


@pytest.mark.parametrize("chunksize", [None, 256, 1000, LONG, 2 * LONG])
@pytest.mark.parametrize("kind", [range, lambda n: list(range(n)), lambda n: tuple(range(n))], ids=["range", "list", "tuple"])
def test_a_long_map(pool, kind, chunksize):
    assert pool.map(square, kind(LONG), chunksize) == [x * x for x in range(LONG)]


def test_a_long_map_ends_with_its_first_error(pool):
    with pytest.raises(ValueError, match=f"no {LONG - 2}") as caught:
        pool.map(fail_late, range(LONG), 1000)
    assert f"item {LONG - 2}" in "".join(caught.value.__notes__)
    with pytest.raises(StopIteration) as caught:
        pool.map(stop, range(LONG), 1000)
    assert caught.value.value == 0
    assert pool.map(square, [3]) == [9]


def test_the_last_chunk_of_a_long_map_is_as_long_as_it_is(pool):
    with pytest.raises(WorkerDied) as caught:
        pool.map(die_late, range(LONG), 1000)
    assert caught.value.items == range(5000, 5003)


def test_an_item_of_a_long_map_that_cannot_travel(pool):
    with pytest.raises(TypeError, match=f"item {LONG} .*mute"):
        pool.map(square, [*range(LONG), Mute()], 1000)
    assert pool.map(square, [3]) == [9]


def test_a_long_map_whose_pool_is_terminated(pool):
    thread = threading.Timer(0.2, pool.terminate)
    thread.start()
    with pytest.raises(PoolBroken, match="terminated"):
        pool.map(time.sleep, [60] * LONG)
    thread.join()
