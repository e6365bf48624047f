"""Questions for python come with code that computes what the answer says."""

from __future__ import annotations

import contextlib
import io

from gptoss_bento.training.arithmetic import Arithmetic
from gptoss_bento.training.conversations import dice, knowledge
from gptoss_bento.training.questions import Questions


def printed(code: str) -> str:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(code, {})  # noqa: S102  # code of our own training data
    return shown.getvalue().strip()


def test_code_prints_the_value() -> None:
    for text, value in knowledge()["expressions"].items():
        assert printed(f"print({text})") == value
    for drawn in knowledge()["sums_in_words"]:
        assert printed(drawn["code"]) == drawn["value"]


def test_answer_is_what_python_printed_or_that_it_failed() -> None:
    kinds = set()
    for item, call in (Arithmetic(Questions(dice(seed))).computed() for seed in range(400)):
        answer = item.answers[""]
        kinds.add(answer.partition(" is ")[0])
        if answer.startswith("The result is"):
            assert answer == f"The result is {call.result.strip()}."
    assert kinds == {"The result", "Python printed nothing.", "Python reports an error."}
