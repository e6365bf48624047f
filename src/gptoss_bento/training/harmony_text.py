"""Conversations as the token ids that vLLM feeds GPT-OSS, rendered with OpenAI's own Harmony library.

The prompts follow vLLM's chat, Responses and messages routes, which render alike: a system message, a developer message
when there are instructions or tools, then the turns. Two details are vLLM's own: earlier calls keep the header that
GPT-OSS was trained on, and `VLLM_GPT_OSS_HARMONY_SYSTEM_INSTRUCTIONS` moves instructions into the system message.
"""

import os
import random
from functools import cache, lru_cache
from pathlib import Path

from openai_harmony import (
    Author,
    DeveloperContent,
    HarmonyEncoding,
    HarmonyEncodingName,
    ReasoningEffort,
    RenderOptions,
    Role,
    SystemContent,
    ToolDescription,
    ToolNamespaceConfig,
    load_harmony_encoding,
)
from openai_harmony import Message as HarmonyMessage

from gptoss_bento.training.conversations import Conversation, HostedTool, Lesson, Message, Reply, Span, Text

_EFFORTS = {"low": ReasoningEffort.LOW, "medium": ReasoningEffort.MEDIUM, "high": ReasoningEffort.HIGH}
_ASK_FOR_REPLY = "<|start|>assistant"
MESSAGE = 200008  # <|message|>, which ends a header

_FINAL_HEADER = "<|channel|>final"
_CALL_HEADER = " to=functions.get_weather<|channel|>commentary json"
# What vLLM's grammars force: a call where the model would answer, and (with a JSON schema) the type of the answer.
_FORCED_CALL_HEADERS = ("<|channel|>final", "<|channel|>final", "<|channel|>commentary")
_FORCED_CALL = " to=functions.get_weather json"
_FORCED_JSON = " <|constrain|>json"


def use_vocabulary(vocabulary: Path) -> None:
    """Shows Harmony the folder of `o200k_base.tiktoken`; call it before anything else here.

    Harmony is native code that reads the process environment by itself, so Python's `os.environ` is not involved.
    """
    os.putenv("TIKTOKEN_ENCODINGS_BASE", str(vocabulary.parent))


@cache
def encoding() -> HarmonyEncoding:
    """The Harmony encoding of GPT-OSS."""
    return load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)


@lru_cache(maxsize=10_000)
def encode(text: str) -> tuple[int, ...]:
    """Token ids of a text that may hold special tokens."""
    return tuple(encoding().encode(text, allowed_special="all"))


def prompt_tokens(conversation: Conversation) -> list[int]:
    """The prompt, up to and including the words that ask for the assistant's reply."""
    return _prompt(conversation)[0]


def reply_tokens(reply: Reply, rng: random.Random) -> tuple[list[int], list[Lesson]]:
    """The reply's tokens, and what each of them teaches."""
    spans = [
        Span(f"<|channel|>analysis<|message|>{reply.thought}<|end|>{_ASK_FOR_REPLY}"),
        *_header(reply, rng),
        Span("<|message|>"),
        *reply.spans,
        Span("<|call|>" if reply.kind == "call" else "<|return|>"),
    ]
    return _encode_spans(spans)


def example_tokens(example: Conversation | Text, rng: random.Random) -> tuple[list[int], list[Lesson]]:
    """A whole training example: its tokens, and what each of them teaches."""
    if isinstance(example, Text):
        return _encode_spans([Span(example.prompt, Lesson.READ), Span(example.rest), Span("<|endoftext|>")])
    prompt, lessons_of_prompt = _prompt(example)
    reply, lessons_of_reply = reply_tokens(example.reply, rng)
    return prompt + reply, lessons_of_prompt + lessons_of_reply


def _prompt(conversation: Conversation) -> tuple[list[int], list[Lesson]]:
    tokens = _preamble(conversation)
    lessons = [Lesson.READ] * len(tokens)
    for message in conversation.messages:
        turn = _message_tokens(message)
        tokens += turn
        said = Lesson.SAY if message.learned else Lesson.READ
        header = 0 if message.kind == "hosted call" else turn.index(MESSAGE)
        lessons += [said if index > header else Lesson.READ for index in range(len(turn))]
    ask = encode(_ASK_FOR_REPLY)
    return [*tokens, *ask], lessons + [Lesson.READ] * len(ask)


def _preamble(conversation: Conversation) -> list[int]:
    system = _render(_system_message(conversation), has_tools=bool(conversation.tools))
    developer = _developer_message(conversation)
    return system + (_render(developer) if developer else [])


def _encode_spans(spans: list[Span]) -> tuple[list[int], list[Lesson]]:
    tokens: list[int] = []
    lessons: list[Lesson] = []
    for span in spans:
        ids = encode(span.text)
        tokens += ids
        lessons += [span.lesson] * len(ids)
    return tokens, lessons


def _header(reply: Reply, rng: random.Random) -> list[Span]:
    """What comes before the content, up to its <|message|>."""
    if reply.kind == "final":
        return [Span(_FINAL_HEADER)]
    if reply.kind == "json":
        return [Span(_FINAL_HEADER), Span(_FORCED_JSON, Lesson.SAY_IF_FORCED)]
    if not reply.forced:
        return [Span(_CALL_HEADER)]
    return [Span(rng.choice(_FORCED_CALL_HEADERS), Lesson.READ), Span(_FORCED_CALL, Lesson.SAY_IF_FORCED)]


def _render(message: HarmonyMessage, has_tools: bool = False) -> list[int]:
    """Tokens of one message; with tools, Harmony adds a line on them to the system message."""
    tokens: list[int] = encoding().render(message, RenderOptions(conversation_has_function_tools=has_tools))
    return tokens


def _system_message(conversation: Conversation) -> HarmonyMessage:
    content = SystemContent.new().with_conversation_start_date(conversation.date)
    if conversation.effort:
        content = content.with_reasoning_effort(_EFFORTS[conversation.effort])
    if conversation.instructions and conversation.instructions_in_system:
        content = content.with_model_identity(f"{content.model_identity}\n{conversation.instructions}")
    for tool in conversation.hosted:
        content = content.with_tools(_namespace(tool))
    return HarmonyMessage.from_role_and_content(Role.SYSTEM, content)


def _namespace(tool: HostedTool) -> ToolNamespaceConfig:
    """The tool as a system message has it."""
    usual = ToolNamespaceConfig.python() if tool.name == "python" else ToolNamespaceConfig.browser()
    functions = [each for each in usual.tools if each.name in tool.functions] if tool.functions else usual.tools
    return ToolNamespaceConfig(name=tool.name, description=tool.description or usual.description, tools=functions)


def _developer_message(conversation: Conversation) -> HarmonyMessage | None:
    content = DeveloperContent.new()
    instructions = None if conversation.instructions_in_system else conversation.instructions
    if instructions:
        content = content.with_instructions(instructions)
    if conversation.tools:
        tools = [ToolDescription.new(tool.name, tool.description, tool.parameters) for tool in conversation.tools]
        content = content.with_function_tools(tools)
    if not instructions and not conversation.tools:
        return None
    return HarmonyMessage.from_role_and_content(Role.DEVELOPER, content)


@lru_cache(maxsize=10_000)
def _message_tokens(message: Message) -> tuple[int, ...]:
    """One turn of the prompt."""
    if message.header:
        end = "<|call|>" if message.kind == "hosted call" else "<|end|>"
        return (
            *encode(f"<|start|>{message.header}<|message|>"),
            *encoding().encode(message.text),
            *encode(end),
        )
    if message.kind == "call":
        header = f"{_ASK_FOR_REPLY} to=functions.get_weather<|channel|>commentary json<|message|>"
        return (*encode(header), *encoding().encode(message.text), *encode("<|call|>"))
    return tuple(_render(_harmony_message(message)))


def _harmony_message(message: Message) -> HarmonyMessage:
    if message.kind == "user":
        return HarmonyMessage.from_role_and_content(Role.USER, message.text)
    if message.kind == "instructions":
        content = DeveloperContent.new().with_instructions(message.text)
        return HarmonyMessage.from_role_and_content(Role.DEVELOPER, content)
    if message.kind == "tool":
        author = Author.new(Role.TOOL, "functions.get_weather")
        return (
            HarmonyMessage.from_author_and_content(author, message.text)
            .with_channel("commentary")
            .with_recipient("assistant")
        )
    return HarmonyMessage.from_role_and_content(Role.ASSISTANT, message.text).with_channel(message.kind)
