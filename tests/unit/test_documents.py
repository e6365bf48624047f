"""What the documents name is there: pages, headings, files, modules, packages and decisions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import REPOSITORY
from tests.unit.test_rules import ALLOWED, LEAVES, PACKAGE, tree

DOCUMENTS = sorted(
    path.relative_to(REPOSITORY).as_posix() for path in [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
)
# They say what was seen on a day, by the names of that day. Their links must hold all the same.
HISTORY = ("CHANGELOG.md", "docs/measurements/")
CURRENT = [name for name in DOCUMENTS if not name.startswith(HISTORY)]

_LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]*)(#[^)\s]*)?\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_TOP = r"(?:src|tests|docs|configs|scripts|tools|requirements|\.ci)/[\w./*-]*[\w*/]"
_MODULE_FILE = r"[\w/]+\.py"
_PATH = re.compile(rf"(?<![\w/.<{{-])(?:{_TOP}|{_MODULE_FILE})")
_DOTTED = re.compile(r"\b(?:gptoss_bento|tools|tests)(?:\.(?!md\b)[a-z_]+)+")  # tools.md is a page


def text_of(document: str) -> str:
    return (REPOSITORY / document).read_text()


def anchors(document: Path) -> set[str]:
    """The headings as GitHub links them."""
    headings = _HEADING.findall(_FENCE.sub("", document.read_text()))
    return {"#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(document: str) -> Iterator[str]:
    for path, anchor in _LINK.findall(_FENCE.sub("", text_of(document))):
        target = (REPOSITORY / document).parent / path if path else REPOSITORY / document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield path + anchor


def exists(name: str) -> bool:
    """Whether a file or folder of that name is in the repository or the package. A bare name may be anywhere there."""
    if "/" not in name:
        folders = [REPOSITORY / top for top in ("src", "tests", "tools")]
        return (REPOSITORY / name).exists() or any(next(folder.rglob(name), None) for folder in folders)
    return any(next(folder.glob(name.rstrip("/")), None) for folder in (REPOSITORY, PACKAGE, REPOSITORY / "tests"))


def is_module(dotted: str) -> bool:
    """Whether it is a module or what a module holds."""
    root = {"gptoss_bento": PACKAGE, "tools": REPOSITORY / "tools", "tests": REPOSITORY / "tests"}
    first, *parts = dotted.split(".")
    path = root[first].joinpath(*parts)
    return path.is_dir() or path.with_suffix(".py").exists() or path.parent.with_suffix(".py").exists()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_link_leads_to_a_page_and_a_heading(document: str) -> None:
    assert list(dead_links(document)) == []


# What is not this repository's: library files, and a module that only a Bento has.
ELSEWHERE = {"triton/runtime/cache.py", "uvicorn/config.py"}


@pytest.mark.parametrize("document", CURRENT)
def test_file_that_is_named_exists(document: str) -> None:
    named = {name for name in _PATH.findall(text_of(document)) if not name.startswith("vllm/")}
    assert {name for name in named if not exists(name)} - ELSEWHERE == set()


@pytest.mark.parametrize("document", CURRENT)
def test_module_that_is_named_exists(document: str) -> None:
    assert {name for name in _DOTTED.findall(text_of(document)) if not is_module(name)} == set()


def purpose(package: str) -> str:
    return ast.get_docstring(tree(f"{package}/__init__.py")) or ""


def test_architecture_has_the_table_of_packages() -> None:
    """Each package with its purpose, as its docstring says, and what it may import, as the rules say."""
    rows = [
        f"| `{name}/` | {purpose(name)} | {', '.join(f'`{lower}`' for lower in sorted(allowed)) or '–'} |"
        for name, allowed in ALLOWED.items()
    ]

    assert [row for row in rows if row not in text_of("docs/architecture.md")] == []


def test_architecture_names_the_leaves() -> None:
    assert {leaf for leaf in LEAVES if f"`{leaf}.py`" not in text_of("docs/architecture.md")} == set()


DECISIONS = sorted(path.name for path in (REPOSITORY / "docs/decisions").glob("[0-9]*.md"))


@pytest.mark.parametrize("name", DECISIONS)
def test_decision_has_its_parts(name: str) -> None:
    text = text_of(f"docs/decisions/{name}")

    assert text.startswith(f"# {name[:4]} ")
    assert [
        part for part in ("Problem", "Choice", "How we know", "When to drop it") if f"## {part}\n" not in text
    ] == []


def test_decisions_are_all_in_the_index() -> None:
    index = text_of("docs/decisions/README.md")

    assert [name for name in DECISIONS if f"({name})" not in index] == []
    assert len({name[:4] for name in DECISIONS}) == len(DECISIONS)


def test_readme_has_each_page_of_docs() -> None:
    pages = [path.name for path in (REPOSITORY / "docs").glob("*.md")]

    assert [name for name in pages if f"(docs/{name})" not in text_of("README.md")] == []
