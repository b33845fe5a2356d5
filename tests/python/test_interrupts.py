# SPDX-License-Identifier: MIT
"""Ctrl-C at a terminal, where all processes of a program get it: one KeyboardInterrupt, in the owner, and an end soon after."""
import os
import pty
import re
import select
import signal
import sys
import time

import brood
import pytest
from brood import _worker
from programs import METHODS, write
from support import alive_in_session

WITHIN = 30

PROGRAM = """
    import signal, sys, time
    import brood

    def sleep(x):
        signal.pause()

    def busy(x):
        while True:
            pass

    def stubborn(x):
        while True:
            try:
                signal.pause()
            except BaseException:
                pass

    def nest(x):
        with brood.get_context(sys.argv[1]).Pool(1) as pool:
            pool.map(sleep, range(2))

    def tell(event):
        event.set()

    def ready():
        print("READY", flush=True)

    def up(pool):
        pool.map(abs, range(4))
        ready()

    if __name__ == "__main__":
        signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
        context = brood.get_context(sys.argv[1])
        BODY
        print("END", flush=True)
    """

BODIES = {
    "map": "with context.Pool(2) as pool: up(pool); pool.map(sleep, range(4))",
    "without with": "pool = context.Pool(2); up(pool); pool.map(sleep, range(4))",
    "get": "with context.Pool(2) as pool: up(pool); pool.apply_async(sleep, (1,)).get(1000)",
    "callback": "with context.Pool(2) as pool: up(pool); pool.apply_async(sleep, (1,), callback=print).get()",
    "imap": "with context.Pool(2) as pool: up(pool); next(pool.imap(sleep, range(4)))",
    "join": "pool = context.Pool(2); pool.map_async(sleep, range(4)); pool.close(); ready(); pool.join()",
    "idle": "pool = context.Pool(2); up(pool); signal.pause()",
    "busy": "with context.Pool(2) as pool: up(pool); pool.map(busy, range(4))",
    "stubborn": "with context.Pool(2) as pool: up(pool); pool.map(stubborn, range(4))",
    "nested": "with context.Pool(2) as pool: up(pool); pool.map(nest, range(2))",
    "initializer": "with context.Pool(2, sleep, (1,)) as pool: ready(); pool.map(abs, range(4))",
    "queue": "queue = context.Queue(); ready(); queue.get()",
    "lock": "lock = context.Lock(); lock.acquire(); ready(); lock.acquire()",
    "starting": "import brood.pool; ready(); pool = context.Pool(2); pool.map(sleep, range(4))",
}


class Terminal:
    """A program in the foreground of a terminal of its own."""

    def __init__(self, *command):
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execv(command[0], command)
        self.output = ""
        self._is_over = False

    def read(self):
        """Take what is there; wait for it."""
        if not select.select([self._fd], [], [], WITHIN)[0]:
            os.kill(self.pid, signal.SIGKILL)
            pytest.fail(f"nothing happens any more:\n{self.output}")
        try:
            self.output += os.read(self._fd, 65536).decode().replace("\r\n", "\n")
        except OSError:
            self._is_over = True

    def wait_for(self, text):
        while text not in self.output:
            self.read()
            assert not self._is_over, self.output

    def press(self, key):
        os.write(self._fd, key)

    def end(self):
        """Its status, once it and all that it started are gone."""
        while not self._is_over:
            self.read()
        os.close(self._fd)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        end = time.monotonic() + WITHIN
        while left := alive_in_session(self.pid):
            assert time.monotonic() < end, left
            os.sched_yield()
        return status


def interrupt(folder, method, body, pause=0.0):
    """Run a body, press Ctrl-C when it is ready, and hold it to one KeyboardInterrupt, which ends it."""
    program = write(folder, "program.py", PROGRAM.replace("BODY", BODIES[body]))
    terminal = Terminal(sys.executable, str(program), method)
    terminal.wait_for("READY\n")
    end = time.monotonic() + pause
    while time.monotonic() < end:
        os.sched_yield()
    terminal.press(b"\x03")
    assert terminal.end() == -signal.SIGINT, terminal.output
    assert terminal.output.startswith("READY\n^CTraceback (most recent call last):\n"), terminal.output
    assert terminal.output.endswith("\nKeyboardInterrupt\n"), terminal.output
    assert len(re.findall("Traceback|Interrupt|ignored in", terminal.output)) == 2, terminal.output


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("body", [body for body in BODIES if body != "starting"])
def test_one_keyboard_interrupt(tmp_path, method, body):
    interrupt(tmp_path, method, body)


@pytest.mark.parametrize("method", METHODS)
def test_while_the_pool_starts(tmp_path, method):
    """At any moment: forks, interpreters and __main__ come up meanwhile.  (The pool's modules are imported before: an import
    that is interrupted has its own way with it.)"""
    for step in range(12):
        interrupt(tmp_path, method, "starting", step * 0.02)


@pytest.mark.parametrize("method", METHODS)
def test_a_pool_goes_on_after_an_interrupt_that_was_caught(tmp_path, method):
    program = write(tmp_path, "program.py", PROGRAM.replace("BODY", """
        with context.Pool(2) as pool:
            event = context.Event()
            result = pool.apply_async(event.wait)
            try:
                up(pool)
                result.get()
            except KeyboardInterrupt:
                event.set()
                print(result.get(), pool.map(abs, [-1]))
        """))
    terminal = Terminal(sys.executable, str(program), method)
    terminal.wait_for("READY\n")
    terminal.press(b"\x03")
    assert (terminal.end(), terminal.output) == (0, "READY\n^CTrue [1]\nEND\n")


@pytest.mark.parametrize("method", METHODS)
def test_workers_and_processes_have_the_masks_of_their_parents(method):
    """Interrupts are held back only while processes come up."""
    context = brood.get_context(method)
    with context.Pool(1) as pool:
        assert pool.apply(signal.pthread_sigmask, (signal.SIG_BLOCK, ())) == set()
    queue = context.Queue()
    process = context.Process(target=put_mask_and_handler, args=(queue,))
    process.start()
    mask, handler = queue.get(timeout=WITHIN)
    process.join()
    assert mask == set() == signal.pthread_sigmask(signal.SIG_BLOCK, ()) and handler == repr(signal.getsignal(signal.SIGINT))


def put_mask_and_handler(queue):
    queue.put((signal.pthread_sigmask(signal.SIG_BLOCK, ()), repr(signal.getsignal(signal.SIGINT))))


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize("end", ["terminate", "close"])
def test_the_end_of_a_pool_that_has_hardly_begun_needs_no_second_start(method, end, monkeypatch):
    starts = []
    start = _worker.Starter.__call__
    monkeypatch.setattr(_worker.Starter, "__call__", lambda self, *args: starts.append(1) or start(self, *args))
    pool = brood.get_context(method).Pool(1)
    result = pool.apply_async(abs, (-1,))
    getattr(pool, end)()
    pool.join()
    assert len(starts) == 1
    if end == "close":
        assert result.get(WITHIN) == 1
