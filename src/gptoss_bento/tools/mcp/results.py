"""The results of MCP servers as the text that the model reads. Pure.

Source: the content of results in MCP's schema of 2025-11-25. GPT-OSS reads text alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gptoss_bento.strict_json import dumps, encodable

NOTHING = "(no content)"


def text_of(content: Sequence[Any], structured: Any) -> str:
    """All parts of a result, each in lines of its own, as the server has them.

    Args:
        content: blocks of MCP's: of text, images, sounds, resources and links to them.
        structured: is shown where no block is, because servers give it as text as well.
    """
    texts = [part for block in content for part in _texts(block)]
    if not texts and structured is not None:
        texts = [dumps(structured)]
    return "\n".join(texts)


def bounded(text: str, most_chars: int, beyond: int = 0) -> str:
    """The beginning of a text, with a note of what is missing.

    Args:
        text: or its beginning.
        most_chars: of it.
        beyond: how many characters it has further.
    """
    missing = len(text) + beyond - most_chars
    return text if missing <= 0 else f"{text[:most_chars]}\n[{missing} more characters were left out]"


def clean(text: str) -> str:
    """The text without what cannot be encoded, and without control characters but line ends and tabs."""
    text = "".join(char for char in text if char >= " " or char in "\n\t")
    return text if encodable(text) else text.encode(errors="replace").decode()


def _texts(block: Any) -> Iterator[str]:
    kind = getattr(block, "type", None)
    if kind == "text":
        yield block.text
    elif kind in ("image", "audio"):
        yield f"[{kind} of the type {block.mime_type}, which cannot be shown]"
    elif kind == "resource_link":
        yield f"[resource {block.name}: {block.uri}]"
    elif kind == "resource":
        yield from _resource(block.resource)


def _resource(resource: Any) -> Iterator[str]:
    if (text := getattr(resource, "text", None)) is not None:
        yield f"[resource {resource.uri}]\n{text}"
    else:
        yield f"[resource {resource.uri}, which is no text]"
