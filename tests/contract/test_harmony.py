"""vLLM's Harmony parser with our repairs in it: what a chat client gets of an answer that breaks the format."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from gptoss_bento.artifacts import prepare
from gptoss_bento.config import environment
from gptoss_bento.engine import patches, replacements
from gptoss_bento.engine.harmony_parser import LOGPROBS
from gptoss_bento.engine.harmony_tokens import CHANNEL, CONSTRAIN, ENDS, FIRST_SPECIAL, MESSAGE, START
from gptoss_bento.engine.stop_strings import StoppingDetokenizer
from gptoss_bento.training import harmony_text
from tests.contract.test_vllm import engine_request
from tests.unit.engine.test_harmony_repair import ANSWER, THOUGHT

# Their own warnings at import are not ours to fix.
pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]


class Tokenizer:
    """As much of a tokenizer as the parser asks for."""

    def decode(self, tokens: list[int]) -> str:
        return str(harmony_text.encoding().decode(tokens))

    def get_vocab(self) -> dict[str, int]:
        return {}


@pytest.fixture(scope="module")
def parser_class() -> Any:
    harmony_text.use_vocabulary(prepare.find_vocabulary(environment.cache_dir()))
    replacements.repair_harmony()
    replacements.follow_requests()
    manager = importlib.import_module("vllm.parser.parser_manager").ParserManager
    return manager.get_parser(
        tool_parser_name="openai", reasoning_parser_name="openai_gptoss", enable_auto_tools=True, is_harmony=True
    )


def asked(**fields: Any) -> Any:
    """A request of vLLM's."""
    return SimpleNamespace(**{"include_reasoning": True, "tool_choice": "auto", "tools": None, **fields})


REQUEST = asked()


def whole(
    parser_class: Any, text: str | Sequence[int], request: Any = REQUEST
) -> tuple[str | None, str | None, list[str]]:
    """Reasoning, content and calls of an answer in one piece."""
    tokens = ids(text)
    reasoning, content, calls = parser_class(Tokenizer()).parse("", request, True, tokens)
    return reasoning, content, [f"{call.name}{call.arguments}" for call in calls or []]


def ids(text: str | Sequence[int]) -> list[int]:
    return list(harmony_text.encode(text)) if isinstance(text, str) else list(text)


def streamed(
    parser_class: Any, text: str | Sequence[int], size: int, request: Any = REQUEST
) -> tuple[str | None, str | None, list[str]]:
    """The same, of one that comes in pieces."""
    parser, tokens = parser_class(Tokenizer()), ids(text)
    reasoning, content, calls = "", "", []
    for start in range(0, len(tokens), size):
        piece = tokens[start : start + size]
        delta = parser.parse_delta("", piece, request, finished=start + size >= len(tokens))
        if delta is None:
            continue
        reasoning, content = reasoning + (delta.reasoning or ""), content + (delta.content or "")
        for call in delta.tool_calls or []:
            if call.function.name:
                calls.append(call.function.name)
            calls[-1] += call.function.arguments or ""
    return reasoning or None, content or None, calls


CALL = '<|message|>{"a": 1}<|call|>'
ANSWERED: tuple[str | None, str | None, list[str]] = ("Hm.", "Paris 🇫🇷.", [])
CALLED = ("Hm.", None, ['f{"a": 1}'])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(THOUGHT + ANSWER, ANSWERED, id="well-formed"),
        pytest.param(THOUGHT + ANSWER.removeprefix("<|start|>"), ANSWERED, id="no start"),
        pytest.param(THOUGHT + ANSWER.removeprefix("<|start|>assistant"), ANSWERED, id="no start, no role"),
        pytest.param(THOUGHT.removesuffix("<|end|>") + ANSWER, ANSWERED, id="no end"),
        pytest.param(THOUGHT + "<|end|>" + ANSWER, ANSWERED, id="two ends"),
        pytest.param(THOUGHT + ANSWER.replace("<|message|>", " "), ANSWERED, id="no message"),
        pytest.param(THOUGHT + "Paris 🇫🇷.<|return|>", ANSWERED, id="no header"),
        pytest.param(THOUGHT + "<|start|>" + ANSWER, ANSWERED, id="two starts"),
        pytest.param(THOUGHT + ANSWER.replace("final", "finally"), ANSWERED, id="unknown channel"),
        pytest.param(THOUGHT + "commentary to=functions.f json" + CALL, CALLED, id="12606 for start"),
        pytest.param(
            THOUGHT + "<|start|>assistant<|channel|>commentary to=functions.f x <|constrain|>json" + CALL,
            CALLED,
            id="tokens remain in the header",
        ),
        pytest.param(
            THOUGHT + "<|start|>assistant<|channel|>commentary<|channel|>commentary to=functions.f json" + CALL,
            CALLED,
            id="unknown role",
        ),
    ],
)
def test_client_gets_the_answer(
    parser_class: Any, text: str, expected: tuple[str | None, str | None, list[str]]
) -> None:
    reasoning, content, calls = whole(parser_class, text)
    assert (reasoning, content, [call.replace(" ", "") for call in calls]) == (
        *expected[:2],
        [call.replace(" ", "") for call in expected[2]],
    )
    for size in (1, 3, 1000):
        assert streamed(parser_class, text, size) == expected, f"{size} tokens a piece"


def test_repairs_are_counted(parser_class: Any) -> None:
    def count() -> float:
        return REGISTRY.get_sample_value("gptoss_bento_harmony_repairs_total", {"kind": "missing_end"}) or 0

    before = count()
    whole(parser_class, THOUGHT.removesuffix("<|end|>") + ANSWER)
    assert count() == before + 1


def test_vllm_without_the_repairs_still_loses_answers(parser_class: Any) -> None:
    """Why engine/harmony_repair.py is there. When this fails, vLLM or harmony has fixed it."""
    own = importlib.import_module("vllm.entrypoints.openai.parser.harmony_utils").get_streamable_parser_for_assistant
    text = THOUGHT + ANSWER.replace("<|message|>", " ")
    with patches.HARMONY_PARSER.replaced(own):
        lost = whole(parser_class, text)

    assert lost != ANSWERED
    assert whole(parser_class, text) == ANSWERED


# --- stop strings ----------------------------------------------------------------------------------------------------

THINKS_OF_PARIS = "<|channel|>analysis<|message|>The capital is Paris.<|end|>"
SAYS_PARIS = "<|start|>assistant<|channel|>final<|message|>It is Paris, in France.<|return|>"


@pytest.mark.parametrize("harmony", [True, False])
def test_stop_strings_of_another_format_are_left_to_vllms_detokenizer(parser_class: Any, harmony: bool) -> None:
    assert parser_class, "with it chats are marked"
    protocol = importlib.import_module("vllm.entrypoints.openai.chat_completion.protocol")
    chat = protocol.ChatCompletionRequest(messages=[{"role": "user", "content": "x"}], stop=["Paris"])
    output = importlib.import_module("vllm.v1.engine.output_processor").OutputProcessor(None, log_stats=False)
    state = SimpleNamespace(online_renderer=SimpleNamespace(use_harmony=harmony))
    client: Any = SimpleNamespace(output_processor=output)
    replacements.follow_harmony(state, client)
    output.add_request(engine_request("r", chat.to_sampling_params(100, {})), None)
    detokenizer = output.request_states["r"].detokenizer

    assert isinstance(detokenizer, StoppingDetokenizer) == harmony


def run(parser_class: Any, text: str, size: int = 1, **fields: Any) -> tuple[Any, str | None, int]:
    """An answer as the engine and the parser make it, one and several tokens a step: content, stop string, tokens."""
    params = importlib.import_module("vllm").SamplingParams(max_tokens=100, **fields)
    params.extra_args = {replacements.STOPS_IN_FINAL: True}
    output = importlib.import_module("vllm.v1.engine.output_processor").OutputProcessor(None, log_stats=False)
    client: Any = SimpleNamespace(output_processor=output)
    replacements.stop_in_final(client)
    output.add_request(engine_request("r", params), None)
    detokenizer = output.request_states["r"].detokenizer
    tokens, found = ids(text), None
    for start in range(0, len(tokens), size):
        if found := detokenizer.update(tokens[start : start + size], False):
            break
    generated = detokenizer.output_token_ids
    request = asked(**fields)
    once = whole(parser_class, generated, request)
    for piece in (1, 2, 1000):
        got = streamed(parser_class, generated, piece, request)
        assert (got[0], got[1] or "", got[2]) == (once[0], once[1] or "", once[2]), f"{piece} tokens a piece"
    return once, found, len(generated)


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("stop", "content", "found"),
    [
        (["Paris"], "It is ", "Paris"),
        (["aris, in Fr"], "It is P", "aris, in Fr"),  # begins within a token, over several
        ([" in", "Paris, i"], "It is ", "Paris, i"),  # the first that is complete
        (["It"], "", "It"),
        (["capital"], "It is Paris, in France.", None),
        (["France. And"], "It is Paris, in France.", None),  # held back until the end
        (["final", "assistant", "<|message|>"], "It is Paris, in France.", None),
    ],
)
def test_stop_string_counts_in_the_final_channel(
    parser_class: Any, size: int, stop: list[str], content: str, found: str | None
) -> None:
    whole_text = THINKS_OF_PARIS + SAYS_PARIS
    (reasoning, answer, _), stopped_by, tokens = run(parser_class, whole_text, size, stop=stop)

    assert (reasoning, answer, stopped_by) == ("The capital is Paris.", content, found)
    assert (tokens < len(ids(whole_text))) == (found is not None), "tokens after it are not of the answer"


@pytest.mark.parametrize(
    ("stop", "statuses"), [("Paris", [None, "completed"]), ("It", [None]), ("zzz", [None, "completed"])]
)
@pytest.mark.parametrize("size", [1, 1000])
def test_items_of_a_response_have_the_status_of_the_response(
    parser_class: Any, stop: str, statuses: list[str | None], size: int
) -> None:
    said = SAYS_PARIS.partition(stop)
    tokens = ids(THINKS_OF_PARIS + said[0] + said[1])
    harmony = importlib.import_module("vllm.entrypoints.openai.responses.harmony")
    context = response_context(parser_class, asked(stop=[stop]), tokens, size)
    assert [
        item.status
        for place, message in enumerate(context.messages, 1)
        for item in harmony.harmony_to_response_output(
            message, frozenset(), incomplete=place == len(context.messages) and context.last_append_flush_status
        )
    ] == statuses, "None is that of reasoning"


def response_context(parser_class: Any, request: Any, tokens: list[int], size: int) -> Any:
    """vLLM's own, after all tokens of an output."""
    outputs = importlib.import_module("vllm.outputs")
    module = importlib.import_module("vllm.entrypoints.openai.responses.context")
    parser = parser_class(Tokenizer()).follow(request)
    context = module.HarmonyContext([], [], frozenset(), response_parser=parser, request=None)
    for start in range(0, len(tokens), size):
        is_last = start + size >= len(tokens)
        piece = outputs.CompletionOutput(0, "", tokens[start : start + size], None, None, "stop" if is_last else None)
        context.append_output(outputs.RequestOutput("r", None, [1], None, [piece], is_last))
    return context


CONSTRAINED = ["final json", "final <|constrain|>json"]
"""Headers that vLLM's grammar of a JSON schema allows."""


@pytest.mark.parametrize("thought", ["", "<|channel|>analysis<|message|>Paris.<|end|><|start|>assistant"])
@pytest.mark.parametrize("header", CONSTRAINED)
def test_answer_by_a_schema_is_content_and_has_stop_strings(parser_class: Any, header: str, thought: str) -> None:
    text = f'{thought}<|channel|>{header}<|message|>{{"city": "Paris"}}<|return|>'
    for size in (1, 3, 1000):
        (_, answer, calls), found, tokens = run(parser_class, text, size, stop=["Par", "zzz"])
        assert (answer, calls, found) == ('{"city": "', [], "Par")
        assert tokens < len(ids(text)), "the engine stops"
    assert whole(parser_class, text)[1:] == ('{"city": "Paris"}', [])
    assert streamed(parser_class, text, 1)[1:] == ('{"city": "Paris"}', [])


def test_vllms_own_parser_still_takes_an_answer_by_a_schema_for_a_call(parser_class: Any) -> None:
    """When this fails, `_open_message` needs no restart for what Harmony's parser takes for a recipient."""
    assert parser_class, "with it there is a vocabulary"
    utils = importlib.import_module("vllm.entrypoints.openai.parser.harmony_utils")
    parser = utils.get_streamable_parser_for_assistant()
    for token in ids("<|channel|>final json<|message|>"):
        parser.process(token)
    assert parser.current_recipient == "json"


@pytest.mark.parametrize("header", CONSTRAINED)
def test_log_probabilities_of_an_answer_by_a_schema(parser_class: Any, header: str) -> None:
    tokens = ids(f'<|channel|>{header}<|message|>{{"a": 1}}<|return|>')
    logprobs = LOGPROBS.put(SimpleNamespace(content=[Tokenizer().decode([token]) for token in tokens]))
    parser_class(Tokenizer()).parse("", asked(logprobs=True), model_output_token_ids=tokens)

    assert "".join(logprobs.content) == '{"a": 1}'


def test_stop_string_is_included_where_that_is_asked_for(parser_class: Any) -> None:
    text = THINKS_OF_PARIS + SAYS_PARIS
    (_, answer, _), found, _ = run(parser_class, text, 4, stop=["aris, i"], include_stop_str_in_output=True)

    assert (answer, found) == ("It is Paris, i", "aris, i")


@pytest.mark.parametrize("size", [1, 5])
def test_stop_string_within_the_first_tokens_is_text(parser_class: Any, size: int) -> None:
    text = THINKS_OF_PARIS + SAYS_PARIS.replace("France", "Paris")
    first = len(ids(THINKS_OF_PARIS + SAYS_PARIS.partition(", in")[0]))
    (_, answer, _), found, _ = run(parser_class, text, size, stop=["Paris"], min_tokens=first)

    assert (answer, found) == ("It is Paris, in ", "Paris")


def test_stop_string_in_arguments_or_a_preamble_does_not_count(parser_class: Any) -> None:
    preamble = "<|start|>assistant<|channel|>commentary<|message|>I ask for Paris.<|end|>"
    call = '<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{"city": "Paris"}<|call|>'
    (_, content, calls), found, _ = run(parser_class, THINKS_OF_PARIS + preamble + call, stop=["Paris"])

    assert (content, calls, found) == ("I ask for Paris.", ['f{"city": "Paris"}'], None)


def test_detokenizer_of_vllm_still_stops_within_the_reasoning() -> None:
    """Why a chat's is replaced. When this fails, vLLM looks for stop strings in the answer alone."""
    detokenizer = importlib.import_module("vllm.v1.engine.detokenizer").BaseIncrementalDetokenizer
    parameters = inspect.signature(detokenizer.__init__).parameters
    assert list(parameters) == ["self", "request"], "it knows nothing of channels"
    update = inspect.signature(detokenizer.update).parameters
    assert list(update) == ["self", "new_token_ids", "stop_terminated"]


@pytest.mark.parametrize(
    ("module", "name", "fields"),
    [
        ("chat_completion", "ChatCompletionRequest", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("responses", "ResponsesRequest", {"input": "Hi"}),
    ],
)
def test_sampling_parameters_say_where_stop_strings_count(
    parser_class: Any, module: str, name: str, fields: dict[str, Any]
) -> None:
    assert parser_class, "with it the patches are applied"
    request = getattr(importlib.import_module(f"vllm.entrypoints.openai.{module}.protocol"), name)

    marked = request(**fields, stop=["Paris"], vllm_xargs={"a": 1}).to_sampling_params(10, {})
    assert marked.extra_args == {"a": 1, replacements.STOPS_IN_FINAL: True}
    assert not request(**fields).to_sampling_params(10, {}).extra_args, "without stop strings all is as it was"


def test_vllms_own_parser_still_lets_stop_strings_through(parser_class: Any) -> None:
    """Why there is a subclass. When this fails, vLLM's parser reads the request's stop strings."""
    own = parser_class.__mro__[2]
    assert own.__module__ == "vllm.parser.harmony"
    text, request = THINKS_OF_PARIS + SAYS_PARIS.partition(", in")[0], asked(stop=["Paris"])

    assert whole(own, text, request)[1] == "It is Paris"
    assert whole(parser_class, text, request)[1] == "It is "


def test_parser_of_a_response_is_made_for_its_request(parser_class: Any) -> None:
    serving = importlib.import_module("vllm.entrypoints.openai.responses.serving").OpenAIServingResponses
    assert list(inspect.signature(serving._make_response_parser).parameters)[1] == "request"
    responses: Any = SimpleNamespace(_make_response_parser=lambda *_: parser_class(Tokenizer()))
    replacements.follow_answers(SimpleNamespace(openai_serving_responses=responses))

    parser = responses._make_response_parser(asked(stop="Paris"), None, {})
    segments = parser.process_chunk(ids(THINKS_OF_PARIS + SAYS_PARIS.partition(", in")[0])).segments + parser.flush()
    assert "".join(it.delta for it in segments if it.channel == "final") == "It is "
    assert [it.completed_message.content[0].text for it in segments if it.completed_message][-1] == "It is "


# --- control tokens --------------------------------------------------------------------------------------------------

TEXT = ["Hm", " yes", "final", "analysis", "commentary", " to=functions.f", " json", "{}", "🇫🇷", "assistant", "\n"]


@settings(max_examples=150, deadline=None)
@given(
    pieces=st.lists(
        st.sampled_from([*TEXT, *ENDS, START, CHANNEL, MESSAGE, CONSTRAIN, FIRST_SPECIAL, 200000, 201087]), max_size=40
    ),
    stop=st.sampled_from([None, [" yes"], ["s\n", "{}"]]),
)
def test_control_token_never_becomes_text(parser_class: Any, pieces: list[str | int], stop: list[str] | None) -> None:
    tokens = [token for it in pieces for token in ([it] if isinstance(it, int) else ids(it))]
    for reasoning, content, calls in (
        whole(parser_class, tokens, asked(stop=stop)),
        streamed(parser_class, tokens, 1, asked(stop=stop)),
        streamed(parser_class, tokens, 3, asked(stop=stop)),
    ):
        assert "<|" not in f"{reasoning}{content}{calls}"


GRAMMAR_ENDS = ["<|return|>", "<|end|><|endoftext|>", "<|end|><|return|>", "<|endoftext|>", "<|end|><|call|>"]


@pytest.mark.parametrize("end", GRAMMAR_ENDS)
def test_end_after_a_grammar_is_no_text_and_no_repair(parser_class: Any, end: str) -> None:
    def repairs() -> float:
        kinds = ("missing_header", "stray_token", "bad_header")
        return sum(REGISTRY.get_sample_value("gptoss_bento_harmony_repairs_total", {"kind": it}) or 0 for it in kinds)

    before, text = repairs(), THOUGHT + ANSWER.replace("<|return|>", end)
    assert whole(parser_class, text) == ANSWERED
    assert streamed(parser_class, text, 1) == ANSWERED
    assert repairs() == before


def test_stream_and_whole_answer_are_the_same(parser_class: Any) -> None:
    """Also of a text that is recovered only at the end of the output."""
    text = THOUGHT + "The answer is 4."

    assert whole(parser_class, text) == ("Hm.", "The answer is 4.", [])
    for size in (1, 3, 1000):
        assert streamed(parser_class, text, size) == ("Hm.", "The answer is 4.", [])


# --- what is counted, and log probabilities --------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["to=functions.f<|channel|>commentary", "<|channel|>commentary to=functions.f"])
def test_arguments_of_functions_are_no_reasoning_tokens(parser_class: Any, header: str) -> None:
    thought = ids("The capital is Paris.")
    tokens = ids(THINKS_OF_PARIS + f'<|start|>assistant {header} json<|message|>{{"city": "Paris"}}<|call|>')
    parser = parser_class(Tokenizer())
    parser.parse("", REQUEST, True, tokens)

    assert parser.count_reasoning_tokens(tokens) == len(thought)
    assert parser_class(Tokenizer()).count_reasoning_tokens(tokens) == len(thought), "counted again"
    assert parser_class.__mro__[2](Tokenizer()).count_reasoning_tokens(tokens) > len(thought), "vLLM's own"


def test_log_probabilities_are_made_just_before_the_chunk_is_parsed() -> None:
    """Nothing waits in between, so that no other request can come there."""
    serving = importlib.import_module("vllm.entrypoints.openai.chat_completion.serving").OpenAIServingChat
    for generator in (serving.chat_completion_stream_generator, serving.chat_completion_full_generator):
        made, _, rest = inspect.getsource(generator).partition("self._create_chat_logprobs(")
        assert made
        between = rest.partition("parser.parse")[0]
        assert rest != between
        assert not [word for word in ("await ", "yield ", "async ") if word in between]


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (None, ["It", " is", " Paris", ",", " in", " France", "."]),
        ([" France. No"], ["It", " is", " Paris", ",", " in", " France", "."]),
        (["Paris"], ["It", " is", " Paris"]),  # whose space is shown
        ([" Paris"], ["It", " is"]),
    ],
)
def test_log_probabilities_are_those_of_the_contents_tokens(
    parser_class: Any, size: int, stop: list[str] | None, expected: list[str]
) -> None:
    text = THINKS_OF_PARIS + SAYS_PARIS
    if stop and stop[0] in "It is Paris":
        text = text.partition(", in")[0]
    tokens, request, parser = ids(text), asked(logprobs=True, stop=stop), parser_class(Tokenizer())
    found = []
    for start in range(0, len(tokens), size):
        piece = tokens[start : start + size]
        logprobs = LOGPROBS.put(SimpleNamespace(content=[Tokenizer().decode([token]) for token in piece]))
        parser.parse_delta("", piece, request, finished=start + size >= len(tokens))
        found += logprobs.content
    whole_answer = LOGPROBS.put(SimpleNamespace(content=[Tokenizer().decode([token]) for token in tokens]))
    parser_class(Tokenizer()).parse("", request, model_output_token_ids=tokens)

    assert found == whole_answer.content == expected


def chat_serving(parser_class: Any) -> Any:
    """As much of vLLM's own as an answer needs."""
    serving_class = importlib.import_module("vllm.entrypoints.openai.chat_completion.serving").OpenAIServingChat
    serving = object.__new__(serving_class)
    serving.parser_cls, serving.enable_auto_tools, serving.response_role = parser_class, True, "assistant"
    serving._make_parser = lambda *_: parser_class(Tokenizer())
    serving._effective_chat_template_kwargs = lambda _: {}
    for switch in ("enable_prompt_tokens_details", "enable_log_outputs", "enable_per_request_metrics"):
        setattr(serving, switch, False)
    serving._include_reasoning_tokens_details = serving.return_tokens_as_token_ids = False
    serving.system_fingerprint = serving.request_logger = None
    serving.enable_force_include_usage = serving.enable_log_deltas = False
    return serving


async def engine_outputs(tokens: list[int], size: int, answers: int) -> AsyncIterator[Any]:
    """What the engine returns of an answer: in pieces for a stream."""
    outputs, logprob = importlib.import_module("vllm.outputs"), importlib.import_module("vllm.logprobs").Logprob
    for start in range(0, len(tokens), size):
        piece, is_last = tokens[start : start + size], start + size >= len(tokens)
        entries = [{token: logprob(-0.5, 1, Tokenizer().decode([token]))} for token in piece]
        made = [
            outputs.CompletionOutput(number, "", piece, None, entries, "stop" if is_last else None)
            for number in range(answers)
        ]
        yield outputs.RequestOutput("r", None, [1], None, made, is_last)


async def answered(serving: Any, text: str, stream: bool, **fields: Any) -> list[tuple[Any, Any, str | None]]:
    """Reasoning, content and the tokens of the log probabilities of each choice."""
    protocol = importlib.import_module("vllm.entrypoints.openai.chat_completion.protocol")
    chat = {"messages": [{"role": "user", "content": "x"}], "n": 2, "logprobs": True, "stream": stream, **fields}
    request, tokens = protocol.ChatCompletionRequest.model_validate(chat), ids(text)
    rest: Any = ("r", "m", [], Tokenizer(), SimpleNamespace())
    if not stream:
        outputs, parser = engine_outputs(tokens, len(tokens), 2), serving._make_parser()
        answer = await serving.chat_completion_full_generator(request, outputs, *rest, parser=parser)
        return [(it.message.reasoning, it.message.content, joined(it.logprobs)) for it in answer.choices]
    found: dict[int, list[Any]] = {0: [None, None, None], 1: [None, None, None]}
    async for event in serving.chat_completion_stream_generator(request, engine_outputs(tokens, 1, 2), *rest):
        for part in json.loads(event.removeprefix("data: "))["choices"] if "[DONE]" not in event else ():
            said = (part["delta"].get("reasoning"), part["delta"].get("content"), part.get("logprobs"))
            for place, new in enumerate((*said[:2], joined(said[2]))):
                if new:
                    found[part["index"]][place] = (found[part["index"]][place] or "") + new
    return [(reasoning, content, tokens) for reasoning, content, tokens in found.values()]


def joined(logprobs: Any) -> str | None:
    if logprobs is None:
        return None
    content = logprobs["content"] if isinstance(logprobs, dict) else logprobs.content
    return "".join(entry["token"] if isinstance(entry, dict) else entry.token for entry in content)


SHOWN = ("The capital is Paris.", "It is Paris, in France.", "It is Paris, in France.")


@pytest.mark.parametrize("stream", [False, True])
async def test_log_probabilities_remain_where_reasoning_is_hidden(parser_class: Any, stream: bool) -> None:
    serving, text = chat_serving(parser_class), THINKS_OF_PARIS + SAYS_PARIS
    replacements.follow_answers(SimpleNamespace(openai_serving_chat=serving))

    assert await answered(serving, text, stream) == [SHOWN] * 2
    assert await answered(serving, text, stream, include_reasoning=False) == [(None, *SHOWN[1:])] * 2
    stopped = text.partition(", in")[0]
    cut = (None, "It is ", "It is Paris")  # whose space is shown
    assert await answered(serving, stopped, stream, include_reasoning=False, stop=["Paris"]) == [cut] * 2


@pytest.mark.parametrize("stream", [False, True])
async def test_vllm_still_leaves_out_log_probabilities_where_reasoning_is_hidden(
    parser_class: Any, stream: bool
) -> None:
    """Why a chat's request is another one while its answer is made. With token ids it is not: they show reasoning."""
    serving, text = chat_serving(parser_class), THINKS_OF_PARIS + SAYS_PARIS
    hidden = {"include_reasoning": False}
    assert await answered(serving, text, stream, **hidden) == [(None, SHOWN[1], None)] * 2
    replacements.follow_answers(SimpleNamespace(openai_serving_chat=serving))

    assert await answered(serving, text, stream, **hidden, return_token_ids=True) == [(None, SHOWN[1], None)] * 2


def test_tool_calls_in_the_history_have_the_header_that_the_documents_show(parser_class: Any) -> None:
    """When this fails, vLLM writes them as Harmony's guide does: docs/openai-api.md says the contrary."""
    assert parser_class, "with it there is a vocabulary"
    utils: Any = importlib.import_module("vllm.entrypoints.openai.parser.harmony_utils")
    call = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    messages = utils.parse_chat_inputs_to_harmony_messages([{"role": "assistant", "tool_calls": [call]}])
    text = harmony_text.encoding().decode(utils.render_for_completion(messages))

    header = "<|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>"
    assert text.startswith(header)
    assert header in (Path(__file__).parents[2] / "docs" / "openai-api.md").read_text()
