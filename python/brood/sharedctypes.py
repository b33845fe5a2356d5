# SPDX-License-Identifier: MIT
"""ctypes objects in shared memory, as in :mod:`multiprocessing.sharedctypes`.

What is different: they may be pickled at any time, and lie in the arena, where C programs see them at the same address.
"""
from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from typing import Any

from . import _core, reduction

__all__ = ["RawValue", "RawArray", "Value", "Array", "copy", "synchronized"]

typecode_to_type: dict[str, Any] = {
    "c": ctypes.c_char, "u": ctypes.c_wchar,
    "b": ctypes.c_byte, "B": ctypes.c_ubyte,
    "h": ctypes.c_short, "H": ctypes.c_ushort,
    "i": ctypes.c_int, "I": ctypes.c_uint,
    "l": ctypes.c_long, "L": ctypes.c_ulong,
    "q": ctypes.c_longlong, "Q": ctypes.c_ulonglong,
    "f": ctypes.c_float, "d": ctypes.c_double,
}


def _new_value(type_: Any) -> Any:
    return rebuild_ctype(type_, _core.Memory(ctypes.sizeof(type_)), None)


def RawValue(typecode_or_type: Any, *args: Any) -> Any:
    """Return a ctypes object in shared memory."""
    obj = _new_value(typecode_to_type.get(typecode_or_type, typecode_or_type))
    obj.__init__(*args)
    return obj


def RawArray(typecode_or_type: Any, size_or_initializer: Any) -> Any:
    """Return a ctypes array in shared memory: so many zeros, or a copy of a sequence."""
    type_ = typecode_to_type.get(typecode_or_type, typecode_or_type)
    if isinstance(size_or_initializer, int):
        return _new_value(type_ * size_or_initializer)
    array = _new_value(type_ * len(size_or_initializer))
    array.__init__(*size_or_initializer)
    return array


def Value(typecode_or_type: Any, *args: Any, lock: Any = True, ctx: Any = None) -> Any:
    """Return a wrapper, with a lock, of a ctypes object in shared memory."""
    return _wrap(RawValue(typecode_or_type, *args), lock, ctx)


def Array(typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True, ctx: Any = None) -> Any:
    """Return a wrapper, with a lock, of a ctypes array in shared memory."""
    return _wrap(RawArray(typecode_or_type, size_or_initializer), lock, ctx)


def _wrap(obj: Any, lock: Any, ctx: Any) -> Any:
    if lock is False:
        return obj
    if lock is True or lock is None:
        ctx = ctx or _default_context()
        lock = ctx.RLock()
    if not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")
    return synchronized(obj, lock, ctx=ctx)


def _default_context() -> Any:
    from . import get_context

    return get_context()


def copy(obj: Any) -> Any:
    """Return a copy of a ctypes object in shared memory."""
    new = _new_value(type(obj))
    ctypes.pointer(new)[0] = obj
    return new


def synchronized(obj: Any, lock: Any = None, ctx: Any = None) -> Any:
    """Return a wrapper of a ctypes object whose attributes are read and written with a lock held."""
    assert not isinstance(obj, SynchronizedBase), "object already synchronized"
    ctx = ctx or _default_context()
    if isinstance(obj, ctypes._SimpleCData):
        return Synchronized(obj, lock, ctx)
    if isinstance(obj, ctypes.Array):
        if obj._type_ is ctypes.c_char:
            return SynchronizedString(obj, lock, ctx)
        return SynchronizedArray(obj, lock, ctx)
    return _class_for(type(obj))(obj, lock, ctx)


def _class_for(cls: Any) -> Any:
    """Return the wrapper class of a structure or union, with a property for each field."""
    if cls not in class_cache:
        fields = {field[0]: make_property(field[0]) for field in cls._fields_}
        class_cache[cls] = type("Synchronized" + cls.__name__, (SynchronizedBase,), fields)
    return class_cache[cls]


def reduce_ctype(obj: Any) -> Any:
    """Pickle a ctypes object in shared memory as a reference."""
    wrapper = obj._wrapper
    if isinstance(obj, ctypes.Array):
        return rebuild_ctype, (obj._type_, wrapper, obj._length_)
    return rebuild_ctype, (type(obj), wrapper, None)


def rebuild_ctype(type_: Any, wrapper: Any, length: int | None) -> Any:
    """Return the ctypes object that lies in that memory."""
    if length is not None:
        type_ = type_ * length
    reduction.ForkingPickler.register(type_, reduce_ctype)
    obj = type_.from_buffer(wrapper.create_memoryview())
    obj._wrapper = wrapper
    return obj


def make_property(name: str) -> Any:
    """Return a property for an attribute of the wrapped object, read and written with the lock held."""
    return _core._guarded_property(name)


class_cache: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


class SynchronizedBase(_core.Guarded):
    """What the wrappers have in common; ``with``, ``get_obj`` and ``get_lock`` are the core's."""

    acquire: Callable[..., bool]
    release: Callable[[], None]

    def __init__(self, obj: Any, lock: Any = None, ctx: Any = None) -> None:
        super().__init__(obj, lock or (ctx or _default_context()).RLock())
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def __reduce__(self) -> Any:
        return synchronized, (self._obj, self._lock)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} wrapper for {self._obj}>"


class Synchronized(SynchronizedBase):
    """A wrapper of a simple ctypes object."""

    value: Any = make_property("value")


class SynchronizedArray(SynchronizedBase):
    """A wrapper of a ctypes array."""

    def __len__(self) -> int:
        return len(self._obj)

    def __getitem__(self, i: Any) -> Any:
        with self:
            return self._obj[i]

    def __setitem__(self, i: Any, value: Any) -> None:
        with self:
            self._obj[i] = value

    def __getslice__(self, start: int, stop: int) -> Any:
        with self:
            return self._obj[start:stop]

    def __setslice__(self, start: int, stop: int, values: Any) -> None:
        with self:
            self._obj[start:stop] = values


class SynchronizedString(SynchronizedArray):
    """A wrapper of an array of c_char."""

    value: Any = make_property("value")
    raw: Any = make_property("raw")
