"""A page's text, found in a process of its own that is killed when its time is over."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Any

from gptoss_bento.tools.browser.document import Document
from gptoss_bento.tools.browser.failures import shortened
from gptoss_bento.tools.browser.fetch import Fetched
from gptoss_bento.tools.browser.limits import Limits
from gptoss_bento.tools.browser.lines import wrapped
from gptoss_bento.tools.browser.marks import plain

_SOURCE = Path(__file__).parents[3]
_PROGRAM = f"import sys; sys.path.insert(0, {str(_SOURCE)!r}); from {__package__}.extraction_child import main; main()"
_COMMAND = (sys.executable, "-I", "-c", _PROGRAM)
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_FALLBACK_BYTES = 200_000  # read in this process, within milliseconds
_OUTPUT_FACTOR = 8  # bytes of JSON a character of text: six of a control character, and what is around a line
_BLANK = re.compile(r"[ \t\r\f\v]+")
_TITLE_CHARS = 200
_NO_TEXT = "The page has no text. It may need a browser that runs scripts."


class Extraction:
    """Reads pages in processes, of which so many as Limits.extractions run concurrently."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.extractions)

    async def document(self, page: Fetched, *, as_source: bool = False) -> Document:
        """The text of a page. It never fails: what cannot be read as HTML in time is shown without its tags.

        Args:
            page: as it was fetched.
            as_source: whether the HTML itself is the text.
        """
        is_html = page.content_type in _HTML_TYPES and not as_source
        async with self._slots:
            found = await self._run(page, is_html=is_html)
        title = shortened(found["title"], _TITLE_CHARS) if found else ""
        text = found["lines"] if found else _fallback(page, is_html=is_html)
        links = dict(enumerate(found["links"])) if found else {}
        lines = ("", f"URL: {plain(page.url)}", *(text if any(text) else [_NO_TEXT]))
        return Document(page.url, title or page.host, lines, links, is_source=as_source)

    async def _run(self, page: Fetched, *, is_html: bool) -> dict[str, Any] | None:
        """The last line that the process wrote, or None."""
        process = await asyncio.create_subprocess_exec(*_COMMAND, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env={})
        output = bytearray()
        try:
            async with asyncio.timeout(self._limits.extract_s):
                if await self._exchange(process, page, output, is_html=is_html):
                    await process.wait()
        except TimeoutError:
            pass
        finally:
            await _ended(process)
        return _last_line(output)

    async def _exchange(self, process: Process, page: Fetched, output: bytearray, *, is_html: bool) -> bool:
        """Returns whether the process has written all, and ends by itself."""
        stdin, stdout = process.stdin, process.stdout
        if stdin is None or stdout is None:  # it was started with both
            return False
        stdin.write(json.dumps(self._order(page, is_html=is_html)).encode() + b"\n" + page.body)
        with suppress(ConnectionError):  # it ended before it had read all
            await stdin.drain()
            stdin.close()
        while chunk := await stdout.read(65536):
            output += chunk
            if len(output) > self._limits.page_chars * _OUTPUT_FACTOR:
                return False
        return True

    def _order(self, page: Fetched, *, is_html: bool) -> dict[str, Any]:
        return {
            "url": page.url,
            "charset": page.charset,
            "is_html": is_html,
            "most_chars": self._limits.page_chars,
            "memory_mb": self._limits.extract_memory_mb,
            "cpu_s": int(self._limits.extract_s) + 1,
            "parent": os.getpid(),
        }


async def _ended(process: Process) -> None:
    """Kills a process that has not ended. asyncio logs a warning if it is sent a signal as it ends."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _last_line(output: bytearray) -> dict[str, Any] | None:
    complete = bytes(output).rpartition(b"\n")[0]
    if not complete:
        return None
    line: dict[str, Any] = json.loads(complete.rpartition(b"\n")[2])
    return line


def _fallback(page: Fetched, *, is_html: bool) -> list[str]:
    """The beginning of a page without its tags: crude, and quick whatever is in it."""
    text = page.body[:_FALLBACK_BYTES].decode("utf-8", "replace")
    if is_html:
        first, *pieces = text.split("<")
        text = "\n".join([first, *(piece.partition(">")[2] for piece in pieces)])
    lines = (_BLANK.sub(" ", line).strip() for line in text.split("\n"))
    return wrapped(plain("\n".join(line for line in lines if line)))
