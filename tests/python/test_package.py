# SPDX-License-Identifier: MIT
"""What pip makes of the tree: a wheel for this Python, and from it an environment in which brood works."""
import email
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest

from programs import here
from support import runs_under

pytestmark = [
    pytest.mark.skipif(runs_under("asan"), reason="pip builds for users, without sanitizers"),
    pytest.mark.skipif(importlib.util.find_spec("mesonpy") is None, reason="tools/venv test installs meson-python"),
    pytest.mark.timeout(900),
]

PROGRAM = """
import brood as mp

def square(x):
    return x * x

if __name__ == "__main__":
    with mp.Pool(2) as pool:
        assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
    queue = mp.Queue()
    process = mp.get_context("spawn").Process(target=queue.put, args=("from a child",))
    process.start()
    assert queue.get(timeout=60) == "from a child"
    process.join()
    print(mp.__file__)
"""


def run(*command, **options):
    """Run a command, without this process's brood; its standard output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"  # meson is beside this Python
    result = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, check=False, timeout=800, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built as pip does it but with the packages that .venv has: no network is needed."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--no-build-isolation",
        "--config-settings", f"build-dir={folder / 'build'}", "--wheel-dir", folder, here("."))
    [made] = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return [pathlib.PurePosixPath(name) for name in archive.namelist()]


def extension(names):
    [found] = [name for name in names if name.suffix == ".so"]
    return found


def read(wheel, name):
    """A file of the wheel's dist-info, as its headers."""
    with zipfile.ZipFile(wheel) as archive:
        [path] = [path for path in archive.namelist() if re.fullmatch(rf"brood-[^/]*\.dist-info/{name}", path)]
        return email.message_from_string(archive.read(path).decode())


def test_tag_is_of_this_python(wheel, names):
    version = f"cp{sys.version_info[0]}{sys.version_info[1]}{getattr(sys, 'abiflags', '')}"
    tag = read(wheel, "WHEEL")
    assert tag["Root-Is-Purelib"] == "false"
    assert tag.get_all("Tag") == [f"{version}-{version}-{sysconfig.get_platform().replace('-', '_')}"]
    assert extension(names).name == "_core" + sysconfig.get_config_var("EXT_SUFFIX")


def test_the_package_and_nothing_else_is_in_it(names):
    assert {name.parts[0] for name in names if not name.parts[0].endswith(".dist-info")} == {"brood"}
    ours = {name.relative_to("brood").as_posix() for name in names if name.parts[0] == "brood"}
    source = here("python/brood")
    wanted = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.suffix in (".py", ".pyi", ".typed")}
    assert ours == {*wanted, "py.typed", extension(names).name}


def test_metadata(wheel):
    metadata = read(wheel, "METADATA")
    assert metadata["Requires-Python"] == ">=3.11" and metadata["License-Expression"] == "MIT"
    assert [text for text in metadata.get_all("Requires-Dist") if "extra" not in text] == ["cloudpickle>=2.2"]
    assert "Typing :: Typed" in metadata.get_all("Classifier")
    assert read(wheel, "licenses/LICENSE").as_string()


@pytest.mark.skipif(shutil.which("readelf") is None, reason="binutils are not installed")
def test_the_extension_stands_alone(wheel, names, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        path = archive.extract(str(extension(names)), tmp_path)
    needed = re.findall(r"\(NEEDED\).*\[(.*?)\]", run("readelf", "--dynamic", "--wide", path))
    assert {name for name in needed if not name.startswith(("libc.", "ld-linux"))} == set()
    symbols = run("readelf", "--dyn-syms", "--wide", path)
    assert re.findall(r"(?:GLOBAL|WEAK) +DEFAULT +\d+ (\S+)", symbols) == ["PyInit__core"]


def test_it_works_in_an_environment_of_its_own(wheel, tmp_path):
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", wheel)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    assert run(python, program, cwd=tmp_path).startswith(str(tmp_path / "venv"))
