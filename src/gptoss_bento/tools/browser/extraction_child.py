"""The process that reads a page, which is the work of somebody else, and may be made to take for ever.

It gets a line of JSON and the page's bytes, and writes lines of JSON: the whole page, then its article, if there is
one. The parent kills it when its time is over, and takes the last line that came. extraction.py is the parent.
"""

from __future__ import annotations

import codecs
import ctypes
import json
import os
import re
import resource
import signal
import sys
from typing import Any

from gptoss_bento.tools.browser.lines import wrapped
from gptoss_bento.tools.browser.marks import plain
from gptoss_bento.tools.browser.page_text import PageText, article_of, page_text, parsed

_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([\w-]{1,40})", re.IGNORECASE)
_BEGINNING = 4096  # bytes in which HTML has its charset
_NICENESS = 10  # answers that are generated come first
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


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
    """Bounds memory, CPU and files, and ends with the parent. There is no environment and no descriptor but three."""
    os.nice(_NICENESS)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != order["parent"]:
        sys.exit(1)
    memory = order["memory_mb"] * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (order["cpu_s"], order["cpu_s"]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


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
