"""The document of a request's fields."""

from __future__ import annotations

import pytest

from gptoss_bento.http.fields.table import FIELDS
from tools.request_fields import DOCUMENT, filled


def test_document_is_up_to_date() -> None:
    text = DOCUMENT.read_text()

    assert filled(text) == text, "run `python -m tools.request_fields`"
    assert [name for fields in FIELDS.values() for name in fields if f"`{name}`" not in text] == []


def test_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="has no"):
        filled("# Fields")
