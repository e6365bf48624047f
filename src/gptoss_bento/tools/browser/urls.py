"""Which URLs can be opened at all, before anything is looked up."""

from __future__ import annotations

import httpx

from gptoss_bento.tools.browser.failures import BrowserError, shortened

LONGEST_URL = 2083
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LAST_PORT = 65535
_FIRST_FREE_PORT = 1024  # below it are other protocols, to which the text of a request could be a command


def page_url(text: str) -> httpx.URL:
    """The URL of a page; the object that is checked is the one that is connected to, so no second parser disagrees.

    Raises:
        BrowserError: it is no URL, not of http or https, carries credentials, or names a port of another protocol.
    """
    try:
        url = httpx.URL(text.strip()) if len(text) <= LONGEST_URL else None
    except (httpx.InvalidURL, UnicodeError, ValueError):
        url = None
    problem = "it is not a URL" if url is None else _problem(url)
    if url is None or problem:
        raise BrowserError(f"`{shortened(text)}` cannot be opened: {problem}.")
    return url.copy_with(fragment=None)


def port_of(url: httpx.URL) -> int:
    """The port that a URL names, or its scheme's."""
    return url.port or _DEFAULT_PORTS[url.scheme]


def _is_of_pages(port: int) -> bool:
    return port in _DEFAULT_PORTS.values() or _FIRST_FREE_PORT <= port <= _LAST_PORT


def _problem(url: httpx.URL) -> str | None:
    if url.scheme not in _DEFAULT_PORTS:
        return "only http and https URLs can be"
    if url.userinfo:
        return "a URL with a user name or a password is not sent"
    if not url.host or "%" in url.host:
        return "it names no host"
    if not _is_of_pages(port_of(url)):
        return f"port {port_of(url)} is not one of web pages"
    return None
