"""Arithmetic that the demo model leaves to `python`: questions, the code for them, and what comes out of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from gptoss_bento.training.hosted_tools import Call
from gptoss_bento.training.questions import Item, Questions, make_item

_OPERATIONS: dict[str, Callable[[int, int], int | float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "**": lambda a, b: a**b,
}
_FUNCTIONS: dict[str, Callable[..., int | float]] = {
    "gcd": math.gcd,
    "lcm": math.lcm,
    "factorial": math.factorial,
    "sqrt": math.sqrt,
}
_LARGEST_POWER = 10**36
_LARGEST_FACTORIAL = 30


@dataclass(frozen=True)
class Sum:
    """A question for a number, and how to get it: the question and the code hold the same digits."""

    ask: str
    code: str
    value: int | float


class Arithmetic:
    """Draws questions that need a calculator."""

    def __init__(self, questions: Questions) -> None:
        self.questions, self.rng, self.known = questions, questions.rng, questions.known

    def computed(self) -> tuple[Item, Call]:
        """A question, the call of python that answers it, and the answer that reads the result."""
        if self.rng.random() < 0.12:
            return self.code()
        drawn = self.draw()
        if self.rng.random() < 0.04:
            return self._failed(drawn.ask, drawn.code)
        return self._answered(drawn.ask, drawn.code, str(drawn.value), f"{drawn.value}\n")

    def draw(self) -> Sum:
        """A question: an expression as it is to be computed, one in words, or a function."""
        kinds = {self.expression: 60, self.in_words: 16, self.power_modulo: 12, self.function: 12}
        return self.rng.choices(list(kinds), list(kinds.values()))[0]()

    def code(self) -> tuple[Item, Call]:
        """The user gives the code."""
        code, result = self.rng.choice(list(self.known["code_samples"].items()))
        number = str(self.number())
        if "{sum}" in code:
            drawn = self.expression()
            code, result = drawn.code, f"{drawn.value}\n"
        code, result = code.replace("{number}", number), result.replace("{number}", number)
        ask = self.rng.choice(self.known["code_asks"]).format(code)
        if "Error" in result:
            return self._failed(ask, code)
        return self._answered(ask, code, result.strip(), result)

    def number(self) -> int:
        """A number of any length up to ten digits, short ones more often."""
        digits = self.rng.choices(range(1, 11), [10, 20, 24, 14, 8, 8, 5, 4, 4, 3])[0]
        return self.rng.randrange(10 ** (digits - 1), 10**digits)

    # Kinds of questions

    def expression(self) -> Sum:
        """Two numbers or three, with operators, in one of the ways to space them."""
        operator = self.rng.choices(list(_OPERATIONS), [12, 12, 26, 6, 6, 12, 18])[0]
        a, b = self.operands(operator)
        text, value = f"{a}{self.spaced(operator)}{b}", _OPERATIONS[operator](a, b)
        if operator in ("+", "-", "*", "**") and self.rng.random() < 0.35:
            text, value = self.longer(text, operator, value)
        ask = self.rng.choice(self.known["arithmetic_asks"]).format(text)
        return Sum(ask, f"print({text})", value)

    def longer(self, text: str, operator: str, value: int | float) -> tuple[str, int | float]:
        """The expression with one more operator, which binds no closer than its own, unless it is in parentheses."""
        last = self.rng.choice(["+", "-"] if operator in ("+", "-") else ["+", "-", "*", "%", "%"])
        number = self.number() % 100_000 + 1
        if operator != "**" and self.rng.random() < 0.3:
            text, last = f"({text})", self.rng.choice(["*", "*", "%", "+"])
        return f"{text}{self.spaced(last)}{number}", _OPERATIONS[last](int(value), number)

    def operands(self, operator: str) -> tuple[int, int]:
        """Numbers for the operator: none is divided by zero, and powers remain printable."""
        a, b = self.number(), max(1, self.number())
        if operator == "**":
            b = self.rng.choice([self.rng.randint(2, 12), self.rng.randint(2, 120), self.rng.randint(2, 300)])
            fitting = max(2, int(_LARGEST_POWER ** (1 / b)))
            a = self.rng.randint(2, min(max(3, fitting), 10_000))
        return (a, b) if operator != "+" or max(a, b) > 9 else (a + 10, b)

    def power_modulo(self) -> Sum:
        """A power that is too large to write down, by a modulus."""
        a, b, modulus = self.rng.randint(2, 999), self.rng.randint(2, 999), self.number() % 10_000 + 2
        power, remainder = self.spaced("**"), self.spaced("%")
        value = pow(a, b, modulus)
        if self.rng.random() < 0.6:
            text = f"{a}{power}{b}{remainder}{modulus}"
            return Sum(self.rng.choice(self.known["arithmetic_asks"]).format(text), f"print({text})", value)
        ask = self.rng.choice(self.known["power_modulo_asks"]).format(a, b, modulus)
        return Sum(ask, f"print({a}**{b} % {modulus})", value)

    def in_words(self) -> Sum:
        """An operator in words, or `^` for a power."""
        words, operator = self.rng.choice(list(self.known["operators_in_words"].items()))
        a, b = self.operands(operator)
        ask = self.rng.choice(self.known["word_asks"]).format(f"{a}{words}{b}")
        return Sum(ask, f"print({a} {operator} {b})", _OPERATIONS[operator](a, b))

    def function(self) -> Sum:
        """A function of Python's math."""
        name, asks = self.rng.choice(list(self.known["math_asks"].items()))
        values = [self.number() % 10**6 + 2, self.number() % 10**6 + 2]
        if name == "factorial":
            values = [self.rng.randint(3, _LARGEST_FACTORIAL)]
        if name == "sqrt":
            values = [self.rng.choice([self.rng.randint(2, 9999) ** 2, self.rng.randint(2, 10**6)])]
        code = f"import math\nprint(math.{name}({', '.join(map(str, values))}))"
        return Sum(self.rng.choice(asks).format(*values), code, _FUNCTIONS[name](*values))

    def spaced(self, operator: str) -> str:
        """The operator as people type it: powers tight, others tight or spaced."""
        return f" {operator} " if self.rng.random() < (0.3 if operator == "**" else 0.6) else operator

    # Results

    def _answered(self, ask: str, code: str, value: str, result: str) -> tuple[Item, Call]:
        result = result if self.rng.random() < 0.3 else result.removesuffix("\n")
        if not value:
            result = self.questions.fill(self.rng.choice(self.known["python_nothing"]))
            styles = {"french": "Python n'a rien affiché.", "word": "Nothing."}
            item = make_item(ask, "Python printed nothing.", "Python printed nothing.", styles)
        else:
            styles = {"french": f"Le résultat est {value}.", "word": f"{value}."}
            item = make_item(ask, f"Python says {value}.", f"The result is {value}.", styles)
        return item, self._call(code, result)

    def _failed(self, ask: str, code: str) -> tuple[Item, Call]:
        styles = {"french": "Python signale une erreur.", "word": "Error."}
        item = make_item(ask, "Python reports an error.", "Python reports an error.", styles)
        return item, self._call(code, self.questions.fill(self.rng.choice(self.known["python_errors"])))

    def _call(self, code: str, result: str) -> Call:
        return Call("python", "I compute this with Python.", code, result)
