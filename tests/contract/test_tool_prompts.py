"""What openai-harmony makes of tools' parameters, and what it makes of ours."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_bento.artifacts import prepare
from gptoss_bento.config import environment
from gptoss_bento.engine.tool_calls import typed
from gptoss_bento.http.json_schema.typescript import typescript
from gptoss_bento.training import harmony_text

pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]

PLACE = {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]}


@pytest.fixture(scope="module", autouse=True)
def vocabulary() -> None:
    harmony_text.use_vocabulary(prepare.find_vocabulary(environment.cache_dir()))


def library() -> Any:
    return importlib.import_module("vllm.entrypoints.openai.parser.harmony_utils")


def prompt(parameters: Any, create: Any = None) -> str:
    """The developer message for one tool, as vLLM makes it."""
    chat = importlib.import_module("vllm.entrypoints.openai.chat_completion.protocol")
    tool = chat.ChatCompletionToolsParam(type="function", function={"name": "f", "parameters": parameters})
    harmony = importlib.import_module("openai_harmony")
    content = harmony.DeveloperContent.new().with_function_tools([(create or original())(tool)])
    message = harmony.Message.from_role_and_content(harmony.Role.DEVELOPER, content)
    encoding = library().get_encoding()
    return str(encoding.decode(encoding.render(message)))


def original() -> Any:
    """Unpatched, also after another test has applied all patches."""
    harmony = importlib.import_module("openai_harmony")
    return lambda tool: harmony.ToolDescription.new(
        name=tool.function.name, description="", parameters=tool.function.parameters
    )


def test_vllm_makes_definitions_by_the_function_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def create(tool: Any) -> Any:
        seen.append(tool)
        return original()(tool)

    monkeypatch.setattr(library(), "create_tool_definition", create)
    chat = importlib.import_module("vllm.entrypoints.openai.chat_completion.protocol")
    tool = chat.ChatCompletionToolsParam(type="function", function={"name": "f", "parameters": PLACE})
    library().get_developer_message(tools=[tool])

    assert seen == [tool]


def test_library_still_writes_any_for_references_and_unions() -> None:
    properties = {"a": {"$ref": "#/$defs/P"}, "b": {"anyOf": [{"type": "string"}, {"type": "null"}]}, "c": {"const": 1}}
    written = prompt({"type": "object", "properties": properties, "$defs": {"P": PLACE}})

    assert "a?: any,\nb?: any,\nc?: any,\n" in written


def test_library_writes_a_list_of_types_as_it_is() -> None:
    properties = {"a": {"$ref": "#/$defs/P"}, "b": {"anyOf": [{"type": "string"}, {"type": "null"}]}, "c": {"const": 1}}
    parameters = {"type": "object", "properties": properties, "required": ["a"], "$defs": {"P": PLACE}}
    written = prompt(parameters, typed(original()))

    assert f"type f = (_: {typescript(parameters)}) => any;" in written
    assert "a: {\n    lat: number,\n    },\nb?: string | null,\nc?: 1,\n" in written


def test_tool_without_parameters_has_none() -> None:
    assert prompt(None, typed(original())) == prompt(None)


NAMES = st.sampled_from(["a", "b", "city"])
SCALARS = st.one_of(
    st.sampled_from(["string", "number", "integer", "boolean"]).map(lambda kind: {"type": kind}),
    st.just({"type": ["string", "null"], "default": None}),
    st.just({"type": "string", "enum": ["x", "y"], "default": "x"}),
    st.just({"type": "integer", "title": "Count", "description": "How many.", "default": 3}),
    st.just({"type": "string", "examples": ["a", "b"], "default": "a"}),
    st.just({"type": "string", "nullable": True}),
)
KNOWN = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.builds(
            lambda properties, required: {"type": "object", "properties": properties, "required": required},
            st.dictionaries(NAMES, inner, max_size=3),
            st.lists(NAMES, max_size=2),
        ),
        st.one_of(inner, st.just({})).map(
            lambda items: {"type": "array", "items": items} if items else {"type": "array"}
        ),
    ).filter(lambda schema: not has_union_in_array(schema)),
    max_leaves=8,
)
"""What the library knows, apart from unions in arrays, which it writes without parentheses."""


def has_union_in_array(schema: Any) -> bool:
    return schema["type"] == "array" and any(word in str(schema.get("items")) for word in ("enum", "[", "nullable"))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAMES, KNOWN, max_size=4))
def test_type_that_the_library_knows_looks_as_it_writes_it(properties: dict[str, Any]) -> None:
    parameters = {"type": "object", "properties": properties, "required": ["a"]}

    assert prompt(parameters, typed(original())) == prompt(parameters)
