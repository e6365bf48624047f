"""What a start imports, read from the sources of a program: nothing of it is imported or run.

Followed are the statements that always run: those of a module that is imported, and those of a function that such a
statement calls by its name. Not followed are branches whose condition is unknown, a `try` that survives an ImportError,
and what only a running program knows: methods of other objects than `self`, and modules that are named in a string.
"""

from __future__ import annotations

import ast
import gc
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_SURVIVORS = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}
_LONGEST_WAY = 12  # re-exports and base classes from a name to its function; more are a circle

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Scope:
    """Statements that run together: those of a module, or of a function in it (`Worker.load_model`)."""

    module: str
    function: str = ""

    def __str__(self) -> str:
        return f"{self.module}:{self.function}()" if self.function else self.module


@dataclass(frozen=True)
class Imported:
    """One name of an import statement: the module, the name it gets here, and what that name means."""

    module: str
    name: str
    target: str


class Sources:
    """Packages as files.

    Args:
        folders: of packages, as on `sys.path`.
        facts: what conditions are known to be by the last part of a name, of a call too: `{"is_cuda": True}`.
    """

    def __init__(self, folders: Sequence[Path], facts: Mapping[str, bool]) -> None:
        self._folders = folders
        self._facts = facts
        self.file = cache(self._file)
        self.definitions = cache(self._definitions)
        self.running = cache(self._running)
        self.names = cache(self._names)
        self._tree = cache(self._parsed)

    def _file(self, module: str) -> Path | None:
        """The source of a module; None if it has none here, as compiled ones."""
        paths = [folder / module.replace(".", "/") for folder in self._folders]
        candidates = (file for path in paths for file in (path / "__init__.py", path.with_name(f"{path.name}.py")))
        return next((file for file in candidates if file.is_file()), None)

    def _parsed(self, module: str) -> ast.Module:
        if not (file := self.file(module)):
            raise ModuleNotFoundError(f"There is no source of {module} in {', '.join(map(str, self._folders))}.")
        return ast.parse(file.read_text())

    def _definitions(self, module: str) -> dict[str, Function | ast.ClassDef]:
        """Functions, classes and their methods by name."""
        found: dict[str, Function | ast.ClassDef] = {}
        methods: set[ast.stmt] = set()
        for node in self._always(self._tree(module).body):
            if isinstance(node, ast.ClassDef):
                own = [inner for inner in node.body if isinstance(inner, Function)]
                found |= {node.name: node, **{f"{node.name}.{method.name}": method for method in own}}
                methods.update(own)
            elif isinstance(node, Function) and node not in methods:
                found[node.name] = node
        return found

    def _running(self, scope: Scope) -> list[ast.Import | ast.ImportFrom | ast.Call]:
        """The imports and calls that always run, in order."""
        body = self.definitions(scope.module)[scope.function].body if scope.function else self._tree(scope.module).body
        nodes = (node for statement in self._always(body) for node in _own_parts(statement))
        return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom | ast.Call)]

    def _names(self, scope: Scope) -> dict[str, str]:
        """What the names that are imported here mean, by dotted name."""
        return {each.name: each.target for node in self.running(scope) for each in self.imported(node, scope.module)}

    def imported(self, node: ast.AST, module: str) -> Iterator[Imported]:
        """What a statement of a module imports."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.split(".")[0]
                yield Imported(alias.name, bound, alias.name if alias.asname else bound)
        elif isinstance(node, ast.ImportFrom):
            base = self._absolute(node, module)
            yield from (Imported(base, alias.asname or alias.name, f"{base}.{alias.name}") for alias in node.names)

    def _absolute(self, node: ast.ImportFrom, module: str) -> str:
        if not node.level:
            return node.module or ""
        file = self.file(module)
        is_package = file is not None and file.name == "__init__.py"
        parts = module.split(".")
        package = parts[: len(parts) - node.level + is_package]
        return ".".join([*package, *([node.module] if node.module else [])])

    def _always(self, body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
        for statement in body:
            yield statement
            yield from self._always(self._inner(statement))
            if self._leaves(statement):
                return

    def _inner(self, statement: ast.stmt) -> list[ast.stmt]:
        """The statements within one that run whenever it does. Loops count as run once."""
        match statement:
            case ast.If():
                known = self._truth(statement.test)
                return [] if known is None else statement.body if known else statement.orelse
            case ast.Try():
                survives = any(map(_survives, statement.handlers))
                return [*([] if survives else statement.body + statement.orelse), *statement.finalbody]
            case ast.With() | ast.AsyncWith():
                return [] if any(_mentioned(item) & _SURVIVORS for item in statement.items) else statement.body
            case ast.For() | ast.AsyncFor() | ast.While() | ast.ClassDef():
                return statement.body
        return []

    def _leaves(self, statement: ast.stmt) -> bool:
        if isinstance(statement, ast.If | ast.Try | ast.With | ast.AsyncWith):
            return any(map(self._leaves, self._inner(statement)))
        return isinstance(statement, ast.Return | ast.Raise)

    def _truth(self, test: ast.expr) -> bool | None:
        match test:
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                known = self._truth(operand)
                return None if known is None else not known
            case ast.BoolOp(op=operator, values=values):
                parts, deciding = [self._truth(value) for value in values], isinstance(operator, ast.Or)
                return deciding if deciding in parts else None if None in parts else not deciding
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
                return self._facts.get(name)
            case ast.Name(id=name) | ast.Attribute(attr=name):
                return self._facts.get(name)
        return None


def _own_parts(statement: ast.stmt) -> Iterator[ast.AST]:
    """A statement and its expressions, without the statements within it and what a lambda does later."""
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        yield node
        children = ast.iter_child_nodes(node)
        waiting.extend(child for child in children if not isinstance(child, ast.stmt | ast.ExceptHandler | ast.Lambda))


def _survives(handler: ast.ExceptHandler) -> bool:
    """Whether an import that fails is no fault: one that is caught and raised again is."""
    if any(isinstance(statement, ast.Raise) for statement in handler.body):
        return False
    return handler.type is None or bool(_mentioned(handler.type) & _SURVIVORS)


def _mentioned(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


class Walk:
    """Follows imports and calls within some packages; what they import of others is what a start needs.

    Args:
        sources: the folders of the packages.
        packages: the top-level packages that are followed.
    """

    def __init__(self, sources: Sources, packages: set[str]) -> None:
        self._sources = sources
        self._packages = packages
        self._waiting: deque[Scope] = deque()
        self.reached: dict[Scope, Scope | None] = {}
        """Each scope with the one that led there first, which is on a shortest way."""
        self.needed: dict[str, Scope] = {}
        """Each module of another package that is imported, with the first scope that does."""
        self.absent: dict[str, Scope] = {}
        """Each module of the followed packages that is imported and has no source: it is compiled, or gone."""

    def follow(self, *modules: str) -> None:
        """Follows modules as if each of their functions were called.

        Raises:
            ModuleNotFoundError: there is no source of one.
        """
        with _without_collections():
            for module in modules:
                for package in filter(self._sources.file, _prefixes(module)):
                    self._reach(Scope(package), None)
                for name, node in self._sources.definitions(module).items():
                    if isinstance(node, Function):
                        self._reach(Scope(module, name), None)
            while self._waiting:
                self._visit(self._waiting.popleft())

    def chain(self, module: str) -> list[Scope]:
        """The way from where the walk began to the import of a module of `needed`."""
        way = []
        scope: Scope | None = self.needed[module]
        while scope:
            way.append(scope)
            scope = self.reached[scope]
        return way[::-1]

    def _reach(self, scope: Scope, origin: Scope | None) -> None:
        if scope not in self.reached:
            self.reached[scope] = origin
            self._waiting.append(scope)

    def _visit(self, scope: Scope) -> None:
        for node in self._sources.running(scope):
            if not isinstance(node, ast.Call):
                for each in self._sources.imported(node, scope.module):
                    self._import(each, scope)
            elif (name := self._dotted(node.func, scope)) and (called := self._resolve(name)):
                self._reach(called, scope)

    def _import(self, each: Imported, origin: Scope) -> None:
        package = each.module.split(".")[0]
        if package in self._packages:
            for module in [*_prefixes(each.module), each.target]:  # what is imported of a package may be a module of it
                if self._sources.file(module):
                    self._reach(Scope(module), origin)
                elif module == each.module:
                    self.absent.setdefault(module, origin)
        elif package not in sys.stdlib_module_names:
            self.needed.setdefault(each.module, origin)

    def _dotted(self, called: ast.expr, scope: Scope) -> str | None:
        """What `name.attribute` means in a scope, as dotted name from its package on; None if that is unknown."""
        parts = []
        while isinstance(called, ast.Attribute):
            parts.append(called.attr)
            called = called.value
        start = self._meaning(called.id, scope) if isinstance(called, ast.Name) else None
        return ".".join([start, *reversed(parts)]) if start else None

    def _meaning(self, name: str, scope: Scope) -> str | None:
        if name == "self" and "." in scope.function:
            return f"{scope.module}.{scope.function.split('.')[0]}"
        if imported_here := self._sources.names(scope).get(name):
            return imported_here
        if name in self._sources.definitions(scope.module):
            return f"{scope.module}.{name}"
        return self._sources.names(Scope(scope.module)).get(name)

    def _resolve(self, name: str, steps: int = _LONGEST_WAY) -> Scope | None:
        """The function of a dotted name; of a class its `__init__`."""
        module = next((prefix for prefix in reversed(_prefixes(name)) if self._sources.file(prefix)), "")
        rest = name[len(module) + 1 :]
        if not (steps and rest and name.split(".")[0] in self._packages):
            return None
        found = self._sources.definitions(module).get(rest)
        if isinstance(found, Function):
            return Scope(module, rest)
        others = [f"{name}.__init__"] if found else self._other_names(module, rest)
        return next(filter(None, (self._resolve(other, steps - 1) for other in others)), None)

    def _other_names(self, module: str, name: str) -> list[str]:
        """Where else a module's name may be defined: in a base class, or where the module has it from."""
        first, _, method = name.partition(".")
        owner = self._sources.definitions(module).get(first)
        if isinstance(owner, ast.ClassDef):
            bases = [self._dotted(base, Scope(module)) for base in owner.bases]
            return [f"{base}.{method}" for base in bases if base]
        target = self._sources.names(Scope(module)).get(first)
        return [target + name.removeprefix(first)] if target else []


def _prefixes(name: str) -> list[str]:
    """`a.b.c` → a, a.b, a.b.c: what Python imports for it, in this order."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


@contextmanager
def _without_collections() -> Iterator[None]:
    """Nothing becomes garbage; looking for it among millions of nodes would take three times as long as the walk."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
