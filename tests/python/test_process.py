# SPDX-License-Identifier: MIT
"""Processes: one world with the standard library's, and the arena in every child."""
import multiprocessing
import os
import signal
import threading
import time

import brood
import brood.connection
import pytest
from programs import METHODS, run, run_program, write
from support import until


def exit_with(code, gate):
    gate.acquire()
    os._exit(code)


def sleep():
    signal.pause()


def report(connection):
    connection.send((os.getpid(), brood.current_process().name, brood.parent_process().pid, len(brood.active_children())))


def use(lock, queue, connection):
    """Objects that came as arguments, and one that came later through a pipe."""
    with lock:
        queue.put("argument")
    late = connection.recv()
    late.put("late")


@pytest.fixture(params=METHODS)
def context(request):
    return brood.get_context(request.param)


def test_start_and_join(context):
    gate = context.Semaphore(0)
    process = context.Process(target=exit_with, args=(7, gate), name="seven")
    assert process.exitcode is None and process.pid is None
    process.start()
    assert process in brood.active_children() and process in multiprocessing.active_children()
    gate.release()
    process.join()
    assert process.exitcode == 7 and process.name == "seven" and not process.is_alive()
    assert process not in brood.active_children()
    process.close()
    with pytest.raises(ValueError, match="closed"):
        process.is_alive()


def test_fork_that_fails_leaves_nothing(monkeypatch):
    def refuse():
        raise BlockingIOError("no more processes")

    process = brood.get_context("fork").Process(target=sleep)
    brood.get_context("fork").Lock()  # the arena is there
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(BlockingIOError):
        process.start()
    assert os.listdir("/proc/self/fd") == before
    assert process.pid is None and process not in brood.active_children()


def test_a_process_whose_start_is_interrupted_is_taken_back(monkeypatch):
    """By the fork server, which does not see Ctrl-C."""
    from brood import popen_forkserver

    looks, killed, wait, kill = [], [], popen_forkserver.connection.wait, os.kill

    def wait_interrupted(things, timeout=None):
        looks.append(things)
        if len(looks) == 1:
            raise KeyboardInterrupt
        return wait(things, timeout)

    monkeypatch.setattr(popen_forkserver.connection, "wait", wait_interrupted)
    monkeypatch.setattr(os, "kill", lambda pid, number: (killed.append(pid), kill(pid, number)))
    process = brood.get_context("forkserver").Process(target=sleep)
    with pytest.raises(KeyboardInterrupt):
        process.start()
    assert process not in brood.active_children()
    [pid] = killed
    until(lambda: not os.path.exists(f"/proc/{pid}"))


def test_terminate(context):
    process = context.Process(target=sleep)
    process.start()
    assert not brood.connection.wait([process.sentinel], timeout=0)
    process.terminate()
    assert brood.connection.wait([process.sentinel], timeout=30)
    process.join()
    assert process.exitcode == -signal.SIGTERM


def test_what_a_child_sees(context):
    reads, writes = context.Pipe(duplex=False)
    process = context.Process(target=report, args=(writes,), name="child")
    process.start()
    assert reads.recv() == (process.pid, "child", os.getpid(), 0)
    process.join()


def test_objects_travel_as_arguments_and_later(context):
    queue, ours, theirs = context.Queue(), *context.Pipe()
    process = context.Process(target=use, args=(context.Lock(), queue, theirs))
    process.start()
    assert queue.get(timeout=30) == "argument"
    late = context.Queue()
    ours.send(late)
    assert late.get(timeout=30) == "late"
    process.join()
    assert process.exitcode == 0


def test_classes_are_the_standard_librarys_too(context):
    process = context.Process()
    assert isinstance(process, multiprocessing.context.BaseContext.get_context(
        multiprocessing.get_context(), context.get_start_method()).Process)
    assert isinstance(brood.Process(), multiprocessing.Process)
    assert brood.current_process() is multiprocessing.current_process()


def test_a_queue_made_after_the_fork_of_a_child_without_any(tmp_path):
    """The arena is made before the fork even when nothing has needed it."""
    assert run_program(tmp_path, """
        import brood

        def child(connection):
            connection.recv().put("hello")

        ours, theirs = brood.Pipe()
        process = brood.Process(target=child, args=(theirs,))
        process.start()
        queue = brood.Queue()
        ours.send(queue)
        print(queue.get(timeout=30))
        """) == "hello\n"


@pytest.mark.parametrize("method", METHODS)
def test_module_level_objects_of_main(tmp_path, method):
    """__main__ runs again in a child that is exec'd: its objects are made in the arena that the child was handed."""
    assert run_program(tmp_path, """
        import sys, brood
        lock, event = brood.Lock(), brood.Event()

        def child(queue):
            with lock:
                queue.put("there")

        if __name__ == "__main__":
            context = brood.get_context(sys.argv[1])
            queue = context.Queue()
            process = context.Process(target=child, args=(queue,))
            process.start()
            process.join()
            print(process.exitcode, queue.get(timeout=30))
        """, method) == "0 there\n"


def test_the_fork_server_preloads_modules_that_hold_brood_objects(tmp_path):
    write(tmp_path, "preloaded.py", """
        import brood
        queue = brood.Queue()
        queue.put("preloaded")
        """)
    assert run_program(tmp_path, """
        import brood, sys

        def child(connection):
            loaded_before = "preloaded" in sys.modules
            import preloaded
            connection.send((loaded_before, preloaded.queue))

        if __name__ == "__main__":
            context = brood.get_context("forkserver")
            context.set_forkserver_preload(["preloaded"])
            ours, theirs = context.Pipe()
            process = context.Process(target=child, args=(theirs,))
            process.start()
            before, queue = ours.recv()
            print(before, queue.get(timeout=30))
            process.join()
        """, env=dict(os.environ, PYTHONPATH=f"{os.environ.get('PYTHONPATH', '')}:{tmp_path}")) == "True preloaded\n"


def test_children_of_children(tmp_path):
    assert run_program(tmp_path, """
        import brood, sys

        def child(methods, queue):
            queue.put(brood.get_start_method())
            if methods:
                process = brood.get_context(methods[0]).Process(target=child, args=(methods[1:], queue))
                process.start()
                process.join()
                assert process.exitcode == 0

        if __name__ == "__main__":
            queue = brood.Queue()
            child("fork spawn fork forkserver spawn forkserver forkserver fork".split(), queue)
            print(*(queue.get(timeout=10) for i in range(9)))
        """) == "fork fork spawn fork forkserver spawn forkserver forkserver fork\n"


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_finds_a_brood_that_only_its_parents_path_has(tmp_path, method):
    """As when a program puts the directory on sys.path itself."""
    package_parent = os.path.dirname(os.path.dirname(brood.__file__))
    path = write(tmp_path, "program.py", """
        import sys
        sys.path.append(sys.argv[1])
        import brood

        def child():
            print("child", flush=True)

        if __name__ == "__main__":
            process = brood.get_context(sys.argv[2]).Process(target=child)
            process.start()
            process.join()
            print(process.exitcode)
        """)
    result = run("-S", path, package_parent, method, env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"})
    assert (result.stdout, result.stderr) == ("child\n0\n", "")


def test_what_cannot_be_pickled_leaves_nothing_open():
    before = set(os.listdir("/proc/self/fd"))
    for method in ("spawn", "forkserver"):
        process = brood.get_context(method).Process(target=threading.Lock().acquire)
        with pytest.raises(TypeError, match="pickle"):
            process.start()
    del process
    opened = {os.readlink(f"/proc/self/fd/{fd}") for fd in set(os.listdir("/proc/self/fd")) - before
              if os.path.exists(f"/proc/self/fd/{fd}")}
    assert not any("memfd" not in target and "pipe" not in target for target in opened), opened


def test_a_missing_main_guard_is_told(tmp_path):
    path = write(tmp_path, "program.py", """
        import brood
        process = brood.get_context("spawn").Process(target=print)
        process.start()
        process.join()
        """)
    assert "bootstrapping phase" in run(path).stderr


HOOKS = """
import gc, os, sys, threading

kept, is_over = [], threading.Event()

def before():  # registered before brood's own hook, and so run after it
    for _ in range(50):  # the other thread gets the GIL, and makes queues or tries to
        os.sched_yield()
    cycle = [mp.Queue()]
    cycle.append(cycle)
    del cycle
    gc.collect()
    kept[:] = [mp.Queue()]

os.register_at_fork(before=before)
import brood as mp

def make():
    while not is_over.is_set():
        mp.Queue().put(1)

mp.Queue()
sys.setswitchinterval(1e-6)
thread = threading.Thread(target=make)
thread.start()
for i in range(10):
    pid = os.fork()
    if pid == 0:
        kept[0].put(i)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert kept[0].get(timeout=30) == i
is_over.set()
thread.join()
kept.clear()
print(mp._core.arena_stats()["used_blocks"])
"""


def test_hooks_of_others_run_while_a_fork_is_prepared(tmp_path):
    """Nobody waits for brood's hooks with what they need; and queues that came or went between them are freed as others are."""
    assert int(run_program(tmp_path, HOOKS)) < 20
