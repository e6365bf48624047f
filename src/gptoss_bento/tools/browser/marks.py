"""The marks of links in a page's text, 【3†text】, as GPT-OSS was trained to read them. Pure.

OpenAI's reference (gpt_oss/tools/simple_browser of github.com/openai/gpt-oss) is the source of the forms.
"""

from __future__ import annotations

import re

_LINK = re.compile(r"【\d+†([^†】]+)(?:†[^†】]+)?】")
_RESERVED = str.maketrans({"【": "〖", "】": "〗", "\u200b": None, "\x00": None})


def plain(text: str) -> str:
    """Text of a page that cannot be taken for a mark of ours."""
    return text.translate(_RESERVED)


def link_mark(link_id: int, text: str, domain: str = "") -> str:
    """A link that the model can open by its number.

    Args:
        link_id: its number on the page.
        text: what the page shows.
        domain: where it leads, if that is another site.
    """
    shown = text.replace("†", "‡")
    return f"【{link_id}†{shown}†{domain}】" if domain else f"【{link_id}†{shown}】"


def without_marks(text: str) -> str:
    """A text with what its links show instead of their marks."""
    return _LINK.sub(r"\1", text)
