"""What a cursor of the model is at: a page, the results of a search, or the matches of a find. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from gptoss_bento.tools.browser.lines import numbered

Kind = Literal["page", "results", "matches"]


@dataclass(frozen=True)
class Document:
    """Lines with numbered links.

    Attributes:
        url: where it is from; empty for the results of a search.
        title: of the page, or the query.
        lines: its text.
        links: the URL of each link's number.
        kind: what it is.
        places: of matches, the line of the page that each link leads to.
        source_url: of matches, the page in which they were found.
        link_titles: of the results of a search, the title of each.
        is_source: whether the lines are the HTML itself.
    """

    url: str
    title: str
    lines: Sequence[str]
    links: Mapping[int, str]
    kind: Kind = "page"
    places: Mapping[int, int] = field(default_factory=dict)
    source_url: str = ""
    link_titles: Mapping[int, str] = field(default_factory=dict)
    is_source: bool = False


def display(document: Document, cursor: int, first: int, last: int) -> str:
    """A part of a document as GPT-OSS was trained to read it: a heading with the cursor, the place, numbered lines."""
    where = f" ({document.url})" if document.url else ""
    place = f"viewing lines [{first} - {last - 1}] of {len(document.lines) - 1}"
    return f"[{cursor}] {document.title}{where}\n**{place}**\n\n{numbered(document.lines[first:last], first)}"
