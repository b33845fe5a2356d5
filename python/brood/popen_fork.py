# SPDX-License-Identifier: MIT
"""Starts a process by fork: the child has the arena, provided that there was one."""
from __future__ import annotations

from typing import Any

from . import _arena, _std

__all__ = ["Popen"]


class Popen(_std.load("popen_fork").Popen):  # type: ignore[misc]
    """The standard library's, in a process that has an arena."""

    def _launch(self, process_obj: Any) -> None:
        _arena.ensure()
        super()._launch(process_obj)


_std.mirror(globals())
