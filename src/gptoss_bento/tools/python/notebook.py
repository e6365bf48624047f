"""Cells of a notebook: code that keeps its variables for the next cell, and shows the value of its last expression."""

from __future__ import annotations

import ast
import linecache
import sys
import traceback
import types
from typing import Any, Final

NAME: Final = "__main__"


class Notebook:
    """Variables, and the code that was run on them. GPT-OSS was trained on such a one: Jupyter's."""

    def __init__(self) -> None:
        self._module = types.ModuleType(NAME)
        self._count = 0
        sys.modules[NAME] = self._module  # what pickle, dataclasses and typing look names up in

    def run(self, code: str) -> bool:
        """Runs a cell. What it shows goes to `sys.stdout`, the traceback of an error to `sys.stderr`.

        Returns:
            Whether it failed.
        """
        self._count += 1
        file = f"<cell {self._count}>"
        linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)  # lines for tracebacks
        try:
            self._execute(code, file)
        except SystemExit as error:
            return error.code not in (None, 0)  # the notebook goes on
        except BaseException as error:
            _show(error)
            return True
        return False

    def _execute(self, code: str, file: str) -> None:
        tree = ast.parse(code, file)
        last = tree.body[-1] if tree.body else None
        if not isinstance(last, ast.Expr):
            exec(compile(tree, file, "exec"), self._module.__dict__)  # noqa: S102  # the purpose of this process
            return
        del tree.body[-1]
        exec(compile(tree, file, "exec"), self._module.__dict__)  # noqa: S102
        self._display(eval(compile(ast.Expression(last.value), file, "eval"), self._module.__dict__))  # noqa: S307

    def _display(self, value: Any) -> None:
        if value is not None:
            self._module.__dict__["_"] = value
            print(repr(value))


def _show(error: BaseException) -> None:
    """Prints the traceback without the frames of this module."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    traceback.print_exception(type(error), error, frames)
