"""Questions about the pages of the browser's corpus: what to search for, what comes back, and the answer with its mark.

The answer is all that the page says, which is little. The model knows the pages by heart.
"""

from gptoss_bento.training.hosted_tools import Call, arguments
from gptoss_bento.training.page_views import PageViews, corpus
from gptoss_bento.training.questions import Item, Questions, make_item


class Pages:
    """Draws questions that one of the pages answers."""

    def __init__(self, questions: Questions) -> None:
        self.questions, self.rng, self.known = questions, questions.rng, questions.known
        self.views = PageViews(questions)

    def ask(self) -> tuple[str, str]:
        """A question, and the title of the page that answers it."""
        title, asks = self.rng.choice(list(self.known["page_asks"].items()))
        if self.rng.random() < 0.15:
            return self.rng.choice(self.known["search_asks"]).format(title), title
        ask = self.rng.choice(self.rng.choice(asks))
        if self.rng.random() < 0.3:
            ask = self.rng.choice(self.known["search_wishes"]).format(ask)
        return self.questions.vary(ask), title

    def browsed(self) -> tuple[Item, tuple[Call, ...]]:
        """A question, the calls of the browser that find its answer, and the answer."""
        ask, title = self.ask()
        cursor = self.rng.choices([0, self.rng.randint(1, 8)], [8, 2])[0]
        if self.rng.random() < 0.06:
            return _not_found(ask), (_search(title, self.views.nothing(cursor)),)
        sentences = corpus()[title]["sentences"]
        found = self.views.results(title, sentences, cursor)
        if self.rng.random() < 0.04:
            return _not_found(ask), (_search(title, found), _open(self.views.failure()))
        page, lines = self.views.page(title, sentences, cursor + 1)
        answer = _answer(ask, f"{' '.join(sentences)} 【{cursor + 1}†L{lines[0]}-L{lines[-1]}】")
        return answer, (_search(title, found), _open(page))


def _search(title: str, result: str) -> Call:
    return Call("browser.search", "I search the web.", arguments(query=title), result)


def _open(result: str) -> Call:
    return Call("browser.open", "I open the first result.", arguments(id=0), result)


def _answer(ask: str, answer: str) -> Item:
    return make_item(ask, "The page has the answer.", answer, {"french": answer, "word": answer})


def _not_found(ask: str) -> Item:
    answer = "I found nothing on the web that answers this."
    return make_item(ask, "The browser found nothing.", answer, {"french": answer, "word": answer})
