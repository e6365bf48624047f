"""The JSON object of a request's body, and what is said where it is none."""

from __future__ import annotations

import pytest

from gptoss_bento.http.json_body import EnvelopeError, json_bytes, json_object


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_body_is_read_in_any_encoding_of_json(encoding: str) -> None:
    assert json_object('{"input": "é"}'.encode(encoding)) == {"input": "é"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The body must be a JSON object; it is not JSON: Expecting value"),
        (b'{"a": NaN}', "The body must be a JSON object; it is not JSON: NaN is not JSON"),
        (b'"\xff"', "The body must be a JSON object; it is not JSON: not UTF-8"),
        (b"[1]", r"The body must be a JSON object, got \[1\]"),
    ],
)
def test_json_body_that_is_no_object_is_a_400(body: bytes, message: str) -> None:
    with pytest.raises(EnvelopeError, match=f"^{message}") as refused:
        json_object(body)

    assert refused.value.status == 400


def test_json_body_nested_more_deeply_than_can_be_written_is_a_400() -> None:
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]

    with pytest.raises(EnvelopeError, match="nested too deeply"):
        json_bytes({"guided_json": deep, "x": "\ud800"})
