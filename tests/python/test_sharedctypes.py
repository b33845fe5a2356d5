# SPDX-License-Identifier: MIT
"""Shared ctypes: values, arrays, structures, their wrappers and the memory that they lie in."""
import array
import ctypes
import gc
import multiprocessing
import pickle
import signal
import threading

import pytest

import brood
from brood import _core
from brood.reduction import ForkingPickler
from brood.sharedctypes import (Array, RawArray, RawValue, Synchronized, SynchronizedArray, SynchronizedString, Value,
                                copy, synchronized, typecode_to_type)

from support import arena_blocks, child, ended, killed

ctx = brood.get_context("fork")


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_double), ("name", ctypes.c_char * 4)]


def through_pickle(thing):
    return pickle.loads(ForkingPickler.dumps(thing))


class TestMemory:
    def test_is_a_writable_buffer(self):
        memory = _core.Memory(100)
        assert len(memory) == memory.size == 100
        view = memory.create_memoryview()
        assert bytes(view) == bytes(100) and not view.readonly
        view[3] = 7
        assert memoryview(memory)[3] == 7
        assert memory.address % 64 == 0

    def test_shared_with_a_child(self):
        memory = _core.Memory(8)
        assert ended(child(lambda: memoryview(memory).__setitem__(0, 9))) == 0
        assert memoryview(memory)[0] == 9

    def test_pickles_as_a_reference(self):
        memory = _core.Memory(8)
        twin = pickle.loads(pickle.dumps(memory))
        memoryview(twin)[1] = 5
        assert memoryview(memory)[1] == 5 and len(twin) == 8

    def test_lives_as_long_as_a_view(self):
        view = memoryview(_core.Memory(8))
        gc.collect()
        view[0] = 1
        assert view[0] == 1

    def test_goes(self):
        _core.Memory(1000)
        blocks = arena_blocks()
        for _ in range(50):
            _core.Memory(1000)
        assert arena_blocks() <= blocks  # what others had left behind may have gone meanwhile

    def test_bad_size(self):
        with pytest.raises(ValueError):
            _core.Memory(-1)
        with pytest.raises((ValueError, MemoryError)):
            _core.Memory(1 << 60)
        with pytest.raises(TypeError):
            _core.Memory("8")
        memory = _core.Memory(0)
        assert len(memory) == 0 and bytes(memory) == b""
        with pytest.raises(RuntimeError):
            memory.__init__(8)
        with pytest.raises(ValueError):
            memory._restore(100)
        with pytest.raises(ValueError):
            memoryview(_core.Memory.__new__(_core.Memory))


class TestRaw:
    @pytest.mark.parametrize("code", sorted(set(typecode_to_type) - set("cu")))
    def test_codes(self, code):
        assert RawValue(code).value == 0
        assert RawValue(code, 3).value == 3
        assert list(RawArray(code, [1, 2, 3])) == [1, 2, 3]
        assert list(RawArray(code, 2)) == [0, 0]

    def test_strings(self):
        assert RawValue("c", b"x").value == b"x"
        assert RawArray("c", b"hello").raw == b"hello"
        assert RawArray("u", "abc").value == "abc"

    def test_memory_is_zeroed_when_it_is_used_again(self):
        for _ in range(3):
            numbers = RawArray("i", 10)
            assert list(numbers) == [0] * 10
            numbers[:] = range(10)
            del numbers

    def test_structure(self):
        point = RawValue(Point, 1, 2.5, b"ab")
        assert ended(child(lambda: setattr(point, "x", 10))) == 0
        assert (point.x, point.y, point.name) == (10, 2.5, b"ab")

    def test_pickled(self):
        numbers = RawArray("d", [1, 2])
        twin = through_pickle(numbers)
        twin[0] = 5
        assert numbers[0] == 5
        assert through_pickle(RawValue(Point, 3)).x == 3

    def test_through_a_queue(self):
        things = ctx.Queue()
        number = RawValue("i", 1)
        pid = child(lambda: setattr(things.get(), "value", 8))
        things.put(number)
        assert ended(pid) == 0
        assert number.value == 8

    def test_copy(self):
        point = RawValue(Point, 1, 2)
        other = copy(point)
        point.x = 9
        assert (other.x, other.y) == (1, 2)

    def test_bad_type(self):
        with pytest.raises(TypeError):
            RawValue("no such code")


class TestSynchronized:
    def test_value(self):
        number = Value("i", 5, ctx=ctx)
        number.value += 1
        assert number.value == 6
        assert type(number) is Synchronized
        assert repr(number) == "<Synchronized wrapper for c_int(6)>"
        assert isinstance(number.get_obj(), ctypes.c_int)

    def test_locks(self):
        lock = ctx.Lock()
        number = Value("i", 5, lock=lock)
        assert number.get_lock() is lock
        with number:
            assert not lock.acquire(False)
        assert not hasattr(Value("i", lock=False), "get_lock")
        assert Value("i", 5, lock=None).get_lock()
        with pytest.raises(AttributeError, match="has no method 'acquire'"):
            Value("i", 5, lock="no lock")
        with pytest.raises(AttributeError):
            Array("i", 5, lock="no lock")

    def test_array(self):
        numbers = ctx.Array("i", range(10))
        assert type(numbers) is SynchronizedArray
        assert len(numbers) == 10 and numbers[3] == 3 and numbers[2:4] == [2, 3]
        numbers[4:8] = array.array("i", [1, 2, 3, 4])
        assert list(numbers) == [0, 1, 2, 3, 1, 2, 3, 4, 8, 9]
        with pytest.raises(IndexError):
            numbers[10]

    def test_string(self):
        text = ctx.Array("c", 10)
        assert type(text) is SynchronizedString
        text.value = b"hello"
        assert text.value == b"hello" and text.raw == b"hello" + bytes(5)

    def test_structure(self):
        point = Value(Point, 1, 2.0, ctx=ctx)
        assert type(point).__name__ == "SynchronizedPoint"
        point.x += 1
        assert (point.x, point.y) == (2, 2.0)
        assert type(Value(Point, ctx=ctx)) is type(point)

    @pytest.mark.parametrize("make", [threading.RLock, multiprocessing.get_context("fork").RLock])
    def test_with_a_lock_that_is_not_ours(self, make):
        lock = make()
        value = Value("i", 5, lock=lock)
        with value, value.get_lock():
            value.value += 2
        assert (value.value, value.get_obj().value, value.get_lock()) == (7, 7, lock)

    def test_the_lock_is_free_after_an_error(self):
        value = Value("i", 5)
        with pytest.raises(TypeError):
            value.value = "text"
        assert value.get_lock()._semlock._count() == 0 and value.value == 5

    def test_its_property_is_for_it_alone(self):
        with pytest.raises(TypeError, match="value is a property of Guarded, not of int"):
            type(Value("i")).__dict__["value"].__get__(3)
        with pytest.raises(AttributeError):
            del Value("i").value

    def test_twice(self):
        with pytest.raises(AssertionError, match="already synchronized"):
            synchronized(Value("i"))

    @pytest.mark.parametrize("make", [lambda: ctx.Value("i", 3), lambda: ctx.Array("i", [3]), lambda: ctx.Array("c", b"3")])
    def test_pickled(self, make):
        thing = make()
        twin = through_pickle(thing)
        assert type(twin) is type(thing)
        with thing:
            assert ended(child(lambda: twin.acquire(False) and 1 / 0)) == 0

    def test_with_processes(self):
        numbers = ctx.Array("i", 4)
        processes = [ctx.Process(target=add, args=(numbers, i)) for i in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert list(numbers) == [0, 10, 20, 30]

    def test_killed_writer_gives_the_lock_back(self):
        number = ctx.Value("i", 1)
        ready = ctx.SimpleQueue()
        pid = child(lambda: number.acquire() and ready.put(1) or signal.pause())
        ready.get()
        killed(pid)
        number.value = 2
        assert number.value == 2

    def test_goes(self):
        def use():
            ctx.Value("i", 1).value = 2
            through_pickle(ctx.Array("d", 100))

        use()
        gc.collect()
        blocks = arena_blocks()
        for _ in range(20):
            use()
        gc.collect()
        assert arena_blocks() <= blocks  # what others had left behind may have gone meanwhile


def add(numbers, index):
    for _ in range(10):
        with numbers:
            numbers[index] += index
