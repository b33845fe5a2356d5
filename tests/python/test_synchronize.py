# SPDX-License-Identifier: MIT
"""Locks, semaphores, conditions, events and barriers: what each does alone, among processes, and after a kill."""
import gc
import os
import pickle
import signal
import threading
import time

import pytest

import brood
from brood import _core
from brood.synchronize import SEM_VALUE_MAX, Barrier, Condition, Event, Lock, Semaphore

from support import arena_blocks, child, ended, killed, leaves_nothing, until

ctx = brood.get_context("fork")


def all_objects():
    return [ctx.Lock(), ctx.RLock(), ctx.Semaphore(3), ctx.BoundedSemaphore(2), ctx.Condition(), ctx.Event(),
            ctx.Barrier(2)]


class TestLock:
    def test_excludes(self):
        lock = ctx.Lock()
        assert lock.acquire() is True
        assert lock.acquire(False) is False
        assert lock.acquire(block=True, timeout=0.01) is False
        assert lock.acquire(timeout=-1) is False
        lock.release()
        assert lock.acquire(block=False) is True
        lock.release()

    def test_released_too_often(self):
        with pytest.raises(ValueError, match="semaphore or lock released too many times"):
            ctx.Lock().release()

    def test_repr_names_the_owner(self):
        lock = ctx.Lock()
        assert repr(lock) == "<Lock(owner=None)>"
        with lock:
            assert repr(lock) == "<Lock(owner=MainProcess)>"
            seen = []
            thread = threading.Thread(target=lambda: seen.append(repr(lock)))
            thread.start()
            thread.join()
            assert seen == ["<Lock(owner=SomeOtherThread)>"]

    def test_repr_in_another_process(self):
        lock = ctx.Lock()
        said = ctx.SimpleQueue()
        with lock:
            pid = child(lambda: said.put(repr(lock)))
            assert ended(pid) == 0
        assert said.get() == "<Lock(owner=SomeOtherProcess)>"

    def test_semlock_attributes(self):
        semlock = ctx.Lock()._semlock
        assert (semlock.kind, semlock.maxvalue, semlock.name) == (1, 1, None)
        assert isinstance(semlock.handle, int)
        assert (semlock._count(), semlock._is_mine(), semlock._get_value(), semlock._is_zero()) == (0, False, 1, False)
        semlock.acquire()
        assert (semlock._count(), semlock._is_mine(), semlock._get_value(), semlock._is_zero()) == (1, True, 0, True)

    def test_another_process_may_release(self):
        lock = ctx.Lock()
        lock.acquire()
        assert ended(child(lock.release)) == 0
        assert lock.acquire(timeout=10)

    def test_counts_exactly_among_processes(self):
        lock = ctx.Lock()
        number = ctx.RawValue("i", 0)

        def add():
            for _ in range(2000):
                with lock:
                    number.value += 1

        pids = [child(add) for _ in range(3)]
        assert [ended(pid) for pid in pids] == [0, 0, 0]
        assert number.value == 6000

    def test_killed_holder_gives_it_back(self):
        lock = ctx.Lock()
        ready = ctx.SimpleQueue()

        def hold():
            lock.acquire()
            ready.put(None)
            signal.pause()

        pid = child(hold)
        ready.get()
        assert lock.acquire(False) is False
        killed(pid)
        assert lock.acquire(timeout=10)
        assert lock._semlock.owner_died
        lock.release()
        assert lock.acquire()
        assert not lock._semlock.owner_died

    def test_forked_child_does_not_own_what_its_parent_holds(self):
        lock = ctx.RLock()

        def look():
            assert not lock._semlock._is_mine()
            assert lock._semlock._count() == 0
            assert not lock.acquire(False)

        with lock:
            assert ended(child(look)) == 0


class TestRLock:
    def test_is_recursive(self):
        lock = ctx.RLock()
        assert [lock.acquire() for _ in range(3)] == [True] * 3
        assert repr(lock) == "<RLock(MainProcess, 3)>"
        for _ in range(3):
            lock.release()
        assert repr(lock) == "<RLock(None, 0)>"
        with pytest.raises(AssertionError, match="attempt to release recursive lock not owned by thread"):
            lock.release()

    def test_another_thread_may_not_release(self):
        lock = ctx.RLock()
        errors = []

        def release():
            try:
                lock.release()
            except AssertionError as error:
                errors.append(error)

        with lock:
            thread = threading.Thread(target=release)
            thread.start()
            thread.join()
        assert len(errors) == 1


class TestSemaphore:
    def test_counts(self):
        semaphore = ctx.Semaphore(2)
        assert semaphore.get_value() == 2
        assert semaphore.acquire() and semaphore.acquire()
        assert semaphore.acquire(False) is False
        for _ in range(4):
            semaphore.release()
        assert semaphore.get_value() == 4
        assert repr(semaphore) == "<Semaphore(value=4)>"

    def test_bounded(self):
        semaphore = ctx.BoundedSemaphore(2)
        semaphore.acquire()
        semaphore.release()
        with pytest.raises(ValueError, match="released too many times"):
            semaphore.release()
        assert repr(semaphore) == "<BoundedSemaphore(value=2, maxvalue=2)>"

    @pytest.mark.parametrize("value", [-1, SEM_VALUE_MAX + 1])
    def test_bad_value(self, value):
        with pytest.raises((OSError, OverflowError)):
            ctx.Semaphore(value)

    def test_maxvalue_of_its_own(self):
        semlock = _core.SemLock(1, 0, 1)
        semlock.release()
        with pytest.raises(ValueError):
            semlock.release()

    def test_tokens_of_the_killed_come_back(self):
        semaphore = ctx.Semaphore(2)
        ready = ctx.SimpleQueue()

        def hold():
            semaphore.acquire()
            semaphore.acquire()
            ready.put(None)
            signal.pause()

        pid = child(hold)
        ready.get()
        killed(pid)
        assert semaphore.acquire(timeout=10) and semaphore.acquire(timeout=10)

    def test_messages_stay_spent_when_a_process_leaves(self):
        semaphore = ctx.Semaphore(0)
        semaphore.release()

        def take():
            semaphore.acquire()
            _core.leave()

        assert ended(child(take)) == 0
        assert semaphore.acquire(timeout=0.2) is False


class TestCondition:
    @pytest.mark.parametrize("make", [ctx.Lock, ctx.RLock])
    def test_wait_and_notify(self, make):
        condition = Condition(make(), ctx=ctx)
        said = ctx.SimpleQueue()

        def wait():
            with condition:
                said.put("in")
                said.put(condition.wait(30))

        pid = child(wait)
        assert said.get() == "in"
        with condition:  # only free once the child waits
            assert condition._sleeping_count.get_value() == 1
            condition.notify()
        assert said.get() is True
        assert ended(pid) == 0

    def test_lock_held_deeply(self):
        condition = ctx.Condition()
        with condition, condition:
            assert condition.wait(0.01) is False
            assert condition._lock._semlock._count() == 2

    def test_needs_the_lock(self):
        condition = ctx.Condition()
        with pytest.raises(AssertionError, match="must acquire"):
            condition.wait(0)
        with pytest.raises(AssertionError, match="lock is not owned"):
            condition.notify()

    def test_notify_some_then_all(self):
        condition = ctx.Condition()
        said = ctx.SimpleQueue()

        def wait():
            with condition:
                said.put("in")
                condition.wait()
            said.put("out")

        pids = [child(wait) for _ in range(4)]
        assert [said.get() for _ in pids] == ["in"] * 4
        with condition:
            condition.notify(n=2)
        assert [said.get(), said.get()] == ["out"] * 2
        with condition:
            assert condition._sleeping_count.get_value() == 2
            condition.notify_all()
        assert [said.get(), said.get()] == ["out"] * 2
        assert [ended(pid) for pid in pids] == [0] * 4

    def test_wait_for(self):
        condition = ctx.Condition()
        number = ctx.RawValue("i", 0)

        def count():
            for _ in range(5):
                with condition:
                    number.value += 1
                    condition.notify()

        pid = child(count)
        with condition:
            assert condition.wait_for(lambda: number.value == 5, timeout=30) is True
            assert condition.wait_for(lambda: 0, timeout=0.02) == 0
        assert ended(pid) == 0

    def test_notify_given_to_the_killed_passes_on(self):
        condition = ctx.Condition()
        said = ctx.SimpleQueue()

        def wait():
            with condition:
                said.put("in")
                condition.wait()
            said.put("out")

        first = child(wait)
        said.get()
        until(lambda: condition._sleeping_count.get_value() == 1)
        second = child(wait)
        said.get()
        until(lambda: condition._sleeping_count.get_value() == 2)
        os.kill(first, signal.SIGSTOP)
        with condition:
            condition.notify()
        killed(first)
        assert said.get() == "out"
        assert ended(second) == 0

    def test_threads_among_themselves(self):
        condition = ctx.Condition()
        turns = []

        def take_turns(me):
            for i in range(200):
                with condition:
                    assert condition.wait_for(lambda: len(turns) % 2 == me, 30)
                    turns.append(me)
                    condition.notify_all()

        threads = [threading.Thread(target=take_turns, args=(me,)) for me in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert turns == [0, 1] * 200

    def test_interrupted_wait_holds_the_lock(self):
        condition = ctx.Condition()
        with condition:
            with pytest.raises(KeyboardInterrupt):
                interrupt_soon(condition.wait)
            assert condition._lock._semlock._is_mine()


def interrupt_soon(wait, *arguments):
    """Call wait, and send this process a SIGINT once it sleeps there."""
    pid = os.getpid()
    killer = child(lambda: until(lambda: sleeps(pid)) or os.kill(pid, signal.SIGINT))
    try:
        return wait(*arguments)
    finally:
        ended(killer)


def sleeps(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "S"


class TestEvent:
    def test_flag(self):
        event = ctx.Event()
        assert event.is_set() is False
        assert event.wait(0) is False
        assert event.wait(timeout=0.01) is False
        event.set()
        assert event.is_set() is True
        assert event.wait() is True
        event.clear()
        assert event.is_set() is False
        assert repr(event).endswith(" unset>") and repr(event).startswith("<Event at 0x")

    def test_wakes_all(self):
        event = ctx.Event()
        pids = [child(lambda: os._exit(0 if event.wait(30) else 1)) for _ in range(3)]
        event.set()
        assert [ended(pid) for pid in pids] == [0] * 3

    def test_ctrl_c(self):
        with pytest.raises(KeyboardInterrupt):
            interrupt_soon(ctx.Event().wait)

    def test_handler_that_does_not_raise_runs_and_the_wait_goes_on(self):
        event = ctx.Event()
        before = signal.signal(signal.SIGINT, lambda *_: event.set())
        try:
            assert interrupt_soon(event.wait) is True
        finally:
            signal.signal(signal.SIGINT, before)


class TestBarrier:
    def test_trips(self):
        barrier = ctx.Barrier(3)
        said = ctx.SimpleQueue()
        pids = [child(lambda: said.put(barrier.wait(30))) for _ in range(2)]
        mine = barrier.wait(30)
        assert sorted([mine, said.get(), said.get()]) == [0, 1, 2]
        assert [ended(pid) for pid in pids] == [0, 0]
        assert (barrier.parties, barrier.n_waiting) == (3, 0)

    def test_action_runs_once_before_anyone_leaves(self):
        number = ctx.RawValue("i", 0)

        def add():
            number.value += 1

        barrier = ctx.Barrier(3, action=add)

        def pass_it():
            for i in range(1, 20):
                barrier.wait(30)
                assert number.value == i
                gate.wait(30)

        gate = ctx.Barrier(3)
        pids = [child(pass_it) for _ in range(2)]
        pass_it()
        assert [ended(pid) for pid in pids] == [0, 0]

    def test_failing_action_breaks_it(self):
        barrier = ctx.Barrier(1, action=lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            barrier.wait()
        assert barrier.broken
        barrier.reset()
        assert not barrier.broken

    def test_timeout_breaks_it(self):
        barrier = ctx.Barrier(2, timeout=0.01)
        with pytest.raises(threading.BrokenBarrierError):
            barrier.wait()
        with pytest.raises(threading.BrokenBarrierError):
            barrier.wait(5)
        assert barrier.broken

    def test_abort_ends_waits(self):
        barrier = ctx.Barrier(2)

        def wait():
            with pytest.raises(threading.BrokenBarrierError):
                barrier.wait(30)

        pid = child(wait)
        until(lambda: barrier.n_waiting == 1)
        barrier.abort()
        assert ended(pid) == 0

    def test_killed_party_breaks_it(self):
        barrier = ctx.Barrier(2)
        third = ctx.Barrier(3)
        pid = child(lambda: third.wait())
        until(lambda: third.n_waiting == 1)
        killed(pid)
        with pytest.raises(threading.BrokenBarrierError):
            third.wait(30)
        assert not barrier.broken

    def test_handler_that_does_not_raise_leaves_it_whole(self):
        barrier = ctx.Barrier(2)
        before = signal.signal(signal.SIGUSR1, lambda *_: None)
        pid = os.getpid()

        def signal_and_come():
            until(lambda: barrier.n_waiting == 1 and sleeps(pid))
            os.kill(pid, signal.SIGUSR1)
            barrier.wait(30)

        try:
            killer = child(signal_and_come)
            barrier.wait(30)
            assert ended(killer) == 0
            assert not barrier.broken
        finally:
            signal.signal(signal.SIGUSR1, before)

    @pytest.mark.parametrize("parties", [0, -1])
    def test_bad_parties(self, parties):
        with pytest.raises(ValueError):
            ctx.Barrier(parties)


class TestLife:
    @pytest.mark.parametrize("index", range(7))
    def test_pickles_at_any_time(self, index):
        thing = all_objects()[index]
        twin = pickle.loads(pickle.dumps(thing))
        assert type(twin) is type(thing)
        if hasattr(thing, "release"):
            before = repr(thing)
            with twin:
                assert repr(thing) != before or isinstance(thing, Condition)
            assert repr(thing) == before

    def test_event_through_a_queue(self):
        queue = ctx.Queue()
        answer = ctx.Event()
        pid = child(lambda: queue.get().set())
        queue.put(answer)
        assert answer.wait(30)
        assert ended(pid) == 0

    def test_object_in_a_queue_outlives_its_maker_dropping_it(self):
        queue = ctx.Queue()
        lock = ctx.Lock()
        lock.acquire()
        queue.put(lock)
        del lock
        gc.collect()
        twin = queue.get()
        assert twin.acquire(False) is False

    def test_forked_child_keeps_what_its_parent_drops(self):
        holder = [ctx.Event(), ctx.SimpleQueue()]
        go = ctx.Event()

        def use():
            go.wait()
            holder[0].set()
            holder[1].put(1)
            os._exit(0 if holder[0].is_set() and holder[1].get() == 1 else 1)

        pid = child(use)
        holder.clear()
        gc.collect()
        ctx.Lock(), ctx.Event()  # which look whether what was dropped can go
        go.set()
        assert ended(pid) == 0

    def test_dropped_objects_go(self):
        for make in (ctx.Lock, ctx.RLock, ctx.Semaphore, ctx.Condition, ctx.Event, lambda: ctx.Barrier(2)):
            make()
            blocks = arena_blocks()
            for _ in range(50):
                make()
            assert arena_blocks() <= blocks  # what others had left behind may have gone meanwhile

    def test_pickled_and_unpickled_objects_go(self):
        pickle.loads(pickle.dumps(ctx.Event()))
        blocks = arena_blocks()
        for _ in range(50):
            pickle.loads(pickle.dumps(ctx.Event()))
        assert arena_blocks() <= blocks  # what others had left behind may have gone meanwhile

    def test_what_killed_children_had_goes(self):
        def one():
            ready = ctx.SimpleQueue()
            pid = child(lambda: ready.put(None) or signal.pause())
            ready.get()
            killed(pid)

        for _ in range(3):
            one()
        ctx.Lock(), ctx.Lock(), ctx.Lock()
        blocks = arena_blocks()
        for _ in range(6):
            one()
        for _ in range(6):
            ctx.Lock()
        assert arena_blocks() <= blocks

    def test_held_lock_can_be_dropped(self):
        ctx.Lock().acquire()
        ctx.RLock().acquire()
        blocks = arena_blocks()
        for _ in range(20):
            ctx.Lock().acquire()
            lock = ctx.RLock()
            lock.acquire()
            lock.acquire()
            del lock
        assert arena_blocks() <= blocks  # what others had left behind may have gone meanwhile

    def test_pickle_opened_twice(self):
        lock = ctx.Lock()
        data = pickle.dumps(lock)
        first, second = pickle.loads(data), pickle.loads(data)
        with first:
            assert second.acquire(False) is False

    def test_pickle_of_what_is_gone(self):
        data = pickle.dumps(ctx.Lock())
        pickle.loads(data)
        with pytest.raises(ValueError, match="gone"):
            pickle.loads(data)

    @pytest.mark.parametrize("offset, generation", [(0, 0), (64, 0), (1 << 20, 0), (1 << 62, 1), (12345, 1)])
    def test_nonsense_for_a_ticket(self, offset, generation):
        ctx.Lock()
        with pytest.raises(ValueError):
            _core._rebuild(_core.SemLock, offset, generation, 1, (1, 1))

    def test_ticket_for_another_type(self):
        lock = ctx.Lock()
        function, arguments, *_ = lock._semlock.__reduce__()
        with pytest.raises(TypeError):
            function(_core.Event, *arguments[1:])
        with pytest.raises(ValueError):
            function(_core.Event, arguments[1], arguments[2], 5, ())

    def test_without_init(self):
        for cls in (_core.SemLock, _core.Event, _core.Condition, _core.Barrier):
            with pytest.raises(ValueError, match="__init__"):
                cls.__new__(cls).__reduce__()

    def test_python_subclass_keeps_its_attributes(self):
        event = NamedEvent(ctx=ctx)
        event.name = "dawn"
        twin = pickle.loads(pickle.dumps(event))
        assert type(twin) is NamedEvent and twin.name == "dawn"
        event.set()
        assert twin.is_set()

    def test_no_python_references_leak(self):
        def round():
            for thing in all_objects():
                pickle.loads(pickle.dumps(thing))
            lock = ctx.Lock()
            lock.acquire(timeout=1)
            lock.release()
            with pytest.raises(ValueError):
                lock.release()
            with pytest.raises(TypeError):
                lock.acquire(1, 2, 3)
            with pytest.raises(TypeError):
                lock.acquire(wait=1)
            with pytest.raises(TypeError):
                lock.acquire(True, block=1)
            with pytest.raises(TypeError):
                lock.acquire(True, "soon")

        leaves_nothing(round)


class NamedEvent(Event):
    """With an attribute of its own."""


def test_names():
    assert isinstance(ctx.Barrier(1), threading.Barrier)
    assert issubclass(brood.synchronize.BoundedSemaphore, Semaphore)
    assert isinstance(ctx.Lock(), Lock) and isinstance(ctx.Barrier(1), Barrier)


def test_with_processes():
    lock, number = ctx.Lock(), ctx.Value("i", 0)
    processes = [ctx.Process(target=add_often, args=(lock, number)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 3
    assert number.value == 1500


def add_often(lock, number):
    for _ in range(500):
        with lock:
            number.get_obj().value += 1


def test_timeouts_are_exact_enough():
    start = time.monotonic()
    assert ctx.Semaphore(0).acquire(timeout=0.05) is False
    assert 0.05 <= time.monotonic() - start < 5
