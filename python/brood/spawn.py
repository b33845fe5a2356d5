# SPDX-License-Identifier: MIT
"""What ``multiprocessing.spawn`` has, with children that import brood first."""
from __future__ import annotations

import io
import sys
from typing import Any

from . import _arena, _std
from ._std import TYPE_CHECKING
from ._install import install

if TYPE_CHECKING:
    import multiprocessing.spawn as _real
    from multiprocessing.spawn import (
        get_executable as get_executable,
        get_preparation_data as get_preparation_data,
        import_main_path as import_main_path,
        set_executable as set_executable,
    )
else:
    _real = _std.load("spawn")
    set_executable = _real.set_executable
    get_executable = _real.get_executable
    get_preparation_data = _real.get_preparation_data
    import_main_path = _real.import_main_path

__all__ = list(_real.__all__)

_main = _real._main


def __getattr__(name: str) -> Any:
    return getattr(_real, name)


def get_command_line(**kwds: Any) -> list[Any]:
    """The command line of a child that is to run ``spawn_main(**kwds)``, brood's."""
    kwds = {"installed": int(_std.installed()), **kwds}
    command = _real.get_command_line(**kwds)
    if not _arena.is_frozen():
        arguments = ", ".join(f"{name}={value!r}" for name, value in kwds.items())
        command[-2] = f"{_arena.path_prologue()}; from brood.spawn import spawn_main; spawn_main({arguments})"
    return command


def spawn_main(pipe_handle: int, parent_pid: int | None = None, tracker_fd: int | None = None, installed: int = 0) -> None:
    """Be the child whose data come through ``pipe_handle``; does not return."""
    if installed:
        install()
    _real.spawn_main(pipe_handle, parent_pid, tracker_fd)


def freeze_support() -> None:
    """In a frozen program that was started as a child: be that child, and exit."""
    if _real.is_forking(sys.argv):
        pairs = (argument.split("=") for argument in sys.argv[2:])
        spawn_main(**{name: None if value == "None" else int(value) for name, value in pairs})  # type: ignore[arg-type]
        sys.exit()


def pickled(popen: Any, process_obj: Any) -> memoryview:
    """What the child of ``popen`` is sent: preparation data, a passport before anything else in them, and the process."""
    from . import context, reduction

    start_method = context._default_context.get_start_method(allow_none=True)
    environment = getattr(process_obj, "_brood_environment", {})
    passport = _arena.Passport(start_method, environment, getattr(process_obj, "_ignores_interrupts", False))
    data = {"brood": passport, **get_preparation_data(process_obj._name)}
    stream = io.BytesIO()
    context.set_spawning_popen(popen)
    try:
        reduction.dump(data, stream)
        reduction.dump(process_obj, stream)
    finally:
        context.set_spawning_popen(None)
    return stream.getbuffer()
