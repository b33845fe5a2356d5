# SPDX-License-Identifier: MIT
"""``brood.install()``: from then on ``import multiprocessing`` gives brood."""
from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence

from . import _std

__all__ = ["install"]


class _Alias:  # an importlib.abc.Loader, but for the time that it takes to import that
    """Loader of ``multiprocessing.<x>`` that hands out ``brood.<x>``."""

    def __init__(self, name: str):
        self._name = name
        self._spec: importlib.machinery.ModuleSpec | None = None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Import brood's module; the import system is about to put ``spec`` on it, so its own is remembered."""
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Undo what the import system did to the module: it has run long since, and knows its name."""
        module.__spec__ = self._spec


class _Finder:
    """Stands before all other finders and answers for ``multiprocessing`` and everything below it."""

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Answer with brood's counterpart, if it has one."""
        package, _, rest = fullname.partition(".")
        if package != _std.PACKAGE or _std.importing():
            return None
        if not rest:
            _std.take_over()
            return importlib.machinery.ModuleSpec(fullname, _Alias("brood"), is_package=True)  # type: ignore[arg-type]
        ours = f"brood.{rest}"
        if importlib.util.find_spec(ours) is None:
            return None
        return importlib.machinery.ModuleSpec(fullname, _Alias(ours))  # type: ignore[arg-type]


def install() -> None:
    """Let ``import multiprocessing``, and that of its sub-modules, give brood from now on.

    It holds for this process and those it starts, under every start method.  Call it early: names that were
    imported from ``multiprocessing`` before keep meaning the standard library's.  Doing it again does nothing.
    """
    if _std.installed():
        return
    sys.meta_path.insert(0, _Finder)  # a class is as good as an instance here
    _std.set_installed()
