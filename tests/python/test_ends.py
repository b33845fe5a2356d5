# SPDX-License-Identifier: MIT
"""Ends are bounded: however a pool or its owner ends, whatever the workers do, under every start method, nobody is left.

The pool of a round has a worker for each deed; each process concerned leaves a file named after the deed and its pid.
How long an end takes is not looked at (docs/FAULTS.md has figures), only that none of them hangs.
"""
import os
import select
import signal
import subprocess
import sys
import time

import pytest
from programs import METHODS, run_program, write
from support import alive_in_session, until

WITHIN = 60

PROGRAM = """
    import atexit, fcntl, gc, os, pathlib, signal, sys
    import brood

    FOLDER, GRACE = pathlib.Path(sys.argv[2]), float(sys.argv[3])

    def note(deed):
        (FOLDER / f"{deed}-{os.getpid()}").touch()

    def deafen():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def hold_out():
        while True:
            try:
                signal.pause()
            except BaseException:
                pass

    def deaf():
        deafen()
        note("deaf")
        hold_out()

    def busy():
        deafen()
        note("busy")
        while True:
            pass

    def read():
        deafen()
        reader, writer = os.pipe()
        note("read")
        os.read(reader, 1)

    def lock():
        deafen()
        for _ in range(2):
            file = os.open(FOLDER / "file", os.O_CREAT)
            note("lock")
            fcntl.flock(file, fcntl.LOCK_EX)

    def stop():
        note("stop")
        while True:
            os.kill(os.getpid(), signal.SIGSTOP)

    def be_child(is_runaway):
        if os.fork():
            return
        if is_runaway:
            os.setsid()
            if os.fork():
                os._exit(0)
        deafen()
        note("child")
        hold_out()

    def parent():
        be_child(False)
        be_child(True)
        deafen()
        note("parent")
        hold_out()

    DEEDS = [deaf, busy, read, lock, stop, parent]
    NOTES = len(DEEDS) + 2

    def call(deed):
        deed()

    def say(text):
        print(text, flush=True)

    def noted():
        return [path.name for path in FOLDER.iterdir() if "-" in path.name]

    def check_gone():
        for name in noted():
            if name.startswith("supervisor"):
                continue  # whoever inherited it may not have reaped it yet
            try:
                os.kill(int(name.partition("-")[2]), 0)
            except ProcessLookupError:
                continue
            sys.exit(f"{name} is there after the end")
        say("GONE")

    def supervisor():
        deaf = next(name for name in noted() if name.startswith("deaf"))
        with open("/proc/" + deaf.partition("-")[2] + "/stat") as stat:
            return int(stat.read().rpartition(")")[2].split()[1])

    if __name__ == "__main__":
        signal.signal(signal.SIGINT, signal.default_int_handler)
        pool = brood.get_context(sys.argv[1]).Pool(len(DEEDS), grace=GRACE)
        result = pool.map_async(call, DEEDS, 1)
        while len(noted()) < NOTES:
            os.sched_yield()
        (FOLDER / f"supervisor-{supervisor()}").touch()
        say("READY")
        sys.stdin.readline()
        BODY
    """

# What the owner does; what it is sent, once it has said something; its status, None: whichever.
ENDS = {
    "terminate": ("pool.terminate(); pool.join(); check_gone()", {}, 0),
    "with": ("with pool: pass\nraise SystemExit(3)", {}, 3),
    "dropped": ("del pool, result; gc.collect(); check_gone()", {}, 0),
    "exit": ("pass", {}, 0),
    "sys.exit": ("sys.exit(3)", {}, 3),
    "os._exit": ("os._exit(3)", {}, 3),
    "an exception": ("raise ValueError", {}, 1),
    "SIGTERM": ("say('WAITS'); result.get()", {"WAITS": [signal.SIGTERM]}, -signal.SIGTERM),
    "SIGTERM that exits": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(4)); say('WAITS'); result.get()", {"WAITS": [signal.SIGTERM]}, 4),
    "SIGKILL": ("say('WAITS'); result.get()", {"WAITS": [signal.SIGKILL]}, -signal.SIGKILL),
    "SIGKILL while it is stopped": (
        "say('WAITS'); result.get()", {"WAITS": [signal.SIGSTOP, signal.SIGKILL]}, -signal.SIGKILL),
    "Ctrl-C": ("say('WAITS'); result.get()", {"WAITS": [signal.SIGINT]}, -signal.SIGINT),
    "Ctrl-C twice": (
        "with pool:\n try:\n  say('WAITS'); result.get()\n except KeyboardInterrupt:\n  say('AGAIN'); raise",
        {"WAITS": [signal.SIGINT], "AGAIN": [signal.SIGINT]}, None),
    "Ctrl-C while it terminates": ("say('ENDS'); pool.terminate()", {"ENDS": [signal.SIGINT]}, -signal.SIGINT),
    "Ctrl-C while it joins": ("pool.close(); say('JOINS'); pool.join()", {"JOINS": [signal.SIGINT]}, -signal.SIGINT),
    "Ctrl-C at exit": ("atexit.register(say, 'EXITS')", {"EXITS": [signal.SIGINT]}, None),
    "stopped while it terminates": (
        "say('ENDS'); pool.terminate(); check_gone()", {"ENDS": [signal.SIGSTOP, signal.SIGCONT]}, 0),
    "with a stopped supervisor": (
        "os.kill(supervisor(), signal.SIGSTOP); pool.terminate(); pool.join(); check_gone()", {}, 0),
}
SLOW = {"Ctrl-C twice", "Ctrl-C while it terminates", "stopped while it terminates", "Ctrl-C at exit"}  # the end is to be under way when the signal comes


class Owner:
    """The program of a round."""

    def __init__(self, folder, method, body, grace):
        notes = folder / "notes"
        notes.mkdir()
        body = body.replace("\n", "\n" + " " * 8)
        program = write(folder, "program.py", PROGRAM.replace("BODY", body))
        self.errors = folder / "errors"
        with open(self.errors, "wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, program, method, notes, str(grace)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                start_new_session=True, bufsize=0)
        self.pid = self._process.pid
        self.notes = notes
        self._watches = {}

    def fail(self, why):
        self.clean_up()
        pytest.fail(f"{why}\n{self.errors.read_text()}")

    def read(self):
        """A line, or None when it has ended."""
        watches = select.poll()
        watches.register(self._process.stdout, select.POLLIN)
        ended = os.pidfd_open(self.pid)
        watches.register(ended, select.POLLIN)
        ready = [fd for fd, _ in watches.poll(WITHIN * 1000)]
        os.close(ended)
        if not ready:
            self.fail("nothing happens any more")
        return self._process.stdout.readline().decode().strip() if self._process.stdout.fileno() in ready else None

    def begin_end(self):
        """Watch all that have noted themselves, then let it end."""
        for path in self.notes.iterdir():
            if "-" in path.name:
                self._watches[path.name] = os.pidfd_open(int(path.name.partition("-")[2]))
        self._process.stdin.write(b"\n")

    def signal(self, number):
        """As a terminal does it; to others than the owner only Ctrl-C goes."""
        if number == signal.SIGINT:
            os.killpg(self.pid, number)
        else:
            os.kill(self.pid, number)
        if number == signal.SIGSTOP:
            os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def end(self):
        """Its status, once everybody is gone."""
        try:
            status = self._process.wait(WITHIN)
        except subprocess.TimeoutExpired:
            self.fail("the owner does not end")
        end = time.monotonic() + WITHIN
        for name, watch in self._watches.items():
            if not select.select([watch], [], [], max(0, end - time.monotonic()))[0]:
                self.fail(f"{name} is left")
        until(lambda: not alive_in_session(self.pid), WITHIN)
        self.clean_up()
        return status

    def clean_up(self):
        for watch in self._watches.values():
            signal.pidfd_send_signal(watch, signal.SIGKILL) if not select.select([watch], [], [], 0)[0] else None
            os.close(watch)
        self._watches = {}
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("end", ENDS)
def test_nobody_is_left(tmp_path, method, end):
    body, sent, expected = ENDS[end]
    owner = Owner(tmp_path, method, body, 1.5 if end in SLOW else 0.1)
    line = owner.read()
    if line != "READY":
        owner.fail(f"it says {line}")
    owner.begin_end()
    said = []
    while line := owner.read():
        said.append(line)
        for number in sent.get(line, ()):
            owner.signal(number)
    status = owner.end()
    assert expected is None or status == expected, owner.errors.read_text()
    assert said == [*sent, *(["GONE"] if "check_gone" in body else [])]


DAEMON = """
    import os, pathlib, signal, sys
    import brood

    def hold_out(path, is_stopped):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        path.touch()
        while True:
            os.kill(os.getpid(), signal.SIGSTOP) if is_stopped else signal.pause()

    if __name__ == "__main__":
        paths = [pathlib.Path(sys.argv[2]) / name for name in ("deaf", "stopped")]
        for path in paths:
            brood.get_context(sys.argv[1]).Process(target=hold_out, args=(path, path.name == "stopped"), daemon=True).start()
        while not all(path.exists() for path in paths):
            os.sched_yield()
        print(*(process.pid for process in brood.active_children()))
    """


@pytest.mark.parametrize("method", METHODS)
def test_daemons_that_ignore_sigterm_are_killed(tmp_path, method):
    pids = run_program(tmp_path, DAEMON, method, tmp_path).split()
    assert len(pids) == 2
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))


KILLED = """
    import os, signal, sys
    import brood

    def hold_out(ready):
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
        ready.release()
        while True:
            signal.sigtimedwait((), 600)

    if __name__ == "__main__":
        context = brood.get_context(sys.argv[1])
        ready = context.Semaphore(0)
        pool = context.Pool(2)  # has what it inherits, too
        children = [context.Process(target=hold_out, args=(ready,), daemon=number != 1) for number in range(4)]
        for child in children:
            child.start()
            ready.acquire()
        print(*(child.pid for child in children), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """


def is_alive(pid):
    """Whether it runs: what nobody reaps is no more."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("method", METHODS)
def test_daemons_end_with_an_owner_that_is_killed(tmp_path, method):
    write(tmp_path, "killed.py", KILLED)
    with open(tmp_path / "pids", "w+") as pids:
        done = subprocess.run([sys.executable, "killed.py", method], cwd=tmp_path, stdout=pids, timeout=60)
        assert done.returncode == -signal.SIGKILL
        pids.seek(0)
        first, stays, *others = map(int, pids.read().split())
    try:
        until(lambda: not any(is_alive(pid) for pid in (first, *others)))
        assert is_alive(stays), "one that is no daemon is a program of its own"
    finally:
        os.kill(stays, signal.SIGKILL)
