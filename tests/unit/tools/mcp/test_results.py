from __future__ import annotations

from typing import Any

import mcp_types as types
import pytest

from gptoss_bento.tools.mcp.results import bounded, clean, text_of

TEXT = types.TextContent(type="text", text="hello")
IMAGE = types.ImageContent(type="image", data="aGk=", mime_type="image/png")
AUDIO = types.AudioContent(type="audio", data="aGk=", mime_type="audio/wav")
LINK = types.ResourceLink(type="resource_link", name="report", uri="file:///report")
FILE = types.EmbeddedResource(type="resource", resource=types.TextResourceContents(uri="file:///a.txt", text="content"))
BLOB = types.EmbeddedResource(type="resource", resource=types.BlobResourceContents(uri="file:///a.bin", blob="aGk="))


@pytest.mark.parametrize(
    ("content", "structured", "text"),
    [
        ([TEXT], None, "hello"),
        ([TEXT, TEXT], {"a": 1}, "hello\nhello"),
        ([], {"a": [1, "ö"]}, '{"a":[1,"ö"]}'),
        ([], None, ""),
        ([IMAGE], None, "[image of the type image/png, which cannot be shown]"),
        ([AUDIO, TEXT], None, "[audio of the type audio/wav, which cannot be shown]\nhello"),
        ([LINK], None, "[resource report: file:///report]"),
        ([FILE], None, "[resource file:///a.txt]\ncontent"),
        ([BLOB], None, "[resource file:///a.bin, which is no text]"),
    ],
)
def test_content_of_each_kind_becomes_text(content: Any, structured: Any, text: str) -> None:
    assert text_of(content, structured) == text


def test_text_beyond_the_bound_ends_with_how_much_is_missing() -> None:
    assert bounded("abc", 3) == "abc"
    assert bounded("abcdef", 3) == "abc\n[3 more characters were left out]"
    assert bounded("abcd", 3, beyond=10) == "abc\n[11 more characters were left out]"


def test_text_loses_control_characters_and_what_cannot_be_encoded() -> None:
    assert clean("a\x00\x1b[31mb\tc\nd") == "a[31mb\tc\nd"
    assert clean("\ud800x") == "?x"
