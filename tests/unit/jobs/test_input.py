"""The envelope, and the shapes of `input`."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gptoss_bento.config.settings import WEEK_MS, ServerSettings
from gptoss_bento.http.fields.served_model import GPT_OSS, ServedModel
from gptoss_bento.http.json_body import EnvelopeError
from gptoss_bento.http.paths import CHAT, COMPLETIONS
from gptoss_bento.jobs.input import (
    EngineRequest,
    InputError,
    Models,
    OutputFormat,
    Policy,
    engine_request,
    read_envelope,
)
from gptoss_bento.jobs.output.batching import Schedule
from tests.server import REPOSITORY

SETTINGS = ServerSettings()
MODELS = Models(("gpt-oss", "alias"), frozenset({"adapter"}))
USER = [{"role": "user", "content": "Hi"}]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)

EXAMPLES = [
    example
    for example in yaml.safe_load((REPOSITORY / "tests/integration/worker_examples.yaml").read_text())["jobs"]
    if "status" not in example
]


def envelope(**fields: Any) -> Any:
    return read_envelope(json.dumps({"input": {}, **fields}).encode(), SETTINGS)


def envelope_error(body: Any) -> str:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(EnvelopeError) as caught:
        read_envelope(raw, SETTINGS)
    return str(caught.value)


def request(fields: dict[str, Any], **settings: Any) -> EngineRequest:
    return engine_request(fields, SETTINGS.model_copy(update=settings), MODELS)


def input_error(fields: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        request(fields)
    return str(caught.value)


# the envelope


def test_least_envelope_has_the_defaults() -> None:
    assert envelope().policy == Policy(600_000, 86_400_000, low_priority=False)
    assert envelope().webhook is None


def test_fields_that_the_platform_ignores_are_ignored() -> None:
    fields = {"s3Config": {"accessSecret": "hidden"}, "other": 1, "policy": None, "webhook": None}

    assert envelope(**fields) == envelope()


@pytest.mark.parametrize("body", [{}, {"prompt": "Hi"}, {"input": None}])
def test_missing_input_is_named(body: Any) -> None:
    assert envelope_error(body) == "'input' is required and must be a JSON object"


@pytest.mark.parametrize("value", ["Hi", [], 1, True])
def test_input_of_another_type_is_shown(value: Any) -> None:
    assert envelope_error({"input": value}) == f"'input' is required and must be a JSON object, got {json.dumps(value)}"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"nonsense", b'{"input": NaN}', b"[" * 10_000])
def test_body_that_is_no_json_is_refused(body: bytes) -> None:
    assert envelope_error(body).startswith("The body must be a JSON object; it is not JSON: ")


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null"])
def test_body_that_is_no_object_is_refused(body: bytes) -> None:
    assert envelope_error(body) == f"The body must be a JSON object, got {body.decode()}"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"policy": 1}, "policy must be an object, got 1"),
        ({"policy": {"ttl": "1"}}, 'policy.ttl must be a number of milliseconds, got "1"'),
        (
            {"policy": {"executionTimeout": True}},
            "policy.executionTimeout must be a number of milliseconds, got true",
        ),
        ({"policy": {"lowPriority": 1}}, "policy.lowPriority must be true or false, got 1"),
        ({"webhook": 5}, "webhook must be a URL, got 5"),
        ({"webhook": "ftp://x.org"}, 'webhook must be an http or https URL, got "ftp://x.org"'),
        ({"webhook": "http://"}, 'webhook must be an http or https URL, got "http://"'),
        ({"webhook": "http://x:y/"}, 'webhook must be an http or https URL, got "http://x:y/"'),
        ({"webhook": "http://a b/"}, 'webhook must be an http or https URL, got "http://a b/"'),
        ({"webhookV2": "x"}, 'webhookV2 must be an http or https URL, got "x"'),
        ({"s3Config": "secret"}, "s3Config must be an object"),
    ],
)
def test_wrong_field_of_the_envelope_is_named(fields: dict[str, Any], words: str) -> None:
    assert envelope_error({"input": {}, **fields}) == words


def test_problems_of_the_envelope_are_reported_together() -> None:
    assert envelope_error({"webhook": 1, "policy": {"ttl": []}}).count(";") == 2


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"executionTimeout": 3000}, Policy(5000, 86_400_000)),
        ({"executionTimeout": 10**30}, Policy(WEEK_MS, 86_400_000)),
        ({"ttl": 1}, Policy(600_000, 10_000)),
        ({"ttl": 20_000.7, "lowPriority": True}, Policy(600_000, 20_000, low_priority=True)),
    ],
)
def test_policy_out_of_range_is_moved_to_its_bound(policy: dict[str, Any], expected: Policy) -> None:
    assert envelope(policy=policy).policy == expected


def test_webhook_v2_is_used_where_there_is_no_webhook() -> None:
    assert envelope(webhook="https://a.org/x", webhookV2="https://b.org").webhook == "https://a.org/x"
    assert envelope(webhook="", webhookV2="https://b.org").webhook == "https://b.org"


@given(st.dictionaries(st.sampled_from(["input", "webhook", "webhookV2", "policy", "s3Config"]) | st.text(), JSON))
def test_envelope_of_any_kind_fails_only_with_its_error(body: dict[str, Any]) -> None:
    raw = json.dumps(body).encode()
    with suppress(EnvelopeError):
        read_envelope(raw, SETTINGS)


# shapes of input


def test_openai_input_is_sent_to_its_route() -> None:
    found = request({"openai_route": "/v1/responses", "openai_input": {"input": "Hi", "model": "alias"}})

    assert (found.method, found.path) == ("POST", "/v1/responses")
    assert found.body == {"input": "Hi", "model": "alias"}
    assert found.format is OutputFormat.FRAMES
    assert not found.stream


def test_openai_input_without_a_route_is_a_chat_with_the_first_model() -> None:
    found = request({"openai_input": {"messages": USER, "stream": True}, "messages": [], "prompt": "x"})

    assert found.path == CHAT
    assert found.body == {"messages": USER, "stream": True, "model": "gpt-oss"}
    assert found.stream


def test_frames_are_parsed_without_raw_output() -> None:
    assert request({"openai_input": {"a": 1}}, raw_openai_output=False).format is OutputFormat.CHUNKS


@pytest.mark.parametrize("fields", [{}, {"openai_input": {}}, {"openai_input": None}])
def test_route_alone_is_got(fields: dict[str, Any]) -> None:
    found = request({"openai_route": "/v1/models", **fields})

    assert (found.method, found.path, found.body) == ("GET", "/v1/models", None)


def test_models_may_be_posted_to() -> None:
    assert request({"openai_route": "/v1/models", "openai_input": {"x": 1}}).method == "GET"


@pytest.mark.parametrize(
    ("fields", "method", "body"),
    [
        ({}, "GET", None),
        ({"body": {}}, "POST", {}),
        ({"body": {"prompt": "x"}}, "POST", {"prompt": "x"}),
        ({"body": {"prompt": "x"}, "method": "get"}, "GET", None),
        ({"method": "post"}, "POST", None),
    ],
)
def test_generic_route_has_its_method(fields: dict[str, Any], method: str, body: Any) -> None:
    found = request({"route": "/tokenize", **fields})

    assert (found.method, found.path, found.body) == (method, "/tokenize", body)


def test_prefix_of_worker_vllm_is_dropped_and_a_query_kept() -> None:
    found = request({"route": "/openai/v1/responses/r1?stream=true"})

    assert (found.path, found.query) == ("/v1/responses/r1", "stream=true")


@pytest.mark.parametrize(
    "route",
    [
        "v1/models",
        "@host/v1/models",
        "http://host/v1/models",
        "//host/v1/models",
        "/v1/../metrics",
        "/v1/%2e%2e/metrics",
        "/v1/%252e%252e/metrics",
        "/v1/a%2f%2fb",
        "/v1/x%5cy",
        "/v1/x\\y",
        "/v1/x\ny",
        "/v1/x%00",
        "/v1/x%0a",
        "/v1/@x",
        "/v1/%40x",
        "/v1/x#y",
        "/v1/%ff",
        "/v1/\ud800",
        "/scale_elastic_ep",
        "/metrics",
        "/openai/openai/v1/models",
        "/v1",
        "",
        5,
        [],
    ],
)
def test_route_that_is_not_allowed_is_invalid(route: Any) -> None:
    assert input_error({"route": route}).startswith("Invalid route: route must be ")


@pytest.mark.parametrize("method", ["DELETE", "", 5])
def test_method_that_is_not_allowed_is_invalid(method: Any) -> None:
    assert input_error({"route": "/v1/models", "method": method}) == (
        f"Invalid route: method must be GET or POST, got {json.dumps(method)}."
    )


def test_operator_may_allow_more_or_less() -> None:
    assert request({"route": "/metrics"}, route_allowlist=("/metrics",)).path == "/metrics"
    with pytest.raises(InputError, match="must be one of /metrics"):
        request({"route": "/v1/models"}, route_allowlist=("/metrics",))


def test_prompt_is_a_completion_in_tokens() -> None:
    found = request(
        {"prompt": "Hello", "sampling_params": {"max_tokens": 2}, "model": "other", "use_openai_format": True}
    )

    assert (found.method, found.path) == ("POST", COMPLETIONS)
    assert found.body == {"prompt": "Hello", "max_tokens": 2}
    assert found.format is OutputFormat.TOKENS


def test_messages_win_over_a_prompt() -> None:
    found = request({"prompt": "Hello", "messages": USER, "sampling_params": None})

    assert found.is_chat
    assert found.body == {"messages": USER, "max_tokens": 100, "return_token_ids": True}


def test_null_messages_leave_the_prompt() -> None:
    assert request({"prompt": "Hello", "messages": None}).path == COMPLETIONS


def test_string_instead_of_messages_is_a_prompt() -> None:
    assert (request({"messages": "Hello"}).body or {})["prompt"] == "Hello"


def test_template_makes_a_chat_of_a_prompt() -> None:
    assert (request({"prompt": "Hi", "apply_chat_template": True}).body or {})["messages"] == USER


def test_stream_of_tokens_asks_for_their_ids() -> None:
    found = request({"prompt": "Hi", "stream": True, "sampling_params": {"stream_options": {"include_usage": True}}})

    assert found.body == {"prompt": "Hi", "max_tokens": 100, "stream": True, "return_token_ids": True}
    assert found.stream


def test_fields_that_the_engine_omits_with_token_ids_are_added_afterwards() -> None:
    echo = request({"prompt": "Hi", "sampling_params": {"echo": True}})
    hidden = request({"messages": USER, "sampling_params": {"include_reasoning": False}})

    assert echo.echo == "Hi"
    assert "echo" not in (echo.body or {})
    assert not hidden.show_reasoning
    assert "include_reasoning" not in (hidden.body or {})


@pytest.mark.parametrize("asked", [{"prompt": "Hi"}, {"messages": USER}])
def test_several_answers_at_temperature_0_are_the_likeliest_one(asked: dict[str, Any]) -> None:
    def sampling(parameters: dict[str, Any], model: ServedModel) -> dict[str, Any]:
        found = engine_request({**asked, "sampling_params": parameters}, SETTINGS, Models(served=model))
        left_out = (*asked, "max_tokens", "return_token_ids")
        return {name: value for name, value in (found.body or {}).items() if name not in left_out}

    greedy = {"n": 2, "temperature": 1, "top_k": 1, "top_p": 1, "min_p": 0}
    zero = ServedModel(default_temperature=0)
    assert sampling({"n": 2, "temperature": 0, "top_p": 0.5}, GPT_OSS) == greedy
    assert sampling({"n": 2}, zero) == greedy
    assert sampling({"n": 2}, GPT_OSS) == {"n": 2}
    assert sampling({"n": 2, "temperature": 0.5}, zero) == {"n": 2, "temperature": 0.5}
    assert sampling({"n": 2, "use_beam_search": True}, zero) == {"n": 2, "use_beam_search": True}


TEMPLATE = {"chat_template": "x", "chat_template_kwargs": {"enable_thinking": False}, "documents": [{"text": "x"}]}
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}]


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": USER, "sampling_params": TEMPLATE},
        {"messages": USER, **TEMPLATE},
        {"openai_input": {"messages": USER, **TEMPLATE}},
        {"route": CHAT, "body": {"messages": USER, **TEMPLATE}},
        {"messages": IMAGE},
        {"openai_input": {"messages": IMAGE}},
    ],
)
def test_job_of_another_architecture_may_have_what_its_template_takes(fields: dict[str, Any]) -> None:
    found = engine_request(fields, SETTINGS, Models(served=ServedModel(writes_harmony=False))).body or {}

    assert found["messages"] in (USER, IMAGE)
    assert TEMPLATE.items() <= found.items() or found["messages"] == IMAGE
    with pytest.raises(InputError):
        request(fields)


HIDDEN = {"messages": USER, "sampling_params": {"include_reasoning": False, "logprobs": True}}


def test_job_of_another_architecture_shows_no_log_probabilities_of_hidden_reasoning() -> None:
    parsed, plain = (ServedModel(writes_harmony=False, parses_reasoning=parses) for parses in (True, False))

    with pytest.raises(InputError, match="logprobs would show the reasoning"):
        engine_request(HIDDEN, SETTINGS, Models(served=parsed))
    assert (engine_request(HIDDEN, SETTINGS, Models(served=plain)).body or {})["logprobs"] is True
    assert (request(HIDDEN).body or {})["logprobs"] is True, "GPT-OSS's are those of the answer alone"


def test_openai_format_is_the_engines_own() -> None:
    found = request({"prompt": "Hi", "stream": True, "max_batch_size": 7}, native_output_format="openai")

    assert found.format is OutputFormat.FRAMES
    assert found.body == {"prompt": "Hi", "max_tokens": 100, "stream": True}
    assert found.schedule == Schedule(50, 1, 3)


def test_model_counts_only_where_it_names_an_adapter() -> None:
    assert (request({"prompt": "Hi", "model": "adapter"}).body or {})["model"] == "adapter"
    assert "model" not in (request({"prompt": "Hi", "model": ["adapter"]}).body or {})
    assert (request({"prompt": "Hi", "sampling_params": {"model": "other"}}).body or {})["model"] == "other"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "Got no fields."),
        ({"input": {}}, 'Got ["input"].'),
        ({"openai_input": {}}, 'Got ["openai_input"].'),
        ({"openai_input": "x"}, 'openai_input must be an object, got "x".'),
        ({"route": "/v1/models", "body": []}, "body must be an object, got []."),
        ({"prompt": ""}, 'prompt must be a non-empty string, got "".'),
        ({"prompt": 5}, "prompt must be a non-empty string, got 5."),
        ({"messages": ""}, 'messages must be a non-empty list of messages, got "".'),
        ({"messages": []}, "messages must be a non-empty list, got []."),
        ({"messages": {}}, "messages must be a non-empty list of messages, got {}."),
        ({"messages": [1]}, "messages[0] must be an object with role and content, got 1."),
        (
            {"messages": [{"role": "boss", "content": "x"}]},
            'messages[0].role must be one of system, developer, user, assistant, tool, got "boss".',
        ),
        (
            {"messages": [*USER, {"role": "user"}]},
            "messages[1].content must be a string or a list of parts, got null.",
        ),
        ({"prompt": "x", "stream": "yes"}, 'stream must be true or false, got "yes".'),
        ({"prompt": "x", "apply_chat_template": 1}, "apply_chat_template must be true or false, got 1."),
        ({"prompt": "x", "sampling_params": []}, "sampling_params must be an object, got []."),
        ({"prompt": "x", "sampling_params": {"n": 0}}, "n must be an integer of at least 1, got 0."),
        ({"prompt": "x", "max_batch_size": -1}, "max_batch_size must be a number of at least 0, got -1."),
        ({"prompt": "x", "min_batch_size": "a"}, 'min_batch_size must be a number of at least 0, got "a".'),
        (
            {"prompt": "x", "batch_size_growth_factor": "nan"},
            'batch_size_growth_factor must be a number of at least 0, got "nan".',
        ),
        ({"prompt": "x", "max_batch_size": True}, "max_batch_size must be a number of at least 0, got true."),
    ],
)
def test_wrong_input_is_named(fields: dict[str, Any], words: str) -> None:
    assert words in input_error(fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"prompt": "x", "samplng_params": {"n": 1}},
            'samplng_params is no field of input, got {"n":1}. Did you mean sampling_params?',
        ),
        ({"prompt": "x", "batch_size": 3}, "batch_size is no field of input, got 3. Did you mean min_batch_size?"),
        ({"prompt": "x", "temprature": 0}, "temprature is no field of input, got 0. Did you mean temperature?"),
        ({"messages": USER, "zzz": 1}, "zzz is no field of input, got 1. It takes prompt, messages, "),
        ({"messages": USER, "api_key": "sk-1"}, 'api_key is no field of input, got "***".'),
        ({"openai_input": {"prompt": "x"}, "openai_rout": "/v1"}, "Did you mean openai_route?"),
        ({"route": "/v1/models", "metod": "GET"}, "Did you mean method?"),
        ({"promt": "x"}, "promt: did you mean prompt?"),
        ({"prompt": "x", "method": "GET"}, 'method is for jobs with route only, got "GET".'),
        ({"openai_input": {"prompt": "x"}, "max_tokens": 3}, "max_tokens belongs into openai_input here, got 3."),
        ({"route": "/v1/x", "body": {}, "sampling_params": {"n": 2}}, "sampling_params belongs into body here, got"),
    ],
)
def test_field_without_effect_is_an_error(fields: dict[str, Any], words: str) -> None:
    assert words in input_error(fields)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: str(example["name"]))
def test_examples_of_worker_vllm_are_accepted_unless_they_show_an_error(example: dict[str, Any]) -> None:
    request(example["body"]["input"])


def test_field_that_is_null_is_not_given() -> None:
    nothing = {"zzz": None, "max_tokens": None, "method": None, "sampling_params": None}

    assert request({"prompt": "x", **nothing}) == request({"prompt": "x"})
    assert request({"openai_input": {"messages": USER}, **nothing}).is_chat


def test_sampling_parameters_beside_prompt_or_messages_count() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    beside = {"tools": tools, "tool_choice": "auto", "response_format": {"type": "text"}, "max_tokens": 3}

    assert request({"messages": USER, **beside}) == request({"messages": USER, "sampling_params": beside})
    assert request({"prompt": "x", "max_tokens": 3, "stop": "y"}) == request(
        {"prompt": "x", "max_tokens": 3, "sampling_params": {"stop": "y", "max_tokens": 3.0}}
    )


@pytest.mark.parametrize(
    ("beside", "inside", "words"),
    [
        ({"max_tokens": 3}, {"max_tokens": 4}, "max_tokens is 3 in input and 4 in sampling_params; give it once."),
        ({"logprobs": True}, {"logprobs": 1}, "logprobs is true in input and 1 in sampling_params; give it once."),
        ({"temperature": 5}, {}, "temperature must be a number from 0 to 2, got 5."),
        ({"n": 2}, [], "sampling_params must be an object, got []."),
    ],
)
def test_sampling_parameters_beside_messages_that_are_wrong_are_named(
    beside: dict[str, Any], inside: Any, words: str
) -> None:
    assert words in input_error({"messages": USER, **beside, "sampling_params": inside})


def test_tools_beside_a_prompt_are_an_error() -> None:
    assert input_error({"prompt": "x", "tools": []}) == "tools is for messages jobs only, got []."


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"prompt": "x", "sampling_params": {"vllm_xargs": {"a": 1e999}}}, "vllm_xargs.a"),
        ({"messages": USER, "tools": [{"x": 1e999}]}, "tools[0].x"),
        ({"messages": [{**USER[0], "x": 1e999}]}, "messages[0].x"),
        ({"openai_input": {"tools": [{"x": 1e999}]}}, "openai_input.tools[0].x"),
        ({"route": "/v1/x", "body": {"a": {"b": [0, 1e999]}}}, "body.a.b[1]"),
    ],
)
def test_number_that_no_float_holds_is_named_wherever_it_is(fields: dict[str, Any], path: str) -> None:
    assert input_error(fields) == f"{path} must be a number below 1.8e308, got 1e999 or the like."


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "video_url", 5])
@pytest.mark.parametrize("role", ["user", "tool"])
def test_part_that_is_no_text_is_named(kind: Any, role: str) -> None:
    messages = [*USER, {"role": role, "content": [{"type": "text", "text": "x"}, {"type": kind}]}]
    words = f'messages[1].content[1].type must be "text", got {json.dumps(kind)}: GPT-OSS reads text.'

    assert input_error({"messages": messages}) == words
    assert input_error({"openai_input": {"messages": messages}}) == f"openai_input.{words}"
    assert input_error({"route": CHAT, "body": {"messages": messages}}) == f"body.{words}"


def test_parts_of_responses_and_anthropic_messages_are_named_too() -> None:
    image = [{"role": "user", "content": [{"type": "image"}]}]

    for route, field in (("/v1/responses", "input"), ("/v1/messages", "messages")):
        text = input_error({"openai_route": route, "openai_input": {field: image}})
        assert text.startswith(f"openai_input.{field}[0].content[0].type must be ")


def test_openai_job_is_held_against_the_table_of_fields() -> None:
    found = request({"openai_input": {"messages": USER, "guided_choice": ["a"], "zzz": 1}})

    assert (found.body or {})["structured_outputs"] == {"choice": ["a"]}
    assert found.ignored == ("zzz",)
    assert input_error({"openai_input": {"messages": USER, "chat_template": "x"}}).startswith("openai_input.chat_templ")
    with pytest.raises(InputError, match="zzz is no field"):
        request({"openai_input": {"messages": USER, "zzz": 1}}, unknown_fields="refuse")


UNCLOSED: Any = {"type": "object", "properties": {"a": {"type": "string", "pattern": "["}}}
TOOLS: Any = [{"type": "function", "function": {"name": "f", "parameters": UNCLOSED}}]


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"openai_input": {"messages": USER, "guided_json": UNCLOSED}}, "openai_input.guided_json"),
        ({"openai_input": {"messages": USER, "tools": TOOLS}}, "openai_input.tools[0].function.parameters"),
        ({"route": CHAT, "body": {"messages": USER, "tools": TOOLS}}, "body.tools[0].function.parameters"),
        ({"messages": USER, "tools": TOOLS}, "tools[0].function.parameters"),
        ({"messages": USER, "sampling_params": {"guided_json": UNCLOSED}}, "guided_json"),
        ({"prompt": "x", "sampling_params": {"structured_outputs": {"json": UNCLOSED}}}, "structured_outputs.json"),
    ],
)
def test_schema_that_does_not_compile_ends_the_job_with_its_place(fields: dict[str, Any], place: str) -> None:
    assert input_error(fields) == f"{place}.properties.a.pattern has an unclosed [ at position 0."


def test_old_names_of_constraints_still_constrain_native_jobs() -> None:
    for name, kind, value in (("guided_regex", "regex", "a+"), ("guided_grammar", "grammar", "root ::= 'a'")):
        found = request({"messages": USER, "sampling_params": {name: value}})

        assert (found.body or {})["structured_outputs"] == {kind: value}
        assert name not in (found.body or {})


def test_parts_of_text_are_passed_on() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}, {"text": "c"}]
    messages = [{"role": "user", "content": parts}]

    assert (request({"messages": messages}).body or {})["messages"] == messages


def test_input_without_a_shape_is_answered_with_the_shapes() -> None:
    text = input_error({"input": {}})

    for name in ("prompt", "messages", "openai_route", "openai_input", "route", "body"):
        assert name in text


def test_assistant_that_called_a_tool_needs_no_content() -> None:
    messages = [*USER, {"role": "assistant", "tool_calls": []}, {"role": "tool", "content": "5"}]

    assert (request({"messages": messages}).body or {})["messages"] == messages


@pytest.mark.parametrize("falsy", [None, 0, "", 0.0, "0", False])
def test_falsy_batch_field_is_the_default_of_the_server(falsy: Any) -> None:
    fields = {"prompt": "x", "max_batch_size": falsy, "min_batch_size": falsy, "batch_size_growth_factor": falsy}

    assert request(fields, default_batch_size=9, default_min_batch_size=2).schedule == Schedule(9, 2, 3.0)


def test_batch_fields_may_be_texts_and_fractions() -> None:
    fields = {"prompt": "x", "max_batch_size": "10", "min_batch_size": 1.5, "batch_size_growth_factor": "1.5"}

    assert request(fields).schedule == Schedule(10, 1.5, 1.5)


SHAPES = ["prompt", "messages", "openai_input", "openai_route", "route", "body", "method", "sampling_params", "model"]
FIELDS = ["stream", "max_batch_size", "min_batch_size", "batch_size_growth_factor", "apply_chat_template"]
NAMES = st.sampled_from([*SHAPES, *FIELDS, "max_tokens", "tools", "unknown"])
PARAMETERS = st.dictionaries(st.sampled_from(["n", "stop", "seed", "logit_bias", "best_of", "min_tokens"]), JSON)


@given(st.dictionaries(NAMES, JSON | PARAMETERS))
def test_input_of_any_kind_fails_only_with_its_error(fields: dict[str, Any]) -> None:
    with suppress(InputError):
        json.dumps(request(fields).body)
