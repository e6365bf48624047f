"""The process that reads a page, which is the work of somebody else, and may be made to take for ever.

It gets a line of JSON and the page's bytes, and writes lines of JSON: the whole page, then its article, if there is
one. The parent kills it when its time is over, and takes the last line that came. extraction.py is the parent.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import resource
import sys
from typing import Any

from gptoss_bento.tools.browser.lines import wrapped
from gptoss_bento.tools.browser.marks import plain
from gptoss_bento.tools.browser.page_text import PageText, article_of, page_text, parsed
from gptoss_bento.tools.python import confinement
from gptoss_bento.tools.python.libraries import readable

_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([\w-]{1,40})", re.IGNORECASE)
_BEGINNING = 4096  # bytes in which HTML has its charset


def main() -> None:
    """Reads one page and writes what it found."""
    order = json.loads(sys.stdin.buffer.readline())
    _confine(order)
    body = sys.stdin.buffer.read()
    text = _decoded(body, order["charset"])
    if not order["is_html"]:
        _write(PageText("", plain(text[: order["most_chars"]]), []))
        return
    whole = page_text(parsed(text), order["url"], order["most_chars"])
    _write(whole)
    article = article_of(text, _article_html, whole, order["url"], order["most_chars"])
    if article is not None:
        _write(article)


def _confine(order: dict[str, Any]) -> None:
    """Ends with the parent, gives way to the service, and can reach nothing: no network, no process, libraries alone.

    Where the kernel cannot confine, memory, CPU time and files that are written are bounded all the same.
    """
    confinement.die_with_parent(order["parent"])
    memory_bytes, cpu_s = order["memory_mb"] * 1024 * 1024, order["cpu_s"]
    if confinement.problem() is None:
        confinement.confine([*readable(), *sys.path[:1]], memory_bytes, cpu_s)  # with the folder of this package
        return
    os.nice(confinement.NICENESS)
    bounds = {resource.RLIMIT_AS: memory_bytes, resource.RLIMIT_CPU: cpu_s, resource.RLIMIT_FSIZE: 0}
    for name, value in bounds.items():
        resource.setrlimit(name, (value, value))


def _decoded(body: bytes, charset: str) -> str:
    meta = _META_CHARSET.search(body[:_BEGINNING])
    for name in (charset, meta.group(1).decode() if meta else "", "utf-8"):
        if name and _is_of_text(name):
            try:
                return body.decode(name, "strict" if name == "utf-8" and not charset else "replace")
            except UnicodeError:
                continue
    return body.decode("windows-1252", "replace")


def _is_of_text(charset: str) -> bool:
    try:
        return codecs.lookup(charset)._is_text_encoding  # what bytes.decode asks
    except LookupError:
        return False


def _article_html(html: str) -> str:
    from readability import Document  # after the whole page is written, because its import takes a while

    return str(Document(html).summary(html_partial=True))


def _write(page: PageText) -> None:
    line = {"title": page.title, "lines": wrapped(page.text), "links": page.links}
    sys.stdout.buffer.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    sys.stdout.buffer.flush()
