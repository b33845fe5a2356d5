# SPDX-License-Identifier: MIT
"""What the benchmarks in Python share: arguments, clocks, percentiles, CPU time and memory of a library's processes.

Each program makes one sample of one library (the subject) in one way of use (the variant) and prints it as a line of JSON:

    bench/python/calls.py --subject brood --variant apply [--quick]

and with --list what it can do here, a line each.  A result that is wrong ends the program with an error instead.
"""
import argparse
import json
import math
import os
import pathlib
import resource
import statistics
import sys
import time


def check(is_right, what):
    """End the program: a wrong result is no sample."""
    if not is_right:
        sys.exit(f"{pathlib.Path(sys.argv[0]).name}: wrong result: {what}")


# ---- the other processes ----


def _processes():
    """The pids of this session: whatever a library has started, however it did."""
    session, found = os.getsid(0), []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.getsid(int(name)) == session:
                    found.append(int(name))
            except ProcessLookupError:
                pass
    return found


def cpu_seconds():
    """CPU time of all processes of this session that live, their dead threads included."""
    total = 0.0
    for pid in _processes():
        try:
            total += time.clock_gettime(~pid << 3 | 2)  # the kernel's number for the CPU clock of a process
        except OSError:
            pass
    return total


def _of_children():
    """Of those that have ended, and were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def wakeups():
    """How often the threads of this session have slept and been woken."""
    total = 0
    for pid in _processes():
        for status in pathlib.Path(f"/proc/{pid}/task").glob("*/status"):
            try:
                text = status.read_text(encoding="ascii", errors="replace")
            except OSError:
                continue
            total += int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return total


def memory_per_worker(workers):
    """The proportional share of memory of all other processes of this session, helpers included, for each worker."""
    total = 0
    for pid in _processes():
        if pid != os.getpid():
            try:
                text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
            except OSError:
                continue
            total += int(text.partition("\nPss:")[2].split()[0]) * 1024
    return total // workers


# ---- measuring ----


def _at(ordered, share):
    return ordered[min(math.ceil(share * len(ordered)), len(ordered)) - 1]


def percentiles(seconds):
    """Latencies in the sample's words."""
    ordered = sorted(one * 1e6 for one in seconds)
    return {"p50_us": round(_at(ordered, 0.5), 3), "p99_us": round(_at(ordered, 0.99), 3), "p999_us": round(_at(ordered, 0.999), 3)}


class Stopwatch:
    """Wall and CPU time of a block, over `n` operations.  children: of processes that begin and end in it, and are waited for, as well."""

    def __init__(self, n, *, children=False):
        self.n = n
        self._read = (lambda: cpu_seconds() + _of_children()) if children else cpu_seconds

    def __enter__(self):
        self._cpu = self._read()
        self._began = time.perf_counter()
        return self

    def __exit__(self, *error):
        self.seconds = time.perf_counter() - self._began
        self._cpu = self._read() - self._cpu

    def facts(self):
        """What every sample says of its operations."""
        return {"n": self.n, "cpu_us_per_task": round(self._cpu / self.n * 1e6, 3)}


def in_batches(batches, n, operation):
    """Run batches of n operations: (the median of the batches' seconds per operation, the CPU time of an operation)."""
    seconds, cpu = [], 0.0
    for _ in range(batches):
        with Stopwatch(n) as watch:
            operation()
        seconds.append(watch.seconds / n)
        cpu += watch.facts()["cpu_us_per_task"] / batches
    return statistics.median(seconds), {"n": n * batches, "cpu_us_per_task": round(cpu, 3)}


def result(value, unit, better="less", **facts):
    """What a subject's function returns."""
    return {"value": float(f"{value:.6g}"), "unit": unit, "better": better, **facts}


# ---- the program ----


def main(subjects, variants, measure):
    """Be a program of these subjects, (name → version or None where it is not there), and variants (name → the subjects it has)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--subject", choices=subjects)
    parser.add_argument("--variant", choices=variants)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.list:
        for variant, those in variants.items():
            for subject in those:
                if subjects[subject] is not None:
                    print(json.dumps({"subject": subject, "variant": variant, "version": subjects[subject]}))
        return
    if options.subject is None or options.variant is None or options.subject not in variants[options.variant]:
        parser.error("--subject and --variant, one of --list, are needed")
    if os.getsid(0) != os.getpid():
        if os.getpgid(0) == os.getpid():  # a shell's job: its leader cannot begin a session
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(_again(), 0)[1]))
        os.setsid()
    print(json.dumps({"subject": options.subject, "variant": options.variant, **measure(options.subject, options.variant, options.quick)}))
    sys.stdout.flush()


def _again():
    """The same program as a child, which can."""
    return os.posix_spawn(sys.executable, [sys.executable, *sys.argv], os.environ, setsid=True)
