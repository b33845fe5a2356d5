# SPDX-License-Identifier: MIT
"""Contexts and start methods."""
import concurrent.futures
import multiprocessing
import multiprocessing.context
import os

import brood
import brood.context
import pytest
from programs import METHODS, run_program


def test_the_contexts_are_the_standard_librarys_too():
    for method in METHODS:
        context = brood.get_context(method)
        assert isinstance(context, type(multiprocessing.get_context(method)))
        assert isinstance(context, multiprocessing.context.BaseContext)
        assert context is not multiprocessing.get_context(method)
        assert context.get_start_method() == method
        assert context.get_context() is context
        assert context.get_context("spawn") is brood.get_context("spawn")


def test_exceptions_are_the_same_objects():
    for name in ("ProcessError", "BufferTooShort", "TimeoutError", "AuthenticationError"):
        assert getattr(brood, name) is getattr(multiprocessing, name)


def test_unknown_start_method():
    with pytest.raises(ValueError, match="cannot find context for 'nonsense'"):
        brood.get_context("nonsense")
    with pytest.raises(ValueError, match="cannot find context for 'nonsense'"):
        brood.set_start_method("nonsense", force=True)
    with pytest.raises(ValueError, match="concrete context"):
        brood.get_context("fork").set_start_method("spawn")


def test_start_methods_are_listed_the_default_first():
    assert brood.get_all_start_methods() == multiprocessing.get_all_start_methods()


def test_the_start_method_is_set_once(tmp_path):
    assert run_program(tmp_path, """
        import brood
        assert brood.get_start_method(allow_none=True) is None
        brood.set_start_method("spawn")
        assert brood.get_start_method() == "spawn"
        assert brood.get_context() is brood.get_context("spawn")
        try:
            brood.set_start_method("fork")
        except RuntimeError as error:
            print(error)
        brood.set_start_method("forkserver", force=True)
        brood.set_start_method(None, force=True)
        assert brood.get_start_method(allow_none=True) is None
        """) == "context has already been set\n"


@pytest.mark.parametrize("method", METHODS)
def test_a_child_has_its_parents_start_method(tmp_path, method):
    assert run_program(tmp_path, """
        import sys, brood

        def child(depth):
            print(brood.get_start_method(), flush=True)
            if depth:
                process = brood.Process(target=child, args=(depth - 1,))
                process.start()
                process.join()

        if __name__ == "__main__":
            brood.set_start_method(sys.argv[1])
            child(2)
        """, method) == f"{method}\n" * 3


def test_the_standard_librarys_start_method_is_left_alone(tmp_path):
    assert run_program(tmp_path, """
        import brood, multiprocessing

        def child():
            print(brood.get_start_method(), multiprocessing.get_start_method(), flush=True)

        if __name__ == "__main__":
            multiprocessing.set_start_method("forkserver")
            brood.set_start_method("spawn")
            process = brood.Process(target=child)
            process.start()
            process.join()
            child()
        """) == "spawn forkserver\n" * 2


def test_cpu_count_is_what_may_be_used():
    assert 1 <= brood.cpu_count() <= len(os.sched_getaffinity(0))


def test_a_context_is_fine_for_an_executor():
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=brood.get_context("fork")) as executor:
        assert list(executor.map(abs, [-1, -2, -3])) == [1, 2, 3]


def test_reducer_is_shared():
    assert brood.reducer is multiprocessing.reducer
    assert brood.reduction.ForkingPickler is multiprocessing.reduction.ForkingPickler


def test_importing_brood_is_cheap(tmp_path):
    assert run_program(tmp_path, """
        import sys, brood
        brood.install()
        print("multiprocessing" in sys.modules, "brood._core" in sys.modules)
        """) == "False False\n"
