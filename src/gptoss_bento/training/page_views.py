"""What the browser shows the model: results of a search and pages of the corpus, their lines numbered.

The forms are those of tools/browser, and near ones, so that a change there does not need a new training.
"""

import textwrap
from dataclasses import dataclass
from functools import cache
from typing import TypedDict, cast

import yaml

from gptoss_bento.paths import PACKAGE
from gptoss_bento.training.questions import Questions

_LINE_WIDTH = 80


class Page(TypedDict, total=False):
    """A page of the corpus, whose file explains itself."""

    title: str
    url: str
    sentences: list[str]
    links: list[str]


@cache
def corpus() -> dict[str, Page]:
    """The pages that the fake of the search backends serves, by title."""
    text = (PACKAGE / "tools" / "browser" / "corpus.yaml").read_text(encoding="utf-8")
    return {page["title"]: page for page in cast("list[Page]", yaml.safe_load(text))}


@dataclass(frozen=True)
class View:
    """A page as the browser shows it, and the first line of each of its paragraphs."""

    text: str
    lines: list[int]


class PageViews:
    """Draws how results and pages look."""

    def __init__(self, questions: Questions) -> None:
        self.questions, self.rng, self.known = questions, questions.rng, questions.known

    def results(self, title: str, sentences: list[str], cursor: int) -> str:
        """The results of a search, the page with this title before others."""
        titles = [title, *self.rng.sample([it for it in corpus() if it != title], self.rng.choice([0, 1, 2, 2]))]
        host = self.host()
        bullet = self.rng.choice(["  * ", "  * ", "  * ", "* ", ""])
        texts = [self.summary(sentences if it == title else corpus()[it]["sentences"]) for it in titles]
        marks = [f"{bullet}【{number}†{it}†{host}】" for number, it in enumerate(titles)]
        entries = [f"{mark} {text}".rstrip() for mark, text in zip(marks, texts, strict=True)]
        heading = self.rng.choice(["# Search Results", "# Search Results", "# Search results", ""])
        shown = self.rng.choice([title, title, title, f"Search results for: {title}", f"{title} (https://{host})"])
        top = self.rng.choice(["", "URL: ", "URL: "])
        return self.view(cursor, shown, self.head(top, heading), entries, gapped=0.2).text

    def page(self, title: str, sentences: list[str], cursor: int) -> tuple[str, list[int]]:
        """A page, and the lines of its sentences."""
        url = self.url(title)
        links = [f"  * 【{index}†{_title_of(link)}】" for index, link in enumerate(corpus()[title].get("links", []))]
        heading = f"# {title}" if self.rng.random() < 0.9 else ""
        shown = f"{title} ({url})" if self.rng.random() < 0.8 else title
        top = f"URL: {url}" if self.rng.random() < 0.9 else ""
        paragraphs = sentences + (["\n".join(links)] if links else [])
        view = self.view(cursor, shown, self.head(top, heading), paragraphs)
        return view.text, view.lines[: len(sentences)]

    def nothing(self, cursor: int) -> str:
        """Results without a result."""
        if self.rng.random() < 0.5:
            return self.failure()
        empty = self.rng.choice([[], ["No results."], ["{unknown} {unknown}."]])
        paragraphs = [self.questions.fill(line) for line in empty]
        return self.view(cursor, "Search results", self.head("URL: ", "# Search Results"), paragraphs).text

    def failure(self) -> str:
        """What stands where a page or results should be."""
        return self.questions.fill(self.rng.choice(self.known["browser_errors"]))

    def head(self, top: str, heading: str) -> list[str]:
        """The lines above the text."""
        lines = (["", top] if top else []) + ([heading, ""] if heading else [])
        return lines + [""] * self.rng.choices([0, 1, 2], [18, 1, 1])[0]

    def view(self, cursor: int, shown: str, head: list[str], paragraphs: list[str], gapped: float = 0.7) -> View:
        """A page with its lines numbered. `gapped` is the chance of blank lines between paragraphs."""
        gap = [""] if self.rng.random() < gapped else []
        lines, starts = head, []
        for number, paragraph in enumerate(paragraphs):
            lines = lines + gap if number else lines
            starts.append(len(lines))
            lines = lines + [piece for line in paragraph.split("\n") for piece in _wrapped(line)]
        numbered = "\n".join(f"L{number}: {line}" for number, line in enumerate(lines))
        last = len(lines) - 1
        return View(f"[{cursor}] {shown}\n**viewing lines [0 - {last}] of {last}**\n\n{numbered}", starts)

    def summary(self, sentences: list[str]) -> str:
        """What a search backend quotes of a page."""
        kinds = {"": 1, sentences[0]: 2, " ".join(sentences): 5}
        return self.rng.choices(list(kinds), list(kinds.values()))[0]

    def host(self) -> str:
        """Where the pages are: the fake has a port of its own each time."""
        hosts = ["example.com", "example.org", "example.net", f"127.0.0.1:{self.questions.fill('{unknown}')}"]
        return self.rng.choice([*hosts, hosts[-1], "localhost"])

    def url(self, title: str) -> str:
        """The URL of a page, on any host."""
        path = corpus()[title]["url"].rpartition("/")[2]
        host = self.host()
        return f"{'http' if ':' in host else 'https'}://{host}/{path}"


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, _LINE_WIDTH, replace_whitespace=False) or [""]


def _title_of(url: str) -> str:
    return next(title for title, page in corpus().items() if page["url"] == url)
