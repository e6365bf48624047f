"""The report of unknown fields."""

from __future__ import annotations

import pytest

from gptoss_bento.http.fields.unknown import HEADER, UnknownFields
from gptoss_bento.http.paths import CHAT


def test_header_cannot_be_broken_by_names() -> None:
    headers = UnknownFields().headers(CHAT, ["a\r\nset-cookie: b", "c, d", "\ud800", "é"])

    assert headers == {HEADER: "a%0D%0Aset-cookie%3A%20b, c%2C%20d, %3F, %C3%A9"}


def test_names_of_one_body_are_looked_at_up_to_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    names = iter(f"n{number}" for number in range(5_000))

    headers = UnknownFields().headers(CHAT, names)

    assert headers[HEADER].count(",") == 19
    assert len(caplog.records) == 1_000
    assert next(names) == "n1000"
