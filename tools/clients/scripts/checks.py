"""What the Python scripts share: the service's address, common inputs, and checks that print one line each."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import urllib.request
from collections.abc import Callable
from typing import Any

BASE_URL = os.environ["BASE_URL"]
API_KEY = os.environ["API_KEY"]
MODEL = os.environ["MODEL"]
TIMEOUT_S = 180.0

QUESTION = "What is the capital of France?"
WEATHER = "What is the weather in Paris?"
PERSON = "Extract the name and age: Alice is 30 years old."
LOCATION = {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}
PERSON_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
"""A PNG of one pixel, in base64."""

_CHECKS: list[Callable[[], Any]] = []


def check(function: Callable[[], Any]) -> Callable[[], Any]:
    """Decorates a check, which raises if something is wrong. Its name is the check's."""
    _CHECKS.append(function)
    return function


def run() -> None:
    """Runs all checks in their order."""
    passed = sum(_passes(function) for function in _CHECKS)
    print(f"{passed} of {len(_CHECKS)}")


def _passes(function: Callable[[], Any]) -> bool:
    try:
        result = function()
        if inspect.iscoroutine(result):
            asyncio.run(result)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"FAIL {function.__name__}: {reason[:300]}")
        return False
    print(f"ok {function.__name__}")
    return True


def raises(kind: type[Exception], call: Callable[[], Any]) -> Any:
    """The error of this class that a call must raise."""
    try:
        answer = call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} but an answer: {str(answer)[:200]}")


def too_long() -> str:
    """A prompt of more words than the model's context has tokens."""
    request = urllib.request.Request(f"{BASE_URL}/v1/models", headers={"Authorization": f"Bearer {API_KEY}"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        length = json.load(response)["data"][0]["max_model_len"]
    return "word " * (length + 100)


def is_location(arguments: str | dict[str, Any]) -> None:
    """Checks a function's arguments against LOCATION."""
    value = json.loads(arguments) if isinstance(arguments, str) else arguments
    assert isinstance(value, dict), f"not an object: {value!r}"
    assert isinstance(value.get("location"), str), f"no location: {value!r}"


def is_text(text: str | None, part: str = "") -> None:
    """Checks that an answer has text, and a part of it."""
    assert text, f"no text: {text!r}"
    assert part in text, f"no {part!r} in {text[:200]!r}"
