# SPDX-License-Identifier: MIT
"""What the Python part of the fault campaign shares: the books, faults by kind, violations, processes.

The warden (campaign.py) starts each round as a program of its own (round.py), in a session of its own.  What happens is noted in a file that
all processes of the round map: so the books are kept by somebody whom the library cannot disturb, and outlive any process.
"""
import contextlib
import mmap
import os
import pathlib
import select
import subprocess
import threading
import time

WITHIN = 30  # seconds, for whatever has an end
ROUND_SECONDS = 2.0
CELLS = 1 << 20

FAULTS = {
    "kill-worker": "worker killed",
    "kill-supervisor": "supervisor killed",
    "kill-owner": "owner killed",
    "kill-producer": "producer killed",
    "kill-consumer": "consumer killed",
    "kill-holder": "holder of a lock or token killed",
    "kill-player": "process killed",
    "stop-worker": "worker stopped",
    "stop-supervisor": "supervisor stopped",
    "stop-player": "process stopped",
    "crash-kill": "task raises SIGKILL",
    "crash-fault": "task reads address 0",
    "crash-abort": "task aborts",
    "crash-exit": "task calls os._exit",
    "sys-exit": "task raises SystemExit",
    "interrupt": "task raises KeyboardInterrupt",
    "no-memory": "memory limit met",
    "limit-memory": "max_memory_per_worker met",
    "limit-files": "max_open_files met",
    "limit-cpu": "max_cpu_seconds met",
    "no-room": "arena full",
    "no-pickle": "result without a pickle",
    "no-unpickle": "error that does not unpickle",
    "ctrl-c": "Ctrl-C",
    "cancel": "job cancelled",
    "terminate": "pool terminated in its work",
    "late-item": "item past its time",
    "late-whole": "map past its time",
    "cancel-running": "job cancelled, what runs ended",
}
TALLIES = ("tasks", "messages", "operations")
_NAMES = [*FAULTS, *TALLIES]


class Books:
    """Counters of 32 bits in a file that every process of the round maps."""

    def __init__(self, path):
        with open(path, "r+b") as file:
            file.truncate(4 * (64 + CELLS))
            self._memory = memoryview(mmap.mmap(file.fileno(), 0)).cast("I")
        self._noted = self._memory[:64]
        self.cells = self._memory[64:]
        self._lock = threading.Lock()

    def note(self, name, count=1):
        """Count a fault or what was checked; only the round's main process does."""
        with self._lock:
            self._noted[_NAMES.index(name)] += count

    def noted(self):
        """All counts by name."""
        return {name: self._noted[index] for index, name in enumerate(_NAMES) if self._noted[index]}


def open_books():
    """The books of the round that this process belongs to."""
    return Books(os.environ["BROOD_TORTURE_BOOKS"])


def complain(text):
    """Say that something does not hold, by one write, from any process of the round."""
    os.write(1, f"violation: {text}\n".encode())


def expect(condition, text):
    """Complain unless the condition holds."""
    if not condition:
        complain(text)


def pause(seconds):
    """Do nothing for a while: the time between two faults, and between two looks at what has no event to wait for."""
    select.select((), (), (), seconds)


def signalled(pid, number):
    """Send a signal; false when there is no such process."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def stopping(pid, seconds):
    """Have a process stopped for a while, by a process of its own: whoever waits for what the stopped one holds cannot wake it.

    A path and close_fds=False: so subprocess calls posix_spawn.  Else it waits for the end of a pipe, whose other end a pool that
    another thread forks just then would inherit, and keep.
    """
    return subprocess.Popen(["/bin/sh", "-c", f"trap '' INT; kill -STOP {pid} && sleep {seconds:.3f}; kill -CONT {pid}"],
                            stderr=subprocess.DEVNULL, close_fds=False)


def about(pid):
    """(state, parent, session) of a process, or None."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[1]), int(fields[3])


def parent_of(pid):
    """The parent of a process, or 0."""
    found = about(pid)
    return found[1] if found else 0


def session(leader):
    """Processes of a session that have not ended, the caller left out."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
    return [pid for pid in pids if (found := about(pid)) and found[2] == leader and found[0] not in "ZX"]


def empty_within(leader, seconds):
    """Whether the session has no process any more, at the end of so many seconds at most."""
    end = time.monotonic() + seconds
    while session(leader):
        if time.monotonic() > end:
            return False
        pause(0.002)
    return True


def files_of(pid):
    """Named files below /dev/shm or the folder for temporary files that a process has open or mapped: there should be none."""
    found = set()
    places = ("/dev/shm/", os.environ.get("TMPDIR", "/nowhere") + "/pymp")
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:
        found.update(line.split(maxsplit=5)[-1].strip() for line in maps)
    return sorted(name for name in found if name.startswith(places))
