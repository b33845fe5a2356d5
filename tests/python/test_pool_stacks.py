# SPDX-License-Identifier: MIT
"""WorkerDied.stack: the Python stack of a worker that crashed."""
import contextlib
import ctypes
import faulthandler
import os
import pickle
import re
import signal
import traceback

import pytest

import brood as mp
from brood import _stacks
from programs import METHODS, run_program
from support import child, ended

WITHIN = 30


@pytest.fixture(params=METHODS)
def method(request):
    """Each start method in turn."""
    return request.param


# ---- ways to crash; what this says on standard error is the faulthandler of pytest ----


def segmentation_fault():
    faulthandler._sigsegv()


def abort():
    faulthandler._sigabrt()


def floating_point_exception():
    faulthandler._sigfpe()


def stack_overflow():
    faulthandler._stack_overflow()


def bus_error():
    os.kill(os.getpid(), signal.SIGBUS)


def illegal_instruction():
    os.kill(os.getpid(), signal.SIGILL)


WAYS = {segmentation_fault: signal.SIGSEGV, abort: signal.SIGABRT, floating_point_exception: signal.SIGFPE,
        stack_overflow: signal.SIGSEGV, bus_error: signal.SIGBUS, illegal_instruction: signal.SIGILL}


def go_under(way):
    without_core_dump(way)


def without_core_dump(way):
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    way()


def crash(pool, *arguments):
    """The error of a task that crashes."""
    with pytest.raises(mp.WorkerDied) as caught:
        pool.apply_async(*arguments).get(WITHIN)
    return caught.value


def functions_in(stack):
    """The names of the functions, the innermost first."""
    return re.findall(r" in (\w+)$", stack, re.MULTILINE)


def blocks_of(pool):
    """How much room the stacks of a pool take that were not read."""
    return os.fstat(pool._equipment._stacks._fd).st_blocks


def is_caught(number):
    """Whether this process has a handler for a signal."""
    with open("/proc/self/status", encoding="utf-8") as status:
        caught = re.search(r"^SigCgt:\s*(\w+)", status.read(), re.MULTILINE).group(1)
    return bool(int(caught, 16) & 1 << (number - 1))


# ---- the stack ----


def test_every_crash_leaves_a_stack(method):
    with mp.get_context(method).Pool(2) as pool:
        for way, number in WAYS.items():
            error = crash(pool, go_under, (way,))
            assert error.signal == number
            assert functions_in(error.stack)[:3] == [way.__name__, "without_core_dump", "go_under"], error.stack
        assert pool.map(abs, [-1, -2]) == [1, 2]
        assert blocks_of(pool) == 0


def test_it_is_a_note_and_travels(method):
    with mp.get_context(method).Pool(1) as pool:
        error = crash(pool, go_under, (segmentation_fault,))
    copy = pickle.loads(pickle.dumps(error))
    assert copy.stack == error.stack and copy.signal == signal.SIGSEGV
    text = "".join(traceback.format_exception(copy))
    assert "signal 11" in text and "in segmentation_fault" in text and f'File "{__file__}"' in text


def test_deaths_of_other_sorts_have_none():
    with mp.get_context("fork").Pool(1) as pool:
        assert crash(pool, os._exit, (3,)).stack is None
        assert crash(pool, signal.raise_signal, (signal.SIGKILL,)).stack is None
        assert crash(pool, signal.raise_signal, (signal.SIGTERM,)).stack is None


def one_way(barrier):
    barrier.wait(WITHIN)
    without_core_dump(segmentation_fault)


def another_way(barrier):
    barrier.wait(WITHIN)
    without_core_dump(abort)


def a_third_way(barrier):
    barrier.wait(WITHIN)
    without_core_dump(stack_overflow)


def test_workers_that_crash_together(method):
    context = mp.get_context(method)
    functions = [one_way, another_way, a_third_way] * 2
    with context.Pool(len(functions)) as pool:
        barrier = context.Barrier(len(functions))
        results = [pool.apply_async(function, (barrier,)) for function in functions]
        for function, result in zip(functions, results, strict=True):
            with pytest.raises(mp.WorkerDied) as caught:
                result.get(WITHIN)
            assert functions_in(caught.value.stack)[2] == function.__name__
            assert caught.value.stack.count(" in without_core_dump") == 1
        # Each had a position of its own, and has not moved the one that they share.
        assert os.lseek(pool._equipment._stacks._fd, 0, os.SEEK_CUR) == 0


def test_a_replacement_has_no_stack_of_its_predecessor(method):
    with mp.get_context(method).Pool(1) as pool:
        first = pool.apply_async(go_under, (segmentation_fault,))
        second = pool.apply_async(signal.raise_signal, (signal.SIGKILL,))
        third = pool.apply_async(go_under, (abort,))
        for result in (third, second, first):  # whatever the order they are asked in
            result.wait(WITHIN)
        errors = []
        for result in (third, second, first):
            with pytest.raises(mp.WorkerDied) as caught:
                result.get(WITHIN)
            errors.append(caught.value)
    assert functions_in(errors[0].stack)[0] == "abort"
    assert errors[1].stack is None
    assert functions_in(errors[2].stack)[0] == "segmentation_fault"


def crash_on_5(x):
    if x == 5:
        go_under(segmentation_fault)
    return x


def test_maps_and_streams(method):
    with mp.get_context(method).Pool(2) as pool:
        with pytest.raises(mp.WorkerDied) as caught:
            pool.map(crash_on_5, range(10), chunksize=3)
        assert caught.value.items == range(3, 6) and "crash_on_5" in caught.value.stack
        with pytest.raises(mp.WorkerDied) as caught:
            list(pool.imap(crash_on_5, range(10)))
        assert caught.value.index == 5 and "crash_on_5" in caught.value.stack


def test_results_may_be_asked_after_the_pools_end():
    pool = mp.get_context("fork").Pool(2)
    results = [pool.apply_async(go_under, (way,)) for way in (abort, segmentation_fault)]
    for result in results:
        result.wait(WITHIN)
    pool.close()
    pool.join()
    for result, name in zip(results, ("abort", "segmentation_fault"), strict=True):
        with pytest.raises(mp.WorkerDied) as caught:
            result.get()
        assert functions_in(caught.value.stack)[0] == name


def in_a_child():
    go_under(segmentation_fault)


def crash_in_a_child(number):
    assert ended(child(in_a_child)) == -signal.SIGSEGV
    if number == 0:
        block_all_signals_and_crash()
    os.kill(os.getpid(), number)


def test_a_child_of_a_worker_leaves_no_stack_in_its_name(method):
    with mp.get_context(method).Pool(1) as pool:
        assert crash(pool, crash_in_a_child, (signal.SIGKILL,)).stack is None
        assert crash(pool, crash_in_a_child, (0,)).stack is None
        stack = crash(pool, crash_in_a_child, (signal.SIGABRT,)).stack
        assert functions_in(stack)[0] == "crash_in_a_child" and "in_a_child\n" not in stack.partition("crash_in_a_child")[0]


def leave_a_stack(pool):
    """As somebody did who had the worker's pid before it."""
    os.pwrite(pool._equipment._stacks._fd, b'  File "x", line 1 in old\n' * 3000, pool._pool[0].pid * _stacks._PLACE)


def test_a_pid_that_comes_again(method):
    with mp.get_context(method).Pool(1) as pool:
        leave_a_stack(pool)
        stack = crash(pool, go_under, (abort,)).stack
        assert "old" not in stack and functions_in(stack)[0] == "abort"
        leave_a_stack(pool)
        assert crash(pool, os._exit, (3,)).stack is None


def crash_nested(_):
    with mp.Pool(1) as inner:
        return crash(inner, go_under, (segmentation_fault,)).stack


def test_pools_in_workers(method):
    with mp.get_context(method).Pool(1) as pool:
        assert functions_in(pool.apply(crash_nested, (1,)))[0] == "segmentation_fault"
        assert functions_in(crash(pool, go_under, (abort,)).stack)[0] == "abort"


# ---- the user's own ----


def enable(path):
    faulthandler.enable(open(path, "a"))  # by the replacement as well


def test_a_faulthandler_that_the_initializer_enables_has_it_too(method, tmp_path):
    with mp.get_context(method).Pool(1, initializer=enable, initargs=(str(tmp_path / "log"),)) as pool:
        error = crash(pool, go_under, (segmentation_fault,))
    log = (tmp_path / "log").read_text()
    assert "Fatal Python error: Segmentation fault" in log
    assert functions_in(error.stack)[0] == functions_in(log)[0] == "segmentation_fault"


@pytest.mark.parametrize("mode", METHODS)
def test_a_faulthandler_that_the_owner_has_enabled_has_it_too(mode, tmp_path):
    out = run_program(tmp_path, """
        import faulthandler, os, sys, brood as mp

        def crash(number):
            os.kill(os.getpid(), number)

        if __name__ == "__main__":
            faulthandler.enable(sys.stdout.fileno())
            with mp.get_context(sys.argv[1]).Pool(1) as pool:
                try:
                    pool.apply(crash, (8,))
                except mp.WorkerDied as error:
                    assert "in crash" in error.stack
        """, mode)
    assert ("Fatal Python error: Floating-point exception" in out or "Floating point exception" in out) == (mode == "fork")


def test_opting_out(method):
    with mp.get_context(method).Pool(1, faulthandler=False) as pool:
        assert pool._equipment._stacks is None
        error = crash(pool, go_under, (segmentation_fault,))
    assert error.stack is None and not hasattr(error, "__notes__")


def count_aborts(seen):
    signal.signal(signal.SIGABRT, lambda number, frame: seen.append(number))


def abort_twice(_):
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGABRT)


def set_and_abort_twice(_):
    seen = []
    count_aborts(seen)
    abort_twice(0)
    return len(seen)


def test_handlers_of_the_program_stay():
    with mp.get_context("fork").Pool(1) as pool:
        assert pool.apply(set_and_abort_twice, (1,)) == 2
        assert blocks_of(pool) == 0
    before = signal.getsignal(signal.SIGABRT)
    try:
        count_aborts([])
        with mp.get_context("fork").Pool(1) as pool:  # inherits it
            pool.apply(abort_twice, (1,))
            assert blocks_of(pool) == 0
    finally:
        signal.signal(signal.SIGABRT, before)


def test_handlers_that_are_not_pythons_stay(tmp_path):
    """They may know what to do about a fault."""
    assert run_program(tmp_path, """
        import ctypes, os, signal, brood as mp

        def send(number, times=1):
            for _ in range(times):
                os.kill(os.getpid(), number)
            return len(seen)

        seen = []
        note = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: seen.append(number))
        ctypes.CDLL(None).signal(signal.SIGSEGV, note)
        with mp.get_context("fork").Pool(1) as pool:
            print(pool.apply(send, (signal.SIGSEGV, 3)), os.fstat(pool._equipment._stacks._fd).st_blocks)
            try:
                pool.apply(send, (signal.SIGBUS,))
            except mp.WorkerDied as error:
                print(error.signal, "in send" in error.stack)
        """) == "3 0\n7 True\n"


# ---- the laws ----


def test_the_owner_has_no_handler_and_no_descriptor_afterwards(tmp_path):
    assert run_program(tmp_path, """
        import os, re, signal, sys, brood as mp

        def caught(_):
            text = re.search(r"^SigCgt:\\s*(\\w+)", open("/proc/self/status").read(), re.MULTILINE).group(1)
            return int(text, 16) >> (signal.SIGSEGV - 1) & 1

        def is_stacks(name):
            path = f"/proc/self/fd/{name}"
            return os.path.islink(path) and "brood-stacks" in os.readlink(path)

        def is_open():
            return any(is_stacks(name) for name in os.listdir("/proc/self/fd"))

        def inheritable(_):
            return [os.get_inheritable(int(name)) for name in os.listdir("/proc/self/fd") if is_stacks(name)]

        if __name__ == "__main__":
            for method in ("fork", "spawn", "forkserver"):
                with mp.get_context(method).Pool(1) as pool:
                    assert is_open() and not os.get_inheritable(pool._equipment._stacks._fd)
                    print(caught(0), pool.apply(caught, (0,)), pool.apply(inheritable, (0,)))
                assert not is_open()
        """) == "0 1 [False]\n" * 3


def lay_a_file_over(fd, path):
    other = os.open(path, os.O_RDWR | os.O_CREAT)
    os.dup2(other, fd)
    os.close(other)


def test_a_descriptor_that_is_another_files_by_now(tmp_path):
    path = tmp_path / "precious"
    with mp.get_context("fork").Pool(1) as pool:
        fd = pool._equipment._stacks._fd
        pool.apply(lay_a_file_over, (fd, path))
        assert crash(pool, go_under, (segmentation_fault,)).stack is None
        assert path.read_bytes() == b""
        lay_a_file_over(fd, path)  # here, too
        assert crash(pool, go_under, (segmentation_fault,)).stack is None
    assert path.read_bytes() == b"" and os.lseek(fd, 0, os.SEEK_CUR) == 0
    os.close(fd)


def test_what_nobody_asks_for_does_not_grow(monkeypatch):
    monkeypatch.setattr(_stacks, "_MOST_UNREAD", 10 * 4096)
    with mp.get_context("fork").Pool(2) as pool:
        for _ in range(25):
            results = [pool.apply_async(go_under, (abort,)) for _ in range(2)]
            for result in results:
                result.wait(WITHIN)
            assert blocks_of(pool) * 512 <= (10 + 2) * 4096
        assert blocks_of(pool) > 0
        assert functions_in(crash(pool, go_under, (segmentation_fault,)).stack)[0] == "segmentation_fault"


def recurse(depth, way):
    if depth:
        recurse(depth - 1, way)
    else:
        way()


def test_a_deep_stack_is_cut(method):
    with mp.get_context(method).Pool(1) as pool:
        stack = crash(pool, recurse, (900, abort)).stack
    assert 90 < stack.count(" in recurse") <= 100


def crash_in_a_thread():
    import threading

    threading.Thread(target=go_under, args=(segmentation_fault,)).start()
    signal.pause()


def test_a_crash_in_another_thread(method):
    with mp.get_context(method).Pool(1) as pool:
        stack = crash(pool, crash_in_a_thread).stack
    current = stack[stack.index("Current thread"):]
    assert functions_in(current)[0] == "segmentation_fault" and "in crash_in_a_thread" in stack


def block_all_signals_and_crash():
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
    ctypes.string_at(8)


def test_signals_that_are_blocked(method):
    with mp.get_context(method).Pool(1) as pool:
        error = crash(pool, block_all_signals_and_crash)
    assert error.signal == signal.SIGSEGV  # a fault whose signal is blocked is a death at once, without a handler
    assert error.stack is None


def block_the_signal_of_the_dump():
    signal.pthread_sigmask(signal.SIG_BLOCK, {_stacks._free_signal()})
    go_under(abort)


def test_a_signal_of_the_dump_that_is_blocked(method):
    with mp.get_context(method).Pool(1) as pool:
        assert functions_in(crash(pool, block_the_signal_of_the_dump).stack)[0] == "abort"


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_bad_values(value):
    with pytest.raises(TypeError, match="faulthandler must be"):
        mp.Pool(1, faulthandler=value)


def test_no_descriptor_left(tmp_path):
    assert run_program(tmp_path, """
        import os, brood as mp
        from brood import _equipment

        def refuse(*arguments):
            raise OSError(24, "too many")

        os.memfd_create = refuse
        with mp.get_context("fork").Pool(1) as pool:
            print(pool.apply(abs, (-1,)), pool._equipment._stacks)
        """) == "1 None\n"


def test_a_pool_without_proc_or_signals_goes_on(monkeypatch):
    monkeypatch.setattr(_stacks, "_free_signal", lambda: 0)
    with mp.get_context("fork").Pool(1) as pool, contextlib.suppress(mp.WorkerDied):
        assert crash(pool, go_under, (abort,)).stack is None
        assert pool.apply(is_caught, (signal.SIGBUS,)) == is_caught(signal.SIGBUS)
