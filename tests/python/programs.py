# SPDX-License-Identifier: MIT
"""For tests: programs of their own, run as a user would run them."""
import pathlib
import subprocess
import sys
import textwrap

from support import runs_under

METHODS = ("fork", "spawn", "forkserver")


def run(*arguments, **options):
    """Run this interpreter; the result has returncode, stdout and stderr as text."""
    options.setdefault("timeout", 300 if runs_under("asan") else 60)
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False, **options)


def write(folder, name, program):
    """Write a program into a folder and return its path."""
    path = pathlib.Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(program), encoding="utf-8")
    return path


def run_program(folder, program, *arguments, **options):
    """Run a program from a file, so that spawned children can import it; its standard output."""
    result = run(write(folder, "program.py", program), *arguments, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def here(name):
    """A path below the root of the tree."""
    return pathlib.Path(__file__).resolve().parents[2] / name
