# SPDX-License-Identifier: MIT
"""The extension as a module: initialised in phases, with a state of its own each time; and a docstring for all that is public."""
import gc
import importlib
import importlib.util
import inspect
import pkgutil
import types
import weakref

import pytest

import brood
from brood import _core

INTERPRETERS = next(filter(importlib.util.find_spec, ("_interpreters", "_xxsubinterpreters")), None)


def another_core():
    """The extension once more, as a module of its own."""
    spec = importlib.util.find_spec("brood._core")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestModules:
    def test_each_has_types_of_its_own(self):
        other = another_core()
        assert other is not _core
        for name, value in vars(_core).items():
            if inspect.isclass(value):
                assert getattr(other, name) is not value, name

    def test_objects_of_one_are_the_others(self):
        """There is one arena, and one table of leases, whichever module asks."""
        other, things = another_core(), _core.Queue()
        theirs = other.Queue.from_handle(things.handle)
        things.put([1])
        assert theirs.get() == [1]
        with pytest.raises(TypeError, match="does not stand for"):
            other._rebuild(_core.Queue, *things.__reduce__()[1][1:])

    def test_they_go(self):
        module = weakref.ref(another_core())
        gc.collect()
        assert module() is None

    @pytest.mark.skipif(INTERPRETERS is None, reason="this Python has no module for subinterpreters")
    def test_a_subinterpreter_has_one(self):
        interpreters, things = importlib.import_module(INTERPRETERS), _core.Queue()
        interpreter = interpreters.create()
        try:
            interpreters.run_string(interpreter, f"""if True:
                import sys
                sys.path.insert(0, {brood.__path__[0]!r} + "/..")
                from brood import _core
                theirs = _core.Queue.from_handle({things.handle})
                lock = _core.SemLock(1, 1, 1)
                with lock:
                    theirs.put(["from the other", lock._get_value()])
                """)
        finally:
            interpreters.destroy(interpreter)
        assert things.get_nowait() == ["from the other", 0]


def modules():
    """All modules of the package that are ours: those that are the standard library's have its names."""
    names = [info.name for info in pkgutil.walk_packages(brood.__path__, "brood.") if not info.name.endswith(("win32", "__main__"))]
    found = [brood, *map(importlib.import_module, names)]
    return [module for module in found if module.__name__.startswith("brood")]


def is_ours(value):
    return (getattr(value, "__module__", None) or "").startswith("brood")


def public(namespace):
    """What of a module or class is public."""
    return {name: value for name, value in vars(namespace).items()
            if not name.startswith("_") and not isinstance(value, types.ModuleType)}


def members(cls):
    """The public methods and properties of a class, as (name, what has a docstring)."""
    for name, value in public(cls).items():
        value = getattr(value, "__func__", value)
        if inspect.isroutine(value) or inspect.isdatadescriptor(value):
            yield f"{cls.__module__}.{cls.__qualname__}.{name}", value


def described():
    """Everything public that has to have a docstring."""
    for module in modules():
        yield module.__name__, module
        for name, value in public(module).items():
            if is_ours(value) and (inspect.isclass(value) or inspect.isroutine(value)):
                yield f"{module.__name__}.{name}", value
                yield from members(value) if inspect.isclass(value) else ()


def test_everything_public_has_a_docstring():
    all_of_them = dict(described())
    assert len(all_of_them) > 200
    assert [name for name, value in all_of_them.items() if not inspect.getdoc(value)] == []
