# SPDX-License-Identifier: MIT
"""Queues: order, bounds, pickling, the ends of processes, and what programs of the standard library expect."""
import array
import asyncio
import collections
import concurrent.futures
import ctypes
import gc
import os
import pickle
import queue
import select
import selectors
import signal
import threading

import pytest

import brood
from brood import _core
from brood.queues import Empty, Full, JoinableQueue, Queue, SimpleQueue

from support import arena_blocks, child, ended, killed, leaves_nothing, until

ctx = brood.get_context("fork")

PLAIN = [None, True, 0, -1, 2**70, 1.5, "", "ä\U0001f600", b"", b"\0x", (), (1, ("a", (b"b", (None,)))), [], {},
         [1, [2, [3, [4, [5, [6]]]]]], {"a": {"b": [1, (2, {"c": 3})]}}, list(range(1000)), {1, 2}, frozenset("ab"),
         bytearray(b"xy"), range(5), collections.OrderedDict(a=1), Exception("no"), 3j, ..., int, len]


class Point(tuple):
    """Not exactly a tuple: reducers may apply to it."""


class Unpicklable:
    def __reduce__(self):
        raise AttributeError("not this one")


class Bomb:
    """Raises when it is unpickled."""

    def __reduce__(self):
        return int, ("not a number",)


class TestPutAndGet:
    @pytest.mark.parametrize("item", PLAIN, ids=lambda item: repr(item)[:20])
    def test_what_goes_in_comes_out(self, item):
        things = ctx.Queue()
        things.put(item)
        result = things.get()
        assert type(result) is type(item)
        assert result == item or repr(result) == repr(item)

    @pytest.mark.parametrize("size", [1, 4000, 4080, 4096, 4097, 10000, 1 << 20, 20 << 20])
    def test_sizes(self, size):
        things = ctx.SimpleQueue()
        things.put(b"x" * size)
        assert things.get() == b"x" * size

    def test_recursive_object(self):
        things = ctx.Queue()
        item = [1]
        item.append(item)
        things.put(item)
        result = things.get()
        assert result[1] is result

    def test_registered_reducer_applies(self):
        from brood.reduction import ForkingPickler

        things = ctx.Queue()
        ForkingPickler.register(Point, lambda point: (str, ("reduced",)))
        try:
            things.put([Point((1, 2)), (Point(),), {"a": Point()}])
            assert things.get() == ["reduced", ("reduced",), {"a": "reduced"}]
        finally:
            del ForkingPickler._extra_reducers[Point]

    def test_bounds(self):
        things = ctx.Queue(2)
        things.put(1)
        assert not things.full()
        things.put_nowait(2)
        assert things.full() and things.qsize() == 2
        for arguments in ((3, False), (3, False, None), (3, True, 0.01), (3, True, -1)):
            with pytest.raises(Full):
                things.put(*arguments)
        with pytest.raises(queue.Full):
            things.put_nowait(3)
        assert [things.get(), things.get(False)] == [1, 2]
        for arguments in ((False,), (False, 5), (True, 0.01), (True, 0)):
            with pytest.raises(Empty):
                things.get(*arguments)
        with pytest.raises(queue.Empty):
            things.get_nowait()
        assert things.empty()

    def test_keywords(self):
        things = ctx.Queue()
        things.put(obj=1, block=True, timeout=None)
        assert things.get(timeout=5, block=True) == 1
        for call in (lambda: things.put(), lambda: things.put(1, 2, 3, 4), lambda: things.put(1, obj=1),
                     lambda: things.get(wait=1), lambda: things.get(True, "soon"), lambda: things.put_many(3)):
            with pytest.raises(TypeError):
                call()
        with pytest.raises(ValueError):
            things.get(timeout=float("nan"))

    def test_full_queue_wakes_its_putter(self):
        things = ctx.Queue(1)
        things.put(0)

        def put():
            for i in range(1, 100):
                things.put(i)

        pid = child(put)
        assert [things.get(timeout=30) for _ in range(100)] == list(range(100))
        assert ended(pid) == 0

    def test_ctrl_c_ends_get(self):
        things = ctx.Queue()
        pid = os.getpid()

        def interrupt():
            until(lambda: open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] == "S")
            os.kill(pid, signal.SIGINT)

        killer = child(interrupt)
        with pytest.raises(KeyboardInterrupt):
            things.get()
        assert ended(killer) == 0


class TestBytes:
    @pytest.mark.parametrize("make", [ctx.Queue, ctx.SimpleQueue, ctx.JoinableQueue])
    @pytest.mark.parametrize("data", [b"", b"\0", b"text" * 1024, bytearray(b"x" * 5000), memoryview(b"abc")[1:],
                                      array.array("d", [1.0, 2.0]), (ctypes.c_int * 3)(1, 2, 3)], ids=lambda data: type(data).__name__)
    def test_anything_like_bytes(self, make, data):
        things = make()
        things.put_bytes(data)
        got = things.get_bytes()
        assert type(got) is bytes and got == bytes(data)

    @pytest.mark.parametrize("size", [4095, 4096, 4097, 20 << 20])
    def test_sizes(self, size):
        things = ctx.Queue()
        data = os.urandom(size)
        things.put_bytes(data)
        assert things.get_bytes(timeout=30) == data

    def test_they_are_in_line_with_objects(self):
        things = ctx.Queue()
        things.put_bytes(pickle.dumps([1, 2]))
        things.put([3, 4])
        things.put_bytes(b"no pickle")
        assert things.get() == [1, 2]
        assert pickle.loads(things.get_bytes()) == [3, 4]
        with pytest.raises(pickle.UnpicklingError):
            things.get()
        assert things.empty()

    def test_bounds(self):
        things = ctx.Queue(1)
        things.put_bytes(b"1")
        for arguments in ((b"2", False), (b"2", True, 0.01), (b"2", True, -1)):
            with pytest.raises(Full):
                things.put_bytes(*arguments)
        assert things.get_bytes(block=True, timeout=None) == b"1"
        for arguments in ((False,), (True, 0.01), (True, -1)):
            with pytest.raises(Empty):
                things.get_bytes(*arguments)

    @pytest.mark.parametrize("wrong", ["text", 3, None, [1]])
    def test_what_is_not_like_bytes(self, wrong):
        things = ctx.Queue()
        with pytest.raises(TypeError, match="bytes-like object is required"):
            things.put_bytes(wrong)
        assert things.empty()

    def test_wrong_calls(self):
        things = ctx.Queue()
        for call in (lambda: things.put_bytes(), lambda: things.put_bytes(obj=b""), lambda: things.put_bytes(b"", True, None, 1),
                     lambda: things.get_bytes(data=b""), lambda: things.get_bytes(True, "soon")):
            with pytest.raises(TypeError):
                call()
        with pytest.raises(BufferError):
            things.put_bytes(memoryview(b"abc")[::2])
        assert things.empty()

    def test_closed(self):
        for made, error in ((ctx.Queue(), ValueError), (ctx.SimpleQueue(), OSError)):
            made.close()
            for call in (lambda: made.put_bytes(b""), lambda: made.get_bytes(block=False)):
                with pytest.raises(error, match="closed"):
                    call()

    def test_tasks_are_counted(self):
        things = ctx.JoinableQueue()
        things.put_bytes(b"1")
        things.get_bytes()
        things.task_done()
        things.join()
        with pytest.raises(ValueError):
            things.task_done()

    def test_a_buffer_is_free_again(self):
        things, data = ctx.Queue(1), bytearray(b"1")
        things.put_bytes(data)
        with pytest.raises(Full):
            things.put_bytes(data, timeout=0.01)
        data += b"2"  # BufferError while somebody has it
        assert things.get_bytes() == b"1"

    def test_wakes_who_waits(self):
        things, answers = ctx.Queue(), ctx.Queue()
        pid = child(lambda: answers.put_bytes(things.get_bytes()[::-1]))
        things.put_bytes(b"123")
        assert answers.get_bytes(timeout=30) == b"321"
        assert ended(pid) == 0


class TestMany:
    def test_in_order(self):
        things = ctx.Queue()
        assert things.put_many(range(1000)) == 1000
        assert things.put_many([]) == 0
        got = []
        while len(got) < 1000:
            got += things.get_many(300)
        assert got == list(range(1000))

    def test_takes_what_is_there(self):
        things = ctx.Queue()
        things.put_many("abc")
        assert things.get_many(10) == ["a", "b", "c"]
        with pytest.raises(Empty):
            things.get_many(10, False)
        with pytest.raises(ValueError):
            things.get_many(0)

    def test_bounded(self):
        things = ctx.Queue(3)
        assert things.put_many(range(5), timeout=0.01) == 3
        with pytest.raises(Full):
            things.put_many([1], block=False)
        assert things.get_many(2) == [0, 1]

    def test_large_items(self):
        things = ctx.Queue()
        sizes = [10, 300_000, 10, 5000, 1 << 20]
        things.put_many(b"x" * size for size in sizes)
        got = []
        while len(got) < len(sizes):
            got += [len(item) for item in things.get_many(10)]
        assert got == sizes

    def test_unpicklable_leaves_the_queue_as_it_was(self):
        things = ctx.Queue()
        with pytest.raises(AttributeError):
            things.put_many([1, Unpicklable()])
        assert things.empty()


class TestBadItems:
    @pytest.mark.parametrize("make", [ctx.Queue, ctx.JoinableQueue, ctx.SimpleQueue])
    def test_unpicklable_raises_in_the_caller(self, make):
        things = make()
        with pytest.raises(AttributeError, match="not this one"):
            things.put(Unpicklable())
        with pytest.raises(Exception, match="lambda"):
            things.put(lambda: 0)
        things.put(1)
        assert things.get() == 1

    def test_hook_of_a_subclass(self):
        told = []

        class Tolerant(Queue):
            @staticmethod
            def _on_queue_feeder_error(error, obj):
                told.append((type(error), type(obj)))

        things = Tolerant(ctx=ctx)
        assert things.put(Unpicklable()) is None
        assert told == [(AttributeError, Unpicklable)]
        assert things.empty()

    def test_what_cannot_be_unpickled_is_gone(self):
        things = ctx.Queue()
        things.put(Bomb())
        things.put(2)
        with pytest.raises(ValueError, match="not a number"):
            things.get()
        assert things.get() == 2


class TestClose:
    @pytest.mark.parametrize("make", [ctx.Queue, ctx.JoinableQueue])
    def test_closed_here(self, make):
        things = make()
        things.put(1)
        with pytest.raises(AssertionError, match="not closed"):
            things.join_thread()
        things.close()
        things.close()
        things.join_thread()
        things.cancel_join_thread()
        for call in (lambda: things.put(1), things.get, lambda: things.put_nowait(1), things.get_nowait,
                     lambda: things.put_many([1]), lambda: things.get_many(1)):
            with pytest.raises(ValueError, match="Queue <.*> is closed"):
                call()
        with pytest.raises(OSError, match="is closed"):
            things.empty()
        assert things.qsize() == 1

    @pytest.mark.parametrize("make", [ctx.Queue, ctx.JoinableQueue])
    def test_one_that_was_closed_unused_is_empty(self, make):
        """As in multiprocessing, where nothing is closed until a put has opened it."""
        things = make()
        things.close()
        assert things.empty()

    def test_closing_is_private(self):
        things = ctx.Queue()
        assert ended(child(lambda: things.put(1) or things.close())) == 0
        assert things.get() == 1

    def test_simple_queue(self):
        things = ctx.SimpleQueue()
        things.close()
        assert things._reader.closed and things._writer.closed
        for call in (things.get, lambda: things.put(1), things.empty, things._reader.fileno):
            with pytest.raises(OSError):
                call()

    def test_repr_and_generic_alias(self):
        assert repr(ctx.Queue()).startswith("<brood.queues.Queue object at 0x")
        assert SimpleQueue[int].__origin__ is SimpleQueue


class TestProcesses:
    def test_producers_and_consumers(self):
        tasks, results = ctx.Queue(50), ctx.Queue()

        def produce(first):
            for i in range(first, first + 500):
                tasks.put(i)

        def consume():
            while (item := tasks.get()) is not None:
                results.put(item)

        producers = [child(lambda first=first: produce(first)) for first in (0, 500, 1000)]
        consumers = [child(consume) for _ in range(2)]
        assert [ended(pid) for pid in producers] == [0] * 3
        tasks.put_many([None, None])
        assert [ended(pid) for pid in consumers] == [0] * 2
        assert sorted(results.get() for _ in range(1500)) == list(range(1500))
        assert results.empty()

    def test_join_before_drain(self):
        things = ctx.Queue()
        process = ctx.Process(target=put_much, args=(things,))
        process.start()
        process.join()
        assert process.exitcode == 0
        assert sum(len(things.get()) for _ in range(20)) == 20 << 20

    def test_queue_dropped_by_its_maker_at_once(self):
        answers = ctx.Queue()

        def start():
            things = ctx.Queue()
            things.put("kept")
            process = ctx.Process(target=pass_on, args=(things, answers))
            process.start()
            return process

        process = start()
        gc.collect()
        assert answers.get(timeout=30) == "kept"
        process.join()

    def test_killed_producers_leave_whole_items(self):
        things = ctx.Queue()

        def produce():
            while True:
                things.put(("x" * 100, 7))

        for _ in range(5):
            pid = child(produce)
            for _ in range(50):
                assert things.get(timeout=30) == ("x" * 100, 7)
            killed(pid)
            while not things.empty():
                assert things.get(timeout=30) == ("x" * 100, 7)
        things.put("still")
        assert things.get(timeout=30) == "still"

    def test_killed_consumers_harm_nobody(self):
        things = ctx.Queue()
        pids = [child(lambda: [things.get() for _ in iter(int, 1)]) for _ in range(3)]
        things.put_many(range(100))
        for pid in pids:
            killed(pid)
        things.put("last")
        until(lambda: things.get(timeout=30) == "last")

    def test_queue_in_a_queue(self):
        outer = ctx.Queue()

        def answer():
            outer.get().put("hello")

        pid = child(answer)
        inner = ctx.Queue(3)
        outer.put(inner)
        assert inner.get(timeout=30) == "hello"
        assert ended(pid) == 0

    @pytest.mark.parametrize("make", [ctx.Queue, ctx.JoinableQueue, ctx.SimpleQueue])
    def test_pickled_twin(self, make):
        things = make()
        twin = pickle.loads(pickle.dumps(things))
        assert type(twin) is type(things)
        twin.put(1)
        assert things.get() == 1
        if isinstance(things, Queue):
            assert twin._maxsize == things._maxsize and not twin.full()
        if isinstance(things, JoinableQueue):
            twin.task_done()
            things.join()


def put_much(things):
    for _ in range(20):
        things.put(b"x" * (1 << 20))


def pass_on(things, answers):
    answers.put(things.get())


class TestJoinable:
    def test_join_waits_for_task_done(self):
        things = ctx.JoinableQueue()
        done = ctx.RawValue("i", 0)

        def work():
            while True:
                things.get()
                done.value += 1
                things.task_done()

        pid = child(work)
        for _ in range(3):
            things.put_many(range(50))
            things.join()
            assert done.value % 50 == 0
        assert done.value == 150
        killed(pid)
        things.join()

    def test_too_often(self):
        things = ctx.JoinableQueue()
        things.put(1)
        things.task_done()
        with pytest.raises(ValueError, match="called too many times"):
            things.task_done()
        things.join()

    def test_killed_putters_leave_no_count_behind(self):
        things = ctx.JoinableQueue()
        pid = child(lambda: [things.put(1) for _ in iter(int, 1)])
        until(lambda: things.qsize() > 100)
        killed(pid)
        while not things.empty():
            things.get()
            things.task_done()
        things.join()

    def test_several_join(self):
        things = ctx.JoinableQueue()
        things.put(1)
        pids = [child(things.join) for _ in range(3)]
        threads = [threading.Thread(target=things.join) for _ in range(2)]
        for thread in threads:
            thread.start()
        until(lambda: things._room.waiters() == 5)
        things.task_done()
        assert [ended(pid) for pid in pids] == [0] * 3
        for thread in threads:
            thread.join()


class TestEnds:
    def test_wait_for_reader(self):
        things, other = ctx.SimpleQueue(), ctx.SimpleQueue()
        assert things._reader.poll() is False
        assert things._reader.poll(0.01) is False
        pid = child(lambda: things.put(1))
        assert brood.connection.wait([things._reader, other._reader], 30) == [things._reader]
        assert things._reader.poll() and things._poll()
        assert things._reader.recv() == 1
        assert ended(pid) == 0

    def test_select(self):
        things = ctx.Queue()
        assert select.select([things._reader], [], [], 0)[0] == []
        things.put(1)
        assert select.select([things._reader], [], [], 30)[0] == [things._reader]
        things.get()

    def test_closed_end(self):
        things = ctx.Queue()
        things._reader.close()
        with pytest.raises(OSError):
            things._reader.fileno()
        things._writer.send(1)
        assert things.get() == 1
        with pytest.raises(AttributeError):
            things.no_such_thing

    def test_no_descriptors_stay(self):
        count = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            ctx.Queue()._reader.fileno()
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) <= count

    def test_process_pool_executor(self):
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=ctx) as executor:
            assert list(executor.map(abs, range(-20, 0))) == list(range(20, 0, -1))
            with pytest.raises(Exception):
                executor.submit(abs, lambda: 0).result(30)
            assert executor.submit(abs, -3).result(30) == 3


def take_with_loop(things, count):
    """What an event loop gets that takes one object each time that the descriptor is readable."""
    taken = []
    loop = asyncio.new_event_loop()

    def take():
        taken.append(things.get())
        if len(taken) == count:
            loop.call_later(0, lambda: loop.call_soon(loop.stop))  # one more turn: nothing is readable now

    loop.add_reader(things._reader.fileno(), take)
    loop.run_forever()
    loop.close()
    return taken


def put_all(things, count):
    for item in range(count):
        things.put(item)


def count_descriptors_over_a_get(things, results):
    before = len(os.listdir("/proc/self/fd"))
    things.get()
    results.put((before, len(os.listdir("/proc/self/fd"))))


class TestReader:
    @pytest.mark.parametrize("make", [ctx.Queue, ctx.JoinableQueue, ctx.SimpleQueue])
    def test_not_readable_once_the_last_is_taken(self, make):
        things = make()
        with selectors.DefaultSelector() as selector:
            selector.register(things._reader.fileno(), selectors.EVENT_READ)
            for count in (1, 3):
                for item in range(count):
                    things.put(item)
                for item in range(count):
                    assert selector.select(10)
                    assert things.get() == item
                assert not selector.select(0)

    def test_get_many_is_a_get(self):
        things = ctx.Queue()
        fd = things._reader.fileno()
        things.put_many(range(5))
        assert select.select([fd], [], [], 10)[0]
        assert things.get_many(3) == [0, 1, 2]
        assert select.select([fd], [], [], 0)[0]
        assert things.get_many(9) == [3, 4]
        assert not select.select([fd], [], [], 0)[0]
        things.put(5)
        assert select.select([fd], [], [], 10)[0]

    def test_in_an_event_loop(self):
        things = ctx.Queue()
        producer = ctx.Process(target=put_all, args=(things, 500))
        producer.start()
        assert take_with_loop(things, 500) == list(range(500))
        producer.join()

    def test_child_has_no_reader_of_its_own(self):
        things = ctx.Queue()
        things._reader.fileno()
        results = ctx.Queue()
        things.put(1)
        child = ctx.Process(target=count_descriptors_over_a_get, args=(things, results))
        child.start()
        before, after = results.get()
        child.join()
        assert before == after


class TestLife:
    @pytest.mark.parametrize("make", [ctx.Queue, ctx.JoinableQueue, ctx.SimpleQueue])
    def test_dropped_queues_go(self, make):
        def fill():
            things = make()
            for item in (1, "x" * 10000, b"y" * 300000):
                things.put(item)
            things._reader.fileno()

        fill()
        gc.collect()
        blocks = arena_blocks()
        for _ in range(20):
            fill()
        gc.collect()
        assert arena_blocks() <= blocks

    def test_borrowed_messages_go(self):
        things = ctx.Queue()
        things.put(b"x" * 100000)
        things.get()
        blocks = arena_blocks()
        for _ in range(20):
            things.put(b"x" * 100000)
            things.get()
        assert arena_blocks() <= blocks

    def test_no_python_references_leak(self):
        def round():
            things = ctx.JoinableQueue(10)
            things.put_many([1, "a", object, (1, [2])])
            things.put({"a": 1})
            things.get_many(3)
            while not things.empty():
                things.get()
            for call in (lambda: things.get(False), lambda: things.put(lambda: 0), lambda: things.put_many([len, Unpicklable()]),
                         lambda: things.get(timeout="x"), lambda: things.put()):
                with pytest.raises(Exception):
                    call()
            things.put(Bomb())
            with pytest.raises(ValueError):
                things.get()
            pickle.loads(pickle.dumps(things))._reader

        leaves_nothing(round)

    def test_threads_of_one_process(self):
        things = ctx.Queue(4)
        total = []

        def consume():
            while (item := things.get()) is not None:
                total.append(item)

        threads = [threading.Thread(target=consume) for _ in range(3)]
        for thread in threads:
            thread.start()
        for i in range(300):
            things.put(i)
        things.put_many([None] * 3)
        for thread in threads:
            thread.join()
        assert sorted(total) == list(range(300))

    def test_without_init(self):
        for call in (lambda bare: bare.put(1), lambda bare: bare.get(), lambda bare: bare.qsize()):
            with pytest.raises(ValueError, match="__init__"):
                call(_core.Queue.__new__(_core.Queue))
