# SPDX-License-Identifier: MIT
"""What the figures depend on: the machine, the versions, and how busy the CPUs were with other things meanwhile."""
import ctypes
import datetime
import os
import pathlib
import platform
import resource

PR_SET_CHILD_SUBREAPER = 36


def _first(path, prefix=""):
    """The rest of the first line that begins so, None without such a file or line."""
    try:
        for line in pathlib.Path(path).read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(prefix):
                return line[len(prefix):].lstrip("\t :").strip()
    except OSError:
        pass
    return None


def _is_hypervised():
    return " hypervisor " in f"{_first('/proc/cpuinfo', 'flags')} "


def facts():
    """The machine, as far as it says."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "cpu": _first("/proc/cpuinfo", "model name") or platform.processor(),
        "cpus": len(os.sched_getaffinity(0)),
        "virtual": _is_hypervised(),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "governor": _first("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown",
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def adopt_orphans():
    """From now on, processes that a sample leaves or detaches end as children of this one, so that their CPU time can be known."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _busy_seconds():
    """CPU time that all CPUs have spent on anything, the hypervisor's other guests included."""
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = (int(word) for word in _first("/proc/stat", "cpu ").split())
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class Elsewhere:
    """How many CPUs were busy with what are not this process's children: begin with the object, end with cpus(wall seconds)."""

    def __init__(self):
        self._busy, self._own = _busy_seconds(), self._own_seconds()

    @staticmethod
    def _own_seconds():
        return sum(getattr(resource.getrusage(who), name) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
                   for name in ("ru_utime", "ru_stime"))

    def cpus(self, seconds):
        """On the mean; not below 0, though the kernel's clocks are coarse."""
        busy = _busy_seconds() - self._busy - (self._own_seconds() - self._own)
        return max(0.0, busy / max(seconds, 0.01))
