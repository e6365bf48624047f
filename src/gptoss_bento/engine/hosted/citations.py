"""The marks by which GPT-OSS cites pages of its browser, as OpenAI's `url_citation`. Pure.

`【3†L1-L4】` is lines 1 to 4 of what the model saw under the number 3. The mark stays in the text; the annotation says
where it is, so that a client can put a link there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from gptoss_bento.tools.interfaces import Cited

MARK_END = "】"

_MARK = re.compile(r"【(\d{1,6})†(?:L(\d{1,6}))?[^【】\n]{0,200}】")
_Find = Callable[[int, int | None], Cited | None]

Fields = dict[str, Any]


def citations_in(text: str, cited: _Find) -> list[Fields]:
    """The citations of a text, in its order. A mark for what the model has not seen is none.

    Args:
        text: of the answer.
        cited: the page under a number, and, for a list of results, the one at a line.
    """
    marks = ((mark, cited(int(mark[1]), int(mark[2]) if mark[2] else None)) for mark in _MARK.finditer(text))
    return [_annotation(mark, page) for mark, page in marks if page is not None]


def _annotation(mark: re.Match[str], page: Cited) -> Fields:
    place = {"start_index": mark.start(), "end_index": mark.end()}
    return {"type": "url_citation", **place, "url": page.url, "title": page.title}


class StreamedCitations:
    """Finds the citations of a text while it comes."""

    def __init__(self, cited: _Find) -> None:
        self._cited = cited
        self._text = ""
        self._known = 0

    def add(self, delta: str) -> list[tuple[int, Fields]]:
        """The annotations that are complete with these characters, with their numbers."""
        self._text += delta
        if MARK_END not in delta:
            return []
        found = list(enumerate(citations_in(self._text, self._cited)))[self._known :]
        self._known += len(found)
        return found
