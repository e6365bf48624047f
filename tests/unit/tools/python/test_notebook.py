"""Cells: variables that last, the value of the last expression, tracebacks of the cell alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from gptoss_bento.tools.python.notebook import Notebook


@pytest.fixture
def notebook() -> Iterator[Notebook]:
    main = sys.modules["__main__"]
    yield Notebook()
    sys.modules["__main__"] = main


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("1 + 1", "2\n"),
        ("'a'", "'a'\n"),
        ("None", ""),
        ("x = 1", ""),
        ("x = 1\nx", "1\n"),
        ("1\n2", "2\n"),
        ("print('a')\n2", "a\n2\n"),
        ("", ""),
        ("# only a comment", ""),
        ("if True:\n    1", ""),
        ("x = 5; x", "5\n"),
        ("'''text\nof two lines'''", "'text\\nof two lines'\n"),
    ],
)
def test_cell_shows_what_it_prints_and_its_last_expression(
    code: str, shown: str, notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    assert notebook.run(code) is False
    assert capsys.readouterr().out == shown


def test_variables_last(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.run("def double(x):\n    return 2 * x\n21")

    notebook.run("double(_)")

    assert capsys.readouterr().out == "21\n42\n"


def test_classes_can_be_pickled_and_be_dataclasses(notebook: Notebook) -> None:
    code = (
        "import dataclasses, pickle\n@dataclasses.dataclass\nclass A:\n    x: 'int'\n"
        "assert pickle.loads(pickle.dumps(A(1))) == A(1)"
    )

    assert notebook.run(code) is False


def test_error_shows_the_lines_of_cells_alone(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.run("def fail():\n    raise ValueError('why')")

    assert notebook.run("x = 3\nfail()") is True

    shown = capsys.readouterr().err
    assert shown.startswith('Traceback (most recent call last):\n  File "<cell 2>", line 2, in <module>\n    fail()\n')
    assert 'File "<cell 1>", line 2, in fail\n    raise ValueError' in shown
    assert shown.endswith("ValueError: why\n")
    assert notebook.run("assert x == 3") is False


def test_wrong_syntax_shows_its_line(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    assert notebook.run("x = = 1") is True

    shown = capsys.readouterr().err
    assert "notebook.py" not in shown
    assert "x = = 1" in shown


@pytest.mark.parametrize(
    ("code", "failed"), [("raise SystemExit", False), ("exit_code = 1\nraise SystemExit(1)", True)]
)
def test_end_of_the_program_ends_the_cell_alone(code: str, failed: bool, notebook: Notebook) -> None:
    assert notebook.run(code) is failed
    assert notebook.run("1") is False
