"""The demo model calls python and browser as tool_answers.yaml says: its weights, the most likely token, no vLLM."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gptoss_bento.paths import PACKAGE
from gptoss_bento.training import harmony_text
from gptoss_bento.training.conversations import Conversation, HostedTool, Message, Reply
from gptoss_bento.training.greedy import Speaker
from gptoss_bento.training.page_views import corpus

ANSWERS: dict[str, list[dict[str, Any]]] = yaml.safe_load(
    (PACKAGE / "training" / "tool_answers.yaml").read_text(encoding="utf-8")
)
PYTHON, BROWSER = HostedTool("python"), HostedTool("browser")
HOST = "127.0.0.1:8765"
CALL = re.compile(
    r"<\|channel\|>analysis<\|message\|>(?P<thought>[^<]*)<\|end\|><\|start\|>assistant"
    r"<\|channel\|>analysis to=(?P<name>\S+) code<\|message\|>(?P<text>.*)<\|call\|>",
    re.DOTALL,
)


@pytest.fixture(scope="module")
def speaker(vocabulary: Path) -> Speaker:
    assert vocabulary.is_file()
    return Speaker()


def by_ask(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("answer", ANSWERS[kind], ids=lambda answer: str(answer["ask"]))


def said(speaker: Speaker, tools: tuple[HostedTool, ...], *messages: Message) -> str:
    conversation = Conversation(messages, Reply("", ()), hosted=tools, date="2026-11-30")
    return speaker.reply(harmony_text.prompt_tokens(conversation))


def called(reply: str, result: str) -> tuple[tuple[str, str], tuple[Message, ...]]:
    """The call in a reply, and the messages that vLLM shows the model after it."""
    found = CALL.fullmatch(reply)
    assert found, reply
    name, text = found["name"], found["text"]
    again = (
        Message("analysis", found["thought"]),
        Message("hosted call", text, header=f"assistant to={name}<|channel|>analysis <|constrain|>code"),
        Message("hosted result", result, header=f"{name} to=assistant<|channel|>analysis"),
    )
    return (name, text), again


def answer_in(reply: str) -> str:
    final = re.search(r"<\|channel\|>final<\|message\|>(.*)<\|return\|>$", reply, re.DOTALL)
    assert final, reply
    return final[1]


def shown(cursor: int, title: str, url: str, lines: list[str]) -> str:
    """A page as the browser shows it."""
    numbered = "\n".join(f"L{number}: {line}" for number, line in enumerate(["", f"URL: {url}", *lines]))
    last = len(lines) + 1
    return f"[{cursor}] {title}{f' ({url})' if url else ''}\n**viewing lines [0 - {last}] of {last}**\n\n{numbered}"


def results(title: str) -> str:
    others = [it for it in corpus() if it != title and it.split()[0] == title.split()[0]]
    entries = [
        f"  * 【{number}†{it}†{HOST}】 {corpus()[it]['sentences'][0]}" for number, it in enumerate([title, *others])
    ]
    return shown(0, title, "", ["# Search Results", "", *entries])


def page(title: str) -> str:
    lines = [line for sentence in corpus()[title]["sentences"] for line in (sentence, "")]
    titles = {each["url"]: each["title"] for each in corpus().values()}
    links = [f"  * 【{number}†{titles[url]}】" for number, url in enumerate(corpus()[title].get("links", []))]
    url = f"http://{HOST}/{corpus()[title]['url'].rpartition('/')[2]}"
    return shown(1, title, url, [f"# {title}", "", *lines, *links])


@by_ask("computed")
def test_arithmetic_is_left_to_python(speaker: Speaker, answer: dict[str, Any]) -> None:
    user = Message("user", answer["ask"])
    call, messages = called(said(speaker, (PYTHON,), user), answer["result"])

    assert call == ("python", answer["code"])
    assert re.search(answer["expect"], answer_in(said(speaker, (PYTHON,), user, *messages)))


@by_ask("browsed")
def test_question_about_a_page_is_answered_from_it_with_a_citation(speaker: Speaker, answer: dict[str, Any]) -> None:
    user, title = Message("user", answer["ask"]), answer["page"]
    search, found = called(said(speaker, (BROWSER,), user), results(title))
    opened, read = called(said(speaker, (BROWSER,), user, *found), page(title))
    reply = answer_in(said(speaker, (BROWSER,), user, *found, *read))

    assert (search, opened) == (("browser.search", f'{{"query": "{title}"}}'), ("browser.open", '{"id": 0}'))
    assert reply == f"{' '.join(corpus()[title]['sentences'])} 【1†L4-L8】"


@by_ask("plain")
def test_other_question_is_answered_without_the_tools(speaker: Speaker, answer: dict[str, Any]) -> None:
    reply = said(speaker, (BROWSER, PYTHON), Message("user", answer["ask"]))

    assert re.search(answer["expect"], answer_in(reply), re.DOTALL)


@by_ask("missing")
def test_model_without_a_tool_says_that_it_does_not_know(speaker: Speaker, answer: dict[str, Any]) -> None:
    reply = said(speaker, (), Message("user", answer["ask"]))

    assert re.search(answer["expect"], answer_in(reply), re.DOTALL)
