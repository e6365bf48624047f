"""HTML becomes text with numbered links. Runs in the process of extraction_child.py; it walks, and never recurses."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

import lxml.etree
import lxml.html

from gptoss_bento.tools.browser.marks import link_mark, plain

_LONGEST_URL = 2083
_SPACE = re.compile(r"\s+")
_BLANK_LINES = re.compile(r"\n{3,}")
_HIDDEN = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.IGNORECASE)
_SKIPPED_TAGS = "head script style template noscript svg math iframe object embed select textarea button audio video"
_BLOCK_TAGS = "p h1 h2 h3 h4 h5 h6 ul ol dl table blockquote pre figure section article form"
_LINE_TAGS = "div li tr dt dd br hr header footer main nav aside address caption figcaption summary details"
_SKIPPED, _BLOCKS, _LINES = (frozenset(tags.split()) for tags in (_SKIPPED_TAGS, _BLOCK_TAGS, _LINE_TAGS))
_PREFIXES = {f"h{level}": "#" * level + " " for level in range(1, 7)} | {"blockquote": "> "}
_AROUND = {"sup": ("^{", "}"), "sub": ("_{", "}"), "code": ("`", "`")}
_MOST_LISTS = 8  # in one another, that are shown as such


@dataclass(frozen=True)
class PageText:
    """A page as text.

    Attributes:
        title: of its head; empty if there is none.
        text: lines, with links as marks.
        links: the URL of each mark's number.
    """

    title: str
    text: str
    links: list[str]


@dataclass
class _Writer:
    """Text as it grows: blanks become one, and blocks begin lines."""

    parts: list[str] = field(default_factory=list)
    line_breaks: int = 0
    has_space: bool = True

    def add(self, text: str, *, keep_blanks: bool = False) -> None:
        words = text if keep_blanks else _SPACE.sub(" ", text)
        if self.has_space and not keep_blanks:
            words = words.lstrip(" ")
        if not words:
            return
        self.parts.append("\n" * self.line_breaks + words)
        self.line_breaks = 0
        self.has_space = words[-1].isspace()

    def break_line(self, count: int) -> None:
        if self.parts:
            self.line_breaks = max(self.line_breaks, count)
        self.has_space = True


class _Renderer:
    def __init__(self, url: str, most_chars: int) -> None:
        self._url = url
        self._domain = urlsplit(url).netloc
        self._left = most_chars
        self._writer = _Writer()
        self._open_link: tuple[_Writer, str, Any] | None = None  # what is before it, where it leads, its element
        self._preformatted = 0
        self._lists: list[int | None] = []  # of each list around: the number of its latest item, None without numbers
        self._link_ids: dict[str, int] = {}

    def render(self, root: Any) -> None:
        """Walks the tree. Ends early once there is as much text as is kept."""
        walker = lxml.etree.iterwalk(root, events=("start", "end", "comment", "pi"))
        for event, element in walker:
            if event == "start":
                if _is_skipped(element):
                    walker.skip_subtree()
                else:
                    self._enter(element)
                    self._add(element.text)
            elif event == "end" and not _is_skipped(element):
                self._leave(element)
            if event != "start" and element is not root:
                self._add(element.tail)
            if self._left < 0:
                break
        self._close_link()

    def text(self) -> str:
        text = "".join(self._writer.parts)
        lines = (line.rstrip() for line in text.split("\n"))
        return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip("\n")

    def links(self) -> list[str]:
        return list(self._link_ids)

    def _add(self, text: str | None) -> None:
        if text:
            kept = text[: max(self._left, 0)]
            self._left -= len(text)
            self._writer.add(plain(kept), keep_blanks=bool(self._preformatted) and not self._open_link)

    def _enter(self, element: Any) -> None:
        tag = element.tag
        self._break(tag)
        if tag in ("ul", "ol"):
            self._lists.append(0 if tag == "ol" else None)
        elif tag == "pre":
            self._preformatted += 1
        elif tag == "a" and not self._open_link and (target := self._target(element)):
            self._open_link = (self._writer, target, element)
            self._writer = _Writer()
        self._write_prefix(element)

    def _write_prefix(self, element: Any) -> None:
        tag = element.tag
        if tag == "li":
            self._writer.add(self._bullet(), keep_blanks=True)
        elif tag in ("td", "th") and element.getprevious() is not None:
            self._writer.add(" | ", keep_blanks=True)
        elif tag == "img" and element.get("alt", "").strip():
            self._add(f"[Image: {element.get('alt')}]")
        elif tag == "hr":
            self._writer.add("* * *")
        elif tag in _PREFIXES:
            self._writer.add(_PREFIXES[tag], keep_blanks=True)
        elif tag in _AROUND and not self._preformatted:
            self._writer.add(_AROUND[tag][0])
            self._writer.has_space = True

    def _bullet(self) -> str:
        indent = "  " * max(1, min(len(self._lists), _MOST_LISTS))
        number = self._lists[-1] if self._lists else None
        if number is None:
            return indent + "* "
        self._lists[-1] = number + 1
        return f"{indent}{number + 1}. "

    def _leave(self, element: Any) -> None:
        tag = element.tag
        if tag in _AROUND and not self._preformatted:
            self._writer.add(_AROUND[tag][1])
        if tag in ("ul", "ol") and self._lists:
            self._lists.pop()
        elif tag == "pre":
            self._preformatted -= 1
        elif self._open_link and self._open_link[2] is element:
            self._close_link()
        self._break(tag)

    def _break(self, tag: str) -> None:
        if tag in _BLOCKS and not (tag in ("ul", "ol") and self._lists):
            self._writer.break_line(2)
        elif tag in _LINES or tag in ("ul", "ol"):
            self._writer.break_line(1)

    def _target(self, element: Any) -> str:
        """Where a link leads; empty where the model cannot follow it."""
        reference = (element.get("href") or "").strip()
        if not reference or reference.startswith("#") or len(reference) > _LONGEST_URL:
            return ""
        try:
            url = urljoin(self._url, reference)
            parts = urlsplit(url)
        except ValueError:
            return ""
        return url if parts.scheme in ("http", "https") and parts.netloc else ""

    def _close_link(self) -> None:
        if self._open_link is None:
            return
        inner, (self._writer, target, _) = self._writer, self._open_link
        self._open_link = None
        text = _SPACE.sub(" ", "".join(inner.parts)).strip()
        if text:
            if target not in self._link_ids:
                self._left -= len(target)
            link_id = self._link_ids.setdefault(target, len(self._link_ids))
            domain = urlsplit(target).netloc
            self._writer.add(link_mark(link_id, text, "" if domain == self._domain else plain(domain)))


def _is_skipped(element: Any) -> bool:
    if element.tag in _SKIPPED or element.get("hidden") is not None:
        return True
    style = element.get("style")
    return style is not None and _HIDDEN.search(style) is not None


def parsed(html: str) -> Any:
    """The tree of a page. Elements may be 2,048 deep; libxml2 leaves out what is deeper.

    Raises:
        lxml.etree.ParserError: there is no element in it.
    """
    parser = lxml.html.HTMLParser(encoding="utf-8", huge_tree=True)
    return lxml.html.document_fromstring(html.encode("utf-8", "replace"), parser=parser)


def page_text(root: Any, url: str, most_chars: int) -> PageText:
    """The whole of a page as text."""
    title = root.findtext(".//title") or ""
    renderer = _Renderer(_base_of(root, url), most_chars)
    renderer.render(root)
    return PageText(plain(_SPACE.sub(" ", title).strip()), renderer.text(), renderer.links())


def _base_of(root: Any, url: str) -> str:
    base = root.find(".//base[@href]")
    try:
        return urljoin(url, base.get("href")) if base is not None else url
    except ValueError:
        return url


def article_of(html: str, summary: Callable[[str], str], whole: PageText, url: str, most_chars: int) -> PageText | None:
    """The article of a page, or None if what was found as one is too little of the page to be it.

    Args:
        html: of the page.
        summary: finds the HTML of the article.
        whole: the page's text.
        url: of the page.
        most_chars: that are kept.
    """
    found = page_text(parsed(summary(html)), url, most_chars)
    if len(found.text) < max(_SHORTEST_ARTICLE, len(whole.text) * _ARTICLE_SHARE):
        return None
    return PageText(whole.title, found.text, found.links)


_SHORTEST_ARTICLE = 500
"""Characters. What is shorter is as well read with all around it."""
_ARTICLE_SHARE = 0.25
"""Of the page's text. Lists and front pages have no article, and the longest of their parts is taken for one."""
