from __future__ import annotations

from typing import Any

import pytest

from gptoss_bento.http.json_schema.references import is_local, target

ROOT: dict[str, Any] = {"$defs": {"a/b": 1, "a b": 2, "m~n": 3}, "allOf": [{"type": "string"}]}


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("#", ROOT),
        ("#/$defs/a~1b", 1),
        ("#/$defs/a%20b", 2),
        ("#/$defs/m~0n", 3),
        ("#/allOf/0", {"type": "string"}),
    ],
)
def test_reference_is_a_pointer_with_escapes(reference: str, found: Any) -> None:
    assert target(ROOT, reference) == found


@pytest.mark.parametrize("reference", ["#/$defs/missing", "#/allOf/1", "#/allOf/x", "#/allOf/0/type/x"])
def test_reference_to_nothing_is_an_error(reference: str) -> None:
    with pytest.raises(LookupError):
        target(ROOT, reference)


@pytest.mark.parametrize(
    ("reference", "local"), [("#", True), ("#/a", True), ("#a", False), ("http://x/#/a", False), (1, False)]
)
def test_reference_is_local_if_it_is_a_pointer(reference: Any, local: bool) -> None:
    assert is_local(reference) is local
