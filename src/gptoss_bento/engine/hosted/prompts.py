"""What the model reads of MCP servers and of its user's place, and of earlier calls. Wrappers of vLLM's functions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from gptoss_bento.engine import hosted_tools
from gptoss_bento.engine.hosted.asking import concerns, may_call, prepare, turn_of
from gptoss_bento.engine.hosted.server import namespace
from gptoss_bento.engine.hosted.turn import ToolTurn
from gptoss_bento.tools.interfaces import ToolRefusedError

Render = Callable[..., Any]


def prepared(render: Render, labels: Callable[[], Collection[str]]) -> Render:
    """Renders a request once it has its tools. One that is not concerned goes straight to vLLM's method.

    Args:
        render: vLLM's method of its renderer, which is async.
        labels: as of hosted_tools.refused.
    """

    async def with_tools(renderer: Any, request: Any, history: dict[str, Any]) -> Any:
        server = history.get("tool_server")
        if found := hosted_tools.problem(request, server, labels()):
            return _refusal(renderer, *found)
        try:
            await prepare(request, server)
        except ToolRefusedError as refused:
            return _refusal(renderer, refused.field, str(refused))
        return await render(renderer, request, **history)

    def rendered(renderer: Any, request: Any, **history: Any) -> Any:
        if not renderer.use_harmony or not concerns(request):
            return render(renderer, request, **history)
        return with_tools(renderer, request, history)

    return rendered


def _refusal(renderer: Any, field: str, message: str) -> Any:
    return renderer.create_error_response(message, err_type="invalid_request_error", param=field)


def as_it_is(convert: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Makes messages of items; what is a message of Harmony's already stays one.

    Args:
        convert: vLLM's function.
    """

    def converted(item: Any, earlier: Any) -> Any:
        return item if hasattr(item, "author") else convert(item, earlier)

    return converted


def without_servers(make: Callable[..., Any]) -> Callable[..., Any]:
    """Makes the developer's message of functions alone: vLLM refuses a tool of the type mcp beside one.

    Args:
        make: vLLM's function.
    """

    def made(instructions: str | None = None, tools: Sequence[Any] | None = None) -> Any:
        kept = [tool for tool in tools if tool.type != "mcp"] if tools else tools
        return make(instructions=instructions, tools=kept)

    return made


def with_servers(render: Render) -> Render:
    """Renders a request with the namespaces of its MCP servers in the developer's message.

    Args:
        render: vLLM's method of its renderer.
    """

    def rendered(renderer: Any, request: Any, **history: Any) -> Any:
        result = render(renderer, request, **history)
        turn, messages = turn_of(request), getattr(result, "messages", None)
        if turn is None or messages is None or not may_call(request):
            return result
        if not turn.location and not any(each.tools for each in turn.servers):
            return result
        shown = _with_words(messages, turn)
        options = {"cache_salt": request.cache_salt, "tok_params": request.build_tok_params(renderer.model_config)}
        return replace(
            result, messages=shown, engine_input=renderer.render_responses_harmony_messages(shown, **options)
        )

    return rendered


def _with_words(messages: Sequence[Any], turn: ToolTurn) -> list[Any]:
    """The messages with what this turn adds to the first two."""
    system, *rest = messages
    if turn.location:
        system = _located(system, turn.location)
    spaces = {
        each.server.label: namespace(each.server.label, each.about, list(each.tools.values()))
        for each in turn.servers
        if each.tools
    }
    if spaces:
        first = rest.pop(0) if rest and rest[0].author.role == "developer" else _developer_message()
        rest.insert(0, _with_namespaces(first, spaces))
    return [system, *rest]


def _developer_message() -> Any:
    from openai_harmony import DeveloperContent, Message, Role

    return Message.from_role_and_content(Role.DEVELOPER, DeveloperContent.new())


def _with_namespaces(message: Any, spaces: dict[str, Any]) -> Any:
    content, *others = message.content
    content = content.model_copy(update={"tools": {**(content.tools or {}), **spaces}})
    return message.model_copy(update={"content": [content, *others]})


def _located(message: Any, location: str) -> Any:
    """The system's message, whose browser knows where the user is."""
    content, *others = message.content
    browser = (content.tools or {}).get("browser")
    if browser is None:
        return message
    located = browser.model_copy(update={"description": f"{browser.description}\n{location}"})
    content = content.model_copy(update={"tools": {**content.tools, "browser": located}})
    return message.model_copy(update={"content": [content, *others]})
