# SPDX-License-Identifier: MIT
"""Arrays of NumPy in shared memory, and how they travel.

``brood.empty``, ``zeros`` and ``array`` make arrays that all processes share: passed on, in arguments, results or queues,
they and their slices and views are references, and whoever has them may write to the one memory that they lie in.
"""
from __future__ import annotations

import copyreg
import math
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any, Literal

try:
    import numpy
except ImportError as error:
    raise ImportError("brood.empty, brood.zeros and brood.array make arrays of NumPy, which is not installed: pip install numpy") from error

from . import _core

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, DTypeLike, NDArray

__all__ = ["empty", "zeros", "array"]


def empty(shape: int | Sequence[int], dtype: DTypeLike = float, order: Literal["C", "F"] = "C") -> NDArray[Any]:
    """Return an array in shared memory, as ``numpy.empty`` does; what is in it is anything."""
    return _make(shape, dtype, order, False)


def zeros(shape: int | Sequence[int], dtype: DTypeLike = float, order: Literal["C", "F"] = "C") -> NDArray[Any]:
    """Return an array of zeros in shared memory, as ``numpy.zeros`` does."""
    return _make(shape, dtype, order, True)


def array(object: ArrayLike, dtype: DTypeLike | None = None, *, order: Literal["K", "C", "F", "A"] = "K") -> NDArray[Any]:
    """Return a copy of an array, or of a sequence, in shared memory, as ``numpy.array`` does."""
    source = numpy.asanyarray(object, dtype)
    is_fortran = order == "F" or order in "KA" and source.flags.f_contiguous and not source.flags.c_contiguous
    made = empty(source.shape, source.dtype, "F" if is_fortran else "C")
    made[...] = source
    return made


for _function in (empty, zeros, array):
    _function.__module__ = "brood"


def _make(shape: int | Sequence[int], dtype: DTypeLike, order: Literal["C", "F"], is_zeroed: bool) -> NDArray[Any]:
    kind = numpy.dtype(dtype)
    if kind.hasobject:
        raise TypeError(f"an array of {kind} holds Python objects, which cannot lie in shared memory")
    lengths = (shape,) if isinstance(shape, int) else tuple(shape)
    if any(length < 0 for length in lengths):
        raise ValueError("negative dimensions are not allowed")
    buffer: Any = _core.Buffer(math.prod(lengths) * kind.itemsize, is_zeroed)
    return numpy.ndarray(lengths, kind, buffer, order=order)


# ---- on their way ----


def _bounds(array: NDArray[Any], address: int) -> tuple[int, int]:
    """Return where its memory begins, and behind its last byte."""
    low = high = address
    for length, stride in zip(array.shape, array.strides, strict=True):
        reach = (length - 1) * stride
        low, high = (low + reach, high) if reach < 0 else (low, high + reach)
    return low, high + array.itemsize


def reduce(array: NDArray[Any]) -> Any:
    """Return how to rebuild an array that lies in shared memory, where it lies; None: it does not."""
    if array.size == 0:
        return None
    address: int = array.__array_interface__["data"][0]
    low, high = _bounds(array, address)
    home = _core._home_of(low, high - low)
    if home is None:
        return None
    buffer, at = home
    return _view, (buffer, array.dtype, array.shape, array.strides, at + address - low, array.flags.writeable)


def _view(
    buffer: Any, dtype: numpy.dtype[Any], shape: tuple[int, ...], strides: tuple[int, ...], offset: int,
    is_writable: bool,
) -> NDArray[Any]:
    made: NDArray[Any] = numpy.ndarray(shape, dtype, buffer, offset, strides)
    made.flags.writeable = is_writable
    return made


def _lying(buffer: Any, dtype: str, shape: tuple[int, ...], order: Literal["C", "F"]) -> NDArray[Any]:
    """The whole buffer, as csrc/arrays.c writes it, which also reads it, where it can."""
    return numpy.ndarray(shape, dtype, buffer, 0, None, order)


def _reduce_elsewhere(array: NDArray[Any]) -> Any:
    """For picklers that write to no letter: a process that is being started shares the memory, as do functions on their way to a
    pool; all others get a copy.  A reducer that the program gives to copyreg later goes first.
    """
    if (other := copyreg.dispatch_table.get(numpy.ndarray)) is not None:
        return other(array)
    is_shared = get_spawning_popen() is not None or _core._is_holding()
    reduced = reduce(array) if is_shared else None
    return array.__reduce_ex__(4) if reduced is None else reduced


if numpy.ndarray not in ForkingPickler._extra_reducers:  # type: ignore[attr-defined]  # the program has none of its own
    ForkingPickler.register(numpy.ndarray, _reduce_elsewhere)
    _core._set_elsewhere(_reduce_elsewhere)
