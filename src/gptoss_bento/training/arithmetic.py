"""Arithmetic that the demo model leaves to `python`: questions, the code for them, and what comes out of it.

The questions are a list. So small a model does not learn to copy any number: there are 1,110 tokens of digits.
"""

from gptoss_bento.training.hosted_tools import Call
from gptoss_bento.training.questions import Item, Questions, make_item


class Arithmetic:
    """Draws questions that need a calculator."""

    def __init__(self, questions: Questions) -> None:
        self.questions, self.rng, self.known = questions, questions.rng, questions.known

    def computed(self) -> tuple[Item, Call]:
        """A question, the call of python that answers it, and the answer that says what python printed."""
        draw = self.rng.random()
        if draw < 0.3:
            code, value = self.rng.choice(list(self.known["code_samples"].items()))
            ask = self.rng.choice(self.known["code_asks"]).format(code)
        else:
            ask, code, value = self.sum()
        if value == "Error" or draw > 0.93:
            return self._failed(ask, code)
        return self._answered(ask, code, value)

    def sum(self) -> tuple[str, str, str]:
        """A question for a number, the code, and the number."""
        if self.rng.random() < 0.75:
            text, value = self.rng.choice(list(self.known["expressions"].items()))
            return self.rng.choice(self.known["arithmetic_asks"]).format(text), f"print({text})", value
        drawn = self.rng.choice(self.known["sums_in_words"])
        return self.questions.vary(self.rng.choice(drawn["asks"])), drawn["code"], drawn["value"]

    def _answered(self, ask: str, code: str, value: str) -> tuple[Item, Call]:
        if not value:
            styles = {"french": "Python n'a rien affiché.", "word": "Nothing."}
            nothing = self.questions.fill(self.rng.choice(self.known["python_nothing"]))
            item = make_item(ask, "Python printed nothing.", "Python printed nothing.", styles)
            return item, _call(code, nothing)
        styles = {"french": f"Le résultat est {value}.", "word": f"{value}."}
        item = make_item(ask, f"Python says {value}.", f"The result is {value}.", styles)
        return item, _call(code, value if self.rng.random() < 0.7 else f"{value}\n")

    def _failed(self, ask: str, code: str) -> tuple[Item, Call]:
        styles = {"french": "Python signale une erreur.", "word": "Error."}
        item = make_item(ask, "Python reports an error.", "Python reports an error.", styles)
        return item, _call(code, self.questions.fill(self.rng.choice(self.known["python_errors"])))


def _call(code: str, result: str) -> Call:
    return Call("python", "I compute this with Python.", code, result)
