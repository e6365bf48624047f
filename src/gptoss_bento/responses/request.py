"""What a request of /v1/responses asks of this package, and what is left of it for vLLM. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from gptoss_bento.http.errors import FieldError, HttpRefusalError
from gptoss_bento.http.fields.included import ENCRYPTED_REASONING, LOGPROBS, without_effect
from gptoss_bento.http.fields.verbosity import verbosity_of_response
from gptoss_bento.responses.asked_results import as_asked
from gptoss_bento.responses.compaction import check as check_compaction
from gptoss_bento.responses.compaction import in_words, is_compaction
from gptoss_bento.responses.conversation_field import conversation_of
from gptoss_bento.responses.conversation_request import refuse_id
from gptoss_bento.responses.encryption import has_encrypted
from gptoss_bento.responses.tool_kinds import NO_KINDS, ToolKinds, for_model, read_tools
from gptoss_bento.strict_json import shown

_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "reasoning": "rs",
    "compaction": "cmp",
    "mcp_approval_response": "mcpa",
}
_WITHOUT_STATUS = ("mcp_approval_response",)
# Items of an answer that say nothing to a model in a later turn; engine/hosted/history.py reads the others.
_UNREADABLE = frozenset({"web_search_call", "mcp_list_tools"})
_LONGEST_ID = 512
_SUMMARIES = ("summary", "generate_summary")  # of `reasoning`; the second is the former name


def as_it_is(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """An item that nothing changes."""
    return item


@dataclass(frozen=True)
class CreateRequest:
    """A request that makes a response.

    Attributes:
        id: of the response; `request_id` if the client has given one.
        asked: the request as vLLM is to get it, but for what is this package's.
        written: the request as the client wrote it, which its object repeats.
        stores: whether the response is stored.
        background: whether it is generated without its client.
        previous: the id of the response that it continues.
        kinds: its tools, as the model knows them and as the client does.
        encrypted: makes an item with the reasoning encrypted, if its client has asked for that.
        conversation: the id of the conversation that it is a turn of.
        continues: the id of a response whose items are in its input already.
        is_kept: whether the connection that it comes over keeps the response.
    """

    id: str
    asked: Mapping[str, Any]
    written: Mapping[str, Any]
    stores: bool
    background: bool
    previous: str | None
    kinds: ToolKinds = NO_KINDS
    encrypted: Callable[[Mapping[str, Any]], Mapping[str, Any]] = as_it_is
    conversation: str | None = None
    continues: str | None = None
    is_kept: bool = False

    @property
    def has_input(self) -> bool:
        """Whether its input is a text or a list; vLLM refuses another."""
        return isinstance(self.asked.get("input"), str | list)

    @property
    def keeps_events(self) -> bool:
        """Whether its events are stored, for a stream that can be resumed."""
        return self.background and bool(self.asked.get("stream"))

    @property
    def references(self) -> list[str]:
        """The ids of the items that it names instead of sending them."""
        return [str(item["id"]) for item in self._items if is_reference(item)]

    @property
    def wants_encrypted(self) -> bool:
        """Whether the reasoning of its answer is to be encrypted, too."""
        return self._includes(ENCRYPTED_REASONING)

    def returned(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        """What its client gets of an item that is complete."""
        included = self.asked.get("include")
        return as_asked(self.encrypted(item), included if isinstance(included, list) else ())

    @property
    def left_out(self) -> tuple[str, ...]:
        """What of the request has no effect, by place."""
        return (*self.kinds.left_out, *without_effect(self.asked))

    @property
    def without_effect(self) -> tuple[str, ...]:
        """All of it that has none, by place. A summary is no reason to refuse it: Codex asks for one by itself."""
        reasoning = self.asked.get("reasoning")
        given = reasoning if isinstance(reasoning, dict) else {}
        return (*self.left_out, *(f"reasoning.{name}" for name in _SUMMARIES if given.get(name) is not None))

    def _includes(self, word: str) -> bool:
        included = self.asked.get("include")
        return isinstance(included, list) and word in included

    @property
    def has_encrypted(self) -> bool:
        """Whether its client sends reasoning that was encrypted."""
        return any(map(has_encrypted, self._items))

    def decrypted(self, items: Sequence[Any], decrypted: Callable[[Any, str], Any]) -> list[Any]:
        """Its items with their reasoning; those that it names are left to the store's own text.

        Args:
            items: of its input; empty: as they were sent.
            decrypted: makes an item's reasoning readable; gets the place of the item, too.
        """
        named = {number for number, item in enumerate(self._items) if is_reference(item)}
        return [
            item if number in named else decrypted(item, f"input[{number}]")
            for number, item in enumerate(items or self._items)
        ]

    @property
    def needs_history(self) -> bool:
        """Whether its items are not all in the request, or not as vLLM reads them."""
        continues = self.previous is not None or self.conversation is not None
        return continues or any(is_reference(item) or is_compaction(item) for item in self._items)

    @property
    def truncates(self) -> bool:
        """Whether turns may be left out of a conversation that is too long: see truncation.py."""
        return self.written.get("truncation") == "auto"

    @property
    def given(self) -> Sequence[Any]:
        """The items of its input as they were sent; none of a text."""
        return self._items

    @property
    def _items(self) -> Sequence[Any]:
        given = self.asked.get("input")
        return given if isinstance(given, list) else ()

    def items(self, referenced: Mapping[str, Any]) -> list[Any]:
        """The items of its input, each with an id; what is no item is left to vLLM, which says what is wrong.

        Args:
            referenced: the items that it names, by id.

        Raises:
            HttpRefusalError: it names an item that is not among them, or an id is none that an item can have.
        """
        given = self.asked.get("input")
        if isinstance(given, str):
            content = [{"type": "input_text", "text": given}]
            return [_identified({"type": "message", "role": "user", "content": content})]
        return [_resolved(item, number, referenced) for number, item in enumerate(self._items)]

    def for_count(self, items: Sequence[Any]) -> dict[str, Any]:
        """The body by which vLLM counts a prompt of these items: without a length of the answer."""
        body = self.for_engine(items, streams=False)
        return {name: value for name, value in body.items() if name != "max_output_tokens"}

    def for_engine(self, items: Sequence[Any] | None, *, streams: bool | None = None) -> dict[str, Any]:
        """The body that vLLM gets: nothing in it is stored there.

        Args:
            items: the whole input; None: as it was sent.
            streams: whether events are wanted; None: as the client asked.
        """
        left_out = ("store", "background", "previous_response_id", "conversation", "request_id", "include")
        body = {name: value for name, value in self.asked.items() if name not in left_out}
        body |= {"store": False, "request_id": self.id, **self.kinds.changes}
        if self._includes(LOGPROBS):
            body["include"] = [LOGPROBS]  # the rest is this package's, or has no effect
        if items is not None or self._items:
            body["input"] = [for_model(in_words(item)) for item in (self._items if items is None else items)]
        body |= verbosity_of_response(body)
        return body if streams is None else body | {"stream": streams}


def read_create(
    asked: Mapping[str, Any],
    written: Mapping[str, Any] | None = None,
    *,
    may_store: bool = True,
    can_search: bool = False,
) -> CreateRequest:
    """What a request asks for.

    Args:
        asked: its fields as they have come here.
        written: as the client wrote them, if those are others.
        may_store: whether the operator lets responses be stored; else `store: true` is as `false`, as in vLLM.
        can_search: whether there is a tool server that searches.

    Raises:
        FieldError: a field that decides what is stored has no value that it may have, or a tool is of a kind that the
            model does not get.
    """
    stores = _switch(asked, "store", default=True) and may_store
    background = _switch(asked, "background", default=False)
    if background and not may_store:
        raise FieldError("background", "background needs a stored response, and this server is set to store none.")
    if background and not stores:
        raise FieldError("background", "background needs store: true, or its answer could not be retrieved.")
    _refuse_other_than_count(asked, "max_tool_calls")
    previous = _text(asked, "previous_response_id")
    if previous is not None and asked.get("previous_input_messages"):
        raise FieldError("previous_response_id", "previous_response_id and previous_input_messages: give one.")
    conversation = conversation_of(asked)
    if conversation is not None and not stores:
        raise FieldError("conversation", "conversation needs a stored response: its items go into the conversation.")
    return CreateRequest(
        id=_text(asked, "request_id") or f"resp_{uuid.uuid4().hex}",
        asked=asked,
        written=asked if written is None else written,
        stores=stores,
        background=background,
        previous=previous,
        kinds=read_tools(asked, can_search=can_search),
        conversation=conversation,
    )


def readable(items: Sequence[Any]) -> Iterator[Any]:
    """The items of a history that vLLM can read again."""
    return (item for item in items if item.get("type") not in _UNREADABLE)


def _switch(asked: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = asked.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise FieldError(name, f"{name} must be true or false, got {shown(value)}.")
    return value


def _refuse_other_than_count(asked: Mapping[str, Any], name: str) -> None:
    value = asked.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise FieldError(name, f"{name} must be a whole number of at least 0, got {shown(value)}.")


def _text(asked: Mapping[str, Any], name: str) -> str | None:
    value = asked.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_ID or not value.isprintable():
        raise FieldError(name, f"{name} must be a text of 1 to {_LONGEST_ID} printable characters, got {shown(value)}.")
    return value


def is_reference(item: Any) -> bool:
    """Whether an item of an input only names a stored one."""
    if not isinstance(item, dict) or not isinstance(item.get("id"), str):
        return False
    return item.get("type") == "item_reference" or (item.get("type") is None and item.keys() <= {"id", "type"})


def _resolved(item: Any, number: int, referenced: Mapping[str, Any]) -> Any:
    if not isinstance(item, dict):
        return item
    if is_compaction(item):
        check_compaction(item, f"input[{number}]")
    if not is_reference(item):
        refuse_id(item.get("id"), f"input[{number}].id")
        return _identified(item)
    if item["id"] not in referenced:
        where = f"input[{number}].id"
        message = f"There is no stored item {shown(item['id'])}, which {where} names."
        raise HttpRefusalError(HTTPStatus.NOT_FOUND, message, param=where)
    return referenced[item["id"]]


def _identified(item: Mapping[str, Any]) -> dict[str, Any]:
    kind = str(item.get("type") or "message")
    made: dict[str, Any] = {"type": kind} if "role" in item or "type" in item else {}
    if not isinstance(item.get("id"), str):
        made["id"] = f"{_PREFIXES.get(kind, 'item')}_{uuid.uuid4().hex}"
    if kind in _PREFIXES and kind not in _WITHOUT_STATUS and not is_compaction(item) and item.get("status") is None:
        made["status"] = "completed"
    if kind == "message":
        made |= _listed_content(item)
    return {**item, **made}


def _listed_content(message: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a message as a list of items has it, where its client wrote it shorter."""
    role, content = message.get("role"), message.get("content")
    if isinstance(content, str) and role in ("user", "system", "developer"):
        return {"content": [{"type": "input_text", "text": content}]}
    if role != "assistant":
        return {}
    parts = [{"type": "output_text", "text": content}] if isinstance(content, str) else content
    return {"content": [_listed_part(part) for part in parts]} if isinstance(parts, list) else {}


def _listed_part(part: Any) -> Any:
    is_text = isinstance(part, dict) and part.get("type") == "output_text"
    return {"annotations": [], "logprobs": [], **part} if is_text else part


def without_repeats(history: Sequence[Any], ids: Collection[str]) -> list[Any]:
    """A history without the items of these ids: a client may name again what the history has."""
    return [item for item in history if item.get("id") not in ids]
