"""Pages are read in a process of their own: what hostile ones cost, and what is shown of them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from gptoss_bento.tools.browser.document import Document
from gptoss_bento.tools.browser.extraction import Extraction
from gptoss_bento.tools.browser.fetch import Fetched
from gptoss_bento.tools.browser.limits import Limits
from gptoss_bento.tools.python import confinement
from tests.waiting import HANG_S, until, wait_for

PATIENT = Limits(extract_s=HANG_S)
ARTICLE = "<p>" + "A long sentence about lighthouses and their keepers. " * 12


WORKER = """
import asyncio, psutil
from gptoss_bento.tools.browser.extraction import Extraction
from gptoss_bento.tools.browser.fetch import Fetched
from gptoss_bento.tools.browser.limits import Limits

async def main():
    page = Fetched("https://example.com/", "example.com", "text/html", "", b"<p>" + b"<i></i>" * 600_000)
    reading = asyncio.create_task(Extraction(Limits(extract_s=1000.0)).document(page))
    while not (children := psutil.Process().children()) or psutil.Process(children[0].pid).nice() == 0:
        await asyncio.sleep(0.01)
    print(children[0].pid, flush=True)
    await reading

asyncio.run(main())
"""
"""Prints the process that reads its page when that has bounded itself."""


def fetched(body: str | bytes, content_type: str = "text/html", charset: str = "") -> Fetched:
    content = body.encode() if isinstance(body, str) else body
    return Fetched("https://example.com/p", "example.com", content_type, charset, content)


async def read(body: str | bytes, content_type: str = "text/html", charset: str = "", **limits: float) -> Document:
    return await Extraction(Limits(**{"extract_s": HANG_S, **limits})).document(fetched(body, content_type, charset))  # type: ignore[arg-type]


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


async def test_extraction_shows_a_page_with_its_address() -> None:
    document = await read("<title>T</title><p>Text, <a href='/x'>link</a>.")

    assert document.title == "T"
    assert document.lines == ("", "URL: https://example.com/p", "Text, 【0†link】.")
    assert document.links == {0: "https://example.com/x"}


async def test_extraction_prefers_the_article() -> None:
    menu = "<div class='sidebar'>" + "".join(f"<a href='/{i}'>menu entry {i}</a> " for i in range(20)) + "</div>"
    document = await read(f"<html><body>{menu}<article>{ARTICLE * 3}</article></body></html>")

    text = "\n".join(document.lines)
    assert "lighthouses" in text
    assert "menu entry" not in text


async def test_extraction_shows_the_source_if_asked() -> None:
    document = await Extraction(PATIENT).document(fetched("<p>x</p>"), as_source=True)

    assert document.lines[2:] == ("<p>x</p>",)
    assert document.title == "example.com"


@pytest.mark.parametrize(
    ("body", "charset"),
    [
        ("é".encode(), ""),
        ("é".encode("latin-1"), ""),
        ("é".encode("latin-1"), "iso-8859-1"),
        ("é".encode("utf-16"), "utf-16"),
        ("é".encode(), "no-such-charset"),
        ("é".encode(), "zip"),
        (b"<meta charset='iso-8859-1'><p>" + "é".encode("latin-1"), ""),
        ("<?xml version='1.0' encoding='utf-8'?><html><body>é</body></html>".encode(), "utf-8"),
    ],
)
async def test_extraction_finds_the_charset(body: bytes, charset: str) -> None:
    assert (await read(body, charset=charset)).lines[-1] == "é"


async def test_extraction_shows_plain_text_as_it_is() -> None:
    document = await read('{"a": "<b>"}\n【1†x】', "application/json")

    assert document.lines[2:] == ('{"a": "<b>"}', "〖1†x〗")


HOSTILE = {
    "deep": "<div>" * 300_000 + "x",
    "deep inline": "<p>" + "<span><b>" * 200_000 + "x",
    "nested lists": "<ul><li>" * 100_000 + "x",
    "nested tables in links": "<a href='/x'><table><tr><td>" * 50_000 + "x",
    "never closed": "<" * 2_000_000,
    "comments never closed": "<!--" * 500_000,
    "attributes": "<p " + " ".join(f"a{number}=1" for number in range(100_000)) + ">x",
    "one word": "<p>" + "x" * 4_000_000,
    "entities": "<p>" + "&amp;&#x1F600;&nbsp;" * 200_000,
    "style": "<div style='" + "; " * 500_000 + "display'>x</div>",
    "control characters": "<p>" + "\x00\x01\x08\u200b\ufffe" * 10_000 + "x",
    "surrogates": "<p>&#xD800;&#xDFFF;&#x110000;&#0;x",
    "nothing": "",
    "links": "".join(f"<a href='/{number}{'x' * 1000}'>x</a>" for number in range(3000)),
    "blanks": " \n" * 100_000,
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_extraction_of_a_hostile_page_ends_with_a_document(name: str) -> None:
    document = await read(HOSTILE[name], extract_s=2.0)

    assert document.lines[1] == "URL: https://example.com/p"
    assert sum(map(len, document.lines)) < 1_000_000
    assert sum(map(len, document.links.values())) < 1_000_000


@pytest.mark.parametrize("body", ["", "<title>App</title><div id=root></div><script>let text = 'x'</script>"])
async def test_extraction_of_a_page_of_scripts_says_that_it_has_no_text(body: str) -> None:
    assert (await read(body)).lines[2:] == ("The page has no text. It may need a browser that runs scripts.",)


async def test_extraction_that_takes_too_long_shows_the_page_without_its_tags() -> None:
    document = await read("<p>Some <b>text</b>.</p>", extract_s=0.0)

    assert " ".join(document.lines[2:]).split() == ["Some", "text", "."]


async def test_extraction_without_memory_shows_the_page_without_its_tags() -> None:
    document = await read("<p>Some text.</p>" + "<i></i>" * 600_000, extract_memory_mb=100)

    assert "Some text." in document.lines


async def test_extraction_that_is_cancelled_leaves_no_process() -> None:
    before = children()
    task = asyncio.create_task(read("<p>" + "<i></i>" * 600_000, extract_s=HANG_S))
    await until(lambda: children() - before)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_extraction_runs_few_processes_concurrently() -> None:
    extraction = Extraction(Limits(extractions=2, extract_s=HANG_S))
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len(children() - before))
            await asyncio.sleep(0.001)

    before = children()
    watching = asyncio.create_task(watch())
    await asyncio.gather(*(extraction.document(fetched("<p>x")) for _ in range(8)))
    watching.cancel()

    assert 1 <= most <= 2


def test_extraction_ends_with_a_worker_that_is_killed() -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True)
    with worker:
        assert worker.stdout
        child = int(worker.stdout.readline())
        worker.kill()

    wait_for(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


@pytest.mark.skipif(confinement.problem() is not None, reason=str(confinement.problem()))
async def test_extraction_is_confined_by_the_kernel() -> None:
    before = children()
    task = asyncio.create_task(read("<p>" + "<i></i>" * 600_000, extract_s=HANG_S))
    await until(lambda: children() - before)
    status = Path(f"/proc/{(children() - before).pop()}/status")
    await until(lambda: "Seccomp:\t2" in status.read_text())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_extraction_gets_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    start, environments = asyncio.create_subprocess_exec, []

    async def recorded(*command: str, **options: Any) -> Any:
        environments.append(options["env"])
        return await start(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", recorded)
    await read("<p>x")

    assert environments == [{}]
