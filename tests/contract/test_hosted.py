"""Tools of this process in vLLM's own loop: a model that follows a script, fakes of the tools, all else vLLM's."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from openai._types import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gptoss_bento.engine import patches, replacements, tool_call_limit
from gptoss_bento.engine.fake_tools import FakeBrowser, FakeCited, FakeMcp, FakeOutcome, FakePython
from gptoss_bento.engine.hosted.messages import result_message
from gptoss_bento.responses.event_stream import EventStream
from gptoss_bento.responses.objects import whole
from gptoss_bento.responses.request import read_create
from gptoss_bento.tools.interfaces import HostedTools, ToolFailedError
from gptoss_bento.training import harmony_text
from tests.harmony_renderer import renderer
from tests.vocabulary import vocabulary
from tests.waiting import until

__all__ = ["renderer", "vocabulary"]  # fixtures

pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("vocabulary")]

CODE = {"type": "code_interpreter", "container": {"type": "auto"}}
SEARCH = {"type": "web_search_preview"}
WEATHER = {"type": "mcp", "server_label": "weather", "server_url": "https://example.com/mcp"}
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": False}

THINKS = "<|channel|>analysis<|message|>I compute.<|end|><|start|>assistant"
RUNS = "<|channel|>analysis to=python code<|message|>2 + 2<|call|>"
SEARCHES = '<|channel|>analysis to=browser.search code<|message|>{"query": "rain"}<|call|>'
ASKS = '<|channel|>commentary to=weather.now json<|message|>{"city": "Rome"}<|call|>'
ANSWERS = "<|channel|>final<|message|>It is 4.<|return|>"
CITES = "<|channel|>final<|message|>It rains【0†L0-L1】 here【9†L1】.<|return|>"


class Engine:
    """Generates the texts of a script, a token at a time, and keeps the prompts.

    Args:
        script: its texts.
        reason: why each of them ends.
    """

    def __init__(self, script: Sequence[str], reason: str = "stop") -> None:
        self._script = list(script)
        self.reason = reason
        self.prompts: list[str] = []

    async def generate(self, engine_input: Any, *_: Any, **__: Any) -> AsyncIterator[Any]:
        outputs = importlib.import_module("vllm.outputs")
        prompt = engine_input["prompt_token_ids"]
        self.prompts.append(harmony_text.encoding().decode(prompt))
        tokens = list(harmony_text.encode(self._script.pop(0)))
        for number, token in enumerate(tokens, start=1):
            is_last = number == len(tokens)
            reason = self.reason if is_last else None
            completion = outputs.CompletionOutput(0, "", [token], None, None, finish_reason=reason)
            yield outputs.RequestOutput("r", None, prompt, None, [completion], is_last, num_cached_tokens=0)


class Tokenizer:
    def encode(self, text: str, **_: Any) -> list[int]:
        return list(harmony_text.encoding().encode(text))

    def decode(self, tokens: list[int]) -> str:
        return str(harmony_text.encoding().decode(tokens))

    def get_vocab(self) -> dict[str, int]:
        return {}


@pytest.fixture
def patched() -> Iterator[None]:
    """All changes to vLLM's classes that concern tools, until the end of the test."""
    replacements.repair_harmony()
    limits: list[tuple[Any, Any]] = [
        (patches.CALL_TOOL, lambda call: tool_call_limit.limited(call, note=result_message)),
        (patches.NEEDS_CALL, tool_call_limit.ending),
    ]
    with ExitStack() as stack:
        for patch, wrapper in [*replacements.hosted_wrappers(), *limits]:
            stack.enter_context(patch.replaced(wrapper(patch.original())))
        yield


class Service:
    """vLLM's /v1/responses over a script."""

    def __init__(self, renderer: Any, tools: HostedTools | None, *script: str, context_tokens: int = 4096) -> None:
        self.engine = Engine(script)
        serving_class = importlib.import_module("vllm.entrypoints.openai.responses.serving").OpenAIServingResponses
        renderer.use_harmony, tokenizer = True, Tokenizer()
        renderer.renderer = SimpleNamespace(get_tokenizer=lambda: tokenizer, tokenizer=tokenizer)
        renderer.model_config = SimpleNamespace(max_model_len=context_tokens, is_encoder_decoder=False)
        renderer.trust_request_chat_template = False
        serving = object.__new__(serving_class)
        config = renderer.model_config
        config.hf_config = SimpleNamespace(model_type="gpt_oss")
        serving.__dict__ |= {
            "engine_client": SimpleNamespace(generate=self.engine.generate, errored=False),
            "online_renderer": renderer,
            "renderer": renderer.renderer,
            "model_config": config,
            "parser": renderer.parser,
            "use_harmony": True,
            "enable_store": False,
            "default_sampling_params": {},
            "override_max_tokens": None,
            "chat_template": None,
            "chat_template_content_format": "auto",
            "chat_template_kwargs": {},
            "tool_server": None,
            "enable_per_request_metrics": False,
            "enable_log_outputs": False,
            "models": SimpleNamespace(model_name=lambda _: "m"),
            "request_logger": None,
        }

        async def fine(*_: Any) -> None: ...

        serving._check_model, serving._get_trace_headers = fine, fine
        serving._preflight = serving._log_inputs = lambda *_, **__: None
        serving._maybe_get_adapters = lambda _: None
        serving._get_session_id = lambda *_: None
        serving._get_priority = lambda *_: 0
        state = SimpleNamespace(online_renderer=renderer, openai_serving_responses=serving, tool_server=None)
        if tools is not None:
            replacements.host_tools(state, tools)
        self.serving, self.tool_server = serving, state.tool_server

    async def ask(self, *tools: Any, **fields: Any) -> Any:
        """vLLM's own answer."""
        protocol = importlib.import_module("vllm.entrypoints.openai.responses.protocol")
        request = protocol.ResponsesRequest.model_validate({"input": "How much?", "tools": list(tools), **fields})
        return await self.serving._create_responses(request)

    async def whole(self, *tools: Any, **fields: Any) -> dict[str, Any]:
        made = (await self.ask(*tools, **fields)).model_dump(mode="json", by_alias=True)
        if "output" in made:
            TypeAdapter(Response).validate_python({**made, "tool_choice": "auto"})
        return dict(made)

    async def events(self, *tools: Any, **fields: Any) -> list[dict[str, Any]]:
        found = [
            json.loads(event.model_dump_json(indent=None, by_alias=True))
            async for event in await self.ask(*tools, stream=True, **fields)
        ]
        for number, event in enumerate(found):
            assert event["sequence_number"] == number
            if "response" not in event:
                TypeAdapter(ResponseStreamEvent).validate_python(event)
        places = [event["output_index"] for event in found if event["type"] == "response.output_item.added"]
        assert places == list(range(len(places)))
        return found


def of(items: Sequence[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [item for item in items if item["type"] == kind]
    return found


def kinds(events: Sequence[dict[str, Any]]) -> list[str]:
    """The types of events, without those of the object, and with one of several deltas."""
    names = [event["type"].removeprefix("response.") for event in events if "response" not in event]
    return [name for number, name in enumerate(names) if number == 0 or name != names[number - 1]]


ITEM = ["output_item.added", "output_item.done"]
THOUGHT = [ITEM[0], "content_part.added", "reasoning_text.delta", "reasoning_text.done", "content_part.done", ITEM[1]]
TEXT = [ITEM[0], "content_part.added", "output_text.delta", "output_text.done", "content_part.done", ITEM[1]]


@pytest.mark.usefixtures("patched")
async def test_response_with_python_goes_through_vllms_loop(renderer: Any) -> None:
    python = FakePython()
    service = Service(renderer, HostedTools(python=python), THINKS + RUNS, THINKS + ANSWERS)

    made = await service.whole(CODE)

    assert [item["type"] for item in made["output"]] == ["reasoning", "code_interpreter_call", "reasoning", "message"]
    call = made["output"][1]
    assert (call["code"], call["container_id"], call["status"]) == ("2 + 2", python.new_id(), "completed")
    assert call["outputs"] == [{"type": "logs", "logs": "4"}]
    assert python.runs == [(python.new_id(), "2 + 2")]
    first, second = service.engine.prompts
    assert "## python" in first
    assert "I compute.<|end|>" in second
    assert second.endswith("<|start|>python to=assistant<|channel|>analysis<|message|>4<|end|><|start|>assistant")


@pytest.mark.usefixtures("patched")
async def test_stream_with_python_has_the_run_between_interpreting_and_completed(renderer: Any) -> None:
    seen: list[dict[str, Any]] = []
    at_run: list[str] = []

    async def answer(_: str) -> FakeOutcome:
        at_run.extend(kinds(seen))
        return FakeOutcome("4")

    service = Service(renderer, HostedTools(python=FakePython(answer)), THINKS + RUNS, ANSWERS)
    async for event in await service.ask(CODE, stream=True):
        seen.append(json.loads(event.model_dump_json(indent=None, by_alias=True)))  # noqa: PERF401  # read meanwhile

    code = [f"code_interpreter_call{name}" for name in (".in_progress", "_code.delta", "_code.done", ".interpreting")]
    assert kinds(seen) == [*THOUGHT, ITEM[0], *code, "code_interpreter_call.completed", ITEM[1], *TEXT]
    assert at_run == [*THOUGHT, ITEM[0], *code]
    assert [event["output_index"] for event in seen if event["type"].endswith("item.done")] == [0, 1, 2]
    for event in seen:
        if "response" not in event:
            TypeAdapter(ResponseStreamEvent).validate_python(event)


@pytest.mark.usefixtures("patched")
async def test_call_is_open_until_its_result_although_its_message_has_two_ends(renderer: Any) -> None:
    """As grammars have it: the message ends, and then the output."""
    service = Service(renderer, HostedTools(python=FakePython()), RUNS.replace("<|call|>", "<|end|><|call|>"), ANSWERS)

    events = await service.events(CODE)

    assert events[-1]["response"]["output"][0]["status"] == "completed"
    done = next(event["item"] for event in events if event["type"] == "response.output_item.done")
    assert (done["status"], done["outputs"]) == ("completed", [{"type": "logs", "logs": "4"}])


@pytest.mark.usefixtures("patched")
async def test_message_without_a_text_has_no_place_in_a_stream(renderer: Any) -> None:
    empty = "<|channel|>final<|message|><|end|><|start|>assistant"
    service = Service(renderer, HostedTools(python=FakePython()), THINKS + empty + RUNS, empty + ANSWERS)

    events = await service.events(CODE)

    kept = [event["item"]["type"] for event in events if event["type"] == "response.output_item.done"]
    assert kept == ["reasoning", "code_interpreter_call", "message"]


@pytest.mark.usefixtures("patched")
async def test_stream_of_a_search_has_its_real_action_and_citations(renderer: Any) -> None:
    browser = FakeBrowser()
    service = Service(renderer, HostedTools(browser=browser), SEARCHES, CITES)

    events = await service.events({**SEARCH, "filters": {"allowed_domains": ["example.com"]}})

    search = [f"web_search_call.{name}" for name in ("in_progress", "searching", "completed")]
    assert kinds(events)[:5] == [ITEM[0], *search, ITEM[1]]
    call = next(event["item"] for event in events if event["type"] == "response.output_item.done")
    assert call["action"]["sources"] == [{"type": "url", "url": FakeCited().url}]
    assert browser.sessions[0]["allowed_domains"] == ("example.com",)
    cited = {"type": "url_citation", "start_index": 8, "end_index": 17, "url": FakeCited().url, "title": "A page"}
    added = [event for event in events if event["type"] == "response.output_text.annotation.added"]
    assert [event["annotation"] for event in added] == [cited]
    assert events[-2]["item"]["content"][0]["annotations"] == [cited]
    assert events[-1]["response"]["output"][-1]["content"][0]["annotations"] == [cited]


@pytest.mark.usefixtures("patched")
async def test_mcp_server_is_a_namespace_beside_functions(renderer: Any) -> None:
    mcp = FakeMcp()
    service = Service(renderer, HostedTools(mcp=mcp), ASKS, ANSWERS)

    made = await service.whole(FUNCTION, {**WEATHER, "server_description": "Knows it."}, instructions="Be brief.")

    assert [item["type"] for item in made["output"]] == ["mcp_list_tools", "mcp_call", "message"]
    assert made["output"][0]["tools"][0]["name"] == "now"
    assert (made["output"][1]["output"], made["output"][1]["arguments"]) == ("sunny", '{"city": "Rome"}')
    assert mcp.calls == [("weather", "now", {"city": "Rome"})]
    assert mcp.open == 0
    first, second = service.engine.prompts
    assert "Be brief." in first
    assert "namespace functions {" in first
    assert "## weather\n\n// Knows it.\nnamespace weather {\n\n// The weather now.\ntype now = (_: " in first
    assert "<|start|>weather.now<|channel|>commentary to=assistant<|message|>sunny<|end|>" in second


@pytest.mark.usefixtures("patched")
async def test_stream_of_an_mcp_call_begins_with_the_list_of_tools(renderer: Any) -> None:
    service = Service(renderer, HostedTools(mcp=FakeMcp()), ASKS, ANSWERS)

    events = await service.events(WEATHER)

    listing = [ITEM[0], "mcp_list_tools.in_progress", "mcp_list_tools.completed", ITEM[1]]
    call = ["mcp_call.in_progress", "mcp_call_arguments.delta", "mcp_call_arguments.done", "mcp_call.completed"]
    assert kinds(events) == [*listing, ITEM[0], *call, ITEM[1], *TEXT]


@pytest.mark.usefixtures("patched")
async def test_server_that_cannot_be_asked_is_an_item_with_its_error(renderer: Any) -> None:
    mcp = FakeMcp(fails=ToolFailedError("weather does not answer."))
    service = Service(renderer, HostedTools(mcp=mcp), ANSWERS)

    made = await service.whole(WEATHER)

    assert (made["output"][0]["error"], made["output"][0]["tools"]) == ("weather does not answer.", [])
    assert "namespace weather" not in service.engine.prompts[0]


@pytest.mark.usefixtures("patched")
@pytest.mark.parametrize("streams", [False, True])
async def test_call_that_needs_an_approval_ends_the_response(renderer: Any, streams: bool) -> None:
    mcp = FakeMcp(asks=True)
    service = Service(renderer, HostedTools(mcp=mcp), THINKS + ASKS)

    made = (await service.events(WEATHER))[-1]["response"] if streams else await service.whole(WEATHER)

    assert made["status"] == "completed"
    assert [item["type"] for item in made["output"]] == ["mcp_list_tools", "reasoning", "mcp_approval_request"]
    request = made["output"][-1]
    assert (request["name"], request["arguments"]) == ("now", '{"city": "Rome"}')
    assert mcp.calls == []


REQUEST = {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "weather", "name": "now", "arguments": "{}"}


def decided(approve: bool) -> list[dict[str, Any]]:
    question = {"type": "message", "role": "user", "content": "Weather?"}
    return [question, REQUEST, {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": approve}]


@pytest.mark.usefixtures("patched")
@pytest.mark.parametrize("streams", [False, True])
async def test_approved_call_is_made_before_the_model_goes_on(renderer: Any, streams: bool) -> None:
    mcp = FakeMcp(asks=True)
    service = Service(renderer, HostedTools(mcp=mcp), ANSWERS)

    if streams:
        events = await service.events(WEATHER, input=decided(approve=True))
        call = ["mcp_call.in_progress", "mcp_call_arguments.done", "mcp_call.completed"]
        assert kinds(events)[4:] == [ITEM[0], *call, ITEM[1], *TEXT]
        made = events[-1]["response"]
    else:
        made = await service.whole(WEATHER, input=decided(approve=True))

    assert [item["type"] for item in made["output"]] == ["mcp_list_tools", "mcp_call", "message"]
    assert (made["output"][1]["approval_request_id"], made["output"][1]["output"]) == ("mcpr_1", "sunny")
    assert mcp.calls == [("weather", "now", {})]
    assert "weather.now<|channel|>commentary to=assistant<|message|>sunny" in service.engine.prompts[0]


@pytest.mark.usefixtures("patched")
async def test_refused_call_is_read_by_the_model(renderer: Any) -> None:
    mcp = FakeMcp(asks=True)
    service = Service(renderer, HostedTools(mcp=mcp), ANSWERS)

    made = await service.whole(WEATHER, input=decided(approve=False))

    assert [item["type"] for item in made["output"]] == ["mcp_list_tools", "message"]
    assert "The user did not approve this call." in service.engine.prompts[0]


@pytest.mark.usefixtures("patched")
async def test_approval_without_its_server_is_refused(renderer: Any) -> None:
    service = Service(renderer, HostedTools(mcp=FakeMcp()))

    made = await service.whole({**WEATHER, "server_label": "other"}, input=decided(approve=True))

    assert made["error"]["param"] == "tools"
    assert 'no MCP server "weather"' in made["error"]["message"]


@pytest.mark.usefixtures("patched")
@pytest.mark.parametrize("include", [[], ["code_interpreter_call.outputs", "web_search_call.action.sources"]])
async def test_stream_is_passed_on_whole_with_what_was_asked_for(renderer: Any, include: list[str]) -> None:
    tools = HostedTools(python=FakePython(), browser=FakeBrowser())
    service = Service(renderer, tools, THINKS + RUNS, SEARCHES, CITES)
    request = read_create(
        {"input": "How much?", "tools": [CODE, {"type": "web_search"}], "include": include}, can_search=True
    )
    stream = EventStream(lambda made: whole(made, request), returned=request.returned)

    sent: list[bytes] = []
    async for event in await service.ask(CODE, SEARCH, stream=True):
        data = event.model_dump_json(indent=None, by_alias=True)
        frame = f"event: {event.type}\ndata: {data}\n\n".encode()
        sent += [frame] if stream.passes(frame) else stream.feed(frame)

    final = Response.model_validate(stream.final, strict=True)
    assert [item.type for item in final.output] == ["reasoning", "code_interpreter_call", "web_search_call", "message"]
    _, ran, searched, answer = (item.model_dump() for item in final.output)
    assert ran["outputs"] == ([{"type": "logs", "logs": "4"}] if include else None)
    assert (searched["action"]["sources"] is not None) is bool(include)
    assert answer["content"][0]["annotations"][0]["url"] == FakeCited().url
    numbers = [json.loads(frame.partition(b"data: ")[2])["sequence_number"] for frame in sent]
    assert numbers == list(range(len(numbers)))


@pytest.mark.usefixtures("patched")
async def test_stream_of_all_tools_is_put_together_by_openais_sdk(renderer: Any) -> None:
    tools = HostedTools(python=FakePython(), browser=FakeBrowser(), mcp=FakeMcp())
    service = Service(renderer, tools, THINKS + RUNS, SEARCHES, ASKS, CITES)
    asked = [CODE, {"type": "web_search"}, WEATHER]
    request = read_create({"input": "How much?", "tools": asked}, can_search=True)
    stream = EventStream(lambda made: whole(made, request), returned=request.returned)
    state: Any = ResponseStreamState(input_tools=[], text_format=omit)

    async for event in await service.ask(CODE, SEARCH, WEATHER, stream=True):
        frame = f"event: {event.type}\ndata: {event.model_dump_json(indent=None, by_alias=True)}\n\n".encode()
        for sent in [frame] if stream.passes(frame) else stream.feed(frame):
            read = json.loads(sent.partition(b"data: ")[2])
            state.handle_event(TypeAdapter(ResponseStreamEvent).validate_python(read))

    made = state._completed_response
    kept = ["mcp_list_tools", "reasoning", "code_interpreter_call", "web_search_call", "mcp_call", "message"]
    assert [item.type for item in made.output] == kept
    assert made.output_text == "It rains【0†L0-L1】 here【9†L1】."


EARLIER = {
    "type": "mcp_call",
    "id": "mcp_1",
    "server_label": "weather",
    "name": "now",
    "arguments": "{}",
    "output": "rain",
}
RAN: dict[str, Any] = {
    "type": "code_interpreter_call",
    "id": "ci_1",
    "container_id": "cntr_0123456789abcdefEarlier",
    "code": "1",
}
RAN = {**RAN, "status": "completed"}


@pytest.mark.usefixtures("patched")
@pytest.mark.parametrize("outputs", [{}, {"outputs": None}])
async def test_container_of_earlier_code_is_used_again(renderer: Any, outputs: Any) -> None:
    python = FakePython()
    service = Service(renderer, HostedTools(python=python), RUNS, ANSWERS)
    others = [
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "open_page", "url": ""}},
        {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "weather", "tools": []},
        REQUEST,
    ]

    await service.whole(CODE, input=[{**RAN, **outputs}, *others, {"role": "user", "content": "Again."}])

    assert python.runs == [("cntr_0123456789abcdefEarlier", "2 + 2")]


@pytest.mark.usefixtures("patched")
async def test_earlier_mcp_call_is_read_again_without_its_server(renderer: Any) -> None:
    service = Service(renderer, None, ANSWERS)

    await service.whole(input=[{"role": "user", "content": "Weather?"}, EARLIER, {"role": "user", "content": "So?"}])

    assert "<|start|>weather.now<|channel|>commentary to=assistant<|message|>rain<|end|>" in service.engine.prompts[0]


@pytest.mark.usefixtures("patched")
@pytest.mark.parametrize("name", ["server_label", "name"])
async def test_name_that_harmony_cannot_write_is_refused(renderer: Any, name: str) -> None:
    made = await Service(renderer, None).whole(
        input=[{"role": "user", "content": "So?"}, {**EARLIER, name: "a<|end|>"}]
    )

    assert (made["error"]["code"], made["error"]["param"]) == (400, "input")
    assert f'{name} of the mcp_call "mcp_1" must have no <|' in made["error"]["message"]


@pytest.mark.usefixtures("patched")
async def test_servers_are_asked_for_their_tools_within_the_time_of_a_response(renderer: Any) -> None:
    class Hanging(FakeMcp):
        @asynccontextmanager
        async def _connected(self, server: Any) -> AsyncIterator[Any]:
            del server
            await asyncio.Event().wait()
            yield

    service = Service(renderer, HostedTools(mcp=Hanging(), turn_timeout_s=0.01), ANSWERS)

    made = await service.whole(WEATHER)

    assert "It took more than 0.01 s" in made["output"][0]["error"]


async def test_vllm_still_reads_no_items_of_built_in_tools(renderer: Any) -> None:
    made = await Service(renderer, None).whole(input=[{"role": "user", "content": "Weather?"}, EARLIER])

    assert made["error"]["message"].startswith("Unknown input type: mcp_call")


async def test_vllm_still_refuses_mcp_beside_functions(renderer: Any) -> None:
    with pytest.raises(Exception, match="tool type 'mcp' is not supported"):
        await Service(renderer, None).whole(FUNCTION, WEATHER)


@pytest.mark.usefixtures("patched")
@pytest.mark.parametrize("streams", [False, True])
async def test_call_beyond_the_limit_is_incomplete(renderer: Any, streams: bool) -> None:
    python = FakePython()
    service = Service(renderer, HostedTools(python=python), RUNS, RUNS, ANSWERS)

    asked = {"max_tool_calls": 1}
    made = (await service.events(CODE, **asked))[-1]["response"] if streams else await service.whole(CODE, **asked)

    assert len(python.runs) == 1
    assert [item["status"] for item in made["output"]] == ["completed", "incomplete", "completed"]


@pytest.mark.usefixtures("patched")
async def test_call_that_is_not_made_has_no_event_of_a_run(renderer: Any) -> None:
    service = Service(renderer, HostedTools(python=FakePython(), mcp=FakeMcp()), RUNS, ASKS)

    events = await service.events(CODE, WEATHER, max_tool_calls=0)

    code = ["code_interpreter_call.in_progress", "code_interpreter_call_code.delta", "code_interpreter_call_code.done"]
    call = ["mcp_call.in_progress", "mcp_call_arguments.delta", "mcp_call_arguments.done"]
    assert kinds(events)[4:] == [ITEM[0], *code, ITEM[1], ITEM[0], *call, ITEM[1]]


@pytest.mark.usefixtures("patched")
@pytest.mark.parametrize("streams", [False, True])
async def test_call_that_was_cut_is_no_question_for_the_client(renderer: Any, streams: bool) -> None:
    service = Service(renderer, HostedTools(mcp=FakeMcp(asks=True)), THINKS + ASKS.removesuffix("}<|call|>"))
    service.engine.reason = "length"

    made = (await service.events(WEATHER))[-1]["response"] if streams else await service.whole(WEATHER)

    assert (made["status"], made["output"][-1]["type"], made["output"][-1]["status"]) == (
        "incomplete",
        "mcp_call",
        "incomplete",
    )


@pytest.mark.usefixtures("patched")
async def test_list_of_tools_is_there_although_the_model_ended_no_message(renderer: Any) -> None:
    service = Service(renderer, HostedTools(mcp=FakeMcp()), "<|channel|>analysis")
    service.engine.reason = "length"

    made = await service.whole(WEATHER)

    assert made["status"] == "incomplete"
    assert [item["type"] for item in made["output"]] == ["mcp_list_tools"]


@pytest.mark.usefixtures("patched")
async def test_tool_choice_none_shows_no_tool_and_calls_none(renderer: Any) -> None:
    python = FakePython()
    service = Service(renderer, HostedTools(python=python, mcp=FakeMcp()), RUNS)

    made = await service.whole(CODE, WEATHER, tool_choice="none")

    assert python.runs == []
    assert made["output"][-1]["status"] == "incomplete"
    assert "namespace weather" not in service.engine.prompts[0]


@pytest.mark.usefixtures("patched")
async def test_server_whose_label_begins_as_python_does_is_called(renderer: Any) -> None:
    python, mcp = FakePython(), FakeMcp()
    service = Service(renderer, HostedTools(python=python, mcp=mcp), ASKS.replace("weather", "pythonic"), ANSWERS)

    await service.whole(CODE, {**WEATHER, "server_label": "pythonic"})

    assert (len(python.runs), len(mcp.calls)) == (0, 1)


@pytest.mark.usefixtures("patched")
async def test_tools_that_take_too_long_are_stopped_and_the_model_reads_it(renderer: Any) -> None:
    async def hang(_: str) -> FakeOutcome:
        await asyncio.Event().wait()
        raise AssertionError

    python = FakePython(hang)
    service = Service(renderer, HostedTools(python=python, turn_timeout_s=0.01), RUNS, RUNS, RUNS)

    made = await service.whole(CODE)

    assert python.ended == len(python.runs) == 1
    assert [item["status"] for item in made["output"]] == ["failed", "incomplete", "incomplete"]
    assert "the call was stopped after 0.01 s" in service.engine.prompts[1]
    assert "The 0.01 s for tools in this response are over" in service.engine.prompts[2]


@pytest.mark.usefixtures("patched")
@pytest.mark.parametrize("streams", [False, True])
async def test_cancelled_response_stops_its_tool(renderer: Any, streams: bool) -> None:
    runs = asyncio.Event()

    async def hang(_: str) -> FakeOutcome:
        runs.set()
        await asyncio.Event().wait()
        raise AssertionError

    python = FakePython(hang)
    service = Service(renderer, HostedTools(python=python), RUNS)
    task = asyncio.create_task(service.events(CODE) if streams else service.ask(CODE))
    await until(runs.is_set)
    task.cancel()
    await asyncio.wait((task,))

    assert python.ended == 1


@pytest.mark.usefixtures("patched")
async def test_result_is_cut_to_the_room_of_the_context(renderer: Any) -> None:
    async def flood(_: str) -> FakeOutcome:
        return FakeOutcome("word " * 5000)

    service = Service(renderer, HostedTools(python=FakePython(flood)), RUNS, ANSWERS, context_tokens=2048)

    made = await service.whole(CODE)

    assert made["status"] == "completed"
    assert "[The rest has no room in the context, and was left out.]" in service.engine.prompts[1]


@pytest.mark.usefixtures("patched")
async def test_response_ends_where_the_context_is_full(renderer: Any) -> None:
    async def flood(_: str) -> FakeOutcome:
        return FakeOutcome("word " * 5000)

    python = FakePython(flood)
    service = Service(renderer, HostedTools(python=python), *[RUNS] * 50, context_tokens=1024)

    made = await service.whole(CODE)

    assert 1 < len(python.runs) < 50
    assert [item["status"] for item in made["output"]] == ["completed"] * len(python.runs) + ["incomplete"]


@pytest.mark.usefixtures("patched")
async def test_result_of_an_approved_call_is_cut_to_the_room_of_the_context(renderer: Any) -> None:
    async def flood() -> FakeOutcome:
        return FakeOutcome("word " * 5000)

    service = Service(renderer, HostedTools(mcp=FakeMcp(answer=flood)), ANSWERS, context_tokens=1024)

    made = await service.whole(WEATHER, input=decided(approve=True))

    assert made["status"] == "completed"
    assert "[The rest has no room in the context" in service.engine.prompts[0]


@pytest.mark.usefixtures("patched")
@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("<|channel|>analysis to=browser.search code<|message|>{not json<|call|>", "are no JSON object"),
        ("<|channel|>analysis to=browser.find code<|message|>{}<|call|>", "find needs pattern"),
        ("<|channel|>analysis to=browser.fly code<|message|>{}<|call|>", "the browser has no function fly"),
        ("<|channel|>commentary to=weather.then json<|message|>{}<|call|>", "weather has no tool then; it has now"),
    ],
)
async def test_call_that_cannot_be_made_is_text_for_the_model(renderer: Any, call: str, words: str) -> None:
    tools = HostedTools(browser=FakeBrowser(), mcp=FakeMcp())
    service = Service(renderer, tools, call, ANSWERS)

    made = await service.whole(SEARCH, WEATHER)

    assert words in service.engine.prompts[1]
    assert made["output"][1]["status"] == "failed"
    await Service(renderer, tools, call, ANSWERS).events(SEARCH, WEATHER)


@pytest.mark.usefixtures("patched")
async def test_place_of_the_user_is_read_by_the_model(renderer: Any) -> None:
    service = Service(renderer, HostedTools(browser=FakeBrowser()), ANSWERS)

    await service.whole({**SEARCH, "user_location": {"type": "approximate", "city": "Rome", "country": "IT"}})

    assert "The user is near Rome, IT." in service.engine.prompts[0]
