"""Tools of /v1/responses that the model calls as functions though they are of other kinds, and their items. Pure.

GPT-OSS knows functions. A function of a namespace is `namespace__name` for it, as vLLM names them for other models. A
custom tool is a function with one text, its input. Calls come back in the kind of their tool, and those of earlier
turns are given to the model as what it called.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gptoss_bento.http.errors import FieldError
from gptoss_bento.http.json_schema.enforcement import unenforced
from gptoss_bento.http.json_schema.faults import faults
from gptoss_bento.responses.custom_input import NAME, arguments_of, input_of
from gptoss_bento.strict_json import shown

Fields = dict[str, Any]

_SEPARATOR = "__"
_FUNCTION_ID, _CUSTOM_ID = "fc_", "ctc_"
_RUN_HERE = ("web_search_preview", "code_interpreter", "container", "mcp")
"""What runs on the server; engine/hosted_tools.py refuses those for which there is nothing."""
_DATED_PREVIEW = "web_search_preview_2025_03_11"
_SEARCHES = ("web_search", "web_search_2025_08_26")
_OF_SEARCH = (
    "user_location",
    "search_context_size",
    "filters",
)  # options of a search; the engine says what becomes of them
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_NO_INPUT = {"type": "object", "properties": {}}


@dataclass(frozen=True)
class CalledTool:
    """The tool behind a function of the model.

    Attributes:
        name: by which the client knows it.
        namespace: it is in; None: in none.
        is_custom: whether its input is free text.
    """

    name: str
    namespace: str | None = None
    is_custom: bool = False


@dataclass(frozen=True)
class ToolKinds:
    """The tools of one request.

    Attributes:
        changes: the fields that vLLM gets instead of the client's.
        called: the tools behind functions that are not what the client knows, by the function's name.
        left_out: what of the request has no effect, by place.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    called: Mapping[str, CalledTool] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def is_custom(self, item: Mapping[str, Any]) -> bool:
        """Whether an item of vLLM's is a call of a custom tool."""
        tool = self.called.get(item.get("name", ""))
        return item.get("type") == "function_call" and tool is not None and tool.is_custom

    def returned(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        """An item of vLLM's as the client gets it."""
        tool = self.called.get(item.get("name", "")) if item.get("type") == "function_call" else None
        if tool is None:
            return item
        named = {"name": tool.name, **({"namespace": tool.namespace} if tool.namespace else {})}
        if not tool.is_custom:
            return {**item, **named}
        kept = {name: item[name] for name in ("status", "call_id") if item.get(name) is not None}
        text = input_of(item.get("arguments") or "") if item.get("arguments") else ""
        return {"id": custom_id(item.get("id", "")), "type": "custom_tool_call", **kept, **named, "input": text}


NO_KINDS = ToolKinds()
"""Of a request whose tools are functions."""


def custom_id(function_id: str) -> str:
    """The id of a custom tool's call, by the one that vLLM has given it."""
    return _CUSTOM_ID + function_id.removeprefix(_FUNCTION_ID)


def for_model(item: Any) -> Any:
    """An item of the input as vLLM reads it: a call as that of the function which the model called."""
    kind = item.get("type") if isinstance(item, dict) else None
    if kind == "function_call" and isinstance(item.get("namespace"), str):
        return {**_without(item, "namespace"), "name": _flat(item["namespace"], str(item.get("name")))}
    if kind == "custom_tool_call" and isinstance(item.get("input"), str):
        name, namespace = str(item.get("name")), item.get("namespace")
        call = {"type": "function_call", "arguments": arguments_of(item["input"])}
        named = {"name": _flat(namespace, name) if isinstance(namespace, str) else name}
        return {**_without(item, "namespace", "input"), **call, **named}
    if kind in _OUTPUTS and (kind != _OUTPUTS[0] or isinstance(item.get("output"), list)):
        return {**item, "type": _OUTPUTS[0], "output": _joined(item.get("output"))}
    return item


def _joined(output: Any) -> Any:
    """A result as one text, where it is a list of texts; vLLM takes no list, and refuses another."""
    if not isinstance(output, list):
        return output
    texts = [part.get("text") if isinstance(part, dict) else part for part in output]
    return "".join(map(str, texts)) if all(isinstance(text, str) for text in texts) else output


def _without(item: Mapping[str, Any], *names: str) -> Fields:
    return {name: value for name, value in item.items() if name not in names}


def read_tools(asked: Mapping[str, Any], *, can_search: bool = False) -> ToolKinds:
    """What the model gets of a request's tools.

    Args:
        asked: the request's fields.
        can_search: whether there is a tool server that searches.

    Raises:
        FieldError: a tool is of a kind that the model does not get, or two have one name for it.
    """
    tools = asked.get("tools")
    if not isinstance(tools, list) or all(_is_plain(tool) for tool in tools):
        return NO_KINDS if not _chooses_custom(asked) else _made(asked, [], can_search)
    return _made(asked, tools, can_search)


def _is_plain(tool: Any) -> bool:
    """A function, what vLLM runs, or what is no tool at all, which vLLM refuses."""
    kind = tool.get("type") if isinstance(tool, dict) else None
    return not isinstance(kind, str) or kind == "function" or kind in _RUN_HERE


def _chooses_custom(asked: Mapping[str, Any]) -> bool:
    choice = asked.get("tool_choice")
    return isinstance(choice, dict) and choice.get("type") == "custom"


def _made(asked: Mapping[str, Any], tools: list[Any], can_search: bool) -> ToolKinds:
    reader = _Reader(can_search)
    for number, tool in enumerate(tools):
        reader.read(f"tools[{number}]", tool)
    changes: Fields = {"tools": reader.functions}
    choice = asked.get("tool_choice")
    if isinstance(choice, dict):
        changes["tool_choice"] = _choice(choice, reader.functions, reader.called)
    elif choice == "required" and not reader.functions:
        raise FieldError("tool_choice", 'tool_choice "required" needs a tool that the model can call.')
    return ToolKinds(changes, reader.called, tuple(reader.left_out))


def _choice(choice: Fields, functions: list[Any], called: Mapping[str, CalledTool]) -> Fields:
    """The choice of one tool, by the name of its function."""
    kind, name, namespace = choice.get("type"), choice.get("name"), choice.get("namespace")
    if kind not in ("function", "custom") or not isinstance(name, str):
        return choice
    known = {each["name"]: called.get(each["name"]) for each in functions if _is_named(each)}
    fitting = [each for each, tool in known.items() if (tool is not None and tool.is_custom) is (kind == "custom")]
    exact = _flat(namespace, name) if isinstance(namespace, str) else name
    if exact in fitting:
        return {"type": "function", "name": exact}
    within = [each for each in fitting if (tool := known[each]) and tool.name == name and namespace is None]
    if len(within) == 1:
        return {"type": "function", "name": within[0]}
    if within:
        raise FieldError("tool_choice.name", f"tool_choice.name {shown(name)} is in several namespaces: name one.")
    raise FieldError("tool_choice.name", f"tool_choice.name must be that of a {kind} tool, got {shown(name)}.")


class _Reader:
    """Makes functions of the tools of one request."""

    def __init__(self, can_search: bool) -> None:
        self.functions: list[Any] = []
        self.called: dict[str, CalledTool] = {}
        self.left_out: list[str] = []
        self._can_search = can_search
        self._names: set[str] = set()

    def read(self, place: str, tool: Any) -> None:
        if _is_plain(tool):
            self._add(place, tool, None)
        elif tool["type"] == "custom":
            self._add(place, self._custom(place, tool), CalledTool(_name(place, tool), is_custom=True))
        elif tool["type"] == "namespace":
            self._namespace(place, tool)
        elif tool["type"] in _SEARCHES:
            self._search(place, tool)
        elif tool["type"] == _DATED_PREVIEW:
            self._add(place, {**tool, "type": "web_search_preview"}, None)
        else:
            where, kind = f"{place}.type", shown(tool["type"])
            known = '"function", "custom", "namespace" and tools that the server runs'
            raise FieldError(where, f"{where} {kind} is no kind that is known here ({known}): send it as a function.")

    def _namespace(self, place: str, tool: Fields) -> None:
        namespace, inner = _name(place, tool), tool.get("tools")
        if not isinstance(inner, list):
            raise FieldError(f"{place}.tools", f"{place}.tools must be a list of functions and custom tools.")
        about = f"{namespace}: {tool['description']}\n\n" if isinstance(tool.get("description"), str) else ""
        for number, each in enumerate(inner):
            where = f"{place}.tools[{number}]"
            kind = each.get("type") if isinstance(each, dict) else None
            if kind not in ("function", "custom"):
                raise FieldError(f"{where}.type", f'{where}.type must be "function" or "custom", got {shown(kind)}.')
            name, is_custom = _name(where, each), kind == "custom"
            made = self._custom(where, each) if is_custom else each
            said = f"{'' if number else about}{made.get('description') or ''}"  # of the namespace once, in its first
            made = {**made, "name": _flat(namespace, name), "description": said}
            self._add(where, made, CalledTool(name, namespace, is_custom))

    def _custom(self, place: str, tool: Fields) -> Fields:
        schema: Fields = {"type": "string"}
        description = tool.get("description") or ""
        form = tool.get("format") or {"type": "text"}
        kind = form.get("type") if isinstance(form, dict) else None
        if kind == "grammar":
            description += _described(f"{place}.format", form)
            if form["syntax"] == "regex":
                schema["pattern"] = _pattern(f"{place}.format.definition", form["definition"])
            else:
                self.left_out.append(f"{place}.format")
        elif kind != "text":
            where = f"{place}.format.type"
            raise FieldError(where, f'{where} must be "text" or "grammar", got {shown(kind)}.')
        parameters = {**_NO_INPUT, "properties": {NAME: schema}, "required": [NAME], "additionalProperties": False}
        made = {"type": "function", "name": tool.get("name"), "description": description}
        return {**made, "parameters": parameters, "strict": False}

    def _search(self, place: str, tool: Fields) -> None:
        """A search is the model's if there is one to use; a client whose search may not reach the web has none."""
        if self._can_search and tool.get("external_web_access") is not False:
            options = {name: tool[name] for name in _OF_SEARCH if tool.get(name) is not None}
            self._add(place, {"type": "web_search_preview", **options}, None)
            known = ("type", "external_web_access", *_OF_SEARCH)
            self.left_out += [f"{place}.{name}" for name in tool if name not in known and tool[name] is not None]
        else:
            self.left_out.append(place)

    def _add(self, place: str, function: Any, tool: CalledTool | None) -> None:
        if _is_named(function):
            name = function["name"]
            if name in self._names and (tool or name in self.called):
                raise FieldError(f"{place}.name", f"{place}.name: another tool is {shown(name)} for the model, too.")
            self._names.add(name)
            if tool:
                self.called[name] = tool
        self.functions.append(function)


def _is_named(function: Any) -> bool:
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def _flat(namespace: str, name: str) -> str:
    return f"{namespace}{_SEPARATOR}{name}"


def _name(place: str, tool: Fields) -> str:
    name = tool.get("name")
    if not isinstance(name, str) or not name:
        raise FieldError(f"{place}.name", f"{place}.name must be a text, got {shown(name)}.")
    return name


def _described(place: str, form: Fields) -> str:
    """A grammar as the model reads it.

    Raises:
        FieldError: it is none.
    """
    syntax, definition = form.get("syntax"), form.get("definition")
    if syntax not in ("lark", "regex"):
        raise FieldError(f"{place}.syntax", f'{place}.syntax must be "lark" or "regex", got {shown(syntax)}.')
    if not isinstance(definition, str) or not definition:
        raise FieldError(f"{place}.definition", f"{place}.definition must be a text, got {shown(definition)}.")
    what = "this Lark grammar" if syntax == "lark" else "this regular expression"
    return f"\n\nThe input follows {what}:\n{definition}"


def _pattern(place: str, definition: str) -> str:
    """A regular expression as the pattern of the whole input.

    Raises:
        FieldError: it has no grammar.
    """
    pattern = f"^(?:{definition.removeprefix('^').removesuffix('$')})$"
    for fault in _faults({"type": "string", "pattern": pattern}):
        raise FieldError(place, f"{place} {fault}.")
    return pattern


def _faults(schema: Fields) -> Iterator[str]:
    for find in (faults, unenforced):
        for fault in find(schema):
            yield fault.reason
