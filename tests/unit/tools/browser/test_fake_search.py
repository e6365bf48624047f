"""The fake of the search backends: its corpus and its pages."""

from __future__ import annotations

import httpx
import pytest

from gptoss_bento.tools.browser.fake_search import CorpusPage, FakeSearch, corpus, found


def test_fake_search_has_a_dozen_pages_whose_links_lead_to_one_another() -> None:
    urls = {page.url for page in corpus()}

    assert len(urls) == len({page.path for page in corpus()}) == 12
    assert all(set(page.links) <= urls for page in corpus())
    assert all(url.startswith("https://example.") for url in urls)


@pytest.mark.parametrize("page", corpus(), ids=lambda page: page.path)
def test_fake_search_finds_each_page_by_its_title_first(page: CorpusPage) -> None:
    assert found(f"What is the {page.title.lower()}?", 3)[0] == page


def test_fake_search_finds_nothing_of_words_that_it_does_not_have() -> None:
    assert found("the quantum giraffe of it", 5) == []


def test_fake_search_serves_its_pages() -> None:
    with FakeSearch() as fake:
        pages = [httpx.get(fake.url + page.path) for page in corpus()]
        missing = httpx.get(fake.url + "/nowhere")

    assert [page.status_code for page in pages] == [200] * 12
    assert all(sentence in pages[0].text for sentence in corpus()[0].sentences)
    assert f'href="{fake.url}/norvik-harbour"' in pages[0].text
    assert missing.status_code == 404
