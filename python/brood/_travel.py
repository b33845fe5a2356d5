# SPDX-License-Identifier: MIT
"""How functions and their arguments travel to a pool's workers, and what is said of those that cannot.

Plain pickle first, which sends functions and classes by name.  Those of ``__main__`` that the workers do not find there,
lambdas and closures travel by value, by cloudpickle; the two mix, so that a lambda calls the worker's own function of
``__main__``, with whatever the initializer put into its globals.
"""
from __future__ import annotations

import collections
import functools
import io
import pickle
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any

from . import _core

__all__: list[str] = []

CALL, MAP, STARMAP = range(3)  # how a task calls its function: enum task_mode of csrc/pool.h

# What a pickler raises of its own accord; anything else comes from the object's own methods.
_PICKLERS_ERRORS = (TypeError, AttributeError, pickle.PicklingError)
_DEEPEST = 50
_Dump = Callable[[Any, Any], object]  # an object, to a stream


# ---- what workers find in __main__ ----


class Main:
    """Which functions and classes of ``__main__`` a pool's workers find there by name."""

    def __init__(self, method: str) -> None:
        self._module = sys.modules["__main__"]
        self._then: dict[str, weakref.ref[Any]] | None = None  # under fork: as it is now
        self._had: dict[str, weakref.ref[Any]] = {}  # what has() was true of
        if method == "fork":
            self._then = {name: weakref.ref(thing) for name, thing in vars(self._module).items() if _is_of_main(thing)}
            self._had = self._then.copy()

    def has_all(self) -> bool:
        """Whether workers find all that stands in ``__main__`` by now."""
        for name, thing in list(vars(self._module).items()):
            if _is_of_main(thing) and ((had := self._had.get(name)) is None or had() is not thing):
                if not self.has(thing):
                    return False
                self._had[name] = weakref.ref(thing)
        return True

    def has(self, thing: Any) -> bool:
        """Whether workers find this function or class of ``__main__``."""
        root, _, rest = thing.__qualname__.partition(".")
        found = getattr(self._module, root, None)
        if rest and not _is_at(found, rest, thing) or not rest and found is not thing:
            return False
        if self._then is not None:
            return root in self._then and self._then[root]() is found
        file = getattr(self._module, "__file__", None)
        if file is None:
            return False
        from ._source import source_of

        return source_of(file).defines(root, thing)


def _is_of_main(thing: Any) -> bool:
    return isinstance(thing, (types.FunctionType, type)) and getattr(thing, "__module__", None) == "__main__"


def _is_at(found: Any, path: str, thing: Any) -> bool:
    for name in path.split("."):
        found = getattr(found, name, None)
    return found is thing


# ---- by name, by value ----


class _Elsewhere(pickle.PicklingError):
    """The workers do not have it by name."""


class _ByName(ForkingPickler):
    """The pickler of all of multiprocessing, for what the workers can find."""

    main: Main

    def reducer_override(self, thing: Any) -> Any:
        if _is_of_main(thing) and not self.main.has(thing):
            raise _Elsewhere(f"the workers have no {thing.__qualname__} in __main__")
        return NotImplemented


@functools.cache
def _by_value_type() -> Any:
    """A pickler of cloudpickle's that knows the reducers of ForkingPickler: what a closure holds of ours is shared, and not copied."""
    import cloudpickle

    class ByValue(cloudpickle.Pickler):  # type: ignore[misc]
        main: Main
        array: type | None = None  # numpy.ndarray, when this writes to a sink
        dispatch_table = collections.ChainMap(
            ForkingPickler._extra_reducers,  # type: ignore[attr-defined]
            cloudpickle.Pickler.dispatch_table)  # pyright: ignore[reportArgumentType]

        def reducer_override(self, thing: Any) -> Any:
            if type(thing) is self.array:
                return _core._reduce_array(thing)
            if _is_of_main(thing) and self.main.has(thing):
                return NotImplemented
            if isinstance(thing, io.TextIOWrapper):  # cloudpickle reads the file and sends what it says
                raise TypeError(f"cannot pickle '{type(thing).__module__}.{type(thing).__qualname__}' object")
            return super().reducer_override(thing)

    return ByValue


def _dumps(kind: Any, thing: Any, main: Main | None, stream: Any = None) -> bytes:
    stream = io.BytesIO() if stream is None else stream
    pickler = kind(stream)
    pickler.main = main
    pickler.dump(thing)
    return stream.getvalue()


def dumps(thing: Any, main: Main, parts: list[tuple[str, Any]]) -> tuple[bytes, bool]:
    """(its pickle, whether by name); raises, naming what of its parts cannot travel."""
    try:
        return _dumps(_ByName, thing, main), True
    except _PICKLERS_ERRORS:
        pass
    try:
        return _dumps(_by_value_type(), thing, main), False
    except Exception as error:
        raise _explained(error, parts, lambda part, stream: _dumps(_by_value_type(), part, main, stream)) from None


def pickle_callable(function: Callable[..., Any], main: Main) -> tuple[bytes, bool, bool]:
    """(bytes, is_kept, is_lasting): workers may keep the object for a job; its pickle will always be the same."""
    pickled, is_by_name = dumps(function, main, [("func", function)])
    is_function = isinstance(function, (types.FunctionType, types.BuiltinFunctionType) if is_by_name else types.FunctionType)
    return pickled, is_function, is_function and is_by_name


def _dump_into(sink: _core._Sink, thing: Any, main: Main) -> None:
    """By value, with large data beside the pickle."""
    pickler = _by_value_type()(sink, 5, buffer_callback=sink)
    pickler.main = main
    pickler.array = sys.modules["numpy"].ndarray if _core._arrays_are_ours() else None
    pickler.dump(thing)


def _lacks(arguments: Any, main: Main) -> bool:
    """Whether plain pickle sends something by name that the workers do not find."""
    if main.has_all():
        return False
    try:
        _dumps(_ByName, arguments, main, _Nowhere())
    except _Elsewhere:
        return True
    return False


def rescue(main: Main, arguments: Any, mode: int, first: int, error: BaseException | None, sink: _core._Sink) -> bool:
    """What plain pickle could not do for the arguments of a task, or did by names of ``__main__``; see csrc/task.c."""
    if error is None:
        if not _lacks(arguments, main):
            return False
        error = _Elsewhere()
    if isinstance(error, _PICKLERS_ERRORS):
        try:
            _dump_into(sink, arguments, main)
            return True
        except Exception as second:
            error = second
    if mode == CALL:
        parts = [("args", arguments[0]), ("kwds", arguments[1])]
    else:
        parts = [(f"item {first + i}", item) for i, item in enumerate(arguments)]
    raise _explained(error, parts, lambda part, stream: _dumps(_by_value_type(), part, main, stream)) from None


# ---- back again ----


def _class_of(tracker: str) -> Any:
    import cloudpickle

    return cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID[tracker]


@functools.cache
def _by_tracker_type() -> Any:
    """A pickler for what a task returns: classes that have come here by value are there already, under cloudpickle's own number."""
    import cloudpickle

    trackers = cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS

    class ByTracker(ForkingPickler):
        main: Main | None

        def reducer_override(self, thing: Any) -> Any:
            tracker = trackers.get(thing) if isinstance(thing, type) else None
            return NotImplemented if tracker is None else (_class_of, (tracker,))

    return ByTracker


def rescue_value(value: Any, error: BaseException) -> bytes:
    """In a worker: what plain pickle could not do for what a task returned, or its error."""
    if "cloudpickle" not in sys.modules or not isinstance(error, _PICKLERS_ERRORS):
        raise error
    try:
        return _dumps(_by_tracker_type(), value, None)
    except Exception:
        raise error from None


# ---- which part it is ----


class _Nowhere:
    """Takes what is pickled only to see whether it can be."""

    @staticmethod
    def write(data: Any) -> int:
        return len(data)

    @staticmethod
    def getvalue() -> bytes:
        return b""


def _explained(error: BaseException, parts: list[tuple[str, Any]], dump: _Dump) -> BaseException:
    """The error, with the part of the object that it is about in its text, or, where that is not the pickler's, in a note."""
    try:
        path, thing = _find(parts, dump)
    except Exception:
        return error
    if path is None:
        return error
    what = f"{path} ({type(thing).__name__}) cannot travel"
    if type(error) in _PICKLERS_ERRORS and len(error.args) == 1:
        error.args = (f"{what}: {error.args[0]}",)
    else:
        error.add_note(what)
    return error


def explained(error: BaseException, name: str, thing: Any) -> BaseException:
    """The same for a queue, where nothing travels by value."""
    return _explained(error, [(name, thing)], lambda part, stream: ForkingPickler(stream).dump(part))


def _find(parts: Iterable[tuple[str, Any]], dump: _Dump) -> tuple[str | None, Any]:
    """The deepest part that has no pickle though its own parts have one."""
    path, thing = None, None
    seen: set[int] = set()
    for _ in range(_DEEPEST):
        for name, part in parts:
            if id(part) not in seen and not _has_pickle(part, dump):
                break
        else:
            return path, thing
        seen.add(id(part))
        path, thing = name, part
        if _refuses(thing):
            break
        parts = _parts_of(path, thing)
    return path, thing


def _refuses(thing: Any) -> bool:
    """Whether it says itself that it does not travel, whatever it consists of."""
    kind: Any = type(thing)
    if kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__:
        return False
    try:
        thing.__reduce_ex__(5)
    except Exception:
        return True
    return False


def _has_pickle(thing: Any, dump: _Dump) -> bool:
    try:
        dump(thing, _Nowhere())
    except Exception:
        return False
    return True


def _parts_of(path: str, thing: Any) -> Iterator[tuple[str, Any]]:
    """(path, part) of what its pickle would contain, as far as that can be told."""
    if isinstance(thing, dict):
        for key, value in thing.items():
            yield f"{path}[{key!r}]", value
        yield from ((f"a key of {path}", key) for key in thing)
    elif isinstance(thing, (list, tuple, collections.deque)):
        yield from ((f"{path}[{i}]", value) for i, value in enumerate(thing))
    elif isinstance(thing, (set, frozenset)):
        yield from ((f"an element of {path}", value) for value in thing)
    elif isinstance(thing, types.FunctionType):
        yield from _parts_of_function(path, thing)
    elif isinstance(thing, types.MethodType):
        yield f"{path}.__self__", thing.__self__
    elif isinstance(thing, functools.partial):
        yield f"{path}.func", thing.func
        yield f"{path}.args", thing.args
        yield f"{path}.keywords", thing.keywords
    yield from ((f"{path}.{name}", value) for name, value in getattr(thing, "__dict__", {}).items())
    for cls in type(thing).__mro__:
        for name in getattr(cls, "__slots__", ()):
            if hasattr(thing, name):
                yield f"{path}.{name}", getattr(thing, name)


def _parts_of_function(path: str, function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        yield f"{path}'s variable {name}", cell.cell_contents
    for name in code.co_names:
        if name in function.__globals__:
            yield f"{path}'s global {name}", function.__globals__[name]
    yield f"{path}.__defaults__", function.__defaults__
    yield f"{path}.__kwdefaults__", function.__kwdefaults__
