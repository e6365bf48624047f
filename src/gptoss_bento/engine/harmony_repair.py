"""Reads the output of gpt-oss even where it breaks the Harmony format, as it sometimes does.

vLLM 0.32 skips every token that the Harmony parser refuses. Nothing crashes, but an answer whose header is off by one
token is swallowed, ends up within the reasoning, or comes as raw markup. Kinds, as reported of vLLM and harmony:

    missing_start    <|end|>assistant<|channel|>final<|message|>…           vLLM 22515, 22519; harmony 60
    missing_end      …reasoning<|start|>assistant<|channel|>final…          vLLM 35906
    missing_message  <|channel|>final{"answer": 1}<|return|>                vLLM 45736; harmony 82
    missing_header   <|end|>The answer.<|return|>                           vLLM 35906
    bad_header       <|channel|>commentary to=f <|constrain|>x y<|message|> vLLM 23567, 51977; harmony 38, 114
    unknown_channel  <|channel|>finally<|message|>…                         vLLM's Responses answer 500
    stray_token      <|end|><|end|>                                         vLLM 22519, 43408

Each is counted. A message goes through the unchanged parser wherever that can read it.

Harmony's parser writes every special token that it does not expect into the text: `Hi<|endoftext|>`. Here none becomes
text. `<|endoftext|>` is one of the three ends of an answer, and what a grammar lets the model write after `<|end|>`:
it ends a message, and is no fault (vLLM 29632, 32587). Other special tokens within a message are stray tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from gptoss_bento.engine.harmony_tokens import (
    CHANNEL,
    CONSTRAIN,
    END,
    ENDOFTEXT,
    ENDS,
    FIRST_SPECIAL,
    MESSAGE,
    START,
)

ASSISTANT = 173781
"""The token `assistant`, the only role that a model writes as."""

KINDS = (
    "missing_start",
    "missing_end",
    "missing_message",
    "missing_header",
    "bad_header",
    "unknown_channel",
    "stray_token",
)

_CHANNELS = ("analysis", "commentary", "final")
_CHANNEL_NAME = re.compile(r"analysis|commentary|final")
_RECIPIENT = re.compile(r"to=([\w.\-]+)")
_MARKUP = re.compile(r"<\|constrain\|>\s*\w*|<\|\w+\|>")

_OF_HEADERS = frozenset({START, CHANNEL, CONSTRAIN})

Count = Callable[[str], None]


class Parser(Protocol):
    """What is read of harmony's StreamableParser, and of the parser here."""

    @property
    def current_channel(self) -> str | None: ...
    @property
    def current_recipient(self) -> str | None: ...
    @property
    def last_content_delta(self) -> str | None: ...
    @property
    def messages(self) -> list[Any]: ...
    def process(self, token: int) -> Any: ...
    def process_eos(self) -> Any: ...


class RealParser(Parser, Protocol):
    """What else is used of harmony's."""

    @property
    def current_content(self) -> str: ...


class Encoding(Protocol):
    """What is used of harmony's HarmonyEncoding."""

    def encode(self, text: str) -> list[int]: ...
    def decode(self, tokens: Sequence[int]) -> str: ...


class RepairingParser:
    """Replaces a StreamableParser that reads an assistant's turn.

    Args:
        new_parser: makes the real one, which expects the header of an assistant's message.
        encoding: of that parser.
        refusal: what it raises.
        count: called with the kind of each repair.
    """

    def __init__(
        self, new_parser: Callable[[], RealParser], encoding: Encoding, refusal: type[Exception], count: Count
    ) -> None:
        self._new_parser = new_parser
        self._encoding = encoding
        self._refusal = refusal
        self._count = count
        self._parser = new_parser()
        self._earlier: list[Any] = []  # messages of parsers that were replaced
        self._messages: list[Any] = []
        self._in_content = False
        self._after_end = False
        self._header: list[int] = []  # of the message that begins
        self._stray: list[int] = []  # text between two messages, until it is clear what it is
        self._held_end: int | None = None  # an end that comes with the next token, for vLLM expects one thing at a time
        self._delta = ""

    # read by vLLM

    @property
    def current_channel(self) -> str | None:
        return self._parser.current_channel

    @property
    def current_recipient(self) -> str | None:
        return self._parser.current_recipient

    @property
    def last_content_delta(self) -> str:
        """The text that the last token added, or the text that it recovered."""
        return self._delta

    @property
    def messages(self) -> list[Any]:
        """The complete ones. Harmony makes them again, through JSON, whenever asked, and vLLM asks at each token."""
        return self._messages

    def process(self, token: int) -> RepairingParser:
        """Reads one token. Never raises."""
        self._delta = ""
        if self._in_content and token < FIRST_SPECIAL and self._held_end is None:  # nearly all of them
            self._feed(token)
            return self
        self._release_end()
        if self._in_content:
            self._in_text(token)
        elif self._after_end:
            self._between(token)
        else:
            self._in_header(token)
        return self

    def process_eos(self) -> RepairingParser:
        """The output is over. A truncated header is no text."""
        self._delta = ""
        self._release_end()
        if not self._in_content:
            self._recover_text(None)
        if self._in_content:
            shown = self._parser.current_content
            self._parser.process_eos()
            self._collect(shown)
        return self

    # where a token can be: in a text, between two messages, in a header

    def _in_text(self, token: int) -> None:
        if token in ENDS:
            self._end(token)
        elif token in (START, CHANNEL):  # no text has these
            self._count("missing_end")
            self._end(END)
            self._begin([START] if token == START else [START, ASSISTANT, CHANNEL])
        else:
            self._count("stray_token")

    def _between(self, token: int) -> None:
        if token == START:
            if self._stray:
                self._count("stray_token")
            self._begin([START])
        elif token == CHANNEL or (token == ASSISTANT and not self._stray):
            self._count("missing_start")
            self._begin([START, ASSISTANT] + [CHANNEL] * (token == CHANNEL))
        elif token == MESSAGE:  # the stray text was a header without its beginning
            self._count("missing_start")
            self._begin([START, ASSISTANT, CHANNEL, *self._stray])
            self._open_message()
        elif token in ENDS and self._stray:
            self._recover_text(token)
        elif token < FIRST_SPECIAL or token == CONSTRAIN:
            self._stray.append(token)
        elif token not in ENDS or token == END:  # after its end, a message that follows a grammar has another one
            self._count("stray_token")

    def _in_header(self, token: int) -> None:
        if token == MESSAGE:
            self._open_message()
        elif token in ENDS:
            self._recover_text(token)
        elif token < FIRST_SPECIAL or token in _OF_HEADERS:
            self._header.append(token)
        else:
            self._count("stray_token")

    # repairs

    def _begin(self, header: Sequence[int]) -> None:
        self._after_end, self._header, self._stray = False, list(header), []

    def _open_message(self) -> None:
        """Feeds the header to the parser; if that refuses it, a new parser gets what the header seems to mean."""
        try:
            for token in (*self._header, MESSAGE):
                self._parser.process(token)
        except self._refusal:
            self._count("bad_header")
            self._replace_header(self._encoding.decode(self._header))
        else:
            channel, recipient = self._parser.current_channel, self._parser.current_recipient
            if channel not in _CHANNELS or not _is_name(recipient):
                self._count("unknown_channel" if channel not in _CHANNELS else "bad_header")
                self._replace_header(self._encoding.decode(self._header))
            elif channel == "final" and recipient is not None and not self._is_addressed():
                self._restart("final")  # `final json`, as grammars have it: to Harmony's parser json is a recipient
        self._in_content, self._header = True, []

    def _is_addressed(self) -> bool:
        return bool(_RECIPIENT.search(self._encoding.decode(self._header)))

    def _replace_header(self, text: str) -> None:
        recipient = _RECIPIENT.search(text)
        named = _CHANNEL_NAME.search(text)
        if recipient:
            self._restart(f"commentary to={recipient[1]} json")
        elif named:
            self._restart(named[0])
        else:  # a turn begins with reasoning
            self._restart("final" if self._messages else "analysis")

    def _restart(self, header: str) -> None:
        self._earlier = list(self._messages)
        self._parser = self._new_parser()
        for token in (CHANNEL, *self._encoding.encode(header), MESSAGE):
            self._parser.process(token)

    def _recover_text(self, end: int | None) -> None:
        """A message ended before its text began: the content of its header, or the stray text, is the text.

        Args:
            end: the token that ended it; None at the end of the output, where a truncated header is no error.
        """
        channel, tokens = self._hidden_text()
        self._header, self._stray, self._after_end = [], [], True
        if not tokens:
            if end is not None:
                self._count("stray_token")
            return
        self._count("missing_message" if channel else "missing_header")
        self._restart(channel or "final")
        self._in_content = True
        for token in tokens:
            self._feed(token)
        self._held_end = end

    def _hidden_text(self) -> tuple[str | None, list[int]]:
        """The channel that a header without `<|message|>` names, and the text that follows it."""
        if self._stray:
            return None, [token for token in self._stray if token < FIRST_SPECIAL]
        role, marker, words = self._encoding.decode(self._header).rpartition("<|channel|>")
        if not marker:
            words = words.removeprefix("<|start|>").removeprefix("assistant")
        named = _CHANNEL_NAME.match(words) if marker else None
        text = _without_markup(words[named.end() :].lstrip() if named else "" if marker else words)
        if _RECIPIENT.search(role + text):  # a tool call without arguments
            return None, []
        return named and named[0], self._encoding.encode(text)

    def _feed(self, token: int) -> None:
        self._parser.process(token)
        self._delta += self._parser.last_content_delta or ""

    def _release_end(self) -> None:
        end, self._held_end = self._held_end, None
        if end is not None:
            self._end(end)

    def _end(self, token: int) -> None:
        shown = self._parser.current_content
        self._parser.process(END if token == ENDOFTEXT else token)  # which to the parser is text
        self._in_content, self._after_end = False, True
        self._collect(shown)

    def _collect(self, shown: str) -> None:
        """A message that ends within a character has the text that a stream has of it, without a U+FFFD behind."""
        new = self._parser.messages[len(self._messages) - len(self._earlier) :]
        for content in [message.content for message in new]:
            text = content[0].text if content else shown
            if text != shown and text.rstrip("\ufffd") == shown.rstrip("\ufffd"):
                content[0] = content[0].model_copy(update={"text": shown})
        self._messages = self._messages + new


def _is_name(recipient: str | None) -> bool:
    """Whether it has no markup but what older harmony leaves in it and vLLM removes: `functions.f<|constrain|>json`."""
    return recipient is None or "<|" not in recipient.partition("<|constrain|>")[0]


def _without_markup(text: str) -> str:
    """The text without what spells markup, also once it is removed from within other markup."""
    while (shorter := _MARKUP.sub("", text)) != text:
        text = shorter
    return text


def repairing(
    new_parser: Callable[[], RealParser], encoding: Callable[[], Encoding], refusal: type[Exception], count: Count
) -> Callable[[], RepairingParser]:
    """The replacement of a function that makes parsers."""
    return lambda: RepairingParser(new_parser, encoding(), refusal, count)
