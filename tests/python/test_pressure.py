# SPDX-License-Identifier: MIT
"""Running out: of shared memory, of /dev/shm, of descriptors, of processes.  Errors at the call, never a hang, and it goes on afterwards.

Each test is a program of its own.  Those of /dev/shm have a mount namespace, and those of processes another user: where that is not
permitted they are skipped.
"""
import os
import subprocess
import sys

import pytest
from programs import METHODS, write

WITHIN = 300
NOT_PERMITTED = 77

HEAD = """
    import ctypes, errno, gc, os, resource, signal, sys, time
    import brood

    def not_permitted(what):
        print(what, ctypes.get_errno() and os.strerror(ctypes.get_errno()), file=sys.stderr)
        os._exit(77)

    def limit(which, soft):
        resource.setrlimit(which, (soft, resource.getrlimit(which)[1]))

    def square(x):
        return x * x

    def large(x):
        return bytes([x]) * 300_000

    def put(queue, x):
        queue.put(x)

    def use_all(context):
        '''Everything that has shared memory; what it says is right.'''
        with context.Pool(2) as pool:
            assert pool.map(square, range(50)) == [x * x for x in range(50)]
            assert list(pool.imap(large, range(20))) == [large(x) for x in range(20)]
        queue, lock, value, array = context.Queue(), context.Lock(), context.Value("i", 4), context.Array("d", [1.0] * 50_000)
        process = context.Process(target=put, args=(queue, large(7)))
        process.start()
        assert queue.get(timeout=60) == large(7)
        process.join()
        with lock, value:
            value.value += 1
        assert value.value == 5 and sum(array) == 50_000

    def fill():
        '''Take all of the arena, to the last piece.'''
        pieces, size = [], 1 << 20
        while size > 8:
            try:
                pieces.append(brood.RawArray("B", size))
            except MemoryError:
                size //= 2
        return pieces

    def bound(room):
        '''No more than that: the arena's file may not be longer.'''
        brood.RawArray("B", 1)
        limit(resource.RLIMIT_FSIZE, os.fstat(brood.arena_ticket()[0]).st_size + room)
    """


def run(folder, body, *arguments):
    """Run a program; skip where it says that it may not do what it needs; its standard output."""
    path = write(folder, "program.py", HEAD.rstrip() + "\n" + body)
    try:
        done = subprocess.run([sys.executable, path, *arguments], capture_output=True, text=True, check=False, timeout=WITHIN)
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"it hangs: {error.stdout} {error.stderr}")
    if done.returncode == NOT_PERMITTED:
        pytest.skip(f"not permitted here: {done.stderr.strip()}")
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


# ---- /dev/shm ----

SHM = """
    def mount_over(how):
        '''A /dev/shm of this process's own.'''
        libc = ctypes.CDLL(None, use_errno=True)
        new_namespace, recursive, private, read_only = 0x20000, 1 << 14, 1 << 18, 1
        if libc.unshare(new_namespace) or libc.mount(None, b"/", None, recursive | private, None):
            not_permitted("unshare of the mount namespace")
        if how == "missing":
            if libc.mount(b"none", b"/dev", b"tmpfs", 0, b"size=1m"):
                not_permitted("mount of an empty /dev")
            for name, number in (("null", 3), ("urandom", 9)):
                os.mknod("/dev/" + name, 0o20666, os.makedev(1, number))
            assert not os.path.exists("/dev/shm")
        elif libc.mount(b"none", b"/dev/shm", b"tmpfs", 0, b"size=64k"):
            not_permitted("mount of a tiny /dev/shm")
        if how == "full":
            with open("/dev/shm/filler", "wb", buffering=0) as file:
                try:
                    while file.write(b"x" * 4096):
                        pass
                except OSError as error:
                    assert error.errno == errno.ENOSPC

    if __name__ == "__main__":
        mount_over(sys.argv[2])
        use_all(brood.get_context(sys.argv[1]))
        if sys.argv[2] != "missing":
            assert os.listdir("/dev/shm") == (["filler"] if sys.argv[2] == "full" else [])
    """


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ["full", "tiny", "missing"])
def test_dev_shm_is_not_needed(tmp_path, method, how):
    run(tmp_path, SHM, method, how)


# ---- the arena ----

FULL = """
    kept = []

    def overflow(kind):
        '''In a worker: what is left is not enough to say so.'''
        kept.extend(fill())
        if kind == "raise":
            raise ValueError("x" * 1000)
        return large(3)

    def make_room():
        kept.clear()

    def refused(error, call):
        try:
            call()
        except error as raised:
            return str(raised)
        raise AssertionError(f"it did not raise {error}")

    if __name__ == "__main__":
        context = brood.get_context(sys.argv[1])
        bound(8 << 20)
        queue = context.Queue()
        with context.Pool(1) as pool:
            assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
            for _ in range(3):
                pieces = fill()
                assert "arena" in refused(MemoryError, lambda: queue.put(large(1)))
                refused(MemoryError, lambda: pool.apply(len, (large(1),)))
                refused(MemoryError, lambda: context.Array("d", 100_000))
                refused(MemoryError, lambda: context.Pool(2))
                assert queue.empty()
                del pieces
                queue.put(large(2))
                assert queue.get() == large(2)
                assert pool.apply(len, (large(1),)) == 300_000
            for kind in ("raise", "return"):
                result, made = pool.apply_async(overflow, (kind,)), pool.apply_async(make_room)
                print(refused(MemoryError, result.get))
                assert made.get() is None
                assert pool.apply(square, (3,)) == 9
        print("end")
    """


@pytest.mark.parametrize("method", METHODS)
def test_a_full_arena_is_memory_error(tmp_path, method):
    said = run(tmp_path, FULL, method)
    assert "the call: ValueError, of which shared memory has no room to tell more\n" in said and said.endswith("end\n")


# ---- descriptors ----

DESCRIPTORS = """
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    def first_free():
        fd = os.dup(0)
        os.close(fd)
        return fd

    if __name__ == "__main__":
        context = brood.get_context(sys.argv[1])
        use_all(context)
        gc.collect()
        before, worked = descriptors(), 0
        for spare in range(int(sys.argv[2])):
            limit(resource.RLIMIT_NOFILE, first_free() + spare)
            try:
                with context.Pool(1) as pool:
                    assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
                    worked += 1
            except OSError as error:
                assert error.errno == errno.EMFILE, error
            except brood.PoolBroken as error:  # the process that starts the workers could not
                assert "start" in str(error), error
            try:
                context.Queue().put(1)
                context.Lock().acquire()
                process = context.Process(target=square, args=(3,))
                process.start()
                process.join()
            except OSError as error:
                assert error.errno == errno.EMFILE, error
            process = pool = None
            limit(resource.RLIMIT_NOFILE, 1024)
            gc.collect()
        assert worked > 0
        use_all(context)
        gc.collect()
        assert descriptors() <= before, os.system(f"ls -l /proc/{os.getpid()}/fd") and before
    """


@pytest.mark.parametrize("method, most", [("fork", 20), ("spawn", 24), ("forkserver", 24)])
def test_few_descriptors(tmp_path, method, most):
    run(tmp_path, DESCRIPTORS, method, str(most))


# ---- processes ----

PROCESSES = """
    GROUPS = (("/sys/fs/cgroup/pids", "pids.max"), ("/sys/fs/cgroup", "pids.max"))

    class Group:
        '''A control group with a bound of processes; the child that its maker forks is to enter it.'''

        def __init__(self):
            for root, self.file in GROUPS:
                self.path = f"{root}/brood-test-{os.getpid()}"
                try:
                    os.mkdir(self.path)
                    return self.bound("max")
                except OSError as error:
                    why = error
            not_permitted(f"a control group with a bound of processes: {why}")

        def write(self, name, what):
            with open(f"{self.path}/{name}", "w") as file:
                file.write(str(what))

        def bound(self, most):
            self.write(self.file, most)

        def now(self):
            with open(f"{self.path}/pids.current") as file:
                return int(file.read())

        def remove(self):
            '''Once all are gone: the child's fork server ends after it.'''
            end = time.monotonic() + 60
            while time.monotonic() < end:
                try:
                    return os.rmdir(self.path)
                except OSError:
                    os.sched_yield()
            raise AssertionError(f"{self.now()} processes are left")

    def try_all(context):
        '''1: a pool worked, -1: it was refused.'''
        try:
            process = context.Process(target=square, args=(3,))
            process.start()
            process.join()
        except OSError as error:
            assert error.errno == errno.EAGAIN, error
        try:
            with context.Pool(3) as pool:
                assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
                return 1
        except OSError as error:
            assert error.errno == errno.EAGAIN, error
        except brood.PoolBroken as error:
            assert "cannot be started" in str(error) or "before it began" in str(error), error
        return -1

    def play(context, group):
        group.write("cgroup.procs", os.getpid())
        use_all(context)
        ends = []
        for spare in (0, 1, 2, 4, 8):
            group.bound(group.now() + spare)
            ends.append(try_all(context))
            group.bound("max")
        assert -1 in ends and 1 in ends, ends
        use_all(context)

    if __name__ == "__main__":
        group = Group()
        pid = os.fork()
        if pid == 0:
            play(brood.get_context(sys.argv[1]), group)
            sys.exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        group.remove()
        sys.exit(status)
    """


@pytest.mark.parametrize("method", METHODS)
def test_few_processes(tmp_path, method):
    run(tmp_path, PROCESSES, method)
