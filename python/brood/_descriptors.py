# SPDX-License-Identifier: MIT
"""Running out of descriptors: before, and not in the middle of, what the standard library does with several."""
from __future__ import annotations

import os

__all__: list[str] = []


def expect_room(count: int) -> None:
    """Raise OSError unless that many descriptors can be opened now.

    The standard library opens one after the other when it starts a process; those that it has when the next one fails stay
    open, and a fork server that was promised some ends when they do not come.
    """
    taken: list[int] = []
    try:
        while len(taken) < count:
            taken += os.pipe()
    finally:
        for fd in taken:
            os.close(fd)
