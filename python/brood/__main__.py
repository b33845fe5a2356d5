# SPDX-License-Identifier: MIT
"""``python -m brood script.py [args]``: runs a program nobody may edit, with brood as its multiprocessing."""
from __future__ import annotations

import builtins
import importlib.machinery
import os
import pkgutil
import runpy
import sys
import types
from typing import Any, NoReturn

import brood

__all__ = ["main"]

USAGE = """\
usage: python -m brood [-h | -V] (script.py | directory | zip file | - | -m module | -c command) [arguments]...

Runs a Python program as `python` would, with brood in the place of multiprocessing in it and in the processes it starts.

  -m module    run a library module
  -c command   run a program given as a string
  -h, --help      show this text
  -V, --version   show the version

Options of Python itself come first: python -X dev -m brood script.py
"""


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"{sys.executable or 'python'}: {message}\n")
    sys.exit(2)


def _new_main(file: str | None = None) -> dict[str, Any]:
    """Put an empty ``__main__`` in place of this one and return its namespace, as Python prepares it."""
    module = types.ModuleType("__main__")
    module.__builtins__ = builtins  # type: ignore[attr-defined]
    if file is None:
        module.__loader__ = importlib.machinery.BuiltinImporter
    else:
        module.__loader__ = importlib.machinery.SourceFileLoader("__main__", file)
        module.__file__ = file
        module.__dict__["__cached__"] = None
    module.__dict__["__annotations__"] = {}
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    return module.__dict__


def _set_first_path(directory: str) -> None:
    """Replace the directory that `-m brood` put first on sys.path; in safe mode (-P, -I) there is none."""
    if not sys.flags.safe_path:
        sys.path[0] = directory


def _run_code(source: str | bytes, filename: str, namespace: dict[str, Any]) -> None:
    exec(compile(source, filename, "exec", dont_inherit=True), namespace)


def _run_module(name: str, arguments: list[str]) -> None:
    sys.argv = ["-m", *arguments]
    _new_main()
    runpy._run_module_as_main(name, alter_argv=True)  # type: ignore[attr-defined]


def _run_command(command: str, arguments: list[str]) -> None:
    sys.argv = ["-c", *arguments]
    _set_first_path("")
    _run_code(command, "<string>", _new_main())


def _run_package(path: str) -> None:
    """Run the ``__main__`` of a directory or a zip file."""
    if sys.flags.safe_path:
        sys.path.insert(0, path)
    else:
        sys.path[0] = path
    _new_main()
    runpy._run_module_as_main("__main__", alter_argv=False)  # type: ignore[attr-defined]


def _run_script(path: str, arguments: list[str]) -> None:
    sys.argv = [path, *arguments]
    if path == "-":
        _set_first_path("")
        return _run_code(sys.stdin.buffer.read(), "<stdin>", _new_main())
    if not isinstance(pkgutil.get_importer(path), (importlib.machinery.FileFinder, types.NoneType)) or os.path.isdir(path):
        return _run_package(os.path.abspath(path))
    file = os.path.join(os.getcwd(), path)  # not normalized, as Python has it
    try:
        with open(file, "rb") as stream:
            source = stream.read()
    except OSError as error:
        _fail(f"can't open file {file!r}: [Errno {error.errno}] {error.strerror}")
    _set_first_path(os.path.dirname(os.path.realpath(path)))
    _run_code(source, file, _new_main(file))


def _run(arguments: list[str]) -> None:
    option = arguments[0] if arguments else None
    if option in ("-h", "--help"):
        sys.stdout.write(USAGE)
    elif option in ("-V", "--version"):
        print(f"brood {brood.__version__} (Python {sys.version.split()[0]})")
    elif option in ("-m", "-c"):
        if len(arguments) < 2:
            _fail(f"Argument expected for the {option} option\n{USAGE}")
        brood.install()
        (_run_module if option == "-m" else _run_command)(arguments[1], arguments[2:])
    elif option is None or (option.startswith("-") and option != "-"):
        _fail(f"{'a program is needed' if option is None else f'unknown option {option}'}\n{USAGE}")
    else:
        brood.install()
        _run_script(option, arguments[1:])


def _without_scaffolding(traceback: types.TracebackType | None) -> types.TracebackType | None:
    """Drop the frames from the interpreter's to our last one: tracebacks are those of plain Python then."""
    entry = kept = traceback
    while entry is not None:
        if entry.tb_frame.f_code.co_filename == __file__:
            kept = entry.tb_next
        entry = entry.tb_next
    return kept


def main() -> None:
    """Run what the command line says."""
    this_main = sys.modules["__main__"]  # kept alive: our globals are in it
    try:
        _run(sys.argv[1:])
    except SystemExit:
        raise
    except BaseException:
        program_hook = sys.excepthook

        def hook(kind: type[BaseException], error: BaseException, traceback: types.TracebackType | None) -> None:
            sys.excepthook = program_hook
            error = error.with_traceback(_without_scaffolding(traceback))
            program_hook(kind, error, error.__traceback__)

        # The exception goes on to the interpreter, whose exit status and signals are part of the behaviour.
        sys.excepthook = hook
        raise
    finally:
        _keep.append(this_main)


_keep: list[types.ModuleType] = []

if __name__ == "__main__":
    main()
