# SPDX-License-Identifier: MIT
"""brood.install() and python -m brood."""
import os
import signal
import subprocess
import sys

import brood
import pytest
from programs import METHODS, run, run_program, write


def run_here(folder, *arguments, **options):
    return run(*arguments, cwd=folder, **options)


def both(folder, *arguments, **options):
    """The results of `python ...` and `python -m brood ...`; standard error without the word that differs."""
    plain = run_here(folder, *arguments, **options)
    ours = run_here(folder, "-m", "brood", *arguments, **options)
    return [(result.returncode, result.stdout, result.stderr) for result in (plain, ours)]


# ---- install ----


def test_import_gives_brood(tmp_path):
    assert run_program(tmp_path, """
        import brood
        brood.install()
        brood.install()
        import multiprocessing
        import multiprocessing.pool
        import multiprocessing.dummy.connection
        from multiprocessing import Process, queues, shared_memory
        from multiprocessing.synchronize import Lock
        import sys
        assert multiprocessing is brood
        assert multiprocessing.pool is sys.modules["brood.pool"] is sys.modules["multiprocessing.pool"]
        assert queues is brood.queues and Process is brood.Process and Lock is brood.synchronize.Lock
        assert multiprocessing.dummy is brood.dummy
        for module in (multiprocessing, multiprocessing.pool, shared_memory):
            assert module.__spec__.name in (module.__name__, module.__name__.replace("brood", "multiprocessing"))
        import importlib.util
        assert importlib.util.find_spec("multiprocessing.pool") is not None
        try:
            import multiprocessing.nonsense
        except ModuleNotFoundError as error:
            print(error)
        """) == "No module named 'multiprocessing.nonsense'\n"


def test_after_the_standard_librarys_was_imported(tmp_path):
    """Old names keep their meaning; the import statement gives the new ones; both live in one world of processes."""
    assert run_program(tmp_path, """
        import multiprocessing as old, multiprocessing.pool, multiprocessing.managers
        import brood
        brood.install()
        import multiprocessing as new
        import multiprocessing.pool as new_pool
        assert old is not new and new is brood
        assert new_pool is brood.pool and old.pool is not brood.pool
        process = old.Process(target=print, args=("old",))
        process.start()
        assert new.active_children() == [process]
        process.join()
        import pickle
        assert pickle.loads(pickle.dumps(old.managers.Token)) is old.managers.Token
        """) == "old\n"


@pytest.mark.parametrize("method", METHODS)
def test_children_and_modules_they_import_have_it(tmp_path, method):
    write(tmp_path, "library.py", """
        import multiprocessing
        from multiprocessing.queues import Queue
        name = multiprocessing.__name__, Queue.__module__
        """)
    assert run_program(tmp_path, """
        import brood, sys
        brood.install()
        import multiprocessing

        def child(depth):
            import library
            print(*library.name, multiprocessing.__name__, flush=True)
            if depth:
                start(depth - 1)

        def start(depth):
            process = multiprocessing.Process(target=child, args=(depth,))
            process.start()
            process.join()
            assert process.exitcode == 0

        if __name__ == "__main__":
            multiprocessing.set_start_method(sys.argv[1])
            start(1)
        """, method) == "brood brood.queues brood\n" * 2


def test_preloaded_modules_of_the_fork_server_have_it(tmp_path):
    write(tmp_path, "library.py", "import multiprocessing\nname = multiprocessing.__name__\n")
    assert run_program(tmp_path, """
        import brood
        brood.install()
        import multiprocessing

        def child():
            import sys
            print(sys.modules["library"].name)

        if __name__ == "__main__":
            multiprocessing.set_forkserver_preload(["library"])
            process = multiprocessing.get_context("forkserver").Process(target=child)
            process.start()
            process.join()
        """, env=dict(os.environ, PYTHONPATH=f"{os.environ.get('PYTHONPATH', '')}:{tmp_path}")) == "brood\n"


def test_executors_and_managers_use_it(tmp_path):
    assert run_program(tmp_path, """
        import brood
        brood.install()
        import concurrent.futures, multiprocessing, multiprocessing.managers

        if __name__ == "__main__":
            with concurrent.futures.ProcessPoolExecutor(2) as executor:
                print(sum(executor.map(abs, range(-9, 0))))
            with multiprocessing.Manager() as manager:
                print(manager.list([1, 2]), type(manager).__module__)
                pool = manager.Pool(1)
                print(pool.map(abs, [-1]))
                pool.terminate()
            with multiprocessing.dummy.Pool(1) as threads:
                print(threads.map(abs, [-1]))
        """) == "45\n[1, 2] brood.managers\n[1]\n[1]\n"


def test_the_other_way_round(tmp_path):
    """Not installed, nobody's multiprocessing changes."""
    assert run_program(tmp_path, """
        import brood, brood.pool, brood.managers, brood.forkserver
        import multiprocessing
        print(multiprocessing.__name__, type(multiprocessing.Lock()).__module__)
        """) == "multiprocessing multiprocessing.synchronize\n"


# ---- python -m brood ----

PROGRAM = """
    import __main__, os, sys
    print(sys.argv, sys.path[:2], __file__, __name__, __spec__, __package__, type(__loader__).__name__, sorted(globals()))
    print(vars(__main__) is globals(), "multiprocessing" in sys.modules)

    def divide(n):
        return 1 / n

    try:
        divide(0)
    except ZeroDivisionError:
        import traceback
        traceback.print_exc()
    what = sys.argv[1] if len(sys.argv) > 1 else "end"
    if what == "status":
        sys.exit(3)
    if what == "text":
        sys.exit("a text")
    if what == "interrupt":
        raise KeyboardInterrupt
    if what == "error":
        divide(0)
    if what == "chain":
        try:
            divide(0)
        except ZeroDivisionError as error:
            raise KeyError("x") from error
    if what == "hook":
        sys.excepthook = lambda kind, error, traceback: print("hook", kind, error, traceback.tb_frame.f_code.co_name)
        divide(0)
    """


@pytest.mark.parametrize("what", ["end", "status", "text", "interrupt", "error", "chain", "hook"])
def test_a_script_sees_and_shows_what_it_does_with_plain_python(tmp_path, what):
    write(tmp_path, "folder/script.py", PROGRAM)
    plain, ours = both(tmp_path, "folder/script.py", what, "--help")
    assert ours == plain


def test_a_killed_script_shows_it_as_plain_python_does(tmp_path):
    write(tmp_path, "script.py", "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    plain, ours = both(tmp_path, "script.py")
    assert ours == plain and plain[0] == -signal.SIGTERM


@pytest.mark.parametrize("arguments", [
    ["package", "a"], ["-m", "package", "a", "-m"], ["-m", "module", "-c"], ["-c", "import sys; print(sys.argv, sys.path[0]); 1/0", "a"],
    ["-c", "a b"], ["bad.py"], ["nothing.py"], ["folder"], ["-m", "nothing"], ["./package/../module.py"], ["link.py"]])
def test_other_ways_to_name_a_program(tmp_path, arguments):
    shows = "import sys; print(sys.argv, __name__, __spec__ and __spec__.name, sys.path[0], __file__)"
    write(tmp_path, "package/__main__.py", shows)
    write(tmp_path, "package/__init__.py", "")
    write(tmp_path, "module.py", shows)
    write(tmp_path, "bad.py", "x = = 1\n")
    write(tmp_path, "folder/linked.py", shows)
    os.symlink("folder/linked.py", tmp_path / "link.py")
    plain, ours = both(tmp_path, *arguments)
    assert ours == plain


def test_safe_path(tmp_path):
    write(tmp_path, "folder/script.py", "import sys; print(sys.path)")
    options = ["-P"]
    plain = run_here(tmp_path, *options, "folder/script.py")
    ours = run_here(tmp_path, *options, "-m", "brood", "folder/script.py")
    assert (ours.stdout, ours.stderr) == (plain.stdout, plain.stderr)


def test_from_standard_input(tmp_path):
    plain, ours = both(tmp_path, "-", "a", input="import sys; print(sys.argv, __name__); 1/0\n")
    assert ours == plain


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("way", ["script", "module"])
def test_a_program_nobody_may_edit(tmp_path, method, way):
    write(tmp_path, "program.py", """
        import multiprocessing as mp, sys

        def square(x):
            return x * x, mp.__name__

        def child(queue):
            queue.put(square(3))

        if __name__ == "__main__":
            mp.set_start_method(sys.argv[1])
            queue = mp.Queue()
            process = mp.Process(target=child, args=(queue,))
            process.start()
            process.join()
            print(queue.get())
            with mp.Pool(2) as pool:
                print(pool.map(square, [1, 2]))
        """)
    program = ["program.py"] if way == "script" else ["-m", "program"]
    result = run_here(tmp_path, "-m", "brood", *program, method)
    assert (result.stdout, result.stderr) == ("(9, 'brood')\n[(1, 'brood'), (4, 'brood')]\n", "")


def test_version_and_help():
    assert run("-m", "brood", "--version").stdout.split()[:2] == ["brood", brood.__version__]
    assert run("-m", "brood", "-h").stdout.startswith("usage: python -m brood")
    for arguments in ([], ["-x"], ["-m"], ["-c"]):
        result = run("-m", "brood", *arguments)
        assert result.returncode == 2 and "usage:" in result.stderr and not result.stdout


def test_a_broken_pipe_is_plain_pythons(tmp_path):
    write(tmp_path, "script.py", "print('x\\n' * 100000)\n")
    statuses = []
    for arguments in (["script.py"], ["-m", "brood", "script.py"]):
        with subprocess.Popen([sys.executable, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            process.stdout.close()
            statuses.append(process.wait(30))
    assert statuses[0] == statuses[1]
