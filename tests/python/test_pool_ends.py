# SPDX-License-Identifier: MIT
"""Tasks of pools that are ended, tried again, or meet a limit: the others go on, and each has its outcome."""
import os
import re
import signal
import time
import traceback
from concurrent.futures import CancelledError

import brood
import pytest
from brood import TaskTimeout, WorkerDied
from support import until

LONG = 600  # seconds: longer than any test may take
SOON = 0.1
MIB = 1 << 20


def work(x):
    return x * x


def hang(x):
    if x in (3, 7):
        signal.pause()
    return x * x


def spin(x):
    while x == 3:
        pass
    return x * x


def hang_deaf(x):
    """Hears neither the exception nor SIGTERM."""
    if x == 3:
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            pass
    return x * x


def swallow(x):
    try:
        signal.pause()
    except Exception:
        return "swallowed"


def hold_out(x):
    """Whatever is raised."""
    while True:
        try:
            signal.pause()
        except TaskTimeout:
            pass


def clean_up(path):
    try:
        signal.pause()
    except TaskTimeout:
        open(path, "w").close()
        raise


def die(x):
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return x * x


def die_until(path, times):
    """Kill the worker that often; then return how often it was called."""
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.path.getsize(path)


def fail_until(path, times):
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) <= times:
        raise ConnectionError(f"try {os.path.getsize(path)}")
    return os.path.getsize(path)


def pid(x):
    return os.getpid()


def blocks_of(pool):
    """How much room the stacks of a pool take that were not read."""
    return os.fstat(pool._equipment._stacks._fd).st_blocks


@pytest.fixture(scope="module", params=["fork", "spawn"])
def pool(request):
    with brood.get_context(request.param).Pool(2, grace=0.2) as made:
        yield made


class TestTimeOuts:
    @pytest.mark.parametrize("function", [hang, spin, hang_deaf])
    def test_only_the_task_is_lost(self, pool, function):
        values = pool.map(function, range(10), timeout=SOON, return_exceptions=True)
        for index, value in enumerate(values):
            if index == 3 or (function is hang and index == 7):
                assert type(value) is TaskTimeout
                assert isinstance(value, brood.TimeoutError) and isinstance(value, TimeoutError)
                assert str(value).startswith(f"item {index}: not done within its 100 ms")
            else:
                assert value == index * index
        assert pool.map(work, range(5)) == [0, 1, 4, 9, 16]

    def test_apply(self, pool):
        with pytest.raises(TaskTimeout, match="the call: not done within its 100 ms"):
            pool.apply(time.sleep, (LONG,), timeout=SOON)
        assert pool.apply(work, (3,), timeout=LONG) == 9

    def test_map_raises_and_the_others_are_had(self, pool):
        result = pool.map_async(hang, range(10), timeout=SOON)
        with pytest.raises(TaskTimeout, match="item 3"):
            result.get(LONG)
        assert [value for value in result.get(return_exceptions=True) if isinstance(value, int)] == [
            x * x for x in range(10) if x not in (3, 7)]
        assert not result.successful()

    def test_the_worker_is_replaced(self, pool):
        before = pool.apply(pid, (0,))
        with pytest.raises(TaskTimeout):
            pool.apply(time.sleep, (LONG,), timeout=SOON)
        pids = set(pool.map(pid, range(50), chunksize=1))
        assert len(pids | {before}) <= 4

    def test_an_exception_that_is_swallowed(self, pool):
        with pytest.raises(TaskTimeout):
            pool.apply(swallow, (0,), timeout=SOON)

    def test_the_task_can_clean_up(self, pool, tmp_path):
        with pytest.raises(TaskTimeout):
            pool.apply(clean_up, (str(tmp_path / "cleaned"),), timeout=SOON)
        assert (tmp_path / "cleaned").exists()

    def test_a_chunk_is_one_task(self, pool):
        values = pool.map(hang, range(8), chunksize=4, timeout=SOON, return_exceptions=True)
        assert {type(value) for value in values} == {TaskTimeout}

    def test_total_timeout(self, pool):
        values = pool.map(hang, [3, 7] + list(range(20)), total_timeout=3 * SOON, return_exceptions=True)
        assert type(values[0]) is type(values[1]) is TaskTimeout
        assert "300 ms of the whole" in str(values[0])

    def test_it_tells_where_the_task_was(self, pool):
        for function, line in ((hang, "signal.pause()"), (spin, "while x == 3:"), (clean_up, "signal.pause()")):
            argument = os.devnull if function is clean_up else 3
            with pytest.raises(TaskTimeout) as caught:
                pool.apply(function, (argument,), timeout=SOON)
            text = "".join(traceback.format_exception(caught.value))
            assert text.count("Traceback (most recent call last)") == 2, text  # the task's and the owner's
            assert f'File "{__file__}"' in text and f"in {function.__name__}\n" in text and line in text, text
            assert text.index("brood.TaskTimeout: the time of this task is over") < text.index("not done within its 100 ms")
            assert "begin_worker" not in text and "_end_task" in text

    def test_also_where_the_exception_ends_nothing(self, pool):
        """Its worker's stack, then; none where the worker hears no signal at all."""
        for function in (swallow, hold_out):
            with pytest.raises(TaskTimeout) as caught:
                pool.apply(function, (0,), timeout=SOON)
            where = str(caught.value.__cause__)
            assert re.search(rf'File "{__file__}", line \d+ in {function.__name__}$', where, re.MULTILINE), where
        with pytest.raises(TaskTimeout) as caught:
            pool.apply(hang_deaf, (3,), timeout=10 * SOON)  # by then it hears nothing
        assert caught.value.__cause__ is None

    def test_without_faulthandler_it_does_not(self):
        with brood.Pool(1, faulthandler=False) as pool, pytest.raises(TaskTimeout) as caught:
            pool.apply(hang, (3,), timeout=SOON)
        assert caught.value.__cause__ is None

    def test_of_a_map_each_tells(self, pool):
        pool.map(work, range(4))
        values = pool.map(hang, [3] * 6, total_timeout=3 * SOON, return_exceptions=True)
        ran = [value for value in values if "its worker" in str(value)]
        assert 1 <= len(ran) <= 2 and all("Traceback" in str(value.__cause__) for value in ran), values
        assert not any(value.__cause__ for value in values if value not in ran)
        assert pool._equipment.stack_of(os.getpid()) is None and blocks_of(pool) == 0

    def test_starmap_and_imap(self, pool):
        values = pool.starmap(hang, [(x,) for x in range(5)], timeout=SOON, return_exceptions=True)
        assert values[:3] == [0, 1, 4] and type(values[3]) is TaskTimeout and values[4] == 16
        stream = pool.imap(hang, range(5), timeout=SOON)
        assert [next(stream) for _ in range(3)] == [0, 1, 4]
        with pytest.raises(TaskTimeout, match="item 3"):
            next(stream)
        assert list(stream) == [16]

    def test_callbacks(self, pool):
        errors = []
        pool.apply_async(time.sleep, (LONG,), error_callback=errors.append, timeout=SOON).wait(LONG)
        assert [type(error) for error in errors] == [TaskTimeout]


class TestCancel:
    def test_what_runs(self, pool, tmp_path):
        result = pool.map_async(die_gently, [str(tmp_path / str(i)) for i in range(12)], chunksize=1)
        until(lambda: len(os.listdir(tmp_path)) == 2)
        assert result.cancel(running=True) is True
        values = result.get(LONG, return_exceptions=True)
        assert {type(value) for value in values} == {CancelledError}
        assert "cancelled while it ran" in str(values[0])
        wheres = [str(value.__cause__) for value in values if value.__cause__ is not None]
        assert len(wheres) == 2 and all("in die_gently" in where for where in wheres)  # of those that ran
        assert result.cancel(running=True) is False
        with pytest.raises(CancelledError):
            result.get()
        assert pool.map(work, range(5)) == [0, 1, 4, 9, 16]

    def test_what_waits_only(self, pool, tmp_path):
        gate = tmp_path / "gate"
        busy = [pool.apply_async(wait_for, (str(gate),)) for _ in range(2)]
        waiting = pool.apply_async(work, (3,))
        assert waiting.cancel() is True
        gate.touch()
        assert [one.get(LONG) for one in busy] == [None, None]
        assert busy[0].cancel(running=True) is False
        with pytest.raises(CancelledError):
            waiting.get(LONG)


def die_gently(path):
    open(path, "w").close()
    signal.pause()


def wait_for(path):
    while not os.path.exists(path):
        os.sched_yield()


class TestRetries:
    def test_a_task_that_killed_its_worker(self, pool, tmp_path):
        result = pool.apply_async(die_until, (str(tmp_path / "tries"), 2), retries=2)
        assert result.get(LONG) == 3
        assert result.attempts() == 3

    def test_attempts_run_out(self, pool):
        result = pool.map_async(die, range(6), retries=2)
        values = result.get(LONG, return_exceptions=True)
        assert [value for value in values if isinstance(value, int)] == [0, 1, 4, 16, 25]
        assert type(values[3]) is WorkerDied
        assert values[3].attempts == 3 and values[3].signal == signal.SIGKILL
        assert "it has killed 3 workers" in str(values[3])
        assert result.attempts() == [1, 1, 1, 3, 1, 1]

    def test_given_exceptions(self, pool, tmp_path):
        result = pool.apply_async(fail_until, (str(tmp_path / "a"), 2), retries=2, retry_on=ConnectionError)
        assert result.get(LONG) == 3
        assert result.attempts() == 3
        with pytest.raises(ConnectionError, match="try 3") as caught:
            pool.apply(fail_until, (str(tmp_path / "b"), 5), retries=2, retry_on=(OSError, KeyError))
        assert "attempt 3 of 3" in caught.value.__notes__
        with pytest.raises(ConnectionError, match="try 1"):
            pool.apply(fail_until, (str(tmp_path / "c"), 5), retries=2, retry_on=KeyError)

    def test_lambdas_too(self, pool):
        assert pool.map(lambda x: x + 1, range(3), retries=1, retry_on=ValueError) == [1, 2, 3]

    def test_without(self, pool):
        result = pool.apply_async(work, (3,))
        slow = pool.apply_async(time.sleep, (SOON,))
        if not slow.ready():
            with pytest.raises(ValueError, match="not ready"):
                slow.attempts()
        slow.wait(LONG)
        assert result.get(LONG) == 9 and result.attempts() == 1
        assert pool.map_async(work, []).attempts() == []


def hog(mib):
    return len(bytearray(mib * MIB))


def burn(x):
    while x == 1:
        pass
    return x


def open_many(count):
    files = []
    for _ in range(count):
        files.append(open(os.devnull))
    return len(files)


class TestLimits:
    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_memory(self, method):
        with brood.get_context(method).Pool(1, max_memory_per_worker=256 * MIB) as pool:
            assert pool.apply(hog, (100,)) == 100 * MIB
            with pytest.raises(MemoryError) as caught:
                pool.apply(hog, (1000,))
            assert any(f"max_memory_per_worker={256 * MIB}" in note for note in caught.value.__notes__)
            assert pool.apply(hog, (100,)) == 100 * MIB

    def test_cpu(self):
        with brood.Pool(1, max_cpu_seconds=1) as pool:
            values = pool.map(burn, range(3), chunksize=1, return_exceptions=True)
        assert values[0] == 0 and values[2] == 2
        assert type(values[1]) is WorkerDied and values[1].cause == "cpu"
        assert "more than its 1 CPU seconds" in str(values[1])

    def test_files(self):
        with brood.Pool(1, max_open_files=100) as pool:
            assert pool.apply(open_many, (10,)) == 10
            with pytest.raises(OSError) as caught:
                pool.apply(open_many, (200,))
            assert any("max_open_files=100" in note for note in caught.value.__notes__)


class TestBadInput:
    @pytest.mark.parametrize("ends, error, name", [
        ({"timeout": 0}, ValueError, "timeout"), ({"timeout": -1}, ValueError, "timeout"),
        ({"timeout": float("nan")}, ValueError, "timeout"), ({"timeout": float("inf")}, ValueError, "timeout"),
        ({"timeout": "1"}, TypeError, "timeout"), ({"total_timeout": 0}, ValueError, "total_timeout"),
        ({"retries": -1}, ValueError, "retries"), ({"retries": 1001}, ValueError, "retries"),
        ({"retries": 1.5}, TypeError, "retries"), ({"retry_on": "ValueError"}, TypeError, "retry_on"),
        ({"timeouts": 1}, TypeError, "timeouts"),
    ])
    def test_of_calls(self, pool, ends, error, name):
        for call in (lambda: pool.apply(work, (1,), **ends), lambda: pool.map(work, [1], **ends),
                     lambda: pool.starmap_async(work, [(1,)], **ends), lambda: pool.imap(work, [1], **ends)):
            with pytest.raises(error, match=name):
                call()

    def test_of_imap(self, pool):
        with pytest.raises(ValueError, match="total_timeout"):
            pool.imap(work, [1], total_timeout=1)

    def test_numbers_of_numpy_are_numbers(self):
        numpy = pytest.importorskip("numpy")
        with brood.Pool(numpy.int64(1), max_memory_per_worker=numpy.int64(1 << 34), max_open_files=numpy.uint16(500),
                        grace=numpy.float32(0.25), threads_per_worker=numpy.int8(1)) as pool:
            ends = {"timeout": numpy.float32(60), "total_timeout": numpy.float64(60), "retries": numpy.int32(1)}
            assert pool.map(work, range(3), chunksize=numpy.int64(2), **ends) == [0, 1, 4]
            with pytest.raises(TypeError, match="retries"):
                pool.map(work, [1], retries=numpy.bool_(True))

    @pytest.mark.parametrize("options, error, name", [
        ({"max_memory_per_worker": -1}, ValueError, "max_memory_per_worker"),
        ({"max_memory_per_worker": 0}, ValueError, "from 1"), ({"max_cpu_seconds": 0}, ValueError, "from 1"),
        ({"max_open_files": 0}, ValueError, "from 1"), ({"max_memory_per_worker": "1G"}, TypeError, "max_memory_per_worker"),
        ({"max_cpu_seconds": 0.5}, TypeError, "max_cpu_seconds"), ({"max_open_files": -3}, ValueError, "max_open_files"),
        ({"grace": 0}, ValueError, "grace"), ({"grace": "1"}, TypeError, "grace"),
    ])
    def test_of_pools(self, options, error, name):
        with pytest.raises(error, match=name):
            brood.Pool(1, **options)
