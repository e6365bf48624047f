"""Questions about pages come with results, and with a page that the answer quotes and marks."""

from __future__ import annotations

import json
import re

from gptoss_bento.training.conversations import dice, knowledge
from gptoss_bento.training.page_views import corpus
from gptoss_bento.training.pages import Pages
from gptoss_bento.training.questions import Questions

MARK = re.compile(r"(.*) 【(\d+)†L(\d+)-L(\d+)】")


def pages(seed: int) -> Pages:
    return Pages(Questions(dice(seed)))


def test_each_sentence_of_the_corpus_has_questions() -> None:
    asks = knowledge()["page_asks"]

    assert asks.keys() == corpus().keys()
    for title, page in corpus().items():
        assert len(asks[title]) == len(page["sentences"]), title
        assert all(asks[title])


def test_marks_are_at_the_lines_of_the_sentences() -> None:
    found = 0
    for item, calls in (pages(seed).browsed() for seed in range(300)):
        if mark := MARK.fullmatch(item.answers[""]):
            quoted, cursor, first, last = mark.groups()
            shown = re.findall(r"L(\d+): (.*)", calls[-1].result)
            assert calls[-1].result.startswith(f"[{cursor}] ")
            assert " ".join(text for number, text in shown if text and int(first) <= int(number) <= int(last)) == quoted
            found += 1
    assert found > 200


def test_page_that_is_opened_is_the_one_that_was_searched_for() -> None:
    for _, calls in (pages(seed).browsed() for seed in range(300)):
        if len(calls) == 2:
            assert f"【0†{json.loads(calls[0].text)['query']}†" in calls[0].result
            assert json.loads(calls[1].text) == {"id": 0}
