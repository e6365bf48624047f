"""instructor: its modes with OpenAI's and with Anthropic's SDK."""

from __future__ import annotations

from typing import Any

import anthropic
import instructor
import openai
from checks import API_KEY, BASE_URL, MODEL, PERSON, TIMEOUT_S, check, run
from pydantic import BaseModel

OPENAI = openai.OpenAI(base_url=f"{BASE_URL}/v1", api_key=API_KEY, timeout=TIMEOUT_S, max_retries=0)
ANTHROPIC = anthropic.Anthropic(base_url=BASE_URL, api_key=API_KEY, timeout=TIMEOUT_S, max_retries=0)


class Person(BaseModel):
    name: str
    age: int


def extracted(client: Any, kind: Any = Person, **fields: Any) -> Any:
    body = {"model": MODEL, "max_retries": 0, "messages": [{"role": "user", "content": PERSON}], **fields}
    return client.chat.completions.create(response_model=kind, **body)


def is_alice(person: Person) -> None:
    assert (person.name, person.age) == ("Alice", 30), person  # of a class that instructor derives


@check
def tools() -> None:
    """The demo model copies into no function but its own: a person of any name counts."""
    assert isinstance(extracted(instructor.from_openai(OPENAI, mode=instructor.Mode.TOOLS), temperature=0), Person)


@check
def tools_strict() -> None:
    client = instructor.from_openai(OPENAI, mode=instructor.Mode.TOOLS_STRICT)
    assert isinstance(extracted(client, temperature=0), Person)


@check
def json_schema() -> None:
    is_alice(extracted(instructor.from_openai(OPENAI, mode=instructor.Mode.JSON_SCHEMA), temperature=0))


@check
def json() -> None:
    """Only the prompt has the schema, which the demo model does not read."""
    client = instructor.from_openai(OPENAI, mode=instructor.Mode.JSON)
    assert extracted(client, temperature=0) is not None


@check
def responses_tools() -> None:
    client = instructor.from_openai(OPENAI, mode=instructor.Mode.RESPONSES_TOOLS)
    assert isinstance(extracted(client, temperature=0), Person)


@check
def partial() -> None:
    client = instructor.from_openai(OPENAI, mode=instructor.Mode.JSON_SCHEMA)
    body = {"model": MODEL, "messages": [{"role": "user", "content": PERSON}], "temperature": 0}
    *_, last = client.chat.completions.create_partial(response_model=Person, **body)
    is_alice(Person.model_validate(last.model_dump()))


@check
def anthropic_tools() -> None:
    client = instructor.from_anthropic(ANTHROPIC, mode=instructor.Mode.ANTHROPIC_TOOLS)
    assert isinstance(extracted(client, max_tokens=500, extra_body={"temperature": 0}), Person)


run()
