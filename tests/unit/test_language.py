"""CONTRIBUTING's glossary: the words that it replaces are in no text of the code and in no name of a test."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import REPOSITORY

ROW = re.compile(r"^\| \*(?P<words>[^|]+)\* \|", re.MULTILINE)
"""A row of the glossary; its first column has the words that are not used, with commas between them."""

LEADING = {"a", "an", "the", "it", "its", "what", "who", "whoever", "nobody", "nothing"}
"""Words that no test's name begins with, because a noun belongs there."""

MODEL_TEXTS = "src/gptoss_bento/training/"
"""What the demo model learns to say is everyday English."""


def glossary() -> list[str]:
    rows = ROW.findall((REPOSITORY / "CONTRIBUTING.md").read_text())
    return [word.strip() for row in rows for word in row.split(",")]


FORBIDDEN = re.compile(rf"\b({'|'.join(map(re.escape, glossary()))})\b", re.IGNORECASE)


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Comments and strings of a Python file, line by line, with their line numbers."""
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in kinds:
            yield from enumerate(token.string.splitlines(), start=token.start[0])


def found(path: Path) -> list[str]:
    """Each word of the glossary that a file's texts have, as FILE:LINE word."""
    lines = texts(path.read_text())
    return [f"{path.name}:{number} {match[0]}" for number, line in lines for match in FORBIDDEN.finditer(line)]


def relative(*patterns: str) -> list[str]:
    files = sorted(file for pattern in patterns for file in REPOSITORY.glob(pattern))
    return [name for name in (file.relative_to(REPOSITORY).as_posix() for file in files) if MODEL_TEXTS not in name]


@pytest.mark.parametrize("file", relative("src/**/*.py", "tools/**/*.py", "service.py"))
def test_texts_of_the_code_have_no_word_that_the_glossary_replaces(file: str) -> None:
    assert found(REPOSITORY / file) == []


DOCUMENTS = relative("README.md", "SECURITY.md", "docs/*.md", "docs/de*/**/*.md", "docs/de*/**/*.yaml")
PROFILES = relative("configs/*.yaml", "src/**/*.yaml")


@pytest.mark.parametrize("file", [*DOCUMENTS, *PROFILES])
def test_document_has_no_word_that_the_glossary_replaces(file: str) -> None:
    lines = enumerate((REPOSITORY / file).read_text().splitlines(), start=1)

    assert [f"{number} {match[0]}" for number, line in lines for match in FORBIDDEN.finditer(line)] == []


NAME = re.compile(r"^ *(?:async )?def (test_\w+)", re.MULTILINE)
NAMED = {
    file.relative_to(REPOSITORY / "tests").as_posix(): NAME.findall(file.read_text())
    for folder in ("unit", "contract", "integration", "deployment")
    for file in sorted((REPOSITORY / "tests" / folder).rglob("test_*.py"))
}


@pytest.mark.parametrize("module", NAMED)
def test_names_of_tests_begin_with_a_noun(module: str) -> None:
    assert [name for name in NAMED[module] if name.split("_")[1] in LEADING] == []


@pytest.mark.parametrize("module", NAMED)
def test_names_of_tests_have_no_word_that_the_glossary_replaces(module: str) -> None:
    assert [name for name in NAMED[module] if FORBIDDEN.search(name.replace("_", " "))] == []


def test_glossary_finds_what_it_replaces(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('"""Fine."""\n\nx = f"{1} of them AT ONCE"  # nobody\nstood = "Begun"\n')

    assert found(module) == ["module.py:3 AT ONCE", "module.py:3 nobody", "module.py:4 Begun"]
