# SPDX-License-Identifier: MIT
"""Forked children for tests: they run a function and end with 0, or with 1 and a traceback when it raised."""
import gc
import os
import signal
import sys
import time
import traceback

from brood import _core


def runs_under(tool):
    """Whether tools/sanitize runs the test under that tool ("asan")."""
    return os.environ.get("BROOD_TEST_TOOL") == tool


def child(function):
    """Fork a process that runs function(); return its pid."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        function()
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def ended(pid):
    """Wait for the end of a child; return its exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed(pid):
    """Kill a child and wait for its end."""
    os.kill(pid, signal.SIGKILL)
    assert ended(pid) == -signal.SIGKILL


def until(condition, seconds=30):
    """Give way until condition() holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        os.sched_yield()


def alive_in_session(leader):
    """The pids of its processes; who ended and is not waited for does not count."""
    pids = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as stat:
                state, _, _, session = stat.read().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state != "Z":
            pids.append(int(entry))
    return pids


def arena_blocks():
    """How many blocks of shared memory are in use."""
    return _core.arena_stats()["used_blocks"]


def leaves_nothing(action):
    """Assert that calling `action` again and again leaves no Python objects and no memory behind.

    Caches fill slowly: the interpreter's cache of methods keeps the names that it was asked for, those of pickles are new each
    time.  What leaks, leaks in every turn.
    """
    grown = []
    while not grown or (len(grown) < 6 and not is_little(*grown[-1])):
        objects, blocks = len(gc.get_objects()), sys.getallocatedblocks()
        for _ in range(300):
            action()
        gc.collect()
        grown.append((len(gc.get_objects()) - objects, sys.getallocatedblocks() - blocks))
    assert is_little(*grown[-1]), grown


def is_little(objects, blocks):
    """Fewer than one for several calls of those of leaves_nothing."""
    return objects < 25 and blocks < 150
