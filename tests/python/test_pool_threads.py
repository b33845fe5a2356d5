# SPDX-License-Identifier: MIT
"""Pool(threads_per_worker=…): threads of BLAS and OpenMP in workers."""
import os
import subprocess
import sys

import pytest

import brood as mp
from brood import _threads
from programs import METHODS, run_program

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
             "NUMEXPR_NUM_THREADS")


@pytest.fixture(params=METHODS)
def method(request):
    """Each start method in turn."""
    return request.param


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch):
    """The environment says nothing, unless the test does."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def variables():
    """What the environment of this process says, as Python and as C sees it."""
    command = "import os, sys; print(*(os.environ.get(name) for name in sys.argv[1:]))"
    child = subprocess.run([sys.executable, "-c", command, *VARIABLES], capture_output=True, text=True, check=True)
    here = [os.environ.get(name) for name in VARIABLES]
    assert child.stdout.split() == [str(value) for value in here]
    return here


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_workers_share_the_cpus(method, workers):
    with mp.get_context(method).Pool(workers) as pool:
        assert pool.apply(variables) == [str(max(1, mp.cpu_count() // workers))] * 6
    assert variables() == [None] * 6  # here nothing has changed


def test_a_number(method):
    with mp.get_context(method).Pool(2, threads_per_worker=7, maxtasksperchild=1) as pool:
        for _ in range(3):  # replacements have it as well
            assert pool.apply(variables) == ["7"] * 6
    assert variables() == [None] * 6


def test_none_leaves_them_alone(method, monkeypatch):
    with mp.get_context(method).Pool(2, threads_per_worker=None) as pool:
        assert pool.apply(variables) == [None] * 6


def test_what_the_user_has_set_stays(method, monkeypatch):
    with mp.get_context(method).Pool(1) as pool:  # a fork server has the environment of the first time
        pool.apply(abs, (1,))
    monkeypatch.setenv("OMP_NUM_THREADS", "11")
    monkeypatch.setenv("MKL_NUM_THREADS", "12")
    with mp.get_context(method).Pool(mp.cpu_count()) as pool:
        assert pool.apply(variables) == ["11", "1", "12", "1", "1", "1"]
    with mp.get_context(method).Pool(2, threads_per_worker=3) as pool:  # the user's, too, and nearer
        assert pool.apply(variables) == ["3"] * 6
    assert variables()[:3] == ["11", None, "12"]


def nested(workers):
    with mp.Pool(workers) as inner:
        return inner.apply(variables)


def test_pools_in_workers_share_what_the_worker_has(method):
    with mp.get_context(method).Pool(1, threads_per_worker=6) as pool:
        assert pool.apply(nested, (2,)) == ["3"] * 6
        assert pool.apply(nested, (7,)) == ["1"] * 6


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError), (True, TypeError),
                                              ([], TypeError)])
def test_bad_values(value, error):
    with pytest.raises(error, match="threads_per_worker must be"):
        mp.Pool(1, threads_per_worker=value)


# ---- libraries that are loaded already ----

PRELUDE = """
    import os, sys
    import numpy, threadpoolctl, brood as mp

    def threads(_=None):
        return {library["internal_api"]: library["num_threads"] for library in threadpoolctl.threadpool_info()}
"""


@pytest.fixture
def libraries():
    """NumPy with a BLAS of its own, and threadpoolctl; the names of what has threads there."""
    pytest.importorskip("numpy")
    threadpoolctl = pytest.importorskip("threadpoolctl")
    names = [library["internal_api"] for library in threadpoolctl.threadpool_info()]
    if "openblas" not in names:
        pytest.skip("this NumPy has no OpenBLAS")
    return names


def test_what_is_loaded_already_is_told(libraries, method, tmp_path):
    assert run_program(tmp_path, PRELUDE + """
    if __name__ == "__main__":
        with threadpoolctl.threadpool_limits(5):
            before = threads()
            with mp.get_context(sys.argv[1]).Pool(5, threads_per_worker=2, maxtasksperchild=1) as pool:
                for _ in range(3):
                    print(set(pool.apply(threads).values()))
            assert threads() == before and set(before.values()) == {5}, before
    """, method) == "{2}\n" * 3


def test_by_default_there_is_but_a_cap(libraries, tmp_path):
    """Fewer threads than a worker's share are fewer there, too."""
    assert run_program(tmp_path, PRELUDE + """
    from brood import _threads
    _threads._cpus_for = lambda workers: 6
    for limit in (1, 3, 9):
        with threadpoolctl.threadpool_limits(limit), mp.get_context("fork").Pool(2) as pool:
            print(limit, set(pool.apply(threads).values()))
    """) == "1 {1}\n3 {3}\n9 {3}\n"


def test_libraries_of_which_the_user_has_said_something(libraries, tmp_path):
    environment = dict(os.environ, OPENBLAS_NUM_THREADS="2")
    assert run_program(tmp_path, PRELUDE + """
    with mp.get_context("fork").Pool(mp.cpu_count()) as pool:
        print(pool.apply(threads)["openblas"] == threads()["openblas"])
    with mp.get_context("fork").Pool(2, threads_per_worker=1) as pool:
        print(pool.apply(threads)["openblas"])
    """, env=environment) == "True\n1\n"


def test_a_library_that_the_program_loads_when_it_is_imported(libraries, method, tmp_path):
    """Under spawn and forkserver the environment is there before the program's main module is imported."""
    assert run_program(tmp_path, """
        import sys
        sys.modules["threadpoolctl"] = None  # for nobody, but in the task
        import numpy, brood as mp

        def openblas_threads():
            del sys.modules["threadpoolctl"]
            import threadpoolctl
            return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["internal_api"] == "openblas"]

        if __name__ == "__main__":
            with mp.get_context(sys.argv[1]).Pool(2, threads_per_worker=1) as pool:
                print(pool.apply(openblas_threads) if sys.argv[1] != "fork" else [1])
        """, method) == "[1]\n"


def test_a_library_that_the_fork_server_has_loaded(libraries, tmp_path):
    assert run_program(tmp_path, PRELUDE + """
    if __name__ == "__main__":
        mp.set_start_method("forkserver")
        mp.set_forkserver_preload(["numpy"])
        with mp.Pool(2, threads_per_worker=1) as pool:
            print(set(pool.apply(threads).values()))
    """) == "{1}\n"


def test_a_library_that_a_task_loads(libraries, method, tmp_path):
    assert run_program(tmp_path, """
        import sys, brood as mp

        def load(_):
            import numpy, threadpoolctl
            return {library["num_threads"] for library in threadpoolctl.threadpool_info()}

        if __name__ == "__main__":
            with mp.get_context(sys.argv[1]).Pool(2, threads_per_worker=1) as pool:
                print(pool.apply(load, (0,)))
        """, method) == "{1}\n"


def test_pools_of_plain_functions_do_not_import_it(method, tmp_path):
    pytest.importorskip("threadpoolctl")
    assert run_program(tmp_path, """
        import sys, brood as mp

        def has(_):
            return "threadpoolctl" in sys.modules, "ctypes" in sys.modules

        if __name__ == "__main__":
            with mp.get_context(sys.argv[1]).Pool(2) as pool:
                print(pool.apply(has, (0,)), has(0))
        """, method) == "(False, False) (False, False)\n"


def test_without_threadpoolctl_the_environment_is_what_there_is(tmp_path):
    pytest.importorskip("numpy")
    assert run_program(tmp_path, """
        import os, sys, numpy, brood as mp
        sys.modules["threadpoolctl"] = None  # cannot be imported
        with mp.get_context("fork").Pool(2, threads_per_worker=3) as pool:
            print(pool.apply(os.getenv, ("OMP_NUM_THREADS",)))
        """) == "3\n"


@pytest.mark.parametrize(("path", "has_threads"), [
    ("/x/libopenblas.so.0", True), ("/x/numpy.libs/libscipy_openblas64_-ff651d7f.so", True), ("/lib/libgomp.so.1", True),
    ("/lib/libmkl_rt.so.2", True), ("/x/libiomp5.so", True), ("/x/libblis.so.4", True), ("/lib/libc.so.6", False),
    ("/x/libbrood.so", False), ("", False)])
def test_which_libraries_have_threads(path, has_threads):
    assert _threads.may_have_threads(path) == has_threads
