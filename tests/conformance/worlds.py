# SPDX-License-Identifier: MIT
"""The two worlds of the conformance tests: an interpreter in which multiprocessing is brood, and one in which it is not."""
import os
import pathlib
import signal
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv/bin/python"


def site_packages(python):
    """Where the packages of an interpreter are."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def make_interpreter(folder, packages, with_brood=True):
    """A bare virtual environment over .venv's interpreter, with what is in `packages` and in .venv; its interpreter.

    Brood is installed by a .pth file, so that also scripts that are started in isolated mode have it.
    """
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", folder], check=True)
    python = pathlib.Path(folder) / "bin/python"
    lines = [*map(str, packages), site_packages(PYTHON), *(["import brood; brood.install()"] if with_brood else [])]
    (pathlib.Path(site_packages(python)) / "brood.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return python


def kill_session(leader, sig=signal.SIGKILL):
    """Signal every process of the session; its children too when they have one of their own is not our business."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as stat:
                    session = int(stat.read().rpartition(")")[2].split()[3])
                if session == leader:
                    os.kill(int(entry), sig)
            except (OSError, ValueError, IndexError):
                pass


def figures(outcomes):
    """How many of each kind: outcomes are {id: (what, text)}."""
    kinds = [what for what, _ in outcomes.values()]
    return {kind: kinds.count(kind) for kind in ("passed", "failed", "skipped", "allowed")}


def print_figures(what, world, outcomes, seconds):
    """One line of the table."""
    counts = ", ".join(f"{number:3} {kind}" for kind, number in figures(outcomes).items())
    print(f"{what:12}  {world:10}  {counts}   {seconds:5.0f} s", flush=True)


def print_failures(what, outcomes, other):
    """What failed and why; `other` are the outcomes of the other world, to see whether it failed there as well."""
    for name, (outcome, text) in sorted(outcomes.items()):
        if outcome == "failed":
            too = " (the standard library's too)" if other.get(name, ("",))[0] == "failed" else ""
            print(f"\n--- {what}: {name} failed{too}\n{text.rstrip()}", flush=True)


def print_second(what, second):
    """What failed at first and passed when it was run again: (id, text of the failure)."""
    for name, text in second:
        print(f"# {what} {name}: failed at first, and was run again: {(text.strip().splitlines() or [''])[-1]}", flush=True)
