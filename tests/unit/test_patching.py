"""The records of what is replaced in other libraries: true of what is installed, and the only way to replace it."""

from __future__ import annotations

import ast
import pkgutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from gptoss_bento.patching import Patch, PrivateUse
from tests.patch_targets import PACKAGE, TABLES, found_in, patches, private_uses
from tests.server import REPOSITORY

RECORDS: list[Patch | PrivateUse] = [*patches(), *private_uses()]
INSTALLED = Path(sysconfig.get_path("purelib"))


def names(records: list[Patch] | list[PrivateUse] | list[Patch | PrivateUse]) -> list[str]:
    return [record.target for record in records]


# the records


@pytest.mark.parametrize("record", RECORDS, ids=names(RECORDS))
def test_target_is_in_the_installed_library(record: Patch | PrivateUse) -> None:
    if record.only_with:
        pytest.skip(f"only with the lock for {record.only_with}")

    if not found_in(INSTALLED, record.target):
        pkgutil.resolve_name(record.target)  # raises


@pytest.mark.parametrize("record", RECORDS, ids=names(RECORDS))
def test_record_names_a_contract_test_that_there_is(record: Patch | PrivateUse) -> None:
    file, _, test = record.test.partition("::")
    tree = ast.parse((REPOSITORY / file).read_text())

    assert test in {it.name for it in tree.body if isinstance(it, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("record", RECORDS, ids=names(RECORDS))
def test_record_has_a_reason_in_whole_sentences(record: Patch | PrivateUse) -> None:
    texts = [record.reason, record.instead] if isinstance(record, Patch) else [record.reason]

    assert all(text.endswith(".") for text in texts)


def test_use_has_a_description() -> None:
    assert {use.how for use in private_uses()} <= {"read", "called", "set", "overridden"}


def test_target_is_listed_once() -> None:
    assert [it for it in set(names(private_uses())) if names(private_uses()).count(it) > 1] == []
    assert [it for it in set(names(patches())) if names(patches()).count(it) > 1] == []


def test_vllm_is_replaced_only_by_the_package_that_imports_it() -> None:
    tables = {parts for parts in TABLES if parts[0] != "engine"}
    others = [it for parts in tables for it in (PACKAGE.joinpath(*parts).with_suffix(".py")).read_text().split('"')]

    assert [it for it in others if it.startswith(("vllm.", "triton"))] == []


def test_records_are_all_in_the_documents() -> None:
    page = (REPOSITORY / "docs" / "upgrading.md").read_text()

    assert [record.target for record in RECORDS if f"`{record.target}`" not in page] == []


# no other way


MODULES = [*PACKAGE.rglob("*.py"), REPOSITORY / "service.py"]


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.relative_to(REPOSITORY).as_posix())
def test_modules_set_no_attribute_of_another_library(file: Path) -> None:
    tree = ast.parse(file.read_text())
    foreign = set(foreign_names(tree))

    assert [f"{file.name}:{line}" for name, line in names_set(tree) if name in foreign] == []


OWN_OBJECTS = {
    "failure.exit_signal",  # errors.EngineStartError
    "startup.phase",
    "request.num_output_placeholders",  # counted down as the replaced function does
    "parameters.thinking_token_budget",  # a public field of SamplingParams
    "params.max_tokens",  # a public field of SamplingParams
    "chat.include_reasoning",  # a field of requests, which clients set
    "described._vllm_guarded",  # the function that takes the place of Triton's
    "parameter.do_not_specialize",  # a PrivateUse, of each of a kernel's parameters
}


@pytest.mark.parametrize("file", [*(PACKAGE / "engine").rglob("*.py")], ids=lambda file: file.name)
def test_engine_sets_no_attribute_of_an_object_that_is_not_in_the_table(file: Path) -> None:
    listed = {record.target.rpartition(".")[2] for record in private_uses() if record.how == "set"}
    found = {
        f"{ast.unparse(node.value)}.{node.attr}"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr not in listed
    }

    assert {it for it in found if not it.startswith("self.")} - OWN_OBJECTS <= {"app.state.server"}


def foreign_names(tree: ast.Module) -> Iterator[str]:
    """What a module binds by importing from a library that is neither ours nor Python's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names if is_foreign(alias.name))
        elif isinstance(node, ast.ImportFrom) and node.module and is_foreign(node.module):
            yield from (alias.asname or alias.name for alias in node.names)


def is_foreign(module: str) -> bool:
    top = module.partition(".")[0]
    return top != "gptoss_bento" and top not in sys.stdlib_module_names


def names_set(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The names on whose attributes something is set or deleted, by assignment or by `setattr`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield root(node), node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr":
            yield root(node.args[0]), node.lineno


def root(node: ast.expr) -> str:
    """`a` of `a.b.c`."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import vllm.v1 as v1\nv1.utils.f = None", True),
        ("def f():\n    from uvicorn import config\n    setattr(config, 'x', 1)", True),
        ("import os\nos.environ = {}", False),
        ("class A:\n    def f(self):\n        self.x = 1", False),
    ],
)
def test_rule_finds_what_it_is_for(source: str, found: bool) -> None:
    tree = ast.parse(source)

    assert bool({name for name, _ in names_set(tree)} & set(foreign_names(tree))) is found


# how a record is applied


@pytest.fixture
def patch(monkeypatch: pytest.MonkeyPatch) -> Patch:
    library = ModuleType("a_library")
    library.Class = type("Class", (), {"method": "its own"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_library", library)
    return Patch("a_library:Class.method", "Because.", "None.", "a::test")


def test_patch_replaces_its_target(patch: Patch) -> None:
    patch.replace("ours")

    assert patch.original() == "ours"


def test_patch_is_put_back_at_the_end_of_a_block(patch: Patch) -> None:
    with patch.replaced("ours"):
        assert patch.original() == "ours"

    assert patch.original() == "its own"


def test_patch_wraps_what_is_there(patch: Patch) -> None:
    patch.wrap(lambda own: f"{own}, wrapped")

    assert patch.original() == "its own, wrapped"


def test_patch_of_one_object_leaves_the_class_alone(patch: Patch) -> None:
    instance = SimpleNamespace(method="of one")
    patch.wrap_on(instance, lambda own: f"{own}, wrapped")

    assert (instance.method, patch.original()) == ("of one, wrapped", "its own")


def test_target_that_is_gone_is_an_error(patch: Patch) -> None:
    with pytest.raises(AttributeError):
        Patch("a_library:Class.gone", "Because.", "None.", patch.test).original()


# where a target is in sources


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("library.module:function", True),
        ("library.module:Class.method", True),
        ("library.module:Class.on_self", True),
        ("library.module:Class.inherited", True),
        ("library:Class.method", True),
        ("library.module:gone", False),
        ("library.module:Class.gone", False),
        ("library.gone:function", False),
    ],
)
def test_target_is_found_in_sources(tmp_path: Path, target: str, found: bool) -> None:
    package = tmp_path / "library"
    package.mkdir()
    (package / "__init__.py").write_text("from library.module import Class\n")
    (package / "base.py").write_text("class Base:\n    inherited: int = 1\n")
    (package / "module.py").write_text(
        "from library.base import Base\n\ndef function(): ...\n\nclass Class(Base):\n"
        "    def method(self):\n        self.on_self = 1\n"
    )

    assert found_in(tmp_path, target) is found
