"""Questions for python come with code that computes what the answer says."""

from __future__ import annotations

import contextlib
import io
import math
import re

from gptoss_bento.training.arithmetic import Arithmetic
from gptoss_bento.training.conversations import UNKNOWN_WORD, dice
from gptoss_bento.training.questions import Questions


def arithmetic(seed: int) -> Arithmetic:
    return Arithmetic(Questions(dice(seed)))


def printed(code: str) -> str:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(code, {"math": math})  # noqa: S102  # code of our own training data
    return shown.getvalue().strip()


def test_code_prints_the_value() -> None:
    for drawn in (arithmetic(seed).draw() for seed in range(400)):
        assert printed(drawn.code) == str(drawn.value), drawn


def test_expression_is_copied_into_the_code_as_it_is_asked() -> None:
    for drawn in (arithmetic(seed).expression() for seed in range(200)):
        assert drawn.code.removeprefix("print(").removesuffix(")") in drawn.ask


def test_sum_of_two_digits_is_not_among_them() -> None:
    for drawn in (arithmetic(seed).expression() for seed in range(400)):
        assert not re.fullmatch(r"print\(\d ?\+ ?\d\)", drawn.code)


def test_answer_is_what_python_printed_or_that_it_failed() -> None:
    kinds = set()
    for item, call in (arithmetic(seed).computed() for seed in range(1000)):
        answer = item.answers[""]
        kinds.add(answer.partition(" is ")[0])
        if answer.startswith("The result is"):
            assert answer == f"The result is {call.result.strip()}."
            assert UNKNOWN_WORD not in call.result
    assert kinds == {"The result", "Python printed nothing.", "Python reports an error."}
