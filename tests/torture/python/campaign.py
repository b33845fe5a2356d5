# SPDX-License-Identifier: MIT
"""The Python part of the fault campaign: kills, stops and crashes processes of pools, queues and locks, and asks the others.

The same seed (BROOD_TORTURE_SEED, or --seed) gives the same rounds, tasks and choices; who runs when is the kernel's.  The status is 1 when there were
violations.  Prints TAP.
"""
import argparse
import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from common import FAULTS, TALLIES, Books, empty_within, pause, session, signalled

HERE = pathlib.Path(__file__).resolve().parent
PARTS = ("pools", "queues", "locks", "room")
GONE_WITHIN = 3  # seconds; promised is one, of a machine that is not overloaded
HANGS_AFTER = 90
COMPLAINTS_MOST = 12
CHECKS = ("no round hangs", "every task has one outcome, the right one; nothing is lost, doubled or left")


class Round:
    """One round, played by processes of its own."""

    def __init__(self, seed, number, only):
        self.random = random.Random(seed + number)
        self.part = only or PARTS[number % len(PARTS)]
        self.method = self.random.choices(("fork", "spawn", "forkserver"), (6, 1, 1))[0]
        self.is_doomed = self.part == "pools" and self.random.random() < 0.3
        self.violations = []
        self.hung = False

    def start(self, folder):
        self.folder = pathlib.Path(folder)
        (self.folder / "books").touch()
        self.books = Books(self.folder / "books")
        (self.folder / "tmp").mkdir()
        environment = dict(os.environ, BROOD_TORTURE_BOOKS=str(self.folder / "books"), TMPDIR=str(self.folder / "tmp"))
        with open(self.folder / "out", "wb") as out, open(self.folder / "err", "wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, HERE / "round.py", self.part, self.method, str(self.random.randrange(2**32))],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, start_new_session=True)

    def states(self):
        """What every process of the round is and does."""
        lines = []
        for pid in [*session(self.process.pid)]:
            try:
                command = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")[:60]
                where = pathlib.Path(f"/proc/{pid}/wchan").read_text(encoding="utf-8")
            except OSError:
                continue
            lines.append(f"  {command} waits in {where}")
            signalled(pid, signal.SIGCONT)
            signalled(pid, signal.SIGUSR1)  # its Python stack comes into the file `err`
        pause(1)
        return lines

    def await_end(self, show):
        """Wait for it; kill the owner if that is its fate; complain of a hang."""
        end = time.monotonic() + (0.3 + self.random.random() * 2.5 if self.is_doomed else HANGS_AFTER)
        while self.process.poll() is None and time.monotonic() < end:
            show()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(min(0.2, max(0.001, end - time.monotonic())))
        if self.process.poll() is None:
            if self.is_doomed:
                self.books.note("kill-owner")
            else:
                self.hung = True
                self.violations += [f"not over after {HANGS_AFTER} s", *self.states()]
            self.process.kill()
            for pid in session(self.process.pid):  # whom the owner had stopped, nobody else would wake
                signalled(pid, signal.SIGCONT)
        status = self.process.wait()
        if status != 0 and not (self.is_doomed and status == -signal.SIGKILL) and not self.hung:
            self.violations.append(f"the round ended with status {status}")

    def check_leavings(self):
        leader = self.process.pid
        if not empty_within(leader, GONE_WITHIN):
            of = " of an owner that was killed" if self.is_doomed else ""
            self.violations += [f"{len(session(leader))} processes are left{of}", *self.states()]
            for pid in session(leader):
                signalled(pid, signal.SIGKILL)
        if left := [path.name for path in (self.folder / "tmp").iterdir()]:
            if not (self.is_doomed and self.method == "forkserver"):  # the standard library's socket, which its owner removes
                self.violations.append(f"files are left: {left}")

    def collect(self):
        """What its processes have complained of."""
        out = (self.folder / "out").read_text(encoding="utf-8", errors="replace").splitlines()
        err = (self.folder / "err").read_text(encoding="utf-8", errors="replace").splitlines()
        self.violations += [line for line in out if line.startswith("violation")]
        self.violations += ["an assertion failed: " + line for line in err if "does not hold" in line]
        if self.violations:
            self.violations += ["  stderr: " + line for line in err[-60:]]

    def play(self, show):
        with tempfile.TemporaryDirectory(prefix="brood-torture-") as folder:
            self.start(folder)
            try:
                self.await_end(show)
            except KeyboardInterrupt:
                for pid in session(self.process.pid):
                    signalled(pid, signal.SIGKILL)
                raise
            self.check_leavings()
            self.collect()
            return self.books.noted()


class Warden:
    """All rounds, until time or faults are enough."""

    def __init__(self, options):
        self.options = options
        self.begun = time.monotonic()
        self.noted = {}
        self.rounds = self.violations = 0
        self.failed = [False, False]

    def faults(self):
        return sum(count for name, count in self.noted.items() if name in FAULTS)

    def show(self, current):
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[Kround {self.number} ({current.part}, {current.method}), {self.faults()} faults, "
                             f"{self.violations} violations, {time.monotonic() - self.begun:.0f} s")
            sys.stderr.flush()

    def play(self):
        self.number = self.options.first + self.rounds
        current = Round(self.options.seed, self.number, self.options.part)
        for name, count in current.play(lambda: self.show(current)).items():
            self.noted[name] = self.noted.get(name, 0) + count
        self.rounds += 1
        for line in current.violations[: COMPLAINTS_MOST * 10]:
            print(f"# seed {self.options.seed}, round {self.number} ({current.part}, {current.method}): {line}")
        self.violations += sum(not line.startswith("  ") for line in current.violations)
        self.failed[0] |= current.hung
        self.failed[1] |= bool(current.violations)

    def is_enough(self):
        seconds = time.monotonic() - self.begun
        return seconds >= self.options.seconds or self.violations or 0 < self.options.faults <= self.faults()

    def run(self):
        print(f"# seed {self.options.seed}", flush=True)
        self.play()
        while not self.is_enough():
            self.play()
        self.report()
        return 1 if self.violations else 0

    def report(self):
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K")
        print(f"1..{len(CHECKS)}")
        for number, check in enumerate(CHECKS):
            print(f"{'not ok' if self.failed[number] else 'ok'} {number + 1} - {check}")
        for name, text in FAULTS.items():
            if name in self.noted:
                print(f"# {self.noted[name]:8}  {text}")
        for name in TALLIES:
            print(f"# {self.noted.get(name, 0):8}  {name} checked")
        print(f"# Python, seed {self.options.seed}, {self.rounds} rounds: {self.faults()} faults, {self.noted.get('tasks', 0)} tasks, "
              f"{self.violations} violations, {time.monotonic() - self.begun:.0f} s")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    seed = int(os.environ.get("BROOD_TORTURE_SEED") or random.SystemRandom().randrange(2**32))
    parser.add_argument("--seed", type=int, default=seed, help="default: BROOD_TORTURE_SEED, else random")
    parser.add_argument("--first", type=int, default=0, help="begins with this round of the seed")
    parser.add_argument("--seconds", type=float, default=8, help="stops after the round in which they are over (8)")
    parser.add_argument("--faults", type=int, default=0, help="stops when so many faults are done, if that is earlier")
    parser.add_argument("--part", choices=PARTS, help="this part alone")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(Warden(parse_arguments()).run())
