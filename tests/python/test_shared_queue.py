# SPDX-License-Identifier: MIT
"""Programs that were not forked share queues: C and Python, whoever starts whom, and whoever is killed."""
import errno
import os
import pathlib
import pickle
import queue
import signal
import struct
import subprocess
import sys

import pytest

import brood as mp
from brood.queues import JoinableQueue, Queue, SimpleQueue

from programs import here, run_program
from support import arena_blocks, child, ended, until

BUILD = pathlib.Path(mp.__file__).parents[2]  # <build>/python/brood/__init__.py
PEER = BUILD / "tests/python_peer"
EXAMPLES = here("examples/shared_queue")
WITHIN = 30
NUMBER = struct.Struct("q")
SMALL, LARGE = 5, 9000  # a message in a frame, and in a block of its own


class Peer:
    """A C program, and the queues that it is asked and answers by."""

    def __init__(self, asked=None, answers=None):
        self.asked, self.answers = asked or mp.Queue(), answers or mp.Queue()
        self.process = None

    def start(self, *what):
        """Start it; the queues may be those of one that was killed."""
        ticket = mp.arena_ticket()
        numbers = *ticket, self.asked.handle, self.answers.handle
        self.process = subprocess.Popen([PEER, *map(str, numbers), *what], pass_fds=[ticket.fd])

    def answer(self):
        return self.answers.get_bytes(timeout=WITHIN)

    def ask(self, message):
        self.asked.put_bytes(message)
        return self.answer()

    def stopped(self):
        """Wait until it has stopped itself."""
        assert os.WIFSTOPPED(os.waitpid(self.process.pid, os.WUNTRACED)[1])

    def killed(self):
        self.process.kill()
        assert self.process.wait(WITHIN) == -signal.SIGKILL

    def ended(self):
        self.asked.put_bytes(b"")
        assert self.process.wait(WITHIN) == 0


@pytest.fixture
def peer():
    """A peer that is not left behind."""
    made = Peer()
    yield made
    if made.process and made.process.poll() is None:
        made.process.kill()
        made.process.wait(WITHIN)


class TestC:
    @pytest.mark.parametrize("size", [1, 4096, 4097, 1 << 20])
    def test_what_goes_out_comes_back(self, peer, size):
        peer.start("echo")
        message = os.urandom(size)
        assert [peer.ask(message) for _ in range(3)] == [message] * 3
        peer.ended()

    @pytest.mark.parametrize("make", [mp.SimpleQueue, mp.JoinableQueue])
    def test_other_queues(self, make):
        peer = Peer(make(), make())
        peer.start("echo")
        assert peer.ask(b"hello") == b"hello"
        peer.ended()
        if make is mp.JoinableQueue:  # what C puts counts; that it is done somebody says in Python
            peer.answers.task_done()
            peer.answers.join()
            with pytest.raises(ValueError):
                peer.answers.task_done()

    def test_bound_holds_for_c(self, peer):
        peer.answers = mp.Queue(2)
        peer.start("count")
        until(peer.answers.full)
        assert [NUMBER.unpack(peer.answer())[0] for _ in range(100)] == list(range(100))
        peer.killed()
        assert peer.answers.qsize() <= 2

    def test_queue_of_c(self, peer):
        peer.start("own")
        handle = int.from_bytes(peer.answer(), sys.byteorder)
        theirs = Queue.from_handle(handle)
        assert (theirs.handle, theirs._maxsize) == (handle, 3)
        theirs.put_bytes(b"to C")
        assert peer.answer() == b"to C"
        pickle.loads(pickle.dumps(theirs)).put_bytes(b"by a copy")
        assert peer.answer() == b"by a copy"
        pid = child(lambda: theirs.put_bytes(b"by a child"))
        assert ended(pid) == 0 and peer.answer() == b"by a child"
        theirs.put_bytes(b"")
        peer.ended()
        with pytest.raises(ValueError, match="destroyed"):
            theirs.put_bytes(b"too late")


class TestDeathOfC:
    """Where a message is when the peer, which puts back what it gets, was killed at a point: still asked, lost, or answered."""

    POINTS = [
        (SMALL, "queue.get.copied", "asked"),
        (LARGE, "queue.get.claimed", "asked"),
        *((size, point, where) for size in (SMALL, LARGE) for point, where in (
            ("queue.get.taken", "lost"),
            ("queue.put.framed", "lost"),
            ("queue.put.rung", "lost"),
            ("queue.put.committed", "answered"))),
    ]

    @pytest.mark.parametrize(("size", "point", "where"), POINTS)
    def test_killed_at_a_point(self, peer, size, point, where):
        first, second = b"1" * size, b"2" * size
        peer.answers._reader.fileno()  # somebody polls: so the bell is rung
        peer.asked.put_bytes(first)
        peer.start("echo", point)
        peer.stopped()
        peer.killed()
        peer.asked.put_bytes(second)  # with the dead one's locks held
        peer.start("echo")
        answers = [peer.answer() for _ in range(1 if where == "lost" else 2)]
        assert answers == [first, second][-len(answers):]
        peer.ended()
        assert peer.answers.empty() and peer.asked.empty()

    @pytest.mark.parametrize("size", [SMALL, LARGE])
    def test_nothing_of_it_stays(self, peer, size):
        def one_death():
            peer.asked.put_bytes(b"x" * size)
            peer.start("echo", "queue.put.framed")
            peer.stopped()
            peer.killed()
            with pytest.raises(queue.Empty):
                peer.answers.get_bytes(block=False)
            peer.answers.put_bytes(b"y")
            assert peer.answer() == b"y"

        one_death()
        before = arena_blocks()
        for _ in range(5):
            one_death()
        until(lambda: arena_blocks() <= before)

    @pytest.mark.parametrize("taken", [0, 1, 1000])
    def test_killed_while_it_puts(self, peer, taken):
        peer.start("count")
        numbers = [NUMBER.unpack(peer.answer())[0] for _ in range(taken)]
        peer.killed()
        while not peer.answers.empty():
            numbers.append(NUMBER.unpack(peer.answer())[0])
        assert numbers == list(range(len(numbers)))
        peer.start("echo")
        assert peer.ask(b"still") == b"still"
        peer.ended()

    def test_killed_while_it_waits(self, peer):
        peer.start("echo")
        assert peer.ask(b"it is there") == b"it is there"
        peer.killed()
        peer.start("echo")
        assert peer.ask(b"another one") == b"another one"
        peer.ended()


class TestExamples:
    WORKERS = ([BUILD / "examples/shared_queue_worker"], [sys.executable, EXAMPLES / "worker.py"])
    HOSTS = ([BUILD / "examples/shared_queue_host"], [sys.executable, EXAMPLES / "host.py"])
    RESULT = "1000 numbers; 871 needs the most steps, 178\n"

    @pytest.mark.parametrize("worker", WORKERS, ids=["C", "Python"])
    @pytest.mark.parametrize("host", HOSTS, ids=["C", "Python"])
    def test_host_and_worker(self, host, worker):
        result = subprocess.run([*host, *worker], capture_output=True, text=True, timeout=60, check=False)
        assert (result.returncode, result.stdout, result.stderr) == (0, self.RESULT, "")

    @pytest.mark.parametrize("worker", WORKERS, ids=["C", "Python"])
    @pytest.mark.parametrize("host", HOSTS, ids=["C", "Python"])
    def test_workers_that_are_killed_are_replaced(self, host, worker, tmp_path):
        """The first two kill themselves once they have a ticket; a shell that becomes the worker does not know when."""
        started = tmp_path / "started"
        script = f'echo >>{started}; [ $(wc -l <{started}) -lt 3 ] && kill -KILL $$; exec "$@"'
        command = [*host, "/bin/sh", "-c", script, "sh", *worker]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (result.returncode, result.stdout, result.stderr) == (0, self.RESULT, "")
        assert started.read_text() == "\n" * 3

    @pytest.mark.parametrize("host", HOSTS, ids=["C", "Python"])
    def test_a_worker_that_cannot_work_is_told_of(self, host):
        result = subprocess.run([*host, "false"], capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 1 and "the worker ended" in result.stderr


ATTACHES = """
import contextlib, errno, os, queue, sys
import brood

fd, base, window_bytes, handle = map(int, sys.argv[1:])
wrong = os.memfd_create("wrong")
os.ftruncate(wrong, 1 << 20)
for bad in ((99, base, window_bytes), (0, base, window_bytes), (wrong, base, window_bytes), (fd, 0, window_bytes),
            (fd, base + 1, window_bytes), (fd, base, 0), (fd, base, window_bytes + 4096), (fd, -base, window_bytes),
            (fd, base, 2**64)):
    try:
        brood.attach(*bad)
    except ValueError:
        continue
    raise AssertionError(bad)
for bad in (("3", base, window_bytes), (fd, str(base), window_bytes), (fd, base, None), (fd, base)):
    with contextlib.suppress(TypeError):
        brood.attach(*bad)
        raise AssertionError(bad)
brood.attach(fd, base, window_bytes)
os.close(fd)
shared = brood.queues.SimpleQueue.from_handle(handle)
assert shared.get_bytes() == b"to the other"
assert brood.arena_ticket()[1:] == (base, window_bytes)
try:
    brood.attach(*brood.arena_ticket())
except OSError as error:
    assert error.errno == errno.EALREADY, error
    shared.put_bytes(b"from the other")
with brood.Pool(1) as pool:
    shared.put(pool.apply(len, ("abc",)))
"""


class TestTickets:
    def test_ticket(self):
        ticket = mp.arena_ticket()
        assert ticket == mp.arena_ticket() == (ticket.fd, ticket.base, ticket.window_bytes)
        assert isinstance(ticket, mp.ArenaTicket)
        assert not os.get_inheritable(ticket.fd)

    def test_another_python_program(self, tmp_path):
        shared, ticket = mp.SimpleQueue(), mp.arena_ticket()
        shared.put_bytes(b"to the other")
        run_program(tmp_path, ATTACHES, *ticket, shared.handle, pass_fds=[ticket.fd])
        assert shared.get_bytes() == b"from the other"
        assert shared.get() == 3

    def test_who_has_an_arena_cannot_attach(self):
        with pytest.raises(OSError) as caught:
            mp.attach(*mp.arena_ticket())
        assert caught.value.errno == errno.EALREADY


class TestHandles:
    @pytest.mark.parametrize("kind", [Queue, SimpleQueue])
    def test_another_object_for_one_queue(self, kind):
        own = mp.Queue(2)
        other = kind.from_handle(own.handle)
        assert type(other) is kind and other.handle == own.handle
        own.put({"an": "object"})
        other.put(2)
        assert (other.get(), own.get()) == ({"an": "object"}, 2)
        own.put_many([1, 2])
        assert other.full()
        with pytest.raises(queue.Full):
            other.put_bytes(b"", block=False)
        assert not isinstance(other, Queue) or other._maxsize == own._maxsize == 2

    def test_without_bound(self):
        own = mp.Queue()
        other = Queue.from_handle(own.handle)
        assert other._maxsize == own._maxsize and not other.full()

    def test_handles_do_not_keep(self):
        own = mp.Queue()
        before = arena_blocks()
        others = [Queue.from_handle(own.handle) for _ in range(50)]
        for other in others:
            other.put_bytes(b"x")
        del other, others
        assert own.qsize() == 50
        assert arena_blocks() - before < 10  # records, which are used again
        other = SimpleQueue.from_handle(own.handle)
        del own
        for call in (other.get_bytes, other.qsize, lambda: other.put(1), lambda: Queue.from_handle(other.handle)):
            with pytest.raises(ValueError, match="not a queue of this arena"):
                call()

    @pytest.mark.parametrize("handle", [0, 1, 64, -1, 2**63, 2**64, True])
    def test_numbers_that_are_no_handles(self, handle):
        with pytest.raises(ValueError):
            Queue.from_handle(handle)

    def test_handles_of_something_else(self):
        made, lock = mp.Queue(), mp.Lock()
        for number in (made.handle + 64, lock._semlock.handle):
            with pytest.raises(ValueError):
                Queue.from_handle(number)
        for wrong in ("1", 1.0, None, mp.Queue()):
            with pytest.raises(TypeError, match="handle must be an int"):
                Queue.from_handle(wrong)

    def test_joinable_queues_do_not_come_from_handles(self):
        with pytest.raises(TypeError, match="pickle it"):
            JoinableQueue.from_handle(mp.JoinableQueue().handle)
