# SPDX-License-Identifier: MIT
"""The annotations: mypy and pyright find no fault with the package, and the extension is what its stub says."""
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

import brood
from programs import here, write
from support import runs_under

pytestmark = [
    pytest.mark.skipif(runs_under("asan"), reason="no C of ours runs in a type checker"),
    pytest.mark.skipif(not all(map(importlib.util.find_spec, ("mypy", "basedpyright"))), reason="tools/venv test installs the checkers"),
    pytest.mark.timeout(300),
]

CACHE = pathlib.Path(brood.__file__).parents[1] / "mypy-cache"  # of the build directory

GOOD = """
import logging
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
assert_type(lost.stack, str | None)
assert_type(mp.task_seed(), int | None)
assert_type(pool.share([1, 2]).get(), list[int])
assert_type(pool.share("a", writable="private"), mp.Shared[str])
mp.zeros((2, 3), dtype="i4", order="F")[0] = mp.array([1, 2, 3]) + mp.empty(3)
mp.Pool(2, logging="INFO", faulthandler=False, threads_per_worker="auto", seed=1)
mp.get_context("fork").Pool(logging=logging.root, threads_per_worker=None, seed=None)
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
mp.Pool(2, seed="1")
mp.Pool(2, logging=1.5)
mp.Pool(2, threads_per_worker="all")
mp.Pool(2, sead=1)
mp.nonsense
"""


def check(module, *arguments, folder=here(".")):
    """Run a type checker in a folder; the result has returncode and stdout, with what is wrong."""
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"  # pyright asks "python" where packages are
    environment = dict(os.environ, PATH=path, MYPYPATH=str(here("python")), MYPY_CACHE_DIR=str(CACHE))
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False)


def mypy(*arguments):
    """Run mypy as pyproject.toml says."""
    return check("mypy", *arguments)


def pyright(program):
    """Run pyright, as PyPI has it with all that it needs, on a program in a folder of its own."""
    settings = {"extraPaths": [str(here("python"))], "pythonVersion": "3.11", "pythonPlatform": "Linux"}
    (program.parent / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    return check("basedpyright", "--level", "error", program.name, folder=program.parent)


def assert_clean(result):
    assert result.returncode == 0, result.stdout + result.stderr


def test_mypy_finds_no_fault_with_the_package():
    assert_clean(mypy("python/brood"))


def test_pyright_finds_no_fault_with_the_package():
    assert_clean(check("basedpyright", "--level", "error", "--project", "pyproject.toml"))


def test_everything_public_has_a_type(tmp_path):
    """As pyright sees the package that is installed: py.typed, and no name that is left to a checker's guess."""
    result = check("basedpyright", "--verifytypes", "brood", "--ignoreexternal", folder=tmp_path)
    assert_clean(result)
    assert "Type completeness score: 100%" in result.stdout


def test_the_extension_is_what_its_stub_says():
    CACHE.mkdir(exist_ok=True)
    assert_clean(check("mypy.stubtest", "--mypy-config-file", here("pyproject.toml"), "--ignore-disjoint-bases", "--concise",
                       "--allowlist", here("tests/python/stubtest-allowed.txt"), "--ignore-unused-allowlist", "brood._core",
                       folder=CACHE))


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_a_program_has_the_types_that_it_expects(tmp_path, checker):
    assert_clean(checker(write(tmp_path, "good.py", GOOD)))


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_every_public_name_is_known(tmp_path, checker):
    names = sorted({*brood.__all__, *brood._SUBMODULES})
    program = "import brood\n" + "".join(f"print(brood.{name})\n" for name in names)
    assert_clean(checker(write(tmp_path, "names.py", program)))


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_wrong_calls_are_found(tmp_path, checker):
    result = checker(write(tmp_path, "bad.py", BAD))
    wrong = {int(line) for line in re.findall(r"bad\.py:(\d+):.*error", result.stdout)}
    assert wrong == set(range(7, 19)), result.stdout + result.stderr
