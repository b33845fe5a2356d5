# SPDX-License-Identifier: MIT
"""What a child of spawn has in its ``__main__``: it runs the same file, but for what stands below ``if __name__ == "__main__":``.

Functions and classes of that part, and those that came to be in another way, travel to workers by value.
"""
from __future__ import annotations

import ast
import functools
import os
import types
from collections.abc import Iterable
from typing import Any

__all__: list[str] = []


class Source:
    """The file, read once."""

    def __init__(self, file: str, tree: ast.Module | None) -> None:
        self._file = os.path.abspath(file)
        self._is_known = tree is not None
        self._names: set[str] = set()
        self._functions: set[tuple[str, int]] = set()  # name, and where it begins
        if tree is not None:
            self._read(tree.body)

    def _read(self, body: Iterable[ast.AST]) -> None:
        for node in body:
            if isinstance(node, ast.If) and any(isinstance(one, ast.Name) and one.id == "__name__" for one in ast.walk(node.test)):
                self._read(node.orelse)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self._names.add(node.name)
                self._functions.add((node.name, min(one.lineno for one in (node, *node.decorator_list))))
            elif isinstance(node, ast.ClassDef):
                self._names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self._names.add(node.id)
            elif isinstance(node, ast.alias):
                self._names.add(node.asname or node.name.partition(".")[0])
            else:
                self._read(ast.iter_child_nodes(node))

    def defines(self, name: str, thing: Any) -> bool:
        """Whether the child has this, whose outermost name is `name`; a function is known by its place in the file."""
        if not self._is_known:
            return True
        while hasattr(thing, "__wrapped__"):
            thing = thing.__wrapped__
        if isinstance(thing, types.FunctionType) and thing.__qualname__ == name:
            code = thing.__code__
            return (name, code.co_firstlineno) in self._functions and os.path.abspath(code.co_filename) == self._file
        return name in self._names


@functools.lru_cache(maxsize=1)
def source_of(file: str) -> Source:
    """What is known of the file."""
    try:
        with open(file, "rb") as stream:
            return Source(file, ast.parse(stream.read()))
    except (OSError, SyntaxError, ValueError):
        return Source(file, None)  # in a zip file, perhaps
