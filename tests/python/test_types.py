# SPDX-License-Identifier: MIT
"""The annotations: mypy finds no fault with the package, and the extension is what its stub says."""
import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

import brood
from programs import here, write

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed: tools/venv does that"),
    pytest.mark.timeout(300),
]

CACHE = pathlib.Path(brood.__file__).parents[1] / "mypy-cache"  # of the build directory

GOOD = """
from typing import Any, assert_type

import brood as mp
import brood.queues as brood_queues
from brood.pool import ApplyResult, IMapIterator, Pool

def name(number: int) -> str:
    return str(number)

with mp.Pool(2) as pool:
    assert_type(pool, Pool)
    assert_type(pool.apply(name, (1,)), str)
    assert_type(pool.map(name, [1, 2]), list[str])
    assert_type(pool.imap(name, range(3), buffersize=2), IMapIterator[str])
    assert_type(pool.apply_async(name, (1,)), ApplyResult[str])
    assert_type(pool.map_async(name, [1]).get(1.5), list[str])
    for text in pool.imap_unordered(name, [1]):
        assert_type(text, str)
with mp.get_context("spawn").Lock() as taken:
    assert_type(taken, bool)
assert_type(mp.cpu_count(), int)
assert_type(mp.Queue(3).qsize(), int)
queue = mp.JoinableQueue()
queue.put(1, timeout=0.5)
assert_type(queue.get(), Any)
process = mp.Process(target=print, args=(1,))
assert_type(process.exitcode, int | None)
lost = mp.WorkerDied("lost")
assert_type(lost.exit_code, int | None)
mp.install()
shared = brood_queues.Queue.from_handle(queue.handle)
assert_type(shared, brood_queues.Queue)
assert_type(shared.get_bytes(timeout=1.5), bytes)
shared.put_bytes(memoryview(b"raw"), block=False)
ticket = mp.arena_ticket()
assert_type(ticket, mp.ArenaTicket)
assert_type(ticket.base, int)
mp.attach(*ticket)
"""

BAD = """
import brood as mp

def name(number: int) -> str:
    return str(number)

mp.Pool("2")
mp.Pool(2).map(name, ["1"])
mp.Queue().get(1, 2, 3)
mp.Lock().acquire("now", "then")
numbers: list[int] = mp.Pool(2).map(name, [1])
mp.Queue().put_bytes("text")
mp.attach(3, "address", 4096)
"""


def check(module, *arguments, folder=here(".")):
    """Run mypy or stubtest in a folder; the result has returncode and stdout, with what is wrong."""
    environment = dict(os.environ, MYPYPATH=str(here("python")), MYPY_CACHE_DIR=str(CACHE))
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False)


def mypy(*arguments):
    """Run mypy as pyproject.toml says."""
    return check("mypy", *arguments)


def test_mypy_finds_no_fault_with_the_package():
    result = mypy("python/brood")
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_extension_is_what_its_stub_says():
    CACHE.mkdir(exist_ok=True)
    result = check("mypy.stubtest", "--mypy-config-file", here("pyproject.toml"), "--ignore-disjoint-bases", "--concise",
                   "--allowlist", here("tests/python/stubtest-allowed.txt"), "--ignore-unused-allowlist", "brood._core", folder=CACHE)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_program_has_the_types_that_it_expects(tmp_path):
    result = mypy(write(tmp_path, "good.py", GOOD))
    assert result.returncode == 0, result.stdout + result.stderr


def test_wrong_calls_are_found(tmp_path):
    result = mypy(write(tmp_path, "bad.py", BAD))
    wrong = {int(line.split(":")[1]) for line in result.stdout.splitlines() if "bad.py" in line}
    assert wrong == {7, 8, 9, 10, 11, 12, 13}, result.stdout + result.stderr
