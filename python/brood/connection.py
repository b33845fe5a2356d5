# SPDX-License-Identifier: MIT
"""The standard library's own ``multiprocessing.connection``, under brood's name."""
from ._std import TYPE_CHECKING, alias

if TYPE_CHECKING:
    from multiprocessing.connection import *  # noqa: F403
    from multiprocessing.connection import (
        Connection as Connection,
        answer_challenge as answer_challenge,
        deliver_challenge as deliver_challenge,
    )

alias(__name__)
