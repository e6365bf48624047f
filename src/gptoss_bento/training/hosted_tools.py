"""GPT-OSS's own tools, `python` and `browser`: how they stand in the system message, how they are called and answer.

vLLM renders a call again, with another header than the model wrote, before the model reads the result; which one
depends on the channel and the version of the Harmony library. So the header of a call in the prompt varies.
"""

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from gptoss_bento.training.conversations import HostedTool, Message, knowledge
from gptoss_bento.training.questions import Questions

Name = Literal["python", "browser.search", "browser.open"]

_SAID = "assistant<|channel|>analysis to={} code"
_RENDERED_AGAIN = (
    "assistant to={}<|channel|>analysis <|constrain|>code",
    "assistant to={}<|channel|>analysis <|constrain|>code",
    "assistant to={}<|channel|>analysis code",
    "assistant to={}<|channel|>commentary code",
)
_ANSWERED = ("{} to=assistant<|channel|>analysis", "{} to=assistant<|channel|>commentary", "{} to=assistant")


@dataclass(frozen=True)
class Call:
    """A call, the thought before it, and the tool's result."""

    name: Name
    thought: str
    text: str
    result: str


def messages(calls: Iterable[Call], rng: random.Random) -> tuple[Message, ...]:
    """The calls of one turn: either all as the model is to write them, or all as vLLM shows them to it."""
    learned = rng.random() < 0.65
    header = _SAID if learned else rng.choice(_RENDERED_AGAIN)
    answered = rng.choices(_ANSWERED, [8, 1, 1])[0]
    return tuple(message for call in calls for message in _messages(call, header, answered, learned))


def _messages(call: Call, header: str, answered: str, learned: bool) -> tuple[Message, ...]:
    return (
        Message("analysis", call.thought, learned),
        Message("hosted call", call.text, learned, header.format(call.name)),
        Message("hosted result", call.result, header=answered.format(call.name)),
    )


def arguments(**values: Any) -> str:
    """The arguments of a call of the browser, as JSON."""
    return json.dumps(values, ensure_ascii=False)


class HostedTools:
    """Draws how the tools are described, which is the operator's choice and costs many tokens to read."""

    def __init__(self, questions: Questions) -> None:
        self.questions, self.rng, self.known = questions, questions.rng, knowledge()

    def python(self) -> HostedTool:
        """`python`, most often as the Harmony library describes it."""
        if self.rng.random() < 0.5:
            return HostedTool("python")
        return HostedTool("python", self.questions.fill(self.rng.choice(self.known["python_descriptions"])))

    def browser(self) -> HostedTool:
        """`browser`, as the Harmony library describes it or in fewer words."""
        if self.rng.random() < 0.3:
            return HostedTool("browser")
        functions = self.rng.choice([("search", "open", "find"), ("search", "open")])
        description = self.questions.fill(self.rng.choice(self.known["browser_descriptions"]))
        return HostedTool("browser", description, functions)

    def some(self, python: bool = False, browser: bool = False) -> tuple[HostedTool, ...]:
        """Those that are wanted, in the order of vLLM."""
        return (*((self.browser(),) if browser else ()), *((self.python(),) if python else ()))
