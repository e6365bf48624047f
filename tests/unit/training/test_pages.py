"""Questions about pages come with results and pages that hold the answer where its mark says."""

from __future__ import annotations

import json
import re

from gptoss_bento.training.conversations import dice, knowledge
from gptoss_bento.training.page_views import corpus
from gptoss_bento.training.pages import Pages
from gptoss_bento.training.questions import Questions

MARK = re.compile(r"(.*) 【(\d+)†L(\d+)】", re.DOTALL)


def pages(seed: int) -> Pages:
    return Pages(Questions(dice(seed)))


def test_each_sentence_of_the_corpus_has_questions() -> None:
    asks = knowledge()["page_asks"]

    assert asks.keys() == corpus().keys()
    for title, page in corpus().items():
        assert len(asks[title]) == len(page["sentences"]), title
        assert all(asks[title])


def test_people_who_vary_are_those_of_the_corpus() -> None:
    text = json.dumps([page["sentences"] for page in corpus().values()])

    assert all(person in text for person in knowledge()["page_people"])


def test_mark_is_at_the_line_that_the_answer_quotes() -> None:
    for item, calls in (pages(seed).browsed() for seed in range(300)):
        if found := MARK.fullmatch(item.answers[""]):
            sentence, cursor, line = found.groups()
            assert calls[-1].result.startswith(f"[{cursor}] ")
            assert f"\nL{line}: {sentence}" in calls[-1].result


def test_link_that_is_opened_is_the_one_with_the_title_that_was_searched_for() -> None:
    for _, calls in (pages(seed).browsed() for seed in range(300)):
        if len(calls) == 2:
            title, number = json.loads(calls[0].text)["query"], json.loads(calls[1].text)["id"]
            assert f"【{number}†{title}†" in calls[0].result


def test_numbers_on_the_pages_vary() -> None:
    sentence = corpus()["Norvik Lighthouse"]["sentences"][0]

    seen = {pages(seed).varied(sentence) for seed in range(50)}

    assert len(seen) > 20
    assert all(re.fullmatch(r"The lighthouse of Norvik was built in \d{4}\.", text) for text in seen)
