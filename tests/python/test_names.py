# SPDX-License-Identifier: MIT
"""Every public name of multiprocessing is there, and the table of whose code serves it is up to date."""
import importlib.machinery
import importlib.util
import multiprocessing
import re

import brood
import pytest
from programs import here


@pytest.fixture(scope="module")
def names():
    """tools/names as a module."""
    loader = importlib.machinery.SourceFileLoader("names", str(here("tools/names")))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("names", loader))
    loader.exec_module(module)
    return module


def test_no_name_is_missing_and_the_table_is_not_stale(names):
    assert names.complaints() == []


def test_all_has_multiprocessings_names():
    assert set(multiprocessing.__all__) <= set(brood.__all__)
    assert all(hasattr(brood, name) for name in brood.__all__)
    assert (brood.SUBDEBUG, brood.SUBWARNING) == (multiprocessing.SUBDEBUG, multiprocessing.SUBWARNING)


def test_import_star():
    namespace = {}
    exec("from brood import *", namespace)
    assert set(brood.__all__) <= set(namespace)


@pytest.mark.parametrize("name", ["Pool", "Queue", "JoinableQueue", "SimpleQueue", "Lock", "RLock", "Semaphore",
                                  "BoundedSemaphore", "Condition", "Event", "Barrier", "Value", "Array", "RawValue",
                                  "RawArray"])
def test_what_must_be_on_the_core_is(names, name):
    _, package = next(row for row in names.survey()[0] if row[0] == "multiprocessing")
    assert dict(package)[name] == names.CORE


@pytest.mark.parametrize("make", ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Queue",
                                  "JoinableQueue", "SimpleQueue"])
def test_the_objects_are_not_the_standard_librarys(make):
    for kind in type(getattr(brood, make)()).__mro__:
        assert not re.match(r"multiprocessing\.(queues|synchronize)", kind.__module__)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="'brood' has no attribute 'nonsense'"):
        brood.nonsense
    with pytest.raises(ImportError):
        importlib.import_module("brood.nonsense")


def test_version_is_mesons():
    text = here("meson.build").read_text(encoding="utf-8")
    assert f"version: '{brood.__version__}'" in text
    assert f'version = "{brood.__version__}"' in here("pyproject.toml").read_text(encoding="utf-8")
