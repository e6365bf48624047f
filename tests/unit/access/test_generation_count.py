"""How many generations a request is."""

from __future__ import annotations

from typing import Any

import pytest

from gptoss_bento.access.generation_count import generations_of, refuse_more_than
from gptoss_bento.access.request_caps import CapError
from gptoss_bento.http.json_body import EnvelopeError, json_object
from gptoss_bento.http.paths import CHAT, CHAT_BATCH, COMPLETIONS, RESPONSES

SEVERAL = [
    (CHAT, {"messages": [], "n": 3}, 3),
    (CHAT, {"messages": [], "n": "3"}, 3),
    (CHAT, {"messages": [], "n": 3.0}, 3),
    (COMPLETIONS, {"prompt": "x", "n": 4}, 4),
    (COMPLETIONS, {"prompt": ["x", "y", "z"]}, 3),
    (COMPLETIONS, {"prompt": [[1, 2], [3]], "n": 5}, 10),
    (COMPLETIONS, {"prompt_embeds": ["AA==", "AA=="]}, 2),
    (CHAT_BATCH, {"messages": [[{"role": "user", "content": "x"}], [{"role": "user", "content": "y"}]], "n": 2}, 4),
    (COMPLETIONS, {"prompt": ["x"], "prompt_embeds": ["AA=="], "n": 2}, 4),
]
ONE = [
    (CHAT, {"messages": [{"role": "user", "content": "n"}]}),
    (CHAT, {"messages": [], "prompt": ["x", "y"]}),
    (COMPLETIONS, {"prompt": "[x]"}),
    (COMPLETIONS, {"prompt": [1, 2, 3]}),
    (COMPLETIONS, {"prompt": []}),
    (RESPONSES, {"input": "x", "n": 3}),
    *((CHAT, {"messages": [], "n": n}) for n in (None, 0, -3, "many", 2.5, [3], True)),
]


@pytest.mark.parametrize(("path", "body", "number"), [*SEVERAL, *((path, body, 1) for path, body in ONE)])
def test_generations_are_prompts_times_n(path: str, body: dict[str, Any], number: int) -> None:
    assert generations_of(path, body) == number


@pytest.mark.parametrize("body", [rb'{"\u006e": 9}', rb'{"\u006E": 9}', b'{"n"\n:\t9}'])
def test_generations_are_counted_however_the_name_is_escaped(body: bytes) -> None:
    assert generations_of(CHAT, json_object(body)) == 9


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_generations_are_counted_in_every_encoding_of_json(encoding: str) -> None:
    assert generations_of(CHAT, json_object('{"n": 9}'.encode(encoding))) == 9
    assert generations_of(COMPLETIONS, json_object('{"prompt": ["x", "y"]}'.encode(encoding))) == 2


@pytest.mark.parametrize("body", [b'{"n": 9', b'["n"]', b'"n"', b'\xff"n"', b'{"n": 9, "seed": NaN}'])
def test_request_must_be_a_json_object(body: bytes) -> None:
    with pytest.raises(EnvelopeError):
        json_object(body)


def test_generations_beyond_the_bound_are_refused() -> None:
    refuse_more_than(8, "This key", 8)
    with pytest.raises(CapError, match="This key takes 8 concurrent generations; n times the number of prompts is 9"):
        refuse_more_than(8, "This key", 9)
    with pytest.raises(CapError, match=r"prompts is over 1000000000\.$"):
        refuse_more_than(8, "This key", 10**5000)
