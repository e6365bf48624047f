"""What tests promise: how fast the machine is decides nothing."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

import pytest

from tests.server import REPOSITORY
from tests.waiting import until, wait_for


def nodes(word: str) -> Iterator[tuple[str, ast.AST]]:
    """Each node of the syntax of each test that has this word, and where it is."""
    for path in sorted((REPOSITORY / "tests").rglob("*.py")):
        if word in (text := path.read_text()):
            for node in ast.walk(ast.parse(text)):
                yield f"{path.relative_to(REPOSITORY)}:{getattr(node, 'lineno', 0)}", node


def is_timeout_of_seconds(node: ast.AST) -> bool:
    """`asyncio.timeout(5)`, in place of a ceiling that has a name."""
    return (
        isinstance(node, ast.Call)
        and ast.unparse(node.func) == "asyncio.timeout"
        and isinstance(node.args[0], ast.Constant)
    )


def bounds_elapsed_time(node: ast.AST) -> bool:
    """`time.monotonic() - began < 5`."""
    return (
        isinstance(node, ast.Compare)
        and isinstance(node.ops[0], ast.Lt | ast.LtE)
        and ast.unparse(node.left).startswith("time.monotonic() - ")
    )


@pytest.mark.parametrize(
    ("word", "is_bound"), [("asyncio.timeout(", is_timeout_of_seconds), ("time.monotonic() - ", bounds_elapsed_time)]
)
def test_timeout_of_a_test_is_one_that_only_a_hang_reaches(word: str, is_bound: Callable[[ast.AST], bool]) -> None:
    assert [where for where, node in nodes(word) if is_bound(node)] == []


def test_wait_ends_when_it_has_happened() -> None:
    looks = iter([False, False, True])

    wait_for(lambda: next(looks))

    assert list(looks) == []


def test_wait_says_what_hangs() -> None:
    with pytest.raises(AssertionError, match=r"after 0 s: no engine"):
        wait_for(lambda: False, lambda: "no engine", ceiling_s=0)


async def test_wait_in_a_loop_lets_others_go_on() -> None:
    looks = iter([False, False, True])

    await until(lambda: next(looks))

    assert list(looks) == []
