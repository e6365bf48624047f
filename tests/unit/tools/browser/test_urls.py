"""URLs of pages: which can be opened at all."""

from __future__ import annotations

import pytest

from gptoss_bento.tools.browser.failures import BrowserError
from gptoss_bento.tools.browser.urls import LONGEST_URL, page_url


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/",
        "gopher://example.com:70/x",
        "javascript:alert(1)",
        "data:text/html,x",
        "view-source:http://example.com/",
        "//example.com/x",
        "example.com",
        "",
        "http://",
        "http:///x",
        "http://user@example.com/",
        "http://user:password@example.com/",
        "http://example.com@127.0.0.1/",
        "http://example.com\\@127.0.0.1/",
        "http://[fe80::1%25eth0]/",
        "http://exa mple.com/",
        "http://exa\nmple.com/",
        "http://example.com\r\nX-Injected: 1/",
        "http://①②⑦.⓪.⓪.①/",
        "http://example.com:22/",
        "http://example.com:25/",
        "http://example.com:99999/",
        "http://[::1",
        "http://example.com/" + "x" * LONGEST_URL,
    ],
)
def test_url_that_is_no_page_of_the_web_is_refused(url: str) -> None:
    with pytest.raises(BrowserError, match="cannot be opened"):
        page_url(url)


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://example.com/a?b=c#d", "https://example.com/a?b=c"),
        (" http://EXAMPLE.com:8080/ ", "http://example.com:8080/"),
        ("http://exämple.com/ü", "http://xn--exmple-cua.com/%C3%BC"),
        ("http://[2606:4700::1111]/", "http://[2606:4700::1111]/"),
    ],
)
def test_url_of_a_page_is_taken_without_its_fragment(url: str, sent: str) -> None:
    assert str(page_url(url)) == sent


def test_url_in_an_error_is_one_short_line() -> None:
    with pytest.raises(BrowserError) as refused:
        page_url("ftp://x/\n" + "y" * 5000)

    assert len(str(refused.value)) < 300
    assert "\n" not in str(refused.value)
