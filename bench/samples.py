# SPDX-License-Identifier: MIT
"""Runs the programs of bench/c and bench/python: what they can do here, and one sample at a time."""
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time

from machine import Elsewhere

HERE = pathlib.Path(__file__).resolve().parent
LEFT_SECONDS = 5  # for what a sample has detached, until it is killed


class Programs:
    """Where the programs of a build directory are, and what they say of themselves."""

    def __init__(self, build, python):
        self._build, self._python = build, python
        self._environment = dict(os.environ, PYTHONPATH=str((build / "python").resolve()))
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)  # the peers are compiled: brood is to be, too, once it was imported
        self._lists = {}

    def command(self, name):
        """How "c/NAME" or "python/NAME.py" is run, None when it was not built."""
        if name.startswith("c/"):
            path = self._build / "bench" / name
            return [str(path)] if path.exists() else None
        path = HERE / name
        return [self._python, str(path)] if path.exists() else None

    def listed(self, name):
        """(subject, variant) → version, of all that the program can do; empty when it cannot be run."""
        if name not in self._lists:
            self._lists[name] = self._ask(name)
        return self._lists[name]

    def _ask(self, name):
        command = self.command(name)
        if command is None:
            return {}
        asked = subprocess.run([*command, "--list"], capture_output=True, text=True, env=self._environment, timeout=120)
        lines = [json.loads(line) for line in asked.stdout.splitlines() if line.startswith("{")]
        if asked.returncode != 0:
            print(f"bench: {name} --list: {asked.stderr.strip().splitlines()[-1:]}", flush=True)
        return {(line["subject"], line["variant"]): line["version"] for line in lines}

    def of_question(self, question):
        """(subject, variant) → (program, version), None where no program of the question can do it here."""
        programs = question["program"] if isinstance(question["program"], list) else [question["program"]]
        found = {}
        for subject in question["subjects"]:
            for variant in question["variants"]:
                found[subject, variant] = next(((name, self.listed(name)[subject, variant]) for name in programs
                                                if (subject, variant) in self.listed(name)), None)
        return found

    def run(self, name, subject, variant, *, is_quick, seconds):
        """One sample: a dictionary, with "error" in it when there is none."""
        command = [*self.command(name), "--subject", subject, "--variant", variant, *(["--quick"] if is_quick else [])]
        elsewhere, begun = Elsewhere(), time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   env=self._environment, start_new_session=True)
        try:
            said, complaint = process.communicate(timeout=seconds)
        except BaseException as error:
            _end(process)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return {"error": f"not done after {seconds} s"}
        finally:
            _await_orphans()
        sample = _read(said, complaint, process.returncode)
        took = time.monotonic() - begun
        sample.update(seconds=round(took, 3), cpus_elsewhere=round(elsewhere.cpus(took), 3))
        return sample


def _read(said, complaint, status):
    """The sample on the last line of what a program said."""
    if status != 0:
        last = (complaint.strip().splitlines() or ["it said nothing"])[-1]
        return {"error": f"ended with status {status}: {last}"[:300]}
    try:
        return json.loads(said.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return {"error": f"printed no sample but {said[-100:]!r}"}


# ---- what a sample leaves behind ----


def _end(process):
    """Kill the program and what is in its group; its orphans come to us."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _children():
    """The pids of this process's children."""
    return [int(word) for word in pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()]


def _await_orphans():
    """Reap what was left to us (machine.adopt_orphans): at first patiently."""
    until = time.monotonic() + LEFT_SECONDS
    with contextlib.suppress(ChildProcessError):
        while True:
            if os.waitpid(-1, os.WNOHANG)[0] != 0:
                continue
            if time.monotonic() > until:
                for pid in _children():
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)
