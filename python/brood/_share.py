# SPDX-License-Identifier: MIT
"""``Pool.share``: a big argument is put into shared memory once, and travels to any number of tasks as a few bytes."""
from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from . import _core
from ._travel import explained

__all__ = ["Shared", "share"]

_T = TypeVar("_T")
_Writable = Literal[False, "private", "shared"]

_VIEWS = {False: _core.VIEW_READ_ONLY, "private": _core.VIEW_PRIVATE, "shared": _core.VIEW_SHARED}


class Shared(Generic[_T]):
    """An object in shared memory, as it was when it was shared; ``Pool.share`` makes it.

    Pass it to tasks, in arguments, results or queues, and call ``get()`` there.  The memory is given back when nobody has the
    handle any more, nor an array of its object.
    """

    def __init__(self, snapshot: _core.Buffer, view: int) -> None:
        self._snapshot = snapshot
        self._view = view

    def get(self) -> _T:
        """Return the object; its large buffers (arrays above all) lie in the shared memory and are not copied."""
        value: _T = _core._look(self._snapshot, self._view)
        return value

    @property
    def nbytes(self) -> int:
        """How many bytes it takes."""
        return len(self._snapshot)

    def __reduce__(self) -> Any:
        return Shared, (self._snapshot, self._view)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.nbytes} bytes>"


Shared.__module__ = "brood"


def share(obj: _T, writable: _Writable) -> Shared[_T]:
    """See ``Pool.share``."""
    if writable not in _VIEWS:
        raise ValueError(f'writable must be False, "private" or "shared", not {writable!r}')
    try:
        return Shared(_core._snapshot(obj), _VIEWS[writable])
    except MemoryError:
        raise
    except Exception as error:
        raise explained(error, "obj", obj) from None
