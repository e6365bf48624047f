"""What xgrammar makes of schemas, against what is said of it here; and how vLLM comes to it."""

from __future__ import annotations

import importlib
import json
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptoss_bento.engine.grammar_errors import explained
from gptoss_bento.engine.tool_calls import enforced, enforced_format
from gptoss_bento.http.json_schema.enforceable import enforceable
from gptoss_bento.http.json_schema.enforcement import unenforced
from gptoss_bento.http.json_schema.faults import Severity, faults
from gptoss_bento.http.json_schema.regex import Flaw, flaw_of
from tests.unit.http.json_schema.schemas import known, limited, values, whatever, with_definitions
from tests.unit.http.json_schema.unenforced import UNENFORCED

pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]

END = "<END>"


def grammar(content: dict[str, Any]) -> Any:
    """xgrammar's, of a structural tag as vLLM makes them for GPT-OSS."""
    xgrammar = importlib.import_module("xgrammar")
    tag = {"type": "structural_tag", "format": {"type": "tag", "begin": "", "content": content, "end": END}}
    return xgrammar.Grammar.from_structural_tag(json.dumps(tag))


def of_schema(schema: Any) -> Any:
    return grammar({"type": "json_schema", "json_schema": schema})


def accepts(made: Any, text: str) -> bool:
    testing = importlib.import_module("xgrammar.testing")
    return bool(testing._is_grammar_accept_string(made, text + END))


@pytest.mark.parametrize(("schema", "place", "value"), UNENFORCED)
def test_grammar_still_passes_over_what_is_refused(schema: Any, place: str, value: str) -> None:
    """Where one of these fails, the compiler enforces it now: take the row out, and what refuses it."""
    assert accepts(of_schema(enforceable(schema)), value), place


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer", "minimum": 40, "maximum": 50}, "36"),
        ({"type": "integer", "multipleOf": 10}, "11"),
        ({"type": ["integer", "null"], "multipleOf": 10}, "11"),
        ({"allOf": [{"type": "integer", "minimum": 40}]}, "36"),
        ({"type": "string", "pattern": "^[0-9]{3}$"}, '"Ada"'),
        ({"type": "string", "maxLength": 2}, '"Ada"'),
        ({"type": "string", "format": "date"}, '"Ada"'),
        ({"enum": ["a", 1]}, '"b"'),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, "[1]"),
        ({"type": "array", "prefixItems": [{"type": "integer"}], "items": False}, "[1, 2]"),
        ({"type": "object", "minProperties": 2}, '{"a": 1}'),
        ({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["b"]}, '{"a": 1}'),
        ({"type": "object", "required": ["b"]}, '{"a": 1}'),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, '{"a": "x"}'),
        ({"type": "object", "propertyNames": {"pattern": "^a$"}}, '{"b": 1}'),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}}, '"x"'),
        ({"$ref": "#/$defs/a%20b", "$defs": {"a b": {"type": "integer"}}}, '"x"'),
        ({"type": "object", "properties": {"a": False}}, '{"a": 1}'),
    ],
)
def test_grammar_enforces_what_is_not_refused(schema: Any, value: str) -> None:
    assert not accepts(of_schema(enforceable(schema)), value)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "array", "minItems": 1}, "[1]"),
        ({"type": "object", "minProperties": 1}, '{"a": 1}'),
        ({"type": "object", "description": "anything"}, '{"a": 1}'),
        ({"type": "array", "description": "anything"}, "[1]"),
        ({"type": "object", "properties": {"a": {"type": "object", "title": "A"}}}, '{"a": {"b": 1}}'),
    ],
)
def test_open_object_or_list_stays_open(schema: Any, value: str) -> None:
    assert accepts(of_schema(enforceable(schema)), value)


def is_right(schema: Any) -> bool:
    return not any(fault.severity is Severity.INVALID for fault in faults(schema))


@settings(max_examples=300)
@given(with_definitions(known).filter(is_right))
def test_schema_with_types_has_a_grammar(schema: dict[str, Any]) -> None:
    of_schema(enforceable(schema))


@settings(max_examples=300)
@given(whatever.filter(is_right))
def test_whatever_is_not_refused_has_a_grammar(schema: Any) -> None:
    of_schema(enforceable({"type": "object", "properties": {"a": schema}}))


@settings(max_examples=400, suppress_health_check=[*HealthCheck])
@given(limited, st.lists(values, min_size=8, max_size=8))
def test_schema_of_which_nothing_is_named_is_enforced_wholly(schema: Any, tried: list[Any]) -> None:
    """What `strict` promises: the grammar lets through only what is valid."""
    if list(faults(schema)) or list(unenforced(schema)):
        return
    made = of_schema(enforceable(schema))

    valid = jsonschema.Draft202012Validator(schema).is_valid
    assert [value for value in tried if accepts(made, json.dumps(value)) and not valid(value)] == []


@settings(max_examples=500)
@given(st.text(alphabet=r"ab\[](){}^$|*+?.-,:=!<>0129xudwpkB", min_size=1, max_size=10))
def test_pattern_without_flaw_has_a_grammar(pattern: str) -> None:
    flaw = flaw_of(pattern)
    if flaw is None or flaw.kind is Flaw.IGNORED:
        of_schema({"type": "string", "pattern": pattern})
    if flaw is None:
        grammar({"type": "regex", "pattern": pattern})


@pytest.mark.parametrize("pattern", ["[", "(", "a{2,1}", "*a", r"\1", r"\b", r"\p{L}", "(?<=a)b", "a{x}", "[z-a]"])
def test_pattern_with_a_flaw_still_has_none(pattern: str) -> None:
    with pytest.raises(RuntimeError):
        of_schema({"type": "string", "pattern": pattern})


# how vLLM comes to it


def harmony() -> Any:
    return importlib.import_module("vllm.parser.harmony")


def calls() -> Any:
    """vLLM's function as it is replaced."""
    compile_schema = importlib.import_module("xgrammar").Grammar.from_json_schema
    return enforced(harmony().get_function_parameters, compile_schema)


def test_calls_are_made_of_the_parameters_that_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harmony(), "get_function_parameters", calls())
    function = importlib.import_module("xgrammar.openai_tool_call_schema").FunctionToolParam
    parameters = {"type": "object", "properties": {"a": {"type": "string", "pattern": r"\bx", "title": "A"}}}
    tool = function.model_validate({"type": "function", "function": {"name": "f", "parameters": parameters}})
    tag = harmony().get_harmony_structural_tag([tool], [], "auto", reasoning=True).model_dump_json()

    assert '{"type":"object","properties":{"a":{"type":"string"}}}' in tag


def test_answers_are_made_of_the_format_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        harmony(), "structured_outputs_to_format", enforced_format(harmony().structured_outputs_to_format)
    )
    protocol = importlib.import_module("vllm.entrypoints.openai.chat_completion.protocol")
    schema = {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}}
    request = protocol.ChatCompletionRequest.model_validate(
        {
            "messages": [{"role": "user", "content": "x"}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
        }
    )
    tag = harmony()._adjust_output_format(request).structured_outputs.structural_tag

    assert '"$defs": {"d0": {"type": "integer"}}' in tag


def constraint(content: dict[str, Any]) -> Any:
    params = importlib.import_module("vllm.sampling_params")
    tag = {"type": "structural_tag", "format": {"type": "tag", "begin": "", "content": content, "end": END}}
    return params.SamplingParams(structured_outputs=params.StructuredOutputsParams(structural_tag=json.dumps(tag)))


def test_constraint_that_cannot_be_compiled_has_a_reason() -> None:
    backend = importlib.import_module("vllm.v1.structured_output.backend_xgrammar")
    exceptions = importlib.import_module("vllm.exceptions")
    refusal, error = exceptions.VLLMValidationError, exceptions.VLLMClientError
    check = explained(backend.validate_xgrammar_grammar, refusal, error)
    check(constraint({"type": "regex", "pattern": "a"}))

    with pytest.raises(refusal, match="Invalid structural tag specification"):
        backend.validate_xgrammar_grammar(constraint({"type": "regex", "pattern": "["}))
    with pytest.raises(error) as refused:
        check(constraint({"type": "regex", "pattern": "["}))
    assert not isinstance(refused.value, refusal)
    assert str(refused.value) == (
        "The constraint of this request cannot be enforced: Regex parsing error at position 2: Unclosed '['."
    )


def test_constraint_that_is_right_is_compiled_once() -> None:
    seen: list[Any] = []
    check = explained(seen.append, RuntimeError, ValueError)
    params = constraint({"type": "regex", "pattern": "a"})
    check(params)
    check(params)
    check(SimpleNamespace(structured_outputs=SimpleNamespace(structural_tag=None)))

    assert len(seen) == 2
