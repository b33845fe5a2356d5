# SPDX-License-Identifier: MIT
"""Where the standard library's own multiprocessing is found, whatever its name stands for by now.

Two states of the interpreter:

- **Not installed.** ``multiprocessing`` is the standard library's, and so are the entries of ``sys.modules``.
- **Installed** (``brood.install()``). ``multiprocessing`` and its sub-modules are brood's.  The real modules that
  had been imported by then are kept here, in ``_real``; the others are executed when brood asks for them, without
  ever entering ``sys.modules``.  Their relative imports then see brood's modules, which are either the real ones
  under another name or can stand in for them.

Each real module is asked for by its namesake in brood (``brood/heap.py`` asks for ``heap``), whose import lock thus
keeps two threads from executing it twice.
"""
from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import threading
import types

__all__ = ["alias", "installed", "load", "mirror"]

TYPE_CHECKING = False  # typing's, without importing it: checkers know the name

PACKAGE = "multiprocessing"

_real: dict[str, types.ModuleType] = {}
_installed = False
_importing_thread: int | None = None


def installed() -> bool:
    """Whether ``multiprocessing`` stands for brood in this process."""
    return _installed


def importing() -> bool:
    """Whether this thread is importing the real package, so that nobody may answer in its place."""
    return _importing_thread == threading.get_ident()


def load(name: str) -> types.ModuleType:
    """Return the real ``multiprocessing.<name>``."""
    full = f"{PACKAGE}.{name}"
    if not _installed:
        return importlib.import_module(full)
    if not _real:
        importlib.import_module(PACKAGE)  # ends in take_over, through the finder
    return _real.get(full) or _execute_aside(full)


def alias(name: str, real_name: str | None = None) -> None:
    """Let the module ``brood.<x>`` of this ``__name__`` be the real ``multiprocessing.<x>``, the same object."""
    sys.modules[name] = load(real_name or name.partition(".")[2])


def mirror(namespace: dict[str, object]) -> None:
    """Give a module (its ``globals()``) every name of the real one that it does not define itself.

    For packages, which cannot be aliases: their sub-modules would be looked for beside the real one.
    """
    real = load(str(namespace["__name__"]).partition(".")[2])
    for name, value in vars(real).items():
        if name == "__all__" or not name.startswith("__"):
            namespace.setdefault(name, value)


def take_over() -> None:
    """Import the real package and set it aside; the finder, who asks for this, then puts brood in its place."""
    global _importing_thread
    _importing_thread = threading.get_ident()
    try:
        importlib.import_module(PACKAGE)
    finally:
        _importing_thread = None
    _set_aside()
    del sys.modules[PACKAGE]  # else the import system would take what is there instead of the finder's answer


def set_installed() -> None:
    """Enter the installed state; what is imported already moves aside at once."""
    global _installed
    _installed = True
    if PACKAGE in sys.modules:
        _set_aside()


def _set_aside() -> None:
    for name in list(sys.modules):
        if name == PACKAGE or name.startswith(PACKAGE + "."):
            _real[name] = sys.modules.pop(name)
    sys.modules[PACKAGE] = sys.modules[__name__.rpartition(".")[0]]


def _execute_aside(full: str) -> types.ModuleType:
    parent, _, child = full.rpartition(".")
    package = _real.get(parent) or load(parent.partition(".")[2])
    spec = importlib.machinery.PathFinder.find_spec(full, package.__path__)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {full!r}", name=full)
    module = _real[full] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del _real[full]
        raise
    setattr(package, child, module)
    return module
