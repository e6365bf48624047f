"""The kinds of values that settings of the tools have: on, off or auto; domains; addresses of HTTP."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator

from gptoss_bento.tools.browser.domains import ascii_name

_DOMAIN = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")
_LONGEST_DOMAIN = 253


def _choice(value: object) -> object:
    """ "Yes": "on". Other words as they are."""
    text = value.strip().lower() if isinstance(value, str) else value
    switches = {"true": "on", "1": "on", "yes": "on", "false": "off", "0": "off", "no": "off"}
    return switches.get(text, text) if isinstance(text, str) else value


OnOffAuto = Annotated[Literal["on", "off", "auto"], BeforeValidator(_choice)]


def domain(text: str) -> str:
    """A domain as it is compared: in small letters and ASCII, without a dot at its ends.

    Raises:
        ValueError: it is none; an address with a scheme or a path, for example.
    """
    try:
        name = ascii_name(text.strip().strip(".").lower())
    except UnicodeError:
        name = ""
    if len(name) > _LONGEST_DOMAIN or not _DOMAIN.fullmatch(name):
        raise ValueError("domains such as example.org, without scheme and path, with commas between them")
    return name


def _domains(value: object) -> object:
    texts = [item for item in value.split(",") if item.strip()] if isinstance(value, str) else value
    return tuple(domain(str(text)) for text in texts) if isinstance(texts, list | tuple) else texts


Domains = Annotated[tuple[str, ...], BeforeValidator(_domains)]


def http_address(text: str) -> str:
    """An address as it was written.

    Raises:
        ValueError: it is none of http or https, or has a user in it.
    """
    try:
        parts = urlsplit(text.strip())
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or "@" in parts.netloc:
        raise ValueError("an address such as https://search.example.org, without a user in it")
    return text.strip()


HttpAddress = Annotated[str, AfterValidator(http_address)]
