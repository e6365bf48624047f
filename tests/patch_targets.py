"""All records of what is replaced in other libraries, and where their targets are in sources that need not run.

Before an upgrade: `PYTHONPATH=src python -m tests.patch_targets FOLDER` lists which targets are still in an unpacked
wheel. Without a folder it prints the table of docs/upgrading.md.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import gptoss_bento
from gptoss_bento.patching import Patch, PrivateUse

PACKAGE = Path(gptoss_bento.__file__).parent
TABLES = sorted(path.relative_to(PACKAGE).with_suffix("").parts for path in PACKAGE.rglob("patches.py"))


def patches() -> list[Patch]:
    return [it for parts in TABLES for it in _table(parts).PATCHES]


def private_uses() -> list[PrivateUse]:
    return [it for parts in TABLES for it in _table(parts).PRIVATE_USES]


def _table(parts: tuple[str, ...]) -> ModuleType:
    return importlib.import_module(".".join(("gptoss_bento", *parts)))


def found_in(folder: Path, target: str) -> bool:
    """Whether the sources below a folder have `module:attribute`, or `module:Class.attribute` set by a method."""
    module, _, path = target.partition(":")
    first, _, rest = path.partition(".")
    node = _named(folder, module, first)
    return node is not None and (not rest or (isinstance(node, ast.ClassDef) and _has(folder, module, node, rest)))


@cache
def _tree(folder: Path, module: str) -> ast.Module | None:
    path = folder.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return ast.parse(file.read_text())
    return None


def _named(folder: Path, module: str, name: str) -> ast.AST | None:
    """What a module calls so; for a class that it imports, the class."""
    tree = _tree(folder, module)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.ImportFrom) and name in {alias.asname or alias.name for alias in node.names}:
            return (node.module and not node.level and _named(folder, node.module, name)) or node
        if name in set(_names(node)):
            return node
    return None


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    yield from (it.id for it in targets if isinstance(it, ast.Name) and isinstance(node, ast.Assign | ast.AnnAssign))


def _has(folder: Path, module: str, kind: ast.ClassDef, name: str) -> bool:
    """Whether a class defines an attribute or sets it on `self`, or one that it derives from does."""
    for node in ast.walk(kind):
        if name in set(_names(node)):
            return True
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr == name:
            return True
    bases = [_named(folder, module, base.id) for base in kind.bases if isinstance(base, ast.Name)]
    return any(_has(folder, module, base, name) for base in bases if isinstance(base, ast.ClassDef))


def main() -> None:
    """Prints the table, or what an unpacked library lacks."""
    if len(sys.argv) == 1:
        for it in patches():
            print(f"| `{it.target}` | {it.reason} | {it.instead} | `{it.test.rpartition('/')[2]}` |")
        for use in private_uses():
            print(f"| `{use.target}` | {use.how} | {use.reason} | `{use.test.rpartition('/')[2]}` |")
        return
    folder = Path(sys.argv[1])
    records: list[Patch | PrivateUse] = [*patches(), *private_uses()]
    for record in records:
        if (folder / record.target.partition(":")[0].partition(".")[0]).is_dir():
            print("there" if found_in(folder, record.target) else "GONE ", record.target)


if __name__ == "__main__":
    main()
