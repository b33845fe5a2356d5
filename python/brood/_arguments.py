# SPDX-License-Identifier: MIT
"""What a pool says of arguments that it cannot use: at the call, by name, with the standard library's exceptions."""
from __future__ import annotations

import operator
import sys
import threading
from typing import Any

__all__: list[str] = []


def index(name: str, value: Any) -> int:
    """The int that it is, or, as numpy's, stands for."""
    try:
        return operator.index(value)
    except TypeError:
        # A float is the wrong value here, as islice has it; anything else the wrong type.
        kind = ValueError if isinstance(value, float) and name == "chunksize" else TypeError
        raise kind(f"{name} must be an int or None, not {value if isinstance(value, float) else type(value).__name__}") from None


def positive(name: str, value: Any) -> int:
    """Return `value` as an int of at least 1, else raise."""
    number = index(name, value)
    if number < 1:
        raise ValueError(f"{name} must be at least 1, not {number}")
    if number > sys.maxsize:
        raise ValueError(f"{name} must be at most sys.maxsize, not {number}")
    return number


def check_callable(name: str, value: Any) -> None:
    """Raise when it is not."""
    if not callable(value):
        raise TypeError(f"{name} must be a callable, not {type(value).__name__}")


def check_callbacks(callback: Any, error_callback: Any) -> None:
    """Raise when one is neither None nor callable."""
    if callback is not None:
        check_callable("callback", callback)
    if error_callback is not None:
        check_callable("error_callback", error_callback)


def check_iterable(name: str, value: Any) -> None:
    """Raise when it is not."""
    if not hasattr(value, "__iter__") and not hasattr(value, "__getitem__"):
        raise TypeError(f"{name} must be iterable, not {type(value).__name__}")


def check_call(args: Any, kwds: Any) -> None:
    """Raise when no function can be called so."""
    if type(args) is not tuple:
        check_iterable("args", args)
    if kwds and not hasattr(kwds, "keys"):
        raise TypeError(f"kwds must be a mapping, not {type(kwds).__name__}")


def seconds(timeout: Any) -> float | None:
    """What threading's waits take, of what the core's take."""
    if timeout is None:
        return None
    if not hasattr(timeout, "__float__") and not hasattr(timeout, "__index__"):
        raise TypeError(f"timeout must be a number or None, not {type(timeout).__name__}")
    seconds = float(timeout)
    if seconds != seconds:
        raise ValueError("timeout is not a number")
    return seconds if seconds < threading.TIMEOUT_MAX else None
