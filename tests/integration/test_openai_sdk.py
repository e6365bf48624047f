"""What a user of OpenAI's own SDK gets from the real server and the real engine."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from tests.server import MODEL, NO_TLS, ServedProcess
from tests.waiting import HANG_S

pytestmark = pytest.mark.engine

QUESTION = "What is the capital of France?"
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": QUESTION}]
GET_WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Gets the current weather of a city.",
        "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
    },
}


def test_chat_answers_with_reasoning_in_its_own_field(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0)

    message = answer.choices[0].message
    assert "Paris" in (message.content or "")
    assert (message.model_extra or {})["reasoning"]
    assert "analysis" not in (message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert answer.usage.completion_tokens > 0


@pytest.mark.parametrize("effort", ["low", "medium", "high"])
def test_chat_answers_at_every_reasoning_effort(client: openai.OpenAI, effort: Any) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0, reasoning_effort=effort)
    assert "Paris" in (answer.choices[0].message.content or "")


def test_stream_of_a_chat_joins_to_the_whole_answer_and_ends_with_usage(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=MESSAGES, temperature=0, stream=True, stream_options={"include_usage": True}
        )
    )
    whole = client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0)

    content = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    reasoning = "".join(
        (chunk.choices[0].delta.model_extra or {}).get("reasoning") or "" for chunk in chunks if chunk.choices
    )
    assert content == whole.choices[0].message.content
    assert reasoning == (whole.choices[0].message.model_extra or {})["reasoning"]
    assert not chunks[-1].choices
    in_cache = {"prompt_tokens_details"}  # what the cache has of a prompt depends on what came before
    assert chunks[-1].usage
    assert whole.usage
    assert chunks[-1].usage.model_dump(exclude=in_cache) == whole.usage.model_dump(exclude=in_cache)


async def test_async_client_chats_and_streams(server: ServedProcess) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as sdk:
        answer = await sdk.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0)
        stream = await sdk.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0, stream=True)
        streamed = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert "Paris" in streamed
    assert streamed == answer.choices[0].message.content


def test_function_call_and_the_answer_made_from_its_result(client: openai.OpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the weather in Paris?"}]
    asked = client.chat.completions.create(model=MODEL, messages=messages, tools=[GET_WEATHER], temperature=0)

    assert asked.choices[0].finish_reason == "tool_calls"
    calls = asked.choices[0].message.tool_calls
    assert calls
    assert calls[0].type == "function"
    assert calls[0].function.name == "get_weather"
    assert json.loads(calls[0].function.arguments) == {"location": "Paris"}

    messages.append(asked.choices[0].message.model_dump(exclude_none=True))  # type: ignore[arg-type]  # as SDK users do
    result = json.dumps({"temperature": 21, "unit": "celsius", "condition": "sunny"})
    messages.append({"role": "tool", "tool_call_id": calls[0].id, "content": result})
    answered = client.chat.completions.create(model=MODEL, messages=messages, tools=[GET_WEATHER], temperature=0)
    assert "21" in (answered.choices[0].message.content or "")


def test_stream_of_a_function_call_joins_to_the_same_call(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[GET_WEATHER],
        temperature=0,
        stream=True,
    )
    calls = [call for chunk in stream for choice in chunk.choices for call in choice.delta.tool_calls or []]
    functions = [call.function for call in calls if call.function]
    assert [function.name for function in functions if function.name] == ["get_weather"]
    assert json.loads("".join(function.arguments or "" for function in functions)) == {"location": "Paris"}


def test_response_format_makes_json_of_the_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Extract the name and age: Alice is 30 years old."}],
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": schema}},
        temperature=0,
        max_tokens=200,
    )
    person = json.loads(answer.choices[0].message.content or "")
    assert set(person) == {"name", "age"}
    assert isinstance(person["name"], str)
    assert isinstance(person["age"], int)


def test_completion_continues_the_raw_text(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="The capital of France is", temperature=0, max_tokens=16)
    assert "Paris" in answer.choices[0].text


def test_stream_of_a_completion_joins_to_the_whole_text(client: openai.OpenAI) -> None:
    prompt = "The capital of France is"
    whole = client.completions.create(model=MODEL, prompt=prompt, temperature=0, max_tokens=16)
    stream = client.completions.create(model=MODEL, prompt=prompt, temperature=0, max_tokens=16, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text


def test_responses_answer_can_be_fetched_again(client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input=QUESTION, temperature=0)
    assert "Paris" in response.output_text
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert client.responses.retrieve(response.id).output_text == response.output_text


def test_responses_stream_ends_with_the_completed_response(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model=MODEL, input=QUESTION, temperature=0, stream=True))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[-1].type == "response.completed"
    assert text == events[-1].response.output_text
    assert "Paris" in text


def test_stream_breaks_no_character_at_the_edge_of_an_event(server: ServedProcess) -> None:
    text = " Grüße 🧿 ꙮ"
    body = {
        "model": MODEL,
        "prompt": "Hello",
        "stream": True,
        "max_tokens": 40,
        "structured_outputs": {"choice": [text]},
    }
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=HANG_S, verify=NO_TLS) as response:
        events = b"".join(response.iter_raw()).split(b"\n\n")

    pieces = [json.loads(event.decode().removeprefix("data: "))["choices"][0]["text"] for event in events[:-2]]
    assert "".join(pieces) == text
    assert len(pieces) > 3
    assert not any("�" in piece for piece in pieces)


def test_background_response_can_be_cancelled(client: openai.OpenAI) -> None:
    response = client.responses.create(
        model=MODEL, input="Write a short story about a robot.", background=True, extra_body={"ignore_eos": True}
    )
    assert client.responses.cancel(response.id).status == "cancelled"
    assert client.responses.retrieve(response.id).status == "cancelled"


def test_model_that_is_unknown_is_a_not_found_error_that_names_it(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="nope"):
        client.chat.completions.create(model="nope", messages=MESSAGES)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("temperature", -1), ("top_p", 3), ("max_tokens", -5), ("n", 0), ("presence_penalty", 9), ("temperature", "hot")],
)
def test_parameter_that_is_wrong_is_a_bad_request_error_that_names_it(
    client: openai.OpenAI, parameter: str, value: Any
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, extra_body={parameter: value})
    assert parameter in str(caught.value.body)
    assert str(caught.value.param).endswith(parameter)


def test_prompt_longer_than_the_context_is_a_bad_request_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="4096"):
        client.completions.create(model=MODEL, prompt="word " * 5000, max_tokens=1)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "word " * 5000}]}),
        ("/v1/completions", {"prompt": "word " * 5000}),
        ("/v1/responses", {"input": "word " * 5000}),
    ],
)
def test_prompt_longer_than_the_context_has_the_code_and_sentence_of_openai(
    client: openai.OpenAI, path: str, body: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length is 4096 tokens") as caught:
        client.post(path.removeprefix("/v1"), body={"model": MODEL, **body}, cast_to=object)
    assert caught.value.code == "context_length_exceeded"


def test_several_choices_at_temperature_0_are_the_likeliest_answer(client: openai.OpenAI) -> None:
    one = client.completions.create(model=MODEL, prompt="The capital of France is", max_tokens=6, temperature=0)
    three = client.completions.create(model=MODEL, prompt="The capital of France is", max_tokens=6, temperature=0, n=3)

    assert [choice.text for choice in three.choices] == [one.choices[0].text] * 3


def test_constraint_of_a_former_name_holds(client: openai.OpenAI) -> None:
    extra = {"guided_choice": ["red", "blue"]}
    answer = client.completions.create(model=MODEL, prompt="The sky is", max_tokens=5, extra_body=extra)

    assert answer.choices[0].text in ("red", "blue")


def test_null_is_as_absent_for_fields_that_vllm_does_not_take_it_for(client: openai.OpenAI) -> None:
    names = ("include_reasoning", "use_beam_search", "ignore_eos", "priority", "echo", "skip_special_tokens")
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, extra_body=dict.fromkeys(names))

    assert answer.choices[0].message.content


def test_tokenize_counts_a_chat_as_the_engine_does(client: openai.OpenAI) -> None:
    body = {"model": MODEL, "messages": MESSAGES}
    tokenized: Any = client.post("/tokenize", body=body, cast_to=object)

    assert tokenized["count"] == usage_of(client)


def usage_of(client: openai.OpenAI) -> int:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=1)
    assert answer.usage
    return answer.usage.prompt_tokens


def test_response_that_is_unknown_is_a_not_found_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_unknown")


def test_models_lists_the_served_name_and_hides_the_folder_of_the_weights(client: openai.OpenAI) -> None:
    models = client.models.list().data
    assert [model.id for model in models] == [MODEL]
    assert "/" not in (models[0].model_extra or {})["root"]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nope")
